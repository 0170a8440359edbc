//! What every answer goes through: the request's id, security headers, compression.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::Response;
use http::{HeaderValue, header};
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{NotForContentType, Predicate, SizeAbove};

use crate::request_id;

/// Bytes from which an answer is compressed.
const WORTH: u64 = 1024;

/// Puts them around a router. `Accept-Encoding` decides between zstd and gzip; event streams are
/// sent as they come, and files as they are.
pub(crate) fn around(router: Router) -> Router {
    let worth = SizeAbove::new(WORTH)
        .and(NotForContentType::const_new("text/event-stream"))
        .and(NotForContentType::const_new("application/octet-stream"))
        .and(NotForContentType::const_new("application/zip"))
        .and(NotForContentType::const_new("application/x-tar"))
        .and(NotForContentType::IMAGES);
    router
        .layer(CompressionLayer::new().gzip(true).zstd(true).compress_when(worth))
        .layer(middleware::from_fn(secure))
        .layer(middleware::from_fn(request_id::layer))
}

/// Nothing may frame the answers, guess what they are, or keep them, unless they say otherwise.
async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
