//! The appliance itself: whether it lives, what it is, how it fares.

use jiff::Timestamp;
use serde::Serialize;
use strongroom_identity::Right;
use utoipa::ToSchema;

use crate::access::On;
use crate::call::Call;
use crate::metrics::OpenMetrics;
use crate::problem::{Code, Problem, Result};
use crate::route::{Group, Json, Text, get};

pub(super) fn group() -> Group {
    Group::new(
        "System",
        "The appliance itself.",
        [
            get("/healthz", "system.health", "Whether the process answers", health)
                .open("a load balancer must be able to ask"),
            get("/readyz", "system.ready", "Whether it can do its work", ready)
                .open("a load balancer must be able to ask"),
            get("/metrics", "system.metrics", "What is counted, for Prometheus", metrics)
                .needs(Right::StatsView, On::Appliance),
            get("/v1/system/status", "system.status", "How the appliance fares", status)
                .needs(Right::SystemView, On::Appliance),
        ],
    )
}

async fn health(_: Call) -> Result<Text> {
    Ok(Text::new("ok\n"))
}

async fn ready(call: Call) -> Result<Text> {
    if let Err(error) = call.app().catalog().answers().await {
        tracing::warn!(%error, "not ready");
        return Err(Problem::new(Code::Unavailable, "the catalogue's database can't be used"));
    }
    Ok(Text::new("ready\n"))
}

async fn metrics(call: Call) -> Result<Text<OpenMetrics>> {
    Ok(Text::new(call.app().metrics().text(call.app()).await))
}

/// How the appliance fares.
#[derive(Debug, Serialize, ToSchema)]
struct Status {
    /// The program's version.
    version: &'static str,
    /// When the server began.
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Which database holds the catalogue.
    database: &'static str,
}

async fn status(call: Call) -> Result<Json<Status>> {
    let app = call.app();
    let version = env!("CARGO_PKG_VERSION");
    Ok(Json(Status { version, started_at: app.started(), database: app.database() }))
}
