//! Section 6: the services and whether they run.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use serde_json::json;
use strongroom_identity::Right;

use super::answer::{Answer, found};
use super::dispatch::Call;
use super::{Documented, Endpoint};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint {
    method: Method::GET,
    path: "/services",
    id: "jidoteki.services",
    summary: "The services, and whether they run",
    section: "Services",
    right: Right::SystemView,
    parameters: &[],
    answers: &[Documented { status: 200, kind: Some("application/json"), meaning: "All of them." }],
    run: services,
}];

fn services(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let state = |running| if running { "running" } else { "not running" };
        // What answers, runs.
        let mut services = vec![json!({"jidoteki-admin-api": state(true)})];
        for service in call.app().services().list() {
            services.push(json!({service.name: state(service.listening)}));
        }
        Ok(found(&json!({"services": services})))
    }
    .boxed()
}
