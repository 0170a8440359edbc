//! Who may make updates: Ed25519 for our own packages, and RSA for packages in Jidoteki's form.

use aws_lc_rs::digest::Digest;
use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use zeroize::Zeroizing;

use super::{Flaw, flaw};
use crate::signing::{
    MOST, NO_PRIVATE_KEY, NOT_SIGNED, SIGNATURE, SigningKey, VerifyingKey, public_keys,
};
use crate::{Error, Result};

/// Bits of an RSA key.
const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Signs packages.
#[derive(Debug)]
pub struct UpdateSigner(SigningKey);

impl UpdateSigner {
    /// Makes a key.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn generate() -> Result<Self> {
        SigningKey::generate().map(Self)
    }

    /// Reads a private key (PKCS #8, in PEM).
    ///
    /// # Errors
    /// [`Error::Package`].
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        SigningKey::from_pem(pem).map(Self).ok_or_else(|| unsigned(NO_PRIVATE_KEY))
    }

    /// The private key in PEM.
    ///
    /// # Errors
    /// [`Error::Crypto`].
    pub fn to_pem(&self) -> Result<Zeroizing<String>> {
        self.0.to_pem()
    }

    /// The public key in PEM.
    pub fn public_pem(&self) -> String {
        self.0.public_pem()
    }

    pub(super) fn sign(&self, text: &[u8]) -> Result<[u8; SIGNATURE]> {
        self.0.sign(text)
    }
}

fn unsigned(why: impl Into<String>) -> Error {
    flaw(Flaw::Signature, why)
}

/// A public key.
#[derive(Clone, Debug)]
enum Key {
    Ed25519(VerifyingKey),
    /// As it stands in the file.
    Rsa(Vec<u8>),
}

impl Key {
    fn from_der(der: &[u8]) -> Option<Self> {
        if let Some(key) = VerifyingKey::from_der(der) {
            return Some(Self::Ed25519(key));
        }
        let key = PublicEncryptingKey::from_der(der).ok()?;
        BITS.contains(&key.key_size_bits()).then(|| Self::Rsa(der.to_vec()))
    }
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
        let keys = public_keys(pem, Key::from_der).ok_or_else(|| {
            let (least, most) = (BITS.start(), BITS.end());
            unsigned(format!(
                "a key file holds 1 to {MOST} public keys in PEM, of Ed25519 or of RSA with {least} \
                 to {most} bits"
            ))
        });
        self.0.extend(keys?);
        Ok(())
    }

    /// Whether one of the keys signed this text.
    pub(super) fn signed(&self, text: &[u8], signature: &[u8; SIGNATURE]) -> Result<()> {
        let is_of = |key: &Key| match key {
            Key::Ed25519(key) => key.has_signed(text, signature),
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
            false => Err(unsigned(NOT_SIGNED)),
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
