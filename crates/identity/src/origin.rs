//! Where a request comes from.

use std::net::IpAddr;

/// The longest name of a program that is kept.
pub(crate) const AGENT: usize = 256;

/// Where a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; none at the control socket.
    pub address: Option<IpAddr>,
    /// What the client calls itself.
    pub agent: String,
    /// Whether the request counts as use of its session.
    pub extends: bool,
}

impl Origin {
    /// A request from this address.
    pub fn new(address: Option<IpAddr>, agent: &str) -> Self {
        Self { address, agent: bounded(agent, AGENT), extends: true }
    }

    pub(crate) fn address_text(&self) -> String {
        self.address.map(|address| address.to_canonical().to_string()).unwrap_or_default()
    }
}

/// The beginning of a text: at most so many bytes, without control characters.
pub(crate) fn bounded(text: &str, most: usize) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if out.len() + c.len_utf8() > most {
            break;
        }
        out.push(if c.is_control() { ' ' } else { c });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_is_bounded() {
        assert_eq!(bounded("a\nb\u{7}c", 10), "a b c");
        assert_eq!(bounded("äöü", 5), "äö");
        assert_eq!(Origin::new(None, &"x".repeat(1000)).agent.len(), AGENT);
    }
}
