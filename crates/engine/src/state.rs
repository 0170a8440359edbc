//! What a pool knows of itself: which packs and index segments there are, and its roots.
//!
//! A [`State`] is the sum of the [`Op`]s that were committed. The journal stores ops; a snapshot
//! of a state is simply a list of ops that builds it.

use std::collections::{BTreeMap, BTreeSet};

use crate::clock::{ClockMark, PoolTime};
use crate::codec::{DecodeError, Reader, Writer};
use crate::id::{ChunkId, ChunkKind, PackId, RootId, SegmentId};

/// What the pool knows of a sealed pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackInfo {
    /// What its chunks hold; data and nodes never share a pack.
    pub kind: ChunkKind,
    /// How many chunks.
    pub chunks: u32,
    /// Its logical length in bytes: what [`crate::shard`] spreads over the disks.
    pub len: u64,
    /// Shards that hold data.
    pub data_shards: u8,
    /// Shards that hold parity; with one data shard they are copies.
    pub parity_shards: u8,
    /// Which data key seals it; 0 in a pool that isn't encrypted.
    pub epoch: u32,
}

/// What the pool knows of an index segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// How many entries.
    pub entries: u64,
    /// Its file's length in bytes.
    pub len: u64,
}

/// The named head of something kept: an image, and later a volume or a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its identifier.
    pub id: RootId,
    /// What the layer above says it is; the engine doesn't look.
    pub kind: u8,
    /// The user's name for the series it belongs to.
    pub name: String,
    /// When it was committed, by the pool's own clock.
    pub created: PoolTime,
    /// Until when nothing may remove it, by the pool's own clock.
    pub immutable_until: Option<PoolTime>,
    /// The nodes it holds on to. Everything they reach is kept.
    pub nodes: Vec<ChunkId>,
    /// What the layer above keeps here; the engine doesn't look.
    pub meta: Vec<u8>,
}

/// How far a scrub has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScrubMark {
    /// The next pack to look at.
    pub next: PackId,
    /// When it was started, by the pool's own clock.
    pub started: PoolTime,
}

/// One step in the pool's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A sealed pack is part of the pool.
    AddPack(PackId, PackInfo),
    /// A pack is no longer part of the pool; its files are still to be removed.
    Condemn(PackId),
    /// The files of a condemned pack are gone for good.
    DropPack(PackId),
    /// An index segment is in use.
    AddSegment(SegmentId, SegmentInfo),
    /// An index segment is no longer in use; its files may go at any time.
    DropSegment(SegmentId),
    /// A root exists, or has changed.
    PutRoot(Root),
    /// A root exists no more.
    DropRoot(RootId),
    /// The copy of a chunk in that pack is bad, missing or can't be read; the index must not offer it.
    MarkBad(ChunkId, PackId),
    /// That copy is good again.
    ClearBad(ChunkId, PackId),
    /// How far the pool's own clock has come.
    Clock(ClockMark),
    /// Packs with this number or a higher one that are found on disk, whole but not in the state,
    /// were written by a session that did not end; lower ones are left-overs to remove.
    PackFloor(PackId),
    /// No pack below this number may be created again.
    NextPack(PackId),
    /// No segment below this number may be created again.
    NextSegment(SegmentId),
    /// How far the scrub has come; none is under way with `None`.
    Scrub(Option<ScrubMark>),
    /// When the last complete scrub ended, by the pool's own clock.
    Scrubbed(PoolTime),
}

/// The sum of all committed ops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Sealed packs that are part of the pool.
    pub packs: BTreeMap<PackId, PackInfo>,
    /// Packs whose files are still to be removed.
    pub condemned: BTreeMap<PackId, PackInfo>,
    /// Index segments in use.
    pub segments: BTreeMap<SegmentId, SegmentInfo>,
    /// All roots.
    pub roots: BTreeMap<RootId, Root>,
    /// Copies of chunks that the index must not offer.
    pub bad: BTreeSet<(ChunkId, PackId)>,
    /// How far the pool's own clock has come.
    pub clock: ClockMark,
    /// See [`Op::PackFloor`].
    pub pack_floor: PackId,
    /// See [`Op::NextPack`].
    pub next_pack: PackId,
    /// See [`Op::NextSegment`].
    pub next_segment: SegmentId,
    /// See [`Op::Scrub`].
    pub scrub: Option<ScrubMark>,
    /// See [`Op::Scrubbed`].
    pub scrubbed: Option<PoolTime>,
}

impl State {
    /// The state of a pool just created.
    pub fn new(clock: ClockMark) -> Self {
        Self {
            packs: BTreeMap::new(),
            condemned: BTreeMap::new(),
            segments: BTreeMap::new(),
            roots: BTreeMap::new(),
            bad: BTreeSet::new(),
            clock,
            pack_floor: PackId(1),
            next_pack: PackId(1),
            next_segment: SegmentId(1),
            scrub: None,
            scrubbed: None,
        }
    }

