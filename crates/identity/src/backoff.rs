//! Waiting longer after each failed login, per account and per address.
//!
//! An attempt counts as failed from its beginning, so that many at once are no way around it. The
//! table is bounded; the failures of users that there are stand in the catalogue as well, for
//! restarts and other nodes. Names that nobody has are treated the same, so that waiting tells
//! nothing about them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::after;
use crate::secret::sha256;

/// Failures that cost nothing: of an account, and of an address, behind which there may be many.
const FREE: u32 = 3;
const FREE_ADDRESS: u32 = 20;
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(300);
/// Failures are forgotten after so long without another.
const FORGET: Duration = Duration::from_secs(3600);
const ENTRIES: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Account([u8; 32]),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    until: Timestamp,
    last: Timestamp,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    table: Mutex<HashMap<Who, Entry>>,
}

/// An attempt that was let through.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    account: Who,
    address: Option<Who>,
}

/// How long to wait after so many failures in a row.
fn wait(failures: u32, free: u32) -> Duration {
    let more = failures.saturating_sub(free);
    if more == 0 {
        return Duration::ZERO;
    }
    LONGEST.min(Duration::from_secs(1 << (more - 1).min(16)))
}

/// Until when an account with so many failures is blocked.
pub(crate) fn blocked_until(failures: u32, now: Timestamp) -> Option<Timestamp> {
    let wait = wait(failures, FREE);
    (!wait.is_zero()).then(|| after(now, wait))
}

impl Backoff {
    /// Begins an attempt, or says how long to wait.
    pub(crate) fn begin(
        &self,
        account: &str,
        address: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<Attempt, Duration> {
        let attempt = Attempt {
            account: Who::Account(sha256(account.as_bytes())),
            address: address.map(|address| Who::Address(network(address))),
        };
        let mut table = self.table();
        let whom = [Some((attempt.account, FREE)), attempt.address.map(|who| (who, FREE_ADDRESS))];
        for (who, _) in whom.into_iter().flatten() {
            if let Some(entry) = table.get(&who)
                && entry.until > now
            {
                let left = entry.until.duration_since(now);
                return Err(Duration::try_from(left).unwrap_or(LONGEST));
            }
        }
        for (who, free) in whom.into_iter().flatten() {
            make_room(&mut table, &who, now);
            let entry = table.entry(who).or_insert(Entry { failures: 0, until: now, last: now });
            if after(entry.last, FORGET) < now {
                entry.failures = 0;
            }
            entry.failures = entry.failures.saturating_add(1);
            entry.until = after(now, wait(entry.failures, free));
            entry.last = now;
        }
        Ok(attempt)
    }

    /// It was good: the account begins anew. The address has one failure less, but no more: else
    /// one good account would be a way to try others for ever.
    pub(crate) fn passed(&self, attempt: Attempt) {
        let mut table = self.table();
        table.remove(&attempt.account);
        undo(&mut table, attempt.address);
    }

    /// It was neither good nor bad.
    pub(crate) fn void(&self, attempt: Attempt) {
        let mut table = self.table();
        undo(&mut table, Some(attempt.account));
        undo(&mut table, attempt.address);
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Who, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn undo(table: &mut HashMap<Who, Entry>, who: Option<Who>) {
    if let Some(entry) = who.and_then(|who| table.get_mut(&who)) {
        entry.failures = entry.failures.saturating_sub(1);
        entry.until = entry.last;
    }
}

/// Makes room for one more: forgets what is old, else what was seen longest ago.
fn make_room(table: &mut HashMap<Who, Entry>, who: &Who, now: Timestamp) {
    if table.len() < ENTRIES || table.contains_key(who) {
        return;
    }
    table.retain(|_, entry| after(entry.last, FORGET) >= now);
    if table.len() >= ENTRIES {
        let oldest = table.iter().min_by_key(|(_, entry)| entry.last).map(|(who, _)| *who);
        oldest.map(|who| table.remove(&who));
    }
}

/// What one customer has: an address of IPv4, 64 bits of IPv6.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    #[test]
    fn each_failure_doubles_the_wait_up_to_an_end() {
        let waits: Vec<u64> = (1..=16).map(|n| wait(n, FREE).as_secs()).collect();
        assert_eq!(waits[..8], [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(waits[15], 300);
        assert_eq!(wait(u32::MAX, FREE), LONGEST);
    }

    #[test]
    fn an_account_waits_and_a_good_login_ends_it() {
        let backoff = Backoff::default();
        for _ in 0..4 {
            backoff.begin("jo", None, at(0)).unwrap();
        }
        assert_eq!(backoff.begin("jo", None, at(0)).unwrap_err().as_secs(), 1);
        assert!(backoff.begin("mo", None, at(0)).is_ok());
        let attempt = backoff.begin("jo", None, at(1)).unwrap();
        assert_eq!(backoff.begin("jo", None, at(2)).unwrap_err().as_secs(), 1);
        backoff.passed(attempt);
        assert!(backoff.begin("jo", None, at(2)).is_ok());
    }

    #[test]
    fn what_was_neither_is_not_counted() {
        let backoff = Backoff::default();
        for _ in 0..100 {
            let attempt = backoff.begin("jo", None, at(0)).unwrap();
            backoff.void(attempt);
        }
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries() {
        let backoff = Backoff::default();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        for i in 0..=FREE_ADDRESS {
            backoff.begin(&format!("user{i}"), Some(one), at(0)).unwrap();
        }
        assert!(backoff.begin("jo", Some(same_network), at(0)).is_err());
        assert!(backoff.begin("jo", Some(other), at(0)).is_ok());
        assert_eq!(
            network("::ffff:10.0.0.1".parse().unwrap()),
            "10.0.0.1".parse::<IpAddr>().unwrap()
        );
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let backoff = Backoff::default();
        for _ in 0..4 {
            backoff.begin("jo", None, at(0)).unwrap();
        }
        for _ in 0..3 {
            backoff.begin("jo", None, at(3602)).unwrap();
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let backoff = Backoff::default();
        for i in 0..ENTRIES + 10 {
            backoff.begin(&i.to_string(), None, at(i as i64 / 1000)).unwrap();
        }
        assert_eq!(backoff.table().len(), ENTRIES);
    }
}
