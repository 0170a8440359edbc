//! What may have become garbage since the last collection, and collecting for who finds no room.
//!
//! Only a collection can tell what is garbage. But all of it comes of roots that end or are replaced, and
//! those are counted; and of how many chunks maps that are replaced have others. Other roots may have the same
//! chunks, and what a root had that was forgotten isn't counted: so it is an estimate, of whether a
//! collection is worth it. It ends with the process.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::pool::core::lock;
use crate::pool::{GcOptions, GcReport, Meter, Pool};

/// What holds the turn of upkeep while garbage is collected.
pub(super) const COLLECTING: &str = "garbage collection";
/// A collection that nobody could write without has freed too little when it is less than such a part of
/// what was stored.
const PART: u64 = 64;
/// After one that has, so many times as long is waited as it took.
const REST: u32 = 10;
/// And at least so long.
const SHORTEST: Duration = Duration::from_secs(1);
/// How often somebody waits for collections of others before one is begun, or given up.
const TRIES: usize = 3;
/// Urgent collections are told of together, so often at most.
const TELL: Duration = Duration::from_secs(600);

/// What may have become garbage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LetGo {
    /// Roots that ended or were replaced.
    pub roots: u64,
    /// Chunks that maps had which were replaced by maps without them, about.
    pub chunks: u64,
}

/// A collection that came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// When that was.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What it found and did.
    pub report: GcReport,
}

/// Collections that came to their end since the pool was opened here, without those that only looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collections {
    /// How many.
    pub count: u64,
    /// Those of them that somebody who found no room waited for.
    pub urgent: u64,
    /// Bytes of packs that all of them freed, before redundancy.
    pub bytes_freed: u64,
    /// The last.
    pub last: Option<Collected>,
}

/// Collections that somebody waited for who found no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Urgent {
    /// How many came to their end.
    pub count: u64,
    /// Bytes of packs that they freed, before redundancy.
    pub bytes_freed: u64,
}

/// How a pool stands with its garbage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Since when it is open here.
    pub since: Instant,
    /// What may have become garbage since the last collection, or since it was opened.
    pub let_go: LetGo,
    /// What was collected.
    pub collections: Collections,
    /// Chunks in packs.
    pub chunks: u64,
    /// Bytes of packs, before redundancy.
    pub bytes: u64,
}

#[derive(Debug)]
struct Counts {
    since: Instant,
    let_go: LetGo,
    /// What the last collection has seen to of that.
    collected: LetGo,
    collections: Collections,
    /// After an urgent one that freed too little.
    pause: Option<Pause>,
    /// Urgent ones that were not told of yet, and when others were.
    untold: Urgent,
    told: Option<Instant>,
}

/// How long there is no other collection.
#[derive(Clone, Copy, Debug)]
struct Pause {
    /// Until more roots were let go,
    roots: u64,
    /// and either so many chunks,
    chunks: u64,
    /// or it is so late.
    until: Instant,
}

/// What an open pool knows of its garbage.
#[derive(Debug)]
pub(crate) struct Garbage(Mutex<Counts>);

impl Default for Garbage {
    fn default() -> Self {
        Self(Mutex::new(Counts {
            since: Instant::now(),
            let_go: LetGo::default(),
            collected: LetGo::default(),
            collections: Collections::default(),
            pause: None,
            untold: Urgent::default(),
            told: None,
        }))
    }
}

impl Garbage {
    /// So many roots ended, or were replaced.
    pub(crate) fn roots_ended(&self, roots: u64) {
        lock(&self.0).let_go.roots += roots;
    }

    /// A root was replaced whose map had so many chunks that the new one lacks.
    pub(crate) fn chunks_replaced(&self, chunks: u64) {
        lock(&self.0).let_go.chunks += chunks;
    }

    /// What was let go up to now: a collection that begins now sees to it.
    pub(super) fn begin(&self) -> (Instant, LetGo) {
        (Instant::now(), lock(&self.0).let_go)
    }

