//! Kinds of things that an appliance has lists of, and how they are shown: as rows of a table, or
//! one by itself.

use std::io::{self, Write};

use comfy_table::{ColumnConstraint, ContentArrangement, Row};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use strongroom_archive::show;

use crate::output::{self, print_table, size};

/// A column: its title, `>` before those that are aligned to the right, and the field it shows.
pub(crate) type Column = (&'static str, &'static str);

/// A kind of things.
#[derive(Debug)]
pub(crate) struct Resource {
    /// What one is called.
    pub(crate) one: &'static str,
    /// The path of the list.
    pub(crate) path: &'static str,
    /// The id of the operation that lists them.
    #[cfg_attr(not(test), expect(dead_code, reason = "the test asks for it"))]
    pub(crate) id: &'static str,
    /// The command that lists them.
    pub(crate) command: &'static str,
    /// Its columns, when none are asked for.
    pub(crate) columns: &'static [Column],
    /// The order when none is asked for; none: the list's own.
    pub(crate) sort: Option<&'static str>,
    /// How many there are when nobody says; none: as many as one answer has.
    pub(crate) limit: Option<u32>,
}

/// What is at `progress.percent` and the like.
fn at<'v>(item: &'v Value, field: &str) -> Option<&'v Value> {
    field.split('.').try_fold(item, |value, part| value.get(part))
}

/// Whether a field of this name holds a time.
fn is_time(field: &str) -> bool {
    let name = field.rsplit('.').next().unwrap_or(field);
    let ends = ["_at", "_until", "_since", "_end", "_time"];
    ["at", "from", "to", "oldest"].contains(&name) || ends.iter().any(|end| name.ends_with(end))
}

/// Whether a field of this name holds bytes.
fn is_size(field: &str) -> bool {
    let name = field.rsplit('.').next().unwrap_or(field);
    let words = ["size", "rate", "bytes", "total", "free"];
    words.contains(&name) || name.ends_with("_size") || name.split('_').any(|part| part == "bytes")
}

/// A time for people, in the local zone.
pub(crate) fn local(text: &str) -> String {
    match text.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => show(text.as_bytes()),
    }
}

/// A value as it is shown under the name of its field.
pub(crate) fn text(field: &str, value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.into(),
        Value::String(at) if is_time(field) => local(at),
        Value::String(text) => show(text.as_bytes()),
        Value::Number(number) => match number.as_f64() {
            Some(bytes) if is_size(field) => {
                let sign = if bytes < 0.0 { "-" } else { "" };
                let each = if field.ends_with("rate") { "/s" } else { "" };
                format!("{sign}{}{each}", size(bytes.abs() as u64))
            }
            Some(part) if field.ends_with("percent") => format!("{part:.0} %"),
            Some(part) if number.is_f64() => format!("{part:.2}"),
            _ => number.to_string(),
        },
        Value::Array(all) if !all.iter().any(Value::is_object) => {
            all.iter().map(|one| text(field, one)).collect::<Vec<_>>().join(", ")
        }
        Value::Array(_) | Value::Object(_) => show(value.to_string().as_bytes()),
    }
}

/// The cells of an item.
pub(crate) fn row(columns: &[(String, String)], item: &Value) -> Row {
    let cell = |(_, field): &(String, String)| {
        at(item, field).map(|value| text(field, value)).unwrap_or_default()
    };
    Row::from(columns.iter().map(cell))
}

/// Whether an item has this field.
pub(crate) fn has(item: &Value, field: &str) -> bool {
    at(item, field).is_some()
}

/// Columns as they are printed.
pub(crate) fn owned(columns: &[Column]) -> Vec<(String, String)> {
    columns.iter().map(|(title, field)| ((*title).to_owned(), (*field).to_owned())).collect()
}

/// Prints a table of these columns, no wider than the terminal where there is one: text that is
/// too long ends in `…` there.
pub(crate) fn print(
    out: &mut dyn Write,
    columns: &[(String, String)],
    rows: Vec<Row>,
) -> io::Result<()> {
    let titles: Vec<&str> = columns.iter().map(|(title, _)| title.as_str()).collect();
    let mut table = output::table(&titles);
    let width = output::width();
    for mut row in rows {
        if width.is_some() {
            row.max_height(1);
        }
        table.add_row(row);
    }
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_width(width);
        table.set_truncation_indicator("…");
        // Half a number is none.
        let numbers = titles.iter().enumerate().filter(|(_, title)| title.starts_with('>'));
        for (index, _) in numbers {
            if let Some(column) = table.column_mut(index) {
                column.set_constraint(ColumnConstraint::ContentWidth);
            }
        }
    }
    print_table(out, &table)
}

