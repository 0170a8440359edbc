//! Retention: which images stay.
//!
//! Images are grouped by name and host, and by the client's key that they are sealed under; the rules
//! hold for each group (so the latest under a key that is no longer used stay by `keep-last`). An
//! image stays when any rule keeps it, and every rule that does is told. Time is the pool's own: a
//! client with a wrong clock, or one that wants to push out older images by dating new ones ahead,
//! changes nothing. No rule takes an image that says itself how long it is kept, before that is over,
//! and it counts for none: the latest that stays is kept beside it.
//! Hours, days, weeks (ISO 8601), months and years are those of UTC.
//!
//! `keep-hourly 24` keeps the latest image of each of the last 24 hours *that have one*, and so do
//! the others: a machine that was off for a month loses nothing by it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use strongroom_engine::clock::PoolTime;

use crate::image::Image;
use crate::{Error, Result};

/// What is kept of each group. Without any rule, nothing may be forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The latest so many.
    pub last: u64,
    /// The latest of each of so many hours.
    pub hourly: u64,
    /// The latest of each of so many days.
    pub daily: u64,
    /// The latest of each of so many weeks.
    pub weekly: u64,
    /// The latest of each of so many months.
    pub monthly: u64,
    /// The latest of each of so many years.
    pub yearly: u64,
    /// All that are not older than so many nanoseconds before the group's latest.
    pub within: Option<i64>,
    /// All with any of these tags.
    pub tags: Vec<String>,
}

/// Why an image is kept.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Among the latest.
    Last,
    /// The latest of its hour.
    Hourly,
    /// The latest of its day.
    Daily,
    /// The latest of its week.
    Weekly,
    /// The latest of its month.
    Monthly,
    /// The latest of its year.
    Yearly,
    /// Young enough.
    Within,
    /// It has this tag.
    Tag(String),
    /// It says itself how long it is kept, and that isn't over.
    Retention,
    /// Nothing may remove it yet, whatever the rules say.
    Immutable,
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last => f.write_str("last"),
            Self::Hourly => f.write_str("hourly"),
            Self::Daily => f.write_str("daily"),
            Self::Weekly => f.write_str("weekly"),
            Self::Monthly => f.write_str("monthly"),
            Self::Yearly => f.write_str("yearly"),
            Self::Within => f.write_str("within"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Retention => f.write_str("retention"),
            Self::Immutable => f.write_str("immutable"),
        }
    }
}

/// What happens to an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'i> {
    /// Which.
    pub image: &'i Image,
    /// Why it stays; it goes when there is no reason.
    pub reasons: Vec<Reason>,
}

impl Verdict<'_> {
    /// Whether it stays.
    pub fn stays(&self) -> bool {
        !self.reasons.is_empty()
    }
}

