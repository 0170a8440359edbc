//! Keys of those who sign what an appliance believes, licences and updates: Ed25519, in PEM as OpenSSL
//! has them (RFC 8410).

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use data_encoding::BASE64;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use zeroize::Zeroizing;

use crate::{Error, Result};

/// What stands before the 32 bytes of a public key.
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Public keys of one file.
pub(crate) const MOST: usize = 16;
/// Bytes of a signature.
pub(crate) const SIGNATURE: usize = 64;
/// What is said of a file that holds no private key.
pub(crate) const NO_PRIVATE_KEY: &str = "the private key is not one of Ed25519, in PEM";
/// What is said of what nobody signed whose key is known.
pub(crate) const NOT_SIGNED: &str = "it is not signed by a key that is trusted here";

/// A private key.
pub(crate) struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey")
    }
}

impl SigningKey {
    pub(crate) fn generate() -> Result<Self> {
        let key = Ed25519KeyPair::generate();
        key.map(Self).map_err(|_| Error::Crypto("no key can be made"))
    }

    /// Of PKCS #8 in PEM.
    pub(crate) fn from_pem(pem: &[u8]) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).ok()?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der());
        key.ok().map(Self)
    }

    pub(crate) fn to_pem(&self) -> Result<Zeroizing<String>> {
        let der = self.0.to_pkcs8v1().map_err(|_| Error::Crypto("the key can't be written"))?;
        Ok(Zeroizing::new(pem("PRIVATE KEY", der.as_ref())))
    }

    pub(crate) fn public_pem(&self) -> String {
        pem("PUBLIC KEY", &[&SPKI[..], self.0.public_key().as_ref()].concat())
    }

    pub(crate) fn sign(&self, text: &[u8]) -> Result<[u8; SIGNATURE]> {
        let signature = self.0.sign(text);
        signature.as_ref().try_into().map_err(|_| Error::Crypto("a signature has 64 bytes"))
    }
}

/// A public key.
#[derive(Clone, Debug)]
pub(crate) struct VerifyingKey([u8; 32]);

impl VerifyingKey {
    /// None: it is one of another kind.
    pub(crate) fn from_der(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI[..])?.try_into().ok().map(Self)
    }

    pub(crate) fn has_signed(&self, text: &[u8], signature: &[u8; SIGNATURE]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(text, signature).is_ok()
    }
}

/// The public keys of a file: 1 to [`MOST`] in PEM, each of which `of_der` knows. None: it holds none, or
/// something else.
pub(crate) fn public_keys<K>(pem: &[u8], of_der: impl Fn(&[u8]) -> Option<K>) -> Option<Vec<K>> {
    let all = SubjectPublicKeyInfoDer::pem_slice_iter(pem).take(MOST + 1);
    let keys: Vec<K> = all.map(|der| of_der(&der.ok()?)).collect::<Option<_>>()?;
    (1..=MOST).contains(&keys.len()).then_some(keys)
}

fn pem(label: &str, der: &[u8]) -> String {
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
    use super::*;

    #[test]
    fn only_the_key_and_the_text_that_were_signed_are_believed() {
        let key = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(key.to_pem().unwrap().as_bytes()).unwrap();
        let signature = again.sign(b"text").unwrap();
        let public = |key: &SigningKey| {
            let keys = public_keys(key.public_pem().as_bytes(), VerifyingKey::from_der);
            keys.unwrap().remove(0)
        };
        assert!(public(&key).has_signed(b"text", &signature));
        assert!(!public(&key).has_signed(b"texT", &signature));
        assert!(!public(&SigningKey::generate().unwrap()).has_signed(b"text", &signature));
    }

    #[test]
    fn files_that_hold_no_keys_are_refused() {
        let key = SigningKey::generate().unwrap();
        let (good, private) = (key.public_pem(), key.to_pem().unwrap());
        let keys = |pem: &str| public_keys(pem.as_bytes(), VerifyingKey::from_der);
        let torn = good.replace("MCow", "MCox");
        let many = good.repeat(MOST + 1);
        for bad in ["", "x", &torn, &good[..good.len() - 30], &many, private.as_str()] {
            assert!(keys(bad).is_none(), "{bad}");
        }
        assert_eq!(keys(&good.repeat(MOST)).unwrap().len(), MOST);
        for bad in ["", "x", good.as_str()] {
            assert!(SigningKey::from_pem(bad.as_bytes()).is_none());
        }
    }
}
