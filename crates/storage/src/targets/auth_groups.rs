//! Auth groups: who may log in to targets.

use std::collections::HashMap;

use strongroom_catalog::targets::{self, AuthGroup, ChapSecrets, Initiator, Target};
use strongroom_catalog::{Error as CatalogError, Tx};
use strongroom_iscsi as iscsi;
use zeroize::Zeroizing;

use super::{
    AuthGroupChange, AuthGroupDetails, AuthGroupSecrets, Chap, NewAuthGroup, are_guarded, names,
};
use crate::{Error, Result, Sealer, Storage};

/// Initiators that a group names at most.
const MAX_INITIATORS: usize = 1024;
/// Bytes of what users call one.
const MAX_ALIAS: usize = 128;

/// What a secret is for.
#[derive(Clone, Copy, Debug)]
enum Side {
    Initiator,
    Target,
}

/// What a secret of a group is sealed for: that of another group can't be put in its place.
fn purpose(group: &str, side: Side) -> String {
    match side {
        Side::Initiator => format!("CHAP secret of auth group {group}"),
        Side::Target => format!("mutual CHAP secret of auth group {group}"),
    }
}

fn invalid(error: iscsi::Error) -> Error {
    Error::Invalid(error.to_string())
}

/// What may log in, as the server takes it.
///
/// # Errors
/// [`Error::Invalid`].
pub(super) fn group<'a>(
    secrets: &AuthGroupSecrets,
    initiators: impl ExactSizeIterator<Item = &'a str>,
) -> Result<iscsi::AuthGroup> {
    let credential = |chap: &Chap| iscsi::Credential::new(&chap.user, chap.secret.as_bytes());
    let mut group = iscsi::AuthGroup::open();
    if initiators.len() > 0 {
        group = group.initiators(initiators).map_err(invalid)?;
    }
    if let Some(chap) = &secrets.chap {
        group = group.users(vec![credential(chap).map_err(invalid)?]).map_err(invalid)?;
    }
    if let Some(mutual) = &secrets.mutual {
        if secrets.chap.is_none() {
            return Err(Error::Invalid(
                "mutual CHAP goes both ways: say what initiators prove, too".into(),
            ));
        }
        group = group.mutual(credential(mutual).map_err(invalid)?).map_err(invalid)?;
    }
    Ok(group)
}

/// The secrets of a group, unsealed.
///
/// # Errors
/// [`Error::Sealed`].
pub(super) fn unsealed(
    sealer: &dyn Sealer,
    row: &AuthGroup,
    sealed: ChapSecrets,
) -> Result<AuthGroupSecrets> {
    let one = |user: &Option<String>, sealed: Option<Vec<u8>>, side| {
        let (Some(user), Some(sealed)) = (user, sealed) else { return Ok::<_, Error>(None) };
        let why = |why| Error::Sealed { group: row.name.clone(), what: "unsealed", why };
        let plain = sealer.unseal(&purpose(&row.public_id, side), &sealed).map_err(why)?;
        let secret = String::from_utf8(plain.to_vec()).map_err(|_| why("it is no text".into()))?;
        Ok(Some(Chap { user: user.clone(), secret: Zeroizing::new(secret) }))
    };
    Ok(AuthGroupSecrets {
        chap: one(&row.chap_user, sealed.chap, Side::Initiator)?,
        mutual: one(&row.mutual_user, sealed.mutual, Side::Target)?,
    })
}

fn sealed(sealer: &dyn Sealer, row: &AuthGroup, secrets: &AuthGroupSecrets) -> Result<ChapSecrets> {
    let one = |chap: &Option<Chap>, side| {
        let Some(chap) = chap else { return Ok::<_, Error>(None) };
        let why = |why| Error::Sealed { group: row.name.clone(), what: "sealed", why };
        let sealed = sealer.seal(&purpose(&row.public_id, side), chap.secret.as_bytes());
        sealed.map(Some).map_err(why)
    };
    Ok(ChapSecrets {
        id: row.id,
        chap: one(&secrets.chap, Side::Initiator)?,
        mutual: one(&secrets.mutual, Side::Target)?,
    })
}

