//! Which images are kept when old ones are forgotten.
//!
//! The rules count by the pool's own time ([`Image::created`]), in UTC: a client with a false clock
//! can't make images older than they are. Each group of images is looked at for itself.
//!
//! - *last N* keeps the N newest images;
//! - *hourly N* (daily, weekly, monthly, yearly) keeps the newest image of each of the N newest
//!   hours (days, weeks by ISO 8601, months, years) that have any: pauses don't count;
//! - *within D* keeps all that are not older than that, counted from the newest image of the group
//!   (so that a series which has ended is not eaten up);
//! - *tag T* keeps all that have this tag.
//!
//! What any rule keeps is kept. Immutable images are kept besides, and still count for the rules.
//! As what is kept is the newest of its period, doing the same again removes nothing more.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{Span, Timestamp, tz::TimeZone};
use strongroom_engine::clock::PoolTime;
use strongroom_engine::id::RootId;

use crate::image::Image;
use crate::{Error, Result, show};

/// A length of calendar time, such as `2y5m7d3h`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Duration {
    /// Calendar years.
    pub years: u16,
    /// Calendar months.
    pub months: u16,
    /// Days.
    pub days: u32,
    /// Hours.
    pub hours: u16,
}

impl Duration {
    /// Reads numbers with the units `y`, `m`, `w`, `d` and `h`, each at most once, in any order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for anything else, and for numbers over 9999.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = || {
            let form =
                "a duration is written like 2y5m7d3h (years, months, w for weeks, days, hours)";
            Error::Invalid(format!("{text:?} is not a duration: {form}"))
        };
        let mut duration = Self::default();
        let mut seen = BTreeSet::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
            let number: u16 = rest[..end].parse().map_err(|_| bad())?;
            let unit = rest.as_bytes()[end];
            if number > 9999 || !seen.insert(unit) {
                return Err(bad());
            }
            match unit {
                b'y' => duration.years = number,
                b'm' => duration.months = number,
                b'w' => duration.days += u32::from(number) * 7,
                b'd' => duration.days += u32::from(number),
                b'h' => duration.hours = number,
                _ => return Err(bad()),
            }
            rest = &rest[end + 1..];
        }
        if seen.is_empty() { Err(bad()) } else { Ok(duration) }
    }

    /// The moment so long before another; the first that can be told if that is none.
    fn before(self, time: PoolTime) -> PoolTime {
        let span =
            Span::new().years(self.years).months(self.months).days(self.days).hours(self.hours);
        Timestamp::from_nanosecond(time.0.into())
            .ok()
            .and_then(|stamp| stamp.to_zoned(TimeZone::UTC).checked_sub(span).ok())
            .and_then(|zoned| i64::try_from(zoned.timestamp().as_nanosecond()).ok())
            .map_or(PoolTime(i64::MIN), PoolTime)
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (years, months, hours) = (self.years.into(), self.months.into(), self.hours.into());
        let parts = [(years, 'y'), (months, 'm'), (self.days, 'd'), (hours, 'h')];
        let mut any = false;
        for (number, unit) in parts {
            if number > 0 {
                write!(f, "{number}{unit}")?;
                any = true;
            }
        }
        if any { Ok(()) } else { f.write_str("0h") }
    }
}

/// What is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// So many of the newest images.
    pub last: Option<u32>,
    /// The newest image of each of so many hours.
    pub hourly: Option<u32>,
    /// Of each of so many days.
    pub daily: Option<u32>,
    /// Of each of so many ISO weeks.
    pub weekly: Option<u32>,
    /// Of each of so many months.
    pub monthly: Option<u32>,
    /// Of each of so many years.
    pub yearly: Option<u32>,
    /// All that are not older than this when the newest of the group was made.
    pub within: Option<Duration>,
    /// All with one of these tags.
    pub tags: Vec<String>,
}

/// What images must have in common to be of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupBy {
    /// The name of their series.
    Name,
    /// The machine they were made on.
    Host,
    /// The paths that were asked for.
    Paths,
    /// Their tags.
    Tags,
}

impl GroupBy {
    /// What is used when nothing is said: name and host.
    pub const DEFAULT: &'static [Self] = &[Self::Name, Self::Host];

