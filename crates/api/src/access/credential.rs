//! How callers say who they are.

use std::net::IpAddr;

use http::header;
use http::request::Parts;
use strongroom_appliance::network;
use strongroom_identity::{Credential, Origin, Secret};

use super::signature;
use crate::problem::{Code, Problem, Result};
use crate::server::{Peer, Reached};

/// The credentials that came with a request, whose route takes a body or not; none: it came with
/// none.
pub(super) fn of(parts: &Parts, has_body: bool) -> Result<Option<Credential>> {
    if signature::is_there(parts) {
        if parts.headers.contains_key(header::AUTHORIZATION) {
            let text = "the request has both Authorization and Signature: send one of both";
            return Err(Problem::new(Code::Unauthenticated, text));
        }
        return Ok(Some(Credential::Signed(signature::of(parts, has_body)?)));
    }
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
        // Whoever may open the control socket is known to the kernel.
        return Ok(match parts.extensions.get::<Peer>() {
            Some(Peer::Local { uid }) => Some(Credential::Local { uid: *uid }),
            _ => None,
        });
    };
    let text = value.to_str().unwrap_or_default();
    let (scheme, rest) = text.split_once(' ').unwrap_or((text, ""));
    if scheme.eq_ignore_ascii_case("bearer") && !rest.trim().is_empty() {
        return Ok(Some(Credential::Bearer(Secret::new(rest.trim()))));
    }
    let text = "the Authorization header is not `Bearer` and a token or an API key";
    Err(Problem::new(Code::Unauthenticated, text))
}

/// To which address of this machine a request came, and whose it is.
pub(crate) fn reached(parts: &Parts) -> Option<network::Reached> {
    let at = parts.extensions.get::<Reached>()?.0;
    match parts.extensions.get::<Peer>() {
        Some(Peer::Network(from)) => Some(network::Reached { at, from: from.ip() }),
        _ => None,
    }
}

/// From where a request comes.
pub(crate) fn origin(parts: &Parts) -> Origin {
    let address: Option<IpAddr> = match parts.extensions.get::<Peer>() {
        Some(Peer::Network(address)) => Some(address.ip().to_canonical()),
        _ => None,
    };
    let agent = parts.headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    Origin::new(address, agent.unwrap_or_default())
}
