//! The settings of the network: what they say, and what is wrong with them.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Error, Result};

/// Bytes of a name of an interface, as Linux has them.
const INTERFACE: usize = 15;
/// Bytes of a name of a host (RFC 1123, RFC 1035), and of one of its labels.
const NAME: usize = 253;
const LABEL: usize = 63;
/// How many there are of each at most. A resolver asks no more than three (resolv.conf(5)).
const ADDRESSES: usize = 8;
const SERVERS: usize = 3;
const CLOCKS: usize = 8;
/// Bytes of a packet: what IPv4 hosts must take (RFC 1122), what IPv6 must (RFC 8200), and the most.
const MTU: u32 = 576;
const MTU_6: u32 = 1280;
const MTU_MOST: u32 = 65535;

/// How the interface gets its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// IPv4 from a server (RFC 2131); IPv6 as routers advertise it.
    #[default]
    Dhcp,
    /// As they are said.
    Static,
}

impl Mode {
    /// As it is shown.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dhcp => "dhcp",
            Self::Static => "static",
        }
    }
}

/// An address of a host, and how many bits of it are its network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// The bits.
    pub bits: u8,
}

impl HostAddress {
    /// With a mask: `255.255.255.0`, `ffff:ffff::`, `24` or `/24`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_mask(address: &str, mask: &str) -> Result<Self> {
        let address = ip("address", address)?;
        let plain = mask.strip_prefix('/').unwrap_or(mask);
        let wrong = || invalid("netmask", format!("`{mask}` is no mask of an {}", family(address)));
        let bits = match (plain.parse::<u8>(), plain.parse::<IpAddr>()) {
            (Ok(bits), _) => bits,
            (_, Ok(IpAddr::V4(mask))) if address.is_ipv4() => {
                let ones = mask.to_bits().leading_ones();
                if mask.to_bits().count_ones() != ones {
                    return Err(wrong());
                }
                u8::try_from(ones).map_err(|_| wrong())?
            }
            (_, Ok(IpAddr::V6(mask))) if address.is_ipv6() => {
                let ones = mask.to_bits().leading_ones();
                if mask.to_bits().count_ones() != ones {
                    return Err(wrong());
                }
                u8::try_from(ones).map_err(|_| wrong())?
            }
            _ => return Err(wrong()),
        };
        Ok(Self { address, bits })
    }

    /// The bits of an address of this family.
    fn width(&self) -> u8 {
        if self.address.is_ipv4() { 32 } else { 128 }
    }

    fn mask(&self) -> u128 {
        match self.width() - self.bits.min(self.width()) {
            128 => 0,
            host => u128::MAX << host,
        }
    }

    /// Whether that address is in this one's network.
    fn holds(&self, other: IpAddr) -> bool {
        self.address.is_ipv4() == other.is_ipv4()
            && bits(self.address) & self.mask() == bits(other) & self.mask()
    }

    /// Whether that is an address that hosts of this network can't have: the network itself, and all
    /// hosts (RFC 1122). A network of two (RFC 3021) or one has none.
    fn is_of_all(&self, other: IpAddr) -> bool {
        let IpAddr::V4(other) = other else { return false };
        if self.bits >= 31 {
            return false;
        }
        let host = !(self.mask() as u32);
        matches!(other.to_bits() & host, 0) || other.to_bits() & host == host
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for HostAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            invalid("addresses", format!("`{}` is not ADDRESS/BITS, as 192.0.2.1/24", shown(text)))
        };
        let (address, bits) = text.split_once('/').ok_or_else(wrong)?;
        let is_number = !bits.is_empty() && bits.bytes().all(|c| c.is_ascii_digit());
        let bits = bits.parse().ok().filter(|_| is_number).ok_or_else(wrong)?;
        Ok(Self { address: address.parse().map_err(|_| wrong())?, bits })
    }
}

impl Serialize for HostAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What somebody wants, as they wrote it.
#[derive(Clone, Debug, Default)]
pub struct WantedNetwork {
    /// The name of the interface.
    pub interface: String,
    /// The name of the host.
    pub hostname: String,
    /// How it gets its addresses.
    pub mode: Mode,
    /// `ADDRESS/BITS`; none with DHCP.
    pub addresses: Vec<String>,
    /// One of a family at most.
    pub gateways: Vec<String>,
    /// Bytes of a packet; as it is when it isn't said.
    pub mtu: Option<u32>,
    /// Addresses of name servers.
    pub dns: Vec<String>,
    /// Names or addresses of time servers.
    pub ntp: Vec<String>,
}

