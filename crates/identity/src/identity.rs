//! The service: an open catalogue, the appliance's key, and what is kept in memory.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::{Grant, NewUser, Organisation, Role, User, UserSecrets};
use strongroom_catalog::settings::Setting;
use strongroom_catalog::{Catalog, Tx};

use crate::admin_token::Turns;
use crate::audit::{Deed, Who};
use crate::backoff::Backoff;
use crate::builtin;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::fetch::Fetch;
use crate::issuers::KeyRing;
use crate::logins::{Counters, Logins};
use crate::password::Passwords;
use crate::policy::Policy;
use crate::principal::Via;
use crate::seal::ApplianceKey;
use crate::secret::{Secret, sha256};
use crate::{Error, Result, passphrase};

/// The name of the first administrator.
pub(crate) const ADMIN: &str = "admin";
/// The setting that tells whether the key is the catalogue's.
const KEY_CHECK: &str = "appliance.key_check";
/// The setting that says whose the first run was, until all of it was told ([`Untold`]).
const FIRST_RUN: &str = "appliance.first_run";
/// The name of the topmost organisation.
const ROOT: &str = "root";

/// All of identity. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) catalog: Catalog,
    pub(crate) key: ApplianceKey,
    pub(crate) clock: Clock,
    pub(crate) passwords: Passwords,
    pub(crate) backoff: Backoff,
    pub(crate) cache: Cache,
    pub(crate) turns: Turns,
    policy: RwLock<Policy>,
    pub(crate) logins: Counters,
    pub(crate) issuers: Arc<KeyRing>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({:?})", self.inner.catalog)
    }
}

/// What the first run made.
#[derive(Clone, Debug)]
pub struct FirstRun {
    /// The name of the first administrator.
    pub name: &'static str,
    /// Its passphrase. It is nowhere else.
    pub passphrase: Secret,
    /// The passphrase that the administration token is set with, if that was not done yet.
    pub token: Option<Secret>,
    /// It was made before, and nobody was told.
    pub again: bool,
}

/// A first run of which not all was told.
#[derive(Deserialize, Serialize)]
struct Untold {
    mark: String,
    /// The [`digest`] of the hash of its passphrase, until that was told; another one was set since if
    /// it differs.
    password: Option<String>,
}

impl Untold {
    /// What the setting says, if it is about that mark.
    fn of(value: &str, mark: &str) -> Option<Self> {
        serde_json::from_str(value).ok().filter(|untold: &Self| untold.mark == mark)
    }

    fn value(&self) -> String {
        serde_json::json!(self).to_string()
    }
}

fn digest(hash: &str) -> String {
    HEXLOWER.encode(&sha256(hash.as_bytes()))
}

/// Looks whether a catalogue was made with this key; one that nobody began with fits any.
///
/// # Errors
/// [`Error::OtherKey`]; those of the catalogue.
pub async fn check_key(catalog: &Catalog, key: &ApplianceKey) -> Result<()> {
    let found = catalog.find_one::<Setting>(Setting::by_name(KEY_CHECK)).await?;
    let Some(found) = found else { return Ok(()) };
    let sealed = HEXLOWER.decode(found.value.trim_matches('"').as_bytes());
    let sealed = sealed.map_err(|_| Error::OtherKey)?;
    key.unseal(KEY_CHECK, &sealed).map(drop).map_err(|_| Error::OtherKey)
}

impl Identity {
    /// Over an open catalogue, with the appliance's key. Call [`Identity::first_run`] next.
    ///
    /// # Errors
    /// [`Error::Random`](crate::Error::Random).
    pub async fn open(catalog: Catalog, key: ApplianceKey) -> Result<Self> {
        Self::open_at(catalog, key, Clock::default()).await
    }

