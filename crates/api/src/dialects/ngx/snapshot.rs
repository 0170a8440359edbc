//! Snapshots of LUNs.

use std::collections::HashMap;

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_catalog::volumes::{self, Snapshot, Volume};
use strongroom_identity::Object;
use strongroom_storage::volumes::{Force, NewClone};
use utoipa::ToSchema;

use super::answer::{Answer, Fault, done, found};
use super::declared::{Endpoint, Section, may, needed};
use super::dispatch::Call;
use super::{lun, rows, schedule};

pub(super) const SECTION: Section =
    Section { name: "Snapshot", reads: "ngx.snapshot.read", ..lun::SECTION };

pub(super) fn endpoints() -> Vec<Endpoint> {
    const SHAPE: &str = "as the original: an object with `luns` and `shares`, the latter empty; with \
        `ngx_api = \"2.4\"` an array; `volume_id` in the query shows those of one LUN";
    const BINDED: &str = "as the original; `binded` is 0: clones need nothing of what they are made from; \
        `reserved` is 0 when it is made, and then measured from time to time";
    let mut all = vec![
        SECTION
            .get::<SnapshotShortLists>("/snapshot", "ngx.snapshot.list", "Snapshots", |call| list(call).boxed())
            .query(const { &[may("volume_id", "Only those of this LUN.")] })
            .state(SHAPE),
        SECTION
            .get::<SnapshotLists>("/snapshot/list", "ngx.snapshot.list_details", "Snapshots, with all that is known", |call| {
                details(call).boxed()
            })
            .query(const { &[may("volume_id", "Only those of this LUN.")] })
            .state(SHAPE),
        SECTION
            .get::<SnapshotShown>("/snapshot/{id}", "ngx.snapshot.show", "A snapshot", |call| show(call).boxed())
            .state(BINDED),
        SECTION
            .change(Method::POST, "/snapshot", "ngx.snapshot.create", "Make a snapshot of a LUN", |call| {
                create(call).boxed()
            })
            .answers::<SnapshotShown>()
            .body(const { &[
                needed("name", "Its name, which no other snapshot of the LUN has."),
                needed("volume_id", "The LUN."),
            ] })
            .state("of later software; it is there, and durable, when this is answered"),
        SECTION
            .change(Method::DELETE, "/snapshot/{id}", "ngx.snapshot.delete", "Delete a snapshot", |call| {
                remove(call).boxed()
            })
            .state("of later software; clones stay what they are"),
        SECTION
            .change(Method::DELETE, "/snapshot/all/{volume_id}", "ngx.snapshot.delete_all", "Delete all snapshots of a LUN", |call| {
                remove_all(call).boxed()
            })
            .state("the original has it, its path is not known: this one is ours"),
        SECTION
            .change(Method::POST, "/snapshot/clone/{id}", "ngx.snapshot.clone", "Make a LUN of a snapshot", |call| {
                clone(call).boxed()
            })
            .answers::<Cloned>()
            .body(const { &[needed("name", "The name of the LUN.")] })
            .state("of later software; in the snapshot's pool, at once, whatever its size"),
        SECTION
            .change(Method::POST, "/snapshot/restore/{id}", "ngx.snapshot.restore", "Make a LUN what it was at a snapshot", |call| {
                restore(call).boxed()
            })
            .body(const { &[needed("confirm", "`true`: what was written since is lost.")] })
            .state("of later software; 534 while an initiator is logged in that uses it; all snapshots stay"),
    ];
    all.extend(schedule::endpoints());
    all
}

/// A snapshot, in a list.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotShort {
    lun_name: String,
    pool_name: String,
    snap_id: String,
    snap_name: String,
    /// As `snap_id`.
    id: String,
    /// As `snap_name`.
    name: String,
    volume_id: String,
}

/// Snapshots of LUNs, and of shares, of which there are none.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotShortLists {
    luns: Vec<SnapshotShort>,
    shares: Vec<SnapshotShort>,
}

/// A snapshot. Sizes are bytes.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotShown {
    /// Whether something needs it: nothing does.
    binded: u8,
    /// Seconds since 1970.
    created: String,
    pool_name: String,
    /// What it holds alone.
    reserved: Option<String>,
    /// Whether its LUN can be made what it was then.
    restore: u8,
    snap_id: String,
    snap_name: String,
    vol_name: String,
    /// As `snap_id`.
    id: String,
    /// As `snap_name`.
    name: String,
    volume_id: String,
    /// As `vol_name`.
    volume_name: String,
    /// Always `lun`.
    volume_type: &'static str,
    /// `LUN@SNAPSHOT`.
    path: String,
    /// The LUN's size then.
    vol_size: String,
}

/// Snapshots of LUNs, and of shares, of which there are none.
#[derive(Debug, Serialize, ToSchema)]
struct SnapshotLists {
    shares: Vec<SnapshotShown>,
    luns: Vec<SnapshotShown>,
}

/// A LUN that was made.
#[derive(Debug, Serialize, ToSchema)]
struct Cloned {
    volume_id: String,
}

