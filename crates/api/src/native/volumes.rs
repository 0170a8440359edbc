//! Volumes: disks whose content a pool keeps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::volumes as known;
use strongroom_identity::Right;
use strongroom_storage::volumes::{
    BLOCK_SIZE, ExportClient, IoType, NewClone, NewSchedule, NewVolume, Priority, SECTOR_SIZE,
    Settings, VolumeChange, VolumeDetails,
};
use utoipa::ToSchema;

use super::paths::{ImagePath, PoolPath, VolumePath, Volumes};
use super::targets::ForceQuery;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Listing, Path, Query, Tagged, delete, get, patch,
    post, put,
};

pub(super) fn group() -> Group {
    let volume = On::Volume("volume");
    let refused = [Code::Invalid, Code::Conflict];
    let schedule = "/v1/volumes/{volume}/schedule";
    Group::new(
        "Volumes",
        "Disks whose content a pool keeps, thin unless it is said otherwise: with snapshots, and \
         clones that are there at once.",
        [
            get("/v1/volumes", "volumes.list", "Volumes", list).needs(Right::VolumeView, On::Any),
            post("/v1/pools/{pool}/volumes", "volumes.create", "Make an empty volume", create)
                .needs(Right::VolumeManage, On::Pool("pool"))
                .fails(refused)
                .fails([Code::Exists])
                .idempotent(),
            post(
                "/v1/images/{image}/volumes",
                "volumes.create_from_image",
                "Make a volume of a disk that was backed up",
                create_from_image,
            )
            .needs(Right::ImageRead, On::Image("image"))
            .fails(refused)
            .fails([Code::Exists])
            .idempotent(),
            get("/v1/volumes/{volume}", "volumes.show", "A volume", show)
                .needs(Right::VolumeView, volume),
            patch(
                "/v1/volumes/{volume}",
                "volumes.change",
                "Change what is set, or the name",
                change,
            )
            .needs(Right::VolumeManage, volume)
            .fails(refused)
            .fails([Code::Exists]),
            post("/v1/volumes/{volume}/grow", "volumes.grow", "Make a volume larger", grow)
                .needs(Right::VolumeManage, volume)
                .fails(refused),
            post(
                "/v1/volumes/{volume}/clone",
                "volumes.clone",
                "Make a volume with what it has now",
                clone,
            )
            .needs(Right::VolumeManage, volume)
            .fails(refused)
            .fails([Code::Exists])
            .idempotent(),
            post(
                "/v1/volumes/{volume}/measure",
                "volumes.measure",
                "Measure what it and its snapshots hold",
                measure,
            )
            .needs(Right::VolumeManage, volume)
            .fails(refused),
            delete(
                "/v1/volumes/{volume}",
                "volumes.remove",
                "Remove a volume with its snapshots",
                remove,
            )
            .needs(Right::VolumeManage, volume)
            .fails(refused)
            .fails([Code::InUse]),
            get(schedule, "volumes.schedule.show", "When snapshots of it are made", show_schedule)
                .needs(Right::VolumeView, volume),
            put(schedule, "volumes.schedule.set", "Have snapshots made and removed", set_schedule)
                .needs(Right::VolumeManage, volume)
                .fails(refused),
            delete(
                schedule,
                "volumes.schedule.remove",
                "Have no more snapshots made; those that there are stay",
                remove_schedule,
            )
            .needs(Right::VolumeManage, volume)
            .fails(refused),
        ],
    )
}

