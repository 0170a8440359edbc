//! What systemd is told where it starts the appliance: when it serves, reads its files again, and
//! stops; and, as long as it is well, that it lives. Elsewhere all of this does nothing.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::task::JoinHandle;

/// It serves.
pub(super) fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// It reads its files again; [`ready`] ends that.
pub(super) fn reloading() {
    let now = NotifyState::monotonic_usec_now();
    let mut states = vec![NotifyState::Reloading, NotifyState::Status("Reading its files again")];
    states.extend(now);
    tell(&states);
}

/// It stops.
pub(super) fn stopping(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Who watches over what begins lives.
pub(super) fn alive() {
    if sd_notify::watchdog_enabled().is_some() {
        tell(&[NotifyState::Watchdog]);
    }
}

/// Bytes of a message.
const MESSAGE: usize = 4096;

/// A socket for a child, whose messages are handed on as this process's own; None where nobody listens
/// to those. That it stops is handed on only once `stopping`: else the service goes on with another.
pub(super) fn relay(data: &Path, stopping: Arc<AtomicBool>) -> Option<io::Result<PathBuf>> {
    std::env::var_os("NOTIFY_SOCKET")?;
    // Its name is shorter than that of the control socket, which has room.
    let path = data.join("notify.sock");
    // Of a process before.
    let _ = std::fs::remove_file(&path);
    let socket = match UnixDatagram::bind(&path) {
        Ok(socket) => socket,
        Err(error) => return Some(Err(error)),
    };
    std::thread::spawn(move || {
        let mut bytes = [0; MESSAGE];
        while let Ok(length) = socket.recv(&mut bytes) {
            let Ok(text) = std::str::from_utf8(&bytes[..length]) else { continue };
            let text = handed_on(text, stopping.load(Ordering::SeqCst));
            if !text.is_empty() {
                // There is no log, and nobody who could do anything about it.
                let _ = sd_notify::notify(&[NotifyState::Custom(&text)]);
            }
        }
    });
    Some(Ok(path))
}

/// What is handed on of what a child says. Which process is the service's is not for it to say.
fn handed_on(text: &str, stopping: bool) -> String {
    if !stopping && text.lines().any(|line| line == "STOPPING=1") {
        return String::new();
    }
    let lines = text.lines().filter(|line| !line.starts_with("MAINPID"));
    lines.collect::<Vec<_>>().join("\n")
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told how this fares");
    }
}

/// Says that it lives, where systemd's watchdog asks for that, as long as `well` holds.
pub(super) fn watch<F, W>(well: F) -> Option<JoinHandle<()>>
where
    F: Fn() -> W + Send + 'static,
    W: Future<Output = bool> + Send + 'static,
{
    let patience = sd_notify::watchdog_enabled()?;
    let alive = || tell(&[NotifyState::Watchdog]);
    Some(tokio::spawn(beat(patience / 3, well, alive)))
}

/// A task of the runtime like those that answer requests, not a thread of its own: it is stuck when
/// they are. What doesn't answer within one beat isn't well, and says nothing.
async fn beat<F, W>(every: Duration, well: F, alive: impl Fn())
where
    F: Fn() -> W,
    W: Future<Output = bool>,
{
    let mut beats = tokio::time::interval(every);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        beats.tick().await;
        match tokio::time::timeout(every, well()).await {
            Ok(true) => alive(),
            Ok(false) | Err(_) => tracing::error!("not well: the watchdog is not told of life"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::sync::mpsc::{self, RecvTimeoutError};
    use std::sync::{Arc, Barrier};

    use super::*;

    const BEAT: Duration = Duration::from_millis(10);
    const SOON: Duration = Duration::from_secs(30);
    const NEVER: Duration = Duration::from_millis(200);

    #[test]
    fn a_child_that_failed_does_not_stop_the_service() {
        assert_eq!(handed_on("STOPPING=1\nSTATUS=Stopping", false), "");
        assert_eq!(handed_on("STOPPING=1\nSTATUS=Stopping", true), "STOPPING=1\nSTATUS=Stopping");
        assert_eq!(handed_on("READY=1\nMAINPID=7\nSTATUS=x", false), "READY=1\nSTATUS=x");
    }

    #[test]
    fn nothing_is_told_while_all_workers_are_stuck() {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
        let (told, beats) = mpsc::channel();
        runtime.spawn(beat(BEAT, || async { true }, move || told.send(()).unwrap()));
        beats.recv_timeout(SOON).unwrap();

        let (stuck, free) = (Arc::new(Barrier::new(3)), Arc::new(Barrier::new(3)));
        for _ in 0..2 {
            let (stuck, free) = (Arc::clone(&stuck), Arc::clone(&free));
            runtime.spawn(async move {
                stuck.wait();
                free.wait();
            });
        }
        stuck.wait();
        while beats.try_recv().is_ok() {}
        assert_eq!(beats.recv_timeout(NEVER), Err(RecvTimeoutError::Timeout));
        free.wait();
        beats.recv_timeout(SOON).unwrap();
        runtime.shutdown_background();
    }

    #[tokio::test]
    async fn what_does_not_answer_is_not_well() {
        let (told, beats) = mpsc::channel();
        let hangs = || async {
            std::future::pending::<()>().await;
            true
        };
        let unwell = || async { false };
        let beaten = async {
            tokio::join!(
                beat(BEAT, hangs, || told.send("hangs").unwrap()),
                beat(BEAT, unwell, || told.send("unwell").unwrap()),
            )
        };
        assert!(tokio::time::timeout(NEVER, beaten).await.is_err());
        assert!(beats.try_recv().is_err());
    }
}
