//! A pool of an appliance, for reading, as if it were here: listing, comparing, mounting and
//! restoring take it as they take a pool of one's own.
//!
//! Nodes come in bulk: a walk finds those that it will want next already here, because the
//! appliance sends more than was asked for, the more the more of it was used ([`ahead`]). Chunks
//! come in batches, several at once. When a connection breaks the rest is asked for again; when the
//! appliance was started anew, so is the reader.

mod ahead;
mod cache;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Deserialize;
use strongroom_archive::store::{Chunks, Failed, Hold, Sink, Source};
use strongroom_archive::wire::{Parser, Part, Proof, Request, Wanted};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::map::Nodes;
use strongroom_engine::node::Node;
use strongroom_engine::seal::ChunkHasher;
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};
use tokio::sync::watch;

use self::ahead::Ahead;
use self::cache::{NodeCache, Recent};
use crate::{Call, Client, Method, Place, id_keys};

/// How many requests for chunks are under way at once.
const IN_FLIGHT: usize = 4;
/// Chunks of one request: about 64 MiB at the usual size of chunks.
const BATCH: usize = 1024;
/// With fewer a request isn't worth its way.
const LEAST: usize = 16;
/// How many proofs are kept of either kind, twice; 32 bytes each.
const PROOFS: usize = 500_000;
/// How often what failed is tried again, and how long is waited before.
const PAUSES: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(1000)];

/// A pool of an appliance, for reading. Made by [`RemoteSource::open`].
#[derive(Debug)]
pub struct RemoteSource {
    inner: Arc<Inner>,
    /// Ends the thread that keeps the reader open.
    _awake: SyncSender<()>,
}

struct Inner {
    client: Arc<Client>,
    pool: i64,
    hasher: ChunkHasher,
    /// The pool's time, and when it was told.
    now: (PoolTime, Instant),
    roots: Vec<Root>,
    state: Mutex<State>,
    nodes: Mutex<NodeCache>,
    ahead: Mutex<Ahead>,
    stop: watch::Sender<bool>,
    /// Nobody was there any more: nothing needs to be taken back.
    lost: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("place", self.client.place()).finish_non_exhaustive()
    }
}

/// What belongs to the reader, which may be another one after the appliance was started anew.
struct State {
    reader: String,
    /// Counts the readers.
    generation: u64,
    proofs: Recent<Proof>,
    /// Roots that are kept, and how often.
    held: HashMap<RootId, usize>,
}

#[derive(Deserialize)]
struct Opened {
    reader: String,
    now: i64,
    data_key: String,
    node_key: String,
    idle_seconds: u64,
}

/// Why something that was asked for did not come.
enum Failure {
    /// The way to the appliance, or its answer.
    Way(crate::Error),
    /// It is none of ours, or whoever takes it wants no more.
    Own(Error),
}

