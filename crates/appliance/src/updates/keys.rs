//! Who may make updates: Ed25519 for our own packages, in the form of licences' keys, and RSA for
//! packages in Jidoteki's form.

use std::fmt;

use aws_lc_rs::digest::Digest;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ED25519, Ed25519KeyPair, KeyPair, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

use super::Flaw;
use crate::licence::{ED25519_SPKI, pem};
use crate::{Error, Result};

/// Public keys of one file.
const MOST: usize = 16;
/// Bits of an RSA key.
const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Bytes of a signature of Ed25519.
pub(super) const SIGNATURE: usize = 64;

/// Signs packages.
pub struct UpdateSigner(Ed25519KeyPair);

impl fmt::Debug for UpdateSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UpdateSigner")
    }
}

impl UpdateSigner {
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
    /// [`Error::Package`].
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem).ok();
        let key = key.and_then(|der| {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).ok()
        });
        let wrong = || unsigned("the private key is not one of Ed25519, in PEM");
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
        pem("PUBLIC KEY", &[&ED25519_SPKI[..], self.0.public_key().as_ref()].concat())
    }

    pub(super) fn sign(&self, text: &[u8]) -> Result<[u8; SIGNATURE]> {
        let signature = self.0.sign(text);
        signature.as_ref().try_into().map_err(|_| Error::Crypto("a signature has 64 bytes"))
    }
}

fn unsigned(why: impl Into<String>) -> Error {
    Error::Package { flaw: Flaw::Signature, why: why.into() }
}

/// A public key.
#[derive(Clone, Debug)]
enum Key {
    Ed25519([u8; 32]),
    /// As it stands in the file.
    Rsa(Vec<u8>),
}

/// Whom to believe updates.
#[derive(Clone, Debug, Default)]
pub struct UpdateVerifier(Vec<Key>);

impl UpdateVerifier {
    /// Adds the public keys of a file: one or more, in PEM.
    ///
    /// # Errors
    /// [`Error::Package`].
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<()> {
        let wrong = || {
            let (least, most) = (BITS.start(), BITS.end());
            unsigned(format!(
                "a key file holds 1 to {MOST} public keys in PEM, of Ed25519 or of RSA with {least} \
                 to {most} bits"
            ))
        };
        let mut count = 0;
        for der in SubjectPublicKeyInfoDer::pem_slice_iter(pem) {
            let der = der.map_err(|_| wrong())?;
            let key = match der.strip_prefix(&ED25519_SPKI[..]) {
                Some(key) => Key::Ed25519(key.try_into().map_err(|_| wrong())?),
                None => {
                    let key = PublicEncryptingKey::from_der(&der).map_err(|_| wrong())?;
                    if !BITS.contains(&key.key_size_bits()) {
                        return Err(wrong());
                    }
                    Key::Rsa(der.to_vec())
                }
            };
            self.0.push(key);
            count += 1;
            if count > MOST {
                return Err(wrong());
            }
        }
        if count == 0 { Err(wrong()) } else { Ok(()) }
    }

    /// Whether one of the keys signed this text.
    pub(super) fn signed(&self, text: &[u8], signature: &[u8; SIGNATURE]) -> Result<()> {
        let is_of = |key: &Key| match key {
            Key::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(text, signature).is_ok()
            }
            Key::Rsa(_) => false,
        };
        self.believe(is_of)
    }

    /// Whether one of the keys signed what has this SHA-256, as `openssl dgst -sha256 -sign` does.
    pub(super) fn signed_digest(&self, digest: &Digest, signature: &[u8]) -> Result<()> {
        let is_of = |key: &Key| match key {
            Key::Rsa(key) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key)
                .verify_digest(digest, signature)
                .is_ok(),
            Key::Ed25519(_) => false,
        };
        self.believe(is_of)
    }

    fn believe(&self, is_of: impl Fn(&Key) -> bool) -> Result<()> {
        match self.0.iter().any(is_of) {
            true => Ok(()),
            false => Err(unsigned("it is not signed by a key that is trusted here")),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn only_trusted_keys_are_believed() {
        let signer = UpdateSigner::generate().unwrap();
        let again = UpdateSigner::from_pem(signer.to_pem().unwrap().as_bytes()).unwrap();
        let signature = again.sign(b"text").unwrap();
        let mut verifier = UpdateVerifier::default();
        assert!(verifier.signed(b"text", &signature).is_err());
        let other = UpdateSigner::generate().unwrap().public_pem();
        verifier.add_pem(other.as_bytes()).unwrap();
        assert!(verifier.signed(b"text", &signature).is_err());
        verifier.add_pem(signer.public_pem().as_bytes()).unwrap();
        verifier.signed(b"text", &signature).unwrap();
        assert!(verifier.signed(b"texT", &signature).is_err());
        let private = signer.to_pem().unwrap();
        let many = other.repeat(MOST + 1);
        for bad in ["", "x", private.as_str(), &many, &other.replace("MCow", "MCox")] {
            assert!(UpdateVerifier::default().add_pem(bad.as_bytes()).is_err(), "{bad}");
        }
        for bad in ["", "x", other.as_str()] {
            assert!(UpdateSigner::from_pem(bad.as_bytes()).is_err());
        }
    }
}
