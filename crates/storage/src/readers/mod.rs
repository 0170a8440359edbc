//! Readers: callers elsewhere who read images of a pool, node by node and chunk by chunk, as if
//! the pool were theirs. What is said on the way is in [`strongroom_archive::wire`].
//!
//! A reader keeps the images that it holds, whatever is forgotten meanwhile, until it is closed or
//! was idle for [`IDLE`]. It can't name what it was not shown: with each reference goes a proof
//! that only this process can make, and only for this reader ([`proofs`]).

mod answer;
mod proofs;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use strongroom_archive::image::ROOT_KIND;
use strongroom_archive::wire::{Answer, MAX_WANTED, Request};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkKind, RootId};
use strongroom_engine::pool::{Lease, Pool};
use tokio::time::Instant;
use zeroize::Zeroizing;

use self::proofs::Prover;
use crate::{Error, Result, Storage};

/// After so long without a request a reader is closed.
pub(crate) const IDLE: Duration = Duration::from_secs(300);
/// How many readers one caller may have, and all together: each keeps garbage from being collected.
const PER_CALLER: usize = 256;
const IN_ALL: usize = 4096;

/// Which reader, by whose request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReaderRef {
    /// The pool that it reads.
    pub pool_id: i64,
    /// Its name, as [`Storage::open_reader`] gave it.
    pub reader: String,
    /// The user who asks; none at the control socket.
    pub user_id: Option<i64>,
}

/// A reader that was opened.
pub struct OpenedReader {
    /// Its name: hexadecimal digits.
    pub reader: String,
    /// The pool's time.
    pub now: PoolTime,
    /// What the ids of data chunks and of nodes are made with: whoever reads can see that what came
    /// is what was asked for.
    pub id_keys: Zeroizing<[[u8; 32]; 2]>,
    /// After so long without a request it is closed.
    pub idle: Duration,
}

impl std::fmt::Debug for OpenedReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenedReader").field("reader", &self.reader).finish_non_exhaustive()
    }
}

/// Somebody who reads.
struct Reader {
    pool_id: i64,
    user_id: Option<i64>,
    pool: Arc<Pool>,
    prover: Prover,
    state: Mutex<State>,
}

struct State {
    held: HashMap<RootId, Lease<Arc<Pool>>>,
    used: Instant,
}

/// Those who read.
pub(crate) struct Readers {
    all: Mutex<HashMap<String, Arc<Reader>>>,
    idle: Duration,
}

impl std::fmt::Debug for Readers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Readers({})", lock(&self.all).len())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reader {
    fn touch(&self) {
        lock(&self.state).used = Instant::now();
    }

    /// The roots that it may see.
    fn roots(&self) -> Vec<strongroom_engine::state::Root> {
        let mut roots = self.pool.roots();
        roots.retain(|root| root.kind == ROOT_KIND);
        roots
    }
}

impl Readers {
    pub(crate) fn new(idle: Duration) -> Self {
        Self { all: Mutex::default(), idle }
    }

    fn add(&self, name: String, reader: Arc<Reader>) -> Result<()> {
        let mut all = lock(&self.all);
        let own = all.values().filter(|other| other.user_id == reader.user_id).count();
        if own >= PER_CALLER || all.len() >= IN_ALL {
            return Err(Error::TooManyReaders);
        }
        all.insert(name, reader);
        Ok(())
    }

    fn get(&self, at: &ReaderRef) -> Result<Arc<Reader>> {
        let found = lock(&self.all).get(&at.reader).cloned();
        let own =
            |reader: &Arc<Reader>| reader.pool_id == at.pool_id && reader.user_id == at.user_id;
        let reader = found.filter(own).ok_or(Error::NoReader)?;
        reader.touch();
        Ok(reader)
    }

    /// Closes a reader once it was idle for long enough; None: it is closed. Else when to look
    /// again.
    fn expire(&self, name: &str, reader: &Weak<Reader>) -> Option<Instant> {
        let mut all = lock(&self.all);
        let reader = reader.upgrade()?;
        // One that is answered right now is not idle: the table has it, this does, and who answers.
        if Arc::strong_count(&reader) > 2 {
            reader.touch();
        }
        let end = lock(&reader.state).used + self.idle;
        if end > Instant::now() {
            return Some(end);
        }
        let gone = all.remove(name);
        drop(all);
        drop((gone, reader));
        None
    }

    /// Closes all.
    pub(crate) fn close_all(&self) {
        let all = std::mem::take(&mut *lock(&self.all));
        drop(all);
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        lock(&self.all).len()
    }
}

