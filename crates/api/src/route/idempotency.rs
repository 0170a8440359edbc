//! `Idempotency-Key`: a request that is sent twice does its work once.
//!
//! A key belongs to its user. The first request with it leaves a row, and its answer when that is
//! there; the same request sent again is answered from it, another one is refused. An answer that
//! says the appliance failed is not kept: sent again, the request is tried again. Answers are
//! sealed, for some hold a secret that is shown once.
//!
//! A process may end between what a request does and its answer. What a job does is safe from that:
//! the job is noted in the row by the transaction that queues it ([`Request`]), and the request
//! sent again is answered with it. Other requests are then done again, which their names notice;
//! only a key that nobody got to see may be left over.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::request::Parts;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::jobs::{self, Request};
use strongroom_catalog::{Catalog, Error, Record, Row, Sql};

use super::answer::Answer;
use super::part::Received;
use crate::access::Caller;
use crate::app::App;
use crate::native::accepted;
use crate::problem::{Code, Problem, Result};

/// The longest key.
pub(super) const MAX_KEY: usize = 128;
/// After this a request without an answer is thought to be lost: no route may take that long.
const LOST: Duration = Duration::from_secs(60 * 60);
/// What answers are sealed for.
const PURPOSE: &str = "idempotency";

/// What came of looking for a key.
pub(super) enum Begun {
    /// The request is new; this is to be told how it ended.
    Now(Entry),
    /// This is how it was answered.
    Before(Response),
    /// It made a job, and was cut off before it was answered: that is still to be told.
    CutOff(Entry, Response),
}

/// A request that is being worked on.
pub(super) struct Entry(Request);

struct Kept {
    request: Vec<u8>,
    answer: Option<String>,
    created_at: i64,
}

impl Record for Kept {
    const COLUMNS: &'static str = "request, answer, created_at";

    fn read(row: &mut Row) -> strongroom_catalog::Result<Self> {
        Ok(Self { request: row.take()?, answer: row.take()?, created_at: row.take()? })
    }
}

#[derive(Serialize, Deserialize)]
struct Answered {
    status: u16,
    kind: Option<String>,
    location: Option<String>,
    etag: Option<String>,
    body: String,
}

