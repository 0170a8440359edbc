//! Initiators that are logged in.

use std::collections::HashMap;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_catalog::targets::{Initiator, Target};
use strongroom_storage::TargetSession;
use utoipa::ToSchema;

use super::answer::{Answer, Number, found};
use super::declared::{Endpoint, Section};
use super::dispatch::Call;
use super::{rows, target};

const SECTION: Section =
    Section { name: "Initiator", reads: "ngx.initiator.read", ..target::SECTION };

pub(super) fn endpoints() -> Vec<Endpoint> {
    const STATE: &str = "of later software: initiators that are logged in; `id` and `alias` are those of the auth \
        group that names one";
    vec![
        SECTION
            .get::<Vec<LoggedIn>>(
                "/initiators",
                "ngx.initiator.list",
                "Initiators that are logged in",
                |call| list(call).boxed(),
            )
            .state(STATE),
        SECTION
            .get::<Vec<LoggedIn>>(
                "/initiators/iscsi/{id}",
                "ngx.initiator.of_target",
                "Initiators that are logged in to a target",
                |call| of_target(call).boxed(),
            )
            .state(STATE),
        SECTION
            .get::<Vec<LoggedIn>>(
                "/initiators/fc/{id}",
                "ngx.initiator.of_fc_target",
                "Initiators of Fibre Channel",
                |call| none(call).boxed(),
            )
            .state("there is no Fibre Channel: empty"),
    ]
}

/// An initiator that is logged in.
#[derive(Debug, Serialize, ToSchema)]
struct LoggedIn {
    /// Of the auth group's entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    iqn: String,
    alias: String,
    ip: String,
    target_iqn: String,
    /// Always `iscsi`.
    #[serde(rename = "type")]
    kind: &'static str,
}

async fn told(call: &Call, target: &Target, sessions: Vec<TargetSession>) -> Answer<Vec<LoggedIn>> {
    let named: Vec<Initiator> = match target.auth_group_id {
        Some(id) => call.app().catalog().find(Initiator::of(id)).await?,
        None => Vec::new(),
    };
    let named: HashMap<_, _> = named.into_iter().map(|one| (one.iqn.clone(), one)).collect();
    let show = |session: TargetSession| {
        let known = named.get(&session.initiator);
        LoggedIn {
            id: known.map(|one| one.public_id.clone()),
            alias: known.map(|one| one.alias.clone()).unwrap_or_default(),
            ip: session.address.map(|address| address.ip().to_string()).unwrap_or_default(),
            iqn: session.initiator,
            target_iqn: target.iqn.clone(),
            kind: "iscsi",
        }
    };
    Ok(sessions.into_iter().map(show).collect())
}

async fn list(call: Call) -> Answer {
    let mut all = Vec::new();
    for target in rows::targets(&call).await? {
        let sessions = call.app().storage().target_sessions(target.id);
        // Of targets that are not this key's nothing is told.
        if sessions.is_empty() {
            continue;
        }
        match target::find(&call, &target.public_id).await {
            Ok(target) => all.extend(told(&call, &target, sessions).await?),
            Err(fault) if fault.is(Number::NotFound) => {}
            Err(fault) => return Err(fault),
        }
    }
    found(&all)
}

async fn of_target(call: Call) -> Answer {
    let target = target::find(&call, call.id()).await?;
    let sessions = call.app().storage().target_sessions(target.id);
    found(&told(&call, &target, sessions).await?)
}

async fn none(_: Call) -> Answer {
    found(&Vec::<LoggedIn>::new())
}
