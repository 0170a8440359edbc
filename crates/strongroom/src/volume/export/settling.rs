//! What is written to a volume is settled while it is served, so that its log stays short.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use strongroom_block::BlockDevice as _;
use strongroom_block::volume::{Volume, stand_back};

use super::until::Until;
use crate::interrupt::Stop as _;
use crate::output::say_notes;

/// How often it is looked at, and how often a short log must have been the same before it is settled.
const LOOK: Duration = Duration::from_secs(1);
const IDLE: u32 = 5;
/// How often that is done ahead which whoever writes would wait for.
const TEND: Duration = Duration::from_millis(20);

/// Settles a volume until it is ended, when its log has become long, and when nothing is written any more; and
/// tends it.
#[derive(Debug)]
pub(super) struct Settler {
    volume: Arc<Volume>,
    until: Arc<Until>,
    threads: [JoinHandle<()>; 2],
}

impl Settler {
    /// Begins; `well` becomes false when it can't be settled, and standard error tells why.
    pub(super) fn begin(volume: &Arc<Volume>, well: &Arc<AtomicBool>) -> Result<Self> {
        let until = Arc::<Until>::default();
        let thread = |name: &str| std::thread::Builder::new().name(name.into());
        let (of_thread, looked_at) = (Arc::clone(&until), Arc::clone(volume));
        let well = Arc::clone(well);
        let settler = thread("settle").spawn(move || settle(&looked_at, &of_thread, &well))?;
        let (of_thread, tended) = (Arc::clone(&until), Arc::clone(volume));
        let tender = thread("tend").spawn(move || {
            while !of_thread.wait_for(TEND) {
                // Who writes, or settles, tells what is wrong.
                let _ = tended.tend();
            }
        });
        let threads = [settler, tender?];
        Ok(Self { volume: Arc::clone(volume), until, threads })
    }

    /// Makes durable and settles what is left, when nobody writes any more.
    pub(super) fn end(self) -> Result<()> {
        self.until.stop();
        // They have told what went wrong.
        self.threads.into_iter().for_each(|thread| drop(thread.join()));
        let name = self.volume.name();
        self.volume.flush().with_context(|| format!("making durable what {name} was written"))?;
        self.volume.settle().with_context(|| {
            format!("settling {name} (all that was written is in its log, and nothing is lost)")
        })?;
        say_notes(&self.volume.take_notices());
        Ok(())
    }
}

fn settle(volume: &Volume, until: &Until, well: &AtomicBool) {
    stand_back();
    let (mut before, mut same, mut told) = (0, 0, String::new());
    while !until.wait_for(LOOK) {
        let bytes = volume.log_bytes();
        same = if bytes == before { same + 1 } else { 0 };
        if volume.is_due() || (bytes > 0 && same >= IDLE) {
            if let Err(error) = volume.settle() {
                well.store(false, Ordering::Relaxed);
                let why = error.to_string();
                if why != told {
                    let name = volume.name();
                    let _ = writeln!(std::io::stderr(), "warning: {name} can't be settled: {why}");
                    told = why;
                }
            }
            say_notes(&volume.take_notices());
        }
        before = volume.log_bytes();
    }
}
