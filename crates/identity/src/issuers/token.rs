//! One token: whose it is, and whether it is good.

use std::collections::BTreeSet;
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use jiff::Timestamp;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};
use strongroom_catalog::identity::{Source, User};

use super::keys::fits;
use super::{IssuerSettings, algorithm};
use crate::arrival::Arrival;
use crate::clock::after;
use crate::identity::Identity;
use crate::origin::Origin;
use crate::principal::{Principal, Via};
use crate::secret::Secret;
use crate::{AuthError, Result};

/// Groups of one token that are looked at.
const GROUPS: usize = 2000;
/// How deep a claim with groups may lie.
const DEEP: usize = 8;
/// What a token may call itself: an ID token, or an access token of RFC 9068. A token to log
/// somebody out is signed by the same issuer too.
const KINDS: [&str; 3] = ["jwt", "at+jwt", "application/at+jwt"];

const HOUR: Duration = Duration::from_secs(3600);

/// Why a token is not good, for administrators; whoever shows it is told less.
pub(super) type Why = String;

#[derive(Deserialize)]
struct Issued {
    iss: String,
}

/// The header of a token. What it may hold beside these is not looked at.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

/// Who says that it issued a token. Nothing is checked.
pub(crate) fn issuer_of(token: &str) -> Option<String> {
    part::<Issued>(token, 1).map(|issued| issued.iss)
}

fn part<T: for<'de> Deserialize<'de>>(token: &str, number: usize) -> Option<T> {
    let part = token.split('.').nth(number)?;
    serde_json::from_slice(&BASE64URL_NOPAD.decode(part.as_bytes()).ok()?).ok()
}

/// A token that is good.
pub(super) struct Good {
    pub(super) arrival: Arrival,
    pub(super) issued: Option<i64>,
    pub(super) expires: i64,
}

/// The algorithm and key that a token names.
pub(super) struct Named {
    algorithm: Algorithm,
    kid: Option<String>,
}

/// What made the signature, if that is allowed.
pub(super) fn named(token: &str, settings: &IssuerSettings) -> Result<Named, Why> {
    let head: Head = part(token, 0).ok_or("its header can't be read")?;
    if !settings.algorithms.contains(&head.alg) {
        let told: String = head.alg.chars().take(20).collect();
        return Err(format!("the algorithm {told} is not one of those allowed"));
    }
    if head.crit.is_some() {
        return Err("its header has `crit`, and nothing critical is known here".into());
    }
    if head.typ.is_some_and(|typ| !KINDS.contains(&typ.to_ascii_lowercase().as_str())) {
        return Err("its `typ` is not that of an ID token or an access token".into());
    }
    let algorithm = algorithm(&head.alg).ok_or("its algorithm is not known here")?;
    Ok(Named { algorithm, kid: head.kid })
}

impl Named {
    /// The key, if it is among these. A token that names none must leave no choice.
    pub(super) fn key<'k>(&self, keys: &'k [Jwk]) -> Option<&'k Jwk> {
        let mut fitting = keys.iter().filter(|key| {
            let is_named =
                self.kid.as_ref().is_none_or(|kid| key.common.key_id.as_ref() == Some(kid));
            is_named && fits(key, self.algorithm)
        });
        let key = fitting.next()?;
        (self.kid.is_some() || fitting.next().is_none()).then_some(key)
    }

    /// Checks a token with a key, for a time.
    pub(super) fn check(
        &self,
        token: &str,
        key: &Jwk,
        settings: &IssuerSettings,
        now: Timestamp,
    ) -> Result<Good, Why> {
        let key = DecodingKey::from_jwk(key).map_err(|_| "the issuer's key can't be used")?;
        let mut rules = Validation::new(self.algorithm);
        rules.set_issuer(&[&settings.issuer]);
        rules.set_audience(&settings.audiences);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // By this crate's clock, below.
        rules.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &rules);
        let claims = decoded.map_err(|error| match error.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => "its signature is wrong".into(),
            jsonwebtoken::errors::ErrorKind::InvalidAudience => {
                "its `aud` is none of the audiences".to_owned()
            }
            other => format!("it is refused: {other:?}"),
        })?;
        judge(&claims.claims, settings, now)
    }
}

/// What the claims of a token come to, whose signature is right.
fn judge(
    claims: &Map<String, Value>,
    settings: &IssuerSettings,
    now: Timestamp,
) -> Result<Good, Why> {
    let (now, leeway) = (now.as_second(), i64::from(settings.leeway_seconds));
    let expires = seconds(claims, "exp").ok_or("its `exp` is no time")?;
    if expires.saturating_add(leeway) <= now {
        return Err("it has ended (`exp`)".into());
    }
    for name in ["nbf", "iat"] {
        if claims.contains_key(name) {
            let from = seconds(claims, name).ok_or(format!("its `{name}` is no time"))?;
            if from.saturating_sub(leeway) > now {
                return Err(format!("it begins later (`{name}`): are the clocks right?"));
            }
        }
    }
    if !settings.authorized_parties.is_empty() {
        // Keycloak has azp, Entra azp or appid, RFC 9068 client_id.
        let party = ["azp", "client_id", "appid"].iter().find_map(|name| text(claims, name));
        if !party.is_some_and(|party| settings.authorized_parties.iter().any(|p| p == party)) {
            return Err("the client that got it is none of authorized_parties".into());
        }
    }
    let name = text(claims, &settings.name_claim);
    let name = name.ok_or(format!("it has no claim `{}`", settings.name_claim))?;
    let arrival = Arrival {
        external_id: text(claims, "sub").ok_or("its `sub` is no text")?.to_owned(),
        name: name.to_owned(),
        full_name: text(claims, "name").unwrap_or_default().to_owned(),
        email: text(claims, "email").unwrap_or_default().to_owned(),
        groups: groups(claims, &settings.groups_claim),
    };
    Ok(Good { arrival, issued: seconds(claims, "iat"), expires })
}

