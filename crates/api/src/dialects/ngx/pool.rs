//! Pools.

use std::collections::HashMap;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_appliance::hardware::{Hardware, PhysicalDisk};
use strongroom_catalog::pools;
use strongroom_identity::{Object, Right};
use strongroom_storage::{Layout, PoolDetails};
use utoipa::ToSchema;

use super::answer::{Answer, Fault, found};
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;
use super::integrity::{Integrity, Scrubs};
use super::{OWNER, ids};

const SECTION: Section = Section {
    name: "Pool",
    reads: "ngx.pool.read",
    view: Right::PoolView,
    manage: Right::PoolManage,
    over: Over::Any,
};

const STATUS: Section = Section { name: "Status", reads: "ngx.status.read", ..SECTION };

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        SECTION.get::<Vec<PoolShort>>("/pool", "ngx.pool.list", "Pools", |call| list(call).boxed()),
        SECTION
            .get::<Vec<Pool>>("/pool/list", "ngx.pool.list_details", "Pools, with all that is known", |call| {
                details(call).boxed()
            })
            .state(ABOUT_DISKS),
        SECTION
            .get::<PoolOverview>("/pool/overview", "ngx.pool.overview", "How many pools, and how they are", |call| {
                overview(call).boxed()
            })
            .state("of later software; the members are ours"),
        SECTION
            .get::<Pool>("/pool/{id}", "ngx.pool.show", "A pool", |call| show(call).boxed())
            .state(ABOUT_DISKS),
        STATUS
            .get::<Vec<PoolStatus>>("/status/pools", "ngx.status.pools", "How pools are", |call| {
                status(call).boxed()
            })
            .state("`DEGRADED`: disks are away; `FAULTED`: chunks are lost; `UNAVAIL`: it can't be opened here, and neither `can_start` nor `can_stop`; one that is degraded can be scrubbed"),
    ]
}

const ABOUT_DISKS: &str = "as the original; `disk` is the kernel's name, `enclosure` that of \
    `/status/enclosures`, `lunid` the disk's name in the world, empty where nobody says; a pool on \
    one disk is `raid0`, on several the same `raid1`, with one parity `raid5`, with two `raid6`, with \
    more `raid-p` and their number";

/// A pool, in a list.
#[derive(Debug, Serialize, ToSchema)]
struct PoolShort {
    owner: &'static str,
    pool_id: String,
    pool_name: String,
    /// As `pool_id`.
    id: String,
    /// As `pool_name`.
    name: String,
}

/// A disk of a pool.
#[derive(Debug, Serialize, ToSchema)]
struct PoolDisk {
    /// What the kernel calls it; its path, where it lies on no disk of this machine.
    #[schema(example = "nvme0n1")]
    disk: String,
    /// Where it is.
    #[schema(example = "E1:S18")]
    enclosure: String,
    /// What is wrong with it.
    info: String,
    /// Its name in the world.
    lunid: String,
    /// `ONLINE`, `UNAVAIL`, `DEGRADED` (it was away and is out of date) or `FAULTED`.
    state: &'static str,
    /// The group of disks that it belongs to.
    stripe_info: &'static str,
}

/// A pool.
#[derive(Debug, Serialize, ToSchema)]
struct Pool {
    /// Its disks.
    data: Vec<PoolDisk>,
    /// Whether it is encrypted.
    encryption: u8,
    integrity: Integrity,
    /// Whether all its disks speak NVMe.
    is_nvme: u8,
    owner: &'static str,
    pool_id: String,
    pool_name: String,
    #[schema(example = "raid1")]
    raidtype: String,
    /// `ONLINE`, `DEGRADED`, `FAULTED` or `UNAVAIL`.
    status: &'static str,
    /// Disks in a group.
    stripe_len: usize,
    /// As `pool_id`.
    id: String,
    /// As `pool_name`.
    name: String,
    /// Whether no disk of it turns.
    is_flash: u8,
    /// The chunks of disks.
    #[schema(example = "64k")]
    blocksize: String,
}

/// How a pool is.
#[derive(Debug, Serialize, ToSchema)]
struct PoolStatus {
    integrity: Integrity,
    owner: &'static str,
    pool_id: String,
    pool_name: String,
    status: &'static str,
    /// As `pool_id`.
    id: String,
    /// As `pool_name`.
    name: String,
}

/// How many pools there are.
#[derive(Debug, Serialize, ToSchema)]
struct PoolOverview {
    total: usize,
    online: usize,
    degraded: usize,
    faulted: usize,
    unavailable: usize,
    disks: usize,
}

