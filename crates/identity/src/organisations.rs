//! Organisations: a tree. What is granted in one is had in all below it.

use strongroom_catalog as catalog;
use strongroom_catalog::identity::{Approval, Organisation};

use crate::audit::{Deed, Who};
use crate::change::Change;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::Right;
use crate::users::{check_name, check_text, taken};
use crate::{Error, Result};

/// How deep the tree may be.
const DEEPEST: usize = 32;

/// What is to be changed of an organisation; what is none stays.
#[derive(Clone, Debug, Default)]
pub struct OrganisationChange {
    /// Its name.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// The one it is part of.
    pub parent_id: Option<i64>,
}

impl Identity {
    /// Makes an organisation that is part of another, in which the right `organisation.manage` is
    /// needed.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`], [`Error::NotFound`]; a name that a sibling has.
    pub async fn create_organisation(
        &self,
        by: &Principal,
        parent: i64,
        name: &str,
        description: &str,
    ) -> Result<Organisation> {
        by.require(Right::OrganisationManage, parent, "organisation")?;
        by.require_whole()?;
        check_name("name", name)?;
        check_text("description", description, 1024)?;
        let mut change = self.change(Who::from(by)).await?;
        check_place(&mut change, None, parent).await?;
        let now = self.inner.clock.now();
        let made = Organisation::insert(change.tx(), Some(parent), name, description, now).await;
        let id = made.map_err(taken("organisation name"))?;
        let made = change.organisation(id).await?;
        change.commit(Deed::new("organisation.create", name).within(id)).await?;
        Ok(made)
    }

    /// Changes an organisation, unless it was changed since that version was read. The right
    /// `organisation.manage` is needed in it; to move it, also in the one it comes from and the one
    /// it goes to.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a place below itself; as [`Identity::create_organisation`].
    pub async fn change_organisation(
        &self,
        by: &Principal,
        id: i64,
        version: Option<i64>,
        what: OrganisationChange,
    ) -> Result<Organisation> {
        by.require(Right::OrganisationManage, id, "organisation")?;
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        let mut found = change.organisation(id).await?;
        found.version = version.unwrap_or(found.version);
        if let Some(name) = what.name {
            check_name("name", &name)?;
            found.name = name;
        }
        if let Some(description) = what.description {
            check_text("description", &description, 1024)?;
            found.description = description;
        }
        if let Some(parent) = what.parent_id.filter(|parent| found.parent_id != Some(*parent)) {
            let Some(before) = found.parent_id else {
                let why = "the topmost organisation is part of no other".into();
                return Err(Error::Invalid { field: "parent_id", why });
            };
            by.require(Right::OrganisationManage, before, "organisation")?;
            by.require(Right::OrganisationManage, parent, "organisation")?;
            check_place(&mut change, Some(id), parent).await?;
            found.parent_id = Some(parent);
        }
        found.update(change.tx()).await.map_err(taken("organisation name"))?;
        let found = change.organisation(id).await?;
        change.commit(Deed::new("organisation.change", &found.name).within(id)).await?;
        Ok(found)
    }

    /// Removes an organisation to which nothing belongs. The right `organisation.manage` is needed
    /// in the one that it is part of.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Forbidden`], [`Error::NotFound`].
    pub async fn remove_organisation(&self, by: &Principal, id: i64) -> Result<()> {
        by.require_whole()?;
        if !by.sees(id) {
            return Err(Error::NotFound { what: "organisation" });
        }
        let mut change = self.change(Who::from(by)).await?;
        let found = change.organisation(id).await?;
        let Some(parent) = found.parent_id else {
            return Err(Error::State("the topmost organisation can't be removed"));
        };
        by.require(Right::OrganisationManage, parent, "organisation")?;
        let in_use = "something belongs to it (users, pools, images, jobs, approvals, roles granted in it, or other organisations): remove or move that first";
        Approval::remove_ended(change.tx(), id, self.inner.clock.now()).await?;
        match Organisation::remove(change.tx(), id).await {
            Err(catalog::Error::Referenced { .. }) => {
                return Err(Error::InUse { what: "organisation", by: in_use });
            }
            other => other?,
        }
        change.commit(Deed::new("organisation.remove", &found.name).within(parent)).await
    }
}

/// Refuses a place below the organisation itself, or too deep. Nobody else changes the tree
/// meanwhile: the change has the lock.
async fn check_place(change: &mut Change<'_>, id: Option<i64>, parent: i64) -> Result<()> {
    let wrong = |why: String| Err(Error::Invalid { field: "parent_id", why });
    let mut at = Some(parent);
    for _ in 0..DEEPEST {
        let Some(here) = at else { return Ok(()) };
        if Some(here) == id {
            return wrong("an organisation can't be part of itself or of one below it".into());
        }
        at = change.organisation(here).await?.parent_id;
    }
    wrong(format!("organisations may be nested {DEEPEST} deep"))
}
