//! What is told when something goes wrong: problem details (RFC 9457), always JSON, with a code that
//! programs may rely on.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of problem details.
pub const MEDIA_TYPE: &str = "application/problem+json";

macro_rules! codes {
    ($($name:ident = $text:literal $status:ident $title:literal;)*) => {
        /// What went wrong, for programs. A code never changes its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $(#[doc = $title] $name,)*
        }

        impl Code {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it stands in the `code` of a problem.
            pub fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The status that comes with it.
            pub fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it means.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }
        }
    };
}

codes! {
    BadRequest = "bad_request" BAD_REQUEST "The request is not understood.";
    Unauthenticated = "unauthenticated" UNAUTHORIZED "It must be known who asks.";
    SecondFactor = "second_factor_needed" UNAUTHORIZED "The code of the second factor is needed.";
    PasswordChange = "password_change_needed" FORBIDDEN "The password must be changed first.";
    Forbidden = "forbidden" FORBIDDEN "The caller may not do that.";
    ApprovalNeeded = "approval_needed" FORBIDDEN "Another administrator must approve that first.";
    NotFound = "not_found" NOT_FOUND "There is no such thing.";
    MethodNotAllowed = "method_not_allowed" METHOD_NOT_ALLOWED "The path has no such method.";
    RequestTimeout = "request_timeout" REQUEST_TIMEOUT "The request did not arrive in time.";
    Exists = "exists" CONFLICT "There is such a thing already.";
    InUse = "in_use" CONFLICT "Others depend on it.";
    Conflict = "conflict" CONFLICT "Its state does not allow that.";
    Immutable = "immutable" CONFLICT "It is immutable until a later time.";
    InProgress = "in_progress" CONFLICT "The same request is being worked on.";
    Changed = "changed" PRECONDITION_FAILED "It was changed since it was read.";
    TooLarge = "too_large" PAYLOAD_TOO_LARGE "The request is too large.";
    MediaType = "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE "The body is of another kind than the route takes.";
    Range = "range_not_satisfiable" RANGE_NOT_SATISFIABLE "There are no such bytes.";
    Invalid = "invalid" UNPROCESSABLE_ENTITY "A value is not acceptable.";
    KeyReused = "idempotency_key_reused" UNPROCESSABLE_ENTITY
        "The key was used for another request.";
    TooMany = "too_many_attempts" TOO_MANY_REQUESTS "There were too many attempts.";
    Internal = "internal" INTERNAL_SERVER_ERROR "The appliance failed; its log says more.";
    Unavailable = "unavailable" SERVICE_UNAVAILABLE "It can't be used at the moment.";
    Timeout = "timeout" GATEWAY_TIMEOUT "It took too long.";
}

/// A problem, to be answered to the caller.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: String,
    retry_after: Option<u64>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// What a service's error becomes, or a route's own.
pub type Result<T, E = Problem> = std::result::Result<T, E>;

impl Problem {
    /// What went wrong, and what the caller can do. The text must not hold secrets.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), retry_after: None, headers: Vec::new() }
    }

    /// Something outside the caller's reach failed. The cause goes to the log, not to the caller.
    pub fn internal(cause: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = cause.to_string();
        let mut source = cause.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::error!(error = text, "a request failed");
        let detail = "the appliance failed; its log says why, by the id of this request";
        Self::new(Code::Internal, detail)
    }

    /// There is no such thing, or not for the caller: nobody can tell which.
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// It may be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// With this header.
    #[must_use]
    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Its code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Its text.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

/// Problem details as of RFC 9457.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// Always `about:blank`: the code tells the kind.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the code means.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// A code that programs may rely on.
    #[schema(value_type = String, example = "not_found")]
    pub code: String,
    /// What went wrong here, and what to do.
    pub detail: String,
    /// The id of the request, as in the header `X-Request-Id` and in the log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

impl ProblemDetails {
    /// What is written for a problem.
    pub fn of(problem: &Problem, request_id: &str) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: problem.code.title().to_owned(),
            status: problem.code.status().as_u16(),
            code: problem.code.text().to_owned(),
            detail: problem.detail.clone(),
            request_id: request_id.to_owned(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let id = crate::request_id::current();
        let details = ProblemDetails::of(&self, &id);
        // A struct of strings and a number can always be written.
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        if self.code.status() == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"strongroom\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        headers.extend(self.headers.into_iter().map(|(name, value)| (Some(name), value)));
        // For the metrics and the trail.
        response.extensions_mut().insert(self.code);
        response
    }
}

impl From<strongroom_catalog::list::ListError> for Problem {
    fn from(error: strongroom_catalog::list::ListError) -> Self {
        Self::new(Code::BadRequest, error.to_string())
    }
}

impl From<strongroom_catalog::Error> for Problem {
    fn from(error: strongroom_catalog::Error) -> Self {
        use strongroom_catalog::Error;
        let code = match &error {
            Error::Exists { .. } => Code::Exists,
            Error::Referenced { .. } | Error::Busy { .. } => Code::InUse,
            Error::NotFound { .. } => Code::NotFound,
            Error::Changed { .. } => Code::Changed,
            Error::List(_) => Code::BadRequest,
            _ => return Self::internal(&error),
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_words() {
        let mut seen = std::collections::BTreeSet::new();
        for code in Code::ALL {
            assert!(seen.insert(code.text()), "{code:?}");
            assert!(code.text().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }

    #[test]
    fn what_failed_inside_is_not_told() {
        let cause = std::io::Error::other("password hunter2 at /secret/place");
        let problem = Problem::internal(&cause);
        assert_eq!(problem.code(), Code::Internal);
        assert!(!problem.detail().contains("hunter2"));
    }

    #[test]
    fn who_must_log_in_is_told_how() {
        let response = Problem::new(Code::Unauthenticated, "log in").into_response();
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        assert!(response.headers().contains_key(header::WWW_AUTHENTICATE));
    }
}
