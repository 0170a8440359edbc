//! Installing an update: it is checked and unpacked beside what runs, put in force on trial, and the
//! process starts anew with it. Whichever release is in force then says what came of it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_catalog::SCHEMA;
use strongroom_protect::{Failure, Outcome, Run, Severity, Work};

use super::UPDATE;
use crate::Error;
use crate::administration::Parts;
use crate::command::{Programs, Unended};
use crate::staged::Staged;
use crate::updates::{
    Flaw, Opened, Previous, Progressed, Releases, Trial, UpdateRecord, UpdateResult, Version,
};

/// The file among the staged.
pub(crate) const PACKAGE: &str = "package";
/// How often it is looked what came of the trial.
const LOOK: Duration = Duration::from_millis(100);
/// How long a script may take, and how much of what it says is told.
const SCRIPT: Duration = Duration::from_secs(600);
const LINES: usize = 1000;
const LINE: u64 = 1000;
/// Bytes that it may say.
const LOG: u64 = 64 << 20;

/// What is installed, and how.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateParameters {
    /// The name of the staged files; none: nobody sent any.
    pub(crate) staged: Option<String>,
    /// Also when it is not newer.
    pub(crate) allow_older: bool,
    /// Also when the catalogue can't be copied before.
    #[serde(default)]
    pub(crate) without_catalogue_copy: bool,
    /// Seconds until the new release answers.
    pub(crate) start: u64,
    /// Seconds that it is healthy after that.
    pub(crate) trial: u64,
}

#[derive(Debug)]
pub(super) struct UpdateWork {
    pub(super) parts: Parts,
}

/// What comes after a package was unpacked.
enum Step {
    /// Nothing.
    Over(Outcome),
    /// This release is put in force.
    Switch(String),
}

/// What is said where the catalogue is in PostgreSQL.
const UNCOPIED: &str = "the catalogue is in PostgreSQL, where it is not copied: when the new version \
                        changes its schema and then fails, the version before can't be started until \
                        somebody puts a backup of the database back. Make one, and say \
                        `without_catalogue_copy`";

/// Why it isn't installed.
enum Unfit {
    Stop(Failure),
    Flaw(Flaw, String),
}

impl From<Failure> for Unfit {
    fn from(failure: Failure) -> Self {
        Self::Stop(failure)
    }
}

impl From<Error> for Unfit {
    fn from(error: Error) -> Self {
        match error {
            Error::Package { flaw, why } => Self::Flaw(flaw, why),
            error => Self::Flaw(Flaw::Install, error.to_string()),
        }
    }
}

impl Work for UpdateWork {
    fn kind(&self) -> &'static str {
        UPDATE
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        let read = UpdateParameters::deserialize(parameters).map_err(|e| e.to_string())?;
        match read.staged {
            Some(name) if !Staged::is_name(&name) => Err("the package has no such name".into()),
            _ => Ok(()),
        }
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let parameters: UpdateParameters = run.parameters()?;
        let done = self.update(run, &parameters);
        // One that is drained is taken up again, unless it was over by then.
        let again = matches!(done, Err(Unfit::Stop(_))) && run.is_draining();
        if let Some(staged) = parameters.staged.filter(|_| !again) {
            self.parts.staged.remove(&staged);
        }
        match done {
            Ok(outcome) => Ok(outcome),
            Err(Unfit::Stop(failure)) => Err(failure),
            Err(Unfit::Flaw(flaw, why)) => {
                run.log(Severity::Error, &why);
                run.log(Severity::Error, "Failed updating system");
                let message = match flaw {
                    Flaw::Version => why.clone(),
                    flaw => flaw.message().to_owned(),
                };
                let failed = Progressed {
                    percentage: flaw.percentage(),
                    code: Some(flaw.code().into()),
                    message: Some(message),
                    release: None,
                };
                self.keep(run, &failed)?;
                Err(Failure::Refused(why))
            }
        }
    }
}

impl UpdateWork {
    fn keep(&self, run: &Run, progressed: &Progressed) -> Result<(), Failure> {
        let value = serde_json::to_value(progressed);
        run.store_checkpoint(&value.map_err(|error| Failure::Refused(error.to_string()))?)
    }

    fn at(&self, run: &Run, percentage: u8, what: &str) -> Result<(), Unfit> {
        run.go_on()?;
        self.keep(run, &Progressed { percentage, ..Progressed::default() })?;
        run.log(Severity::Info, what);
        Ok(())
    }

