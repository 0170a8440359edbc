//! What becomes of a release: it is put in force on trial, proves itself or does not, and is gone back
//! from.

use std::path::Path;

use jiff::Timestamp;

use super::super::Version;
use super::catalogue::copy_of;
use super::directory::PROGRAM;
use super::state::{Copied, Returning, Trial, UpdateRecord, UpdateResult};
use super::{Releases, is_there};
use crate::{Error, Result};

impl Releases {
    /// Puts a release in force, on trial. It is begun by the next start.
    pub(crate) fn decide(&self, trial: Trial, by: &str, job: Option<i64>) -> Result<()> {
        let version = self.facts(&trial.release)?.version;
        self.change(|state| {
            if state.trial.is_some() {
                return Err(on_trial());
            }
            state.told(UpdateRecord {
                version,
                from_version: trial.previous.version.clone(),
                release: Some(trial.release.clone()),
                by: by.to_owned(),
                job,
                at: Timestamp::now(),
                ended_at: None,
                result: UpdateResult::Trial,
                reason: None,
            });
            state.active = Some(trial.release.clone());
            state.returning = None;
            state.trial = Some(trial);
            Ok(())
        })
    }

    /// It has proven itself.
    pub(crate) fn confirm(&self, release: &str) -> Result<()> {
        self.change(|state| {
            if let Some(trial) = state.trial.take_if(|trial| trial.release == release) {
                state.previous = Some(trial.previous);
                state.end(release, UpdateResult::Installed, None);
            }
            Ok(())
        })
    }

    /// What was before is in force again, and its catalogue comes back if it needs that.
    pub(crate) fn undo(&self, release: &str, reason: &str) -> Result<()> {
        self.change(|state| {
            let Some(trial) = state.trial.take_if(|trial| trial.release == release) else {
                return Ok(());
            };
            state.active = trial.previous.release;
            let copied = trial.catalogue.filter(|_| trial.copied);
            state.returning = copied.map(|catalogue| Returning { catalogue, decided: false });
            let reason: String = reason.chars().take(500).collect();
            state.end(release, UpdateResult::RolledBack, Some(reason));
            Ok(())
        })
    }

    /// A process of it was told to end, and did: the next start goes on with the trial.
    pub(crate) fn suspend(&self, release: &str) -> Result<()> {
        self.change(|state| {
            if let Some(trial) = state.trial.as_mut().filter(|trial| trial.release == release) {
                trial.begun = false;
            }
            Ok(())
        })
    }

    /// Goes back to what was before, because somebody says so; which version that is. The next
    /// start does it.
    pub(crate) fn go_back(&self, schema: i64, put_back: bool, by: &str) -> Result<String> {
        self.change(|state| {
            let trial = state.trial.clone();
            let previous = match &trial {
                Some(trial) => trial.previous.clone(),
                None => state.previous.clone().ok_or_else(|| {
                    Error::State("there is no earlier release to go back to".into())
                })?,
            };
            if let Some(release) = &previous.release {
                let program = self.path(release).join(PROGRAM);
                self.sound(release).map_err(|why| {
                    Error::State(format!("{} can't be gone back to: {why}", program.display()))
                })?;
            }
            if previous.schema < schema {
                if !put_back {
                    return Err(Error::State(format!(
                        "version {} does not know the catalogue as it is now: it can be gone back \
                         to with the catalogue of before the update (`put_catalogue_back`), \
                         without what was done since",
                        previous.version
                    )));
                }
                // One of another update would be of a schema that it doesn't know either, or of long
                // ago.
                let copy = state.copy.as_ref().filter(|copy| copy.of == previous);
                let copy = copy.filter(|copy| is_there(&copy_of(&copy.catalogue)));
                let catalogue = copy.map(|copy| copy.catalogue.clone()).ok_or_else(|| {
                    Error::State(format!(
                        "version {} does not know the catalogue as it is now, and there is no copy \
                         of the one that it had",
                        previous.version
                    ))
                })?;
                state.returning = Some(Returning { catalogue, decided: true });
            }
            let now = Timestamp::now();
            let from = state.active.clone();
            let facts = from.as_deref().map(|release| self.facts(release)).transpose()?;
            let from_version =
                facts.map_or_else(|| Version::of_program().to_string(), |f| f.version);
            if let Some(trial) = &trial {
                let reason = format!("{by} went back");
                state.end(&trial.release, UpdateResult::RolledBack, Some(reason));
            }
            state.told(UpdateRecord {
                version: previous.version.clone(),
                from_version,
                release: previous.release.clone(),
                by: by.to_owned(),
                job: None,
                at: now,
                ended_at: Some(now),
                result: UpdateResult::Installed,
                reason: None,
            });
            state.trial = None;
            state.active = previous.release;
            // Going back twice would be going on.
            state.previous = None;
            Ok(previous.version)
        })
    }

