//! The list language, on both databases: by examples, and beside a model in memory.
#![allow(clippy::unwrap_used, reason = "tests")]

mod examples;
mod property;
mod things;
