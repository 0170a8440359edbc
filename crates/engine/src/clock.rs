//! The pool's own clock: the time by which retention and immutability are counted.
//!
//! # The rule
//!
//! The pool remembers how far its clock has come, during which boot of the machine, and how long
//! after that boot ([`ClockMark`]). When it looks at the time again:
//!
//! - **during the same boot** the clock advances by what the kernel's count since boot advanced
//!   (suspended time included), whatever the wall clock says;
//! - **after another boot, or on another machine,** it goes to the wall clock, but never back, and
//!   never more than [`MAX_JUMP`] forward. If the wall clock is further ahead the rest is refused;
//!   each later boot may catch up by as much again;
//! - **at the pool's creation** it is the wall clock.
//!
//! # What that protects, and what not
//!
//! Setting the wall clock, once or often, back or forth, does nothing during a boot. A clock set
//! years ahead, by mistake or malice, followed by one reboot ages images by seven days at most. A
//! clock that was set back (a dead battery: 1970) makes nothing younger: the pool's clock goes on
//! counting from where it was.
//!
//! It isn't protected: a person who may reboot the machine many times with a false clock gains
//! seven days each time; one who may write the disks, or run the pool on a machine of their own
//! with a kernel that lies about the time since boot, can claim anything. Against them only a copy
//! that they can't reach helps. A pool that lay on a shelf for a year lags behind the wall clock
//! and keeps images longer than asked, never shorter.
//!
//! # In records
//!
//! | field | type |
//! |---|---|
//! | time: nanoseconds since 1970-01-01T00:00:00Z on the pool's clock | zigzag varint |
//! | boot: the kernel's random id of the boot | 16 bytes |
//! | since boot: nanoseconds, suspended time included | zigzag varint |

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};

/// Nanoseconds in a second.
pub const SECOND: i64 = 1_000_000_000;
/// Nanoseconds in a day.
pub const DAY: i64 = 86_400 * SECOND;
/// The furthest the pool's clock follows the wall clock forward after a reboot, in nanoseconds.
pub const MAX_JUMP: i64 = 7 * DAY;
/// How far the wall clock may be away before it is worth a warning, in nanoseconds: one hour.
pub const TOLERANCE: i64 = 3_600 * SECOND;

/// A moment on the pool's own clock, in nanoseconds since the Unix epoch. Shown in UTC to the
/// second, as RFC 3339 says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolTime(pub i64);

impl PoolTime {
    /// The moment `nanoseconds` later, or the last one that can be told.
    pub fn plus(self, nanoseconds: i64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// How many nanoseconds lie between `earlier` and this moment; negative when it is later.
    pub fn since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for PoolTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(SECOND);
        let (year, month, day) = civil(seconds.div_euclid(86_400));
        let second = seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

/// Year, month and day of the proleptic Gregorian calendar, from days since 1970-01-01 (the method of
/// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
///
/// Years are counted from March, so that the leap day ends them: then a year's day gives its month
/// by one division, as the lengths 31, 30, 31, 30, 31 repeat every 153 days.
fn civil(days: i64) -> (i64, i64, i64) {
    const YEAR_0_MARCH_1: i64 = -719_468;
    const ERA: i64 = 146_097; // the days of 400 years
    let days = days - YEAR_0_MARCH_1;
    let day = days.rem_euclid(ERA);
    // Of the era's 400 years: take out its leap days, then divide.
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153; // 0 is March
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (400 * days.div_euclid(ERA) + year + carry, month, day)
}

/// Where the pool reads the time.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The wall clock: nanoseconds since 1970-01-01T00:00:00Z.
    fn wall(&self) -> i64;
    /// The id of this boot, and the nanoseconds since it, suspended time included.
    fn boot(&self) -> ([u8; 16], i64);
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    boot: [u8; 16],
}

impl SystemClock {
    /// Reads which boot this is.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel doesn't say: without it the rule above can't be kept.
    pub fn new() -> Result<Self> {
        const PATH: &str = "/proc/sys/kernel/random/boot_id";
        let refused = |e| Error::io(format!("reading the id of this boot from {PATH}"), e);
        let text = std::fs::read_to_string(PATH).map_err(refused)?;
        let digits = text.trim().replace('-', "");
        // The id of a boot has the text of a UUID, as those of pools have without its dashes.
        let boot = crate::id::PoolId::parse(&digits)
            .ok_or_else(|| refused(std::io::ErrorKind::InvalidData.into()))?;
        Ok(Self { boot: boot.0 })
    }
}

impl Clock for SystemClock {
    fn wall(&self) -> i64 {
        nanoseconds(clock_gettime(ClockId::Realtime))
    }

    fn boot(&self) -> ([u8; 16], i64) {
        (self.boot, nanoseconds(clock_gettime(ClockId::Boottime)))
    }
}

fn nanoseconds(time: Timespec) -> i64 {
    time.tv_sec.saturating_mul(SECOND).saturating_add(time.tv_nsec)
}

/// A clock that moves only when told. Clones show the same time.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    hands: Arc<Mutex<Hands>>,
}

