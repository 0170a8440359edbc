//! A connection in its transmission phase.
//!
//! Threads are all alike here. One reads, and takes all the requests that are there at once; it does
//! them itself, one after the other, and sends many replies with one call: what is quick costs no
//! switch from one thread to another. While it is at a request that is known to be slow (a flush), or
//! where requests have been slow lately, another thread is called, which does what waits and reads on;
//! and the [watch](crate::crew::Watch) calls one where a request turns out to be slow. Whoever finds
//! nothing to do leaves; the last one closes.

use std::any::Any;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::buffers::locked;
use crate::crew::{Crew, Watch};
use crate::exports::Peer;
use crate::receiver::{Job, Receiver};
use crate::request::Refusal;
use crate::service::{Reply, Service};
use crate::transport::Transport;

/// Nanoseconds that a request takes, on the average, from which on others do some of them.
const SLOW: u32 = 60_000;
/// Bytes that are copied in a nanosecond, at the least: the time for that is not counted, since it is no
/// shorter for being done by several.
const COPIED: u32 = 4;
/// What one request counts for at most in that: a single one that waited says little of the next.
const MOST: u32 = 400_000;
/// Requests in a row that each came alone, after which only one in so many has another thread called to
/// see whether there are more.
const ALONE: u32 = 16;
/// Replies, and bytes, that are sent at the latest.
const BATCH: usize = 16;
const BATCH_BYTES: usize = 128 << 10;
/// Replies that are sent by one call.
const SLICES: usize = 64;
/// Bytes of buffers with replies that wait for the client before no more requests are done: enough for one to be made
/// while another is sent.
const UNSENT: usize = 1 << 20;

/// A connection that is served.
#[derive(Debug)]
pub(crate) struct Session {
    service: Service,
    transport: Transport,
    crew: Arc<Crew>,
    watch: Arc<Watch>,
    /// Threads at once.
    most: usize,
    receiver: Mutex<Receiver>,
    state: Mutex<State>,
    outbox: Mutex<Outbox>,
    sent: Condvar,
    /// New requests are refused.
    stopping: AtomicBool,
    /// Changes with whatever is done; 0 while somebody reads, or nothing is done.
    mark: AtomicU64,
    /// The mark at the last look.
    seen: AtomicU64,
    /// Nanoseconds that a request takes.
    pace: AtomicU32,
    /// What is let go when it ends, in this order.
    kept: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// A client that uses an export. It is served on, whatever becomes of this.
#[derive(Clone, Debug)]
pub struct Client {
    /// Who it is.
    pub peer: Peer,
    session: Weak<Session>,
}

impl Client {
    pub(crate) fn new(peer: Peer, session: &Arc<Session>) -> Self {
        Self { peer, session: Arc::downgrade(session) }
    }

    /// Ends its connection: what it asked for is answered first. It doesn't wait for that.
    pub fn end(&self) {
        if let Some(session) = self.session.upgrade() {
            session.stop();
        }
    }
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<(Job, bool)>,
    executing: usize,
    /// Requests in a row with no other under way when they came.
    alone: u32,
    threads: usize,
    reading: bool,
    /// A thread was called that has not come yet.
    called: bool,
    /// There are no more requests.
    ended: bool,
    closed: bool,
    step: u64,
}

#[derive(Debug, Default)]
struct Outbox {
    replies: VecDeque<Reply>,
    /// Bytes of their buffers.
    bytes: usize,
    sending: bool,
    waiting: usize,
    broken: bool,
}

enum Step {
    /// A request; whether it is refused; and whether another thread should be called.
    Do(Job, bool, bool),
    Read,
    Leave,
    Close,
}

/// What a session is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) service: Service,
    pub(crate) transport: Transport,
    pub(crate) receiver: Receiver,
    pub(crate) crew: Arc<Crew>,
    pub(crate) watch: Arc<Watch>,
    pub(crate) most: usize,
}

