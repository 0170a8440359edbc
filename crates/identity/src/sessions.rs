//! Sessions: a token that stands for a login until it ends.
//!
//! An opaque session is one token, `srs_...`. A pair is an access token, `sra_...`, and a refresh
//! token, `srr_<family>_<secret>`, which gives a new pair once; all refresh tokens of a session
//! have the family in common. One of the family that is not the newest was used before, perhaps by
//! a thief: the session ends. Only hashes are stored.

use std::time::Duration;

use jiff::Timestamp;
use strongroom_catalog::identity::{ApiKey, NewSession, Session, SessionTokens, User};

use crate::audit::{Deed, Who};
use crate::clock::after;
use crate::identity::Identity;
use crate::origin::{AGENT, Origin, bounded};
use crate::principal::{Principal, Via};
use crate::rights::Right;
use crate::secret::{Secret, random_text, same, sha256};
use crate::{AuthError, Error, Result};

/// How the tokens begin.
pub(crate) const SESSION: &str = "srs_";
pub(crate) const ACCESS: &str = "sra_";
const REFRESH: &str = "srr_";
/// How exactly the last use is known, at best and as a part of the time without use.
const EXACT: Duration = Duration::from_secs(10);
const PART: i64 = 8;

/// How long a session lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// It ends after so long without use.
    pub idle: Option<Duration>,
    /// It ends after so long whatever happens.
    pub total: Duration,
}

impl Default for Life {
    /// An hour without use, and twelve in all.
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self { idle: Some(hour), total: 12 * hour }
    }
}

/// A session that was opened.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Its number.
    pub id: i64,
    /// What to show with each request.
    pub token: Secret,
    /// When it ends whatever happens.
    pub expires_at: Timestamp,
}

/// A pair of tokens.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The session's number.
    pub id: i64,
    /// What to show with each request.
    pub access: Secret,
    /// What gives the next pair, once.
    pub refresh: Secret,
    /// When the access token ends.
    pub access_expires_at: Timestamp,
    /// When refreshing ends: the session's end.
    pub refresh_expires_at: Timestamp,
}

impl Identity {
    /// Opens a session for one who has just logged in, or came with a key; the key's limits are
    /// the session's.
    ///
    /// # Errors
    /// [`Error::Forbidden`] for one who came with a session, or is no user.
    pub async fn open_session(
        &self,
        by: &Principal,
        life: Life,
        origin: &Origin,
    ) -> Result<Opened> {
        let token = Secret::new(format!("{SESSION}{}", &*random_text::<32>()?));
        let tokens = SessionTokens { hash: token.hash().to_vec(), refresh: None, family: None };
        let (id, expires_at) =
            self.insert_session(by, "session", tokens, life, None, origin).await?;
        Ok(Opened { id, token, expires_at })
    }

    /// Opens a session with an access token of this life, which a refresh token renews until the
    /// other ends.
    ///
    /// # Errors
    /// As [`Identity::open_session`].
    pub async fn open_pair(
        &self,
        by: &Principal,
        access: Duration,
        refresh: Duration,
        origin: &Origin,
    ) -> Result<Pair> {
        let family = random_text::<16>()?;
        let (access_token, refresh_token, tokens) = pair(&family)?;
        let life = Life { idle: None, total: access.min(refresh) };
        let refresh_end = after(self.inner.clock.now(), refresh);
        let inserted = self.insert_session(by, "pair", tokens, life, Some(refresh_end), origin);
        let (id, access_expires_at) = inserted.await?;
        Ok(Pair {
            id,
            access: access_token,
            refresh: refresh_token,
            access_expires_at,
            refresh_expires_at: refresh_end,
        })
    }

