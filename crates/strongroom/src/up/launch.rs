//! The very start of `strongroom up`: which release is in force, and watching over one that is on
//! trial. ADR 0018.
//!
//! The program becomes the release that is in force, by `exec`. A release on trial is a child: when
//! it ends, or does not answer, what was before is in force again, and this process becomes that. It
//! stays beside the child until that ends, hands signals on, and takes the child with it when it is
//! killed.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use strongroom_appliance::updates::{
    self, Launch, Launcher, Trial, confirm, is_on_trial, release_of, suspend, undo,
};

use super::{Args, notify};
use crate::appliance::SOCKET;

/// The release that a process was started as, the installed program, and who watches over it.
const LAUNCHED: &str = "STRONGROOM_LAUNCHED";
const INSTALLED: &str = "STRONGROOM_INSTALLED";
const WATCHED: &str = "STRONGROOM_WATCHED_BY";
/// A child that is to start anew ends with this.
const AGAIN: u8 = 75;
/// How often a child on trial is looked at, and asked.
const LOOK: Duration = Duration::from_millis(50);
const ASK: Duration = Duration::from_millis(500);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// So often in a row it may fail to answer, and start anew.
const MISSES: u32 = 3;
const STARTS: u32 = 3;
/// How long a child that failed has to end.
const LEAVE: Duration = Duration::from_secs(30);
/// Bytes of an answer.
const LONGEST: u64 = 64 << 10;

/// This program, where it is now.
pub(super) fn program() -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?;
    // One that was replaced is where this one was.
    Ok(match program.to_str().and_then(|name| name.strip_suffix(" (deleted)")) {
        Some(name) if !program.exists() => PathBuf::from(name),
        _ => program,
    })
}

/// Whether another process watches over this one.
fn is_watched() -> bool {
    let told = std::env::var(WATCHED).ok().and_then(|text| text.parse().ok());
    told.is_some() && told == getppid().map(|pid| pid.as_raw_nonzero().get())
}

/// This program anew: of the same words and environment, and nobody has decided yet what it is.
fn anew(program: &Path) -> Command {
    let mut words = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = words.next() {
        command.arg0(name);
    }
    command.args(words).env_remove(LAUNCHED).env_remove(WATCHED);
    command
}

/// Becomes a process that starts anew: of the same number, words and environment. What comes back is
/// why it could not. Who watches over it does that in its place.
pub(super) fn again() -> anyhow::Error {
    if is_watched() {
        std::process::exit(i32::from(AGAIN));
    }
    become_anew()
}

fn become_anew() -> anyhow::Error {
    match program() {
        Ok(program) => {
            let error = anew(&program).exec();
            anyhow::Error::from(error).context(format!("starting {} anew", program.display()))
        }
        Err(error) => error,
    }
}

fn say(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(std::io::stderr(), "strongroom: {text}");
}

/// Does what the releases ask for. None: this program goes on.
pub(crate) fn launch(args: &Args) -> Option<ExitCode> {
    if args.check_config {
        return None;
    }
    let data = std::fs::canonicalize(&args.data).ok()?;
    let program = program().ok()?;
    let launched = std::env::var(LAUNCHED).ok();
    if launched.is_some() && release_of(&data, &program) == launched {
        if is_watched() {
            // Without who watches over it nobody may take it for alive.
            let bound = set_parent_process_death_signal(Some(Signal::KILL));
            if bound.is_err() || !is_watched() {
                say("who watches over it is gone");
                return Some(ExitCode::FAILURE);
            }
        }
        return None;
    }
    let installed = std::env::var_os(INSTALLED).map(PathBuf::from);
    let launcher = Launcher { data: &data, program: &program, installed: installed.as_deref() };
    let (launch, _watchman, notes) = match updates::launch(&launcher) {
        Ok(decided) => decided?,
        Err(error) => {
            say(&format!("nothing can be started: {error}"));
            return Some(ExitCode::FAILURE);
        }
    };
    notes.iter().for_each(|note| say(note));
    let installed = installed.filter(|_| release_of(&data, &program).is_some());
    let installed = installed.unwrap_or(program.clone());
    match launch {
        Launch::Stay => None,
        Launch::Become { program, release } => {
            let mut command = anew(&program);
            match release {
                Some(release) => command.env(LAUNCHED, release).env(INSTALLED, installed),
                None => command.env_remove(INSTALLED),
            };
            let error = command.exec();
            say(&format!("{} can't be started: {error}", program.display()));
            None
        }
        Launch::Watch { program, release, version, trial } => {
            let watch = Watch { data, program, release, version, trial, installed };
            Some(watch.run())
        }
    }
}

/// A release on trial.
struct Watch {
    data: PathBuf,
    program: PathBuf,
    release: String,
    version: String,
    trial: Trial,
    installed: PathBuf,
}

/// How a child ended.
enum Ended {
    /// On trial, and not because it was told to.
    Failed(String),
    /// It is to start anew.
    Again,
    /// It was told to end, or had proven itself.
    Over(ExitStatus),
}

impl Watch {
    fn run(&self) -> ExitCode {
        for _ in 0..STARTS {
            let reason = match self.once() {
                Ok(Ended::Again) if is_on_trial(&self.data, &self.release).unwrap_or(false) => {
                    continue;
                }
                Ok(Ended::Again) => return self.again(),
                Ok(Ended::Over(status)) => {
                    let suspended = suspend(&self.data, &self.release);
                    if let Err(error) = suspended {
                        say(&format!("the next start takes it for a failure: {error}"));
                    }
                    let code = status.code().or(status.signal().map(|signal| 128 + signal));
                    return ExitCode::from(code.and_then(|code| code.try_into().ok()).unwrap_or(1));
                }
                Ok(Ended::Failed(reason)) => reason,
                Err(error) => format!("it can't be started: {error:#}"),
            };
            return self.give_up(&reason);
        }
        self.give_up(&format!("it started anew {STARTS} times in its trial"))
    }

