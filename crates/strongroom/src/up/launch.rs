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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, getppid, kill_process, set_parent_process_death_signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use strongroom_appliance::updates::{
    self, Launch, Launcher, Trial, confirm, is_on_trial, release_of, suspend, undo,
};

use super::{Args, DRAIN, GRACE, notify};
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
/// How long it may be silent: as long as an end takes that waits for jobs and requests, and more.
const SILENCE: Duration = DRAIN.saturating_add(GRACE).saturating_mul(2);
/// So often it may start anew without having answered.
const STARTS: u32 = 3;
/// When it is tried again to write that it is well.
const RETRY: Duration = Duration::from_secs(30);
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
    let error = match program() {
        Ok(program) => {
            let error = anew(&program).exec();
            anyhow::Error::from(error).context(format!("starting {} anew", program.display()))
        }
        Err(error) => error,
    };
    // It decides what is in force as well.
    let Some(installed) = installed() else { return error };
    say(&format!("{error:#}: the installed program is started"));
    let failed = anew(&installed).exec();
    anyhow::Error::from(failed).context(format!("starting {} anew", installed.display()))
}

/// The installed program, where this one is of a release.
pub(super) fn installed() -> Option<PathBuf> {
    std::env::var_os(INSTALLED).map(PathBuf::from)
}

/// Tells systemd's watchdog of life until this is done.
fn alive_during<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let (done, over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while over.recv_timeout(ASK) == Err(RecvTimeoutError::Timeout) {
                notify::alive();
            }
        });
        let result = work();
        drop(done);
        result
    })
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
    // Who watches over it has decided, also where a release starts a program that lies elsewhere.
    let watched = std::env::var_os(WATCHED).is_some();
    if launched.is_some() && (watched || release_of(&data, &program) == launched) {
        if watched {
            // Without who watches over it nobody may take it for alive.
            let bound = set_parent_process_death_signal(Some(Signal::KILL));
            if bound.is_err() || !is_watched() {
                say("who watches over it is gone");
                return Some(ExitCode::FAILURE);
            }
        }
        return None;
    }
    let installed = installed();
    let launcher = Launcher { data: &data, program: &program, installed: installed.as_deref() };
    let (launch, _watchman, notes) = match alive_during(|| updates::launch(&launcher)) {
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
        // It would be again and again.
        Launch::Become { release: Some(release), .. } if launched.as_ref() == Some(&release) => {
            say(&format!("{release} starts a program that lies elsewhere, which goes on"));
            None
        }
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
    /// It is to start anew; whether it was well.
    Again { well: bool },
    /// It was told to end, or had proven itself.
    Over(ExitStatus),
}

/// What this process is told by signals, which nobody else reads.
struct Told {
    signals: Signals,
    /// To end.
    ends: Arc<AtomicBool>,
    /// From now on, a signal to end does so at once.
    at_once: Arc<AtomicBool>,
    /// To read the files again, which a child that does not answer yet must not hear: it would die.
    again: bool,
}

/// Those that end a process.
const ENDING: [(i32, Signal); 3] =
    [(SIGTERM, Signal::TERM), (SIGINT, Signal::INT), (SIGQUIT, Signal::QUIT)];

impl Told {
    fn new() -> std::io::Result<Self> {
        let (ends, at_once) = (Arc::default(), Arc::default());
        for (number, _) in ENDING {
            // First, so that none is between them.
            signal_hook::flag::register_conditional_shutdown(number, 0, Arc::clone(&at_once))?;
        }
        let signals = Signals::new([SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGCHLD])?;
        Ok(Self { signals, ends, at_once, again: false })
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::SeqCst)
    }

    /// Hands on what came. One that has ended is found by who waits for it.
    fn hand_on(&mut self, child: &Child, numbers: &[i32], serves: bool) {
        for number in numbers {
            if let Some((_, signal)) = ENDING.iter().find(|(ending, _)| ending == number) {
                self.ends.store(true, Ordering::SeqCst);
                let _ = kill_process(Pid::from_child(child), *signal);
            }
            self.again |= *number == SIGHUP;
        }
        if self.again && serves {
            self.again = false;
            let _ = kill_process(Pid::from_child(child), Signal::HUP);
        }
    }

    fn pending(&mut self) -> Vec<i32> {
        self.signals.pending().collect()
    }

    /// Right before this process becomes another: whether it is to end instead. If not, what comes
    /// now ends it.
    fn last(&mut self) -> bool {
        self.at_once.store(true, Ordering::SeqCst);
        let ending = |number: &i32| ENDING.iter().any(|(ending, _)| ending == number);
        self.ends() || self.pending().iter().any(ending)
    }
}

/// How a child fares that is on trial.
struct Pulse {
    began: Instant,
    start: Duration,
    trial: Duration,
    /// Since when it answers.
    well_since: Option<Instant>,
    /// When it was well for the last time.
    heard: Instant,
    /// Since when it is to end.
    ending: Option<Instant>,
    why: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Wait,
    Failed(String),
    Proven,
}

