//! The tables of identity: users, roles, grants, organisations, keys, sessions, audit, approvals.
//!
//! Records, and the statements that read and write them; no rules. A function that gives [`Sql`]
//! gives what stands behind the columns, for [`Catalog::find`](crate::Catalog::find) or
//! [`Tx::find`](crate::Tx::find). What is secret is in records of its own, so that no answer can
//! show it by mistake.
//!
//! [`Sql`]: crate::Sql

mod admin_token;
mod approvals;
mod audit;
mod keys;
mod organisations;
mod roles;
mod sender;
mod sessions;
mod sources;
mod users;

pub use admin_token::AdminToken;
pub use approvals::{APPROVALS, Approval};
pub use audit::{AUDIT, AuditHead, AuditLine};
pub use keys::{API_KEYS, ApiKey, KeySecrets, NewKey, Nonce};
pub use organisations::{ORGANISATIONS, Organisation, Parent};
pub use roles::{Grant, GrantedRights, ROLES, Role};
pub use sender::AuditSender;
pub use sessions::{NewSession, SESSIONS, Session, SessionTokens};
pub use sources::{DIRECTORIES, ISSUERS, Source, SourceGrant, SourceSecret, UserGroup};
pub use users::{NewUser, RecoveryCode, USERS, User, UserSecrets, fold};

use crate::{Error, Result};

/// A change by version touched this many rows; it should be one.
fn changed(rows: u64, what: &'static str) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::Changed { what }) }
}

/// A change by key touched this many rows; it should be one.
fn there(rows: u64, what: &'static str) -> Result<()> {
    if rows == 1 { Ok(()) } else { Err(Error::NotFound { what }) }
}
