//! Reading content: the workers.
//!
//! Every worker reads, cuts and stores; nothing is handed from thread to thread but, for a large
//! file, the right to read its next block (a [`Cursor`]) and the bytes of a chunk that a block left
//! unfinished (the *carry*). So as many blocks of one file are in work as there are workers, their
//! reads overlap, and memory is one buffer for each worker.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::Advice;
use strongroom_engine::buf::{AlignedBuf, PAGE};
use strongroom_engine::map::{Extent, MapBuilder, MapRef};

use super::Shared;
use super::cut::{Cut, store_pieces};
use super::opened::{Opened, is_racy};
use crate::entry::{XATTR_INLINE, Xattr, XattrValue};
use crate::folder::{Folder, Kind, Meta, meta_of};
use crate::xattrs::{self, Which};

/// How much is read and stored at once, in bytes; of large files more, where the store wants it.
pub(super) const BLOCK: usize = 1 << 20;
/// Files up to this size are read whole, many to a buffer, in bytes.
pub(super) const SMALL: u64 = 256 << 10;
/// Files above this size are read block by block by all workers, in bytes.
pub(super) const LARGE: u64 = 4 << 20;
/// How many small files a worker has open, so that the disk reads them at once.
const AHEAD: usize = 16;

/// What became of a file.
#[derive(Debug)]
pub(super) enum Found {
    /// It was read.
    Read(Box<Content>),
    /// It could not be read, and why.
    Failed(String),
}

/// What was read of a file.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) map: MapRef,
    pub(super) xattrs: Vec<Xattr>,
    pub(super) meta: Meta,
    pub(super) racy: bool,
    /// Something to tell although the file was read.
    pub(super) trouble: Option<String>,
}

/// A file to be read.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) folder: Arc<Folder>,
    pub(super) name: Vec<u8>,
    pub(super) meta: Meta,
}

/// What a worker does.
#[derive(Debug)]
pub(super) enum Job {
    /// Read small files and give back what was found, in order.
    Small(Vec<Task>, SyncSender<Vec<Found>>),
    /// Open a large file and begin to read it.
    Open(Task, SyncSender<Vec<Found>>),
    /// Read the next block of a stream.
    Block(Arc<Stream>, Cursor),
}

/// A buffer with room in front for the beginning of an unfinished chunk.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: AlignedBuf,
    /// Where blocks are read to: a multiple of [`PAGE`].
    front: usize,
}

impl Buffer {
    pub(super) fn new(max_chunk: usize, block: usize) -> Self {
        let front = max_chunk.next_multiple_of(PAGE);
        Self { bytes: AlignedBuf::new(front + block), front }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The right to read the next block of a stream. There is one, and it moves from worker to worker.
#[derive(Debug)]
pub(super) struct Cursor {
    sequence: u64,
    offset: u64,
    /// Where the stretch of data ends that `offset` is in; 0 when that isn't known yet.
    segment_end: u64,
}

impl Cursor {
    /// The first block.
    pub(super) fn start() -> Self {
        Self { sequence: 0, offset: 0, segment_end: 0 }
    }
}

/// Content that is read block by block by several workers.
pub(super) struct Stream {
    input: Input,
    size: u64,
    cut: Cut,
    block: usize,
    carry: Mutex<Carry>,
    carried: Condvar,
    order: Mutex<Order>,
    failed: Mutex<Option<String>>,
    ended: AtomicBool,
    done: SyncSender<Vec<Found>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({} bytes)", self.size)
    }
}

enum Input {
    File {
        task: Task,
        file: Opened,
        meta: Meta,
        racy: bool,
        again: bool,
    },
    /// Whoever has the cursor takes it out, reads, and puts it back.
    Pipe(Mutex<Option<Box<dyn Read + Send>>>, Meta),
}

#[derive(Default)]
struct Carry {
    /// Whose turn it is to cut.
    turn: u64,
    bytes: Vec<u8>,
    /// The file ended before its size said so.
    short: bool,
}

#[derive(Default)]
struct Order {
    next: u64,
    waiting: BTreeMap<u64, Vec<Extent>>,
    /// None while a worker is appending to it.
    builder: Option<MapBuilder>,
    /// How many blocks there are, once that is known.
    total: Option<u64>,
}

/// What the next block is.
struct Block {
    /// The length of the hole in front of it.
    hole: u64,
    offset: u64,
    len: usize,
    /// Whether a hole or the end of the file follows.
    ends_segment: bool,
    last: bool,
}

impl Stream {
    fn new(input: Input, size: u64, cut: Cut, block: usize, done: SyncSender<Vec<Found>>) -> Self {
        let order = Order { builder: Some(cut.builder()), ..Order::default() };
        Self {
            input,
            size,
            cut,
            block,
            carry: Mutex::default(),
            carried: Condvar::new(),
            order: Mutex::new(order),
            failed: Mutex::default(),
            ended: AtomicBool::new(false),
            done,
        }
    }

