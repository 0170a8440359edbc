//! Snapshots that are made by themselves, and removed again.
//!
//! What is due is told by the pool's own clock, which no change of the wall clock moves. Retention counts
//! snapshots, never days, and only those that the schedule made: so a clock that is wrong has one made
//! too early or too late, and one removed for each that is made.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::volumes::{self, Schedule};

use super::Known;
use crate::mirror::time;
use crate::{Error, Result, Storage};

/// The bounds of the time between two, in seconds: a minute to a year.
const EVERY: std::ops::RangeInclusive<u64> = 60..=366 * 86_400;
/// How soon one that failed is tried again, in seconds, if none is due before.
const RETRY: u64 = 300;
/// The bounds of how many stay.
const KEEP: std::ops::RangeInclusive<u32> = 1..=1000;

/// When snapshots of a volume are to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewSchedule {
    /// Whether it is in force.
    pub enabled: bool,
    /// Seconds from one to the next.
    pub every: u64,
    /// So many of those that it made stay.
    pub keep: u32,
}

/// What schedules came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapped {
    /// Snapshots that were made.
    pub made: usize,
    /// Snapshots that were removed.
    pub removed: usize,
    /// Volumes of which none could be made.
    pub failed: usize,
}

fn after(now: Timestamp, every: u64) -> Timestamp {
    let every = SignedDuration::from_secs(i64::try_from(every).unwrap_or(i64::MAX));
    now.saturating_add(every).unwrap_or(Timestamp::MAX)
}

impl Storage {
    /// The schedule of a volume; None: it has none.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`] when there is no such volume.
    pub async fn snapshot_schedule(&self, volume: i64) -> Result<Option<Schedule>> {
        self.volume(volume).await?;
        Ok(volumes::schedule(&self.inner.catalog, volume).await?)
    }

    /// Gives a volume a schedule, if that has this version still (None: whatever it has; 0: it has none).
    /// The first snapshot is made when the time between two is over.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is out of bounds; [`strongroom_catalog::Error::Changed`].
    pub async fn set_snapshot_schedule(
        &self,
        volume: i64,
        new: NewSchedule,
        version: Option<i64>,
    ) -> Result<Schedule> {
        if !EVERY.contains(&new.every) || !KEEP.contains(&new.keep) {
            return Err(Error::Invalid(format!(
                "snapshots are made every {} to {} seconds, and {} to {} of them stay",
                EVERY.start(),
                EVERY.end(),
                KEEP.start(),
                KEEP.end()
            )));
        }
        let known = self.known_volume(volume).await?;
        let now = time(self.open(known.pool.id).await?.now());
        let schedule = Schedule {
            volume_id: volume,
            enabled: new.enabled,
            every: new.every,
            keep: new.keep,
            next_at: after(now, new.every),
            version: 0,
        };
        Ok(volumes::set_schedule(&self.inner.catalog, &schedule, version).await?)
    }

    /// Takes a volume's schedule away. The snapshots that it made stay.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`] when it has none.
    pub async fn remove_snapshot_schedule(&self, volume: i64) -> Result<()> {
        self.volume(volume).await?;
        match volumes::remove_schedule(&self.inner.catalog, volume).await? {
            true => Ok(()),
            false => Err(strongroom_catalog::Error::NotFound { what: "schedule" }.into()),
        }
    }

    /// Makes the snapshots that are due, and removes those that are too many. What fails is told, and tried
    /// again after some minutes. Pools that another process has are its own affair.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn run_snapshot_schedules(&self) -> Result<Snapped> {
        let mut done = Snapped::default();
        for schedule in volumes::schedules(&self.inner.catalog).await? {
            let known = match self.known_volume(schedule.volume_id).await {
                Ok(known) => known,
                // It was removed meanwhile.
                Err(Error::Catalog(strongroom_catalog::Error::NotFound { .. })) => continue,
                Err(error) => return Err(error),
            };
            let Some(now) = self.pool_time(&known, schedule.next_at).await else { continue };
            // It was set when the pool's clock was further on: on another machine, say.
            let furthest = after(now, schedule.every);
            if schedule.next_at > furthest {
                volumes::move_schedule(&self.inner.catalog, &schedule, furthest).await?;
                continue;
            }
            if schedule.next_at > now {
                continue;
            }
            // Whoever moves it on makes it; who is cut off has it tried again soon.
            let soon = after(now, schedule.every.min(RETRY));
            if !volumes::move_schedule(&self.inner.catalog, &schedule, soon).await? {
                continue;
            }
            let claimed = Schedule { next_at: soon, ..schedule.clone() };
            match self.run_schedule(&known, &schedule, now).await {
                Ok(removed) => {
                    volumes::move_schedule(&self.inner.catalog, &claimed, furthest).await?;
                    done.made += 1;
                    done.removed += removed;
                }
                Err(error) => {
                    done.failed += 1;
                    let (name, pool) = (&known.row.name, &known.pool.name);
                    tracing::error!(
                        "the snapshot that was due of the volume {name} of {pool} can't be made: {error}"
                    );
                }
            }
        }
        Ok(done)
    }

    /// The time of a volume's pool. One that isn't open is opened when the wall clock says that something is
    /// due; None: it can't be, or needn't.
    async fn pool_time(&self, known: &Known, next_at: Timestamp) -> Option<Timestamp> {
        let (id, name) = (known.pool.id, &known.pool.name);
        if let Some(pool) = self.if_open(id) {
            return Some(time(pool.now()));
        }
        let quiet = &self.inner.quiet;
        let is_due = Timestamp::now() >= next_at;
        if !is_due || !self.is_here(&known.pool) || quiet.holds(id, Instant::now()) {
            return None;
        }
        match self.open(id).await {
            Ok(pool) => {
                quiet.end(id);
                Some(time(pool.now()))
            }
            Err(error) => {
                if !error.is_elsewhere() {
                    let minutes = quiet.begin(id, Instant::now()).as_secs().div_ceil(60);
                    tracing::warn!(
                        "no snapshots of volumes of {name} are made; it is tried again in {minutes} \
                         minutes: {error}"
                    );
                }
                None
            }
        }
    }

    /// Makes a snapshot, and removes the oldest of those that it has too many of; how many.
    async fn run_schedule(
        &self,
        known: &Known,
        schedule: &Schedule,
        now: Timestamp,
    ) -> Result<usize> {
        let _turn = self.inner.volume_turns.of(known.row.id).await;
        let name = now.strftime("auto-%Y%m%dT%H%M%SZ").to_string();
        self.snap(known, name, true).await?;
        let all = volumes::snapshots_of(&self.inner.catalog, known.row.id).await?;
        let own: Vec<_> = all.into_iter().filter(|one| one.scheduled).collect();
        let many = own.len().saturating_sub(schedule.keep as usize);
        let old = own.get(..many).unwrap_or_default();
        if !old.is_empty() {
            self.unsnap(known, old).await?;
        }
        Ok(old.len())
    }
}
