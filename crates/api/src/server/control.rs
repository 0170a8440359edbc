//! The control socket: processes of this machine, known to the kernel.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::RecvFlags;
use strongroom_appliance::Listening;
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Peer;
use super::connection::Handler;
use super::gate::{Gate, Place};
use crate::{Error, Result};

/// What no request of HTTP/1 begins with.
const PREFACE: &[u8; 4] = b"PRI ";
/// The longest path that an address of a Unix socket holds, less some bytes.
const MAX_PATH: usize = 100;

/// Makes the socket, for its owner alone. One that is left over from an earlier run is replaced:
/// whoever calls this holds the lock of the data directory.
///
/// # Errors
/// [`Error::Listen`], [`Error::File`].
pub fn bind(path: &Path) -> Result<UnixListener> {
    let failed = |source| Error::File { path: path.display().to_string(), source };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let listener = through(path, |path| UnixListener::bind(path));
    let listener =
        listener.map_err(|source| Error::Listen { address: path.display().to_string(), source })?;
    // The directory is the owner's alone already.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Connects to the socket.
///
/// # Errors
/// Those of the socket.
pub async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    through(path, |path| {
        let stream = std::os::unix::net::UnixStream::connect(path)?;
        stream.set_nonblocking(true)?;
        UnixStream::from_std(stream)
    })
}

/// Uses the path, or a short one that leads to the same place.
fn through<T>(path: &Path, with: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    let (Some(dir), Some(name), true) =
        (path.parent(), path.file_name(), path.as_os_str().len() > MAX_PATH)
    else {
        return with(path);
    };
    let dir = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    with(&short)
}

/// Serves whoever connects, until it is told to stop.
pub(super) async fn accept(
    listener: UnixListener,
    listening: Listening,
    gate: Arc<Gate>,
    handler: Handler,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (stream, peer) = match accepted {
            Ok((stream, _)) => match stream.peer_cred() {
                Ok(who) => (stream, Peer::Local { uid: who.uid() }),
                Err(error) => {
                    tracing::warn!(%error, "the kernel doesn't say who is at the control socket");
                    continue;
                }
            },
            Err(error) => {
                super::breathe(&error).await;
                continue;
            }
        };
        let place = tokio::select! {
            place = gate.enter() => place,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        let (handler, stop) = (handler.clone(), stop.clone());
        connections.spawn(async move {
            let Some(h2) = speaks_http2(&stream, &place, patience).await else { return };
            handler.serve(stream, h2, peer, place, stop).await;
        });
    }
    drop((listener, listening));
    while connections.join_next().await.is_some() {}
}

/// Whether a client begins as HTTP/2 does when it knows that the server speaks it (RFC 9113, 3.3);
/// None when it says nothing for too long, or goes.
async fn speaks_http2(stream: &UnixStream, place: &Place, patience: Duration) -> Option<bool> {
    let look = async {
        loop {
            stream.readable().await.ok()?;
            let mut head = [0; PREFACE.len()];
            let peeked = stream.try_io(Interest::READABLE, || {
                Ok(rustix::net::recv(stream, &mut head, RecvFlags::PEEK)?.0)
            });
            match peeked {
                Ok(0) => return None,
                Ok(len) if head[..len] != PREFACE[..len] => return Some(false),
                Ok(len) if len == PREFACE.len() => return Some(true),
                // The rest follows at once.
                Ok(_) => tokio::task::yield_now().await,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    };
    tokio::select! {
        seen = tokio::time::timeout(patience, look) => seen.ok().flatten(),
        () = place.evicted() => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[tokio::test]
    async fn long_paths_and_leftovers_are_no_hindrance() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let path = deep.join("control.sock");
        drop(bind(&path).unwrap());
        let listener = bind(&path).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let (connected, accepted) = tokio::join!(connect(&path), listener.accept());
        connected.unwrap();
        let uid = accepted.unwrap().0.peer_cred().unwrap().uid();
        assert_eq!(uid, rustix::process::getuid().as_raw());
    }
}
