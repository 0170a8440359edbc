//! Users who come from elsewhere: a directory or an issuer says who they are, and the catalogue has
//! a row for each, made at the first arrival and brought up to date at every other.

use std::collections::BTreeSet;

use strongroom_catalog::identity::{NewUser, Session, Source, SourceGrant, User, UserGroup};

use crate::audit::{Deed, Who};
use crate::change::Change;
use crate::identity::Identity;
use crate::login::NAME;
use crate::origin::{Origin, bounded};
use crate::principal::Via;
use crate::{AuthError, Error, Result};

/// The longest name of a person, and the longest address.
const TEXT: usize = 256;
/// How often one begins anew because of others that came at once.
const TRIES: usize = 8;
/// The longest name by which a source knows somebody.
const EXTERNAL: usize = 512;

/// What a source says of somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// By what the source knows it; it never changes.
    pub(crate) external_id: String,
    /// The name to log in with.
    pub(crate) name: String,
    /// The person's name.
    pub(crate) full_name: String,
    /// The person's address.
    pub(crate) email: String,
    /// The groups it is in, as they are compared.
    pub(crate) groups: BTreeSet<String>,
}

impl Arrival {
    /// What fits the catalogue. None: it has no name of its own.
    fn fitting(mut self) -> Option<Self> {
        let is_name = !self.name.is_empty()
            && self.name.len() <= NAME
            && self.name.trim() == self.name
            && !self.name.contains(char::is_control);
        let is_known = !self.external_id.is_empty()
            && self.external_id.len() <= EXTERNAL
            && !self.external_id.contains(char::is_control);
        self.full_name = bounded(&self.full_name, TEXT);
        self.email = bounded(&self.email, TEXT);
        (is_name && is_known).then_some(self)
    }
}

impl Identity {
    /// The user that somebody is here, with the groups that somebody is in there now. `make`: one
    /// who comes for the first time is let in too.
    pub(crate) async fn arrive(
        &self,
        source: &Source,
        make: bool,
        arrival: Arrival,
        via: Via,
        origin: &Origin,
    ) -> Result<User, AuthError> {
        let arrival = arrival.fitting().ok_or(AuthError::Credentials)?;
        for _ in 0..TRIES {
            let (known, groups) = self.known(source, &arrival).await?;
            if let Some(user) = &known
                && self.is_as(user, &arrival, &groups).await?
            {
                return if groups.is_empty() { Err(AuthError::NoRole) } else { Ok(user.clone()) };
            }
            if known.is_none() && (!make || groups.is_empty()) {
                return Err(AuthError::NoRole);
            }
            let who = Who {
                user_id: known.as_ref().map(|user| user.id),
                name: arrival.name.clone(),
                organisation_id: Some(source.organisation_id),
                via: via.name(),
                address: origin.address_text(),
            };
            let mut change = self.change(who).await?;
            let by_external = User::by_external(source.id, &arrival.external_id);
            let now = change.tx().find_one::<User>(by_external).await?;
            if now.as_ref().map(|user| user.version) != known.map(|user| user.version) {
                // Another request of the same one was faster.
                continue;
            }
            let done = if now.is_some() { "follow" } else { "arrive" };
            let user = self.settle(&mut change, source, now, &arrival).await?;
            UserGroup::replace(change.tx(), user.id, &groups).await?;
            if groups.is_empty() {
                Session::remove_of_user(change.tx(), user.id, None).await?;
            }
            let listed = groups.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
            let object = format!("{} of {}", user.name, source.name);
            let deed = Deed::new(&format!("user.{done}"), object).within(user.organisation_id);
            change.commit(deed.detail(format!("groups: {listed}"))).await?;
            return if groups.is_empty() { Err(AuthError::NoRole) } else { Ok(user) };
        }
        Err(AuthError::Internal(Error::Busy))
    }

    /// The user that somebody is here, and those of the groups that matter here.
    async fn known(
        &self,
        source: &Source,
        arrival: &Arrival,
    ) -> Result<(Option<User>, BTreeSet<String>)> {
        let catalog = &self.inner.catalog;
        let mapped = catalog.find::<SourceGrant>(SourceGrant::of_source(source.id)).await?;
        let mapped: BTreeSet<String> = mapped.into_iter().map(|grant| grant.folded).collect();
        let groups = arrival.groups.intersection(&mapped).cloned().collect();
        let by_external = User::by_external(source.id, &arrival.external_id);
        Ok((catalog.find_one::<User>(by_external).await?, groups))
    }

    /// Whether a user is here what it is there.
    async fn is_as(
        &self,
        user: &User,
        arrival: &Arrival,
        groups: &BTreeSet<String>,
    ) -> Result<bool> {
        Ok(user.full_name == arrival.full_name
            && user.email == arrival.email
            && self.groups_of(user.id).await? == *groups
            && (user.name == arrival.name || self.is_held(&arrival.name, user.id).await?))
    }

    async fn groups_of(&self, user: i64) -> Result<BTreeSet<String>> {
        let found = self.inner.catalog.find::<UserGroup>(UserGroup::of_user(user)).await?;
        Ok(found.into_iter().map(|group| group.0).collect())
    }

    /// Whether another user has a name.
    async fn is_held(&self, name: &str, but: i64) -> Result<bool> {
        let holder = self.inner.catalog.find_one::<User>(User::by_name(name)).await?;
        Ok(holder.is_some_and(|holder| holder.id != but))
    }

    /// The row as it is to be. A name that another has stays that one's.
    async fn settle(
        &self,
        change: &mut Change<'_>,
        source: &Source,
        known: Option<User>,
        arrival: &Arrival,
    ) -> Result<User, AuthError> {
        let holder = change.tx().find_one::<User>(User::by_name(&arrival.name)).await?;
        let id = match known {
            Some(user) => {
                let is_free = holder.is_none_or(|holder| holder.id == user.id);
                let name = if is_free { &arrival.name } else { &user.name };
                User::follow(change.tx(), user.id, name, &arrival.full_name, &arrival.email)
                    .await?;
                user.id
            }
            None if holder.is_some() => return Err(AuthError::NameTaken),
            None => {
                let new = NewUser {
                    organisation_id: source.organisation_id,
                    name: arrival.name.clone(),
                    full_name: arrival.full_name.clone(),
                    email: arrival.email.clone(),
                    source: if source.kind == "ldap" { "ldap" } else { "oidc" },
                    source_id: Some(source.id),
                    external_id: Some(arrival.external_id.clone()),
                    must_change: false,
                    delegate_of: None,
                    enabled: true,
                };
                User::insert(change.tx(), &new, None, self.inner.clock.now()).await?
            }
        };
        Ok(change.user(id).await?)
    }
}
