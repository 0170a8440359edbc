//! Lists of events.

use crate::events::Severity;
use crate::list::{Field, Kind, Resource, Search};

/// Events.
pub static EVENTS: Resource = Resource {
    name: "event",
    from: "events",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("at", Kind::Time, "When it happened."),
        Field::new("severity", Kind::Enum(Severity::WORDS), "How much it matters."),
        Field::new("kind", Kind::Text, "What kind of event, like `job.failed`.").searched(),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("object", Kind::Text, "What it is about.").searched(),
        Field::new("job_id", Kind::Integer, "The job that it is about.").nullable(),
        Field::new("message", Kind::Text, "What happened.").searched().unsorted(),
    ],
    order: ("at", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "search", trigrams: Some("events_trigrams") }),
    counted: Some("events"),
};
