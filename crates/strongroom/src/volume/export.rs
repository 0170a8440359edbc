//! `strongroom volume export`.

use std::fmt;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use strongroom_archive::entry::Body;
use strongroom_archive::show;
use strongroom_block::{BlockDevice, MapDevice, OverlayDevice};
use strongroom_engine::content::{Cache, Reader};
use strongroom_engine::id::RootId;
use strongroom_nbd::{Denied, Export, Exports, Listed, Options, Peer, Server};

use crate::access::SealedPoolArgs;
use crate::browse::locate;
use crate::exit::{Context, Done};
use crate::interrupt::Stop;
use crate::output::size;

/// Bytes of the pool that are kept at hand.
const CACHE: usize = 64 << 20;
/// Threads that read ahead of clients that read in order.
const AHEAD: usize = 2;
/// How long clients may take for their last requests when it ends.
const GRACE: Duration = Duration::from_secs(10);

/// Serve a disk that was backed up, or an image of one in a backup, over NBD
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Nothing is restored first: what a client reads is read from the pool. It is served until Ctrl-C. The
export is called by the image's or the file's name; the empty name means it, too. Whoever reaches the
address may read it: NBD knows no passwords, so name a Unix socket, which is for this user alone, or
an address of this machine (127.0.0.1), to which others come through a tunnel. Other addresses take
--in-clear, in a network that you trust. A size that is no multiple of 512 is padded with zeroes.

The backup is never changed. With --writable clients may write: what they wrote lies in a file
without a name in --scratch, takes as much room as was written, and is gone when this ends.

Examples:
  strongroom volume export db-disk --nbd 127.0.0.1:10809 --pool /srv/pool
  strongroom volume export vms:/srv/web.img --nbd unix:/run/web.sock --pool /srv/pool
  qemu-img convert nbd://127.0.0.1:10809/db-disk db.qcow2
  strongroom volume export db-disk@2026-03-01 --nbd unix:/run/db.sock --writable --pool /srv/pool
  qemu-system-x86_64 -drive file=nbd+unix:///db-disk?socket=/run/db.sock,format=raw,if=virtio")]
pub(crate) struct Args {
    /// Which image, and a file in it; the image of a disk or a stream needs no path
    #[arg(value_name = "IMAGE[:PATH]")]
    what: String,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Where to serve it; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    nbd: Place,
    /// Serve it also where other machines reach it, without encryption and for anybody
    #[arg(long)]
    in_clear: bool,
    /// Let clients write, for as long as it is served
    #[arg(long)]
    writable: bool,
    /// Where what clients write is kept until the end [default: $TMPDIR, or /tmp]
    #[arg(long, value_name = "DIR", requires = "writable")]
    scratch: Option<PathBuf>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Network(String),
    Socket(PathBuf),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err("name the socket: unix:PATH".to_owned()),
                false => Ok(Self::Socket(path.into())),
            };
        }
        let port = text.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
        match port {
            Some(Ok(_)) => Ok(Self::Network(text.to_owned())),
            _ => Err("write ADDRESS:PORT, like 127.0.0.1:10809, or unix:PATH".to_owned()),
        }
    }
}

/// The one export.
#[derive(Debug)]
struct Single(Export);

impl Exports for Single {
    fn list(&self, _: &Peer) -> Result<Vec<Listed>, Denied> {
        let Export { name, description, .. } = &self.0;
        Ok(vec![Listed { name: name.clone(), description: description.clone() }])
    }

    fn open(&self, name: &str, _: &Peer) -> Result<Export, Denied> {
        match name.is_empty() || name == self.0.name {
            true => Ok(self.0.clone()),
            false => Err(Denied::Unknown),
        }
    }
}

/// Waits until somebody says stop.
#[derive(Debug, Default)]
struct Until {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop for Until {
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }
}

