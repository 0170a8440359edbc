//! The token of the appliance's administration interface: one word for all of the box, for scripts
//! that know no users.
//!
//! It is an API key: it belongs to a user and has no more rights, it can be switched off, given an
//! end, narrowed and removed. Only how it is shown differs: as the word itself, or as the
//! HMAC-SHA-256 of a text under the 64 small hexadecimal digits of the word's SHA-256. Both can be
//! checked with those digits alone, so they are kept, sealed, and the word is not.
//!
//! At the first run it is a passphrase that is good for setting a token, and for nothing else.
//! Whoever tries to set it with a wrong one waits two seconds for the answer, and so does the next
//! from the same network: many at once take as long as one after the other. Who has the right one
//! waits for nobody; how many can be tried at once is what counts failed logins.

use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use strongroom_catalog::identity::{AdminToken, ApiKey, NewKey, User};
use tokio::sync::{Mutex, Semaphore};
use zeroize::Zeroizing;

use crate::audit::{Deed, Who};
use crate::backoff::network;
use crate::change::Change;
use crate::decide::{Decision, Object, decide};
use crate::identity::{ADMIN, Identity};
use crate::origin::Origin;
use crate::principal::{Principal, Via};
use crate::rights::Right;
use crate::secret::{Secret, random, random_text, same, sha256};
use crate::{AuthError, Error, Result, passphrase};

/// The name of the API key that it is.
const NAME: &str = "administration token";
/// For what it is sealed.
const PURPOSE: &str = "administration token";
/// What wrong tokens are counted under, with the address: nobody else's failures lock one out.
const ACCOUNT: &str = "administration token";
/// What a try that is not let through costs.
const PAUSE: Duration = Duration::from_secs(2);
/// Characters of a token, at most.
const LONGEST: usize = 255;
/// How many networks can be made to wait apart.
const TURNS: usize = 64;
/// Tries from one network that wait for their turn; more are answered at once.
const QUEUE: usize = 16;

/// How it is shown.
#[derive(Clone)]
pub enum ShownToken {
    /// The word itself.
    Word(Secret),
    /// The HMAC of a text, in small hexadecimal digits.
    Hash {
        /// What was signed.
        text: String,
        /// The HMAC.
        hash: String,
    },
}

impl std::fmt::Debug for ShownToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ShownToken")
    }
}

/// What there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// None.
    Absent,
    /// A passphrase that is good for setting one.
    FirstRun,
    /// A token.
    Set,
}

/// The token as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// What there is.
    pub state: TokenState,
    /// The API key that it is.
    pub key: Option<ApiKey>,
}

/// Why a token was not set.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetUpError {
    /// Who asks may not.
    #[error("the token is set by who has it, or has the passphrase of the first run")]
    Refused,
    /// It is known who asks, and this one may not.
    #[error("{0}")]
    Forbidden(&'static str),
    /// It is not one that can be taken.
    #[error(transparent)]
    Failed(#[from] Error),
}

/// Where tries that failed wait for each other.
#[derive(Debug)]
pub(crate) struct Turns {
    /// So that nobody can choose whom to wait with.
    salt: [u8; 16],
    turns: [(Mutex<()>, Semaphore); TURNS],
}

impl Turns {
    pub(crate) fn new() -> Result<Self> {
        let turn = |_| (Mutex::default(), Semaphore::new(QUEUE));
        Ok(Self { salt: *random::<16>()?, turns: std::array::from_fn(turn) })
    }

    /// Makes one who was refused wait for those before, and the usual time. Of very many the last
    /// are told at once: they were as wrong.
    async fn wait(&self, address: Option<IpAddr>) {
        let mut name = self.salt.to_vec();
        name.extend(
            address.map(|address| network(address).to_string()).unwrap_or_default().bytes(),
        );
        let (turn, queue) = &self.turns[usize::from(sha256(&name)[0]) % TURNS];
        let Ok(_place) = queue.try_acquire() else { return };
        let _turn = turn.lock().await;
        tokio::time::sleep(PAUSE).await;
    }
}

/// What HMACs are made with.
fn signing_key(word: &Secret) -> Zeroizing<String> {
    Zeroizing::new(HEXLOWER.encode(&word.hash()))
}

/// Refuses what can't be a token: 1 to 255 visible ASCII characters.
///
/// # Errors
/// [`Error::Invalid`].
fn check(word: &Secret) -> Result<()> {
    let text = word.expose();
    let wrong = |why: String| Error::Invalid { field: "token", why };
    if !text.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(wrong("only visible ASCII characters, without spaces, can be in it".into()));
    }
    match (1..=LONGEST).contains(&text.len()) {
        true => Ok(()),
        false => Err(wrong(format!("it has 1 to {LONGEST} characters"))),
    }
}

