//! Directories and issuers of tokens: made, changed, removed.
//!
//! Whoever may change one can let anybody in as whatever its groups are mapped to. So it needs the
//! right `directory.manage` in the topmost organisation, and every right of every role that a group
//! has there, before and after the change.

use std::collections::BTreeSet;

use serde::Serialize;
use serde::de::DeserializeOwned;
use strongroom_catalog as catalog;
use strongroom_catalog::identity::{Source, SourceGrant, SourceSecret};
use zeroize::Zeroizing;

use crate::audit::{Deed, Who};
use crate::change::Change;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::{Right, RightSet};
use crate::roles;
use crate::secret::Secret;
use crate::users::{check_name, check_text, taken};
use crate::{Error, Result};

/// Groups that have a role, at most.
const GROUPS: usize = 1000;
/// The longest name of a group, in bytes.
const GROUP: usize = 1024;
/// The longest secret, in bytes.
const SECRET: usize = 1024;

/// How a kind of source is asked: what stands in the catalogue as JSON.
pub trait Settings: Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What users of it have as their `source`.
    const KIND: &'static str;
    /// What one is called.
    const NOUN: &'static str;

    /// Refuses what can't be right.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    fn check(&self) -> Result<()>;

    /// A group's name as it is compared.
    fn fold(group: &str) -> String;

    /// Whether a secret that is kept goes to where it went before.
    fn same_place(&self, before: &Self) -> bool;
}

/// Whoever is in a group there has a role here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRole {
    /// The group.
    pub group: String,
    /// The role.
    pub role_id: i64,
    /// Where, and in those below it.
    pub organisation_id: i64,
}

impl From<SourceGrant> for GroupRole {
    fn from(grant: SourceGrant) -> Self {
        let SourceGrant { group, role_id, organisation_id, .. } = grant;
        Self { group, role_id, organisation_id }
    }
}

/// A directory or issuer as it is to be.
#[derive(Clone, Debug)]
pub struct SourceSpec<S> {
    /// Its name.
    pub name: String,
    /// Where its users belong.
    pub organisation_id: i64,
    /// Whether its users may log in.
    pub enabled: bool,
    /// How it is asked.
    pub settings: S,
    /// What the appliance itself logs in with there; none: what it had.
    pub secret: Option<Secret>,
    /// Which roles its groups have.
    pub groups: Vec<GroupRole>,
}

/// A directory or issuer as it is.
#[derive(Clone, Debug)]
pub struct Sourced<S> {
    /// Its row.
    pub row: Source,
    /// How it is asked.
    pub settings: S,
    /// Which roles its groups have.
    pub groups: Vec<GroupRole>,
}

/// For what a source's secret is sealed.
fn purpose(id: i64) -> String {
    format!("secret of source {id}")
}

impl Identity {
    /// A directory or issuer.
    ///
    /// # Errors
    /// [`Error::NotFound`]; those of the catalogue.
    pub async fn source<S: Settings>(&self, id: i64) -> Result<Sourced<S>> {
        let catalog = &self.inner.catalog;
        let row = catalog.find_one::<Source>(Source::by_id(S::KIND, id)).await?;
        let row = row.ok_or(Error::NotFound { what: S::NOUN })?;
        let groups = catalog.find::<SourceGrant>(SourceGrant::of_source(id)).await?;
        sourced(row, groups)
    }

    /// Makes one.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`], [`Error::NotFound`]; a name that is taken.
    pub async fn create_source<S: Settings>(
        &self,
        by: &Principal,
        spec: SourceSpec<S>,
    ) -> Result<Sourced<S>> {
        check(by, &spec)?;
        let mut change = self.change(Who::from(by)).await?;
        change.organisation(spec.organisation_id).await?;
        let groups = folded::<S>(&spec.groups);
        holds(&mut change, by, &groups).await?;
        let row = Source {
            id: 0,
            kind: S::KIND.into(),
            name: spec.name,
            organisation_id: spec.organisation_id,
            enabled: spec.enabled,
            settings: written(&spec.settings)?,
            has_secret: false,
            created_at: self.inner.clock.now(),
            version: 1,
        };
        let id = row.insert(change.tx()).await.map_err(taken("name"))?;
        if let Some(secret) = spec.secret {
            let sealed = self.inner.key.seal(&purpose(id), secret.expose().as_bytes())?;
            Source::set_secret(change.tx(), id, Some(sealed)).await?;
        }
        SourceGrant::replace(change.tx(), id, &groups).await?;
        let made = find::<S>(&mut change, id).await?;
        change.commit(deed::<S>("create", &made)).await?;
        Ok(made)
    }

