//! The network, as it is set.

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::answer::{Answer, found};
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;

const SECTION: Section = Section {
    name: "Network",
    reads: "ngx.network.read",
    view: Right::SystemView,
    manage: Right::SystemManage,
    over: Over::Appliance,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        SECTION
            .get::<NetworkInfo>("/network/info", "ngx.network.info", "The network", |call| {
                show(call).boxed()
            })
            .state("of later software, the members are ours: as it was set by the appliance; null and empty before that"),
    ]
}

/// How the network is set.
#[derive(Debug, Default, Serialize, ToSchema)]
struct NetworkInfo {
    hostname: String,
    interface: Option<String>,
    /// `dhcp` or `static`.
    mode: Option<&'static str>,
    addresses: Vec<String>,
    gateways: Vec<String>,
    mtu: Option<u32>,
    dns: Vec<String>,
    ntp: Vec<String>,
}

fn texts<T: ToString>(all: Vec<T>) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

async fn show(call: Call) -> Answer {
    let status = call.app().administration().network_status().await?;
    let Some(set) = status.set else {
        let hostname = call.app().storage().node().to_owned();
        return found(&NetworkInfo { hostname, ..NetworkInfo::default() });
    };
    let set = set.settings;
    found(&NetworkInfo {
        hostname: set.hostname,
        interface: Some(set.interface),
        mode: Some(set.mode.word()),
        addresses: texts(set.addresses),
        gateways: texts(set.gateways),
        mtu: set.mtu,
        dns: texts(set.dns),
        ntp: set.ntp,
    })
}
