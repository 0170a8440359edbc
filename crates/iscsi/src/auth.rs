//! Who may log in.

use std::collections::BTreeSet;
use std::fmt;

use zeroize::Zeroizing;

use crate::{Error, Result, name};

/// A name and a secret of CHAP (RFC 7143 section 12.1).
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    name: String,
    secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Credential {
    /// Bytes of a secret: RFC 7143 section 9.2.1 asks for 96 bits.
    pub const SHORTEST: usize = 12;
    /// More than any initiator takes.
    pub const LONGEST: usize = 255;

    /// With a name of 1 to 255 bytes, and a secret of 12 to 255.
    ///
    /// # Errors
    /// [`Error::Chap`].
    pub fn new(name: &str, secret: &[u8]) -> Result<Self> {
        if name.is_empty() || name.len() > Self::LONGEST || name.contains('\0') {
            return Err(Error::Chap("a name has 1 to 255 bytes, none of them zero"));
        }
        if !(Self::SHORTEST..=Self::LONGEST).contains(&secret.len()) {
            return Err(Error::Chap("a secret has 12 to 255 bytes"));
        }
        Ok(Self { name: name.to_owned(), secret: Zeroizing::new(secret.to_vec()) })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

/// Who may log in, and what they must prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthGroup {
    initiators: Option<BTreeSet<String>>,
    users: Vec<Credential>,
    own: Option<Credential>,
}

impl AuthGroup {
    /// Everybody, without a proof.
    pub fn open() -> Self {
        Self::default()
    }

    /// Only initiators of these names.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn initiators<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        self.initiators = Some(names.into_iter().map(name::normal).collect::<Result<_>>()?);
        Ok(self)
    }

    /// Only who proves one of these by CHAP.
    ///
    /// # Errors
    /// [`Error::Chap`]: two have one name, or one has the secret of the target.
    pub fn users(mut self, users: Vec<Credential>) -> Result<Self> {
        self.users = users;
        self.checked()
    }

    /// What the target proves to initiators that ask for it (mutual CHAP).
    ///
    /// # Errors
    /// [`Error::Chap`]: a user has the same secret, by which anyone could have the target answer its own
    /// question (RFC 7143 section 9.2.1).
    pub fn mutual(mut self, own: Credential) -> Result<Self> {
        self.own = Some(own);
        self.checked()
    }

    fn checked(self) -> Result<Self> {
        let names: BTreeSet<_> = self.users.iter().map(Credential::name).collect();
        if names.len() != self.users.len() {
            return Err(Error::Chap("two users have one name"));
        }
        match &self.own {
            Some(own) if self.users.iter().any(|user| user.secret == own.secret) => {
                Err(Error::Chap("the target's secret must differ from those of its users"))
            }
            _ => Ok(self),
        }
    }

    /// Whether this initiator may log in, if it proves what it has to.
    pub fn admits(&self, initiator: &str) -> bool {
        self.initiators.as_ref().is_none_or(|names| names.contains(initiator))
    }

    pub(crate) fn asks_for_proof(&self) -> bool {
        !self.users.is_empty()
    }

    pub(crate) fn user(&self, name: &str) -> Option<&Credential> {
        self.users.iter().find(|user| user.name == name)
    }

    pub(crate) fn own(&self) -> Option<&Credential> {
        self.own.as_ref()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_and_secrets_are_what_the_rfc_asks_for() {
        let secret = b"secretsecret12";
        let user = Credential::new("user", secret).unwrap();
        assert!(!format!("{user:?}").contains("secretsecret"));
        assert!(Credential::new("user", b"short").is_err());
        assert!(Credential::new("", secret).is_err());
        let group = AuthGroup::open().users(vec![user.clone()]).unwrap();
        assert!(group.clone().mutual(Credential::new("target", secret).unwrap()).is_err());
        assert!(group.users(vec![user.clone(), user]).is_err());
    }

    #[test]
    fn initiators_are_those_named() {
        let group = AuthGroup::open().initiators(["iqn.2026-11.org.example:A"]).unwrap();
        assert!(group.admits("iqn.2026-11.org.example:a"));
        assert!(!group.admits("iqn.2026-11.org.example:b"));
        assert!(AuthGroup::open().admits("iqn.2026-11.org.example:b"));
    }
}
