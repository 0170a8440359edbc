//! A server of the Network Block Device protocol, for anything that is a
//! [`BlockDevice`](strongroom_block::BlockDevice).
//!
//! The protocol is that of `doc/proto.md` in <https://github.com/NetworkBlockDevice/nbd>; names of its
//! sections stand beside what follows them. Spoken are: fixed newstyle negotiation, TLS (`NBD_OPT_STARTTLS`;
//! offered, or demanded of everybody or for an export), structured replies, `base:allocation`, and all
//! commands of the document. Its experimental extensions (resizing, extended headers) are not.
//!
//! [`Exports`] says what is served, to whom; [`Server`] serves it at any number of addresses:
//!
//! ```
//! # use std::sync::Arc;
//! # use strongroom_nbd::{Exports, Denied, Export, Listed, Options, Peer, Server};
//! # #[derive(Debug)] struct Nothing;
//! # impl Exports for Nothing {
//! #     fn list(&self, _: &Peer) -> Result<Vec<Listed>, Denied> { Ok(Vec::new()) }
//! #     fn open(&self, _: &str, _: &Peer) -> Result<Export, Denied> { Err(Denied::Unknown) }
//! # }
//! # fn main() -> std::io::Result<()> {
//! let server = Server::new(Arc::new(Nothing), Options::default());
//! server.listen_tcp(std::net::TcpListener::bind("127.0.0.1:0")?)?;
//! server.stop(std::time::Duration::from_secs(10));
//! # Ok(())
//! # }
//! ```
//!
//! It is made of threads, and of no runtime (ADR 0023): whoever reads requests does them, and another
//! thread takes over where one takes long.

mod buffers;
mod crew;
pub mod exchange;
mod exports;
pub mod negotiation;
pub mod options;
mod protocol;
mod receiver;
pub mod request;
mod server;
mod service;
mod session;
mod tls;
mod transport;

pub use self::exports::{Address, Denied, Export, Exports, Listed, Peer, Refused, Watch};
pub use self::server::{Connection, Encryption, Limits, Options, Server, SharedMemory};
pub use self::session::Client;
pub use self::tls::{Authorities, TlsError, tls_config};