impl Pulse {
    fn new(now: Instant, trial: &Trial) -> Self {
        Self {
            began: now,
            start: Duration::from_secs(trial.start),
            trial: Duration::from_secs(trial.trial),
            well_since: None,
            heard: now,
            ending: None,
            why: "nothing was heard of it".into(),
        }
    }

    fn hear(&mut self, now: Instant, answer: Result<(), String>) {
        match answer {
            Ok(()) => {
                self.heard = now;
                self.well_since.get_or_insert(now);
            }
            Err(why) => self.why = why,
        }
    }

    /// Of one that is to end: whether that takes longer than it may.
    fn lingers(&mut self, now: Instant) -> bool {
        now - *self.ending.get_or_insert(now) >= SILENCE
    }

    fn verdict(&self, now: Instant) -> Verdict {
        match self.well_since {
            None if now - self.began >= self.start => {
                Verdict::Failed(format!("it does not answer within {:?}: {}", self.start, self.why))
            }
            Some(_) if now - self.heard >= SILENCE => {
                Verdict::Failed(format!("it does not answer any more: {}", self.why))
            }
            // As long as it is silent, it is not known to be well.
            Some(since) if self.heard - since >= self.trial => Verdict::Proven,
            _ => Verdict::Wait,
        }
    }
}

impl Watch {
    fn run(&self) -> ExitCode {
        let mut told = match Told::new() {
            Ok(told) => told,
            Err(error) => {
                say(&format!("version {} can't be watched over: {error}", self.version));
                return ExitCode::FAILURE;
            }
        };
        let relay = notify::relay(&self.data, Arc::clone(&told.ends)).and_then(|made| {
            made.map_err(|error| say(&format!("systemd can't be told how it fares: {error}"))).ok()
        });
        let mut unwell = 0;
        loop {
            let reason = match self.once(&mut told, relay.as_deref()) {
                Ok(Ended::Again { well }) => {
                    if !is_on_trial(&self.data, &self.release).unwrap_or(false) {
                        return self.again(&mut told);
                    }
                    // One that serves may be started anew as often as somebody likes.
                    unwell += u32::from(!well);
                    if unwell < STARTS {
                        continue;
                    }
                    format!("it started anew {STARTS} times without having answered")
                }
                Ok(Ended::Over(status)) => {
                    self.suspend();
                    // It was to start anew, when it was told to end.
                    let code = status
                        .code()
                        .filter(|code| *code != i32::from(AGAIN))
                        .or(status.signal().map(|signal| 128 + signal))
                        .or(Some(0));
                    return ExitCode::from(code.and_then(|code| code.try_into().ok()).unwrap_or(1));
                }
                Ok(Ended::Failed(reason)) => reason,
                Err(error) => format!("it can't be started: {error:#}"),
            };
            return self.give_up(&reason, &mut told);
        }
    }

    /// The next start goes on with the trial, if there is one.
    fn suspend(&self) {
        if let Err(error) = suspend(&self.data, &self.release) {
            say(&format!("the next start takes it for a failure: {error}"));
        }
    }

    /// What was before is in force again.
    fn give_up(&self, reason: &str, told: &mut Told) -> ExitCode {
        say(&format!("version {} is rolled back: {reason}", self.version));
        if let Err(error) = undo(&self.data, &self.release, reason) {
            // The next start finds a trial that was begun, and does it.
            say(&format!("that can't be written down: {error}"));
        }
        self.again(told)
    }

    fn again(&self, told: &mut Told) -> ExitCode {
        if told.last() {
            return ExitCode::SUCCESS;
        }
        say(&format!("{:#}", become_anew()));
        ExitCode::FAILURE
    }

    fn start(&self, relay: Option<&Path>) -> Result<Child> {
        let words: Vec<OsString> = std::env::args_os().collect();
        let mut command = Command::new(&self.program);
        if let Some(name) = words.first() {
            command.arg0(name);
        }
        command.args(words.iter().skip(1));
        command.env(LAUNCHED, &self.release).env(INSTALLED, &self.installed);
        command.env(WATCHED, std::process::id().to_string());
        if let Some(socket) = relay {
            command.env("NOTIFY_SOCKET", socket);
        }
        // The watchdog is fed by the child; what the terminal sends is handed on, and not sent twice.
        command.env_remove("WATCHDOG_PID").process_group(0);
        Ok(command.spawn()?)
    }

