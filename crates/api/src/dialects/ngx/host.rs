//! Profiles of hosts, of which there are none: initiators stand in auth groups.

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, Fault, found};
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;

const SECTION: Section = Section {
    name: "Host",
    reads: "ngx.host.read",
    view: Right::TargetView,
    manage: Right::TargetManage,
    over: Over::Any,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    const NONE: &str = "there are no profiles of hosts: empty; `profile` of a LUN is `-`";
    vec![
        SECTION
            .get::<Vec<Host>>("/host", "ngx.host.list", "Hosts", |call| list(call).boxed())
            .state(NONE),
        SECTION
            .get::<Host>("/host/{id}", "ngx.host.show", "A host", |call| show(call).boxed())
            .state(NONE),
    ]
}

/// A host.
#[derive(Debug, Serialize, ToSchema)]
struct Host {
    id: String,
    name: String,
}

async fn list(_: Call) -> Answer {
    found(&Vec::<Host>::new())
}

async fn show(_: Call) -> Answer {
    Err(Fault::not_found("host"))
}
