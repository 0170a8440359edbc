//! A pool of an appliance, for a backup, as if it were here: content is cut, named and compressed
//! by this process, and only what the pool lacks is sent.
//!
//! Each thread that stores asks for its own chunks and sends those that are new, so as many
//! requests are under way as there are threads, up to what the appliance allows. Nodes go by a
//! thread of their own ([`nodes`]). What was sent over a connection that broke is sent again; when
//! the appliance no longer knows the session the backup fails, and the next one finds stored what
//! had reached the pool.
//!
//! An appliance that is reached by its control socket shares this machine's processors: there data
//! goes as it is ([`RemoteStore::passing_on`]).

mod blind;
mod bodies;
mod channel;
mod nodes;
mod pace;

use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Method;
use serde::Deserialize;
use serde_json::json;
use strongroom_archive::backup::Progress;
use strongroom_archive::parcel::{self, Frame};
use strongroom_archive::store::{Source, Store};
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::{ChunkId, ChunkKind, RootId};
use strongroom_engine::map::NodeStore;
use strongroom_engine::node::Node;
use strongroom_engine::pack::FrameCodec;
use strongroom_engine::pool::{MAX_CHUNK, NewRoot, Stored, effort, frame_limit};
use strongroom_engine::seal::ChunkHasher;
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};

pub use self::blind::Blind;
use self::bodies::Bodies;
use self::channel::{Channel, lock};
use self::nodes::Nodes;
use self::pace::Pace;
use crate::{Client, id_keys};

/// How often the appliance is told how far it is.
const TELL: Duration = Duration::from_millis(1000);
/// Bytes that are asked about at once, when no chunk is larger: a request costs both sides about a
/// millisecond.
const AT_ONCE: usize = 4 << 20;

#[derive(Deserialize)]
struct Opened {
    id: String,
    job: i64,
    chunking: Chunking,
    level: i32,
    data_key: String,
    node_key: String,
    damaged: bool,
    parallel: usize,
}

#[derive(Deserialize)]
struct Chunking {
    min: u32,
    avg: u32,
    max: u32,
    fixed: u32,
}

#[derive(Deserialize)]
struct Taken {
    new_chunks: u64,
    new_bytes: u64,
    stored_bytes: u64,
    known_chunks: u64,
    known_bytes: u64,
    healed_chunks: u64,
}

impl Taken {
    fn add_to(self, stored: &mut Stored) {
        stored.add(Stored {
            new_chunks: self.new_chunks,
            new_bytes: self.new_bytes,
            stored_bytes: self.stored_bytes,
            known_chunks: self.known_chunks,
            known_bytes: self.known_bytes,
            healed_chunks: self.healed_chunks,
        });
    }
}

#[derive(Deserialize)]
struct Named {
    ids: String,
    taken: Taken,
}

#[derive(Deserialize)]
struct Reuse {
    may: bool,
}

#[derive(Deserialize)]
struct Made {
    root: String,
    created: i64,
    immutable_until: Option<i64>,
    meta: String,
}

/// What a thread needs while it stores.
struct Bench {
    codec: FrameCodec,
    raw: Vec<u8>,
    frame: Vec<u8>,
}

struct Shared {
    channel: Channel,
    /// Where the session is.
    path: String,
    job: i64,
    hasher: ChunkHasher,
    chunking: Params,
    level: i32,
    damaged: bool,
    parallel: usize,
    benches: Mutex<Vec<Bench>>,
    bodies: Bodies,
    pace: Pace,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("channel", &self.channel).finish_non_exhaustive()
    }
}

/// A pool of an appliance, for one backup. Made by [`RemoteStore::open`].
pub struct RemoteStore {
    shared: Arc<Shared>,
    source: Arc<dyn Source + Send + Sync>,
    nodes: Nodes,
    passes_on: bool,
    committed: bool,
    /// Ends the thread that tells how far it is.
    _telling: SyncSender<()>,
}

impl std::fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteStore").field("shared", &self.shared).finish_non_exhaustive()
    }
}