impl Until {
    fn wait(&self) {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            stopped = self.changed.wait(stopped).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Where it is served; a socket's file is removed in the end.
enum Bound {
    Network(SocketAddr),
    Socket(PathBuf),
}

impl Drop for Bound {
    fn drop(&mut self) {
        if let Self::Socket(path) = self {
            // Somebody may have removed it.
            let _ = fs::remove_file(path);
        }
    }
}

impl Bound {
    /// The address of an export (the form of the NBD project's `doc/uri.md`).
    fn uri(&self, name: &str) -> String {
        let name = escaped(name.as_bytes());
        match self {
            Self::Network(address) => format!("nbd://{address}/{name}"),
            Self::Socket(path) => {
                let path = escaped(path.as_os_str().as_encoded_bytes());
                format!("nbd+unix:///{name}?socket={path}")
            }
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Bytes as part of a URI (RFC 3986, 2.3); slashes stay.
fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

/// What tells the device from all others: the image's id, and the path in it (FNV-1a, 128 bits).
fn id_of(image: RootId, path: &[u8]) -> [u8; 16] {
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mix = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(prime);
    path.iter().fold(u128::from_be_bytes(image.0), mix).to_be_bytes()
}

fn listen(server: &Server, place: &Place, in_clear: bool) -> Result<Bound> {
    match place {
        Place::Network(address) => {
            let addresses: Vec<_> = address.to_socket_addrs().context(address.clone())?.collect();
            if !in_clear && addresses.iter().any(|address| !address.ip().is_loopback()) {
                bail!(
                    "other machines reach {address}, and anybody there could read the disk: name an \
                     address of this machine alone, like 127.0.0.1:10809, or say --in-clear"
                );
            }
            let listener = TcpListener::bind(&addresses[..])
                .with_context(|| format!("can't listen at {address}"))?;
            Ok(Bound::Network(server.listen_tcp(listener)?))
        }
        Place::Socket(path) => {
            let path = std::path::absolute(path)?;
            let listener = bound(&path)?;
            let bound = Bound::Socket(path);
            server.listen_unix(listener)?;
            Ok(bound)
        }
    }
}

/// A socket that is for this user alone, from its first moment on.
fn bound(path: &Path) -> Result<UnixListener> {
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener.map_err(|error| match error.kind() {
        ErrorKind::AddrInUse => {
            let path = path.display();
            anyhow::anyhow!("{path} is there already: remove it if nobody serves there any more")
        }
        _ => anyhow::Error::new(error).context(format!("can't listen at {}", path.display())),
    })
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    let pool = args.pool.read(context)?;
    let (image, path) = locate(&*pool, &args.what)?;
    let _hold = pool.hold(image.id)?;
    let entry = image.entry(&*pool, path)?;
    let Body::File(map) = &entry.body else {
        let what = if path.is_empty() { image.name.clone() } else { show(path) };
        if entry.is_dir() {
            bail!(
                "{what} is a directory, not a disk: give IMAGE:PATH of a disk's image in it, or \
                 look into it with `strongroom mount`"
            );
        }
        bail!("{what} is no disk: give IMAGE:PATH of a regular file");
    };
    let name = match path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()) {
        Some(last) => String::from_utf8_lossy(last).into_owned(),
        None => image.name.clone(),
    };
    let well = Arc::new(AtomicBool::new(true));
    let report = {
        let (well, name) = (Arc::clone(&well), show(name.as_bytes()));
        let asked = context.interrupt.asked();
        Arc::new(move |at: u64, why: &str| {
            // What is asked for while it ends is not read any more.
            if !asked.load(Ordering::Relaxed) {
                well.store(false, Ordering::Relaxed);
                let _ = writeln!(std::io::stderr(), "warning: {name} at byte {at}: {why}");
            }
        })
    };
    let reader = Arc::new(Reader::new(&Cache::new(CACHE), pool.shared(), AHEAD));
    let device = MapDevice::new(reader, map, id_of(image.id, path))?.reporting(report);
    let bytes = device.content();
    let device: Arc<dyn BlockDevice> = match args.writable {
        false => Arc::new(device),
        true => {
            let dir = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
            let file = tempfile::tempfile_in(&dir)
                .with_context(|| format!("can't make a file in {}", dir.display()))?;
            Arc::new(OverlayDevice::new(Arc::new(device), file, RootId::random().0))
        }
    };
    let size_of_it = device.geometry().size;
    let export = Export {
        name: name.clone(),
        description: format!("image {} of {}", image.id, image.name),
        device,
        read_only: !args.writable,
    };
    let server = Server::new(Arc::new(Single(export)), Options::default());
    let bound = listen(&server, &args.nbd, args.in_clear)?;
    let until = Arc::new(Until::default());
    context.interrupt.stops(&until);
    let uri = bound.uri(&name);
    let document = json!({
        "export": name,
        "image": image.id.to_string(),
        "address": bound.to_string(),
        "uri": uri,
        "size": size_of_it,
        "padding": size_of_it - bytes,
        "writable": args.writable,
    });
    context.out.summary(pool.own(), document, |out| {
        let how = match args.writable {
            true => "what is written is gone when it ends",
            false => "read-only",
        };
        writeln!(out, "serving {uri} ({}, {how}); Ctrl-C ends it", size(size_of_it))
    })?;
    until.wait();
    if !server.stop(GRACE) {
        let _ = writeln!(std::io::stderr(), "note: a client took too long, and was cut off");
    }
    drop((server, bound));
    context.out.notes(pool.ended(context));
    Ok(Done::well_if(well.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn places_are_addresses_with_a_port_or_sockets() {
        let network = |text: &str| Ok(Place::Network(text.to_owned()));
        assert_eq!("127.0.0.1:10809".parse(), network("127.0.0.1:10809"));
        assert_eq!("[::1]:0".parse(), network("[::1]:0"));
        assert_eq!("unix:/run/x".parse(), Ok(Place::Socket("/run/x".into())));
        for wrong in ["", "127.0.0.1", "unix:", "localhost:nbd", "1.2.3.4:70000"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_and_sockets_are_escaped_in_uris() {
        let bound = std::mem::ManuallyDrop::new(Bound::Socket("/run/a b".into()));
        assert_eq!(bound.uri("x&y ä"), "nbd+unix:///x%26y%20%C3%A4?socket=/run/a%20b");
        let bound = Bound::Network("[::1]:10809".parse().unwrap());
        assert_eq!(bound.uri("disk"), "nbd://[::1]:10809/disk");
    }

    #[test]
    fn each_file_of_an_image_is_a_device_of_its_own() {
        let image = RootId([7; 16]);
        assert_eq!(id_of(image, b""), [7; 16]);
        assert_ne!(id_of(image, b"/a"), id_of(image, b"/b"));
        assert_eq!(id_of(image, b"/a"), id_of(image, b"/a"));
    }
}
