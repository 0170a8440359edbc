//! The appliance in the words of other products, for scripts that were written for those. Each
//! dialect is routes, wire types and error bodies over the services, and decides nothing.

pub mod jidoteki;
mod keys;
pub mod ngx;

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use axum::routing::any;

use crate::app::App;

pub(crate) use self::keys::{KeyDialect, of_keys};

/// What of the dialects can be configured.
#[derive(Clone, Debug, Default)]
pub struct Dialects {
    /// Jidoteki Admin.
    pub jidoteki: jidoteki::Options,
    /// NGX Storage.
    pub ngx: ngx::Options,
}

pub(crate) fn router(app: &App, dialects: &Dialects) -> Router {
    jidoteki::router(app, &dialects.jidoteki).merge(ngx::router(app, &dialects.ngx))
}

/// Has a dialect serve all that is below its prefix, whatever the method.
fn below<D, F>(prefix: &str, dialect: D, serve: fn(Arc<D>, Request) -> F) -> Router
where
    D: Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let dialect = Arc::new(dialect);
    let serve = move |request: Request| serve(Arc::clone(&dialect), request);
    let paths = [prefix.to_owned(), format!("{prefix}/"), format!("{prefix}/{{*path}}")];
    paths.iter().fold(Router::new(), |router, path| router.route(path, any(serve.clone())))
}
