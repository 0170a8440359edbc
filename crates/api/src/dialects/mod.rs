//! The appliance in the words of other products, for scripts that were written for those. Each
//! dialect is routes, wire types and error bodies over the services, and decides nothing.

pub mod jidoteki;

use axum::Router;

use crate::app::App;

/// What of the dialects can be configured.
#[derive(Clone, Debug, Default)]
pub struct Dialects {
    /// Jidoteki Admin.
    pub jidoteki: jidoteki::Options,
}

pub(crate) fn router(app: &App, dialects: &Dialects) -> Router {
    jidoteki::router(app, &dialects.jidoteki)
}
