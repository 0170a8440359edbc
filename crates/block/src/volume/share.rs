//! How the volumes of a pool share its disks: each gets its part by weight while others want theirs.
//!
//! Requests stand in line by start-time fair queueing: one begins where the volume's one before ended, or
//! at the time of the line if that is later, and ends so much later as it is long, divided by the volume's
//! weight. The least beginning comes first; a bounded number of requests is under way at once. So volumes
//! that want more than they get share by weight, and what one leaves others have.
//!
//! While one volume alone works nobody stands in line. Nobody waits here while it holds anything that others
//! need: flushes, settling and what is done to snapshots don't come by.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Condvar, Mutex};

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
    flows: HashMap<VolumeId, Flow>,
    /// Where the request began that was let through last.
    time: u64,
    waiting: BTreeMap<Ticket, (VolumeId, u64)>,
    number: u64,
    under_way: usize,
    bytes: u64,
    done: u64,
}

impl Line {
    /// Whether other volumes than this one work too.
    fn has_others(&self, volume: VolumeId) -> bool {
        self.flows.iter().any(|(id, flow)| {
            let is_at_work = flow.under_way + flow.waiting > 0 || flow.last + RECENT > self.done;
            *id != volume && is_at_work
        })
    }

    /// A request comes: `None` when it may begin at once.
    fn come(&mut self, volume: VolumeId, weight: u8, bytes: u64) -> Option<Ticket> {
        if !self.flows.contains_key(&volume) {
            let last = self.done;
            self.flows.insert(volume, Flow { last, ..Flow::default() });
        }
        let is_alone = !self.has_others(volume);
        let (time, is_free) = (self.time, self.is_free(bytes));
        let nobody_waits = self.waiting.is_empty();
        let flow = self.flows.entry(volume).or_default();
        let start = flow.end.max(time);
        flow.end = start + (bytes + REQUEST) * SCALE / u64::from(weight.max(1));
        // Who has less than its part, and nothing under way, is not made to wait for what is.
        let is_due = flow.under_way == 0 && start <= time;
        if is_alone || is_due || (nobody_waits && is_free) {
            self.begin(volume, start, bytes);
            return None;
        }
        self.number += 1;
        let ticket = (start, self.number);
        flow.waiting += 1;
        self.waiting.insert(ticket, (volume, bytes));
        Some(ticket)
    }

    fn is_free(&self, bytes: u64) -> bool {
        self.under_way == 0 || (self.under_way < MOST && self.bytes + bytes <= MOST_BYTES)
    }

    fn begin(&mut self, volume: VolumeId, start: u64, bytes: u64) {
        self.time = self.time.max(start);
        self.under_way += 1;
        self.bytes += bytes;
        if let Some(flow) = self.flows.get_mut(&volume) {
            flow.under_way += 1;
        }
    }

    /// A request is done; which begin instead.
    fn done(&mut self, volume: VolumeId, bytes: u64) -> Vec<Ticket> {
        self.done += 1;
        self.under_way -= 1;
        self.bytes -= bytes;
        if let Some(flow) = self.flows.get_mut(&volume) {
            flow.under_way -= 1;
            flow.last = self.done;
        }
        let mut begun = Vec::new();
        while let Some((&ticket, &(volume, bytes))) = self.waiting.first_key_value() {
            if !self.is_free(bytes) {
                break;
            }
            self.waiting.remove(&ticket);
            if let Some(flow) = self.flows.get_mut(&volume) {
                flow.waiting -= 1;
            }
            self.begin(volume, ticket.0, bytes);
            begun.push(ticket);
        }
        begun
    }

    /// A volume is no more.
    fn leave(&mut self, volume: VolumeId) {
        self.flows.remove(&volume);
    }
}

/// Where somebody waits.
#[derive(Debug, Default)]
struct Seat {
    called: Mutex<bool>,
    changed: Condvar,
}

/// The line before a pool's disks.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    line: Mutex<(Line, HashMap<Ticket, Arc<Seat>>)>,
}

impl Shares {
    /// Waits for the turn of a request of a volume; it is under way until what is returned is dropped.
    pub(crate) fn enter(&self, volume: VolumeId, weight: u8, bytes: u64) -> Turn<'_> {
        let turn = Turn { shares: self, volume, bytes };
        let seat = {
            let mut line = locked(&self.line);
            let Some(ticket) = line.0.come(volume, weight, bytes) else { return turn };
            let seat = Arc::<Seat>::default();
            line.1.insert(ticket, Arc::clone(&seat));
            seat
        };
        let mut called = locked(&seat.called);
        while !*called {
            called = seat.changed.wait(called).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        drop(called);
        turn
    }

    /// A volume is closed.
    pub(crate) fn leave(&self, volume: VolumeId) {
        locked(&self.line).0.leave(volume);
    }
}

/// A request under way.
#[derive(Debug)]
#[must_use]
pub(crate) struct Turn<'s> {
    shares: &'s Shares,
    volume: VolumeId,
    bytes: u64,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let seats: Vec<Arc<Seat>> = {
            let mut line = locked(&self.shares.line);
            let begun = line.0.done(self.volume, self.bytes);
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
            match line.come(id(client as u8), weight, bytes) {
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
            for ticket in line.done(id(client as u8), bytes) {
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
            assert_eq!(line.come(id(1), 4, 1 << 20), None);
        }
        // The other one has nothing under way, and doesn't wait either; with more it does.
        assert_eq!(line.come(id(2), 128, 4096), None);
        assert!(line.come(id(2), 128, 4096).is_some());
        assert!(line.come(id(1), 4, 4096).is_some());
        for _ in 0..100 {
            line.done(id(1), 1 << 20);
        }
        assert!(line.waiting.is_empty());
        (0..2).for_each(|_| drop(line.done(id(2), 4096)));
        line.done(id(1), 4096);
        assert_eq!((line.under_way, line.bytes), (0, 0));
        for _ in 0..RECENT {
            assert_eq!(line.come(id(1), 4, 4096), None);
            line.done(id(1), 4096);
        }
        assert!(!line.has_others(id(1)));
        line.leave(id(2));
        assert_eq!(line.flows.len(), 1);
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
