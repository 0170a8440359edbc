//! The HTTP interface.
//!
//! [`native`] declares the routes of `/v1`; [`route`] makes of such declarations the router, the
//! access check, the OpenAPI document and a table of all routes; [`server`] serves them. No rule of
//! the business is here: a route reads its input, calls one service and shapes the answer.

pub mod access;
mod app;
mod call;
pub mod dialects;
mod docs;
mod error;
mod fetch;
mod layers;
pub mod metrics;
pub mod native;
pub mod problem;
mod refusal;
pub mod request_id;
pub mod route;
pub mod server;
mod stream;
mod support;

use axum::Router;

pub use app::{App, KeySealer, Machine};
pub use call::Call;
pub use dialects::Dialects;
pub use docs::{DOCUMENT, PAGE};
pub use error::{Error, Result};
pub use fetch::{AcmeHttps, Https};
pub use problem::Problem;

/// Everything that the appliance serves.
pub fn router(app: &App, dialects: &Dialects) -> Router {
    let routes = native::routes();
    let documents = [
        (docs::DOCUMENT, routes.document().into()),
        (docs::JIDOTEKI, dialects::jidoteki::document().into()),
        (docs::NGX, dialects::ngx::document().into()),
    ];
    let router = routes.router(app).merge(docs::router(documents));
    let router = router.merge(dialects::router(app, dialects));
    layers::around(router.fallback(route::nowhere))
}
