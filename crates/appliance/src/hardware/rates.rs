//! How much disks do: what they have done is noted from time to time, and compared with that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Hardware, Traffic};

/// Notes that are kept: the newest, and one that is old enough when the newest isn't.
const KEPT: usize = 2;
/// The shortest time over which it is told how much disks did.
const LEAST: Duration = Duration::from_secs(1);

/// What disks had done, by their names, and when that was.
type Note = (Instant, BTreeMap<String, Traffic>);

/// What was noted last, the newest at the end.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<VecDeque<Note>>);

impl Notes {
    fn put(&self, note: Note) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push_back(note);
        while notes.len() > KEPT {
            notes.pop_front();
        }
    }

    /// The newest that is old enough.
    fn before(&self, now: Instant) -> Option<Note> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |note: &&Note| now.saturating_duration_since(note.0) >= LEAST;
        notes.iter().rev().find(is_old).cloned()
    }
}

impl Hardware {
    /// Notes what the disks have done, for [`Hardware::rates`] of this and of what is cloned of it.
    pub fn note_traffic(&self) {
        self.note_traffic_at(Instant::now());
    }

    fn note_traffic_at(&self, now: Instant) {
        let names = self.disk_names().into_iter();
        let counted = names.filter_map(|name| Some((name.clone(), self.traffic(&name)?)));
        self.notes.put((now, counted.collect()));
    }

    /// What disks do in a second, on average since they were noted last, which is a second ago or longer;
    /// None: not yet. A disk that came since is left out.
    pub fn rates(&self, names: &[String]) -> Option<BTreeMap<String, Traffic>> {
        self.rates_at(names, Instant::now())
    }

    fn rates_at(&self, names: &[String], now: Instant) -> Option<BTreeMap<String, Traffic>> {
        let (at, before) = self.notes.before(now)?;
        let seconds = now.saturating_duration_since(at).as_secs_f64();
        let rate = |from: u64, to: u64| (to.saturating_sub(from) as f64 / seconds).round() as u64;
        let of = |name: &String| {
            let (from, to) = (before.get(name)?, self.traffic(name)?);
            let traffic = Traffic {
                reads: rate(from.reads, to.reads),
                read_bytes: rate(from.read_bytes, to.read_bytes),
                writes: rate(from.writes, to.writes),
                written_bytes: rate(from.written_bytes, to.written_bytes),
            };
            Some((name.clone(), traffic))
        };
        Some(names.iter().filter_map(of).collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::*;

    #[test]
    fn what_disks_do_is_told_since_they_were_noted() {
        let dir = tempfile::tempdir().unwrap();
        let hardware = Hardware::at(dir.path());
        let stat = |name: &str, reads: u64, sectors: u64, writes: u64| {
            let disk = dir.path().join("sys/block").join(name);
            fs::create_dir_all(&disk).unwrap();
            let text = format!("  {reads} 0 {sectors} 5 {writes} 0 {sectors} 9 0 1 1\n");
            fs::write(disk.join("stat"), text).unwrap();
        };
        let begun = Instant::now();
        let at = |seconds: f64| begun + Duration::from_secs_f64(seconds);
        let names = ["sda".to_owned(), "sdb".to_owned(), "../sda".to_owned()];
        stat("sda", 100, 1000, 10);
        stat("loop0", 1, 1, 1);
        assert_eq!(hardware.rates_at(&names, at(0.0)), None, "nothing is noted");
        hardware.note_traffic_at(at(0.0));
        assert_eq!(hardware.rates_at(&names, at(0.9)), None, "it was noted just now");

        stat("sda", 300, 1400, 11);
        stat("sdb", 5, 5, 5);
        let rates = hardware.clone().rates_at(&names, at(2.0)).unwrap();
        let expected =
            Traffic { reads: 100, read_bytes: 102_400, writes: 1, written_bytes: 102_400 };
        assert_eq!(rates, [("sda".to_owned(), expected)].into(), "sdb is new");
        assert_eq!(hardware.rates_at(&["loop0".into()], at(2.0)).unwrap(), [].into());

        // What was noted just now is passed over, and what is too old forgotten.
        hardware.note_traffic_at(at(5.0));
        let reads = |seconds| hardware.rates_at(&names, at(seconds)).unwrap()["sda"].reads;
        assert_eq!((reads(5.0), reads(6.0)), (40, 0));
        stat("sda", 340, 1400, 11);
        assert_eq!((reads(5.5), reads(7.0)), (44, 20));
        hardware.note_traffic_at(at(10.0));
        assert_eq!(reads(10.5), 7, "since the fifth second");
        // One that was taken out and put in again counts from nothing.
        stat("sda", 3, 0, 0);
        assert_eq!(reads(12.0), 0);
        assert_eq!(hardware.notes.0.lock().unwrap().len(), KEPT);
    }
}
