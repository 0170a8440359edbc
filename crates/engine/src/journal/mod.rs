//! The journal of a pool: the log of [`Op`]s whose sum is the [`State`].
//!
//! # Copies
//! A pool on several disks has a copy on each; a pool on one disk has two, so that bit rot can't
//! take the roots. All copies are written with the same bytes. A copy is a directory, of which
//! only the newest file counts:
//!
//! `<base>.log`, where `base` is the generation of the snapshot in it, as 16 hexadecimal digits;
//! `<base>.log.new` is one that isn't finished, and is never read.
//!
//! Each commit makes the next *generation* of the pool; the pool as created is generation 1.
//!
//! # A file (version 1, little-endian)
//! | at | bytes | file header |
//! |---|---|---|
//! | 0 | 8 | `SRJRNL\r\n` |
//! | 8 | 2 | version: 1 |
//! | 10 | 1 | sealing of payloads: 0 none, 1 AES-256-GCM |
//! | 11 | 1 | hash of chain and checks: 1 BLAKE3 |
//! | 12 | 4 | zero |
//! | 16 | 16 | pool |
//! | 32 | 8 | base: the generation of the snapshot |
//! | 40 | 16 | salt: random, tells this file from all others |
//! | 56 | 16 | chain value of generation `base` in the file before; zero in the first |
//! | 72 | 8 | zero |
//! | 80 | 16 | check: hash of bytes 0..80 (context `strongroom 1 journal file header`) |
//! | 96 | | zero to 4096 |
//!
//! Records follow, each beginning at a multiple of 4096 bytes:
//!
//! | at | bytes | record |
//! |---|---|---|
//! | 0 | 4 | `SRjr` |
//! | 4 | 1 | kind: 1 lineage, 2 snapshot, 3 last of the snapshot, 4 commit |
//! | 5 | 3 | zero |
//! | 8 | 4 | length of the stored payload, at most 16 MiB + 16 |
//! | 12 | 4 | number of the record in the file, from 0 |
//! | 16 | 8 | generation after it: the base up to the end of the snapshot, then one more each |
//! | 24 | 16 | the file's salt |
//! | 40 | 16 | chain: hash of the chain value before, bytes 0..40 and the stored payload (context `strongroom 1 journal chain`); the chain begins with the hash of the file header's 96 bytes (context `strongroom 1 journal chain start`) |
//! | 56 | 8 | check: hash of bytes 0..56 and the record's offset in the file as 8 bytes (context `strongroom 1 journal record header`) |
//! | 64 | | stored payload, then zero to the next multiple of 4096 |
//!
//! The hash is BLAKE3 in key derivation mode with that context, cut to the field's length. The
//! chain covers every header and payload byte; padding must be zero, and a copy where it isn't
//! counts as damaged (its records are good all the same).
//!
//! Sealed payloads are AES-256-GCM with the 16-byte tag behind. Key: BLAKE3 key derivation
//! (context `strongroom 1 journal file key`) of the pool's journal key and the salt. Nonce: the
//! record's number, 4 bytes, then zero. Associated data: the chain value before, then bytes 0..40.
//! A number is used once per file and a file is written in one run of one process, which picks the
//! salt, so a nonce is never used twice.
//!
//! Payloads, in the words of [`crate::codec`]: a lineage is a count and as many (base, 16 bytes
//! salt) pairs, in ascending order, of the files that hold the history, this one last, at most the
//! newest 4096. Everything else is ops, one after the other ([`Op::encode`]). The records of a file
//! are one lineage, any number of kind 2, one of kind 3, and any number of commits. Snapshot
//! records are about 1 MiB, so no one needs a buffer for a whole state.
//!
//! # Writing
//! - **Opening to write** always begins a new file in every copy, before anything else. That
//!   brings copies up that were behind, damaged or missing. It also makes durable what was read:
//!   the last writer may have been stopped between writing and syncing, or a sync of its may have
//!   failed, after which the kernel can show bytes that will never be on the disk.
//!   When `need` copies or more are out of sight, and some of them not because their disk is missing
//!   but because it gives errors, a confirmed commit may be in these alone: then it is refused, for
//!   it would write them over. (Fewer can't have what no other has. A copy that is empty is out of
//!   sight, too. A file that can't be opened is not when it is no longer than another of its name
//!   that was read, and both are on one disk, or `need` is more than half of all copies.) Of a pool of
//!   one disk that copy's directory can be moved elsewhere: then the other counts alone.
//! - **A new file**: create `<base>.log.new`, write it, sync it, rename it to `<base>.log`, sync the
//!   directory; when enough copies have come so far, remove all others. At each of these steps a
//!   crash leaves the old file, or the new one whole, or both; both lead to the same state, as no
//!   commit is appended to the new file before and none to the old one after. For the same reason
//!   an older file of a copy never leads further than a newer one, and is not asked when the newer
//!   one leads anywhere.
//! - **A commit** is one record, appended and synced in all copies at once. It is confirmed when
//!   `need` copies have it. A copy that failed gets no more records (so what it has stays a
//!   beginning of the history) until the journal is opened to write again. With fewer than `need`,
//!   the journal stops for good: the commit may or may not be there next time.
//! - Records don't share blocks, so no write touches a block with a confirmed record.
//!
//! # Reading
//! The history of the copy that leads furthest is taken, when every other copy is a beginning of
//! it. Copies of one file are compared by its chain: each record is taken from any copy that has
//! it whole, so copies damaged in different places make up for each other. Copies in different
//! files are compared by the lineage: the last generation of the one must have been committed to the
//! same file (same salt) in the other. So a disk that was away is *behind*, and disks that were each
//! written without the other have *diverged*. A copy that does not fit is left out in one case:
//! where `need` is more than half of all copies and as many have another commit in its place, its
//! last commit was never confirmed.
//!
//! Bytes at the end that make no record, with no record header after them, are a commit that was
//! interrupted. But if a header with the right check is found after them, they were a record once:
//! the next one is only written when it is durable. That record is then needed from another copy, or
//! opening fails. So committed history is dropped in silence only where it can't be known that
//! there was any: when the very last record (or everything from some point to the end) is
//! destroyed in all copies at once.
//!
//! What can't be listed, opened or read is tried more than once. Readers go on without it, and say
//! that what they show may be older than what was committed last, where opening to write is refused.
//!
//! Readers hold no lock and change nothing. They may see a commit before it is durable. When a
//! file goes away between listing and opening, a writer has begun a new one, and they look again.

