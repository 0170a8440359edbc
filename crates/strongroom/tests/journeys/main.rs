//! Journeys through the real binary, judged by other people's tools.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod acme;
mod basics;
mod boots;
mod bundles;
mod cut;
mod damage;
mod devices;
mod document;
mod exports;
mod garbage;
mod golden;
mod images;
mod ingest;
mod jidoteki;
mod license;
mod looking;
mod manage;
mod metrics;
mod nbd;
mod network;
mod ngx;
mod outages;
mod own_backup;
mod pools;
mod remote;
mod sealed;
mod service;
mod storage_options;
mod streams;
mod system;
mod targets;
mod trees;
mod up;
mod updates;
mod volumes;
