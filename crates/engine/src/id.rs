//! The names of things in a pool.
//!
//! Every identifier is a type of its own, so that a pack's number can't be passed where an offset
//! is wanted and a content hash can't be mixed up with a random name.

use std::fmt;

/// Writes bytes as lower-case hexadecimal.
fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|b| write!(f, "{b:02x}"))
}

/// Reads lower- or upper-case hexadecimal of exactly `N` bytes.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let text = text.as_bytes();
    if text.len() != N * 2 {
        return None;
    }
    let mut out = [0u8; N];
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high << 4 | low).ok()?;
    }
    Some(out)
}

/// What a chunk holds, as far as the engine needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChunkKind {
    /// Bytes of a file, an image or a stream. The engine never looks inside.
    Data = 0,
    /// A [`Node`](crate::node::Node): a list of the chunks it refers to, then a payload.
    Node = 1,
}

impl ChunkKind {
    /// The kind with this code in the format, if there is one.
    pub fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Data),
            1 => Some(Self::Node),
            _ => None,
        }
    }
}

/// The content address of a chunk: a 256-bit hash under the pool's own key, so that it tells
/// nothing about the content to one who has no key. Data and nodes are hashed under different
/// keys; a data chunk can never pass for a node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The first eight bytes, big-endian: uniformly distributed, in the same order as the id.
    pub fn prefix(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("eight of thirty-two bytes"))
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0)
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0[..6])
    }
}

/// The number of a pack. Numbers only grow and are never used twice in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackId(pub u64);

impl PackId {
    /// The largest number: the index keeps 48 bits of it.
    pub const MAX: u64 = (1 << 48) - 1;
}

impl fmt::Display for PackId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

/// The number of an index segment. Numbers only grow and are never used twice in a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:012x}", self.0)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 16]);

        impl $name {
            /// A fresh random identifier.
            ///
            /// # Panics
            /// When the operating system has no randomness to give; nothing safe can be done then.
            pub fn random() -> Self {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).expect("the operating system gives randomness");
                Self(bytes)
            }

            /// Reads the 32 hexadecimal digits that `Display` writes.
            pub fn parse(text: &str) -> Option<Self> {
                unhex(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hex(f, &self.0[..4])
            }
        }
    };
}

random_id!(
    /// A pool, for as long as it lives, wherever it lies.
    PoolId
);
random_id!(
    /// A disk of a pool. A replacement gets a new one.
    DiskId
);
random_id!(
    /// A root: the named head of a map or tree in a pool (an image, and later a volume or container).
    RootId
);

/// Where a chunk lies: what the index knows of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The pack that holds it.
    pub pack: PackId,
    /// Its number among the pack's chunks, from 0 (24 bits).
    pub ordinal: u32,
    /// Where its frame begins in the pack, in bytes (32 bits).
    pub frame_offset: u32,
    /// The stored (sealed, compressed) length of its frame, in bytes (24 bits).
    pub frame_len: u32,
    /// Where the chunk begins in the opened frame, in bytes (24 bits).
    pub offset: u32,
    /// The chunk's length, in bytes (24 bits).
    pub len: u32,
    /// What it holds.
    pub kind: ChunkKind,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_survive_their_text() {
        let id = RootId::random();
        assert_eq!(RootId::parse(&id.to_string()), Some(id));
        assert_eq!(RootId::parse("xyz"), None);
        assert_eq!(RootId::parse(&"g".repeat(32)), None);
    }

    #[test]
    fn prefix_orders_as_the_id_does() {
        let mut low = [0; 32];
        let mut high = [0; 32];
        low[7] = 9;
        high[0] = 1;
        assert!(ChunkId(low).prefix() < ChunkId(high).prefix());
    }
}
