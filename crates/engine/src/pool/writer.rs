//! The way of new frames to the disks: a packing thread gives each frame its place and writes it,
//! a sealing thread makes whole packs durable. Both queues are short: a slow disk slows the
//! sessions down instead of filling memory.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::error::{Error, Result};
use crate::id::ChunkKind;
use crate::pack::{Closed, NewFrame, PackSpec, Packer};
use crate::pool::core::{Core, lock};

/// Frames that may wait for the packing thread.
const FRAMES_WAITING: usize = 6;
/// Closed packs that may wait for the sealing thread.
const PACKS_WAITING: usize = 2;
/// The longest pack of nodes.
const NODE_PACK: u32 = 16 << 20;

enum Work {
    Frame(ChunkKind, NewFrame),
    /// Close the open packs, and answer when all packs so far are sealed.
    Flush(SyncSender<Result<()>>),
}

enum Seal {
    Pack(Box<Closed>),
    Answer(SyncSender<Result<()>>),
}

/// Two packers, one for each kind of chunk.
#[derive(Debug)]
struct Packing {
    core: Arc<Core>,
    data: Packer,
    nodes: Packer,
}

impl Packing {
    fn new(core: Arc<Core>) -> Self {
        let layout = core.layout;
        let spec = |kind, shape, target_len| PackSpec { pool: core.id, kind, shape, target_len };
        // Nodes tell what is in the pool: they are kept on every disk, so that any one disk can
        // tell what the others took with them.
        let data = spec(ChunkKind::Data, layout.data, core.pack_size);
        let nodes = spec(ChunkKind::Node, layout.nodes, core.pack_size.min(NODE_PACK));
        Self { core, data: Packer::new(data), nodes: Packer::new(nodes) }
    }

    fn packer(&mut self, kind: ChunkKind) -> &mut Packer {
        match kind {
            ChunkKind::Data => &mut self.data,
            ChunkKind::Node => &mut self.nodes,
        }
    }

    /// Places a frame. A pack that became full is handed back.
    fn push(&mut self, kind: ChunkKind, frame: &mut NewFrame) -> Result<Option<Closed>> {
        let core = Arc::clone(&self.core);
        core.writable()?;
        let keyring = core.keyring();
        let placed = |id: &_, at| {
            core.pins.pin(&at);
            core.index.memtable().fill(id, at);
        };
        self.packer(kind).push(frame, &core.disks, &keyring, || core.new_pack(), placed)
    }

    /// Closes the open packs.
    fn close(&mut self) -> Result<Vec<Closed>> {
        self.core.writable()?;
        let data = self.data.close()?;
        let nodes = self.nodes.close()?;
        Ok(data.into_iter().chain(nodes).collect())
    }

    /// After an error: nothing more is written, what was half written goes away.
    fn fail(&mut self, why: &Error) {
        self.core.stop(why);
        for id in [self.data.abandon(), self.nodes.abandon()].into_iter().flatten() {
            self.core.pack_abandoned(id);
        }
    }
}

fn seal(core: &Core, closed: Closed) -> Result<()> {
    let id = closed.id();
    match closed.seal() {
        Ok(sealed) => core.pack_sealed(sealed),
        Err(e) => {
            core.stop(&e);
            core.pack_abandoned(id);
            Err(e)
        }
    }
}

#[derive(Debug)]
enum Way {
    /// Everything in the caller's thread, in one order: simulations replay exactly.
    Inline(Box<Mutex<Packing>>),
    Threads {
        work: SyncSender<Work>,
        packing: JoinHandle<()>,
        sealing: JoinHandle<()>,
    },
}

/// Writes frames.
#[derive(Debug)]
pub(crate) struct Writer {
    core: Arc<Core>,
    way: Way,
    spare: Arc<Mutex<Vec<NewFrame>>>,
}

impl Writer {
    /// Starts the threads, or none.
    pub(crate) fn start(core: Arc<Core>, inline: bool) -> Self {
        let spare = Arc::new(Mutex::new(Vec::new()));
        let mut packing = Packing::new(Arc::clone(&core));
        if inline {
            return Self { core, way: Way::Inline(Box::new(Mutex::new(packing))), spare };
        }
        let (work, todo) = sync_channel(FRAMES_WAITING);
        let (closed, to_seal) = sync_channel(PACKS_WAITING);
        let recycled = Arc::clone(&spare);
        let packing = std::thread::spawn(move || pack_all(&mut packing, &todo, &closed, &recycled));
        let sealing = std::thread::spawn({
            let core = Arc::clone(&core);
            move || seal_all(&core, &to_seal)
        });
        Self { core, way: Way::Threads { work, packing, sealing }, spare }
    }

