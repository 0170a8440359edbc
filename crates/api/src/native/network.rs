//! How the appliance is reached, and the settings of whatever application runs beside.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_appliance::network as known;
use strongroom_identity::Right;
use utoipa::ToSchema;

use super::jobs::{Job, accepted};
use super::work::asker;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Accepted, Body, Group, Json, get, post, put};

/// Bytes of a request with settings of an application, as it may be spaced.
const APPLICATION: usize = 256 << 10;

pub(super) fn group() -> Group {
    let path = "/v1/system/network";
    let (view, manage) = (Right::SystemView, Right::SystemManage);
    Group::new(
        "Network",
        "How the appliance is reached. The configuration says who brings that to the machine \
         (`host_driver`); with `none` it is looked at, kept and shown. A change is taken back unless it \
         is confirmed in time, over the network where it may cut somebody off.",
        [
            get(path, "system.network.show", "How the network is set", show)
                .needs(view, On::Appliance)
                .fails([Code::Conflict]),
            put(path, "system.network.set", "Set it otherwise, until that is confirmed", set)
                .needs(manage, On::Appliance)
                .fails([Code::Invalid, Code::InProgress, Code::Conflict]),
            post(
                "/v1/system/network/confirm",
                "system.network.confirm",
                "Keep the change that waits",
                confirm,
            )
            .needs(manage, On::Appliance)
            .fails([Code::Conflict]),
            get(
                "/v1/system/application",
                "system.application.show",
                "The settings of the application",
                show_application,
            )
            .needs(view, On::Appliance)
            .fails([Code::Conflict]),
            put(
                "/v1/system/application",
                "system.application.set",
                "Put others in their place",
                set_application,
            )
            .needs(manage, On::Appliance)
            .fails([Code::Invalid, Code::Conflict])
            .body(APPLICATION),
        ],
    )
}

/// How an interface gets its addresses.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NetworkMode {
    /// IPv4 from a server; IPv6 as routers advertise it.
    Dhcp,
    /// As they are said.
    Static,
}

impl From<known::Mode> for NetworkMode {
    fn from(mode: known::Mode) -> Self {
        match mode {
            known::Mode::Dhcp => Self::Dhcp,
            known::Mode::Static => Self::Static,
        }
    }
}

impl From<NetworkMode> for known::Mode {
    fn from(mode: NetworkMode) -> Self {
        match mode {
            NetworkMode::Dhcp => Self::Dhcp,
            NetworkMode::Static => Self::Static,
        }
    }
}

/// How the network is to be.
#[derive(Debug, Serialize, ToSchema)]
struct NetworkSettings {
    /// The interface.
    interface: String,
    /// The name of the host.
    hostname: String,
    /// How the interface gets its addresses.
    mode: NetworkMode,
    /// Its addresses, with the bits of their network; none with DHCP.
    #[schema(example = json!(["192.0.2.7/24"]))]
    addresses: Vec<String>,
    /// Through whom others are reached.
    gateways: Vec<String>,
    /// Bytes of a packet; null: as it is.
    mtu: Option<u32>,
    /// Name servers.
    dns: Vec<String>,
    /// Time servers.
    ntp: Vec<String>,
}

fn texts<T: ToString>(all: Vec<T>) -> Vec<String> {
    all.iter().map(ToString::to_string).collect()
}

impl From<known::NetworkSettings> for NetworkSettings {
    fn from(settings: known::NetworkSettings) -> Self {
        let known::NetworkSettings {
            interface,
            hostname,
            mode,
            addresses,
            gateways,
            mtu,
            dns,
            ntp,
        } = settings;
        Self {
            interface,
            hostname,
            mode: mode.into(),
            addresses: texts(addresses),
            gateways: texts(gateways),
            mtu,
            dns: texts(dns),
            ntp,
        }
    }
}

/// A step of a change.
#[derive(Debug, Serialize, ToSchema)]
struct NetworkStep {
    /// What it is about: `interface`, `addresses`, `gateways`, `dns`, `hostname` or `ntp`.
    #[schema(example = "addresses")]
    part: &'static str,
    /// `done`, `not_applied` or `failed`.
    #[schema(example = "done")]
    state: &'static str,
    /// What was done, or why not.
    detail: String,
}

fn steps(all: Vec<known::Step>) -> Vec<NetworkStep> {
    let of = |step: known::Step| NetworkStep {
        part: step.part.word(),
        state: step.state.word(),
        detail: step.detail,
    };
    all.into_iter().map(of).collect()
}

/// A change that is not over.
#[derive(Debug, Serialize, ToSchema)]
struct PendingNetworkChange {
    /// The job that makes it.
    job_id: i64,
    /// When that was asked for.
    asked_at: Option<Timestamp>,
    /// Who asked for it.
    by: String,
    /// What it says.
    settings: NetworkSettings,
    /// When it is taken back unless it is confirmed before; null: it is being applied.
    confirm_until: Option<Timestamp>,
    /// Whether that must come over the network, to an address that it sets.
    at_new_address: bool,
    /// What was done.
    steps: Vec<NetworkStep>,
}

