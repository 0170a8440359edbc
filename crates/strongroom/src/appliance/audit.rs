//! `strongroom audit`: who did what, and whether that was tampered with.

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use strongroom_client::types::Verdict;

use super::ApplianceArgs;
use super::list::{self, LANGUAGE};
use super::operation::operations;
use super::resource::{Resource, describe};
use crate::ask::YesArgs;
use crate::exit::{Context, Done, usage};
use crate::output::count;

/// How many lines are exported at once.
const PAGE: usize = 5000;

operations! {
    EXPORT = "audit.export", GET "/v1/audit/export", by "audit export";
    VERIFY = "audit.verify", POST "/v1/audit/verify", by "audit verify";
    SENDER = "audit.sender.show", GET "/v1/audit/sender", by "audit sending";
    SEND = "audit.sender.set", PUT "/v1/audit/sender", by "audit send";
    STOP = "audit.sender.remove", DELETE "/v1/audit/sender", by "audit stop-sending";
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
    Send(SendArgs),
    Sending(SendingArgs),
    StopSending(StopArgs),
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

/// Send lines to a syslog collector as they are written
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Messages are those of RFC 5424; over TCP and TLS each has its length before it. A collector that was
down gets what it missed.

Examples:
  strongroom audit send tls://collector.example:6514 --ca-cert /etc/ssl/our-ca.pem
  strongroom audit send udp://192.0.2.9:514 --after 0")]
pub(crate) struct SendArgs {
    /// Where to: `udp`, `tcp` or `tls`, and its name or address with the port
    #[arg(value_name = "PROTOCOL://HOST:PORT")]
    to: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Authorities that may sign its certificate, in PEM [default: whom the appliance's machine
    /// trusts]
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// From behind this line; 0 sends all that there are [default: where it was, else from now on]
    #[arg(long, value_name = "LINE")]
    after: Option<i64>,
}

/// Show where lines are sent, and how far that is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom audit sending")]
pub(crate) struct SendingArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Send lines nowhere any more
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom audit stop-sending --yes")]
pub(crate) struct StopArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    yes: YesArgs,
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
        Command::Send(args) => send(context, args),
        Command::Sending(args) => {
            let sender: Value = SENDER.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, sender.clone(), |out| describe(out, &FIRST, &sender))?;
            Ok(Done::Well)
        }
        Command::StopSending(args) => {
            let client = args.appliance.client()?;
            args.yes.confirm("Send the audit trail nowhere any more")?;
            STOP.ask::<()>(&client, &[])?;
            context.out.done(json!({ "sending": false }), "lines are sent nowhere")?;
            Ok(Done::Well)
        }
    }
}

/// What is told first of where lines are sent.
const FIRST: [&str; 5] = ["collector", "behind", "last", "sent_at", "trouble"];

fn send(context: &Context, args: &SendArgs) -> Result<Done> {
    let wrong = || usage("it takes PROTOCOL://HOST:PORT, as tls://collector.example:6514");
    let (protocol, place) = args.to.split_once("://").ok_or_else(wrong)?;
    let (host, port) = place.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let ca_certificate = match &args.ca_cert {
        Some(path) => Some(
            std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        ),
        None => None,
    };
    let collector = json!({
        "protocol": protocol, "host": host, "port": port, "ca_certificate": ca_certificate,
    });
    let body = json!({ "collector": collector, "after": args.after });
    let sender: Value = SEND.send(&args.appliance.client()?, &[], &body)?;
    context.out.done(sender, &format!("lines are sent to {}", args.to))?;
    Ok(Done::Well)
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
