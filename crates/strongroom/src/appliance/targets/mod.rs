//! `strongroom target`: by which initiators reach volumes over iSCSI.

pub(crate) mod auth_groups;
mod chap;
mod luns;
pub(crate) mod portal_groups;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use self::auth_groups::AUTH_GROUPS;
use self::chap::ChapArgs;
use self::portal_groups::PORTAL_GROUPS;
use super::ApplianceArgs;
use super::list::{LANGUAGE, SearchArgs};
use super::named;
use super::one::{self, one_args};
use super::operation::{OnceArgs, forced, operations};
use super::orgs::ORGANISATIONS;
use super::resource::Resource;
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};

operations! {
    CREATE = "targets.create", POST "/v1/targets", by "target create";
    SHOW = "targets.show", GET "/v1/targets/{target}", by "target show";
    CHANGE = "targets.change", PATCH "/v1/targets/{target}", by "target change";
    REMOVE = "targets.remove", DELETE "/v1/targets/{target}", by "target delete";
    LUNS = "targets.luns", GET "/v1/targets/{target}/luns", by "target luns";
    MAP = "targets.map", POST "/v1/targets/{target}/luns", by "target map";
    UNMAP = "targets.unmap", DELETE "/v1/targets/{target}/luns/{lun}", by "target unmap";
    SESSIONS = "targets.sessions", GET "/v1/targets/{target}/sessions", by "target sessions";
}

/// Targets.
pub(crate) static TARGETS: Resource = Resource {
    one: "target",
    path: "/v1/targets",
    id: "targets.list",
    command: "target list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        ("STATE", "state"),
        (">LUNS", "luns"),
        ("AUTH GROUP", "auth_group"),
        ("PORTAL GROUP", "portal_group"),
        ("IQN", "iqn"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Create(Box<CreateArgs>),
    Change(ChangeArgs),
    Rename(RenameArgs),
    Delete(DeleteArgs),
    Map(luns::MapArgs),
    Unmap(luns::UnmapArgs),
    Luns(luns::LunsArgs),
    Sessions(luns::SessionsArgs),
    /// Say who may log in to targets
    AuthGroup {
        #[command(subcommand)]
        command: auth_groups::Command,
    },
    /// Say where targets are reached
    PortalGroup {
        #[command(subcommand)]
        command: portal_groups::Command,
    },
}

/// List targets
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom target list
  strongroom target list --filter enabled:==true --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The target's name or number", target of TARGETS);

/// Show a target, how it fares, its volumes, and who is logged in
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target show t1")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make a target
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It is served at once, at 127.0.0.1:3260 unless another portal group is said, and has no volumes until
some are mapped. --chap, --mutual and --initiator make an auth group of the target's name. A target that
other machines reach needs CHAP, or --open.

Examples:
  strongroom target create t1 --chap user:secretsecret12
  strongroom target create db --chap-file chap.txt --initiator iqn.2026-11.org.example:db1
  strongroom target create web --auth-group web --portal-group lan")]
pub(crate) struct CreateArgs {
    /// Its name: letters, digits, `-`, `_` and `.`
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Its name in iSCSI [default: made of the machine's name and its own]
    #[arg(long)]
    iqn: Option<String>,
    #[command(flatten)]
    chap: ChapArgs,
    /// Only initiators of this name may log in; may be given several times
    #[arg(long, value_name = "IQN")]
    initiator: Vec<String>,
    /// Who may log in, by an auth group's name or number
    #[arg(long, value_name = "GROUP")]
    auth_group: Option<String>,
    /// Where it is reached, by a portal group's name or number [default: default]
    #[arg(long, value_name = "GROUP")]
    portal_group: Option<String>,
    /// Whose it will be, by name or number [default: yours]
    #[arg(long)]
    org: Option<String>,
    /// Don't serve it yet
    #[arg(long)]
    disabled: bool,
    /// Let it be reached from other machines by whoever proves nothing
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    once: OnceArgs,
}

/// Change who may log in to a target, where it is reached, and whether it is served
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Initiators that are logged in stay so, unless it goes to another portal group or is no longer served.

Examples:
  strongroom target change t1 --auth-group web
  strongroom target change t1 --disable --force")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Who may log in, by an auth group's name or number
    #[arg(long, value_name = "GROUP")]
    auth_group: Option<String>,
    /// Let everybody log in
    #[arg(long, conflicts_with = "auth_group")]
    no_auth_group: bool,
    /// Where it is reached, by a portal group's name or number
    #[arg(long, value_name = "GROUP")]
    portal_group: Option<String>,
    /// Serve it
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Serve it no more
    #[arg(long)]
    disable: bool,
    /// Let it be reached from other machines by whoever proves nothing
    #[arg(long)]
    open: bool,
    /// Although initiators are logged in that will be logged out
    #[arg(long)]
    force: bool,
}

/// Give a target another name; its name in iSCSI stays
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom target rename t1 web")]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    name: String,
}

