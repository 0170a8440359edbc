//! Reading images from afar: what is said between an appliance and those who read in its pools.
//!
//! Who reads has *opened a reader*; with every node the appliance gives a proof for each chunk that
//! the node refers to, and only with its proof a chunk may be asked for. So a reader sees what the
//! images reach that were shown to it, and the appliance need not remember any of it.
//!
//! # Format of a request
//! | field | type | meaning |
//! |---|---|---|
//! | version | 1 byte | 1 |
//! | flags | 1 byte | bit 0: pieces of the answer may be compressed |
//! | must | varint | so many of the wanted ones must be answered; those behind are guesses |
//! | ahead | varint | of nodes: so many bytes may be sent unasked, at most 1 MiB |
//! | count | varint | how many are wanted, at most 4096 |
//! | wanted | each: 32 and 16 bytes | an id and its proof; a proof of zeroes is none |
//!
//! # Format of an answer
//! Pieces, each: its length when it is open (32 bits, little-endian), its length as it is sent
//! (likewise; the highest bit: it is compressed as [`strongroom_engine::compress`] says), and so
//! many bytes. An open piece is a sequence of parts, which lie in no order:
//!
//! | tag | part | fields |
//! |---|---|---|
//! | 0 | the end | nothing; an answer without it was cut off |
//! | 1 | a node | its id, 32 bytes; byte string: the node; varint count, 16 bytes each: proofs, of its `nodes`, then of its `data` |
//! | 2 | a chunk | varint: its place among the wanted ones; byte string |
//! | 3 | a failure | varint: the place; the failure |
//! | 4 | a root | byte string: as the journal puts it; varint count, 16 bytes each: proofs of its nodes |
//!
//! A failure is a byte and byte strings: 1 the chunk is missing; 2 it can't be read (varint: its
//! pack; why); 3 something is damaged (what; why); 0 anything else (what).

use std::fmt;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::compress::{Compressor, Decompressor, Effort, Method};
use strongroom_engine::id::{ChunkId, PackId};
use strongroom_engine::node::Node;
use strongroom_engine::state::{Op, Root};
use strongroom_engine::{Error, Result};

const VERSION: u8 = 1;
/// How many chunks one request may name.
pub const MAX_WANTED: usize = 4096;
/// How many bytes of nodes may come unasked.
pub const MAX_AHEAD: u64 = 1 << 20;
/// The longest request, in bytes.
pub const MAX_REQUEST: usize = 32 + MAX_WANTED * (32 + PROOF_LEN);
/// A piece is sent once it has so many bytes: a few chunks.
const PIECE: usize = 256 << 10;
/// The longest piece that is taken, in bytes: one part, of a chunk or a node of the largest size.
const MAX_PIECE: usize = 16 << 20;
/// The highest bit of a piece's length.
const COMPRESSED: u32 = 1 << 31;
/// zstd's level: what is sent goes through no slow wire for long.
const LEVEL: i32 = 1;
/// The longest text of a failure, in bytes.
const MAX_TEXT: usize = 2 << 10;

/// How many bytes a proof has.
pub const PROOF_LEN: usize = 16;

/// Proves to an appliance that it has shown this reader a reference to a chunk.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Proof(pub [u8; PROOF_LEN]);

impl Proof {
    /// No proof.
    pub const NONE: Self = Self([0; PROOF_LEN]);
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::NONE { "Proof(none)" } else { "Proof(..)" })
    }
}

/// A chunk that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub id: ChunkId,
    /// That it was shown.
    pub proof: Proof,
}

/// What is asked for at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Whether the answer may be compressed.
    pub compress: bool,
    /// How many of the wanted must be answered; the others are guesses.
    pub must: usize,
    /// How many bytes of nodes may come unasked.
    pub ahead: u64,
    /// What is wanted.
    pub wanted: Vec<Wanted>,
}

