//! What jobs do: backups, restores, upkeep of pools.

use serde::Deserialize;
use strongroom_identity::Right;
use strongroom_protect::works::{
    BackupParameters, CheckParameters, DiskParameters, ForgetParameters, GcParameters,
    RepairParameters, RestoreParameters, ScrubParameters,
};
use strongroom_protect::{Asker, works};
use strongroom_storage::{Rules, Selection};
use utoipa::ToSchema;

use super::jobs::{Job, accepted};
use super::paths::{ImagePath, PoolPath};
use super::start::{self, starts};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Accepted, Body, Group, Path, Route, post};

pub(super) fn group() -> Group {
    let pool = On::Pool("pool");
    Group::new(
        "Work",
        "What takes long and is done by jobs.",
        [
            job(post(
                "/v1/pools/{pool}/backups",
                "backups.start",
                "Back up paths of the appliance",
                backup,
            )
            .needs(Right::ImageCreate, pool)
            .also_on_appliance()),
            job(post(
                "/v1/images/{image}/restore",
                "images.restore",
                "Restore to the appliance",
                restore,
            )
            .needs(Right::ImageRestore, On::Image("image"))
            .also_on_appliance()),
            job(post("/v1/pools/{pool}/gc", "pools.gc", "Free what no image needs", gc)
                .needs(Right::PoolManage, pool)),
            job(post(
                "/v1/pools/{pool}/scrub",
                "pools.scrub",
                "Read the disks and mend them",
                scrub,
            )
            .needs(Right::PoolManage, pool)),
            job(post(
                "/v1/pools/{pool}/check",
                "pools.check",
                "Check that images are whole",
                check,
            )
            .needs(Right::PoolManage, pool)),
            job(post("/v1/pools/{pool}/forget", "pools.forget", "Forget images by rules", forget)
                .needs(Right::ImageDelete, pool)),
            job(post(
                "/v1/pools/{pool}/replace-disk",
                "pools.replace_disk",
                "Put another disk in a lost one's place",
                replace,
            )
            .needs(Right::PoolManage, pool)),
            job(post("/v1/pools/{pool}/repair", "pools.repair", "Mend what can be mended", repair)
                .needs(Right::PoolManage, pool)),
            job(post("/v1/pools/{pool}/rekey", "pools.rekey", "Begin a new data key", rekey)
                .needs(Right::PoolManage, pool)),
        ],
    )
}

/// What all of them have in common.
fn job(route: Route) -> Route {
    route.fails([Code::Invalid, Code::Conflict]).idempotent()
}

/// Who asks, for a job that begins at once or says nothing else.
pub(super) fn asker(call: &Call, priority: i64) -> Result<Asker> {
    let who = call.principal()?;
    let object = call.object();
    // Nobody can say so of another: it is seen.
    let host = call.origin().address.map(|address| address.to_canonical().to_string());
    Ok(Asker {
        organisation_id: object.organisation.unwrap_or(who.organisation_id),
        user_id: who.user_id,
        user_name: who.name.clone(),
        priority,
        host: host.or_else(|| Some(call.app().storage().node().to_owned())),
        request: call.request().cloned(),
        ..Asker::default()
    })
}

starts! {
    /// What to back up.
    #[derive(Debug)]
    struct StartBackup {
        /// Files and directories of the appliance, from the root.
        #[serde(default)]
        paths: Vec<String>,
        /// Instead of paths: a disk, or a file that holds one.
        block: Option<String>,
        /// The series that the image belongs to; by default the last name of the first path.
        name: Option<String>,
        /// Labels.
        #[serde(default)]
        tags: Vec<String>,
        /// Rules for what is left out.
        #[serde(default)]
        excludes: Vec<String>,
        /// Keep directories that are marked by a `CACHEDIR.TAG` without their content.
        #[serde(default)]
        exclude_caches: bool,
        /// Don't enter other filesystems.
        #[serde(default)]
        one_file_system: bool,
        /// For how many seconds nothing may remove the image.
        immutable_seconds: Option<u64>,
        /// For how many seconds the image is kept; then it is forgotten unasked. Until somebody
        /// forgets it when it isn't said.
        keep_seconds: Option<u64>,
        /// Read all files, even those that did not change.
        #[serde(default)]
        read_all: bool,
        /// Store it open although the latest image of the series is sealed under a client's key.
        #[serde(default)]
        in_clear: bool,
    }
}

