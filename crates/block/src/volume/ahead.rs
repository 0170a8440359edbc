//! Work on ranges that is done ahead of who needs it, on several threads, and given out in their order.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use super::locked;

/// Ranges that each thread may have begun or done before they are asked for.
const EACH: usize = 8;

struct State<I: Iterator, R> {
    ranges: std::iter::Peekable<I>,
    under_way: BTreeSet<u64>,
    /// By where they begin: where they end, and what came of them.
    done: BTreeMap<u64, (u64, R)>,
    /// Threads that would begin what comes next.
    threads: usize,
    ended: bool,
}

/// What is done ahead.
pub(super) struct Ahead<I: Iterator, R> {
    state: Mutex<State<I, R>>,
    moved: Condvar,
    most: usize,
}

/// A range that a thread works on, well or not.
struct UnderWay<'a, I: Iterator<Item = Range<u64>>, R>(&'a Ahead<I, R>, u64);

impl<I: Iterator<Item = Range<u64>>, R> Drop for UnderWay<'_, I, R> {
    fn drop(&mut self) {
        locked(&self.0.state).under_way.remove(&self.1);
        self.0.moved.notify_all();
    }
}

/// A thread, until it ends, well or not.
struct Thread<'a, I: Iterator, R>(&'a Ahead<I, R>);

impl<I: Iterator, R> Drop for Thread<'_, I, R> {
    fn drop(&mut self) {
        locked(&self.0.state).threads -= 1;
        self.0.moved.notify_all();
    }
}

/// Nothing more is begun.
struct Ending<'a, I: Iterator, R>(&'a Ahead<I, R>);

impl<I: Iterator, R> Drop for Ending<'_, I, R> {
    fn drop(&mut self) {
        locked(&self.0.state).ended = true;
        self.0.moved.notify_all();
    }
}

/// Has `threads` threads work on ranges, which come in order, as long as `consume` runs, which takes what comes
/// of them ([`Ahead::take`]). Each thread has a buffer.
pub(super) fn ahead<I, R, X>(
    ranges: I,
    threads: usize,
    work: impl Fn(Range<u64>, &mut Vec<u8>) -> R + Sync,
    consume: impl FnOnce(&Ahead<I, R>) -> X,
) -> X
where
    I: Iterator<Item = Range<u64>> + Send,
    R: Send,
{
    let ranges = ranges.peekable();
    let (under_way, done) = (BTreeSet::new(), BTreeMap::new());
    let state = Mutex::new(State { ranges, under_way, done, threads, ended: false });
    let ahead = Ahead { state, moved: Condvar::new(), most: threads * EACH };
    thread::scope(|scope| {
        for _ in 0..threads {
            let (ahead, work) = (&ahead, &work);
            let thread = Thread(ahead);
            // Whoever consumes does itself what nobody does.
            let _ = thread::Builder::new().name("settle".into()).spawn_scoped(scope, move || {
                let _thread = thread;
                let mut buffer = Vec::new();
                while let Some(range) = ahead.next() {
                    let _under_way = UnderWay(ahead, range.start);
                    let result = work(range.clone(), &mut buffer);
                    locked(&ahead.state).done.insert(range.start, (range.end, result));
                }
            });
        }
        let _ending = Ending(&ahead);
        consume(&ahead)
    })
}

impl<I: Iterator<Item = Range<u64>>, R> Ahead<I, R> {
    /// The next range to work on, once it may be begun.
    fn next(&self) -> Option<Range<u64>> {
        let mut state = locked(&self.state);
        while !state.ended && state.under_way.len() + state.done.len() >= self.most {
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.ended {
            return None;
        }
        let range = state.ranges.next()?;
        state.under_way.insert(range.start);
        Some(range)
    }

    /// What came of a range; `None` for one that nobody worked on. Those before it are not asked for any more.
    pub(super) fn take(&self, range: &Range<u64>) -> Option<R> {
        let mut state = locked(&self.state);
        loop {
            let rest = state.done.split_off(&range.start);
            state.done = rest;
            self.moved.notify_all();
            if let Some((end, result)) = state.done.remove(&range.start) {
                return (end == range.end).then_some(result);
            }
            let comes = state.threads > 0
                && state.ranges.peek().is_some_and(|next| next.start <= range.start);
            if !state.under_way.contains(&range.start) && !comes {
                return None;
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    fn ranges() -> impl Iterator<Item = Range<u64>> + Send {
        (0..1000).map(|n| 10 * n..10 * n + 10)
    }

    #[test]
    fn what_comes_of_ranges_is_given_in_their_order_and_not_all_is_done_before() {
        let (begun, threads) = (AtomicU64::new(0), 3);
        let work = |range: Range<u64>, _: &mut Vec<u8>| {
            begun.fetch_add(1, Ordering::SeqCst);
            range.start * 2
        };
        ahead(ranges(), threads, work, |ahead| {
            for (n, range) in (1..).zip(ranges()) {
                assert_eq!(ahead.take(&range), Some(range.start * 2));
                assert!(begun.load(Ordering::SeqCst) <= n + (threads * EACH) as u64);
            }
            assert_eq!(ahead.take(&(20_000..20_010)), None);
        });
    }

    #[test]
    fn what_nobody_works_on_is_not_waited_for() {
        let work = |range: Range<u64>, _: &mut Vec<u8>| range.end;
        ahead(ranges(), 0, work, |ahead| {
            assert_eq!(ahead.take(&(0..10)), None);
        });
        ahead(ranges(), 2, work, |ahead| {
            // Between two, and one that ends elsewhere.
            assert_eq!(ahead.take(&(15..25)), None);
            assert_eq!(ahead.take(&(30..35)), None);
            assert_eq!(ahead.take(&(40..50)), Some(50));
            assert_eq!(ahead.take(&(20..30)), None, "it came before");
        });
    }

    #[test]
    fn an_end_before_all_was_taken_ends_the_threads() {
        let taken = ahead(ranges(), 2, |range, _| range.end, |ahead| ahead.take(&(0..10)));
        assert_eq!(taken, Some(10));
    }
}
