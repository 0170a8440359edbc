//! Serving it over NBD: at an address, perhaps with TLS, or at a socket.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use strongroom_api::server::Certificate;
use strongroom_nbd::{
    Authorities, Denied, Encryption, Export, Exports, Listed, Options, Peer, Server, tls_config,
};

use super::uri::escaped;
use super::{GRACE, Subject};
use crate::exit::usage;

/// Bytes that a file of certificates has at most.
const MAX_PEM: u64 = 1 << 20;

/// How NBD is encrypted.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct TlsArgs {
    /// NBD is spoken in TLS alone, with this certificate and its chain (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        requires = "nbd",
        help_heading = "TLS for NBD"
    )]
    pub(super) tls_cert: Option<PathBuf>,
    /// The private key of that certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS for NBD")]
    pub(super) tls_key: Option<PathBuf>,
    /// Only clients are let in whose certificate one of these authorities signed (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert", help_heading = "TLS for NBD")]
    pub(super) tls_clients: Option<PathBuf>,
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
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

/// Where it is served; a socket's file is removed in the end.
#[derive(Debug)]
enum Bound {
    Network { address: SocketAddr, tls: bool },
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
            Self::Network { address, tls: false } => format!("nbd://{address}/{name}"),
            Self::Network { address, tls: true } => format!("nbds://{address}/{name}"),
            Self::Socket(path) => {
                let path = escaped(path.as_os_str().as_encoded_bytes());
                format!("nbd+unix:///{name}?socket={path}")
            }
        }
    }

    fn address(&self) -> String {
        match self {
            Self::Network { address, .. } => address.to_string(),
            Self::Socket(path) => format!("unix:{}", path.display()),
        }
    }
}

/// It is served over NBD, until this is dropped.
#[derive(Debug)]
pub(super) struct Nbd {
    server: Server,
    bound: Bound,
    uri: String,
}

impl Nbd {
    /// Serves it here.
    pub(super) fn serve(
        subject: &Subject,
        place: &Place,
        tls: &TlsArgs,
        in_clear: bool,
    ) -> Result<Self> {
        let export = Export {
            name: subject.name.clone(),
            description: subject.description.clone(),
            device: Arc::clone(&subject.device),
            read_only: subject.device.geometry().read_only,
            watch: None,
        };
        let encryption = encryption(place, tls)?;
        let known = tls.tls_clients.is_some();
        let is_tls = !matches!(encryption, Encryption::None);
        let options = Options { encryption, ..Options::default() };
        let server = Server::new(Arc::new(Single(export)), options);
        let bound = match place {
            Place::Network(address) => {
                let addresses = addresses(address)?;
                if !in_clear && !known && is_reached(&addresses) {
                    bail!("{}", refusal(address, is_tls));
                }
                let listener = TcpListener::bind(&addresses[..])
                    .with_context(|| format!("can't listen at {address}"))?;
                Bound::Network { address: server.listen_tcp(listener)?, tls: is_tls }
            }
            Place::Socket(path) => {
                let path = std::path::absolute(path)?;
                let listener = listener(&path)?;
                let bound = Bound::Socket(path);
                server.listen_unix(listener)?;
                bound
            }
        };
        let uri = bound.uri(&subject.name);
        Ok(Self { server, bound, uri })
    }

    /// Its address for clients.
    pub(super) fn uri(&self) -> &str {
        &self.uri
    }

    pub(super) fn told(&self) -> Value {
        json!({ "uri": self.uri, "address": self.bound.address() })
    }

    /// Answers what came, and ends; whether no client took too long.
    pub(super) fn stop(&self) -> bool {
        self.server.stop(GRACE)
    }
}

/// Addresses of a name and a port.
pub(super) fn addresses(text: &str) -> Result<Vec<SocketAddr>> {
    Ok(text.to_socket_addrs().context(text.to_owned())?.collect())
}

/// Whether other machines reach one of them.
pub(super) fn is_reached(addresses: &[SocketAddr]) -> bool {
    addresses.iter().any(|address| !address.ip().is_loopback())
}

/// What is said where anybody could come.
fn refusal(address: &str, is_tls: bool) -> String {
    let and = "and anybody there could read the disk: name an address of this machine alone, like \
               127.0.0.1:10809,";
    match is_tls {
        true => format!(
            "other machines reach {address}, {and} or say by --tls-clients whose clients are let in"
        ),
        false => format!(
            "other machines reach {address}, {and} speak TLS (--tls-cert, --tls-key, \
             --tls-clients), or say --in-clear"
        ),
    }
}

fn encryption(place: &Place, tls: &TlsArgs) -> Result<Encryption> {
    let TlsArgs { tls_cert: Some(certificate), tls_key: Some(key), tls_clients } = tls else {
        return Ok(Encryption::None);
    };
    if let Place::Socket(_) = place {
        return Err(usage("a Unix socket is for this user alone, and takes no TLS"));
    }
    let certificate = Arc::new(Certificate::open(certificate, key)?);
    let clients = tls_clients.as_deref().map(authorities).transpose()?;
    let config = tls_config(certificate, clients)?;
    Ok(Encryption::Demanded(config))
}

/// Those whose certificates are in a file.
pub(crate) fn authorities(path: &Path) -> Result<Authorities> {
    let reading = || format!("reading {}", path.display());
    let length = fs::metadata(path).with_context(reading)?.len();
    if length > MAX_PEM {
        bail!("{} has more than {MAX_PEM} bytes: it holds no certificates", path.display());
    }
    let pem = fs::read(path).with_context(reading)?;
    Authorities::of_pem(&pem).with_context(|| path.display().to_string())
}

/// A socket that is for this user alone, from its first moment on.
fn listener(path: &Path) -> Result<UnixListener> {
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
        let bound = Bound::Socket("/run/no such a b".into());
        assert_eq!(bound.uri("x&y ä"), "nbd+unix:///x%26y%20%C3%A4?socket=/run/no%20such%20a%20b");
        let address = "[::1]:10809".parse().unwrap();
        assert_eq!(Bound::Network { address, tls: false }.uri("disk"), "nbd://[::1]:10809/disk");
        assert_eq!(Bound::Network { address, tls: true }.uri("a@b"), "nbds://[::1]:10809/a%40b");
    }

    #[test]
    fn addresses_that_others_reach_are_told_from_this_machines_own() {
        let reached = |text: &str| is_reached(&addresses(text).unwrap());
        assert!(reached("0.0.0.0:1") && reached("192.0.2.1:1") && reached("[::]:1"));
        assert!(!reached("127.0.0.1:1") && !reached("[::1]:1"));
        assert!(addresses("nowhere").is_err());
    }
}