fn not_found() -> Error {
    CatalogError::NotFound { what: "auth group" }.into()
}

async fn find(tx: &mut Tx, id: i64) -> Result<AuthGroup> {
    tx.find_one(AuthGroup::by_id(id)).await?.ok_or_else(not_found)
}

/// That the row has this version, if one is said.
fn is_version(group: &AuthGroup, version: Option<i64>) -> Result<()> {
    match version {
        Some(version) if version != group.version => {
            Err(CatalogError::Changed { what: "auth group" }.into())
        }
        _ => Ok(()),
    }
}

/// An initiator's name and what users call it, as they are kept.
fn initiator(iqn: &str, alias: &str) -> Result<(String, String)> {
    let alias = alias.trim();
    if alias.len() > MAX_ALIAS || alias.chars().any(char::is_control) {
        return Err(Error::Invalid(format!(
            "what an initiator is called has {MAX_ALIAS} bytes at most, and no control characters"
        )));
    }
    Ok((names::checked_iqn(iqn)?, alias.to_owned()))
}

/// Enters a group; gives its number.
pub(super) async fn insert(tx: &mut Tx, sealer: &dyn Sealer, new: &NewAuthGroup) -> Result<i64> {
    let name = names::checked("an auth group", &new.name)?;
    if new.initiators.len() > MAX_INITIATORS {
        return Err(too_many());
    }
    let secrets = AuthGroupSecrets { chap: new.chap.clone(), mutual: new.mutual.clone() };
    group(&secrets, [].into_iter())?;
    let (public_id, organisation_id) = (names::public_id()?, new.organisation_id);
    let entered = targets::NewAuthGroup { public_id, organisation_id, name };
    let id = names::unique("auth group", AuthGroup::insert(tx, entered).await)?;
    let mut row = find(tx, id).await?;
    if secrets.chap.is_some() {
        row.chap_user = secrets.chap.as_ref().map(|chap| chap.user.clone());
        row.mutual_user = secrets.mutual.as_ref().map(|chap| chap.user.clone());
        let sealed = sealed(sealer, &row, &secrets)?;
        row.update(tx, sealed).await?;
    }
    for (iqn, alias) in &new.initiators {
        let (iqn, alias) = initiator(iqn, alias)?;
        let inserted = Initiator::insert(tx, id, &names::public_id()?, &iqn, &alias).await;
        names::unique("initiator in the auth group", inserted)?;
    }
    Ok(id)
}

/// Refuses that a group which asks for no proof names nobody any more, and so lets everybody in.
async fn names_somebody(tx: &mut Tx, group: &AuthGroup, open: bool) -> Result<()> {
    let is_guarded = group.chap_user.is_some() || group.targets == 0 || open;
    if is_guarded || !tx.find::<Initiator>(Initiator::of(group.id)).await?.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "without the last initiator that the auth group {} names everybody may log in to its \
         targets; name another first, or say that they may be open (--open)",
        group.name
    )))
}

/// Has a group name these initiators, and no others.
async fn name_all(
    tx: &mut Tx,
    group: &AuthGroup,
    initiators: &[(String, String)],
    open: bool,
) -> Result<()> {
    if initiators.len() > MAX_INITIATORS {
        return Err(too_many());
    }
    let wanted = initiators.iter().map(|(iqn, alias)| initiator(iqn, alias));
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    let named: Vec<Initiator> = tx.find(Initiator::of(group.id)).await?;
    for one in named.iter().filter(|one| !wanted.iter().any(|(iqn, _)| *iqn == one.iqn)) {
        Initiator::remove(tx, group.id, &one.iqn).await?;
    }
    for (iqn, alias) in &wanted {
        if !named.iter().any(|one| one.iqn == *iqn) {
            let inserted = Initiator::insert(tx, group.id, &names::public_id()?, iqn, alias).await;
            names::unique("initiator in the auth group", inserted)?;
        }
    }
    names_somebody(tx, group, open).await
}