impl From<crate::Error> for Failure {
    fn from(error: crate::Error) -> Self {
        Self::Way(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Own(error)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreachable(why: impl ToString) -> Error {
    Error::Unreachable { why: why.to_string() }
}

/// Whether asking again may help.
fn may_pass(error: &crate::Error) -> bool {
    match error {
        crate::Error::Unreachable { .. } | crate::Error::Broken { .. } => true,
        // 404: the appliance doesn't know the reader any more.
        crate::Error::Refused(problem) => matches!(problem.status, 404 | 429 | 500..),
        _ => false,
    }
}

/// The path of the readers of a pool.
fn readers(pool: i64) -> String {
    format!("/v1/pools/{pool}/readers")
}

impl RemoteSource {
    /// The pool with this number. Whoever the client is must be allowed to read its images.
    ///
    /// # Errors
    /// Those of the client.
    pub fn open(client: Arc<Client>, pool: i64) -> crate::Result<Self> {
        let (stop, _) = watch::channel(false);
        let open = Call::new(Method::POST, readers(pool)).only_once()?;
        let opened: Opened = client.call(&open)?;
        let wrong = |why: &str| crate::Error::Broken {
            place: client.place().to_string(),
            why: why.to_owned(),
        };
        let hasher = id_keys(&opened.data_key, &opened.node_key);
        let hasher = hasher.ok_or_else(|| wrong("it gave no keys of the pool"))?;
        let mut proofs = Recent::new(PROOFS);
        let read = read_roots(&client, pool, &opened.reader, stop.subscribe(), &mut proofs);
        let roots = read.map_err(|failure| match failure {
            Failure::Way(error) => error,
            Failure::Own(error) => wrong(&error.to_string()),
        })?;
        let reader = opened.reader;
        let state = State { reader, generation: 0, proofs, held: HashMap::new() };
        let inner = Arc::new(Inner {
            client,
            pool,
            hasher,
            now: (PoolTime(opened.now), Instant::now()),
            roots,
            state: Mutex::new(state),
            nodes: Mutex::default(),
            ahead: Mutex::default(),
            stop,
            lost: AtomicBool::new(false),
        });
        let every = Duration::from_secs(opened.idle_seconds.max(3) / 3);
        let awake = stay_awake(&inner, every);
        Ok(Self { inner, _awake: awake })
    }

    /// Asks all that is under way to stop: it fails with [`Error::Canceled`].
    pub fn cancel(&self) {
        self.inner.stop.send_replace(true);
    }
}

/// Says now and then that the reader is still wanted, until the sender is dropped.
fn stay_awake(inner: &Arc<Inner>, every: Duration) -> SyncSender<()> {
    let (awake, asleep) = sync_channel::<()>(0);
    let inner = Arc::downgrade(inner);
    std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = asleep.recv_timeout(every) {
            let Some(inner) = inner.upgrade() else { return };
            // When it fails, so will the next who wants something, and say so.
            let _ = inner.nodes(&[], 0, &mut |_, _| {});
        }
    });
    awake
}

impl Drop for RemoteSource {
    fn drop(&mut self) {
        let reader = lock(&self.inner.state).reader.clone();
        self.inner.take_back(&format!("{}/{reader}", readers(self.inner.pool)));
    }
}

fn read_roots(
    client: &Client,
    pool: i64,
    reader: &str,
    stop: watch::Receiver<bool>,
    proofs: &mut Recent<Proof>,
) -> Result<Vec<Root>, Failure> {
    let mut roots = Vec::new();
    let mut parser = Parser::default();
    let mut take = |part: Part<'_>| {
        if let Part::Root(root, shown) = part {
            for (id, proof) in root.nodes.iter().zip(shown) {
                proofs.insert(id, proof);
            }
            roots.push(root);
        }
        Ok(())
    };
    let path = format!("{}/{reader}/roots", readers(pool));
    let compress = if compress(client) { "true" } else { "false" };
    let mut feed = |bytes: &[u8]| Ok::<_, Failure>(parser.feed(bytes, &mut take)?);
    let query = [("compress", compress)];
    client.stream(&Call::new(Method::GET, path).queried(&query), stop, &mut feed)?;
    parser.end()?;
    Ok(roots)
}

/// Over a network fewer bytes are worth the work; over a socket of this machine they aren't.
fn compress(client: &Client) -> bool {
    matches!(client.place(), Place::Remote { .. })
}