/// The settings, which can be meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSettings {
    /// The name of the interface.
    pub interface: String,
    /// The name of the host.
    pub hostname: String,
    /// How it gets its addresses.
    pub mode: Mode,
    /// Its addresses; none with DHCP.
    pub addresses: Vec<HostAddress>,
    /// Through whom others are reached; one of a family at most.
    pub gateways: Vec<IpAddr>,
    /// Bytes of a packet.
    pub mtu: Option<u32>,
    /// Name servers; none: what there is stays, or what DHCP says.
    pub dns: Vec<IpAddr>,
    /// Time servers; none: ours are taken away.
    pub ntp: Vec<String>,
}

impl WantedNetwork {
    /// Looks at all of it.
    ///
    /// # Errors
    /// [`Error::Network`]: what is wrong, and what would be right.
    pub fn check(&self) -> Result<NetworkSettings> {
        self::interface(&self.interface)?;
        hostname("hostname", &self.hostname)?;
        at_most("addresses", self.addresses.len(), ADDRESSES)?;
        at_most("gateways", self.gateways.len(), 2)?;
        at_most("dns", self.dns.len(), SERVERS)?;
        at_most("ntp", self.ntp.len(), CLOCKS)?;
        let addresses: Vec<HostAddress> =
            self.addresses.iter().map(|text| text.parse()).collect::<Result<_>>()?;
        addresses.iter().try_for_each(host)?;
        once("addresses", addresses.iter().map(|one| one.address))?;
        let all = |name, texts: &[String]| -> Result<Vec<IpAddr>> {
            texts.iter().map(|text| ip(name, text)).collect()
        };
        let gateways = all("gateways", &self.gateways)?;
        let mode = self.mode;
        match mode {
            Mode::Static if addresses.is_empty() => {
                return Err(invalid("addresses", "say at least one, as 192.0.2.1/24, or use DHCP"));
            }
            Mode::Dhcp if !(addresses.is_empty() && gateways.is_empty()) => {
                let field = if addresses.is_empty() { "gateways" } else { "addresses" };
                return Err(invalid(field, "DHCP says which: leave them out"));
            }
            _ => {}
        }
        for family in [true, false] {
            if gateways.iter().filter(|one| one.is_ipv4() == family).count() > 1 {
                return Err(invalid("gateways", "one of each family, IPv4 and IPv6, is enough"));
            }
        }
        gateways.iter().try_for_each(|one| gateway(*one, &addresses))?;
        // With fewer, the kernel takes IPv6 from the interface: with DHCP, what routers advertise.
        let has_6 = mode == Mode::Dhcp || addresses.iter().any(|one| one.address.is_ipv6());
        let least = if has_6 { MTU_6 } else { MTU };
        if self.mtu.is_some_and(|mtu| !(least..=MTU_MOST).contains(&mtu)) {
            return Err(invalid("mtu", format!("it takes {least} to {MTU_MOST} bytes")));
        }
        let dns = all("dns", &self.dns)?;
        for server in &dns {
            if server.is_unspecified() || server.is_multicast() || is_broadcast(*server) {
                return Err(invalid("dns", format!("{server} is no address of a server")));
            }
        }
        once("dns", dns.iter())?;
        for server in &self.ntp {
            match server.parse::<IpAddr>() {
                Ok(ip) if ip.is_unspecified() || is_broadcast(ip) => {
                    return Err(invalid("ntp", format!("{ip} is no address of a server")));
                }
                Ok(_) => {}
                Err(_) => hostname("ntp", server)?,
            }
        }
        once("ntp", self.ntp.iter().map(|name| name.to_ascii_lowercase()))?;
        Ok(NetworkSettings {
            interface: self.interface.clone(),
            hostname: self.hostname.clone(),
            mode,
            addresses,
            gateways,
            mtu: self.mtu,
            dns,
            ntp: self.ntp.clone(),
        })
    }
}

impl NetworkSettings {
    /// The name that the kernel has for the host: it takes 64 bytes (hostname(7)), so of a longer one
    /// the first label.
    pub(crate) fn kernel_name(&self) -> &str {
        match self.hostname.len() {
            0..=64 => &self.hostname,
            _ => self.hostname.split('.').next().unwrap_or_default(),
        }
    }
}

