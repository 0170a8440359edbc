//! Nodes on their way: they are many and small, and each refers to others before it. So they go in
//! the order in which they came, many at once, by one thread.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};

use strongroom_archive::parcel;
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::pool::{Stored, frame_limit};
use strongroom_engine::{Error, Result};

use super::Shared;
use super::channel::lock;

/// Nodes that wait, at most.
const WAITING: usize = 1024;
/// Bytes of nodes that are sent at once.
const AT_ONCE: usize = 512 << 10;
/// How many of the nodes that were sent are remembered.
const REMEMBERED: usize = 1 << 18;

enum Work {
    Node(ChunkId, Vec<u8>),
    /// Answer when all before are there.
    Settle(SyncSender<()>),
}

/// Takes nodes to the appliance.
#[derive(Debug)]
pub(super) struct Nodes {
    work: SyncSender<Work>,
    seen: Mutex<HashSet<ChunkId>>,
    /// What was stored since it was last asked for.
    stored: Arc<Mutex<Stored>>,
    failed: Arc<Mutex<Option<String>>>,
}

impl Nodes {
    /// Starts the thread; it ends when this is dropped.
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let (work, todo) = sync_channel(WAITING);
        let (stored, failed) = (Arc::default(), Arc::default());
        let (counted, told) = (Arc::clone(&stored), Arc::clone(&failed));
        std::thread::spawn(move || send_all(&shared, &todo, &counted, &told));
        Self { work, seen: Mutex::default(), stored, failed }
    }

    /// Takes a node; what an earlier one took.
    pub(super) fn put(&self, id: ChunkId, bytes: Vec<u8>) -> Result<Stored> {
        self.check()?;
        let mut seen = lock(&self.seen);
        if seen.len() >= REMEMBERED {
            seen.clear();
        }
        let new = seen.insert(id);
        drop(seen);
        if new {
            self.work.send(Work::Node(id, bytes)).map_err(|_| ended())?;
        }
        Ok(std::mem::take(&mut *lock(&self.stored)))
    }

    /// Waits until all are there; what they took.
    pub(super) fn settle(&self) -> Result<Stored> {
        let (answer, answered) = sync_channel(1);
        self.work.send(Work::Settle(answer)).map_err(|_| ended())?;
        answered.recv().map_err(|_| ended())?;
        self.check()?;
        Ok(std::mem::take(&mut *lock(&self.stored)))
    }

    fn check(&self) -> Result<()> {
        match &*lock(&self.failed) {
            Some(why) => Err(Error::Unreachable { why: why.clone() }),
            None => Ok(()),
        }
    }
}

fn ended() -> Error {
    Error::Unreachable { why: "the thread that sends nodes ended".into() }
}

fn send_all(
    shared: &Shared,
    todo: &Receiver<Work>,
    stored: &Mutex<Stored>,
    failed: &Mutex<Option<String>>,
) {
    let mut nodes: Vec<(ChunkId, Vec<u8>)> = Vec::new();
    while let Ok(first) = todo.recv() {
        // What came while the last were sent goes together.
        let mut settled = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(work) = next {
            match work {
                Work::Node(id, node) => {
                    bytes += node.len();
                    nodes.push((id, node));
                }
                Work::Settle(answer) => settled.push(answer),
            }
            let full = bytes >= AT_ONCE || nodes.len() >= parcel::MAX_IDS;
            next = if full { None } else { todo.try_recv().ok() };
        }
        if lock(failed).is_none() {
            match send(shared, &nodes) {
                Ok(done) => lock(stored).add(done),
                Err(error) => drop(lock(failed).insert(error.to_string())),
            }
        }
        nodes.clear();
        for answer in settled {
            // Whoever asked may have given up waiting.
            let _ = answer.send(());
        }
    }
}

fn send(shared: &Shared, nodes: &[(ChunkId, Vec<u8>)]) -> Result<Stored> {
    if nodes.is_empty() {
        return Ok(Stored::default());
    }
    let kind = ChunkKind::Node;
    let ids: Vec<ChunkId> = nodes.iter().map(|(id, _)| *id).collect();
    let known = shared.known(kind, &ids)?;
    let lacking: Vec<(ChunkId, &[u8])> = nodes
        .iter()
        .zip(&known)
        .filter(|(_, known)| !**known)
        .map(|((id, bytes), _)| (*id, &bytes[..]))
        .collect();
    let mut stored = shared.send(kind, &lacking)?;
    let of_known = nodes.iter().zip(&known).filter(|(_, known)| **known);
    for ((_, bytes), _) in of_known {
        stored.known_chunks += 1;
        stored.known_bytes += bytes.len() as u64;
    }
    debug_assert!(frame_limit(kind) < AT_ONCE);
    Ok(stored)
}
