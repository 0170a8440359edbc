//! What is done with certificates of an authority.

use jiff::Timestamp;
use strongroom_protect::{Asker, Job};

use super::{Acme, AcmeSettings, AcmeStatus, Issued};
use crate::administration::{Administration, URGENT, blocking};
use crate::tls::{Checked, NewCertificate, TlsFiles};
use crate::works::{self, AcmeParameters};
use crate::{Error, Result};

/// As who a renewal is asked for.
const ASKER: &str = "schedule";

impl Acme {
    /// Asks for a certificate and shows it; what came of it is kept.
    pub(crate) async fn renew(&self, tls: &TlsFiles) -> Result<Checked> {
        let acme = self.clone();
        let kept = blocking(move || acme.kept()).await?;
        let kept = kept.ok_or_else(|| Error::State("nothing is set of ACME".into()))?;
        let domains = kept.settings.domains.clone();
        let done = match self.obtain(&kept).await {
            Ok(given) => {
                let new = NewCertificate {
                    certificate: given.chain.into_bytes(),
                    key: given.key.as_bytes().to_vec().into(),
                    chain: Vec::new(),
                };
                let tls = tls.clone();
                let install = move || {
                    let checked = new.check(Timestamp::now())?;
                    tls.replace(&checked)?;
                    Ok(checked)
                };
                blocking(install).await
            }
            Err(why) => Err(Error::Acme(why)),
        };
        let (issued, error) = match &done {
            Ok(checked) => (issued(checked, domains), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let acme = self.clone();
        let noted = blocking(move || {
            acme.change(|kept| {
                kept.tried_at = Some(Timestamp::now());
                kept.error = error;
                kept.issued = issued.or(kept.issued.take());
            })
        });
        noted.await?;
        done
    }
}

fn issued(checked: &Checked, domains: Vec<String>) -> Option<Issued> {
    let (not_before, not_after) = (checked.facts.not_before?, checked.facts.not_after?);
    Some(Issued { at: Timestamp::now(), not_before, not_after, domains })
}

impl Administration {
    /// What is set of ACME, and how it is.
    ///
    /// # Errors
    /// [`Error::Acme`] when what is kept can't be opened; [`Error::File`].
    pub async fn acme(&self) -> Result<AcmeStatus> {
        let acme = self.parts().acme()?.clone();
        blocking(move || acme.status()).await
    }

    /// Sets it. A certificate is asked for within minutes, or by [`Administration::issue_by_acme`].
    ///
    /// # Errors
    /// [`Error::Acme`]; [`Error::Busy`] while one is asked for; [`Error::File`].
    pub async fn set_acme(&self, settings: AcmeSettings) -> Result<AcmeStatus> {
        settings.check()?;
        let _turn = self.parts().turn.lock().await;
        self.free(works::CERTIFICATE_ACME).await?;
        let acme = self.parts().acme()?.clone();
        blocking(move || {
            acme.set(settings)?;
            acme.status()
        })
        .await
    }

    /// Forgets what is set, and the account: the certificate stays, and is not renewed.
    ///
    /// # Errors
    /// [`Error::Busy`] while one is asked for; [`Error::File`].
    pub async fn clear_acme(&self) -> Result<bool> {
        let _turn = self.parts().turn.lock().await;
        self.free(works::CERTIFICATE_ACME).await?;
        let acme = self.parts().acme()?.clone();
        blocking(move || acme.forget()).await
    }

    /// Asks the authority for a certificate by a job, whether it is time or not.
    ///
    /// # Errors
    /// [`Error::State`] when nothing is set; [`Error::Busy`] while another certificate is on its way;
    /// those of the engine.
    pub async fn issue_by_acme(&self, asker: Asker) -> Result<Job> {
        let _turn = self.parts().turn.lock().await;
        self.free(works::CERTIFICATE_ACME).await?;
        self.free(works::CERTIFICATE).await?;
        if self.acme().await?.settings.is_none() {
            let why = "nothing is set of ACME: `strongroom system certificate acme set`";
            return Err(Error::State(why.into()));
        }
        // Authorities count what is asked of them.
        let asker = Asker { priority: URGENT, attempts: 1, ..asker };
        let object = "the certificate".to_owned();
        let parameters = AcmeParameters {};
        Ok(self.protect().ask(asker, works::CERTIFICATE_ACME, object, &parameters).await?)
    }

    /// Asks for a certificate if it is time; the job that does it.
    ///
    /// # Errors
    /// As [`Administration::issue_by_acme`].
    pub async fn renew_when_due(
        &self,
        identity: &strongroom_identity::Identity,
        now: Timestamp,
    ) -> Result<Option<Job>> {
        let acme = self.parts().acme()?.clone();
        let due = blocking(move || Ok(acme.kept()?.is_some_and(|kept| kept.is_due(now)))).await?;
        if !due {
            return Ok(None);
        }
        let organisation_id = identity.appliance().await?.organisation_id;
        let asker = Asker { organisation_id, user_name: ASKER.into(), ..Asker::default() };
        match self.issue_by_acme(asker).await {
            Ok(job) => Ok(Some(job)),
            Err(Error::Busy { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