fn invalid(field: &'static str, why: impl Into<String>) -> Error {
    Error::Network { field, why: why.into() }
}

/// Enough of what somebody sent to be known again.
fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_default).collect()
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4 address" } else { "IPv6 address" }
}

fn ip(field: &'static str, text: &str) -> Result<IpAddr> {
    text.parse().map_err(|_| invalid(field, format!("`{}` is no IP address", shown(text))))
}

fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(address) if address.is_broadcast())
}

fn at_most(field: &'static str, count: usize, most: usize) -> Result<()> {
    match count > most {
        true => Err(invalid(field, format!("there may be {most}"))),
        false => Ok(()),
    }
}

fn once<T: std::hash::Hash + Eq + fmt::Display>(
    field: &'static str,
    all: impl Iterator<Item = T>,
) -> Result<()> {
    let mut seen = HashSet::new();
    for one in all {
        if seen.contains(&one) {
            return Err(invalid(field, format!("{one} is there twice")));
        }
        seen.insert(one);
    }
    Ok(())
}

/// It becomes a word of commands and a pattern of networkd.
fn interface(name: &str) -> Result<()> {
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-');
    let begins = name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if !begins || name.len() > INTERFACE || !name.bytes().all(fits) {
        let why = format!(
            "a name has 1 to {INTERFACE} letters, digits, `.`, `_` and `-`, and begins with a letter \
             or digit"
        );
        return Err(invalid("interface", why));
    }
    if ["lo", "all", "default"].contains(&name) {
        return Err(invalid("interface", format!("`{name}` is none that leads to others")));
    }
    Ok(())
}

/// RFC 1123, section 2.1: labels of letters, digits and hyphens, which are no address.
fn hostname(field: &'static str, name: &str) -> Result<()> {
    let is_label = |label: &str| {
        let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        label.len() <= LABEL
            && ends(label.bytes().next())
            && ends(label.bytes().next_back())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-')
    };
    if name.is_empty() || name.len() > NAME || !name.split('.').all(is_label) {
        let why = format!(
            "a name has up to {NAME} bytes: labels of 1 to {LABEL} letters, digits and hyphens, which \
             stand inside alone, with dots between them"
        );
        return Err(invalid(field, why));
    }
    let is_number = |label: &str| label.bytes().all(|c| c.is_ascii_digit());
    match name.rsplit_once('.') {
        Some((_, last)) if is_number(last) => {
            Err(invalid(field, "a name that ends with a number would be taken for an address"))
        }
        _ => Ok(()),
    }
}

/// Whether that can be a host's own.
fn host(one: &HostAddress) -> Result<()> {
    let HostAddress { address, bits } = one;
    if *bits == 0 || *bits > one.width() {
        return Err(invalid("addresses", format!("{one}: it has 1 to {} bits", one.width())));
    }
    let is_odd = match address {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.octets()[0] == 0 || v4.octets()[0] >= 240,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.to_ipv4_mapped().is_some(),
    };
    // Those of a link are the kernel's, and stay whatever is set; fec0::/10 are no more (RFC 3879).
    if matches!(address, IpAddr::V6(v6) if matches!(v6.segments()[0] & 0xffc0, 0xfe80 | 0xfec0)) {
        return Err(invalid("addresses", format!("{address} reaches no further than its link")));
    }
    if is_odd || address.is_loopback() || address.is_multicast() {
        return Err(invalid("addresses", format!("{address} can't be an address of a host")));
    }
    if one.is_of_all(*address) {
        return Err(invalid("addresses", format!("{one} is the network or all of it, not a host")));
    }
    Ok(())
}

fn gateway(gateway: IpAddr, addresses: &[HostAddress]) -> Result<()> {
    if addresses.iter().any(|one| one.address == gateway) {
        return Err(invalid("gateways", format!("{gateway} is this host itself")));
    }
    // Routers have such addresses on each of their links (RFC 4861).
    let is_on_link = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local())
        && addresses.iter().any(|one| one.address.is_ipv6());
    if is_on_link {
        return Ok(());
    }
    match addresses.iter().find(|one| one.holds(gateway)) {
        Some(one) if !one.is_of_all(gateway) => Ok(()),
        Some(one) => {
            Err(invalid("gateways", format!("{gateway} is the network of {one} or all of it")))
        }
        None => Err(invalid("gateways", format!("{gateway} is in the network of no address"))),
    }
}

