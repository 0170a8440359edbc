//! What is printed: JSON or text, tables, sizes and times.

use std::io::{self, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use strongroom_archive::Troubles;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::pool::Pool;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// JSON on standard output, and nothing else.
    pub(crate) json: bool,
    /// No progress, no summaries.
    pub(crate) quiet: bool,
}

impl Output {
    /// Prints what a command came to: in JSON the document with the pool's notices in it, else
    /// the text, and the notices on standard error.
    pub(crate) fn report(
        self,
        pool: Option<&Pool>,
        mut document: Value,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let notes = pool.map(Pool::take_notices).unwrap_or_default();
        if self.json {
            if let Value::Object(map) = &mut document {
                map.insert("notes".into(), notes.into());
            }
            return self.document(&document);
        }
        say_notes(&notes);
        let mut out = io::stdout().lock();
        text(&mut out)?;
        out.flush()
    }

    /// As [`Output::report`], for text that `--quiet` leaves out.
    pub(crate) fn summary(
        self,
        pool: Option<&Pool>,
        document: Value,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.report(pool, document, |out| if self.quiet { Ok(()) } else { text(out) })
    }

    /// Says in a line that something was done.
    pub(crate) fn done(self, document: Value, text: &str) -> io::Result<()> {
        self.summary(None, document, |out| writeln!(out, "{text}"))
    }

    /// Prints one JSON document in one line.
    pub(crate) fn document(self, document: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        serde_json::to_writer(&mut out, document)?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Prints the pool's notices on standard error: for commands whose output is a stream.
    pub(crate) fn notes(self, pool: Option<&Pool>) {
        say_notes(&pool.map(Pool::take_notices).unwrap_or_default());
    }

    /// What is told after a stream of output: the pool's notices and what went wrong, on standard
    /// error; so also with JSON.
    pub(crate) fn stream_ended(self, pool: Option<&Pool>, troubles: &Troubles) {
        self.notes(pool);
        Self { json: false, ..self }.troubles(troubles);
    }

    /// Whether a person is watching.
    pub(crate) fn shows_progress(self) -> bool {
        !self.json && !self.quiet && io::stderr().is_terminal()
    }

    /// Names on standard error what went wrong with single files; in JSON they are in the
    /// document ([`troubles`]).
    pub(crate) fn troubles(self, all: &Troubles) {
        if self.json {
            return;
        }
        let mut err = io::stderr().lock();
        for trouble in &all.first {
            let _ = writeln!(err, "warning: {}: {}", trouble.path, trouble.what);
        }
        let more = all.count - all.first.len() as u64;
        if more > 0 {
            let _ = writeln!(err, "warning: {more} more files had trouble");
        }
    }
}

/// Says notes on standard error.
pub(crate) fn say_notes(notes: &[String]) {
    let mut err = io::stderr().lock();
    for note in notes {
        // When nobody can hear it, it need not be said.
        let _ = writeln!(err, "note: {note}");
    }
}

/// Troubles as JSON.
pub(crate) fn troubles(all: &Troubles) -> Value {
    let first = all.first.iter();
    first.map(|t| serde_json::json!({ "path": t.path, "what": t.what })).collect()
}

/// A table without lines; columns whose titles begin with `>` are aligned to the right.
pub(crate) fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(titles.iter().map(|title| title.trim_start_matches('>')));
    for (index, title) in titles.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if title.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

/// How wide the terminal is that standard output is, if it is one.
pub(crate) fn width() -> Option<u16> {
    let out = io::stdout();
    let size = if out.is_terminal() { rustix::termios::tcgetwinsize(&out).ok() } else { None };
    size.map(|size| size.ws_col).filter(|width| *width > 0)
}

/// Prints a table without blanks at the ends of lines.
pub(crate) fn print_table(out: &mut dyn Write, table: &Table) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A size for people: three digits and a unit.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A time for people, in the local zone.
pub(crate) fn local_time(time: PoolTime) -> String {
    match Timestamp::from_nanosecond(time.0.into()) {
        Ok(stamp) => stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.to_string(),
    }
}

/// A time for programs: RFC 3339, UTC.
pub(crate) fn json_time(time: PoolTime) -> Value {
    match Timestamp::from_nanosecond(time.0.into()) {
        Ok(stamp) => stamp.to_string().into(),
        Err(_) => time.to_string().into(),
    }
}

/// `count` things.
pub(crate) fn count(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 << 10, "10.0 KiB"),
            (1_000_000, "977 KiB"),
            (1023 << 10, "1.00 MiB"),
            (123 << 30, "123 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
