//! An authority of certificates, and what it signs.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::ExtendedKeyUsagePurpose::{self, ClientAuth, ServerAuth};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

/// A directory of certificates, with the names that users of GnuTLS (QEMU, libnbd) know them by.
pub(crate) struct Authority {
    dir: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// Signs a certificate for this machine's own address, and one of a client.
    pub(crate) fn new(dir: PathBuf) -> Self {
        fs::create_dir(&dir).unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        // Who trusts two finds the one that signed by its name.
        params.distinguished_name.push(DnType::CommonName, dir.display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(dir.join("ca-cert.pem"), authority.pem()).unwrap();
        let authority = Self { dir, issuer: authority };
        authority.sign(authority.dir(), "server", "127.0.0.1", ServerAuth);
        authority.sign(authority.dir(), "client", "c", ClientAuth);
        authority
    }

    /// Signs a certificate with this name and common name, whose files are in a directory.
    fn sign(&self, dir: &Path, file: &str, name: &str, usage: ExtendedKeyUsagePurpose) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(dir.join(format!("{file}-cert.pem")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{file}-key.pem")), key.serialize_pem()).unwrap();
    }

    /// A directory with the certificate of a client of this common name, who trusts the server.
    pub(crate) fn client(&self, name: &str) -> PathBuf {
        let dir = self.file(name);
        fs::create_dir(&dir).unwrap();
        self.sign(&dir, "client", name, ClientAuth);
        fs::copy(self.file("ca-cert.pem"), dir.join("ca-cert.pem")).unwrap();
        dir
    }

    /// The directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes the certificate of another one's client in the place of its own, and trusts that one's server,
    /// too.
    pub(crate) fn take_client_of(&self, other: &Self) {
        for file in ["client-cert.pem", "client-key.pem"] {
            fs::copy(other.file(file), self.file(file)).unwrap();
        }
        let [ours, theirs] = [self, other].map(|one| fs::read(one.file("ca-cert.pem")).unwrap());
        fs::write(self.file("ca-cert.pem"), [ours, theirs].concat()).unwrap();
    }
}
