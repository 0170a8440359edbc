//! Section 6: the services and whether they run.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::json;
use strongroom_appliance::UnitState;
use strongroom_identity::Right;

use super::answer::{Answer, found};
use super::dispatch::Call;
use super::{Documented, Endpoint, JSON};

pub(super) const ENDPOINTS: &[Endpoint] = &[Endpoint::get(
    "Services",
    "/services",
    "jidoteki.services",
    "The services, and whether they run",
    Right::SystemView,
    &[Documented::found(JSON, "All of them.")],
    services,
)];

fn services(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let state = |running| if running { "running" } else { "not running" };
        // What answers, runs.
        let mut services = vec![json!({"jidoteki-admin-api": state(true)})];
        for service in call.app().services().list() {
            services.push(json!({service.name: state(service.listening)}));
        }
        for unit in call.app().units().await? {
            // Scripts know it without its kind.
            let name = unit.name.strip_suffix(".service").unwrap_or(&unit.name);
            services.push(json!({name: state(unit.state == UnitState::Running)}));
        }
        Ok(found(&json!({"services": services})))
    }
    .boxed()
}
