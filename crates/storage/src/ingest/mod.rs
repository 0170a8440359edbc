//! Images that a client elsewhere makes: it cuts, hashes and compresses, and sends what the pool
//! lacks.
//!
//! An [`Ingest`] is a writing session of the pool that its opener, and nobody else, may use until it
//! commits one image, or ends it, or nothing was heard for [`IDLE`]. It lives in this process: when
//! that ends, the client begins anew and finds stored what had reached a pack.
//!
//! The client is not trusted. Every chunk is checked against its id before it is taken
//! ([`strongroom_engine::pool::Session::store_frame`]), and every node must have all that it refers
//! to in the pool, kept for this session ([`whole`]): so an image can't refer to what isn't there,
//! whatever is collected meanwhile. Who made the image, when, and how long it is kept is not the
//! client's to say.

mod commit;
#[cfg(test)]
mod tests;
mod whole;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use strongroom_archive::parcel::{self, Frames};
use strongroom_catalog::pools;
use strongroom_engine::chunker::Params;
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::pool::{Pool, Session, Stored};
use strongroom_engine::seal::KEY_LEN;
use tokio::sync::watch;
use zeroize::Zeroizing;

pub use self::commit::{Committed, NewImage};
use self::whole::Whole;
use crate::{Error, Result, Storage, on_thread};

/// How long a session stays when nothing is heard of its client.
pub const IDLE: Duration = Duration::from_secs(300);
/// How often it is looked whether something was heard.
const LOOK: Duration = Duration::from_secs(5);
/// How many sessions there may be at once, of one opener and in all.
const MAX_OF_ONE: usize = 128;
const MAX_OPEN: usize = 512;
/// The longest id that is looked for.
const ID_LEN: usize = 32;

/// Who opened a session, as far as later requests must come from the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// The user; none at the control socket.
    pub user_id: Option<i64>,
    /// For whom that one acts.
    pub delegate_of: Option<i64>,
    /// The key that was shown.
    pub key_id: Option<i64>,
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its image is in the pool.
    Committed(Box<Committed>),
    /// Its client ended it.
    Given,
    /// Somebody stopped its job.
    Canceled,
    /// Nothing was heard of its client.
    Idle,
    /// The appliance stops.
    Stopping,
}

impl End {
    fn why(&self) -> &'static str {
        match self {
            Self::Committed(_) => "its image is made",
            Self::Given => "its client ended it",
            Self::Canceled => "its job was stopped",
            Self::Idle => "nothing was heard of its client for too long",
            Self::Stopping => "the appliance stops",
        }
    }
}

/// What a client tells of how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Bytes of content read.
    pub bytes_done: u64,
    /// Bytes of content to be read, as far as that is known.
    pub bytes_total: Option<u64>,
    /// Files, directories and others seen.
    pub items_done: u64,
}

/// What a client needs to know of the pool.
#[derive(Debug)]
pub struct Terms {
    /// How content is cut.
    pub chunking: Params,
    /// The zstd level of frames.
    pub level: i32,
    /// The keys of the ids of data, and of nodes.
    pub id_keys: Zeroizing<[[u8; KEY_LEN]; 2]>,
    /// Whether chunks are known to be bad: then the client asks before it uses a parent's again.
    pub damaged: bool,
    /// How many requests the client should have under way at once.
    pub parallel: usize,
}

#[derive(Debug, Default)]
pub(crate) struct Ingests(Mutex<HashMap<String, Ingest>>);

/// A session that a client fills: see the module's text. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ingest {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    storage: Storage,
    id: String,
    known: pools::Pool,
    opener: Opener,
    /// The opener's name, for the image's record.
    user: String,
    /// The id that the image will have.
    root: RootId,
    job: OnceLock<i64>,
    /// None once it is over.
    session: Mutex<Option<Arc<Session<'static>>>>,
    whole: Whole,
    parents: Mutex<HashSet<RootId>>,
    stored: Mutex<Stored>,
    told: Mutex<Told>,
    heard: Mutex<Instant>,
    busy: AtomicUsize,
    end: watch::Sender<Option<End>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A request that uses a session.
