//! Whose turn it is, pool by pool; and for how long a pool that can't be opened is left alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::OwnedMutexGuard;

type Turn = tokio::sync::Mutex<()>;

/// Gives each pool to one at a time. Pools don't wait for each other.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<i64, Weak<Turn>>>);

impl Turns {
    /// Waits until it is the caller's turn with a pool; it is until this is dropped.
    pub(crate) async fn of(&self, pool: i64) -> OwnedMutexGuard<()> {
        self.turn(pool).lock_owned().await
    }

    fn turn(&self, pool: i64) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&pool).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(pool, Arc::downgrade(&turn));
        turn
    }
}

/// How long a pool that could not be opened is left alone by those that nobody waits for: at first,
/// and at most.
const SHORTEST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(3600);

/// Pools that could not be opened, and until when they are left alone: twice as long each time.
#[derive(Debug, Default)]
pub(crate) struct Quiet(Mutex<HashMap<i64, (Instant, Duration)>>);

impl Quiet {
    fn all(&self) -> MutexGuard<'_, HashMap<i64, (Instant, Duration)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is to be left alone.
    pub(crate) fn holds(&self, pool: i64, now: Instant) -> bool {
        self.all().get(&pool).is_some_and(|(until, _)| now < *until)
    }

    /// It could not be opened; for how long it is left alone.
    pub(crate) fn begin(&self, pool: i64, now: Instant) -> Duration {
        let mut all = self.all();
        let before = all.get(&pool).map(|(_, pause)| *pause);
        let pause = before.map_or(SHORTEST, |pause| (pause * 2).min(LONGEST));
        all.insert(pool, (now + pause, pause));
        pause
    }

    /// It could be opened, or is gone.
    pub(crate) fn end(&self, pool: i64) {
        self.all().remove(&pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_pool_is_one_s_at_a_time_and_others_do_not_wait() {
        let turns = Turns::default();
        let held = turns.of(1).await;
        assert!(turns.turn(1).try_lock().is_err());
        drop(turns.of(2).await);
        drop(held);
        assert!(turns.turn(1).try_lock().is_ok());
        assert_eq!(turns.0.lock().map(|turns| turns.len()).ok(), Some(1), "nothing is kept");
    }

    #[test]
    fn the_quiet_grows_to_its_longest_and_ends_with_success() {
        let quiet = Quiet::default();
        let mut now = Instant::now();
        let mut all = Duration::ZERO;
        for attempt in 0..20 {
            assert!(!quiet.holds(1, now), "attempt {attempt}");
            let pause = quiet.begin(1, now);
            assert!(quiet.holds(1, now) && !quiet.holds(2, now));
            assert!(quiet.holds(1, now + pause - Duration::from_millis(1)));
            now += pause;
            all += pause;
        }
        assert!(all > 12 * LONGEST && all < 20 * LONGEST);
        quiet.begin(1, now);
        quiet.end(1);
        assert!(!quiet.holds(1, now));
        assert_eq!(quiet.begin(1, now), SHORTEST);
    }
}