    /// An empty frame, with the buffers of an earlier one if there is one.
    pub(crate) fn frame(&self) -> NewFrame {
        let mut frame = lock(&self.spare).pop().unwrap_or_default();
        frame.bytes.clear();
        frame.chunks.clear();
        frame
    }

    /// Hands a frame over. It is durable after [`Writer::flush`].
    pub(crate) fn push(&self, kind: ChunkKind, mut frame: NewFrame) -> Result<()> {
        self.core.writable()?;
        match &self.way {
            Way::Inline(packing) => {
                let mut packing = lock(packing);
                let closed = packing.push(kind, &mut frame).inspect_err(|e| packing.fail(e));
                let sealed = closed?.map_or(Ok(()), |closed| seal(&self.core, closed));
                lock(&self.spare).push(frame);
                sealed
            }
            Way::Threads { work, .. } => {
                work.send(Work::Frame(kind, frame)).map_err(|_| self.stopped())
            }
        }
    }

    /// Closes the open packs and waits until everything handed over is sealed.
    pub(crate) fn flush(&self) -> Result<()> {
        self.core.writable()?;
        match &self.way {
            Way::Inline(packing) => {
                let mut packing = lock(packing);
                let closed = packing.close().inspect_err(|e| packing.fail(e))?;
                closed.into_iter().try_for_each(|closed| seal(&self.core, closed))
            }
            Way::Threads { work, .. } => {
                let (answer, answered) = sync_channel(1);
                work.send(Work::Flush(answer)).map_err(|_| self.stopped())?;
                answered.recv().map_err(|_| self.stopped())?
            }
        }
    }

    fn stopped(&self) -> Error {
        match self.core.writable() {
            Err(e) => e,
            Ok(_) => Error::Stopped { why: "the packing thread ended".into() },
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let way = std::mem::replace(
            &mut self.way,
            Way::Inline(Box::new(Mutex::new(Packing::new(Arc::clone(&self.core))))),
        );
        match way {
            // What no commit asked for is still worth keeping: the next process adopts it.
            Way::Inline(_) => {}
            Way::Threads { work, packing, sealing } => {
                drop(work);
                // A thread that panicked has already said so.
                let _ = (packing.join(), sealing.join());
            }
        }
    }
}

/// The packing thread.
fn pack_all(
    packing: &mut Packing,
    todo: &Receiver<Work>,
    closed: &SyncSender<Seal>,
    spare: &Mutex<Vec<NewFrame>>,
) {
    let hand_over = |pack: Closed| {
        closed
            .send(Seal::Pack(Box::new(pack)))
            .map_err(|_| Error::Stopped { why: "the sealing thread ended".into() })
    };
    for work in todo {
        match work {
            Work::Frame(kind, mut frame) => {
                let pushed = packing.push(kind, &mut frame);
                match pushed.and_then(|pack| pack.map_or(Ok(()), hand_over)) {
                    Ok(()) => lock(spare).push(frame),
                    Err(e) => packing.fail(&e),
                }
            }
            Work::Flush(answer) => {
                let all =
                    packing.close().and_then(|packs| packs.into_iter().try_for_each(hand_over));
                match all {
                    Ok(()) => {
                        // Without a sealing thread the answer is dropped, which says enough.
                        let _ = closed.send(Seal::Answer(answer));
                    }
                    Err(e) => {
                        packing.fail(&e);
                        let _ = answer.send(Err(e));
                    }
                }
            }
        }
    }
    if packing.core.writable().is_err() {
        for id in [packing.data.abandon(), packing.nodes.abandon()].into_iter().flatten() {
            packing.core.pack_abandoned(id);
        }
    }
}

/// The sealing thread.
fn seal_all(core: &Core, to_seal: &Receiver<Seal>) {
    let mut failed = None;
    for work in to_seal {
        match work {
            Seal::Pack(closed) => {
                if let Err(e) = seal(core, *closed) {
                    failed.get_or_insert(e.to_string());
                }
            }
            Seal::Answer(answer) => {
                let result = match &failed {
                    None => Ok(()),
                    Some(why) => Err(Error::Stopped { why: why.clone() }),
                };
                // Whoever asked may have given up waiting.
                let _ = answer.send(result);
            }
        }
    }
}
