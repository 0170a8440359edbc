//! What a start does, decided before anything is opened.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::super::Version;
use super::directory::PROGRAM;
use super::state::{BROKEN, Trial};
use super::{Releases, is_there};
use crate::files::sum;
use crate::{Error, Result};

/// How long a process that is killed may take to be gone.
const DYING: Duration = Duration::from_secs(3);

/// What a start does.
#[derive(Debug, PartialEq, Eq)]
pub enum Launch {
    /// It goes on as it is.
    Stay,
    /// It becomes this program.
    Become {
        /// The program.
        program: PathBuf,
        /// Its release; none: the installed one.
        release: Option<String>,
    },
    /// It starts this program, and watches over it.
    Watch {
        /// The program.
        program: PathBuf,
        /// Its release.
        release: String,
        /// Its version.
        version: String,
        /// How long it is on trial.
        trial: Trial,
    },
}

/// What decides what a start does.
#[derive(Clone, Debug)]
pub struct Launcher<'a> {
    /// The data directory.
    pub data: &'a Path,
    /// This program.
    pub program: &'a Path,
    /// The program that was installed, where this one is of a release.
    pub installed: Option<&'a Path>,
}

impl Releases {
    /// What this start does. Nobody else has the data directory. What is odd is told to `notes`.
    pub(super) fn launch(
        &self,
        launcher: &Launcher<'_>,
        notes: &mut Vec<String>,
    ) -> Result<Launch> {
        let mut state = self.read()?;
        if let Some(returning) = state.returning.clone().filter(|returning| returning.decided) {
            self.put_back(&returning.catalogue)?;
            self.change(|state| {
                (state.returning, state.copy) = (None, None);
                Ok(())
            })?;
            notes.push("the catalogue of before the update is back".into());
        }
        if let Some(trial) = state.trial.clone() {
            let release = trial.release.clone();
            let refused = match self.sound(&release) {
                _ if trial.begun => Some("it died without a word".to_owned()),
                Err(why) => Some(why),
                Ok(facts) => match self.begin(&trial, self.is_of(launcher.program)) {
                    Ok(trial) => {
                        let program = self.path(&release).join(PROGRAM);
                        let version = facts.version;
                        return Ok(Launch::Watch { program, release, version, trial });
                    }
                    Err(error) => Some(format!("it can't be begun: {error}")),
                },
            };
            let why = refused.unwrap_or_default();
            notes.push(format!("{release} is rolled back: {why}"));
            match self.undo(&release, &why).and_then(|()| self.read()) {
                Ok(undone) => state = undone,
                // The next start does it again; nothing of the trial is started meanwhile.
                Err(error) => {
                    notes.push(format!("that can't be written down: {error}"));
                    state.active = trial.previous.release;
                }
            }
        }
        let own = self.is_of(launcher.program);
        if let Some(release) = &state.active {
            if own.as_ref() == Some(release) {
                return Ok(Launch::Stay);
            }
            match self.sound(release) {
                Ok(facts) => {
                    let newer =
                        facts.version.parse().is_ok_and(|v: Version| v > Version::of_program());
                    let chosen = || {
                        let own = sum(launcher.program).ok().map(|(_, sha256)| sha256);
                        own.is_some() && own == facts.over
                    };
                    if newer || own.is_some() || chosen() {
                        let program = self.path(release).join(PROGRAM);
                        return Ok(Launch::Become { program, release: Some(release.clone()) });
                    }
                    notes.push(format!("{release} is not newer than the installed program"));
                }
                Err(why) => notes.push(format!("{release} is not started: {why}")),
            }
        }
        match (own, launcher.installed) {
            (Some(_), Some(program)) if program.exists() => {
                Ok(Launch::Become { program: program.to_owned(), release: None })
            }
            (Some(own), _) => {
                notes.push(format!("{own} goes on: the installed program is not there"));
                Ok(Launch::Stay)
            }
            _ => Ok(Launch::Stay),
        }
    }
}

/// One process at a time decides, or watches over another.
#[derive(Debug)]
pub struct Watchman {
    _file: File,
}

