//! Every request has an id: in its answer, in problems, in the log and in the audit.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue};
use tracing::Instrument;

/// The header that holds it.
pub const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of one that the caller chose, at most.
const MAX: usize = 64;

tokio::task_local! {
    static CURRENT: String;
}

/// The id of the request that is being answered; empty outside one.
pub fn current() -> String {
    CURRENT.try_with(Clone::clone).unwrap_or_default()
}

/// Does the work as part of the request with this id.
pub(crate) async fn within<T>(id: String, work: impl Future<Output = T>) -> T {
    CURRENT.scope(id, work).await
}

/// The caller's own id when it is short and plain, else a new one.
fn of(given: Option<&HeaderValue>) -> String {
    let plain = |text: &&str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        !text.is_empty() && text.len() <= MAX && text.bytes().all(fits)
    };
    match given.and_then(|value| value.to_str().ok()).filter(plain) {
        Some(text) => text.to_owned(),
        None => fresh(),
    }
}

fn fresh() -> String {
    let mut bytes = [0u8; 12];
    // Without random bytes ids are equal, which harms nobody.
    let _ = getrandom::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}

/// Gives the request its id and answers it with that.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let id = of(request.headers().get(HEADER));
    let span =
        tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    // Both are plain, see above.
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(HEADER, value.clone());
        let mut response = CURRENT.scope(id, next.run(request).instrument(span)).await;
        response.headers_mut().insert(HEADER, value);
        return response;
    }
    CURRENT.scope(id, next.run(request).instrument(span)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_ids_are_taken_from_outside() {
        let given = |text: &'static str| of(Some(&HeaderValue::from_static(text)));
        assert_eq!(given("build-7_a.b"), "build-7_a.b");
        for wrong in ["", "a b", "a\"b", "<script>"] {
            assert_eq!(given(wrong).len(), 24, "{wrong}");
        }
        assert_ne!(of(None), of(None));
    }
}
