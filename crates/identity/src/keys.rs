//! API keys: `srk_<prefix>_<secret>`, for programs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use strongroom_catalog::identity::{ApiKey, KeySecrets, NewKey};

use crate::audit::{Deed, Who};
use crate::change::Change;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::{Right, RightSet};
use crate::secret::{Secret, random_text};
use crate::users::{check_name, check_text};
use crate::{Error, Result};

/// How a key begins.
pub(crate) const KEY: &str = "srk_";
/// Keys of one user, and pools and operations of one key, at most.
const MOST: usize = 1000;

/// A key that is to be made.
#[derive(Clone, Debug, Default)]
pub struct KeySpec {
    /// Whose it will be.
    pub user_id: i64,
    /// Its name.
    pub name: String,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Only these rights.
    pub rights: Option<RightSet>,
    /// Only these pools, by number.
    pub pools: Option<BTreeSet<i64>>,
    /// Only these operations.
    pub operations: Option<BTreeSet<String>>,
    /// It must be shown again, or sign requests: it is kept sealed, not only hashed.
    pub shown_again: bool,
    /// The dialect that it is for, and nothing else; none: the native API.
    pub dialect: Option<String>,
}

/// What is to be changed of a key; what is none stays. The inner option is the new value.
#[derive(Clone, Debug, Default)]
pub struct KeyChange {
    /// Its name.
    pub name: Option<String>,
    /// Whether it can be used.
    pub enabled: Option<bool>,
    /// When it ends.
    pub expires_at: Option<Option<Timestamp>>,
    /// Only these rights.
    pub rights: Option<Option<RightSet>>,
    /// Only these pools.
    pub pools: Option<Option<BTreeSet<i64>>>,
    /// Only these operations.
    pub operations: Option<Option<BTreeSet<String>>>,
}

/// For what a key is sealed.
pub(crate) fn purpose(prefix: &str) -> String {
    format!("API key {prefix}")
}

/// The part of a key that is not secret.
pub(crate) fn prefix(key: &str) -> Option<&str> {
    key.strip_prefix(KEY)?.split_once('_').map(|(prefix, _)| prefix)
}

impl Identity {
    /// Makes a key for oneself, or for another with the right `key.manage` and no fewer rights
    /// than that one. The key is given this once, unless it is to be shown again.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`], [`Error::NotFound`].
    pub async fn create_key(&self, by: &Principal, spec: KeySpec) -> Result<(ApiKey, Secret)> {
        by.require_whole()?;
        check_name("name", &spec.name)?;
        let now = self.inner.clock.now();
        check_end(spec.expires_at, now)?;
        let prefix = random_text::<5>()?.to_string();
        let secret = Secret::new(format!("{KEY}{prefix}_{}", &*random_text::<32>()?));
        let sealed = match spec.shown_again {
            true => Some(self.inner.key.seal(&purpose(&prefix), secret.expose().as_bytes())?),
            false => None,
        };
        let mut change = self.change(Who::from(by)).await?;
        let user = change.user(spec.user_id).await?;
        may(&mut change, by, user.id, user.organisation_id).await?;
        if change.tx().find::<ApiKey>(ApiKey::of_user(user.id)).await?.len() >= MOST {
            return Err(Error::State("this user has as many keys as one may have: remove some"));
        }
        let new = NewKey {
            user_id: user.id,
            organisation_id: user.organisation_id,
            name: spec.name,
            prefix,
            hash: secret.hash(),
            sealed,
            enabled: true,
            rights: spec.rights.map(|rights| rights.to_string()),
            pools: spec.pools.map(numbers).transpose()?,
            operations: spec.operations.map(words).transpose()?,
            dialect: spec.dialect,
            expires_at: spec.expires_at,
        };
        let id = ApiKey::insert(change.tx(), &new, now).await?;
        let key = find(&mut change, id).await?;
        let object = format!("key {} of {}", key.prefix, user.name);
        change.commit(Deed::new("key.create", object).within(user.organisation_id)).await?;
        Ok((key, secret))
    }

