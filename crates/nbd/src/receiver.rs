//! Requests from bytes as they come: many at once, and none copied that needn't be.

use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffers::{Buffer, Buffers, Room};
use crate::request::{Broken, HEADER, Header};

/// Bytes that are read at once: few at first, then as many as 32 requests of 4 KiB have.
const CHUNK: (usize, usize) = (16 << 10, 160 << 10);
/// Payloads up to this wait in the chunk for their end, others get a buffer of their own.
const INLINE: usize = 32 << 10;
/// Bytes that are read at once where large payloads come, so that they come straight to their place.
const HEADERS: usize = 4 << 10;
/// Chunks that are kept.
const SPARES: usize = 4;
/// Bytes of chunks that a connection has while nothing is asked, at most.
pub(crate) const IDLE: usize = CHUNK.1 * (SPARES + 1);

/// Bytes as they came, many requests in one.
#[derive(Debug)]
struct Chunk {
    bytes: Vec<u8>,
    _room: Room,
}

impl Chunk {
    fn new(size: usize, room: Room) -> Arc<Self> {
        Arc::new(Self { bytes: vec![0; size], _room: room })
    }
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Chunk {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

/// A request, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) header: Header,
    payload: Payload,
}

#[derive(Debug)]
enum Payload {
    None,
    Part(Arc<Chunk>, Range<usize>),
    Own(Buffer),
}

impl Job {
    pub(crate) fn payload(&self) -> &[u8] {
        match &self.payload {
            Payload::None => &[],
            Payload::Part(chunk, range) => chunk.get(range.clone()).unwrap_or_default(),
            Payload::Own(buffer) => buffer.get(..self.header.length as usize).unwrap_or_default(),
        }
    }
}

/// Why no more comes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Lost {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error("the connection was lost: {0}")]
    Io(#[from] io::Error),
    #[error("it ended within a request")]
    Cut,
    #[error("a request did not come to its end in time")]
    Stalled,
    #[error("nothing was asked for a long time")]
    Idle,
    #[error("there is no memory for its requests")]
    Crowded,
}

/// Where bytes come from. [`io::ErrorKind::WouldBlock`] says that none came for some time.
pub(crate) trait Source {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
}

/// Reads requests.
#[derive(Debug)]
pub(crate) struct Receiver {
    buffers: Arc<Buffers>,
    chunk: Arc<Chunk>,
    /// What of the chunk is not yet looked at.
    filled: Range<usize>,
    spares: Vec<Arc<Chunk>>,
    /// A payload that comes to a buffer of its own, and how much of it is there.
    partial: Option<(Header, Buffer, usize)>,
    /// Large payloads come.
    large: bool,
    /// Since when a request that has begun has not come to its end.
    begun: Option<Instant>,
    /// Since when none came.
    idle: Instant,
    stalled: Duration,
    patience: Option<Duration>,
}

impl Receiver {
    /// `stalled` bounds how long a request is on its way, `patience` the time between them.
    pub(crate) fn new(
        buffers: Arc<Buffers>,
        stalled: Duration,
        patience: Option<Duration>,
    ) -> Self {
        let chunk = Chunk::new(CHUNK.0, buffers.set_aside(CHUNK.0));
        Self {
            buffers,
            chunk,
            filled: 0..0,
            spares: Vec::new(),
            partial: None,
            large: false,
            begun: None,
            idle: Instant::now(),
            stalled,
            patience,
        }
    }

    /// Waits for requests, and takes all that are there; `true` says that these are the last.
    ///
    /// # Errors
    /// [`Lost`]; requests that were added are good.
    pub(crate) fn receive(
        &mut self,
        source: &mut impl Source,
        jobs: &mut Vec<Job>,
    ) -> Result<bool, Lost> {
        loop {
            let ended = self.take(jobs)?;
            if ended || !jobs.is_empty() {
                self.begun = None;
                self.idle = Instant::now();
                return Ok(ended);
            }
            // Nothing is held here that others could wait for.
            if self.partial.is_none() && self.filled.is_empty() && !self.buffers.wait() {
                return Err(Lost::Crowded);
            }
            if !self.fill(source)? {
                let is_whole = self.partial.is_none() && self.filled.is_empty();
                return if is_whole { Ok(true) } else { Err(Lost::Cut) };
            }
        }
    }

