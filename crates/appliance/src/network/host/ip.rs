//! Plain `ip` (iproute2), for machines where nobody else configures the interface. Nothing of it
//! outlives a start of the machine: it is done again then.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::settings::{Mode, NetworkSettings};
use super::dhcp::Asks;
use super::{Captured, Host, Part, Step, dhcp, files};
use crate::command::{self, Capability};

/// How many addresses and routes of one interface are kept.
const MOST: usize = 256;

/// An interface as it is: what changes of ours touch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Link {
    mtu: u32,
    is_up: bool,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    /// Whether our DHCP client was at work.
    leased: bool,
}

/// An address, as `ip -json address` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Address {
    local: IpAddr,
    prefixlen: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    broadcast: Option<IpAddr>,
    #[serde(default)]
    scope: String,
    /// Somebody gave it for a time.
    #[serde(default)]
    dynamic: bool,
    #[serde(default)]
    valid_life_time: u32,
    #[serde(default)]
    preferred_life_time: u32,
    /// IPv4's own name of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
    #[serde(default)]
    noprefixroute: bool,
}

/// A route, as `ip -json route` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Route {
    /// Of IPv6; else of IPv4.
    #[serde(default)]
    is_6: bool,
    dst: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    protocol: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prefsrc: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metric: Option<u32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    flags: Vec<String>,
}

/// What a route may have that is not put back: by the words of `ip`.
const BEYOND: [&str; 7] = ["nexthops", "nhid", "encap", "via", "metrics", "tos", "table"];
/// The metric of a route of IPv6 for which none is said.
const METRIC_6: u32 = 1024;

#[derive(Debug, Deserialize)]
pub(super) struct Told {
    mtu: u32,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    addr_info: Vec<Address>,
}

impl Link {
    /// Its addresses that others reach.
    pub(super) fn reached_at(&self) -> Vec<IpAddr> {
        let all = self.addresses.iter().map(|one| one.local);
        all.filter(|address| dhcp::is_given(*address)).collect()
    }

    /// Whether it is as these settings say, as far as others see it: what they would have to take
    /// away, or to bring, may be what somebody reaches it by.
    pub(super) fn is_as(&self, settings: &NetworkSettings) -> bool {
        let sorted = |mut all: Vec<String>| {
            all.sort();
            all
        };
        let wanted = settings.addresses.iter().map(ToString::to_string).collect();
        let gateways = settings.gateways.iter().map(ToString::to_string).collect();
        let through = self.routes.iter().map(|route| match route.gateway {
            Some(gateway) if route.is_default() => gateway.to_string(),
            _ => route.dst.clone(),
        });
        self.is_up
            && self.has_mtu_of(settings)
            && sorted(self.addresses.iter().map(Address::text).collect()) == sorted(wanted)
            && sorted(through.collect()) == sorted(gateways)
    }

    /// Whether its packets are as large as these settings say.
    pub(super) fn has_mtu_of(&self, settings: &NetworkSettings) -> bool {
        settings.mtu.is_none_or(|mtu| mtu == self.mtu)
    }

    /// Whether others see the same there.
    pub(super) fn looks_like(&self, other: &Self) -> bool {
        let addresses = |link: &Self| {
            let mut all: Vec<_> = link.addresses.iter().map(Address::text).collect();
            all.sort();
            all
        };
        let routes = |link: &Self| {
            let mut all: Vec<_> =
                link.routes.iter().map(|one| (one.dst.clone(), one.gateway)).collect();
            all.sort();
            all
        };
        self.mtu == other.mtu
            && self.is_up == other.is_up
            && addresses(self) == addresses(other)
            && routes(self) == routes(other)
    }
}

impl Address {
    /// One that the kernel or a router has given, which they take away too.
    fn is_of_others(&self) -> bool {
        self.scope != "global" || (self.local.is_ipv6() && self.dynamic)
    }

