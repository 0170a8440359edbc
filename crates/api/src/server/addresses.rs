//! This machine's name and addresses, for its own certificate.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The host name; `localhost` when it isn't one.
pub(super) fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.');
    if name.is_empty() || !name.bytes().all(fits) { "localhost".to_owned() } else { name }
}

/// All addresses of this machine, as the kernel lists them; those of the loopback always.
pub(super) fn all() -> BTreeSet<IpAddr> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let mut found: BTreeSet<IpAddr> =
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into();
    found.extend(version_4(&read("/proc/net/fib_trie")).into_iter().map(IpAddr::from));
    found.extend(version_6(&read("/proc/net/if_inet6")).into_iter().map(IpAddr::from));
    found
}

/// In the routing trie an address stands on the line before the one that says it is local.
fn version_4(text: &str) -> Vec<Ipv4Addr> {
    let mut last: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("|-- ") {
            last = rest.parse().ok();
        } else if line.starts_with("/32 host LOCAL") {
            found.extend(last);
        }
    }
    found
}

/// 32 hexadecimal digits begin each line. Addresses of a link alone mean nothing to others.
fn version_6(text: &str) -> Vec<Ipv6Addr> {
    let digits = text.lines().filter_map(|line| line.split_whitespace().next());
    let addresses = digits.filter_map(|digits| u128::from_str_radix(digits, 16).ok());
    addresses.map(Ipv6Addr::from).filter(|address| !address.is_unicast_link_local()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_kernel_s_lists_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     \
                    |-- 10.1.2.3\n        /32 host LOCAL\n     |-- 10.1.2.255\n        /32 link BROADCAST\n";
        assert_eq!(version_4(trie), [Ipv4Addr::new(10, 1, 2, 3)]);
        let list = "fe800000000000000000000000000001 02 40 20 80 eth0\n\
                    fd000000000000000000000000000007 02 40 00 80 eth0\n";
        assert_eq!(version_6(list), ["fd00::7".parse::<Ipv6Addr>().unwrap()]);
        assert!(all().contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
