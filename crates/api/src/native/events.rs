//! Events: what happened.

use jiff::Timestamp;
use serde::Serialize;
use strongroom_catalog::events;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::paths::Events;
use crate::access::On;
use crate::call::Call;
use crate::problem::Result;
use crate::route::{Group, Items, Listing, get};

pub(super) fn group() -> Group {
    Group::new(
        "Events",
        "What happened, for people and for those who watch.",
        [get("/v1/events", "events.list", "Events", list).needs(Right::EventView, On::Any).kept()],
    )
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
struct Event {
    /// Its number.
    id: i64,
    /// When.
    at: Timestamp,
    /// `info`, `warning` or `error`.
    severity: &'static str,
    /// What kind of event, like `job.failed`.
    kind: String,
    /// Whose it is.
    organisation_id: i64,
    /// What it is about.
    object: String,
    /// The job that it is about.
    job_id: Option<i64>,
    /// What happened.
    message: String,
}

async fn list(call: Call, list: Listing<Events>) -> Result<Items<Event>> {
    let show = |event: events::Event| Event {
        id: event.id,
        at: event.at,
        severity: event.severity.word(),
        kind: event.kind,
        organisation_id: event.organisation_id,
        object: event.object,
        job_id: event.job_id,
        message: event.message,
    };
    call.items(&list, show).await
}
