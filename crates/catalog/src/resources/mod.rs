//! What can be listed of what is kept and done, declared once each: SQL, metadata, documentation
//! and error texts of a list come from here. Those of identity stand beside its records.

mod events;
mod images;
mod jobs;
mod pools;
mod snapshots;
mod volumes;

pub use self::events::EVENTS;
pub use self::images::IMAGES;
pub use self::jobs::JOBS;
pub use self::pools::POOLS;
pub use self::snapshots::SNAPSHOTS;
pub use self::volumes::VOLUMES;
use crate::identity::{
    API_KEYS, APPROVALS, AUDIT, DIRECTORIES, ISSUERS, ORGANISATIONS, ROLES, SESSIONS, USERS,
};
use crate::list::Resource;
use crate::samples::SAMPLES;

/// All resources that can be listed.
pub static ALL: &[&Resource] = &[
    &POOLS,
    &IMAGES,
    &VOLUMES,
    &SNAPSHOTS,
    &JOBS,
    &EVENTS,
    &SAMPLES,
    &ORGANISATIONS,
    &USERS,
    &ROLES,
    &API_KEYS,
    &SESSIONS,
    &APPROVALS,
    &AUDIT,
    &DIRECTORIES,
    &ISSUERS,
];
