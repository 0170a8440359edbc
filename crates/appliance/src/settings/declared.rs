//! All settings, declared once each. A new one is a line here, and whoever is given it.
//!
//! What must be known before the catalogue opens is in the configuration file instead. All settings
//! take effect without a restart.

use std::time::Duration;

/// What a setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Hours.
    Hours,
    /// Days.
    Days,
    /// Whatever its meaning says.
    Things,
}

impl Unit {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Hours => "hours",
            Self::Days => "days",
            Self::Things => "things",
        }
    }
}

/// What is known of a setting beside its value.
#[derive(Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name, in words with a point between.
    pub key: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it is when nobody says.
    pub default: u64,
    /// The least that it may be.
    pub least: u64,
    /// The most that it may be.
    pub most: u64,
    /// What it means.
    pub meaning: &'static str,
}

/// What a count of some unit is in the program.
trait Held {
    fn held(unit: Unit, count: u64) -> Self;
}

impl Held for Duration {
    fn held(unit: Unit, count: u64) -> Self {
        Self::from_secs(match unit {
            Unit::Seconds | Unit::Things => count,
            Unit::Hours => count * 3600,
            Unit::Days => count * 86_400,
        })
    }
}

impl Held for u32 {
    fn held(_: Unit, count: u64) -> Self {
        // The bounds of settings are within it, as a test says.
        Self::try_from(count).unwrap_or(Self::MAX)
    }
}

macro_rules! held {
    (Things) => {
        u32
    };
    ($time:ident) => {
        Duration
    };
}

macro_rules! settings {
    ($($field:ident: $unit:ident, $default:literal in $least:literal..=$most:literal,
        $key:literal, $meaning:literal;)*) => {
        /// All settings, as they are.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Values {
            $(#[doc = $meaning] pub $field: held!($unit),)*
        }

        /// All settings, in the order of their keys.
        pub static DEFINITIONS: &[Definition] = &[$(Definition {
            key: $key,
            unit: Unit::$unit,
            default: $default,
            least: $least,
            most: $most,
            meaning: $meaning,
        }),*];

        impl Values {
            /// Of what each key has.
            pub(super) fn of(count: impl Fn(&str) -> u64) -> Self {
                Self { $($field: <held!($unit) as Held>::held(Unit::$unit, count($key)),)* }
            }
        }
    };
}

