//! Certificates of an authority that gives them by ACME (RFC 8555): asked for by a job, renewed in time,
//! shown without a restart. That a name is this appliance's is proven by what it answers at port 80
//! (`http-01`): the listener that redirects to HTTPS answers.

mod obtain;
mod operations;
mod settings;

use std::collections::HashMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use instant_acme::{BodyWrapper, BytesResponse, Error as AcmeError, HttpClient};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use strongroom_identity::{ApplianceKey, Identity};
use zeroize::Zeroizing;

pub use self::settings::AcmeSettings;
use crate::files;
use crate::{Error, Result};

/// The name of the file, in the data directory.
pub(crate) const NAME: &str = "acme.sealed";
/// Its bytes, at most.
const SIZE: u64 = 256 << 10;
/// What it is sealed for.
const PURPOSE: &str = "acme";
/// After one was asked for the next is asked for no sooner by itself: that, twice that after the second
/// in a row that came to nothing, and so on.
const AGAIN: Duration = Duration::from_secs(3600);
/// It is never longer than that.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// What is told of one until it is over.
const UNDER_WAY: &str = "the certificate is being asked for, or that was cut off";
/// Answers that are kept at once.
const CHALLENGES: usize = 256;
/// Why none is asked for where no listener answers an authority.
const UNSERVED: &str = "no listener answers the authority, which asks at port 80 of each name: give the \
    configuration one, as `redirect = \"0.0.0.0:80\"`, and have it read again or restart";

/// Makes what speaks HTTPS with an authority, which is vouched for by these certificates; none: by those
/// that the machine trusts.
pub type Connect = Arc<dyn Fn(Option<&str>) -> Box<dyn HttpClient> + Send + Sync>;

/// What is answered to who asks whether a name is this appliance's. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Challenges {
    answers: Arc<Mutex<HashMap<String, String>>>,
    listeners: Arc<AtomicUsize>,
}

/// A listener that answers, until this is dropped.
#[derive(Debug)]
pub struct Serving {
    of: Challenges,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.of.listeners.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Challenges {
    /// The answer to a token.
    pub fn answer(&self, token: &str) -> Option<String> {
        self.lock().get(token).cloned()
    }

    /// Says that a listener answers.
    #[must_use]
    pub fn serve(&self) -> Serving {
        self.listeners.fetch_add(1, Ordering::SeqCst);
        Serving { of: self.clone() }
    }

    /// Whether any listener answers.
    fn are_served(&self) -> bool {
        self.listeners.load(Ordering::SeqCst) > 0
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers, until what it gives goes.
    fn put(&self, token: &str, answer: &str) -> Option<Answering> {
        let mut answers = self.lock();
        if answers.len() >= CHALLENGES {
            return None;
        }
        answers.insert(token.to_owned(), answer.to_owned());
        Some(Answering { of: self.clone(), token: token.to_owned() })
    }
}

/// A token that is answered.
#[derive(Debug)]
struct Answering {
    of: Challenges,
    token: String,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.of.lock().remove(&self.token);
    }
}

/// A certificate that was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Issued {
    at: Timestamp,
    not_before: Timestamp,
    not_after: Timestamp,
    domains: Vec<String>,
}

impl Issued {
    /// A third of its life is left then.
    fn renew_at(&self) -> Timestamp {
        let third = self.not_after.duration_since(self.not_before) / 3;
        self.not_after.checked_sub(third).unwrap_or(self.not_before)
    }
}

/// What is kept. The account is its key, as the library writes it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    settings: AcmeSettings,
    account: Option<serde_json::Value>,
    issued: Option<Issued>,
    tried_at: Option<Timestamp>,
    error: Option<String>,
    /// Tries since the last that gave one.
    #[serde(default)]
    failures: u32,
}

impl Kept {
    /// Whether a certificate is to be asked for now.
    fn is_due(&self, now: Timestamp) -> bool {
        let doubled = 1u32.checked_shl(self.failures.saturating_sub(1)).unwrap_or(u32::MAX);
        let again = AGAIN.saturating_mul(doubled).min(LONGEST);
        let again = SignedDuration::try_from(again).unwrap_or(SignedDuration::MAX);
        // A time to come is that of a clock that was wrong.
        let early = self.tried_at.is_some_and(|at| at <= now && now.duration_since(at) < again);
        let wanted = match &self.issued {
            Some(issued) => issued.domains != self.settings.domains || issued.renew_at() <= now,
            None => true,
        };
        wanted && !early
    }
}

/// What is set, and how it is.
#[derive(Clone, Debug, Default)]
pub struct AcmeStatus {
    /// What is set.
    pub settings: Option<AcmeSettings>,
    /// Whether the authority has an account of this appliance.
    pub has_account: bool,
    /// When the last certificate was given.
    pub issued_at: Option<Timestamp>,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// When another is asked for.
    pub renew_at: Option<Timestamp>,
    /// When one was asked for last.
    pub tried_at: Option<Timestamp>,
    /// Why that failed, or why none can be asked for.
    pub error: Option<String>,
}

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct Acme {
    path: PathBuf,
    identity: Identity,
    connect: Connect,
    challenges: Challenges,
    turn: Arc<Mutex<()>>,
}

impl fmt::Debug for Acme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Acme")
    }
}

impl Acme {
    /// Of the appliance with this data directory.
    pub fn of(data: &Path, identity: Identity, connect: Connect) -> Self {
        let challenges = Challenges::default();
        Self { path: data.join(NAME), identity, connect, challenges, turn: Arc::default() }
    }

    /// What is answered at the moment.
    pub fn challenges(&self) -> Challenges {
        self.challenges.clone()
    }