    /// Copies what the trial may change, and begins it.
    pub(super) fn begin(&self, trial: &Trial, watcher: Option<String>) -> Result<Trial> {
        let mut trial = trial.clone();
        let catalogue = trial.catalogue.clone().filter(|_| !trial.copied);
        if let Some(catalogue) = &catalogue {
            // What is told of the copy of before is no longer so.
            self.change(|state| {
                state.copy = None;
                Ok(())
            })?;
            self.copy_catalogue(catalogue)?;
            trial.copied = true;
        }
        trial.begun = true;
        self.change(|state| {
            if let Some(catalogue) = catalogue {
                state.copy = Some(Copied { catalogue, of: trial.previous.clone() });
            }
            state.watcher = watcher;
            state.trial = Some(trial.clone());
            Ok(())
        })?;
        Ok(trial)
    }
}

/// Refuses what can't be done meanwhile.
pub(crate) fn on_trial() -> Error {
    Error::State("an update is on trial: wait until that is over, or roll it back".into())
}

/// A release on trial has proven itself.
///
/// # Errors
/// [`Error::File`].
pub fn confirm(data: &Path, release: &str) -> Result<()> {
    Releases::of(data).confirm(release)
}

/// A release on trial has failed: what was before is in force.
///
/// # Errors
/// [`Error::File`].
pub fn undo(data: &Path, release: &str, reason: &str) -> Result<()> {
    Releases::of(data).undo(release, reason)
}

/// A release on trial was told to end, and did.
///
/// # Errors
/// [`Error::File`].
pub fn suspend(data: &Path, release: &str) -> Result<()> {
    Releases::of(data).suspend(release)
}