    /// Takes one step. Every op may be applied to every state, and twice as well as once.
    pub fn apply(&mut self, op: Op) {
        match op {
            Op::AddPack(id, info) => {
                self.packs.insert(id, info);
                self.next_pack = self.next_pack.max(PackId(id.0.saturating_add(1)));
            }
            Op::Condemn(id) => {
                if let Some(info) = self.packs.remove(&id) {
                    self.condemned.insert(id, info);
                    self.bad.retain(|(_, pack)| *pack != id);
                }
            }
            Op::DropPack(id) => {
                self.condemned.remove(&id);
            }
            Op::AddSegment(id, info) => {
                self.segments.insert(id, info);
                self.next_segment = self.next_segment.max(SegmentId(id.0.saturating_add(1)));
            }
            Op::DropSegment(id) => {
                self.segments.remove(&id);
            }
            Op::PutRoot(root) => {
                self.roots.insert(root.id, root);
            }
            Op::DropRoot(id) => {
                self.roots.remove(&id);
            }
            Op::MarkBad(chunk, pack) => {
                self.bad.insert((chunk, pack));
            }
            Op::ClearBad(chunk, pack) => {
                self.bad.remove(&(chunk, pack));
            }
            Op::Clock(mark) => self.clock = mark,
            Op::PackFloor(id) => self.pack_floor = id,
            Op::NextPack(id) => self.next_pack = self.next_pack.max(id),
            Op::NextSegment(id) => self.next_segment = self.next_segment.max(id),
            Op::Scrub(mark) => self.scrub = mark,
            Op::Scrubbed(at) => self.scrubbed = Some(at),
        }
    }

    /// Ops that build this state from [`State::new`].
    pub fn snapshot(&self) -> Vec<Op> {
        let mut ops = vec![
            Op::Clock(self.clock),
            Op::PackFloor(self.pack_floor),
            Op::NextPack(self.next_pack),
            Op::NextSegment(self.next_segment),
            Op::Scrub(self.scrub),
        ];
        ops.extend(self.scrubbed.map(Op::Scrubbed));
        for (id, info) in &self.condemned {
            ops.extend([Op::AddPack(*id, *info), Op::Condemn(*id)]);
        }
        ops.extend(self.packs.iter().map(|(id, info)| Op::AddPack(*id, *info)));
        ops.extend(self.segments.iter().map(|(id, info)| Op::AddSegment(*id, *info)));
        ops.extend(self.bad.iter().map(|(chunk, pack)| Op::MarkBad(*chunk, *pack)));
        ops.extend(self.roots.values().cloned().map(Op::PutRoot));
        ops
    }
}

