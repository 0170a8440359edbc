//! What holds with the catalogue in a file holds on PostgreSQL: the same journeys through the real
//! binary, see `support::database`. Left out are those that meet no catalogue, the floods, and what
//! `nodes.rs` asks more of: kills in the midst of jobs.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

#[path = "../journeys/ingest.rs"]
mod ingest;
#[path = "../journeys/jidoteki.rs"]
mod jidoteki;
#[path = "../journeys/license.rs"]
mod license;
#[path = "../journeys/manage.rs"]
mod manage;
#[path = "../journeys/metrics.rs"]
mod metrics;
#[path = "../journeys/own_backup.rs"]
mod own_backup;
#[path = "../appliance/process.rs"]
#[allow(dead_code, reason = "not each of its users needs all")]
mod process;
#[path = "../journeys/remote.rs"]
mod remote;
#[path = "../journeys/sealed.rs"]
mod sealed;
#[path = "../journeys/service.rs"]
mod service;
#[path = "../appliance/stopping.rs"]
mod stopping;
#[path = "../journeys/system.rs"]
mod system;
#[path = "../journeys/up.rs"]
mod up;
#[path = "../journeys/volumes.rs"]
mod volumes;