    /// Makes one what is given, unless it was changed since that version was read. Who can't log in
    /// any more, or might have fewer rights, has no session any more.
    ///
    /// # Errors
    /// As [`Identity::create_source`].
    pub async fn change_source<S: Settings>(
        &self,
        by: &Principal,
        id: i64,
        version: Option<i64>,
        spec: SourceSpec<S>,
    ) -> Result<Sourced<S>> {
        check(by, &spec)?;
        let mut change = self.change(Who::from(by)).await?;
        let before = find::<S>(&mut change, id).await?;
        let (old, new) = (folded::<S>(&before.groups), folded::<S>(&spec.groups));
        holds(&mut change, by, &old).await?;
        holds(&mut change, by, &new).await?;
        change.organisation(spec.organisation_id).await?;
        let keeps = spec.secret.is_none() && before.row.has_secret;
        if keeps && !spec.settings.same_place(&before.settings) {
            let why = "it would be sent to another place than before: give it again";
            return Err(Error::Invalid { field: "secret", why: why.into() });
        }
        let row = Source {
            version: version.unwrap_or(before.row.version),
            name: spec.name,
            organisation_id: spec.organisation_id,
            enabled: spec.enabled,
            settings: written(&spec.settings)?,
            ..before.row
        };
        row.update(change.tx()).await.map_err(taken("name"))?;
        if let Some(secret) = spec.secret {
            let secret = secret.expose();
            let sealed = match secret.is_empty() {
                true => None,
                false => Some(self.inner.key.seal(&purpose(id), secret.as_bytes())?),
            };
            Source::set_secret(change.tx(), id, sealed).await?;
        }
        SourceGrant::replace(change.tx(), id, &new).await?;
        let fewer = old.iter().any(|grant| !new.contains(grant));
        if fewer || !row.enabled {
            Source::end_sessions(change.tx(), id).await?;
        }
        let made = find::<S>(&mut change, id).await?;
        change.commit(deed::<S>("change", &made)).await?;
        Ok(made)
    }

    /// Removes one of which there are no users.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Forbidden`], [`Error::NotFound`].
    pub async fn remove_source<S: Settings>(&self, by: &Principal, id: i64) -> Result<()> {
        manages(by)?;
        let mut change = self.change(Who::from(by)).await?;
        let found = find::<S>(&mut change, id).await?;
        holds(&mut change, by, &folded::<S>(&found.groups)).await?;
        match Source::remove(change.tx(), id).await {
            Err(catalog::Error::Referenced { .. }) => {
                let by = "users came from it: remove those first, or switch it off";
                return Err(Error::InUse { what: S::NOUN, by });
            }
            other => other?,
        }
        change.commit(deed::<S>("remove", &found)).await
    }

    /// All that are not switched off, the oldest first.
    pub(crate) async fn enabled_sources<S: Settings>(&self) -> Result<Vec<(Source, S)>> {
        let rows = self.inner.catalog.find::<Source>(Source::enabled(S::KIND)).await?;
        rows.into_iter().map(|row| read(&row).map(|settings| (row, settings))).collect()
    }

    /// What the appliance itself logs in with there.
    pub(crate) async fn secret_of(&self, id: i64) -> Result<Option<Secret>> {
        let found = self.inner.catalog.find_one::<SourceSecret>(Source::of_any_kind(id)).await?;
        let Some(sealed) = found.and_then(|found| found.0) else { return Ok(None) };
        let bytes: Zeroizing<Vec<u8>> = self.inner.key.unseal(&purpose(id), &sealed)?;
        let text = std::str::from_utf8(&bytes);
        let text = text.map_err(|_| Error::Sealed { purpose: purpose(id) })?;
        Ok(Some(Secret::new(text)))
    }
}

