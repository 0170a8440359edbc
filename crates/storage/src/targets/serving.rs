//! The servers of this process, which follow the catalogue.
//!
//! A target is let in to when all that is mapped to it is there: an initiator that comes back and does
//! not find its disk would give it up, while one that is told to come later comes. What was served stays
//! served, whatever else is in the way.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use strongroom_catalog::targets::Lun;
use strongroom_iscsi as iscsi;
use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use strongroom_iscsi::{Limits, Server};

use super::guard::Guard;
use super::reservations::Kept;
use super::state::{Group, Portal, Report, Served, leaving, unmap};
use super::wanted::{Wanted, WantedTarget};
use super::{TargetState, TargetWatch};
use crate::{Error, Inner, Result, Storage, volumes};

/// How long it waits before it tries again what was in the way: at first, and at most.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// How often it looks when nothing is in the way: another node may have changed the catalogue, or a
/// volume may have been opened anew.
const LOOK: Duration = Duration::from_secs(30);

/// Runs what may wait for connections and their commands.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Ended)
}

impl Storage {
    /// Serves targets from now on, until [`Storage::stop_targets`]: those that the catalogue has, as
    /// soon as their volumes can be opened and as long as they are enabled.
    pub fn serve_targets(&self, watch: Arc<dyn TargetWatch>) {
        let storage = self.clone();
        self.inner.targets.guard.tell(Arc::clone(&watch));
        self.inner.targets.with(|state| {
            if state.watch.is_none() {
                state.watch = Some(watch);
                state.keeper = Some(tokio::spawn(async move { storage.keep_targets().await }));
            }
        });
    }

    /// Logs all initiators out, and listens no more. What they wrote is made durable.
    pub async fn stop_targets(&self) {
        let targets = &self.inner.targets;
        let keeper = targets.with(|state| {
            state.watch = None;
            state.keeper.take()
        });
        targets.wake.notify_one();
        if let Some(keeper) = keeper {
            // An error means that it has ended.
            let _ = keeper.await;
        }
        let _turn = targets.turn.of(0).await;
        let all = targets.with(std::mem::take);
        let ended = blocking(move || {
            all.groups.values().for_each(|group| group.server.stop());
            for (volume, unit) in &all.units {
                if let Err(error) = unit.device().flush() {
                    tracing::error!(volume, %error, "what was written to a volume may be lost");
                }
            }
        });
        if ended.await.is_err() {
            tracing::error!("the servers of targets did not end well");
        }
    }

    /// Has what is served follow the catalogue, once and again.
    async fn keep_targets(&self) {
        let targets = &self.inner.targets;
        let mut pause = SHORTEST;
        loop {
            let is_well = self.follow_once().await;
            let wait = if is_well { LOOK } else { pause };
            pause = if is_well { SHORTEST } else { (pause * 2).min(LONGEST) };
            tokio::select! {
                () = targets.wake.notified() => pause = SHORTEST,
                () = tokio::time::sleep(wait) => {}
            }
            if !targets.is_running() {
                return;
            }
        }
    }

    /// Has what is served follow the catalogue, after a change of it. What is in the way is tried
    /// again, and told with the target. Nothing happens while nothing is served.
    pub(crate) async fn follow_targets(&self) {
        if !self.follow_once().await {
            self.inner.targets.wake.notify_one();
        }
    }

    /// Whether nothing is in the way.
    async fn follow_once(&self) -> bool {
        let storage = self.clone();
        // Not to be cut off half way, when who asked is gone.
        let followed = tokio::spawn(async move {
            let _turn = storage.inner.targets.turn.of(0).await;
            if !storage.inner.targets.is_running() {
                return Ok(true);
            }
            storage.follow().await
        });
        match followed.await {
            Ok(Ok(is_well)) => is_well,
            Ok(Err(error)) => {
                tracing::error!("the targets stay as they were: {error}");
                false
            }
            Err(_) => false,
        }
    }