    fn text(&self) -> String {
        format!("{}/{}", self.local, self.prefixlen)
    }
}

impl Route {
    fn is_of_others(&self) -> bool {
        matches!(self.protocol.as_deref(), Some("kernel" | "ra"))
            || self.dst.starts_with("fe80:")
            || self.dst.starts_with("multicast")
    }

    fn is_default(&self) -> bool {
        self.dst == "default"
    }
}

/// `ip` with these words.
fn ip(words: &[&str]) -> Result<String, String> {
    command::run("ip", words)
}

fn read<T: for<'de> Deserialize<'de>>(words: &[&str]) -> Result<Vec<T>, String> {
    let text = ip(words)?;
    // Older ones print nothing where there is nothing.
    let text = if text.trim().is_empty() { "[]" } else { &text };
    serde_json::from_str(text).map_err(|error| format!("what `ip` says is not understood: {error}"))
}

fn family(is_6: bool) -> &'static str {
    if is_6 { "-6" } else { "-4" }
}

/// The interface of that name.
pub(super) fn told(interface: &str) -> Result<Told, String> {
    let told: Vec<Value> = read(&["-json", "address", "show", "dev", interface])?;
    // Some add empty objects for those that they leave out.
    let told = told.into_iter().find(|one| one.get("mtu").is_some());
    let told = told.ok_or_else(|| format!("there is no interface {interface}"))?;
    serde_json::from_value(told).map_err(|error| format!("what `ip` says: {error}"))
}

/// Where others reach the interface, whoever gave it the addresses.
pub(super) fn reached_at(interface: &str) -> Vec<IpAddr> {
    let all = told(interface).map(|told| told.addr_info).unwrap_or_default();
    all.into_iter().map(|one| one.local).filter(|address| dhcp::is_given(*address)).collect()
}

/// Whether an interface has that address.
pub(super) fn is_own(address: IpAddr) -> bool {
    #[derive(Deserialize)]
    struct Has {
        #[serde(default)]
        addr_info: Vec<Value>,
    }
    let all: Vec<Has> = read(&["-json", "address", "show"]).unwrap_or_default();
    let mut all = all.iter().flat_map(|one| &one.addr_info);
    all.any(|one| one.get("local").and_then(Value::as_str) == Some(&address.to_string()))
}

fn routes(interface: &str) -> Result<Vec<Route>, String> {
    let mut all = Vec::new();
    for is_6 in [false, true] {
        let of: Vec<Route> = read(&["-json", family(is_6), "route", "show", "dev", interface])?;
        all.extend(of.into_iter().map(|route| Route { is_6, ..route }));
    }
    all.retain(|route| !route.is_of_others());
    Ok(all)
}

impl Host {
    /// The interface as it is.
    pub(super) fn link(&self, interface: &str) -> Result<Link, String> {
        let Told { mtu, flags, mut addr_info } = told(interface)?;
        addr_info.retain(|one| !one.is_of_others());
        let routes = routes(interface)?;
        if addr_info.len() > MOST || routes.len() > MOST {
            return Err(format!("{interface} has more than {MOST} addresses or routes"));
        }
        let is_up = flags.iter().any(|flag| flag == "UP");
        let leased = !self.clients(interface).is_empty();
        Ok(Link { mtu, is_up, addresses: addr_info, routes, leased })
    }

    pub(super) fn ip_preflight(&self, settings: &NetworkSettings) -> Vec<Step> {
        let mut wrong = Vec::new();
        let mut look = |part, done: Result<(), String>| {
            if let Err(why) = done {
                wrong.push(Step::failed(part, why));
            }
        };
        let there = told(&settings.interface);
        if there.is_ok() {
            look(Part::Addresses, can_be_kept(&settings.interface));
            for is_6 in [false, true] {
                if wants_default(settings, is_6) {
                    look(Part::Gateways, is_free(&settings.interface, is_6));
                }
            }
        }
        look(Part::Interface, there.map(drop));
        look(Part::Interface, command::may(Capability::NetAdmin));
        if settings.mode == Mode::Dhcp {
            look(Part::Addresses, dhcp::is_there());
        }
        if settings.mode == Mode::Dhcp || !settings.dns.is_empty() {
            look(Part::Dns, files::may_write(&self.file(files::RESOLV)));
        }
        if !settings.ntp.is_empty() {
            let there = files::may_write(&self.file(files::CHRONY));
            look(Part::Ntp, there.map_err(|why| format!("{why}: is chrony installed?")));
        }
        wrong
    }

