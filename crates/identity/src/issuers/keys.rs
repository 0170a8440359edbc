//! The keys of issuers, as they publish them: fetched when they are needed, kept for a while, and
//! used for a while longer when the issuer can't be reached.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use serde::Deserialize;
use tokio::sync::watch;

use super::{IssuerSettings, is_safe};
use crate::clock::{Clock, after};
use crate::fetch::{Fetch, Wanted};

/// Keys are fetched anew when they are older.
const FRESH: Duration = Duration::from_secs(3600);
/// And used no longer than that, though the issuer can't be reached.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// An issuer is asked no more often, whatever tokens name.
const AGAIN: Duration = Duration::from_secs(30);
/// How long it may take.
const WITHIN: Duration = Duration::from_secs(5);
/// Bytes of what it publishes, and keys in that.
const BYTES: usize = 512 << 10;
const KEYS: usize = 100;
/// Bits of an RSA key: fewer are too weak, more are work for nothing.
const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The keys of all issuers, on this node.
#[derive(Default)]
pub(crate) struct KeyRing {
    fetch: OnceLock<Arc<dyn Fetch>>,
    /// By the number of the issuer.
    issuers: Mutex<HashMap<i64, Kept>>,
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyRing")
    }
}

struct Kept {
    /// How the issuer was asked; keys that were got otherwise are not its keys.
    version: i64,
    keys: Arc<Vec<Jwk>>,
    fetched: Option<Timestamp>,
    tried: Timestamp,
    /// What went wrong at the last try.
    trouble: Option<String>,
    /// Ends with the try that is under way.
    running: Option<watch::Receiver<()>>,
}

/// What was found in the ring.
enum Next {
    Have(Arc<Vec<Jwk>>),
    Not(String),
    Wait(watch::Receiver<()>),
    Fetch(watch::Sender<()>),
}

impl KeyRing {
    /// Who fetches; said once.
    pub(crate) fn fetch_with(&self, fetch: Arc<dyn Fetch>) {
        // A second one would be a mistake of the wiring, and the first is as good.
        let _ = self.fetch.set(fetch);
    }

    /// The keys of an issuer. `missing`: a token names one that these have not, so that they are
    /// asked for again if that is allowed yet.
    pub(crate) async fn keys(
        self: &Arc<Self>,
        issuer: (i64, i64),
        settings: &IssuerSettings,
        clock: &Clock,
        missing: bool,
    ) -> Result<Arc<Vec<Jwk>>, String> {
        let began = clock.now();
        let mut waited = false;
        loop {
            match self.next(issuer, clock.now(), missing && !waited, began) {
                Next::Have(keys) => return Ok(keys),
                Next::Not(why) => return Err(why),
                Next::Wait(mut end) => {
                    let _ = end.changed().await;
                }
                Next::Fetch(end) => {
                    let fetch = self.fetch.get().cloned();
                    let (ring, settings, clock) = (self.clone(), settings.clone(), clock.clone());
                    // In a task of its own: it ends, and is known, though the request is given up.
                    let work = tokio::spawn(async move {
                        let got = match fetch {
                            Some(fetch) => published(&*fetch, &settings).await,
                            None => Err("this process fetches nothing".to_owned()),
                        };
                        ring.put(issuer, got, clock.now());
                        drop(end);
                    });
                    let _ = work.await;
                }
            }
            waited = true;
        }
    }

    fn next(
        &self,
        (id, version): (i64, i64),
        now: Timestamp,
        missing: bool,
        began: Timestamp,
    ) -> Next {
        let mut issuers = self.issuers();
        if let Some(kept) = issuers.get_mut(&id).filter(|kept| kept.version == version) {
            if let Some(running) = kept.running.clone().filter(|r| r.has_changed().is_ok()) {
                return Next::Wait(running);
            }
            let is_young = |most| kept.fetched.is_some_and(|at| now < after(at, most));
            let may_ask = now >= after(kept.tried, AGAIN) && kept.tried < began;
            let wanted = missing || !is_young(FRESH);
            if !(wanted && may_ask) {
                return match (is_young(STALE), &kept.trouble) {
                    (true, _) => Next::Have(kept.keys.clone()),
                    (false, Some(why)) => Next::Not(why.clone()),
                    (false, None) => Next::Not("its keys are too old".to_owned()),
                };
            }
            let (end, running) = watch::channel(());
            (kept.tried, kept.running) = (now, Some(running));
            return Next::Fetch(end);
        }
        let (end, running) = watch::channel(());
        let kept = Kept {
            version,
            keys: Arc::default(),
            fetched: None,
            tried: now,
            trouble: None,
            running: Some(running),
        };
        issuers.insert(id, kept);
        Next::Fetch(end)
    }

