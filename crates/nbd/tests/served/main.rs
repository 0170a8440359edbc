//! Whole servers, and clients: those that others wrote, one that says what it is told to, and bad ones.
#![allow(clippy::unwrap_used, reason = "tests")]

mod clients;
mod hostile;
mod negotiation;
mod order;
mod support;
mod tls;
