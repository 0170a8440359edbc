//! From what a request shows to who acts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use strongroom_catalog::identity::{
    ApiKey, GrantedRights, KeySecrets, Organisation, Parent, Source, User,
};

use crate::change::granted;
use crate::identity::Identity;
use crate::issuers::issuer_of;
use crate::origin::Origin;
use crate::principal::{Narrowing, Principal, Rights, Via, effective, spread};
use crate::rights::RightSet;
use crate::secret::{Secret, same};
use crate::signed::SignedRequest;
use crate::{AuthError, Error, Result, keys, sessions, tokens};

/// The longest token or key.
const LONGEST: usize = 4096;
/// The longest token of an issuer: those may list many groups.
const LONGEST_ISSUED: usize = 16 << 10;

/// What a request shows.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A name and a password, with a code of the second factor where one is asked for.
    Password {
        /// The user's name.
        name: String,
        /// The password.
        password: Secret,
        /// The code, or a recovery code.
        code: Option<Secret>,
        /// The directory that knows it; none: whichever does.
        directory: Option<String>,
    },
    /// An API key, a session's token, an access token or a short signed token: they are told apart
    /// by their form.
    Bearer(Secret),
    /// A request that is signed with an API key.
    Signed(SignedRequest),
    /// The Unix user at the other end of the control socket.
    Local {
        /// Its number, as the kernel tells it.
        uid: u32,
    },
}

impl Identity {
    /// Says who acts.
    ///
    /// # Errors
    /// [`AuthError`]: why nobody is let in.
    pub async fn authenticate(
        &self,
        credential: Credential,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let principal = match credential {
            Credential::Password { name, password, code, directory } => {
                let directory = directory.as_deref();
                let outcome = self.log_in(&name, password, code, directory, origin).await;
                self.inner.logins.count(&outcome);
                outcome
            }
            Credential::Bearer(token) => self.bearer(token, origin).await,
            Credential::Signed(request) => self.signed(request, origin).await,
            Credential::Local { uid } => self.local(uid).await,
        }?;
        match principal.dialect() {
            None => Ok(principal),
            Some(_) => Err(AuthError::OtherInterface),
        }
    }

    /// Says who acts in a dialect, by a key that was made for it: nothing else opens one.
    ///
    /// # Errors
    /// [`AuthError`]: why nobody is let in.
    pub async fn authenticate_in(
        &self,
        dialect: &str,
        key: Secret,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let principal = self.bearer(key, origin).await?;
        match principal.dialect() {
            Some(of) if of == dialect => Ok(principal),
            _ => Err(AuthError::OtherInterface),
        }
    }

    async fn bearer(&self, token: Secret, origin: &Origin) -> Result<Principal, AuthError> {
        let signed = token.expose().bytes().filter(|byte| *byte == b'.').count() == 2;
        if token.expose().len() > if signed { LONGEST_ISSUED } else { LONGEST } {
            return Err(AuthError::Credentials);
        }
        let (hash, now) = (token.hash(), self.inner.clock.now());
        // What must not count as use of its session doesn't keep it in the cache either.
        let cached = origin.extends.then(|| self.inner.cache.get(&hash, now)).flatten();
        if let Some(mut principal) = cached {
            principal.address = origin.address;
            return Ok(principal);
        }
        let generation = self.inner.cache.generation();
        let text = token.expose();
        let (principal, until) = if text.starts_with(keys::KEY) {
            let (principal, key) = self.by_key(&token, origin).await?;
            (principal, key.expires_at)
        } else if text.starts_with(sessions::SESSION) || text.starts_with(sessions::ACCESS) {
            let (principal, until) = self.by_session(&hash, origin).await?;
            (principal, Some(until))
        } else if signed {
            let issuer = issuer_of(text).ok_or(AuthError::Credentials)?;
            let known = match issuer.as_str() {
                tokens::ISSUER => self.by_jwt(&token, origin).await?,
                issuer => self.by_issuer(issuer, &token, origin).await?,
            };
            (known.0, Some(known.1))
        } else {
            return Err(AuthError::Credentials);
        };
        if origin.extends {
            self.inner.cache.put(hash, principal.clone(), generation, now, until);
        }
        Ok(principal)
    }

