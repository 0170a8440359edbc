//! How the volumes of a pool share its disks: each gets its part by weight while others want theirs.
//!
//! Requests stand in line by start-time fair queueing: one begins where the volume's one before ended, or
//! at the time of the line if that is later, and ends so much later as it is long, divided by the volume's
//! weight. The least beginning comes first; a bounded number of requests is under way at once. So volumes
//! that want more than they get share by weight, and what one leaves others have.
//!
//! While one volume alone works nobody stands in line. Nobody waits here while it holds anything that others
//! need: flushes and what is done to snapshots don't come by.
//!
//! What is written waits for the page cache only, so that in the long run the volumes that want more share what
//! settling can do. Each step of a settling stands in the line too, beside its volume's requests and with the
//! same weight. That alone isn't enough, since of a volume there are few steps at a time, and a line with
//! room for several lets all of them through: so a settling also waits while another that would go on has had less
//! than its part of the time. It holds the volume's turn of upkeep; while somebody waits for that it
//! doesn't wait here.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{VolumeId, locked};

/// Requests that are under way at once when several volumes want to.
const MOST: usize = 16;
/// Bytes of those.
const MOST_BYTES: u64 = 8 << 20;
/// What a request costs beside its bytes.
const REQUEST: u64 = 4096;
/// A volume counts as one that works until others have done so many requests since its last one.
const RECENT: u64 = 256;
/// So that small costs of high weights are not nothing.
const SCALE: u64 = 128;
/// How far a settling may be ahead of others.
const AHEAD: Duration = Duration::from_millis(10);
/// What a step counts at the most, however long a disk takes.
const LONGEST: Duration = Duration::from_secs(1);
/// What a settling may catch up of others that went on while its volume had nothing to settle: for the highest
/// weight.
const CREDIT: Duration = Duration::from_secs(2);

/// Who asks: a volume's clients, or who settles it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Who {
    Clients(VolumeId),
    Settling(VolumeId),
}

impl Who {
    fn volume(self) -> VolumeId {
        match self {
            Self::Clients(volume) | Self::Settling(volume) => volume,
        }
    }
}

/// How far so much takes a volume.
fn cost(much: u64, weight: u8) -> u64 {
    much * SCALE / u64::from(weight.max(1))
}

/// As nanoseconds.
fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Who stands where in line.
type Ticket = (u64, u64);

#[derive(Debug, Default)]
struct Flow {
    /// Where its next request begins at the earliest.
    end: u64,
    /// Its requests that are under way.
    under_way: usize,
    waiting: usize,
    /// How many requests all had done when its last one was.
    last: u64,
}

/// The line, without anybody who waits.
#[derive(Debug, Default)]
struct Line {
    flows: HashMap<Who, Flow>,
    /// Where the request began that was let through last.
    time: u64,
    waiting: BTreeMap<Ticket, (Who, u64)>,
    number: u64,
    under_way: usize,
    bytes: u64,
    done: u64,
}

impl Line {
    /// Whether other volumes than this one work too.
    fn has_others(&self, volume: VolumeId) -> bool {
        self.flows.iter().any(|(who, flow)| {
            let is_at_work = flow.under_way + flow.waiting > 0 || flow.last + RECENT > self.done;
            who.volume() != volume && is_at_work
        })
    }

    /// A request comes: `None` when it may begin at once.
    fn come(&mut self, who: Who, weight: u8, bytes: u64) -> Option<Ticket> {
        if !self.flows.contains_key(&who) {
            let last = self.done;
            self.flows.insert(who, Flow { last, ..Flow::default() });
        }
        let is_alone = !self.has_others(who.volume());
        let (time, is_free) = (self.time, self.is_free(bytes));
        let nobody_waits = self.waiting.is_empty();
        let flow = self.flows.entry(who).or_default();
        let start = flow.end.max(time);
        flow.end = start + cost(bytes + REQUEST, weight);
        // Who has less than its part, and nothing under way, is not made to wait for what is.
        let is_due = flow.under_way == 0 && start <= time;
        if is_alone || is_due || (nobody_waits && is_free) {
            self.begin(who, start, bytes);
            return None;
        }
        self.number += 1;
        let ticket = (start, self.number);
        flow.waiting += 1;
        self.waiting.insert(ticket, (who, bytes));
        Some(ticket)
    }

    fn is_free(&self, bytes: u64) -> bool {
        self.under_way == 0 || (self.under_way < MOST && self.bytes + bytes <= MOST_BYTES)
    }

