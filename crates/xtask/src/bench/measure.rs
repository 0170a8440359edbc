//! Measuring one step of one program.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a step took. Times are in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    /// Until the program ended.
    pub(crate) alone: f64,
    /// Until what it wrote was on the disk as well: the same `sync` after every program.
    pub(crate) wall: f64,
    /// Of all cores, in user and kernel mode.
    pub(crate) cpu: f64,
    /// The most memory that one of its processes had resident, in MiB.
    pub(crate) peak: f64,
}

/// Writes out what earlier steps left in memory, and makes the system forget what it has read.
/// Says whether it could; only root can.
pub(crate) fn cool_down() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

/// Runs commands one after the other, each at most `limit` long, and adds up what they took.
/// What they print goes to `log`.
///
/// # Errors
/// When one fails or takes too long; with the last lines that it printed.
pub(crate) fn measure(
    commands: &[Vec<OsString>],
    environment: &[(&'static str, OsString)],
    home: &Path,
    log: &Path,
    limit: Duration,
) -> Result<Measured> {
    let mut sum = Measured::default();
    let usage = home.join("usage");
    let output = File::create(log).with_context(|| format!("can't create {}", log.display()))?;
    for words in commands {
        let _ = fs::remove_file(&usage);
        let mut time = Command::new("/usr/bin/time");
        time.args(["--quiet", "--format", "%U %S %M", "--output"]).arg(&usage);
        time.args(["timeout", "--foreground", "--kill-after=10"]).arg(limit.as_secs().to_string());
        time.args(words).envs(environment.iter().cloned()).current_dir(home);
        time.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let start = Instant::now();
        let status = time.status().context("can't start /usr/bin/time")?;
        sum.alone += start.elapsed().as_secs_f64();
        rustix::fs::sync();
        sum.wall += start.elapsed().as_secs_f64();
        if status.code() == Some(124) {
            bail!("took longer than {} s", limit.as_secs());
        }
        if !status.success() {
            bail!("{status}: {}", last_line(log));
        }
        let usage = fs::read_to_string(&usage).context("time wrote no usage")?;
        let figures: Vec<f64> = usage.split_whitespace().flat_map(str::parse).collect();
        let [user, system, kib] = figures[..] else { bail!("time wrote {usage:?}") };
        sum.cpu += user + system;
        sum.peak = sum.peak.max(kib / 1024.0);
    }
    Ok(sum)
}

/// The last line of a log that isn't empty.
fn last_line(log: &Path) -> String {
    let said = fs::read(log).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<Measured> {
        let home = std::env::temp_dir().join(format!(
            "xtask-measure-{}-{}",
            std::process::id(),
            script.len()
        ));
        fs::create_dir_all(&home)?;
        let commands = vec![["sh", "-c", script].map(OsString::from).to_vec()];
        let measured = measure(&commands, &[], &home, &home.join("log"), Duration::from_secs(60));
        fs::remove_dir_all(&home)?;
        measured
    }

    #[test]
    fn a_program_is_measured() {
        if Path::new("/usr/bin/time").exists() {
            let measured = sh("true");
            assert!(measured.is_ok_and(|m| m.peak > 0.1 && m.wall >= m.alone && m.alone > 0.0));
        }
    }

    #[test]
    fn a_failure_tells_what_the_program_said_last() {
        if Path::new("/usr/bin/time").exists() {
            let error = sh("echo first; echo no space left; exit 3").map_err(|e| e.to_string());
            assert!(error.is_err_and(|e| e.contains("no space left")));
        }
    }
}
