//! What is asked: each kind of question with values drawn anew, in the list language and by hand.

use strongroom_catalog::list::Scope;

use crate::Sizes;
use crate::data::{self, DAY, END, Random, SPAN};
use crate::hand::{Bind, Question, Table};

/// One question in both languages.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) table: Table,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) scope: Scope,
    /// None where hand-written SQL has no other way either: keywords and counts.
    pub(crate) by_hand: Option<Question>,
}

/// A kind of question.
#[derive(Clone, Copy)]
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Milliseconds that 99 of 100 must stay below.
    pub(crate) limit: f64,
    /// Whether it is only counted.
    pub(crate) count: bool,
    pub(crate) draw: fn(&mut Random, Sizes) -> Asked,
}

const PAGE: u64 = 20;

/// Builds both forms of a question side by side.
struct Draft {
    table: Table,
    query: Vec<(&'static str, String)>,
    scope: Scope,
    conditions: Vec<String>,
    binds: Vec<Bind>,
    order: &'static str,
    offset: u64,
}

fn ask(table: Table) -> Draft {
    let order = match table {
        Table::Images => "created_at DESC, id DESC",
        Table::Events => "at DESC, id DESC",
    };
    let (query, conditions) = (vec![("limit", PAGE.to_string())], Vec::new());
    Draft { table, query, scope: Scope::All, conditions, binds: Vec::new(), order, offset: 0 }
}

impl Draft {
    fn int(mut self, field: &str, operator: &str, value: i64) -> Self {
        self.query.push(("filter", format!("{field}:{operator}{value}")));
        let sql = if operator == "==" { "=" } else { operator };
        self.conditions.push(format!("{field} {sql} ?"));
        self.binds.push(Bind::Int(value));
        self
    }

    fn text(mut self, field: &str, values: &[String]) -> Self {
        self.query.extend(values.iter().map(|value| ("filter", format!("{field}:=={value}"))));
        match values {
            [_] => self.conditions.push(format!("{field} = ?")),
            _ => {
                self.conditions.push(format!("{field} IN ({})", vec!["?"; values.len()].join(", ")))
            }
        }
        self.binds.extend(values.iter().cloned().map(Bind::Text));
        self
    }

    fn organisation(mut self, id: i64) -> Self {
        self.scope = Scope::Organisations(vec![id]);
        self.conditions.push("organisation_id = ?".into());
        self.binds.push(Bind::Int(id));
        self
    }

    fn sort(mut self, list: &str, by_hand: &'static str) -> Self {
        self.query.push(("sort", list.into()));
        self.order = by_hand;
        self
    }

    fn offset(mut self, offset: u64) -> Self {
        self.query.push(("offset", offset.to_string()));
        self.offset = offset;
        self
    }

    /// As a page.
    fn page(mut self) -> Asked {
        let name = match self.table {
            Table::Images => "images",
            Table::Events => "events",
        };
        let mut text = format!("SELECT {} FROM {name}", self.table.columns());
        if !self.conditions.is_empty() {
            text.push_str(&format!(" WHERE {}", self.conditions.join(" AND ")));
        }
        text.push_str(&format!(" ORDER BY {} LIMIT ? OFFSET ?", self.order));
        self.binds.push(Bind::Int(PAGE.cast_signed() + 1));
        self.binds.push(Bind::Int(self.offset.cast_signed()));
        let by_hand = Some(Question { text, binds: self.binds, table: self.table });
        Asked { table: self.table, query: self.query, scope: self.scope, by_hand }
    }

