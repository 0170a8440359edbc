//! Lists of pools.

use crate::list::{Field, Kind, Resource, Search};

/// Pools.
pub static POOLS: Resource = Resource {
    name: "pool",
    from: "pools",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("uuid", Kind::Text, "What the pool calls itself: 32 hexadecimal digits."),
        Field::new("name", Kind::Text, "The user's name for it.").searched(),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("path", Kind::Text, "Its directory.").searched(),
        Field::new("encrypted", Kind::Bool, "Whether it is encrypted.")
            .column("(CASE WHEN secret IS NULL THEN 0 ELSE 1 END)"),
        Field::new("created_at", Kind::Time, "Since when the catalogue knows it."),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(name || ' ' || path)", trigrams: None }),
    counted: None,
};
