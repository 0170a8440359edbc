//! What the rows say: numbers with a fixed seed, so that every run has the same.

use strongroom_catalog::{Sql, Value};

use crate::Sizes;

pub(crate) const HOSTS: u64 = 2_000;
pub(crate) const POOLS: u64 = 8;
pub(crate) const ORGANISATIONS: u64 = 20;
const USERS: u64 = 50;
/// The newest row's time, 2026-11-01; the oldest is two years older.
pub(crate) const END: i64 = 1_793_491_200_000_000;
pub(crate) const SPAN: i64 = 2 * 365 * DAY;
pub(crate) const DAY: i64 = 86_400_000_000;

pub(crate) const ROLES: &[&str] =
    &["web", "db", "mail", "build", "cache", "files", "auth", "queue", "log", "desk"];
pub(crate) const SERIES: &[&str] = &["etc", "home", "data"];
const TAGS: &[&str] = &["", "", "weekly", "monthly\nkeep", "before upgrade", "legal hold"];
const KINDS: &[&str] = &["backup.done", "backup.started", "verify.done", "gc.done", "restore.done"];
const WARNINGS: &[&str] = &["pool.space", "backup.warnings", "disk.slow"];
const ERRORS: &[&str] = &["backup.failed", "disk.failed"];

/// SplitMix64: <https://prng.di.unimi.it/splitmix64.c>
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Below `end`, small ones more often.
    pub(crate) fn skewed(&mut self, end: u64) -> u64 {
        self.below(end).min(self.below(end)).min(self.below(end))
    }

    pub(crate) fn of<'a>(&mut self, words: &'a [&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }
}

pub(crate) fn host(number: u64) -> String {
    format!("{}-{number:04}.example.org", ROLES[number as usize % ROLES.len()])
}

/// The serial number of a disk: a word that few rows have.
pub(crate) fn serial(number: u64) -> String {
    format!("ZA{:06X}", number.wrapping_mul(2_654_435_761) % 0xff_ffff)
}

pub(crate) const IMAGE: &str = "INSERT INTO images (pool_id, organisation_id, root, parent, name, kind, host, \
    user_name, paths, tags, complete, started_at, created_at, expires_at, immutable_until, files, \
    size, new_size, stored_size, job_id, search) VALUES ";
pub(crate) const IMAGE_PLACES: &str =
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";

pub(crate) fn image(sql: &mut Sql, number: u64, sizes: Sizes) {
    let mut random = Random(number);
    let of = random.skewed(HOSTS);
    let host = host(of);
    let series = random.of(SERIES);
    let name = format!("{}/{series}", host.split('.').next().unwrap_or_default());
    let step = SPAN / sizes.images.max(1).cast_signed();
    let created = END - SPAN + number.cast_signed() * step + random.below(DAY as u64).cast_signed();
    let kind = if random.below(20) == 0 { "block" } else { "files" };
    let user = format!("user{:02}", random.below(USERS));
    let paths = format!("/{series}\n/srv/{}", ROLES[of as usize % ROLES.len()]);
    let tags = random.of(TAGS);
    let size = 1i64 << (14 + random.below(26));
    let size = size + random.below(size as u64).cast_signed();
    let new = size / (1 + random.below(200).cast_signed());
    let expires = random.below(5) > 0;
    let expires = expires.then(|| created + (30 + random.below(335).cast_signed()) * DAY);
    let locked = (random.below(10) == 0).then_some(created + 14 * DAY);
    let search = format!("{name}\n{host}\n{user}\n{paths}\n{tags}").to_lowercase();
    let values: [Value; 21] = [
        (1 + random.skewed(POOLS).cast_signed()).into(),
        (1 + (of % ORGANISATIONS).cast_signed()).into(),
        root(number).into(),
        (number > HOSTS).then(|| root(number - HOSTS)).into(),
        name.into(),
        kind.into(),
        host.into(),
        user.into(),
        paths.into(),
        tags.into(),
        (random.below(50) > 0).into(),
        (created - random.below(3_600_000_000).cast_signed()).into(),
        created.into(),
        expires.into(),
        locked.into(),
        (size / 30_000).into(),
        size.into(),
        new.into(),
        (new / 2).into(),
        number.cast_signed().into(),
        search.into(),
    ];
    for value in values {
        sql.value(value);
    }
}

/// The root of an image.
pub(crate) fn root(number: u64) -> String {
    let mut random = Random(!number);
    format!("{:016x}{:016x}", random.next(), random.next())
}

pub(crate) const EVENT: &str = "INSERT INTO events \
    (at, severity, kind, organisation_id, object, job_id, message, search) VALUES ";
pub(crate) const EVENT_PLACES: &str = "(?, ?, ?, ?, ?, ?, ?, ?)";

pub(crate) fn event(sql: &mut Sql, number: u64, sizes: Sizes) {
    let mut random = Random(number ^ (1 << 40));
    let step = SPAN / sizes.events.max(1).cast_signed();
    let at = END - SPAN + number.cast_signed() * step + random.below(1_000_000).cast_signed();
    let (severity, kind) = match random.below(100) {
        0..2 => ("error", random.of(ERRORS)),
        2..10 => ("warning", random.of(WARNINGS)),
        _ => ("info", random.of(KINDS)),
    };
    let of = random.skewed(HOSTS);
    let host = host(of);
    let job = (random.below(5) > 0).then_some(number.cast_signed() / 5);
    let message = match kind {
        "disk.slow" | "disk.failed" => {
            format!("disk {} of {host} answers late or not at all", serial(random.below(20_000)))
        }
        "pool.space" => format!("pool-{} is {} % full", random.below(8), 80 + random.below(20)),
        _ => format!("{} of {host}: {} files", random.of(SERIES), random.below(1_000_000)),
    };
    let search = format!("{kind}\n{host}\n{message}").to_lowercase();
    let values: [Value; 8] = [
        at.into(),
        severity.into(),
        kind.into(),
        (1 + (of % ORGANISATIONS).cast_signed()).into(),
        host.into(),
        job.into(),
        message.into(),
        search.into(),
    ];
    for value in values {
        sql.value(value);
    }
}
