//! `strongroom events`: what happened at an appliance.

use anyhow::Result;
use clap::Subcommand;

use super::ApplianceArgs;
use super::list::{LANGUAGE, SearchArgs};
use super::resource::Resource;
use crate::exit::{Context, Done};

/// Events.
pub(crate) static EVENTS: Resource = Resource {
    one: "event",
    path: "/v1/events",
    id: "events.list",
    command: "events list",
    columns: &[
        (">ID", "id"),
        ("AT", "at"),
        ("SEVERITY", "severity"),
        ("KIND", "kind"),
        ("OBJECT", "object"),
        (">JOB", "job_id"),
        ("MESSAGE", "message"),
    ],
    sort: Some("id:desc"),
    limit: Some(50),
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
}

/// List events, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom events list
  strongroom events list --filter severity:==error --keyword disk"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => args.search.run(context, &args.appliance.client()?, &EVENTS),
    }
}