    /// Brings a part of the settings to the machine.
    pub(super) fn ip_apply(&self, settings: &NetworkSettings, part: Part, asks: Asks) -> Step {
        match part {
            Part::Interface => Step::of(part, raise(settings)),
            Part::Addresses => Step::of(part, self.addressed(settings, asks)),
            Part::Gateways => gateways(settings),
            Part::Dns => self.dns(settings),
            Part::Hostname => Step::of(part, self.name(settings)),
            Part::Ntp => self.ntp(settings),
        }
    }

    /// Whether what it has in files is as these settings say.
    pub(super) fn ip_files_are(&self, settings: &NetworkSettings) -> bool {
        let is = |path: &str, text: String| {
            std::fs::read_to_string(self.file(path)).is_ok_and(|there| there == text)
        };
        let ntp = match settings.ntp.is_empty() {
            true => !self.file(files::CHRONY).exists(),
            false => is(files::CHRONY, files::chrony(&settings.ntp)),
        };
        ntp && (settings.dns.is_empty() || is(files::RESOLV, files::resolv(&settings.dns)))
    }

    fn addressed(&self, settings: &NetworkSettings, asks: Asks) -> Result<String, String> {
        let interface = settings.interface.as_str();
        if settings.mode == Mode::Dhcp {
            for route in routes(interface)?.iter().filter(|route| route.is_6) {
                take_route(interface, route)?;
            }
            for old in told(interface)?.addr_info {
                // What a server gives takes the place of those of IPv4 when it is there.
                if old.local.is_ipv6() && !old.is_of_others() {
                    ip(&["-6", "address", "delete", &old.text(), "dev", interface])?;
                }
            }
            return self.lease(settings, asks);
        }
        self.end_client(interface);
        take_away(interface)?;
        for address in &settings.addresses {
            add(interface, &address.to_string(), address.address.is_ipv4())?;
        }
        let all: Vec<_> = settings.addresses.iter().map(ToString::to_string).collect();
        Ok(all.join(", "))
    }

    fn dns(&self, settings: &NetworkSettings) -> Step {
        let path = self.file(files::RESOLV);
        if settings.dns.is_empty() {
            let why = match settings.mode {
                Mode::Dhcp => "as the DHCP server says",
                Mode::Static => "none is set: what there is stays",
            };
            return Step::not_applied(Part::Dns, why);
        }
        let put = files::put(&path, files::resolv(&settings.dns).as_bytes());
        Step::of(Part::Dns, put.map(|()| path.display().to_string()))
    }

    fn ntp(&self, settings: &NetworkSettings) -> Step {
        let path = self.file(files::CHRONY);
        if settings.ntp.is_empty() {
            return match files::remove(&path) {
                Ok(false) => Step::not_applied(Part::Ntp, "none is set"),
                Ok(true) => Step::done(Part::Ntp, reread("our sources are taken away")),
                Err(why) => Step::failed(Part::Ntp, why),
            };
        }
        let put = files::put(&path, files::chrony(&settings.ntp).as_bytes());
        Step::of(Part::Ntp, put.map(|()| reread(&path.display().to_string())))
    }