impl Session {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let session = Arc::new(Self {
            service: parts.service,
            transport: parts.transport,
            crew: parts.crew,
            watch: parts.watch,
            most: parts.most.max(2),
            receiver: Mutex::new(parts.receiver),
            state: Mutex::default(),
            outbox: Mutex::default(),
            sent: Condvar::new(),
            stopping: AtomicBool::new(false),
            mark: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            pace: AtomicU32::new(0),
            kept: Mutex::default(),
        });
        session.watch.add(&session);
        session
    }

    /// Keeps something until the connection has ended; before its first thread comes.
    pub(crate) fn keep(&self, kept: Box<dyn Any + Send>) {
        locked(&self.kept).push(kept);
    }

    /// Refuses new requests, answers those that came, and ends.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.transport.socket().shutdown(Shutdown::Read);
    }

    /// Does what there is to be done.
    pub(crate) fn work(self: &Arc<Self>) {
        {
            let mut state = locked(&self.state);
            state.called = false;
            state.threads += 1;
        }
        // Whoever calls may be held up with replies unsent.
        self.flush();
        let mut jobs = Vec::new();
        let mut done = false;
        loop {
            match self.next(done) {
                Step::Do(job, refused, call) => {
                    if call {
                        self.flush();
                        self.call();
                    }
                    self.perform(job, refused);
                    done = true;
                }
                Step::Read => {
                    self.flush();
                    self.read(&mut jobs);
                    done = false;
                }
                Step::Leave => return self.flush(),
                Step::Close => return self.close(),
            }
        }
    }

    fn next(&self, done: bool) -> Step {
        let is_slow = self.pace.load(Ordering::Relaxed) > SLOW;
        let mut state = locked(&self.state);
        if done {
            state.executing -= 1;
        }
        state.step += 1;
        let step = if let Some((job, refused)) = state.jobs.pop_front() {
            state.executing += 1;
            let is_alone = state.alone > ALONE && !state.alone.is_multiple_of(ALONE);
            let is_slow = (is_slow && !is_alone) || job.header.is_slow();
            let call = is_slow && self.may_call(&state);
            state.called |= call;
            Step::Do(job, refused, call)
        } else if !state.ended && !state.reading {
            state.reading = true;
            Step::Read
        } else if state.ended && state.executing == 0 && !state.closed {
            state.closed = true;
            Step::Close
        } else {
            state.threads -= 1;
            Step::Leave
        };
        let is_watched = state.executing > 0 && !state.reading && !state.ended;
        let before = self.mark.swap(if is_watched { state.step } else { 0 }, Ordering::SeqCst);
        drop(state);
        if is_watched && before == 0 {
            self.watch.stir();
        }
        step
    }

    fn may_call(&self, state: &State) -> bool {
        !state.called && state.threads < self.most && (!state.reading || !state.jobs.is_empty())
    }

    /// Has another thread come, unless it is the client who doesn't take its replies; `called` is set.
    fn call(self: &Arc<Self>) {
        let is_full = locked(&self.outbox).bytes > UNSENT;
        let session = Arc::clone(self);
        if is_full || !self.crew.run(move || session.work()) {
            locked(&self.state).called = false;
        }
    }

    /// Calls another thread if those that are here have been at the same since the last look; tells
    /// whether they are at anything.
    pub(crate) fn look(self: &Arc<Self>) -> bool {
        let mark = self.mark.load(Ordering::SeqCst);
        let is_stuck = self.seen.swap(mark, Ordering::Relaxed) == mark && mark != 0;
        if is_stuck {
            let mut state = locked(&self.state);
            let call = state.step == mark && self.may_call(&state);
            state.called |= call;
            drop(state);
            if call {
                self.call();
            }
        }
        mark != 0
    }

    fn read(&self, jobs: &mut Vec<Job>) {
        let read = locked(&self.receiver).receive(&mut &self.transport, jobs);
        let refused = self.stopping.load(Ordering::SeqCst);
        if let Err(lost) = &read {
            tracing::debug!(%lost, "a connection ends");
        }
        let mut state = locked(&self.state);
        state.jobs.extend(jobs.drain(..).map(|job| (job, refused)));
        let is_alone = state.jobs.len() + state.executing <= 1;
        state.alone = if is_alone { state.alone.wrapping_add(1) } else { 0 };
        state.ended = !matches!(read, Ok(false));
        state.reading = false;
    }

    fn perform(&self, job: Job, refused: bool) {
        if locked(&self.outbox).broken {
            return;
        }
        let reply = if refused {
            self.service.refuse(&job.header, &Refusal::shutdown())
        } else {
            let begun = Instant::now();
            let reply = self.service.answer(&job.header, job.payload());
            if !job.header.is_slow() {
                self.note(begun.elapsed(), job.header.length);
            }
            reply
        };
        drop(job);
        let (replies, bytes) = self.push(reply);
        if replies >= BATCH || bytes >= BATCH_BYTES || self.pace.load(Ordering::Relaxed) > SLOW {
            self.flush();
        }
    }

    fn note(&self, took: Duration, length: u32) {
        let took = u32::try_from(took.as_nanos()).unwrap_or(u32::MAX);
        let took = took.saturating_sub(length / COPIED).min(MOST);
        let pace = self.pace.load(Ordering::Relaxed);
        self.pace.store(pace - pace / 8 + took / 8, Ordering::Relaxed);
    }

    /// Adds a reply to those that are to be sent; how many there are, and their bytes.
    fn push(&self, reply: Reply) -> (usize, usize) {
        let mut outbox = locked(&self.outbox);
        while outbox.sending && outbox.bytes > UNSENT && !outbox.broken {
            outbox.waiting += 1;
            outbox = self.sent.wait(outbox).unwrap_or_else(PoisonError::into_inner);
            outbox.waiting -= 1;
        }
        if !outbox.broken {
            outbox.bytes += reply.room();
            outbox.replies.push_back(reply);
        }
        (outbox.replies.len(), outbox.bytes)
    }

    /// Sends what there is to be sent, unless somebody is at it, who then sends it too.
    fn flush(&self) {
        let mut outbox = locked(&self.outbox);
        if outbox.sending || outbox.replies.is_empty() {
            return;
        }
        outbox.sending = true;
        let mut batch: Vec<Reply> = Vec::new();
        while !outbox.replies.is_empty() {
            let count = outbox.replies.len().min(SLICES);
            batch.extend(outbox.replies.drain(..count));
            drop(outbox);
            let mut slices: Vec<_> =
                batch.iter().map(|reply| IoSlice::new(reply.bytes())).collect();
            let sent = self.transport.send(&mut slices);
            let bytes: usize = batch.iter().map(|reply| reply.room()).sum();
            batch.clear();
            outbox = locked(&self.outbox);
            outbox.bytes -= bytes;
            if let Err(error) = sent {
                tracing::debug!(%error, "a reply can't be sent");
                outbox.broken = true;
                outbox.replies.clear();
                outbox.bytes = 0;
                self.transport.socket().shutdown(Shutdown::Both);
            }
            if outbox.waiting > 0 {
                self.sent.notify_all();
            }
        }
        outbox.sending = false;
        if outbox.waiting > 0 {
            self.sent.notify_all();
        }
    }

    /// Sends what is left, and ends the connection.
    fn close(&self) {
        self.flush();
        let mut outbox = locked(&self.outbox);
        while outbox.sending {
            outbox.waiting += 1;
            outbox = self.sent.wait(outbox).unwrap_or_else(PoisonError::into_inner);
            outbox.waiting -= 1;
        }
        drop(outbox);
        self.transport.close();
        let kept = std::mem::take(&mut *locked(&self.kept));
        drop(kept);
    }
}