impl Storage {
    /// Opens a reader of a pool's images. Whether the caller may read them was decided before.
    ///
    /// # Errors
    /// [`Error::TooManyReaders`]; those of [`Storage::open`].
    pub async fn open_reader(&self, pool_id: i64, user_id: Option<i64>) -> Result<OpenedReader> {
        let pool = self.open(pool_id).await?;
        let (now, id_keys) = (pool.now(), pool.hasher().keys());
        let (name, prover) = (proofs::random_name()?, Prover::random()?);
        let state = Mutex::new(State { held: HashMap::new(), used: Instant::now() });
        let reader = Arc::new(Reader { pool_id, user_id, pool, prover, state });
        let weak = Arc::downgrade(&reader);
        self.inner.remote.add(name.clone(), reader)?;
        let (inner, expiring) = (Arc::downgrade(&self.inner), name.clone());
        tokio::spawn(async move {
            loop {
                let Some(inner) = inner.upgrade() else { return };
                let next = inner.remote.expire(&expiring, &weak);
                drop(inner);
                let Some(next) = next else { return };
                tokio::time::sleep_until(next).await;
            }
        });
        Ok(OpenedReader { reader: name, now, id_keys, idle: self.inner.remote.idle })
    }

    /// Says whether there is such a reader.
    ///
    /// # Errors
    /// [`Error::NoReader`].
    pub fn find_reader(&self, at: &ReaderRef) -> Result<()> {
        self.inner.remote.get(at).map(drop)
    }

    /// Closes a reader.
    ///
    /// # Errors
    /// [`Error::NoReader`]; so it is with all that take one.
    pub fn close_reader(&self, at: &ReaderRef) -> Result<()> {
        self.inner.remote.get(at)?;
        let gone = lock(&self.inner.remote.all).remove(&at.reader);
        drop(gone);
        Ok(())
    }

    /// Keeps what an image reaches for as long as the reader is open.
    ///
    /// # Errors
    /// [`Error::Gone`].
    pub fn hold_image(&self, at: &ReaderRef, root: &str) -> Result<()> {
        let reader = self.inner.remote.get(at)?;
        let gone = || Error::Gone { root: root.to_owned() };
        let id = RootId::parse(root).ok_or_else(gone)?;
        if reader.pool.root(id).is_none_or(|root| root.kind != ROOT_KIND) {
            return Err(gone());
        }
        let lease = reader.pool.shared_lease(id).map_err(|_| gone())?;
        lock(&reader.state).held.insert(id, lease);
        Ok(())
    }

    /// Ends [`Storage::hold_image`].
    ///
    /// # Errors
    /// [`Error::NoReader`].
    pub fn release_image(&self, at: &ReaderRef, root: &str) -> Result<()> {
        let reader = self.inner.remote.get(at)?;
        let held = RootId::parse(root).and_then(|id| lock(&reader.state).held.remove(&id));
        drop(held);
        Ok(())
    }

    /// Tells the images of the reader's pool: the roots, and the proofs of their tops.
    ///
    /// # Errors
    /// [`Error::NoReader`]; those of `out`, which end it.
    pub async fn read_roots(
        &self,
        at: &ReaderRef,
        compress: bool,
        out: impl Fn(Vec<u8>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        let reader = self.inner.remote.get(at)?;
        self.streaming(move || {
            let answer = Answer::new(&out, compress);
            for root in reader.roots() {
                let proofs = root.nodes.iter().map(|id| reader.prover.prove(ChunkKind::Node, id));
                answer.root(&root, proofs)?;
            }
            Ok(answer.end()?)
        })
        .await
    }

    /// Reads a request for nodes or chunks of a reader. What it gives must be answered with
    /// [`Reading::answer`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no request; [`Error::NoReader`]; [`Error::NotShown`] when a
    /// proof is not one.
    pub fn begin_reading(
        &self,
        at: &ReaderRef,
        kind: ChunkKind,
        request: &[u8],
    ) -> Result<Reading> {
        let request = Request::decode(request).map_err(|why| {
            Error::Invalid(format!(
                "the request is not one for chunks ({why}); at most {MAX_WANTED} at once"
            ))
        })?;
        let reader = self.inner.remote.get(at)?;
        let mut unproven = false;
        for wanted in &request.wanted {
            match reader.prover.check(kind, wanted) {
                Some(true) => {}
                Some(false) => return Err(Error::NotShown),
                None => unproven = true,
            }
        }
        Ok(Reading { storage: self.clone(), reader, kind, request, unproven })
    }
}

/// A request that was let through.
pub struct Reading {
    storage: Storage,
    reader: Arc<Reader>,
    kind: ChunkKind,
    request: Request,
    /// Whether some of the wanted must be found in the images first.
    unproven: bool,
}

impl std::fmt::Debug for Reading {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reading({} {:?})", self.request.wanted.len(), self.kind)
    }
}

impl Reading {
    /// Answers it, piece by piece. What can't be read is told in the answer.
    ///
    /// # Errors
    /// Those of `out`, which end it.
    pub async fn answer(
        self,
        out: impl Fn(Vec<u8>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        let Self { storage, reader, kind, request, unproven } = self;
        // Looking through images is the dear way: one at a time.
        let searching = Arc::clone(&storage.inner.searching);
        let turn = match unproven {
            true => Some(searching.acquire_owned().await.map_err(|_| Error::Ended)?),
            false => None,
        };
        storage
            .streaming(move || {
                let answer = Answer::new(&out, request.compress);
                let done = answer::answer(&reader, kind, &request, &answer, turn);
                reader.touch();
                Ok(done.and_then(|()| answer.end())?)
            })
            .await
    }
}
