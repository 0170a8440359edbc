//! The thread that does ahead what those who write to a pool's volumes would else wait for.
//!
//! It begins and ends with those that settle, and never waits for a settling.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use strongroom_block::volume::{Volume, VolumeId};

use super::owner::Owner;
use crate::{Error, Result};

/// How often it looks while volumes are written to, and while none is.
const BUSY: Duration = Duration::from_millis(20);
const QUIET: Duration = Duration::from_millis(250);

/// Says that the thread is gone when a fault ended it.
struct Alive<'o>(&'o Owner);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.table().tending = false;
        }
    }
}

impl Owner {
    /// Begins the thread; its caller has the table, and notes that it lives.
    pub(super) fn begin_tending(self: &Arc<Self>) -> Result<()> {
        let owner = Arc::clone(self);
        let spawned = thread::Builder::new().name("tend".into()).spawn(move || run(&owner));
        spawned.map(drop).map_err(|source: io::Error| {
            Error::Invalid(format!("no thread can be begun to tend volumes: {source}"))
        })
    }
}

fn run(owner: &Owner) {
    let _alive = Alive(owner);
    let mut seen: HashMap<VolumeId, u64> = HashMap::new();
    loop {
        let open: Vec<(VolumeId, Arc<Volume>)> = {
            let mut table = owner.table();
            if table.ended || table.open.is_empty() {
                table.tending = false;
                drop(table);
                owner.wake.notify_all();
                return;
            }
            table.open.iter().map(|(id, entry)| (*id, Arc::clone(&entry.volume))).collect()
        };
        seen.retain(|id, _| open.iter().any(|(one, _)| one == id));
        let mut is_busy = false;
        for (id, volume) in open {
            let log = volume.log_bytes();
            if seen.insert(id, log) != Some(log) {
                is_busy = true;
                // A log that can't be written any more is told of by who settles it.
                let _ = volume.tend();
            }
        }
        let table = owner.table();
        if !table.ended && !table.open.is_empty() {
            let pause = if is_busy { BUSY } else { QUIET };
            drop(owner.wake.wait_timeout(table, pause));
        }
    }
}