/// A pool that the caller sees.
pub(super) struct Seen {
    pub(super) known: pools::Pool,
    /// None: it can't be opened here.
    pub(super) details: Option<PoolDetails>,
}

impl Seen {
    /// Opens it to see how it is.
    pub(super) async fn of(call: &Call, known: pools::Pool) -> Self {
        let details = match call.app().storage().show_pool(known.id).await {
            Ok(details) => Some(details),
            Err(error) => {
                tracing::debug!("the pool {} can't be shown: {error}", known.name);
                None
            }
        };
        Self { known, details }
    }

    fn status(&self) -> &'static str {
        match self.details.as_ref().map(|details| details.state) {
            Some("ok") => "ONLINE",
            Some("degraded") => "DEGRADED",
            Some(_) => "FAULTED",
            None => "UNAVAIL",
        }
    }
}

/// The pools that the caller sees, by name.
pub(super) async fn visible(call: &Call) -> Answer<Vec<pools::Pool>> {
    let scope = call.scope_of(Right::PoolView);
    Ok(call.app().storage().known(&scope, call.only().as_deref()).await?)
}

/// The pool with the id in the path.
pub(super) async fn find(call: &Call) -> Answer<pools::Pool> {
    let id = call.id();
    let known = visible(call).await?.into_iter().find(|pool| ids::of_pool(&pool.uuid) == id);
    let known = known.ok_or_else(|| Fault::not_found("pool"))?;
    call.may(&Object::of(known.organisation_id).in_pool(known.id), "pool")?;
    Ok(known)
}

/// The pool of this name, in which the caller is to make something.
pub(super) async fn named(call: &Call, right: Right, name: &str) -> Answer<pools::Pool> {
    let scope = call.scope_of(right);
    let all = call.app().storage().known(&scope, call.only().as_deref()).await?;
    let known = all.into_iter().find(|pool| pool.name == name);
    let known = known.ok_or_else(|| Fault::not_found("pool"))?;
    call.may_also(right, &Object::of(known.organisation_id).in_pool(known.id), "pool")?;
    Ok(known)
}

async fn all(call: &Call) -> Answer<Vec<Seen>> {
    let mut all = Vec::new();
    for known in visible(call).await? {
        all.push(Seen::of(call, known).await);
    }
    Ok(all)
}

async fn list(call: Call) -> Answer {
    let short = |pool: pools::Pool| {
        let (id, name) = (ids::of_pool(&pool.uuid), pool.name);
        PoolShort { owner: OWNER, pool_id: id.clone(), pool_name: name.clone(), id, name }
    };
    found(&visible(&call).await?.into_iter().map(short).collect::<Vec<_>>())
}

async fn details(call: Call) -> Answer {
    let (seen, scrubs) = (all(&call).await?, Scrubs::of(&call).await?);
    found(&shown(&call, seen, &scrubs).await?)
}

async fn show(call: Call) -> Answer {
    let known = find(&call).await?;
    let seen = Seen::of(&call, known).await;
    let scrubs = Scrubs::of(&call).await?;
    let shown = shown(&call, vec![seen], &scrubs).await?;
    found(&shown.into_iter().next().ok_or_else(|| Fault::not_found("pool"))?)
}

async fn status(call: Call) -> Answer {
    let scrubs = Scrubs::of(&call).await?;
    let one = |seen: Seen| {
        let (id, name) = (ids::of_pool(&seen.known.uuid), seen.known.name.clone());
        PoolStatus {
            integrity: scrubs.tell(&seen.known, seen.details.as_ref()),
            owner: OWNER,
            pool_id: id.clone(),
            pool_name: name.clone(),
            status: seen.status(),
            id,
            name,
        }
    };
    found(&all(&call).await?.into_iter().map(one).collect::<Vec<_>>())
}

async fn overview(call: Call) -> Answer {
    let all = all(&call).await?;
    let count = |status: &str| all.iter().filter(|seen| seen.status() == status).count();
    let disks = |seen: &Seen| seen.details.as_ref().map_or(0, |details| details.disks.len());
    found(&PoolOverview {
        total: all.len(),
        online: count("ONLINE"),
        degraded: count("DEGRADED"),
        faulted: count("FAULTED"),
        unavailable: count("UNAVAIL"),
        disks: all.iter().map(disks).sum(),
    })
}