    pub(crate) async fn insert_session(
        &self,
        by: &Principal,
        kind: &'static str,
        tokens: SessionTokens,
        life: Life,
        refresh_expires_at: Option<Timestamp>,
        origin: &Origin,
    ) -> Result<(i64, Timestamp)> {
        let user_id = by.require_user()?;
        if by.session_id.is_some() {
            let why = "a session can't open another, it would never end: log in again";
            return Err(Error::Forbidden { why: why.into() });
        }
        let now = self.inner.clock.now();
        let expires_at = after(now, life.total);
        let idle = life.idle.map(|idle| i64::try_from(idle.as_micros()).unwrap_or(i64::MAX / 4));
        let new = NewSession {
            user_id,
            key_id: by.key_id,
            kind,
            tokens,
            address: origin.address_text(),
            agent: bounded(&origin.agent, AGENT),
            idle,
            expires_at,
            refresh_expires_at,
        };
        let mut tx = self.inner.catalog.begin().await?;
        let open = tx.find::<Session>(Session::of_user(user_id)).await?;
        let most = self.policy().sessions_per_user as usize;
        for old in open.iter().take((open.len() + 1).saturating_sub(most)) {
            Session::remove(&mut tx, old.id).await?;
        }
        let id = Session::insert(&mut tx, &new, now).await?;
        tx.commit().await?;
        if open.len() >= most {
            self.inner.cache.clear();
        }
        Ok((id, expires_at))
    }

    /// Who acts with the session whose token has this hash, and until when that is known.
    pub(crate) async fn by_session(
        &self,
        hash: &[u8; 32],
        origin: &Origin,
    ) -> Result<(Principal, Timestamp), AuthError> {
        let session = self.inner.catalog.find_one::<Session>(Session::by_hash(hash)).await?;
        let session = session.ok_or(AuthError::Credentials)?;
        let via = match session.kind.as_str() {
            "session" => Via::Session,
            "pair" => Via::Pair,
            _ => Via::Jwt,
        };
        let now = self.inner.clock.now();
        if session.expires_at <= now || ended_idle(&session, now) {
            return Err(AuthError::Ended);
        }
        let principal = self.with_session(&session, via, origin).await?;
        let idle = session.idle.unwrap_or(i64::MAX);
        let exact = (idle / PART).min(EXACT.as_micros() as i64);
        let unused = now.as_microsecond() - session.used_at.as_microsecond();
        if origin.extends && unused >= exact {
            let mut tx = self.inner.catalog.begin().await?;
            Session::used(&mut tx, session.id, now).await?;
            tx.commit().await?;
        }
        // Known for no longer than its use is: else it would end while it is used.
        let known = after(now, Duration::from_micros(exact.max(0).unsigned_abs()));
        Ok((principal, session.expires_at.min(known)))
    }

    async fn with_session(
        &self,
        session: &Session,
        via: Via,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let catalog = &self.inner.catalog;
        let user = catalog.find_one::<User>(User::by_id(session.user_id)).await?;
        let user = user.ok_or(AuthError::Credentials)?;
        let key = match session.key_id {
            Some(id) => {
                let key = catalog.find_one::<ApiKey>(ApiKey::by_id(id)).await?;
                Some(key.ok_or(AuthError::Ended)?)
            }
            None => None,
        };
        key.as_ref().map(|key| self.check_key(key)).transpose()?;
        let mut principal = self.principal(user, key.as_ref(), via, origin).await?;
        principal.session_id = Some(session.id);
        Ok(principal)
    }

