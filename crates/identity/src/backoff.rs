//! Waiting longer after each failed login, per account and per address.
//!
//! Attempts that are under way are counted, so that many at once are no way around it; one that is
//! given up has failed. The table is bounded; the failures of users that there are stand in the
//! catalogue as well, for restarts and other nodes. Names that nobody has are treated the same, so that waiting tells
//! nothing about them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::after;
use crate::policy::Policy;
use crate::secret::sha256;

/// Attempts at once, as long as failures cost nothing; then it is one.
const AT_ONCE: u32 = 8;
const AT_ONCE_ADDRESS: u32 = 64;
const ENTRIES: usize = 16_384;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Account([u8; 32]),
    Address(IpAddr),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    failures: u32,
    under_way: u32,
    until: Timestamp,
    last: Timestamp,
}

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    table: Mutex<HashMap<Who, Entry>>,
}

/// An attempt that was let through. It has failed unless something else is said.
#[derive(Debug)]
pub(crate) struct Attempt<'a> {
    backoff: &'a Backoff,
    account: Who,
    address: Option<Who>,
    at: Timestamp,
    policy: Policy,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Failed,
    Passed,
    Void,
}

impl Policy {
    /// How long to wait after so many failures in a row, of which so many cost nothing.
    fn wait(&self, failures: u32, free: u32) -> Duration {
        let more = failures.saturating_sub(free);
        if more == 0 {
            return Duration::ZERO;
        }
        self.longest_wait.min(Duration::from_secs(1 << (more - 1).min(16)))
    }

    /// Until when an account with so many failures is blocked.
    pub(crate) fn blocked_until(&self, failures: u32, now: Timestamp) -> Option<Timestamp> {
        let wait = self.wait(failures, self.free_failures);
        (!wait.is_zero()).then(|| after(now, wait))
    }
}