    pub(super) fn ip_restore(before: &Captured) -> Vec<Step> {
        let mut wrong = Vec::new();
        let Some(link) = &before.link else { return wrong };
        let interface = before.interface.as_str();
        let mut look = |part, done: Result<(), String>| {
            if let Err(why) = done {
                wrong.push(Step::failed(part, why));
            }
        };
        // Without that, there are no routes.
        let state = if link.is_up { "up" } else { "down" };
        look(Part::Interface, ip(&["link", "set", "dev", interface, state]).map(drop));
        let mtu = link.mtu.to_string();
        look(Part::Interface, ip(&["link", "set", "dev", interface, "mtu", &mtu]).map(drop));
        look(Part::Addresses, take_away(interface));
        for address in &link.addresses {
            look(Part::Addresses, put_back(interface, address));
        }
        for why in put_back_routes(interface, &link.routes) {
            look(Part::Gateways, Err(why));
        }
        wrong
    }

    /// Has chrony read the sources of before: also when whoever put them back could not say so any
    /// more.
    pub(super) fn chrony_restore() {
        if command::find("chronyc").is_some() {
            tracing::info!("chrony: {}", reread("the sources are those of before"));
        }
    }

    /// Whether our DHCP client was at work.
    pub(super) fn was_leased(before: &Captured) -> bool {
        before.link.as_ref().is_some_and(|link| link.leased)
    }
}

/// Makes the interface ready.
fn raise(settings: &NetworkSettings) -> Result<String, String> {
    let interface = settings.interface.as_str();
    ip(&["link", "set", "dev", interface, "up"])?;
    let Some(mtu) = settings.mtu else { return Ok(format!("{interface} is up")) };
    ip(&["link", "set", "dev", interface, "mtu", &mtu.to_string()])?;
    Ok(format!("{interface} is up, with packets of {mtu} bytes"))
}

/// Whether all that a change takes away can be put back.
fn can_be_kept(interface: &str) -> Result<(), String> {
    let told: Vec<Value> = read(&["-json", "address", "show", "dev", interface])?;
    let mut all = told.iter().filter_map(|one| one.get("addr_info")?.as_array()).flatten();
    if let Some(address) = all.find(|one| one.get("address").is_some()) {
        let local = address.get("local").and_then(Value::as_str).unwrap_or_default();
        return Err(format!("{local} of {interface} has a peer: that can't be put back"));
    }
    for is_6 in [false, true] {
        // Those of several devices are not shown with one of them.
        let words = ["-json", family(is_6), "route", "show", "table", "all"];
        let all: Vec<Value> = read(&words)?;
        let text = |route: &Value, name: &str| {
            route.get(name).and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        let is_ours = |route: &&Value| {
            let hops = route.get("nexthops").and_then(Value::as_array);
            let mut hops = hops.into_iter().flatten();
            let goes =
                text(route, "dev") == interface || hops.any(|hop| text(hop, "dev") == interface);
            goes && !matches!(&*text(route, "protocol"), "kernel" | "ra")
        };
        for route in all.iter().filter(is_ours) {
            if let Some(name) = BEYOND.iter().find(|name| route.get(**name).is_some()) {
                let dst = text(route, "dst");
                return Err(format!(
                    "the route to {dst} through {interface} has `{name}`: it can't be put back"
                ));
            }
        }
    }
    Ok(())
}

/// Whether the settings bring a default route of that family.
fn wants_default(settings: &NetworkSettings, is_6: bool) -> bool {
    match settings.mode {
        Mode::Dhcp => !is_6,
        Mode::Static => settings.gateways.iter().any(|gateway| gateway.is_ipv6() == is_6),
    }
}

/// Whether no other device has the default route of that family: the kernel would have ours replace it.
fn is_free(interface: &str, is_6: bool) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Default {
        #[serde(default)]
        dev: String,
        #[serde(default)]
        metric: u32,
    }
    let metric = if is_6 { METRIC_6 } else { 0 };
    let all: Vec<Default> = read(&["-json", family(is_6), "route", "show", "default"])?;
    match all.into_iter().find(|one| one.dev != interface && one.metric == metric) {
        Some(Default { dev, .. }) => Err(format!(
            "{dev} has the default route{}: give it another metric, or set no gateway",
            if is_6 { " of IPv6" } else { "" }
        )),
        None => Ok(()),
    }
}