impl Request {
    /// The bytes of the request.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.byte(VERSION);
        w.byte(self.compress.into());
        w.uint(self.must as u64);
        w.uint(self.ahead);
        w.uint(self.wanted.len() as u64);
        for wanted in &self.wanted {
            w.raw(&wanted.id.0);
            w.raw(&wanted.proof.0);
        }
        w.finish()
    }

    /// Reads what [`Request::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for what is no request, or asks for too much.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.byte()? != VERSION {
            return Err(DecodeError::Unknown("the version of a request"));
        }
        let flags = r.byte()?;
        let (must, ahead) = (r.uint()?, r.uint()?);
        let count = r.count(32 + PROOF_LEN)?;
        if flags > 1 || count > MAX_WANTED || must > count as u64 || ahead > MAX_AHEAD {
            return Err(DecodeError::Unknown("the bounds of a request"));
        }
        let wanted = (0..count)
            .map(|_| Ok(Wanted { id: ChunkId(r.array()?), proof: Proof(r.array()?) }))
            .collect::<Result<_, DecodeError>>()?;
        r.end()?;
        Ok(Self { compress: flags == 1, must: must as usize, ahead, wanted })
    }
}

const END: u8 = 0;
const NODE: u8 = 1;
const CHUNK: u8 = 2;
const FAILED: u8 = 3;
const ROOT: u8 = 4;

/// Takes the pieces of an answer, one after the other and from any thread; it may wait for a
/// client.
pub type Out<'a> = &'a (dyn Fn(Vec<u8>) -> io::Result<()> + Sync);

/// Writes an answer. All calls may be made from several threads at once.
pub struct Answer<'a> {
    out: Out<'a>,
    compress: bool,
    open: Mutex<Vec<u8>>,
    compressors: Mutex<Vec<Compressor>>,
}

impl fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("compress", &self.compress).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Answer<'a> {
    /// An answer whose pieces go there.
    pub fn new(out: Out<'a>, compress: bool) -> Self {
        Self { out, compress, open: Mutex::default(), compressors: Mutex::default() }
    }

    /// A node, and the proofs of what it refers to.
    ///
    /// # Errors
    /// Those of the client's going away; so it is with all of them.
    pub fn node(
        &self,
        id: &ChunkId,
        bytes: &[u8],
        proofs: impl ExactSizeIterator<Item = Proof>,
    ) -> Result<()> {
        self.part(bytes.len() + PROOF_LEN * proofs.len(), |w| {
            w.byte(NODE);
            w.raw(&id.0);
            w.bytes(bytes);
            put_proofs(w, proofs);
        })
    }

    /// The chunk with this place among the wanted ones.
    ///
    /// # Errors
    /// As [`Answer::node`].
    pub fn chunk(&self, place: usize, bytes: &[u8]) -> Result<()> {
        self.part(bytes.len(), |w| {
            w.byte(CHUNK);
            w.uint(place as u64);
            w.bytes(bytes);
        })
    }

    /// That one of the wanted can't be had.
    ///
    /// # Errors
    /// As [`Answer::node`].
    pub fn failed(&self, place: usize, error: &Error) -> Result<()> {
        self.part(0, |w| {
            w.byte(FAILED);
            w.uint(place as u64);
            put_error(w, error);
        })
    }

    /// A root, and the proofs of its nodes.
    ///
    /// # Errors
    /// As [`Answer::node`].
    pub fn root(&self, root: &Root, proofs: impl ExactSizeIterator<Item = Proof>) -> Result<()> {
        let mut record = Writer::new();
        Op::PutRoot(root.clone()).encode(&mut record);
        let record = record.finish();
        self.part(record.len(), |w| {
            w.byte(ROOT);
            w.bytes(&record);
            put_proofs(w, proofs);
        })
    }

    /// Ends it.
    ///
    /// # Errors
    /// As [`Answer::node`].
    pub fn end(&self) -> Result<()> {
        self.part(0, |w| w.byte(END))?;
        let last = std::mem::take(&mut *lock(&self.open));
        self.send(&last)
    }

    fn part(&self, len: usize, put: impl FnOnce(&mut Writer)) -> Result<()> {
        let mut w = Writer::with_capacity(len + 64);
        put(&mut w);
        let part = w.finish();
        let full = {
            let mut open = lock(&self.open);
            let full = open.len() + part.len() > PIECE && !open.is_empty();
            let full = full.then(|| std::mem::take(&mut *open));
            open.extend_from_slice(&part);
            full
        };
        // Outside: it may wait for the client.
        full.map_or(Ok(()), |full| self.send(&full))
    }

    fn send(&self, open: &[u8]) -> Result<()> {
        let mut packed = Vec::new();
        let method = match self.compress {
            true => {
                let spare = lock(&self.compressors).pop();
                let mut compressor = spare.unwrap_or_else(|| Compressor::new(LEVEL));
                let method = compressor.compress(open, Effort::Usual, &mut packed);
                lock(&self.compressors).push(compressor);
                method
            }
            false => Method::Raw,
        };
        let (sent, flag) = match method {
            Method::Raw => (open, 0),
            Method::Zstd => (&packed[..], COMPRESSED),
        };
        let mut piece = Vec::with_capacity(8 + sent.len());
        piece.extend_from_slice(&(open.len() as u32).to_le_bytes());
        piece.extend_from_slice(&(sent.len() as u32 | flag).to_le_bytes());
        piece.extend_from_slice(sent);
        (self.out)(piece).map_err(|e| Error::io("answering a reader", e))
    }
}