impl Op {
    /// Appends the op to a record.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::AddPack(id, info) => {
                w.byte(1);
                w.uint(id.0);
                w.byte(info.kind as u8);
                w.uint(info.chunks.into());
                w.uint(info.len);
                w.byte(info.data_shards);
                w.byte(info.parity_shards);
                w.uint(info.epoch.into());
            }
            Self::Condemn(id) => {
                w.byte(2);
                w.uint(id.0);
            }
            Self::DropPack(id) => {
                w.byte(3);
                w.uint(id.0);
            }
            Self::AddSegment(id, info) => {
                w.byte(4);
                w.uint(id.0);
                w.uint(info.entries);
                w.uint(info.len);
            }
            Self::DropSegment(id) => {
                w.byte(5);
                w.uint(id.0);
            }
            Self::PutRoot(root) => {
                w.byte(6);
                root.encode(w);
            }
            Self::DropRoot(id) => {
                w.byte(7);
                w.raw(&id.0);
            }
            Self::MarkBad(chunk, pack) => {
                w.byte(8);
                w.raw(&chunk.0);
                w.uint(pack.0);
            }
            Self::ClearBad(chunk, pack) => {
                w.byte(9);
                w.raw(&chunk.0);
                w.uint(pack.0);
            }
            Self::Clock(mark) => {
                w.byte(10);
                mark.encode(w);
            }
            Self::PackFloor(id) => {
                w.byte(11);
                w.uint(id.0);
            }
            Self::NextPack(id) => {
                w.byte(12);
                w.uint(id.0);
            }
            Self::NextSegment(id) => {
                w.byte(13);
                w.uint(id.0);
            }
            Self::Scrub(mark) => {
                w.byte(14);
                w.byte(mark.is_some().into());
                if let Some(mark) = mark {
                    w.uint(mark.next.0);
                    w.int(mark.started.0);
                }
            }
            Self::Scrubbed(at) => {
                w.byte(15);
                w.int(at.0);
            }
        }
    }

    /// Takes one op from a record.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Op::encode`] would not write.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.byte()? {
            1 => Self::AddPack(
                PackId(r.uint()?),
                PackInfo {
                    kind: ChunkKind::from_code(r.byte()?)
                        .ok_or(DecodeError::Unknown("the kind of a pack"))?,
                    chunks: r.uint32()?,
                    len: r.uint()?,
                    data_shards: r.byte()?,
                    parity_shards: r.byte()?,
                    epoch: r.uint32()?,
                },
            ),
            2 => Self::Condemn(PackId(r.uint()?)),
            3 => Self::DropPack(PackId(r.uint()?)),
            4 => Self::AddSegment(
                SegmentId(r.uint()?),
                SegmentInfo { entries: r.uint()?, len: r.uint()? },
            ),
            5 => Self::DropSegment(SegmentId(r.uint()?)),
            6 => Self::PutRoot(Root::decode(r)?),
            7 => Self::DropRoot(RootId(r.array()?)),
            8 => Self::MarkBad(ChunkId(r.array()?), PackId(r.uint()?)),
            9 => Self::ClearBad(ChunkId(r.array()?), PackId(r.uint()?)),
            10 => Self::Clock(ClockMark::decode(r)?),
            11 => Self::PackFloor(PackId(r.uint()?)),
            12 => Self::NextPack(PackId(r.uint()?)),
            13 => Self::NextSegment(SegmentId(r.uint()?)),
            14 => Self::Scrub(match r.byte()? {
                0 => None,
                1 => Some(ScrubMark { next: PackId(r.uint()?), started: PoolTime(r.int()?) }),
                _ => return Err(DecodeError::Unknown("a scrub mark")),
            }),
            15 => Self::Scrubbed(PoolTime(r.int()?)),
            _ => return Err(DecodeError::Unknown("a journal entry")),
        })
    }
}