impl Policy {
    /// Whether it has no rule.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Judges images, at the pool's own time `now`; the order of verdicts is that of groups (by
    /// name, host and key), and in a group from the latest to the oldest.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a policy without rules: it would forget everything.
    pub fn judge<'i>(
        &self,
        images: impl IntoIterator<Item = &'i Image>,
        now: PoolTime,
    ) -> Result<Vec<Verdict<'i>>> {
        if self.is_empty() {
            let why = "a policy that keeps nothing is refused: give at least one --keep option";
            return Err(Error::Invalid(why.into()));
        }
        let mut groups: BTreeMap<_, Vec<&Image>> = BTreeMap::new();
        for image in images {
            let key = image.meta.sealing.as_ref().map(|sealing| sealing.key.0);
            groups.entry((&image.name, &image.meta.host, key)).or_default().push(image);
        }
        let mut verdicts = Vec::new();
        for group in groups.values_mut() {
            group.sort_by_key(|image| std::cmp::Reverse((image.created, image.id)));
            self.judge_group(group, now, &mut verdicts);
        }
        Ok(verdicts)
    }

    fn judge_group<'i>(&self, group: &[&'i Image], now: PoolTime, out: &mut Vec<Verdict<'i>>) {
        let mut periods: [(Reason, u64, Period, Option<i64>); 5] = [
            (Reason::Hourly, self.hourly, hour, None),
            (Reason::Daily, self.daily, day, None),
            (Reason::Weekly, self.weekly, week, None),
            (Reason::Monthly, self.monthly, month, None),
            (Reason::Yearly, self.yearly, year, None),
        ];
        // One that goes by itself takes no place of one that would stay: after it there would be none.
        let lasts = |image: &&&Image| image.expires().is_none();
        let latest = group.iter().find(lasts).map(|image| image.created);
        let mut place = 0;
        for image in group.iter().copied() {
            let mut reasons = Vec::new();
            if let Some(latest) = latest.filter(|_| lasts(&&image)) {
                if place < self.last {
                    reasons.push(Reason::Last);
                }
                place += 1;
                for (reason, left, period, last) in &mut periods {
                    let this = Some(period(image.created));
                    if *left > 0 && *last != this {
                        *left -= 1;
                        *last = this;
                        reasons.push(reason.clone());
                    }
                }
                let age = latest.0.saturating_sub(image.created.0);
                if self.within.is_some_and(|within| age <= within) {
                    reasons.push(Reason::Within);
                }
            }
            let tags = self.tags.iter().filter(|tag| image.meta.tags.contains(tag));
            reasons.extend(tags.cloned().map(Reason::Tag));
            if image.expires().is_some_and(|at| at > now) {
                reasons.push(Reason::Retention);
            }
            if image.immutable_until.is_some_and(|until| until > now) {
                reasons.push(Reason::Immutable);
            }
            out.push(Verdict { image, reasons });
        }
    }
}

/// The number of the hour, day or the like that a moment lies in.
type Period = fn(PoolTime) -> i64;

const HOUR: i64 = 3_600_000_000_000;

fn hour(time: PoolTime) -> i64 {
    time.0.div_euclid(HOUR)
}

fn day(time: PoolTime) -> i64 {
    time.0.div_euclid(24 * HOUR)
}

/// Weeks begin on Monday; the epoch was a Thursday.
fn week(time: PoolTime) -> i64 {
    (day(time) + 3).div_euclid(7)
}

fn month(time: PoolTime) -> i64 {
    let date = date(time);
    i64::from(date.year()) * 12 + i64::from(date.month())
}

fn year(time: PoolTime) -> i64 {
    i64::from(date(time).year())
}

fn date(time: PoolTime) -> jiff::civil::Date {
    // 64 bits of nanoseconds are the years 1677 to 2262, which every date can say.
    let stamp = Timestamp::from_nanosecond(time.0.into()).unwrap_or_default();
    stamp.to_zoned(TimeZone::UTC).date()
}

