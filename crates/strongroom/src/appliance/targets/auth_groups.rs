//! `strongroom target auth-group`: who may log in to targets.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::chap::ChapArgs;
use crate::appliance::list::{LANGUAGE, SearchArgs};
use crate::appliance::one::{self, one_args};
use crate::appliance::operation::{OnceArgs, operations};
use crate::appliance::orgs::ORGANISATIONS;
use crate::appliance::resource::{self, Resource};
use crate::appliance::{ApplianceArgs, named};
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};

operations! {
    CREATE = "auth_groups.create", POST "/v1/auth-groups", by "target auth-group create";
    SHOW = "auth_groups.show", GET "/v1/auth-groups/{auth_group}", by "target auth-group show";
    CHANGE = "auth_groups.change", PATCH "/v1/auth-groups/{auth_group}",
        by "target auth-group change";
    REMOVE = "auth_groups.remove", DELETE "/v1/auth-groups/{auth_group}",
        by "target auth-group delete";
    SECRETS = "auth_groups.secrets", GET "/v1/auth-groups/{auth_group}/secrets",
        by "target auth-group secrets";
    ADD = "auth_groups.add_initiator", POST "/v1/auth-groups/{auth_group}/initiators",
        by "target auth-group add-initiator";
    REMOVE_INITIATOR = "auth_groups.remove_initiator",
        DELETE "/v1/auth-groups/{auth_group}/initiators/{initiator}",
        by "target auth-group remove-initiator";
}

/// Auth groups.
pub(crate) static AUTH_GROUPS: Resource = Resource {
    one: "auth group",
    path: "/v1/auth-groups",
    id: "auth_groups.list",
    command: "target auth-group list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        ("CHAP USER", "chap_user"),
        ("MUTUAL USER", "mutual_user"),
        (">INITIATORS", "initiator_count"),
        (">TARGETS", "target_count"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Create(CreateArgs),
    Change(ChangeArgs),
    Delete(DeleteArgs),
    Secrets(SecretsArgs),
    AddInitiator(AddArgs),
    RemoveInitiator(RemoveArgs),
}

/// List auth groups
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Example:
  strongroom target auth-group list"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The auth group's name or number", group of AUTH_GROUPS);

/// Show an auth group and whom it names, without its secrets
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target auth-group show web")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make an auth group
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without --chap and --initiator it lets in everybody who reaches its targets.

Examples:
  strongroom target auth-group create web --chap-file chap.txt
  strongroom target auth-group create db --chap user:secretsecret12 --initiator iqn.2026-11.org.example:db1")]
pub(crate) struct CreateArgs {
    /// Its name: letters, digits, `-`, `_` and `.`
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    chap: ChapArgs,
    /// Only initiators of this name may log in; may be given several times
    #[arg(long, value_name = "IQN")]
    initiator: Vec<String>,
    /// Whose it will be, by name or number [default: yours]
    #[arg(long)]
    org: Option<String>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Change the name of an auth group, and what is proved; initiators that are logged in stay so
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom target auth-group change web --chap-file chap.txt
  strongroom target auth-group change web --no-mutual")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    chap: ChapArgs,
    /// Initiators prove nothing any more
    #[arg(long, conflicts_with_all = ["chap", "chap_file"])]
    no_chap: bool,
    /// Targets prove nothing any more
    #[arg(long, conflicts_with_all = ["mutual", "mutual_file"])]
    no_mutual: bool,
    /// Let targets be reached from other machines by whoever proves nothing
    #[arg(long)]
    open: bool,
}

/// Remove an auth group that no target has
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target auth-group delete web --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Show the secrets of an auth group; that is written to the audit trail
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target auth-group secrets web")]
pub(crate) struct SecretsArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Have an auth group name an initiator; the first one that it names keeps all others out
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target auth-group add-initiator web iqn.2026-11.org.example:web1 --alias web1")]
pub(crate) struct AddArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The initiator's name in iSCSI
    iqn: String,
    /// What you call it
    #[arg(long, default_value = "")]
    alias: String,
    #[command(flatten)]
    once: OnceArgs,
}

/// Have an auth group name an initiator no more; it stays logged in where it is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target auth-group remove-initiator web iqn.2026-11.org.example:web1")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The initiator's name in iSCSI
    iqn: String,
    /// Although everybody may log in then
    #[arg(long)]
    open: bool,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            return args.search.run(context, &args.appliance.client()?, &AUTH_GROUPS);
        }
        Command::Show(args) => one::show(context, &AUTH_GROUPS, &SHOW, args.one.find()?)?,
        Command::Create(args) => {
            let client = args.appliance.client()?;
            let mut body = json!({ "name": args.name, "initiators": args.initiator });
            args.chap.add_to(&mut body)?;
            if let Some(org) = &args.org {
                body["organisation_id"] = json!(named::id(&client, &ORGANISATIONS, org)?);
            }
            let group: Value = CREATE.make(&client, &[], &body, &args.once)?;
            context.out.done(group, &format!("made the auth group {}", args.name))?;
        }
        Command::Change(args) => change(context, args)?,
        Command::Delete(args) => {
            one::remove(
                context,
                &AUTH_GROUPS,
                &REMOVE,
                args.one.find()?,
                &args.one.group,
                &args.yes,
            )?;
        }
        Command::Secrets(args) => {
            let (client, group) = args.one.find()?;
            let secrets: Value = SECRETS.ask(&client, &[&group])?;
            context.out.report(None, secrets.clone(), |out| {
                resource::describe(out, &["chap", "mutual"], &secrets)
            })?;
        }
        Command::AddInitiator(args) => {
            let (client, group) = args.one.find()?;
            let body = json!({ "iqn": args.iqn, "alias": args.alias });
            let group: Value = ADD.make(&client, &[&group], &body, &args.once)?;
            let text = format!("the auth group {} names {}", args.one.group, args.iqn);
            context.out.done(group, &text)?;
        }
        Command::RemoveInitiator(args) => {
            let (client, group) = args.one.find()?;
            let query = [("open", if args.open { "true" } else { "false" })];
            let call = REMOVE_INITIATOR.call(&[&group, &args.iqn]).queried(&query);
            let group: Value = client.call(&call)?;
            let text = format!("the auth group {} names {} no more", args.one.group, args.iqn);
            context.out.done(group, &text)?;
        }
    }
    Ok(Done::Well)
}

fn change(context: &Context, args: &ChangeArgs) -> Result<()> {
    let mut body = json!({});
    if let Some(name) = &args.name {
        body["name"] = json!(name);
    }
    args.chap.add_to(&mut body)?;
    if args.no_chap {
        body["chap"] = Value::Null;
    }
    if args.no_mutual {
        body["mutual"] = Value::Null;
    }
    if body.as_object().is_some_and(serde_json::Map::is_empty) {
        return Err(usage(
            "nothing to change: give --name, --chap, --mutual, --no-chap or --no-mutual",
        ));
    }
    body["open"] = json!(args.open);
    let (client, group) = args.one.find()?;
    let group: Value = CHANGE.send(&client, &[&group], &body)?;
    context.out.done(group, &format!("changed the auth group {}", args.one.group))?;
    Ok(())
}
