//! What happened: events, and the audit trail.

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_catalog::events::{Event, Severity};
use strongroom_catalog::identity::{AUDIT, AuditLine};
use strongroom_catalog::list::List;
use strongroom_catalog::resources::EVENTS;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, Fault, Number, found};
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;

const SECTION: Section = Section {
    name: "Log",
    reads: "ngx.log.read",
    view: Right::EventView,
    manage: Right::SystemManage,
    over: Over::Any,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    const OURS: &str = "of later software, the members are ours: the newest 1000, newest first; not for keys that are for some pools";
    vec![
        SECTION
            .get::<Vec<EventShown>>(
                "/log/alert",
                "ngx.log.alerts",
                "Events that want somebody to look",
                |call| alerts(call).boxed(),
            )
            .state(OURS),
        SECTION
            .get::<Vec<EventShown>>("/log/system_event", "ngx.log.events", "All events", |call| {
                events(call).boxed()
            })
            .state(OURS),
        SECTION
            .get::<Vec<AuditShown>>("/log/audit", "ngx.log.audit", "The audit trail", |call| {
                audit(call).boxed()
            })
            .needs(Right::AuditView, Over::Any)
            .state("of later software, the members are ours; not for keys that are for some pools"),
    ]
}

/// Something that happened.
#[derive(Debug, Serialize, ToSchema)]
struct EventShown {
    id: i64,
    /// Seconds since 1970.
    date: String,
    /// `info`, `warning` or `error`.
    level: &'static str,
    /// What kind of event.
    event: String,
    /// What it is about.
    object: String,
    message: String,
}

/// A line of the audit trail.
#[derive(Debug, Serialize, ToSchema)]
struct AuditShown {
    id: i64,
    /// Seconds since 1970.
    date: String,
    user: String,
    address: String,
    operation: String,
    object: String,
    /// `ok`, or why not.
    result: String,
}

async fn of_events(call: &Call, pairs: &[(&str, &str)]) -> Answer {
    if call.only().is_some() {
        let text = "this key is for some pools: events are of the whole appliance";
        return Err(Fault::new(Number::Forbidden, text));
    }
    let list = List::parse(&EVENTS, pairs.iter().copied());
    let list = list.map_err(crate::problem::Problem::from)?;
    let page = list.page::<Event>(call.app().catalog(), &call.scope()).await?;
    let show = |event: Event| EventShown {
        id: event.id,
        date: event.at.as_second().to_string(),
        level: event.severity.word(),
        event: event.kind,
        object: event.object,
        message: event.message,
    };
    found(&page.items.into_iter().map(show).collect::<Vec<_>>())
}

async fn alerts(call: Call) -> Answer {
    let severe =
        [Severity::Warning, Severity::Error].map(|level| format!("severity:=={}", level.word()));
    let pairs: Vec<_> = severe.iter().map(|filter| ("filter", filter.as_str())).collect();
    of_events(&call, &pairs).await
}

async fn events(call: Call) -> Answer {
    of_events(&call, &[]).await
}

async fn audit(call: Call) -> Answer {
    let list = List::all(&AUDIT);
    let page = list.page::<AuditLine>(call.app().catalog(), &call.scope()).await?;
    let show = |line: AuditLine| AuditShown {
        id: line.id,
        date: line.at.as_second().to_string(),
        user: line.user_name,
        address: line.address,
        operation: line.operation,
        object: line.object,
        result: line.result,
    };
    found(&page.items.into_iter().map(show).collect::<Vec<_>>())
}