    /// A collection that began then came to its end.
    pub(super) fn collected(&self, (begun, let_go): (Instant, LetGo), report: GcReport) {
        let at = Instant::now();
        let mut counts = lock(&self.0);
        counts.collected = let_go;
        counts.collections.count += 1;
        counts.collections.bytes_freed += report.bytes_freed();
        counts.collections.last = Some(Collected { at, took: at.duration_since(begun), report });
        if is_enough(&report) {
            counts.pause = None;
        }
    }

    /// As [`Garbage::collected`], or failed, of one that somebody waits for who found no room.
    fn urgent(&self, (begun, let_go): (Instant, LetGo), report: Option<&GcReport>) {
        let mut counts = lock(&self.0);
        if let Some(report) = report {
            counts.collections.urgent += 1;
            counts.untold.count += 1;
            counts.untold.bytes_freed += report.bytes_freed();
        }
        if !report.is_some_and(is_enough) {
            let now = Instant::now();
            let rest = (now.duration_since(begun) * REST).max(SHORTEST);
            let part = report.map_or(u64::MAX, |report| {
                ((report.live_chunks + report.dead_chunks) / PART).max(1)
            });
            let chunks = let_go.chunks.saturating_add(part);
            counts.pause = Some(Pause { roots: let_go.roots, chunks, until: now + rest });
        }
    }

    fn take_urgent(&self, now: Instant) -> Option<Urgent> {
        let mut counts = lock(&self.0);
        let is_early = counts.told.is_some_and(|told| now.duration_since(told) < TELL);
        if counts.untold.count == 0 || is_early {
            return None;
        }
        counts.told = Some(now);
        Some(std::mem::take(&mut counts.untold))
    }

    /// Whether another may free more than the last.
    fn is_worth_it(&self) -> bool {
        let counts = lock(&self.0);
        let let_go = counts.let_go;
        let is_over = |pause: Pause| {
            let is_enough = let_go.chunks >= pause.chunks || Instant::now() >= pause.until;
            let_go.roots > pause.roots && is_enough
        };
        counts.pause.is_none_or(is_over)
    }
}

/// Whether a collection made room that is worth it.
fn is_enough(report: &GcReport) -> bool {
    let freed = report.bytes_freed();
    freed > 0 && report.packs_waiting == 0 && freed.saturating_mul(PART) >= report.bytes_before
}

impl Pool {
    /// Whether garbage is being collected.
    pub fn is_collecting(&self) -> bool {
        self.core.collecting.load(Ordering::Relaxed)
    }

    /// How it stands with its garbage.
    pub fn standing(&self) -> Standing {
        let (chunks, bytes) = {
            let state = self.core.state();
            let packs = state.packs.values();
            packs.fold((0, 0), |(chunks, bytes), pack| {
                (chunks + u64::from(pack.chunks), bytes + pack.len)
            })
        };
        let counts = lock(&self.core.garbage.0);
        let let_go = LetGo {
            roots: counts.let_go.roots - counts.collected.roots,
            chunks: counts.let_go.chunks - counts.collected.chunks,
        };
        let (since, collections) = (counts.since, counts.collections);
        Standing { since, let_go, collections, chunks, bytes }
    }

    /// Urgent collections ([`Pool::make_room`]) that were not told of before, some minutes' worth at once; None
    /// without any.
    pub fn take_urgent(&self) -> Option<Urgent> {
        self.core.garbage.take_urgent(Instant::now())
    }

