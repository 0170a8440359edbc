//! Jidoteki Admin, API version 1.24.0, under `/api/v1/admin`.
//!
//! Each operation is declared once, as an [`Endpoint`]; router, access check, OpenAPI document and
//! the table in `docs/dialects/jidoteki.md` follow from that. What the original's document says
//! binds; where it is silent, its behaviour does, but for what is plainly a defect of it: the table
//! of differences is in that page.
//!
//! The order of checks is the original's ([`dispatch`]): is there such a path, the first run, who
//! asks, the method, and only then what is sent.

mod answer;
mod backup;
mod certs;
mod dispatch;
mod information;
mod job;
mod license;
mod openapi;
mod option;
mod reboot;
mod request;
mod services;
mod settings;
mod setup;
mod storage;
mod support;
mod update;

use axum::Router;
use futures_util::future::BoxFuture;
use http::Method;
use strongroom_identity::Right;

use self::answer::Answer;
use self::dispatch::Call;
pub use self::openapi::document;
use crate::app::App;

/// Where all of it is.
pub const PREFIX: &str = "/api/v1/admin";

/// What can be configured.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Anybody may set the token when there is none; else that takes the passphrase of the first
    /// run.
    pub open_setup: bool,
    /// The optional endpoints that are there; none: all.
    pub endpoints: Option<Vec<String>>,
}

/// The names of the endpoints that can be switched off.
pub const OPTIONAL: &[&str] = &["settings", "certs", "license", "storage", "backup"];

/// What is sent with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    name: &'static str,
    is_file: bool,
    required: bool,
    meaning: &'static str,
}

impl Parameter {
    const fn file(name: &'static str, required: bool, meaning: &'static str) -> Self {
        Self { name, is_file: true, required, meaning }
    }

    const fn text(name: &'static str, required: bool, meaning: &'static str) -> Self {
        Self { name, is_file: false, required, meaning }
    }
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Documented {
    status: u16,
    /// None: the body is the status itself.
    kind: Option<&'static str>,
    meaning: &'static str,
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain";
const BYTES: &str = "application/octet-stream";

impl Documented {
    /// The status is all.
    const fn bare(status: u16, meaning: &'static str) -> Self {
        Self { status, kind: None, meaning }
    }

    /// What was asked for, of this media type.
    const fn found(kind: &'static str, meaning: &'static str) -> Self {
        Self { status: 200, kind: Some(kind), meaning }
    }
}

type Run = fn(Call) -> BoxFuture<'static, Answer>;

/// An operation.
#[derive(Clone)]
pub(crate) struct Endpoint {
    method: Method,
    /// Below the prefix.
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// The section of the original's document.
    section: &'static str,
    right: Right,
    parameters: &'static [Parameter],
    answers: &'static [Documented],
    run: Run,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {PREFIX}{} ({})", self.method, self.path, self.id)
    }
}

impl Endpoint {
    /// A `GET` without parameters.
    const fn get(
        section: &'static str,
        path: &'static str,
        id: &'static str,
        summary: &'static str,
        right: Right,
        answers: &'static [Documented],
        run: Run,
    ) -> Self {
        let method = Method::GET;
        Self { method, path, id, summary, section, right, parameters: &[], answers, run }
    }

    /// The first part of the path, by which it is listed and switched off.
    fn name(&self) -> &'static str {
        self.path.split('/').nth(1).unwrap_or_default()
    }
}

/// All operations.
pub(crate) fn endpoints() -> Vec<Endpoint> {
    [
        setup::ENDPOINTS,
        support::ENDPOINTS,
        reboot::ENDPOINTS,
        services::ENDPOINTS,
        information::ENDPOINTS,
        settings::ENDPOINTS,
        certs::ENDPOINTS,
        license::ENDPOINTS,
        storage::ENDPOINTS,
        backup::ENDPOINTS,
        update::ENDPOINTS,
    ]
    .concat()
}

/// The path, right and id of each operation, for the test that tries all kinds of callers.
pub fn operations() -> Vec<(Method, String, &'static str, &'static str)> {
    let show =
        |one: Endpoint| (one.method, format!("{PREFIX}{}", one.path), one.id, one.right.name());
    endpoints().into_iter().map(show).collect()
}

pub(super) fn router(app: &App, options: &Options) -> Router {
    dispatch::router(app, options)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_is_itself() {
        let mut seen = BTreeSet::new();
        for one in endpoints() {
            assert!(seen.insert((one.method.to_string(), one.path)), "{one:?}");
            assert!(seen.insert((String::new(), one.id)), "{one:?}");
            assert!(one.id.starts_with("jidoteki."), "{one:?}");
            assert!(one.method == Method::GET || one.method == Method::POST, "{one:?}");
        }
    }
}