struct Visit {
    shared: Arc<Shared>,
    session: Arc<Session<'static>>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        *lock(&self.shared.heard) = Instant::now();
        self.shared.busy.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Storage {
    /// Opens a session in which a client makes one image of a pool.
    ///
    /// # Errors
    /// [`Error::Crowded`]; those of [`Storage::open`].
    pub async fn open_ingest(&self, pool: i64, opener: Opener, user: &str) -> Result<Ingest> {
        let known = pools::find(&self.inner.catalog, pool).await?;
        let pool = self.open(pool).await?;
        let mut id = [0; ID_LEN / 2];
        getrandom::fill(&mut id).map_err(|e| Error::Invalid(e.to_string()))?;
        let ingest = Ingest {
            shared: Arc::new(Shared {
                storage: self.clone(),
                id: data_encoding::HEXLOWER.encode(&id),
                known,
                opener,
                user: user.to_owned(),
                root: RootId::random(),
                job: OnceLock::new(),
                session: Mutex::new(Some(Arc::new(pool.shared_session()?))),
                whole: Whole::default(),
                parents: Mutex::default(),
                stored: Mutex::default(),
                told: Mutex::default(),
                heard: Mutex::new(Instant::now()),
                busy: AtomicUsize::new(0),
                end: watch::Sender::new(None),
            }),
        };
        {
            let mut all = lock(&self.inner.ingests.0);
            let open = || all.values().filter(|other| other.why_over().is_none());
            let own = open().filter(|other| other.shared.opener == opener).count();
            if own >= MAX_OF_ONE || open().count() >= MAX_OPEN {
                return Err(Error::Crowded);
            }
            all.insert(ingest.shared.id.clone(), ingest.clone());
        }
        tokio::spawn(ingest.clone().tend());
        Ok(ingest)
    }

    /// The session of that id, if that one opened it.
    pub fn ingest(&self, id: &str, opener: &Opener) -> Option<Ingest> {
        let ingest = lock(&self.inner.ingests.0).get(id).cloned()?;
        (ingest.shared.opener == *opener).then_some(ingest)
    }

    /// How many sessions there are that clients fill.
    pub fn ingests(&self) -> usize {
        lock(&self.inner.ingests.0).values().filter(|one| one.why_over().is_none()).count()
    }

    /// Ends all of them; what they stored is found again.
    pub(crate) async fn end_ingests(&self) {
        let all: Vec<Ingest> = lock(&self.inner.ingests.0).values().cloned().collect();
        for ingest in all {
            ingest.end(End::Stopping).await;
        }
    }
}

impl Ingest {
    /// By what its client calls it.
    pub fn id(&self) -> &str {
        &self.shared.id
    }

    /// The pool.
    pub fn pool(&self) -> &pools::Pool {
        &self.shared.known
    }

    /// The id that its image will have.
    pub fn root(&self) -> RootId {
        self.shared.root
    }

    /// The job that stands for it.
    pub fn job(&self) -> Option<i64> {
        self.shared.job.get().copied()
    }

    /// Says which job stands for it; once.
    pub fn set_job(&self, job: i64) {
        // The first one counts.
        let _ = self.shared.job.set(job);
    }

    /// What the client needs to know.
    ///
    /// # Errors
    /// [`Error::IngestOver`].
    pub fn terms(&self) -> Result<Terms> {
        let visit = self.visit()?;
        let pool: &Pool = visit.session.pool();
        // Each request under way takes memory here; many clients keep the processors busy anyway.
        let parallel = if self.shared.storage.ingests() > 16 { 2 } else { parcel::MAX_PARALLEL };
        Ok(Terms {
            chunking: pool.chunking(),
            level: pool.level(),
            id_keys: pool.hasher().keys(),
            damaged: pool.has_bad_chunks(),
            parallel,
        })
    }

    /// How far the client says it is, and what it has stored.
    pub fn progress(&self) -> (Told, Stored) {
        (*lock(&self.shared.told), *lock(&self.shared.stored))
    }

    /// Takes note of how far the client is, and that it is there.
    ///
    /// # Errors
    /// [`Error::IngestOver`].
    pub fn tell(&self, told: Told) -> Result<()> {
        let _visit = self.visit()?;
        *lock(&self.shared.told) = told;
        Ok(())
    }

    /// Which chunks the pool has, as bits ([`parcel`]); those stay until the session ends.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a body that isn't one; [`Error::IngestOver`]; those of the pool.
    pub async fn known(&self, body: impl AsRef<[u8]> + Send + 'static) -> Result<Vec<u8>> {
        self.on_thread(move |visit| {
            let (kind, ids) = parcel::ids(body.as_ref()).map_err(not_understood)?;
            let mut known = Vec::with_capacity(ids.len());
            for id in &ids {
                known.push(visit.shared.whole.has(&visit.session, kind, id)?);
            }
            Ok(parcel::put_bits(known))
        })
        .await
    }

    /// Stores frames ([`parcel`]); those before one that is refused stay.
    ///
    /// # Errors
    /// [`strongroom_engine::Error::Forged`] for a chunk that isn't what its id says;
    /// [`Error::Invalid`] for what isn't frames, and for nodes that refer to what isn't there;
    /// [`Error::IngestOver`]; those of the pool.
    pub async fn take(&self, body: impl AsRef<[u8]> + Send + 'static) -> Result<Stored> {
        self.on_thread(move |visit| {
            let mut total = Stored::default();
            let mut frames = Frames::new(body.as_ref());
            while let Some(frame) = frames.take().map_err(not_understood)? {
                let (session, whole) = (&visit.session, &visit.shared.whole);
                let stored = match frame.kind {
                    ChunkKind::Data => session.store_frame(
                        frame.kind,
                        frame.bytes,
                        &frame.chunks,
                        &mut |_, _| Ok(()),
                    )?,
                    ChunkKind::Node => whole.store(session, frame.bytes, &frame.chunks)?,
                };
                lock(&visit.shared.stored).add(stored);
                total.add(stored);
            }
            Ok(total)
        })
        .await
    }

