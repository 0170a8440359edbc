//! What is answered: JSON, and errors with a number that clients of the original know.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::problem::{Code, Problem};

/// Seconds after which it may be tried again what can't be done at the moment: as long as clients of the
/// original wait by themselves.
const RETRY: u64 = 10;

/// An answer, or what went wrong.
pub(crate) type Answer<T = Response> = Result<T, Fault>;

macro_rules! numbers {
    ($($name:ident = $number:literal $status:ident $meaning:literal;)*) => {
        /// What went wrong, by the number that clients of the original know; those from 9000 are
        /// ours: 9000 and the status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Number {
            $(#[doc = $meaning] $name,)*
        }

        impl Number {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// As it is told.
            pub const fn value(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The status that comes with it.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)* }
            }

            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)* }
            }
        }
    };
}

numbers! {
    InitiatorExists = 522 CONFLICT "The auth group has that initiator already.";
    Attached = 534 CONFLICT "It is in use: mapped to a target, used by one, or a clone depends on it.";
    NoTarget = 611 NOT_FOUND "There is no such target, or no longer.";
    Exists = 710 CONFLICT "There is one of that name already.";
    Busy = 725 SERVICE_UNAVAILABLE "It can't be done at the moment: try again later.";
    Unauthorized = 5000 UNAUTHORIZED "There is no such API key, it is switched off, has ended, or is not for this interface.";
    NotFound = 5011 NOT_FOUND "There is no such thing, or not for this key.";
    Invalid = 9400 BAD_REQUEST "What was sent can't be taken.";
    Forbidden = 9403 FORBIDDEN "The key, or its user, may not do that.";
    NoPath = 9404 NOT_FOUND "There is no such path.";
    Method = 9405 METHOD_NOT_ALLOWED "The path has no such method.";
    Conflict = 9409 CONFLICT "Its state does not allow that.";
    TooLarge = 9413 PAYLOAD_TOO_LARGE "The body is too large.";
    Internal = 9500 INTERNAL_SERVER_ERROR "The appliance failed; its log says why.";
    Absent = 9501 NOT_IMPLEMENTED "This version has no such thing.";
    Timeout = 9504 GATEWAY_TIMEOUT "It took too long.";
}

/// What went wrong.
#[derive(Debug)]
pub(crate) struct Fault {
    number: Number,
    text: String,
}

impl Fault {
    /// With this text, which must not hold secrets.
    pub(crate) fn new(number: Number, text: impl Into<String>) -> Self {
        Self { number, text: text.into() }
    }

    /// What was sent can't be taken.
    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Number::Invalid, text)
    }

    /// There is no such thing, or not for the caller: nobody can tell which.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Number::NotFound, format!("there is no such {what}"))
    }

    /// It may be that this number says it better.
    pub(crate) fn told_as(mut self, from: Number, to: Number) -> Self {
        if self.number == from {
            self.number = to;
        }
        self
    }

    /// For the audit trail.
    pub(crate) fn word(&self) -> &str {
        &self.text
    }

    pub(crate) fn response(self) -> Response {
        let body = ErrorBody { code: self.number.value(), error: self.text };
        let mut response = json(self.number.status(), &body);
        let headers = response.headers_mut();
        if self.number == Number::Unauthorized {
            let scheme = HeaderValue::from_static("Bearer realm=\"strongroom\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        if self.number == Number::Busy {
            headers.insert(header::RETRY_AFTER, RETRY.into());
        }
        response
    }
}

/// An error.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What went wrong, for programs.
    code: u16,
    /// What went wrong, for people.
    error: String,
}

impl From<Problem> for Fault {
    /// The native text is the message.
    fn from(problem: Problem) -> Self {
        let number = match problem.code() {
            Code::Unauthenticated | Code::SecondFactor => Number::Unauthorized,
            Code::Forbidden | Code::ApprovalNeeded | Code::PasswordChange => Number::Forbidden,
            Code::NotFound => Number::NotFound,
            Code::Exists => Number::Exists,
            Code::InUse => Number::Attached,
            Code::Unavailable | Code::TooMany => Number::Busy,
            Code::Timeout | Code::RequestTimeout => Number::Timeout,
            Code::Internal => Number::Internal,
            Code::TooLarge => Number::TooLarge,
            Code::MethodNotAllowed => Number::Method,
            Code::Conflict | Code::Immutable | Code::InProgress | Code::Changed => Number::Conflict,
            Code::BadRequest | Code::Invalid | Code::MediaType | Code::Range | Code::KeyReused => {
                Number::Invalid
            }
        };
        Self::new(number, problem.detail())
    }
}

macro_rules! through_problem {
    ($($error:ty),*) => {
        $(impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Problem::from(error).into()
            }
        })*
    };
}

through_problem!(
    strongroom_appliance::Error,
    strongroom_catalog::Error,
    strongroom_identity::AuthError,
    strongroom_identity::Error
);

impl From<strongroom_storage::Error> for Fault {
    fn from(error: strongroom_storage::Error) -> Self {
        use strongroom_storage::Error;
        let number = match &error {
            Error::InUse(_) | Error::VolumeServed { .. } | Error::VolumeInUse { .. } => {
                Number::Attached
            }
            Error::Closed { .. } | Error::Used { .. } | Error::Crowded => Number::Busy,
            _ => return Problem::from(error).into(),
        };
        Self::new(number, error.to_string())
    }
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            *response.status_mut() = status;
            let kind = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        Err(error) => Fault::from(Problem::internal(&error)).response(),
    }
}

/// What was asked for.
pub(crate) fn found(value: &impl Serialize) -> Answer {
    Ok(json(StatusCode::OK, value))
}

/// That it was done.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Success {
    success: bool,
}

/// It was done.
pub(crate) fn done() -> Answer {
    found(&Success { success: true })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn our_own_numbers_tell_the_status() {
        let mut seen = BTreeSet::new();
        for number in Number::ALL {
            assert!(seen.insert(number.value()), "{number:?}");
            if number.value() >= 9000 {
                assert_eq!(number.value() - 9000, number.status().as_u16(), "{number:?}");
            }
        }
    }

    #[tokio::test]
    async fn faults_have_a_number_and_a_text() {
        let response = Fault::from(Problem::new(Code::Unauthenticated, "no")).response();
        let (parts, body) = response.into_parts();
        assert_eq!(parts.status, 401);
        assert!(parts.headers.contains_key(header::WWW_AUTHENTICATE));
        let body = body.collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"code":5000,"error":"no"}"#);
        let body = done().unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, r#"{"success":true}"#);
    }
}
