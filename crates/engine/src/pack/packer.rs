//! Writing packs: frames come in, sealed packs go out.

use std::sync::Arc;

use crate::compress::Effort;
use crate::disk::Disk;
use crate::error::Result;
use crate::id::{ChunkId, ChunkKind, Location, PackId, PoolId};
use crate::keys::Keyring;
use crate::pack::directory::{Directory, Footer, FrameEntry};
use crate::pack::frame::FrameCodec;
use crate::seal::PackSealer;
use crate::shard::{FinishedPack, Lanes, PackHeader, Shape, ShardWriter};
use crate::state::PackInfo;

/// A frame that has no place yet.
#[derive(Debug, Default)]
pub struct NewFrame {
    /// The frame, not yet sealed ([`FrameCodec::encode`]).
    pub bytes: Vec<u8>,
    /// Its chunks and their lengths.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// What all packs of a [`Packer`] have in common.
#[derive(Clone, Debug)]
pub struct PackSpec {
    /// The pool they are part of.
    pub pool: PoolId,
    /// What they hold.
    pub kind: ChunkKind,
    /// How they are cut into shards.
    pub shape: Shape,
    /// A pack is closed once it has this many bytes.
    pub target_len: u32,
}

#[derive(Debug)]
struct Open {
    id: PackId,
    info: PackInfo,
    sealer: PackSealer,
    shards: ShardWriter,
    directory: Directory,
}

/// Builds packs one after the other.
#[derive(Debug)]
pub struct Packer {
    spec: PackSpec,
    open: Option<Open>,
    lanes: Lanes,
}

/// A pack whose bytes are all written, but not yet durable.
#[derive(Debug)]
pub struct Closed {
    id: PackId,
    info: PackInfo,
    shards: FinishedPack,
}

/// A pack whose content is durable under its final name, once the directories are synced.
#[derive(Debug)]
pub struct Sealed {
    /// Its number.
    pub id: PackId,
    /// What the state is to know of it.
    pub info: PackInfo,
    /// Disks (by index) that failed while it was written, and how.
    pub failed: Vec<(usize, String)>,
}

impl Packer {
    /// A packer with no open pack.
    pub fn new(spec: PackSpec) -> Self {
        Self { spec, open: None, lanes: Lanes::default() }
    }

    /// The number of the open pack, if there is one.
    pub fn open_pack(&self) -> Option<PackId> {
        self.open.as_ref().map(|open| open.id)
    }

    /// Gives a frame its place, opening a pack when there is none: `number` makes the number.
    /// The frame's bytes are sealed where they are. `placed` is told each chunk's place. A pack
    /// that has become full is handed back closed.
    ///
    /// # Errors
    /// Those of the disks. The open pack is then unusable and [`Packer::abandon`] is to be called.
    pub fn push(
        &mut self,
        frame: &mut NewFrame,
        disks: &[Option<Arc<dyn Disk>>],
        keyring: &Keyring,
        number: impl FnOnce() -> Result<PackId>,
        mut placed: impl FnMut(&ChunkId, Location),
    ) -> Result<Option<Closed>> {
        if self.open.is_none() {
            self.open = Some(self.begin(disks, keyring, number()?)?);
        }
        let open = self.open.as_mut().expect("a pack was opened above");
        let (offset, len) = append(open, &mut frame.bytes)?;
        let mut at = 0;
        for (id, chunk_len) in &frame.chunks {
            placed(
                id,
                Location {
                    pack: open.id,
                    ordinal: open.info.chunks,
                    frame_offset: offset,
                    frame_len: len,
                    offset: at,
                    len: *chunk_len,
                    kind: self.spec.kind,
                },
            );
            at += chunk_len;
            open.info.chunks += 1;
        }
        open.directory.frames.push(FrameEntry { offset, len, chunks: frame.chunks.clone() });
        if open.info.len >= self.spec.target_len.into() { self.close() } else { Ok(None) }
    }

    /// Ends the open pack, if there is one, with its directory and footer.
    ///
    /// # Errors
    /// Those of the disks, as for [`Packer::push`].
    pub fn close(&mut self) -> Result<Option<Closed>> {
        let Some(open) = self.open.as_mut() else { return Ok(None) };
        let mut record = Vec::new();
        FrameCodec::new(1).encode(&open.directory.encode(), Effort::Usual, &mut record);
        let (offset, len) = append(open, &mut record)?;
        let footer = Footer { offset, len, chunks: open.info.chunks }.encode();
        open.shards.append(&footer)?;
        open.info.len += footer.len() as u64;
        let open = self.open.take().expect("it was open above");
        let mut shards = open.shards.finish()?;
        self.lanes = shards.take_lanes();
        Ok(Some(Closed { id: open.id, info: open.info, shards }))
    }

    /// Gives up the open pack and removes what was written of it. Its number, if there was one.
    pub fn abandon(&mut self) -> Option<PackId> {
        let open = self.open.take()?;
        self.lanes = open.shards.abandon();
        Some(open.id)
    }

    fn begin(
        &mut self,
        disks: &[Option<Arc<dyn Disk>>],
        keyring: &Keyring,
        id: PackId,
    ) -> Result<Open> {
        let PackSpec { pool, kind, shape, .. } = self.spec;
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).expect("the operating system gives randomness");
        let epoch = keyring.epoch();
        let header = PackHeader { pool, pack: id, shape, kind, epoch, salt };
        let sealer = keyring.pack(epoch, &salt).expect("a keyring has the key of its own epoch");
        let info = PackInfo {
            kind,
            chunks: 0,
            len: 0,
            data_shards: shape.data() as u8,
            parity_shards: shape.parity() as u8,
            epoch,
        };
        let shards = ShardWriter::create(disks, header, std::mem::take(&mut self.lanes))?;
        Ok(Open { id, info, sealer, shards, directory: Directory::default() })
    }
}

/// Seals a frame and appends it; its offset and stored length.
fn append(open: &mut Open, frame: &mut Vec<u8>) -> Result<(u32, u32)> {
    let offset = u32::try_from(open.info.len).expect("a pack is closed long before 4 GiB");
    open.sealer.seal_in_place(offset, &open.id.0.to_le_bytes(), frame);
    open.shards.append(frame)?;
    open.info.len += frame.len() as u64;
    Ok((offset, frame.len() as u32))
}

impl Closed {
    /// Its number.
    pub fn id(&self) -> PackId {
        self.id
    }

    /// Makes its content durable and gives it its final name. The caller then syncs the
    /// directory ([`crate::shard::directory`]).
    ///
    /// # Errors
    /// Those of the disks, when fewer than the layout needs are left.
    pub fn seal(self) -> Result<Sealed> {
        let failed = self.shards.publish()?.failed;
        let failed = failed.into_iter().map(|(disk, why)| (disk, why.to_string())).collect();
        Ok(Sealed { id: self.id, info: self.info, failed })
    }
}