fn put_proofs(w: &mut Writer, proofs: impl ExactSizeIterator<Item = Proof>) {
    w.uint(proofs.len() as u64);
    proofs.for_each(|proof| w.raw(&proof.0));
}

fn put_error(w: &mut Writer, error: &Error) {
    let text = |w: &mut Writer, text: &str| {
        w.bytes(&text.as_bytes()[..text.floor_char_boundary(MAX_TEXT)]);
    };
    match error {
        Error::ChunkMissing { .. } => w.byte(1),
        Error::ChunkUnreadable { pack, why, .. } => {
            w.byte(2);
            w.uint(pack.0);
            text(w, why);
        }
        Error::Damaged { what, why } => {
            w.byte(3);
            text(w, what);
            text(w, why);
        }
        error => {
            w.byte(0);
            text(w, &error.to_string());
        }
    }
}

/// Why one of the wanted can't be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The pool doesn't have it.
    Missing,
    /// No disk gives it.
    Unreadable(PackId, String),
    /// Something is not what was written.
    Damaged(String, String),
    /// Something else.
    Other(String),
}

impl Failure {
    /// What the pool said about the chunk.
    pub fn of(self, id: ChunkId) -> Error {
        match self {
            Self::Missing => Error::ChunkMissing { id },
            Self::Unreadable(pack, why) => Error::ChunkUnreadable { id, pack, why },
            Self::Damaged(what, why) => Error::Damaged { what, why },
            Self::Other(text) => Error::Invalid(text),
        }
    }

    fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let text = |r: &mut Reader<'_>| -> Result<String, DecodeError> {
            Ok(String::from_utf8_lossy(r.bytes()?).into_owned())
        };
        Ok(match r.byte()? {
            0 => Self::Other(text(r)?),
            1 => Self::Missing,
            2 => Self::Unreadable(PackId(r.uint()?), text(r)?),
            3 => Self::Damaged(text(r)?, text(r)?),
            _ => return Err(DecodeError::Unknown("a failure")),
        })
    }
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A node, with the proofs of its `nodes`, then of its `data`.
    Node(ChunkId, Node, Vec<Proof>),
    /// The chunk with this place.
    Chunk(usize, &'a [u8]),
    /// The one with this place can't be had.
    Failed(usize, Failure),
    /// A root, with the proofs of its nodes.
    Root(Root, Vec<Proof>),
}

/// Reads an answer as it comes. Nothing that comes makes it take more memory than a piece or two.
pub struct Parser {
    buffer: Vec<u8>,
    open: Vec<u8>,
    decompressor: Decompressor,
    ended: bool,
}

impl Default for Parser {
    fn default() -> Self {
        let decompressor = Decompressor::new();
        Self { buffer: Vec::new(), open: Vec::new(), decompressor, ended: false }
    }
}

impl fmt::Debug for Parser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parser").field("ended", &self.ended).finish_non_exhaustive()
    }
}

const WHAT: &str = "the answer of an appliance";