    /// Makes room for somebody who finds none, which `has_room` looks for again: collects all garbage, or
    /// waits for the collection that is at work. After one that freed too little there is no other until more
    /// roots ended, and enough was overwritten or a while has passed that is long beside it; but for who
    /// `insists`. Nor is there one while other upkeep runs.
    pub fn make_room(&self, insists: bool, has_room: &mut dyn FnMut() -> bool) {
        for _ in 0..TRIES {
            {
                let mut upkeep = lock(&self.upkeep);
                let running = upkeep.running;
                match running {
                    Some(COLLECTING) => {
                        let ended = upkeep.ended;
                        let is_at_work = |upkeep: &mut super::Upkeep| upkeep.ended == ended;
                        drop(self.upkeep_ended.wait_while(upkeep, is_at_work));
                        if has_room() {
                            return;
                        }
                        continue;
                    }
                    Some(_) => return,
                    None if !insists && !self.core.garbage.is_worth_it() => return,
                    None => upkeep.running = Some(COLLECTING),
                }
            }
            let _turn = super::verify::UpkeepTurn::taken(self);
            // Another may have collected since it was looked for: a collection that finds nothing then
            // would tell that the pool is full.
            if has_room() {
                return;
            }
            let begun = self.core.garbage.begin();
            let options = GcOptions { dry_run: false, max_unused: 0.0 };
            let result = self.gc_in_turn(options, &Meter::new());
            self.core.garbage.urgent(begun, result.as_ref().ok());
            if let Err(e) = &result {
                let what = "garbage could not be collected for somebody who found no room";
                self.core.notice(format!("{what}: {e}"));
            }
            has_room();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(before: u64, removed: u64, packs_waiting: u64) -> GcReport {
        GcReport {
            bytes_before: before,
            bytes_removed: removed,
            packs_waiting,
            ..GcReport::default()
        }
    }

    #[test]
    fn what_frees_too_little_is_not_done_again_until_something_changed() {
        let garbage = Garbage::default();
        assert!(garbage.is_worth_it());
        let begun = garbage.begin();
        garbage.urgent(begun, Some(&report(6400, 100, 0)));
        assert!(garbage.is_worth_it());
        for vain in [Some(report(6400, 99, 0)), Some(report(0, 0, 0)), Some(report(9, 9, 1)), None]
        {
            garbage.urgent(begun, vain.as_ref());
            assert!(!garbage.is_worth_it(), "{vain:?}");
            // Neither is enough alone: that something was let go, and that time passed.
            garbage.roots_ended(1);
            assert!(!garbage.is_worth_it(), "{vain:?}");
            let LetGo { roots, chunks } = garbage.begin().1;
            let pause = |roots, chunks, until| {
                lock(&garbage.0).pause = Some(Pause { roots, chunks, until });
                garbage.is_worth_it()
            };
            let (now, later) = (Instant::now(), Instant::now() + TELL);
            assert!(pause(0, u64::MAX, now) && !pause(roots, u64::MAX, now), "{vain:?}");
            // But enough of it is.
            assert!(pause(0, chunks, later) && !pause(0, chunks + 1, later), "{vain:?}");
            assert!(!pause(roots, chunks, later), "{vain:?}");
            // Any other collection that frees enough ends it.
            garbage.collected(garbage.begin(), report(64, 1, 0));
            assert!(garbage.is_worth_it(), "{vain:?}");
        }
        let counts = lock(&garbage.0);
        assert_eq!((counts.collections.count, counts.collections.urgent), (4, 4));
        assert_eq!(counts.collections.bytes_freed, 4);
    }

    #[test]
    fn urgent_ones_are_told_of_once_and_together() {
        let (garbage, now) = (Garbage::default(), Instant::now());
        assert_eq!(garbage.take_urgent(now), None);
        garbage.urgent(garbage.begin(), Some(&report(100, 7, 0)));
        let one = Urgent { count: 1, bytes_freed: 7 };
        assert_eq!(garbage.take_urgent(now), Some(one));
        assert_eq!(garbage.take_urgent(now + TELL), None);
        garbage.urgent(garbage.begin(), Some(&report(100, 5, 0)));
        garbage.urgent(garbage.begin(), Some(&report(100, 0, 0)));
        assert_eq!(garbage.take_urgent(now + TELL / 2), None);
        let two = Urgent { count: 2, bytes_freed: 5 };
        assert_eq!(garbage.take_urgent(now + TELL), Some(two));
    }

    #[test]
    fn a_collection_sees_to_what_was_let_go_before_it_began() {
        let garbage = Garbage::default();
        garbage.roots_ended(2);
        garbage.chunks_replaced(10);
        let begun = garbage.begin();
        garbage.roots_ended(1);
        garbage.chunks_replaced(5);
        garbage.collected(begun, report(100, 50, 0));
        let counts = lock(&garbage.0);
        assert_eq!(counts.let_go, LetGo { roots: 3, chunks: 15 });
        assert_eq!(counts.collected, LetGo { roots: 2, chunks: 10 });
    }
}