impl Inner {
    /// Asks for chunks of a kind, and hands out what comes.
    fn ask(
        &self,
        kind: &str,
        ids: &[ChunkId],
        must: usize,
        ahead: u64,
        take: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<(), (u64, Failure)> {
        let (path, generation, wanted) = {
            let mut state = lock(&self.state);
            let path = format!("{}/{}/{kind}", readers(self.pool), state.reader);
            let wanted = ids
                .iter()
                .map(|id| Wanted { id: *id, proof: state.proofs.get(id).unwrap_or(Proof::NONE) })
                .collect();
            (path, state.generation, wanted)
        };
        let request = Request { compress: compress(&self.client), must, ahead, wanted };
        let mut parser = Parser::default();
        let mut feed = |bytes: &[u8]| -> Result<(), Failure> {
            Ok(parser.feed(bytes, &mut |part| {
                if let Part::Node(id, node, proofs) = &part {
                    self.check(ChunkKind::Node, id, &node.encode())?;
                    self.learn(generation, id, node, proofs);
                }
                take(part)
            })?)
        };
        let stop = self.stop.subscribe();
        self.client
            .stream(&Call::new(Method::POST, path).bytes(request.encode()), stop, &mut feed)
            .and_then(|()| Ok(parser.end()?))
            .map_err(|failure| (generation, failure))
    }

    /// Whether what came is what its id says: nothing on the way, nor the appliance, can put
    /// something else in its place.
    fn check(&self, kind: ChunkKind, id: &ChunkId, bytes: &[u8]) -> Result<()> {
        match self.hasher.id(kind, bytes) == *id {
            true => Ok(()),
            false => {
                let why = "the appliance sent something else than its id says";
                Err(Error::damaged(format!("chunk {id}"), why))
            }
        }
    }

    /// Keeps what a node brings.
    fn learn(&self, generation: u64, id: &ChunkId, node: &Node, proofs: &[Proof]) {
        let mut state = lock(&self.state);
        if state.generation == generation {
            for (id, proof) in node.nodes.iter().chain(&node.data).zip(proofs) {
                state.proofs.insert(id, *proof);
            }
        }
        drop(state);
        lock(&self.nodes).insert(*id, node);
    }

    /// Whether to try again, after waiting for a while; else the error to end with.
    fn again(&self, attempt: usize, generation: u64, failure: Failure) -> Result<()> {
        if *self.stop.borrow() {
            return Err(Error::Canceled);
        }
        let error = match failure {
            Failure::Way(error) => error,
            Failure::Own(error) => return Err(error),
        };
        let Some(pause) = PAUSES.get(attempt).filter(|_| may_pass(&error)) else {
            self.lost.store(true, Ordering::Relaxed);
            return Err(unreachable(error));
        };
        std::thread::sleep(*pause);
        match error {
            crate::Error::Refused(problem) if problem.status == 404 => {
                self.open_again(generation).map_err(|failure| match failure {
                    Failure::Way(error) => unreachable(error),
                    Failure::Own(error) => error,
                })
            }
            _ => Ok(()),
        }
    }

    /// Opens another reader in the place of one that the appliance doesn't know any more. It has
    /// shown nothing yet: what it is asked for is looked for in the images that are held.
    fn open_again(&self, generation: u64) -> Result<(), Failure> {
        if lock(&self.state).generation != generation {
            return Ok(());
        }
        let opened: Opened = self.client.post(&readers(self.pool), &())?;
        let mut proofs = Recent::new(PROOFS);
        let stop = self.stop.subscribe();
        read_roots(&self.client, self.pool, &opened.reader, stop, &mut proofs)?;
        let unneeded = {
            let mut state = lock(&self.state);
            match state.generation == generation {
                true => {
                    (state.reader, state.proofs) = (opened.reader, proofs);
                    state.generation += 1;
                    None
                }
                false => Some(opened.reader),
            }
        };
        if let Some(reader) = unneeded {
            let _ = self.client.delete(&format!("{}/{reader}", readers(self.pool)));
            return Ok(());
        }
        let held: Vec<_> = lock(&self.state).held.keys().copied().collect();
        for root in held {
            // One that is gone is missed by who reads it.
            let _ = self.client.call::<()>(&Call::new(Method::PUT, self.image(root)));
        }
        Ok(())
    }

    /// Ends something at the appliance, which ends by itself otherwise, some time later.
    fn take_back(&self, path: &str) {
        if !self.lost.load(Ordering::Relaxed) {
            let _ = self.client.delete(path);
        }
    }

    /// The path of an image that is held.
    fn image(&self, root: RootId) -> String {
        format!("{}/{}/images/{root}", readers(self.pool), lock(&self.state).reader)
    }

    /// Asks for nodes, of which the first is needed, and hands out all that come.
    fn nodes(
        &self,
        ids: &[ChunkId],
        ahead: u64,
        take: &mut dyn FnMut(ChunkId, Result<&Node>),
    ) -> Result<()> {
        for attempt in 0.. {
            let mut parts = |part: Part<'_>| {
                match part {
                    Part::Node(id, node, _) => take(id, Ok(&node)),
                    Part::Failed(place, failure) => {
                        if let Some(id) = ids.get(place) {
                            take(*id, Err(failure.of(*id)));
                        }
                    }
                    _ => {}
                }
                Ok(())
            };
            match self.ask("nodes", ids, ids.len().min(1), ahead, &mut parts) {
                Ok(()) => return Ok(()),
                Err((generation, failure)) => self.again(attempt, generation, failure)?,
            }
        }
        Ok(())
    }

    /// Fetches the chunks of one batch.
    fn batch(
        &self,
        ids: &[ChunkId],
        base: usize,
        sink: Sink<'_>,
        failed: Failed<'_>,
    ) -> Result<()> {
        let mut left: Vec<usize> = (0..ids.len()).collect();
        let mut attempt = 0;
        loop {
            let asked: Vec<ChunkId> = left.iter().map(|i| ids[*i]).collect();
            let mut came = vec![false; asked.len()];
            let mut take = |part: Part<'_>| {
                let (place, part) = match &part {
                    Part::Chunk(place, _) | Part::Failed(place, _) => (*place, part),
                    _ => return Ok(()),
                };
                // Each once, whatever the other side says.
                if came.get(place) != Some(&false) {
                    return Ok(());
                }
                came[place] = true;
                match part {
                    Part::Chunk(_, bytes) => {
                        match self.check(ChunkKind::Data, &asked[place], bytes) {
                            Ok(()) => sink(base + left[place], bytes)?,
                            Err(error) => failed(base + left[place], error),
                        }
                    }
                    Part::Failed(_, failure) => {
                        failed(base + left[place], failure.of(asked[place]));
                    }
                    _ => {}
                }
                Ok(())
            };
            let done = self.ask("chunks", &asked, asked.len(), 0, &mut take);
            let before = left.len();
            let mut came = came.into_iter();
            left.retain(|_| !came.next().unwrap_or_default());
            match done {
                Ok(()) if left.is_empty() => return Ok(()),
                Ok(()) => {
                    let why = "the appliance left chunks out of its answer";
                    return Err(Error::damaged("the answer of an appliance", why));
                }
                Err((generation, failure)) => {
                    // Whoever gets on has all attempts again.
                    attempt = if left.len() < before { 0 } else { attempt };
                    self.again(attempt, generation, failure)?;
                    attempt += 1;
                }
            }
        }
    }
}

