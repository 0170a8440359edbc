//! `strongroom issuers`: issuers of tokens (OpenID Connect), as Keycloak or Entra.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::ApplianceArgs;
use super::list::{LANGUAGE, SearchArgs};
use super::one::{self, one_args};
use super::operation::{OnceArgs, operations};
use super::resource::Resource;
use super::sources::{self, FileArgs};
use crate::ask::{self, YesArgs};
use crate::exit::{Context, Done};

operations! {
    SHOW = "issuers.show", GET "/v1/issuers/{issuer}", by "issuers show";
    CREATE = "issuers.create", POST "/v1/issuers", by "issuers create";
    CHANGE = "issuers.change", PUT "/v1/issuers/{issuer}", by "issuers change";
    REMOVE = "issuers.remove", DELETE "/v1/issuers/{issuer}", by "issuers delete";
    TEST = "issuers.test", POST "/v1/issuers/{issuer}/test", by "issuers test";
}

/// Issuers.
pub(crate) static ISSUERS: Resource = Resource {
    one: "issuer",
    path: "/v1/issuers",
    id: "issuers.list",
    command: "issuers list",
    columns: sources::COLUMNS,
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
    Test(TestArgs),
}

/// List issuers
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Example:
  strongroom issuers list"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("Its name or number", issuer of ISSUERS);

/// Show how an issuer is set up
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom issuers show keycloak --json")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Set up an issuer
#[derive(clap::Args, Debug)]
#[command(after_help = "\
docs/identity.md tells what to say for Keycloak and Entra. Who may do it needs every right of
the roles that are given to groups.

Example:
  strongroom issuers create keycloak.json")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    once: OnceArgs,
}

/// Set up an issuer otherwise
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The file says all of it, as for `create`; what it leaves out is what it is when nobody says.

Example:
  strongroom issuers change keycloak keycloak.json")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    file: FileArgs,
}

/// Remove an issuer that no user came from
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom issuers delete keycloak --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Try an issuer: fetch its keys, and check a token with them
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code 3 says that a step failed, and the step says why.

Examples:
  strongroom issuers test keycloak
  strongroom issuers test keycloak --token-file token.txt")]
pub(crate) struct TestArgs {
    #[command(flatten)]
    one: OneArgs,
    /// A token of the issuer is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            return args.search.run(context, &args.appliance.client()?, &ISSUERS);
        }
        Command::Show(args) => one::show(context, &ISSUERS, &SHOW, args.one.find()?)?,
        Command::Create(args) => {
            let body = args.file.read()?;
            let made: Value = CREATE.make(&args.appliance.client()?, &[], &body, &args.once)?;
            let text = format!("made the issuer {}", made["name"].as_str().unwrap_or_default());
            context.out.done(made, &text)?;
        }
        Command::Change(args) => {
            let body = args.file.read()?;
            let (client, number) = args.one.find()?;
            sources::change(context, &client, (&SHOW, &CHANGE), &number, &body)?;
        }
        Command::Delete(args) => {
            one::remove(context, &ISSUERS, &REMOVE, args.one.find()?, &args.one.issuer, &args.yes)?;
        }
        Command::Test(args) => return test(context, args),
    }
    Ok(Done::Well)
}

fn test(context: &Context, args: &TestArgs) -> Result<Done> {
    let body = json!({ "token": ask::from_file(args.token_file.as_deref())? });
    let (client, number) = args.one.find()?;
    sources::tell(context, TEST.send(&client, &[&number], &body)?)
}