/// What the engine's callers understand.
fn pool_error(error: crate::Error) -> Error {
    match error {
        crate::Error::Refused(problem) if problem.status == 404 => Error::Unreachable {
            why: "the appliance no longer knows the session: it was started anew, or its job was \
                  stopped long ago; run the command again, what was sent is found again"
                .into(),
        },
        crate::Error::Refused(problem) if matches!(problem.status, 400..500) => {
            Error::Invalid(problem.to_string())
        }
        error => Error::Unreachable { why: error.to_string() },
    }
}

impl RemoteStore {
    /// Begins a backup to the pool with that number; `object` says of what, for the job that stands
    /// for it. `source` is the same pool, for reading the parent image ([`Blind`] when that may not
    /// be), and `progress` is told to the appliance.
    ///
    /// # Errors
    /// Those of the client.
    pub fn open(
        client: Arc<Client>,
        pool: i64,
        object: &str,
        source: Arc<dyn Source + Send + Sync>,
        progress: Arc<Progress>,
    ) -> crate::Result<Self> {
        let wrong = {
            let client = Arc::clone(&client);
            move |why: String| client.broken(why)
        };
        let channel = Channel::new(client)?;
        let path = format!("/v1/pools/{pool}/ingests");
        let opened: Opened = channel.json(Method::POST, &path, &json!({ "object": object }))?;
        let Chunking { min, avg, max, fixed } = opened.chunking;
        let chunking = Params::new(min, avg, max, fixed).map_err(|e| wrong(e.to_string()))?;
        let hasher = id_keys(&opened.data_key, &opened.node_key);
        let hasher = hasher.ok_or_else(|| wrong("it gave no keys of the pool".into()))?;
        let parallel = opened.parallel.clamp(1, parcel::MAX_PARALLEL);
        channel.widen(parallel);
        let shared = Arc::new(Shared {
            channel,
            path: format!("{path}/{}", opened.id),
            job: opened.job,
            hasher,
            chunking,
            level: opened.level,
            damaged: opened.damaged,
            parallel,
            benches: Mutex::default(),
            bodies: Bodies::default(),
            pace: Pace::default(),
        });
        let nodes = Nodes::start(Arc::clone(&shared));
        let telling = tell(&shared, progress);
        let passes_on = false;
        Ok(Self { shared, source, nodes, passes_on, committed: false, _telling: telling })
    }

    /// Leaves it to an appliance on this machine, reached through its control socket, to name and
    /// compress what is stored, since it would have to open and name it all again. One must trust it
    /// with what an image consists of.
    #[must_use]
    pub fn passing_on(mut self) -> Self {
        self.passes_on = self.shared.channel.by_socket();
        self
    }

    /// The job that stands for it.
    pub fn job(&self) -> i64 {
        self.shared.job
    }
}

/// Tells the appliance now and then how far it is, and so that this is alive; until the sender is
/// dropped.
fn tell(shared: &Arc<Shared>, progress: Arc<Progress>) -> SyncSender<()> {
    let (telling, ended) = sync_channel::<()>(0);
    let shared = Arc::downgrade(shared);
    std::thread::spawn(move || {
        while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TELL) {
            let Some(shared) = shared.upgrade() else { return };
            let counts = progress.counts();
            let told = json!({
                "bytes_done": counts.read,
                "bytes_total": counts.unread.max(counts.read),
                "items_done": counts.files + counts.dirs + counts.others,
            });
            let path = format!("{}/progress", shared.path);
            let over = shared.channel.tell(Method::PUT, &path, &told).is_err_and(
                |error| matches!(&error, crate::Error::Refused(problem) if problem.status == 409),
            );
            if over {
                // Its job was stopped: there is no use in going on.
                progress.cancel();
            }
        }
    });
    telling
}

impl Shared {
    /// Which of these chunks the pool has.
    fn known(&self, kind: ChunkKind, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut known = Vec::with_capacity(ids.len());
        for ids in ids.chunks(parcel::MAX_IDS) {
            let path = format!("{}/known", self.path);
            let answer = self.channel.bytes(&path, parcel::put_ids(kind, ids));
            let answer = answer.map_err(pool_error)?;
            let bits = parcel::bits(&answer, ids.len());
            known.extend(bits.map_err(Error::decoding("the appliance's answer"))?);
        }
        Ok(known)
    }

