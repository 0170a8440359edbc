//! The backup of the appliance itself, and starting it anew.

use std::io;

use axum::body::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_appliance::backup::BackupFile;
use strongroom_identity::{Object, Right};
use utoipa::ToSchema;

use super::hidden::Hidden;
use super::jobs::{Job, accepted};
use super::pieces::{PieceQuery, SentSoFar};
use super::start::{self, starts};
use super::work::asker;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Accepted, Body, Download, Empty, Group, Json, Octets, Query, Text, delete, get, post, put,
};
use crate::stream::of_file;

/// What the archive is called.
const ARCHIVE: &str = "backup.tar";
/// Bytes of a piece of an archive.
const PIECE: usize = 4 << 20;
/// How long looking at an archive may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(600);

pub(super) fn group() -> Group {
    let path = "/v1/system/backup";
    let manage = (Right::SystemManage, On::Appliance);
    Group::new(
        "Backup of the appliance",
        "The catalogue, the configuration, the certificate and the keys, in one archive that is \
         sealed under a passphrase. Pools are not in it. What is restored is looked at first, and put \
         in the place of what is there by a new start, which puts everything back if it fails.",
        [
            get(path, "system.backup.show", "How the backup is", show)
                .needs(Right::SystemView, On::Appliance),
            post(path, "system.backup.start", "Back the appliance up", start)
                .needs(manage.0, manage.1)
                .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
            delete(path, "system.backup.stop", "Stop the backup, or remove it", stop)
                .needs(manage.0, manage.1),
            get("/v1/system/backup/log", "system.backup.log", "The log of backups", log)
                .needs(Right::SystemView, On::Appliance)
                .fails([Code::NotFound]),
            get("/v1/system/backup/download", "system.backup.download", "The archive", download)
                .needs(manage.0, manage.1)
                .fails([Code::NotFound]),
            post("/v1/system/backup/store", "system.backup.store", "Store it in a pool", store)
                .needs(manage.0, manage.1)
                .fails([Code::Invalid, Code::NotFound, Code::Conflict])
                .idempotent(),
            put("/v1/system/backup/upload", "system.backup.upload", "Send an archive", upload)
                .needs(manage.0, manage.1)
                .fails([Code::Invalid, Code::Conflict])
                .only_refusals_recorded()
                .body(PIECE),
            post("/v1/system/backup/restore", "system.backup.restore", "Restore it", restore)
                .needs(manage.0, manage.1)
                .fails([Code::Invalid, Code::NotFound, Code::InProgress, Code::Conflict])
                .approved_by_handler()
                .within(PATIENCE),
            post("/v1/system/restart", "system.restart", "Start the appliance anew", restart)
                .needs(manage.0, manage.1)
                .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
        ],
    )
}

/// The backup that there is.
#[derive(Debug, Serialize, ToSchema)]
struct ApplianceBackupFile {
    /// When it was made.
    made_at: Timestamp,
    /// Its bytes.
    bytes: u64,
    /// Its SHA-256.
    sha256: String,
    /// What belongs to the appliance and is not in it, and why.
    left_out: Vec<String>,
}

impl From<BackupFile> for ApplianceBackupFile {
    fn from(file: BackupFile) -> Self {
        let BackupFile { made_at, bytes, sha256, left_out, .. } = file;
        Self { made_at, bytes, sha256, left_out }
    }
}

/// How the backup is.
#[derive(Debug, Serialize, ToSchema)]
struct ApplianceBackup {
    /// The job that was asked for last.
    job_id: Option<i64>,
    /// How that is.
    job_state: Option<&'static str>,
    /// Why it failed.
    error: Option<String>,
    /// The archive that there is; one that fails leaves the one before.
    file: Option<ApplianceBackupFile>,
}

async fn show(call: Call) -> Result<Json<ApplianceBackup>> {
    let status = call.app().administration().backup_status().await?;
    Ok(Json(ApplianceBackup {
        job_id: status.job.as_ref().map(|job| job.id),
        job_state: status.job.as_ref().map(|job| job.state.word()),
        error: status.job.and_then(|job| job.error),
        file: status.file.map(Into::into),
    }))
}

