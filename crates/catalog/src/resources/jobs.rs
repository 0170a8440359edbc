//! Lists of jobs.

use crate::jobs::State;
use crate::list::{Field, Kind, Resource, Search};

/// Jobs.
pub static JOBS: Resource = Resource {
    name: "job",
    from: "jobs",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("kind", Kind::Text, "What is done.").searched(),
        Field::new("state", Kind::Enum(State::WORDS), "How it stands."),
        Field::new("priority", Kind::Integer, "Higher ones go first."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("user_id", Kind::Integer, "Who asked for it.").nullable(),
        Field::new("user_name", Kind::Text, "The name of who asked for it.").searched(),
        Field::new("pool_id", Kind::Integer, "The pool that it works on.").nullable(),
        Field::new("host", Kind::Text, "The machine that it works on.").searched(),
        Field::new("object", Kind::Text, "What it is about.").searched(),
        Field::new("error", Kind::Text, "Why it failed.").nullable().unsorted(),
        Field::new("attempt", Kind::Integer, "Which try it is, from 1."),
        Field::new("attempts", Kind::Integer, "How many tries there may be."),
        Field::new("retry_of", Kind::Integer, "The job that it tries again.").nullable(),
        Field::new("retried_as", Kind::Integer, "The job that tries it again.").nullable(),
        Field::new("queued_at", Kind::Time, "When it was asked for."),
        Field::new("run_at", Kind::Time, "Not before then."),
        Field::new("run_until", Kind::Time, "Not begun after then.").nullable(),
        Field::new("started_at", Kind::Time, "When it was begun.").nullable(),
        Field::new("ended_at", Kind::Time, "When it was over.").nullable(),
        Field::new("worker", Kind::Text, "Who is, or was, at it.").nullable(),
        Field::new("cancel", Kind::Bool, "Whether it was asked to stop."),
        Field::new("phase", Kind::Text, "What it is doing."),
        Field::new("bytes_done", Kind::Integer, "Bytes that are done."),
        Field::new("bytes_total", Kind::Integer, "Bytes that there are.").nullable(),
        Field::new("items_done", Kind::Integer, "Items that are done."),
        Field::new("items_total", Kind::Integer, "Items that there are.").nullable(),
        Field::new("changed_at", Kind::Time, "When any of this changed last."),
    ],
    order: ("queued_at", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "search", trigrams: Some("jobs_trigrams") }),
    counted: Some("jobs"),
};