impl Identity {
    /// What there is.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn admin_token_state(&self) -> Result<TokenState> {
        let found = self.inner.catalog.find_one::<AdminToken>(AdminToken::current()).await?;
        Ok(state(found.as_ref()))
    }

    /// What there is, for who may see the appliance's settings.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; those of the catalogue.
    pub async fn admin_token(&self, by: &Principal) -> Result<TokenInfo> {
        by.require(Right::SystemView, by.root, "token")?;
        let catalog = &self.inner.catalog;
        let found = catalog.find_one::<AdminToken>(AdminToken::current()).await?;
        let key = match &found {
            Some(token) => catalog.find_one::<ApiKey>(ApiKey::by_id(token.key_id)).await?,
            None => None,
        };
        Ok(TokenInfo { state: state(found.as_ref()), key })
    }

    /// What HMACs are made with under the token, as a secret that who has the token can tell; None:
    /// there is none. For who may administer the appliance.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Sealed`]; those of the catalogue.
    pub async fn admin_token_key(&self, by: &Principal) -> Result<Option<Secret>> {
        by.require(Right::SystemManage, by.root, "token")?;
        let found = self.inner.catalog.find_one::<AdminToken>(AdminToken::current()).await?;
        let Some(token) = found.filter(|token| !token.first_run) else { return Ok(None) };
        let key = self.inner.key.unseal(PURPOSE, &token.sealed)?;
        Ok(Some(Secret::new(String::from_utf8_lossy(&key))))
    }

    /// Who acts with the token. Wrong ones count as failed logins of that address do.
    ///
    /// # Errors
    /// [`AuthError`]; [`AuthError::FirstRun`] also for the right passphrase, which only
    /// [`Identity::set_up_admin_token`] takes.
    pub async fn by_admin_token(
        &self,
        shown: &ShownToken,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        let found = self.inner.catalog.find_one::<AdminToken>(AdminToken::current()).await?;
        if found.as_ref().is_some_and(|token| token.first_run) {
            return Err(AuthError::FirstRun);
        }
        let (principal, _) = self.shown(found, shown, origin).await?;
        Ok(principal)
    }

    /// Tells whether what was shown is right, first run or not.
    async fn shown(
        &self,
        found: Option<AdminToken>,
        shown: &ShownToken,
        origin: &Origin,
    ) -> Result<(Principal, AdminToken), AuthError> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let account = format!("{ACCOUNT} {}", origin.address_text());
        let attempt = inner.backoff.begin(&account, origin.address, now, self.policy());
        let attempt = match attempt {
            Ok(attempt) => attempt,
            Err(wait) => {
                let blocked = Err(AuthError::Blocked { wait });
                inner.logins.count(&blocked);
                return blocked;
            }
        };
        let right = match &found {
            Some(token) => {
                let key = inner.key.unseal(PURPOSE, &token.sealed)?;
                is_right(&key, shown)
            }
            None => false,
        };
        let (Some(token), true) = (found, right) else {
            let outcome = Err(AuthError::Credentials);
            inner.logins.count(&outcome);
            self.turned_away(None, Via::Key, origin, &AuthError::Credentials).await?;
            return outcome;
        };
        attempt.passed();
        let key = inner.catalog.find_one::<ApiKey>(ApiKey::by_id(token.key_id)).await?;
        let key = key.ok_or(AuthError::Credentials)?;
        Ok((self.with_key(&key, Via::Key, origin).await?, token))
    }

    /// Sets the token, for who shows the one that is there, and may do this `operation` with it, or
    /// the passphrase of the first run; for anybody when there is none and `open` says so. Whoever
    /// is refused waits.
    ///
    /// # Errors
    /// [`SetUpError`].
    pub async fn set_up_admin_token(
        &self,
        shown: Option<&ShownToken>,
        new: &Secret,
        open: bool,
        operation: &str,
        origin: &Origin,
    ) -> Result<(), SetUpError> {
        let found = self.inner.catalog.find_one::<AdminToken>(AdminToken::current()).await;
        let found = found.map_err(Error::from)?;
        let is_open = open && found.is_none();
        let first_run = found.as_ref().is_some_and(|token| token.first_run);
        let by = match shown {
            Some(shown) => self.shown(found, shown, origin).await.map(Some),
            None if is_open => Ok(None),
            None => Err(AuthError::Credentials),
        };
        let by = match by {
            Ok(by) => by.map(|(principal, _)| principal),
            Err(AuthError::Internal(error)) => return Err(error.into()),
            Err(_) if is_open => None,
            Err(error) => {
                if shown.is_none() {
                    let told = self.turned_away(None, Via::Key, origin, &error).await;
                    told.map_err(internal)?;
                }
                self.inner.turns.wait(origin.address).await;
                return Err(SetUpError::Refused);
            }
        };
        if let Some(by) = by.as_ref().filter(|_| !first_run) {
            self.may_set(by, operation).await?;
        }
        check(new)?;
        let who = match &by {
            Some(by) => Who::from(by),
            None => Who { address: origin.address_text(), ..Who::appliance() },
        };
        let mut change = self.change(who).await?;
        // Another may have been faster: then what was shown is no longer right.
        let current = change.tx().find_one::<AdminToken>(AdminToken::current()).await;
        let current = current.map_err(Error::from)?;
        match (&current, shown) {
            (Some(token), Some(shown)) => {
                let key = self.inner.key.unseal(PURPOSE, &token.sealed)?;
                if !is_right(&key, shown) {
                    return Err(SetUpError::Refused);
                }
            }
            (None, _) if is_open => {}
            _ => return Err(SetUpError::Refused),
        }
        let user = match &current {
            Some(_) => None,
            None => Some(first_administrator(&mut change).await?),
        };
        let root = self.root().await?.id;
        self.put_admin_token(&mut change, current, user, new, false).await?;
        change.commit(Deed::new("token.set", NAME).within(root)).await?;
        Ok(())
    }

    /// Refuses one whose key or user may not set the token.
    async fn may_set(&self, by: &Principal, operation: &str) -> Result<(), SetUpError> {
        let decision = decide(by, Right::SystemManage, &Object::APPLIANCE, operation);
        let why = match decision {
            Decision::Allow => return Ok(()),
            Decision::NeedsApproval => {
                "another administrator must approve that: use the native API"
            }
            _ => "the key that this token is, or its user, may not set it",
        };
        let deed = Deed::new("token.set", NAME).within(by.root).failed(why);
        self.record(by, deed).await?;
        Err(SetUpError::Forbidden(why))
    }

    /// Sets the token natively: it will be the asker's, whatever there was before.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Forbidden`] for who may not administer the appliance, or is
    /// narrowed by a key; [`Error::State`] at the control socket when there is no user `admin`.
    pub async fn set_admin_token(&self, by: &Principal, new: &Secret) -> Result<()> {
        check(new)?;
        self.renew(by, new, false, "token.set").await
    }

    /// Begins the first run of the token anew: gives a passphrase that is good for setting one, and
    /// ends the one that is there.
    ///
    /// # Errors
    /// As [`Identity::set_admin_token`].
    pub async fn reset_admin_token(&self, by: &Principal) -> Result<Secret> {
        let word = passphrase()?;
        self.renew(by, &word, true, "token.reset").await?;
        Ok(word)
    }

    async fn renew(
        &self,
        by: &Principal,
        new: &Secret,
        first_run: bool,
        operation: &str,
    ) -> Result<()> {
        by.require_whole()?;
        by.require(Right::SystemManage, by.root, "token")?;
        let mut change = self.change(Who::from(by)).await?;
        let current = change.tx().find_one::<AdminToken>(AdminToken::current()).await?;
        if let Some(token) = &current {
            ApiKey::remove(change.tx(), token.key_id).await?;
        }
        let user = match by.user_id {
            Some(id) => change.user(id).await?,
            None => first_administrator(&mut change).await?,
        };
        change.covers(by, user.id).await?;
        self.put_admin_token(&mut change, None, Some(user), new, first_run).await?;
        change.commit(Deed::new(operation, NAME).within(by.root)).await
    }

    /// As part of the first run of the appliance: the passphrase for setting the token.
    pub(crate) async fn first_admin_token(
        &self,
        change: &mut Change<'_>,
        user: i64,
    ) -> Result<Option<Secret>> {
        let current = change.tx().find_one::<AdminToken>(AdminToken::current()).await?;
        if current.as_ref().is_some_and(|token| !token.first_run) {
            return Ok(None);
        }
        let user = match &current {
            Some(_) => None,
            None => Some(change.user(user).await?),
        };
        let word = passphrase()?;
        self.put_admin_token(change, current, user, &word, true).await?;
        Ok(Some(word))
    }

    /// Puts a word in place of the current one, or makes it the key of a user.
    async fn put_admin_token(
        &self,
        change: &mut Change<'_>,
        current: Option<AdminToken>,
        user: Option<User>,
        word: &Secret,
        first_run: bool,
    ) -> Result<()> {
        let sealed = self.inner.key.seal(PURPOSE, signing_key(word).as_bytes())?;
        let key_id = match (current, user) {
            (Some(token), _) => token.key_id,
            (None, Some(user)) => {
                let new = NewKey {
                    user_id: user.id,
                    organisation_id: user.organisation_id,
                    name: NAME.into(),
                    prefix: random_text::<5>()?.to_string(),
                    // Of a key that nobody has: this one is not shown as others are.
                    hash: Secret::new(random_text::<32>()?.as_str()).hash(),
                    sealed: None,
                    enabled: true,
                    rights: None,
                    pools: None,
                    operations: None,
                    dialect: None,
                    expires_at: None,
                };
                ApiKey::insert(change.tx(), &new, self.inner.clock.now()).await?
            }
            (None, None) => return Err(Error::NotFound { what: "token" }),
        };
        Ok(AdminToken { key_id, sealed, first_run }.put(change.tx()).await?)
    }
}

