//! Where shard files lie and how they are called; what is found on a disk.

use std::fmt;
use std::io;
use std::sync::Arc;

use super::format::PackHeader;
use super::survey::Survey;
use crate::buf::PAGE;
use crate::disk::{Caching, Disk};
use crate::erasure::MAX_SHARDS;
use crate::error::{Error, Result};
use crate::id::{PackId, PoolId};

/// The directory of all packs.
pub const TOP: &str = "packs";
/// What is behind the name of a shard that is being written.
pub(super) const OPEN: &str = ".open";
/// What is behind the name of a shard that is being rebuilt.
pub(super) const MEND: &str = ".mend";

/// The directory that the shards of a pack lie in, on every disk.
pub fn directory(pack: PackId) -> String {
    format!("{TOP}/{:02x}", pack.0 as u8)
}

/// The path of a pack's shard on its disk.
pub fn shard_path(pack: PackId, shard: usize) -> String {
    format!("{}/{pack}.{shard:02}", directory(pack))
}

/// Which of `disks` disks has a pack's shard.
pub fn disk_of(pack: PackId, shard: usize, disks: usize) -> usize {
    let disks = disks as u64;
    ((shard as u64 + pack.0 % disks) % disks) as usize
}

/// Creates the directories of all packs on a new disk, durably.
///
/// # Errors
/// Those of the disk.
pub fn create_directories(disk: &dyn Disk) -> io::Result<()> {
    for low in 0..=u8::MAX {
        disk.make_dir(&directory(PackId(low.into())))?;
    }
    disk.sync_dir(TOP)?;
    disk.sync_dir("")
}

/// How far a shard file came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It was written whole.
    Sealed,
    /// It was being written; no pack that counts has it.
    Open,
    /// It was being rebuilt; the rebuilding must start again.
    Mending,
}

/// A shard file on a disk, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FoundShard {
    /// Its pack.
    pub pack: PackId,
    /// Its number in the pack.
    pub shard: usize,
    /// The file's length, in bytes.
    pub len: u64,
    /// Whether it is whole or left over.
    pub stage: Stage,
}

impl FoundShard {
    /// Its path on the disk.
    pub fn path(&self) -> String {
        let end = match self.stage {
            Stage::Sealed => "",
            Stage::Open => OPEN,
            Stage::Mending => MEND,
        };
        format!("{}{end}", shard_path(self.pack, self.shard))
    }

    fn parse(dir: &str, name: &str, len: u64) -> Option<Self> {
        let (stem, stage) = if let Some(stem) = name.strip_suffix(OPEN) {
            (stem, Stage::Open)
        } else if let Some(stem) = name.strip_suffix(MEND) {
            (stem, Stage::Mending)
        } else {
            (name, Stage::Sealed)
        };
        let (pack, shard) = stem.split_once('.')?;
        let found = Self {
            pack: PackId(u64::from_str_radix(pack, 16).ok()?),
            shard: shard.parse().ok().filter(|shard| *shard < MAX_SHARDS)?,
            len,
            stage,
        };
        // Only what we would have called so: no other case, sign, length or directory.
        (found.path() == format!("{dir}/{name}")).then_some(found)
    }
}