/// What the archive is sealed under.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct StartApplianceBackup {
    /// 8 to 1024 bytes. Only this opens the archive. Nothing of it is kept.
    passphrase: Hidden,
}

async fn start(call: Call, Body(body): Body<StartApplianceBackup>) -> Result<Accepted<Job>> {
    let asker = asker(&call, 0)?;
    Ok(accepted(call.app().administration().start_backup(asker, &body.passphrase.0).await?))
}

async fn stop(call: Call) -> Result<Empty> {
    call.app().administration().stop_backup().await?;
    Ok(Empty)
}

async fn log(call: Call) -> Result<Text> {
    Ok(Text::new(call.app().administration().backup_log().await?))
}

async fn download(call: Call) -> Result<Download<impl Stream<Item = io::Result<Bytes>>>> {
    let (file, facts) = call.app().administration().open_backup().await?;
    call.record(ARCHIVE).await?;
    let range = (0, facts.bytes, facts.bytes);
    Ok(Download { name: ARCHIVE.into(), range, bytes: of_file(file) })
}

starts! {
    /// Where to.
    struct StoreApplianceBackup {
        /// The name of a pool; `main` without it. The image is called `appliance`.
        #[serde(default = "main_pool")]
        pool: String,
    }
}

fn main_pool() -> String {
    "main".into()
}

async fn store(call: Call, Body(body): Body<StoreApplianceBackup>) -> Result<Accepted<Job>> {
    let pool = call.app().storage().pool_named(&body.pool).await?;
    let object = Object::of(pool.organisation_id).in_pool(pool.id);
    call.allow(Right::ImageCreate, &object, "pool")?;
    let asker = start::asker(&call, &body)?;
    Ok(accepted(call.app().administration().store_backup(asker, pool.id).await?))
}

async fn upload(
    call: Call,
    Query(query): Query<PieceQuery>,
    Octets(piece): Octets,
) -> Result<Json<SentSoFar>> {
    let piece = piece.to_vec();
    let bytes = call.app().administration().upload_backup(query.offset, piece).await?;
    Ok(Json(SentSoFar { bytes }))
}

/// What opens the archive that was sent.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreAppliance {
    /// What it was sealed under. Those that scripts for Jidoteki Admin have made are sealed under the
    /// SHA-256 of the token, as 64 small hexadecimal digits.
    passphrase: Hidden,
}

/// What will be in force when the appliance has started again.
#[derive(Debug, Serialize, ToSchema)]
struct RestoredAppliance {
    /// When the archive was made.
    made_at: Timestamp,
    /// By which version of the program.
    version: String,
    /// The paths of its files, from the data directory.
    files: Vec<String>,
    /// What is not in it: that stays as it is.
    left_out: Vec<String>,
}

async fn restore(
    call: Call,
    Body(body): Body<RestoreAppliance>,
) -> Result<Json<RestoredAppliance>> {
    let administration = call.app().administration();
    // The request does not name the archive, of which another administrator approves.
    let approved = match call.waits_for_approval() {
        true => {
            let sha256 = administration.uploaded_backup().await?;
            call.approved_of(&format!("the archive of SHA-256 {sha256}")).await?;
            Some(sha256)
        }
        false => None,
    };
    let (passphrase, by) = (&body.passphrase.0, &call.principal()?.name);
    let restored = administration.restore_upload(passphrase, approved.as_deref(), by).await?;
    let manifest = restored.manifest;
    Ok(Json(RestoredAppliance {
        made_at: manifest.made_at,
        version: manifest.program,
        files: manifest.files.into_iter().map(|file| file.path).collect(),
        left_out: manifest.left_out,
    }))
}

/// What is done before.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Restart {
    /// Makes a backup of the appliance first, sealed under this; none without it. A backup that fails
    /// is told of, and does not hold the restart up.
    passphrase: Option<Hidden>,
}

async fn restart(call: Call, Body(body): Body<Restart>) -> Result<Accepted<Job>> {
    let secret = body.passphrase.as_ref().map(|given| &given.0);
    let asker = asker(&call, 0)?;
    Ok(accepted(call.app().administration().restart(asker, secret).await?))
}
