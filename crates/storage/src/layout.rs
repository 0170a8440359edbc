//! How a pool lies on its disks.

use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// How a pool lies on its disks; written `single`, `mirror` or `K+M`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// One disk.
    #[default]
    Single,
    /// The same on all disks.
    Mirror,
    /// Data and parity: any of so many parity disks may be lost.
    Erasure {
        /// Disks with data.
        data: u8,
        /// Disks with parity.
        parity: u8,
    },
}

impl Layout {
    /// How many disks may be lost, on so many disks.
    ///
    /// # Errors
    /// [`Error::Invalid`] when that layout can't lie on so many.
    pub fn parity(self, disks: usize) -> Result<u8> {
        match (self, disks) {
            (Self::Single, 1) => Ok(0),
            (Self::Single, _) => {
                Err(Error::Invalid(format!("the layout single has 1 disk, not {disks}")))
            }
            (Self::Mirror, 2..=16) => Ok(disks as u8 - 1),
            (Self::Mirror, _) => {
                Err(Error::Invalid(format!("a mirror has 2 to 16 disks, not {disks}")))
            }
            (Self::Erasure { data, parity }, _)
                if usize::from(data) + usize::from(parity) == disks =>
            {
                Ok(parity)
            }
            (Self::Erasure { data, parity }, _) => Err(Error::Invalid(format!(
                "the layout {data}+{parity} has {} disks, {disks} are given: name each",
                u16::from(data) + u16::from(parity)
            ))),
        }
    }

    /// The layout of so many data and parity shards.
    pub fn of_shards(data: u8, parity: u8) -> Self {
        match (data, parity) {
            (1, 0) => Self::Single,
            (1, _) => Self::Mirror,
            (data, parity) => Self::Erasure { data, parity },
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single => f.write_str("single"),
            Self::Mirror => f.write_str("mirror"),
            Self::Erasure { data, parity } => write!(f, "{data}+{parity}"),
        }
    }
}

impl FromStr for Layout {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || {
            let why = format!("{text:?} is not a layout: write single, mirror or K+M, like 4+2");
            Error::Invalid(why)
        };
        match text {
            "single" => Ok(Self::Single),
            "mirror" => Ok(Self::Mirror),
            _ => {
                let (data, parity) = text.split_once('+').ok_or_else(bad)?;
                let data = data.parse().ok().filter(|data| *data > 0).ok_or_else(bad)?;
                Ok(Self::Erasure { data, parity: parity.parse().map_err(|_| bad())? })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn layouts_say_how_many_disks_may_be_lost() {
        let parity = |text: &str, disks| text.parse::<Layout>().unwrap().parity(disks).ok();
        assert_eq!(parity("single", 1), Some(0));
        assert_eq!(parity("single", 2), None);
        assert_eq!(parity("mirror", 3), Some(2));
        assert_eq!(parity("mirror", 1), None);
        assert_eq!(parity("4+2", 6), Some(2));
        assert_eq!(parity("4+2", 5), None);
        for bad in ["", "raid5", "0+1", "4+", "+", "4-2"] {
            assert!(bad.parse::<Layout>().is_err(), "{bad}");
        }
        for text in ["single", "mirror", "4+2"] {
            assert_eq!(text.parse::<Layout>().unwrap().to_string(), text);
        }
    }
}
