//! Directories: users whom an LDAP server (RFC 4511), or Active Directory, knows.
//!
//! Who logs in is looked for with a filter, and is whoever the server then lets in under the name
//! of that entry with the password. Groups are the names of entries: those that an attribute of the
//! user lists, and those that a second filter finds. A password goes to nobody but a server whose
//! certificate was checked, or one on this machine, unless the administrator says otherwise.
//!
//! Users of this appliance are never looked for in a directory: what somebody types for one of them
//! is not sent anywhere, and no directory can stand in for one of them, or keep them out.

mod conversation;
mod login;
mod place;
mod trial;

use serde::{Deserialize, Serialize};

use crate::sources::Settings;
use crate::users::check_text;
use crate::{Error, Result};

/// The longest filter, name of an entry or attribute, in bytes.
const TEXT: usize = 1024;
/// The longest PEM of authorities, in bytes.
pub(crate) const PEM: usize = 256 << 10;
/// Seconds that one answer may take.
const SECONDS: std::ops::RangeInclusive<u32> = 1..=30;

/// How a directory is asked. In filters and templates `{name}` stands for what the user typed and
/// `{dn}` for the name of the user's entry, both escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorySettings {
    /// `ldaps://host:port`, or `ldap://host:port` with StartTLS.
    pub url: String,
    /// Whether `ldap://` goes on in TLS (RFC 4511, section 4.14).
    pub start_tls: bool,
    /// Whether `ldap://` may go on without TLS to another machine, passwords and all.
    pub insecure: bool,
    /// Who vouches for the server, as PEM; none: whom this machine trusts.
    pub ca_certificate: Option<String>,
    /// As whom the appliance looks for users; empty: as nobody.
    pub bind_dn: String,
    /// Instead of that, as whom a user logs in to be found: `{name}@corp.example`.
    pub bind_template: Option<String>,
    /// Where users are.
    pub base_dn: String,
    /// Which of them it is, as `(uid={name})`.
    pub user_filter: String,
    /// The attribute with the name of the user here.
    pub name_attribute: String,
    /// The attribute that never changes.
    pub id_attribute: String,
    /// The attribute with the person's name.
    pub full_name_attribute: String,
    /// The attribute with the person's address.
    pub email_attribute: String,
    /// The attribute of a user that lists groups; empty: none does.
    pub group_attribute: String,
    /// Which groups the user is in, as `(member={dn})`; empty: these aren't looked for.
    pub group_filter: String,
    /// Where groups are; empty: where users are.
    pub group_base_dn: String,
    /// Seconds that one answer may take.
    pub timeout_seconds: u32,
    /// Whether one who comes for the first time is let in.
    pub create_users: bool,
}

impl Settings for DirectorySettings {
    const KIND: &'static str = "ldap";
    const NOUN: &'static str = "directory";

    fn check(&self) -> Result<()> {
        let wrong = |field, why: &str| Err(Error::Invalid { field, why: why.into() });
        for (field, text) in [
            ("url", &self.url),
            ("bind_dn", &self.bind_dn),
            ("base_dn", &self.base_dn),
            ("user_filter", &self.user_filter),
            ("name_attribute", &self.name_attribute),
            ("id_attribute", &self.id_attribute),
            ("full_name_attribute", &self.full_name_attribute),
            ("email_attribute", &self.email_attribute),
            ("group_attribute", &self.group_attribute),
            ("group_filter", &self.group_filter),
            ("group_base_dn", &self.group_base_dn),
        ] {
            check_text(field, text, TEXT)?;
        }
        let url = url(&self.url)?;
        let plain = url.scheme() == "ldap" && !self.start_tls;
        if plain && !self.insecure && !is_here(&url) {
            let why = "passwords would be sent in the clear: use ldaps://, or start_tls";
            return wrong("url", why);
        }
        if let Some(pem) = &self.ca_certificate {
            check_authorities(pem)?;
        }
        for (field, text) in
            [("name_attribute", &self.name_attribute), ("id_attribute", &self.id_attribute)]
        {
            if text.is_empty() {
                return wrong(field, "it must be said");
            }
        }
        if let Some(template) = &self.bind_template {
            check_text("bind_template", template, TEXT)?;
            if !template.contains(place::NAME) {
                return wrong("bind_template", "it must have {name} in it");
            }
            if !self.bind_dn.is_empty() {
                return wrong("bind_template", "it takes the place of bind_dn: give one of both");
            }
        }
        if !self.user_filter.contains(place::NAME) {
            return wrong("user_filter", "it must have {name} in it, as (uid={name})");
        }
        for (field, filter) in
            [("user_filter", &self.user_filter), ("group_filter", &self.group_filter)]
        {
            let example = place::in_filter(filter, "name", "cn=name");
            if !filter.is_empty() && ldap3::parse_filter(&example).is_err() {
                return wrong(field, "it is no filter of RFC 4515, as (uid={name})");
            }
        }
        if !SECONDS.contains(&self.timeout_seconds) {
            return wrong("timeout_seconds", "it takes 1 to 30");
        }
        Ok(())
    }

