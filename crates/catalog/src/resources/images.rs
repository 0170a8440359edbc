//! Lists of images.

use crate::images::KINDS;
use crate::list::{Field, Kind, Resource, Search};

/// Images.
pub static IMAGES: Resource = Resource {
    name: "image",
    from: "images",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number in the catalogue."),
        Field::new("pool_id", Kind::Integer, "The pool that has it."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("root", Kind::Text, "What the pool calls it: 32 hexadecimal digits."),
        Field::new("parent", Kind::Text, "The root that it was compared with.").nullable(),
        Field::new("name", Kind::Text, "The series that it belongs to.").searched(),
        Field::new("kind", Kind::Enum(KINDS), "What it is of."),
        Field::new("host", Kind::Text, "The machine that it was made of.").searched(),
        Field::new("user_name", Kind::Text, "Who made it.").searched(),
        Field::new("paths", Kind::Text, "What was asked for, one per line.").searched().unsorted(),
        Field::new("tags", Kind::Text, "Its labels, one per line.").searched().unsorted(),
        Field::new("complete", Kind::Bool, "Whether nothing failed to be read."),
        Field::new("started_at", Kind::Time, "When it was begun, by its machine's clock."),
        Field::new("created_at", Kind::Time, "When it was made, by the pool's clock."),
        Field::new("expires_at", Kind::Time, "When it is to be forgotten.").nullable(),
        Field::new("immutable_until", Kind::Time, "Until when nothing may remove it.").nullable(),
        Field::new("files", Kind::Integer, "Regular files in it."),
        Field::new("size", Kind::Integer, "Bytes of content."),
        Field::new("new_size", Kind::Integer, "Bytes that the pool did not have."),
        Field::new("stored_size", Kind::Integer, "Bytes that those take in packs."),
        Field::new("job_id", Kind::Integer, "The job that made it.").nullable(),
    ],
    order: ("created_at", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "search", trigrams: Some("images_trigrams") }),
    counted: Some("images"),
};
