//! Requests that are signed with an API key: HMAC-SHA-256, each of which passes once.
//!
//! The key itself is not sent. It must be one that the appliance can show again, for a signature
//! can't be checked with a hash. What is signed is a text that tells all of a request, its time and
//! its nonce among it; whoever takes requests says how it is made (over HTTP: RFC 9421). The HMAC's
//! key is the text of the API key. A time more than five minutes off is refused, and so is a nonce
//! that the key used within that time, on any node.

use std::time::Duration;

use aws_lc_rs::hmac;
use strongroom_catalog::identity::Nonce;

use crate::clock::after;
use crate::identity::Identity;
use crate::keys;
use crate::origin::Origin;
use crate::principal::{Principal, Via};
use crate::{AuthError, Result};

/// How far the client's clock may be off, either way.
const WINDOW: Duration = Duration::from_secs(300);

/// A signed request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRequest {
    /// The prefix of the API key: what stands between its first two underscores.
    pub prefix: String,
    /// What is signed; the time and the nonce are in it.
    pub text: String,
    /// The time of the request, in seconds since 1970.
    pub time: i64,
    /// What no other request has: 16 to 128 letters, digits, hyphens or underscores.
    pub nonce: String,
    /// The HMAC-SHA-256 of the text.
    pub signature: Vec<u8>,
}

impl Identity {
    pub(crate) async fn signed(
        &self,
        request: SignedRequest,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let nonce = &request.nonce;
        let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
        if !(16..=128).contains(&nonce.len()) || !nonce.bytes().all(plain) {
            return Err(AuthError::Stale(
                "its nonce must be 16 to 128 letters, digits, hyphens or underscores",
            ));
        }
        let now = self.inner.clock.now();
        if now.as_second().abs_diff(request.time) > WINDOW.as_secs() {
            return Err(AuthError::Stale("its time is more than five minutes off: set the clock"));
        }
        let (key, secrets) = self.find_key(&request.prefix).await?;
        let Some(sealed) = &secrets.sealed else {
            return Err(AuthError::Credentials);
        };
        let text = self.inner.key.unseal(&keys::purpose(&key.prefix), sealed)?;
        let signing = hmac::Key::new(hmac::HMAC_SHA256, &text);
        hmac::verify(&signing, request.text.as_bytes(), &request.signature)
            .map_err(|_| AuthError::Credentials)?;
        // After the signature: nobody else can fill the table.
        let mut tx = self.inner.catalog.begin().await?;
        let end = after(now, 2 * WINDOW + Duration::from_secs(1));
        let new = Nonce::consume(&mut tx, key.id, nonce, now, end).await?;
        tx.commit().await?;
        if !new {
            return Err(AuthError::Stale("it was sent before: sign each request anew"));
        }
        self.with_key(&key, Via::Signed, origin).await
    }
}
