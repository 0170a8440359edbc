//! A table of things to be listed, and the same things in memory.

use std::cmp::Ordering;

use strongroom_catalog::list::{Field, Kind, List, Resource, Scope, Search};
use strongroom_catalog::{Address, Catalog, Engine, Record, Result, Row, Sql};

pub(crate) const STATES: &[&str] = &["done", "failed", "queued", "running"];
pub(crate) const BITS: &[(&str, i64)] = &[("MOUNT", 1), ("UNMOUNT", 2), ("SYNC", 4)];

pub(crate) static THINGS: Resource = Resource {
    name: "thing",
    from: "things",
    key: "id",
    fields: &[
        Field::new("id", Kind::Integer, "Its number."),
        Field::new("name", Kind::Text, "Its name.").searched(),
        Field::new("note", Kind::Text, "What is noted.").searched(),
        Field::new("state", Kind::Enum(STATES), "How it is."),
        Field::new("at", Kind::Time, "When."),
        Field::new("until", Kind::Time, "Until when.").nullable(),
        Field::new("managed", Kind::Bool, "Whether."),
        Field::new("bits", Kind::Flags(BITS), "What."),
        Field::new("size", Kind::Integer, "How much."),
    ],
    order: ("at", true),
    organisation: Some("organisation_id"),
    search: Some(Search { column: "search", trigrams: Some("things_trigrams") }),
    counted: Some("things"),
};

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Thing {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) note: String,
    pub(crate) state: String,
    pub(crate) at: i64,
    pub(crate) until: Option<i64>,
    pub(crate) managed: bool,
    pub(crate) bits: i64,
    pub(crate) size: i64,
    pub(crate) organisation_id: i64,
}

impl Record for Thing {
    const COLUMNS: &'static str =
        "id, name, note, state, at, until, managed, bits, size, organisation_id";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            name: row.take()?,
            note: row.take()?,
            state: row.take()?,
            at: row.take()?,
            until: row.take()?,
            managed: row.take()?,
            bits: row.take()?,
            size: row.take()?,
            organisation_id: row.take()?,
        })
    }
}

const COMMON: &[&str] = &[
    "CREATE INDEX things_at ON things (at)",
    "CREATE INDEX things_name ON things (name, at)",
    "CREATE INDEX things_state ON things (state, at)",
    "CREATE INDEX things_size ON things (size)",
    "CREATE INDEX things_organisation ON things (organisation_id, at)",
    "INSERT INTO counts (name, rows) VALUES ('things', 0)",
];

const SQLITE: &[&str] = &[
    "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, note TEXT, state TEXT, at BIGINT, \
     until BIGINT, managed BIGINT, bits BIGINT, size BIGINT, organisation_id BIGINT, search TEXT)",
    "CREATE VIRTUAL TABLE things_trigrams USING fts5 (search, content='things', \
     content_rowid='id', tokenize='trigram', detail='none', columnsize=0)",
    "CREATE TRIGGER things_inserted AFTER INSERT ON things BEGIN \
     INSERT INTO things_trigrams (rowid, search) VALUES (new.id, new.search); \
     UPDATE counts SET rows = rows + 1 WHERE name = 'things'; END",
];

const POSTGRES: &[&str] = &[
    "CREATE TABLE things (id BIGINT PRIMARY KEY, name TEXT COLLATE \"C\", \
     note TEXT COLLATE \"C\", state TEXT COLLATE \"C\", at BIGINT, until BIGINT, managed BIGINT, \
     bits BIGINT, size BIGINT, organisation_id BIGINT, search TEXT COLLATE \"C\")",
    "CREATE INDEX things_trigrams ON things USING gin (search gin_trgm_ops)",
];

/// A catalogue with these things.
pub(crate) async fn with(address: &Address, things: &[Thing]) -> Catalog {
    let catalog = Catalog::open(address).await.unwrap();
    let mut tx = catalog.begin().await.unwrap();
    let tables = match catalog.engine() {
        Engine::Sqlite => SQLITE,
        Engine::Postgres => POSTGRES,
    };
    for sql in tables.iter().chain(COMMON) {
        tx.execute(Sql::new(sql)).await.unwrap();
    }
    for thing in things {
        let Thing { id, name, note, state, at, until, managed, bits, size, .. } = thing;
        let sql = "INSERT INTO things VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
        let sql = Sql::new(sql).bind(*id).bind(name).bind(note).bind(state).bind(*at);
        let sql = sql.bind(*until).bind(*managed).bind(*bits).bind(*size);
        let sql = sql.bind(thing.organisation_id).bind(search(thing));
        tx.execute(sql).await.unwrap();
    }
    tx.commit().await.unwrap();
    catalog.close().await;
    // Indexes are looked at when it is opened.
    Catalog::open(address).await.unwrap()
}

