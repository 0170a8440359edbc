//! Whether an issuer works.

use super::IssuerSettings;
use super::token::named;
use crate::Result;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::secret::Secret;
use crate::sources::manages;
use crate::trial::Trial;

impl Identity {
    /// Fetches an issuer's keys, and checks a token with them, if there is one. Nothing is changed.
    ///
    /// # Errors
    /// [`Error::Forbidden`](crate::Error::Forbidden), [`Error::NotFound`](crate::Error::NotFound);
    /// that something fails is what the trial says.
    pub async fn try_issuer(
        &self,
        by: &Principal,
        id: i64,
        token: Option<Secret>,
    ) -> Result<Trial> {
        manages(by)?;
        let source = self.source::<IssuerSettings>(id).await?;
        let mut trial = Trial::default();
        match self.inner.issuers.published(&source.settings).await {
            Err(why) => trial.step("keys", false, why),
            Ok(keys) => {
                let names = keys.iter().map(|key| key.common.key_id.as_deref().unwrap_or("-"));
                let names = names.collect::<Vec<_>>().join(", ");
                trial.step("keys", true, format!("{} found: {names}", keys.len()));
                if let Some(token) = token {
                    let now = self.inner.clock.now();
                    let good = named(token.expose(), &source.settings).and_then(|named| {
                        let key = named.key(&keys).ok_or("no key of the issuer fits it")?;
                        named.check(token.expose(), key, &source.settings, now)
                    });
                    match good {
                        Err(why) => trial.step("token", false, why),
                        Ok(good) => {
                            let name = good.arrival.name;
                            trial.step("token", true, format!("it is good, for {name}"));
                            trial.groups = good.arrival.groups.into_iter().collect();
                        }
                    }
                }
            }
        }
        self.end_trial(by, &source, trial).await
    }
}