/// Pools as they are shown, with the disks that they lie on.
async fn shown(call: &Call, all: Vec<Seen>, scrubs: &Scrubs) -> Answer<Vec<Pool>> {
    let paths = all
        .iter()
        .filter_map(|seen| seen.details.as_ref())
        .flat_map(|details| details.disks.iter().filter_map(|disk| disk.path.clone()));
    let paths: Vec<String> = paths.collect();
    let on = call.app().look(move |hardware| Physical::of(hardware, &paths)).await?;
    Ok(all.into_iter().map(|seen| of(seen, scrubs, &on)).collect())
}

/// The disks of the machine that directories lie on.
pub(super) struct Physical(HashMap<String, PhysicalDisk>);

impl Physical {
    /// Of the disks of these pools' disks, by their paths.
    pub(super) fn of(hardware: &Hardware, paths: &[String]) -> Self {
        let (_, disks) = hardware.disks();
        let found = paths.iter().filter_map(|path| {
            let name = hardware.disk_of(Hardware::device_of(path.as_ref())?)?;
            let disk = disks.iter().find(|disk| disk.name == name)?;
            Some((path.clone(), disk.clone()))
        });
        Self(found.collect())
    }

    /// Their names.
    pub(super) fn names(&self) -> Vec<String> {
        self.0.values().map(|disk| disk.name.clone()).collect()
    }
}

fn of(seen: Seen, scrubs: &Scrubs, on: &Physical) -> Pool {
    let (id, name) = (ids::of_pool(&seen.known.uuid), seen.known.name.clone());
    let status = seen.status();
    let integrity = scrubs.tell(&seen.known, seen.details.as_ref());
    let disks = seen.details.as_ref().map(|details| details.disks.as_slice()).unwrap_or_default();
    let data: Vec<_> = disks.iter().map(|disk| member(disk, on)).collect();
    let under: Option<Vec<_>> =
        disks.iter().map(|disk| on.0.get(disk.path.as_deref().unwrap_or_default())).collect();
    let under = under.filter(|under| !under.is_empty()).unwrap_or_default();
    let every = |is: fn(&PhysicalDisk) -> bool| {
        u8::from(!under.is_empty() && under.iter().all(|disk| is(disk)))
    };
    Pool {
        encryption: seen.known.encrypted.into(),
        integrity,
        is_nvme: every(|disk| disk.is_nvme),
        owner: OWNER,
        raidtype: seen.details.as_ref().map(|details| raid(&details.layout)).unwrap_or_default(),
        status,
        stripe_len: data.len(),
        is_flash: every(|disk| disk.rotates == Some(false)),
        blocksize: seen
            .details
            .as_ref()
            .map(|details| format!("{}k", details.block_size >> 10))
            .unwrap_or_default(),
        data,
        pool_id: id.clone(),
        pool_name: name.clone(),
        id,
        name,
    }
}

fn member(disk: &strongroom_storage::Disk, on: &Physical) -> PoolDisk {
    let path = disk.path.clone().unwrap_or_default();
    let found = on.0.get(&path);
    let slot = found.and_then(|disk| disk.slot);
    let (state, info) = match disk.state {
        "ok" => ("ONLINE", ""),
        "missing" => ("UNAVAIL", "missing"),
        "outdated" => ("DEGRADED", "it was away when the pool was changed"),
        _ => ("FAULTED", "damaged"),
    };
    PoolDisk {
        disk: found.map_or(path, |disk| disk.name.clone()),
        enclosure: slot
            .map(|slot| format!("E{}:S{}", slot.enclosure, slot.number))
            .unwrap_or_default(),
        info: info.into(),
        lunid: found.and_then(|disk| disk.wwid.clone()).unwrap_or_default(),
        state,
        stripe_info: "c-1",
    }
}

/// What the original calls a layout.
fn raid(layout: &str) -> String {
    match layout.parse() {
        Ok(Layout::Single) => "raid0".into(),
        Ok(Layout::Mirror) => "raid1".into(),
        Ok(Layout::Erasure { parity: 1, .. }) => "raid5".into(),
        Ok(Layout::Erasure { parity: 2, .. }) => "raid6".into(),
        Ok(Layout::Erasure { parity, .. }) => format!("raid-p{parity}"),
        Err(_) => layout.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_originals_names() {
        for (layout, name) in [
            ("single", "raid0"),
            ("mirror", "raid1"),
            ("2+1", "raid5"),
            ("4+2", "raid6"),
            ("8+3", "raid-p3"),
        ] {
            assert_eq!(raid(layout), name, "{layout}");
        }
    }
}
