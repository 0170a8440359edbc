//! The audit trail.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::AuditLine;
use strongroom_identity::{FaultKind, Right, to_json, to_syslog};
use utoipa::{IntoParams, ToSchema};

use super::paths::Audit;
use crate::access::On;
use crate::call::Call;
use crate::problem::Result;
use crate::route::{Group, Items, Json, Listing, Query, Text, get, post};

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
