//! The second factor: enrolment, recovery codes, and how it goes.

use strongroom_catalog::identity::{RecoveryCode, User, UserSecrets};
use zeroize::Zeroizing;

use crate::audit::{Deed, Who};
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::Right;
use crate::secret::{Secret, base32_upper, random, random_text, sha256};
use crate::{Error, Result, totp};

/// How many recovery codes there are.
const CODES: usize = 10;
const ISSUER: &str = "Strongroom";

/// What an authenticator app needs. It is shown this once.
#[derive(Clone, Debug)]
pub struct Enrolment {
    /// The secret, in base 32.
    pub secret: Secret,
    /// The same as an address that apps read, also from a QR code.
    pub url: Secret,
}

/// For what a user's secret is sealed.
pub(crate) fn purpose(user: i64) -> String {
    format!("second factor of user {user}")
}

/// The hash of a recovery code, however it was typed.
pub(crate) fn recovery_hash(code: &str) -> [u8; 32] {
    let plain = code.chars().filter(char::is_ascii_alphanumeric).take(64);
    let plain: Zeroizing<String> = Zeroizing::new(plain.map(|c| c.to_ascii_lowercase()).collect());
    sha256(plain.as_bytes())
}

impl Identity {
    /// Begins the enrolment of a second factor for oneself. It counts after
    /// [`Identity::confirm_second_factor`].
    ///
    /// # Errors
    /// [`Error::State`] when there is one already; those of the catalogue.
    pub async fn enrol_second_factor(&self, by: &Principal) -> Result<Enrolment> {
        let id = by.require_user()?;
        by.require_whole()?;
        let secret = random::<{ totp::SECRET }>()?;
        let sealed = self.inner.key.seal(&purpose(id), &secret[..])?;
        let mut change = self.change(Who::from(by)).await?;
        let user = change.user(id).await?;
        if user.second_factor {
            return Err(Error::State("there is a second factor already: remove it first"));
        }
        if user.source != "local" {
            return Err(Error::State(
                "the directory that knows this user has its own second factor",
            ));
        }
        UserSecrets::set_totp(change.tx(), id, Some(sealed)).await?;
        change.commit(Deed::new("second_factor.enrol", &user.name)).await?;
        Ok(Enrolment {
            secret: Secret::new(base32_upper(&secret[..])),
            url: Secret::new(totp::url(&secret[..], &user.name, ISSUER)),
        })
    }

    /// Ends the enrolment with a code, which shows that the app has the secret. Gives recovery
    /// codes, each of which stands for a code once; they are shown this once.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong code; [`Error::State`] when no enrolment is under way.
    pub async fn confirm_second_factor(&self, by: &Principal, code: &str) -> Result<Vec<Secret>> {
        let id = by.require_user()?;
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        let user = change.user(id).await?;
        let secrets = change.tx().find_one::<UserSecrets>(User::by_id(id)).await?;
        let sealed = secrets.filter(|s| !s.totp_confirmed).and_then(|s| s.totp);
        let sealed = sealed.ok_or(Error::State("no enrolment of a second factor is under way"))?;
        let secret = self.inner.key.unseal(&purpose(id), &sealed)?;
        let step = totp::verify(&secret, code, self.inner.clock.now());
        let wrong = || Error::Invalid {
            field: "code",
            why: "it is not the app's code of now: check the clocks of both".into(),
        };
        let step = step.ok_or_else(wrong)?;
        if !UserSecrets::use_step(change.tx(), id, step).await? {
            return Err(wrong());
        }
        UserSecrets::confirm_totp(change.tx(), id).await?;
        let mut codes = Vec::with_capacity(CODES);
        for _ in 0..CODES {
            let text = random_text::<10>()?;
            codes.push(Secret::new(format!(
                "{}-{}-{}-{}",
                &text[..4],
                &text[4..8],
                &text[8..12],
                &text[12..]
            )));
        }
        let hashes: Vec<_> = codes.iter().map(|code| recovery_hash(code.expose())).collect();
        RecoveryCode::replace(change.tx(), id, &hashes).await?;
        change.commit(Deed::new("second_factor.confirm", &user.name)).await?;
        Ok(codes)
    }

    /// Removes a second factor: one's own with one's password, or that of another who lost it,
    /// with the right `user.manage` and no fewer rights than that one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong password; [`Error::Forbidden`].
    pub async fn remove_second_factor(
        &self,
        by: &Principal,
        user: i64,
        password: Option<Secret>,
    ) -> Result<()> {
        by.require_whole()?;
        if by.user_id == Some(user) {
            self.check_own_password(by, password.unwrap_or_default()).await?;
        }
        let mut change = self.change(Who::from(by)).await?;
        let found = change.user(user).await?;
        if by.user_id != Some(user) {
            by.require(Right::UserManage, found.organisation_id, "user")?;
            change.covers(by, user).await?;
        }
        UserSecrets::set_totp(change.tx(), user, None).await?;
        RecoveryCode::replace(change.tx(), user, &[]).await?;
        let deed = Deed::new("second_factor.remove", &found.name).within(found.organisation_id);
        change.commit(deed).await
    }
}