    /// What was before is in force again.
    fn give_up(&self, reason: &str) -> ExitCode {
        say(&format!("version {} is rolled back: {reason}", self.version));
        if let Err(error) = undo(&self.data, &self.release, reason) {
            // The next start finds a trial that was begun, and does it.
            say(&format!("that can't be written down: {error}"));
        }
        self.again()
    }

    fn again(&self) -> ExitCode {
        say(&format!("{:#}", become_anew()));
        ExitCode::FAILURE
    }

    fn start(&self) -> Result<Child> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let mut command = Command::new(&self.program);
        if let Some(name) = words.first() {
            command.arg0(name);
        }
        command.args(words.iter().skip(1));
        command.env(LAUNCHED, &self.release).env(INSTALLED, &self.installed);
        command.env(WATCHED, std::process::id().to_string());
        if let Some(socket) = notify::relay(&self.data) {
            command.env("NOTIFY_SOCKET", socket);
        }
        // The watchdog is fed by the child; what the terminal sends is handed on, and not sent twice.
        command.env_remove("WATCHDOG_PID").process_group(0);
        Ok(command.spawn()?)
    }

    /// Starts a child, and watches over it until it ends.
    fn once(&self) -> Result<Ended> {
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD])?;
        let mut child = self.start()?;
        let began = Instant::now();
        let (start, trial) =
            (Duration::from_secs(self.trial.start), Duration::from_secs(self.trial.trial));
        let mut answers = Some(ask_again_and_again(self.data.join(SOCKET), self.version.clone()));
        let (mut well_since, mut misses, mut told) = (None::<Instant>, 0, false);
        let mut why = String::from("nothing was heard of it");
        let mut fed = Instant::now();
        loop {
            for signal in signals.pending() {
                let signal = match signal {
                    SIGTERM => Signal::TERM,
                    SIGINT => Signal::INT,
                    SIGQUIT => Signal::QUIT,
                    SIGHUP => Signal::HUP,
                    _ => continue,
                };
                told |= signal != Signal::HUP;
                // One that has ended is found below.
                let _ = kill_process(Pid::from_child(&child), signal);
            }
            if let Some(status) = child.try_wait()? {
                return Ok(match status.code() {
                    Some(code) if code == i32::from(AGAIN) => Ended::Again,
                    _ if told || answers.is_none() => Ended::Over(status),
                    _ => Ended::Failed(format!("it ended in its trial, {status}")),
                });
            }
            let Some(heard) = &answers else {
                // It has proven itself: there is nothing to do until a signal comes.
                for signal in signals.wait() {
                    if signal != SIGCHLD
                        && let Some(signal) = Signal::from_named_raw(signal)
                    {
                        let _ = kill_process(Pid::from_child(&child), signal);
                    }
                }
                continue;
            };
            for answer in heard.try_iter() {
                match answer {
                    Ok(()) => {
                        misses = 0;
                        well_since.get_or_insert_with(Instant::now);
                    }
                    Err(error) => {
                        misses += 1;
                        why = error;
                    }
                }
            }
            let failed = match well_since {
                _ if told => None,
                None if began.elapsed() >= start => {
                    Some(format!("it does not answer within {start:?}: {why}"))
                }
                Some(_) if misses >= MISSES => Some(format!("it does not answer any more: {why}")),
                Some(since) if since.elapsed() >= trial => {
                    match confirm(&self.data, &self.release) {
                        Ok(()) => answers = None,
                        Err(error) => say(&format!("that it is well can't be written: {error}")),
                    }
                    None
                }
                _ => None,
            };
            if let Some(failed) = failed {
                end(&mut child)?;
                return Ok(Ended::Failed(failed));
            }
            // Until it serves, it can't say itself that it lives.
            if well_since.is_none() && fed.elapsed() >= ASK {
                fed = Instant::now();
                notify::alive();
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Ends a child, if need be without a word.
fn end(child: &mut Child) -> Result<()> {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let by = Instant::now() + LEAVE;
    while child.try_wait()?.is_none() {
        if Instant::now() >= by {
            child.kill()?;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks a child for its version until nobody wants to know.
fn ask_again_and_again(socket: PathBuf, version: String) -> Receiver<Result<(), String>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        loop {
            let answer = ask(&socket).and_then(|answered| match answered == version {
                true => Ok(()),
                false => Err(format!("it says that it is version {answered}")),
            });
            if tell.send(answer).is_err() {
                return;
            }
            std::thread::sleep(ASK);
        }
    });
    told
}

/// The version that who serves says it is.
fn ask(socket: &Path) -> Result<String, String> {
    let text = |error: std::io::Error| format!("its control socket: {error}");
    let mut stream = UnixStream::connect(socket).map_err(text)?;
    stream.set_read_timeout(Some(ANSWER)).map_err(text)?;
    stream.set_write_timeout(Some(ANSWER)).map_err(text)?;
    let head = "GET /v1/system/version HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).map_err(text)?;
    let mut answer = String::new();
    stream.take(LONGEST).read_to_string(&mut answer).map_err(text)?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        return Err(format!("it answers with `{status}`"));
    }
    let body: serde_json::Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    body["version"].as_str().map(str::to_owned).ok_or_else(|| "it says no version".into())
}
