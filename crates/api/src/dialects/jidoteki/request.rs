//! What comes with a request: parameters of the query and of a form share one space of names, and
//! the query's win; of two with one name the last does.
//!
//! Forms may be multipart, also in chunks, URL-encoded, or one JSON object. All of one is bounded,
//! in bytes and in fields, and read whole before anything is done. One field of some endpoints may be
//! a large file, which goes to the disk, of callers who are known by what the query shows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;

use strongroom_appliance::backup::{MAX_ARCHIVE, Spool};

use super::answer::{Answer, Fault};
use super::{backup, update};
use crate::problem::Problem;

/// Bytes of a form, of one without files, and of one of which nothing is a multipart form.
pub(crate) const LARGEST: usize = 1 << 20;
pub(crate) const SMALL: usize = 16 << 10;
const PLAIN: usize = 64 << 10;
/// Bytes of a large file that are written at once.
const PIECE: usize = 256 << 10;
/// How many parts a form has at most.
const FIELDS: usize = 64;
/// How long a form may take to arrive, and one with a large file.
const ARRIVAL: Duration = Duration::from_secs(30);
const ARRIVAL_OF_LARGE: Duration = Duration::from_secs(3600);

/// A parameter of a form.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Value {
    /// A text.
    Text(String),
    /// A file.
    File(Bytes),
}

/// All parameters.
#[derive(Clone, Default)]
pub(crate) struct Form {
    query: BTreeMap<String, String>,
    fields: BTreeMap<String, Value>,
    /// A large file, which is on the disk.
    spooled: Option<Arc<Spool>>,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form")
    }
}

impl Form {
    /// What the query has.
    pub(crate) fn of_query(parts: &Parts) -> Self {
        Self { query: query(parts.uri.query().unwrap_or_default()), ..Self::default() }
    }

    /// Reads the body, of so many bytes at most.
    pub(crate) async fn read(&mut self, parts: &Parts, body: Body, most: usize) -> Answer<()> {
        let read = tokio::time::timeout(ARRIVAL, fields(parts, body, most, None)).await;
        self.fields = read.unwrap_or_else(|_| Err(late()))?;
        Ok(())
    }

    /// As [`Form::read`], with the file of one field on the disk.
    pub(crate) async fn read_large(
        &mut self,
        parts: &Parts,
        body: Body,
        field: &'static str,
        spool: Spool,
    ) -> Answer<()> {
        let refused = refused(field);
        let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|told| told.to_str().ok());
        if let Some(told) = told.and_then(|told| told.parse().ok()) {
            spool.expect(told).map_err(refused)?;
        }
        let mut large = Large { field, spool: Some(spool), is_there: false };
        let read = fields(parts, body, LARGEST, Some(&mut large));
        let read = tokio::time::timeout(ARRIVAL_OF_LARGE, read).await;
        self.fields = read.unwrap_or_else(|_| Err(late()))?;
        self.spooled = large.spool.filter(|_| large.is_there).map(Arc::new);
        Ok(())
    }

    /// The large file.
    pub(crate) fn spooled(&self) -> Option<&Spool> {
        self.spooled.as_deref()
    }

    /// As [`Form::spooled`], for who keeps it.
    pub(crate) fn shared_spool(&self) -> Option<Arc<Spool>> {
        self.spooled.clone()
    }

    /// A parameter that was sent as a file.
    pub(crate) fn file(&self, name: &str) -> Option<&Bytes> {
        match self.fields.get(name)? {
            Value::File(bytes) => Some(bytes),
            Value::Text(_) => None,
        }
    }

    /// A parameter as a file, which may be sent as a text too.
    pub(crate) fn bytes(&self, name: &str) -> Option<Bytes> {
        if let Some(text) = self.query.get(name) {
            return Some(Bytes::from(text.clone()));
        }
        match self.fields.get(name)? {
            Value::Text(text) => Some(Bytes::from(text.clone())),
            Value::File(bytes) => Some(bytes.clone()),
        }
    }

    /// A parameter as a text, which a file may hold too.
    pub(crate) fn text(&self, name: &str) -> Option<String> {
        if let Some(text) = self.query.get(name) {
            return Some(text.clone());
        }
        match self.fields.get(name)? {
            Value::Text(text) => Some(text.clone()),
            Value::File(bytes) => Some(trimmed(&String::from_utf8_lossy(bytes))),
        }
    }
}

/// White space at the end of a form's text doesn't count.
fn trimmed(text: &str) -> String {
    text.trim_end_matches([' ', '\t', '\r', '\n']).to_owned()
}

