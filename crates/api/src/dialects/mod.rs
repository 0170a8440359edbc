//! The appliance in the words of other products, for scripts that were written for those. Each
//! dialect is routes, wire types and error bodies over the services, and decides nothing.

pub mod jidoteki;
mod keys;
pub mod ngx;

use axum::Router;

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
