//! Shares, of which there are none in this version.

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, Fault, Number, found};
use super::declared::{Endpoint, Over, Section, may, needed};
use super::dispatch::Call;

const SECTION: Section = Section {
    name: "Share",
    reads: "ngx.share.read",
    view: Right::VolumeView,
    manage: Right::VolumeManage,
    over: Over::Any,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    const NONE: &str = "there are no shares in this version: empty";
    vec![
        SECTION
            .get::<Vec<Share>>("/share", "ngx.share.list", "Shares", |call| list(call).boxed())
            .state(NONE),
        SECTION
            .get::<Vec<Share>>(
                "/share/list",
                "ngx.share.list_details",
                "Shares, with all that is known",
                |call| list(call).boxed(),
            )
            .state(NONE),
        SECTION
            .get::<Share>("/share/{id}", "ngx.share.show", "A share", |call| none(call).boxed())
            .state("there are no shares in this version: 404 and 5011"),
        SECTION
            .change(Method::POST, "/share", "ngx.share.create", "Make a share", |call| {
                absent(call).boxed()
            })
            .body(
                const {
                    &[
                        needed("pool_name", "The pool."),
                        needed("name", "Its name."),
                        may("soft_quota", "Bytes."),
                    ]
                },
            )
            .state("there are no shares in this version: 501 and 9501"),
        SECTION
            .change(Method::PATCH, "/share/{id}", "ngx.share.change", "Change a share", |call| {
                none(call).boxed()
            })
            .state("there are no shares in this version: 404 and 5011"),
        SECTION
            .change(Method::DELETE, "/share/{id}", "ngx.share.delete", "Delete a share", |call| {
                none(call).boxed()
            })
            .state("there are no shares in this version: 404 and 5011"),
    ]
}

/// A share.
#[derive(Debug, Serialize, ToSchema)]
struct Share {
    id: String,
    name: String,
}

async fn list(_: Call) -> Answer {
    found(&Vec::<Share>::new())
}

async fn none(_: Call) -> Answer {
    Err(Fault::not_found("share"))
}

async fn absent(_: Call) -> Answer {
    let text = "this version of the appliance has no shares: make a LUN";
    Err(Fault::new(Number::Absent, text))
}
