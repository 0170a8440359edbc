//! Whether a certificate, its key and the certificates that it was signed with belong together.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{FromDer, X509Error};
use zeroize::Zeroizing;

use super::facts::{CertificateFacts, facts};
use super::{MAX_PEM, files};
use crate::{Error, Result};

/// Certificates of a chain, at most.
const LONGEST: usize = 16;

/// A certificate that is to be shown from now on; each in PEM.
#[derive(Clone, Default)]
pub struct NewCertificate {
    /// The certificate; others that it was signed with may follow it.
    pub certificate: Vec<u8>,
    /// Its private key, not encrypted.
    pub key: Zeroizing<Vec<u8>>,
    /// Certificates that it was signed with, in any order.
    pub chain: Vec<u8>,
}

impl std::fmt::Debug for NewCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NewCertificate({} bytes)", self.certificate.len())
    }
}

/// A certificate that can take the place of the one that is there.
#[derive(Debug)]
pub struct Checked {
    /// What it says.
    pub facts: CertificateFacts,
    /// What is odd about it, and no reason to refuse it.
    pub warnings: Vec<String>,
    /// It and its chain, each signed by the next.
    pub(super) certificate: String,
    pub(super) key: Zeroizing<Vec<u8>>,
}

fn unfit(what: &'static str, why: impl Into<String>) -> Error {
    Error::Certificate { what, why: why.into() }
}

const CERTIFICATE: &str = "the certificate";
const KEY: &str = "the private key";
const CHAIN: &str = "the chain";

/// A certificate with its chain and its private key, as a server uses them.
///
/// # Errors
/// [`Error::Certificate`]: what is wrong, without what was there.
pub fn pair(certificate: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>> {
    let chain = certificates(CERTIFICATE, certificate)?;
    if chain.is_empty() {
        return Err(unfit(CERTIFICATE, "there is no certificate in it"));
    }
    let key = private(key)?;
    let pair = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider());
    pair.map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            unfit(KEY, "it is another certificate's, not this one's")
        }
        error => unfit(CERTIFICATE, error.to_string()),
    })
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>> {
    if pem.len() > MAX_PEM {
        return Err(unfit(what, format!("it may have {MAX_PEM} bytes")));
    }
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let read = read.map_err(|error| unfit(what, format!("it is not PEM: {error}")))?;
    if read.len() > LONGEST {
        return Err(unfit(what, format!("it may have {LONGEST} certificates")));
    }
    Ok(read)
}

fn private(pem: &[u8]) -> Result<PrivateKeyDer<'static>> {
    if pem.len() > MAX_PEM {
        return Err(unfit(KEY, format!("it may have {MAX_PEM} bytes")));
    }
    let has = |text: &str| pem.windows(text.len()).any(|window| window == text.as_bytes());
    if has("BEGIN ENCRYPTED PRIVATE KEY") || has("Proc-Type: 4,ENCRYPTED") {
        let why = "it is encrypted: take the passphrase off (openssl pkey -in KEY -out PLAIN)";
        return Err(unfit(KEY, why));
    }
    // The error of the parser says what was wrong, not what was there.
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|error| unfit(KEY, format!("there is no private key in it: {error}")))
}

impl NewCertificate {
    /// Looks at all of it at this time, and changes nothing.
    ///
    /// # Errors
    /// [`Error::Certificate`].
    pub fn check(&self, now: Timestamp) -> Result<Checked> {
        let mut all = certificates(CERTIFICATE, &self.certificate)?;
        if all.is_empty() {
            return Err(unfit(CERTIFICATE, "there is no certificate in it"));
        }
        let own = all.remove(0);
        let mut others = all;
        let given = certificates(CHAIN, &self.chain)?;
        if given.is_empty() && !self.chain.trim_ascii().is_empty() {
            return Err(unfit(CHAIN, "there is no certificate in it"));
        }
        others.extend(given);
        let said = facts(&own).ok_or_else(|| unfit(CERTIFICATE, "it is not understood"))?;
        pair(&self.certificate, &self.key)?;
        let mut warnings = Vec::new();
        let ordered = order(own, others, &mut warnings)?;
        match (said.not_before, said.not_after) {
            (_, Some(end)) if end <= now => warnings.push(format!("it ended on {end}")),
            (Some(begin), _) if begin > now => {
                warnings.push(format!("it is valid only from {begin}"));
            }
            _ => {}
        }
        let certificate = ordered.iter().map(|der| files::pem("CERTIFICATE", der)).collect();
        Ok(Checked { facts: said, warnings, certificate, key: self.key.clone() })
    }
}

