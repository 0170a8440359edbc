//! Users: made, changed, given passwords, removed.

use strongroom_catalog as catalog;
use strongroom_catalog::identity::{ApiKey, NewUser, Session, User, UserSecrets, fold};

use crate::audit::{Deed, Who};
use crate::change::Change;
use crate::identity::Identity;
use crate::login::NAME;
use crate::password;
use crate::principal::Principal;
use crate::rights::Right;
use crate::secret::Secret;
use crate::{AuthError, Error, Result};

/// A user that is to be made.
#[derive(Clone, Debug, Default)]
pub struct UserSpec {
    /// The organisation it will belong to.
    pub organisation_id: i64,
    /// The name to log in with.
    pub name: String,
    /// The person's name.
    pub full_name: String,
    /// The person's address.
    pub email: String,
    /// The password; without one it can only have keys.
    pub password: Option<Secret>,
    /// It must choose another password first.
    pub must_change: bool,
    /// The user for whom it will act.
    pub delegate_of: Option<i64>,
}

/// What is to be changed of a user; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct UserChange {
    /// The organisation it belongs to.
    pub organisation_id: Option<i64>,
    /// The person's name.
    pub full_name: Option<String>,
    /// The person's address.
    pub email: Option<String>,
    /// Whether it may log in.
    pub enabled: Option<bool>,
    /// The user for whom it acts; the inner option is the new value.
    pub delegate_of: Option<Option<i64>>,
}

impl Identity {
    /// Makes a user, who may do nothing until a role is granted. Needs the right `user.manage` in
    /// the organisation; for a delegate also no fewer rights than the one acted for.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`], [`Error::NotFound`]; a name that is taken.
    pub async fn create_user(&self, by: &Principal, spec: UserSpec) -> Result<User> {
        by.require(Right::UserManage, spec.organisation_id, "organisation")?;
        by.require_whole()?;
        check_name("name", &spec.name)?;
        check_text("full_name", &spec.full_name, 256)?;
        check_text("email", &spec.email, 256)?;
        let hash = match spec.password {
            Some(password) => {
                password::check(&password, &spec.name, self.policy().shortest_password)?;
                Some(self.inner.passwords.hash(password).await?)
            }
            None => None,
        };
        let mut change = self.change(Who::from(by)).await?;
        change.organisation(spec.organisation_id).await?;
        if let Some(other) = spec.delegate_of {
            check_delegate(&mut change, by, None, other).await?;
        }
        let new = NewUser {
            organisation_id: spec.organisation_id,
            name: spec.name,
            full_name: spec.full_name,
            email: spec.email,
            source: "local",
            source_id: None,
            external_id: None,
            must_change: spec.must_change,
            delegate_of: spec.delegate_of,
            enabled: true,
        };
        let now = self.inner.clock.now();
        let made = User::insert(change.tx(), &new, hash.as_deref(), now).await;
        let id = made.map_err(taken("user name"))?;
        let user = change.user(id).await?;
        change.commit(Deed::new("user.create", &user.name).within(user.organisation_id)).await?;
        Ok(user)
    }

    /// Changes a user, unless it was changed since that version was read. Needs the right
    /// `user.manage`, and no fewer rights than that user.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`], [`Error::NotFound`],
    /// [`Error::LastAdministrator`].
    pub async fn change_user(
        &self,
        by: &Principal,
        id: i64,
        version: Option<i64>,
        what: UserChange,
    ) -> Result<User> {
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        change.guard();
        let mut user = self.managed(&mut change, by, id).await?;
        user.version = version.unwrap_or(user.version);
        if let Some(organisation) = what.organisation_id {
            by.require(Right::UserManage, organisation, "organisation")?;
            user.organisation_id = change.organisation(organisation).await?.id;
            ApiKey::move_with(change.tx(), id, organisation).await?;
        }
        if let Some(name) = what.full_name {
            check_text("full_name", &name, 256)?;
            user.full_name = name;
        }
        if let Some(email) = what.email {
            check_text("email", &email, 256)?;
            user.email = email;
        }
        if let Some(delegate_of) = what.delegate_of {
            if let Some(other) = delegate_of {
                check_delegate(&mut change, by, Some(id), other).await?;
            } else if user.delegate_of.is_some() {
                // What the other's rights cut off would come back.
                change.covers(by, id).await?;
            }
            user.delegate_of = delegate_of;
        }
        user.enabled = what.enabled.unwrap_or(user.enabled);
        user.update(change.tx()).await?;
        if !user.enabled {
            Session::remove_of_user(change.tx(), id, None).await?;
        }
        let user = change.user(id).await?;
        let deed = Deed::new("user.change", &user.name).within(user.organisation_id);
        let deed = deed.detail(if user.enabled { "" } else { "disabled" });
        change.commit(deed).await?;
        Ok(user)
    }

    /// Gives a user another password, and ends its sessions. Needs what [`Identity::change_user`]
    /// does.
    ///
    /// # Errors
    /// As [`Identity::change_user`].
    pub async fn set_password(
        &self,
        by: &Principal,
        id: i64,
        new: Secret,
        must_change: bool,
    ) -> Result<()> {
        by.require_whole()?;
        // Before the slow part: one who may not do it makes no work.
        let user = self.inner.catalog.find_one::<User>(User::by_id(id)).await?;
        let user = user.ok_or(Error::NotFound { what: "user" })?;
        by.require(Right::UserManage, user.organisation_id, "user")?;
        password::check(&new, &user.name, self.policy().shortest_password)?;
        let hash = self.inner.passwords.hash(new).await?;
        let mut change = self.change(Who::from(by)).await?;
        let user = self.managed(&mut change, by, id).await?;
        local(&user)?;
        UserSecrets::set_password(change.tx(), id, &hash, must_change).await?;
        UserSecrets::unblock(change.tx(), id).await?;
        Session::remove_of_user(change.tx(), id, None).await?;
        let deed = Deed::new("user.set_password", &user.name).within(user.organisation_id);
        change.commit(deed).await?;
        self.inner.backoff.forget(&fold(&user.name));
        Ok(())
    }