/// A volume.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Volume {
    /// Its number.
    id: i64,
    /// The pool that has it.
    pool_id: i64,
    /// Whose it is.
    organisation_id: i64,
    /// What the pool calls it: 32 hexadecimal digits.
    uuid: String,
    /// 40 hexadecimal digits that follow from that.
    public_id: String,
    /// Its name, which no other volume of the pool has.
    name: String,
    /// Bytes of it.
    size: u64,
    /// Bytes of its chunks.
    block_size: u32,
    /// Bytes of a logical block.
    sector_size: u32,
    /// Whether it takes only the room of what was written.
    thin: bool,
    /// Whether equal chunks are stored once.
    deduplicated: bool,
    /// Whether its chunks are compressed.
    compressed: bool,
    /// Whether what is read of it is kept in memory for a while.
    cached: bool,
    /// `transactional` or `sequential`.
    io_type: String,
    /// Its share of what is read and written beside others: 4, 8, 16, 32, 64 or 128.
    priority: u32,
    /// What it was made from; empty: nothing.
    origin: String,
    /// When it was made, by the pool's clock.
    created_at: Timestamp,
    /// Bytes that it holds; null: not measured yet.
    used_bytes: Option<u64>,
    /// Bytes that only its snapshots hold; null: not measured yet.
    snapshots_used_bytes: Option<u64>,
    /// When that was measured.
    measured_at: Option<Timestamp>,
    /// How many snapshots it has.
    snapshots: u64,
    /// How many targets have it.
    targets: u64,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Volume> for Volume {
    fn from(volume: known::Volume) -> Self {
        Self {
            id: volume.id,
            pool_id: volume.pool_id,
            organisation_id: volume.organisation_id,
            uuid: volume.uuid,
            public_id: volume.public_id,
            name: volume.name,
            size: volume.size,
            block_size: volume.block_size,
            sector_size: volume.sector_size,
            thin: volume.thin,
            deduplicated: volume.deduplicated,
            compressed: volume.compressed,
            cached: volume.cached,
            io_type: volume.io_type,
            priority: volume.priority,
            origin: volume.origin,
            created_at: volume.created_at,
            used_bytes: volume.used,
            snapshots_used_bytes: volume.snapshots_used,
            measured_at: volume.measured_at,
            snapshots: volume.snapshots,
            targets: volume.targets,
            version: volume.version,
        }
    }
}

/// A client of NBD that is connected.
#[derive(Debug, Serialize, ToSchema)]
struct VolumeClient {
    /// The export that it uses: `POOL/VOLUME`, or `POOL/VOLUME@SNAPSHOT`, as it was called then.
    export: String,
    /// Who it is: what its certificate says, or whose process it is.
    client: String,
    /// Where it is; null: on this machine, at the socket.
    address: Option<String>,
    /// Since when it is connected.
    connected_at: Timestamp,
}

impl From<ExportClient> for VolumeClient {
    fn from(one: ExportClient) -> Self {
        let ExportClient { export, client, address, since, .. } = one;
        let address = address.map(|address| address.to_string());
        Self { export, client, address, connected_at: since }
    }
}

/// All that is known of a volume.
#[derive(Debug, Serialize, ToSchema)]
struct VolumeState {
    /// The volume.
    volume: Volume,
    /// Its pool's name.
    pool: String,
    /// Bytes of it that are in its log and not settled yet; null: it is not open.
    log_bytes: Option<u64>,
    /// Who serves it at the moment.
    served_by: Vec<String>,
    /// Clients of NBD that are connected to it or to one of its snapshots, on this machine.
    clients: Vec<VolumeClient>,
    /// The targets that have it.
    mapped_to: Vec<String>,
    /// Why its log can't be settled, which is tried again; null: it can.
    settle_error: Option<String>,
    /// Since when.
    settle_error_since: Option<Timestamp>,
    /// When snapshots of it are made by themselves; null: they aren't.
    schedule: Option<VolumeSchedule>,
}

impl From<VolumeDetails> for VolumeState {
    fn from(details: VolumeDetails) -> Self {
        let (settle_error, settle_error_since) = details.trouble.unzip();
        Self {
            volume: details.volume.into(),
            pool: details.pool,
            log_bytes: details.log_bytes,
            served_by: details.served_by,
            clients: details.clients.into_iter().map(VolumeClient::from).collect(),
            mapped_to: details.mapped_to,
            settle_error,
            settle_error_since,
            schedule: details.schedule.map(VolumeSchedule::from),
        }
    }
}

/// What a volume is mostly used for.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum IoWord {
    /// Small requests anywhere.
    #[default]
    Transactional,
    /// Long requests, one behind the other.
    Sequential,
}

impl From<IoWord> for IoType {
    fn from(word: IoWord) -> Self {
        match word {
            IoWord::Transactional => Self::Transactional,
            IoWord::Sequential => Self::Sequential,
        }
    }
}