fn take_route(interface: &str, route: &Route) -> Result<(), String> {
    let mut words = vec![family(route.is_6), "route", "delete", &route.dst];
    let gateway = route.gateway.map(|gateway| gateway.to_string());
    if let Some(gateway) = &gateway {
        words.extend(["via", gateway]);
    }
    let metric = route.metric.map(|metric| metric.to_string());
    if let Some(metric) = &metric {
        words.extend(["metric", metric]);
    }
    words.extend(["dev", interface]);
    ip(&words).map(drop)
}

/// Takes our kind of addresses and routes from the interface.
fn take_away(interface: &str) -> Result<(), String> {
    // Those through a gateway first: it may be reached by one of the others.
    let (through, direct): (Vec<_>, Vec<_>) =
        routes(interface)?.into_iter().partition(|route| route.gateway.is_some());
    for route in through.iter().chain(&direct) {
        take_route(interface, route)?;
    }
    for address in told(interface)?.addr_info {
        if !address.is_of_others() {
            let text = address.text();
            let family = family(address.local.is_ipv6());
            let taken = ip(&[family, "address", "delete", &text, "dev", interface]);
            // The first of a network takes the others of it with it.
            let is_there = told(interface)?.addr_info.iter().any(|one| one.text() == text);
            taken.map(drop).or_else(|why| if is_there { Err(why) } else { Ok(()) })?;
        }
    }
    Ok(())
}

fn add(interface: &str, address: &str, is_4: bool) -> Result<(), String> {
    let mut words = vec![family(!is_4), "address", "replace", address, "dev", interface];
    if is_4 {
        words.extend(["broadcast", "+"]);
    }
    ip(&words).map(drop)
}

fn gateways(settings: &NetworkSettings) -> Step {
    if settings.mode == Mode::Dhcp {
        return Step::not_applied(Part::Gateways, "as the DHCP server says");
    }
    for gateway in &settings.gateways {
        if let Err(why) = is_free(&settings.interface, gateway.is_ipv6()) {
            return Step::failed(Part::Gateways, why);
        }
        let via = gateway.to_string();
        let family = family(gateway.is_ipv6());
        let words = [family, "route", "replace", "default", "via", &via, "dev"];
        let put = ip(&[&words[..], &[&settings.interface]].concat());
        if let Err(why) = put {
            return Step::failed(Part::Gateways, why);
        }
    }
    let all: Vec<_> = settings.gateways.iter().map(ToString::to_string).collect();
    match all.is_empty() {
        true => Step::not_applied(Part::Gateways, "none is set"),
        false => Step::done(Part::Gateways, all.join(", ")),
    }
}

fn put_back(interface: &str, address: &Address) -> Result<(), String> {
    let text = address.text();
    let metric = address.metric.map(|metric| metric.to_string());
    let (valid, preferred) = (address.valid_life_time, address.preferred_life_time);
    let (valid, preferred) = (valid.to_string(), preferred.to_string());
    let broadcast = address.broadcast.map(|broadcast| broadcast.to_string());
    let mut words =
        vec![family(address.local.is_ipv6()), "address", "replace", &text, "dev", interface];
    if let Some(broadcast) = &broadcast {
        words.extend(["broadcast", broadcast]);
    }
    if let Some(label) = &address.label {
        words.extend(["label", label]);
    }
    if let Some(metric) = &metric {
        words.extend(["metric", metric]);
    }
    if address.noprefixroute {
        words.push("noprefixroute");
    }
    if address.local.is_ipv6() {
        // It was in use here; routes from it are refused while the kernel looks whether it is elsewhere.
        words.push("nodad");
    }
    if address.dynamic {
        words.extend(["valid_lft", &valid, "preferred_lft", &preferred]);
    }
    ip(&words).map(drop)
}

