//! What is served, and what goes when the catalogue no longer has it.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_iscsi as iscsi;
use strongroom_iscsi::Server;
use strongroom_iscsi::scsi::LogicalUnit;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::guard::Guard;
use super::wanted::Wanted;
use super::{TargetFigures, TargetState, TargetWatch};
use crate::turns::Turns;
use crate::volumes;

/// What is served. It is changed by one at a time, whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    pub(super) turn: Turns,
    state: Mutex<State>,
    pub(super) guard: Arc<Guard>,
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// Who is told what the servers do; none: nothing is served.
    pub(super) watch: Option<Arc<dyn TargetWatch>>,
    pub(super) keeper: Option<JoinHandle<()>>,
    /// By portal group.
    pub(super) groups: BTreeMap<i64, Group>,
    pub(super) targets: BTreeMap<i64, Served>,
    /// By volume: all targets that a volume is mapped to share what is kept of its initiators.
    pub(super) units: HashMap<i64, Arc<LogicalUnit>>,
    /// By target and volume, what keeps the volume open, under the name that it was opened for.
    pub(super) open: HashMap<(i64, i64), (String, volumes::Served)>,
    reports: HashMap<i64, Report>,
}

/// The server of a portal group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) server: Arc<Server>,
    pub(super) portals: BTreeMap<String, Portal>,
}

pub(super) enum Portal {
    /// Entered among what listens for as long as this lives.
    Listens(#[expect(dead_code, reason = "it is kept")] Box<dyn Any + Send + Sync>),
    Trouble(String),
}

impl std::fmt::Debug for Portal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Listens(_) => f.write_str("Listens"),
            Self::Trouble(why) => f.debug_tuple("Trouble").field(why).finish(),
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct Served {
    pub(super) group: i64,
    pub(super) target: Arc<iscsi::Target>,
    /// All that is mapped to it was there once.
    pub(super) is_complete: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) state: TargetState,
    pub(super) trouble: Option<String>,
}

impl Targets {
    pub(super) fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this process listens at a portal of a group, and why not if it should.
    pub(super) fn portal(&self, group: i64, address: &str) -> (bool, Option<String>) {
        self.with(|state| match state.groups.get(&group).and_then(|g| g.portals.get(address)) {
            Some(Portal::Listens(_)) => (true, None),
            Some(Portal::Trouble(why)) => (false, Some(why.clone())),
            None => (false, None),
        })
    }

    /// How an enabled target fares.
    pub(super) fn report(&self, target: i64) -> (TargetState, Option<String>) {
        self.with(|state| match state.reports.get(&target) {
            Some(report) => (report.state, report.trouble.clone()),
            None if state.watch.is_some() => (TargetState::Waiting, None),
            None => (TargetState::Stopped, None),
        })
    }

    /// The target of this number, if it is served.
    pub(super) fn served(&self, target: i64) -> Option<Arc<iscsi::Target>> {
        self.with(|state| state.targets.get(&target).map(|served| Arc::clone(&served.target)))
    }

    /// All that are served, by their numbers.
    pub(super) fn all(&self) -> Vec<(i64, Arc<iscsi::Target>)> {
        self.with(|state| {
            state.targets.iter().map(|(id, served)| (*id, Arc::clone(&served.target))).collect()
        })
    }

    pub(super) fn is_running(&self) -> bool {
        self.with(|state| state.watch.is_some())
    }

    /// How many fare how.
    pub(super) fn figures(&self) -> TargetFigures {
        let sessions = self.all().iter().map(|(_, target)| target.sessions().len()).sum();
        self.with(|state| {
            let of = |word| state.reports.values().filter(|report| report.state == word).count();
            let (served, waiting) = (of(TargetState::Served), of(TargetState::Waiting));
            TargetFigures { served, waiting, sessions }
        })
    }

    /// Keeps what came of it, and logs what is new.
    pub(super) fn keep_reports(&self, reports: HashMap<i64, Report>, names: &HashMap<i64, String>) {
        let before = self.with(|state| std::mem::replace(&mut state.reports, reports.clone()));
        for (id, report) in &reports {
            let name = names.get(id).map(String::as_str).unwrap_or_default();
            let old = before.get(id);
            if old == Some(report) {
                continue;
            }
            match &report.trouble {
                Some(why) => tracing::warn!(target_name = name, "a target is in trouble: {why}"),
                None if report.state == TargetState::Served => {
                    tracing::info!(target_name = name, "a target is served");
                }
                None => {}
            }
        }
    }
}

/// Unmaps what has these numbers; when it returns, nobody uses it by this target.
pub(super) fn unmap(target: &iscsi::Target, numbers: Vec<u16>) {
    for number in numbers {
        target.unmap(number);
    }
}

/// What is no longer served: taken out of the state, and to be ended where it may wait.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    targets: Vec<(Arc<Server>, Arc<iscsi::Target>)>,
    portals: Vec<(Arc<Server>, SocketAddr, Portal)>,
    servers: Vec<Arc<Server>>,
}

pub(super) fn leaving(state: &mut State, wanted: &Wanted) -> Leaving {
    let mut leaving = Leaving::default();
    let stays = |id: &i64, served: &Served| {
        wanted.targets.get(id).is_some_and(|one| {
            one.row.portal_group_id == served.group && one.row.iqn == served.target.name()
        })
    };
    let gone: Vec<i64> =
        state.targets.iter().filter(|(id, served)| !stays(id, served)).map(|(id, _)| *id).collect();
    for served in gone.iter().filter_map(|id| state.targets.remove(id)) {
        if let Some(group) = state.groups.get(&served.group) {
            leaving.targets.push((Arc::clone(&group.server), served.target));
        }
    }
    for (id, group) in &mut state.groups {
        let none = Vec::new();
        let addresses = wanted.portals.get(id).unwrap_or(&none);
        let gone: Vec<String> =
            group.portals.keys().filter(|one| !addresses.contains(one)).cloned().collect();
        for address in gone {
            let portal = group.portals.remove(&address);
            if let (Ok(address), Some(portal)) = (address.parse(), portal) {
                leaving.portals.push((Arc::clone(&group.server), address, portal));
            }
        }
    }
    let gone: Vec<i64> =
        state.groups.keys().filter(|id| !wanted.portals.contains_key(*id)).copied().collect();
    for group in gone.iter().filter_map(|id| state.groups.remove(id)) {
        leaving.servers.push(group.server);
    }
    leaving
}

impl Leaving {
    /// Ends it: returns when no initiator uses what it was served by.
    pub(super) fn end(self) {
        for (server, address, portal) in self.portals {
            server.close(address);
            drop(portal);
        }
        for (server, target) in self.targets {
            server.remove(target.name());
            unmap(&target, target.luns());
        }
        self.servers.iter().for_each(|server| server.stop());
    }
}