    /// Called by whose turn it is; whether nothing is in the way.
    async fn follow(&self) -> Result<bool> {
        let (targets, sealer) = (&self.inner.targets, &*self.inner.sealer);
        let wanted = Wanted::read(&self.inner.catalog, sealer, &self.inner.node).await?;
        let leaving = targets.with(|state| leaving(state, &wanted));
        blocking(move || leaving.end()).await?;
        for one in wanted.targets.values() {
            self.have_target(one)?;
        }
        let portals = wanted.portals.clone();
        let storage = self.clone();
        blocking(move || storage.listen(&portals)).await?;
        let mut reports = HashMap::new();
        // A pool is asked for once, and not for each of its volumes.
        let mut pools = HashMap::new();
        let mut used = HashSet::new();
        self.let_go_of_stopped(&wanted).await?;
        for (id, one) in &wanted.targets {
            let trouble = self.map_all(one, &mut pools, &mut used).await?;
            reports.insert(*id, self.report_of(one, trouble));
        }
        for (id, node) in &wanted.elsewhere {
            let trouble = Some(format!("the disks of its volumes are on {node}"));
            reports.insert(*id, Report { state: TargetState::Elsewhere, trouble });
        }
        let unused = targets.with(|state| {
            let is_used = |volume: i64| used.iter().any(|(_, used)| *used == volume);
            let units: Vec<_> = state.units.extract_if(|id, _| !is_used(*id)).collect();
            let open: Vec<_> = state.open.extract_if(|key, _| !used.contains(key)).collect();
            (units, open)
        });
        // The last who has a volume closes it.
        blocking(move || drop(unused)).await?;
        let names = wanted.targets.values().map(|one| (one.row.id, one.row.name.clone())).collect();
        let is_well = reports
            .values()
            .all(|report| report.trouble.is_none() || report.state == TargetState::Elsewhere);
        targets.keep_reports(reports, &names);
        Ok(is_well)
    }

    /// Has a target there, with its name and who may log in to it.
    fn have_target(&self, one: &WantedTarget) -> Result<()> {
        let (row, targets) = (&one.row, &self.inner.targets);
        let target = match targets.served(row.id) {
            Some(target) => target,
            None => {
                let invalid = |error: iscsi::Error| Error::Invalid(error.to_string());
                let target = iscsi::Target::new(&row.iqn).map_err(invalid)?;
                target.suspend(true);
                target.set_auth(nobody());
                targets.with(|state| {
                    let group = state.groups.entry(row.portal_group_id).or_insert_with(|| {
                        let server = Arc::new(Server::new(Limits::default()));
                        let guard: Arc<Guard> = Arc::clone(&targets.guard);
                        server.set_doorkeeper(guard);
                        Group { server, portals: BTreeMap::new() }
                    });
                    group.server.add(Arc::clone(&target)).map_err(invalid)?;
                    let (group, target) = (row.portal_group_id, Arc::clone(&target));
                    state.targets.insert(row.id, Served { group, target, is_complete: false });
                    Ok::<_, Error>(())
                })?;
                target
            }
        };
        target.set_alias(Some(&row.name));
        target.set_auth(one.auth.clone().unwrap_or_else(|_| nobody()));
        Ok(())
    }

    /// Listens where it is to; what is no longer listened at was closed before.
    fn listen(&self, portals: &BTreeMap<i64, Vec<String>>) {
        let targets = &self.inner.targets;
        for (group, addresses) in portals {
            for address in addresses {
                let server = targets.with(|state| {
                    let group = state.groups.get(group)?;
                    let listens = matches!(group.portals.get(address), Some(Portal::Listens(_)));
                    (!listens).then(|| Arc::clone(&group.server))
                });
                let Some(server) = server else { continue };
                let bound = match address.parse::<SocketAddr>() {
                    Ok(address) => server.listen(address).map_err(|error| error.to_string()),
                    Err(_) => Err(format!("{address} is no address")),
                };
                targets.with(|state| {
                    let portal = match (bound, &state.watch) {
                        (Ok(bound), Some(watch)) => Portal::Listens(watch.listens(bound)),
                        (Ok(_), None) => Portal::Listens(Box::new(())),
                        (Err(why), _) => Portal::Trouble(why),
                    };
                    if let Some(group) = state.groups.get_mut(group) {
                        group.portals.insert(address.clone(), portal);
                    }
                });
            }
        }
    }