impl Resource {
    /// Its columns, or those that were asked for by the names of their fields.
    pub(crate) fn columns(&self, asked: &[String]) -> Vec<(String, String)> {
        if asked.is_empty() {
            return owned(self.columns);
        }
        let column = |field: &String| match self.columns.iter().find(|(_, own)| own == field) {
            Some((title, field)) => ((*title).to_owned(), (*field).to_owned()),
            None => (field.to_uppercase().replace(['_', '.'], " "), field.clone()),
        };
        asked.iter().map(column).collect()
    }

    /// Tells all that is known of one: first what its list shows, then the rest.
    pub(crate) fn describe(&self, out: &mut dyn Write, item: &Value) -> io::Result<()> {
        let first: Vec<&str> = self.columns.iter().map(|(_, field)| *field).collect();
        describe(out, &first, item)
    }
}

/// Tells all fields of a document, these first.
pub(crate) fn describe(out: &mut dyn Write, first: &[&str], item: &Value) -> io::Result<()> {
    let mut lines = Vec::new();
    for field in first {
        if let Some(value) = at(item, field) {
            flatten(field, value, &mut lines);
        }
    }
    let mut rest = Vec::new();
    flatten("", item, &mut rest);
    rest.retain(|(field, _)| !lines.iter().any(|(known, _)| known == field));
    lines.extend(rest);
    lines.retain(|(_, text)| !text.is_empty());
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, text) in lines {
        let name = name.replace(['_', '.'], " ");
        writeln!(out, "{name:<width$}  {text}")?;
    }
    Ok(())
}

/// The fields in a value, each with its text; those of what is in it under both names.
fn flatten(field: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let name = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                flatten(&name, value, lines);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            let texts = items.iter().map(|item| (field.to_owned(), in_line(item)));
            lines.extend(texts);
        }
        value => lines.push((field.to_owned(), text(field, value))),
    }
}

/// All fields of a value in one line.
fn in_line(value: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", value, &mut lines);
    lines.retain(|(_, text)| !text.is_empty());
    let parts = lines.iter().map(|(name, text)| format!("{} {text}", name.replace('_', " ")));
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_shown_for_what_their_fields_are() {
        for (field, value, shown) in [
            ("size", json!(1 << 20), "1.00 MiB"),
            ("progress.bytes_done", json!(10), "10 B"),
            ("files", json!(1024), "1024"),
            ("progress.percent", json!(66.6), "67 %"),
            ("rate", json!(2048.0), "2.00 KiB/s"),
            ("growth_bytes_per_day", json!(-2048.0), "-2.00 KiB"),
            ("deduplication", json!(1.5), "1.50"),
            ("enabled", json!(false), "no"),
            ("tags", json!(["a", "b"]), "a, b"),
            ("name", json!("a\u{1b}[2J"), "a\\u{1b}[2J"),
            ("ended_at", Value::Null, ""),
            ("at", json!("no time"), "no time"),
        ] {
            assert_eq!(text(field, &value), shown, "{field}");
        }
        assert_eq!(text("created_at", &json!("2026-03-01T10:00:00Z")).len(), 19);
    }

    #[test]
    fn one_is_told_with_its_columns_first_and_all_of_it() {
        static THINGS: Resource = Resource {
            one: "thing",
            path: "/",
            id: "things.list",
            command: "things list",
            columns: &[(">ID", "id"), ("DONE", "progress.percent")],
            sort: None,
            limit: None,
        };
        let item = json!({
            "aim": null,
            "disks": [{ "number": 0, "state": "ok" }],
            "id": 7,
            "name": "n",
            "progress": { "percent": 50.0, "phase": "x" },
        });
        let mut out = Vec::new();
        THINGS.describe(&mut out, &item).unwrap();
        let lines = [
            "id                7",
            "progress percent  50 %",
            "disks             number 0, state ok",
            "name              n",
            "progress phase    x",
            "",
        ];
        assert_eq!(String::from_utf8(out).unwrap(), lines.join("\n"));
        let columns = THINGS.columns(&["id".into(), "progress.phase".into()]);
        assert_eq!(columns[0].0, ">ID");
        assert_eq!(columns[1], ("PROGRESS PHASE".into(), "progress.phase".into()));
    }
}