#[derive(Clone, Copy, Debug)]
struct Hands {
    wall: i64,
    boots: u64,
    since_boot: i64,
}

impl VirtualClock {
    /// A clock in its first boot, with the wall clock at `wall` nanoseconds since the epoch.
    pub fn new(wall: i64) -> Self {
        Self { hands: Arc::new(Mutex::new(Hands { wall, boots: 1, since_boot: 0 })) }
    }

    /// Sets the wall clock; time since boot does not notice.
    pub fn set_wall(&self, wall: i64) {
        self.with(|hands| hands.wall = wall);
    }

    /// Lets `nanoseconds` pass.
    pub fn advance(&self, nanoseconds: i64) {
        self.with(|hands| {
            hands.wall = hands.wall.saturating_add(nanoseconds);
            hands.since_boot = hands.since_boot.saturating_add(nanoseconds);
        });
    }

    /// Boots the machine: another id, and the count from 0. The wall clock stands meanwhile.
    pub fn reboot(&self) {
        self.with(|hands| {
            hands.boots += 1;
            hands.since_boot = 0;
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut Hands) -> T) -> T {
        look(&mut self.hands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Clock for VirtualClock {
    fn wall(&self) -> i64 {
        self.with(|hands| hands.wall)
    }

    fn boot(&self) -> ([u8; 16], i64) {
        self.with(|hands| {
            let mut boot = [0; 16];
            boot[..8].copy_from_slice(&hands.boots.to_le_bytes());
            (boot, hands.since_boot)
        })
    }
}

/// How far the pool's own clock has come, and when that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockMark {
    /// How far the pool's own clock has come.
    pub time: PoolTime,
    /// The boot during which that was read (random bytes of the kernel).
    pub boot: [u8; 16],
    /// The time since that boot, suspended time included, in nanoseconds.
    pub since_boot: i64,
}

/// What is odd about the wall clock. Neither stops anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockWarning {
    /// The wall clock is ahead, and the pool's did not follow all the way.
    Ahead {
        /// By how many nanoseconds it is still ahead.
        by: i64,
    },
    /// The wall clock is behind the pool's, which does not go back.
    Behind {
        /// By how many nanoseconds.
        by: i64,
    },
}

impl fmt::Display for ClockWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (by, side) = match self {
            Self::Ahead { by } => (by, "ahead of"),
            Self::Behind { by } => (by, "behind"),
        };
        let minutes = by / (60 * SECOND);
        let (days, hours, minutes) = (minutes / 1_440, minutes / 60 % 24, minutes % 60);
        write!(f, "the machine's clock is {days} d {hours} h {minutes} min {side} the pool's own")?;
        f.write_str(match self {
            Self::Ahead { .. } => {
                ", which follows at most 7 days at each boot; images are kept the longer"
            }
            Self::Behind { .. } => ", which never goes back; set the machine's clock",
        })
    }
}

impl ClockMark {
    /// The pool's time now, by the rule of the module's text, counted on from `previous`.
    pub fn now(previous: Option<&Self>, clock: &dyn Clock) -> (Self, Option<ClockWarning>) {
        let (boot, since_boot) = clock.boot();
        let wall = clock.wall();
        let time = match previous {
            None => wall,
            Some(mark) if mark.boot == boot => {
                mark.time.0.saturating_add(since_boot.saturating_sub(mark.since_boot).max(0))
            }
            Some(mark) => wall.min(mark.time.0.saturating_add(MAX_JUMP)).max(mark.time.0),
        };
        let warning = match wall.saturating_sub(time) {
            by if by > TOLERANCE => Some(ClockWarning::Ahead { by }),
            by if by < -TOLERANCE => Some(ClockWarning::Behind { by: by.saturating_neg() }),
            _ => None,
        };
        (Self { time: PoolTime(time), boot, since_boot }, warning)
    }

    /// Appends it to a record.
    pub fn encode(&self, w: &mut Writer) {
        w.int(self.time.0);
        w.raw(&self.boot);
        w.int(self.since_boot);
    }

    /// Takes it from a record.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`ClockMark::encode`] would not write.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { time: PoolTime(r.int()?), boot: r.array()?, since_boot: r.int()? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    const START: i64 = 1_795_224_464 * SECOND;

    /// A clock and the mark of a pool created by it.
    fn pool() -> (VirtualClock, ClockMark) {
        let clock = VirtualClock::new(START);
        let (mark, warning) = ClockMark::now(None, &clock);
        assert_eq!((mark.time, warning), (PoolTime(START), None));
        (clock, mark)
    }

