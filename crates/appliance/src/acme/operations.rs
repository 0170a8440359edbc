//! What is done with certificates of an authority.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strongroom_protect::{Asker, Job};

use super::{Acme, AcmeSettings, AcmeStatus, Issued, UNSERVED};
use crate::administration::{Administration, URGENT, blocking};
use crate::tls::{CertificateFacts, Checked, NewCertificate, TlsFiles};
use crate::works::{self, AcmeParameters};
use crate::{Error, Result};

/// As who a renewal is asked for.
const ASKER: &str = "schedule";
/// How long all of it may take.
const WHOLE: Duration = Duration::from_secs(600);
/// How far the clock of an authority may be ahead.
const CLOCKS: SignedDuration = SignedDuration::from_mins(5);

impl Acme {
    /// Asks for a certificate and shows it; what came of it is kept.
    pub(crate) async fn renew(&self, tls: &TlsFiles) -> Result<Checked> {
        let acme = self.clone();
        let kept = blocking(move || acme.begin()).await?;
        let domains = kept.settings.domains.clone();
        let files = tls.clone();
        let late = |_| Err(format!("it was not done after {} s", WHOLE.as_secs()));
        // What it gives is not to be lost for what can be told before.
        let given = match blocking(move || files.can_replace()).await {
            Ok(()) => tokio::time::timeout(WHOLE, self.obtain(&kept))
                .await
                .unwrap_or_else(late)
                .map_err(Error::Acme),
            Err(error) => Err(error),
        };
        let (acme, tls) = (self.clone(), tls.clone());
        // To its end, whoever stops waiting for it.
        blocking(move || {
            let done = given.and_then(|given| {
                let new = NewCertificate {
                    certificate: given.chain.into_bytes(),
                    key: given.key.as_bytes().to_vec().into(),
                    chain: Vec::new(),
                };
                let now = Timestamp::now();
                let checked = new.check(now)?;
                let issued = asked_for(&checked.facts, domains, now)?;
                not_changed_since(&tls, kept.tried_at)?;
                tls.replace(&checked)?;
                Ok((checked, issued))
            });
            acme.change(|kept| match &done {
                Ok((_, issued)) => {
                    (kept.error, kept.failures) = (None, 0);
                    kept.issued = Some(issued.clone());
                }
                Err(error) => kept.error = Some(error.to_string()),
            })?;
            done.map(|(checked, _)| checked)
        })
        .await
    }
}

/// That nobody gave another meanwhile, which is meant to stay.
fn not_changed_since(tls: &TlsFiles, begun: Option<Timestamp>) -> Result<()> {
    let changed = tls.changed_at().and_then(|at| Timestamp::try_from(at).ok());
    match changed > begun {
        true => Err(Error::State("the certificate was replaced while one was asked for".into())),
        false => Ok(()),
    }
}

/// Whether a certificate is what was asked for, and can be shown: else the one that is there is better.
fn asked_for(facts: &CertificateFacts, domains: Vec<String>, now: Timestamp) -> Result<Issued> {
    let wrong = |why: String| Err(Error::Acme(format!("the certificate that it gave {why}")));
    let has = |name: &String| facts.names.iter().any(|one| one.eq_ignore_ascii_case(name));
    if let Some(name) = domains.iter().find(|name| !has(name)) {
        return wrong(format!("is not one of {name}"));
    }
    let (Some(not_before), Some(not_after)) = (facts.not_before, facts.not_after) else {
        return wrong("has no times that are understood".into());
    };
    if not_before.duration_since(now) > CLOCKS {
        return wrong(format!("is valid only from {not_before}: look at the machine's clock"));
    }
    let issued = Issued { at: now, not_before, not_after, domains };
    match issued.renew_at() > now {
        true => Ok(issued),
        false => wrong(format!("is over, or nearly, on {not_after}: look at the machine's clock")),
    }
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

    /// Sets it, if they `agree` to the authority's terms. A certificate is asked for within minutes, or by
    /// [`Administration::issue_by_acme`].
    ///
    /// # Errors
    /// [`Error::Acme`]; [`Error::Busy`] while one is asked for; [`Error::File`].
    pub async fn set_acme(&self, settings: AcmeSettings, agree: bool) -> Result<AcmeStatus> {
        if !agree {
            let why = "agree_to_terms: the authority gives none to who does not agree";
            return Err(Error::Acme(why.into()));
        }
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
    /// [`Error::State`] when nothing is set, and while no listener answers the authority;
    /// [`Error::Busy`] while another certificate is on its way; those of the engine.
    pub async fn issue_by_acme(&self, asker: Asker) -> Result<Job> {
        let _turn = self.parts().turn.lock().await;
        self.free(works::CERTIFICATE_ACME).await?;
        self.free(works::CERTIFICATE).await?;
        if self.acme().await?.settings.is_none() {
            let why = "nothing is set of ACME: `strongroom system certificate acme set`";
            return Err(Error::State(why.into()));
        }
        if !self.parts().acme()?.challenges.are_served() {
            return Err(Error::State(UNSERVED.into()));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_that_was_given_meanwhile_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert.pem");
        let tls = TlsFiles::open(&path, &dir.path().join("key.pem"));
        std::fs::write(&path, "").unwrap();
        let hour = SignedDuration::from_hours(1);
        not_changed_since(&tls, Some(Timestamp::now() + hour)).unwrap();
        let error = not_changed_since(&tls, Some(Timestamp::now() - hour)).unwrap_err();
        assert!(error.to_string().contains("replaced"), "{error}");
    }

    #[test]
    fn what_was_not_asked_for_or_is_not_valid_takes_no_ones_place() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let facts = |names: &[&str], begin: &str, end: &str| CertificateFacts {
            subject: String::new(),
            issuer: String::new(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            not_before: Some(at(begin)),
            not_after: Some(at(end)),
            key: String::new(),
            sha256: String::new(),
        };
        let asked = |facts: &CertificateFacts| {
            let domains = vec!["a.example".to_owned(), "b.example".to_owned()];
            asked_for(facts, domains, at("2026-03-01T00:00:00Z"))
        };
        let (begin, end) = ("2026-03-01T00:01:00Z", "2026-05-30T00:00:00Z");
        let both = ["A.example", "c.example", "b.example"];
        asked(&facts(&both, begin, end)).unwrap();
        for (facts, said) in [
            (facts(&both[..2], begin, end), "not one of b.example"),
            (facts(&both, "2026-03-01T01:00:00Z", end), "only from"),
            (facts(&both, "2026-01-01T00:00:00Z", "2026-03-02T00:00:00Z"), "is over, or nearly"),
            (facts(&both, "2025-01-01T00:00:00Z", "2026-02-01T00:00:00Z"), "is over, or nearly"),
            (CertificateFacts { not_after: None, ..facts(&both, begin, end) }, "no times"),
        ] {
            let error = asked(&facts).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