/// Remove a target; its volumes and its auth group stay
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom target delete t1 --yes
  strongroom target delete t1 --force --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Although volumes are mapped or initiators are logged in
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            return args.search.run(context, &args.appliance.client()?, &TARGETS);
        }
        Command::Show(args) => one::show(context, &TARGETS, &SHOW, args.one.find()?)?,
        Command::Create(args) => create(context, args)?,
        Command::Change(args) => change(context, args)?,
        Command::Rename(args) => {
            let (client, target) = args.one.find()?;
            let target: Value = CHANGE.send(&client, &[&target], &json!({ "name": args.name }))?;
            let text = format!("the target {} is called {}", args.one.target, args.name);
            context.out.done(target, &text)?;
        }
        Command::Delete(args) => {
            let (client, target) = args.one.find()?;
            args.yes.confirm(&format!("Remove the target {}", args.one.target))?;
            let query = forced(args.force);
            client.call::<()>(&REMOVE.call(&[&target]).queried(&query))?;
            let document = json!({ "removed": target.parse::<i64>()? });
            context.out.done(document, &format!("removed the target {}", args.one.target))?;
        }
        Command::Map(args) => luns::map(context, args)?,
        Command::Unmap(args) => luns::unmap(context, args)?,
        Command::Luns(args) => luns::list(context, args)?,
        Command::Sessions(args) => luns::sessions(context, args)?,
        Command::AuthGroup { command } => return auth_groups::run(context, command),
        Command::PortalGroup { command } => return portal_groups::run(context, command),
    }
    Ok(Done::Well)
}

fn create(context: &Context, args: &CreateArgs) -> Result<()> {
    if args.auth_group.is_some() && (args.chap.is_given() || !args.initiator.is_empty()) {
        return Err(usage(
            "a target has one auth group: give --auth-group, or --chap, --mutual and --initiator",
        ));
    }
    let client = args.appliance.client()?;
    let mut body = json!({
        "name": args.name,
        "initiators": args.initiator,
        "enabled": !args.disabled,
        "open": args.open,
    });
    args.chap.add_to(&mut body)?;
    if let Some(iqn) = &args.iqn {
        body["iqn"] = json!(iqn);
    }
    let groups = [
        ("auth_group_id", &args.auth_group, &AUTH_GROUPS),
        ("portal_group_id", &args.portal_group, &PORTAL_GROUPS),
        ("organisation_id", &args.org, &ORGANISATIONS),
    ];
    for (field, name, of) in groups {
        if let Some(name) = name {
            body[field] = json!(named::id(&client, of, name)?);
        }
    }
    let target: Value = CREATE.make(&client, &[], &body, &args.once)?;
    told(context, &format!("made the target {}", args.name), target)
}

fn change(context: &Context, args: &ChangeArgs) -> Result<()> {
    let (client, target) = args.one.find()?;
    let mut body = json!({});
    if let Some(name) = &args.auth_group {
        body["auth_group_id"] = json!(named::id(&client, &AUTH_GROUPS, name)?);
    }
    if args.no_auth_group {
        body["auth_group_id"] = Value::Null;
    }
    if let Some(name) = &args.portal_group {
        body["portal_group_id"] = json!(named::id(&client, &PORTAL_GROUPS, name)?);
    }
    if args.enable || args.disable {
        body["enabled"] = json!(args.enable);
    }
    if body.as_object().is_some_and(serde_json::Map::is_empty) {
        return Err(usage(
            "nothing to change: give --auth-group, --no-auth-group, --portal-group, --enable or \
             --disable",
        ));
    }
    body["open"] = json!(args.open);
    body["force"] = json!(args.force);
    let target: Value = CHANGE.send(&client, &[&target], &body)?;
    told(context, &format!("changed the target {}", args.one.target), target)
}

/// Says what was done, where the target is reached, and what is in the way.
fn told(context: &Context, done: &str, target: Value) -> Result<()> {
    let text = |field: &str| target[field].as_str().unwrap_or_default().to_owned();
    let (iqn, trouble) = (text("iqn"), text("trouble"));
    let portals = target["portals"].as_array().cloned().unwrap_or_default();
    let portals: Vec<_> = portals.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    context.out.summary(None, target, |out| {
        writeln!(out, "{done}")?;
        writeln!(out, "  {iqn} at {}", portals.join(", "))?;
        if !trouble.is_empty() {
            writeln!(out, "  it is not served yet: {trouble}")?;
        }
        Ok(())
    })?;
    Ok(())
}
