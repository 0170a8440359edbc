//! The appliance as a process: killed, doubled, flooded, stopped, upgraded. What it acknowledged
//! must be there, and nothing twice.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod crash;
mod flood;
mod jobs;
mod nodes;
mod process;
mod stopping;
mod upgrade;
