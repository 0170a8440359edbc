//! The appliance's key: what is kept under it, and what is derived from it.
//!
//! 32 random bytes in a file that only the appliance's user can read. Nothing is encrypted with it
//! directly: HKDF-SHA-256 gives one key for each use. What is sealed is
//! `version (1) | nonce (12) | AES-256-GCM ciphertext and tag`, with the purpose as associated
//! data, so that what was sealed for one purpose can't be opened for another.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac};
use zeroize::Zeroizing;

use crate::secret::random;
use crate::{Error, Result};

const LENGTH: usize = 32;
const VERSION: u8 = 1;
const SALT: &[u8] = b"strongroom appliance key 1";

/// The appliance's key. What is derived from it is kept, the key itself isn't.
pub struct ApplianceKey {
    seal: LessSafeKey,
    tokens: Zeroizing<[u8; LENGTH]>,
    audit: hmac::Key,
    requests: hmac::Key,
}

impl fmt::Debug for ApplianceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApplianceKey")
    }
}

impl ApplianceKey {
    /// Reads the key's file; makes it when there is none.
    ///
    /// # Errors
    /// [`Error::Key`] when it can't be read or made, is not a key, or others may read it.
    pub fn open_or_create(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(Error::Key { why, .. }) if why == MISSING => {}
            other => return other,
        }
        create(path).map_err(|error| wrong(path, format!("can't be made: {error}")))?;
        Self::open(path)
    }

    /// Reads the key's file.
    ///
    /// # Errors
    /// As [`ApplianceKey::open_or_create`], and when there is none.
    pub fn open(path: &Path) -> Result<Self> {
        let unreadable = |error: std::io::Error| match error.kind() {
            ErrorKind::NotFound => wrong(path, MISSING.to_owned()),
            _ => wrong(path, format!("can't be read: {error}")),
        };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode();
        if mode & 0o077 != 0 {
            let mode = mode & 0o777;
            let why = format!("others may read it (mode {mode:o}): run chmod 600 on it");
            return Err(wrong(path, why));
        }
        let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + 1));
        file.take(LENGTH as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        let key: &[u8; LENGTH] = bytes[..].try_into().map_err(|_| {
            wrong(path, format!("is not {LENGTH} bytes long: put the right file back"))
        })?;
        Ok(Self::from_bytes(key))
    }

    /// The key of these bytes.
    pub fn from_bytes(key: &[u8; LENGTH]) -> Self {
        let seal = derive(key, b"seal");
        let seal = UnboundKey::new(&AES_256_GCM, &seal[..]).expect("the key has its length");
        let signing = |purpose: &[u8]| {
            let key = derive(key, purpose);
            hmac::Key::new(hmac::HMAC_SHA256, &key[..])
        };
        Self {
            seal: LessSafeKey::new(seal),
            tokens: derive(key, b"tokens"),
            audit: signing(b"audit"),
            requests: signing(b"requests"),
        }
    }

    /// Seals some bytes; they can be opened for the same purpose only.
    ///
    /// # Errors
    /// [`Error::Random`].
    pub fn seal(&self, purpose: &str, bytes: &[u8]) -> Result<Vec<u8>> {
        let nonce = *random::<NONCE_LEN>()?;
        let mut sealed = Zeroizing::new(bytes.to_vec());
        let whole = self.seal.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(purpose.as_bytes()),
            &mut *sealed,
        );
        whole.map_err(|_| Error::Sealed { purpose: purpose.to_owned() })?;
        let mut out = Vec::with_capacity(1 + NONCE_LEN + sealed.len());
        out.push(VERSION);
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&sealed);
        Ok(out)
    }

    /// Opens what was sealed for this purpose.
    ///
    /// # Errors
    /// [`Error::Sealed`] for anything else.
    pub fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let broken = || Error::Sealed { purpose: purpose.to_owned() };
        let (&version, rest) = sealed.split_first().ok_or_else(broken)?;
        let (nonce, body) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(broken)?;
        if version != VERSION {
            return Err(broken());
        }
        let mut open = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self
            .seal
            .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut open)
            .map_err(|_| broken())?
            .len();
        open.truncate(length);
        Ok(open)
    }

    /// What short tokens are signed with.
    pub(crate) fn tokens(&self) -> &[u8] {
        &self.tokens[..]
    }

    /// What a request is known again by: nobody else can tell whether a guess at its parts is right.
    pub fn digest(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.requests);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.sign().as_ref());
        digest
    }

    /// What the end of the audit trail is signed with.
    pub(crate) fn audit(&self) -> &hmac::Key {
        &self.audit
    }
}

const MISSING: &str = "is not there: put it back, or start with a new data directory";

fn wrong(path: &Path, why: String) -> Error {
    Error::Key { path: path.to_owned(), why }
}

/// Makes the file, whole or not at all, and never over one that is there.
fn create(path: &Path) -> std::io::Result<()> {
    let mut key = Zeroizing::new([0; LENGTH]);
    getrandom::fill(&mut key[..]).map_err(std::io::Error::other)?;
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = Path::new(&name);
    let outcome = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
        file.write_all(&key[..])?;
        file.sync_all()?;
        match std::fs::hard_link(new, path) {
            // Another process was faster; its key it is.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    })();
    let gone = std::fs::remove_file(new);
    outcome?;
    gone?;
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn derive(key: &[u8; LENGTH], purpose: &[u8]) -> Zeroizing<[u8; LENGTH]> {
    let mut out = Zeroizing::new([0; LENGTH]);
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT).extract(key);
    let info = [purpose];
    let made = secret.expand(&info, hkdf::HKDF_SHA256);
    made.and_then(|okm| okm.fill(&mut out[..])).expect("one block is not too long for HKDF");
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_purpose_only() {
        let key = ApplianceKey::from_bytes(&[7; 32]);
        let sealed = key.seal("totp:1", b"secret").unwrap();
        assert_eq!(&key.unseal("totp:1", &sealed).unwrap()[..], b"secret");
        assert_ne!(sealed, key.seal("totp:1", b"secret").unwrap());
        assert!(matches!(key.unseal("totp:2", &sealed), Err(Error::Sealed { .. })));
        assert!(ApplianceKey::from_bytes(&[8; 32]).unseal("totp:1", &sealed).is_err());
        for place in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[place] ^= 1;
            assert!(key.unseal("totp:1", &bad).is_err(), "byte {place}");
            assert!(key.unseal("totp:1", &sealed[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn the_key_is_made_once_and_only_its_owner_may_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("appliance.key");
        assert!(matches!(ApplianceKey::open(&path), Err(Error::Key { .. })));
        let first = ApplianceKey::open_or_create(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let sealed = first.seal("x", b"y").unwrap();
        let again = ApplianceKey::open_or_create(&path).unwrap();
        assert_eq!(&again.unseal("x", &sealed).unwrap()[..], b"y");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = ApplianceKey::open_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("mode 640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("appliance.key");
        for length in [0, 31, 33] {
            std::fs::write(&path, vec![1; length]).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
            let error = ApplianceKey::open_or_create(&path).unwrap_err().to_string();
            assert!(error.contains("32 bytes"), "{error}");
            assert_eq!(std::fs::metadata(&path).unwrap().len(), length as u64);
        }
    }
}