fn search(thing: &Thing) -> String {
    format!("{}\n{}", thing.name, thing.note).to_lowercase()
}

/// What the list language means, said once more and without a database.
pub(crate) fn model(things: &[Thing], query: &[(String, String)], scope: &Scope) -> Vec<Thing> {
    let values = |wanted: &'static str| {
        query.iter().filter(move |(name, _)| name == wanted).map(|(_, value)| value.as_str())
    };
    let in_scope = |thing: &Thing| match scope {
        Scope::All => true,
        Scope::Organisations(ids) => ids.contains(&thing.organisation_id),
    };
    let has_word = |thing: &Thing| {
        let mut words = values("keyword").peekable();
        words.peek().is_none() || words.any(|word| search(thing).contains(&word.to_lowercase()))
    };
    let fits = |thing: &Thing| {
        // Filters of one field with the same operator belong together.
        values("filter").all(|filter| {
            let (name, operator, value) = split(filter);
            match operator {
                "==" => values("filter").map(split).any(|(other, operator, value)| {
                    (other, operator) == (name, "==") && equal(thing, name, value)
                }),
                "!=" => !equal(thing, name, value),
                "=|" => {
                    let held = text(thing, name).to_ascii_lowercase();
                    held.contains(&value.to_ascii_lowercase())
                }
                ">=" => number(thing, name).is_some_and(|n| n >= value.parse().unwrap()),
                "<=" => number(thing, name).is_some_and(|n| n <= value.parse().unwrap()),
                "=b" => number(thing, name).unwrap() & value.parse::<i64>().unwrap() != 0,
                _ => unreachable!("no such operator"),
            }
        })
    };
    let mut found: Vec<Thing> = things
        .iter()
        .filter(|thing| in_scope(thing) && has_word(thing) && fits(thing))
        .cloned()
        .collect();
    let mut sort: Vec<(&str, bool)> = values("sort")
        .flat_map(|value| value.split(','))
        .map(|item| item.split_once(':').unwrap())
        .map(|(name, direction)| (name, direction == "desc"))
        .collect();
    let last = sort.last().is_none_or(|(_, down)| *down);
    sort.extend([("at", last), ("id", last)]);
    found.sort_by(|a, b| {
        let orders = sort.iter().map(|(name, down)| {
            let order = compare(a, b, name);
            if *down { order.reverse() } else { order }
        });
        orders.fold(Ordering::Equal, Ordering::then)
    });
    found
}

fn split(filter: &str) -> (&str, &str, &str) {
    let (name, rest) = filter.split_once(':').unwrap();
    (name, &rest[..2], &rest[2..])
}

fn number(thing: &Thing, field: &str) -> Option<i64> {
    match field {
        "id" => Some(thing.id),
        "at" => Some(thing.at),
        "until" => thing.until,
        "managed" => Some(thing.managed.into()),
        "bits" => Some(thing.bits),
        "size" => Some(thing.size),
        _ => unreachable!("{field} is no number"),
    }
}

fn text<'t>(thing: &'t Thing, field: &str) -> &'t str {
    match field {
        "name" => &thing.name,
        "note" => &thing.note,
        "state" => &thing.state,
        _ => unreachable!("{field} is no text"),
    }
}

fn equal(thing: &Thing, field: &str, value: &str) -> bool {
    match field {
        "name" | "note" | "state" => text(thing, field) == value,
        "managed" => thing.managed == (value == "true"),
        _ => number(thing, field) == Some(value.parse().unwrap()),
    }
}

fn compare(a: &Thing, b: &Thing, field: &str) -> Ordering {
    match field {
        "name" | "note" | "state" => text(a, field).as_bytes().cmp(text(b, field).as_bytes()),
        // None is the least.
        _ => number(a, field).cmp(&number(b, field)),
    }
}

/// The ids that a query gives.
pub(crate) async fn ids(catalog: &Catalog, query: &[(&str, &str)], scope: &Scope) -> Vec<i64> {
    let list = List::parse(&THINGS, query.iter().copied()).unwrap();
    let page = list.page::<Thing>(catalog, scope).await.unwrap();
    page.items.into_iter().map(|thing| thing.id).collect()
}