fn text<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c str> {
    claims.get(name).and_then(Value::as_str)
}

/// A time in whole seconds; issuers may send parts of them.
fn seconds(claims: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    let whole = value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))?;
    (0..=253_402_300_799).contains(&whole).then_some(whole)
}

/// The groups: a list of texts, or one text. A claim whose name has points in it comes first.
fn groups(claims: &Map<String, Value>, name: &str) -> BTreeSet<String> {
    let direct = claims.get(name);
    let found = direct.or_else(|| {
        let mut parts = name.split('.').take(DEEP);
        let first = claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    });
    let texts: Vec<&Value> = match found {
        Some(Value::Array(all)) => all.iter().take(GROUPS).collect(),
        Some(one) => vec![one],
        None => Vec::new(),
    };
    texts.into_iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

impl Identity {
    /// Who acts with a token of an issuer, and until when that is known.
    pub(crate) async fn by_issuer(
        &self,
        issuer: &str,
        token: &Secret,
        origin: &Origin,
    ) -> Result<(Principal, Timestamp), AuthError> {
        let sources = self.enabled_sources::<IssuerSettings>().await?;
        let found = sources.into_iter().find(|(_, settings)| settings.issuer == issuer);
        let (source, settings) = found.ok_or(AuthError::Credentials)?;
        let refused = |why: Why| {
            tracing::info!(issuer = source.name, why, "a token is not good");
            AuthError::Credentials
        };
        let named = named(token.expose(), &settings).map_err(refused)?;
        let key = self.key_of(&source, &settings, &named).await?;
        let key = key.ok_or_else(|| refused("no key of the issuer fits it".into()))?;
        let now = self.inner.clock.now();
        let good = named.check(token.expose(), &key, &settings, now).map_err(refused)?;
        let arrived =
            self.arrive(&source, settings.create_users, good.arrival, Via::Oidc, origin).await;
        let user = match arrived {
            Ok(user) => user,
            Err(error) => {
                tracing::info!(issuer = source.name, why = error.word(), "a token is not let in");
                return Err(error);
            }
        };
        let end =
            Timestamp::from_second(good.expires.saturating_add(settings.leeway_seconds.into()));
        let principal = self.principal(user.clone(), None, Via::Oidc, origin).await?;
        self.first_seen(&user, good.issued, origin).await?;
        Ok((principal, end.unwrap_or(now)))
    }

    async fn key_of(
        &self,
        source: &Source,
        settings: &IssuerSettings,
        named: &Named,
    ) -> Result<Option<Jwk>, AuthError> {
        let (ring, clock) = (&self.inner.issuers, &self.inner.clock);
        let unreachable = |why: String| {
            tracing::warn!(issuer = source.name, why, "an issuer has no keys");
            AuthError::Unreachable
        };
        let issuer = (source.id, source.version);
        for missing in [false, true] {
            let keys = ring.keys(issuer, settings, clock, missing).await.map_err(unreachable)?;
            if let Some(key) = named.key(&keys) {
                return Ok(Some(key.clone()));
            }
        }
        Ok(None)
    }

    /// Writes down that somebody came with a token that was made since the last that was written
    /// down: that is what a login is there.
    async fn first_seen(
        &self,
        user: &User,
        issued: Option<i64>,
        origin: &Origin,
    ) -> Result<(), AuthError> {
        let now = self.inner.clock.now();
        // One that doesn't tell when it was made is a new one each hour.
        let issued = issued.and_then(|at| Timestamp::from_second(at).ok());
        let known = user.last_login_at.is_some_and(|at| match issued {
            Some(issued) => issued <= at,
            None => now < after(at, HOUR),
        });
        if known {
            return Ok(());
        }
        self.note_login(user, Via::Oidc, origin).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn groups_are_found_where_issuers_have_them() {
        let claims = json!({
            "groups": ["/admins", 7, "/users"],
            "realm_access": {"roles": ["a", "b"]},
            "https://x.example/groups": "one",
            "a.b": ["direct"], "a": {"b": ["below"]},
        });
        let Value::Object(claims) = claims else { unreachable!("it is one") };
        let found = |name| groups(&claims, name).into_iter().collect::<Vec<_>>().join(" ");
        assert_eq!(found("groups"), "/admins /users");
        assert_eq!(found("realm_access.roles"), "a b");
        assert_eq!(found("https://x.example/groups"), "one");
        assert_eq!(found("a.b"), "direct");
        assert_eq!(found("realm_access.roles.a"), "");
        assert_eq!(found("nothing"), "");
    }

    #[test]
    fn what_is_no_token_has_no_issuer() {
        for text in ["", "a.b.c", "..", "e30.e30.", "eyJ9.bm8.x"] {
            assert_eq!(issuer_of(text), None, "{text}");
        }
    }
}
