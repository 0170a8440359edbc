//! The services of identity, through their public interface, on both databases.
#![allow(clippy::unwrap_used, reason = "tests")]

mod approvals;
mod audit;
mod first_run;
mod keys;
mod logins;
mod sessions;
mod users;
mod world;