/// Reads a length of time: numbers with `y`, `m` (30 days), `w`, `d`, `h`, `min` or `s`, as in
/// `1y6m` or `30d`. Gives nanoseconds.
///
/// # Errors
/// [`Error::Invalid`] for what isn't one, or is longer than 64 bits of nanoseconds (292 years).
pub fn parse_span(text: &str) -> Result<i64> {
    let bad = || {
        Error::Invalid(format!("{text:?} is no length of time: write it like 36h, 30d, 2w or 1y6m"))
    };
    let mut rest = text.trim();
    let mut total = 0i64;
    if rest.is_empty() {
        return Err(bad());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let hours = match unit {
            "y" => 365 * 24 * HOUR,
            "m" | "mo" => 30 * 24 * HOUR,
            "w" => 7 * 24 * HOUR,
            "d" => 24 * HOUR,
            "h" => HOUR,
            "min" => HOUR / 60,
            "s" => HOUR / 3600,
            _ => return Err(bad()),
        };
        let number: i64 = number.parse().map_err(|_| bad())?;
        total = number.checked_mul(hours).and_then(|n| total.checked_add(n)).ok_or_else(bad)?;
        rest = tail.trim_start();
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::HashSet;

    use proptest::prelude::*;
    use strongroom_engine::id::{ChunkId, RootId};

    use super::*;
    use crate::image::{ImageKind, ImageMeta, Sealing, Stats};
    use crate::sealed::KeyId;

    fn image(number: u64, host: &str, created: i64, tags: &[&str]) -> Image {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        Image {
            id: RootId(id),
            name: "n".into(),
            created: PoolTime(created),
            immutable_until: None,
            node: ChunkId([0; 32]),
            meta: ImageMeta {
                kind: ImageKind::Files,
                complete: true,
                host: host.into(),
                user: String::new(),
                program: String::new(),
                paths: Vec::new(),
                tags: tags.iter().map(|tag| (*tag).into()).collect(),
                excludes: Vec::new(),
                started: 0,
                ended: 0,
                parent: None,
                stats: Stats::default(),
                sealing: None,
                kept_for: None,
            },
        }
    }

    fn kept(policy: &Policy, images: &[Image]) -> Vec<i64> {
        let verdicts = policy.judge(images, PoolTime(0)).unwrap();
        verdicts.iter().filter(|v| v.stays()).map(|v| v.image.created.0 / HOUR).collect()
    }

    #[test]
    fn each_rule_keeps_what_it_says() {
        let images: Vec<_> =
            (0..24 * 60).map(|hours| image(hours as u64, "h", hours * HOUR, &[])).collect();
        let of = |policy: Policy| kept(&policy, &images);
        assert_eq!(of(Policy { last: 3, ..Policy::default() }), [1439, 1438, 1437]);
        assert_eq!(of(Policy { hourly: 2, ..Policy::default() }), [1439, 1438]);
        assert_eq!(of(Policy { daily: 3, ..Policy::default() }), [1439, 1415, 1391]);
        // 1970-03-01 was a Sunday: its week ends with the last image.
        assert_eq!(of(Policy { weekly: 2, ..Policy::default() }), [1439, 1439 - 168]);
        assert_eq!(
            of(Policy { monthly: 9, ..Policy::default() }),
            [1439, 59 * 24 - 1, 31 * 24 - 1]
        );
        assert_eq!(of(Policy { yearly: 1, ..Policy::default() }), [1439]);
        assert_eq!(of(Policy { within: Some(2 * HOUR), ..Policy::default() }), [1439, 1438, 1437]);
    }

    #[test]
    fn what_is_sealed_under_a_key_is_a_series_of_its_own() {
        let sealed = |number: u64, key: u8| {
            let mut image = image(number, "h", number as i64 * HOUR, &[]);
            image.meta.sealing = Some(Sealing { key: KeyId([key; 8]), hidden: vec![1] });
            image
        };
        let images = [sealed(1, 1), sealed(2, 1), sealed(3, 2), image(4, "h", 4 * HOUR, &[])];
        let mut stays = kept(&Policy { last: 1, ..Policy::default() }, &images);
        stays.sort_unstable();
        assert_eq!(stays, [2, 3, 4]);
    }

    #[test]
    fn groups_tags_and_immutability_count() {
        let mut images = vec![
            image(1, "a", HOUR, &["keep"]),
            image(2, "a", 2 * HOUR, &[]),
            image(3, "a", 3 * HOUR, &[]),
            image(4, "b", HOUR, &[]),
        ];
        let policy = Policy { last: 1, tags: vec!["keep".into()], ..Policy::default() };
        assert_eq!(kept(&policy, &images), [3, 1, 1]);
        images[1].immutable_until = Some(PoolTime(5));
        assert_eq!(kept(&policy, &images), [3, 2, 1, 1]);
        assert!(Policy::default().judge(&images, PoolTime(0)).is_err());
        images[1].immutable_until = None;
        images[1].meta.kept_for = Some(1);
        assert_eq!(kept(&policy, &images), [3, 2, 1, 1]);
        images[1].meta.kept_for = Some(-2 * HOUR);
        assert_eq!(kept(&policy, &images), [3, 1, 1]);
    }

    /// Else a series could end with nothing, once they go.
    #[test]
    fn images_that_go_by_themselves_take_nobodys_place() {
        let mut images = vec![
            image(1, "a", HOUR, &[]),
            image(2, "a", 2 * HOUR, &[]),
            image(3, "a", 3 * HOUR, &[]),
        ];
        for (kept_for, stays) in [(Some(1), vec![3, 2]), (Some(-3 * HOUR), vec![2])] {
            images[2].meta.kept_for = kept_for;
            for policy in [
                Policy { last: 1, ..Policy::default() },
                Policy { daily: 1, ..Policy::default() },
                Policy { within: Some(0), ..Policy::default() },
            ] {
                assert_eq!(kept(&policy, &images), stays, "{policy:?}");
            }
        }
    }

    #[test]
    fn spans_are_read() {
        assert_eq!(parse_span("36h").unwrap(), 36 * HOUR);
        assert_eq!(parse_span("1w 2d").unwrap(), 9 * 24 * HOUR);
        assert_eq!(parse_span("1y6m").unwrap(), (365 + 180) * 24 * HOUR);
        for text in ["", "d", "5", "5x", "-1d", "999999999y", "1.5d"] {
            assert!(parse_span(text).is_err(), "{text}");
        }
    }

    fn policy() -> impl Strategy<Value = Policy> {
        (0..4u64, 0..4u64, 0..4u64, 0..4u64, 0..4u64, 1..4u64).prop_map(
            |(last, hourly, daily, weekly, monthly, yearly)| Policy {
                last,
                hourly,
                daily,
                weekly,
                monthly,
                yearly,
                ..Policy::default()
            },
        )
    }

    proptest! {
        #[test]
        fn the_latest_always_stays_and_forgetting_twice_is_forgetting_once(
            policy in policy(),
            times in prop::collection::vec(0i64..50_000 * HOUR, 1..60),
        ) {
            let images: Vec<_> =
                times.iter().enumerate().map(|(i, t)| image(i as u64, "h", *t, &[])).collect();
            let verdicts = policy.judge(&images, PoolTime(0)).unwrap();
            prop_assert_eq!(verdicts.len(), images.len());
            prop_assert!(verdicts[0].stays());
            let stay: Vec<Image> =
                verdicts.iter().filter(|v| v.stays()).map(|v| v.image.clone()).collect();
            let again = policy.judge(&stay, PoolTime(0)).unwrap();
            prop_assert!(again.iter().all(Verdict::stays));
        }

        #[test]
        fn each_rule_keeps_no_more_than_it_says(
            policy in policy(),
            times in prop::collection::vec(0i64..50_000 * HOUR, 1..60),
        ) {
            let images: Vec<_> =
                times.iter().enumerate().map(|(i, t)| image(i as u64, "h", *t, &[])).collect();
            let verdicts = policy.judge(&images, PoolTime(0)).unwrap();
            let count = |reason: Reason| {
                verdicts.iter().filter(|v| v.reasons.contains(&reason)).count() as u64
            };
            prop_assert_eq!(count(Reason::Last), policy.last.min(images.len() as u64));
            let days: HashSet<i64> = images.iter().map(|image| day(image.created)).collect();
            prop_assert_eq!(count(Reason::Daily), policy.daily.min(days.len() as u64));
            let weeks: HashSet<i64> = images.iter().map(|image| week(image.created)).collect();
            prop_assert_eq!(count(Reason::Weekly), policy.weekly.min(weeks.len() as u64));
        }

        #[test]
        fn no_time_makes_it_panic(time in any::<i64>(), other in any::<i64>()) {
            let images = [image(1, "h", time, &[]), image(2, "h", other, &[])];
            let policy = Policy { monthly: 1, within: Some(5), ..Policy::default() };
            policy.judge(&images, PoolTime(0)).unwrap();
        }
    }
}
