//! Programs of the machine, and what this process may do to it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, fs};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::process::{Pid, Signal, kill_process_group};

/// How long a program may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is asked whether it is done.
const LOOK: Duration = Duration::from_millis(10);
/// How long one that is killed may take to end.
const END: Duration = Duration::from_secs(2);
/// Bytes that it may say.
const MOST: u64 = 1 << 20;
/// Bytes of what is told of what it said.
const TOLD: usize = 1 << 10;
/// Where programs of the administrator are, which services often don't look for.
const MORE: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// What the kernel asks for, by its number (capabilities(7)).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capability {
    NetAdmin = 12,
    SysAdmin = 21,
}

impl Capability {
    /// Whether who has this status (proc_pid_status(5)) has it; none: it doesn't say.
    pub(crate) fn is_in(self, status: &str) -> Option<bool> {
        let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let bits = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())?;
        Some(bits >> self as u32 & 1 == 1)
    }
}

/// Whether this process may do that to the network.
pub(crate) fn may(what: Capability) -> Result<(), String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let name = match what {
        Capability::NetAdmin => "CAP_NET_ADMIN",
        Capability::SysAdmin => "CAP_SYS_ADMIN",
    };
    match what.is_in(&status) {
        Some(false) => Err(format!("this process has not the capability {name} (docs/network.md)")),
        _ => Ok(()),
    }
}

/// As much of a text as is kept and shown, in one line.
pub(crate) fn short(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let mut short = String::new();
    for c in lines.join("; ").chars() {
        let before = short.len();
        match c.is_control() {
            true => short.extend(c.escape_debug()),
            false => short.push(c),
        }
        if short.len() > TOLD {
            short.truncate(before);
            short.push_str(" ...");
            break;
        }
    }
    short
}

/// Where programs are, and how long each may take.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    dirs: Vec<PathBuf>,
    patience: Duration,
}

impl Programs {
    /// Those of this machine.
    pub(crate) fn here() -> Self {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let named = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
        let dirs = named.chain(MORE.map(PathBuf::from)).collect();
        Self { dirs, patience: PATIENCE }
    }

    /// Those in these directories alone.
    pub(crate) fn of<D: AsRef<Path>>(dirs: &[D]) -> Self {
        let dirs = dirs.iter().map(|dir| dir.as_ref().to_owned()).collect();
        Self { dirs, patience: PATIENCE }
    }

    /// As they are, but for so long.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where a program is.
    pub(crate) fn find(&self, name: &str) -> Option<PathBuf> {
        let runs = |path: &PathBuf| {
            let is_one =
                |meta: fs::Metadata| meta.is_file() && meta.permissions().mode() & 0o111 != 0;
            path.metadata().is_ok_and(is_one)
        };
        self.dirs.iter().map(|dir| dir.join(name)).find(runs)
    }

    /// A run of a program, by words and not by a line of the shell: with nothing at its input, of this
    /// process's environment nothing but where programs are, and a language that is known.
    pub(crate) fn program(&self, name: &str) -> Option<Program> {
        let mut command = Command::new(self.find(name)?);
        let path = std::env::join_paths(&self.dirs).unwrap_or_default();
        command.env_clear().env("PATH", path).env("LC_ALL", "C");
        command.stdin(Stdio::null()).current_dir("/").process_group(0);
        Some(Program { command, patience: self.patience, log: None })
    }
}

/// A program that is to run.
#[derive(Debug)]
pub(crate) struct Program {
    command: Command,
    patience: Duration,
    log: Option<(File, u64)>,
}

/// One that has.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Why one has not, or not to its end.
#[derive(Debug)]
pub(crate) enum Unended {
    /// It was not begun.
    NotBegun(io::Error),
    /// It was ended, or is still there.
    NotDone(String),
}

impl fmt::Display for Unended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotBegun(error) => error.fmt(f),
            Self::NotDone(why) => f.write_str(why),
        }
    }
}

impl From<io::Error> for Unended {
    fn from(error: io::Error) -> Self {
        Self::NotBegun(error)
    }
}

impl Ended {
    /// What it printed; if it failed, what it complained of.
    pub(crate) fn done(self) -> Result<String, String> {
        match (self.status.success(), short(&self.err)) {
            (true, _) => Ok(self.out),
            (false, err) if err.is_empty() => Err(self.status.to_string()),
            (false, err) => Err(err),
        }
    }
}

