//! Whether a directory works.

use std::time::Duration;

use strongroom_catalog::identity::fold;

use super::DirectorySettings;
use super::conversation::{Conversation, Step, Trouble};
use crate::identity::Identity;
use crate::principal::Principal;
use crate::secret::Secret;
use crate::sources::manages;
use crate::trial::Trial;
use crate::{Error, Result};

impl Identity {
    /// Tries a directory as a login would: with a user's name up to looking for it and its groups,
    /// with the password too. Nothing is changed; a wrong password counts for the directory, and
    /// waits as a login does.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`]; that the directory fails is what the trial says.
    pub async fn try_directory(
        &self,
        by: &Principal,
        id: i64,
        name: Option<String>,
        password: Option<Secret>,
    ) -> Result<Trial> {
        manages(by)?;
        let source = self.source::<DirectorySettings>(id).await?;
        let secret = self.secret_of(id).await?;
        let now = self.inner.clock.now();
        let attempt = match (&name, &password) {
            (Some(name), Some(_)) => {
                let begun = self.inner.backoff.begin(&fold(name), by.address, now, self.policy());
                let blocked =
                    Error::State("too many wrong passwords for that name: wait a few minutes");
                Some(begun.map_err(|_| blocked)?)
            }
            _ => None,
        };
        let limit = Duration::from_secs(source.settings.timeout_seconds.into()) * 4;
        let settings = source.settings.clone();
        let work = tokio::spawn(tokio::time::timeout(limit, async move {
            let mut trial = Trial::default();
            let done = converse(&mut trial, &settings, secret, name, password).await;
            if let Err(Trouble { step, why }) = done {
                trial.step(step.name(), false, why);
            }
            trial
        }));
        let trial = match work.await {
            Ok(Ok(trial)) => trial,
            other => {
                let mut trial = Trial::default();
                let why = match other {
                    Ok(_) => format!("no answer within {} seconds", limit.as_secs()),
                    Err(_) => "it sends what is no LDAP".to_owned(),
                };
                trial.step(Step::Connect.name(), false, why);
                trial
            }
        };
        if let Some(attempt) = attempt {
            let wrong = trial.steps.iter().any(|s| s.name == Step::Password.name() && !s.ok);
            if wrong { drop(attempt) } else { attempt.void() }
        }
        self.end_trial(by, &source, trial).await
    }
}

async fn converse(
    trial: &mut Trial,
    settings: &DirectorySettings,
    secret: Option<Secret>,
    name: Option<String>,
    password: Option<Secret>,
) -> Result<(), Trouble> {
    let mut directory = Conversation::begin(settings).await?;
    trial.step(Step::Connect.name(), true, &settings.url);
    let tls = settings.url.starts_with("ldaps:") || settings.start_tls;
    if tls {
        trial.step(Step::Tls.name(), true, "the certificate is good");
    }
    let name = match (&name, &settings.bind_template, &password) {
        // With a template there is nobody to look as.
        (None, Some(_), _) | (_, Some(_), None) => return Ok(()),
        (None, None, _) => String::new(),
        (Some(name), ..) => name.clone(),
    };
    if !directory.bind(secret.as_ref(), &name, password.as_ref()).await? {
        trial.step(Step::Password.name(), false, "the directory refuses it");
        return Ok(());
    }
    trial.step(Step::Bind.name(), true, as_whom(settings));
    if name.is_empty() {
        // That nobody is found who has no name shows that one may look.
        directory.find("strongroom-nobody").await?;
        trial.step(Step::Search.name(), true, "the appliance may look for users");
        return Ok(());
    }
    let Some(found) = directory.find(&name).await? else {
        trial.step(Step::Search.name(), false, "user_filter finds nobody of that name");
        return Ok(());
    };
    let DirectorySettings { name_attribute, id_attribute, .. } = settings;
    let (here, id) = (&found.arrival.name, &found.arrival.external_id);
    let detail = format!("{}: {name_attribute} {here}, {id_attribute} {id}", found.dn);
    trial.step(Step::Search.name(), true, detail);
    if let Some(password) = &password {
        if !directory.proves(&found, password).await? {
            trial.step(Step::Password.name(), false, "the directory refuses it");
            return Ok(());
        }
        trial.step(Step::Password.name(), true, "it is right");
    }
    let groups = directory.groups(secret.as_ref(), &name, &found).await?;
    trial.step(Step::Groups.name(), true, format!("{} found", groups.len()));
    trial.groups = groups.into_iter().collect();
    Ok(())
}

fn as_whom(settings: &DirectorySettings) -> String {
    match (&settings.bind_template, settings.bind_dn.as_str()) {
        (Some(_), _) => "as the user".to_owned(),
        (None, "") => "as nobody".to_owned(),
        (None, dn) => format!("as {dn}"),
    }
}
