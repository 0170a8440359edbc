//! Running other programs.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// Says what begins now.
pub(crate) fn heading(text: &str) {
    println!("\n=== {text}");
    let _ = std::io::stdout().flush();
}

/// A command as a shell would take it, roughly: for messages.
pub(crate) fn show(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Runs a command to its end; what it prints goes to the user.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("can't start `{}`", show(command)))?;
    if !status.success() {
        bail!("`{}` failed: {status}", show(command));
    }
    Ok(())
}

/// Runs a command to its end and gives what it wrote to standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("can't start `{}`", show(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}: {}", show(command), output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command, passes on what it prints, and shows each line (without colours) to `look` too.
pub(crate) fn watch(
    command: &mut Command,
    look: &mut (dyn FnMut(&str) + Send),
) -> Result<ExitStatus> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start `{}`", show(command)))?;
    let out = child.stdout.take().expect("standard output is piped");
    let err = child.stderr.take().expect("standard error is piped");
    let look = std::sync::Mutex::new(look);
    let pass = |from: &mut dyn BufRead, to: &mut dyn Write| {
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
            let _ = to.write_all(&line).and_then(|()| to.flush());
            let mut look = look.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            look(&plain(&String::from_utf8_lossy(&line)));
            line.clear();
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| pass(&mut BufReader::new(err), &mut std::io::stderr()));
        pass(&mut BufReader::new(out), &mut std::io::stdout());
    });
    child.wait().with_context(|| format!("can't wait for `{}`", show(command)))
}

/// The text without terminal colours and line ends.
fn plain(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.trim_end().chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            rest.find(|c| c.is_ascii_alphabetic());
        } else {
            text.push(c);
        }
    }
    text
}

/// Whether a program is on the path, or where only root's path leads.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|dir| dir.join(program).is_file())
}

/// Runs `work` and says how long it took.
pub(crate) fn timed<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    heading(what);
    let start = Instant::now();
    let result = work();
    let verdict = if result.is_ok() { "done" } else { "FAILED" };
    println!("--- {what}: {verdict} after {:.1} s", start.elapsed().as_secs_f64());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_taken_out() {
        assert_eq!(plain("\u{1b}[32;1m     Summary\u{1b}[0m [ 1s]\r\n"), "     Summary [ 1s]");
    }

    #[test]
    fn what_a_program_prints_is_seen() {
        let mut lines = Vec::new();
        let mut sh = Command::new("sh");
        sh.args(["-c", "echo one; echo two >&2; exit 3"]);
        let status = watch(&mut sh, &mut |line| lines.push(line.to_owned()));
        lines.sort();
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(status.ok().and_then(|s| s.code()), Some(3));
    }

    #[test]
    fn a_failed_command_tells_its_words() {
        let mut sh = Command::new("sh");
        sh.args(["-c", "echo no room >&2; exit 1"]);
        let error = capture(&mut sh).map_err(|e| e.to_string());
        assert!(error.is_err_and(|e| e.contains("no room")));
    }
}
