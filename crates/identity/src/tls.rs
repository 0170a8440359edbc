//! TLS to others: who vouches for them.

use std::sync::{Arc, OnceLock};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Authorities of one's own, at most.
const MOST: usize = 100;

/// How to speak TLS with a server for which one of these authorities (PEM) must vouch; without
/// them, one of those that this machine trusts.
///
/// # Errors
/// What is wrong with the authorities.
pub fn client_config(authorities: Option<&str>) -> Result<Arc<ClientConfig>, String> {
    let roots = match authorities {
        Some(pem) => own(pem)?,
        None => machines()?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn own(pem: &str) -> Result<Arc<RootCertStore>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|e| format!("not certificates in PEM: {e}"))?;
        roots.add(certificate).map_err(|e| format!("not the certificate of an authority: {e}"))?;
        if roots.len() > MOST {
            return Err(format!("there may be {MOST} certificates at most"));
        }
    }
    if roots.is_empty() {
        return Err("there is no certificate in it: give one or more in PEM".into());
    }
    Ok(Arc::new(roots))
}

/// Read once: a machine has hundreds.
fn machines() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() {
        let none = "this machine trusts no authority: install its package of CA certificates, or \
                    give the certificate of the one that vouches";
        return Err(none.into());
    }
    Ok(Arc::clone(roots))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_no_authority_is_refused_with_a_reason() {
        assert!(client_config(Some("")).unwrap_err().contains("no certificate"));
        assert!(client_config(Some("hello")).unwrap_err().contains("no certificate"));
        let torn = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(client_config(Some(torn)).unwrap_err().contains("PEM"));
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["box".to_owned()]).unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        assert!(client_config(Some(&pem)).is_ok());
    }
}