    #[test]
    fn times_are_shown_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (1_795_224_464, "2026-11-21T01:27:44Z"),
        ] {
            assert_eq!(PoolTime(seconds * SECOND).to_string(), text);
        }
        assert_eq!(PoolTime(i64::MAX).to_string(), "2262-04-11T23:47:16Z");
        assert_eq!(PoolTime(i64::MIN).to_string(), "1677-09-21T00:12:43Z");
    }

    #[test]
    fn days_follow_each_other_over_eight_centuries() {
        let (mut year, mut month, mut day) = (1600, 1, 1);
        for days in -135_140..157_000 {
            assert_eq!(civil(days), (year, month, day));
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 if leap => 29,
                2 => 28,
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            (year, month, day) = match (month, day) {
                (12, 31) => (year + 1, 1, 1),
                (_, last) if last == length => (year, month + 1, 1),
                _ => (year, month, day + 1),
            };
        }
    }

    #[test]
    fn within_a_boot_the_wall_clock_counts_for_nothing() {
        let (clock, mark) = pool();
        clock.advance(5 * SECOND);
        clock.set_wall(START + 3_650 * DAY);
        let (later, warning) = ClockMark::now(Some(&mark), &clock);
        assert_eq!(later.time, PoolTime(START + 5 * SECOND));
        assert_eq!(warning, Some(ClockWarning::Ahead { by: 3_650 * DAY - 5 * SECOND }));
        clock.set_wall(0);
        let (later, warning) = ClockMark::now(Some(&later), &clock);
        assert_eq!(later.time, PoolTime(START + 5 * SECOND));
        assert_eq!(warning, Some(ClockWarning::Behind { by: START + 5 * SECOND }));
    }

    #[test]
    fn a_boot_goes_to_the_wall_clock() {
        let (clock, mark) = pool();
        clock.reboot();
        clock.advance(3 * DAY);
        let (later, warning) = ClockMark::now(Some(&mark), &clock);
        assert_eq!((later.time, warning), (PoolTime(START + 3 * DAY), None));
    }

    #[test]
    fn a_boot_goes_seven_days_at_most() {
        let (clock, mark) = pool();
        clock.reboot();
        clock.set_wall(START + 30 * DAY);
        let (later, warning) = ClockMark::now(Some(&mark), &clock);
        assert_eq!(later.time, PoolTime(START + MAX_JUMP));
        assert_eq!(warning, Some(ClockWarning::Ahead { by: 23 * DAY }));
        assert!(warning.unwrap().to_string().starts_with("the machine's clock is 23 d 0 h 0 min"));
        // Looking again in the same boot gains nothing.
        assert_eq!(ClockMark::now(Some(&later), &clock).0, later);
    }

    #[test]
    fn a_boot_never_goes_back() {
        let (clock, mark) = pool();
        clock.reboot();
        clock.set_wall(0);
        let (later, warning) = ClockMark::now(Some(&mark), &clock);
        assert_eq!(later.time, mark.time);
        assert_eq!(warning, Some(ClockWarning::Behind { by: START }));
    }

    #[test]
    fn the_machine_has_clocks() {
        let clock = SystemClock::new().unwrap();
        let (mark, warning) = ClockMark::now(None, &clock);
        assert_eq!(warning, None);
        assert_ne!(mark.boot, [0; 16]);
        let (later, _) = ClockMark::now(Some(&mark), &clock);
        assert!(later.time >= mark.time && later.boot == mark.boot);
    }

    proptest! {
        /// Whatever is done to the clocks, pool time is monotone, grows by real time within a boot,
        /// and by seven days at most with each boot.
        #[test]
        fn pool_time_is_bounded(steps in prop::collection::vec((0..3u8, any::<i64>()), 0..50)) {
            let (clock, mut mark) = pool();
            let (mut passed, mut boots) = (0i64, 0i64);
            for (what, value) in steps {
                match what {
                    0 => clock.set_wall(value),
                    1 => {
                        let by = value.rem_euclid(DAY);
                        clock.advance(by);
                        passed += by;
                    }
                    _ => {
                        clock.reboot();
                        boots += 1;
                    }
                }
                let (later, _) = ClockMark::now(Some(&mark), &clock);
                prop_assert!(later.time >= mark.time);
                prop_assert!(later.time.since(PoolTime(START)) <= passed + boots * MAX_JUMP);
                mark = later;
            }
        }

        #[test]
        fn marks_survive_records_and_no_mark_makes_it_panic(
            time in any::<i64>(), boot in any::<[u8; 16]>(), since_boot in any::<i64>(),
        ) {
            let mark = ClockMark { time: PoolTime(time), boot, since_boot };
            let mut w = Writer::new();
            mark.encode(&mut w);
            prop_assert_eq!(ClockMark::decode(&mut Reader::new(&w.finish())), Ok(mark));
            let clock = VirtualClock::new(since_boot);
            let (later, warning) = ClockMark::now(Some(&mark), &clock);
            prop_assert!(later.time >= mark.time);
            let _ = (later.time.to_string(), warning.map(|w| w.to_string()));
            let same = ClockMark { boot: clock.boot().0, ..mark };
            prop_assert!(ClockMark::now(Some(&same), &clock).0.time >= mark.time);
        }
    }
}