async fn backup(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartBackup>,
) -> Result<Accepted<Job>> {
    let asker = start::asker(&call, &body)?;
    let what = BackupParameters {
        paths: body.paths,
        block: body.block,
        name: body.name,
        tags: body.tags,
        excludes: body.excludes,
        exclude_caches: body.exclude_caches,
        one_file_system: body.one_file_system,
        immutable_seconds: body.immutable_seconds,
        keep_seconds: body.keep_seconds,
        read_all: body.read_all,
        in_clear: body.in_clear,
        user: None,
    };
    Ok(accepted(call.app().protect().backup(asker, path.pool, what).await?))
}

starts! {
    /// What to restore, and where to.
    #[derive(Debug)]
    struct StartRestore {
        /// A directory of the appliance, from the root.
        to: String,
        /// The path in the image whose content goes there; the top when there is none.
        #[serde(default)]
        from: String,
        /// Only these paths below it; all if empty.
        #[serde(default)]
        paths: Vec<String>,
        /// Only what these rules fit; all if empty.
        #[serde(default)]
        include: Vec<String>,
        /// Not what these rules fit.
        #[serde(default)]
        exclude: Vec<String>,
        /// What happens to files that are there.
        #[serde(default)]
        overwrite: Overwrite,
        /// Read everything back and compare.
        #[serde(default)]
        verify: bool,
        /// Owners by number, not by name.
        #[serde(default)]
        numeric_owner: bool,
        /// Don't set owners.
        #[serde(default)]
        no_owner: bool,
    }
}

async fn restore(
    call: Call,
    Path(path): Path<ImagePath>,
    Body(body): Body<StartRestore>,
) -> Result<Accepted<Job>> {
    let asker = start::asker(&call, &body)?;
    let what = RestoreParameters {
        image: path.image,
        from: body.from,
        paths: body.paths,
        to: body.to,
        include: body.include,
        exclude: body.exclude,
        overwrite: body.overwrite.into(),
        verify: body.verify,
        numeric_owner: body.numeric_owner,
        no_owner: body.no_owner,
    };
    Ok(accepted(call.app().protect().restore(asker, what).await?))
}

/// What happens to files that are there.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Overwrite {
    /// They stay.
    Never,
    /// They are replaced unless size and time are those of the image.
    #[default]
    Changed,
    /// They are replaced.
    Always,
}

impl From<Overwrite> for works::Overwrite {
    fn from(overwrite: Overwrite) -> Self {
        match overwrite {
            Overwrite::Never => Self::Never,
            Overwrite::Changed => Self::Changed,
            Overwrite::Always => Self::Always,
        }
    }
}

starts! {
    /// How to collect garbage.
    #[derive(Debug)]
    struct StartGc {
        /// Only say what would be freed.
        #[serde(default)]
        dry_run: bool,
        /// The part of the pool, 0 to 1, that may stay as garbage inside of packs in use.
        max_unused: Option<f64>,
    }
}

async fn gc(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartGc>,
) -> Result<Accepted<Job>> {
    let usual = GcParameters::default();
    let max_unused = body.max_unused.unwrap_or(usual.max_unused);
    let how = GcParameters { dry_run: body.dry_run, max_unused };
    Ok(accepted(call.app().protect().gc(start::asker(&call, &body)?, path.pool, how).await?))
}

starts! {
    /// How to read the disks.
    #[derive(Debug)]
    struct StartScrub {
        /// Bytes a second that are read at most.
        rate: Option<u64>,
        /// Stop after so many packs; the next scrub goes on from there.
        packs: Option<usize>,
        /// Begin with the first pack, even if another scrub stopped half way.
        #[serde(default)]
        restart: bool,
    }
}

async fn scrub(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartScrub>,
) -> Result<Accepted<Job>> {
    let how = ScrubParameters { rate: body.rate, packs: body.packs, restart: body.restart };
    Ok(accepted(call.app().protect().scrub(start::asker(&call, &body)?, path.pool, how).await?))
}

