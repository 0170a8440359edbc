//! The licence of this appliance: a file of the data directory, believed each time anew.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Licence, LicenceVerifier, MAX, SignedLicence};
use crate::files;
use crate::{Error, Result};

/// The name of its file.
pub(crate) const NAME: &str = "license.txt";
/// Bytes of a file of keys.
const KEYS: u64 = 64 << 10;

/// The service. Cheap to clone; all clones take turns.
#[derive(Clone, Debug)]
pub struct Licences {
    path: PathBuf,
    keys: Arc<[PathBuf]>,
    turn: Arc<Mutex<()>>,
}

impl Licences {
    /// Of the appliance with this data directory, that believes the keys of these files.
    pub fn of(data: &Path, keys: Vec<PathBuf>) -> Self {
        Self { path: data.join(NAME), keys: keys.into(), turn: Arc::default() }
    }

    /// What the licence says that is kept, if there is one. It waits for files.
    ///
    /// # Errors
    /// [`Error::LicenceKept`] when nobody vouches for it any more; [`Error::File`].
    pub fn current(&self) -> Result<Option<Licence>> {
        let bytes = match files::read(&self.path, MAX as u64) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::file(&self.path))?,
        };
        let kept = |error| match error {
            Error::Licence(why) | Error::State(why) => Error::LicenceKept(why),
            error => error,
        };
        let licence = SignedLicence::parse(&bytes).and_then(|signed| {
            let verifier = self.verifier()?;
            verifier.verify(signed)
        });
        licence.map(Some).map_err(kept)
    }

    /// Puts a licence in the place of the one that is kept, if it can be believed; else that stays.
    /// It waits for files.
    ///
    /// # Errors
    /// [`Error::Licence`]; [`Error::State`] where no key is trusted; [`Error::File`].
    pub fn set(&self, bytes: &[u8]) -> Result<Licence> {
        let signed = SignedLicence::parse(bytes)?;
        if self.keys.is_empty() {
            let text = "no key of a vendor is trusted here: name its file as `license_keys` in \
                        the configuration";
            return Err(Error::State(text.into()));
        }
        let text = signed.to_string();
        let licence = self.verifier()?.verify(signed)?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        files::replace(&self.path, text.as_bytes()).map_err(Error::file(&self.path))?;
        Ok(licence)
    }

    /// The keys as they are now: a file may be replaced.
    fn verifier(&self) -> Result<LicenceVerifier> {
        let mut verifier = LicenceVerifier::default();
        for path in self.keys.iter() {
            let unreadable = |error| {
                let path = path.display();
                Error::State(format!("`license_keys`: {path} can't be read: {error}"))
            };
            let pem = files::read(path, KEYS).map_err(unreadable)?;
            let added = verifier.add_pem(&pem);
            added.map_err(|error| match error {
                Error::Licence(why) => Error::State(format!("{}: {why}", path.display())),
                error => error,
            })?;
        }
        Ok(verifier)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::super::tests::licence;
    use super::super::{LicenceSigner, LicenceState};
    use super::*;

    fn set_up(dir: &Path) -> (LicenceSigner, Licences) {
        let signer = LicenceSigner::generate().unwrap();
        let key = dir.join("vendor.pem");
        fs::write(&key, signer.public_pem()).unwrap();
        (signer, Licences::of(dir, vec![key]))
    }

    #[test]
    fn a_bad_one_leaves_the_good_one_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, licences) = set_up(dir.path());
        assert_eq!(licences.current().unwrap(), None);
        assert!(licences.set(b"").is_err());
        assert_eq!(licences.current().unwrap(), None);
        let good = signer.sign(licence()).unwrap().to_string();
        assert_eq!(licences.set(good.as_bytes()).unwrap(), licence());
        let forged = LicenceSigner::generate().unwrap().sign(licence()).unwrap().to_string();
        let changed = good.replace("Users: 20", "Users: 9999");
        for bad in ["", "x", &forged, &changed, &good[..100], &"x".repeat(1 << 20)] {
            assert!(matches!(licences.set(bad.as_bytes()), Err(Error::Licence(_))), "{bad:.50}");
            assert_eq!(licences.current().unwrap(), Some(licence()));
        }
        assert_eq!(fs::read_to_string(dir.path().join(NAME)).unwrap(), good);
    }

    #[test]
    fn one_that_was_cut_off_leaves_the_old_or_the_new() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, licences) = set_up(dir.path());
        let old = signer.sign(licence()).unwrap().to_string();
        licences.set(old.as_bytes()).unwrap();
        let mut renewed = licence();
        renewed.users = 50;
        let new = signer.sign(renewed.clone()).unwrap().to_string();
        // Killed before the rename: whatever was written by then, the old one is kept, and the next
        // one can be taken.
        for length in [0, 1, new.len() / 2, new.len()] {
            fs::write(dir.path().join("license.new"), &new[..length]).unwrap();
            assert_eq!(licences.current().unwrap(), Some(licence()), "{length}");
            licences.set(new.as_bytes()).unwrap();
            assert_eq!(licences.current().unwrap(), Some(renewed.clone()));
            licences.set(old.as_bytes()).unwrap();
        }
    }

    #[test]
    fn who_is_no_longer_trusted_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, licences) = set_up(dir.path());
        let mut over = licence();
        over.expires = Some(jiff::civil::date(2020, 1, 1));
        // It informs, that is all.
        let set = licences.set(signer.sign(over).unwrap().to_string().as_bytes()).unwrap();
        assert_eq!(set.state_now(), LicenceState::Expired);
        let none = Licences::of(dir.path(), Vec::new());
        assert!(matches!(none.current(), Err(Error::LicenceKept(_))));
        let good = signer.sign(licence()).unwrap().to_string();
        let refused = none.set(good.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("license_keys"), "{refused}");
        fs::write(dir.path().join("vendor.pem"), "x").unwrap();
        let refused = licences.set(good.as_bytes()).unwrap_err().to_string();
        assert!(refused.contains("vendor.pem"), "{refused}");
        fs::remove_file(dir.path().join("vendor.pem")).unwrap();
        assert!(matches!(licences.current(), Err(Error::LicenceKept(_))));
    }
}