    fn put(&self, (id, version): (i64, i64), got: Result<Vec<Jwk>, String>, now: Timestamp) {
        let mut issuers = self.issuers();
        let Some(kept) = issuers.get_mut(&id).filter(|kept| kept.version == version) else {
            return;
        };
        kept.running = None;
        match got {
            Ok(keys) => {
                (kept.keys, kept.fetched, kept.trouble) = (Arc::new(keys), Some(now), None);
            }
            Err(why) => {
                tracing::warn!(issuer = id, why, "an issuer's keys can't be fetched");
                kept.trouble = Some(why);
            }
        }
    }

    fn issuers(&self) -> MutexGuard<'_, HashMap<i64, Kept>> {
        self.issuers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As they are published now, whatever is kept: for trials.
    pub(crate) async fn published(&self, settings: &IssuerSettings) -> Result<Vec<Jwk>, String> {
        match self.fetch.get() {
            Some(fetch) => published(&**fetch, settings).await,
            None => Err("this process fetches nothing".to_owned()),
        }
    }
}

/// What an issuer says of itself.
#[derive(Deserialize)]
struct Configuration {
    issuer: String,
    jwks_uri: String,
}

/// A set of keys; those that can't be read are left out, not the others with them.
#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// The keys that an issuer publishes, of those that may check a signature.
async fn published(fetch: &dyn Fetch, settings: &IssuerSettings) -> Result<Vec<Jwk>, String> {
    let wanted = |url: &str| Wanted {
        url: url.to_owned(),
        ca_certificate: settings.ca_certificate.clone(),
        most: BYTES,
        within: WITHIN,
    };
    let url = match &settings.jwks_url {
        Some(url) => url.clone(),
        None => {
            let base = settings.issuer.trim_end_matches('/');
            let url = format!("{base}/.well-known/openid-configuration");
            let text = fetch.fetch(wanted(&url)).await.map_err(|why| format!("{url}: {why}"))?;
            let found: Configuration = serde_json::from_slice(&text)
                .map_err(|_| format!("{url}: it is no configuration of an issuer"))?;
            if found.issuer != settings.issuer {
                let named: String = found.issuer.chars().take(200).collect();
                return Err(format!("{url}: it calls itself {named}: give that as `issuer`"));
            }
            if !is_safe(&found.jwks_uri) {
                return Err(format!("{url}: its jwks_uri is not https://"));
            }
            found.jwks_uri
        }
    };
    let text = fetch.fetch(wanted(&url)).await.map_err(|why| format!("{url}: {why}"))?;
    let set: KeySet =
        serde_json::from_slice(&text).map_err(|_| format!("{url}: it is no set of keys"))?;
    let keys = set.keys.into_iter().take(KEYS);
    let keys = keys.filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
    let keys: Vec<_> = keys.filter(checks_signatures).collect();
    match keys.is_empty() {
        true => Err(format!("{url}: there is no key in it that can check a signature")),
        false => Ok(keys),
    }
}

/// Whether a key is for checking signatures, and strong enough.
fn checks_signatures(key: &Jwk) -> bool {
    let common = &key.common;
    let for_use =
        common.public_key_use.as_ref().is_none_or(|used| *used == PublicKeyUse::Signature);
    let operations = common.key_operations.as_ref();
    for_use
        && operations.is_none_or(|all| all.contains(&KeyOperations::Verify))
        && ALL.iter().any(|algorithm| fits(key, *algorithm))
}

const ALL: [Algorithm; 4] =
    [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::EdDSA];

/// Whether a key can have made signatures with this algorithm.
pub(super) fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use jsonwebtoken::jwk::EllipticCurve::{Ed25519, P256};
    let kind = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), Algorithm::RS256 | Algorithm::PS256) => {
            let n = BASE64URL_NOPAD.decode(rsa.n.as_bytes()).unwrap_or_default();
            let zeros = n.iter().take_while(|byte| **byte == 0).count();
            let bits = (n.len() - zeros) * 8;
            let first = n.get(zeros).map_or(0, |byte| byte.leading_zeros() as usize);
            BITS.contains(&(bits - first.min(bits)))
        }
        (AlgorithmParameters::EllipticCurve(ec), Algorithm::ES256) => is(&ec.curve, &P256),
        (AlgorithmParameters::OctetKeyPair(okp), Algorithm::EdDSA) => is(&okp.curve, &Ed25519),
        _ => false,
    };
    let told = key.common.key_algorithm.map(|told| told.to_string());
    kind && told.is_none_or(|told| told == format!("{algorithm:?}"))
}

fn is(found: &EllipticCurve, wanted: &EllipticCurve) -> bool {
    found == wanted
}
