//! Packs: where chunks lie.
//!
//! A pack is a string of bytes that is written once, from front to back, and never changed. It
//! holds *frames*, then a *directory*, then a *footer*:
//!
//! | part | bytes | content |
//! |---|---|---|
//! | frames | any number, back to back from offset 0 | each sealed on its own |
//! | directory | 1 | which frames and chunks there are, sealed like a frame |
//! | footer | 32 | where the directory is; in clear |
//!
//! A **frame** is one or more chunks of the same kind that were compressed together:
//!
//! | field | bytes | content |
//! |---|---|---|
//! | body | all but the last 4 | the chunks, one after the other, by the method |
//! | method | 1 | 0 stored as it is, 1 zstd ([`crate::compress`]) |
//! | raw length | 3, little-endian | length of the chunks together, before compression |
//!
//! and all of it sealed with the pack's key ([`crate::seal::PackSealer`]), its offset in the
//! pack as its number and the pack's number as associated data, so that a frame can't be moved
//! inside a pack nor to another one. In a pool that isn't encrypted frames are not sealed; the
//! chunk ids, which are keyed hashes of the content, are what a read is checked against in both.
//!
//! The **directory** is a record ([`crate::codec`]): the number of frames; for each frame its
//! stored length, the number of its chunks, and for each chunk its 32-byte id and its length. It
//! is enough to build the index again from packs alone. It is stored as a frame of its own.
//!
//! The **footer**: `SRPKEND1`, directory offset (u32), directory stored length (u32), number of
//! chunks (u32), zero (u32), XXH3-64 of the 24 bytes before; little-endian.
//!
//! How a pack is spread over disks, with checksums that need no key, is [`crate::shard`]'s matter.

mod directory;
mod frame;
mod packer;

pub use directory::{Directory, FOOTER_LEN, Footer, FrameEntry};
pub use frame::{FRAME_TAIL, FrameCodec, MAX_FRAME};
pub use packer::{Closed, NewFrame, PackSpec, Packer, Sealed};