settings! {
    appliance_backup_every: Hours, 0 in 0..=8760, "appliance_backup.every",
        "The appliance is backed up, sealed under the administration token and stored in the pool main, every so many hours; 0: never.";
    appliance_backup_keep: Things, 7 in 1..=10_000, "appliance_backup.keep",
        "Of the scheduled backups so many stay in the pool, the latest.";
    approvals_kept: Days, 365 in 1..=36_500, "approvals.kept",
        "What needed approval is removed so many days after it lapsed; the audit trail keeps it.";
    events_kept: Days, 365 in 0..=36_500, "events.kept",
        "Events are removed after so many days; 0: never.";
    gc_every: Hours, 24 in 0..=8760, "gc.every",
        "Garbage of a pool is collected so many hours after the last collection when anything was forgotten or overwritten since; 0: not for that.";
    gc_free: Things, 10 in 0..=90, "gc.free",
        "Garbage of a pool is collected when less than so many percent of its fullest disk are free and anything was forgotten or overwritten since the last collection; 0: not for that.";
    gc_overwritten: Things, 20 in 0..=100, "gc.overwritten",
        "Garbage of a pool is collected when chunks of volumes were overwritten since the last collection that are so many percent of the pool's; 0: not for that.";
    gc_pause: Seconds, 300 in 1..=604_800, "gc.pause",
        "The appliance collects garbage of a pool no sooner than so many seconds after the last collection, and longer after one that took long or freed little.";
    idempotency_kept: Hours, 24 in 1..=720, "idempotency.kept",
        "The same request with the same Idempotency-Key has the same answer for so many hours.";
    jobs_attempts: Things, 3 in 1..=100, "jobs.attempts",
        "How often a job is tried before it has failed, unless its asker says.";
    jobs_backoff: Seconds, 30 in 1..=86_400, "jobs.backoff",
        "A job that failed is tried again after so many seconds, twice as many after each further failure.";
    jobs_backoff_most: Seconds, 3600 in 1..=604_800, "jobs.backoff_most",
        "The most seconds between two tries of a job.";
    jobs_kept: Days, 365 in 0..=36_500, "jobs.kept",
        "Jobs are removed, with their logs, so many days after they were over; 0: never.";
    jobs_per_host: Things, 4 in 1..=1000, "jobs.per_host",
        "How many jobs run at once on one host, of all nodes together.";
    jobs_per_node: Things, 8 in 0..=1000, "jobs.per_node",
        "How many jobs run at once on each node; with 0 none is begun.";
    jobs_per_pool: Things, 4 in 1..=1000, "jobs.per_pool",
        "How many jobs run at once on one pool, of all nodes together.";
    login_forget: Seconds, 3600 in 60..=604_800, "login.forget",
        "Failed logins are forgotten after so many seconds without another.";
    login_free: Things, 3 in 1..=100, "login.free",
        "So many failed logins of an account cost nothing; then one waits, longer each time.";
    login_free_address: Things, 20 in 1..=10_000, "login.free_address",
        "As login.free, of an address, behind which there may be many.";
    login_wait_most: Seconds, 300 in 1..=86_400, "login.wait_most",
        "The most seconds that one waits after a failed login.";
    password_shortest: Things, 8 in 8..=128, "password.shortest",
        "Characters that a new password has at least.";
    sessions_idle: Seconds, 3600 in 60..=2_592_000, "sessions.idle",
        "A session ends after so many seconds without use. Of sessions opened from now on.";
    sessions_life: Seconds, 43_200 in 60..=31_536_000, "sessions.life",
        "A session ends after so many seconds whatever happens. Of sessions opened from now on.";
    sessions_per_user: Things, 100 in 1..=10_000, "sessions.per_user",
        "Sessions that a user has at once; the one used longest ago makes room for one more.";
    stats_days_kept: Days, 1826 in 30..=36_500, "stats.days_kept",
        "How pools were on each day is kept for so many days.";
    stats_hours_kept: Days, 90 in 1..=3660, "stats.hours_kept",
        "How pools were in each hour is kept for so many days.";
    tokens_access: Seconds, 900 in 60..=86_400, "tokens.access",
        "An access token lives for so many seconds; a JWT so long without use.";
    tokens_refresh: Seconds, 43_200 in 60..=31_536_000, "tokens.refresh",
        "An access token can be renewed for so many seconds; a JWT lives no longer.";
    update_start: Seconds, 900 in 1..=86_400, "update.start",
        "An update that does not answer within so many seconds is rolled back.";
    update_trial: Seconds, 300 in 1..=86_400, "update.trial",
        "An update that fails within so many seconds after its first answer is rolled back.";
    volumes_overloaded: Things, 90 in 1..=100, "volumes.overloaded",
        "A volume of which so many percent are written is told to be nearly full.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_itself_and_within_its_bounds() {
        for pair in DEFINITIONS.windows(2) {
            assert!(pair[0].key < pair[1].key, "{} and {}", pair[0].key, pair[1].key);
        }
        for one in DEFINITIONS {
            assert!((one.least..=one.most).contains(&one.default), "{}", one.key);
            assert!(one.most <= u64::from(u32::MAX), "{}: counts are 32 bits wide", one.key);
            assert!(one.meaning.ends_with('.'), "{}", one.key);
            let is_word = |c: char| c.is_ascii_lowercase() || matches!(c, '.' | '_');
            assert!(one.key.contains('.') && one.key.chars().all(is_word), "{}", one.key);
        }
    }
}
