//! The audit trail.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::AuditLine;
use strongroom_identity::{FaultKind, Protocol, Right, SenderSettings, to_json, to_syslog};
use utoipa::{IntoParams, ToSchema};

use super::paths::Audit;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Empty, Group, IfMatch, Items, Json, Listing, Query, Tagged, Text, delete, get, post, put,
};

/// The most lines of one export.
const MAX_LINES: u32 = 10_000;

pub(super) fn group() -> Group {
    Group::new(
        "Audit",
        "Who did what, when, from where, and what came of it. Lines are chained: one that is \
         changed or removed shows.",
        [
            get("/v1/audit", "audit.list", "Lines of the audit trail", list)
                .needs(Right::AuditView, On::Any),
            get("/v1/audit/export", "audit.export", "Lines for other programs", export)
                .needs(Right::AuditView, On::Appliance),
            post("/v1/audit/verify", "audit.verify", "Check the whole trail", verify)
                .needs(Right::AuditView, On::Appliance)
                .within(std::time::Duration::from_secs(30 * 60)),
            get("/v1/audit/sender", "audit.sender.show", "Where lines are sent", sender)
                .needs(Right::AuditView, On::Appliance)
                .fails([Code::NotFound]),
            put(
                "/v1/audit/sender",
                "audit.sender.set",
                "Send lines to a collector as they are written",
                set_sender,
            )
            .needs(Right::SettingsManage, On::Appliance)
            .recorded_by_service(),
            delete("/v1/audit/sender", "audit.sender.remove", "Send lines nowhere", remove_sender)
                .needs(Right::SettingsManage, On::Appliance)
                .fails([Code::NotFound])
                .recorded_by_service(),
        ],
    )
}

/// A line of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
struct Line {
    /// Its number, from 1, without gaps.
    id: i64,
    /// When it was done.
    at: Timestamp,
    /// Who did it.
    user_id: Option<i64>,
    /// That one's name then.
    user_name: String,
    /// The organisation of what it was done to.
    organisation_id: Option<i64>,
    /// How the user was known.
    via: String,
    /// From where.
    address: String,
    /// What was done.
    operation: String,
    /// To what.
    object: String,
    /// `ok`, or why not.
    result: String,
    /// More of it.
    detail: String,
}

async fn list(call: Call, list: Listing<Audit>) -> Result<Items<Line>> {
    let show = |line: AuditLine| Line {
        id: line.id,
        at: line.at,
        user_id: line.user_id,
        user_name: line.user_name,
        organisation_id: line.organisation_id,
        via: line.via,
        address: line.address,
        operation: line.operation,
        object: line.object,
        result: line.result,
        detail: line.detail,
    };
    call.items(&list, show).await
}

/// Which lines, and how.
#[derive(Debug, Deserialize, IntoParams)]
struct ExportQuery {
    /// Lines behind this one only.
    after: Option<i64>,
    /// How many at most: 1000 when nobody says, and never more than 10000.
    limit: Option<u64>,
    /// How each line is written.
    #[serde(default)]
    #[param(inline)]
    format: LineFormat,
}

/// How a line is written for other programs.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LineFormat {
    /// As a JSON object.
    #[default]
    Json,
    /// As RFC 5424 has it.
    Syslog,
}

async fn export(call: Call, Query(query): Query<ExportQuery>) -> Result<Text> {
    let limit = u32::try_from(query.limit.unwrap_or(1000)).unwrap_or(MAX_LINES).min(MAX_LINES);
    let lines = call.app().identity().audit_lines(query.after.unwrap_or(0), limit).await?;
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let mut text = String::new();
    for line in &lines {
        text.push_str(&match query.format {
            LineFormat::Json => to_json(line),
            LineFormat::Syslog => to_syslog(line, &host),
        });
        text.push('\n');
    }
    Ok(Text::new(text))
}

/// What checking the trail came to.
#[derive(Debug, Serialize, ToSchema)]
struct Verdict {
    /// Whether all is as it was written.
    sound: bool,
    /// Lines that were checked.
    lines: u64,
    /// How much is wrong.
    faults: u64,
    /// The first of it.
    first: Vec<Fault>,
}

