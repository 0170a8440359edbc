//! `strongroom roles`: sets of rights, under a name.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::Client;
use strongroom_client::types::Role;

use super::ApplianceArgs;
use super::list::{LANGUAGE, SearchArgs};
use super::one::{self, one_args};
use super::operation::{OnceArgs, operations};
use super::resource::Resource;
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::output::{print_table, table};

operations! {
    CREATE = "roles.create", POST "/v1/roles", by "roles create";
    SHOW = "roles.show", GET "/v1/roles/{role}", by "roles show";
    CHANGE = "roles.change", PUT "/v1/roles/{role}", by "roles change";
    REMOVE = "roles.remove", DELETE "/v1/roles/{role}", by "roles delete";
    RIGHTS = "rights.list", GET "/v1/rights", by "roles rights";
}

/// Roles.
pub(crate) static ROLES: Resource = Resource {
    one: "role",
    path: "/v1/roles",
    id: "roles.list",
    command: "roles list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        ("BUILT IN", "builtin"),
        ("DESCRIPTION", "description"),
        ("RIGHTS", "rights"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Rights(RightsArgs),
    Create(CreateArgs),
    Change(ChangeArgs),
    Delete(DeleteArgs),
}

/// List roles
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom roles list
  strongroom roles list --filter builtin:==false --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The role's name or number", role of ROLES);

/// Show a role and the rights it gives
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom roles show operator")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// List the rights that there are, and what they let one do
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom roles rights")]
pub(crate) struct RightsArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Make a role
#[derive(clap::Args, Debug)]
#[command(after_help = "\
`strongroom roles rights` tells which rights there are. Nobody can give away rights that they lack.

Example:
  strongroom roles create restorer --right image.view --right image.restore --right job.view")]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// A right that it gives; may be given several times
    #[arg(long, required = true)]
    right: Vec<String>,
    /// What it is for
    #[arg(long, default_value = "")]
    description: String,
    #[command(flatten)]
    once: OnceArgs,
}

/// Change a role; one that is built in stays as it is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
If another changes the role at the same time, one of both is refused and can be run again.

Example:
  strongroom roles change restorer --add-right image.read --remove-right job.view")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    #[arg(long)]
    name: Option<String>,
    /// What it is for
    #[arg(long)]
    description: Option<String>,
    /// Give this right, too; may be given several times
    #[arg(long, value_name = "RIGHT")]
    add_right: Vec<String>,
    /// Give this right no more; may be given several times
    #[arg(long, value_name = "RIGHT")]
    remove_right: Vec<String>,
}

/// Remove a role that nobody has
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom roles delete restorer --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => return args.search.run(context, &args.appliance.client()?, &ROLES),
        Command::Show(args) => one::show(context, &ROLES, &SHOW, args.one.find()?)?,
        Command::Rights(args) => rights(context, &args.appliance.client()?)?,
        Command::Create(args) => {
            let body = json!({
                "name": args.name, "description": args.description, "rights": args.right,
            });
            let role: Value = CREATE.make(&args.appliance.client()?, &[], &body, &args.once)?;
            let text = format!("made the role {} with the number {}", args.name, role["id"]);
            context.out.done(role, &text)?;
        }
        Command::Change(args) => change(context, args)?,
        Command::Delete(args) => {
            one::remove(context, &ROLES, &REMOVE, args.one.find()?, &args.one.role, &args.yes)?;
        }
    }
    Ok(Done::Well)
}

fn rights(context: &Context, client: &Client) -> Result<()> {
    let rights: Value = RIGHTS.ask(client, &[])?;
    let rights = rights["rights"].as_array().cloned().unwrap_or_default();
    if context.out.json {
        return Ok(rights.iter().try_for_each(|right| context.out.document(right))?);
    }
    let mut table = table(&["RIGHT", "LETS ONE"]);
    for right in &rights {
        let text = |field: &str| right[field].as_str().unwrap_or_default().to_owned();
        table.add_row([text("name"), text("description")]);
    }
    Ok(print_table(&mut std::io::stdout().lock(), &table)?)
}

fn change(context: &Context, args: &ChangeArgs) -> Result<()> {
    let nothing = args.name.is_none() && args.description.is_none();
    if nothing && args.add_right.is_empty() && args.remove_right.is_empty() {
        let text = "nothing to change: give --name, --description, --add-right or --remove-right";
        return Err(usage(text));
    }
    let (client, number) = args.one.find()?;
    let role: Role = SHOW.ask(&client, &[&number])?;
    let mut rights = role.rights;
    rights.retain(|right| !args.remove_right.contains(right));
    rights.extend(
        args.add_right.iter().filter(|right| !rights.contains(right)).cloned().collect::<Vec<_>>(),
    );
    let body = json!({
        "name": args.name.as_ref().unwrap_or(&role.name),
        "description": args.description.as_ref().unwrap_or(&role.description),
        "rights": rights,
    });
    let call = CHANGE.call(&[&number]).with(&body)?.of_version(role.version);
    let role: Value = client.call(&call)?;
    context.out.summary(None, role.clone(), |out| {
        writeln!(out, "changed the role")?;
        ROLES.describe(out, &role)
    })?;
    Ok(())
}