    /// Has mapped what is to be mapped to a target, and nothing else; what is in the way.
    async fn map_all(
        &self,
        one: &WantedTarget,
        pools: &mut HashMap<i64, Result<(), String>>,
        used: &mut HashSet<(i64, i64)>,
    ) -> Result<Option<String>> {
        let Some(target) = self.inner.targets.served(one.row.id) else { return Ok(None) };
        let numbers: HashSet<u32> = one.luns.iter().map(|lun| lun.number).collect();
        let mut gone = target.luns();
        gone.retain(|number| !numbers.contains(&u32::from(*number)));
        if !gone.is_empty() {
            let target = Arc::clone(&target);
            blocking(move || unmap(&target, gone)).await?;
        }
        let mut trouble = one.auth.as_ref().err().cloned();
        for lun in &one.luns {
            // While it can't be opened anew, the unit that there is goes on.
            used.insert((lun.target_id, lun.volume_id));
            if let Entry::Vacant(entry) = pools.entry(lun.pool_id) {
                let opened = self.open(lun.pool_id).await;
                entry.insert(opened.map(drop).map_err(|error| error.to_string()));
            }
            let unit = match pools.get(&lun.pool_id) {
                Some(Err(why)) => Err(why.clone()),
                _ => self.unit(one, lun).await.map_err(|error| error.to_string()),
            };
            match unit {
                Ok(unit) => self.map(&target, lun.number, unit).await?,
                Err(why) => {
                    let why = format!("the volume {} can't be served: {why}", lun.volume);
                    trouble = trouble.or(Some(why));
                }
            }
        }
        let is_complete = trouble.is_none();
        self.inner.targets.with(|state| {
            if let Some(served) = state.targets.get_mut(&one.row.id) {
                served.is_complete |= is_complete;
                served.target.suspend(!served.is_complete);
            }
        });
        Ok(trouble)
    }

    /// Maps a unit to a number, in place of another that may be there.
    async fn map(
        &self,
        target: &Arc<iscsi::Target>,
        number: u32,
        unit: Arc<LogicalUnit>,
    ) -> Result<()> {
        let number = u16::try_from(number)
            .map_err(|_| Error::Invalid(format!("{number} is above the highest LUN")))?;
        match target.unit(number) {
            Some(old) if Arc::ptr_eq(&old, &unit) => return Ok(()),
            Some(_) => {
                let target = Arc::clone(target);
                blocking(move || target.unmap(number)).await?;
            }
            None => {}
        }
        target.map(number, unit).map_err(|error| Error::Invalid(error.to_string()))
    }

    /// The unit of a volume: the one that there is, or another if the volume was opened anew.
    async fn unit(&self, one: &WantedTarget, lun: &Lun) -> Result<Arc<LogicalUnit>> {
        let (key, volume) = ((lun.target_id, lun.volume_id), lun.volume_id);
        let name = &one.row.name;
        let known = self.inner.targets.with(|state| {
            let open = state.open.get(&key).filter(|(of, _)| of == name)?;
            Some(open.1.device())
        });
        let device = match known {
            Some(device) => device,
            None => {
                let served = self.serve_volume(volume, self.server(one.row.id, name)).await?;
                let device = served.device();
                let open = (name.clone(), served);
                let old = self.inner.targets.with(|state| state.open.insert(key, open));
                blocking(move || drop(old)).await?;
                device
            }
        };
        let known = self.inner.targets.with(|state| state.units.get(&volume).cloned());
        let is_same = |unit: &Arc<LogicalUnit>| {
            std::ptr::addr_eq(Arc::as_ptr(unit.device()), Arc::as_ptr(&device))
        };
        if let Some(unit) = known.filter(is_same) {
            return Ok(unit);
        }
        let store = Arc::new(Kept::of(&self.inner.catalog, volume));
        // A logical block is a record of the volume's log by itself: it is there or not.
        let physical = Some(device.geometry().block);
        let identity = Identity { physical, ..Identity::default() };
        let unit = blocking(move || LogicalUnit::new(device, identity, Some(store))).await?;
        let unit = Arc::new(unit.map_err(|error| Error::Invalid(error.to_string()))?);
        self.inner.targets.with(|state| state.units.insert(volume, Arc::clone(&unit)));
        Ok(unit)
    }