    fn update(&self, run: &Run, how: &UpdateParameters) -> Result<Outcome, Unfit> {
        let releases = self.parts.updates.releases();
        let kept = run.checkpoint().and_then(|kept| Progressed::deserialize(kept).ok());
        if let Some(release) = kept.and_then(|kept| kept.release)
            && let Some(record) = record(&releases, run, &release)?
        {
            return self.await_trial(run, &releases, record);
        }
        let version = &self.parts.updates.version;
        self.at(run, 10, "Updating system. Please wait..")?;
        self.at(run, 20, "Finding the package")?;
        let missing = || Unfit::Flaw(Flaw::Missing, "Missing update package".into());
        let staged = how.staged.as_ref().ok_or_else(missing)?;
        let (mut file, length) = self.parts.staged.open(staged, PACKAGE)?.ok_or_else(missing)?;
        if length == 0 {
            return Err(missing());
        }
        self.at(run, 30, "Opening the package")?;
        let setup = &self.parts.updates.setup;
        let opened = Opened::verify(&mut file, length, setup)?;
        self.at(run, 40, "The package's signature is right")?;
        opened.suits(version, how.allow_older)?;
        self.at(run, 50, "Unpacking the package")?;
        // One in the other form tells what it unpacks to only as it is unpacked.
        self.parts.backup.fits(opened.bytes().unwrap_or(length))?;
        let draft = releases.draft()?;
        let done = self.unpacked(run, how, &releases, (&opened, &mut file), &draft);
        // Once it is a release it has another name.
        if let Err(error) = fs::remove_dir_all(&draft)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            run.log(Severity::Warning, format!("{} can't be removed: {error}", draft.display()));
        }
        let release = match done? {
            Step::Over(outcome) => return Ok(outcome),
            Step::Switch(release) => release,
        };
        let switched = self.switch(run, &releases, how, release);
        if switched.is_err() {
            // One that was not put in force.
            releases.sweep()?;
        }
        switched
    }

    /// Unpacks a package to a draft, and does what it says: what is next.
    fn unpacked(
        &self,
        run: &Run,
        how: &UpdateParameters,
        releases: &Releases,
        (opened, file): (&Opened, &mut File),
        draft: &Path,
    ) -> Result<Step, Unfit> {
        let (updates, setup) = (&self.parts.updates, &self.parts.updates.setup);
        let version = &updates.version;
        let unpacked = opened.unpack(file, setup, draft, version, how.allow_older)?;
        self.at(run, 60, &format!("Updating from {version} to {}", unpacked.version))?;
        if unpacked.script {
            self.at(run, 70, "Running update.sh")?;
            if !setup.scripts {
                let why = "the package has an `update.sh`, and this appliance runs none: \
                           `update_scripts` in the configuration allows it";
                return Err(Unfit::Flaw(Flaw::Install, why.into()));
            }
            script(run, &draft.join("work"))?;
        }
        if !unpacked.program {
            return Ok(Step::Over(done(run, version, &unpacked.version)));
        }
        let work = draft.join("work");
        if work.exists() {
            fs::remove_dir_all(&work).map_err(Error::file(&work))?;
        }
        let installed = updates.installed.as_deref();
        let release = releases.finish(draft, &unpacked.version, unpacked.built_at, installed)?;
        Ok(Step::Switch(release))
    }

    /// Puts a release in force, on trial, and has the process start anew.
    fn switch(
        &self,
        run: &Run,
        releases: &Releases,
        how: &UpdateParameters,
        release: String,
    ) -> Result<Outcome, Unfit> {
        let belongings = self.parts.belongings().ok();
        let catalogue = belongings.and_then(|all| all.catalogue().map(std::path::Path::to_owned));
        if let Some(path) = &catalogue {
            let length = match path.metadata() {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
                Err(error) => return Err(Error::file(path)(error).into()),
            };
            self.parts.backup.fits(length.saturating_mul(2))?;
        } else if belongings.is_some() {
            if !how.without_catalogue_copy {
                return Err(Unfit::Flaw(Flaw::Install, UNCOPIED.into()));
            }
            run.log(Severity::Warning, UNCOPIED);
        }
        let updates = &self.parts.updates;
        let (version, running) = (updates.version.to_string(), updates.running.clone());
        let trial = Trial {
            release: release.clone(),
            previous: Previous { release: running, version, schema: SCHEMA },
            catalogue,
            copied: false,
            begun: false,
            start: how.start,
            trial: how.trial,
        };
        run.hold()?;
        let release = Some(release);
        self.keep(
            run,
            &Progressed { percentage: 80, release: release.clone(), ..Progressed::default() },
        )?;
        releases.decide(trial, &run.job().user_name, Some(run.job().id))?;
        run.log(Severity::Info, "Starting anew with the update, on trial");
        self.parts.restart.notify_one();
        let record = record(releases, run, release.as_deref().unwrap_or_default())?;
        self.await_trial(run, releases, record.ok_or_else(gone)?)
    }

    /// Waits until it is known what came of the trial. Who watches over it decides that in time, and
    /// this process ends with whoever watches, or before the trial begins.
    fn await_trial(
        &self,
        run: &Run,
        releases: &Releases,
        mut found: UpdateRecord,
    ) -> Result<Outcome, Unfit> {
        loop {
            match found.result {
                UpdateResult::Installed => {
                    let version = found.from_version.parse::<Version>();
                    let version = version.unwrap_or_else(|_| Version::of_program());
                    let to = found.version.parse::<Version>().unwrap_or_else(|_| version.clone());
                    return Ok(done(run, &version, &to));
                }
                UpdateResult::RolledBack => {
                    let reason = found.reason.unwrap_or_default();
                    let why = format!(
                        "version {} was rolled back to {}: {reason}",
                        found.version, found.from_version
                    );
                    return Err(Unfit::Flaw(Flaw::Install, why));
                }
                UpdateResult::Trial => {
                    // It is too late to cancel it: whoever wants that goes back.
                    if run.is_draining() || run.is_lost() {
                        return Err(Failure::Canceled.into());
                    }
                    std::thread::sleep(LOOK);
                    let release = found.release.clone().unwrap_or_default();
                    found = record(releases, run, &release)?.ok_or_else(gone)?;
                }
            }
        }
    }
}