fn priority(weight: u8) -> Result<Priority> {
    Priority::new(weight).ok_or_else(|| {
        let text = format!("a priority is 4, 8, 16, 32, 64 or 128, and not {weight}");
        Problem::new(Code::Invalid, text)
    })
}

fn yes() -> bool {
    true
}

/// A new volume.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateVolume {
    /// Its name, which no other volume of the pool has.
    name: String,
    /// Bytes of it; a multiple of `sector_size`.
    size: u64,
    /// Bytes of its chunks: a power of two, 4 KiB to 1 MiB; 64 KiB when it isn't said.
    block_size: Option<u32>,
    /// Bytes of a logical block, 512 or 4096; 512 when it isn't said.
    sector_size: Option<u32>,
    /// Whether it takes only the room of what is written; else room for all of it is set aside.
    #[serde(default = "yes")]
    thin: bool,
    /// Whether equal chunks are stored once.
    #[serde(default = "yes")]
    deduplicated: bool,
    /// Whether its chunks are compressed.
    #[serde(default = "yes")]
    compressed: bool,
    /// Whether what is read of it is kept in memory for a while.
    #[serde(default = "yes")]
    cached: bool,
    /// What it is mostly used for.
    #[serde(default)]
    io_type: IoWord,
    /// Its share of what is read and written beside others: 4, 8, 16, 32, 64 or 128; 16 when it isn't said.
    priority: Option<u8>,
}

/// A volume that is made of something.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CloneVolume {
    /// Its name, which no other volume of the pool has.
    name: String,
    /// Bytes of it, at least those of what it is made of; as many when it isn't said.
    size: Option<u64>,
}

impl From<CloneVolume> for NewClone {
    fn from(body: CloneVolume) -> Self {
        Self { name: body.name, size: body.size }
    }
}

/// A volume that is made of a disk that was backed up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateFromImage {
    /// Its name, which no other volume of the pool has.
    name: String,
    /// Which file of the image is the disk; none: the image is of a disk.
    #[serde(default)]
    path: String,
    /// Instead of `path`: its bytes in hexadecimal digits, for names that aren't UTF-8.
    path_hex: Option<String>,
    /// Bytes of it, at least those of the disk; as many when it isn't said.
    size: Option<u64>,
}

/// What is to be changed of a volume; what isn't named stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeVolume {
    /// Its name.
    name: Option<String>,
    /// Whether it takes only the room of what is written.
    thin: Option<bool>,
    /// Whether equal chunks are stored once; of what is stored already nothing is stored anew.
    deduplicated: Option<bool>,
    /// Whether its chunks are compressed, from now on.
    compressed: Option<bool>,
    /// Whether what is read of it is kept in memory for a while.
    cached: Option<bool>,
    /// What it is mostly used for.
    io_type: Option<IoWord>,
    /// Its share of what is read and written beside others: 4, 8, 16, 32, 64 or 128.
    priority: Option<u8>,
}

/// How large a volume is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrowVolume {
    /// Bytes, no fewer than it has.
    size: u64,
}

/// When snapshots of a volume are made, and how many stay.
#[derive(Debug, Serialize, ToSchema)]
struct VolumeSchedule {
    /// Whether it is in force.
    enabled: bool,
    /// Seconds from one to the next.
    every_seconds: u64,
    /// So many of those that it made stay.
    keep: u32,
    /// When the next one is due, by the pool's clock.
    next_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Schedule> for VolumeSchedule {
    fn from(schedule: known::Schedule) -> Self {
        let known::Schedule { enabled, every, keep, next_at, version, .. } = schedule;
        Self { enabled, every_seconds: every, keep, next_at, version }
    }
}

/// When snapshots of a volume are to be made, and how many stay. Those that somebody made by hand don't
/// count and are never removed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetSchedule {
    /// Whether it is in force.
    #[serde(default = "yes")]
    enabled: bool,
    /// Seconds from one to the next: a minute to a year.
    every_seconds: u64,
    /// So many of those that it made stay, 1 to 1000.
    keep: u32,
}

async fn list(call: Call, list: Listing<Volumes>) -> Result<Items<Volume>> {
    call.items(&list, |volume: known::Volume| volume.into()).await
}

pub(super) fn made(volume: known::Volume) -> Created<Volume> {
    let location = format!("/v1/volumes/{}", volume.id);
    Created { item: volume.into(), location }
}

