//! Targets over Fibre Channel, of which there are none.

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use utoipa::ToSchema;

use super::answer::{Answer, Fault, Number, found};
use super::declared::{Endpoint, Section};
use super::dispatch::Call;
use super::target;

const SECTION: Section = Section { name: "FC Target", ..target::SECTION };

pub(super) fn endpoints() -> Vec<Endpoint> {
    const NONE: &str = "there is no Fibre Channel: empty";
    let empty = |path, id, summary| {
        SECTION.get::<Vec<Nothing>>(path, id, summary, |call| list(call).boxed()).state(NONE)
    };
    let refused = |method, path, id, summary| {
        SECTION
            .change(method, path, id, summary, |call| absent(call).boxed())
            .state("there is no Fibre Channel: 501 and 9501")
    };
    vec![
        empty("/target/fc", "ngx.target.fc_list", "Targets"),
        empty("/target/fc/list", "ngx.target.fc_list_details", "Targets, with all that is known"),
        empty("/target/fc/ports", "ngx.target.fc_ports", "Ports"),
        empty("/target/fc/initiator/tag", "ngx.target.fc_tags", "Names of initiators"),
        SECTION
            .get::<Nothing>("/target/fc/{id}", "ngx.target.fc_show", "A target", |call| {
                none(call).boxed()
            })
            .state("there is no Fibre Channel: 404 and 5011"),
        refused(Method::POST, "/target/fc", "ngx.target.fc_create", "Make a target"),
        refused(Method::PUT, "/target/fc/{id}", "ngx.target.fc_change", "Change a target"),
        refused(Method::DELETE, "/target/fc/{id}", "ngx.target.fc_delete", "Delete a target"),
        refused(Method::PUT, "/target/fc/lun/{id}", "ngx.target.fc_map", "Map LUNs"),
        refused(Method::PATCH, "/target/fc/lun/{id}", "ngx.target.fc_unmap", "Unmap LUNs"),
        refused(Method::POST, "/target/fc/initiator/tag", "ngx.target.fc_tag", "Name initiators"),
    ]
}

/// Of Fibre Channel.
#[derive(Debug, Serialize, ToSchema)]
struct Nothing {}

async fn list(_: Call) -> Answer {
    found(&Vec::<Nothing>::new())
}

async fn none(_: Call) -> Answer {
    Err(Fault::not_found("target"))
}

async fn absent(_: Call) -> Answer {
    let text = "this appliance has no Fibre Channel: make a target over iSCSI";
    Err(Fault::new(Number::Absent, text))
}