    fn begin(&mut self, who: Who, start: u64, bytes: u64) {
        self.time = self.time.max(start);
        self.under_way += 1;
        self.bytes += bytes;
        if let Some(flow) = self.flows.get_mut(&who) {
            flow.under_way += 1;
        }
    }

    /// A request is done; which begin instead.
    fn done(&mut self, who: Who, bytes: u64) -> Vec<Ticket> {
        self.done += 1;
        self.under_way -= 1;
        self.bytes -= bytes;
        if let Some(flow) = self.flows.get_mut(&who) {
            // One that was closed and opened again counts from nothing.
            flow.under_way = flow.under_way.saturating_sub(1);
            flow.last = self.done;
        }
        if self.done.is_multiple_of(RECENT) {
            // Those that rest are not looked at for every request.
            let (done, recent) = (self.done, RECENT);
            self.flows
                .retain(|_, flow| flow.under_way + flow.waiting > 0 || flow.last + recent > done);
        }
        let mut begun = Vec::new();
        while let Some((&ticket, &(who, bytes))) = self.waiting.first_key_value() {
            if !self.is_free(bytes) {
                break;
            }
            self.waiting.remove(&ticket);
            if let Some(flow) = self.flows.get_mut(&who) {
                flow.waiting = flow.waiting.saturating_sub(1);
            }
            self.begin(who, ticket.0, bytes);
            begun.push(ticket);
        }
        begun
    }

    /// A volume is no more.
    fn leave(&mut self, volume: VolumeId) {
        self.flows.retain(|who, _| who.volume() != volume);
    }
}

/// What a settling does.
#[derive(Clone, Copy, Debug, Default)]
enum Doing {
    /// There is none.
    #[default]
    Nothing,
    /// It would go on.
    Waits,
    /// It stands in line, behind what isn't settling.
    Stands,
    /// It goes on, since then.
    Works { since: Instant, weight: u8 },
}

/// How far a settling is.
#[derive(Debug, Default)]
struct Settler {
    /// How long it worked, in nanoseconds by weight.
    worked: u64,
    doing: Doing,
    /// Steps that are under way.
    working: usize,
    /// How many wait for its end.
    awaited: usize,
}

impl Settler {
    fn worked(&self, now: Instant) -> u64 {
        let Doing::Works { since, weight } = self.doing else { return self.worked };
        let time = now.saturating_duration_since(since).min(LONGEST);
        self.worked.saturating_add(cost(nanos(time), weight))
    }
}

/// Those that settle or did, without anybody who waits.
#[derive(Debug, Default)]
struct Settlers {
    all: HashMap<VolumeId, Settler>,
    /// How far the one was that went on and was furthest.
    time: u64,
}

impl Settlers {
    /// A settling begins. What others did since its last one it may catch up, up to a bound.
    fn begin(&mut self, volume: VolumeId, weight: u8, now: Instant) {
        let (time, least) = (self.time, self.time.saturating_sub(nanos(CREDIT)));
        let new = Settler { worked: time, ..Settler::default() };
        let one = self.all.entry(volume).or_insert(new);
        one.worked = one.worked.max(least);
        one.doing = Doing::Works { since: now, weight };
    }

    /// It does something else now.
    fn change(&mut self, volume: VolumeId, doing: Doing, now: Instant) {
        if let Some(one) = self.all.get_mut(&volume) {
            (one.worked, one.doing) = (one.worked(now), doing);
            if matches!(doing, Doing::Works { .. }) {
                self.time = self.time.max(one.worked);
            }
        }
    }

    fn is_awaited(&self, volume: VolumeId) -> bool {
        self.all.get(&volume).is_some_and(|one| one.awaited > 0)
    }

    /// Whether it may go on: when it isn't ahead of the others, or somebody waits for its end.
    fn may(&self, volume: VolumeId, weight: u8, now: Instant) -> bool {
        let Some(one) = self.all.get(&volume) else { return true };
        let least = one.worked(now).saturating_sub(cost(nanos(AHEAD), weight));
        let mut others = self.all.iter().filter(|(id, _)| **id != volume);
        let lets = |other: &Settler| match other.doing {
            Doing::Nothing | Doing::Stands => true,
            Doing::Waits | Doing::Works { .. } => least <= other.worked(now),
        };
        one.awaited > 0 || others.all(|(_, other)| lets(other))
    }
}

/// Where somebody waits.
#[derive(Debug, Default)]
struct Seat {
    called: Mutex<bool>,
    changed: Condvar,
}

