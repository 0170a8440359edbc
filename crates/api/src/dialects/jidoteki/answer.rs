//! What is answered: compact JSON with the status in it, and errors that tell their message twice,
//! in the body and in the header `Error-Message`, as the original does.

use std::io;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use super::PREFIX;
use crate::problem::{Code, Problem};

const ERROR_MESSAGE: HeaderName = HeaderName::from_static("error-message");

/// An answer, or what went wrong.
pub(crate) type Answer<T = Response> = Result<T, Fault>;

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    status: StatusCode,
    message: Option<String>,
    retry_after: Option<u64>,
}

impl Fault {
    /// With nothing but its status.
    pub(crate) fn bare(status: StatusCode) -> Self {
        Self { status, message: None, retry_after: None }
    }

    /// With a message.
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { message: Some(message.into()), ..Self::bare(status) }
    }

    /// 400.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// 404.
    pub(crate) fn not_found() -> Self {
        Self::bare(StatusCode::NOT_FOUND)
    }

    /// 403, which says no more than that.
    pub(crate) fn unauthenticated() -> Self {
        Self::new(StatusCode::FORBIDDEN, "Authentication error")
    }

    /// It may be tried again after so many seconds.
    pub(crate) fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// For the audit trail.
    pub(crate) fn word(&self) -> &str {
        self.message.as_deref().unwrap_or_else(|| self.status.canonical_reason().unwrap_or("error"))
    }

    /// The answer. `first_run`: whether there is one, where there can be one; it is told with every
    /// message.
    pub(crate) fn response(self, first_run: Option<bool>) -> Response {
        let mut body = Status::of(self.status);
        if let Some(message) = &self.message {
            (body.error_message, body.first_run) = (Some(message.as_str()), first_run);
        }
        let mut response = json(self.status, &body);
        // What no header can hold stands in the body alone.
        let message = self.message.and_then(|message| HeaderValue::from_str(&message).ok());
        if let Some(message) = message {
            response.headers_mut().insert(ERROR_MESSAGE, message);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Problem> for Fault {
    /// The native text is the message.
    fn from(problem: Problem) -> Self {
        let status = match problem.code() {
            Code::Unauthenticated | Code::SecondFactor | Code::PasswordChange => {
                return Self::unauthenticated();
            }
            Code::NotFound => return Self::not_found(),
            Code::Forbidden | Code::ApprovalNeeded => StatusCode::FORBIDDEN,
            code if code.status().is_client_error() => StatusCode::BAD_REQUEST,
            code => code.status(),
        };
        Self::new(status, problem.detail())
    }
}

impl From<strongroom_appliance::Error> for Fault {
    fn from(error: strongroom_appliance::Error) -> Self {
        Problem::from(error).into()
    }
}

impl From<strongroom_identity::Error> for Fault {
    fn from(error: strongroom_identity::Error) -> Self {
        Problem::from(error).into()
    }
}

/// What stands in an answer that tells how it went, in the original's order.
#[derive(Debug, Serialize)]
struct Status<'a> {
    #[serde(rename = "Status")]
    status: String,
    #[serde(rename = "Location", skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    #[serde(rename = "Error-Message", skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    #[serde(rename = "First-Run", skip_serializing_if = "Option::is_none")]
    first_run: Option<bool>,
}

impl Status<'_> {
    /// `200 OK`.
    fn of(status: StatusCode) -> Self {
        let reason = status.canonical_reason().unwrap_or_default();
        let status = format!("{} {reason}", status.as_str());
        Self { status, location: None, error_message: None, first_run: None }
    }
}

/// JSON, without a line end.
fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => of("application/json", text, status),
        Err(error) => Fault::from(Problem::internal(&error)).response(None),
    }
}

/// What was asked for.
pub(crate) fn found(value: &impl Serialize) -> Response {
    json(StatusCode::OK, value)
}

/// It was done.
pub(crate) fn done() -> Response {
    found(&Status::of(StatusCode::OK))
}

/// A job does it; how that goes is told there, below the prefix.
pub(crate) fn accepted(path: &str) -> Response {
    let location = format!("{PREFIX}{path}");
    let mut body = Status::of(StatusCode::ACCEPTED);
    body.location = Some(&location);
    let mut response = json(StatusCode::ACCEPTED, &body);
    if let Ok(location) = HeaderValue::from_str(&location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

/// Text, to be read anew each time.
pub(crate) fn plain(text: impl Into<String>) -> Response {
    let mut response = of("text/plain", text.into(), StatusCode::OK);
    let no_cache = HeaderValue::from_static("no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, no_cache);
    response
}

/// A file to be stored under its name, as it comes. The original's document names it in one header,
/// its program in another.
pub(crate) fn file<S>(name: &'static str, bytes: S) -> Response
where
    S: Stream<Item = io::Result<Bytes>> + Send + 'static,
{
    let mut response = Response::new(Body::from_stream(bytes));
    let headers = response.headers_mut();
    let kind = HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=1"));
    headers.insert(HeaderName::from_static("filename"), HeaderValue::from_static(name));
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    secure(headers);
    response
}

fn of(kind: &'static str, body: String, status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    secure(response.headers_mut());
    response
}

/// The original's security headers; ours stand beside them.
pub(crate) fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000 ; includeSubDomains"),
        (header::X_FRAME_OPTIONS, "deny"),
        (header::X_XSS_PROTECTION, "1"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, "object-src 'self';"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Where all of it is, without the slash at its front: so it stands in the audit trail.
pub(crate) fn target(path: &str) -> String {
    format!("{}{path}", &PREFIX[1..])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use http_body_util::BodyExt;

    use super::*;

    async fn shown(response: Response) -> (String, Option<String>) {
        let (parts, body) = response.into_parts();
        let message = parts.headers.get(ERROR_MESSAGE).map(|v| v.to_str().unwrap().to_owned());
        let body = body.collect().await.unwrap().to_bytes();
        (String::from_utf8(body.to_vec()).unwrap(), message)
    }

    #[tokio::test]
    async fn faults_are_told_as_the_original_does() {
        let bare = Fault::not_found().response(Some(false));
        assert_eq!(shown(bare).await, (r#"{"Status":"404 Not Found"}"#.into(), None));
        let (body, message) = shown(Fault::unauthenticated().response(Some(true))).await;
        assert_eq!(
            body,
            r#"{"Status":"403 Forbidden","Error-Message":"Authentication error","First-Run":true}"#
        );
        assert_eq!(message.unwrap(), "Authentication error");
        let (body, _) = shown(Fault::bad("x").response(None)).await;
        assert_eq!(body, r#"{"Status":"400 Bad Request","Error-Message":"x"}"#);
        assert_eq!(shown(done()).await.0, r#"{"Status":"200 OK"}"#);
        // What can't be a header is told nevertheless.
        let (body, message) = shown(Fault::bad("a\nb").response(None)).await;
        assert!(body.contains(r"a\nb") && message.is_none(), "{body}");
    }
}