/// All shard files on a disk, in order; names that are none of ours are passed over.
///
/// # Errors
/// Those of the disk. Directories that are missing are empty.
pub fn list_packs(disk: &dyn Disk) -> io::Result<Vec<FoundShard>> {
    let mut found = Vec::new();
    for low in 0..=u8::MAX {
        let dir = directory(PackId(low.into()));
        let entries = match disk.list(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.extend(
            entries
                .iter()
                .filter(|entry| !entry.is_dir)
                .filter_map(|entry| FoundShard::parse(&dir, &entry.name, entry.len)),
        );
    }
    found.sort_unstable_by_key(|found| (found.pack, found.shard));
    Ok(found)
}

/// Reads what a shard file says of itself in its header (not whether the rest of it is whole).
///
/// # Errors
/// [`Error::Io`] from the disk; [`Error::Damaged`] when it is no header of that shard.
pub fn read_header(disk: &dyn Disk, found: &FoundShard) -> Result<PackHeader> {
    let path = found.path();
    let reading = |error| Error::io(format!("reading {path}"), error);
    let mut page = crate::buf::AlignedBuf::new(PAGE);
    let file = disk.open(&path, Caching::Direct, false).map_err(reading)?;
    file.read_exact_at(&mut page, 0).map_err(reading)?;
    match PackHeader::decode(&page) {
        Some((header, shard)) if header.pack == found.pack && shard == found.shard => Ok(header),
        _ => Err(Error::damaged(path, "its header is not that of this shard")),
    }
}

/// What the shards of a pack say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// What most of them say of it.
    pub header: PackHeader,
    /// Its logical length, in bytes.
    pub len: u64,
    /// Shards whose trailer is valid and agrees with the others.
    pub agreeing: usize,
    /// What is wrong with the others.
    pub flaws: Vec<ShardFlaw>,
}

impl PackSummary {
    /// Whether enough shards agree to read it.
    pub fn is_complete(&self) -> bool {
        self.agreeing >= self.header.shape.data()
    }
}

/// Finds out what a pack is from its shards alone.
///
/// # Errors
/// [`Error::Damaged`] when no shard has a valid trailer.
pub fn summarize(
    disks: &[Option<Arc<dyn Disk>>],
    pool: PoolId,
    pack: PackId,
) -> Result<PackSummary> {
    let survey = Survey::take(disks, pool, pack, None)?;
    let header = survey.header.ok_or_else(|| {
        Error::damaged(format!("pack {pack}"), "no shard of it has a valid header")
    })?;
    let agreeing = survey.shards.iter().filter(|shard| shard.sealed).count();
    let flaws = survey.flaws();
    Ok(PackSummary { header, len: survey.geometry.len(), agreeing, flaws })
}

/// Removes a pack's sealed shards and what is left of unfinished ones from the disks that are
/// there. Names that are gone already are no error. The caller syncs [`directory`] of the pack.
///
/// # Errors
/// The first of the disks'; the others are still seen to.
pub fn remove_pack(disks: &[Option<Arc<dyn Disk>>], pack: PackId) -> io::Result<()> {
    let mut result = Ok(());
    for shard in 0..disks.len() {
        let Some(disk) = &disks[disk_of(pack, shard, disks.len())] else { continue };
        let path = shard_path(pack, shard);
        for end in [OPEN, MEND, ""] {
            match disk.remove(&format!("{path}{end}")) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    result = result.and(Err(error));
                }
                _ => {}
            }
        }
    }
    result
}

/// What can be wrong with a shard as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// Its disk isn't there.
    NoDisk,
    /// The disk doesn't have its file.
    Missing,
    /// The disk can't read it.
    Unreadable(String),
    /// The file is a shard of something else.
    Foreign,
    /// Its header is damaged.
    Header,
    /// Its trailer is damaged.
    Trailer,
    /// The file is longer or shorter than it should be.
    Length,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDisk => f.write_str("the disk is missing"),
            Self::Missing => f.write_str("the file is missing"),
            Self::Unreadable(why) => write!(f, "the file can't be read: {why}"),
            Self::Foreign => f.write_str("the file belongs to something else"),
            Self::Header => f.write_str("the header is damaged"),
            Self::Trailer => f.write_str("the trailer is damaged"),
            Self::Length => f.write_str("the file has a wrong length"),
        }
    }
}

/// A shard with something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardFlaw {
    /// Its number in the pack.
    pub shard: usize,
    /// Its disk's place in the pool.
    pub disk: usize,
    /// What is wrong.
    pub flaw: Flaw,
}

/// A unit that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BadUnit {
    /// Its shard's number in the pack.
    pub shard: usize,
    /// Its disk's place in the pool.
    pub disk: usize,
    /// Its number in the shard, from 0.
    pub unit: u64,
}
