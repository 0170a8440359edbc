//! An iSCSI target (RFC 7143) over block devices.
//!
//! A [`Server`] listens at any number of addresses and serves [`Target`]s: each has a name, units that are
//! mapped to numbers, and an [`AuthGroup`] that says who may log in; all may be changed while it is in
//! use. What initiators then do with a unit is the matter of [`scsi`], which knows no iSCSI.
//!
//! ```no_run
//! use std::sync::Arc;
//! use strongroom_iscsi::scsi::{Identity, LogicalUnit};
//! use strongroom_iscsi::{Limits, Server, Target};
//!
//! fn serve(device: Arc<dyn strongroom_block::BlockDevice>) -> strongroom_iscsi::Result<Server> {
//!     let target = Target::new("iqn.2026-11.org.example:disk")?;
//!     target.map(0, Arc::new(LogicalUnit::new(device, Identity::default(), None)?))?;
//!     let server = Server::new(Limits::default());
//!     server.add(target)?;
//!     server.listen(([127, 0, 0, 1], 3260).into())?;
//!     Ok(server)
//! }
//! ```
//!
//! Sessions have one connection and error recovery level 0. A thread reads each connection, does what is
//! quick itself, and sends all answers to what it read at once; what would keep the connection waiting is
//! done by workers ([`Limits::workers`]). What all connections hold in memory has one bound
//! ([`Limits::memory`]): a command whose data find no room in it is answered BUSY or TASK SET FULL.

mod auth;
mod chap;
mod connection;
mod doorkeeper;
mod error;
pub mod login;
mod memory;
pub mod name;
pub mod negotiation;
pub mod pdu;
pub mod scsi;
mod server;
mod target;
mod workers;

pub use auth::{AuthGroup, Credential};
pub use doorkeeper::Doorkeeper;
pub use error::{Error, Result};
pub use pdu::Lun;
pub use server::{Limits, Server};
pub use target::{SessionInfo, Target};