    /// Takes whole requests from what is there.
    fn take(&mut self, jobs: &mut Vec<Job>) -> Result<bool, Lost> {
        loop {
            if let Some((header, mut buffer, mut there)) = self.partial.take() {
                let wanted = header.length as usize;
                let chunk = self.chunk.get(self.filled.clone()).unwrap_or_default();
                let missing = buffer.get_mut(there..wanted).unwrap_or_default();
                let now = missing.len().min(chunk.len());
                missing.split_at_mut(now).0.copy_from_slice(chunk.split_at(now).0);
                (self.filled.start, there) = (self.filled.start + now, there + now);
                if there < wanted {
                    self.partial = Some((header, buffer, there));
                    return Ok(false);
                }
                jobs.push(Job { header, payload: Payload::Own(buffer) });
            }
            let rest = self.chunk.get(self.filled.clone()).unwrap_or_default();
            let Some((header, after)) = rest.split_first_chunk::<HEADER>() else {
                return Ok(false);
            };
            let header = Header::parse(header)?;
            if header.is_last() {
                return Ok(true);
            }
            let payload = header.payload() as usize;
            let from = self.filled.start + HEADER;
            self.large = payload > INLINE;
            if payload == 0 {
                jobs.push(Job { header, payload: Payload::None });
                self.filled.start = from;
            } else if payload <= after.len() {
                let range = from..from + payload;
                self.filled.start = range.end;
                let payload = Payload::Part(Arc::clone(&self.chunk), range);
                jobs.push(Job { header, payload });
            } else if payload > INLINE {
                // Whoever holds others' requests must not wait for room: they may hold it.
                let Some(buffer) = self.buffers.take(payload, jobs.is_empty()) else {
                    return if jobs.is_empty() { Err(Lost::Crowded) } else { Ok(false) };
                };
                self.filled.start = from;
                self.partial = Some((header, buffer, 0));
            } else {
                return Ok(false);
            }
        }
    }

    /// Reads more; `false` when there is no more.
    fn fill(&mut self, source: &mut impl Source) -> Result<bool, Lost> {
        let length = self.partial.as_ref().map_or(0, |(header, ..)| header.length);
        let is_within = self.partial.is_some() || !self.filled.is_empty();
        if is_within && self.begun.is_none() {
            self.begun = Some(Instant::now());
        }
        let read = match &mut self.partial {
            Some((header, buffer, there)) => {
                let missing = buffer.get_mut(*there..header.length as usize).unwrap_or_default();
                let read = source.receive(missing);
                *there += *read.as_ref().unwrap_or(&0);
                read
            }
            None => {
                let size = self.make_room()?;
                self.fill_chunk(size, source)
            }
        };
        match read {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_pause(&error) => {
                let patience = self.patience.filter(|_| !is_within);
                if patience.is_some_and(|patience| self.idle.elapsed() >= patience) {
                    return Err(Lost::Idle);
                }
            }
            Err(error) => return Err(error.into()),
        }
        // A second more for each MiB.
        let allowed = self.stalled + Duration::from_secs(u64::from(length >> 20));
        match self.begun.filter(|begun| begun.elapsed() > allowed) {
            Some(_) => Err(Lost::Stalled),
            None => Ok(true),
        }
    }

    fn fill_chunk(&mut self, size: usize, source: &mut impl Source) -> io::Result<usize> {
        let tail = self.filled.len();
        let size = if self.large { size.min(HEADERS.max(tail + HEADER)) } else { size };
        let Some(chunk) = Arc::get_mut(&mut self.chunk) else {
            return Err(io::Error::other("a chunk in use was to be filled"));
        };
        let room = chunk.get_mut(tail..size).unwrap_or_default();
        let read = source.receive(room)?;
        self.filled = 0..tail + read;
        Ok(read)
    }