/// The mask of so many bits, as the dialects write it.
pub fn mask(address: &HostAddress) -> String {
    match address.address {
        IpAddr::V4(_) => Ipv4Addr::from_bits(address.mask() as u32).to_string(),
        IpAddr::V6(_) => address.bits.to_string(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Fixed addresses, and all else that there is.
    pub(crate) fn good() -> WantedNetwork {
        WantedNetwork {
            interface: "eth0".into(),
            hostname: "box.example".into(),
            mode: Mode::Static,
            addresses: vec!["192.0.2.7/24".into(), "2001:db8::7/64".into()],
            gateways: vec!["192.0.2.1".into(), "fe80::1".into()],
            mtu: Some(1500),
            dns: vec!["192.0.2.2".into(), "2001:db8::2".into()],
            ntp: vec!["pool.example".into(), "192.0.2.3".into(), "2001:db8::3".into()],
        }
    }

    /// DHCP, and what it says.
    pub(crate) fn leased() -> WantedNetwork {
        WantedNetwork {
            mode: Mode::Dhcp,
            addresses: Vec::new(),
            gateways: Vec::new(),
            mtu: None,
            dns: Vec::new(),
            ntp: Vec::new(),
            ..good()
        }
    }

    fn refused(change: impl Fn(&mut WantedNetwork), field: &str) {
        let mut wanted = good();
        change(&mut wanted);
        match wanted.check() {
            Err(Error::Network { field: told, .. }) => assert_eq!(told, field, "{wanted:?}"),
            other => panic!("{wanted:?}: {other:?}"),
        }
    }

    #[test]
    fn what_can_be_meant_is_taken() {
        let settings = good().check().unwrap();
        assert_eq!(settings.mode, Mode::Static);
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<NetworkSettings>(&text).unwrap(), settings);
        assert_eq!(leased().check().unwrap().mode, Mode::Dhcp);
        // Networks of two and of one, a link's own address, a private one, a VLAN.
        for (address, gateway) in [
            ("192.0.2.0/31", "192.0.2.1"),
            ("169.254.1.2/16", "169.254.1.1"),
            ("10.255.255.254/8", "10.0.0.1"),
            ("fd00::7/127", "fd00::6"),
        ] {
            let addresses = vec![address.to_owned()];
            let gateways = vec![gateway.to_owned()];
            let interface = "enp0s3.100".to_owned();
            WantedNetwork { interface, addresses, gateways, ..good() }.check().unwrap();
        }
        let alone = WantedNetwork { gateways: Vec::new(), ..good() };
        alone.check().unwrap();
    }

    #[test]
    fn what_can_not_be_meant_is_told_by_its_field() {
        for name in
            ["", "-a", "a b", "eth0/1", "lo", "all", "..", "eth0\n", "*", "abcdefghijklmnop"]
        {
            refused(|wanted| wanted.interface = name.into(), "interface");
        }
        let long = format!("{}.example", "x".repeat(64));
        let longer = vec!["abcdefgh"; 29].join(".");
        for name in
            ["", "-a", "a-", "a..b", ".a", "a.", "a_b", "1.2.3.4", "a b", "ä", &long, &longer]
        {
            refused(|wanted| wanted.hostname = name.into(), "hostname");
        }
        for address in [
            "",
            "192.0.2.7",
            "192.0.2.7/",
            "192.0.2.7/33",
            "192.0.2.7/0",
            "192.0.2.7/+8",
            "999.0.0.1/8",
            "192.0.2.0/24",
            "192.0.2.255/24",
            "0.0.0.0/8",
            "127.0.0.1/8",
            "fe80::7/64",
            "fec0::7/64",
            "224.0.0.1/4",
            "255.255.255.255/32",
            "::1/128",
            "::/64",
            "ff02::1/16",
            "2001:db8::1/129",
            "::ffff:192.0.2.1/96",
            "192.0.2.7/24/24",
            "x",
            "0.1.2.3/8",
        ] {
            refused(|wanted| wanted.addresses[0] = address.into(), "addresses");
        }
        refused(|wanted| wanted.addresses = vec!["192.0.2.7/24".into(); 2], "addresses");
        refused(|wanted| wanted.addresses = vec!["192.0.2.7/24".into(); 9], "addresses");
        for gateway in ["", "198.51.100.1", "192.0.2.7", "192.0.2.255", "192.0.2.0", "x", "::1"] {
            refused(|wanted| wanted.gateways = vec![gateway.into()], "gateways");
        }
        refused(|wanted| wanted.addresses.clear(), "addresses");
        refused(|wanted| wanted.mode = Mode::Dhcp, "addresses");
        refused(
            |wanted| {
                wanted.mode = Mode::Dhcp;
                wanted.addresses.clear();
            },
            "gateways",
        );
        let two = ["192.0.2.1", "192.0.2.2"];
        refused(|wanted| wanted.gateways = two.map(str::to_owned).to_vec(), "gateways");
        // One on the link is of no use to who has IPv4 alone.
        refused(
            |wanted| {
                wanted.addresses.truncate(1);
                wanted.gateways = vec!["fe80::1".into()];
            },
            "gateways",
        );
        for mtu in [0, 575, 1279, 65536, u32::MAX] {
            refused(|wanted| wanted.mtu = Some(mtu), "mtu");
            let by_dhcp = WantedNetwork { mtu: Some(mtu), ..leased() }.check();
            assert!(matches!(by_dhcp, Err(Error::Network { field: "mtu", .. })), "{mtu}");
        }
        for (wanted, least) in [(leased(), 1280), (good(), 1280)] {
            WantedNetwork { mtu: Some(least), ..wanted }.check().unwrap();
        }
        let mut of_4 = WantedNetwork { mtu: Some(576), ..good() };
        (of_4.addresses, of_4.gateways) = (vec!["192.0.2.7/24".into()], Vec::new());
        of_4.check().unwrap();
        for server in ["", "dns.example", "0.0.0.0", "224.0.0.1", "255.255.255.255", "1.2.3.4 "] {
            refused(|wanted| wanted.dns = vec![server.into()], "dns");
        }
        refused(|wanted| wanted.dns = vec!["192.0.2.1".into(); 2], "dns");
        refused(|wanted| wanted.dns = vec!["192.0.2.1".into(); 4], "dns");
        for server in ["", "a b", "pool.example\nallow all", "0.0.0.0", "999.1.1.1", "[::1]"] {
            refused(|wanted| wanted.ntp = vec![server.into()], "ntp");
        }
        refused(|wanted| wanted.ntp = vec!["A.example".into(), "a.example".into()], "ntp");
    }

    #[test]
    fn masks_are_read_in_each_way() {
        for (address, mask, bits) in [
            ("192.0.2.7", "255.255.255.0", 24),
            ("192.0.2.7", "24", 24),
            ("192.0.2.7", "/24", 24),
            ("192.0.2.7", "255.255.255.255", 32),
            ("2001:db8::7", "64", 64),
            ("2001:db8::7", "ffff:ffff:ffff:ffff::", 64),
        ] {
            let read = HostAddress::with_mask(address, mask).unwrap();
            assert_eq!((read.address.to_string().as_str(), read.bits), (address, bits));
        }
        for (address, mask) in [
            ("192.0.2.7", "255.0.255.0"),
            ("192.0.2.7", "ffff::"),
            ("2001:db8::7", "255.255.255.0"),
            ("2001:db8::7", "ffff::ffff"),
            ("192.0.2.7", "//24"),
            ("192.0.2.7", ""),
            ("192.0.2.7", "999"),
            ("999.999.999.999", "24"),
        ] {
            assert!(HostAddress::with_mask(address, mask).is_err(), "{address} {mask}");
        }
        let shown = |text: &str| mask(&text.parse().unwrap());
        assert_eq!(shown("192.0.2.7/25"), "255.255.255.128");
        assert_eq!(shown("192.0.2.7/32"), "255.255.255.255");
        assert_eq!(shown("2001:db8::7/64"), "64");
    }

    #[test]
    fn the_kernel_gets_a_name_that_it_takes() {
        let long = format!("{}.{}.example", "a".repeat(60), "b".repeat(60));
        let settings = WantedNetwork { hostname: long, ..good() }.check().unwrap();
        assert_eq!(settings.kernel_name(), "a".repeat(60));
        assert_eq!(good().check().unwrap().kernel_name(), "box.example");
    }
}
