//! Chunks that somebody else cut, hashed and compressed, and who is not trusted.
//!
//! Nothing is taken before it is checked: a frame is opened only when what it says of its length
//! is what its chunks add up to and within the bounds of frames that this engine makes, and every
//! chunk in it must have the content that its id says. Then the frame is stored as it came.

use std::sync::atomic::Ordering;

use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, Location};
use crate::pack::{FRAME_TAIL, FrameCodec};
use crate::pool::core::lock;
use crate::pool::session::Bench;
use crate::pool::{MAX_CHUNK, Session, Stored, frame_limit};

/// Whether a pool has a chunk; if it has, the chunk stays until the session that asked ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It hasn't.
    No,
    /// It is on its way to a pack, or in one that is not committed.
    Fresh,
    /// It is in a pack that is part of the pool.
    Durably,
}

impl Session<'_> {
    /// Whether the pool has a chunk; if so it stays as long as this session.
    ///
    /// # Errors
    /// Those of the index.
    pub fn keep(&self, kind: ChunkKind, id: &ChunkId) -> Result<Kept> {
        let core = &self.pool.core;
        // Asked first: once it is in its place, the look-up below sees it.
        if core.index.memtable().is_in_flight(id) {
            lock(&self.awaited).push(*id);
            return Ok(Kept::Fresh);
        }
        let valid = |id: &ChunkId, at: &Location| core.valid(id, at) && core.pins.keeps(at);
        while let Some(at) = core.index.lookup(id, &valid)? {
            if at.kind != kind {
                break;
            }
            if core.pins.pin(&at) {
                return Ok(if core.is_fresh(at.pack) { Kept::Fresh } else { Kept::Durably });
            }
        }
        Ok(Kept::No)
    }

    /// Stores the chunks of a frame that another made by this engine's rules: with their ids and
    /// lengths, in order. Those that the pool has already are left out. `look` sees each chunk that
    /// was found to be what its id says, before anything of the frame is taken, and may refuse it.
    ///
    /// # Errors
    /// [`Error::Forged`] when a chunk isn't what its id says, [`Error::Invalid`] when it isn't such a
    /// frame, and those of `look`: nothing of it was taken then. Those of the disks, after which the session can't be committed.
    pub fn store_frame(
        &self,
        kind: ChunkKind,
        frame: &[u8],
        chunks: &[(ChunkId, u32)],
        look: &mut dyn FnMut(&ChunkId, &[u8]) -> Result<()>,
    ) -> Result<Stored> {
        self.admit(frame.len())?;
        let mut bench = self.pool.bench();
        let stored = self.checked(kind, frame, chunks, look, &mut bench).and_then(|()| {
            let stored = self.take(kind, frame, chunks, &mut bench);
            stored.inspect_err(|_| self.failed.store(true, Ordering::Relaxed))
        });
        self.pool.put_bench(bench);
        let stored = stored?;
        self.pool.relieve()?;
        Ok(stored)
    }

    /// Opens a frame into the bench and compares every chunk with its id.
    fn checked(
        &self,
        kind: ChunkKind,
        frame: &[u8],
        chunks: &[(ChunkId, u32)],
        look: &mut dyn FnMut(&ChunkId, &[u8]) -> Result<()>,
        bench: &mut Bench,
    ) -> Result<()> {
        let bad = |why: String| Err(Error::Invalid(format!("a frame that was sent {why}")));
        if chunks.is_empty() {
            return bad("has no chunks".into());
        }
        let mut total = 0;
        for (_, len) in chunks {
            let len = *len as usize;
            if len == 0 || len > MAX_CHUNK {
                return bad(format!("has a chunk of {len} bytes, not 1 to {MAX_CHUNK}"));
            }
            total += len;
            if total > frame_limit(kind) && chunks.len() > 1 {
                return bad(format!("has more than {} bytes", frame_limit(kind)));
            }
        }
        if FrameCodec::raw_len(frame) != Some(total) {
            return bad("says another length than its chunks have".into());
        }
        if frame.len() > total + FRAME_TAIL {
            return bad("is longer than its content".into());
        }
        if let Err(error) = bench.codec.decode(frame, &mut bench.raw) {
            return bad(format!("can't be opened: {error}"));
        }
        let mut rest = &bench.raw[..];
        for (id, len) in chunks {
            let (piece, after) = rest.split_at(*len as usize);
            rest = after;
            if self.pool.core.hasher.id(kind, piece) != *id {
                return Err(Error::Forged { id: *id });
            }
            look(id, piece)?;
        }
        Ok(())
    }

    /// Stores the chunks of the frame that was opened into the bench.
    fn take(
        &self,
        kind: ChunkKind,
        frame: &[u8],
        chunks: &[(ChunkId, u32)],
        bench: &mut Bench,
    ) -> Result<Stored> {
        let mut stored = Stored::default();
        let mut claimed = Vec::with_capacity(chunks.len());
        let mut all_claimed = Ok(());
        for (id, len) in chunks {
            let new = match self.claim(id) {
                Ok(new) => new,
                Err(error) => {
                    all_claimed = Err(error);
                    break;
                }
            };
            claimed.push(new);
            let len = u64::from(*len);
            if new {
                stored.new_chunks += 1;
                stored.new_bytes += len;
                stored.healed_chunks += u64::from(self.pool.core.was_lost(id));
            } else {
                stored.known_chunks += 1;
                stored.known_bytes += len;
            }
        }
        if stored.new_chunks == 0 {
            return all_claimed.map(|()| stored);
        }
        // Others may count on what was claimed: from here on an error ends the writing.
        let pushed = if stored.new_chunks == chunks.len() as u64 {
            self.pool.writer().and_then(|writer| {
                let mut new = writer.frame();
                new.bytes.extend_from_slice(frame);
                new.chunks.extend_from_slice(chunks);
                stored.stored_bytes += frame.len() as u64;
                writer.push(kind, new)
            })
        } else {
            self.take_some(kind, chunks, &claimed, bench, &mut stored)
        };
        pushed.inspect_err(|error| self.pool.core.stop(error))?;
        all_claimed.map(|()| stored)
    }

    /// Makes a new frame of those chunks that were claimed.
    fn take_some(
        &self,
        kind: ChunkKind,
        chunks: &[(ChunkId, u32)],
        claimed: &[bool],
        bench: &mut Bench,
        stored: &mut Stored,
    ) -> Result<()> {
        let Bench { codec, gathering, raw } = bench;
        let mut at = 0;
        for (place, (id, len)) in chunks.iter().enumerate() {
            let piece = &raw[at..at + *len as usize];
            at += piece.len();
            if claimed.get(place) == Some(&true) {
                self.pool.gather(kind, gathering, codec, *id, piece, stored)?;
            }
        }
        self.pool.push(kind, gathering, codec, stored)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use super::*;
    use crate::compress::Effort;
    use crate::pool::NewRoot;
    use crate::pool::tests::Bed;

    fn framed(raw: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        FrameCodec::new(1).encode(raw, Effort::Usual, &mut frame);
        frame
    }

    #[test]
    fn frames_of_others_are_checked_and_stored_as_they_came() {
        let pool = Arc::new(Bed::new(1, true).create(0));
        let session = pool.shared_session().unwrap();
        let (a, b) = (vec![1; 5000], b"other content".to_vec());
        let id = |bytes: &[u8]| pool.id_of(ChunkKind::Data, bytes);
        let both = framed(&[&a[..], &b[..]].concat());
        let (a_len, b_len) = (a.len() as u32, b.len() as u32);
        let chunks = [(id(&a), a_len), (id(&b), b_len)];
        let store = |kind, frame: &[u8], chunks: &[(ChunkId, u32)]| {
            session.store_frame(kind, frame, chunks, &mut |_, _| Ok(()))
        };
        let refused = |frame: &[u8], chunks: &[(ChunkId, u32)]| {
            store(ChunkKind::Data, frame, chunks).unwrap_err()
        };
        let unwanted = session.store_frame(ChunkKind::Data, &both, &chunks, &mut |id, bytes| {
            assert!(bytes == if *id == chunks[0].0 { &a[..] } else { &b[..] });
            if bytes == b { Err(Error::Canceled) } else { Ok(()) }
        });
        assert!(matches!(unwanted, Err(Error::Canceled)));
        let forged = [(id(&a), a_len), (id(&a), b_len)];
        assert!(matches!(refused(&both, &forged), Error::Forged { id: bad } if bad == id(&a)));
        assert!(matches!(refused(&both, &chunks[..1]), Error::Invalid(_)));
        assert!(matches!(refused(&both, &[]), Error::Invalid(_)));
        assert!(matches!(refused(&both[1..], &chunks), Error::Invalid(_)));
        assert!(matches!(refused(&[], &chunks), Error::Invalid(_)));
        let huge = [(id(&a), MAX_CHUNK as u32 + 1)];
        assert!(matches!(refused(&both, &huge), Error::Invalid(_)));
        let swapped = store(ChunkKind::Node, &both, &chunks);
        assert!(matches!(swapped, Err(Error::Forged { .. })));
        assert_eq!(session.keep(ChunkKind::Data, &id(&a)).unwrap(), Kept::No);

        let stored = store(ChunkKind::Data, &both, &chunks).unwrap();
        assert_eq!((stored.new_chunks, stored.stored_bytes), (2, both.len() as u64));
        assert_eq!(session.keep(ChunkKind::Data, &id(&a)).unwrap(), Kept::Fresh);
        assert_eq!(session.keep(ChunkKind::Node, &id(&a)).unwrap(), Kept::No);
        // One that is known is left out; one that stands twice is there once.
        let more = framed(&[&b[..], &a[..100], &a[..100]].concat());
        let small = (id(&a[..100]), 100);
        let stored = store(ChunkKind::Data, &more, &[(id(&b), b_len), small, small]).unwrap();
        assert_eq!((stored.new_chunks, stored.known_chunks), (1, 2));
        let node = crate::node::Node { data: vec![id(&a), small.0], ..Default::default() }.encode();
        let top = pool.id_of(ChunkKind::Node, &node);
        let len = node.len() as u32;
        store(ChunkKind::Node, &framed(&node), &[(top, len)]).unwrap();
        let root = NewRoot {
            id: crate::id::RootId::random(),
            kind: 1,
            name: "x".into(),
            immutable_for: None,
            nodes: vec![top],
            meta: Vec::new(),
        };
        session.put_root(root).unwrap();
        assert_eq!(session.keep(ChunkKind::Data, &id(&a)).unwrap(), Kept::Durably);
        drop(session);
        assert_eq!(&*pool.read(ChunkKind::Data, &id(&a)).unwrap(), &a[..]);
        assert_eq!(&*pool.read(ChunkKind::Data, &small.0).unwrap(), &a[..100]);
        assert_eq!(pool.node(&top).unwrap().data.len(), 2);
    }
}
