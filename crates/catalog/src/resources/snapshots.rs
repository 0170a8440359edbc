//! Lists of snapshots of volumes.

use crate::list::{Field, Kind, Resource, Search};

/// Snapshots of volumes.
pub static SNAPSHOTS: Resource = Resource {
    name: "snapshot",
    from: "snapshots",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("volume_id", Kind::Integer, "The volume that it is of."),
        Field::new("pool_id", Kind::Integer, "The pool that has it."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("uuid", Kind::Text, "What the pool calls it: 32 hexadecimal digits."),
        Field::new("public_id", Kind::Text, "40 hexadecimal digits that follow from that."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("size", Kind::Integer, "Bytes of the volume then."),
        Field::new("created_at", Kind::Time, "When it was made, by the pool's clock."),
        Field::new("reserved_bytes", Kind::Integer, "Bytes that nothing but it holds.")
            .column("reserved")
            .nullable(),
        Field::new("scheduled", Kind::Bool, "Whether a schedule made it, which removes it again."),
    ],
    order: ("created_at", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(name)", trigrams: None }),
    counted: None,
};