    /// Opens a file or block device.
    pub(super) fn open(
        task: Task,
        cut: Cut,
        block: usize,
        again: bool,
        done: SyncSender<Vec<Found>>,
    ) -> Result<Self, (io::Error, SyncSender<Vec<Found>>)> {
        let open = || -> io::Result<_> {
            let (file, mut meta) = Opened::open(&task, true)?;
            if meta.kind == Kind::Block {
                meta.size = rustix::fs::seek(&file.fd, rustix::fs::SeekFrom::End(0))?;
            }
            let racy = is_racy(&meta);
            Ok((file, meta, racy))
        };
        match open() {
            Ok((file, meta, racy)) => {
                let input = Input::File { task, file, meta, racy, again };
                Ok(Self::new(input, meta.size, cut, block, done))
            }
            Err(e) => Err((e, done)),
        }
    }

    /// Reads what comes in by a pipe.
    pub(super) fn pipe(
        input: Box<dyn Read + Send>,
        meta: Meta,
        cut: Cut,
        block: usize,
        done: SyncSender<Vec<Found>>,
    ) -> Self {
        Self::new(Input::Pipe(Mutex::new(Some(input)), meta), u64::MAX, cut, block, done)
    }

    /// How much is read at once, in bytes, for a store that likes to be given so much.
    pub(super) fn block_len(cut: &Cut, at_once: usize) -> usize {
        let block = at_once.max(BLOCK);
        match cut {
            Cut::Fixed(fixed) => block.next_multiple_of(*fixed),
            Cut::Content(_) => block,
        }
    }

    fn fail(&self, why: impl ToString) {
        lock(&self.failed).get_or_insert_with(|| why.to_string());
        self.ended.store(true, Ordering::Relaxed);
    }