    /// Changes a key, unless it was changed since that version was read.
    ///
    /// # Errors
    /// As [`Identity::create_key`].
    pub async fn change_key(
        &self,
        by: &Principal,
        id: i64,
        version: Option<i64>,
        what: KeyChange,
    ) -> Result<ApiKey> {
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        let mut key = find(&mut change, id).await?;
        may(&mut change, by, key.user_id, key.organisation_id).await?;
        key.version = version.unwrap_or(key.version);
        if let Some(name) = what.name {
            check_name("name", &name)?;
            key.name = name;
        }
        if let Some(end) = what.expires_at {
            check_end(end, self.inner.clock.now())?;
            key.expires_at = end;
        }
        key.enabled = what.enabled.unwrap_or(key.enabled);
        if let Some(rights) = what.rights {
            key.rights = rights.map(|rights| rights.to_string());
        }
        if let Some(pools) = what.pools {
            key.pools = pools.map(numbers).transpose()?;
        }
        if let Some(operations) = what.operations {
            key.operations = operations.map(words).transpose()?;
        }
        key.update(change.tx()).await?;
        let key = find(&mut change, id).await?;
        let deed = Deed::new("key.change", format!("key {}", key.prefix));
        change.commit(deed.within(key.organisation_id)).await?;
        Ok(key)
    }

    /// Removes a key and the sessions that it opened.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`].
    pub async fn remove_key(&self, by: &Principal, id: i64) -> Result<()> {
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        let key = find(&mut change, id).await?;
        may(&mut change, by, key.user_id, key.organisation_id).await?;
        ApiKey::remove(change.tx(), id).await?;
        let deed = Deed::new("key.remove", format!("key {}", key.prefix));
        change.commit(deed.within(key.organisation_id)).await
    }

    /// Shows a key again that was made for that.
    ///
    /// # Errors
    /// [`Error::State`] for one that wasn't; [`Error::Forbidden`], [`Error::NotFound`].
    pub async fn show_key(&self, by: &Principal, id: i64) -> Result<Secret> {
        by.require_whole()?;
        let mut change = self.change(Who::from(by)).await?;
        let key = find(&mut change, id).await?;
        may(&mut change, by, key.user_id, key.organisation_id).await?;
        let secrets = change.tx().find_one::<KeySecrets>(ApiKey::by_id(id)).await?;
        let sealed = secrets.and_then(|secrets| secrets.sealed);
        let once = "this key was shown when it was made, and is not kept: make another";
        let sealed = sealed.ok_or(Error::State(once))?;
        let bytes = self.inner.key.unseal(&purpose(&key.prefix), &sealed)?;
        let broken = |_| Error::Sealed { purpose: purpose(&key.prefix) };
        let text = Secret::new(std::str::from_utf8(&bytes).map_err(broken)?);
        let deed = Deed::new("key.reveal", format!("key {}", key.prefix));
        change.commit(deed.within(key.organisation_id)).await?;
        Ok(text)
    }
}

async fn find(change: &mut Change<'_>, id: i64) -> Result<ApiKey> {
    let key = change.tx().find_one(ApiKey::by_id(id)).await?;
    key.ok_or(Error::NotFound { what: "key" })
}

/// Refuses one who may not have to do with this user's keys.
async fn may(change: &mut Change<'_>, by: &Principal, user: i64, organisation: i64) -> Result<()> {
    if by.user_id == Some(user) {
        return Ok(());
    }
    by.require(Right::KeyManage, organisation, "key")?;
    change.covers(by, user).await
}

fn check_end(end: Option<Timestamp>, now: Timestamp) -> Result<()> {
    match end {
        Some(end) if end <= now => {
            Err(Error::Invalid { field: "expires_at", why: "it lies in the past".into() })
        }
        _ => Ok(()),
    }
}

fn numbers(pools: BTreeSet<i64>) -> Result<String> {
    words(pools.into_iter().map(|pool| pool.to_string()).collect())
}

fn words(words: BTreeSet<String>) -> Result<String> {
    if words.len() > MOST {
        let why = format!("there may be {MOST} at most");
        return Err(Error::Invalid { field: "scope", why });
    }
    for word in &words {
        check_text("scope", word, 128)?;
        if word.is_empty() || word.contains(char::is_whitespace) {
            let why = format!("`{word}` is not the name of an operation");
            return Err(Error::Invalid { field: "operations", why });
        }
    }
    Ok(words.into_iter().collect::<Vec<_>>().join(" "))
}
