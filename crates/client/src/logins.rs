//! Where this user is logged in: a file that only its owner can read.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::place::{Address, Place, Token};
use crate::{Error, Fingerprint, Result, Trust};

/// One appliance that this user is logged in at.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name there.
    pub user: String,
    /// The token of the session.
    token: String,
    /// The certificate that was trusted, unless an authority vouches for it.
    fingerprint: Option<String>,
    /// The file with the authorities.
    authorities: Option<PathBuf>,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl Login {
    /// A login with a token, at an appliance with this certificate.
    pub fn pinned(user: &str, token: &Token, fingerprint: Fingerprint) -> Self {
        Self {
            user: user.to_owned(),
            token: token.expose().to_owned(),
            fingerprint: Some(fingerprint.to_string()),
            authorities: None,
        }
    }

    /// A login with a token, at an appliance that the authorities in this file vouch for.
    pub fn vouched(user: &str, token: &Token, authorities: &Path) -> Self {
        Self {
            user: user.to_owned(),
            token: token.expose().to_owned(),
            fingerprint: None,
            authorities: Some(authorities.to_owned()),
        }
    }
}

/// All of them.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logins {
    /// The one that is meant when none is named.
    current: Option<String>,
    appliances: BTreeMap<String, Login>,
    #[serde(skip)]
    path: PathBuf,
}

impl Logins {
    /// Reads the file; there are none when it isn't there.
    ///
    /// # Errors
    /// [`Error::Local`]; [`Error::Content`], also when others may read the file.
    pub fn read(path: &Path) -> Result<Self> {
        let local = |source| Error::Local { path: path.to_owned(), source };
        let wrong = |why: String| Error::Content { path: path.to_owned(), why };
        let mut logins: Self = match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path).map_err(local)?.permissions().mode();
                if mode & 0o077 != 0 {
                    return Err(wrong("others may read it: chmod 600, and log in again".into()));
                }
                serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Self::default(),
            Err(e) => return Err(local(e)),
        };
        logins.path = path.to_owned();
        Ok(logins)
    }

    /// The place of an appliance, or of the current one.
    ///
    /// # Errors
    /// Those of the address and of its authorities.
    pub fn place(&self, appliance: Option<&str>) -> Result<Option<Place>> {
        let name = match appliance {
            Some(name) => Some(name.parse::<Address>()?.to_string()),
            None => self.current.clone(),
        };
        let Some(name) = name else { return Ok(None) };
        let Some(login) = self.appliances.get(&name) else { return Ok(None) };
        let wrong = |why: &str| Error::Content { path: self.path.clone(), why: why.to_owned() };
        let trust = match (&login.fingerprint, &login.authorities) {
            (_, Some(path)) => Trust::from_pem(path)?,
            (Some(text), None) => {
                let fingerprint = Fingerprint::parse(text);
                Trust::Pinned(fingerprint.ok_or_else(|| wrong("a fingerprint is not one"))?)
            }
            (None, None) => return Err(wrong("a login trusts nobody")),
        };
        let token = Some(Token::new(login.token.clone()));
        Ok(Some(Place::Remote { address: name.parse()?, trust, token }))
    }

    /// Adds a login, which becomes the current one, and writes the file.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn add(&mut self, address: &Address, login: Login) -> Result<()> {
        self.appliances.insert(address.to_string(), login);
        self.current = Some(address.to_string());
        self.write()
    }

    /// An appliance is elsewhere now: its login is good there too, and becomes the current one if it
    /// was; writes the file. Nothing is done where there is no login.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn follow(&mut self, from: &Address, to: &Address) -> Result<()> {
        let Some(login) = self.appliances.get(&from.to_string()).cloned() else { return Ok(()) };
        self.appliances.insert(to.to_string(), login);
        if self.current == Some(from.to_string()) {
            self.current = Some(to.to_string());
        }
        self.write()
    }

    /// Takes one away, and writes the file; whether there was one.
    ///
    /// # Errors
    /// [`Error::Local`].
    pub fn remove(&mut self, address: &Address) -> Result<bool> {
        let name = address.to_string();
        let had = self.appliances.remove(&name).is_some();
        if self.current.as_deref() == Some(&name) {
            self.current = None;
        }
        self.write().map(|()| had)
    }

    /// Writes a new file and puts it in the old one's place.
    fn write(&self) -> Result<()> {
        let local = |source| Error::Local { path: self.path.clone(), source };
        let dir = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(dir).map_err(local)?;
        let text = serde_json::to_vec_pretty(self).map_err(|e| local(e.into()))?;
        let new = self.path.with_extension("new");
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(local(e)),
            _ => {}
        }
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&new)
            .map_err(local)?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(local)?;
        fs::rename(&new, &self.path).map_err(local)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn logins_come_back_and_only_their_owner_can_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/logins.json");
        let address: Address = "https://box:8443".parse().unwrap();
        let fingerprint = Fingerprint::parse(&"AB".repeat(32)).unwrap();
        let mut logins = Logins::read(&path).unwrap();
        assert!(logins.place(None).unwrap().is_none());
        logins.add(&address, Login::pinned("ada", &Token::new("t"), fingerprint)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let logins = Logins::read(&path).unwrap();
        assert!(!format!("{logins:?}").contains("\"t\""));
        let Some(Place::Remote { trust: Trust::Pinned(found), token, .. }) =
            logins.place(None).unwrap()
        else {
            panic!("a login is a remote place with a pinned certificate")
        };
        assert_eq!((found, token.unwrap().expose()), (fingerprint, "t"));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Logins::read(&path), Err(Error::Content { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let mut logins = Logins::read(&path).unwrap();
        let elsewhere: Address = "https://192.0.2.7:8443".parse().unwrap();
        logins.follow(&elsewhere, &address).unwrap();
        logins.follow(&address, &elsewhere).unwrap();
        let Some(Place::Remote { address: now, .. }) = logins.place(None).unwrap() else {
            panic!("there is a login")
        };
        assert_eq!(now, elsewhere);
        assert!(logins.remove(&elsewhere).unwrap());
        assert!(logins.remove(&address).unwrap());
        assert!(Logins::read(&path).unwrap().place(None).unwrap().is_none());
    }
}