    /// The block at the cursor, which moves on.
    fn plan(&self, cursor: &mut Cursor) -> Block {
        let from = cursor.offset;
        let stop = Block { hole: 0, offset: from, len: 0, ends_segment: true, last: true };
        let Input::File { file, .. } = &self.input else { return stop };
        if self.ended.load(Ordering::Relaxed) || from >= self.size {
            return stop;
        }
        let mut hole = 0;
        if from >= cursor.segment_end {
            let (mut start, mut end) = match file.next_data(from, self.size) {
                Some(found) => found,
                None => return Block { hole: self.size - from, ..stop },
            };
            if let Cut::Fixed(size) = self.cut {
                let size = size as u64;
                start = (start / size * size).max(from);
                end = end.next_multiple_of(size).min(self.size);
            }
            hole = start - from;
            (cursor.offset, cursor.segment_end) = (start, end);
        }
        let offset = cursor.offset;
        let block = self.block as u64;
        let end = cursor.segment_end.min((offset / block + 1) * block);
        cursor.offset = end;
        Block {
            hole,
            offset,
            len: (end - offset) as usize,
            ends_segment: end == cursor.segment_end,
            last: end >= self.size,
        }
    }
}

/// Does jobs until there are no more.
pub(super) fn work(shared: &Shared<'_>) {
    let max = shared.store.chunking().max as usize;
    let mut buffer = Buffer::new(max, shared.block);
    while let Some(job) = shared.queue.pop() {
        let done = match job {
            Job::Small(tasks, done) => small(shared, &mut buffer, &tasks).map(|found| {
                // Nobody listens after an error.
                let _ = done.send(found);
            }),
            Job::Open(task, done) => {
                let cut = shared.cut.clone();
                match Stream::open(task, cut, shared.block, false, done) {
                    Ok(stream) => block(shared, &mut buffer, Arc::new(stream), Cursor::start()),
                    Err((why, done)) => {
                        let _ = done.send(vec![Found::Failed(why.to_string())]);
                        shared.queue.end_stream();
                        Ok(())
                    }
                }
            }
            Job::Block(stream, cursor) => block(shared, &mut buffer, stream, cursor),
        };
        if let Err(error) = done {
            shared.abort(error.into());
        }
        if shared.progress.is_canceled() {
            shared.abort(strongroom_engine::Error::Canceled.into());
        }
    }
}

/// Reads one block of a stream, cuts and stores it.
fn block(
    shared: &Shared<'_>,
    buffer: &mut Buffer,
    stream: Arc<Stream>,
    mut cursor: Cursor,
) -> strongroom_engine::Result<()> {
    let sequence = cursor.sequence;
    let front = buffer.front;
    cursor.sequence += 1;
    let (plan, read) = match &stream.input {
        Input::File { file, .. } => {
            let plan = stream.plan(&mut cursor);
            if !plan.last {
                shared.queue.push_front(Job::Block(Arc::clone(&stream), cursor));
            }
            // Whole pages, so that direct reading can be used to the end of the file.
            let room = plan.len.next_multiple_of(PAGE).min(buffer.bytes.len() - front);
            let into = &mut buffer.bytes[front..front + room];
            let read = if plan.len == 0 { Ok(0) } else { file.read(into, plan.offset) };
            (plan, read)
        }
        Input::Pipe(pipe, _) => {
            let input = lock(pipe).take();
            let into = &mut buffer.bytes[front..front + stream.block];
            let (read, input) = fill(input, into);
            *lock(pipe) = input;
            let len = *read.as_ref().unwrap_or(&0);
            let last = len < stream.block;
            let plan = Block { hole: 0, offset: cursor.offset, len, ends_segment: last, last };
            cursor.offset += len as u64;
            if !last {
                shared.queue.push_front(Job::Block(Arc::clone(&stream), cursor));
            }
            (plan, read)
        }
    };
    let (len, why) = match read {
        Ok(len) => (len.min(plan.len), None),
        Err(e) => (0, Some(format!("reading at {}: {e}", plan.offset))),
    };
    if let Some(why) = why {
        stream.fail(why);
    }

    // In turn: what the block before left is the beginning of the first chunk of this one.
    let mut carry = lock(&stream.carry);
    while carry.turn != sequence {
        carry = stream.carried.wait(carry).unwrap_or_else(PoisonError::into_inner);
    }
    let short = carry.short;
    carry.short |= len < plan.len;
    if len < plan.len {
        stream.ended.store(true, Ordering::Relaxed);
    }
    let mut start = front;
    let mut end = front + len;
    if short {
        end = front;
    } else {
        start = front - carry.bytes.len();
        buffer.bytes[start..front].copy_from_slice(&carry.bytes);
    }
    carry.bytes.clear();
    let last = plan.ends_segment || len < plan.len;
    let data = &buffer.bytes[start..end];
    let (pieces, rest) = stream.cut.pieces(data, last);
    carry.bytes.extend_from_slice(rest);
    carry.turn += 1;
    drop(carry);
    stream.carried.notify_all();

    let mut extents = Vec::with_capacity(pieces.len() + 1);
    if plan.hole > 0 && !short {
        extents.push(Extent::Hole { len: plan.hole });
    }
    let stored = store_pieces(shared, &pieces, &mut extents);
    shared.progress.read(plan.hole + len as u64);
    stored?;
    deliver(shared, &stream, sequence, extents, plan.last)
}

fn fill(
    input: Option<Box<dyn Read + Send>>,
    buf: &mut [u8],
) -> (io::Result<usize>, Option<Box<dyn Read + Send>>) {
    let Some(mut input) = input else { return (Ok(0), None) };
    let mut done = 0;
    while done < buf.len() {
        match input.read(&mut buf[done..]) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (Err(e), Some(input)),
        }
    }
    (Ok(done), Some(input))
}

