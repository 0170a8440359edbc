//! `strongroom orgs`: organisations, to which users, pools and jobs belong.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::ApplianceArgs;
use super::list::{LANGUAGE, SearchArgs};
use super::named;
use super::one::{self, one_args};
use super::operation::{OnceArgs, operations};
use super::resource::Resource;
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};

operations! {
    CREATE = "organisations.create", POST "/v1/organisations", by "orgs create";
    SHOW = "organisations.show", GET "/v1/organisations/{organisation}", by "orgs show";
    CHANGE = "organisations.change", PATCH "/v1/organisations/{organisation}", by "orgs change";
    REMOVE = "organisations.remove", DELETE "/v1/organisations/{organisation}", by "orgs delete";
}

/// Organisations.
pub(crate) static ORGANISATIONS: Resource = Resource {
    one: "organisation",
    path: "/v1/organisations",
    id: "organisations.list",
    command: "orgs list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        (">PART OF", "parent_id"),
        ("DESCRIPTION", "description"),
        ("MADE", "created_at"),
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
}

/// List organisations
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom orgs list
  strongroom orgs list --keyword branch --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The organisation's name or number", org of ORGANISATIONS);

/// Show an organisation
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom orgs show branch")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make an organisation
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Roles that users have in an organisation hold in all that are part of it.

Example:
  strongroom orgs create branch --description 'The branch by the sea'")]
pub(crate) struct CreateArgs {
    /// Its name
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// What it is
    #[arg(long, default_value = "")]
    description: String,
    /// The one it is part of, by name or number [default: yours]
    #[arg(long, value_name = "ORG")]
    parent: Option<String>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Change an organisation
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom orgs change branch --name 'branch by the sea' --parent 1")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// Its new name
    #[arg(long)]
    name: Option<String>,
    /// What it is
    #[arg(long)]
    description: Option<String>,
    /// The one it is part of, by name or number
    #[arg(long, value_name = "ORG")]
    parent: Option<String>,
}

/// Remove an organisation that nothing belongs to
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom orgs delete branch --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            return args.search.run(context, &args.appliance.client()?, &ORGANISATIONS);
        }
        Command::Show(args) => one::show(context, &ORGANISATIONS, &SHOW, args.one.find()?)?,
        Command::Create(args) => {
            let client = args.appliance.client()?;
            let parent = args.parent.as_ref().map(|org| named::id(&client, &ORGANISATIONS, org));
            let body = json!({
                "name": args.name,
                "description": args.description,
                "parent_id": parent.transpose()?,
            });
            let made: Value = CREATE.make(&client, &[], &body, &args.once)?;
            let text =
                format!("made the organisation {} with the number {}", args.name, made["id"]);
            context.out.done(made, &text)?;
        }
        Command::Change(args) => change(context, args)?,
        Command::Delete(args) => {
            one::remove(
                context,
                &ORGANISATIONS,
                &REMOVE,
                args.one.find()?,
                &args.one.org,
                &args.yes,
            )?;
        }
    }
    Ok(Done::Well)
}

fn change(context: &Context, args: &ChangeArgs) -> Result<()> {
    let (client, number) = args.one.find()?;
    let mut body = Map::new();
    if let Some(name) = &args.name {
        body.insert("name".into(), name.as_str().into());
    }
    if let Some(description) = &args.description {
        body.insert("description".into(), description.as_str().into());
    }
    if let Some(parent) = &args.parent {
        let parent = named::id(&client, &ORGANISATIONS, parent)?;
        body.insert("parent_id".into(), parent.into());
    }
    if body.is_empty() {
        return Err(usage("nothing to change: give --name, --description or --parent"));
    }
    let changed: Value = CHANGE.send(&client, &[&number], &body)?;
    context.out.summary(None, changed.clone(), |out| ORGANISATIONS.describe(out, &changed))?;
    Ok(())
}
