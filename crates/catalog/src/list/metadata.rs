//! What a resource's lists can do, as its declaration says: for OPTIONS and for the documentation.

use std::fmt::Write as _;

use serde::Serialize;

use super::{DEFAULT_LIMIT, Field, MAX_LIMIT, Operator, Resource};

/// What a resource's lists can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The name of one.
    pub name: &'static str,
    /// Its fields.
    pub fields: Vec<FieldMetadata>,
    /// The order when none is asked for, as `sort` takes it.
    pub default_sort: String,
    /// Whether it takes `keyword`.
    pub searchable: bool,
    /// Items of a page when no `limit` is given.
    pub default_limit: u64,
    /// The highest `limit`.
    pub max_limit: u64,
}

/// What can be done with a field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldMetadata {
    /// Its name.
    pub name: &'static str,
    /// `integer`, `string`, `enum`, `time`, `boolean` or `flags`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it means.
    pub description: &'static str,
    /// The operators that `filter` takes for it; none: it can't be filtered by.
    pub operators: Vec<&'static str>,
    /// The values that it can have, if they are given.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<&'static str>,
    /// Whether `sort` takes it.
    pub sortable: bool,
    /// Whether `keyword` looks in it.
    pub searched: bool,
    /// Whether it may be missing.
    pub nullable: bool,
}

impl Field {
    /// What can be done with it.
    pub fn metadata(&self) -> FieldMetadata {
        let operators: &[Operator] = if self.filterable { self.kind.operators() } else { &[] };
        FieldMetadata {
            name: self.name,
            kind: self.kind.name(),
            description: self.doc,
            operators: operators.iter().map(|operator| operator.text()).collect(),
            values: self.kind.values(),
            sortable: self.sortable,
            searched: self.searched,
            nullable: self.nullable,
        }
    }
}

impl Resource {
    /// What its lists can do.
    pub fn metadata(&self) -> Metadata {
        let (field, down) = self.order;
        Metadata {
            name: self.name,
            fields: self.fields.iter().map(Field::metadata).collect(),
            default_sort: format!("{field}:{}", if down { "desc" } else { "asc" }),
            searchable: self.search.is_some(),
            default_limit: DEFAULT_LIMIT,
            max_limit: MAX_LIMIT,
        }
    }

    /// The same for people, in Markdown: one table.
    pub fn document(&self) -> String {
        let Metadata { name, fields, default_sort, searchable, .. } = self.metadata();
        let mut text = format!(
            "| field of {article} {name} | type | filter | sort | keyword | meaning |\n\
             |---|---|---|---|---|---|\n",
            article = if name.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" },
        );
        let tick = |is: bool| if is { "yes" } else { "" };
        for field in fields {
            let operators: Vec<_> = field
                .operators
                .iter()
                .map(|text| format!("`{}`", text.replace('|', "\\|")))
                .collect();
            let values = match &field.values[..] {
                [] => String::new(),
                values if field.kind == "boolean" => format!(": {}", values.join(" or ")),
                values => format!(": {}", values.join(", ")),
            };
            let missing = if field.nullable { " May be missing." } else { "" };
            // Writing to a string can't fail.
            let _ = writeln!(
                text,
                "| `{}` | {}{values} | {} | {} | {} | {}{missing} |",
                field.name,
                field.kind,
                operators.join(" "),
                tick(field.sortable),
                tick(field.searched),
                field.description,
            );
        }
        let keywords = if searchable { "" } else { " It takes no `keyword`." };
        let _ = writeln!(
            text,
            "\nIts own order is `{default_sort}`; a page has {DEFAULT_LIMIT} items if no `limit` is \
             given, and {MAX_LIMIT} at most.{keywords}"
        );
        text
    }
}
