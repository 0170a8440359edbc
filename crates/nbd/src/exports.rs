//! What is served, and to whom.

use std::any::Any;
use std::fmt::{self, Debug, Display};
use std::net::SocketAddr;
use std::sync::Arc;

use strongroom_block::BlockDevice;

use crate::session::Client;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Address {
    /// On the network.
    Network(SocketAddr),
    /// On this machine, through a Unix socket.
    Local {
        /// Whose process it is, as the kernel says.
        uid: Option<u32>,
    },
}

impl Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => write!(f, "{address}"),
            Self::Local { uid: Some(uid) } => write!(f, "local (user {uid})"),
            Self::Local { uid: None } => f.write_str("local"),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: Address,
    /// It speaks TLS.
    pub tls: bool,
    /// Its certificate (DER), if the configuration of TLS asks for one: it was verified then.
    pub certificate: Option<Vec<u8>>,
}

/// An export as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, at most 4096 bytes.
    pub name: String,
    /// A description for people, or nothing.
    pub description: String,
}

/// A device that is served.
#[derive(Clone, Debug)]
pub struct Export {
    /// The name that it is listed by, which may be another than the one asked for.
    pub name: String,
    /// A description for people, or nothing.
    pub description: String,
    /// The device.
    pub device: Arc<dyn BlockDevice>,
    /// Nothing may be written through this export, whatever the device allows.
    pub read_only: bool,
    /// Who is told when a client begins to use it, and when it has ended.
    pub watch: Option<Arc<dyn Watch>>,
}

/// Who is told of those that use an export.
pub trait Watch: Debug + Send + Sync {
    /// A client is past its negotiation. What is given back is dropped when its connection has ended, and
    /// all that it asked for is answered. Called by the connection's thread, before its first request.
    fn begins(&self, client: Client) -> Box<dyn Any + Send>;
}

/// Why a client did not come as far as to ask for an export.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// The handshake of TLS failed: it has no certificate that is good here, say.
    #[error("the handshake of TLS failed: {0}")]
    Tls(String),
    /// It must speak TLS, and didn't.
    #[error("it did not speak TLS")]
    NoTls,
    /// There are as many connections as may be.
    #[error("there are too many connections, or they use all memory")]
    Crowded,
}

/// Why a client doesn't get what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Denied {
    /// There is none of that name; or the client may not know that there is.
    #[error("there is no such export")]
    Unknown,
    /// It is only for those who speak TLS.
    #[error("this export needs TLS")]
    NeedsTls,
    /// The client may not have it; the words are told to it.
    #[error("{0}")]
    Policy(String),
    /// It can't be opened now; the words are told to the client.
    #[error("{0}")]
    Unavailable(String),
}

/// What there is to be served.
///
/// Called by the threads of connections, several at a time; calls may block. Two clients that open one
/// name must get one device, or caches of its own which tell each other: the protocol promises that
/// what one connection flushed is seen by others (`NBD_FLAG_CAN_MULTI_CONN`).
pub trait Exports: Debug + Send + Sync {
    /// The exports that this client may know of.
    ///
    /// # Errors
    /// [`Denied`], when it may not list them.
    fn list(&self, peer: &Peer) -> Result<Vec<Listed>, Denied>;

    /// The export of this name, which is untrusted and at most 4096 bytes; the empty name asks for a
    /// default, if there is one. The device is let go when the connection ends.
    ///
    /// # Errors
    /// [`Denied`].
    fn open(&self, name: &str, peer: &Peer) -> Result<Export, Denied>;

    /// A client was turned away before it came to an export. Called by the connection's thread.
    fn refused(&self, _: &Peer, _: &Refused) {}
}
