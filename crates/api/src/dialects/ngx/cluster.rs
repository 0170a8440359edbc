//! The cluster: this node.

use std::collections::BTreeSet;

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;

/// What is told of the box itself.
pub(super) const SECTION: Section = Section {
    name: "Status",
    reads: "ngx.status.read",
    view: Right::SystemView,
    manage: Right::SystemManage,
    over: Over::Appliance,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        SECTION
            .get::<Cluster>("/status/cluster", "ngx.status.cluster", "The cluster", |call| {
                show(call).boxed()
            })
            .needs(Right::PoolView, Over::Any)
            .state("one node: `Master`, connected; `peers` are its service tag (its name for who may not see the system) and the names of other nodes that pools are on, of which no `status` is known; `ethernet` is 1 while a network interface has a link, the other interconnects don't exist"),
    ]
}

/// How nodes are connected.
#[derive(Debug, Serialize, ToSchema)]
struct Interconnects {
    ethernet: u8,
    hbactive: u8,
    hbdrive: u8,
    serial: u8,
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
struct Peer {
    id: String,
    /// As that of the cluster; only of the one that answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'static str>,
}

/// Each node serves its own pools.
const MASTER: &str = "Master";

/// The cluster.
#[derive(Debug, Serialize, ToSchema)]
struct Cluster {
    connected: u8,
    interconnects: Interconnects,
    peers: Vec<Peer>,
    /// Always `Master`.
    status: &'static str,
}

/// What the machine's maker calls it, else what its administrator does.
pub(super) async fn service_tag(call: &Call) -> Answer<String> {
    let serial = call.app().look(|hardware| hardware.serial()).await?;
    Ok(serial.unwrap_or_else(|| call.app().storage().node().to_owned()))
}

async fn show(call: Call) -> Answer {
    let here = call.app().storage().node().to_owned();
    let principal = call.principal();
    let own = match principal.has(Right::SystemView, principal.root()) {
        true => service_tag(&call).await?,
        false => here.clone(),
    };
    let pools = super::pool::visible(&call).await?;
    let others = pools.into_iter().map(|pool| pool.node);
    let others = others.filter(|node| !node.is_empty() && *node != here);
    let others: BTreeSet<String> = others.collect();
    let others = others.into_iter().map(|id| Peer { id, status: None });
    let own = Peer { id: own, status: Some(MASTER) };
    let peers = std::iter::once(own).chain(others).collect();
    let ethernet = call.app().look(|hardware| hardware.has_link()).await?.unwrap_or_default();
    let interconnects =
        Interconnects { ethernet: ethernet.into(), hbactive: 0, hbdrive: 0, serial: 0 };
    found(&Cluster { connected: 1, interconnects, peers, status: MASTER })
}
