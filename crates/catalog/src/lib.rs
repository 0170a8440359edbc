//! The catalogue: the database behind the appliance.
//!
//! [`Catalog`] is an open database, SQLite or PostgreSQL, whose schema is this program's. Statements
//! are [`Sql`], written once for both; [`list`] is the one language in which every collection is
//! filtered, sorted, searched and counted. It knows tables, not rules: what may be done, and when,
//! is decided by the services above.

mod db;
mod error;
pub mod events;
pub mod identity;
pub mod images;
pub mod jobs;
pub mod leases;
pub mod list;
mod migrate;
pub mod old;
pub mod pools;
pub mod resources;
pub mod restored;
pub mod samples;
pub mod settings;
mod sql;
#[cfg(feature = "testing")]
pub mod testing;
pub mod transfer;
mod value;
pub mod volumes;

pub use db::{Address, Catalog, Engine, Tx, latency};
pub use error::{Error, Result};
pub use migrate::SCHEMA;
pub use sql::Sql;
pub use value::{Column, Record, Row, Value};