/// Puts the chain in order: each is signed by the next. What signs nothing of it is left out; when
/// that is all that was given, it is refused.
fn order(
    own: CertificateDer<'static>,
    given: Vec<CertificateDer<'static>>,
    warnings: &mut Vec<String>,
) -> Result<Vec<CertificateDer<'static>>> {
    let mut others: Vec<CertificateDer<'static>> = Vec::new();
    for one in given {
        if one != own && !others.contains(&one) {
            others.push(one);
        }
    }
    let is_alone = others.is_empty();
    let mut chain = vec![own];
    while let Some((place, how)) = next(&chain, &others) {
        if how == Signed::ByName {
            let text = "whether it was signed by the next of the chain could be told by names only";
            warnings.push(text.into());
        }
        chain.push(others.remove(place));
    }
    let names = others.iter().filter_map(|der| facts(der)).map(|facts| facts.subject);
    let names = names.collect::<Vec<_>>().join("; ");
    if chain.len() == 1 && !is_alone {
        return Err(unfit(CHAIN, format!("what was given beside it did not sign it: {names}")));
    }
    if !others.is_empty() {
        warnings.push(format!("what is not of its chain was left out: {names}"));
    }
    let last = chain.last().and_then(|der| facts(der));
    if chain.len() == 1 && last.is_some_and(|facts| facts.subject != facts.issuer) {
        let text = "no certificate that signed it was given: clients that don't know the issuer will refuse it";
        warnings.push(text.into());
    }
    Ok(chain)
}

/// Whether one certificate was signed by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signed {
    Yes,
    /// The names say so; the algorithm of the signature is not known here.
    ByName,
}