/// Something wrong with a line.
#[derive(Debug, Serialize, ToSchema)]
struct Fault {
    /// The number of the line.
    line: i64,
    /// `removed`, `changed`, `inserted`, or `end`: the end was not written by this appliance.
    kind: &'static str,
}

async fn verify(call: Call) -> Result<Json<Verdict>> {
    let verdict = call.app().identity().verify_audit().await?;
    let fault = |fault: strongroom_identity::Fault| Fault {
        line: fault.line,
        kind: match fault.kind {
            FaultKind::Removed => "removed",
            FaultKind::Changed => "changed",
            FaultKind::Inserted => "inserted",
            FaultKind::End => "end",
        },
    };
    Ok(Json(Verdict {
        sound: verdict.count == 0,
        lines: verdict.lines,
        faults: verdict.count,
        first: verdict.faults.into_iter().map(fault).collect(),
    }))
}

/// How lines travel, as syslog messages (RFC 5424).
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum SenderProtocol {
    /// Each in a datagram (RFC 5426).
    Udp,
    /// Each with its length before it (RFC 6587).
    Tcp,
    /// The same in TLS (RFC 5425).
    Tls,
}

impl From<Protocol> for SenderProtocol {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Udp => Self::Udp,
            Protocol::Tcp => Self::Tcp,
            Protocol::Tls => Self::Tls,
        }
    }
}

impl From<SenderProtocol> for Protocol {
    fn from(protocol: SenderProtocol) -> Self {
        match protocol {
            SenderProtocol::Udp => Self::Udp,
            SenderProtocol::Tcp => Self::Tcp,
            SenderProtocol::Tls => Self::Tls,
        }
    }
}

/// A collector of syslog messages.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Collector {
    /// How lines travel to it.
    protocol: SenderProtocol,
    /// Its name or address.
    host: String,
    /// Its port.
    port: u16,
    /// The certificates, in PEM, of who vouches for it; without them, whom the appliance's machine
    /// trusts.
    ca_certificate: Option<String>,
}

/// Where lines are sent, and how far that is.
#[derive(Debug, Serialize, ToSchema)]
struct AuditSender {
    /// Where.
    collector: Collector,
    /// The last line that was sent.
    last: i64,
    /// When.
    sent_at: Option<Timestamp>,
    /// How many lines wait. None is left out: a collector that was down gets what it missed.
    behind: i64,
    /// Why they can't be sent at the moment.
    trouble: Option<String>,
    /// Counts changes of where; the `ETag`.
    version: i64,
}

async fn sender(call: Call) -> Result<Tagged<AuditSender>> {
    let found = call.app().identity().audit_sender().await?;
    let found = found.ok_or_else(|| Problem::not_found("audit sender"))?;
    let SenderSettings { protocol, host, port, ca_certificate } = found.settings;
    let version = found.row.version;
    let sender = AuditSender {
        collector: Collector { protocol: protocol.into(), host, port, ca_certificate },
        last: found.row.last,
        sent_at: found.row.sent_at,
        behind: found.behind,
        trouble: found.row.trouble,
        version,
    };
    Ok(Tagged(sender, version))
}

/// Where lines are to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetAuditSender {
    /// Where.
    collector: Collector,
    /// From behind this line: 0 sends all that there are. Left out, it goes on where it was, or
    /// begins with what is written from now on.
    after: Option<i64>,
}

async fn set_sender(
    call: Call,
    IfMatch(version): IfMatch,
    Body(body): Body<SetAuditSender>,
) -> Result<Tagged<AuditSender>> {
    let Collector { protocol, host, port, ca_certificate } = body.collector;
    let settings = SenderSettings { protocol: protocol.into(), host, port, ca_certificate };
    let identity = call.app().identity();
    identity.set_audit_sender(call.principal()?, settings, body.after, version).await?;
    sender(call).await
}

async fn remove_sender(call: Call, IfMatch(version): IfMatch) -> Result<Empty> {
    call.app().identity().remove_audit_sender(call.principal()?, version).await?;
    Ok(Empty)
}