    async fn by_key(
        &self,
        token: &Secret,
        origin: &Origin,
    ) -> Result<(Principal, ApiKey), AuthError> {
        let prefix = keys::prefix(token.expose()).ok_or(AuthError::Credentials)?;
        let (key, secrets) = self.find_key(prefix).await?;
        if !same(&secrets.hash, &token.hash()) {
            return Err(AuthError::Credentials);
        }
        let principal = self.with_key(&key, Via::Key, origin).await?;
        Ok((principal, key))
    }

    pub(crate) async fn find_key(&self, prefix: &str) -> Result<(ApiKey, KeySecrets), AuthError> {
        if !prefix.bytes().all(|c| c.is_ascii_alphanumeric()) {
            return Err(AuthError::Credentials);
        }
        let catalog = &self.inner.catalog;
        let key = catalog.find_one::<ApiKey>(ApiKey::by_prefix(prefix)).await?;
        let secrets = catalog.find_one::<KeySecrets>(ApiKey::by_prefix(prefix)).await?;
        key.zip(secrets).ok_or(AuthError::Credentials)
    }

    /// Who acts with a key that was shown to be theirs.
    pub(crate) async fn with_key(
        &self,
        key: &ApiKey,
        via: Via,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let now = self.inner.clock.now();
        self.check_key(key)?;
        let user = self.inner.catalog.find_one::<User>(User::by_id(key.user_id)).await?;
        let user = user.ok_or(AuthError::Credentials)?;
        let principal = self.principal(user, Some(key), via, origin).await?;
        let stale = key.last_used_at.is_none_or(|at| now.duration_since(at).as_secs() >= 60);
        if stale {
            let mut tx = self.inner.catalog.begin().await?;
            ApiKey::used(&mut tx, key.id, now).await?;
            tx.commit().await?;
        }
        Ok(principal)
    }

    /// Refuses a key that is off or has ended.
    pub(crate) fn check_key(&self, key: &ApiKey) -> Result<(), AuthError> {
        if !key.enabled {
            return Err(AuthError::Disabled);
        }
        match key.expires_at {
            Some(end) if end <= self.inner.clock.now() => Err(AuthError::Ended),
            _ => Ok(()),
        }
    }

    async fn local(&self, uid: u32) -> Result<Principal, AuthError> {
        let own = rustix::process::geteuid().as_raw();
        if uid != 0 && uid != own {
            return Err(AuthError::Credentials);
        }
        let name = format!("local:{uid}");
        // Among the hashes of tokens, where nobody can find one that has this.
        let mut key = [0; 32];
        key[..4].copy_from_slice(&uid.to_le_bytes());
        let (cache, now) = (&self.inner.cache, self.inner.clock.now());
        if let Some(principal) = cache.get(&key, now) {
            return Ok(principal);
        }
        let generation = cache.generation();
        let principal = self.unnamed(Via::Local, name).await?;
        cache.put(key, principal.clone(), generation, now, None);
        Ok(principal)
    }