/// Refuses one who may not change directories and issuers.
pub(crate) fn manages(by: &Principal) -> Result<()> {
    by.require_whole()?;
    if !by.has(Right::DirectoryManage, by.root()) {
        let right = Right::DirectoryManage;
        let why = format!("it needs the right `{right}` in the topmost organisation");
        return Err(Error::Forbidden { why });
    }
    Ok(())
}

fn check<S: Settings>(by: &Principal, spec: &SourceSpec<S>) -> Result<()> {
    manages(by)?;
    check_name("name", &spec.name)?;
    spec.settings.check()?;
    let long = spec.secret.as_ref().is_some_and(|secret| secret.expose().len() > SECRET);
    if long {
        let why = format!("it may have {SECRET} bytes at most");
        return Err(Error::Invalid { field: "secret", why });
    }
    if spec.groups.len() > GROUPS {
        let why = format!("there may be {GROUPS} at most");
        return Err(Error::Invalid { field: "groups", why });
    }
    for group in &spec.groups {
        check_text("groups", &group.group, GROUP)?;
        if S::fold(&group.group).is_empty() {
            let why = "a group without a name is no group".into();
            return Err(Error::Invalid { field: "groups", why });
        }
    }
    Ok(())
}

/// Refuses one who lets others in as more than it is itself.
async fn holds(change: &mut Change<'_>, by: &Principal, groups: &[SourceGrant]) -> Result<()> {
    let places: BTreeSet<_> = groups.iter().map(|g| (g.role_id, g.organisation_id)).collect();
    for (role, organisation) in places {
        let role = roles::find(change, role).await?;
        let organisation = change.organisation(organisation).await?;
        roles::holds(by, RightSet::stored(&role.rights), organisation.id)?;
    }
    Ok(())
}

fn folded<S: Settings>(groups: &[GroupRole]) -> Vec<SourceGrant> {
    let fold = |group: &GroupRole| SourceGrant {
        group: group.group.clone(),
        folded: S::fold(&group.group),
        role_id: group.role_id,
        organisation_id: group.organisation_id,
    };
    groups.iter().map(fold).collect()
}

async fn find<S: Settings>(change: &mut Change<'_>, id: i64) -> Result<Sourced<S>> {
    let row = change.tx().find_one::<Source>(Source::by_id(S::KIND, id)).await?;
    let row = row.ok_or(Error::NotFound { what: S::NOUN })?;
    let groups = change.tx().find::<SourceGrant>(SourceGrant::of_source(id)).await?;
    sourced(row, groups)
}

fn sourced<S: Settings>(row: Source, groups: Vec<SourceGrant>) -> Result<Sourced<S>> {
    let settings = read(&row)?;
    Ok(Sourced { row, settings, groups: groups.into_iter().map(GroupRole::from).collect() })
}

fn read<S: Settings>(row: &Source) -> Result<S> {
    let damaged = "the settings of a directory or issuer are damaged: write them again";
    serde_json::from_str(&row.settings).map_err(|_| Error::State(damaged))
}

fn written<S: Settings>(settings: &S) -> Result<String> {
    let broken = "the settings can't be written";
    serde_json::to_string(settings).map_err(|_| Error::State(broken))
}

/// The line of the audit trail: also how it is asked, for that is what lets others in.
fn deed<S: Settings>(done: &str, what: &Sourced<S>) -> Deed {
    let mut detail = if what.row.enabled { String::new() } else { "switched off; ".to_owned() };
    for GroupRole { group, role_id, organisation_id } in &what.groups {
        detail.push_str(&format!("{group}: role {role_id} in {organisation_id}; "));
    }
    detail.push_str(&what.row.settings);
    Deed::new(&format!("{}.{done}", S::NOUN), &what.row.name).detail(detail)
}