pub(super) fn tagged(volume: known::Volume) -> Tagged<Volume> {
    let version = volume.version;
    Tagged(volume.into(), version)
}

async fn create(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<CreateVolume>,
) -> Result<Created<Volume>> {
    let new = NewVolume {
        pool_id: path.pool,
        name: body.name,
        size: body.size,
        block_size: body.block_size.unwrap_or(BLOCK_SIZE),
        sector_size: body.sector_size.unwrap_or(SECTOR_SIZE),
        settings: Settings {
            thin: body.thin,
            deduplication: body.deduplicated,
            compression: body.compressed,
            cache: body.cached,
            io_type: body.io_type.into(),
            priority: body.priority.map(priority).transpose()?.unwrap_or_default(),
            origin: String::new(),
        },
    };
    Ok(made(call.app().storage().create_volume(new).await?))
}

async fn create_from_image(
    call: Call,
    Path(path): Path<ImagePath>,
    Body(body): Body<CreateFromImage>,
) -> Result<Created<Volume>> {
    // The image's pool gets it.
    call.allow(Right::VolumeManage, call.object(), "pool")?;
    let new = NewClone { name: body.name, size: body.size };
    let path_in_it = strongroom_storage::path_bytes(&body.path, body.path_hex.as_deref())?;
    Ok(made(call.app().storage().clone_image(path.image, path_in_it, new).await?))
}

async fn show(call: Call, Path(path): Path<VolumePath>) -> Result<Tagged<VolumeState>> {
    let details = call.app().storage().show_volume(path.volume).await?;
    let version = details.volume.version;
    Ok(Tagged(details.into(), version))
}

async fn change(
    call: Call,
    Path(path): Path<VolumePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeVolume>,
) -> Result<Tagged<Volume>> {
    let change = VolumeChange {
        name: body.name,
        thin: body.thin,
        deduplicated: body.deduplicated,
        compressed: body.compressed,
        cached: body.cached,
        io_type: body.io_type.map(IoType::from),
        priority: body.priority.map(priority).transpose()?,
    };
    Ok(tagged(call.app().storage().change_volume(path.volume, change, version).await?))
}

async fn grow(
    call: Call,
    Path(path): Path<VolumePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<GrowVolume>,
) -> Result<Tagged<Volume>> {
    Ok(tagged(call.app().storage().grow_volume(path.volume, body.size, version).await?))
}

async fn clone(
    call: Call,
    Path(path): Path<VolumePath>,
    Body(body): Body<CloneVolume>,
) -> Result<Created<Volume>> {
    Ok(made(call.app().storage().clone_volume(path.volume, body.into()).await?))
}

async fn measure(call: Call, Path(path): Path<VolumePath>) -> Result<Tagged<Volume>> {
    Ok(tagged(call.app().storage().measure_volume(path.volume).await?))
}

async fn remove(
    call: Call,
    Path(path): Path<VolumePath>,
    IfMatch(version): IfMatch,
    Query(query): Query<ForceQuery>,
) -> Result<Empty> {
    call.app().storage().remove_volume(path.volume, version, query.force.into()).await?;
    Ok(Empty)
}

async fn show_schedule(call: Call, Path(path): Path<VolumePath>) -> Result<Tagged<VolumeSchedule>> {
    let schedule = call.app().storage().snapshot_schedule(path.volume).await?;
    let schedule = schedule.ok_or_else(|| Problem::not_found("schedule"))?;
    let version = schedule.version;
    Ok(Tagged(schedule.into(), version))
}

async fn set_schedule(
    call: Call,
    Path(path): Path<VolumePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<SetSchedule>,
) -> Result<Tagged<VolumeSchedule>> {
    let SetSchedule { enabled, every_seconds, keep } = body;
    let new = NewSchedule { enabled, every: every_seconds, keep };
    let set = call.app().storage().set_snapshot_schedule(path.volume, new, version).await?;
    let version = set.version;
    Ok(Tagged(set.into(), version))
}

async fn remove_schedule(call: Call, Path(path): Path<VolumePath>) -> Result<Empty> {
    call.app().storage().remove_snapshot_schedule(path.volume).await?;
    Ok(Empty)
}
