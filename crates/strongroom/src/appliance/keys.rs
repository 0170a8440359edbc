//! `strongroom keys`: API keys, for programs.

use anyhow::{Context as _, Result};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::ApplianceArgs;
use super::list::{LANGUAGE, SearchArgs};
use super::named;
use super::one::{self, one_args};
use super::operation::{OnceArgs, operations};
use super::pools::POOLS;
use super::resource::Resource;
use super::users::USERS;
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::parse::{self, Moment};

operations! {
    CREATE = "keys.create", POST "/v1/keys", by "keys create";
    SHOW = "keys.show", GET "/v1/keys/{key}", by "keys show";
    CHANGE = "keys.change", PATCH "/v1/keys/{key}", by "keys change";
    REMOVE = "keys.remove", DELETE "/v1/keys/{key}", by "keys delete";
    REVEAL = "keys.reveal", POST "/v1/keys/{key}/reveal", by "keys reveal";
}

/// API keys.
pub(crate) static KEYS: Resource = Resource {
    one: "key",
    path: "/v1/keys",
    id: "keys.list",
    command: "keys list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        (">USER", "user_id"),
        ("PREFIX", "prefix"),
        ("ENABLED", "enabled"),
        ("EXPIRES", "expires_at"),
        ("LAST USED", "last_used_at"),
        ("DIALECT", "dialect"),
        ("POOLS", "pools"),
        ("OPERATIONS", "operations"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Create(Box<CreateArgs>),
    Change(Box<ChangeArgs>),
    Rename(RenameArgs),
    Enable(EnableArgs),
    Disable(DisableArgs),
    Rotate(RotateArgs),
    Reveal(RevealArgs),
    Delete(DeleteArgs),
}

/// List API keys, without what is secret of them
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom keys list
  strongroom keys list --filter enabled:==false --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The key's name or number", key of KEYS);

/// Show what is known of a key
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom keys show monitoring")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make a key, and print it once
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A key can do what its user can, and no more than it was made for: only some rights, some pools, some
operations of the API (their ids stand in the API's documentation). It is sent as
`Authorization: Bearer KEY`.

With --dialect it is for scripts that were written for another product, and for nothing else; what it
may be allowed there stands in that dialect's page of the documentation (docs/dialects). Such a key
can be shown again: `strongroom keys reveal`.

Examples:
  strongroom keys create csi --user robot --dialect ngx --pool nvme1 --allow lun.read --allow pool.read
  strongroom keys create monitoring --user robot --operation pools.list --operation jobs.list
  strongroom keys create branch --user robot --pool main --expires 90d
  strongroom keys create watch --user robot --right job.view --expires 2027-01-01 --json")]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Whose it will be, by name or number [default: yours]
    #[arg(long)]
    user: Option<String>,
    /// When it ends: a time, or how long from now, like 90d [default: never]
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse::moment)]
    expires: Option<Moment>,
    /// Only this right; may be given several times
    #[arg(long)]
    right: Vec<String>,
    /// Only this pool, by name or number; may be given several times
    #[arg(long)]
    pool: Vec<String>,
    /// Only this operation, by its id; may be given several times
    #[arg(long, value_name = "ID", visible_alias = "allow")]
    operation: Vec<String>,
    /// For this dialect, and for nothing else: ngx
    #[arg(long, conflicts_with = "signing")]
    dialect: Option<String>,
    /// Let requests be signed with it (RFC 9421): it is kept sealed, not as a hash alone
    #[arg(long)]
    signing: bool,
    #[command(flatten)]
    once: OnceArgs,
}

/// Change a key: its name, when it ends, what it is for
#[derive(clap::Args, Debug)]
#[command(
    visible_alias = "update",
    after_help = "\
What is not named stays as it is; what is given takes the place of all that was there. A key can do
no more than its user, whatever it is for.

Examples:
  strongroom keys change monitoring --expires 90d
  strongroom keys change monitoring --operation pools.list --operation jobs.list --any-right
  strongroom keys change branch --pool main --never-expires"
)]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// When it ends: a time, or how long from now, like 90d
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse::moment)]
    expires: Option<Moment>,
    /// It never ends
    #[arg(long, conflicts_with = "expires")]
    never_expires: bool,
    /// Only this right; may be given several times
    #[arg(long)]
    right: Vec<String>,
    /// All rights that its user has
    #[arg(long, conflicts_with = "right")]
    any_right: bool,
    /// Only this pool, by name or number; may be given several times
    #[arg(long)]
    pool: Vec<String>,
    /// All pools
    #[arg(long, conflicts_with = "pool")]
    any_pool: bool,
    /// Only this operation, by its id; may be given several times
    #[arg(long, value_name = "ID", visible_alias = "allow")]
    operation: Vec<String>,
    /// All operations
    #[arg(long, conflicts_with = "operation")]
    any_operation: bool,
}

/// Give a key another name
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom keys rename monitoring metrics")]
pub(crate) struct RenameArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    name: String,
}

/// Let a key be used again
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom keys enable monitoring")]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Don't let a key be used
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom keys disable monitoring")]
pub(crate) struct DisableArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make a new key like this one, print it once, and remove this one
#[derive(clap::Args, Debug)]
#[command(after_help = "\
With --keep-old the old key stays as it is, until you remove it.

Examples:
  strongroom keys rotate monitoring --yes
  strongroom keys rotate monitoring --keep-old")]
pub(crate) struct RotateArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Leave the old key as it is
    #[arg(long)]
    keep_old: bool,
    #[command(flatten)]
    yes: YesArgs,
}

