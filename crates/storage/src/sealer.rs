//! What opens pools, kept so that nobody reads it in the database.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use strongroom_engine::keys::Secret;
use zeroize::Zeroizing;

use crate::{Error, Result, Storage};

/// Seals small secrets with the appliance's key.
pub trait Sealer: Send + Sync + fmt::Debug {
    /// Seals; what was sealed for one purpose can't be unsealed for another.
    ///
    /// # Errors
    /// Why it can't, for people; never the secret.
    fn seal(&self, purpose: &str, plain: &[u8]) -> Result<Vec<u8>, String>;

    /// Unseals.
    ///
    /// # Errors
    /// Why it can't, for people.
    fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String>;
}

/// What opens an encrypted pool.
pub enum PoolSecret {
    /// A passphrase.
    Passphrase(Zeroizing<Vec<u8>>),
    /// A file of this machine with a key.
    KeyFile(PathBuf),
}

/// Without the passphrase.
impl fmt::Debug for PoolSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase(_) => f.write_str("Passphrase"),
            Self::KeyFile(path) => write!(f, "KeyFile({})", path.display()),
        }
    }
}

impl PoolSecret {
    /// As the engine takes it.
    ///
    /// # Errors
    /// Those of the file; one that is too short or too long.
    pub fn open(&self) -> Result<Secret> {
        Ok(match self {
            Self::Passphrase(bytes) => Secret::passphrase(bytes)?,
            Self::KeyFile(path) => Secret::key_file(path)?,
        })
    }

    fn encode(&self) -> Zeroizing<Vec<u8>> {
        let (tag, bytes) = match self {
            Self::Passphrase(bytes) => (b'p', &bytes[..]),
            Self::KeyFile(path) => (b'k', path.as_os_str().as_bytes()),
        };
        let mut all = Zeroizing::new(Vec::with_capacity(bytes.len() + 1));
        all.push(tag);
        all.extend_from_slice(bytes);
        all
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((b'p', rest)) => Ok(Self::Passphrase(Zeroizing::new(rest.to_vec()))),
            Some((b'k', rest)) => Ok(Self::KeyFile(OsString::from_vec(rest.to_vec()).into())),
            _ => Err("it is of a form that this version does not know".into()),
        }
    }

    /// Seals it for the pool that calls itself so.
    pub(crate) fn seal(&self, sealer: &dyn Sealer, name: &str, uuid: &str) -> Result<Vec<u8>> {
        let why = |why| Error::Seal { pool: name.into(), what: "sealed", why };
        sealer.seal(&purpose(uuid), &self.encode()).map_err(why)
    }

    /// Unseals that of the pool that calls itself so.
    pub(crate) fn unseal(
        sealer: &dyn Sealer,
        name: &str,
        uuid: &str,
        sealed: &[u8],
    ) -> Result<Self> {
        let why = |why| Error::Seal { pool: name.into(), what: "unsealed", why };
        let plain = sealer.unseal(&purpose(uuid), sealed).map_err(why)?;
        Self::decode(&plain).map_err(why)
    }
}

/// What secrets are sealed for that wait in the parameters of a job.
const WAITING: &str = "secret of a pool to be imported";

impl Storage {
    /// Seals a secret so that it can wait in the parameters of a job, as text.
    ///
    /// # Errors
    /// [`Error::Seal`].
    pub fn seal_waiting(&self, secret: &PoolSecret) -> Result<String> {
        let why = |why| Error::Seal { pool: "to be imported".into(), what: "sealed", why };
        let sealed = self.inner.sealer.seal(WAITING, &secret.encode()).map_err(why)?;
        Ok(data_encoding::BASE64.encode(&sealed))
    }

    /// Unseals it.
    ///
    /// # Errors
    /// [`Error::Seal`].
    pub fn unseal_waiting(&self, text: &str) -> Result<PoolSecret> {
        let why = |why| Error::Seal { pool: "to be imported".into(), what: "unsealed", why };
        let sealed = data_encoding::BASE64.decode(text.as_bytes());
        let sealed = sealed.map_err(|e| why(e.to_string()))?;
        let plain = self.inner.sealer.unseal(WAITING, &sealed).map_err(why)?;
        PoolSecret::decode(&plain).map_err(why)
    }
}

fn purpose(uuid: &str) -> String {
    format!("secret of pool {uuid}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::tests::TestSealer;

    #[test]
    fn a_secret_opens_only_its_own_pool() {
        let secret = PoolSecret::Passphrase(Zeroizing::new(b"four words".to_vec()));
        let sealed = secret.seal(&TestSealer, "main", "aa").unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"four"));
        let open = PoolSecret::unseal(&TestSealer, "main", "aa", &sealed).unwrap();
        assert!(matches!(open, PoolSecret::Passphrase(bytes) if bytes[..] == *b"four words"));
        let wrong = PoolSecret::unseal(&TestSealer, "main", "bb", &sealed).unwrap_err();
        assert!(wrong.to_string().contains("main"), "{wrong}");
        assert_eq!(format!("{secret:?}"), "Passphrase");
        let file = PoolSecret::KeyFile("/root/key".into());
        let sealed = file.seal(&TestSealer, "main", "aa").unwrap();
        let open = PoolSecret::unseal(&TestSealer, "main", "aa", &sealed).unwrap();
        assert_eq!(format!("{open:?}"), "KeyFile(/root/key)");
    }
}
