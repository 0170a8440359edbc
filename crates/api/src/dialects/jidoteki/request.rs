//! What comes with a request: parameters of the query and of a form share one space of names, and
//! the query's win; of two with one name the last does.
//!
//! Forms may be multipart, also in chunks, URL-encoded, or one JSON object. All of one is bounded,
//! in bytes and in fields, and read whole before anything is done.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::request::Parts;
use http::{StatusCode, header};
use http_body_util::{BodyExt, Limited};
use percent_encoding::percent_decode_str;

use super::answer::{Answer, Fault};

/// Bytes of a form, of one without files, and of one of which nothing is a multipart form.
pub(crate) const LARGEST: usize = 1 << 20;
pub(crate) const SMALL: usize = 16 << 10;
const PLAIN: usize = 64 << 10;
/// How many parts a form has at most.
const FIELDS: usize = 64;
/// How long a form may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(30);

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
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form")
    }
}

impl Form {
    /// What the query has.
    pub(crate) fn of_query(parts: &Parts) -> Self {
        let query = query(parts.uri.query().unwrap_or_default());
        Self { query, fields: BTreeMap::new() }
    }

    /// Reads the body, of so many bytes at most.
    pub(crate) async fn read(&mut self, parts: &Parts, body: Body, most: usize) -> Answer<()> {
        let late = || {
            let text = "The form did not arrive in time";
            Fault::new(StatusCode::REQUEST_TIMEOUT, text)
        };
        let read = tokio::time::timeout(ARRIVAL, fields(parts, body, most)).await;
        self.fields = read.unwrap_or_else(|_| Err(late()))?;
        Ok(())
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

async fn fields(parts: &Parts, body: Body, most: usize) -> Answer<BTreeMap<String, Value>> {
    let told = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = told.unwrap_or_default();
    let bare = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match bare.as_str() {
        "multipart/form-data" => {
            let boundary = multer::parse_boundary(kind);
            let boundary = boundary.map_err(|_| Fault::bad("The form names no boundary"))?;
            multipart(boundary, body, most).await
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

async fn multipart(boundary: String, body: Body, most: usize) -> Answer<BTreeMap<String, Value>> {
    let broken = |error: multer::Error| match error {
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => {
            too_large(most)
        }
        error => Fault::bad(format!("The form is not understood: {error}")),
    };
    let limit = multer::SizeLimit::new().whole_stream(most as u64);
    let limits = multer::Constraints::new().size_limit(limit);
    let mut form = multer::Multipart::with_constraints(body.into_data_stream(), boundary, limits);
    let mut fields = BTreeMap::new();
    let mut count = 0;
    while let Some(field) = form.next_field().await.map_err(broken)? {
        count += 1;
        if count > FIELDS {
            return Err(Fault::bad(format!("A form has {FIELDS} fields at most")));
        }
        let name = field.name().unwrap_or_default().to_owned();
        let is_file = field.file_name().is_some();
        let bytes = field.bytes().await.map_err(broken)?;
        let value = match is_file {
            true => Value::File(bytes),
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