/// What is known of a release that this job has put in force.
fn record(releases: &Releases, run: &Run, release: &str) -> Result<Option<UpdateRecord>, Error> {
    let mine = |one: &UpdateRecord| {
        one.job == Some(run.job().id) && one.release.as_deref() == Some(release)
    };
    Ok(releases.read()?.history.into_iter().rev().find(mine))
}

fn gone() -> Unfit {
    Unfit::Flaw(Flaw::Install, "nothing is known of the release any more".into())
}

fn done(run: &Run, from: &Version, to: &Version) -> Outcome {
    run.log(Severity::Info, "Updating system successful");
    let result = json!({"version": to.to_string(), "from_version": from.to_string()});
    Outcome { result, warnings: false }
}

/// Runs the script of a package.
fn script(run: &Run, dir: &Path) -> Result<(), Unfit> {
    let unrun = |error: std::io::Error| Unfit::Flaw(Flaw::Script, format!("update.sh: {error}"));
    let log = dir.with_file_name("update.log");
    let file = File::create(&log).map_err(unrun)?;
    let programs = Programs::of(&["/usr/sbin", "/usr/bin", "/sbin", "/bin"]).patient(SCRIPT);
    let none = || Unfit::Flaw(Flaw::Script, "update.sh: there is no sh".into());
    let mut shell = programs.program("sh").ok_or_else(none)?;
    let ended =
        shell.args(["update.sh"]).in_dir(dir).log(file, LOG).run_unless(&|| run.is_canceled());
    let said = File::open(&log).map_err(unrun)?;
    let mut said = BufReader::new(said.take(LINES as u64 * LINE));
    let mut line = Vec::new();
    for _ in 0..LINES {
        line.clear();
        let read = said.by_ref().take(LINE).read_until(b'\n', &mut line).map_err(unrun)?;
        if read == 0 {
            break;
        }
        run.log(
            Severity::Info,
            format!("update.sh: {}", String::from_utf8_lossy(&line).trim_end()),
        );
    }
    run.go_on()?;
    let status = match ended {
        Ok(ended) => ended.status,
        Err(Unended::NotBegun(error)) => return Err(unrun(error)),
        Err(why) => return Err(Unfit::Flaw(Flaw::Install, format!("update.sh: {why}"))),
    };
    match status.code() {
        Some(0) => Ok(()),
        // What the shell says of a script that it can't run.
        Some(code @ (2 | 126 | 127)) => {
            Err(Unfit::Flaw(Flaw::Script, format!("update.sh ended with {code}")))
        }
        Some(code) => Err(Unfit::Flaw(Flaw::Install, format!("update.sh ended with {code}"))),
        None => Err(Unfit::Flaw(Flaw::Install, "update.sh was ended by a signal".into())),
    }
}
