//! The services of identity, through their public interface, on both databases.
#![allow(clippy::unwrap_used, reason = "tests")]

mod first_run;
mod logins;
mod sessions;
mod world;