impl Seat {
    fn wait(&self) {
        let mut called = locked(&self.called);
        while !*called {
            called = self.changed.wait(called).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// The line before a pool's disks.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    line: Mutex<(Line, HashMap<Ticket, Arc<Seat>>)>,
    settlers: Mutex<Settlers>,
    moved: Condvar,
}

impl Shares {
    /// Waits for the turn of a request of a volume; it is under way until what is returned is dropped.
    pub(crate) fn enter(&self, volume: VolumeId, weight: u8, bytes: u64) -> Turn<'_> {
        let (turn, seat) = self.come(Who::Clients(volume), weight, bytes);
        if let Some(seat) = seat {
            seat.wait();
        }
        turn
    }

    /// The turn of a request, and where it is waited for if it isn't come yet.
    fn come(&self, who: Who, weight: u8, bytes: u64) -> (Turn<'_>, Option<Arc<Seat>>) {
        let turn = Turn { shares: self, who, bytes };
        let mut line = locked(&self.line);
        let seat = line.0.come(who, weight, bytes).map(|ticket| {
            let seat = Arc::<Seat>::default();
            line.1.insert(ticket, Arc::clone(&seat));
            seat
        });
        drop(line);
        (turn, seat)
    }

    /// A settling begins; it is under way until what is returned is dropped.
    pub(crate) fn settle(&self, volume: VolumeId, weight: u8) -> Steps<'_> {
        locked(&self.settlers).begin(volume, weight, Instant::now());
        Steps { shares: self, volume }
    }

    /// The volume's settling doesn't wait while somebody does for its end, who keeps what is returned so long.
    pub(crate) fn hurry(&self, volume: VolumeId) -> Hurry<'_> {
        {
            let mut settlers = locked(&self.settlers);
            let new = Settler { worked: settlers.time, ..Settler::default() };
            settlers.all.entry(volume).or_insert(new).awaited += 1;
        }
        self.moved.notify_all();
        Hurry { shares: self, volume }
    }

    /// A volume is closed.
    pub(crate) fn leave(&self, volume: VolumeId) {
        locked(&self.line).0.leave(volume);
        locked(&self.settlers).all.remove(&volume);
        self.moved.notify_all();
    }
}

/// The steps of a settling.
#[derive(Debug)]
#[must_use]
pub(crate) struct Steps<'s> {
    shares: &'s Shares,
    volume: VolumeId,
}

impl<'s> Steps<'s> {
    /// Waits for the turn of a step; it is under way until what is returned is dropped.
    pub(crate) fn step(&self, weight: u8, bytes: u64) -> Step<'s> {
        let Self { shares, volume } = *self;
        let mut settlers = self.change(Doing::Waits);
        while !settlers.may(volume, weight, Instant::now()) {
            // What others have worked grows without a word of them.
            let waited = shares.moved.wait_timeout(settlers, AHEAD);
            settlers = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let is_awaited = settlers.is_awaited(volume);
        drop(settlers);
        let turn = (!is_awaited).then(|| {
            let (turn, seat) = shares.come(Who::Settling(volume), weight, bytes);
            // Only who has to wait there lets the others go ahead.
            if let Some(seat) = seat {
                drop(self.change(Doing::Stands));
                seat.wait();
            }
            turn
        });
        let mut settlers = self.change(Doing::Works { since: Instant::now(), weight });
        if let Some(one) = settlers.all.get_mut(&volume) {
            one.working += 1;
        }
        drop(settlers);
        Step { shares, volume, _turn: turn }
    }

    /// It does something else now, which the others hear of: it works as long as one step does.
    fn change(&self, doing: Doing) -> MutexGuard<'s, Settlers> {
        let mut settlers = locked(&self.shares.settlers);
        if settlers.all.get(&self.volume).is_none_or(|one| one.working == 0) {
            settlers.change(self.volume, doing, Instant::now());
            self.shares.moved.notify_all();
        }
        settlers
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        drop(self.change(Doing::Nothing));
    }
}

/// A step under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct Step<'s> {
    shares: &'s Shares,
    volume: VolumeId,
    _turn: Option<Turn<'s>>,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        if let Some(one) = locked(&self.shares.settlers).all.get_mut(&self.volume) {
            one.working = one.working.saturating_sub(1);
        }
    }
}

/// Somebody waits for the end of a settling.
#[derive(Debug)]
#[must_use]
pub(crate) struct Hurry<'s> {
    shares: &'s Shares,
    volume: VolumeId,
}

