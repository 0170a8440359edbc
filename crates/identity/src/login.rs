//! Logging in with a name and a password.

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
        let user = user.filter(|user| user.source == "local");
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
        let hash = secrets.as_ref().and_then(|secrets| secrets.password.clone());
        let right = match inner.passwords.verify(password, hash).await {
            Ok(right) => right,
            Err(error) => {
                attempt.void();
                return Err(error.into());
            }
        };
        let (Some(user), Some(secrets), true) = (user.clone(), secrets, right) else {
            self.failed(user.as_ref(), origin, AuthError::Credentials.word()).await?;
            return Err(AuthError::Credentials);
        };
        if secrets.totp_confirmed {
            let Some(code) = code else {
                attempt.void();
                return Err(AuthError::SecondFactor);
            };
            if !self.second_factor(&secrets, &code).await? {
                self.failed(Some(&user), origin, "wrong second factor").await?;
                return Err(AuthError::Credentials);
            }
        }
        attempt.passed();
        let who = who(Some(&user), origin);
        let principal = match self.principal(user, None, Via::Password, origin).await {
            Ok(principal) => principal,
            Err(error) => {
                self.record(who, Deed::new(LOGIN, "").failed(error.word())).await?;
                return Err(error);
            }
        };
        let mut tx = inner.catalog.begin().await?;
        UserSecrets::passed(&mut tx, secrets.id, now).await?;
        self.append(&mut tx, who, Deed::new(LOGIN, "")).await?;
        tx.commit().await?;
        Ok(principal)
    }

    /// Counts and tells of a failed login.
    async fn failed(
        &self,
        user: Option<&User>,
        origin: &Origin,
        why: &'static str,
    ) -> Result<(), AuthError> {
        let now = self.inner.clock.now();
        let id = user.map_or(NOBODY, |user| user.id);
        let mut tx = self.inner.catalog.begin().await?;
        let secrets = tx.find_one::<UserSecrets>(User::by_id(id)).await?;
        let failures = secrets.map_or(0, |secrets| secrets.failures).saturating_add(1);
        let blocked_until = self.policy().blocked_until(failures, now);
        UserSecrets::failed(&mut tx, id, blocked_until).await?;
        self.append(&mut tx, who(user, origin), Deed::new(LOGIN, "").failed(why)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Whether a code is right; it is used up by that.
    async fn second_factor(&self, secrets: &UserSecrets, code: &Secret) -> Result<bool, AuthError> {
        let Some(sealed) = &secrets.totp else { return Ok(false) };
        let secret = self.inner.key.unseal(&second_factor::purpose(secrets.id), sealed)?;
        let step = totp::verify(&secret, code.expose(), self.inner.clock.now());
        let mut tx = self.inner.catalog.begin().await?;
        let good = match step {
            Some(step) => UserSecrets::use_step(&mut tx, secrets.id, step).await?,
            None => {
                let hash = second_factor::recovery_hash(code.expose());
                RecoveryCode::consume(&mut tx, secrets.id, &hash).await?
            }
        };
        tx.commit().await?;
        Ok(good)
    }
}

/// Who tries to log in. Of names that nobody has nothing is kept: passwords are typed there too.
fn who(user: Option<&User>, origin: &Origin) -> Who {
    Who {
        user_id: user.map(|user| user.id),
        name: user.map_or_else(|| "(unknown)".into(), |user| user.name.clone()),
        organisation_id: user.map(|user| user.organisation_id),
        via: Via::Password.name(),
        address: origin.address_text(),
    }
}
