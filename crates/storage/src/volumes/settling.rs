//! The threads that settle the open volumes of a pool.
//!
//! They begin with the first that is opened and end with the last. A volume is settled when its log has
//! grown long, and when nothing was written to it for a while; one that nobody uses is let go then. The
//! longest log comes first, each begun by one thread, and those that are settled at once share by their priorities;
//! who writes is not held up by it. What fails is tried again, later each time, and told once.

use std::io;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Instant;

use jiff::Timestamp;
use strongroom_block::volume::{Settling, Volume, VolumeId, stand_back};

use super::owner::{Entry, Owner, Pace, Table, Trouble};
use crate::{Error, Result};

/// How many volumes of a pool are settled at once: two, so that one of more weight needn't wait for another's
/// end, and as many as there are processors, up to this.
const MOST: usize = 4;
static THREADS: LazyLock<usize> = LazyLock::new(|| {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    processors.clamp(2, MOST)
});

/// Says that the thread is gone when a fault ended it: then the next who opens a volume begins another.
struct Alive<'o>(&'o Owner);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.table().settling -= 1;
        }
    }
}

/// Says that a volume isn't settled any more, however that ended.
struct Busy<'o>(&'o Owner, VolumeId);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.0.table().open.get_mut(&self.1) {
            entry.is_settling = false;
        }
    }
}

impl Owner {
    /// Begins the threads that there aren't; its caller has the table.
    pub(super) fn begin_settling(self: &Arc<Self>, table: &mut Table) -> Result<()> {
        while table.settling < *THREADS {
            let owner = Arc::clone(self);
            let spawned = thread::Builder::new().name("settle".into()).spawn(move || run(&owner));
            if spawned.is_err() && table.settling > 0 {
                break;
            }
            spawned.map_err(|source: io::Error| {
                Error::Invalid(format!("no thread can be begun to settle volumes: {source}"))
            })?;
            table.settling += 1;
        }
        Ok(())
    }
}

fn run(owner: &Owner) {
    let _alive = Alive(owner);
    stand_back();
    loop {
        let mut table = owner.table();
        if table.ended || table.open.is_empty() {
            // Under the same lock, so that who opens one now begins another thread.
            table.settling -= 1;
            drop(table);
            owner.wake.notify_all();
            return;
        }
        let now = Instant::now();
        if let Some((id, volume)) = due(&mut table, &owner.pace, now) {
            drop(table);
            let _busy = Busy(owner, id);
            let before = volume.log_bytes();
            let settled = volume.settle();
            let name = volume.name();
            let left = volume.log_bytes();
            drop(volume);
            // What else is left may have come meanwhile: then it is settled again.
            note(owner, id, &name, settled, (left == before).then_some(left));
            continue;
        }
        if let Some(id) = finished(&table, &owner.pace, now) {
            drop(table);
            owner.drop_if_idle(id);
            continue;
        }
        drop(owner.wake.wait_timeout(table, owner.pace.look));
    }
}

/// The volume that is to be settled now, which is noted: of several that with the longest log.
fn due(table: &mut Table, pace: &Pace, now: Instant) -> Option<(VolumeId, Arc<Volume>)> {
    let mut found: Option<(u64, VolumeId)> = None;
    for (id, entry) in &mut table.open {
        let log = entry.volume.log_bytes();
        if entry.seen.0 != log {
            entry.seen = (log, now);
        }
        let waits = entry.trouble.as_ref().is_some_and(|trouble| now < trouble.next);
        if entry.is_settling || waits || log == 0 || entry.settled == Some(log) {
            continue;
        }
        let is_idle = now.duration_since(entry.seen.1) >= pace.idle;
        let is_long = log >= pace.log || entry.volume.is_due();
        if (is_long || is_idle) && found.is_none_or(|(most, _)| log > most) {
            found = Some((log, *id));
        }
    }
    let (_, id) = found?;
    let entry = table.open.get_mut(&id)?;
    entry.is_settling = true;
    Some((id, Arc::clone(&entry.volume)))
}