impl Backoff {
    /// Begins an attempt, or says how long to wait.
    pub(crate) fn begin(
        &self,
        account: &str,
        address: Option<IpAddr>,
        now: Timestamp,
        policy: Policy,
    ) -> Result<Attempt<'_>, Duration> {
        let account = Who::Account(sha256(account.as_bytes()));
        let address = address.map(|address| Who::Address(network(address)));
        let mut table = self.table();
        for who in [Some(account), address].into_iter().flatten() {
            let Some(entry) = table.get_mut(&who) else { continue };
            if entry.until > now {
                let left = entry.until.duration_since(now);
                return Err(Duration::try_from(left).unwrap_or(policy.longest_wait));
            }
            if entry.under_way == 0 && after(entry.last, policy.forget_after) < now {
                entry.failures = 0;
            }
            let most = if entry.failures <= who.free(&policy) { who.at_once() } else { 1 };
            if entry.under_way >= most {
                return Err(Duration::from_secs(1));
            }
        }
        for who in [Some(account), address].into_iter().flatten() {
            make_room(&mut table, &who, now, &policy);
            let new = Entry { failures: 0, under_way: 0, until: now, last: now };
            let entry = table.entry(who).or_insert(new);
            entry.under_way += 1;
            entry.last = now;
        }
        drop(table);
        let outcome = Outcome::Failed;
        Ok(Attempt { backoff: self, account, address, at: now, policy, outcome })
    }

    /// Forgets the failures of an account.
    pub(crate) fn forget(&self, account: &str) {
        if let Some(entry) = self.table().get_mut(&Who::Account(sha256(account.as_bytes()))) {
            (entry.failures, entry.until) = (0, entry.last);
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<Who, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attempt<'_> {
    /// It was good: the account begins anew. The address doesn't: else one good account would be
    /// a way to try others for ever.
    pub(crate) fn passed(mut self) {
        self.outcome = Outcome::Passed;
    }

    /// It was neither good nor bad.
    pub(crate) fn void(mut self) {
        self.outcome = Outcome::Void;
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let mut table = self.backoff.table();
        for who in [Some(self.account), self.address].into_iter().flatten() {
            let Some(entry) = table.get_mut(&who) else { continue };
            entry.under_way = entry.under_way.saturating_sub(1);
            match self.outcome {
                Outcome::Failed => {
                    entry.failures = entry.failures.saturating_add(1);
                    let wait = self.policy.wait(entry.failures, who.free(&self.policy));
                    entry.until = after(self.at, wait);
                }
                Outcome::Passed if who == self.account => entry.failures = 0,
                Outcome::Passed | Outcome::Void => {}
            }
            if entry.failures == 0 && entry.under_way == 0 {
                table.remove(&who);
            }
        }
    }
}

impl Who {
    fn free(self, policy: &Policy) -> u32 {
        match self {
            Self::Account(_) => policy.free_failures,
            Self::Address(_) => policy.free_failures_address,
        }
    }

    fn at_once(self) -> u32 {
        match self {
            Self::Account(_) => AT_ONCE,
            Self::Address(_) => AT_ONCE_ADDRESS,
        }
    }
}

/// Makes room for one more: forgets what is old, else what was seen longest ago.
fn make_room(table: &mut HashMap<Who, Entry>, who: &Who, now: Timestamp, policy: &Policy) {
    if table.len() < ENTRIES || table.contains_key(who) {
        return;
    }
    table.retain(|_, entry| after(entry.last, policy.forget_after) >= now);
    if table.len() >= ENTRIES {
        let oldest = table.iter().min_by_key(|(_, entry)| entry.last).map(|(who, _)| *who);
        oldest.map(|who| table.remove(&who));
    }
}

/// What one customer has: an address of IPv4, 64 bits of IPv6.
pub(crate) fn network(address: IpAddr) -> IpAddr {
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
        let policy = Policy::default();
        let waits: Vec<u64> = (1..=16).map(|n| policy.wait(n, 3).as_secs()).collect();
        assert_eq!(waits[..8], [0, 0, 0, 1, 2, 4, 8, 16]);
        assert_eq!(waits[15], 300);
        assert_eq!(policy.wait(u32::MAX, 3), policy.longest_wait);
    }

    impl Backoff {
        fn try_at(
            &self,
            account: &str,
            address: Option<IpAddr>,
            second: i64,
        ) -> Result<Attempt<'_>, Duration> {
            self.begin(account, address, at(second), Policy::default())
        }
    }

    fn fail(backoff: &Backoff, account: &str, second: i64) {
        drop(backoff.try_at(account, None, second).unwrap());
    }

    #[test]
    fn what_is_set_holds_for_the_next_attempt() {
        let backoff = Backoff::default();
        let strict =
            Policy { free_failures: 1, longest_wait: Duration::from_secs(7), ..Policy::default() };
        let begin = |second| backoff.begin("jo", None, at(second), strict);
        drop(begin(0).unwrap());
        drop(begin(0).unwrap());
        assert_eq!(begin(0).unwrap_err().as_secs(), 1);
        for second in [1, 3, 7] {
            drop(begin(second).unwrap());
        }
        assert_eq!(begin(7).unwrap_err().as_secs(), 7);
        assert_eq!(strict.blocked_until(9, at(0)), Some(at(7)));
    }

    #[test]
    fn an_account_waits_and_a_good_login_ends_it() {
        let backoff = Backoff::default();
        for _ in 0..4 {
            fail(&backoff, "jo", 0);
        }
        assert_eq!(backoff.try_at("jo", None, 0).unwrap_err().as_secs(), 1);
        fail(&backoff, "mo", 0);
        fail(&backoff, "jo", 1);
        assert_eq!(backoff.try_at("jo", None, 2).unwrap_err().as_secs(), 1);
        backoff.try_at("jo", None, 3).unwrap().passed();
        for _ in 0..4 {
            fail(&backoff, "jo", 3);
        }
        assert!(backoff.try_at("jo", None, 3).is_err());
        backoff.forget("jo");
        fail(&backoff, "jo", 3);
    }

    #[test]
    fn many_at_once_are_no_way_around_it_nor_in_the_way_of_good_ones() {
        let backoff = Backoff::default();
        let begin = || backoff.try_at("jo", None, 0);
        let under_way: Vec<_> = (0..AT_ONCE).map(|_| begin().unwrap()).collect();
        assert!(begin().is_err());
        under_way.into_iter().for_each(Attempt::passed);
        let under_way: Vec<_> = (0..AT_ONCE).map(|_| begin().unwrap()).collect();
        drop(under_way);
        // Eight failures: then one at a time, after the wait.
        let later = || backoff.try_at("jo", None, 16);
        assert!(backoff.try_at("jo", None, 15).is_err());
        let one = later().unwrap();
        assert!(later().is_err());
        one.void();
        assert!(later().is_ok());
    }

    #[test]
    fn what_was_neither_is_not_counted() {
        let backoff = Backoff::default();
        for _ in 0..100 {
            backoff.try_at("jo", None, 0).unwrap().void();
        }
        assert!(backoff.table().is_empty());
    }

    #[test]
    fn an_address_waits_whatever_names_it_tries() {
        let backoff = Backoff::default();
        let one: IpAddr = "2001:db8::1".parse().unwrap();
        let same_network: IpAddr = "2001:db8::ffff".parse().unwrap();
        let other: IpAddr = "2001:db8:0:1::1".parse().unwrap();
        for i in 0..=Policy::default().free_failures_address {
            drop(backoff.try_at(&format!("user{i}"), Some(one), 0).unwrap());
        }
        assert!(backoff.try_at("jo", Some(same_network), 0).is_err());
        assert!(backoff.try_at("jo", Some(other), 0).is_ok());
        let mapped: IpAddr = "::ffff:10.0.0.1".parse().unwrap();
        assert_eq!(network(mapped), "10.0.0.1".parse::<IpAddr>().unwrap());
        // A good login is no way to go on trying.
        backoff.try_at("me", Some(one), 1).unwrap().passed();
        drop(backoff.try_at("user0", Some(one), 1).unwrap());
        assert!(backoff.try_at("jo", Some(one), 2).is_err());
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let backoff = Backoff::default();
        for _ in 0..4 {
            fail(&backoff, "jo", 0);
        }
        for _ in 0..3 {
            fail(&backoff, "jo", 3602);
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let backoff = Backoff::default();
        for i in 0..ENTRIES + 10 {
            fail(&backoff, &i.to_string(), i as i64 / 1000);
        }
        assert_eq!(backoff.table().len(), ENTRIES);
    }
}