/// Appends the extents of a block to the map as soon as those of all before are there. One worker
/// at a time appends, without the lock.
fn deliver(
    shared: &Shared<'_>,
    stream: &Arc<Stream>,
    sequence: u64,
    extents: Vec<Extent>,
    last: bool,
) -> strongroom_engine::Result<()> {
    let mut order = lock(&stream.order);
    order.waiting.insert(sequence, extents);
    if last {
        order.total = Some(sequence + 1);
    }
    let Some(mut builder) = order.builder.take() else { return Ok(()) };
    loop {
        let next = order.next;
        let Some(extents) = order.waiting.remove(&next) else { break };
        order.next += 1;
        drop(order);
        for extent in extents {
            builder.push(&shared.nodes(), extent)?;
        }
        order = lock(&stream.order);
    }
    if order.total != Some(order.next) {
        order.builder = Some(builder);
        return Ok(());
    }
    drop(order);
    let map = builder.finish(&shared.nodes())?;
    end(shared, stream, map)
}

/// All blocks of a stream are stored: looks whether it changed meanwhile.
fn end(shared: &Shared<'_>, stream: &Arc<Stream>, map: MapRef) -> strongroom_engine::Result<()> {
    let failed = lock(&stream.failed).take();
    let found = match (&stream.input, failed) {
        (_, Some(why)) => Found::Failed(why),
        (Input::Pipe(_, meta), None) => Found::Read(Box::new(Content {
            meta: Meta { size: map.len(), ..*meta },
            map,
            xattrs: Vec::new(),
            racy: false,
            trouble: None,
        })),
        (Input::File { task, file, meta, racy, again }, None) => {
            let changed = meta.kind == Kind::File
                && !meta_of(&file.fd).is_ok_and(|after| after.same_content(meta));
            if changed && !again {
                let task =
                    Task { folder: Arc::clone(&task.folder), name: task.name.clone(), ..*task };
                let done = stream.done.clone();
                match Stream::open(task, stream.cut.clone(), stream.block, true, done) {
                    Ok(stream) => {
                        shared.queue.push_front(Job::Block(Arc::new(stream), Cursor::start()));
                        return Ok(());
                    }
                    Err((why, _)) => Found::Failed(format!("it changed while it was read: {why}")),
                }
            } else {
                let (xattrs, why) = attributes(shared, Which::open(&file.fd))?;
                let changed = changed.then(|| "it changed while it was read".to_owned());
                Found::Read(Box::new(Content {
                    map,
                    xattrs,
                    meta: *meta,
                    racy: *racy || changed.is_some(),
                    trouble: changed.or(why),
                }))
            }
        }
    };
    let _ = stream.done.send(vec![found]);
    shared.queue.end_stream();
    Ok(())
}

/// Reads all attributes; long values are stored as chunks. Attributes that can't be read are told.
pub(super) fn attributes(
    shared: &Shared<'_>,
    which: Which<'_>,
) -> strongroom_engine::Result<(Vec<Xattr>, Option<String>)> {
    let list = match xattrs::read(which) {
        Ok(list) => list,
        Err(e) => return Ok((Vec::new(), Some(format!("its attributes can't be read: {e}")))),
    };
    let mut out = Vec::with_capacity(list.len());
    for (name, value) in list {
        let value = if value.len() > XATTR_INLINE {
            let mut ids = Vec::with_capacity(1);
            let stored = shared.store.store(&[&value], &mut ids)?;
            shared.progress.stored(&stored);
            match ids.pop() {
                Some(id) => XattrValue::Chunk(id, value.len() as u32),
                None => XattrValue::Inline(value),
            }
        } else {
            XattrValue::Inline(value)
        };
        out.push(Xattr { name, value });
    }
    Ok((out, None))
}