    /// Reads a list like `name,host,paths,tags`, or `none`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another word.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        if text == "none" {
            return Ok(Vec::new());
        }
        text.split(',')
            .map(|word| match word.trim() {
                "name" => Ok(Self::Name),
                "host" => Ok(Self::Host),
                "paths" => Ok(Self::Paths),
                "tags" => Ok(Self::Tags),
                other => {
                    let known = "name, host, paths and tags, or none";
                    Err(Error::Invalid(format!(
                        "{other:?} is nothing to group by; there are {known}"
                    )))
                }
            })
            .collect()
    }
}

/// Why an image is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It is one of the newest.
    Last,
    /// It is the newest of its hour, which begins as said.
    Hourly(String),
    /// Of its day.
    Daily(String),
    /// Of its week.
    Weekly(String),
    /// Of its month.
    Monthly(String),
    /// Of its year.
    Yearly(String),
    /// It is not older than that.
    Within(Duration),
    /// It has that tag.
    Tag(String),
    /// Nothing may remove it before that time.
    Immutable(PoolTime),
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Last => f.write_str("one of the last"),
            Self::Hourly(when) => write!(f, "last of hour {when}"),
            Self::Daily(when) => write!(f, "last of day {when}"),
            Self::Weekly(when) => write!(f, "last of week {when}"),
            Self::Monthly(when) => write!(f, "last of month {when}"),
            Self::Yearly(when) => write!(f, "last of year {when}"),
            Self::Within(duration) => write!(f, "within {duration}"),
            Self::Tag(tag) => write!(f, "tag {}", show(tag.as_bytes())),
            Self::Immutable(until) => write!(f, "immutable until {until}"),
        }
    }
}

