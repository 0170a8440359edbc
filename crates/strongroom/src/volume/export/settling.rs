//! What is written to a volume is settled while it is served, so that its log stays short.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use strongroom_block::BlockDevice as _;
use strongroom_block::volume::Volume;

use super::until::Until;
use crate::interrupt::Stop as _;
use crate::output::say_notes;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// Bytes of a log that is settled though it still grows.
const LONG: u64 = 64 << 20;

/// Settles a volume until it is ended: when its log has become long, and when nothing is written any more.
#[derive(Debug)]
pub(super) struct Settler {
    volume: Arc<Volume>,
    until: Arc<Until>,
    thread: JoinHandle<()>,
}

impl Settler {
    /// Begins; `well` becomes false when it can't be settled, and standard error tells why.
    pub(super) fn begin(volume: &Arc<Volume>, well: &Arc<AtomicBool>) -> Result<Self> {
        let until = Arc::<Until>::default();
        let (of_thread, looked_at) = (Arc::clone(&until), Arc::clone(volume));
        let well = Arc::clone(well);
        let body = move || settle(&looked_at, &of_thread, &well);
        let thread = std::thread::Builder::new().name("settle".into()).spawn(body)?;
        Ok(Self { volume: Arc::clone(volume), until, thread })
    }

    /// Makes durable and settles what is left, when nobody writes any more.
    pub(super) fn end(self) -> Result<()> {
        self.until.stop();
        // It has told what went wrong.
        let _ = self.thread.join();
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
    let (mut before, mut told) = (0, String::new());
    while !until.wait_for(LOOK) {
        let bytes = volume.log_bytes();
        if bytes > LONG || (bytes > 0 && bytes == before) {
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
