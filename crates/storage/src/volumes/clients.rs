//! Clients of exports: who is connected to which volume, and who has to go because it is served no more.
//!
//! Whoever serves exports says who is connected ([`Storage::connected`]), and how that one is let go. The
//! volume or snapshot of a client is served on for as long as its rows are there and its pool can be
//! written; else the client is let go, so that the pool can be closed, or opened anew.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use strongroom_block::volume::VolumeId;
use strongroom_catalog::{pools, volumes};

use super::serve::Served;
use crate::{Error, Result, Storage};

/// A client that is connected to an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportClient {
    /// Its number, which no other client of this process had.
    pub number: u64,
    /// The volume.
    pub volume_id: i64,
    /// The export by the name that the client asked for.
    pub export: String,
    /// Who it is: what its certificate says, or whose process it is.
    pub client: String,
    /// Where it is; None: on this machine.
    pub address: Option<SocketAddr>,
    /// Since when it is connected.
    pub since: Timestamp,
}

/// Somebody who has just connected.
pub struct NewClient {
    /// The export by the name that the client asked for.
    pub export: String,
    /// Who it is.
    pub client: String,
    /// Where it is; None: on this machine.
    pub address: Option<SocketAddr>,
    /// Has it go, once what it asked for is answered; it must not wait for that.
    pub end: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for NewClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { export, client, address, .. } = self;
        let mut shown = f.debug_struct("NewClient");
        shown.field("export", export).field("client", client).field("address", address);
        shown.finish_non_exhaustive()
    }
}

/// All that are connected.
#[derive(Debug, Default)]
pub(crate) struct Clients(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    next: u64,
    all: BTreeMap<u64, Connected>,
}

/// What is known of one.
#[derive(Clone)]
struct Connected {
    shown: ExportClient,
    of: Of,
    end: Arc<dyn Fn() + Send + Sync>,
}

/// What a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Of {
    pool: i64,
    volume: i64,
    uuid: VolumeId,
    snapshot: Option<i64>,
}

impl fmt::Debug for Connected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Connected").field(&self.shown).field(&self.of).finish()
    }
}

impl Clients {
    fn with<R>(&self, look: impl FnOnce(&mut State) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn all(&self) -> Vec<Connected> {
        self.with(|state| state.all.values().cloned().collect())
    }

    /// Has those go that are such.
    fn end(&self, is_such: impl Fn(&Connected) -> bool) {
        // What it takes is theirs: nothing is held meanwhile.
        self.all().into_iter().filter(is_such).for_each(|one| (one.end)());
    }

    /// Has those go that have volumes of a pool.
    pub(crate) fn end_of_pool(&self, pool: i64) {
        self.end(|one| one.of.pool == pool);
    }

    /// Has those go that have a volume, or a snapshot of it.
    pub(crate) fn end_of_volume(&self, volume: i64) {
        self.end(|one| one.of.volume == volume);
    }
}

/// A client is among those that are connected for as long as this is kept.
#[derive(Debug)]
pub struct Entered {
    storage: Storage,
    client: ExportClient,
}

impl Entered {
    /// The client, as it is shown.
    pub fn client(&self) -> &ExportClient {
        &self.client
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let gone = self.storage.inner.clients.with(|state| state.all.remove(&self.client.number));
        drop(gone);
    }
}

impl Storage {
    /// Enters a client among those that are connected, which uses this.
    pub fn connected(&self, served: &Served, new: NewClient) -> Entered {
        let NewClient { export, client, address, end } = new;
        let of = Of {
            pool: served.volume().pool_id,
            volume: served.volume().id,
            uuid: served.volume_uuid(),
            snapshot: served.snapshot(),
        };
        let client = self.inner.clients.with(|state| {
            let (number, since) = (state.next, Timestamp::now());
            state.next += 1;
            let shown =
                ExportClient { number, volume_id: of.volume, export, client, address, since };
            state.all.insert(number, Connected { shown: shown.clone(), of, end });
            shown
        });
        Entered { storage: self.clone(), client }
    }

    /// Clients that are connected to a volume's exports on this machine, its snapshots' too.
    pub fn export_clients(&self, volume: i64) -> Vec<ExportClient> {
        let all = self.inner.clients.all().into_iter();
        all.filter(|one| one.of.volume == volume).map(|one| one.shown).collect()
    }

    /// Has clients go whose pool stopped writing after an error, or is no longer in the catalogue, or whose
    /// volume or snapshot isn't; a pool that is no longer in the catalogue is closed then. To be called
    /// again and again: who is let go takes a while.
    ///
    /// # Errors
    /// Those of the database; what follows from it then waits for the next time.
    pub async fn look_after_exports(&self) -> Result<()> {
        let all = self.inner.clients.all();
        let mut known = Rows::default();
        for one in &all {
            if let Some(why) = self.over(one.of, &mut known).await? {
                let ExportClient { export, client, .. } = &one.shown;
                tracing::info!(export, client, "a client of an export is let go: {why}");
                (one.end)();
            }
        }
        self.close_forgotten().await
    }

    /// Why something is served no more.
    async fn over(&self, of: Of, known: &mut Rows) -> Result<Option<&'static str>> {
        if self.if_open(of.pool).is_some_and(|pool| pool.check_writable().is_err()) {
            return Ok(Some("the pool stopped writing after an error"));
        }
        if self.volumes_if_open(of.pool).is_some_and(|owner| owner.is_dead(of.uuid)) {
            return Ok(Some("the volume stopped writing after an error"));
        }
        let catalog = &self.inner.catalog;
        if !known.is_there('p', of.pool, pools::find(catalog, of.pool)).await? {
            return Ok(Some("the pool was let go of"));
        }
        if !known.is_there('v', of.volume, volumes::find(catalog, of.volume)).await? {
            return Ok(Some("the volume was removed"));
        }
        let Some(id) = of.snapshot else { return Ok(None) };
        let is_there = known.is_there('s', id, volumes::snapshot(catalog, id)).await?;
        Ok((!is_there).then_some("the snapshot was removed"))
    }

    /// Closes pools that somebody else took out of the catalogue, as far as nobody uses them.
    async fn close_forgotten(&self) -> Result<()> {
        for (id, owner) in self.owners() {
            let is_there = pools::find(&self.inner.catalog, id).await;
            if !matches!(is_there, Err(strongroom_catalog::Error::NotFound { .. })) {
                is_there?;
                continue;
            }
            let name = owner.name.clone();
            if self.blocking(move || Ok(owner.let_go())).await?.is_ok() && self.forget_open(id) {
                tracing::info!("the pool {name} is no longer in the catalogue, and was closed");
            }
        }
        Ok(())
    }
}

/// Which rows there are, each asked for once.
#[derive(Debug, Default)]
struct Rows(HashMap<(char, i64), bool>);

impl Rows {
    async fn is_there<T>(
        &mut self,
        kind: char,
        id: i64,
        find: impl Future<Output = strongroom_catalog::Result<T>>,
    ) -> Result<bool> {
        if let Some(known) = self.0.get(&(kind, id)) {
            return Ok(*known);
        }
        let is_there = match find.await {
            Ok(_) => true,
            Err(strongroom_catalog::Error::NotFound { .. }) => false,
            Err(error) => return Err(Error::Catalog(error)),
        };
        self.0.insert((kind, id), is_there);
        Ok(is_there)
    }
}