/// Show the secret of a key again, which is written to the audit trail
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Only keys for a dialect and keys that sign requests are kept so that this can be done. It takes the
right `key.manage`.

Example:
  strongroom keys reveal csi")]
pub(crate) struct RevealArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Remove a key
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom keys delete monitoring --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => return args.search.run(context, &args.appliance.client()?, &KEYS),
        Command::Show(args) => one::show(context, &KEYS, &SHOW, args.one.find()?)?,
        Command::Create(args) => create(context, args)?,
        Command::Change(args) => change_all(context, args)?,
        Command::Rename(args) => {
            let text = format!("the key {} is called {} now", args.one.key, args.name);
            change(context, &args.one, &json!({ "name": args.name }), &text)?;
        }
        Command::Enable(EnableArgs { one }) => {
            let text = format!("the key {} can be used", one.key);
            change(context, one, &json!({ "enabled": true }), &text)?;
        }
        Command::Disable(DisableArgs { one }) => {
            let text = format!("the key {} can't be used", one.key);
            change(context, one, &json!({ "enabled": false }), &text)?;
        }
        Command::Rotate(args) => rotate(context, args)?,
        Command::Reveal(args) => {
            let (client, key) = args.one.find()?;
            let shown: Value = REVEAL.ask(&client, &[&key])?;
            let text = shown["secret"].as_str().unwrap_or_default().to_owned();
            context.out.report(None, shown, |out| writeln!(out, "key  {text}"))?;
        }
        Command::Delete(args) => {
            one::remove(context, &KEYS, &REMOVE, args.one.find()?, &args.one.key, &args.yes)?;
        }
    }
    Ok(Done::Well)
}

fn change(context: &Context, one: &OneArgs, body: &Value, text: &str) -> Result<()> {
    let (client, key) = one.find()?;
    let key: Value = CHANGE.send(&client, &[&key], body)?;
    Ok(context.out.done(key, text)?)
}

fn change_all(context: &Context, args: &ChangeArgs) -> Result<()> {
    let mut body = serde_json::Map::new();
    let mut set = |field: &str, value: Option<Value>, none: bool| {
        if let Some(value) = value.or(none.then_some(Value::Null)) {
            body.insert(field.to_owned(), value);
        }
    };
    let expires = args.expires.map(|moment| moment.from(Timestamp::now())).transpose();
    let pools = match args.pool.is_empty() {
        true => None,
        false => Some(json!(named::ids(&args.one.appliance.client()?, &POOLS, &args.pool)?)),
    };
    set("name", args.name.clone().map(Value::from), false);
    let expires = expires.map_err(usage)?.map(|at| at.to_string());
    set("expires_at", expires.map(Value::from), args.never_expires);
    set("rights", some(&args.right).map(|rights| json!(rights)), args.any_right);
    set("pools", pools, args.any_pool);
    set("operations", some(&args.operation).map(|ids| json!(ids)), args.any_operation);
    if body.is_empty() {
        return Err(usage("nothing to change: say what, see --help"));
    }
    change(context, &args.one, &body.into(), &format!("changed the key {}", args.one.key))
}

fn create(context: &Context, args: &CreateArgs) -> Result<()> {
    let client = args.appliance.client()?;
    let user = args.user.as_ref().map(|user| named::id(&client, &USERS, user)).transpose()?;
    let pools = named::ids(&client, &POOLS, &args.pool)?;
    let expires = args.expires.map(|moment| moment.from(Timestamp::now())).transpose();
    let body = json!({
        "name": args.name,
        "user_id": user,
        "expires_at": expires.map_err(usage)?.map(|at| at.to_string()),
        "rights": some(&args.right),
        "pools": some(&pools),
        "operations": some(&args.operation),
        "dialect": args.dialect,
        "signing": args.signing,
    });
    tell(context, &CREATE.make(&client, &[], &body, &args.once)?)
}

/// Nothing narrows a key when nothing was said.
fn some<T>(items: &[T]) -> Option<&[T]> {
    Some(items).filter(|items| !items.is_empty())
}

/// Tells of a key that was made, with its secret.
fn tell(context: &Context, made: &Value) -> Result<()> {
    context.out.report(None, made.clone(), |out| {
        writeln!(
            out,
            "made the key {} with the number {}",
            made["key"]["name"], made["key"]["id"]
        )?;
        writeln!(out, "key  {}", made["secret"].as_str().unwrap_or_default())?;
        match made["key"]["revealable"] == true {
            true => writeln!(out, "`strongroom keys reveal` shows it again."),
            false => writeln!(out, "It is shown this once."),
        }
    })?;
    Ok(())
}

fn rotate(context: &Context, args: &RotateArgs) -> Result<()> {
    let (client, number) = args.one.find()?;
    let old: Value = SHOW.ask(&client, &[&number])?;
    if !args.keep_old {
        args.yes.confirm(&format!("Put a new key in the place of {}", args.one.key))?;
    }
    let fields =
        ["name", "user_id", "expires_at", "rights", "pools", "operations", "dialect", "signing"];
    let body: Value = fields.iter().map(|field| (*field, old[*field].clone())).collect();
    let made: Value = CREATE.make(&client, &[], &body, &OnceArgs::default())?;
    // Before the old one goes: who is stopped here has both, and not neither.
    tell(context, &made)?;
    if !args.keep_old {
        REMOVE.ask::<()>(&client, &[&number]).context("the new key is made, the old one stays")?;
    }
    Ok(())
}
