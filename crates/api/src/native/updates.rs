//! Updates of the program.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_appliance::updates::{InstallUpdate, UpdateRecord, UpdateSource};
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::jobs::{Job, accepted};
use super::pieces::{PieceQuery, SentSoFar};
use super::work::asker;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Accepted, Body, Group, Items, Json, Octets, Query, get, post, put};

/// Bytes of a piece of a package.
const PIECE: usize = 4 << 20;

pub(super) fn group() -> Group {
    let path = "/v1/system/updates";
    Group::new(
        "Updates",
        "Other versions of the program. A package is checked before anything is touched, installed \
         beside what runs, and put in force by a new start, on trial: one that ends, or does not \
         answer, is rolled back by itself.",
        [
            get(path, "system.updates.show", "How updates are", show)
                .needs(Right::SystemView, On::Appliance),
            get("/v1/system/updates/history", "system.updates.history", "What was done", history)
                .needs(Right::SystemView, On::Appliance),
            put("/v1/system/updates/upload", "system.updates.upload", "Send a package", upload)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Invalid, Code::Conflict])
                .only_refusals_recorded()
                .body(PIECE),
            post(path, "system.updates.install", "Install the package that was sent", install)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Invalid, Code::NotFound, Code::InProgress, Code::Conflict]),
            post(
                "/v1/system/updates/rollback",
                "system.updates.rollback",
                "Go back to the version before",
                rollback,
            )
            .needs(Right::SystemManage, On::Appliance)
            .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
        ],
    )
}

/// How updates are.
#[derive(Debug, Serialize, ToSchema)]
struct Updates {
    /// The version that runs.
    version: String,
    /// The version that can be gone back to.
    previous_version: Option<String>,
    /// Whether what runs is on trial.
    on_trial: bool,
    /// The job that was asked for last.
    job_id: Option<i64>,
    /// How that is.
    job_state: Option<&'static str>,
    /// How far it is.
    #[schema(maximum = 100)]
    percent: Option<u8>,
    /// Why it failed.
    error: Option<String>,
}

async fn show(call: Call) -> Result<Json<Updates>> {
    let status = call.app().administration().update_status().await?;
    Ok(Json(Updates {
        version: status.version,
        previous_version: status.previous,
        on_trial: status.on_trial,
        job_id: status.job.as_ref().map(|job| job.id),
        job_state: status.job.as_ref().map(|job| job.state.word()),
        percent: status.percentage,
        error: status.job.and_then(|job| job.error),
    }))
}

/// What was done once.
#[derive(Debug, Serialize, ToSchema)]
struct Update {
    /// The version that came.
    version: String,
    /// The version that was there before.
    from_version: String,
    /// When it was put in force.
    at: Timestamp,
    /// When it was known how that went.
    ended_at: Option<Timestamp>,
    /// Who asked for it.
    by: String,
    /// The job that installed it; null: somebody went back.
    job_id: Option<i64>,
    /// `trial`, `installed`, or `rolled_back`.
    #[schema(example = "installed")]
    result: &'static str,
    /// Why it was rolled back.
    reason: Option<String>,
}

impl From<UpdateRecord> for Update {
    fn from(record: UpdateRecord) -> Self {
        Self {
            result: record.result.word(),
            version: record.version,
            from_version: record.from_version,
            at: record.at,
            ended_at: record.ended_at,
            by: record.by,
            job_id: record.job,
            reason: record.reason,
        }
    }
}

async fn history(call: Call) -> Result<Items<Update>> {
    let records = call.app().administration().update_history().await?;
    let items = records.into_iter().map(Update::from).collect();
    Ok(Items { items, more: false, count: None })
}

async fn upload(
    call: Call,
    Query(query): Query<PieceQuery>,
    Octets(piece): Octets,
) -> Result<Json<SentSoFar>> {
    let piece = piece.to_vec();
    let bytes = call.app().administration().upload_update(query.offset, piece).await?;
    Ok(Json(SentSoFar { bytes }))
}

/// How it is installed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct InstallPackage {
    /// Also when it is not newer than what runs.
    #[serde(default)]
    allow_older: bool,
    /// Also when the catalogue can't be copied before, as with PostgreSQL: a version that changes its
    /// schema and fails then leaves nothing that starts without a backup of the database.
    #[serde(default)]
    without_catalogue_copy: bool,
}

async fn install(call: Call, Body(body): Body<InstallPackage>) -> Result<Accepted<Job>> {
    let (asker, values) = (asker(&call, 0)?, call.app().settings().current());
    let how = InstallUpdate {
        allow_older: body.allow_older,
        without_catalogue_copy: body.without_catalogue_copy,
    };
    let administration = call.app().administration();
    let job = administration.install_update(asker, UpdateSource::Upload, how, &values).await?;
    Ok(accepted(job))
}

/// How one goes back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RollBackUpdate {
    /// With the catalogue as it was before the update, where the version before does not know that of
    /// now: what was done since is lost.
    #[serde(default)]
    put_catalogue_back: bool,
}

/// What will be in force when the appliance has started again.
#[derive(Debug, Serialize, ToSchema)]
struct RolledBackUpdate {
    /// The version before.
    version: String,
}

async fn rollback(call: Call, Body(body): Body<RollBackUpdate>) -> Result<Json<RolledBackUpdate>> {
    let administration = call.app().administration();
    let by = &call.principal()?.name;
    let version = administration.roll_update_back(body.put_catalogue_back, by).await?;
    Ok(Json(RolledBackUpdate { version }))
}
