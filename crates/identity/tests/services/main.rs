//! The services of identity, through their public interface, on both databases.
#![allow(clippy::unwrap_used, reason = "tests")]

mod approvals;
mod audit;
mod directories;
mod first_run;
mod issuers;
mod keys;
mod logins;
mod sender;
mod sessions;
mod slapd;
mod users;
mod world;
