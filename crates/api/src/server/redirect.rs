//! What plain HTTP answers: where it is found with TLS, and what proves to a certificate authority that a name
//! is this appliance's.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::uri::Authority;
use http::{HeaderValue, StatusCode, header};
use strongroom_appliance::Challenges;

/// Before the token of a proof (RFC 8555, section 8.3).
const PROOF: &str = "/.well-known/acme-challenge/";

/// A router that knows only one answer, and those that an authority waits for.
pub(super) fn router(https_port: u16, challenges: Challenges) -> Router {
    Router::new().fallback(move |request: Request| async move {
        let token = request.uri().path().strip_prefix(PROOF);
        match token.and_then(|token| challenges.answer(token)) {
            Some(proof) => {
                ([(header::CONTENT_TYPE, "application/octet-stream")], proof).into_response()
            }
            None => answer(&request, https_port),
        }
    })
}

fn answer(request: &Request, https_port: u16) -> Response {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    // Only the name is taken over, so that nobody is sent elsewhere by a crafted header.
    let authority = host.and_then(|host| host.parse::<Authority>().ok());
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let target = authority.and_then(|authority| {
        let host = authority.host();
        HeaderValue::from_str(&format!("https://{host}:{https_port}{path}")).ok()
    });
    match target {
        Some(target) => {
            (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, target)]).into_response()
        }
        None => (StatusCode::BAD_REQUEST, "This port only redirects to HTTPS.\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use axum::body::Body;

    use super::*;

    #[test]
    fn the_same_place_with_tls() {
        let ask = |host: &str, path: &str| {
            let request = Request::builder().uri(path).header("host", host);
            let response = answer(&request.body(Body::empty()).unwrap(), 8443);
            let location = response.headers().get("location").cloned();
            location.map(|location| location.to_str().unwrap().to_owned())
        };
        assert_eq!(ask("box:80", "/v1?a=b").unwrap(), "https://box:8443/v1?a=b");
        assert_eq!(ask("[::1]:80", "/").unwrap(), "https://[::1]:8443/");
        assert_eq!(ask("user@evil:1", "//other").unwrap(), "https://evil:8443//other");
        assert_eq!(ask("a b", "/"), None);
    }
}