    /// Starts a child, and watches over it until it ends.
    fn once(&self, told: &mut Told, relay: Option<&Path>) -> Result<Ended> {
        let mut child = self.start(relay)?;
        let mut pulse = Pulse::new(Instant::now(), &self.trial);
        let mut answers = Some(ask_again_and_again(self.data.join(SOCKET), self.version.clone()));
        let (mut fed, mut unwritten) = (Instant::now(), None::<Instant>);
        loop {
            let numbers = match answers {
                Some(_) => told.pending(),
                // It has proven itself: there is nothing to do until a signal comes.
                None => told.signals.wait().collect(),
            };
            told.hand_on(&child, &numbers, pulse.well_since.is_some());
            if let Some(status) = child.try_wait()? {
                return Ok(match status.code() {
                    _ if told.ends() => Ended::Over(status),
                    Some(code) if code == i32::from(AGAIN) => {
                        Ended::Again { well: pulse.well_since.is_some() }
                    }
                    _ if answers.is_none() => Ended::Over(status),
                    _ => Ended::Failed(format!("it ended in its trial, {status}")),
                });
            }
            let Some(heard) = &answers else { continue };
            let now = Instant::now();
            heard.try_iter().for_each(|answer| pulse.hear(now, answer));
            if told.ends() && pulse.lingers(now) {
                child.kill()?;
            }
            match pulse.verdict(now) {
                _ if told.ends() => {}
                Verdict::Failed(failed) => {
                    end(&mut child, told)?;
                    return Ok(Ended::Failed(failed));
                }
                Verdict::Proven if unwritten.is_none_or(|since| now - since >= RETRY) => {
                    match confirm(&self.data, &self.release) {
                        Ok(()) => answers = None,
                        Err(error) => {
                            unwritten = Some(now);
                            say(&format!("that it is well can't be written: {error}"));
                        }
                    }
                }
                _ => {}
            }
            // Until it serves, it can't say itself that it lives.
            if pulse.well_since.is_none() && fed.elapsed() >= ASK {
                fed = Instant::now();
                notify::alive();
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// Ends a child, if need be without a word.
fn end(child: &mut Child, told: &mut Told) -> Result<()> {
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let by = Instant::now() + LEAVE;
    let mut fed = Instant::now();
    while child.try_wait()?.is_none() {
        // It is being ended already; this process ends after it.
        let numbers = told.pending();
        let ending = |(number, _): &(i32, Signal)| numbers.contains(number);
        told.ends.fetch_or(ENDING.iter().any(ending), Ordering::SeqCst);
        if Instant::now() >= by {
            child.kill()?;
        }
        if fed.elapsed() >= ASK {
            fed = Instant::now();
            notify::alive();
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Asks a child for its version until nobody wants to know.
fn ask_again_and_again(socket: PathBuf, version: String) -> Receiver<Result<(), String>> {
    // An answer that nobody has taken yet says enough.
    let (tell, told) = mpsc::sync_channel(1);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(now: Instant) -> Pulse {
        Pulse {
            began: now,
            start: Duration::from_secs(10),
            trial: Duration::from_secs(300),
            well_since: None,
            heard: now,
            ending: None,
            why: "nothing".into(),
        }
    }

    fn silent() -> Result<(), String> {
        Err("it is silent".into())
    }

    #[test]
    fn a_child_that_ends_in_its_time_is_not_taken_for_dead() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut pulse = pulse(began);
        pulse.hear(at(1), Ok(()));
        // It waits for its jobs and for a slow request, and asks to be started anew.
        for second in 2..=30 {
            pulse.hear(at(second), silent());
            assert_eq!(pulse.verdict(at(second)), Verdict::Wait);
        }
        let end = 1 + SILENCE.as_secs();
        assert!(SILENCE > DRAIN + GRACE);
        assert_eq!(pulse.verdict(at(end - 1)), Verdict::Wait);
        let Verdict::Failed(why) = pulse.verdict(at(end)) else { panic!("it is dead") };
        assert!(why.contains("any more: it is silent"), "{why}");
        pulse.hear(at(end), Ok(()));
        assert_eq!(pulse.verdict(at(end)), Verdict::Wait);
    }

    #[test]
    fn a_child_that_was_told_to_end_does_not_linger_for_ever() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut pulse = pulse(began);
        assert!(!pulse.lingers(at(100)));
        assert!(!pulse.lingers(at(99 + SILENCE.as_secs())));
        assert!(pulse.lingers(at(100 + SILENCE.as_secs())));
    }

    #[test]
    fn a_child_has_proven_itself_when_it_answers_at_the_end_of_its_trial() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut pulse = pulse(began);
        pulse.hear(at(1), silent());
        assert_eq!(pulse.verdict(at(9)), Verdict::Wait);
        assert!(matches!(pulse.verdict(at(10)), Verdict::Failed(_)));
        pulse.hear(at(9), Ok(()));
        pulse.hear(at(300), Ok(()));
        assert_eq!(pulse.verdict(at(310)), Verdict::Wait);
        pulse.hear(at(309), Ok(()));
        assert_eq!(pulse.verdict(at(310)), Verdict::Proven);
    }
}
