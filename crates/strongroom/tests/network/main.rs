//! The network of the appliance, changed for real, in namespaces of the tests' own: the appliance is
//! in one, who asks it in another, and between them is a cable.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod leases;
mod machine;
mod reverts;