/// What becomes of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its place in the list that was given.
    pub index: usize,
    /// Which it is.
    pub id: RootId,
    /// Its group, as text: `name=..., host=...`.
    pub group: String,
    /// Why it is kept; it is forgotten when there is no reason.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether it is kept.
    pub fn keep(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// An hour, a day and so on, as numbers that differ where it does, and as text.
type Period = fn(&jiff::Zoned) -> (i64, String);

/// How many periods, which, and the reason that is given.
type Rule = (Option<u32>, Period, fn(String) -> Reason);

fn hour(at: &jiff::Zoned) -> (i64, String) {
    (at.timestamp().as_second().div_euclid(3600), at.strftime("%Y-%m-%d %H:00").to_string())
}

fn day(at: &jiff::Zoned) -> (i64, String) {
    (at.timestamp().as_second().div_euclid(86_400), at.strftime("%Y-%m-%d").to_string())
}

fn week(at: &jiff::Zoned) -> (i64, String) {
    let week = at.date().iso_week_date();
    let (year, number) = (week.year(), week.week());
    (i64::from(year) * 100 + i64::from(number), format!("{year:04}-W{number:02}"))
}

fn month(at: &jiff::Zoned) -> (i64, String) {
    (i64::from(at.year()) * 12 + i64::from(at.month()), at.strftime("%Y-%m").to_string())
}

fn year(at: &jiff::Zoned) -> (i64, String) {
    (at.year().into(), format!("{:04}", at.year()))
}

impl Policy {
    /// Whether it could keep anything.
    fn has_rule(&self) -> bool {
        let counts = [self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().any(|count| count.is_some_and(|n| n > 0))
            || self.within.is_some()
            || !self.tags.is_empty()
    }

    /// Says of every image, in the order given, whether it is kept and why. `now` is the pool's
    /// own time; it decides only what is still immutable.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a policy that says nothing to keep: it would remove all.
    pub fn apply(&self, images: &[Image], by: &[GroupBy], now: PoolTime) -> Result<Vec<Verdict>> {
        if !self.has_rule() {
            let why = "no rule says what to keep, so all images would be forgotten; give at least \
                       one --keep option";
            return Err(Error::Invalid(why.into()));
        }
        let mut verdicts: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(index, image)| Verdict {
                index,
                id: image.id,
                group: group(image, by),
                reasons: Vec::new(),
            })
            .collect();
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for verdict in &verdicts {
            groups.entry(verdict.group.clone()).or_default().push(verdict.index);
        }
        for mut members in groups.into_values() {
            // The newest first; ids decide among images of the same moment.
            members.sort_by_key(|i| std::cmp::Reverse((images[*i].created, images[*i].id)));
            self.group(images, &members, &mut verdicts);
        }
        for (verdict, image) in verdicts.iter_mut().zip(images) {
            if let Some(until) = image.immutable_until
                && until > now
            {
                verdict.reasons.push(Reason::Immutable(until));
            }
        }
        Ok(verdicts)
    }

    /// Gives reasons to the images of one group, which come newest first.
    fn group(&self, images: &[Image], members: &[usize], verdicts: &mut [Verdict]) {
        for i in members.iter().take(self.last.unwrap_or(0) as usize) {
            verdicts[*i].reasons.push(Reason::Last);
        }
        let rules: [Rule; 5] = [
            (self.hourly, hour, Reason::Hourly),
            (self.daily, day, Reason::Daily),
            (self.weekly, week, Reason::Weekly),
            (self.monthly, month, Reason::Monthly),
            (self.yearly, year, Reason::Yearly),
        ];
        for (count, period, reason) in rules {
            let mut left = count.unwrap_or(0);
            let mut last = None;
            for i in members {
                if left == 0 {
                    break;
                }
                let (number, text) = period(&zoned(images[*i].created));
                if last != Some(number) {
                    last = Some(number);
                    left -= 1;
                    verdicts[*i].reasons.push(reason(text));
                }
            }
        }
        if let (Some(within), Some(newest)) = (self.within, members.first()) {
            let since = within.before(images[*newest].created);
            for i in members.iter().take_while(|i| images[**i].created >= since) {
                verdicts[*i].reasons.push(Reason::Within(within));
            }
        }
        for i in members {
            let tags = &images[*i].meta.tags;
            if let Some(tag) = self.tags.iter().find(|tag| tags.contains(tag)) {
                verdicts[*i].reasons.push(Reason::Tag(tag.clone()));
            }
        }
    }
}

/// Any 64-bit count of nanoseconds is a moment between the years 1677 and 2262.
fn zoned(time: PoolTime) -> jiff::Zoned {
    Timestamp::from_nanosecond(time.0.into()).unwrap_or_default().to_zoned(TimeZone::UTC)
}

fn group(image: &Image, by: &[GroupBy]) -> String {
    let mut by = by.to_vec();
    by.sort_unstable();
    by.dedup();
    let parts: Vec<String> = by
        .into_iter()
        .map(|by| match by {
            // Quoted, so that no name can look like two.
            GroupBy::Name => format!("name={:?}", image.name),
            GroupBy::Host => format!("host={:?}", image.meta.host),
            GroupBy::Paths => {
                let paths: BTreeSet<_> = image.meta.paths.iter().map(|path| show(path)).collect();
                format!("paths={paths:?}")
            }
            GroupBy::Tags => {
                let tags: BTreeSet<_> = image.meta.tags.iter().collect();
                format!("tags={tags:?}")
            }
        })
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use strongroom_engine::id::ChunkId;

    use super::*;
    use crate::image::{ImageKind, ImageMeta, Stats};

    const HOUR: i64 = 3_600_000_000_000;

    fn image(id: u8, created: i64) -> Image {
        Image {
            id: RootId([id; 16]),
            name: "n".into(),
            created: PoolTime(created),
            immutable_until: None,
            node: ChunkId([0; 32]),
            meta: ImageMeta {
                kind: ImageKind::Files,
                complete: true,
                host: "h".into(),
                user: String::new(),
                program: String::new(),
                paths: Vec::new(),
                tags: Vec::new(),
                excludes: Vec::new(),
                started: 0,
                ended: 0,
                parent: None,
                stats: Stats::default(),
            },
        }
    }

    fn at(id: u8, text: &str) -> Image {
        let stamp: Timestamp = text.parse().unwrap();
        image(id, stamp.as_nanosecond() as i64)
    }

    fn kept(policy: &Policy, images: &[Image]) -> Vec<u8> {
        let verdicts = policy.apply(images, GroupBy::DEFAULT, PoolTime(0)).unwrap();
        verdicts.iter().filter(|v| v.keep()).map(|v| v.id.0[0]).collect()
    }

    #[test]
    fn periods_are_those_of_the_calendar_in_utc() {
        let images = [
            at(1, "2023-12-31T23:59:59Z"),
            at(2, "2024-01-01T00:00:00Z"),
            at(3, "2024-01-07T22:10:00Z"),
            at(4, "2024-01-07T22:50:00Z"),
            at(5, "2024-01-08T05:00:00Z"),
            at(6, "2024-02-29T05:00:00Z"),
        ];
        let keep = |policy: Policy| kept(&policy, &images);
        let all = Some(99);
        assert_eq!(keep(Policy { hourly: all, ..Policy::default() }), [1, 2, 4, 5, 6]);
        assert_eq!(keep(Policy { daily: all, ..Policy::default() }), [1, 2, 4, 5, 6]);
        // 2024-01-01 is a Monday: its week is of 2024, that of the day before of 2023.
        assert_eq!(keep(Policy { weekly: all, ..Policy::default() }), [1, 4, 5, 6]);
        assert_eq!(keep(Policy { monthly: all, ..Policy::default() }), [1, 5, 6]);
        assert_eq!(keep(Policy { yearly: all, ..Policy::default() }), [1, 6]);
        assert_eq!(keep(Policy { monthly: Some(1), last: Some(2), ..Policy::default() }), [5, 6]);
        let within = |text: &str| {
            keep(Policy { within: Some(Duration::parse(text).unwrap()), ..Policy::default() })
        };
        assert_eq!(within("1m"), [6]);
        assert_eq!(within("1m21d"), [5, 6]);
        assert_eq!(within("1m3w1d"), [3, 4, 5, 6]);
        assert_eq!(within("1y"), [1, 2, 3, 4, 5, 6]);
        assert_eq!(within("0h"), [6]);
    }

    #[test]
    fn reasons_are_told() {
        let mut images = [image(1, 0), image(2, HOUR), image(3, 2 * HOUR)];
        images[0].immutable_until = Some(PoolTime(5 * HOUR));
        images[1].meta.tags = vec!["gold".into()];
        let policy = Policy {
            last: Some(1),
            yearly: Some(3),
            tags: vec!["gold".into(), "x".into()],
            ..Policy::default()
        };
        let told = |now| -> Vec<String> {
            let verdicts = policy.apply(&images, GroupBy::DEFAULT, PoolTime(now)).unwrap();
            assert_eq!(verdicts[0].group, "name=\"n\", host=\"h\"");
            let text = |v: &Verdict| {
                v.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            };
            verdicts.iter().map(text).collect()
        };
        let newest = "one of the last; last of year 1970";
        assert_eq!(told(0), ["immutable until 1970-01-01T05:00:00Z", "tag gold", newest]);
        assert_eq!(told(5 * HOUR), ["", "tag gold", newest]);
    }

    #[test]
    fn groups_are_looked_at_for_themselves() {
        let mut images = [image(1, 1), image(2, 2), image(3, 3), image(4, 4)];
        images[1].name = "other".into();
        images[2].meta.host = "elsewhere".into();
        images[3].meta.tags = vec!["t".into()];
        let policy = Policy { last: Some(1), ..Policy::default() };
        let kept = |by: &str| -> Vec<u8> {
            let by = GroupBy::parse(by).unwrap();
            let verdicts = policy.apply(&images, &by, PoolTime(0)).unwrap();
            verdicts.iter().filter(|v| v.keep()).map(|v| v.id.0[0]).collect()
        };
        assert_eq!(kept("name,host"), [2, 3, 4]);
        assert_eq!(kept("host,name"), [2, 3, 4]);
        assert_eq!(kept("none"), [4]);
        assert_eq!(kept("tags"), [3, 4]);
        assert_eq!(kept("paths"), [4]);
        assert!(GroupBy::parse("size").is_err());
    }

    #[test]
    fn a_policy_that_keeps_nothing_is_refused() {
        for policy in [Policy::default(), Policy { last: Some(0), ..Policy::default() }] {
            let error = policy.apply(&[image(1, 0)], GroupBy::DEFAULT, PoolTime(0)).unwrap_err();
            assert!(error.to_string().contains("--keep"), "{error}");
        }
    }

    #[test]
    fn durations_read_as_they_are_shown() {
        let duration = Duration::parse("2y5m7d3h").unwrap();
        assert_eq!(duration, Duration { years: 2, months: 5, days: 7, hours: 3 });
        assert_eq!(duration.to_string(), "2y5m7d3h");
        assert_eq!(Duration::parse("2w1d").unwrap().days, 15);
        for bad in ["", "5", "d", "1d1d", "-1d", "1s", "99999d", "70000d", "1 d", "1\u{e9}"] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
        // Longer than there is time.
        let long = Duration::parse("9999y9999m9999w9999d9999h").unwrap();
        assert_eq!(long.before(PoolTime(0)), PoolTime(i64::MIN));
    }

    fn policies() -> impl Strategy<Value = Policy> {
        let count = || prop::option::of(0u32..6);
        let counts = (count(), count(), count(), count(), count(), count());
        let within = prop::option::of(
            (0u16..2, 0u16..3, 0u32..9, 0u16..30)
                .prop_map(|(years, months, days, hours)| Duration { years, months, days, hours }),
        );
        (counts, within, any::<bool>()).prop_map(|(counts, within, tagged)| Policy {
            last: counts.0,
            hourly: counts.1,
            daily: counts.2,
            weekly: counts.3,
            monthly: counts.4,
            yearly: counts.5,
            within,
            tags: if tagged { vec!["t".into()] } else { Vec::new() },
        })
    }

    fn lists() -> impl Strategy<Value = Vec<Image>> {
        let one = (0i64..24 * 800, any::<bool>(), 0u8..2, prop::option::of(0i64..24 * 900));
        prop::collection::vec(one, 0..40).prop_map(|list| {
            let list = list.into_iter().enumerate();
            list.map(|(i, (hours, tagged, host, immutable))| {
                let mut image = image(i as u8, hours * HOUR / 3);
                image.meta.host = host.to_string();
                if tagged && i % 5 == 0 {
                    image.meta.tags.push("t".into());
                }
                image.immutable_until =
                    immutable.filter(|_| i % 7 == 0).map(|h| PoolTime(h * HOUR));
                image
            })
            .collect()
        })
    }

    fn survivors(policy: &Policy, images: &[Image], now: PoolTime) -> Vec<Image> {
        let verdicts = policy.apply(images, GroupBy::DEFAULT, now).unwrap();
        let kept = verdicts.iter().filter(|v| v.keep());
        kept.map(|v| images[v.index].clone()).collect()
    }

    proptest! {
        #[test]
        fn doing_it_again_changes_nothing(
            policy in policies().prop_filter("a rule", Policy::has_rule),
            images in lists(),
            now in 0i64..24 * 900,
        ) {
            let now = PoolTime(now * HOUR);
            let once = survivors(&policy, &images, now);
            prop_assert_eq!(&survivors(&policy, &once, now), &once);
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(
            policy in policies().prop_filter("a rule", Policy::has_rule),
            images in lists(),
            turn in any::<prop::sample::Index>(),
        ) {
            let mut other = images.clone();
            other.reverse();
            if !other.is_empty() {
                let by = turn.index(other.len());
                other.rotate_left(by);
            }
            let ids = |images: Vec<Image>| -> BTreeSet<RootId> {
                images.into_iter().map(|image| image.id).collect()
            };
            let now = PoolTime(0);
            prop_assert_eq!(
                ids(survivors(&policy, &images, now)),
                ids(survivors(&policy, &other, now))
            );
        }

        #[test]
        fn the_newest_are_kept_and_more_rules_keep_more(
            policy in policies(),
            images in lists(),
            last in 1u32..9,
        ) {
            let only = Policy { last: Some(last), ..Policy::default() };
            let both = Policy { last: Some(last), ..policy };
            let now = PoolTime(i64::MAX);
            for host in ["0", "1"] {
                let of = |images: &[Image]| -> Vec<(PoolTime, RootId)> {
                    let own = images.iter().filter(|image| image.meta.host == host);
                    let mut own: Vec<_> = own.map(|image| (image.created, image.id)).collect();
                    own.sort();
                    own
                };
                let all = of(&images);
                let newest = &all[all.len().saturating_sub(last as usize)..];
                prop_assert_eq!(&of(&survivors(&only, &images, now))[..], newest);
                let more = of(&survivors(&both, &images, now));
                prop_assert!(newest.iter().all(|image| more.contains(image)));
            }
        }

        #[test]
        fn what_is_immutable_stays(
            policy in policies().prop_filter("a rule", Policy::has_rule),
            images in lists(),
            now in 0i64..24 * 900,
        ) {
            let now = PoolTime(now * HOUR);
            let kept = survivors(&policy, &images, now);
            for image in images {
                if image.immutable_until.is_some_and(|until| until > now) {
                    prop_assert!(kept.contains(&image));
                }
            }
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in "\\PC{0,12}|[0-9ymwdh]{0,12}") {
            let _ = Duration::parse(&text).map(|duration| duration.before(PoolTime(0)));
            let _ = GroupBy::parse(&text);
        }

        #[test]
        fn any_moment_has_its_periods(nanos in any::<i64>()) {
            let images = [image(1, nanos)];
            let policy = Policy {
                hourly: Some(1), daily: Some(1), weekly: Some(1), monthly: Some(1), yearly: Some(1),
                within: Some(Duration { years: 9999, months: 0, days: 0, hours: 0 }),
                ..Policy::default()
            };
            prop_assert_eq!(kept(&policy, &images), [1]);
        }
    }
}