/// The key that came with a request.
pub(super) fn key(parts: &Parts) -> Result<Option<String>> {
    let Some(value) = parts.headers.get("idempotency-key") else { return Ok(None) };
    let fits = |text: &&str| {
        (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    let text = value.to_str().ok().filter(fits);
    let wrong = || {
        let text = format!("an Idempotency-Key is 1 to {MAX_KEY} visible ASCII characters");
        Problem::new(Code::BadRequest, text)
    };
    text.map(|text| Some(text.to_owned())).ok_or_else(wrong)
}

/// What makes a request the same.
pub(super) fn digest(app: &App, request: &Received) -> [u8; 32] {
    let uri = request.parts.uri.path_and_query().map_or("", |path| path.as_str());
    let method = request.parts.method.as_str().as_bytes();
    app.identity().key().digest(&[method, uri.as_bytes(), &request.body])
}

/// Looks for the key; leaves a row when it is new.
pub(super) async fn begin(app: &App, caller: &Caller, key: &str, request: &[u8]) -> Result<Begun> {
    let user = caller.user_id();
    let now = Timestamp::now();
    let now_us = now.as_microsecond();
    let before = |age: Duration| now_us - i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    let mut tx = app.catalog().begin().await?;
    let old = Sql::new("DELETE FROM idempotency WHERE user_id = ? AND (created_at < ?")
        .bind(user)
        .bind(before(app.settings().current().idempotency_kept))
        .and(" OR (answer IS NULL AND created_at < ?))")
        .bind(before(LOST));
    tx.execute(old).await?;
    let insert = Sql::new(
        "INSERT INTO idempotency (user_id, key, request, created_at) VALUES (?, ?, ?, ?) \
         ON CONFLICT (user_id, key) DO NOTHING",
    );
    let insert = insert.bind(user).bind(key).bind(request).bind(now_us);
    let new = tx.execute(insert).await? > 0;
    let found = Sql::new("FROM idempotency WHERE user_id = ? AND key = ?").bind(user).bind(key);
    let kept: Option<Kept> = if new { None } else { tx.find_one(found).await? };
    tx.commit().await?;
    if new {
        return Ok(Begun::Now(Entry::new(user, key, now_us)));
    }
    let kept = kept.ok_or(Error::NotFound { what: "idempotency key" })?;
    if kept.request != request {
        let text = "this Idempotency-Key was used for another request: take a new one";
        return Err(Problem::new(Code::KeyReused, text));
    }
    let Some(answer) = kept.answer else {
        let since = Timestamp::from_microsecond(kept.created_at).unwrap_or(now);
        let text = format!("the same request is being worked on since {since}: try again later");
        return Err(Problem::new(Code::InProgress, text).retry_after(1));
    };
    let Some(job) = Request::job(&answer) else {
        return Ok(Begun::Before(open(app, &answer)?));
    };
    let mut response = accepted(jobs::find(app.catalog(), job).await?).respond();
    replayed(&mut response);
    Ok(Begun::CutOff(Entry::new(user, key, kept.created_at), response))
}

/// Forgets requests without an answer, for a process that knows that no other is at work: sent
/// again, they are done again at once.
///
/// # Errors
/// Those of the database.
pub async fn forget_cut_off(catalog: &Catalog) -> Result<u64, Error> {
    catalog.execute(Sql::new("DELETE FROM idempotency WHERE answer IS NULL")).await
}

impl Entry {
    fn new(user_id: i64, key: &str, began: i64) -> Self {
        Self(Request { user_id, key: key.to_owned(), began })
    }

    /// What it is known by.
    pub(super) fn request(&self) -> &Request {
        &self.0
    }

    /// Keeps the answer. Should that fail, the answer is given all the same; only a repetition
    /// would then be told that the request is being worked on.
    pub(super) async fn end(self, app: &App, response: Response) -> Response {
        let (parts, body) = response.into_parts();
        let body = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => {
                tracing::warn!(%error, "an answer broke off");
                return Response::from_parts(parts, Body::empty());
            }
        };
        let sql = if parts.status.is_server_error() || parts.status == StatusCode::TOO_MANY_REQUESTS
        {
            Ok(Sql::new("DELETE FROM idempotency WHERE answer IS NULL AND"))
        } else {
            let header = |name| {
                let value: Option<&HeaderValue> = parts.headers.get(name);
                value.and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            let answered = Answered {
                status: parts.status.as_u16(),
                kind: header(header::CONTENT_TYPE),
                location: header(header::LOCATION),
                etag: header(header::ETAG),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            seal(app, &answered).map(|sealed| {
                let sql = Sql::new("UPDATE idempotency SET status = ?, answer = ? WHERE");
                sql.bind(i64::from(parts.status.as_u16())).bind(sealed)
            })
        };
        let kept = match sql {
            Ok(sql) => {
                let sql = sql.and(" user_id = ? AND key = ? AND created_at = ?");
                let Request { user_id, key, began } = self.0;
                let sql = sql.bind(user_id).bind(key).bind(began);
                app.catalog().execute(sql).await.map(|_| ()).map_err(Problem::from)
            }
            Err(problem) => Err(problem),
        };
        if let Err(problem) = kept {
            tracing::warn!(detail = problem.detail(), "an answer could not be kept");
        }
        Response::from_parts(parts, Body::from(body))
    }
}

fn seal(app: &App, answered: &Answered) -> Result<String> {
    let text = serde_json::to_vec(answered).map_err(|error| Problem::internal(&error))?;
    let sealed = app.seal(PURPOSE, &text)?;
    Ok(data_encoding::BASE64.encode(&sealed))
}

fn open(app: &App, kept: &str) -> Result<Response> {
    let lost = || Problem::new(Code::Conflict, "the answer to this request can't be read any more");
    let sealed = data_encoding::BASE64.decode(kept.as_bytes()).map_err(|_| lost())?;
    let text = app.unseal(PURPOSE, &sealed).map_err(|_| lost())?;
    let answered: Answered = serde_json::from_slice(&text).map_err(|_| lost())?;
    let mut response = Response::new(Body::from(answered.body));
    *response.status_mut() = StatusCode::from_u16(answered.status).map_err(|_| lost())?;
    let headers = [
        (header::CONTENT_TYPE, answered.kind),
        (header::LOCATION, answered.location),
        (header::ETAG, answered.etag),
    ];
    for (name, value) in headers {
        if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    replayed(&mut response);
    Ok(response)
}

fn replayed(response: &mut Response) {
    response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
}
