//! Pools: where bytes are kept.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::pools as known;
use strongroom_identity::{Object, Right};
use strongroom_protect::works::ImportParameters;
use strongroom_storage::{Encryption, NewPool, PoolDetails, PoolSecret, Ratios};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::hidden::Hidden;
use super::jobs::{Job, accepted};
use super::paths::{PoolPath, Pools};
use super::start::{self, starts};
use super::targets::ForceQuery;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Accepted, Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Query, Tagged,
    delete, get, patch, post,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict];
    Group::new(
        "Pools",
        "Where bytes are kept: deduplicated, compressed, sealed, spread over disks.",
        [
            get("/v1/pools", "pools.list", "Pools", list).needs(Right::PoolView, On::Any),
            post("/v1/pools", "pools.create", "Make a pool", create)
                .needs(Right::PoolManage, On::Appliance)
                .fails(refused)
                .fails([Code::Exists, Code::NotFound])
                .idempotent(),
            post(
                "/v1/pools/import",
                "pools.import",
                "Have a pool entered that is there already",
                import,
            )
            .needs(Right::PoolManage, On::Appliance)
            .fails(refused)
            .fails([Code::Exists, Code::NotFound])
            .idempotent(),
            get("/v1/pools/{pool}", "pools.show", "A pool", show)
                .needs(Right::PoolView, On::Pool("pool")),
            get(
                "/v1/pools/{pool}/details",
                "pools.details",
                "A pool, its disks and sizes",
                details,
            )
            .needs(Right::PoolView, On::Pool("pool"))
            .fails(refused),
            patch("/v1/pools/{pool}", "pools.rename", "Give a pool another name", rename)
                .needs(Right::PoolManage, On::Pool("pool"))
                .fails(refused)
                .fails([Code::Exists]),
            delete("/v1/pools/{pool}", "pools.remove", "Let go of a pool; its data stays", remove)
                .needs(Right::PoolManage, On::Pool("pool"))
                .fails(refused)
                .fails([Code::InUse]),
        ],
    )
}

/// A pool.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pool {
    /// Its number.
    id: i64,
    /// What the pool calls itself: 32 hexadecimal digits.
    uuid: String,
    /// Its name.
    name: String,
    /// Whose it is.
    organisation_id: i64,
    /// The machine on which its disks are.
    node: String,
    /// Its directory there.
    path: String,
    /// Whether it is encrypted.
    encrypted: bool,
    /// Since when the appliance knows it.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Pool> for Pool {
    fn from(pool: known::Pool) -> Self {
        let known::Pool { id, uuid, name, organisation_id, node, path, .. } = pool;
        let known::Pool { encrypted, created_at, version, .. } = pool;
        Self { id, uuid, name, organisation_id, node, path, encrypted, created_at, version }
    }
}

/// A new pool.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreatePool {
    /// Its name.
    name: String,
    /// Its directory on the appliance; it is made when it isn't there.
    path: String,
    /// Whose it is; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// `single`, `mirror`, or data and parity disks as in `4+2`.
    #[serde(default)]
    layout: Option<String>,
    /// Directories on disks of their own; none: the pool lies in its directory.
    #[serde(default)]
    disks: Vec<String>,
    /// Whether it is encrypted, with a passphrase of its own.
    #[serde(default = "yes")]
    encrypted: bool,
    /// The passphrase; one is made and shown once when there is none.
    passphrase: Option<Hidden>,
    /// How files and streams are cut; as most pools do when it isn't said.
    chunk_sizes: Option<ChunkSizes>,
    /// The chunks of disks, in bytes.
    block_size: Option<u32>,
    /// The zstd level, 1 (fast) to 19 (small).
    #[schema(minimum = 1, maximum = 19)]
    level: Option<i32>,
    /// A pack of chunks is closed once it has so many bytes.
    pack_size: Option<u32>,
}

/// How files and streams are cut, in bytes.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChunkSizes {
    /// The smallest chunk, but for the last of a file.
    min: u32,
    /// The average chunk.
    avg: u32,
    /// The largest chunk.
    max: u32,
}

fn yes() -> bool {
    true
}

pub(super) fn pool_secret(hidden: &Hidden) -> PoolSecret {
    PoolSecret::Passphrase(Zeroizing::new(hidden.0.expose().as_bytes().to_vec()))
}

/// A pool that was made.
#[derive(Serialize, ToSchema)]
struct CreatedPool {
    /// The pool.
    pool: Pool,
    /// The passphrase that was made for it: keep it elsewhere, it is not shown again. Without it
    /// or this appliance nobody can open the pool.
    passphrase: Option<String>,
}

/// The name of a pool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenamePool {
    /// Its new name.
    name: String,
}

starts! {
    /// A pool that is on its disks already.
    struct ImportPool {
        /// The name that it gets.
        name: String,
        /// Its directory on the appliance.
        path: String,
        /// Whose it is; that of the caller when it isn't said.
        organisation_id: Option<i64>,
        /// Its disks; none: its directory says where they are.
        #[serde(default)]
        disks: Vec<String>,
        /// Its passphrase, if it is encrypted.
        passphrase: Option<Hidden>,
    }
}

async fn list(call: Call, list: Listing<Pools>) -> Result<Items<Pool>> {
    call.items(&list, |pool: known::Pool| pool.into()).await
}