    /// Names of entries are the same in any case, and with any spaces between their parts.
    fn fold(group: &str) -> String {
        place::fold_dn(group)
    }

    fn same_place(&self, before: &Self) -> bool {
        (&self.url, self.start_tls, &self.bind_dn, &self.ca_certificate)
            == (&before.url, before.start_tls, &before.bind_dn, &before.ca_certificate)
            && self.insecure <= before.insecure
    }
}

fn url(text: &str) -> Result<url::Url> {
    let wrong = || Error::Invalid {
        field: "url",
        why: "it takes ldaps://HOST[:PORT] or ldap://HOST[:PORT]".into(),
    };
    let url = url::Url::parse(text).map_err(|_| wrong())?;
    let is_plain = url.username().is_empty()
        && url.password().is_none()
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none();
    let has_host = url.host_str().is_some_and(|host| !host.is_empty());
    match matches!(url.scheme(), "ldap" | "ldaps") && is_plain && has_host {
        true => Ok(url),
        false => Err(wrong()),
    }
}

/// Whether an address is of this machine.
pub(crate) fn is_here(url: &url::Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

/// Refuses what can't vouch for a server.
pub(crate) fn check_authorities(pem: &str) -> Result<()> {
    let field = "ca_certificate";
    if pem.len() > PEM {
        return Err(Error::Invalid { field, why: format!("it may have {PEM} bytes at most") });
    }
    crate::tls::client_config(Some(pem)).map_err(|why| Error::Invalid { field, why })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn settings() -> DirectorySettings {
        DirectorySettings {
            url: "ldaps://dc1.corp.example".into(),
            start_tls: false,
            insecure: false,
            ca_certificate: None,
            bind_dn: "cn=strongroom,dc=corp,dc=example".into(),
            bind_template: None,
            base_dn: "dc=corp,dc=example".into(),
            user_filter: "(&(objectClass=person)(sAMAccountName={name}))".into(),
            name_attribute: "sAMAccountName".into(),
            id_attribute: "objectGUID".into(),
            full_name_attribute: "displayName".into(),
            email_attribute: "mail".into(),
            group_attribute: "memberOf".into(),
            group_filter: "(member:1.2.840.113556.1.4.1941:={dn})".into(),
            group_base_dn: String::new(),
            timeout_seconds: 5,
            create_users: true,
        }
    }

    #[test]
    fn settings_that_leak_or_find_nobody_are_refused() {
        settings().check().unwrap();
        let refused = |change: fn(&mut DirectorySettings)| {
            let mut settings = settings();
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        assert!(refused(|s| s.url = "ldap://dc1.corp.example".into()).contains("in the clear"));
        assert!(refused(|s| s.url = "https://dc1.corp.example".into()).contains("ldaps://"));
        assert!(refused(|s| s.url = "ldaps://me:pass@dc1".into()).contains("ldaps://"));
        assert!(refused(|s| s.url = "ldaps://".into()).contains("ldaps://"));
        assert!(refused(|s| s.user_filter = "(uid=jo)".into()).contains("{name}"));
        assert!(refused(|s| s.user_filter = "(uid={name}".into()).contains("RFC 4515"));
        assert!(refused(|s| s.group_filter = "member={dn})".into()).contains("RFC 4515"));
        assert!(refused(|s| s.bind_template = Some("{name}@x".into())).contains("one of both"));
        assert!(refused(|s| s.ca_certificate = Some("x".into())).contains("no certificate"));
        assert!(refused(|s| s.timeout_seconds = 0).contains("1 to 30"));
        for here in ["ldap://127.0.0.1:389", "ldap://[::1]", "ldap://localhost"] {
            DirectorySettings { url: here.into(), ..settings() }.check().unwrap();
        }
        let plain = "ldap://dc1.corp.example";
        DirectorySettings { url: plain.into(), start_tls: true, ..settings() }.check().unwrap();
        DirectorySettings { url: plain.into(), insecure: true, ..settings() }.check().unwrap();
    }
}