    /// As [`Identity::open`], with another clock than the system's.
    ///
    /// # Errors
    /// [`Error::Random`](crate::Error::Random).
    pub async fn open_at(catalog: Catalog, key: ApplianceKey, clock: Clock) -> Result<Self> {
        let cache = Cache::new(catalog.engine());
        let passwords = Passwords::new().await?;
        let backoff = Backoff::default();
        let policy = RwLock::default();
        let logins = Counters::default();
        let issuers = Arc::default();
        let turns = Turns::new()?;
        let inner = Inner {
            catalog,
            key,
            clock,
            passwords,
            backoff,
            cache,
            turns,
            policy,
            logins,
            issuers,
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes what must be there: the topmost organisation, the built-in roles as this version has
    /// them, and, in a catalogue without organisations, the user `admin`, whose passphrase it gives
    /// this once. To be called at every start; nodes that start at once make it once. Who may be cut
    /// off before the passphrase was shown gives a mark of its own, and gets another one when it asks
    /// again with that mark, until [`Identity::first_run_told`] or the first change of that password.
    ///
    /// # Errors
    /// [`Error::OtherKey`]; those of the catalogue; [`Error::Random`].
    pub async fn first_run(&self, mark: Option<&str>) -> Result<Option<FirstRun>> {
        let catalog = &self.inner.catalog;
        let fresh = catalog.find_one::<Organisation>(Organisation::root()).await?.is_none();
        let untold = match mark {
            Some(mark) => self.untold(mark).await?.filter(|untold| untold.password.is_some()),
            None => None,
        };
        // Not while others wait for the transaction.
        let made = match fresh || untold.is_some() {
            true => {
                let passphrase = passphrase()?;
                let hash = self.inner.passwords.hash(passphrase.clone()).await?;
                Some((passphrase, hash))
            }
            false => None,
        };
        self.check_key_of_catalog().await?;
        let mut change = self.change(Who::appliance()).await?;
        let outdated = self.write_roles(change.tx()).await?;
        let root = change.tx().find_one::<Organisation>(Organisation::root()).await?;
        let now = self.inner.clock.now();
        let tx = change.tx();
        if let (Some(root), Some(untold), Some((passphrase, hash))) = (&root, untold, &made)
            && let Some(admin) = tx.find_one::<User>(User::by_name(ADMIN)).await?
            && let Some(secrets) = tx.find_one::<UserSecrets>(User::by_id(admin.id)).await?
            && secrets.password.is_some_and(|hash| untold.password == Some(digest(&hash)))
        {
            UserSecrets::set_password(tx, admin.id, hash, false).await?;
            let untold = Untold { password: Some(digest(hash)), ..untold };
            Setting::put(tx, FIRST_RUN, &untold.value(), now, None).await?;
            let token = self.first_admin_token(&mut change, admin.id).await?;
            let deed = Deed::new("appliance.first_run", "again: it had been cut off");
            change.commit(deed.within(root.id)).await?;
            let passphrase = passphrase.clone();
            return Ok(Some(FirstRun { name: ADMIN, passphrase, token, again: true }));
        }
        let (None, Some((passphrase, hash))) = (root, made) else {
            if outdated {
                change.commit(Deed::new("roles.builtin", "built-in roles")).await?;
            }
            return Ok(None);
        };
        let tx = change.tx();
        let root =
            Organisation::insert(tx, None, ROOT, "The appliance and its owner.", now).await?;
        let admin = NewUser {
            organisation_id: root,
            name: ADMIN.into(),
            full_name: "Administrator".into(),
            email: String::new(),
            source: "local",
            source_id: None,
            external_id: None,
            must_change: false,
            delegate_of: None,
            enabled: true,
        };
        let user_id = User::insert(tx, &admin, Some(&hash), now).await?;
        let role = tx.find_one::<Role>(Role::by_name(builtin::ADMINISTRATOR)).await?;
        if let Some(role) = role {
            let grant = Grant { user_id, role_id: role.id, organisation_id: root };
            grant.insert(tx).await?;
        }
        let check = self.inner.key.seal(KEY_CHECK, KEY_CHECK.as_bytes())?;
        let check = format!("\"{}\"", HEXLOWER.encode(&check));
        Setting::put(tx, KEY_CHECK, &check, now, None).await?;
        if let Some(mark) = mark {
            let untold = Untold { mark: mark.to_owned(), password: Some(digest(&hash)) };
            Setting::put(tx, FIRST_RUN, &untold.value(), now, None).await?;
        }
        let token = self.first_admin_token(&mut change, user_id).await?;
        change.commit(Deed::new("appliance.first_run", "").within(root)).await?;
        Ok(Some(FirstRun { name: ADMIN, passphrase, token, again: false }))
    }

    async fn untold(&self, mark: &str) -> Result<Option<Untold>> {
        let found = self.inner.catalog.find_one::<Setting>(Setting::by_name(FIRST_RUN)).await?;
        Ok(found.and_then(|found| Untold::of(&found.value, mark)))
    }

    /// Whether the first run was that of this mark, and not all of it was told.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn is_first_run(&self, mark: &str) -> Result<bool> {
        Ok(self.untold(mark).await?.is_some())
    }

    /// The passphrase of the first run of this mark was told: there is no other from now on.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn first_run_told(&self, mark: &str) -> Result<()> {
        if let Some(untold) = self.untold(mark).await? {
            let value = Untold { password: None, ..untold }.value();
            let mut tx = self.inner.catalog.begin().await?;
            Setting::put(&mut tx, FIRST_RUN, &value, self.inner.clock.now(), None).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    /// All of the first run of this mark was told.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn end_first_run(&self, mark: &str) -> Result<()> {
        if self.untold(mark).await?.is_some() {
            self.inner.catalog.execute(Setting::remove(FIRST_RUN)).await?;
        }
        Ok(())
    }

    /// Refuses a catalogue that another key was used with: what is sealed in it could not be
    /// opened, and what is sealed with this one not by other nodes.
    async fn check_key_of_catalog(&self) -> Result<()> {
        check_key(&self.inner.catalog, &self.inner.key).await
    }

    /// Writes the built-in roles as this version has them; whether any was otherwise.
    async fn write_roles(&self, tx: &mut Tx) -> Result<bool> {
        let mut outdated = false;
        for role in builtin::ROLES {
            let rights = role.rights.to_string();
            match tx.find_one::<Role>(Role::by_name(role.name)).await? {
                None => {
                    let now = self.inner.clock.now();
                    Role::insert(tx, role.name, role.description, &rights, true, now).await?;
                    outdated = true;
                }
                Some(mut found)
                    if found.builtin
                        && (found.rights != rights || found.description != role.description) =>
                {
                    found.rights = rights;
                    found.description = role.description.into();
                    found.update(tx).await?;
                    outdated = true;
                }
                Some(_) => {}
            }
        }
        Ok(outdated)
    }

    /// Says who fetches the keys of issuers, once; without one, their tokens are not good.
    pub fn fetch_with(&self, fetch: Arc<dyn Fetch>) {
        self.inner.issuers.fetch_with(fetch);
    }

    /// The catalogue.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// How strict it is, from now on.
    pub fn set_policy(&self, policy: Policy) {
        *self.inner.policy.write().unwrap_or_else(PoisonError::into_inner) = policy;
    }

    pub(crate) fn policy(&self) -> Policy {
        *self.inner.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// How logins went since the process began.
    pub fn logins(&self) -> Logins {
        self.inner.logins.read()
    }

    /// The appliance's key, to seal secrets that must be had again.
    pub fn key(&self) -> &ApplianceKey {
        &self.inner.key
    }
}

impl Who {
    /// The appliance itself.
    pub fn appliance() -> Self {
        Self {
            user_id: None,
            name: "appliance".into(),
            organisation_id: None,
            via: Via::System.name(),
            address: String::new(),
        }
    }
}