    /// Changes one's own password, and ends one's other sessions.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a wrong old or an unfit new one.
    pub async fn change_own_password(
        &self,
        by: &Principal,
        old: Secret,
        new: Secret,
    ) -> Result<()> {
        let id = by.require_user()?;
        by.require_whole()?;
        password::check(&new, &by.name, self.policy().shortest_password)?;
        if old.expose() == new.expose() {
            let why = "it is the one you have".into();
            return Err(Error::Invalid { field: "password", why });
        }
        self.check_own_password(by, old).await?;
        let hash = self.inner.passwords.hash(new).await?;
        let mut change = self.change(Who::from(by)).await?;
        let user = change.user(id).await?;
        local(&user)?;
        UserSecrets::set_password(change.tx(), id, &hash, false).await?;
        Session::remove_of_user(change.tx(), id, by.session_id).await?;
        change.commit(Deed::new("user.change_password", &user.name)).await
    }

    /// Refuses a wrong password of one who is logged in; failures count as those of logins do.
    pub(crate) async fn check_own_password(&self, by: &Principal, password: Secret) -> Result<()> {
        let id = by.require_user()?;
        let inner = &self.inner;
        let attempt =
            inner.backoff.begin(&fold(&by.name), by.address, inner.clock.now(), self.policy());
        let attempt = attempt.map_err(|wait| Error::Invalid {
            field: "password",
            why: AuthError::Blocked { wait }.to_string(),
        })?;
        let secrets = inner.catalog.find_one::<UserSecrets>(User::by_id(id)).await?;
        let right = inner.passwords.verify(password, secrets.and_then(|s| s.password)).await?;
        if !right {
            let deed = Deed::new("user.check_password", &by.name);
            self.record(by, deed.failed(AuthError::Credentials.word())).await?;
            return Err(Error::Invalid { field: "password", why: "it is not yours".into() });
        }
        attempt.passed();
        Ok(())
    }

    /// Removes a user, with its keys and sessions. Needs what [`Identity::change_user`] does.
    ///
    /// # Errors
    /// As [`Identity::change_user`]; [`Error::InUse`] when others act for it.
    pub async fn remove_user(&self, by: &Principal, id: i64) -> Result<()> {
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        change.guard();
        let user = self.managed(&mut change, by, id).await?;
        if change.tx().find_one::<User>(User::delegates_of(id)).await?.is_some() {
            let by = "others act for this user: remove them first";
            return Err(Error::InUse { what: "user", by });
        }
        User::remove(change.tx(), id).await?;
        change.commit(Deed::new("user.remove", &user.name).within(user.organisation_id)).await
    }

    /// The user, if the other may change it.
    async fn managed(&self, change: &mut Change<'_>, by: &Principal, id: i64) -> Result<User> {
        let user = change.user(id).await?;
        by.require(Right::UserManage, user.organisation_id, "user")?;
        change.covers(by, id).await?;
        Ok(user)
    }
}

/// Refuses to let one act for another who acts for somebody already, or for whom the one who makes
/// it so could not.
async fn check_delegate(
    change: &mut Change<'_>,
    by: &Principal,
    delegate: Option<i64>,
    other: i64,
) -> Result<()> {
    let wrong = |why: &str| Err(Error::Invalid { field: "delegate_of", why: why.into() });
    let user = change.user(other).await?;
    by.require(Right::UserManage, user.organisation_id, "user")?;
    change.covers(by, other).await?;
    if delegate == Some(other) {
        return wrong("nobody acts for oneself");
    }
    if user.delegate_of.is_some() {
        return wrong("that user acts for another: name that one");
    }
    if let Some(delegate) = delegate
        && change.tx().find_one::<User>(User::delegates_of(delegate)).await?.is_some()
    {
        return wrong("others act for this user, so it can't act for another");
    }
    Ok(())
}

fn local(user: &User) -> Result<()> {
    match user.source.as_str() {
        "local" => Ok(()),
        _ => Err(Error::State("this user's password is kept by a directory: change it there")),
    }
}

/// A name that another has is told as that, not as a column.
pub(crate) fn taken(what: &str) -> impl FnOnce(catalog::Error) -> catalog::Error {
    move |error| match error {
        catalog::Error::Exists { .. } => catalog::Error::Exists { what: what.into() },
        other => other,
    }
}

/// Refuses what is no name.
pub(crate) fn check_name(field: &'static str, name: &str) -> Result<()> {
    check_text(field, name, NAME)?;
    if name.is_empty() || name.trim() != name {
        let why = "it must not be empty, nor begin or end with a space".into();
        return Err(Error::Invalid { field, why });
    }
    Ok(())
}

/// Refuses text that is too long or has control characters.
pub(crate) fn check_text(field: &'static str, text: &str, most: usize) -> Result<()> {
    if text.len() > most {
        return Err(Error::Invalid { field, why: format!("it may have {most} bytes at most") });
    }
    if text.chars().any(char::is_control) {
        return Err(Error::Invalid { field, why: "it may not have control characters".into() });
    }
    Ok(())
}