fn state(found: Option<&AdminToken>) -> TokenState {
    match found {
        None => TokenState::Absent,
        Some(token) if token.first_run => TokenState::FirstRun,
        Some(_) => TokenState::Set,
    }
}

fn internal(error: AuthError) -> Error {
    match error {
        AuthError::Internal(error) => error,
        _ => Error::State("the audit trail can't be written"),
    }
}

/// Compares in a time that tells nothing.
fn is_right(key: &[u8], shown: &ShownToken) -> bool {
    match shown {
        ShownToken::Word(word) => same(key, signing_key(word).as_bytes()),
        ShownToken::Hash { text, hash } => {
            let signing = hmac::Key::new(hmac::HMAC_SHA256, key);
            let right = HEXLOWER.encode(hmac::sign(&signing, text.as_bytes()).as_ref());
            same(right.as_bytes(), hash.as_bytes())
        }
    }
}

/// The user that came with the appliance, for what nobody else is named for.
async fn first_administrator(change: &mut Change<'_>) -> Result<User> {
    let admin = change.tx().find_one::<User>(User::by_name(ADMIN)).await?;
    admin.ok_or(Error::State("there is no user `admin` whose token it could be: log in as a user"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(word: &str, text: &str, hash: &str) -> bool {
        let shown = ShownToken::Hash { text: text.into(), hash: hash.into() };
        is_right(signing_key(&word.into()).as_bytes(), &shown)
    }

    /// `001_6b50177443fe5605.txt` section 2, and the contract's further vectors.
    #[test]
    fn hashes_are_those_of_the_document() {
        assert_eq!(
            *signing_key(&"yourtoken".into()),
            "13e2ff941bbc8692cad141c8d293dda2c4f1c1a3c51b93d54f1a1693e1206107"
        );
        for (word, text, right) in [
            (
                "yourtoken",
                "GET/api/v1/admin/version",
                "b714a60732e096ccef06e360eefe0f1ba4fa5d16ef7da726612e2026e5523241",
            ),
            (
                "testtoken",
                "GET/api/v1/admin/version",
                "39791be66bfbce4966b6c3feb7bfcb9118c285fa952b030a9af2fcf64f1a67ac",
            ),
            (
                "testtoken",
                "GET/api/v1/admin/update/log",
                "9d2b2106bb2c529d3b1e9cebe72a14d3f92f9413696416df43b3de4912978f6c",
            ),
            (
                "testtoken",
                "POST/api/v1/admin/setup",
                "58c286530140fb0e45a34a877334249fa38187e9e6dee5a4bf291c1312da6358",
            ),
            (
                "testtoken",
                "POST/api/v1/admin/backup/restore",
                "6ec27c84a5f85c5e819ae0dd7fc3bba179e7111e974d258868dd54afaf8dc41a",
            ),
        ] {
            assert!(hash(word, text, right), "{text}");
            assert!(!hash(word, text, &right.to_uppercase()), "small digits only");
            assert!(!hash(word, text, &right[1..]), "all of it");
            assert!(!hash("another", text, right));
        }
        assert!(!hash("testtoken", "GET/api/v1/admin/version", ""));
    }

    #[test]
    fn a_token_is_of_visible_characters() {
        let ok = |text: String| check(&text.into()).is_ok();
        assert!(ok("!".into()) && ok("~".repeat(255)));
        for wrong in ["".into(), " ".into(), "a b".into(), "é".into(), "\n".into(), "x".repeat(256)]
        {
            assert!(!ok(wrong));
        }
    }
}
