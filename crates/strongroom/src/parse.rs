//! Sizes, durations and layouts as users write them.

use std::fmt;
use std::str::FromStr;

/// Reads a size in bytes: a number with an optional unit (K, M, G, T, also as KiB, MiB, …; powers
/// of 1024).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let bad = || format!("{text:?} is not a size: write a number and K, M, G or T, like 64K");
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        "t" | "tib" => 40,
        _ => return Err(bad()),
    };
    if let Ok(number) = number.parse::<u64>() {
        return number.checked_mul(1 << shift).ok_or_else(|| format!("{text} is too large"));
    }
    let number: f64 = number.parse().map_err(|_| bad())?;
    let bytes = number * (1u64 << shift) as f64;
    if bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(format!("{text} is too large")) }
}

/// Reads a size that fits 32 bits.
pub(crate) fn size32(text: &str) -> Result<u32, String> {
    u32::try_from(size(text)?).map_err(|_| format!("{text} is too large"))
}

/// Reads a duration in nanoseconds, like `30d` or `1y6m`.
pub(crate) fn duration(text: &str) -> Result<i64, String> {
    strongroom_archive::retention::parse_span(text).map_err(|e| e.to_string())
}

/// A time, said as one or as how long from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Then.
    At(jiff::Timestamp),
    /// So many nanoseconds from now.
    In(i64),
}

impl Moment {
    /// The time, when it is this now.
    pub(crate) fn from(self, now: jiff::Timestamp) -> Result<jiff::Timestamp, String> {
        match self {
            Self::At(at) => Ok(at),
            Self::In(nanos) => now
                .checked_add(jiff::SignedDuration::from_nanos(nanos))
                .map_err(|_| "that is too far away".to_owned()),
        }
    }
}

/// Reads a time (`2027-01-31`, also with the time of day, or RFC 3339), or a duration like `30d`.
pub(crate) fn moment(text: &str) -> Result<Moment, String> {
    if let Ok(nanos) = duration(text) {
        return Ok(Moment::In(nanos));
    }
    let time = strongroom_archive::image::parse_time(text).map_err(|e| e.to_string())?;
    let at = jiff::Timestamp::from_nanosecond(time.0.into());
    at.map(Moment::At).map_err(|_| format!("{text:?} is too far away"))
}

/// How a pool lies on its disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One disk.
    Single,
    /// The same on all disks.
    Mirror,
    /// Data and parity.
    Erasure(u8, u8),
}

impl Layout {
    /// How many disks may be lost, on so many disks.
    pub(crate) fn parity(self, disks: usize) -> Result<u8, String> {
        match (self, disks) {
            (Self::Single, 1) => Ok(0),
            (Self::Single, _) => Err(format!("the layout single has 1 disk, not {disks}")),
            (Self::Mirror, 2..=16) => Ok(disks as u8 - 1),
            (Self::Mirror, _) => Err(format!("a mirror has 2 to 16 disks, not {disks}")),
            (Self::Erasure(k, m), _) if usize::from(k) + usize::from(m) == disks => Ok(m),
            (Self::Erasure(k, m), _) => Err(format!(
                "the layout {k}+{m} has {} disks, {disks} are given: name each with --disk",
                u16::from(k) + u16::from(m)
            )),
        }
    }

    /// The name of what has so many data and parity shards.
    pub(crate) fn name(data: u8, parity: u8) -> String {
        match (data, parity) {
            (1, 0) => "single".into(),
            (1, more) => format!("mirror of {}", u16::from(more) + 1),
            (data, parity) => format!("{data}+{parity}"),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Single => f.write_str("single"),
            Self::Mirror => f.write_str("mirror"),
            Self::Erasure(data, parity) => write!(f, "{data}+{parity}"),
        }
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a layout: write single, mirror or K+M, like 4+2");
        match text {
            "single" => Ok(Self::Single),
            "mirror" => Ok(Self::Mirror),
            _ => {
                let (k, m) = text.split_once('+').ok_or_else(bad)?;
                let (k, m) = (k.parse().map_err(|_| bad())?, m.parse().map_err(|_| bad())?);
                if k == 0 { Err(bad()) } else { Ok(Self::Erasure(k, m)) }
            }
        }
    }
}

/// Sizes of chunks: one average, or `MIN,AVG,MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChunkSizes {
    /// The usual proportions around this many bytes.
    Around(u32),
    /// Smallest, average and largest, in bytes.
    Exactly(u32, u32, u32),
}

impl FromStr for ChunkSizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let sizes: Vec<u32> = text.split(',').map(size32).collect::<Result<_, _>>()?;
        match sizes[..] {
            [avg] => Ok(Self::Around(avg)),
            [min, avg, max] => Ok(Self::Exactly(min, avg, max)),
            _ => Err("give one size (the average) or three: MIN,AVG,MAX".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(size("123"), Ok(123));
        assert_eq!(size("64K"), Ok(65536));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert_eq!(size("32MiB"), Ok(32 << 20));
        for bad in ["", "K", "1X", "-1", "1..5K", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn moments_are_times_or_durations() {
        let now: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text: &str| moment(text).unwrap().from(now).unwrap().to_string();
        assert_eq!(read("1d"), "2026-01-02T00:00:00Z");
        assert_eq!(read("2027-01-31T10:00:00Z"), "2027-01-31T10:00:00Z");
        assert!(moment("soon").is_err());
        assert!(Moment::In(i64::MAX).from(jiff::Timestamp::MAX).is_err());
    }

    #[test]
    fn layouts_say_how_many_disks_may_be_lost() {
        assert_eq!("single".parse::<Layout>().unwrap().parity(1), Ok(0));
        assert_eq!("mirror".parse::<Layout>().unwrap().parity(3), Ok(2));
        assert_eq!("4+2".parse::<Layout>().unwrap().parity(6), Ok(2));
        assert!("4+2".parse::<Layout>().unwrap().parity(5).is_err());
        assert!("mirror".parse::<Layout>().unwrap().parity(1).is_err());
        for bad in ["", "raid5", "0+1", "4+", "+"] {
            assert!(bad.parse::<Layout>().is_err(), "{bad}");
        }
    }
}