fn too_many() -> Error {
    Error::Invalid(format!("an auth group names {MAX_INITIATORS} initiators at most"))
}

impl Storage {
    /// Makes an auth group.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`strongroom_catalog::Error::Exists`]; those of the sealer and the database.
    pub async fn create_auth_group(&self, new: NewAuthGroup) -> Result<AuthGroupDetails> {
        let mut tx = self.inner.catalog.begin().await?;
        let id = insert(&mut tx, &*self.inner.sealer, &new).await?;
        tx.commit().await?;
        self.auth_group(id).await
    }

    /// An auth group, and whom it names.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn auth_group(&self, id: i64) -> Result<AuthGroupDetails> {
        let catalog = &self.inner.catalog;
        let group = catalog.find_one(AuthGroup::by_id(id)).await?.ok_or_else(not_found)?;
        Ok(AuthGroupDetails { group, named: catalog.find(Initiator::of(id)).await? })
    }

    /// Auth groups of which the rows are at hand, and whom they name.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn auth_groups(&self, groups: Vec<AuthGroup>) -> Result<Vec<AuthGroupDetails>> {
        let of = |one: &Initiator| one.auth_group_id;
        let mut named = self.inner.catalog.find_by(Initiator::all(), of).await?;
        let details = |group: AuthGroup| {
            let named = named.remove(&group.id).unwrap_or_default();
            AuthGroupDetails { group, named }
        };
        Ok(groups.into_iter().map(details).collect())
    }

    /// The secrets of an auth group, for who may manage targets.
    ///
    /// # Errors
    /// [`strongroom_catalog::Error::NotFound`]; [`Error::Sealed`]; those of the database.
    pub async fn auth_group_secrets(&self, id: i64) -> Result<AuthGroupSecrets> {
        let catalog = &self.inner.catalog;
        let row: AuthGroup = catalog.find_one(AuthGroup::by_id(id)).await?.ok_or_else(not_found)?;
        let sealed = catalog.find_one(ChapSecrets::of(id)).await?.ok_or_else(not_found)?;
        unsealed(&*self.inner.sealer, &row, sealed)
    }

    /// As [`Storage::auth_group_secrets`], of groups of which the rows are at hand, by their numbers. One
    /// that was removed since is left out.
    ///
    /// # Errors
    /// [`Error::Sealed`]; those of the database.
    pub async fn secrets_of_auth_groups(
        &self,
        groups: &[&AuthGroup],
    ) -> Result<HashMap<i64, AuthGroupSecrets>> {
        let sealed = match groups {
            [] => return Ok(HashMap::new()),
            [one] => ChapSecrets::of(one.id),
            _ => ChapSecrets::all(),
        };
        let sealed: Vec<ChapSecrets> = self.inner.catalog.find(sealed).await?;
        let mut all = HashMap::new();
        for sealed in sealed {
            if let Some(row) = groups.iter().find(|group| group.id == sealed.id) {
                all.insert(row.id, unsealed(&*self.inner.sealer, row, sealed)?);
            }
        }
        Ok(all)
    }

    /// Changes an auth group, if its row has that version still (None: whatever it has). Initiators
    /// that are logged in stay so.
    ///
    /// # Errors
    /// [`Error::Invalid`], also where a target would be open to the network; those of
    /// [`Storage::create_auth_group`]; [`strongroom_catalog::Error::Changed`].
    pub async fn change_auth_group(
        &self,
        id: i64,
        change: AuthGroupChange,
        version: Option<i64>,
    ) -> Result<AuthGroupDetails> {
        let sealer = &*self.inner.sealer;
        let mut tx = self.inner.catalog.begin().await?;
        let mut row = find(&mut tx, id).await?;
        is_version(&row, version)?;
        let kept: ChapSecrets = tx.find_one(ChapSecrets::of(id)).await?.ok_or_else(not_found)?;
        // What is replaced needs not be readable.
        let kept = ChapSecrets {
            chap: kept.chap.filter(|_| change.chap.is_none()),
            mutual: kept.mutual.filter(|_| change.mutual.is_none()),
            ..kept
        };
        let mut secrets = unsealed(sealer, &row, kept)?;
        if let Some(name) = &change.name {
            row.name = names::checked("an auth group", name)?;
        }
        secrets.chap = change.chap.unwrap_or(secrets.chap);
        secrets.mutual = change.mutual.unwrap_or(secrets.mutual);
        group(&secrets, [].into_iter())?;
        row.chap_user = secrets.chap.as_ref().map(|chap| chap.user.clone());
        row.mutual_user = secrets.mutual.as_ref().map(|chap| chap.user.clone());
        let sealed = sealed(sealer, &row, &secrets)?;
        names::unique("auth group", row.update(&mut tx, sealed).await)?;
        if let Some(initiators) = &change.initiators {
            name_all(&mut tx, &row, initiators, change.open).await?;
        }
        let affected: Vec<Target> = tx.find(Target::of_auth_group(id)).await?;
        let affected: Vec<i64> = affected.iter().map(|target| target.id).collect();
        if row.chap_user.is_none() {
            are_guarded(&mut tx, &affected, change.open).await?;
        }
        tx.commit().await?;
        self.follow_targets().await;
        self.auth_group(id).await
    }

    /// Has an auth group name an initiator. The first one that it names keeps all others out.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no name in iSCSI; [`strongroom_catalog::Error::NotFound`],
    /// [`strongroom_catalog::Error::Exists`]; those of the database.
    pub async fn add_initiator(
        &self,
        auth_group: i64,
        iqn: &str,
        alias: &str,
    ) -> Result<AuthGroupDetails> {
        let (iqn, alias) = initiator(iqn, alias)?;
        let mut tx = self.inner.catalog.begin().await?;
        find(&mut tx, auth_group).await?;
        if tx.find::<Initiator>(Initiator::of(auth_group)).await?.len() >= MAX_INITIATORS {
            return Err(too_many());
        }
        let public_id = names::public_id()?;
        let inserted = Initiator::insert(&mut tx, auth_group, &public_id, &iqn, &alias).await;
        names::unique("initiator in the auth group", inserted)?;
        tx.commit().await?;
        self.follow_targets().await;
        self.auth_group(auth_group).await
    }

    /// Has an auth group name an initiator no more. When it was the last one, the group lets in all
    /// that prove what it asks for; so that is refused where it asks for nothing, unless `open`.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn remove_initiator(
        &self,
        auth_group: i64,
        iqn: &str,
        open: bool,
    ) -> Result<AuthGroupDetails> {
        let iqn = names::checked_iqn(iqn)?;
        let mut tx = self.inner.catalog.begin().await?;
        let group = find(&mut tx, auth_group).await?;
        Initiator::remove(&mut tx, auth_group, &iqn).await?;
        names_somebody(&mut tx, &group, open).await?;
        tx.commit().await?;
        self.follow_targets().await;
        self.auth_group(auth_group).await
    }

    /// Removes an auth group that no target has.
    ///
    /// # Errors
    /// [`Error::InUse`]; [`strongroom_catalog::Error::NotFound`]; those of the database.
    pub async fn remove_auth_group(&self, id: i64) -> Result<()> {
        let mut tx = self.inner.catalog.begin().await?;
        let group = find(&mut tx, id).await?;
        let having: Vec<Target> = tx.find(Target::of_auth_group(id)).await?;
        if !having.is_empty() {
            return Err(names::in_use("auth group", &group.name, &having));
        }
        AuthGroup::remove(&mut tx, id).await?;
        Ok(tx.commit().await?)
    }
}