    /// To be counted.
    fn count(self) -> Asked {
        Asked { table: self.table, query: self.query, scope: self.scope, by_hand: None }
    }
}

fn keywords(table: Table, words: &[String]) -> Asked {
    let mut draft = ask(table);
    draft.query.extend(words.iter().map(|word| ("keyword", word.clone())));
    draft.count()
}

fn a_host(random: &mut Random) -> String {
    data::host(random.skewed(data::HOSTS))
}

fn a_time(random: &mut Random) -> i64 {
    END - SPAN + random.below(SPAN.cast_unsigned()).cast_signed()
}

const IMAGES: Table = Table::Images;
const EVENTS: Table = Table::Events;

const fn page(name: &'static str, draw: fn(&mut Random, Sizes) -> Asked) -> Kind {
    Kind { name, limit: 10.0, count: false, draw }
}

const fn words(name: &'static str, draw: fn(&mut Random, Sizes) -> Asked) -> Kind {
    Kind { name, limit: 50.0, count: false, draw }
}

const fn count(name: &'static str, draw: fn(&mut Random, Sizes) -> Asked) -> Kind {
    Kind { name, limit: 10.0, count: true, draw }
}

pub(crate) const ALL: &[Kind] = &[
    page("images, newest", |r, _| ask(IMAGES).offset(r.below(1000)).page()),
    page("images, host ==", |r, _| ask(IMAGES).text("host", &[a_host(r)]).page()),
    page("images, host == any of 3", |r, _| {
        ask(IMAGES).text("host", &[a_host(r), a_host(r), a_host(r)]).page()
    }),
    page("images, name ==", |r, _| {
        let host = a_host(r);
        let name = format!("{}/{}", host.split('.').next().unwrap_or_default(), r.of(data::SERIES));
        ask(IMAGES).text("name", &[name]).page()
    }),
    page("images, pool ==, page of many", |r, _| {
        ask(IMAGES).int("pool_id", "==", 1 + r.below(8).cast_signed()).offset(r.below(1000)).page()
    }),
    page("images, root ==", |r, s| {
        ask(IMAGES).text("root", &[data::root(r.below(s.images))]).page()
    }),
    page("images, a day's", |r, _| {
        let from = a_time(r);
        ask(IMAGES).int("created_at", ">=", from).int("created_at", "<=", from + DAY).page()
    }),
    page("images, size range by size", |r, _| {
        let from = 1i64 << (14 + r.below(26));
        let draft = ask(IMAGES).int("size", ">=", from).int("size", "<=", from * 2);
        draft.sort("size:desc", "size DESC, created_at DESC, id DESC").page()
    }),
    page("images, size >= by time", |r, _| {
        ask(IMAGES).int("size", ">=", 1i64 << (14 + r.below(26))).page()
    }),
    page("images, expired by expiry", |r, _| {
        let draft = ask(IMAGES).int("expires_at", "<=", a_time(r));
        draft.sort("expires_at:asc", "expires_at, created_at, id").page()
    }),
    page("images, by name", |r, _| {
        ask(IMAGES).sort("name:asc", "name, created_at, id").offset(r.below(1000)).page()
    }),
    page("images, by host, last first", |r, _| {
        let draft = ask(IMAGES).sort("host:desc", "host DESC, created_at DESC, id DESC");
        draft.offset(r.below(1000)).page()
    }),
    page("images of an organisation", |r, _| {
        ask(IMAGES).organisation(1 + r.below(20).cast_signed()).offset(r.below(1000)).page()
    }),
    page("images, host == and a year", |r, _| {
        let from = END - SPAN + r.below(365 * DAY.cast_unsigned()).cast_signed();
        let draft = ask(IMAGES).text("host", &[a_host(r)]);
        draft.int("created_at", ">=", from).int("created_at", "<=", from + 365 * DAY).page()
    }),
    page("events, newest", |r, _| ask(EVENTS).offset(r.below(1000)).page()),
    page("events, severity ==", |r, _| {
        ask(EVENTS).text("severity", &[r.of(&["error", "warning", "info"]).into()]).page()
    }),
    page("events, errors and warnings", |r, _| {
        ask(EVENTS)
            .text("severity", &["error".into(), "warning".into()])
            .offset(r.below(100))
            .page()
    }),
    page("events, kind ==", |r, _| {
        let kind = r.of(&["backup.done", "disk.failed", "pool.space", "gc.done"]);
        ask(EVENTS).text("kind", &[kind.into()]).offset(r.below(1000)).page()
    }),
    page("events, job ==", |r, s| {
        ask(EVENTS).int("job_id", "==", r.below(s.events / 5).cast_signed()).page()
    }),
    page("events, an hour's", |r, _| {
        let from = a_time(r);
        ask(EVENTS).int("at", ">=", from).int("at", "<=", from + DAY / 24).page()
    }),
    page("events of an organisation", |r, _| {
        ask(EVENTS).organisation(1 + r.below(20).cast_signed()).offset(r.below(1000)).page()
    }),
    words("images, rare word", |r, _| keywords(IMAGES, &[format!("-{:04}", r.below(data::HOSTS))])),
    words("images, common word", |r, _| {
        keywords(IMAGES, &[r.of(&["example", "weekly", "srv", "data", "web-"]).into()])
    }),
    words("images, word and host", |r, _| {
        let mut draft = ask(IMAGES).text("host", &[a_host(r)]);
        draft.query.push(("keyword", "legal".into()));
        draft.count()
    }),
    words("images, any of two words", |r, _| {
        keywords(IMAGES, &[format!("-{:04}", r.below(data::HOSTS)), "monthly".into()])
    }),
    words("events, rare word", |r, _| keywords(EVENTS, &[data::serial(r.below(20_000))])),
    words("events, word of no event", |r, _| {
        keywords(EVENTS, &[format!("zq{:06}", r.below(999_999))])
    }),
    words("events, middling word", |r, _| keywords(EVENTS, &[a_host(r)])),
    words("events, common word", |r, _| {
        keywords(EVENTS, &[r.of(&["backup", "files", "disk", "late", "% full"]).into()])
    }),
    count("count images", |_, _| ask(IMAGES).count()),
    count("count events", |_, _| ask(EVENTS).count()),
    count("count images, host ==", |r, _| ask(IMAGES).text("host", &[a_host(r)]).count()),
    count("count events, severity ==", |r, _| {
        ask(EVENTS).text("severity", &[r.of(&["error", "warning", "info"]).into()]).count()
    }),
    count("count images, size >= and kind", |r, _| {
        let draft = ask(IMAGES).int("size", ">=", 1i64 << (14 + r.below(26)));
        draft.text("kind", &["block".into()]).count()
    }),
    count("count images, word", |r, _| {
        keywords(IMAGES, &[r.of(&["-0012", "weekly", "web-", "legal"]).into()])
    }),
    count("count events, word", |r, _| {
        keywords(EVENTS, &[r.of(&["za00", "backup", "-0012", "late"]).into()])
    }),
];
