//! The typed client of the native API, for programs that have no runtime of their own.
//!
//! A [`Client`] talks to an appliance through its control socket, or over TLS with the token of a
//! session or a key. The certificate of an appliance is either signed by somebody who is trusted,
//! or the very one that was seen when logging in ([`Trust`]); there is no way to skip the check.
//! Calls block, from any thread; [`Client::events`] and [`Client::download`] take what comes as it
//! comes. [`source::RemoteSource`] reads images in a pool of the appliance as if the pool were here.

mod call;
mod client;
mod connection;
mod error;
pub mod ingest;
mod logins;
mod place;
pub mod source;
mod trust;
pub mod types;

use strongroom_engine::seal::ChunkHasher;
use zeroize::Zeroizing;

pub use call::Call;
pub use client::{Client, Events};
pub use error::{Error, Problem, Result};
pub use http::Method;
pub use logins::{Login, Logins};
pub use place::{Address, Place, Token};
pub use trust::{Fingerprint, Trust};

/// What makes the ids of a pool's chunks, of the keys that an appliance tells as hexadecimal digits.
fn id_keys(data: &str, node: &str) -> Option<ChunkHasher> {
    let key = |text: &str| {
        let bytes = Zeroizing::new(data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?);
        <[u8; 32]>::try_from(&bytes[..]).ok()
    };
    Some(ChunkHasher::of_keys([key(data)?, key(node)?]))
}
