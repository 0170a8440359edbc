//! Lists of volumes.

use crate::list::{Field, Kind, Resource, Search};
use crate::volumes::IO_TYPES;

/// Volumes.
pub static VOLUMES: Resource = Resource {
    name: "volume",
    from: "volumes",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("pool_id", Kind::Integer, "The pool that has it."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("uuid", Kind::Text, "What the pool calls it: 32 hexadecimal digits."),
        Field::new("public_id", Kind::Text, "40 hexadecimal digits that follow from that."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("size", Kind::Integer, "Bytes of it."),
        Field::new("block_size", Kind::Integer, "Bytes of its chunks."),
        Field::new("sector_size", Kind::Integer, "Bytes of a logical block."),
        Field::new("thin", Kind::Bool, "Whether it takes only the room of what was written."),
        Field::new("deduplicated", Kind::Bool, "Whether equal chunks are stored once."),
        Field::new("compressed", Kind::Bool, "Whether its chunks are compressed."),
        Field::new("cached", Kind::Bool, "Whether what is read is kept in memory for a while."),
        Field::new("io_type", Kind::Enum(IO_TYPES), "What it is used for."),
        Field::new("priority", Kind::Integer, "Its share of the bandwidth beside others."),
        Field::new("origin", Kind::Text, "What it was made from; empty: nothing.").searched(),
        Field::new("created_at", Kind::Time, "When it was made, by the pool's clock."),
        Field::new("used_bytes", Kind::Integer, "Bytes that it holds.").column("used").nullable(),
        Field::new("snapshots_used_bytes", Kind::Integer, "Bytes that only its snapshots hold.")
            .column("snapshots_used")
            .nullable(),
        Field::new("measured_at", Kind::Time, "When that was measured.").nullable(),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(name || ' ' || origin)", trigrams: None }),
    counted: None,
};