    /// A target as one who serves volumes.
    pub(super) fn server(&self, target: i64, name: &str) -> volumes::Server {
        let inner: Weak<Inner> = Arc::downgrade(&self.inner);
        let in_use = move || {
            let served = inner.upgrade().and_then(|inner| inner.targets.served(target));
            served.is_some_and(|served| !served.sessions().is_empty())
        };
        volumes::Server { name: format!("target {name}"), in_use: Arc::new(in_use) }
    }

    /// A pool or a volume that stopped writing after an error is opened anew once nobody has it: initiators
    /// are logged out, and come back to what was durable.
    async fn let_go_of_stopped(&self, wanted: &Wanted) -> Result<()> {
        let is_stopped =
            |pool| self.if_open(pool).is_some_and(|pool| pool.check_writable().is_err());
        for one in wanted.targets.values() {
            let has_dead = self.inner.targets.with(|state| {
                state.open.iter().any(|((of, _), (_, open))| *of == one.row.id && open.is_dead())
            });
            if !has_dead && !one.luns.iter().any(|lun| is_stopped(lun.pool_id)) {
                continue;
            }
            let closed = self.inner.targets.with(|state| {
                let served = state.targets.get_mut(&one.row.id)?;
                served.is_complete = false;
                served.target.suspend(true);
                let target = Arc::clone(&served.target);
                let volumes: HashSet<i64> = one.luns.iter().map(|lun| lun.volume_id).collect();
                let units: Vec<_> = state.units.extract_if(|id, _| volumes.contains(id)).collect();
                let open: Vec<_> =
                    state.open.extract_if(|(target, _), _| *target == one.row.id).collect();
                Some((target, units, open))
            });
            let Some((target, units, open)) = closed else { continue };
            blocking(move || {
                target.close_sessions();
                unmap(&target, target.luns());
                drop((units, open));
            })
            .await?;
        }
        Ok(())
    }

    /// How a target fares, with what is in the way of its portals.
    fn report_of(&self, one: &WantedTarget, trouble: Option<String>) -> Report {
        self.inner.targets.with(|state| {
            let is_complete =
                state.targets.get(&one.row.id).is_some_and(|served| served.is_complete);
            let none = BTreeMap::new();
            let group = state.groups.get(&one.row.portal_group_id);
            let portals = group.map_or(&none, |group| &group.portals);
            let listens = portals.values().any(|portal| matches!(portal, Portal::Listens(_)));
            let why = portals.values().find_map(|portal| match portal {
                Portal::Trouble(why) => Some(why.clone()),
                Portal::Listens(_) => None,
            });
            let nowhere = || {
                let name = &one.row.portal_group;
                portals.is_empty().then(|| format!("its portal group {name} has no portal"))
            };
            let trouble = trouble.or(why).or_else(nowhere);
            let state = match is_complete && listens && one.auth.is_ok() {
                true => TargetState::Served,
                false => TargetState::Waiting,
            };
            Report { state, trouble }
        })
    }

    /// Has initiators hear of a volume that has grown. Nobody waits for those that take long to listen.
    pub(crate) fn tell_size(&self, volume: i64) {
        let targets = self.inner.targets.with(|state| {
            let of = state.open.keys().filter(|(_, one)| *one == volume);
            let of = of.filter_map(|(target, _)| state.targets.get(target));
            of.map(|served| Arc::clone(&served.target)).collect::<Vec<_>>()
        });
        if !targets.is_empty() {
            tokio::task::spawn_blocking(move || targets.iter().for_each(|one| one.look_at_sizes()));
        }
    }
}

/// Lets in nobody.
fn nobody() -> iscsi::AuthGroup {
    iscsi::AuthGroup::open().initiators(std::iter::empty()).expect("of no names none is wrong")
}