    /// Stores pieces of data ([`parcel`]) as the pool itself names and compresses them; their ids, in
    /// their order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what isn't pieces; [`Error::IngestOver`]; those of the pool.
    pub async fn store(
        &self,
        body: impl AsRef<[u8]> + Send + 'static,
    ) -> Result<(Vec<ChunkId>, Stored)> {
        self.on_thread(move |visit| {
            let pieces = parcel::pieces(body.as_ref()).map_err(not_understood)?;
            let mut ids = Vec::with_capacity(pieces.len());
            let stored = visit.session.store(ChunkKind::Data, &pieces, &mut ids)?;
            lock(&visit.shared.stored).add(stored);
            Ok((ids, stored))
        })
        .await
    }

    /// Keeps an image of the pool for as long as the session lasts, so that what it refers to may
    /// be used again.
    ///
    /// # Errors
    /// [`strongroom_engine::Error::NoSuchRoot`]; [`Error::IngestOver`].
    pub async fn lean_on(&self, parent: RootId) -> Result<()> {
        self.on_thread(move |visit| {
            if !lock(&visit.shared.parents).contains(&parent) {
                visit.session.lean_on(parent)?;
                lock(&visit.shared.parents).insert(parent);
            }
            Ok(())
        })
        .await
    }

    /// Whether these chunks of an image that is leant on may be used again as they are.
    ///
    /// # Errors
    /// As [`Ingest::known`].
    pub async fn reuse(&self, body: impl AsRef<[u8]> + Send + 'static) -> Result<bool> {
        self.on_thread(move |visit| {
            let (_, ids) = parcel::ids(body.as_ref()).map_err(not_understood)?;
            Ok(visit.session.reuse(&ids)?)
        })
        .await
    }

    /// Ends it, unless it is over. What it stored is found again by another, until garbage is
    /// collected.
    pub async fn end(&self, why: End) {
        let session = {
            let mut session = lock(&self.shared.session);
            if session.is_none() {
                return;
            }
            self.shared.end.send_replace(Some(why));
            session.take()
        };
        let done = tokio::task::spawn_blocking(move || {
            // It may be the last that has the pool open.
            session.map_or(Ok(()), |session| session.checkpoint())
        });
        if let Ok(Err(error)) = done.await {
            tracing::warn!("what a client had sent can't be kept: {error}");
        }
    }

    /// Why it is over, if it is.
    pub fn why_over(&self) -> Option<End> {
        self.shared.end.borrow().clone()
    }

    /// Waits until it is over.
    pub async fn over(&self) -> End {
        let mut end = self.shared.end.subscribe();
        // The sender lives as long as this.
        let found = end.wait_for(Option::is_some).await;
        found.ok().and_then(|end| end.clone()).unwrap_or(End::Stopping)
    }

    fn visit(&self) -> Result<Visit> {
        let shared = Arc::clone(&self.shared);
        let Some(session) = lock(&shared.session).clone() else {
            let why = self.why_over().map_or("the appliance stops", |end| end.why());
            return Err(Error::IngestOver { why });
        };
        shared.busy.fetch_add(1, Ordering::AcqRel);
        Ok(Visit { shared, session })
    }

    async fn on_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Visit) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let visit = self.visit()?;
        on_thread(&self.shared.storage.inner.intake, move || {
            let done = work(&visit);
            drop(visit);
            done
        })
        .await
    }

    /// Ends it when nothing is heard, and forgets it some time after it ended: a client whose
    /// connection broke at that very moment can still ask what came of it.
    async fn tend(self) {
        let mut end = self.shared.end.subscribe();
        loop {
            let over = tokio::time::timeout(LOOK, end.wait_for(Option::is_some)).await.is_ok();
            if over {
                break;
            }
            let heard = lock(&self.shared.heard).elapsed();
            if self.shared.busy.load(Ordering::Acquire) == 0 && heard >= IDLE {
                self.end(End::Idle).await;
            }
        }
        tokio::time::sleep(IDLE).await;
        lock(&self.shared.storage.inner.ingests.0).remove(&self.shared.id);
    }
}

fn not_understood(why: strongroom_engine::codec::DecodeError) -> Error {
    Error::Invalid(format!("what was sent is not understood: {why}"))
}
