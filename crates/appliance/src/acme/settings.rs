//! What is said of an authority, and of what is asked of it.

use serde::{Deserialize, Serialize};
use strongroom_identity::client_config;

use crate::{Error, Result};

/// Names in one certificate.
const DOMAINS: usize = 50;
/// Addresses of people.
const CONTACTS: usize = 8;
/// Bytes of certificates.
const PEM: usize = 64 << 10;

/// Which authority, and what is asked of it. Whoever sets them agrees to its terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AcmeSettings {
    /// The address of its directory (RFC 8555, section 7.1.1).
    pub directory: String,
    /// In PEM, who vouches for it; none: whom the machine trusts.
    pub ca_certificate: Option<String>,
    /// Mail addresses that it may write to.
    pub contact: Vec<String>,
    /// The names that the certificate is for.
    pub domains: Vec<String>,
}

fn wrong<T>(name: &str, why: impl std::fmt::Display) -> Result<T> {
    Err(Error::Acme(format!("{name}: {why}")))
}

impl AcmeSettings {
    /// Whether all of it can be.
    ///
    /// # Errors
    /// [`Error::Acme`].
    pub fn check(&self) -> Result<()> {
        let host = self.directory.strip_prefix("https://");
        let host = host.and_then(|rest| rest.split('/').next()).unwrap_or_default();
        let plain = self.directory.bytes().all(|c| c.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !plain || self.directory.len() > 512 {
            return wrong("directory", "it is the https:// address of an authority's directory");
        }
        if self.ca_certificate.as_ref().is_some_and(|pem| pem.len() > PEM) {
            return wrong("ca_certificate", format!("it has {PEM} bytes at most"));
        }
        // Better told now than by each renewal.
        if let Some(pem) = &self.ca_certificate
            && let Err(why) = client_config(Some(pem))
        {
            return wrong("ca_certificate", why);
        }
        if self.contact.len() > CONTACTS || !self.contact.iter().all(|one| is_mail(one)) {
            return wrong("contact", format!("they are mail addresses, {CONTACTS} at most"));
        }
        if self.domains.is_empty() || self.domains.len() > DOMAINS {
            return wrong("domains", format!("there are 1 to {DOMAINS} of them"));
        }
        for (at, domain) in self.domains.iter().enumerate() {
            if !is_name(domain) {
                let domain = domain.escape_debug();
                return wrong(
                    "domains",
                    format!("`{domain:.80}` is no name of a host, as box.example"),
                );
            }
            if self.domains[..at].contains(domain) {
                return wrong("domains", format!("{domain} is there twice"));
            }
        }
        Ok(())
    }
}

fn is_mail(text: &str) -> bool {
    let fine = |c: u8| c.is_ascii_alphanumeric() || b".-_+@".contains(&c);
    let parts = text.split_once('@');
    text.len() <= 254
        && text.bytes().all(fine)
        && parts.is_some_and(|(who, host)| !who.is_empty() && is_name(&host.to_ascii_lowercase()))
}

/// A name as certificates have it (RFC 1123); what is not ASCII is written as RFC 5890 says.
fn is_name(name: &str) -> bool {
    let fine = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    // The last is no number: that would be an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253 && name.split('.').all(fine) && !last.bytes().all(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_no_authority_could_take_is_refused() {
        let good = AcmeSettings {
            directory: "https://ca.example/directory".into(),
            ca_certificate: None,
            contact: vec!["admin@box.example".into()],
            domains: vec!["box.example".into(), "xn--bcher-kva.example".into()],
        };
        good.check().unwrap();
        let with = |change: &dyn Fn(&mut AcmeSettings)| {
            let mut bad = good.clone();
            change(&mut bad);
            bad.check().unwrap_err().to_string()
        };
        for directory in
            ["http://ca.example/", "https://", "https://u:p@ca.example/", "https://a b"]
        {
            let error = with(&|bad| bad.directory = directory.into());
            assert!(error.contains("directory: "), "{error}");
        }
        for domain in
            ["", "*.box.example", "Box.example", "10.0.0.1", "a..b", "-a.b", "a\nb", "a b"]
        {
            let error = with(&|bad| bad.domains = vec![domain.into()]);
            assert!(error.contains("domains: ") && !error.contains('\n'), "{error}");
        }
        for domains in [0, 51] {
            with(&|bad| bad.domains = (0..domains).map(|n| format!("b{n}.example")).collect());
        }
        assert!(with(&|bad| bad.domains.push("box.example".into())).contains("twice"));
        for contact in ["admin", "@box.example", "a@b?subject=x", "a,b@c.example"] {
            assert!(with(&|bad| bad.contact = vec![contact.into()]).contains("contact: "));
        }
        with(&|bad| bad.ca_certificate = Some("x".repeat(PEM + 1)));
        let error = with(&|bad| bad.ca_certificate = Some("no PEM".into()));
        assert!(error.contains("ca_certificate: there is no certificate"), "{error}");
    }
}