impl Program {
    pub(crate) fn args<W: AsRef<OsStr>>(
        &mut self,
        words: impl IntoIterator<Item = W>,
    ) -> &mut Self {
        self.command.args(words);
        self
    }

    pub(crate) fn in_dir(&mut self, dir: &Path) -> &mut Self {
        self.command.current_dir(dir);
        self
    }

    /// What it says goes to this file, up to so many bytes, and is not told.
    pub(crate) fn log(&mut self, file: File, most: u64) -> &mut Self {
        self.log = Some((file, most));
        self
    }

    /// Runs it to its end. Whoever it leaves behind is not waited for.
    pub(crate) fn run(&mut self) -> Result<Ended, Unended> {
        self.run_unless(&|| false)
    }

    /// The same, unless it is to stop.
    pub(crate) fn run_unless(&mut self, stops: &dyn Fn() -> bool) -> Result<Ended, Unended> {
        // Not pipes: whoever it leaves behind may keep those open for ever.
        let (out, err, most) = match self.log.take() {
            Some((file, most)) => (file.try_clone()?, file, most),
            None => (memory()?, memory()?, MOST),
        };
        self.command.stdout(out.try_clone()?).stderr(err.try_clone()?);
        let mut child = self.command.spawn()?;
        let end = Instant::now() + self.patience;
        let is_loud =
            || [&out, &err].iter().any(|said| said.metadata().is_ok_and(|meta| meta.len() > most));
        let ended = loop {
            let ended = child.try_wait();
            let why = match &ended {
                Ok(_) if is_loud() => format!("it said more than {most} bytes"),
                Ok(Some(status)) => break Ok(*status),
                Ok(None) if stops() => "it was stopped".to_owned(),
                Ok(None) if Instant::now() < end => {
                    std::thread::sleep(LOOK);
                    continue;
                }
                Ok(None) => format!("it was not done after {} s", self.patience.as_secs()),
                Err(error) => error.to_string(),
            };
            break Err(match ended {
                Ok(Some(_)) => why,
                _ => killed(child, why),
            });
        };
        // Nobody it left behind fills the memory.
        for said in [&out, &err] {
            let _ = fcntl_add_seals(said, SealFlags::GROW);
        }
        let status = ended.map_err(Unended::NotDone)?;
        Ok(Ended { status, out: said(out), err: said(err) })
    }
}

fn memory() -> io::Result<File> {
    Ok(memfd_create("said", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?.into())
}

fn said(mut file: File) -> String {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(MOST).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        // A log that is only written to.
        Err(_) => String::new(),
    }
}

/// Kills it with what it has started; adds what came of that.
fn killed(child: Child, mut why: String) -> String {
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    if !ends(child, END) {
        why.push_str(", and can't be ended: what it waits for does not answer");
    }
    why
}

/// Whether it ends in that time. Else it is left to a thread: the kernel may hold it for as long as a
/// server doesn't answer, and no signal ends it then.
fn ends(mut child: Child, within: Duration) -> bool {
    let end = Instant::now() + within;
    loop {
        match child.try_wait() {
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK),
            Ok(None) => {
                std::thread::spawn(move || child.wait());
                return false;
            }
            _ => return true,
        }
    }
}

/// Where a program of this machine is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    Programs::here().find(name)
}

/// A run of a program of this machine.
pub(crate) fn program(name: &str) -> Result<Program, String> {
    Programs::here().program(name).ok_or_else(|| format!("`{name}` is not installed"))
}

