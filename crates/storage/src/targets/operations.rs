//! Targets: making, changing and removing them.

use strongroom_catalog::targets::{self, AuthGroup, Lun, Portal, PortalGroup, Target};
use strongroom_catalog::{Error as CatalogError, Tx};

use super::{
    NewTarget, TargetChange, TargetDetails, TargetState, are_guarded, auth_groups, names,
    portal_groups,
};
use crate::{Error, Result, Storage};

pub(super) fn not_found() -> Error {
    CatalogError::NotFound { what: "target" }.into()
}

pub(super) async fn find(tx: &mut Tx, id: i64) -> Result<Target> {
    tx.find_one(Target::by_id(id)).await?.ok_or_else(not_found)
}

/// That the auth group can be that of a target of this organisation.
async fn is_own(tx: &mut Tx, auth_group: i64, organisation: i64) -> Result<()> {
    let group: Option<AuthGroup> = tx.find_one(AuthGroup::by_id(auth_group)).await?;
    match group {
        Some(group) if group.organisation_id == organisation => Ok(()),
        // As if there were none: nobody is told what others have.
        _ => Err(Error::Invalid(format!(
            "the organisation of the target has no auth group {auth_group}"
        ))),
    }
}

async fn is_there(tx: &mut Tx, portal_group: i64) -> Result<()> {
    match tx.find_one::<PortalGroup>(PortalGroup::by_id(portal_group)).await? {
        Some(_) => Ok(()),
        None => Err(Error::Invalid(format!("there is no portal group {portal_group}"))),
    }
}

impl Storage {
    /// Makes a target, with an auth group of its own if one is said: both or none. It is served when
    /// this returns, unless what [`Storage::target`] tells is in the way.
    ///
    /// # Errors
    /// [`Error::Invalid`], also where it would be open to the network;
    /// [`strongroom_catalog::Error::Exists`]; those of the sealer and the database.
    pub async fn create_target(&self, new: NewTarget) -> Result<TargetDetails> {
        let name = names::checked("a target", &new.name)?;
        let iqn = match &new.iqn {
            Some(iqn) => names::checked_iqn(iqn)?,
            None => names::iqn(&self.inner.node, &name)?,
        };
        let mut tx = self.inner.catalog.begin().await?;
        let auth_group_id = match (new.auth_group_id, new.auth_group) {
            (Some(_), Some(_)) => {
                let text = "a target has one auth group: name one, or say what it is to be";
                return Err(Error::Invalid(text.into()));
            }
            (Some(id), None) => {
                is_own(&mut tx, id, new.organisation_id).await?;
                Some(id)
            }
            (None, Some(mut group)) => {
                group.name.clone_from(&name);
                group.organisation_id = new.organisation_id;
                Some(auth_groups::insert(&mut tx, &*self.inner.sealer, &group).await?)
            }
            (None, None) => None,
        };
        let portal_group_id = match new.portal_group_id {
            Some(id) => {
                is_there(&mut tx, id).await?;
                id
            }
            None => portal_groups::default(&mut tx).await?,
        };
        let (organisation_id, enabled) = (new.organisation_id, new.enabled);
        let public_id = names::public_id()?;
        let entered = targets::NewTarget {
            public_id,
            organisation_id,
            name,
            iqn,
            auth_group_id,
            portal_group_id,
            enabled,
        };
        let id = names::unique("target", Target::insert(&mut tx, entered).await)?;
        are_guarded(&mut tx, &[id], new.open).await?;
        tx.commit().await?;
        self.follow_targets().await;
        self.target(id).await
    }

    /// All that is known of a target.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn target(&self, id: i64) -> Result<TargetDetails> {
        let catalog = &self.inner.catalog;
        let target: Target = catalog.find_one(Target::by_id(id)).await?.ok_or_else(not_found)?;
        let portals: Vec<Portal> = catalog.find(Portal::of(target.portal_group_id)).await?;
        let (state, trouble) = match target.enabled {
            true => self.inner.targets.report(id),
            false => (TargetState::Disabled, None),
        };
        Ok(TargetDetails {
            state,
            trouble,
            portals: portals.into_iter().map(|portal| portal.address).collect(),
            mapped: catalog.find(Lun::of_target(id)).await?,
            sessions: self.target_sessions(id),
            target,
        })
    }

    /// How a target fares, of which the row is at hand.
    pub fn target_state(&self, target: &Target) -> TargetState {
        match target.enabled {
            true => self.inner.targets.report(target.id).0,
            false => TargetState::Disabled,
        }
    }

    /// Changes a target, if its row has that version still (None: whatever it has). Initiators that are
    /// logged in stay so, but where it goes to another portal group or is no longer enabled.
    ///
    /// # Errors
    /// [`Error::Invalid`], also where it would be open to the network; [`Error::InUse`] while
    /// initiators are logged in that would be logged out, unless `force`;
    /// [`strongroom_catalog::Error::Exists`], [`strongroom_catalog::Error::Changed`]; those of the
    /// database.
    pub async fn change_target(
        &self,
        id: i64,
        change: TargetChange,
        version: Option<i64>,
    ) -> Result<TargetDetails> {
        let mut tx = self.inner.catalog.begin().await?;
        let mut row = find(&mut tx, id).await?;
        let before = row.clone();
        row.version = version.unwrap_or(row.version);
        if let Some(name) = &change.name {
            row.name = names::checked("a target", name)?;
        }
        if let Some(group) = change.auth_group_id {
            if let Some(group) = group {
                is_own(&mut tx, group, row.organisation_id).await?;
            }
            row.auth_group_id = group;
        }
        if let Some(group) = change.portal_group_id {
            is_there(&mut tx, group).await?;
            row.portal_group_id = group;
        }
        row.enabled = change.enabled.unwrap_or(row.enabled);
        if before.portal_group_id != row.portal_group_id || (before.enabled && !row.enabled) {
            self.is_idle(id, &before.name, change.force, "change it")?;
        }
        names::unique("target", row.update(&mut tx).await)?;
        let moved = before.portal_group_id != row.portal_group_id;
        if moved || before.auth_group_id != row.auth_group_id {
            are_guarded(&mut tx, &[id], change.open).await?;
        }
        tx.commit().await?;
        self.follow_targets().await;
        self.target(id).await
    }

    /// Removes a target. Its volumes and its auth group stay.
    ///
    /// # Errors
    /// [`Error::InUse`] while volumes are mapped or initiators are logged in, unless `force`;
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn remove_target(&self, id: i64, force: bool) -> Result<()> {
        let mut tx = self.inner.catalog.begin().await?;
        let row = find(&mut tx, id).await?;
        if row.luns > 0 && !force {
            return Err(Error::InUse(format!(
                "{} volumes are mapped to the target {}: unmap them first, or remove it all the \
                 same (--force)",
                row.luns, row.name
            )));
        }
        self.is_idle(id, &row.name, force, "remove it")?;
        Target::remove(&mut tx, id).await?;
        tx.commit().await?;
        self.follow_targets().await;
        Ok(())
    }
}
