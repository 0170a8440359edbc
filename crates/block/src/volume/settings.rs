//! What can be set of a volume. It lies in the pool, in the volume's `meta`.

use strongroom_engine::codec::{DecodeError, Reader, Writer};

use super::record::{MAX_NAME, name};
use crate::{Error, Result};

const THIN: u8 = 1;
const DEDUPLICATION: u8 = 2;
const COMPRESSION: u8 = 4;
const CACHE: u8 = 8;
const ALL: u8 = THIN | DEDUPLICATION | COMPRESSION | CACHE;

/// What a volume is mostly used for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IoType {
    /// Small requests anywhere.
    #[default]
    Transactional,
    /// Long requests, one behind the other.
    Sequential,
}

/// The share of a volume in the bandwidth of a pool, beside other volumes that want it at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(u8);

impl Priority {
    /// All there are, the least first.
    pub const ALL: [Self; 6] = [Self(4), Self(8), Self(16), Self(32), Self(64), Self(128)];

    /// The one with that weight; `None` for weights that there aren't.
    pub fn new(weight: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.0 == weight)
    }

    /// How much it weighs: a volume of 128 gets eight times what one of 16 gets.
    pub fn weight(self) -> u8 {
        self.0
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(16)
    }
}

/// What can be set of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// It takes room only for what is written to it; otherwise room for all of it is set aside.
    pub thin: bool,
    /// What the pool has already isn't stored again.
    pub deduplication: bool,
    /// What is settled is compressed.
    pub compression: bool,
    /// What is read of it is kept in memory for a while, beside what is read of others.
    pub cache: bool,
    /// What it is mostly used for.
    pub io_type: IoType,
    /// Its share beside others.
    pub priority: Priority,
    /// What it was made from, for people; at most 255 bytes.
    pub origin: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            thin: true,
            deduplication: true,
            compression: true,
            cache: true,
            io_type: IoType::default(),
            priority: Priority::default(),
            origin: String::new(),
        }
    }
}

impl Settings {
    /// Refuses what can't be kept.
    pub(super) fn check(&self) -> Result<()> {
        match self.origin.len() <= MAX_NAME && !self.origin.chars().any(char::is_control) {
            true => Ok(()),
            false => Err(Error::Invalid(format!(
                "what a volume was made from has at most {MAX_NAME} bytes and no control characters"
            ))),
        }
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        let flag = |set: bool, flag| if set { flag } else { 0 };
        w.byte(
            flag(self.thin, THIN)
                | flag(self.deduplication, DEDUPLICATION)
                | flag(self.compression, COMPRESSION)
                | flag(self.cache, CACHE),
        );
        w.byte(match self.io_type {
            IoType::Transactional => 0,
            IoType::Sequential => 1,
        });
        w.byte(self.priority.0);
        w.bytes(self.origin.as_bytes());
    }

    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let unknown = DecodeError::Unknown("a setting of a volume");
        let flags = r.byte()?;
        if flags & !ALL != 0 {
            return Err(unknown);
        }
        Ok(Self {
            thin: flags & THIN != 0,
            deduplication: flags & DEDUPLICATION != 0,
            compression: flags & COMPRESSION != 0,
            cache: flags & CACHE != 0,
            io_type: match r.byte()? {
                0 => IoType::Transactional,
                1 => IoType::Sequential,
                _ => return Err(unknown),
            },
            priority: Priority::new(r.byte()?).ok_or(unknown)?,
            origin: name(r.bytes()?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn there_are_six_priorities() {
        let weights: Vec<u8> = Priority::ALL.iter().map(|priority| priority.weight()).collect();
        assert_eq!(weights, [4, 8, 16, 32, 64, 128]);
        assert_eq!(Priority::new(16), Some(Priority::default()));
        assert_eq!((Priority::new(0), Priority::new(5), Priority::new(255)), (None, None, None));
    }

    #[test]
    fn what_a_volume_was_made_from_is_short_and_plain() {
        let settings = |origin: &str| Settings { origin: origin.into(), ..Settings::default() };
        settings("image 7").check().unwrap();
        settings("a\nb").check().unwrap_err();
        settings(&"x".repeat(256)).check().unwrap_err();
    }
}