    /// The appliance itself, for what nobody asked for: schedules, and jobs found at a start.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn appliance(&self) -> Result<Principal> {
        self.unnamed(Via::System, "appliance".into()).await
    }

    /// One without a user, who may do everything.
    async fn unnamed(&self, via: Via, name: String) -> Result<Principal> {
        let (tree, root) = self.tree().await?;
        let rights = tree.keys().map(|id| (*id, RightSet::ALL)).collect();
        let four_eyes = self.four_eyes().await?.rules.all();
        Ok(Principal {
            user_id: None,
            name,
            organisation_id: root,
            delegate_of: None,
            via,
            key_id: None,
            session_id: None,
            address: None,
            must_change: false,
            root,
            rights: Arc::new(rights),
            narrowing: Arc::default(),
            four_eyes: Arc::new(four_eyes),
        })
    }

    /// A user who was shown to be that one, as it is now.
    pub(crate) async fn principal(
        &self,
        user: User,
        key: Option<&ApiKey>,
        via: Via,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        if !self.is_on(&user).await? {
            return Err(AuthError::Disabled);
        }
        let (tree, root) = self.tree().await?;
        let own = self.rights_of(user.id, &tree).await?;
        let acted_for = match user.delegate_of {
            Some(id) => {
                let other = self.inner.catalog.find_one::<User>(User::by_id(id)).await?;
                let other = other.ok_or(AuthError::Disabled)?;
                if !self.is_on(&other).await? {
                    return Err(AuthError::Disabled);
                }
                Some(self.rights_of(other.id, &tree).await?)
            }
            None => None,
        };
        let narrowing = key.map(narrowing).unwrap_or_default();
        let rights = effective(own, acted_for.as_ref(), narrowing.rights);
        Ok(Principal {
            user_id: Some(user.id),
            name: user.name,
            organisation_id: user.organisation_id,
            delegate_of: user.delegate_of,
            via,
            key_id: key.map(|key| key.id),
            session_id: None,
            address: origin.address,
            must_change: user.must_change,
            root,
            rights: Arc::new(rights),
            narrowing: Arc::new(narrowing),
            four_eyes: Arc::new(self.four_eyes().await?.rules.all()),
        })
    }

    /// Whether neither a user nor where it came from is switched off.
    async fn is_on(&self, user: &User) -> Result<bool> {
        let Some(id) = user.source_id else { return Ok(user.enabled) };
        let source = self.inner.catalog.find_one::<Source>(Source::of_any_kind(id)).await?;
        Ok(user.enabled && source.is_some_and(|source| source.enabled))
    }

    /// All organisations, each with the one it is part of, and the topmost.
    async fn tree(&self) -> Result<(BTreeMap<i64, Option<i64>>, i64)> {
        let edges = self.inner.catalog.find::<Parent>(Parent::all()).await?;
        let root = edges.iter().find(|edge| edge.parent_id.is_none()).map(|edge| edge.id);
        let root =
            root.ok_or(Error::State("this catalogue was not set up yet: start the appliance"))?;
        Ok((edges.into_iter().map(|edge| (edge.id, edge.parent_id)).collect(), root))
    }

    async fn rights_of(&self, user: i64, tree: &BTreeMap<i64, Option<i64>>) -> Result<Rights> {
        let found = self.inner.catalog.find(GrantedRights::of_user(user)).await?;
        Ok(spread(&granted(found), tree))
    }

    /// The topmost organisation.
    ///
    /// # Errors
    /// Those of the catalogue; [`Error::State`] before the first run.
    pub async fn root(&self) -> Result<Organisation> {
        let root = self.inner.catalog.find_one(Organisation::root()).await?;
        root.ok_or(Error::State("this catalogue was not set up yet: start the appliance"))
    }
}

/// What a key is for. A list that can't be read lets nothing through.
pub(crate) fn narrowing(key: &ApiKey) -> Narrowing {
    let words = |text: &String| -> BTreeSet<String> {
        text.split_ascii_whitespace().map(str::to_owned).collect()
    };
    let rights = key.rights.as_deref().map(RightSet::stored);
    // Keys of a dialect are given what they may do with targets endpoint by endpoint.
    let of_pools = match key.dialect {
        Some(_) => RightSet::OF_POOLS.or(RightSet::OF_TARGETS),
        None => RightSet::OF_POOLS,
    };
    Narrowing {
        rights: match key.pools {
            // What is for some pools has nothing to do with users, settings and the like.
            Some(_) => Some(rights.unwrap_or(RightSet::ALL).and(of_pools)),
            None => rights,
        },
        pools: key
            .pools
            .as_ref()
            .map(|text| words(text).into_iter().filter_map(|word| word.parse().ok()).collect()),
        operations: key.operations.as_ref().map(words),
        dialect: key.dialect.clone(),
    }
}