/// Whether this release is on trial still.
///
/// # Errors
/// [`Error::File`].
pub fn is_on_trial(data: &Path, release: &str) -> Result<bool> {
    let state = Releases::of(data).read()?;
    Ok(state.trial.is_some_and(|trial| trial.release == release))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::fixture::{Place, becomes, is_watch};
    use super::super::launch::{Launch, Launcher, launch};
    use super::super::need_catalogue;
    use super::*;

    #[test]
    fn a_release_is_tried_and_stays() {
        let place = Place::new();
        assert!(
            launch(&Launcher { data: &place.data(), program: &place.installed, installed: None })
                .unwrap()
                .is_none()
        );
        let first = place.install("0.2.0");
        assert_eq!(place.launch(), Launch::Stay);
        let releases = place.releases(None);
        releases.decide(place.trial(&first, None), "me", Some(7)).unwrap();
        assert!(releases.decide(place.trial(&first, None), "me", Some(8)).is_err());
        assert!(is_watch(&place.launch(), &first));
        assert!(is_on_trial(&place.data(), &first).unwrap());
        releases.confirm(&first).unwrap();
        assert!(!is_on_trial(&place.data(), &first).unwrap());
        assert!(becomes(&place.launch(), Some(&first)));
        // It is what it is: no start goes round in circles.
        assert_eq!(place.launch_of(&releases, &place.program(&first)).unwrap(), Launch::Stay);
        assert_eq!(releases.is_of(&place.program(&first)), Some(first.clone()));
        assert_eq!(releases.is_of(&place.installed), None);
        let second = place.install("0.3.0");
        releases.decide(place.trial(&second, Some(&first)), "you", Some(9)).unwrap();
        assert!(is_watch(&place.launch_of(&releases, &place.program(&first)).unwrap(), &second));
        releases.confirm(&second).unwrap();
        let third = place.install("0.4.0");
        assert!(place.program(&first).exists() && place.program(&second).exists());
        let state = releases.read().unwrap();
        assert_eq!(state.active, Some(second.clone()));
        assert_eq!(state.previous.unwrap().release, Some(first.clone()));
        let told: Vec<_> =
            state.history.iter().map(|one| (&*one.version, one.result, one.job)).collect();
        let installed = UpdateResult::Installed;
        assert_eq!(told, [("0.2.0", installed, Some(7)), ("0.3.0", installed, Some(9))]);
        // What nobody goes back to goes.
        releases.decide(place.trial(&third, Some(&second)), "you", None).unwrap();
        place.launch();
        releases.confirm(&third).unwrap();
        releases.sweep().unwrap();
        assert!(!place.program(&first).exists() && place.program(&second).exists());
        assert_eq!(releases.changelog(&third).unwrap().unwrap(), "news");
    }

    #[test]
    fn killed_at_every_step_it_is_the_old_or_the_new() {
        let (mut old, mut new) = (0, 0);
        for left in 0.. {
            let place = Place::new();
            let release = place.install("0.2.0");
            let steps = place.releases(Some(left));
            let done = (|| {
                steps.decide(place.trial(&release, None), "me", Some(1))?;
                let launch = place.launch_of(&steps, &place.installed)?;
                assert!(steps.left.get() == Some(0) || is_watch(&launch, &release));
                steps.confirm(&release)
            })();
            let found = place.releases(None).read().unwrap();
            let begun = found.trial.as_ref().map(|trial| trial.begun);
            let launch = place.launch();
            match (found.active, begun) {
                (None, _) => {
                    old += 1;
                    assert!(done.is_err() || left < 9);
                    assert_eq!(launch, Launch::Stay);
                }
                // It died in its trial, and nobody saw why.
                (Some(_), Some(true)) => {
                    old += 1;
                    assert_eq!(launch, Launch::Stay);
                    let record = place.releases(None).read().unwrap().history[0].clone();
                    assert_eq!(record.result, UpdateResult::RolledBack);
                    assert!(record.reason.unwrap().contains("without a word"));
                }
                (Some(_), Some(false)) => {
                    new += 1;
                    assert!(is_watch(&launch, &release), "{left}");
                }
                (Some(_), None) => {
                    new += 1;
                    assert!(becomes(&launch, Some(&release)), "{left}");
                }
            }
            assert_eq!(place.catalogue(), Place::old());
            if done.is_ok() {
                break;
            }
        }
        assert!(old >= 2 && new >= 2, "{old} {new}");
    }

    #[test]
    fn what_was_told_to_end_is_tried_on() {
        let place = Place::new();
        let release = place.install("0.2.0");
        place.releases(None).decide(place.trial(&release, None), "me", None).unwrap();
        assert!(is_watch(&place.launch(), &release));
        place.migrate();
        suspend(&place.data(), &release).unwrap();
        assert!(is_watch(&place.launch(), &release));
        // The copy is that of before the update.
        undo(&place.data(), &release, "x").unwrap();
        need_catalogue(&place.data()).unwrap();
        place.launch();
        assert_eq!(place.catalogue(), Place::old());
    }

    #[test]
    fn one_goes_back_by_hand() {
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        assert!(releases.go_back(7, false, "me").is_err());
        releases.decide(place.trial(&release, None), "me", None).unwrap();
        place.launch();
        releases.confirm(&release).unwrap();
        place.migrate();
        // The installed program does not know the new schema.
        let refused = releases.go_back(8, false, "me").unwrap_err().to_string();
        assert!(refused.contains("put_catalogue_back"), "{refused}");
        assert_eq!(releases.go_back(8, true, "me").unwrap(), "0.1.0");
        assert!(becomes(&place.launch_of(&releases, &place.program(&release)).unwrap(), None));
        assert_eq!(place.catalogue(), Place::old());
        assert_eq!(place.launch(), Launch::Stay);
        let history = releases.read().unwrap().history;
        assert_eq!((&*history[1].version, &*history[1].from_version), ("0.1.0", "0.2.0"));
        assert!(releases.go_back(7, false, "me").is_err(), "once");
        // While it is on trial, and with the schema as it was.
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        releases.decide(place.trial(&release, None), "me", None).unwrap();
        place.launch();
        releases.go_back(7, false, "me").unwrap();
        releases.confirm(&release).unwrap();
        let state = releases.read().unwrap();
        assert_eq!((state.active, state.history[0].result), (None, UpdateResult::RolledBack));
        assert_eq!(place.launch(), Launch::Stay);
    }
}
