//! What holds with the catalogue in a file holds on PostgreSQL: the same tests, see
//! `support::engine`.
#![allow(clippy::duplicate_mod, reason = "each of the files brings what it needs")]

#[path = "changes.rs"]
mod changes;
#[path = "events.rs"]
mod events;
#[path = "identity.rs"]
mod identity;
#[path = "matrix.rs"]
mod matrix;
#[path = "native.rs"]
mod native;
#[path = "own_backup.rs"]
mod own_backup;
#[path = "readers.rs"]
mod readers;
#[path = "updates.rs"]
mod updates;