/// The parameters of a query. A plus sign is one: tokens may have it.
fn query(text: &str) -> BTreeMap<String, String> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

/// The field whose file goes to the disk.
struct Large {
    field: &'static str,
    /// None while it is written to.
    spool: Option<Spool>,
    is_there: bool,
}

impl Large {
    /// Keeps its file, in place of one that came before.
    async fn take(
        &mut self,
        field: &mut multer::Field<'_>,
        broken: impl Fn(multer::Error) -> Fault,
    ) -> Answer<()> {
        self.is_there = true;
        self.spool_with(|spool| spool.clear()).await?;
        let mut ready = Vec::with_capacity(PIECE);
        loop {
            // Others wait for the place.
            let piece = tokio::time::timeout(ARRIVAL, field.chunk()).await;
            let Some(piece) = piece.map_err(|_| late())?.map_err(&broken)? else { break };
            ready.extend_from_slice(&piece);
            if ready.len() >= PIECE {
                let pieces = std::mem::replace(&mut ready, Vec::with_capacity(PIECE));
                self.spool_with(move |spool| spool.write(&pieces)).await?;
            }
        }
        self.spool_with(move |spool| spool.write(&ready)).await
    }

    /// Does something with the spool where that holds nobody up.
    async fn spool_with(
        &mut self,
        work: impl FnOnce(&mut Spool) -> strongroom_appliance::Result<()> + Send + 'static,
    ) -> Answer<()> {
        let Some(mut spool) = self.spool.take() else { return Err(late()) };
        let done = tokio::task::spawn_blocking(move || {
            let done = work(&mut spool);
            (spool, done)
        });
        let (spool, done) = done.await.map_err(|error| Problem::internal(&error))?;
        self.spool = Some(spool);
        done.map_err(refused(self.field))
    }
}

/// How it is told that the file of this field can't be taken.
pub(super) fn refused(field: &str) -> fn(strongroom_appliance::Error) -> Fault {
    if field == update::FIELD { update::refused } else { backup::refused }
}

fn late() -> Fault {
    Fault::new(StatusCode::REQUEST_TIMEOUT, "The form did not arrive in time")
}

async fn fields(
    parts: &Parts,
    body: Body,
    most: usize,
    large: Option<&mut Large>,
) -> Answer<BTreeMap<String, Value>> {
    let told = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = told.unwrap_or_default();
    let bare = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match bare.as_str() {
        "multipart/form-data" => {
            let boundary = multer::parse_boundary(kind);
            let boundary = boundary.map_err(|_| Fault::bad("The form names no boundary"))?;
            multipart(boundary, body, most, large).await
        }
        "application/x-www-form-urlencoded" => {
            let body = whole(body, most.min(PLAIN)).await?;
            let pairs = form_urlencoded::parse(&body);
            let pairs = pairs.map(|(name, value)| (name.into_owned(), text(&value)));
            bounded(pairs.collect())
        }
        "application/json" => {
            let body = whole(body, most.min(PLAIN)).await?;
            let read: serde_json::Result<BTreeMap<String, serde_json::Value>> =
                serde_json::from_slice(&body);
            let read = read.map_err(|_| Fault::bad("The body is not one JSON object"))?;
            let pairs = read.into_iter().map(|(name, value)| match value {
                serde_json::Value::String(value) => (name, text(&value)),
                other => (name, Value::Text(other.to_string())),
            });
            bounded(pairs.collect())
        }
        _ => {
            if whole(body, most).await?.is_empty() {
                return Ok(BTreeMap::new());
            }
            Err(Fault::bad("Invalid content type. Expected multipart/form-data"))
        }
    }
}

fn text(value: &str) -> Value {
    Value::Text(trimmed(value))
}

fn bounded(fields: BTreeMap<String, Value>) -> Answer<BTreeMap<String, Value>> {
    if fields.len() > FIELDS {
        return Err(Fault::bad(format!("A form has {FIELDS} fields at most")));
    }
    Ok(fields)
}

fn too_large(most: usize) -> Fault {
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, format!("The form may have {most} bytes"))
}

async fn whole(body: Body, most: usize) -> Answer<Bytes> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(most)),
        Err(_) => Err(Fault::bad("The body broke off")),
    }
}