/// Runs a program of this machine, and gives what it printed; what it complained of, if it failed.
pub(crate) fn run(name: &str, words: &[&str]) -> Result<String, String> {
    let ended = program(name)?.args(words).run();
    let done = ended.map_err(|why| why.to_string()).and_then(Ended::done);
    done.map_err(|why| format!("`{name} {}`: {why}", words.join(" ")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn shell(line: &str) -> Program {
        let mut program = program("sh").unwrap().patient(Duration::from_secs(60));
        program.args(["-c", line]);
        program
    }

    impl Program {
        fn patient(self, patience: Duration) -> Self {
            Self { patience, ..self }
        }
    }

    #[test]
    fn what_a_program_says_is_heard() {
        assert_eq!(run("sh", &["-c", "echo out"]).unwrap(), "out\n");
        let error = run("sh", &["-c", "echo trouble >&2; exit 3"]).unwrap_err();
        assert!(error.ends_with(": trouble"), "{error}");
        let error = run("sh", &["-c", "exit 3"]).unwrap_err();
        assert!(error.ends_with(": exit status: 3"), "{error}");
        let error = run("no-such-program", &[]).unwrap_err();
        assert_eq!(error, "`no-such-program` is not installed");
        // Of ours it has nothing but where programs are.
        let told = run("sh", &["-c", "read line; echo $? $LC_ALL ${CARGO_MANIFEST_DIR-none}"]);
        assert_eq!(told.unwrap(), "1 C none\n");
    }

    #[test]
    fn one_that_takes_too_long_ends_with_what_it_has_started() {
        let dir = tempfile::tempdir().unwrap();
        let pids = dir.path().join("pids");
        let line = format!("sleep 1000 & echo $! >{0}.new; mv {0}.new {0}; wait", pids.display());
        let stops = || pids.exists();
        for late in [false, true] {
            let mut program = shell(&line);
            let ended = match late {
                false => program.run_unless(&stops),
                true => program.patient(Duration::from_secs(3)).run(),
            };
            let why = ended.unwrap_err().to_string();
            assert_eq!(why, if late { "it was not done after 3 s" } else { "it was stopped" });
            let pid = fs::read_to_string(&pids).unwrap();
            fs::remove_file(&pids).unwrap();
            // Whoever inherits it may not have buried it yet.
            let end = Instant::now() + Duration::from_secs(60);
            let lives = || {
                let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
                stat.is_ok_and(|stat| !stat.contains(") Z "))
            };
            while lives() {
                assert!(Instant::now() < end, "{pid} lives");
                std::thread::sleep(LOOK);
            }
        }
        // Whoever it leaves when it is done is not waited for, and says no more.
        let begun = Instant::now();
        let line = format!(
            "sh -c 'until [ -e {0}.go ]; do sleep 0.01; done; echo late; echo $? >{0}.new; \
             mv {0}.new {0}' & echo early",
            pids.display()
        );
        assert_eq!(shell(&line).run().unwrap().done().unwrap(), "early\n");
        fs::write(dir.path().join("pids.go"), "").unwrap();
        while !pids.exists() {
            assert!(begun.elapsed() < Duration::from_secs(60));
            std::thread::sleep(LOOK);
        }
        assert_ne!(fs::read_to_string(&pids).unwrap().trim(), "0");
    }

    #[test]
    fn what_it_says_has_an_end() {
        for to in ["", " >&2"] {
            let why = shell(&format!("yes{to}")).run().unwrap_err().to_string();
            assert_eq!(why, format!("it said more than {MOST} bytes"));
        }
        let log = tempfile::tempfile().unwrap();
        let ended = shell("echo 12345; echo 6 >&2").log(log.try_clone().unwrap(), 5).run();
        assert_eq!(ended.unwrap_err().to_string(), "it said more than 5 bytes");
        assert_eq!(said(log), "12345\n6\n");
        let why = shell("yes | head -c 100000 >&2; exit 1").run().unwrap().done().unwrap_err();
        assert!(why.len() < TOLD + 9 && why.ends_with(" ..."), "{why}");
        assert_eq!(short(" a\x1b[1mé \n\n b\t\n"), "a\\u{1b}[1mé; b");
    }

    #[test]
    fn one_that_does_not_end_is_not_waited_for() {
        let child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let begun = Instant::now();
        assert!(!ends(child, Duration::from_millis(50)));
        assert!(begun.elapsed() < Duration::from_secs(100));
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let child = Command::new("/bin/true").spawn().unwrap();
        assert!(ends(child, Duration::from_secs(60)));
    }

    #[test]
    fn capabilities_are_read() {
        let status = "Name:\tx\nCapEff:\t0000000000200000\n";
        assert_eq!(Capability::SysAdmin.is_in(status), Some(true));
        assert_eq!(Capability::NetAdmin.is_in(status), Some(false));
        assert_eq!(Capability::NetAdmin.is_in("Name:\tx\n"), None);
    }
}