/// Puts routes back, whatever the order in which they need each other; why those are not that can't be.
fn put_back_routes(interface: &str, routes: &[Route]) -> Vec<String> {
    let mut left: Vec<_> = routes.iter().collect();
    // A gateway may be reached by one of those without.
    left.sort_by_key(|route| route.gateway.is_some());
    loop {
        let before = left.len();
        let mut wrong = Vec::new();
        left.retain(|route| match put_back_route(interface, route) {
            Ok(()) => false,
            Err(why) => {
                wrong.push(why);
                true
            }
        });
        if left.is_empty() || left.len() == before {
            return wrong;
        }
    }
}

fn put_back_route(interface: &str, route: &Route) -> Result<(), String> {
    let mut words = vec![route.dst.clone()];
    let more = [
        ("via", route.gateway.map(|gateway| gateway.to_string())),
        ("proto", route.protocol.clone()),
        ("scope", route.scope.clone().filter(|_| !route.is_6)),
        ("src", route.prefsrc.map(|source| source.to_string())),
        ("metric", route.metric.map(|metric| metric.to_string())),
    ];
    for (word, value) in more {
        words.extend(value.into_iter().flat_map(|value| [word.to_owned(), value]));
    }
    words.extend(["dev".to_owned(), interface.to_owned()]);
    if route.flags.iter().any(|flag| flag == "onlink") {
        words.push("onlink".into());
    }
    let put = |how: &str| {
        let front = [family(route.is_6), "route", how];
        let words = front.into_iter().chain(words.iter().map(String::as_str));
        ip(&words.collect::<Vec<_>>()).map(drop)
    };
    // Never in the place of another device's.
    put("add").or_else(|why| match route.is_6 {
        // Beside one that a router has advertised.
        true => put("append"),
        false => Err(why),
    })
}

/// Has chrony read its sources; says so.
fn reread(what: &str) -> String {
    match command::run("chronyc", &["reload", "sources"]) {
        Ok(_) => format!("{what}; chrony has read it"),
        Err(why) => format!("{what}; chrony reads it when it starts ({})", why.trim()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_ip_says_is_understood() {
        let text = r#"{"ifindex":2,"ifname":"eth0","flags":["BROADCAST","UP"],"mtu":1500,
            "operstate":"UP","addr_info":[
            {"family":"inet","local":"192.0.2.7","prefixlen":24,"broadcast":"192.0.2.255",
             "scope":"global","label":"eth0","valid_life_time":4294967295,
             "preferred_life_time":4294967295},
            {"family":"inet6","local":"2001:db8::5","prefixlen":64,"scope":"global","dynamic":true,
             "mngtmpaddr":true,"protocol":"kernel_ra","valid_life_time":86392,
             "preferred_life_time":14392},
            {"family":"inet6","local":"fe80::1","prefixlen":64,"scope":"link",
             "valid_life_time":4294967295,"preferred_life_time":4294967295}]}"#;
        let told: Told = serde_json::from_str(text).unwrap();
        let ours: Vec<_> = told.addr_info.iter().filter(|one| !one.is_of_others()).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!(ours[0].text(), "192.0.2.7/24");
        let route = r#"{"dst":"default","gateway":"192.0.2.1","protocol":"static","metric":100,
            "flags":[]}"#;
        let route: Route = serde_json::from_str(route).unwrap();
        assert!(route.is_default() && !route.is_of_others());
        let kept: Route = serde_json::from_str(&serde_json::to_string(&route).unwrap()).unwrap();
        assert_eq!(kept, route);
        let of_kernel = r#"{"dst":"192.0.2.0/24","protocol":"kernel","scope":"link"}"#;
        assert!(serde_json::from_str::<Route>(of_kernel).unwrap().is_of_others());
    }
}