/// A small file in the buffer: where, and what is known of it.
struct Loaded {
    index: usize,
    from: usize,
    len: usize,
    content: Content,
}

/// Opens a file that is read soon, and has the system bring a small one to memory meanwhile.
fn open_ahead(task: &Task) -> io::Result<(Opened, Meta)> {
    let direct = task.meta.size > SMALL;
    let (file, meta) = Opened::open(task, direct)?;
    if !direct && meta.size > 0 {
        let _ = rustix::fs::fadvise(&file.fd, 0, None, Advice::WillNeed);
    }
    Ok((file, meta))
}

/// Reads small files, many to a buffer, and stores them together.
fn small(
    shared: &Shared<'_>,
    buffer: &mut Buffer,
    tasks: &[Task],
) -> strongroom_engine::Result<Vec<Found>> {
    let mut found: Vec<Option<Found>> = tasks.iter().map(|_| None).collect();
    let mut loaded: Vec<Loaded> = Vec::with_capacity(tasks.len());
    let mut filled = 0;
    let mut opened = VecDeque::with_capacity(AHEAD);
    let mut coming = tasks.iter();
    for (index, task) in tasks.iter().enumerate() {
        if shared.is_stopped() {
            return Err(strongroom_engine::Error::Canceled);
        }
        opened.extend(coming.by_ref().take(AHEAD - opened.len()).map(open_ahead));
        let Some(next) = opened.pop_front() else { break };
        let (file, meta) = match next {
            Ok(opened) => opened,
            Err(e) => {
                found[index] = Some(Found::Failed(e.to_string()));
                continue;
            }
        };
        // A file with holes, or one that isn't small (any more).
        let sparse = meta.size > 32 << 10 && meta.stored < meta.size;
        if meta.size > SMALL || sparse {
            flush(shared, buffer, &mut loaded, &mut found)?;
            filled = 0;
            found[index] = Some(whole(shared, buffer, task, file, meta)?);
            continue;
        }
        let size = meta.size as usize;
        if filled + size > buffer.bytes.len() {
            flush(shared, buffer, &mut loaded, &mut found)?;
            filled = 0;
        }
        match load(shared, &mut buffer.bytes[filled..filled + size], &file, meta)? {
            Ok((len, content)) => {
                loaded.push(Loaded { index, from: filled, len, content });
                filled += len;
            }
            Err(why) => found[index] = Some(Found::Failed(why)),
        }
    }
    flush(shared, buffer, &mut loaded, &mut found)?;
    let gone = || Found::Failed("it was not read".into());
    Ok(found.into_iter().map(|found| found.unwrap_or_else(gone)).collect())
}

/// Reads a small file into a buffer of its size.
fn load(
    shared: &Shared<'_>,
    buf: &mut [u8],
    file: &Opened,
    mut meta: Meta,
) -> strongroom_engine::Result<Result<(usize, Content), String>> {
    let mut trouble = None;
    let mut again = false;
    let (len, racy) = loop {
        let racy = is_racy(&meta);
        let len = match file.read(buf, 0) {
            Ok(len) => len,
            Err(e) => return Ok(Err(e.to_string())),
        };
        match meta_of(&file.fd) {
            Ok(after) if after.same_content(&meta) && len as u64 == meta.size => break (len, racy),
            // It may have grown past the buffer: then its beginning is kept, and told.
            Ok(after) if !again => (meta, again) = (after, true),
            _ => {
                trouble = Some("it changed while it was read".to_owned());
                break (len, true);
            }
        }
    };
    let (xattrs, why) = attributes(shared, Which::open(&file.fd))?;
    let trouble = trouble.or(why);
    Ok(Ok((len, Content { map: MapRef::default(), xattrs, meta, racy, trouble })))
}