/// A change that is over.
#[derive(Debug, Serialize, ToSchema)]
struct LastNetworkChange {
    /// The job that made it.
    job_id: i64,
    /// When that was asked for: before a restore there may have been a job of the same number.
    asked_at: Option<Timestamp>,
    /// `applied`; `stored`: nobody brings it to the machine; `failed` or `reverted`: what there was
    /// before is back.
    #[schema(example = "applied")]
    outcome: &'static str,
    /// When it was over.
    at: Timestamp,
    /// Why it was not kept.
    why: Option<String>,
    /// What was done, and what was not.
    steps: Vec<NetworkStep>,
}

/// How the network is set.
#[derive(Debug, Serialize, ToSchema)]
struct Network {
    /// Who brings it to the machine: `none`, `ip` or `networkd`.
    #[schema(example = "networkd")]
    driver: &'static str,
    /// What is set; null: nothing was yet.
    settings: Option<NetworkSettings>,
    /// When it was.
    set_at: Option<Timestamp>,
    /// The change that is not over.
    pending: Option<PendingNetworkChange>,
    /// The last one that is.
    last: Option<LastNetworkChange>,
}

impl From<known::NetworkStatus> for Network {
    fn from(status: known::NetworkStatus) -> Self {
        let known::NetworkStatus { driver, set, pending, last } = status;
        let set_at = set.as_ref().map(|set| set.set_at);
        let pending = pending.map(|pending| PendingNetworkChange {
            job_id: pending.job,
            asked_at: pending.asked_at,
            by: pending.by,
            settings: pending.settings.into(),
            confirm_until: pending.until,
            at_new_address: pending.moves,
            steps: steps(pending.steps),
        });
        let last = last.map(|last| LastNetworkChange {
            job_id: last.job,
            asked_at: last.asked_at,
            outcome: last.outcome.word(),
            at: last.at,
            why: last.why,
            steps: steps(last.steps),
        });
        let settings = set.map(|set| set.settings.into());
        Self { driver: driver.word(), settings, set_at, pending, last }
    }
}

async fn show(call: Call) -> Result<Json<Network>> {
    Ok(Json(call.app().administration().network_status().await?.into()))
}

/// How the network is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetNetwork {
    /// The interface: letters, digits, `.`, `_` and `-`, 15 at most.
    #[schema(example = "eth0")]
    interface: String,
    /// The name of the host (RFC 1123).
    #[schema(example = "box.example")]
    hostname: String,
    /// How the interface gets its addresses.
    mode: NetworkMode,
    /// Its addresses, with the bits of their network, IPv4 or IPv6, 8 at most; none with DHCP.
    #[serde(default)]
    #[schema(example = json!(["192.0.2.7/24"]))]
    addresses: Vec<String>,
    /// Through whom others are reached: one of a family at most, in a network of the addresses.
    #[serde(default)]
    gateways: Vec<String>,
    /// Bytes of a packet; as it is when it isn't said.
    mtu: Option<u32>,
    /// Addresses of name servers, 3 at most; none: what there is stays, or what DHCP says.
    #[serde(default)]
    dns: Vec<String>,
    /// Names or addresses of time servers, 8 at most.
    #[serde(default)]
    ntp: Vec<String>,
    /// Seconds in which it is to be confirmed, 5 to 3600; as configured when it isn't said.
    #[schema(minimum = 5, maximum = 3600)]
    confirm_seconds: Option<u64>,
}

async fn set(call: Call, Body(body): Body<SetNetwork>) -> Result<Accepted<Job>> {
    let wanted = known::WantedNetwork {
        interface: body.interface,
        hostname: body.hostname,
        mode: body.mode.into(),
        addresses: body.addresses,
        gateways: body.gateways,
        mtu: body.mtu,
        dns: body.dns,
        ntp: body.ntp,
    };
    let change = known::NetworkChange {
        settings: wanted.check()?,
        given: None,
        application: None,
        confirm: body.confirm_seconds,
        by_dialect: false,
    };
    Ok(accepted(call.app().administration().change_network(asker(&call, 0)?, change).await?))
}

async fn confirm(call: Call) -> Result<Json<Network>> {
    let status = call.app().administration().confirm_network(call.reached()).await?;
    Ok(Json(status.into()))
}

/// The settings of the application.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Application {
    /// Any object, of 64 KiB and 32 levels at most. It is kept and shown; what it means is the
    /// application's.
    #[schema(value_type = Object)]
    settings: known::Document,
}

async fn show_application(call: Call) -> Result<Json<Application>> {
    let settings = call.app().administration().application().await?.unwrap_or_default();
    Ok(Json(Application { settings }))
}

async fn set_application(call: Call, Body(body): Body<Application>) -> Result<Json<Application>> {
    let settings = body.settings;
    call.app().administration().set_application(settings.clone()).await?;
    Ok(Json(Application { settings }))
}
