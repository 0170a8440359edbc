//! Lists of targets, of who may log in to them, and of where they are reached.

use crate::list::{Field, Kind, Resource, Search};

/// Targets.
pub static TARGETS: Resource = Resource {
    name: "target",
    from: "targets",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("public_id", Kind::Text, "Its number for dialects: 40 hexadecimal digits."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("name", Kind::Text, "What users call it.").searched(),
        Field::new("iqn", Kind::Text, "Its name in iSCSI.").searched(),
        Field::new("auth_group_id", Kind::Integer, "Who may log in; null: everybody.").nullable(),
        Field::new("portal_group_id", Kind::Integer, "Where it is reached."),
        Field::new("enabled", Kind::Bool, "Whether it is served."),
        Field::new("created_at", Kind::Time, "When it was made."),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(name || ' ' || iqn)", trigrams: None }),
    counted: None,
};

/// Who may log in to targets.
pub static AUTH_GROUPS: Resource = Resource {
    name: "auth group",
    from: "auth_groups",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("public_id", Kind::Text, "Its number for dialects: 40 hexadecimal digits."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("chap_user", Kind::Text, "The name that initiators prove by CHAP.").nullable(),
        Field::new("mutual_user", Kind::Text, "The name that targets prove to them.").nullable(),
        Field::new("created_at", Kind::Time, "When it was made."),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(name)", trigrams: None }),
    counted: None,
};

/// Where targets are reached.
pub static PORTAL_GROUPS: Resource = Resource {
    name: "portal group",
    from: "portal_groups",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("public_id", Kind::Text, "Its number for dialects: 40 hexadecimal digits."),
        Field::new("organisation_id", Kind::Integer, "The organisation whose it is."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("created_at", Kind::Time, "When it was made."),
    ],
    order: ("name", false),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "LOWER(name)", trigrams: None }),
    counted: None,
};
