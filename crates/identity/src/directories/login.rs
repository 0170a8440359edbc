//! Logging in with a name and a password that a directory knows.

use std::time::Duration;

use strongroom_catalog::identity::{Source, User, fold};

use super::conversation::{Conversation, Trouble};
use super::{DirectorySettings, conversation};
use crate::arrival::Arrival;
use crate::backoff::Attempt;
use crate::identity::Identity;
use crate::origin::Origin;
use crate::principal::{Principal, Via};
use crate::secret::Secret;
use crate::sources::Settings;
use crate::{AuthError, Result};

/// How long a directory may take for all of a login, in answers.
const ANSWERS: u32 = 4;

/// What a directory says of a name and a password.
enum Said {
    /// It doesn't know the name.
    Unknown,
    /// The password is wrong.
    Wrong,
    /// It is this one.
    Right(Arrival),
    /// That account must wait, under whichever name.
    Blocked(Duration),
}

impl Identity {
    /// The directories to be asked for one who logs in with this name: the one that was named, the
    /// one that the user came from, or all. None for a user of this appliance.
    pub(crate) async fn directories_for(
        &self,
        named: Option<&str>,
        user: Option<&User>,
    ) -> Result<Vec<(Source, DirectorySettings)>> {
        let from = match user {
            Some(user) if user.source == DirectorySettings::KIND => user.source_id,
            Some(_) => return Ok(Vec::new()),
            None => None,
        };
        let mut all = self.enabled_sources::<DirectorySettings>().await?;
        all.retain(|(source, _)| {
            from.is_none_or(|id| id == source.id)
                && named.is_none_or(|name| fold(name) == fold(&source.name))
        });
        Ok(all)
    }

    pub(crate) async fn log_in_by_directory(
        &self,
        directories: Vec<(Source, DirectorySettings)>,
        name: &str,
        password: &Secret,
        user: Option<User>,
        attempt: Attempt<'_>,
        origin: &Origin,
    ) -> Result<Principal, AuthError> {
        // What a directory would take for the same name, and a wait of its own for each of them.
        let odd = name.is_empty() || name.trim() != name || name.contains("  ");
        let mut trouble = false;
        // Without a password the server would let one in as nobody, which isn't a login.
        let directories = if odd || password.expose().is_empty() { vec![] } else { directories };
        for (source, settings) in directories {
            let create = settings.create_users;
            match self.ask(&source, settings, name, password).await {
                Ok(Said::Right(arrival)) => {
                    let arrived = self.arrive(&source, create, arrival, Via::Directory, origin);
                    let arrived = arrived.await;
                    attempt.passed();
                    return match arrived {
                        Ok(user) => self.welcome(user, Via::Directory, origin).await,
                        Err(error) => {
                            self.turned_away(user.as_ref(), Via::Directory, origin, &error).await?;
                            Err(error)
                        }
                    };
                }
                Ok(Said::Blocked(wait)) => {
                    attempt.void();
                    return Err(AuthError::Blocked { wait });
                }
                Ok(Said::Wrong) => break,
                Ok(Said::Unknown) => {}
                Err(Trouble { step, why }) => {
                    let step = step.name();
                    tracing::warn!(
                        directory = source.name,
                        step,
                        why,
                        "a directory can't be asked"
                    );
                    trouble = true;
                }
            }
        }
        if trouble {
            attempt.void();
            let error = AuthError::Unreachable;
            self.turned_away(user.as_ref(), Via::Directory, origin, &error).await?;
            return Err(error);
        }
        let why = AuthError::Credentials.word();
        self.failed(user.as_ref(), Via::Directory, origin, why).await?;
        Err(AuthError::Credentials)
    }

    async fn ask(
        &self,
        source: &Source,
        settings: DirectorySettings,
        name: &str,
        password: &Secret,
    ) -> Result<Said, Trouble> {
        let broken = |why: String| Trouble { step: conversation::Step::Connect, why };
        let secret = self.secret_of(source.id).await.map_err(|e| broken(e.to_string()))?;
        let (identity, id) = (self.clone(), source.id);
        let (name, password) = (name.to_owned(), password.clone());
        let limit = Duration::from_secs(settings.timeout_seconds.into()) * ANSWERS;
        // In a task of its own: what a server sends can make the library panic.
        let work = tokio::spawn(tokio::time::timeout(limit, async move {
            identity.converse(id, &settings, secret, &name, &password).await
        }));
        match work.await {
            Ok(Ok(said)) => said,
            Ok(Err(_)) => Err(broken(format!("no answer within {} seconds", limit.as_secs()))),
            Err(_) => Err(broken("it sends what is no LDAP".into())),
        }
    }

    async fn converse(
        &self,
        source: i64,
        settings: &DirectorySettings,
        secret: Option<Secret>,
        name: &str,
        password: &Secret,
    ) -> Result<Said, Trouble> {
        let mut directory = Conversation::begin(settings).await?;
        if !directory.bind(secret.as_ref(), name, Some(password)).await? {
            return Ok(Said::Wrong);
        }
        let Some(mut found) = directory.find(name).await? else {
            directory.refuse().await;
            return Ok(Said::Unknown);
        };
        // The same user may be found by many names; they have the failures in common.
        let account = format!("\0{source}\0{}", found.arrival.external_id);
        let now = self.inner.clock.now();
        let attempt = match self.inner.backoff.begin(&account, None, now, self.policy()) {
            Ok(attempt) => attempt,
            Err(wait) => return Ok(Said::Blocked(wait)),
        };
        match directory.proves(&found, password).await {
            Ok(true) => attempt.passed(),
            Ok(false) => return Ok(Said::Wrong),
            Err(trouble) => {
                attempt.void();
                return Err(trouble);
            }
        }
        found.arrival.groups = directory.groups(secret.as_ref(), name, &found).await?;
        Ok(Said::Right(found.arrival))
    }
}
