//! Logging in with a name and a password, and what every login has in common.

use std::time::Duration;

use strongroom_catalog::identity::{RecoveryCode, User, UserSecrets, fold};

use crate::audit::{Deed, Who};
use crate::identity::Identity;
use crate::origin::Origin;
use crate::principal::{Principal, Via};
use crate::secret::Secret;
use crate::{AuthError, Result, second_factor, totp};

/// The longest name, in bytes.
pub(crate) const NAME: usize = 128;

const LOGIN: &str = "login";
/// A number that no user has.
const NOBODY: i64 = 0;

impl Identity {
    pub(crate) async fn log_in(
        &self,
        name: &str,
        password: Secret,
        code: Option<Secret>,
        directory: Option<&str>,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        // No user has such a name, and PostgreSQL takes no NUL.
        if name.len() > NAME || name.contains(char::is_control) {
            return Err(AuthError::Credentials);
        }
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let attempt = inner.backoff.begin(&fold(name), origin.address, now, self.policy());
        let attempt = attempt.map_err(|wait| AuthError::Blocked { wait })?;
        let user = inner.catalog.find_one::<User>(User::by_name(name)).await?;
        let directories = match self.directories_for(directory, user.as_ref()).await {
            Ok(directories) => directories,
            Err(error) => {
                attempt.void();
                return Err(error.into());
            }
        };
        // Also for a user that there isn't: what is asked should take as long.
        let id = user.as_ref().map_or(NOBODY, |user| user.id);
        let secrets = inner.catalog.find_one::<UserSecrets>(User::by_id(id)).await?;
        // Another node, or this one before a restart, may have counted failures.
        if let Some(until) = secrets.as_ref().and_then(|secrets| secrets.blocked_until)
            && until > now
        {
            attempt.void();
            let wait = Duration::try_from(until.duration_since(now)).unwrap_or_default();
            return Err(AuthError::Blocked { wait });
        }
        if !directories.is_empty() {
            let by = self.log_in_by_directory(directories, name, &password, user, attempt, origin);
            return by.await;
        }
        // Of a directory that is switched off, or not the one that was named.
        let user = user.filter(|user| user.source == "local" && directory.is_none());
        let hash = secrets.filter(|_| user.is_some()).and_then(|secrets| secrets.password);
        let right = match inner.passwords.verify(password, hash).await {
            Ok(right) => right,
            Err(error) => {
                attempt.void();
                return Err(error.into());
            }
        };
        let (Some(user), true) = (user.clone(), right) else {
            let why = AuthError::Credentials.word();
            self.failed(user.as_ref(), Via::Password, origin, why).await?;
            return Err(AuthError::Credentials);
        };
        if user.second_factor {
            let Some(code) = code else {
                attempt.void();
                return Err(AuthError::SecondFactor);
            };
            if !self.second_factor(user.id, &code).await? {
                let why = "wrong second factor";
                self.failed(Some(&user), Via::Password, origin, why).await?;
                return Err(AuthError::Credentials);
            }
        }
        attempt.passed();
        self.welcome(user, Via::Password, origin).await
    }

    /// One who has shown who it is, as it acts; the login is written down.
    pub(crate) async fn welcome(
        &self,
        user: User,
        via: Via,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let principal = match self.principal(user.clone(), None, via, origin).await {
            Ok(principal) => principal,
            Err(error) => {
                self.turned_away(Some(&user), via, origin, &error).await?;
                return Err(error);
            }
        };
        self.note_login(&user, via, origin).await?;
        Ok(principal)
    }

    /// Writes a good login down.
    pub(crate) async fn note_login(
        &self,
        user: &User,
        via: Via,
        origin: &Origin,
    ) -> Result<(), AuthError> {
        let mut tx = self.inner.catalog.begin().await?;
        // The trail first, as in every change: two that lock in turn would wait for each other.
        self.append(&mut tx, who(Some(user), via, origin), Deed::new(LOGIN, "")).await?;
        UserSecrets::passed(&mut tx, user.id, self.inner.clock.now()).await?;
        Ok(tx.commit().await?)
    }

    /// Tells of a login that came to nothing, though nothing was guessed wrong.
    pub(crate) async fn turned_away(
        &self,
        user: Option<&User>,
        via: Via,
        origin: &Origin,
        why: &AuthError,
    ) -> Result<(), AuthError> {
        let deed = Deed::new(LOGIN, "").failed(why.word());
        Ok(self.record(who(user, via, origin), deed).await?)
    }

    /// Counts and tells of a failed login.
    pub(crate) async fn failed(
        &self,
        user: Option<&User>,
        via: Via,
        origin: &Origin,
        why: &'static str,
    ) -> Result<(), AuthError> {
        let now = self.inner.clock.now();
        let id = user.map_or(NOBODY, |user| user.id);
        let mut tx = self.inner.catalog.begin().await?;
        self.append(&mut tx, who(user, via, origin), Deed::new(LOGIN, "").failed(why)).await?;
        let secrets = tx.find_one::<UserSecrets>(User::by_id(id)).await?;
        let failures = secrets.map_or(0, |secrets| secrets.failures).saturating_add(1);
        let blocked_until = self.policy().blocked_until(failures, now);
        UserSecrets::failed(&mut tx, id, blocked_until).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether a code is right; it is used up by that.
    async fn second_factor(&self, user: i64, code: &Secret) -> Result<bool, AuthError> {
        let secrets = self.inner.catalog.find_one::<UserSecrets>(User::by_id(user)).await?;
        let Some(sealed) = secrets.and_then(|secrets| secrets.totp) else { return Ok(false) };
        let secret = self.inner.key.unseal(&second_factor::purpose(user), &sealed)?;
        let step = totp::verify(&secret, code.expose(), self.inner.clock.now());
        let mut tx = self.inner.catalog.begin().await?;
        let good = match step {
            Some(step) => UserSecrets::use_step(&mut tx, user, step).await?,
            None => {
                let hash = second_factor::recovery_hash(code.expose());
                RecoveryCode::consume(&mut tx, user, &hash).await?
            }
        };
        tx.commit().await?;
        Ok(good)
    }
}

/// Who tries to log in. Of names that nobody has nothing is kept: passwords are typed there too.
fn who(user: Option<&User>, via: Via, origin: &Origin) -> Who {
    Who {
        user_id: user.map(|user| user.id),
        name: user.map_or_else(|| "(unknown)".into(), |user| user.name.clone()),
        organisation_id: user.map(|user| user.organisation_id),
        via: via.name(),
        address: origin.address_text(),
    }
}
