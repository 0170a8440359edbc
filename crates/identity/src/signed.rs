//! Requests that are signed with an API key: HMAC-SHA-256, each of which passes once.
//!
//! The key itself is not sent. It must be one that the appliance can show again, for a signature
//! can't be checked with a hash. What is signed is, with a line feed after each line but the last:
//!
//! ```text
//! STRONGROOM-HMAC-SHA256
//! <method, in capitals>
//! <path, as sent>
//! <query, as sent, without the question mark>
//! <SHA-256 of the body, in small hexadecimal digits>
//! <time, in seconds since 1970>
//! <nonce: 16 to 128 letters, digits, hyphens or underscores>
//! ```
//!
//! The HMAC's key is the text of the API key, its result 64 hexadecimal digits. A time more than
//! five minutes off is refused, and so is a nonce that the key used within that time, on any node.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
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
    /// The method.
    pub method: String,
    /// The path, as sent.
    pub path: String,
    /// The query, as sent, without the question mark.
    pub query: String,
    /// The SHA-256 of the body, as it was received: not what a header says.
    pub body: [u8; 32],
    /// The time of the request, in seconds since 1970.
    pub time: i64,
    /// What no other request has.
    pub nonce: String,
    /// The signature, in hexadecimal digits.
    pub signature: String,
}

/// What is signed.
pub fn canonical(request: &SignedRequest) -> String {
    let SignedRequest { method, path, query, body, time, nonce, .. } = request;
    let (method, body) = (method.to_ascii_uppercase(), HEXLOWER.encode(body));
    format!("STRONGROOM-HMAC-SHA256\n{method}\n{path}\n{query}\n{body}\n{time}\n{nonce}")
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
        let signature = HEXLOWER_PERMISSIVE.decode(request.signature.as_bytes());
        let signature = signature.map_err(|_| AuthError::Credentials)?;
        let signing = hmac::Key::new(hmac::HMAC_SHA256, &text);
        hmac::verify(&signing, canonical(&request).as_bytes(), &signature)
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