/// Keeps a root at the appliance.
struct Held<'s> {
    inner: &'s Inner,
    root: RootId,
}

impl Hold for Held<'_> {}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let last = {
            let mut state = lock(&self.inner.state);
            let count = state.held.entry(self.root).or_default();
            *count = count.saturating_sub(1);
            let last = *count == 0;
            if last {
                state.held.remove(&self.root);
            }
            last
        };
        if last {
            self.inner.take_back(&self.inner.image(self.root));
        }
    }
}

impl Nodes for RemoteSource {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        let inner = &*self.inner;
        let kept = lock(&inner.nodes).get(id);
        if let Some((node, was_ahead)) = kept {
            if was_ahead {
                lock(&inner.ahead).used();
            }
            return Ok(node);
        }
        let mut ids = vec![*id];
        ids.extend(lock(&inner.nodes).behind(id));
        let ahead = lock(&inner.ahead).next();
        let mut found = None;
        inner.nodes(&ids, ahead, &mut |came, node| {
            if came == *id {
                found = Some(node.cloned());
            }
        })?;
        lock(&inner.nodes).asked(id);
        found.unwrap_or_else(|| {
            Err(Error::damaged("the answer of an appliance", "it lacks the node asked for"))
        })
    }
}

impl Chunks for RemoteSource {
    fn threads(&self) -> usize {
        std::thread::available_parallelism().map_or(1, usize::from)
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        let (bytes, lost) = (Mutex::new(Vec::new()), Mutex::new(None));
        let sink = |_: usize, came: &[u8]| {
            *lock(&bytes) = came.to_vec();
            Ok(())
        };
        self.inner.batch(&[*id], 0, &sink, &|_, error| *lock(&lost) = Some(error))?;
        match lost.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => {
                out.append(&mut lock(&bytes));
                Ok(())
            }
        }
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()> {
        let len = wanted.len().div_ceil(IN_FLIGHT).clamp(LEAST, BATCH);
        let batches: Vec<&[ChunkId]> = wanted.chunks(len).collect();
        let next = AtomicUsize::new(0);
        let work = || -> Result<()> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(ids) = batches.get(number) else { return Ok(()) };
                if let Err(error) = self.inner.batch(ids, number * len, sink, failed) {
                    next.store(batches.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
        };
        std::thread::scope(|scope| {
            let others = batches.len().min(IN_FLIGHT).saturating_sub(1);
            let others: Vec<_> = (0..others).map(|_| scope.spawn(work)).collect();
            let own = work();
            others.into_iter().fold(own, |result, other| {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result.and(other)
            })
        })
    }
}

impl Source for RemoteSource {
    fn roots(&self) -> Result<Vec<Root>> {
        Ok(self.inner.roots.clone())
    }

    fn hold(&self, root: RootId) -> Result<Box<dyn Hold + '_>> {
        let inner = &*self.inner;
        *lock(&inner.state).held.entry(root).or_default() += 1;
        // Dropped, and so taken back, when it can't be.
        let held = Held { inner, root };
        for attempt in 0.. {
            let generation = lock(&inner.state).generation;
            match inner.client.call::<()>(&Call::new(Method::PUT, inner.image(root))) {
                Ok(()) => break,
                Err(crate::Error::Refused(problem)) if problem.status == 404 && attempt > 0 => {
                    return Err(Error::NoSuchRoot { id: root.to_string() });
                }
                Err(error) => inner.again(attempt, generation, error.into())?,
            }
        }
        Ok(Box::new(held))
    }

    fn now(&self) -> PoolTime {
        let (told, at) = self.inner.now;
        told.plus(i64::try_from(at.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool> {
        Ok(self.inner.hasher.id(ChunkKind::Data, data) == *id)
    }
}