starts! {
    /// How to check.
    #[derive(Debug)]
    struct StartCheck {
        /// Read all data, and compare each chunk with its id.
        #[serde(default)]
        read_data: bool,
    }
}

async fn check(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartCheck>,
) -> Result<Accepted<Job>> {
    let how = CheckParameters { read_data: body.read_data };
    Ok(accepted(call.app().protect().check(start::asker(&call, &body)?, path.pool, how).await?))
}

starts! {
    /// Which images are forgotten: those that no rule keeps, or those that are expired. Immutable
    /// ones stay, and by rules those that say how long they are kept.
    #[derive(Debug)]
    struct StartForget {
        /// Only images of this name.
        name: Option<String>,
        /// Only images of this host.
        host: Option<String>,
        /// Only images with all of these labels.
        #[serde(default)]
        tags: Vec<String>,
        /// Of each name and host the latest so many stay.
        #[serde(default)]
        keep_last: u64,
        /// The latest of each of so many hours.
        #[serde(default)]
        keep_hourly: u64,
        /// The latest of each of so many days.
        #[serde(default)]
        keep_daily: u64,
        /// The latest of each of so many weeks.
        #[serde(default)]
        keep_weekly: u64,
        /// The latest of each of so many months.
        #[serde(default)]
        keep_monthly: u64,
        /// The latest of each of so many years.
        #[serde(default)]
        keep_yearly: u64,
        /// All that are not older than so many seconds before the latest.
        keep_within_seconds: Option<u64>,
        /// All with any of these labels.
        #[serde(default)]
        keep_tags: Vec<String>,
        /// Instead of rules: those go that have been kept for as long as they say.
        #[serde(default)]
        expired: bool,
        /// Only say what would go.
        #[serde(default)]
        dry_run: bool,
        /// Then collect garbage.
        #[serde(default)]
        prune: bool,
    }
}

async fn forget(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartForget>,
) -> Result<Accepted<Job>> {
    let asker = start::asker(&call, &body)?;
    let rules = Rules {
        last: body.keep_last,
        hourly: body.keep_hourly,
        daily: body.keep_daily,
        weekly: body.keep_weekly,
        monthly: body.keep_monthly,
        yearly: body.keep_yearly,
        within_seconds: body.keep_within_seconds,
        tags: body.keep_tags,
    };
    let selection = Selection { name: body.name, host: body.host, tags: body.tags };
    let StartForget { expired, dry_run, prune, .. } = body;
    let what = ForgetParameters { selection, rules, expired, dry_run, prune };
    Ok(accepted(call.app().protect().forget(asker, path.pool, what).await?))
}

starts! {
    /// Which disk is replaced, and by which.
    #[derive(Debug)]
    struct ReplaceDisk {
        /// The number of the disk that is replaced.
        number: usize,
        /// The new disk's directory on the appliance, from the root.
        disk: String,
    }
}

async fn replace(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<ReplaceDisk>,
) -> Result<Accepted<Job>> {
    let asker = start::asker(&call, &body)?;
    let what = DiskParameters { number: body.number, disk: body.disk };
    Ok(accepted(call.app().protect().replace_disk(asker, path.pool, what).await?))
}

starts! {
    /// How to mend: superblocks and disks, then all data is checked.
    #[derive(Debug)]
    struct StartRepair {
        /// First build the index again from the packs alone.
        #[serde(default)]
        rebuild_index: bool,
    }
}

async fn repair(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartRepair>,
) -> Result<Accepted<Job>> {
    let how = RepairParameters { rebuild_index: body.rebuild_index };
    let asker = start::asker(&call, &body)?;
    Ok(accepted(call.app().protect().repair(asker, path.pool, how).await?))
}

starts! {
    /// A new data key: packs written from then on are sealed with it.
    #[derive(Debug)]
    struct StartRekey {}
}

async fn rekey(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<StartRekey>,
) -> Result<Accepted<Job>> {
    let asker = start::asker(&call, &body)?;
    Ok(accepted(call.app().protect().rekey(asker, path.pool).await?))
}