    /// Makes the chunk one that nobody else uses, with what is not yet looked at in front; its size.
    fn make_room(&mut self) -> Result<usize, Lost> {
        let is_full = self.filled.end == self.chunk.len();
        let size = if is_full { (self.chunk.len() * 2).min(CHUNK.1) } else { self.chunk.len() };
        let filled = std::mem::replace(&mut self.filled, 0..0);
        let tail = filled.len();
        let fits = self.chunk.len() == size;
        match Arc::get_mut(&mut self.chunk).filter(|_| fits) {
            Some(chunk) => chunk.copy_within(filled, 0),
            None => {
                let unused =
                    |chunk: &mut Arc<Chunk>| chunk.len() == size && Arc::get_mut(chunk).is_some();
                let spare = self.spares.iter_mut().position(unused);
                let spare = spare.map(|n| self.spares.swap_remove(n));
                let mut next = match spare {
                    Some(spare) => spare,
                    None => Chunk::new(size, self.buffers.room(size).ok_or(Lost::Crowded)?),
                };
                let from = self.chunk.get(filled).unwrap_or_default();
                if let Some(to) = Arc::get_mut(&mut next).and_then(|next| next.get_mut(..tail)) {
                    to.copy_from_slice(from);
                }
                let last = std::mem::replace(&mut self.chunk, next);
                if self.spares.len() == SPARES {
                    self.spares.remove(0);
                }
                self.spares.push(last);
            }
        }
        self.filled = 0..tail;
        Ok(size)
    }
}

/// Nothing came for as long as the socket waits.
fn is_pause(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::buffers::Memory;
    use crate::protocol::command;

    /// Bytes that come in pieces.
    struct Pieces<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

    impl Source for Pieces<'_> {
        fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            assert!(!buffer.is_empty(), "room for nothing was offered");
            let most = (*self.1.next().unwrap()).max(1);
            let now = self.0.len().min(buffer.len()).min(most);
            let (piece, rest) = self.0.split_at(now);
            buffer[..now].copy_from_slice(piece);
            self.0 = rest;
            Ok(now)
        }
    }

    fn receiver() -> Receiver {
        let hour = Duration::from_secs(3600);
        Receiver::new(Buffers::new(Memory::new(0, hour)), hour, None)
    }

    type Seen = Vec<(Header, Vec<u8>)>;

    fn all(bytes: &[u8], pieces: &[usize]) -> (Seen, Result<(), Lost>) {
        let mut source = Pieces(bytes, pieces.iter().cycle());
        let (mut receiver, mut seen) = (receiver(), Vec::new());
        loop {
            let mut jobs = Vec::new();
            let read = receiver.receive(&mut source, &mut jobs);
            seen.extend(jobs.iter().map(|job| (job.header, job.payload().to_vec())));
            match read {
                Ok(false) => {}
                Ok(true) => return (seen, Ok(())),
                Err(lost) => return (seen, Err(lost)),
            }
        }
    }

    fn request(kind: u16, cookie: u64, payload: &[u8]) -> Vec<u8> {
        let length = payload.len() as u32;
        let header = Header { flags: 0, kind, cookie, offset: 0, length };
        [&header.encode()[..], payload].concat()
    }

    #[test]
    fn what_is_no_request_ends_it_after_those_before() {
        let mut bytes = request(command::WRITE, 1, b"payload");
        bytes.extend([0; HEADER]);
        let (seen, end) = all(&bytes, &[1000]);
        assert_eq!(seen.len(), 1);
        assert!(matches!(end, Err(Lost::Broken(Broken::Magic))), "{end:?}");
        // Half a header, half a payload, a small one and a large one.
        for bytes in
            [&request(command::READ, 1, b"")[..20], &request(command::WRITE, 1, b"ab")[..29]]
        {
            assert!(matches!(all(bytes, &[7]).1, Err(Lost::Cut)));
        }
        let half = &request(command::WRITE, 1, &vec![1; 100 << 10])[..70 << 10];
        assert!(matches!(all(half, &[4096]).1, Err(Lost::Cut)));
    }

    #[test]
    fn nothing_after_a_disconnect_is_looked_at() {
        let bytes = [request(command::READ, 1, b""), request(command::DISC, 2, b""), vec![0; 99]];
        let (seen, end) = all(&bytes.concat(), &[5]);
        assert_eq!((seen.len(), end.is_ok()), (1, true));
    }

    #[test]
    fn a_client_that_dribbles_is_left() {
        struct Dribble;
        impl Source for Dribble {
            fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                buffer[0] = 0;
                Ok(1)
            }
        }
        struct Silence;
        impl Source for Silence {
            fn receive(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::WouldBlock.into())
            }
        }
        let buffers = || Buffers::new(Memory::new(0, Duration::ZERO));
        let mut slow = Receiver::new(buffers(), Duration::ZERO, None);
        assert!(matches!(slow.receive(&mut Dribble, &mut Vec::new()), Err(Lost::Stalled)));
        let mut idle = Receiver::new(buffers(), Duration::ZERO, Some(Duration::ZERO));
        assert!(matches!(idle.receive(&mut Silence, &mut Vec::new()), Err(Lost::Idle)));
    }

    proptest! {
        #[test]
        fn requests_come_through_however_they_are_cut(
            sizes in prop::collection::vec(
                prop_oneof![Just(0_usize), 1_usize..600, 30_000_usize..40_000, 150_000_usize..200_000], 0..12),
            pieces in prop::collection::vec(1_usize..70_000, 1..8),
        ) {
            let mut bytes = Vec::new();
            let mut sent = Vec::new();
            for (n, size) in sizes.iter().enumerate() {
                let payload: Vec<u8> = (0..*size).map(|at| (at * 7 + n) as u8).collect();
                bytes.extend(request(command::WRITE, n as u64, &payload));
                sent.push(payload);
            }
            let (seen, end) = all(&bytes, &pieces);
            prop_assert!(end.is_ok());
            prop_assert_eq!(seen.len(), sent.len());
            for (n, ((header, payload), sent)) in seen.into_iter().zip(sent).enumerate() {
                prop_assert_eq!(header.cookie, n as u64);
                prop_assert!(payload == sent);
            }
        }

        #[test]
        fn anything_else_ends_it(bytes: Vec<u8>) {
            let (seen, end) = all(&bytes, &[9]);
            prop_assert!(seen.is_empty());
            prop_assert_eq!(end.is_ok(), bytes.is_empty());
        }
    }
}
