//! Packs on the disks of a pool: striped, with parity or copies, checked and mended without keys.
//!
//! A pack is a string of up to 256 MiB that is written once, from front to end, and read in
//! ranges. It is cut into `K` shards of data and `M` of parity ([`crate::erasure`]), one for each
//! disk of the pool: shard `s` of pack `p` lies on disk `(s + p) mod (K + M)`, so that all disks
//! get as much parity as data. Any `K` shards give the whole pack. With `K = 1` all shards have
//! the same units: a mirror.
//!
//! # Files
//! Shard `s` of pack `p` is the file `packs/<xx>/<p>.<s>`: `p` as twelve hexadecimal digits, the
//! last two of which are `xx` too; `s` as two decimal digits. While it is written its name ends in
//! `.open`; while it is rebuilt, in `.mend`. Files with such names are left over from a process
//! that ended, and may be removed when no other is writing. A name without such an end must never
//! be created again for another pack.
//!
//! # Layout of a shard file, version 1
//! All integers are little-endian, checksums are XXH3-128 with seed 0 as 128-bit integers. A page
//! is 4096 bytes. A unit is `U` bytes, a multiple of a page; pools use 131072.
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 4096 | header |
//! | 4096 | `D` | units, each `U` bytes but the last, which is cut to whole pages |
//! | 4096 + `D` | `T` | trailer: `16 n + 144` bytes for `n` units, rounded up to whole pages |
//!
//! Header. Its fields are the same in all shards of a pack, but for the shard's number. A reader
//! must not believe a header with an unknown magic, version or kind, nonzero reserved bytes, a
//! number of shards over 32 or a unit that is no multiple of a page or over 1 MiB.
//!
//! | offset | length | what |
//! |---|---|---|
//! | 0 | 8 | magic `"SRshard\n"` |
//! | 8 | 4 | version, 1 |
//! | 12 | 4 | `U` in bytes |
//! | 16 | 16 | pool |
//! | 32 | 8 | pack |
//! | 40 | 1 | number of the shard; data from 0, then parity |
//! | 41 | 1 | `K` |
//! | 42 | 1 | `M` |
//! | 43 | 1 | kind of the chunks: 0 data, 1 nodes |
//! | 44 | 4 | epoch of the data key; 0 without encryption |
//! | 48 | 16 | reserved, zero |
//! | 64 | 32 | salt: random, from which the pack's own key is derived |
//! | 96 | 3984 | zero |
//! | 4080 | 16 | checksum of bytes 0 to 4079 |
//!
//! Units. Stripe `r` holds bytes `r K U` to `(r + 1) K U` of the pack; data shard `s` has bytes
//! `(r K + s) U` and following, up to `U`, at `4096 + r U` of its file. In the last stripe a unit
//! may be short, or not be there at all: it has as many bytes of the pack as there are, and
//! zeroes up to a whole page. Parity units are as long as the first data unit of their stripe;
//! shorter ones count as followed by zeroes. So the files of the data shards may differ in length,
//! and those of the parity shards are as long as that of shard 0.
//!
//! Trailer, at its offset `t = 4096 + D`. The tail is the last 144 bytes of the file.
//!
//! | offset | length | what |
//! |---|---|---|
//! | `t` | `16 n` | checksum of each unit, its padding included |
//! | `t + 16 n` | | zeroes up to the tail |
//! | tail + 0 | 96 | bytes 0 to 95 of the header again |
//! | tail + 96 | 8 | length of the pack in bytes, at most 256 MiB |
//! | tail + 104 | 8 | `t` |
//! | tail + 112 | 4 | `n` |
//! | tail + 116 | 4 | reserved, zero |
//! | tail + 120 | 8 | magic `"SRshend\n"` |
//! | tail + 128 | 16 | checksum of all bytes of the trailer before it |
//!
//! A reader must check that `t` and `n` are those that follow from the header and the length. So
//! every byte of the file is under a checksum. A shard that was rebuilt when a unit could no
//! longer be computed has zeroes in its place, and in the table the complement (all bits
//! inverted) of the checksum of these zeroes: such a unit is bad, and known to be.
//!
//! # Order
//! Header, units and trailer are written under the temporary name and synced, then renamed;
//! then the directory is synced (by the caller, once for many packs). A pack counts when the
//! journal says so, after that. Mending writes units, header or trailer in place and syncs;
//! a rebuilt shard is written under its temporary name, synced, renamed, and its directory synced.

mod format;
mod place;
mod reader;
mod scrub;
mod survey;
mod writer;

#[cfg(test)]
mod tests;

pub use format::{Geometry, MAX_PACK, MAX_UNIT, PackHeader, Shape, UNIT};
pub use place::{
    BadUnit, Flaw, FoundShard, PackSummary, ShardFlaw, Stage, TOP, create_directories, directory,
    disk_of, list_packs, read_header, remove_pack, shard_path, summarize,
};
pub use reader::{LostShard, ReadReport, ShardSet};
pub use scrub::{ScrubBuffers, ScrubReport, scrub_pack};
pub use writer::{FailedDisk, FinishedPack, Lanes, SealedPack, ShardWriter};
