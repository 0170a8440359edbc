//! Portal groups: where targets are reached.

use std::net::SocketAddr;

use strongroom_catalog::identity::Organisation;
use strongroom_catalog::targets::{Portal, PortalGroup, Target};
use strongroom_catalog::{Error as CatalogError, Tx};

use super::{PortalDetails, PortalGroupDetails, are_guarded, names};
use crate::{Error, Result, Storage};

/// The portal group that targets have when nobody says another, and where it is.
const DEFAULT: &str = "default";
const DEFAULT_PORTAL: &str = "127.0.0.1:3260";
/// Portals of a group at most: each is a thread.
const MAX_PORTALS: usize = 32;

fn not_found() -> Error {
    CatalogError::NotFound { what: "portal group" }.into()
}

async fn find(tx: &mut Tx, id: i64) -> Result<PortalGroup> {
    tx.find_one(PortalGroup::by_id(id)).await?.ok_or_else(not_found)
}

/// The address of a portal in its normal form.
fn checked(address: &str) -> Result<String> {
    let invalid = || {
        Error::Invalid(format!(
            "`{address}` is no portal: write ADDRESS:PORT with an address of this machine, like \
             192.0.2.7:3260 or [2001:db8::7]:3260; 0.0.0.0 stands for all of them"
        ))
    };
    // Without a port it is that of iSCSI.
    let parsed = address.parse::<SocketAddr>().ok();
    let parsed = parsed.or_else(|| Some(SocketAddr::new(address.parse().ok()?, 3260)));
    let parsed = parsed.filter(|one| one.port() > 0).ok_or_else(invalid)?;
    Ok(SocketAddr::new(parsed.ip().to_canonical(), parsed.port()).to_string())
}

/// The number of the portal group `default`, which is made when it isn't there.
pub(super) async fn default(tx: &mut Tx) -> Result<i64> {
    let root: Option<Organisation> = tx.find_one(Organisation::root()).await?;
    let root = root.ok_or(CatalogError::NotFound { what: "organisation" })?.id;
    if let Some(group) = tx.find_one::<PortalGroup>(PortalGroup::named(root, DEFAULT)).await? {
        return Ok(group.id);
    }
    let all: Vec<Portal> = tx.find(Portal::all()).await?;
    if all.iter().any(|portal| portal.address == DEFAULT_PORTAL) {
        return Err(Error::Invalid(format!(
            "there is no portal group `{DEFAULT}`, and another one has its address \
             {DEFAULT_PORTAL}: say which portal group the target is to have"
        )));
    }
    let id = PortalGroup::insert(tx, root, &names::public_id()?, DEFAULT).await?;
    Portal::insert(tx, id, &names::public_id()?, DEFAULT_PORTAL).await?;
    Ok(id)
}

async fn add(tx: &mut Tx, group: i64, address: &str) -> Result<()> {
    let address = checked(address)?;
    let inserted = Portal::insert(tx, group, &names::public_id()?, &address).await;
    names::unique(&format!("portal ({address}) in a portal group"), inserted).map(drop)
}

async fn affected(tx: &mut Tx, group: i64) -> Result<Vec<i64>> {
    let targets: Vec<Target> = tx.find(Target::of_portal_group(group)).await?;
    Ok(targets.iter().map(|target| target.id).collect())
}

impl Storage {
    /// The portal group that targets have when nobody says another; it is made when it isn't there.
    ///
    /// # Errors
    /// [`Error::Invalid`] when another group has its address; those of the database.
    pub async fn default_portal_group(&self) -> Result<PortalGroupDetails> {
        let mut tx = self.inner.catalog.begin().await?;
        let id = default(&mut tx).await?;
        tx.commit().await?;
        self.portal_group(id).await
    }

    /// Makes a portal group of these addresses.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`strongroom_catalog::Error::Exists`] for a name, or an address that a group
    /// has; those of the database.
    pub async fn create_portal_group(
        &self,
        organisation: i64,
        name: &str,
        portals: &[String],
    ) -> Result<PortalGroupDetails> {
        let name = names::checked("a portal group", name)?;
        if portals.len() > MAX_PORTALS {
            return Err(too_many());
        }
        let mut tx = self.inner.catalog.begin().await?;
        let inserted =
            PortalGroup::insert(&mut tx, organisation, &names::public_id()?, &name).await;
        let id = names::unique("portal group", inserted)?;
        for address in portals {
            add(&mut tx, id, address).await?;
        }
        tx.commit().await?;
        self.portal_group(id).await
    }

