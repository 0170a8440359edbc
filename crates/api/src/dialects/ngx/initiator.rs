//! Initiators that are logged in.

use std::collections::HashMap;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_catalog::targets::{Initiator, Target};
use strongroom_storage::TargetSession;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::declared::{Endpoint, Section};
use super::dispatch::Call;
use super::target;

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

/// Sessions of a target, of whose auth group these are named.
fn told(target: &Target, named: &[Initiator], sessions: Vec<TargetSession>) -> Vec<LoggedIn> {
    let named: HashMap<_, _> = named.iter().map(|one| (&*one.iqn, one)).collect();
    let show = |session: TargetSession| {
        let known = named.get(&*session.initiator);
        LoggedIn {
            id: known.map(|one| one.public_id.clone()),
            alias: known.map(|one| one.alias.clone()).unwrap_or_default(),
            ip: session.address.map(|address| address.ip().to_string()).unwrap_or_default(),
            iqn: session.initiator,
            target_iqn: target.iqn.clone(),
            kind: "iscsi",
        }
    };
    sessions.into_iter().map(show).collect()
}

async fn list(call: Call) -> Answer {
    let named =
        call.app().catalog().find_by(Initiator::all(), |one: &Initiator| one.auth_group_id).await?;
    let storage = call.app().storage();
    let of = |target: Target| {
        let named = target.auth_group_id.and_then(|id| named.get(&id));
        let named = named.map(Vec::as_slice).unwrap_or_default();
        told(&target, named, storage.target_sessions(target.id))
    };
    // Of targets that are not this key's nothing is told.
    found(&target::seen(&call).await?.into_iter().flat_map(of).collect::<Vec<_>>())
}

async fn of_target(call: Call) -> Answer {
    let target = target::find(&call, call.id()).await?;
    let named: Vec<Initiator> = match target.auth_group_id {
        Some(id) => call.app().catalog().find(Initiator::of(id)).await?,
        None => Vec::new(),
    };
    found(&told(&target, &named, call.app().storage().target_sessions(target.id)))
}

async fn none(_: Call) -> Answer {
    found(&Vec::<LoggedIn>::new())
}