impl Parser {
    /// Takes what came, and hands out the parts that are whole.
    ///
    /// # Errors
    /// [`Error::Damaged`] for what is no answer; those of `take`, which end it.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        take: &mut dyn FnMut(Part<'_>) -> Result<()>,
    ) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        let mut from = 0;
        while let Some((head, rest)) = self.buffer[from..].split_at_checked(8) {
            let mut r = [0; 4];
            r.copy_from_slice(&head[..4]);
            let open_len = u32::from_le_bytes(r) as usize;
            r.copy_from_slice(&head[4..]);
            let told = u32::from_le_bytes(r);
            let (len, method) = match told & COMPRESSED {
                0 => (told as usize, Method::Raw),
                _ => ((told & !COMPRESSED) as usize, Method::Zstd),
            };
            if open_len > MAX_PIECE || len > MAX_PIECE {
                return Err(Error::damaged(WHAT, "a piece is too long"));
            }
            let Some(sent) = rest.get(..len) else { break };
            self.decompressor.decompress(method, sent, open_len, &mut self.open)?;
            from += 8 + len;
            if parts(&self.open, self.ended, take)? {
                self.ended = true;
            }
        }
        self.buffer.drain(..from);
        Ok(())
    }

    /// Says whether the answer is whole.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it isn't.
    pub fn end(&self) -> Result<()> {
        match self.ended && self.buffer.is_empty() {
            true => Ok(()),
            false => Err(Error::damaged(WHAT, "it was cut off")),
        }
    }
}

