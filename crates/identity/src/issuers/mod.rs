//! Issuers of tokens (OpenID Connect): users whom somebody else lets in.
//!
//! A request shows a JWT that the issuer has signed. It is good when one of the issuer's keys, as
//! it publishes them, made the signature with an algorithm that the administrator allows, and when
//! it was made for this appliance and for now. Nothing else in a token is believed: not a key that
//! it brings, nor where it says that one is.

mod keys;
mod token;
mod trial;

use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

pub(crate) use self::keys::KeyRing;
pub(crate) use self::token::issuer_of;
use crate::directories::{check_authorities, is_here};
use crate::sources::Settings;
use crate::users::check_text;
use crate::{Error, Result};

/// The longest address or name, in bytes.
const TEXT: usize = 1024;
/// Audiences and clients, at most.
const MOST: usize = 32;
/// How far clocks may be apart, at most, in seconds.
const LEEWAY: u32 = 300;

/// The algorithms that there are to be allowed: none that knows a secret in common, for a public
/// key must not be taken for one.
const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("RS256", Algorithm::RS256),
    ("PS256", Algorithm::PS256),
    ("ES256", Algorithm::ES256),
    ("EdDSA", Algorithm::EdDSA),
];

/// How tokens of an issuer are checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuerSettings {
    /// Its name: what tokens have as `iss`, and where its keys are looked up.
    pub issuer: String,
    /// For whom a token must be: what it has as `aud`, one of these.
    pub audiences: Vec<String>,
    /// By which clients it may have been got (`azp`, or what issuers have in place of it); none
    /// here: any.
    pub authorized_parties: Vec<String>,
    /// Which algorithms may have signed it: `RS256`, `PS256`, `ES256`, `EdDSA`.
    pub algorithms: Vec<String>,
    /// Where its keys are; none: where `/.well-known/openid-configuration` says.
    pub jwks_url: Option<String>,
    /// Who vouches for its server, as PEM; none: whom this machine trusts.
    pub ca_certificate: Option<String>,
    /// The claim with the name of the user here.
    pub name_claim: String,
    /// The claim with the groups; points lead into claims, as `realm_access.roles`.
    pub groups_claim: String,
    /// How many seconds its clock may be off.
    pub leeway_seconds: u32,
    /// Whether one who comes for the first time is let in.
    pub create_users: bool,
}

impl Settings for IssuerSettings {
    const KIND: &'static str = "oidc";
    const NOUN: &'static str = "issuer";

    fn check(&self) -> Result<()> {
        let wrong = |field, why: &str| Err(Error::Invalid { field, why: why.into() });
        check_url("issuer", &self.issuer)?;
        if let Some(url) = &self.jwks_url {
            check_url("jwks_url", url)?;
        }
        for (field, texts) in
            [("audiences", &self.audiences), ("authorized_parties", &self.authorized_parties)]
        {
            if texts.len() > MOST {
                return wrong(field, "there may be 32 at most");
            }
            for text in texts {
                check_text(field, text, TEXT)?;
                if text.is_empty() {
                    return wrong(field, "an empty one is none");
                }
            }
        }
        if self.audiences.is_empty() {
            let why =
                "without one, tokens for others would be good here: say for whom they must be";
            return wrong("audiences", why);
        }
        if self.algorithms.is_empty() {
            return wrong("algorithms", "it takes one at least: RS256, PS256, ES256, EdDSA");
        }
        for name in &self.algorithms {
            if algorithm(name).is_none() {
                return wrong("algorithms", "there are: RS256, PS256, ES256, EdDSA");
            }
        }
        if let Some(pem) = &self.ca_certificate {
            check_authorities(pem)?;
        }
        for (field, text) in
            [("name_claim", &self.name_claim), ("groups_claim", &self.groups_claim)]
        {
            check_text(field, text, TEXT)?;
            if text.is_empty() {
                return wrong(field, "it must be said");
            }
        }
        if self.leeway_seconds > LEEWAY {
            return wrong("leeway_seconds", "it takes 0 to 300");
        }
        Ok(())
    }

    /// Groups are what the issuer calls them.
    fn fold(group: &str) -> String {
        group.to_owned()
    }

    /// There is no secret.
    fn same_place(&self, _: &Self) -> bool {
        true
    }
}

/// The algorithm of this name, if it is one that may be allowed.
fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

fn check_url(field: &'static str, text: &str) -> Result<()> {
    check_text(field, text, TEXT)?;
    match is_safe(text) {
        true => Ok(()),
        false => {
            let why = "it takes an address as https://HOST/PATH; http:// only on this machine";
            Err(Error::Invalid { field, why: why.into() })
        }
    }
}

/// Whether nobody on the way can change what is fetched from there.
fn is_safe(text: &str) -> bool {
    let Ok(url) = url::Url::parse(text) else { return false };
    let is_plain =
        url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    let is_private = url.scheme() == "https" || (url.scheme() == "http" && is_here(&url));
    is_plain && is_private && url.host_str().is_some_and(|host| !host.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn settings_that_let_in_others_are_refused() {
        let good = IssuerSettings {
            issuer: "https://login.example/realms/main".into(),
            audiences: vec!["strongroom".into()],
            authorized_parties: Vec::new(),
            algorithms: vec!["RS256".into(), "ES256".into()],
            jwks_url: None,
            ca_certificate: None,
            name_claim: "preferred_username".into(),
            groups_claim: "groups".into(),
            leeway_seconds: 60,
            create_users: true,
        };
        good.check().unwrap();
        let refused = |change: fn(&mut IssuerSettings)| {
            let mut settings = good.clone();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(refused(|s| s.issuer = "http://login.example".into()).contains("https://"));
        assert!(refused(|s| s.issuer = "https://".into()).contains("https://"));
        assert!(refused(|s| s.issuer = "https://a:b@login.example".into()).contains("https://"));
        assert!(refused(|s| s.jwks_url = Some("ftp://x/y".into())).contains("https://"));
        assert!(refused(|s| s.audiences.clear()).contains("for others"));
        assert!(refused(|s| s.audiences.push(String::new())).contains("none"));
        assert!(refused(|s| s.algorithms.clear()).contains("one at least"));
        for name in ["none", "HS256", "rs256", "RS1"] {
            let algorithms = vec![name.to_owned()];
            let settings = IssuerSettings { algorithms, ..good.clone() };
            assert!(settings.check().is_err(), "{name}");
        }
        assert!(refused(|s| s.leeway_seconds = 301).contains("0 to 300"));
        for here in ["http://127.0.0.1:8080/x", "http://localhost/x", "http://[::1]:1/x"] {
            IssuerSettings { issuer: here.into(), ..good.clone() }.check().unwrap();
        }
    }
}
