//! Snapshots of volumes.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::volumes as known;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::paths::{SnapshotPath, Snapshots, VolumePath};
use super::volumes::{CloneVolume, Volume, made, tagged};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Created, Empty, Group, Items, Json, Listing, Path, Tagged, delete, get, post,
};

pub(super) fn group() -> Group {
    let snapshot = On::Snapshot("snapshot");
    let refused = [Code::Invalid, Code::Conflict];
    Group::new(
        "Snapshots",
        "What volumes were at a moment. Nothing depends on them: what was cloned of one stays when it \
         is removed.",
        [
            get("/v1/snapshots", "snapshots.list", "Snapshots of volumes", list)
                .needs(Right::VolumeView, On::Any),
            post(
                "/v1/volumes/{volume}/snapshots",
                "snapshots.create",
                "Make a snapshot of a volume",
                create,
            )
            .needs(Right::VolumeManage, On::Volume("volume"))
            .fails(refused)
            .fails([Code::Exists])
            .idempotent(),
            get("/v1/snapshots/{snapshot}", "snapshots.show", "A snapshot", show)
                .needs(Right::VolumeView, snapshot),
            post(
                "/v1/snapshots/{snapshot}/restore",
                "snapshots.restore",
                "Make the volume what it was then",
                restore,
            )
            .needs(Right::VolumeManage, snapshot)
            .fails(refused),
            post(
                "/v1/snapshots/{snapshot}/clone",
                "snapshots.clone",
                "Make a volume of a snapshot",
                clone,
            )
            .needs(Right::VolumeManage, snapshot)
            .fails(refused)
            .fails([Code::Exists])
            .idempotent(),
            delete("/v1/snapshots/{snapshot}", "snapshots.remove", "Remove a snapshot", remove)
                .needs(Right::VolumeManage, snapshot)
                .fails(refused),
        ],
    )
}

/// A snapshot of a volume.
#[derive(Debug, Serialize, ToSchema)]
struct Snapshot {
    /// Its number.
    id: i64,
    /// The volume that it is of.
    volume_id: i64,
    /// The pool that has it.
    pool_id: i64,
    /// Whose it is.
    organisation_id: i64,
    /// What the pool calls it: 32 hexadecimal digits.
    uuid: String,
    /// 40 hexadecimal digits that follow from that.
    public_id: String,
    /// Its name, which no other snapshot of the volume has.
    name: String,
    /// Bytes of the volume then.
    size: u64,
    /// When it was made, by the pool's clock.
    created_at: Timestamp,
    /// Bytes that nothing but it holds; null: not measured yet.
    reserved_bytes: Option<u64>,
    /// Whether a schedule made it, which removes it again.
    scheduled: bool,
}

impl From<known::Snapshot> for Snapshot {
    fn from(snapshot: known::Snapshot) -> Self {
        Self {
            id: snapshot.id,
            volume_id: snapshot.volume_id,
            pool_id: snapshot.pool_id,
            organisation_id: snapshot.organisation_id,
            uuid: snapshot.uuid,
            public_id: snapshot.public_id,
            name: snapshot.name,
            size: snapshot.size,
            created_at: snapshot.created_at,
            reserved_bytes: snapshot.reserved,
            scheduled: snapshot.scheduled,
        }
    }
}

/// A new snapshot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateSnapshot {
    /// Its name, which no other snapshot of the volume has.
    name: String,
}

/// How a volume is rolled back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RestoreSnapshot {
    /// Even while initiators are connected to the volume, which don't notice and may write what they have
    /// in memory.
    #[serde(default)]
    force: bool,
}

async fn list(call: Call, list: Listing<Snapshots>) -> Result<Items<Snapshot>> {
    call.items(&list, |snapshot: known::Snapshot| snapshot.into()).await
}

async fn create(
    call: Call,
    Path(path): Path<VolumePath>,
    Body(body): Body<CreateSnapshot>,
) -> Result<Created<Snapshot>> {
    let made = call.app().storage().create_snapshot(path.volume, &body.name).await?;
    let location = format!("/v1/snapshots/{}", made.id);
    Ok(Created { item: made.into(), location })
}

async fn show(call: Call, Path(path): Path<SnapshotPath>) -> Result<Json<Snapshot>> {
    Ok(Json(call.app().storage().snapshot(path.snapshot).await?.into()))
}

async fn restore(
    call: Call,
    Path(path): Path<SnapshotPath>,
    Body(body): Body<RestoreSnapshot>,
) -> Result<Tagged<Volume>> {
    Ok(tagged(call.app().storage().roll_back(path.snapshot, body.force.into()).await?))
}

async fn clone(
    call: Call,
    Path(path): Path<SnapshotPath>,
    Body(body): Body<CloneVolume>,
) -> Result<Created<Volume>> {
    Ok(made(call.app().storage().clone_snapshot(path.snapshot, body.into()).await?))
}

async fn remove(call: Call, Path(path): Path<SnapshotPath>) -> Result<Empty> {
    call.app().storage().remove_snapshot(path.snapshot).await?;
    Ok(Empty)
}
