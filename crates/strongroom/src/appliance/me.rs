//! `strongroom me`: oneself at an appliance.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};

use super::ApplianceArgs;
use super::operation::operations;
use super::resource::describe;
use crate::ask::{self, PasswordArgs, YesArgs};
use crate::exit::{Context, Done};

operations! {
    SHOW = "me.show", GET "/v1/me", by "me show";
    PASSWORD = "me.password", PUT "/v1/me/password", by "me password";
    ENROL = "me.second_factor.enrol", POST "/v1/me/second-factor", by "me second-factor enrol";
    CONFIRM = "me.second_factor.confirm", POST "/v1/me/second-factor/confirm",
        by "me second-factor confirm";
    REMOVE = "me.second_factor.remove", DELETE "/v1/me/second-factor",
        by "me second-factor remove";
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(ShowArgs),
    Password(ChangePasswordArgs),
    /// Have a code asked for beside the password
    SecondFactor {
        #[command(subcommand)]
        command: FactorCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FactorCommand {
    Enrol(EnrolArgs),
    Confirm(ConfirmArgs),
    Remove(RemoveArgs),
}

/// Show who you are to the appliance, and what you may do
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom me show")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show who you are to the appliance, as `me show` does
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom whoami")]
pub(crate) struct WhoamiArgs {
    #[command(flatten)]
    show: ShowArgs,
}

/// Change your password
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Both passwords are asked for, unless they are in files. All your other sessions end.

Examples:
  strongroom me password
  strongroom me password --password-file old.pw --new-password-file new.pw")]
pub(crate) struct ChangePasswordArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    old: PasswordArgs,
    /// The new password is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// Begin to use a second factor: get a secret for an authenticator app
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Enter the secret in an app for time-based codes (TOTP), then confirm with a code; until then nothing
changes.

Example:
  strongroom me second-factor enrol")]
pub(crate) struct EnrolArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show that the app gives the right codes: from now on they are asked for
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The recovery codes are printed once; each can be used once in the place of a code.

Examples:
  strongroom me second-factor confirm
  oathtool --totp --base32 @secret | strongroom me second-factor confirm --code-file -")]
pub(crate) struct ConfirmArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The code is the first line of this file, `-` of standard input [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
}

/// Do without a second factor
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom me second-factor remove")]
pub(crate) struct RemoveArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    password: PasswordArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn whoami(context: &Context, args: &WhoamiArgs) -> Result<Done> {
    show(context, &args.show)
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::Show(args) => return show(context, args),
        Command::Password(args) => {
            let client = args.appliance.client()?;
            let old = args.old.read("Password until now")?;
            let new = ask::new_secret(args.new_password_file.as_deref(), "New password")?;
            let new = new.ok_or_else(|| ask::nobody("--new-password-file"))?;
            PASSWORD.send::<()>(&client, &[], &json!({ "old": old, "new": new }))?;
            context.out.done(json!({ "changed": true }), "your password was changed")?;
        }
        Command::SecondFactor { command } => match command {
            FactorCommand::Enrol(args) => enrol(context, args)?,
            FactorCommand::Confirm(args) => confirm(context, args)?,
            FactorCommand::Remove(args) => {
                let client = args.appliance.client()?;
                args.yes.confirm("Log in without a second factor from now on")?;
                let password = args.password.read("Password")?;
                REMOVE.send::<()>(&client, &[], &json!({ "password": password }))?;
                context
                    .out
                    .done(json!({ "removed": true }), "there is no second factor any more")?;
            }
        },
    }
    Ok(Done::Well)
}

fn show(context: &Context, args: &ShowArgs) -> Result<Done> {
    let me: Value = SHOW.ask(&args.appliance.client()?, &[])?;
    let first = ["name", "user_id", "organisation_id", "via"];
    context.out.report(None, me.clone(), |out| describe(out, &first, &me))?;
    Ok(Done::Well)
}

fn enrol(context: &Context, args: &EnrolArgs) -> Result<()> {
    let made: Value = ENROL.ask(&args.appliance.client()?, &[])?;
    context.out.report(None, made.clone(), |out| {
        writeln!(out, "secret  {}", made["secret"].as_str().unwrap_or_default())?;
        writeln!(out, "url     {}", made["url"].as_str().unwrap_or_default())?;
        writeln!(out, "Shown this once. Enter one of them in the app, then run")?;
        writeln!(out, "  strongroom me second-factor confirm")
    })?;
    Ok(())
}

fn confirm(context: &Context, args: &ConfirmArgs) -> Result<()> {
    let client = args.appliance.client()?;
    let code = ask::secret(args.code_file.as_deref(), "Code that the app shows")?;
    let code = code.ok_or_else(|| ask::nobody("--code-file"))?;
    let codes: Value = CONFIRM.send(&client, &[], &json!({ "code": code.trim() }))?;
    context.out.report(None, codes.clone(), |out| {
        writeln!(out, "From now on a code is asked for. Recovery codes, shown this once:")?;
        for code in codes["recovery_codes"].as_array().into_iter().flatten() {
            writeln!(out, "  {}", code.as_str().unwrap_or_default())?;
        }
        Ok(())
    })?;
    Ok(())
}