/// Decides what this start does, before anything is opened; with what is odd. None: nothing was ever
/// installed, or another process serves the data directory, which whoever goes on finds.
///
/// # Errors
/// [`Error::File`] when the catalogue of before an update can't be put back: nothing may be opened.
/// [`Error::State`] while another process decides, or watches over one that is about to serve.
pub fn launch(launcher: &Launcher<'_>) -> Result<Option<(Launch, Watchman, Vec<String>)>> {
    let releases = Releases::of(launcher.data);
    if !is_there(&releases.file()) {
        return Ok(None);
    }
    let lock = |path: &Path| -> Result<Option<File>> {
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(Error::file(path))?;
        let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
        Ok(taken.is_ok().then_some(file))
    };
    // Those that were killed may be about to die.
    let wait = |path: PathBuf| -> Result<Option<File>> {
        let end = Instant::now() + DYING;
        loop {
            match lock(&path)? {
                None if Instant::now() < end => std::thread::sleep(DYING / 100),
                found => return Ok(found),
            }
        }
    };
    let Some(file) = wait(releases.dir.join("launch.lock"))? else {
        let data = launcher.data.display();
        let text = format!("another process serves {data}, or is about to: stop it first");
        return Err(Error::State(text));
    };
    // Whoever serves holds this. Nobody may begin to while the catalogue is copied or put back.
    let Some(_nobody) = wait(launcher.data.join("serve.lock"))? else { return Ok(None) };
    let mut notes = Vec::new();
    if let Err(error) = releases.read() {
        notes.push(format!("nothing is known of releases: {error}"));
        match releases.set_aside(&error) {
            Ok(true) => notes.push(format!("that file is {BROKEN} now, and is not read again")),
            Ok(false) => {}
            Err(error) => notes.push(error.to_string()),
        }
        return Ok(Some((Launch::Stay, Watchman { _file: file }, notes)));
    }
    let launch = releases.launch(launcher, &mut notes)?;
    Ok(Some((launch, Watchman { _file: file }, notes)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::directory::FACTS;
    use super::super::fixture::{Place, becomes, is_watch};
    use super::super::is_on_trial;
    use super::*;

    #[test]
    fn what_is_broken_does_not_keep_the_installed_program_from_starting() {
        type Breaking = fn(&Place, &str);
        let all: [Breaking; 7] = [
            |place, release| fs::remove_dir_all(place.program(release).parent().unwrap()).unwrap(),
            |place, release| fs::remove_file(place.program(release)).unwrap(),
            |place, release| fs::write(place.program(release), "changed").unwrap(),
            |place, release| {
                let mode = fs::Permissions::from_mode(0o600);
                fs::set_permissions(place.program(release), mode).unwrap();
            },
            |place, release| {
                fs::write(place.program(release).with_file_name(FACTS), "{").unwrap();
            },
            |place, _| fs::write(place.releases(None).file(), "garbage").unwrap(),
            |place, _| fs::write(place.releases(None).file(), "{\"format\":2}").unwrap(),
        ];
        for (number, breaking) in all.into_iter().enumerate() {
            for on_trial in [false, true] {
                let place = Place::new();
                let release = place.install("0.2.0");
                let releases = place.releases(None);
                releases.decide(place.trial(&release, None), "me", None).unwrap();
                if !on_trial {
                    place.launch();
                    releases.confirm(&release).unwrap();
                }
                breaking(&place, &release);
                let data = place.data();
                let launcher = Launcher { data: &data, program: &place.installed, installed: None };
                let (found, watchman, notes) = launch(&launcher).unwrap().unwrap();
                assert_eq!(found, Launch::Stay, "{number}");
                assert!(!notes.is_empty());
                drop(watchman);
                // What no program understands is out of the way; that of a newer one stays.
                let broken = data.join("releases").join(BROKEN);
                assert_eq!(broken.exists(), number == 5);
                assert_eq!(releases.read().is_err(), number == 6);
                assert_eq!(launch(&launcher).unwrap().is_none(), number == 5);
            }
        }
        // A link to where a release is elsewhere would be started again and again.
        let place = Place::new();
        let release = place.install("0.2.0");
        let releases = place.releases(None);
        releases.decide(place.trial(&release, None), "me", None).unwrap();
        place.launch();
        releases.confirm(&release).unwrap();
        let elsewhere = place.data().join("elsewhere");
        fs::rename(releases.path(&release), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, releases.path(&release)).unwrap();
        assert_eq!(place.launch(), Launch::Stay);
    }

    #[test]
    fn an_older_one_stays_until_the_installed_program_is_another() {
        let own = env!("CARGO_PKG_VERSION");
        for version in ["0.0.9", own] {
            let place = Place::new();
            let release = place.install(version);
            let releases = place.releases(None);
            releases.decide(place.trial(&release, None), "me", None).unwrap();
            assert!(is_watch(&place.launch(), &release));
            releases.confirm(&release).unwrap();
            assert!(becomes(&place.launch(), Some(&release)), "{version}");
            fs::write(&place.installed, "somebody has updated it").unwrap();
            assert_eq!(place.launch(), Launch::Stay);
        }
    }

    #[test]
    fn who_watches_over_another_stays() {
        let place = Place::new();
        let releases = place.releases(None);
        let mut all = Vec::new();
        // The first is in force, and watches over those that come.
        for version in ["0.2.0", "0.3.0", "0.4.0"] {
            let release = place.install(version);
            let before = all.last().map(String::as_str);
            releases.decide(place.trial(&release, before), "me", None).unwrap();
            let program = match all.first() {
                Some(first) => place.program(first),
                None => place.installed.clone(),
            };
            assert!(is_watch(&place.launch_of(&releases, &program).unwrap(), &release));
            releases.confirm(&release).unwrap();
            all.push(release);
        }
        releases.sweep().unwrap();
        assert!(all.iter().all(|release| place.program(release).exists()));
        // It becomes what is in force.
        let launch = place.launch_of(&releases, &place.program(&all[0])).unwrap();
        assert!(becomes(&launch, Some(&all[2])));
    }

    #[test]
    fn one_process_decides() {
        let place = Place::new();
        let release = place.install("0.2.0");
        place.releases(None).decide(place.trial(&release, None), "me", None).unwrap();
        let data = place.data();
        let launcher = Launcher { data: &data, program: &place.installed, installed: None };
        let (first, watchman, _) = launch(&launcher).unwrap().unwrap();
        assert!(is_watch(&first, &release));
        let refused = launch(&launcher).unwrap_err().to_string();
        assert!(refused.contains("another process"), "{refused}");
        assert!(is_on_trial(&data, &release).unwrap());
        drop(watchman);
        // It is served by somebody who knows nothing of it.
        let serve = File::create(data.join("serve.lock")).unwrap();
        flock(&serve, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(launch(&launcher).unwrap().is_none());
        drop(serve);
        assert_eq!(launch(&launcher).unwrap().unwrap().0, Launch::Stay);
    }
}