    /// Sends chunks, those that follow each other compressed together.
    fn send(&self, kind: ChunkKind, chunks: &[(ChunkId, &[u8])]) -> Result<Stored> {
        let mut stored = Stored::default();
        if chunks.is_empty() {
            return Ok(stored);
        }
        let mut bench = lock(&self.benches).pop().unwrap_or_else(|| Bench {
            codec: FrameCodec::new(self.level),
            raw: Vec::new(),
            frame: Vec::new(),
        });
        let mut body = self.bodies.take(self.pace.at_once());
        let mut rest = chunks;
        let mut sent = Ok(());
        while !rest.is_empty() && sent.is_ok() {
            let (frame, after) = rest.split_at(self.fitting(kind, rest));
            rest = after;
            bench.raw.clear();
            frame.iter().for_each(|(_, bytes)| bench.raw.extend_from_slice(bytes));
            let effort = effort(&self.chunking, kind, bench.raw.len(), frame.len());
            bench.codec.encode(&bench.raw, effort, &mut bench.frame);
            let chunks = frame.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect();
            let frame = Frame { kind, chunks, bytes: &bench.frame };
            if !body.is_empty() && body.len() + frame.len() > self.pace.at_once() {
                let next = self.bodies.take(self.pace.at_once());
                let full = std::mem::replace(&mut body, next);
                sent = self.take(full, &mut stored);
            }
            frame.put(&mut body);
        }
        if sent.is_ok() {
            sent = self.take(body, &mut stored);
        }
        lock(&self.benches).push(bench);
        sent.map(|()| stored)
    }

    /// How many of these chunks go into one frame.
    fn fitting(&self, kind: ChunkKind, chunks: &[(ChunkId, &[u8])]) -> usize {
        let mut total = 0;
        let fits = chunks.iter().position(|(_, bytes)| {
            total += bytes.len();
            total > frame_limit(kind)
        });
        fits.unwrap_or(chunks.len()).max(1)
    }

    fn take(&self, body: Vec<u8>, stored: &mut Stored) -> Result<()> {
        let (len, body) = (body.len(), self.bodies.send(body));
        let sent = self.channel.timed(&format!("{}/frames", self.path), body);
        let (taken, took) = sent.map_err(pool_error)?;
        self.pace.went(len, took);
        let taken: Taken = serde_json::from_slice(&taken)
            .map_err(|e| Error::Unreachable { why: e.to_string() })?;
        taken.add_to(stored);
        Ok(())
    }

    /// Sends pieces as they are; the appliance names them.
    fn pass_on(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> {
        let mut stored = Stored::default();
        let mut rest = pieces;
        // A block, and what the one before it left over.
        let limit = (AT_ONCE + self.chunking.max as usize).min(MAX_CHUNK);
        while !rest.is_empty() {
            let mut total = 0;
            let fits = rest.iter().take(parcel::MAX_IDS).take_while(|piece| {
                total += piece.len();
                total <= limit
            });
            let (part, after) = rest.split_at(fits.count().max(1));
            rest = after;
            let mut body = self.bodies.take(limit);
            parcel::put_pieces(part, &mut body);
            let body = self.bodies.send(body);
            let answer = self.channel.bytes(&format!("{}/pieces", self.path), body);
            let answer = answer.map_err(pool_error)?;
            let wrong = |why: String| Error::Unreachable { why };
            let named: Named = serde_json::from_slice(&answer).map_err(|e| wrong(e.to_string()))?;
            let bytes = data_encoding::HEXLOWER.decode(named.ids.as_bytes()).unwrap_or_default();
            let (names, _) = bytes.as_chunks::<32>();
            if names.len() != part.len() {
                return Err(wrong("the appliance did not name all that was sent".into()));
            }
            ids.extend(names.iter().map(|name| ChunkId(*name)));
            named.taken.add_to(&mut stored);
        }
        Ok(stored)
    }
}

impl NodeStore for RemoteStore {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        let bytes = node.encode();
        let id = self.shared.hasher.id(ChunkKind::Node, &bytes);
        Ok((id, self.nodes.put(id, bytes)?))
    }
}

