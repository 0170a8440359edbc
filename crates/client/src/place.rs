//! Where an appliance is.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use zeroize::Zeroizing;

use crate::{Error, Result, Trust};

/// The port of an appliance when none is given.
const PORT: u16 = 8443;

/// What proves who asks. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// The token of a session, or an API key.
    pub fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// The token itself, for a request or a file that only its owner can read.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    /// A TCP port.
    pub port: u16,
}

impl FromStr for Address {
    type Err = Error;

    /// Reads `https://HOST[:PORT]`, or without `https://`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Address(text.to_owned());
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(wrong()),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(wrong)?;
                (host, if port.is_empty() { None } else { port.strip_prefix(':') })
            }
            None => match rest.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (rest, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| wrong())?,
            None => PORT,
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || !host.chars().all(fits) || port == 0 {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "https://[{}]:{}", self.host, self.port),
            false => write!(f, "https://{}:{}", self.host, self.port),
        }
    }
}

/// Where an appliance is, and how to come in.
#[derive(Clone, Debug)]
pub enum Place {
    /// The control socket of one on this machine.
    Socket(PathBuf),
    /// One behind TLS.
    Remote {
        /// Where.
        address: Address,
        /// Whose certificate it may have.
        trust: Trust,
        /// Who asks; nobody before logging in.
        token: Option<Token>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Remote { address, .. } => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn addresses_are_read_strictly() {
        let read = |text: &str| text.parse::<Address>().map(|a| a.to_string());
        assert_eq!(read("https://backup.example.org").unwrap(), "https://backup.example.org:8443");
        assert_eq!(read("10.0.0.1:443").unwrap(), "https://10.0.0.1:443");
        assert_eq!(read("https://[::1]:9/").unwrap(), "https://[::1]:9");
        for wrong in
            ["", "http://a", "https://", "a:0", "a:70000", "a/b", "[::1", "user@host", "a b"]
        {
            assert!(matches!(read(wrong), Err(Error::Address(_))), "{wrong}");
        }
    }

    #[test]
    fn tokens_are_not_shown() {
        assert_eq!(format!("{:?}", Token::new("secret")), "Token(..)");
    }
}
