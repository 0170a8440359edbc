//! The keys of licences: Ed25519, in PEM as OpenSSL has them.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::BASE64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

use super::{Licence, SignedLicence};
use crate::{Error, Result};

/// What stands before the 32 bytes of a public key (RFC 8410).
pub(crate) const SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Public keys of one file.
const MOST: usize = 16;

/// Signs licences.
pub struct LicenceSigner(Ed25519KeyPair);

impl fmt::Debug for LicenceSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LicenceSigner")
    }
}

impl LicenceSigner {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn generate() -> Result<Self> {
        let key = Ed25519KeyPair::generate();
        key.map(Self).map_err(|_| Error::Crypto("no key can be made"))
    }

    /// Reads a private key (PKCS #8, in PEM).
    ///
    /// # Errors
    /// [`Error::Licence`].
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).ok();
        let key = key.and_then(|der| {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok()
        });
        let wrong = || Error::Licence("the private key is not one of Ed25519, in PEM".into());
        key.map(Self).ok_or_else(wrong)
    }

    /// The private key in PEM.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        let der = self.0.to_pkcs8v1().map_err(|_| Error::Crypto("the key can't be written"))?;
        Ok(Zeroizing::new(pem("PRIVATE KEY", der.as_ref())))
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], self.0.public_key().as_ref()].concat())
    }

    /// Signs a licence.
    ///
    /// # Errors
    /// [`Error::Licence`] for one that could not be read again.
    pub fn sign(&self, licence: Licence) -> Result<SignedLicence> {
        licence.check()?;
        let signature = self.0.sign(licence.signed().as_bytes());
        let signature = signature.as_ref().try_into();
        let signature = signature.map_err(|_| Error::Crypto("a signature has 64 bytes"))?;
        Ok(SignedLicence { licence, signature })
    }
}

/// Whom to believe licences.
#[derive(Clone, Debug, Default)]
pub struct LicenceVerifier(Vec<[u8; 32]>);

impl LicenceVerifier {
    /// Adds the public keys of a file: one or more, in PEM.
    ///
    /// # Errors
    /// [`Error::Licence`].
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<()> {
        let wrong = || {
            let text = format!("a key file holds 1 to {MOST} public keys of Ed25519, in PEM");
            Error::Licence(text)
        };
        let mut count = 0;
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| wrong())?;
            let key = der.strip_prefix(&SPKI[..]).and_then(|key| key.try_into().ok());
            self.0.push(key.ok_or_else(wrong)?);
            count += 1;
            if count > MOST {
                return Err(wrong());
            }
        }
        if count == 0 { Err(wrong()) } else { Ok(()) }
    }

    /// What a licence says, if one of the keys signed it.
    ///
    /// # Errors
    /// [`Error::Licence`].
    pub fn verify(&self, signed: SignedLicence) -> Result<Licence> {
        let text = signed.licence.signed();
        let is_of = |key: &[u8; 32]| {
            let key = UnparsedPublicKey::new(&ED25519, key);
            key.verify(text.as_bytes(), &signed.signature).is_ok()
        };
        if self.0.iter().any(is_of) {
            return Ok(signed.licence);
        }
        Err(Error::Licence("it is not signed by a key that is trusted here".into()))
    }
}

/// DER in PEM.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let base64 = Zeroizing::new(BASE64.encode(der));
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text + &format!("-----END {label}-----\n")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::tests::licence;
    use super::*;

    fn verifier(signer: &LicenceSigner) -> LicenceVerifier {
        let mut verifier = LicenceVerifier::default();
        verifier.add_pem(signer.public_pem().as_bytes()).unwrap();
        verifier
    }

    #[test]
    fn only_whole_texts_of_trusted_keys_are_believed() {
        let signer = LicenceSigner::generate().unwrap();
        let signed = signer.sign(licence()).unwrap();
        let text = signed.to_string();
        let ours = verifier(&signer);
        assert_eq!(ours.verify(signed.clone()).unwrap(), licence());
        let again = LicenceSigner::from_pem(signer.to_pem().unwrap().as_bytes()).unwrap();
        assert_eq!(again.sign(licence()).unwrap(), signed);

        let other = verifier(&LicenceSigner::generate().unwrap());
        assert!(other.verify(signed.clone()).is_err());
        assert!(LicenceVerifier::default().verify(signed).is_err());
        for (from, to) in [
            ("Users: 20", "Users: 21"),
            ("2038-01-19", "never"),
            ("enterprise\n", "Enterprise\n"),
            ("Company", "C0mpany"),
            ("2026-0001", "2026-0002"),
            ("2026-11-27", "2026-11-28"),
        ] {
            assert!(text.contains(from));
            let changed = SignedLicence::parse(text.replace(from, to).as_bytes()).unwrap();
            assert!(ours.verify(changed).is_err(), "{from}");
        }
        // One of several.
        let mut both = other.clone();
        both.add_pem(signer.public_pem().as_bytes()).unwrap();
        assert!(both.verify(SignedLicence::parse(text.as_bytes()).unwrap()).is_ok());
    }

    #[test]
    fn files_that_hold_no_keys_are_refused() {
        let signer = LicenceSigner::generate().unwrap();
        let good = signer.public_pem();
        let torn = good.replace("MCow", "MCox");
        let (many, private) = (good.repeat(MOST + 1), signer.to_pem().unwrap());
        for bad in ["", "x", &torn, &good[..good.len() - 30], &many, private.as_str()] {
            let added = LicenceVerifier::default().add_pem(bad.as_bytes());
            assert!(matches!(added, Err(Error::Licence(_))), "{bad}");
        }
        LicenceVerifier::default().add_pem(good.repeat(MOST).as_bytes()).unwrap();
        for bad in ["", "x", good.as_str()] {
            assert!(LicenceSigner::from_pem(bad.as_bytes()).is_err());
        }
        let nothing = LicenceSigner::generate().unwrap();
        let mut empty = licence();
        empty.name = "a\nContact: me".into();
        assert!(nothing.sign(empty).is_err());
    }
}
