//! `strongroom audit`: who did what, and whether that was tampered with.

use std::io::Write;

use anyhow::Result;
use clap::{Subcommand, ValueEnum};
use serde_json::Value;
use strongroom_client::types::Verdict;

use super::ApplianceArgs;
use super::list::{self, LANGUAGE};
use super::operation::operations;
use super::resource::Resource;
use crate::exit::{Context, Done, usage};
use crate::output::count;

/// How many lines are exported at once.
const PAGE: usize = 5000;

operations! {
    EXPORT = "audit.export", GET "/v1/audit/export", by "audit export";
    VERIFY = "audit.verify", POST "/v1/audit/verify", by "audit verify";
}

/// Lines of the audit trail.
pub(crate) static AUDIT: Resource = Resource {
    one: "line",
    path: "/v1/audit",
    id: "audit.list",
    command: "audit list",
    columns: &[
        (">LINE", "id"),
        ("AT", "at"),
        ("WHO", "user_name"),
        ("FROM", "address"),
        ("OPERATION", "operation"),
        ("OBJECT", "object"),
        ("RESULT", "result"),
        ("DETAIL", "detail"),
    ],
    sort: Some("id:desc"),
    limit: Some(50),
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Verify(VerifyArgs),
    Export(ExportArgs),
}

/// List who did what, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom audit list
  strongroom audit list --filter operation:==user.create --filter 'result:!=ok'
  strongroom audit list --filter at:'>=2026-11-01T00:00:00Z' --all --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    list: list::Listing,
}

/// Check that no line was removed, changed or inserted
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Exit code 3 says that one was.

Example:
  strongroom audit verify")]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Write the trail to standard output, the oldest line first
#[derive(clap::Args, Debug)]
#[command(after_help = "\
JSON has one object a line, with the hash that chains it to the line before; syslog is RFC 5424. To
go on another day, give the number of the last line with --after.

Examples:
  strongroom audit export > audit.jsonl
  strongroom audit export --format syslog --after 5000 | nc -U /run/collector")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// How lines are written
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Only lines behind the one with this number
    #[arg(long, value_name = "LINE", default_value_t = 0)]
    after: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// JSON, one object a line
    Json,
    /// Syslog, RFC 5424
    Syslog,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => args.list.run(context, &args.appliance.client()?, &AUDIT),
        Command::Verify(args) => verify(context, args),
        Command::Export(args) => export(context, args),
    }
}

fn verify(context: &Context, args: &VerifyArgs) -> Result<Done> {
    let verdict: Verdict = VERIFY.ask(&args.appliance.client()?, &[])?;
    context.out.report(None, serde_json::to_value(&verdict)?, |out| {
        let lines = count(verdict.lines, "line", "lines");
        if verdict.sound {
            return writeln!(out, "{lines} are as they were written");
        }
        writeln!(out, "{} in {lines}", count(verdict.faults, "fault", "faults"))?;
        for fault in &verdict.first {
            writeln!(out, "line {}: {}", fault.line, fault.kind)?;
        }
        Ok(())
    })?;
    Ok(Done::well_if(verdict.sound))
}

fn export(context: &Context, args: &ExportArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let format = match args.format {
        Format::Json => "json",
        Format::Syslog => "syslog",
    };
    let (mut after, limit) = (args.after, PAGE.to_string());
    loop {
        if context.interrupt.is_asked() {
            return Err(strongroom_engine::Error::Canceled.into());
        }
        let from = after.to_string();
        let query = [("after", from.as_str()), ("limit", limit.as_str()), ("format", format)];
        let text = client.text(&EXPORT.call(&[]).queried(&query))?;
        let mut out = std::io::stdout().lock();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        if text.lines().count() < PAGE {
            return Ok(Done::Well);
        }
        let last = text.lines().last().unwrap_or_default();
        let number = number(args.format, last).filter(|number| *number > after);
        after = number.ok_or_else(|| usage("a line that was exported has no number"))?;
    }
}

/// The number of an exported line.
fn number(format: Format, line: &str) -> Option<i64> {
    match format {
        Format::Json => serde_json::from_str::<Value>(line).ok()?["id"].as_i64(),
        Format::Syslog => line.split_once(" line=\"")?.1.split_once('"')?.0.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_in_either_format() {
        assert_eq!(number(Format::Json, r#"{"at":"x","id":12}"#), Some(12));
        let line = r#"<109>1 2026-01-01T00:00:00Z h strongroom - x [a@1 line="7" user="u"] x"#;
        assert_eq!(number(Format::Syslog, line), Some(7));
        assert_eq!(number(Format::Syslog, "x"), None);
    }
}
