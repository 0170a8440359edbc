//! What a certificate says of itself (RFC 5280).

use std::net::{Ipv4Addr, Ipv6Addr};

use aws_lc_rs::digest;
use data_encoding::HEXUPPER;
use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// The names and addresses that it is good for.
    pub names: Vec<String>,
    /// From when it is valid.
    pub not_before: Option<Timestamp>,
    /// Until when.
    pub not_after: Option<Timestamp>,
    /// Its key: `RSA 2048`, `EC 256`, `Ed25519`, or as the certificate names the algorithm.
    pub key: String,
    /// The SHA-256 of all of it, in pairs of hexadecimal digits.
    pub sha256: String,
}

/// Reads a certificate; None for what is none.
pub fn facts(der: &[u8]) -> Option<CertificateFacts> {
    let (rest, certificate) = X509Certificate::from_der(der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    let validity = certificate.validity();
    let time = |seconds: i64| Timestamp::from_second(seconds).ok();
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.iter().filter_map(name).collect());
    Some(CertificateFacts {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        names: names.unwrap_or_default(),
        not_before: time(validity.not_before.timestamp()),
        not_after: time(validity.not_after.timestamp()),
        key: key(&certificate),
        sha256: fingerprint(der),
    })
}

/// The one common name of whose certificate it is; None where there is none, or several.
pub fn common_name(der: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next().filter(|_| names.next().is_none())?;
    name.as_str().ok().map(ToOwned::to_owned)
}

fn fingerprint(der: &[u8]) -> String {
    let digits = HEXUPPER.encode(digest::digest(&digest::SHA256, der).as_ref());
    let pairs = digits.as_bytes().chunks(2).map(String::from_utf8_lossy);
    pairs.collect::<Vec<_>>().join(":")
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

fn key(certificate: &X509Certificate<'_>) -> String {
    let public = certificate.public_key();
    match public.parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        // Of P-521 the point has whole bytes.
        Ok(PublicKey::EC(point)) => format!("EC {}", point.key_size().min(521)),
        _ => match public.algorithm.algorithm.to_id_string().as_str() {
            "1.3.101.112" => "Ed25519".into(),
            other => other.into(),
        },
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_says_whose_it_is_and_when_it_ends() {
        for (year, told) in [(2031, "2031-02-03T00:00:00Z"), (2062, "2062-02-03T00:00:00Z")] {
            let names = vec!["box".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
            let mut params = CertificateParams::new(names.clone()).unwrap();
            params.not_after = date_time_ymd(year, 2, 3);
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let der: &[u8] = der.der();
            let said = facts(der).unwrap();
            assert_eq!(said.not_after.unwrap(), told.parse::<Timestamp>().unwrap());
            assert_eq!((said.names, said.key.as_str()), (names, "EC 256"));
            assert_eq!(said.subject, said.issuer);
            assert_eq!(said.sha256.len(), 32 * 3 - 1);
            assert_eq!(common_name(der).unwrap(), "rcgen self signed cert");
            // What is cut short or changed is no certificate, and no fault of the program.
            for end in 0..der.len() {
                assert_eq!((facts(&der[..end]), common_name(&der[..end])), (None, None));
                let mut other = der.to_vec();
                other[end] ^= 0xff;
                let _ = (facts(&other), common_name(&other));
            }
        }
    }
}