impl Drop for Hurry<'_> {
    fn drop(&mut self) {
        if let Some(one) = locked(&self.shares.settlers).all.get_mut(&self.volume) {
            one.awaited = one.awaited.saturating_sub(1);
        }
    }
}

/// A request under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct Turn<'s> {
    shares: &'s Shares,
    who: Who,
    bytes: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let seats: Vec<Arc<Seat>> = {
            let mut line = locked(&self.shares.line);
            let begun = line.0.done(self.who, self.bytes);
            begun.iter().filter_map(|ticket| line.1.remove(ticket)).collect()
        };
        for seat in seats {
            *locked(&seat.called) = true;
            seat.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;

    fn id(number: u8) -> VolumeId {
        VolumeId([number; 16])
    }

    fn one(number: u8) -> Who {
        Who::Clients(id(number))
    }

    /// Who asks: weight, bytes of a request, and how many it has at once.
    #[derive(Clone, Copy)]
    struct Client {
        weight: u8,
        bytes: u64,
        depth: usize,
    }

    /// A disk that does one request after the other at 100 bytes in a tick, of clients that always ask
    /// for more; how many bytes each got, and how long it waited for a request at the most, in ticks.
    fn run(clients: &[Client], ticks: u64) -> Vec<(u64, u64)> {
        let mut line = Line::default();
        let mut got = vec![(0, 0); clients.len()];
        let mut asked: HashMap<Ticket, (usize, u64)> = HashMap::new();
        // What the disk has to do, in order, with when it was asked for.
        let mut disk: BTreeSet<(u64, usize, u64)> = BTreeSet::new();
        let mut order = 0;
        let mut now = 0;
        let ask = |line: &mut Line, disk: &mut BTreeSet<_>, order: &mut u64, now, client| {
            let Client { weight, bytes, .. } = clients[client];
            match line.come(one(client as u8), weight, bytes) {
                None => {
                    *order += 1;
                    disk.insert((*order, client, now));
                    None
                }
                Some(ticket) => Some((ticket, (client, now))),
            }
        };
        for depth in 0..32 {
            for (client, of) in clients.iter().enumerate() {
                if depth < of.depth {
                    asked.extend(ask(&mut line, &mut disk, &mut order, now, client));
                }
            }
        }
        while now < ticks {
            let (_, client, since) = disk.pop_first().unwrap();
            let bytes = clients[client].bytes;
            now += bytes.div_ceil(100) + 1;
            got[client].0 += bytes;
            got[client].1 = got[client].1.max(now - since);
            for ticket in line.done(one(client as u8), bytes) {
                let (client, since) = asked.remove(&ticket).unwrap();
                order += 1;
                disk.insert((order, client, since));
            }
            asked.extend(ask(&mut line, &mut disk, &mut order, now, client));
            assert!(line.under_way <= MOST + clients.len());
        }
        got
    }

    #[test]
    fn volumes_that_compete_share_by_weight() {
        let of = |weight, bytes| Client { weight, bytes, depth: 32 };
        for bytes in [4096, 65536, 1 << 18] {
            let got = run(&[of(128, bytes), of(16, bytes)], bytes * 200);
            let ratio = got[0].0 as f64 / got[1].0 as f64;
            assert!((7.5..8.5).contains(&ratio), "{bytes}: {got:?}");
        }
        let got = run(&[of(4, 8192), of(8, 8192), of(16, 8192), of(32, 8192)], 2_000_000);
        for pair in got.windows(2) {
            let ratio = pair[1].0 as f64 / pair[0].0 as f64;
            assert!((1.8..2.2).contains(&ratio), "{got:?}");
        }
        // Long requests don't get more than short ones.
        let got = run(&[of(16, 1 << 18), of(16, 65536)], 2_000_000);
        let ratio = got[0].0 as f64 / got[1].0 as f64;
        assert!((0.9..1.15).contains(&ratio), "{got:?}");
    }

    #[test]
    fn who_wants_less_than_its_part_doesnt_wait_for_others() {
        let (small, large) = (4096, 65536);
        let busy = Client { weight: 16, bytes: large, depth: 32 };
        let got = run(&[busy, Client { weight: 128, bytes: small, depth: 1 }], 2_000_000);
        // What is under way before it, and itself.
        let longest = (MOST as u64 + 1) * (large / 100 + 2);
        assert!(got[1].1 <= longest, "{got:?} {longest}");
        assert!(got[0].0 > got[1].0, "the rest is others': {got:?}");
    }

    #[test]
    fn one_alone_never_waits_and_others_count_until_they_rest() {
        let mut line = Line::default();
        for _ in 0..100 {
            assert_eq!(line.come(one(1), 4, 1 << 20), None);
        }
        // The other one has nothing under way, and doesn't wait either; with more it does.
        assert_eq!(line.come(one(2), 128, 4096), None);
        assert!(line.come(one(2), 128, 4096).is_some());
        assert!(line.come(one(1), 4, 4096).is_some());
        for _ in 0..100 {
            line.done(one(1), 1 << 20);
        }
        assert!(line.waiting.is_empty());
        (0..2).for_each(|_| drop(line.done(one(2), 4096)));
        line.done(one(1), 4096);
        assert_eq!((line.under_way, line.bytes), (0, 0));
        for _ in 0..RECENT {
            assert_eq!(line.come(one(1), 4, 4096), None);
            line.done(one(1), 4096);
        }
        assert!(!line.has_others(id(1)));
        line.leave(id(2));
        assert_eq!(line.flows.len(), 1);
    }

    /// Who settles: weight, how long a step takes, and after how many it has nothing to settle for a tenth of
    /// a second.
    #[derive(Clone, Copy)]
    struct Settling {
        weight: u8,
        millis: u64,
        steps: u64,
    }

    /// How many milliseconds each worked that always has more to settle, with a processor of its own.
    fn settle(all: &[Settling], millis: u64) -> Vec<u64> {
        let begun = Instant::now();
        let mut settlers = Settlers::default();
        // Milliseconds of work, steps since it had nothing to settle, and when it is free.
        let mut done = vec![(0, 0, 0); all.len()];
        for (one, of) in all.iter().enumerate() {
            settlers.begin(id(one as u8), of.weight, begun);
        }
        for millis in 0..millis {
            let now = begun + Duration::from_millis(millis);
            for (one, of) in all.iter().enumerate() {
                let (worked, steps, free) = &mut done[one];
                let volume = id(one as u8);
                if *free > millis {
                    continue;
                }
                if *steps == of.steps {
                    settlers.change(volume, Doing::Nothing, now);
                    (*steps, *free) = (0, millis + 100);
                    continue;
                }
                if matches!(settlers.all[&volume].doing, Doing::Nothing) {
                    settlers.begin(volume, of.weight, now);
                }
                settlers.change(volume, Doing::Waits, now);
                if settlers.may(volume, of.weight, now) {
                    let works = Doing::Works { since: now, weight: of.weight };
                    settlers.change(volume, works, now);
                    *worked += of.millis;
                    *steps += 1;
                    *free = millis + of.millis;
                }
            }
        }
        done.into_iter().map(|(worked, ..)| worked).collect()
    }

    #[test]
    fn settlings_share_by_weight_also_where_they_rest_now_and_then() {
        let of = |weight, millis| Settling { weight, millis, steps: u64::MAX };
        for steps in [u64::MAX, 1000] {
            for [heavy, light] in [[10, 10], [10, 3], [3, 10], [10, 50]] {
                let pair = [of(128, heavy), of(16, light)].map(|of| Settling { steps, ..of });
                let got = settle(&pair, 100_000);
                let ratio = got[0] as f64 / got[1] as f64;
                assert!((7.2..8.8).contains(&ratio), "{steps} {heavy} {light}: {got:?}");
            }
        }
        // Who rests most of the time leaves that to others, and has all else.
        let busy = Settling { weight: 128, millis: 1, steps: 10 };
        let got = settle(&[busy, of(16, 10)], 100_000);
        assert!(got[0] >= 8000 && got[1] >= 80_000, "{got:?}");
        let got = settle(&[of(4, 10), of(8, 10), of(16, 10)], 100_000);
        for pair in got.windows(2) {
            let ratio = pair[1] as f64 / pair[0] as f64;
            assert!((1.9..2.1).contains(&ratio), "{got:?}");
        }
    }

    #[test]
    fn settlings_of_one_weight_and_one_alone_dont_wait() {
        let of = |millis| Settling { weight: 16, millis, steps: u64::MAX };
        for all in [&[of(10)][..], &[of(10), of(10), of(10)], &[of(1), of(100)]] {
            for got in settle(all, 10_000) {
                assert!(got >= 9_800, "{got}");
            }
        }
    }

    #[test]
    fn who_begins_to_settle_again_catches_up_within_bounds() {
        let (old, new, weight) = (id(1), id(2), 128);
        let mut settlers = Settlers::default();
        let mut now = Instant::now();
        let mut work = |settlers: &mut Settlers, one| {
            for _ in 0..100 {
                settlers.change(one, Doing::Works { since: now, weight }, now);
                now += LONGEST;
                settlers.change(one, Doing::Waits, now);
            }
            now
        };
        let worked = |settlers: &Settlers, one| settlers.all[&one].worked;
        // One that comes when another has worked alone for long is neither behind it nor ahead.
        settlers.begin(old, weight, Instant::now());
        let now = work(&mut settlers, old);
        settlers.begin(new, weight, now);
        assert!(worked(&settlers, old) - worked(&settlers, new) <= nanos(LONGEST));
        settlers.change(old, Doing::Nothing, now);
        let now = work(&mut settlers, new);
        settlers.begin(old, weight, now);
        let behind = worked(&settlers, new) - worked(&settlers, old);
        assert!((nanos(CREDIT)..=nanos(CREDIT + LONGEST)).contains(&behind), "{behind}");
        settlers.change(old, Doing::Waits, now);
        assert!(!settlers.may(new, weight, now) && settlers.may(old, weight, now));
        // Who stands in line behind requests holds nobody up.
        settlers.change(old, Doing::Stands, now);
        assert!(settlers.may(new, weight, now));
        settlers.change(old, Doing::Waits, now);
        settlers.all.get_mut(&new).unwrap().awaited = 1;
        assert!(settlers.may(new, weight, now) && settlers.is_awaited(new));
        settlers.all.get_mut(&new).unwrap().awaited = 0;
        assert!(!settlers.may(new, weight, now));
        settlers.change(old, Doing::Nothing, now);
        assert!(settlers.may(new, weight, now));
    }

    #[test]
    fn threads_that_settle_take_turns_and_who_is_waited_for_doesnt_wait() {
        let shares = Shares::default();
        std::thread::scope(|scope| {
            for (number, weight) in [(1, 128), (2, 16), (3, 4)] {
                let steps = shares.settle(id(number), weight);
                scope.spawn(move || (0..500).for_each(|_| drop(steps.step(weight, 1 << 20))));
            }
        });
        // One that is far behind would be waited for.
        let behind = shares.settle(id(4), 128);
        let ahead = shares.settle(id(5), 4);
        drop(behind.change(Doing::Waits));
        locked(&shares.settlers).all.get_mut(&id(5)).unwrap().worked += nanos(CREDIT);
        let hurry = shares.hurry(id(5));
        assert!(ahead.step(4, 1 << 20)._turn.is_none());
        drop(hurry);
        // And once it is over it isn't.
        drop(behind);
        assert!(ahead.step(4, 1 << 20)._turn.is_some());
        assert_eq!(locked(&shares.line).0.under_way, 0);
    }

    #[test]
    fn steps_of_a_settling_stand_in_line_with_the_requests_of_others() {
        let mut line = Line::default();
        let (busy, settling) = (one(1), Who::Settling(id(2)));
        for _ in 0..2 * MOST {
            line.come(busy, 16, 65536);
        }
        // The first has nothing under way; the second waits for its turn behind as many bytes of the other.
        assert_eq!(line.come(settling, 16, 1 << 20), None);
        let ticket = line.come(settling, 16, 1 << 20).unwrap();
        let mut bytes = 0;
        loop {
            bytes += 65536;
            let begun = line.done(busy, 65536);
            if begun.contains(&ticket) {
                break;
            }
            line.come(busy, 16, 65536);
        }
        assert!((1 << 19..3 << 20).contains(&bytes), "{bytes}");
        // Its own volume's requests are not those of others.
        assert!(line.has_others(id(1)));
        line.leave(id(2));
        assert!(!line.has_others(id(1)));
    }

    #[test]
    fn threads_are_called_in_turn() {
        let shares = Shares::default();
        let most = Mutex::new((0usize, 0usize));
        std::thread::scope(|scope| {
            for thread in 0..40u8 {
                let (shares, most) = (&shares, &most);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let _turn = shares.enter(id(thread % 2), 16, 4096);
                        let mut most_now = locked(most);
                        most_now.0 += 1;
                        most_now.1 = most_now.1.max(most_now.0);
                        drop(most_now);
                        std::thread::yield_now();
                        locked(most).0 -= 1;
                    }
                });
            }
        });
        let line = locked(&shares.line);
        assert!(line.0.waiting.is_empty() && line.1.is_empty() && line.0.under_way == 0);
        assert_eq!(line.0.done, 8000);
    }
}
