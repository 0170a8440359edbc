//! NGX Storage, REST API version 2, under `/api/v2`.
//!
//! Each operation is declared once, as an [`Endpoint`]; router, access check, OpenAPI document, the
//! names that keys are allowed and the table in `docs/dialects/ngx.md` follow from that. The
//! published document of software 2.3 binds: paths, names, types and shapes are its. What later
//! software calls otherwise stands beside, in the same object; where one shape excludes the other
//! ([`Shapes`]) the configuration decides.

mod answer;
mod auth_group;
mod body;
mod capacity;
mod cluster;
mod declared;
mod dispatch;
mod docs;
mod fibre;
mod hardware;
mod host;
mod ids;
mod initiator;
mod integrity;
mod log;
mod lun;
mod network;
mod openapi;
mod overloaded;
mod path;
mod pool;
mod portal_group;
mod rows;
mod schedule;
mod services;
mod share;
mod snapshot;
mod system;
mod target;
mod traffic;
mod user;

use std::collections::BTreeSet;

use axum::Router;
use http::Method;

pub use self::answer::Number;
pub(crate) use self::declared::Endpoint;
pub use self::docs::table;
pub use self::openapi::document;
use crate::app::App;

/// Where all of it is.
pub const PREFIX: &str = "/api/v2";
/// The dialect's name, as keys have it.
pub const NAME: &str = "ngx";
/// The controller that owns everything: there is one.
const OWNER: &str = "1";

/// Which software's shapes are answered where they exclude each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shapes {
    /// Those of 2.3, as its document has them.
    #[default]
    V23,
    /// Those that clients of 2.4 expect: lists of snapshots, capacity and overloaded volumes are
    /// arrays.
    V24,
}

impl std::str::FromStr for Shapes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "2.3" => Ok(Self::V23),
            "2.4" => Ok(Self::V24),
            _ => Err(format!("there is no version `{text}`; there are 2.3 and 2.4")),
        }
    }
}

/// What can be configured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Which shapes are answered.
    pub shapes: Shapes,
}

/// All operations.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    [
        auth_group::endpoints(),
        target::endpoints(),
        lun::endpoints(),
        pool::endpoints(),
        snapshot::endpoints(),
        share::endpoints(),
        portal_group::endpoints(),
        initiator::endpoints(),
        capacity::endpoints(),
        overloaded::endpoints(),
        cluster::endpoints(),
        traffic::endpoints(),
        system::endpoints(),
        services::endpoints(),
        hardware::endpoints(),
        log::endpoints(),
        network::endpoints(),
        host::endpoints(),
        user::endpoints(),
    ]
    .concat()
}

/// Everything that a key may be allowed: each operation, and what several share.
pub(crate) fn allowed() -> BTreeSet<&'static str> {
    let all = endpoints();
    let all = all.iter().flat_map(|one| [one.id(), one.permission()]);
    all.chain([auth_group::SECRETS]).collect()
}

/// An operation, for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Its method.
    pub method: Method,
    /// Its path.
    pub path: String,
    /// Its id.
    pub id: &'static str,
    /// What a key must have been allowed.
    pub permission: &'static str,
    /// The right that its user needs.
    pub right: &'static str,
}

/// All operations, for the tests that try all kinds of callers.
pub fn operations() -> Vec<Operation> {
    let show = |one: Endpoint| Operation {
        method: one.method().clone(),
        path: format!("{PREFIX}{}", one.path()),
        id: one.id(),
        permission: one.permission(),
        right: one.right().name(),
    };
    endpoints().into_iter().map(show).collect()
}

pub(super) fn router(app: &App, options: &Options) -> Router {
    dispatch::router(app, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_itself() {
        let mut seen = BTreeSet::new();
        let all = endpoints();
        for one in &all {
            assert!(seen.insert((one.method().to_string(), one.path())), "{one:?}");
            assert!(seen.insert((String::new(), one.id())), "{one:?}");
            assert!(one.id().starts_with("ngx."), "{one:?}");
            // What several share is of reading, and never the name of one of them.
            let reads = one.method() == Method::GET;
            assert_eq!(reads, one.permission().ends_with(".read"), "{one:?}");
            assert_eq!(!reads, one.permission() == one.id(), "{one:?}");
        }
    }
}