/// Cuts and stores all files in the buffer with one call.
fn flush(
    shared: &Shared<'_>,
    buffer: &Buffer,
    loaded: &mut Vec<Loaded>,
    found: &mut [Option<Found>],
) -> strongroom_engine::Result<()> {
    let mut pieces = Vec::with_capacity(loaded.len() + 16);
    let mut counts = Vec::with_capacity(loaded.len());
    for file in loaded.iter() {
        let data = &buffer.bytes[file.from..file.from + file.len];
        let (mut cut, _) = shared.cut.pieces(data, true);
        counts.push(cut.len());
        pieces.append(&mut cut);
        shared.progress.read(file.len as u64);
    }
    let mut extents = Vec::with_capacity(pieces.len());
    store_pieces(shared, &pieces, &mut extents)?;
    let mut extents = extents.into_iter();
    for (file, count) in loaded.drain(..).zip(counts) {
        let map = MapRef::Inline(extents.by_ref().take(count).collect());
        found[file.index] = Some(Found::Read(Box::new(Content { map, ..file.content })));
    }
    Ok(())
}

/// Reads a file of middling size, or a sparse one, from its beginning to its end.
fn whole(
    shared: &Shared<'_>,
    buffer: &mut Buffer,
    task: &Task,
    mut file: Opened,
    mut meta: Meta,
) -> strongroom_engine::Result<Found> {
    let mut again = false;
    loop {
        let racy = is_racy(&meta);
        let map = match through(shared, buffer, &file, meta.size)? {
            Ok(map) => map,
            Err(e) => return Ok(Found::Failed(e.to_string())),
        };
        let changed = !meta_of(&file.fd).is_ok_and(|after| after.same_content(&meta));
        if changed && !again {
            again = true;
            (file, meta) = match Opened::open(task, true) {
                Ok(opened) => opened,
                Err(e) => return Ok(Found::Failed(format!("it changed while it was read: {e}"))),
            };
            continue;
        }
        let (xattrs, why) = attributes(shared, Which::open(&file.fd))?;
        let changed = changed.then(|| "it changed while it was read".to_owned());
        let racy = racy || changed.is_some();
        let trouble = changed.or(why);
        return Ok(Found::Read(Box::new(Content { map, xattrs, meta, racy, trouble })));
    }
}

/// Reads, cuts and stores a file block by block.
fn through(
    shared: &Shared<'_>,
    buffer: &mut Buffer,
    file: &Opened,
    size: u64,
) -> strongroom_engine::Result<io::Result<MapRef>> {
    let mut builder = shared.cut.builder();
    let mut extents = Vec::new();
    let (mut at, front) = (0, buffer.front);
    while at < size {
        let (start, end) = file.next_data(at, size).unwrap_or((size, size));
        if start > at {
            extents.push(Extent::Hole { len: start - at });
        }
        at = start;
        let mut carried = 0;
        while at < end {
            let len = (end - at).min(BLOCK as u64) as usize;
            let room = len.next_multiple_of(PAGE);
            let read = match file.read(&mut buffer.bytes[front..front + room], at) {
                Ok(read) => read.min(len),
                Err(e) => return Ok(Err(e)),
            };
            at += len as u64;
            let last = at == end || read < len;
            let data = &buffer.bytes[front - carried..front + read];
            let rest = shared.cut.store(shared, data, last, &mut extents)?.len();
            buffer.bytes.copy_within(front + read - rest..front + read, front - rest);
            carried = rest;
            shared.progress.read(read as u64);
            for extent in extents.drain(..) {
                builder.push(&shared.nodes(), extent)?;
            }
            if read < len {
                return Ok(Ok(builder.finish(&shared.nodes())?));
            }
        }
        for extent in extents.drain(..) {
            builder.push(&shared.nodes(), extent)?;
        }
    }
    Ok(Ok(builder.finish(&shared.nodes())?))
}