impl Store for RemoteStore {
    fn source(&self) -> &dyn Source {
        &*self.source
    }

    fn chunking(&self) -> Params {
        self.shared.chunking
    }

    fn at_once(&self) -> usize {
        AT_ONCE
    }

    fn workers(&self) -> usize {
        match self.passes_on {
            // They only read, and wait: one reads for the next turn.
            true => self.shared.parallel + 1,
            false => self.shared.parallel.max(self.source.threads() + 2),
        }
    }

    fn store(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> {
        if self.passes_on {
            return self.shared.pass_on(pieces, ids);
        }
        let kind = ChunkKind::Data;
        let hasher = &self.shared.hasher;
        let named: Vec<ChunkId> = pieces.iter().map(|piece| hasher.id(kind, piece)).collect();
        let known = self.shared.known(kind, &named)?;
        let mut stored = Stored::default();
        let mut lacking = Vec::with_capacity(pieces.len());
        for ((id, piece), known) in named.iter().zip(pieces).zip(known) {
            if known {
                stored.known_chunks += 1;
                stored.known_bytes += piece.len() as u64;
            } else {
                lacking.push((*id, *piece));
            }
        }
        stored.add(self.shared.send(kind, &lacking)?);
        ids.extend(named);
        Ok(stored)
    }

    fn reuse(&self, ids: &[ChunkId]) -> Result<bool> {
        if !self.shared.damaged {
            return Ok(true);
        }
        for ids in ids.chunks(parcel::MAX_IDS) {
            let body = parcel::put_ids(ChunkKind::Data, ids);
            let answer = self.shared.channel.bytes(&format!("{}/reuse", self.shared.path), body);
            let reuse: Reuse = serde_json::from_slice(&answer.map_err(pool_error)?)
                .map_err(|e| Error::Unreachable { why: e.to_string() })?;
            if !reuse.may {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn lean_on(&self, parent: RootId) -> Result<()> {
        let path = format!("{}/parents", self.shared.path);
        let body = json!({ "root": parent.to_string() });
        self.shared.channel.tell(Method::POST, &path, &body).map_err(pool_error)
    }

    fn settle(&self) -> Result<Stored> {
        self.nodes.settle()
    }

    fn commit(mut self, root: NewRoot) -> Result<Root> {
        self.nodes.settle()?;
        let top = root.nodes.first().map(|top| data_encoding::HEXLOWER.encode(&top.0));
        let immutable = root.immutable_for.map(|ns| ns.unsigned_abs().div_ceil(1_000_000_000));
        let body = json!({
            "name": root.name,
            "top": top,
            "meta": data_encoding::HEXLOWER.encode(&root.meta),
            "immutable_seconds": immutable,
        });
        let path = format!("{}/commit", self.shared.path);
        let made: Made =
            self.shared.channel.json(Method::POST, &path, &body).map_err(pool_error)?;
        self.committed = true;
        let meta = data_encoding::HEXLOWER.decode(made.meta.as_bytes()).ok();
        let (Some(id), Some(meta)) = (RootId::parse(&made.root), meta) else {
            return Err(Error::Unreachable { why: "the appliance's answer is not one".into() });
        };
        Ok(Root {
            id,
            created: PoolTime(made.created),
            immutable_until: made.immutable_until.map(PoolTime),
            meta,
            kind: root.kind,
            name: root.name,
            nodes: root.nodes,
        })
    }
}

impl Drop for RemoteStore {
    fn drop(&mut self) {
        if !self.committed {
            self.shared.channel.give_up();
            // It ends by itself otherwise.
            let _ = self.shared.channel.tell(Method::DELETE, &self.shared.path, &());
        }
    }
}
