//! How far long work has come.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Counts the bytes of a long piece of work, and can end it; shared between it and whoever shows it.
/// Where one pool serves many, this ends the one piece of work, [`Pool::cancel`](super::Pool::cancel)
/// all of them.
#[derive(Debug, Default)]
pub struct Meter {
    done: AtomicU64,
    total: AtomicU64,
    canceled: AtomicBool,
}

impl Meter {
    /// A meter at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// The work begins and has `total` bytes.
    pub fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes done, and bytes in all.
    pub fn read(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// Asks the work to stop at its next safe point.
    pub fn cancel(&self) {
        self.canceled.store(true, Ordering::Relaxed);
    }

    /// For `?`: an error when the work was asked to stop.
    ///
    /// # Errors
    /// [`Error::Canceled`].
    pub fn check(&self) -> Result<()> {
        if self.canceled.load(Ordering::Relaxed) { Err(Error::Canceled) } else { Ok(()) }
    }
}