impl SnapshotShown {
    fn of(snapshot: Snapshot, volume: &Volume, pool_name: String) -> Self {
        let (id, name) = (snapshot.public_id, snapshot.name);
        Self {
            binded: 0,
            created: snapshot.created_at.as_second().to_string(),
            pool_name,
            reserved: snapshot.reserved.map(|bytes| bytes.to_string()),
            restore: 1,
            snap_id: id.clone(),
            snap_name: name.clone(),
            vol_name: volume.name.clone(),
            path: format!("{}@{name}", volume.name),
            id,
            name,
            volume_id: volume.public_id.clone(),
            volume_name: volume.name.clone(),
            volume_type: "lun",
            vol_size: snapshot.size.to_string(),
        }
    }
}

/// The snapshot of this id.
async fn find(call: &Call, id: &str) -> Answer<Snapshot> {
    let snapshot = volumes::snapshot_of_public_id(call.app().catalog(), id).await;
    let snapshot = snapshot.map_err(|error| match error {
        strongroom_catalog::Error::NotFound { .. } => Fault::not_found("snapshot"),
        error => error.into(),
    })?;
    let object = Object::of(snapshot.organisation_id).in_pool(snapshot.pool_id);
    call.may(&object, "snapshot")?;
    Ok(snapshot)
}

/// The snapshots that are asked for, each with its volume.
async fn asked(call: &Call) -> Answer<Vec<(Snapshot, Volume)>> {
    let only = match call.query("volume_id") {
        Some(id) => Some(lun::find(call, id).await?.id),
        None => None,
    };
    let known: HashMap<i64, Volume> =
        rows::volumes(call).await?.into_iter().map(|volume| (volume.id, volume)).collect();
    // One that came in between is shown the next time.
    let with = |one: Snapshot| known.get(&one.volume_id).cloned().map(|volume| (one, volume));
    Ok(rows::snapshots(call, only).await?.into_iter().filter_map(with).collect())
}

async fn shown(call: &Call) -> Answer<Vec<SnapshotShown>> {
    let pools = rows::pool_names(call).await?;
    let show = |(one, volume): (Snapshot, Volume)| {
        let pool = pools.get(&one.pool_id).cloned().unwrap_or_default();
        SnapshotShown::of(one, &volume, pool)
    };
    Ok(asked(call).await?.into_iter().map(show).collect())
}

async fn list(call: Call) -> Answer {
    if call.is_newer() {
        return found(&shown(&call).await?);
    }
    let pools = rows::pool_names(&call).await?;
    let show = |(one, volume): (Snapshot, Volume)| SnapshotShort {
        lun_name: volume.name,
        pool_name: pools.get(&one.pool_id).cloned().unwrap_or_default(),
        snap_id: one.public_id.clone(),
        snap_name: one.name.clone(),
        id: one.public_id,
        name: one.name,
        volume_id: volume.public_id,
    };
    let luns = asked(&call).await?.into_iter().map(show).collect();
    found(&SnapshotShortLists { luns, shares: Vec::new() })
}

async fn details(call: Call) -> Answer {
    let luns = shown(&call).await?;
    match call.is_newer() {
        true => found(&luns),
        false => found(&SnapshotLists { shares: Vec::new(), luns }),
    }
}

async fn told(call: &Call, snapshot: Snapshot) -> Answer<SnapshotShown> {
    let volume = call.app().storage().volume(snapshot.volume_id).await?;
    let pool = call.app().storage().pool(snapshot.pool_id).await?;
    Ok(SnapshotShown::of(snapshot, &volume, pool.name))
}

async fn show(call: Call) -> Answer {
    let snapshot = find(&call, call.id()).await?;
    found(&told(&call, snapshot).await?)
}

async fn create(call: Call) -> Answer {
    let fields = call.fields();
    let (name, id) = (fields.needed(&["name"])?, fields.needed(&["volume_id"])?);
    let volume = lun::find(&call, &id).await?;
    let snapshot = call.app().storage().create_snapshot(volume.id, &name).await?;
    found(&told(&call, snapshot).await?)
}

async fn remove(call: Call) -> Answer {
    let snapshot = find(&call, call.id()).await?;
    call.app().storage().remove_snapshot(snapshot.id).await?;
    done()
}

async fn remove_all(call: Call) -> Answer {
    let volume = lun::find(&call, call.id()).await?;
    for snapshot in volumes::snapshots_of(call.app().catalog(), volume.id).await? {
        call.app().storage().remove_snapshot(snapshot.id).await?;
    }
    done()
}

async fn clone(call: Call) -> Answer {
    let snapshot = find(&call, call.id()).await?;
    let name = call.fields().needed(&["name"])?;
    let new = NewClone { name, size: None };
    let volume = call.app().storage().clone_snapshot(snapshot.id, new).await?;
    found(&Cloned { volume_id: volume.public_id })
}

async fn restore(call: Call) -> Answer {
    let snapshot = find(&call, call.id()).await?;
    if call.fields().switch(&["confirm"])? != Some(true) {
        let text = "what was written since the snapshot is lost: send `{\"confirm\":\"true\"}`";
        return Err(Fault::invalid(text));
    }
    call.app().storage().roll_back(snapshot.id, Force::No).await?;
    done()
}