/// Hands out the parts of a piece; whether the end is among them.
fn parts(
    open: &[u8],
    mut ended: bool,
    take: &mut dyn FnMut(Part<'_>) -> Result<()>,
) -> Result<bool> {
    let mut r = Reader::new(open);
    while !r.rest().is_empty() {
        if ended {
            return Err(Error::damaged(WHAT, "something follows its end"));
        }
        match part(&mut r).map_err(Error::decoding(WHAT))? {
            Some(part) => take(part)?,
            None => ended = true,
        }
    }
    Ok(ended)
}

/// The next part; None: the end.
fn part<'a>(r: &mut Reader<'a>) -> Result<Option<Part<'a>>, DecodeError> {
    let proofs = |r: &mut Reader<'a>| -> Result<Vec<Proof>, DecodeError> {
        let count = r.count(PROOF_LEN)?;
        (0..count).map(|_| Ok(Proof(r.array()?))).collect()
    };
    let place = |r: &mut Reader<'a>| -> Result<usize, DecodeError> {
        let place = r.uint()?;
        match place < MAX_WANTED as u64 {
            true => Ok(place as usize),
            false => Err(DecodeError::Unknown("the place of a chunk")),
        }
    };
    Ok(Some(match r.byte()? {
        END => return Ok(None),
        NODE => {
            let id = ChunkId(r.array()?);
            let node = Node::decode(r.bytes()?)?;
            let proofs = proofs(r)?;
            if proofs.len() != node.nodes.len() + node.data.len() {
                return Err(DecodeError::Unknown("the proofs of a node"));
            }
            Part::Node(id, node, proofs)
        }
        CHUNK => Part::Chunk(place(r)?, r.bytes()?),
        FAILED => Part::Failed(place(r)?, Failure::take(r)?),
        ROOT => {
            let mut record = Reader::new(r.bytes()?);
            let Op::PutRoot(root) = Op::decode(&mut record)? else {
                return Err(DecodeError::Unknown("the record of a root"));
            };
            record.end()?;
            let proofs = proofs(r)?;
            if proofs.len() != root.nodes.len() {
                return Err(DecodeError::Unknown("the proofs of a root"));
            }
            Part::Root(root, proofs)
        }
        _ => return Err(DecodeError::Unknown("a part of an answer")),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use strongroom_engine::clock::PoolTime;
    use strongroom_engine::id::RootId;

    use super::*;

    fn answer(compress: bool, write: impl FnOnce(&Answer<'_>)) -> Vec<u8> {
        let sent = Mutex::new(Vec::new());
        let out = |piece: Vec<u8>| {
            lock(&sent).extend(piece);
            Ok(())
        };
        let answer = Answer::new(&out, compress);
        write(&answer);
        drop(answer);
        sent.into_inner().unwrap()
    }

    fn read(bytes: &[u8], step: usize) -> Result<Vec<String>> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for bytes in bytes.chunks(step) {
            parser.feed(bytes, &mut |part| {
                found.push(format!("{part:?}"));
                Ok(())
            })?;
        }
        parser.end().map(|()| found)
    }

    #[test]
    fn an_answer_survives_its_bytes_however_it_is_cut() {
        let node = Node {
            nodes: vec![ChunkId([1; 32])],
            data: vec![ChunkId([2; 32])],
            payload: b"payload".to_vec(),
        };
        let root = Root {
            id: RootId([3; 16]),
            kind: 1,
            name: "home".into(),
            created: PoolTime(5),
            immutable_until: None,
            nodes: vec![ChunkId([4; 32])],
            meta: vec![6; 10],
        };
        let id = ChunkId([9; 32]);
        let proofs = [Proof([1; 16]), Proof([2; 16])];
        let failures = [
            Error::ChunkMissing { id },
            Error::ChunkUnreadable { id, pack: PackId(7), why: "gone".into() },
            Error::damaged("this", "that"),
            Error::Invalid("no".into()),
        ];
        let write = |answer: &Answer<'_>| {
            answer.node(&id, &node.encode(), proofs.into_iter()).unwrap();
            answer.root(&root, proofs[..1].iter().copied()).unwrap();
            for place in 0..20 {
                answer.chunk(place, &vec![place as u8; 50_000]).unwrap();
            }
            failures.iter().enumerate().for_each(|(i, e)| answer.failed(i, e).unwrap());
            answer.end().unwrap();
        };
        let (plain, packed) = (answer(false, write), answer(true, write));
        assert!(packed.len() < plain.len() / 10);
        let parts = read(&plain, usize::MAX).unwrap();
        assert_eq!(parts.len(), 26);
        assert!(parts.contains(&format!("{:?}", Part::Node(id, node, proofs.to_vec()))));
        assert!(parts.contains(&format!("{:?}", Part::Root(root, vec![proofs[0]]))));
        for (place, error) in failures.iter().enumerate() {
            let failure = parts.iter().find(|p| p.starts_with(&format!("Failed({place}"))).unwrap();
            let kind = ["Missing", "Unreadable", "Damaged", "Other"][place];
            assert!(failure.contains(kind), "{failure} for {error}");
        }
        for step in [1, 7, 4096] {
            assert_eq!(read(&packed, step).unwrap(), parts);
        }
        for cut in [0, 5, plain.len() / 2, plain.len() - 1] {
            assert!(read(&plain[..cut], 4096).is_err(), "cut at {cut}");
        }
        assert!(read(&[plain.clone(), plain].concat(), 4096).is_err());
    }

    #[test]
    fn a_piece_that_says_it_is_huge_is_refused_before_it_comes() {
        let mut head = (u32::MAX >> 1).to_le_bytes().to_vec();
        head.extend(8u32.to_le_bytes());
        assert!(Parser::default().feed(&head, &mut |_| Ok(())).is_err());
    }

    #[test]
    fn requests_are_bounded() {
        let wanted = vec![Wanted { id: ChunkId([1; 32]), proof: Proof([2; 16]) }; 3];
        let request = Request { compress: true, must: 2, ahead: 9, wanted };
        assert_eq!(Request::decode(&request.encode()), Ok(request.clone()));
        let many = vec![request.wanted[0]; MAX_WANTED + 1];
        for bad in [
            Request { must: 4, ..request.clone() },
            Request { ahead: MAX_AHEAD + 1, ..request.clone() },
            Request { wanted: many, ..request.clone() },
        ] {
            assert!(Request::decode(&bad.encode()).is_err());
        }
        let largest = Request { wanted: vec![request.wanted[0]; MAX_WANTED], ..request };
        assert!(largest.encode().len() <= MAX_REQUEST);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in any::<Vec<u8>>(), framed in any::<bool>()) {
            let mut sent = bytes.clone();
            if framed {
                let len = (bytes.len() as u32).to_le_bytes();
                sent = [&len[..], &len[..], &bytes[..]].concat();
            }
            let _ = read(&sent, 5);
            let _ = Request::decode(&bytes);
        }
    }
}
