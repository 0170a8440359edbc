//! Ctrl-C: the first asks for a clean stop, the second ends the process.

use std::fmt;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

/// Something that can be asked to stop.
pub(crate) trait Stop: Send + Sync {
    /// Asks it to stop at its next safe point.
    fn stop(&self);
}

impl Stop for strongroom_engine::pool::Pool {
    fn stop(&self) {
        self.cancel();
    }
}

impl Stop for strongroom_client::source::RemoteSource {
    fn stop(&self) {
        self.cancel();
    }
}

impl Stop for strongroom_archive::backup::Progress {
    fn stop(&self) {
        self.cancel();
    }
}

impl Stop for strongroom_archive::restore::Progress {
    fn stop(&self) {
        self.cancel();
    }
}

/// What is to be stopped. It is not kept alive by being on the list.
type Stoppables = Arc<Mutex<Vec<Weak<dyn Stop>>>>;

/// Listens for SIGINT and SIGTERM.
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    stoppables: Stoppables,
}

impl fmt::Debug for Interrupt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Interrupt({})", self.is_asked())
    }
}

impl Interrupt {
    /// Begins to listen.
    pub(crate) fn install() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal sets the flag, the second finds it set.
            flag::register_conditional_shutdown(signal, 130, Arc::clone(&asked))?;
            flag::register(signal, Arc::clone(&asked))?;
        }
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let stoppables = Stoppables::default();
        let list = Arc::clone(&stoppables);
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            for _ in signals.forever() {
                let text = "stopping at the next safe point; once more ends at once";
                let _ = writeln!(io::stderr(), "{text}");
                for stoppable in list.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    if let Some(stoppable) = stoppable.upgrade() {
                        stoppable.stop();
                    }
                }
            }
        })?;
        Ok(Self { asked, stoppables })
    }

    /// Whether a stop was asked for.
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }

    /// Set once a stop was asked for.
    pub(crate) fn asked(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// Stops this, too, when a stop is asked for, or was.
    pub(crate) fn stops<S: Stop + 'static>(&self, stoppable: &Arc<S>) {
        let weak: Weak<S> = Arc::downgrade(stoppable);
        self.stoppables.lock().unwrap_or_else(PoisonError::into_inner).push(weak);
        if self.is_asked() {
            stoppable.stop();
        }
    }
}