async fn multipart(
    boundary: String,
    body: Body,
    most: usize,
    mut large: Option<&mut Large>,
) -> Answer<BTreeMap<String, Value>> {
    let broken = |error: multer::Error| match error {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            too_large(most)
        }
        error => Fault::bad(format!("The form is not understood: {error}")),
    };
    let whole = match large {
        Some(_) => MAX_ARCHIVE + most as u64,
        None => most as u64,
    };
    let limit = multer::SizeLimit::new().whole_stream(whole);
    let limits = multer::Constraints::new().size_limit(limit);
    let mut form = multer::Multipart::with_constraints(body.into_data_stream(), boundary, limits);
    let mut fields = BTreeMap::new();
    let (mut count, mut room) = (0, most);
    while let Some(mut field) = form.next_field().await.map_err(broken)? {
        count += 1;
        if count > FIELDS {
            return Err(Fault::bad(format!("A form has {FIELDS} fields at most")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let is_file = field.file_name().is_some();
        if let Some(large) = large.as_deref_mut().filter(|large| large.field == name && is_file) {
            large.take(&mut field, broken).await?;
            fields.remove(&name);
            continue;
        }
        let mut bytes = Vec::new();
        while let Some(piece) = field.chunk().await.map_err(broken)? {
            room = room.checked_sub(piece.len()).ok_or_else(|| too_large(most))?;
            bytes.extend_from_slice(&piece);
        }
        let value = match is_file {
            true => Value::File(bytes.into()),
            false => text(&String::from_utf8_lossy(&bytes)),
        };
        fields.insert(name, value);
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http::Request;

    use super::*;

    async fn read(uri: &str, kind: &str, body: &str) -> Answer<Form> {
        let request = Request::post(uri).header("content-type", kind);
        let (parts, body) = request.body(Body::from(body.to_owned())).unwrap().into_parts();
        let mut form = Form::of_query(&parts);
        form.read(&parts, body, LARGEST).await?;
        Ok(form)
    }

    fn part(name: &str, file: Option<&str>, value: &str) -> String {
        let file = file.map(|file| format!("; filename=\"{file}\"")).unwrap_or_default();
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n{value}\r\n")
    }

    const KIND: &str = "multipart/form-data; boundary=b";

    #[tokio::test]
    async fn the_query_wins_and_the_last_of_a_name() {
        let body = part("token", None, "form") + &part("a", None, "1") + &part("a", None, "2  ");
        let form = read("/?token=old&token=x%2By+z", KIND, &(body + "--b--\r\n")).await.unwrap();
        assert_eq!(form.text("token").unwrap(), "x+y+z");
        assert_eq!(form.text("a").unwrap(), "2");
        assert_eq!(form.text("none"), None);
        let form = read("/?hash=&hash", KIND, "--b--\r\n").await.unwrap();
        assert_eq!(form.text("hash").unwrap(), "");
    }

    #[tokio::test]
    async fn a_file_that_should_be_text_is_its_content() {
        let body = part("newtoken", Some("nl"), "secret\r\n") + "--b--\r\n";
        let form = read("/", KIND, &body).await.unwrap();
        assert_eq!(form.text("newtoken").unwrap(), "secret");
    }

    #[tokio::test]
    async fn other_forms_say_the_same() {
        let form = read("/", "application/x-www-form-urlencoded", "token=a%20b+c").await.unwrap();
        assert_eq!(form.text("token").unwrap(), "a b c");
        let form = read("/", "application/json", r#"{"action":"START","n":5}"#).await.unwrap();
        assert_eq!(form.text("action").unwrap(), "START");
        assert_eq!(form.text("n").unwrap(), "5");
        assert_eq!(read("/?token=t", "text/plain", "").await.unwrap().text("token").unwrap(), "t");
    }

    #[tokio::test]
    async fn what_is_no_form_is_refused() {
        let many = (0..65).map(|i| part(&i.to_string(), None, "x")).collect::<String>();
        let large = part("a", Some("a"), &"x".repeat(LARGEST));
        for (kind, body) in [
            (KIND, "--b\r\nContent-Dispo".to_owned()),
            (KIND, String::new()),
            ("multipart/form-data", String::new()),
            (KIND, many + "--b--\r\n"),
            (KIND, large + "--b--\r\n"),
            ("application/json", "[]".into()),
            ("application/json", "{".into()),
            ("application/x-www-form-urlencoded", "x".repeat(PLAIN + 1)),
            ("application/json", format!("{{\"a\":\"{}\"}}", "x".repeat(PLAIN))),
            ("text/plain", "token=x".into()),
        ] {
            assert!(read("/", kind, &body).await.is_err(), "{kind} {:.40}", body);
        }
    }
}
