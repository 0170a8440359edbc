//! Who may make licences.

use zeroize::Zeroizing;

use super::{Licence, SignedLicence};
use crate::signing::{MOST, NO_PRIVATE_KEY, NOT_SIGNED, SigningKey, VerifyingKey, public_keys};
use crate::{Error, Result};

/// Signs licences.
#[derive(Debug)]
pub struct LicenceSigner(SigningKey);

impl LicenceSigner {
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
    /// [`Error::Licence`].
    pub fn from_pem(pem: &[u8]) -> Result<Self> {
        let key = SigningKey::from_pem(pem).map(Self);
        key.ok_or_else(|| Error::Licence(NO_PRIVATE_KEY.into()))
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

    /// Signs a licence.
    ///
    /// # Errors
    /// [`Error::Licence`] for one that could not be read again.
    pub fn sign(&self, licence: Licence) -> Result<SignedLicence> {
        licence.check()?;
        let signature = self.0.sign(licence.signed().as_bytes())?;
        Ok(SignedLicence { licence, signature })
    }
}

/// Whom to believe licences.
#[derive(Clone, Debug, Default)]
pub struct LicenceVerifier(Vec<VerifyingKey>);

impl LicenceVerifier {
    /// Adds the public keys of a file: one or more, in PEM.
    ///
    /// # Errors
    /// [`Error::Licence`].
    pub fn add_pem(&mut self, pem: &[u8]) -> Result<()> {
        let keys = public_keys(pem, VerifyingKey::from_der).ok_or_else(|| {
            let text = format!("a key file holds 1 to {MOST} public keys of Ed25519, in PEM");
            Error::Licence(text)
        });
        self.0.extend(keys?);
        Ok(())
    }

    /// What a licence says, if one of the keys signed it.
    ///
    /// # Errors
    /// [`Error::Licence`].
    pub fn verify(&self, signed: SignedLicence) -> Result<Licence> {
        let text = signed.licence.signed();
        let has_signed = |key: &VerifyingKey| key.has_signed(text.as_bytes(), &signed.signature);
        match self.0.iter().any(has_signed) {
            true => Ok(signed.licence),
            false => Err(Error::Licence(NOT_SIGNED.into())),
        }
    }
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