impl Root {
    fn encode(&self, w: &mut Writer) {
        w.raw(&self.id.0);
        w.byte(self.kind);
        w.bytes(self.name.as_bytes());
        w.int(self.created.0);
        w.byte(self.immutable_until.is_some().into());
        if let Some(until) = self.immutable_until {
            w.int(until.0);
        }
        w.uint(self.nodes.len() as u64);
        self.nodes.iter().for_each(|id| w.raw(&id.0));
        w.bytes(&self.meta);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            id: RootId(r.array()?),
            kind: r.byte()?,
            name: String::from_utf8(r.bytes()?.to_vec())
                .map_err(|_| DecodeError::Unknown("the name of a root"))?,
            created: PoolTime(r.int()?),
            immutable_until: match r.byte()? {
                0 => None,
                1 => Some(PoolTime(r.int()?)),
                _ => return Err(DecodeError::Unknown("the immutability of a root")),
            },
            nodes: (0..r.count(32)?)
                .map(|_| Ok(ChunkId(r.array()?)))
                .collect::<Result<_, DecodeError>>()?,
            meta: r.bytes()?.to_vec(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    /// Few of each, so that ops meet.
    fn pack() -> impl Strategy<Value = PackId> {
        prop_oneof![9 => (0..6u64).prop_map(PackId), 1 => any::<u64>().prop_map(PackId)]
    }

    fn segment() -> impl Strategy<Value = SegmentId> {
        prop_oneof![9 => (0..6u64).prop_map(SegmentId), 1 => any::<u64>().prop_map(SegmentId)]
    }

    fn chunk() -> impl Strategy<Value = ChunkId> {
        (0..4u8).prop_map(|n| ChunkId([n; 32]))
    }

    fn time() -> impl Strategy<Value = PoolTime> {
        any::<i64>().prop_map(PoolTime)
    }

    fn pack_info() -> impl Strategy<Value = PackInfo> {
        let kind = prop_oneof![Just(ChunkKind::Data), Just(ChunkKind::Node)];
        (kind, any::<u32>(), any::<u64>(), any::<(u8, u8)>(), any::<u32>()).prop_map(
            |(kind, chunks, len, (data_shards, parity_shards), epoch)| PackInfo {
                kind,
                chunks,
                len,
                data_shards,
                parity_shards,
                epoch,
            },
        )
    }

    fn root() -> impl Strategy<Value = Root> {
        let content = (vec(chunk(), 0..4), vec(any::<u8>(), 0..50));
        (0..6u8, any::<u8>(), any::<String>(), time(), option::of(time()), content).prop_map(
            |(id, kind, name, created, immutable_until, (nodes, meta))| Root {
                id: RootId([id; 16]),
                kind,
                name,
                created,
                immutable_until,
                nodes,
                meta,
            },
        )
    }

    fn clock() -> impl Strategy<Value = ClockMark> {
        (time(), any::<[u8; 16]>(), any::<i64>()).prop_map(|(time, boot, since_boot)| ClockMark {
            time,
            boot,
            since_boot,
        })
    }

    fn op() -> impl Strategy<Value = Op> {
        let segment_info =
            any::<(u64, u64)>().prop_map(|(entries, len)| SegmentInfo { entries, len });
        let scrub = (pack(), time()).prop_map(|(next, started)| ScrubMark { next, started });
        prop_oneof![
            (pack(), pack_info()).prop_map(|(id, info)| Op::AddPack(id, info)),
            pack().prop_map(Op::Condemn),
            pack().prop_map(Op::DropPack),
            (segment(), segment_info).prop_map(|(id, info)| Op::AddSegment(id, info)),
            segment().prop_map(Op::DropSegment),
            root().prop_map(Op::PutRoot),
            (0..6u8).prop_map(|id| Op::DropRoot(RootId([id; 16]))),
            (chunk(), pack()).prop_map(|(chunk, pack)| Op::MarkBad(chunk, pack)),
            (chunk(), pack()).prop_map(|(chunk, pack)| Op::ClearBad(chunk, pack)),
            clock().prop_map(Op::Clock),
            pack().prop_map(Op::PackFloor),
            pack().prop_map(Op::NextPack),
            segment().prop_map(Op::NextSegment),
            option::of(scrub).prop_map(Op::Scrub),
            time().prop_map(Op::Scrubbed),
        ]
    }

    fn built(clock: ClockMark, ops: &[Op]) -> State {
        let mut state = State::new(clock);
        ops.iter().cloned().for_each(|op| state.apply(op));
        state
    }

    proptest! {
        #[test]
        fn ops_survive_their_bytes(ops in vec(op(), 0..20)) {
            let mut w = Writer::new();
            ops.iter().for_each(|op| op.encode(&mut w));
            let bytes = w.finish();
            let mut r = Reader::new(&bytes);
            let mut read = Vec::new();
            while !r.rest().is_empty() {
                read.push(Op::decode(&mut r).unwrap());
            }
            prop_assert_eq!(read, ops);
        }

        #[test]
        fn an_op_that_is_cut_short_is_no_op(op in op()) {
            let mut w = Writer::new();
            op.encode(&mut w);
            let bytes = w.finish();
            for len in 0..bytes.len() {
                prop_assert!(Op::decode(&mut Reader::new(&bytes[..len])).is_err());
            }
        }

        #[test]
        fn no_bytes_make_decoding_panic(code in 0..20u8, rest in vec(any::<u8>(), 0..100)) {
            let mut bytes = vec![code];
            bytes.extend(rest);
            if let Ok(op) = Op::decode(&mut Reader::new(&bytes)) {
                let mut w = Writer::new();
                op.encode(&mut w);
                prop_assert_eq!(Op::decode(&mut Reader::new(&w.finish())), Ok(op));
            }
        }

        #[test]
        fn a_snapshot_builds_the_same_state(
            start in clock(),
            other in clock(),
            ops in vec(op(), 0..60),
        ) {
            let state = built(start, &ops);
            prop_assert_eq!(built(other, &state.snapshot()), state);
        }

        #[test]
        fn an_op_taken_twice_is_as_good_as_once(
            start in clock(),
            ops in vec(op(), 0..40),
            last in op(),
        ) {
            let mut state = built(start, &ops);
            state.apply(last.clone());
            let once = state.clone();
            state.apply(last);
            prop_assert_eq!(state, once);
        }
    }

    #[test]
    fn a_condemned_pack_takes_its_bad_copies_along() {
        let clock = ClockMark { time: PoolTime(0), boot: [0; 16], since_boot: 0 };
        let info = PackInfo {
            kind: ChunkKind::Data,
            chunks: 1,
            len: 1,
            data_shards: 1,
            parity_shards: 0,
            epoch: 0,
        };
        let (one, two) = (PackId(1), PackId(2));
        let mut state = built(
            clock,
            &[
                Op::AddPack(one, info),
                Op::AddPack(two, info),
                Op::MarkBad(ChunkId([1; 32]), one),
                Op::MarkBad(ChunkId([2; 32]), two),
                Op::Condemn(one),
            ],
        );
        assert_eq!(state.bad, BTreeSet::from([(ChunkId([2; 32]), two)]));
        assert_eq!(state.condemned, BTreeMap::from([(one, info)]));
        state.apply(Op::DropPack(one));
        assert!(state.condemned.is_empty());
        assert_eq!((state.next_pack, state.packs.len()), (PackId(3), 1));
    }
}
