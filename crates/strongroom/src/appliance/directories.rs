//! `strongroom directories`: LDAP servers, and Active Directory, whose users may log in.

use std::path::{Path, PathBuf};

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
    SHOW = "directories.show", GET "/v1/directories/{directory}", by "directories show";
    CREATE = "directories.create", POST "/v1/directories", by "directories create";
    CHANGE = "directories.change", PUT "/v1/directories/{directory}", by "directories change";
    REMOVE = "directories.remove", DELETE "/v1/directories/{directory}", by "directories delete";
    TEST = "directories.test", POST "/v1/directories/{directory}/test", by "directories test";
}

/// Directories.
pub(crate) static DIRECTORIES: Resource = Resource {
    one: "directory",
    path: "/v1/directories",
    id: "directories.list",
    command: "directories list",
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

/// List directories
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Example:
  strongroom directories list"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("Its name or number", directory of DIRECTORIES);

/// Show how a directory is set up
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom directories show corp --json")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Set up a directory
#[derive(clap::Args, Debug)]
#[command(after_help = "\
docs/identity.md has a file for Active Directory and one for OpenLDAP. Who may do it needs every right of
the roles that are given to groups.

Example:
  strongroom directories create corp.json --secret-file reader.txt")]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    file: FileArgs,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// What the appliance logs in with there is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Set up a directory otherwise
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The file says all of it, as for `create`; what it leaves out is what it is when nobody says. The secret
stays as it was, unless it would go to another server.

Example:
  strongroom directories change corp corp.json")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    file: FileArgs,
    /// What the appliance logs in with there is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
}

/// Remove a directory that no user came from
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom directories delete corp --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// Try a directory, step by step
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code 3 says that a step failed, and the step says why. With a user it is tried as that one would
log in; the password is asked for, unless --no-password.

Examples:
  strongroom directories test corp
  strongroom directories test corp --user ada --no-password")]
pub(crate) struct TestArgs {
    #[command(flatten)]
    one: OneArgs,
    /// A user's name, as that one would type it
    #[arg(long)]
    user: Option<String>,
    /// That one's password is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
    /// Look for the user only
    #[arg(long, requires = "user", conflicts_with = "password_file")]
    no_password: bool,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            return args.search.run(context, &args.appliance.client()?, &DIRECTORIES);
        }
        Command::Show(args) => one::show(context, &DIRECTORIES, &SHOW, args.one.find()?)?,
        Command::Create(args) => {
            let body = body(&args.file, args.secret_file.as_deref())?;
            let made: Value = CREATE.make(&args.appliance.client()?, &[], &body, &args.once)?;
            let text = format!("made the directory {}", made["name"].as_str().unwrap_or_default());
            context.out.done(made, &text)?;
        }
        Command::Change(args) => {
            let body = body(&args.file, args.secret_file.as_deref())?;
            let (client, number) = args.one.find()?;
            sources::change(context, &client, (&SHOW, &CHANGE), &number, &body)?;
        }
        Command::Delete(args) => {
            one::remove(
                context,
                &DIRECTORIES,
                &REMOVE,
                args.one.find()?,
                &args.one.directory,
                &args.yes,
            )?;
        }
        Command::Test(args) => return test(context, args),
    }
    Ok(Done::Well)
}

/// How it is to be, with the secret.
fn body(file: &FileArgs, secret: Option<&Path>) -> Result<Value> {
    let mut body = file.read()?;
    if let Some(secret) = ask::from_file(secret)? {
        body["secret"] = secret.into();
    }
    Ok(body)
}

fn test(context: &Context, args: &TestArgs) -> Result<Done> {
    let password = match &args.user {
        Some(user) if !args.no_password => {
            ask::secret(args.password_file.as_deref(), &format!("Password of {user}"))?
        }
        _ => None,
    };
    let (client, number) = args.one.find()?;
    let body = json!({ "name": args.user, "password": password });
    sources::tell(context, TEST.send(&client, &[&number], &body)?)
}
