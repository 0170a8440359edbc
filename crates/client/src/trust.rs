//! Whose certificate an appliance may have.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use ::aws_lc_rs::digest;
use data_encoding::HEXUPPER;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::{Error, Result};

/// The SHA-256 of a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(bytes)
    }

    /// Reads what [`Fingerprint`] is shown as.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = text.strip_prefix("SHA256:").unwrap_or(text).replace(':', "").to_uppercase();
        HEXUPPER.decode(hex.as_bytes()).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SHA256")?;
        self.0.iter().try_for_each(|byte| write!(f, ":{byte:02X}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Whose certificate an appliance may have.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The one with this fingerprint.
    Pinned(Fingerprint),
    /// One that is signed by one of these, for the name that is called.
    Authorities(Vec<CertificateDer<'static>>),
    /// Any, to look at its fingerprint. No secret may be sent: see [`crate::Client::look`].
    Look,
}

impl Trust {
    /// Those who sign, from a PEM file.
    ///
    /// # Errors
    /// [`Error::Local`], [`Error::Content`].
    pub fn from_pem(path: &Path) -> Result<Self> {
        let text =
            std::fs::read(path).map_err(|source| Error::Local { path: path.to_owned(), source })?;
        let wrong = |why: String| Error::Content { path: path.to_owned(), why };
        let found: Vec<_> = CertificateDer::pem_slice_iter(&text)
            .collect::<Result<_, _>>()
            .map_err(|e| wrong(format!("not certificates in PEM: {e}")))?;
        match found.is_empty() {
            true => Err(wrong("there is no certificate in it".into())),
            false => Ok(Self::Authorities(found)),
        }
    }

    /// How to speak TLS with it, and where the fingerprint of what is found will be.
    pub(crate) fn config(&self) -> Result<(ClientConfig, Arc<Seen>), String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let seen = Arc::new(Seen::default());
        let by_name = match self {
            Self::Authorities(certificates) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates {
                    roots.add(certificate.clone()).map_err(|e| e.to_string())?;
                }
                let verifier =
                    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone());
                Some(verifier.build().map_err(|e| e.to_string())?)
            }
            Self::Pinned(_) | Self::Look => None,
        };
        let pinned = match self {
            Self::Pinned(fingerprint) => Some(*fingerprint),
            Self::Authorities(_) | Self::Look => None,
        };
        let verifier = Verifier { by_name, pinned, provider: provider.clone(), seen: seen.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok((config, seen))
    }
}

/// The certificate that was found.
#[derive(Debug, Default)]
pub(crate) struct Seen(Mutex<Option<Fingerprint>>);

impl Seen {
    pub(crate) fn get(&self) -> Option<Fingerprint> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks the certificate as [`Trust`] says; the signature of the handshake always.
#[derive(Debug)]
struct Verifier {
    by_name: Option<Arc<WebPkiServerVerifier>>,
    pinned: Option<Fingerprint>,
    provider: Arc<CryptoProvider>,
    seen: Arc<Seen>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let found = Fingerprint::of(certificate);
        *self.seen.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        match (&self.by_name, self.pinned) {
            (Some(verifier), _) => {
                verifier.verify_server_cert(certificate, others, name, ocsp, now)
            }
            (None, Some(pinned)) if pinned != found => {
                Err(CertificateError::ApplicationVerificationFailure.into())
            }
            (None, _) => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_shown() {
        let fingerprint = Fingerprint::of(&CertificateDer::from_slice(b"a certificate"));
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Some(fingerprint));
        assert_eq!(Fingerprint::parse("SHA256:00"), None);
    }
}
