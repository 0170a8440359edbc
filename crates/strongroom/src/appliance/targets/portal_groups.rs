//! `strongroom target portal-group`: where targets are reached.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::appliance::ApplianceArgs;
use crate::appliance::list::{LANGUAGE, SearchArgs};
use crate::appliance::one::{self, one_args};
use crate::appliance::operation::{OnceArgs, operations};
use crate::appliance::resource::Resource;
use crate::ask::YesArgs;
use crate::exit::{Context, Done};

operations! {
    CREATE = "portal_groups.create", POST "/v1/portal-groups", by "target portal-group create";
    SHOW = "portal_groups.show", GET "/v1/portal-groups/{portal_group}",
        by "target portal-group show";
    RENAME = "portal_groups.rename", PATCH "/v1/portal-groups/{portal_group}",
        by "target portal-group rename";
    REMOVE = "portal_groups.remove", DELETE "/v1/portal-groups/{portal_group}",
        by "target portal-group delete";
    ADD = "portal_groups.add_portal", POST "/v1/portal-groups/{portal_group}/portals",
        by "target portal-group add-portal";
    REMOVE_PORTAL = "portal_groups.remove_portal",
        DELETE "/v1/portal-groups/{portal_group}/portals/{portal}",
        by "target portal-group remove-portal";
}

/// Portal groups.
pub(crate) static PORTAL_GROUPS: Resource = Resource {
    one: "portal group",
    path: "/v1/portal-groups",
    id: "portal_groups.list",
    command: "target portal-group list",
    columns: &[(">ID", "id"), ("NAME", "name"), (">TARGETS", "target_count")],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Create(CreateArgs),
    Rename(RenameArgs),
    Delete(DeleteArgs),
    AddPortal(AddArgs),
    RemovePortal(RemoveArgs),
}

/// List portal groups
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Example:
  strongroom target portal-group list"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The portal group's name or number", group of PORTAL_GROUPS);

/// Show a portal group, its addresses, and whether the appliance listens there
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target portal-group show default")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make a portal group
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The appliance listens at its addresses while a target is enabled there. What goes over them is not
encrypted: use a network that you trust.

Example:
  strongroom target portal-group create lan --portal 192.0.2.7:3260 --portal '[2001:db8::7]:3260'")]
pub(crate) struct CreateArgs {
    /// Its name: letters, digits, `-`, `_` and `.`
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// An address of the appliance; 0.0.0.0 stands for all; may be given several times
    #[arg(long, value_name = "ADDRESS:PORT")]
    portal: Vec<String>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Give a portal group another name
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target portal-group rename lan storage")]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    name: String,
}

/// Remove a portal group that no target has
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target portal-group delete lan --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Give a portal group another address as well
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target portal-group add-portal lan 192.0.2.8:3260")]
pub(crate) struct AddArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The address and the port
    #[arg(value_name = "ADDRESS:PORT")]
    portal: String,
    /// Let targets be reached there from other machines by whoever proves nothing
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    once: OnceArgs,
}

/// Take an address from a portal group; initiators that came in by it stay logged in
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target portal-group remove-portal lan 192.0.2.8:3260")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The address and the port
    #[arg(value_name = "ADDRESS:PORT")]
    portal: String,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            return args.search.run(context, &args.appliance.client()?, &PORTAL_GROUPS);
        }
        Command::Show(args) => one::show(context, &PORTAL_GROUPS, &SHOW, args.one.find()?)?,
        Command::Create(args) => {
            let body = json!({ "name": args.name, "portals": args.portal });
            let group: Value = CREATE.make(&args.appliance.client()?, &[], &body, &args.once)?;
            context.out.done(group, &format!("made the portal group {}", args.name))?;
        }
        Command::Rename(args) => {
            let (client, group) = args.one.find()?;
            let group: Value = RENAME.send(&client, &[&group], &json!({ "name": args.name }))?;
            let text = format!("the portal group {} is called {}", args.one.group, args.name);
            context.out.done(group, &text)?;
        }
        Command::Delete(args) => {
            one::remove(
                context,
                &PORTAL_GROUPS,
                &REMOVE,
                args.one.find()?,
                &args.one.group,
                &args.yes,
            )?;
        }
        Command::AddPortal(args) => {
            let (client, group) = args.one.find()?;
            let body = json!({ "address": args.portal, "open": args.open });
            let group: Value = ADD.make(&client, &[&group], &body, &args.once)?;
            let text = format!("the portal group {} has {}", args.one.group, args.portal);
            context.out.done(group, &text)?;
        }
        Command::RemovePortal(args) => {
            let (client, group) = args.one.find()?;
            let group: Value = REMOVE_PORTAL.ask(&client, &[&group, &args.portal])?;
            let text = format!("the portal group {} has {} no more", args.one.group, args.portal);
            context.out.done(group, &text)?;
        }
    }
    Ok(Done::Well)
}