/// One that nobody uses, with nothing left to do.
fn finished(table: &Table, pace: &Pace, now: Instant) -> Option<VolumeId> {
    let is_settled = |entry: &Entry| {
        let log = entry.volume.log_bytes();
        let is_idle = now.duration_since(entry.seen.1) >= pace.idle;
        is_idle && entry.trouble.is_none() && (log == 0 || entry.settled == Some(log))
    };
    let is_free = |entry: &Entry| !entry.is_used() && !entry.is_settling;
    let found = table.open.iter().find(|(_, entry)| is_free(entry) && is_settled(entry));
    found.map(|(id, _)| *id)
}

fn note(
    owner: &Owner,
    id: VolumeId,
    name: &str,
    settled: strongroom_block::Result<Settling>,
    left: Option<u64>,
) {
    let mut table = owner.table();
    let Some(entry) = table.open.get_mut(&id) else { return };
    let failure = match settled {
        Ok(_) => {
            entry.settled = left;
            if entry.trouble.take().is_some() {
                tracing::info!("the volume {name} of the pool {} is settled again", owner.name);
            }
            if left.is_none() {
                table.changed.insert(id);
            }
            return;
        }
        Err(error) => error,
    };
    let (first, most) = owner.pace.pause;
    let why = failure.to_string();
    let pause = entry.trouble.as_ref().map_or(first, |old| (old.pause * 2).min(most));
    let is_told = entry.trouble.as_ref().is_some_and(|old| old.why == why);
    if !is_told {
        tracing::error!(
            "the volume {name} of the pool {} can't be settled, which is tried again; what was \
             written is in its log: {why}",
            owner.name
        );
    }
    let since = entry.trouble.as_ref().map_or_else(Timestamp::now, |old| old.since);
    entry.trouble = Some(Trouble { why, since, next: Instant::now() + pause, pause });
    // What can't be written any more is opened anew by the next who wants it.
    entry.is_dead = matches!(failure, strongroom_block::Error::Failed(_));
    let is_dead = entry.is_dead && !entry.is_used();
    drop(table);
    if is_dead {
        owner.drop_if_idle(id);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::time::Duration;

    use strongroom_block::{BlockDevice, Durability};
    use strongroom_catalog::testing;

    use super::*;
    use crate::tests::Bed;
    use crate::volumes::NewVolume;

    #[tokio::test]
    async fn each_volume_is_settled_by_one_thread_and_the_longest_log_comes_first() {
        testing::each(|catalog| async move {
            // The threads have nothing to do meanwhile.
            let pace = Pace { idle: Duration::from_secs(3600), ..Pace::default() };
            let bed = Bed::new(&catalog).await.paced(pace);
            let (storage, pool) = (&bed.storage, bed.pool().await);
            let mut held = Vec::new();
            for (name, blocks) in [("short", 1), ("long", 3), ("middle", 2)] {
                let new = NewVolume::new(pool.id, name, 1 << 20);
                let id = storage.create_volume(new).await.unwrap().id;
                let known = storage.known_volume(id).await.unwrap();
                let volume = storage.held(&known, None).await.unwrap();
                (0..blocks).for_each(|at| {
                    let block = vec![1; 65536];
                    volume.volume().write_at(at << 16, &block, Durability::Later).unwrap();
                });
                held.push(volume);
            }
            let owner = Arc::clone(held[0].owner());
            let next = |now| due(&mut owner.table(), &pace, now).map(|(_, volume)| volume.name());
            let (now, later) = (Instant::now(), Instant::now() + 2 * pace.idle);
            assert_eq!(next(now), None);
            assert_eq!(next(later).as_deref(), Some("long"));
            assert_eq!(next(later).as_deref(), Some("middle"));
            let long = held[1].volume_id();
            drop(Busy(&owner, long));
            assert_eq!(next(later).as_deref(), Some("long"));
            assert_eq!(next(later).as_deref(), Some("short"));
            assert_eq!(next(later), None);
            for volume in &held {
                drop(Busy(&owner, volume.volume_id()));
            }
        })
        .await;
    }
}
