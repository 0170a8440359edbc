//! Lists that are asked for again and again: their answer is kept while the catalogue is as it was.
//!
//! It is given only to the caller for whom it was made, who has been let through once more, sees
//! the same rows, and asks for the same. Any change of the catalogue ends all of them at once; that
//! can be told only where this process alone changes it. A second ends them in any case, for what
//! is shown may tell how long ago something was.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use strongroom_catalog::list::Scope;

use super::Route;
use crate::access::{self, Caller};
use crate::app::App;
use crate::problem::Result;

/// Answers, their longest body in bytes, and how long they are kept.
const ANSWERS: usize = 256;
const LONGEST: usize = 128 << 10;
const LIFE: Duration = Duration::from_secs(1);

/// What answers are kept.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    answers: Mutex<HashMap<Key, Answered>>,
}

/// Who asks for what.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    route: &'static str,
    query: String,
    user: Option<i64>,
    key: Option<i64>,
    session: Option<i64>,
}

/// A question that may be asked again.
#[derive(Debug)]
pub(super) struct Question {
    key: Key,
    scope: Scope,
    pools: Option<BTreeSet<i64>>,
    /// Of the catalogue, before it is looked at.
    changes: u64,
}

#[derive(Debug)]
struct Answered {
    scope: Scope,
    pools: Option<BTreeSet<i64>>,
    changes: u64,
    at: Instant,
    headers: HeaderMap,
    body: Bytes,
}

impl Answered {
    fn holds(&self, changes: u64) -> bool {
        self.changes == changes && self.at.elapsed() < LIFE
    }
}

impl Question {
    /// Of a caller who was let through; none where changes can't be told.
    pub(super) fn of(
        app: &App,
        route: &Route,
        caller: &Caller,
        parts: &Parts,
    ) -> Result<Option<Self>> {
        let Some(changes) = app.catalog().changes() else { return Ok(None) };
        let who = caller.principal()?;
        let key = Key {
            route: route.id(),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            user: who.user_id,
            key: who.key_id,
            session: who.session_id,
        };
        let (scope, pools) = (access::scope(route, caller)?, who.pools().cloned());
        Ok(Some(Self { key, scope, pools, changes }))
    }
}

impl Kept {
    fn answers(&self) -> MutexGuard<'_, HashMap<Key, Answered>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer, if it was given before and would be the same now.
    pub(super) fn find(&self, question: &Question) -> Option<Response> {
        let answers = self.answers();
        let known = answers.get(&question.key).filter(|known| known.holds(question.changes))?;
        let same = known.scope == question.scope && known.pools == question.pools;
        same.then(|| {
            let mut response = Response::new(Body::from(known.body.clone()));
            *response.headers_mut() = known.headers.clone();
            response
        })
    }

    /// Keeps an answer, and gives it.
    pub(super) async fn keep(&self, question: Question, response: Response) -> Response {
        if response.status() != StatusCode::OK {
            return response;
        }
        let (parts, body) = response.into_parts();
        // It is whole already: lists are written before they are sent.
        let Ok(body) = body.collect().await.map(|body| body.to_bytes()) else {
            return Response::from_parts(parts, Body::empty());
        };
        if body.len() <= LONGEST {
            let Question { key, scope, pools, changes } = question;
            let headers = parts.headers.clone();
            let at = Instant::now();
            let known = Answered { scope, pools, changes, at, headers, body: body.clone() };
            let mut answers = self.answers();
            if answers.len() >= ANSWERS {
                answers.retain(|_, known| known.holds(changes));
                if answers.len() >= ANSWERS {
                    answers.clear();
                }
            }
            answers.insert(key, known);
        }
        Response::from_parts(parts, Body::from(body))
    }
}
