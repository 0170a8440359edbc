//! The interactive documentation: Swagger UI, from this binary alone.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use http::{HeaderValue, header};
use utoipa_swagger_ui::{Config, Url};

use crate::problem::{Code, Problem};

/// Where it is.
pub const PAGE: &str = "/api/docs/index.html";
/// Where the native document is.
pub const DOCUMENT: &str = "/openapi.json";
/// Where that of the dialect Jidoteki Admin is.
pub(crate) const JIDOTEKI: &str = "/openapi/jidoteki.json";
/// Where that of the dialect NGX Storage is.
pub(crate) const NGX: &str = "/openapi/ngx.json";
/// What the pages call them.
const NAMES: [(&str, &str); 3] =
    [("Strongroom", DOCUMENT), ("Jidoteki Admin", JIDOTEKI), ("NGX Storage", NGX)];
/// Its pages load nothing from elsewhere; their styles stand in them.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; \
                      img-src 'self' data:; frame-ancestors 'none'";

/// The pages, and the documents that they show, each at its path.
pub(crate) fn router(documents: [(&'static str, Bytes); NAMES.len()]) -> Router {
    let config = Config::new(NAMES.map(|(name, path)| Url::new(name, path)))
        .display_operation_id(true)
        .persist_authorization(false);
    let config = Arc::new(config);
    let show = move |Path(path): Path<String>| {
        let response = page(&path, &config);
        async move { response }
    };
    let mut router = Router::new();
    for (path, document) in documents {
        let serve = move || {
            let document = document.clone();
            async move { ([(header::CONTENT_TYPE, "application/json")], document) }
        };
        router = router.route(path, get(serve));
    }
    router
        // Where Jidoteki Admin has its own.
        .route("/docs", get(|| async { Redirect::to(PAGE) }))
        .route("/api/docs", get(|| async { Redirect::to(PAGE) }))
        .route("/api/docs/", get(|| async { Redirect::to(PAGE) }))
        .route("/api/docs/{*path}", get(show))
}

/// The first page, under a name by which one finds it among others.
fn titled(page: &str) -> String {
    page.replace("<title>Swagger UI</title>", "<title>Strongroom API</title>")
}

fn page(path: &str, config: &Arc<Config<'static>>) -> Response {
    match utoipa_swagger_ui::serve(path, Arc::clone(config)) {
        Ok(Some(file)) => {
            let mut bytes = file.bytes.into_owned();
            if path == "index.html" && !file.gzpipped {
                bytes = titled(&String::from_utf8_lossy(&bytes)).into_bytes();
            }
            let mut response = bytes.into_response();
            let headers = response.headers_mut();
            if let Ok(kind) = HeaderValue::from_str(&file.content_type) {
                headers.insert(header::CONTENT_TYPE, kind);
            }
            if file.gzpipped {
                headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            response
        }
        Ok(None) => {
            Problem::new(Code::NotFound, format!("there is no page {path}")).into_response()
        }
        Err(error) => Problem::internal(error.as_ref()).into_response(),
    }
}