mod history;
mod lineage;
mod load;
mod record;
mod sealing;
mod source;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::Arc;

pub use load::{Flaw, Stale};
pub use sealing::Sealing;
pub use writer::{Commit, Journal, LoadReport, Lost};

use crate::disk::Disk;
use crate::id::PoolId;

#[cfg(doc)]
use crate::state::{Op, State};

/// Where a copy of the journal lies.
#[derive(Clone, Debug)]
pub struct Place {
    /// Which disk of the pool, from 0.
    pub disk: usize,
    /// That disk.
    pub handle: Arc<dyn Disk>,
    /// The directory of the copy.
    pub dir: String,
}

impl Place {
    fn path(&self, base: u64) -> String {
        format!("{}/{base:016x}.log", self.dir)
    }

    fn describe(&self) -> String {
        format!("{}/{}", self.handle.describe(), self.dir)
    }

    /// The same copy of the same pool.
    fn is(&self, other: &Self) -> bool {
        self.disk == other.disk && self.dir == other.dir
    }
}

/// What the superblock says of the journal, and how it is to be written.
#[derive(Clone)]
pub struct Settings {
    /// Whose journal it is.
    pub pool: PoolId,
    /// How payloads are sealed.
    pub sealing: Sealing,
    /// How many copies must have a commit before it is confirmed: the data shards of the layout,
    /// 1 on one disk.
    pub need: usize,
    /// Everything in the caller's thread, copy after copy, for tests that stop at each operation.
    pub inline: bool,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("pool", &self.pool)
            .field("sealing", &self.sealing)
            .field("need", &self.need)
            .finish_non_exhaustive()
    }
}
