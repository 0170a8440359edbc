//! Who may open a pool: secrets, key slots, and the keyring they lead to.
//!
//! ```text
//! secret --KDF, salt of the slot--> slot key --opens--> master key --opens--> keyring
//!                                                                             |- id key
//!                                                                             |- journal key
//!                                                                             '- data key of each epoch
//! ```
//!
//! Every key slot wraps the same random master key under another secret, so secrets can be added,
//! changed and removed without writing anything but the superblock. The keyring holds all keys of
//! the pool; a new epoch adds one, and packs written from then on are sealed under it.
//!
//! What removing a slot doesn't do: one who knew its secret and kept a copy of the old superblock
//! still has the master key. After a secret was lost to somebody, protect the pool anew
//! ([`Protection::seal`] makes another master key) and begin a new epoch.
//!
//! A pool that isn't encrypted has no slots, and its keyring lies in the superblock in clear: with
//! an id key only, so that ids differ from pool to pool.
//!
//! # Protection, as it lies in the superblock
//!
//! | field | type |
//! |---|---|
//! | AEAD id: 0 or 1, see [`crate::seal`] | byte |
//! | with 0: the keyring, in clear | bytes |
//! | with 1: the key slots | see [`Slots`] |
//! | with 1: the keyring: a sealed record ([`crate::seal`]) under the master key; the context is `strongroom v1 keyring` and the 16 bytes of the pool's id | bytes |
//!
//! "bytes" has a varint length in front. Slots and keyring are always sealed with AES-256-GCM.

mod kdf;
mod keyring;
mod protection;
mod secret;
mod slots;

pub use kdf::{Kdf, Stretch};
pub use keyring::{Keyring, Master};
pub use protection::{Protection, Unlocked};
pub use secret::Secret;
pub use slots::{KeySlot, Slots};
