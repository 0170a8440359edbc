//! Programs of the machine, and what this process may do to it.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How long a program may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of what it says.
const MOST: u64 = 1 << 20;
/// Where programs of the administrator are, which not everybody looks for.
const MORE: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// What the kernel asks for, by its number (capabilities(7)).
#[derive(Clone, Copy, Debug)]
pub(crate) enum Capability {
    NetAdmin = 12,
    SysAdmin = 21,
}

/// Whether this process may do that.
pub(crate) fn may(what: Capability) -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let has = line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let name = match what {
        Capability::NetAdmin => "CAP_NET_ADMIN",
        Capability::SysAdmin => "CAP_SYS_ADMIN",
    };
    match has {
        Some(has) if has & (1 << what as u32) == 0 => {
            Err(format!("this process has not the capability {name} (docs/network.md)"))
        }
        _ => Ok(()),
    }
}

/// Where a program is.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let named = std::env::split_paths(&path).chain(MORE.map(PathBuf::from));
    named.map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// A program with nothing at its input and a language that is known.
pub(crate) fn program(name: &str) -> Result<Command, String> {
    let path = find(name).ok_or_else(|| format!("`{name}` is not installed"))?;
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("LC_ALL", "C").current_dir("/");
    Ok(command)
}

/// Runs a program, and gives what it printed; what it complained of, if it failed.
pub(crate) fn run(name: &str, words: &[&str]) -> Result<String, String> {
    let told = || format!("`{name} {}`", words.join(" "));
    let mut command = program(name)?;
    command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{}: {error}", told()))?;
    let out = child.stdout.take().map(reader);
    let err = child.stderr.take().map(reader);
    let ended = wait(&mut child, PATIENCE).map_err(|why| format!("{}: {why}", told()))?;
    let text = |reader: Option<std::thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (out, err) = (text(out), text(err));
    match ended.success() {
        true => Ok(out),
        false => Err(format!("{}: {}", told(), err.trim())),
    }
}

fn reader(from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.take(MOST).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for a program, and ends it when it takes too long.
pub(crate) fn wait(child: &mut Child, patience: Duration) -> Result<ExitStatus, String> {
    let end = Instant::now() + patience;
    loop {
        if let Some(ended) = child.try_wait().map_err(|error| error.to_string())? {
            return Ok(ended);
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            return Err(format!("it took more than {} seconds", patience.as_secs()));
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_a_program_says_is_heard() {
        assert_eq!(run("sh", &["-c", "echo out"]).unwrap(), "out\n");
        let error = run("sh", &["-c", "echo trouble >&2; exit 3"]).unwrap_err();
        assert!(error.ends_with(": trouble"), "{error}");
        let error = run("no-such-program", &[]).unwrap_err();
        assert_eq!(error, "`no-such-program` is not installed");
        let mut endless = program("sleep").unwrap().arg("600").spawn().unwrap();
        assert!(wait(&mut endless, Duration::from_millis(20)).is_err());
    }
}