/// Which of the others signed the last of the chain, and isn't in it.
fn next(
    chain: &[CertificateDer<'static>],
    others: &[CertificateDer<'static>],
) -> Option<(usize, Signed)> {
    let last = chain.last()?;
    let all = others.iter().enumerate();
    all.filter_map(|(place, other)| Some((place, signed_by(last, other)?))).next()
}

fn signed_by(one: &[u8], other: &[u8]) -> Option<Signed> {
    let (_, one) = X509Certificate::from_der(one).ok()?;
    let (_, other) = X509Certificate::from_der(other).ok()?;
    // Roots of old have no extension that says whether they may sign.
    let may_sign = other.is_ca() || other.basic_constraints().is_ok_and(|found| found.is_none());
    if one.issuer().as_raw() != other.subject().as_raw() || !may_sign {
        return None;
    }
    match one.verify_signature(Some(other.public_key())) {
        Ok(()) => Some(Signed::Yes),
        Err(X509Error::SignatureUnsupportedAlgorithm) => Some(Signed::ByName),
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{
        BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, PKCS_ECDSA_P384_SHA384,
        PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
    };

    use super::*;

    pub(crate) struct Authority {
        pub(crate) pem: String,
        issuer: Issuer<'static, KeyPair>,
    }

    pub(crate) fn authority(name: &str, by: Option<&Authority>) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let made = match by {
            Some(by) => params.signed_by(&key, &by.issuer).unwrap(),
            None => params.self_signed(&key).unwrap(),
        };
        Authority { pem: made.pem(), issuer: Issuer::new(params, key) }
    }

    fn leaf(
        algorithm: &'static SignatureAlgorithm,
        by: &Authority,
        years: [i32; 2],
    ) -> [String; 2] {
        let mut params = CertificateParams::new(vec!["box.example".to_owned()]).unwrap();
        params.not_before = date_time_ymd(years[0], 1, 1);
        params.not_after = date_time_ymd(years[1], 1, 1);
        let key = KeyPair::generate_for(algorithm).unwrap();
        [params.signed_by(&key, &by.issuer).unwrap().pem(), key.serialize_pem()]
    }

    fn check([certificate, key]: &[String; 2], chain: &str) -> Result<Checked> {
        let new = NewCertificate {
            certificate: certificate.clone().into_bytes(),
            key: Zeroizing::new(key.clone().into_bytes()),
            chain: chain.to_owned().into_bytes(),
        };
        new.check("2030-06-01T00:00:00Z".parse().unwrap())
    }

    fn why(result: Result<Checked>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn keys_of_all_kinds_are_taken_with_their_chain_in_any_order() {
        let root = authority("root", None);
        let middle = authority("middle", Some(&root));
        for (algorithm, key) in [
            (&PKCS_RSA_SHA256, "RSA 2048"),
            (&PKCS_ECDSA_P384_SHA384, "EC 384"),
            (&PKCS_ED25519, "Ed25519"),
        ] {
            let own = leaf(algorithm, &middle, [2029, 2031]);
            for chain in [[&root.pem, &middle.pem], [&middle.pem, &root.pem]] {
                let checked = check(&own, &chain.map(String::as_str).concat()).unwrap();
                assert_eq!(checked.facts.key, key);
                assert_eq!(checked.facts.names, ["box.example"]);
                let ordered = certificates(CERTIFICATE, checked.certificate.as_bytes()).unwrap();
                let subjects = ordered.iter().map(|der| facts(der).unwrap().subject);
                assert_eq!(subjects.skip(1).collect::<Vec<_>>(), ["CN=middle", "CN=root"]);
                assert!(checked.warnings.is_empty(), "{:?}", checked.warnings);
            }
        }
    }

    #[test]
    fn what_does_not_belong_together_is_told_apart() {
        let (root, other) = (authority("root", None), authority("root", None));
        let own = leaf(&PKCS_ED25519, &root, [2029, 2031]);
        let stranger = leaf(&PKCS_ED25519, &root, [2029, 2031]);
        assert!(
            why(check(&[own[0].clone(), stranger[1].clone()], ""))
                .contains("another certificate's")
        );
        // The name of the one that signed it is not enough.
        assert!(why(check(&own, &other.pem)).contains("did not sign it"));
        assert!(why(check(&own, &stranger[0])).contains("did not sign it"));
        // What is there twice counts once, and what is of another chain is left out.
        let twice = format!("{0}{0}{1}", root.pem, other.pem);
        let checked = check(&own, &twice).unwrap();
        assert_eq!(certificates(CERTIFICATE, checked.certificate.as_bytes()).unwrap().len(), 2);
        assert!(checked.warnings[0].contains("left out: CN=root"), "{:?}", checked.warnings);
        for (pair, said) in [
            ([String::new(), own[1].clone()], "no certificate"),
            ([own[1].clone(), own[1].clone()], "no certificate"),
            ([own[0].clone(), String::new()], "no private key"),
            ([own[0].clone(), own[0].clone()], "no private key"),
            (
                [own[0].clone(), "-----BEGIN ENCRYPTED PRIVATE KEY-----\n".to_owned()],
                "it is encrypted",
            ),
            ([own[0][..own[0].len() / 2].to_owned(), own[1].clone()], "not PEM"),
            (["x".repeat(MAX_PEM + 1), own[1].clone()], "bytes"),
            ([root.pem.repeat(LONGEST + 1), own[1].clone()], "certificates"),
        ] {
            let error = why(check(&pair, ""));
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(why(check(&own, "nothing")).contains("no certificate"));
    }

    #[test]
    fn what_is_odd_is_told_and_taken() {
        let root = authority("root", None);
        for (years, said) in [([2020, 2021], "it ended"), ([2040, 2041], "only from")] {
            let checked = check(&leaf(&PKCS_ED25519, &root, years), &root.pem).unwrap();
            assert!(checked.warnings.iter().any(|text| text.contains(said)), "{said}");
        }
        let checked = check(&leaf(&PKCS_ED25519, &root, [2029, 2031]), "").unwrap();
        assert!(checked.warnings[0].contains("no certificate that signed it"));
    }
}