    /// A portal group, and whether it listens.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn portal_group(&self, id: i64) -> Result<PortalGroupDetails> {
        let catalog = &self.inner.catalog;
        let group = catalog.find_one(PortalGroup::by_id(id)).await?.ok_or_else(not_found)?;
        Ok(self.with_portals(group, catalog.find(Portal::of(id)).await?))
    }

    /// Portal groups of which the rows are at hand, and whether they listen.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn portal_groups(&self, groups: Vec<PortalGroup>) -> Result<Vec<PortalGroupDetails>> {
        let of = |portal: &Portal| portal.portal_group_id;
        let mut portals = self.inner.catalog.find_by(Portal::all(), of).await?;
        let details = |group: PortalGroup| {
            let portals = portals.remove(&group.id).unwrap_or_default();
            self.with_portals(group, portals)
        };
        Ok(groups.into_iter().map(details).collect())
    }

    fn with_portals(&self, group: PortalGroup, portals: Vec<Portal>) -> PortalGroupDetails {
        let tell = |portal: Portal| {
            let (listening, trouble) = self.inner.targets.portal(group.id, &portal.address);
            PortalDetails { portal, listening, trouble }
        };
        let portals = portals.into_iter().map(tell).collect();
        PortalGroupDetails { group, portals }
    }

    /// Gives a portal group another name, if its row has that version still (None: whatever it has).
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`strongroom_catalog::Error::Exists`],
    /// [`strongroom_catalog::Error::Changed`]; those of the database.
    pub async fn rename_portal_group(
        &self,
        id: i64,
        name: &str,
        version: Option<i64>,
    ) -> Result<PortalGroupDetails> {
        let mut tx = self.inner.catalog.begin().await?;
        let mut group = find(&mut tx, id).await?;
        group.version = version.unwrap_or(group.version);
        group.name = names::checked("a portal group", name)?;
        names::unique("portal group", group.update(&mut tx).await)?;
        tx.commit().await?;
        self.portal_group(id).await
    }

    /// Gives a portal group another address as well.
    ///
    /// # Errors
    /// [`Error::Invalid`], also where a target would be open to the network, unless `open`;
    /// [`strongroom_catalog::Error::Exists`] for an address that a group has; those of the database.
    pub async fn add_portal(
        &self,
        group: i64,
        address: &str,
        open: bool,
    ) -> Result<PortalGroupDetails> {
        let mut tx = self.inner.catalog.begin().await?;
        find(&mut tx, group).await?;
        if tx.find::<Portal>(Portal::of(group)).await?.len() >= MAX_PORTALS {
            return Err(too_many());
        }
        add(&mut tx, group, address).await?;
        let affected = affected(&mut tx, group).await?;
        are_guarded(&mut tx, &affected, open).await?;
        tx.commit().await?;
        self.follow_targets().await;
        self.portal_group(group).await
    }

    /// Takes an address from a portal group. Initiators that came in by it stay logged in.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`Error::Invalid`]; those of the database.
    pub async fn remove_portal(&self, group: i64, address: &str) -> Result<PortalGroupDetails> {
        let address = checked(address)?;
        let mut tx = self.inner.catalog.begin().await?;
        Portal::remove(&mut tx, group, &address).await?;
        tx.commit().await?;
        self.follow_targets().await;
        self.portal_group(group).await
    }

    /// Removes a portal group that no target has.
    ///
    /// # Errors
    /// [`Error::InUse`]; [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn remove_portal_group(&self, id: i64) -> Result<()> {
        let mut tx = self.inner.catalog.begin().await?;
        let group = find(&mut tx, id).await?;
        let having: Vec<Target> = tx.find(Target::of_portal_group(id)).await?;
        if !having.is_empty() {
            return Err(names::in_use("portal group", &group.name, &having));
        }
        PortalGroup::remove(&mut tx, id).await?;
        Ok(tx.commit().await?)
    }
}

fn too_many() -> Error {
    Error::Invalid(format!("a portal group has {MAX_PORTALS} portals at most"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn portals_are_addresses_with_a_port() {
        for (given, kept) in [
            ("127.0.0.1:3260", "127.0.0.1:3260"),
            ("192.0.2.7", "192.0.2.7:3260"),
            ("[::ffff:127.0.0.1]:3261", "127.0.0.1:3261"),
            ("::1", "[::1]:3260"),
            ("[2001:DB8::7]:1", "[2001:db8::7]:1"),
        ] {
            assert_eq!(checked(given).unwrap(), kept);
        }
        for bad in ["", "localhost:3260", "127.0.0.1:0", "127.0.0.1:65536", "::1:"] {
            assert!(checked(bad).is_err(), "{bad}");
        }
    }
}
