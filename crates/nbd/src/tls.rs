//! How TLS is spoken with clients of NBD: versions 1.2 and 1.3, and certificates of clients where some are
//! asked for.

use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::{ResolvesServerCert, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};

/// Why TLS can't be spoken as asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The authorities of clients can't be read.
    #[error("that is no PEM of certificates: {0}")]
    Pem(String),
    /// There are none.
    #[error("there is no certificate of an authority in it")]
    NoAuthority,
    /// An authority's certificate can't be used.
    #[error("a certificate of an authority can't be used: {0}")]
    Authority(String),
    /// TLS doesn't go with that.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

/// Those who sign certificates of clients.
#[derive(Clone, Debug)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Reads their certificates (PEM), of which there must be one at least.
    ///
    /// # Errors
    /// [`TlsError`].
    pub fn of_pem(pem: &[u8]) -> Result<Self, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| TlsError::Pem(error.to_string()))?;
            roots.add(certificate).map_err(|error| TlsError::Authority(error.to_string()))?;
        }
        match roots.is_empty() {
            true => Err(TlsError::NoAuthority),
            false => Ok(Self(Arc::new(roots))),
        }
    }
}

/// A configuration that shows this certificate; with authorities, only those are let in who show a
/// certificate that one of them signed.
///
/// # Errors
/// [`TlsError`].
pub fn tls_config(
    certificate: Arc<dyn ResolvesServerCert>,
    clients: Option<Authorities>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13, &TLS12])?;
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(Authorities(roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let verifier = verifier.map_err(|error| TlsError::Authority(error.to_string()))?;
            config.with_client_cert_verifier(verifier)
        }
    };
    Ok(Arc::new(config.with_cert_resolver(certificate)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn authorities_are_certificates_and_at_least_one() {
        let made = rcgen::generate_simple_self_signed(vec!["authority".to_owned()]).unwrap();
        let pem = made.cert.pem();
        let two = Authorities::of_pem(format!("{pem}{pem}").as_bytes()).unwrap();
        assert_eq!(two.0.len(), 2);
        let key = made.signing_key.serialize_pem();
        for wrong in ["", "nothing", &key] {
            let error = Authorities::of_pem(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, TlsError::NoAuthority), "{error}");
        }
        let cut = &pem[..pem.len() / 2];
        let error = Authorities::of_pem(cut.as_bytes()).unwrap_err();
        assert!(matches!(error, TlsError::Pem(_)), "{error}");
    }
}
