//! `strongroom sessions`: who is logged in.

use anyhow::Result;
use clap::Subcommand;
use serde_json::json;

use super::ApplianceArgs;
use super::list::{self, LANGUAGE};
use super::operation::operations;
use super::resource::Resource;
use crate::exit::{Context, Done};

operations! {
    CLOSE = "sessions.close", DELETE "/v1/sessions/{session}", by "sessions end";
}

/// Sessions.
pub(crate) static SESSIONS: Resource = Resource {
    one: "session",
    path: "/v1/sessions",
    id: "sessions.list",
    command: "sessions list",
    columns: &[
        (">ID", "id"),
        (">USER", "user_id"),
        ("KIND", "kind"),
        ("FROM", "address"),
        ("WITH", "agent"),
        ("OPENED", "created_at"),
        ("LAST USED", "used_at"),
        ("ENDS", "expires_at"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    End(EndArgs),
}

/// List sessions, the last used first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Example:
  strongroom sessions list --filter user_id:==3"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    list: list::Listing,
}

/// End a session: who has it must log in again
#[derive(clap::Args, Debug)]
#[command(after_help = "\
To end your own, see `strongroom logout`.

Example:
  strongroom sessions end 12")]
pub(crate) struct EndArgs {
    /// Its number
    session: i64,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => args.list.run(context, &args.appliance.client()?, &SESSIONS),
        Command::End(args) => {
            let id = args.session;
            CLOSE.ask::<()>(&args.appliance.client()?, &[&id.to_string()])?;
            context.out.done(json!({ "ended": id }), &format!("ended the session {id}"))?;
            Ok(Done::Well)
        }
    }
}
