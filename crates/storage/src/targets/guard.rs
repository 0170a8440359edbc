//! Initiators that guess secrets are heard less and less often.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use strongroom_iscsi::Doorkeeper;

use super::{RefusedLogin, TargetWatch};

/// So many wrong proofs are free.
const FREE: u32 = 5;
/// After the next one nothing is heard for so long, and twice as long after each further one, up to the
/// longest.
const SHORTEST: Duration = Duration::from_secs(2);
const LONGEST: Duration = Duration::from_secs(300);
/// After so long without a try nothing is remembered.
const FORGOTTEN: Duration = Duration::from_secs(900);
/// So many addresses and targets are remembered; who comes when it is full waits until there is room.
const MOST: usize = 4096;

/// Who guesses, and at which target: one address can't keep others away, nor from other targets.
type Who = (IpAddr, String);

#[derive(Debug)]
struct Tries {
    /// Proofs that were not right, or of which nothing is known yet.
    count: u32,
    last: Instant,
    until: Instant,
}

/// Counts wrong proofs, by address and target.
#[derive(Debug, Default)]
pub struct Guard {
    tries: Mutex<HashMap<Who, Tries>>,
    watch: OnceLock<Arc<dyn TargetWatch>>,
}

/// Whoever has one address of IPv6 has a whole network of them.
fn who(address: IpAddr, target: Option<&str>) -> Who {
    let address = match address {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) >> 64 << 64)),
        v4 => v4,
    };
    (address, target.unwrap_or_default().to_owned())
}

impl Guard {
    /// Who hears of those that are no longer heard. Once.
    pub(super) fn tell(&self, watch: Arc<dyn TargetWatch>) {
        // Who was told first stays.
        let _ = self.watch.set(watch);
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<Who, Tries>> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a try that is about to be made, if it may be made.
    fn begin(&self, who: Who, now: Instant) -> bool {
        let mut all = self.tries();
        if all.len() >= MOST && !all.contains_key(&who) {
            all.retain(|_, tries| now < tries.until || now < tries.last + FORGOTTEN);
            if all.len() >= MOST {
                return false;
            }
        }
        let tries = all.entry(who).or_insert(Tries { count: 0, last: now, until: now });
        if now < tries.until {
            return false;
        }
        if now >= tries.last + FORGOTTEN {
            tries.count = 0;
        }
        // As if it were wrong: many at once are no way around it.
        tries.count += 1;
        tries.last = now;
        if let Some(beyond) = tries.count.checked_sub(FREE + 1) {
            tries.until = now + SHORTEST.saturating_mul(1 << beyond.min(16)).min(LONGEST);
        }
        true
    }

    fn end(&self, who: &Who) {
        self.tries().remove(who);
    }

    /// For how long nothing is heard now; None: it is heard.
    fn pause(&self, who: &Who, now: Instant) -> Option<Duration> {
        let all = self.tries();
        let until = all.get(who)?.until;
        until.checked_duration_since(now).filter(|pause| !pause.is_zero())
    }
}

impl Doorkeeper for Guard {
    fn admits(&self, address: IpAddr, target: Option<&str>) -> bool {
        self.begin(who(address, target), Instant::now())
    }

    fn failed(&self, address: IpAddr, target: Option<&str>, initiator: &str) {
        let shown = target.unwrap_or("(discovery)");
        tracing::warn!(%address, initiator, target = shown, "an initiator's CHAP was wrong");
        let Some(pause) = self.pause(&who(address, target), Instant::now()) else { return };
        let refused = RefusedLogin {
            address,
            initiator: initiator.to_owned(),
            target: target.map(str::to_owned),
            seconds: pause.as_secs().max(1),
        };
        if let Some(watch) = self.watch.get() {
            watch.blocked(&refused);
        }
    }

    fn succeeded(&self, address: IpAddr, target: Option<&str>) {
        self.end(&who(address, target));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn one(text: &str) -> Who {
        who(text.parse().unwrap(), Some("t"))
    }

    #[test]
    fn who_guesses_is_heard_less_and_less_often() {
        let (guard, mut now) = (Guard::default(), Instant::now());
        for _ in 0..=FREE {
            assert!(guard.begin(one("192.0.2.1"), now));
        }
        assert!(!guard.begin(one("192.0.2.1"), now));
        assert_eq!(guard.pause(&one("192.0.2.1"), now), Some(SHORTEST));
        // Others are, and at another target so is this one.
        assert!(guard.begin(one("192.0.2.2"), now));
        assert!(guard.begin(who("192.0.2.1".parse().unwrap(), Some("u")), now));
        for _ in 0..20 {
            now += guard.pause(&one("192.0.2.1"), now).unwrap();
            assert!(guard.begin(one("192.0.2.1"), now));
        }
        assert_eq!(guard.pause(&one("192.0.2.1"), now), Some(LONGEST));
        now += LONGEST;
        guard.end(&one("192.0.2.1"));
        assert!((0..=FREE).all(|_| guard.begin(one("192.0.2.1"), now)));
        assert!(!guard.begin(one("192.0.2.1"), now));
        now += FORGOTTEN;
        assert!((0..FREE).all(|_| guard.begin(one("192.0.2.1"), now)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_and_what_is_remembered_is_bounded() {
        assert_eq!(one("2001:db8::1"), one("2001:db8::ffff:1"));
        assert_ne!(one("2001:db8::1"), one("2001:db8:0:1::1"));
        let (guard, now) = (Guard::default(), Instant::now());
        for number in 0..MOST {
            assert!(guard.begin((IpAddr::from([192, 0, 2, 1]), number.to_string()), now));
        }
        assert!(!guard.begin(one("192.0.2.1"), now));
        assert!(guard.begin(one("192.0.2.1"), now + FORGOTTEN));
        assert_eq!(guard.tries().len(), 1);
    }
}