async fn create(call: Call, Body(body): Body<CreatePool>) -> Result<Created<CreatedPool>> {
    let owner = owner(&call, body.organisation_id)?;
    let mut new = NewPool::new(body.name, owner, body.path);
    if let Some(layout) = body.layout {
        new.layout = layout.parse()?;
    }
    new.disks = body.disks.into_iter().map(PathBuf::from).collect();
    let sizes = body.chunk_sizes.as_ref().map(|sizes| [sizes.min, sizes.avg, sizes.max]);
    new.cut(sizes, body.block_size)?;
    new.level = body.level.unwrap_or(new.level);
    new.pack_size = body.pack_size.unwrap_or(new.pack_size);
    new.encryption = match (body.encrypted, body.passphrase) {
        (true, None) => Encryption::Generated,
        (true, Some(passphrase)) => Encryption::Given(pool_secret(&passphrase)),
        (false, None) => Encryption::None,
        (false, Some(_)) => {
            let text = "a pool that is not encrypted has no passphrase: leave one of them out";
            return Err(Problem::new(Code::Invalid, text));
        }
    };
    let made = call.app().storage().create_pool(new).await?;
    let location = format!("/v1/pools/{}", made.pool.id);
    let passphrase = made.passphrase.map(|text| text.to_string());
    Ok(Created { item: CreatedPool { pool: made.pool.into(), passphrase }, location })
}

/// The organisation that something new belongs to.
fn owner(call: &Call, organisation: Option<i64>) -> Result<i64> {
    let organisation = organisation.unwrap_or(call.principal()?.organisation_id);
    call.allow(Right::PoolManage, &Object::of(organisation), "organisation")?;
    Ok(organisation)
}

async fn import(call: Call, Body(body): Body<ImportPool>) -> Result<Accepted<Job>> {
    let asker = start::asker(&call, &body)?;
    let organisation_id = Some(owner(&call, body.organisation_id)?);
    // It waits, sealed, until the job is begun.
    let seal = |hidden: &Hidden| call.app().storage().seal_waiting(&pool_secret(hidden));
    let secret = body.passphrase.as_ref().map(seal).transpose()?;
    let ImportPool { name, path, disks, .. } = body;
    let what = ImportParameters { name, organisation_id, path, disks, secret };
    Ok(accepted(call.app().protect().import(asker, what).await?))
}

async fn show(call: Call, Path(path): Path<PoolPath>) -> Result<Tagged<Pool>> {
    let pool = call.app().storage().pool(path.pool).await?;
    let version = pool.version;
    Ok(Tagged(pool.into(), version))
}

async fn rename(
    call: Call,
    Path(path): Path<PoolPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<RenamePool>,
) -> Result<Tagged<Pool>> {
    let pool = call.app().storage().rename_pool(path.pool, &body.name, version).await?;
    let version = pool.version;
    Ok(Tagged(pool.into(), version))
}

async fn remove(
    call: Call,
    Path(path): Path<PoolPath>,
    Query(query): Query<ForceQuery>,
) -> Result<Empty> {
    call.app().storage().remove_pool(path.pool, query.force.into()).await?;
    Ok(Empty)
}

/// A pool, its disks and sizes.
#[derive(Debug, Serialize, ToSchema)]
struct PoolState {
    /// The pool.
    pool: Pool,
    /// `ok`; `degraded`: disks are missing or bad, all data is there; `damaged`: chunks are lost.
    state: &'static str,
    /// How it lies on its disks.
    layout: String,
    /// Its disks.
    disks: Vec<PoolDisk>,
    /// The pool's own time, by which retention counts.
    pool_time: Timestamp,
    /// Images in it.
    images: u64,
    /// Their files.
    files: u64,
    /// Their bytes, as if each were restored.
    logical_bytes: u64,
    /// Bytes in packs, before redundancy.
    stored_bytes: u64,
    /// Bytes in packs, with redundancy.
    disk_bytes: u64,
    /// Packs.
    packs: u64,
    /// Chunks in packs.
    chunks: u64,
    /// Copies of chunks that are known to be bad.
    bad_copies: u64,
    /// Bytes of all images by the bytes that are stored for them.
    reduction: Option<f64>,
    /// Bytes of all images by those of them that were new when they came.
    deduplication: Option<f64>,
    /// Bytes that were new by what they take compressed.
    compression: Option<f64>,
    /// When a scrub last came to its end.
    scrubbed_at: Option<Timestamp>,
    /// Since when one is under way.
    scrub_since: Option<Timestamp>,
}

/// A disk of a pool.
#[derive(Debug, Serialize, ToSchema)]
struct PoolDisk {
    /// Its number in the layout.
    number: usize,
    /// Where it is, if it is there.
    path: Option<String>,
    /// `ok`, `missing`, `outdated` or `damaged`.
    state: &'static str,
    /// Its room, in bytes.
    total: Option<u64>,
    /// Bytes of it that are free.
    free: Option<u64>,
}

impl From<PoolDetails> for PoolState {
    fn from(details: PoolDetails) -> Self {
        let disk = |disk: strongroom_storage::Disk| PoolDisk {
            number: disk.number,
            path: disk.path,
            state: disk.state,
            total: disk.total,
            free: disk.free,
        };
        let Ratios { reduction, deduplication, compression } = details.ratios;
        Self {
            pool: details.pool.into(),
            state: details.state,
            layout: details.layout,
            disks: details.disks.into_iter().map(disk).collect(),
            pool_time: details.pool_time,
            images: details.images,
            files: details.files,
            logical_bytes: details.logical_bytes,
            stored_bytes: details.stored_bytes,
            disk_bytes: details.disk_bytes,
            packs: details.packs,
            chunks: details.chunks,
            bad_copies: details.bad_copies,
            reduction,
            deduplication,
            compression,
            scrubbed_at: details.scrubbed_at,
            scrub_since: details.scrub_since,
        }
    }
}

async fn details(call: Call, Path(path): Path<PoolPath>) -> Result<Json<PoolState>> {
    Ok(Json(call.app().storage().show_pool(path.pool).await?.into()))
}