    fn kept(&self) -> Result<Option<Kept>> {
        let sealed = match files::read(&self.path, SIZE) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::file(&self.path))?,
        };
        open(self.identity.key(), &sealed).map(Some)
    }

    fn write(&self, kept: &Kept) -> Result<()> {
        let text = serde_json::to_vec(kept).map_err(|error| Error::Acme(error.to_string()))?;
        let sealed = self.identity.key().seal(PURPOSE, &Zeroizing::new(text))?;
        files::replace(&self.path, &sealed).map_err(Error::file(&self.path))
    }

    /// Changes what is kept, if there is something.
    fn change(&self, change: impl FnOnce(&mut Kept)) -> Result<()> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(mut kept) = self.kept()? else { return Ok(()) };
        change(&mut kept);
        self.write(&kept)
    }

    /// Writes down that a certificate is asked for, before it is: whatever becomes of the process, the
    /// authority is not asked again at once.
    fn begin(&self) -> Result<Kept> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = self.kept()?;
        let mut kept = kept.ok_or_else(|| Error::State("nothing is set of ACME".into()))?;
        kept.tried_at = Some(Timestamp::now());
        kept.failures = kept.failures.saturating_add(1);
        kept.error = Some(UNDER_WAY.into());
        self.write(&kept)?;
        Ok(kept)
    }

    /// What is set, and how it is. It waits for files.
    fn status(&self) -> Result<AcmeStatus> {
        let Some(kept) = self.kept()? else { return Ok(AcmeStatus::default()) };
        let Kept { settings, account, issued, tried_at, error, failures: _ } = kept;
        let unserved = (!self.challenges.are_served()).then(|| UNSERVED.into());
        Ok(AcmeStatus {
            settings: Some(settings),
            has_account: account.is_some(),
            issued_at: issued.as_ref().map(|issued| issued.at),
            expires_at: issued.as_ref().map(|issued| issued.not_after),
            renew_at: issued.as_ref().map(Issued::renew_at),
            tried_at,
            error: unserved.or(error),
        })
    }

    /// Keeps these settings, and what of the ones before belongs to them.
    fn set(&self, settings: AcmeSettings) -> Result<()> {
        settings.check()?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        // What can't be opened is replaced.
        let before = match self.kept() {
            Err(error @ Error::File { .. }) => return Err(error),
            kept => kept.ok().flatten(),
        };
        let before = before.filter(|kept| kept.settings.directory == settings.directory);
        let (account, issued) = match before {
            Some(kept) if kept.settings.contact == settings.contact => (kept.account, kept.issued),
            Some(kept) => (None, kept.issued),
            None => (None, None),
        };
        let kept = Kept { settings, account, issued, tried_at: None, error: None, failures: 0 };
        self.write(&kept)
    }

    fn forget(&self) -> Result<bool> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file(&self.path)(error)),
        }
    }
}

fn open(key: &ApplianceKey, sealed: &[u8]) -> Result<Kept> {
    let text = key.unseal(PURPOSE, sealed).map_err(|_| {
        Error::Acme("what is set can't be opened with the appliance's key: set it again".into())
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Acme(format!("what is set is not understood: {error}")))
}

/// Whether that is such a file, sealed with this key.
pub(crate) fn check(key: &ApplianceKey, sealed: &[u8]) -> Result<()> {
    open(key, sealed).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn one_is_due_when_a_third_of_its_life_is_left_and_not_at_once_after_a_failure() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let settings = AcmeSettings {
            directory: "https://ca.example/dir".into(),
            ca_certificate: None,
            contact: Vec::new(),
            domains: vec!["box.example".into()],
        };
        let mut kept = Kept {
            settings,
            account: None,
            issued: None,
            tried_at: None,
            error: None,
            failures: 0,
        };
        let now = at("2026-03-01T00:00:00Z");
        assert!(kept.is_due(now), "there is none");
        kept.tried_at = Some(at("2026-02-28T23:30:00Z"));
        assert!(!kept.is_due(now), "one was given, or is on its way");
        for (failures, hours) in
            [(1, 1), (2, 2), (3, 4), (5, 16), (6, 24), (40, 24), (u32::MAX, 24)]
        {
            kept.failures = failures;
            let then = kept.tried_at.unwrap() + SignedDuration::from_hours(hours);
            assert!(!kept.is_due(then - SignedDuration::from_secs(1)), "{failures}");
            assert!(kept.is_due(then), "{failures}");
        }
        kept.tried_at = Some(at("2036-01-01T00:00:00Z"));
        assert!(kept.is_due(now), "the clock was wrong");
        kept.tried_at = None;
        kept.issued = Some(Issued {
            at: now,
            not_before: now,
            not_after: at("2026-05-30T00:00:00Z"),
            domains: vec!["box.example".into()],
        });
        assert!(!kept.is_due(at("2026-04-29T23:59:59Z")));
        assert!(kept.is_due(at("2026-04-30T00:00:00Z")));
        kept.settings.domains.push("other.example".into());
        assert!(kept.is_due(now), "it is of other names");
    }

    #[test]
    fn an_answer_is_given_as_long_as_it_is_waited_for() {
        let challenges = Challenges::default();
        let answering = challenges.put("token", "token.print").unwrap();
        assert_eq!(challenges.answer("token").unwrap(), "token.print");
        assert_eq!(challenges.answer("other"), None);
        drop(answering);
        assert_eq!(challenges.answer("token"), None);
        let (one, other) = (challenges.serve(), challenges.clone().serve());
        drop(one);
        assert!(challenges.are_served());
        drop(other);
        assert!(!challenges.are_served());
        let many: Vec<_> = (0..300).filter_map(|n| challenges.put(&n.to_string(), "x")).collect();
        assert_eq!(many.len(), CHALLENGES);
    }
}