    /// Gives a new pair for a refresh token, which ends with that.
    ///
    /// # Errors
    /// [`AuthError::Reused`] for one that was used before: its session has ended;
    /// [`AuthError::Credentials`], [`AuthError::Ended`], [`AuthError::Disabled`].
    pub async fn refresh(
        &self,
        token: &Secret,
        access: Duration,
        origin: &Origin,
    ) -> Result<Pair, AuthError> {
        let family = token.expose().strip_prefix(REFRESH).and_then(|rest| rest.split_once('_'));
        let (family, _) = family.ok_or(AuthError::Credentials)?;
        let (catalog, now) = (&self.inner.catalog, self.inner.clock.now());
        let by_family = Session::by_family(&sha256(family.as_bytes()));
        let session = catalog.find_one::<Session>(by_family.clone()).await?;
        let stored = catalog.find_one::<SessionTokens>(by_family).await?;
        let (session, stored) = session.zip(stored).ok_or(AuthError::Credentials)?;
        let end = session.refresh_expires_at.unwrap_or(session.expires_at);
        if end <= now {
            return Err(AuthError::Ended);
        }
        let hash = token.hash();
        if !stored.refresh.is_some_and(|newest| same(&newest, &hash)) {
            return self.reused(&session, origin).await;
        }
        // Whoever may not act any more can't renew either.
        self.with_session(&session, Via::Pair, origin).await?;
        let (access_token, refresh_token, tokens) = pair(family)?;
        let access_end = after(now, access).min(end);
        let mut tx = catalog.begin().await?;
        let renewed = session.renew(&mut tx, &hash, &tokens, now, access_end).await?;
        tx.commit().await?;
        self.inner.cache.clear();
        if !renewed {
            return self.reused(&session, origin).await;
        }
        Ok(Pair {
            id: session.id,
            access: access_token,
            refresh: refresh_token,
            access_expires_at: access_end,
            refresh_expires_at: end,
        })
    }

    /// Ends a session of which a refresh token was used twice.
    async fn reused(&self, session: &Session, origin: &Origin) -> Result<Pair, AuthError> {
        let user = self.inner.catalog.find_one::<User>(User::by_id(session.user_id)).await?;
        let who = Who {
            user_id: Some(session.user_id),
            name: user.as_ref().map(|user| user.name.clone()).unwrap_or_default(),
            organisation_id: user.map(|user| user.organisation_id),
            via: Via::Pair.name(),
            address: origin.address_text(),
        };
        let mut change = self.change(who).await?;
        match Session::remove(change.tx(), session.id).await {
            Ok(()) => {
                let deed = Deed::new("session.refresh", format!("session {}", session.id));
                change.commit(deed.failed(AuthError::Reused.word())).await?;
            }
            Err(strongroom_catalog::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        Err(AuthError::Reused)
    }

    /// Ends a session: one's own, or that of another with the right `session.manage`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Forbidden`].
    pub async fn close_session(&self, by: &Principal, id: i64) -> Result<()> {
        let mut change = self.change(Who::from(by)).await?;
        let none = Error::NotFound { what: "session" };
        let session = change.tx().find_one::<Session>(Session::by_id(id)).await?.ok_or(none)?;
        let user = change.user(session.user_id).await?;
        if by.user_id != Some(user.id) {
            by.require(Right::SessionManage, user.organisation_id, "session")?;
        }
        Session::remove(change.tx(), id).await?;
        let object = format!("session {id} of {}", user.name);
        change.commit(Deed::new("session.close", object).within(user.organisation_id)).await
    }

    /// Ends the session that one came with.
    ///
    /// # Errors
    /// [`Error::State`] when one came with something else.
    pub async fn log_out(&self, by: &Principal) -> Result<()> {
        let none = "only a session can be logged out; a key is switched off or removed";
        self.close_session(by, by.session_id.ok_or(Error::State(none))?).await
    }

    /// How many sessions have not ended.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn open_sessions(&self) -> Result<u64> {
        Ok(Session::count_open(&self.inner.catalog, self.inner.clock.now()).await?)
    }
}

fn ended_idle(session: &Session, now: Timestamp) -> bool {
    session.idle.is_some_and(|idle| now.as_microsecond() - session.used_at.as_microsecond() > idle)
}

/// The tokens of a pair, and their hashes.
fn pair(family: &str) -> Result<(Secret, Secret, SessionTokens)> {
    let access = Secret::new(format!("{ACCESS}{}", &*random_text::<32>()?));
    let refresh = Secret::new(format!("{REFRESH}{family}_{}", &*random_text::<32>()?));
    let tokens = SessionTokens {
        hash: access.hash().to_vec(),
        refresh: Some(refresh.hash().to_vec()),
        family: Some(sha256(family.as_bytes()).to_vec()),
    };
    Ok((access, refresh, tokens))
}
