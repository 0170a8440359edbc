//! Asking a person: secrets without echo, and whether something may be done.

use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::exit::usage;
use crate::terminal;

/// The longest secret, in bytes.
const MAX_SECRET: u64 = 64 << 10;

/// Whether somebody is there who can be asked.
pub(crate) fn somebody() -> bool {
    std::io::stdin().is_terminal()
}

/// Whether a destructive deed may be done without asking.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct YesArgs {
    /// Don't ask whether that is meant
    #[arg(long, short = 'y')]
    pub(crate) yes: bool,
}

impl YesArgs {
    /// Asks whether this is meant, unless that was said already; refuses where nobody is there.
    pub(crate) fn confirm(self, what: &str) -> Result<()> {
        match self.yes || somebody() {
            true => self.confirm_if_somebody(what),
            false => Err(usage(format!("{what}? Nobody is there to ask: give --yes"))),
        }
    }

    /// As [`YesArgs::confirm`], for what is made to run by itself: where nobody is there, it is
    /// meant.
    pub(crate) fn confirm_if_somebody(self, what: &str) -> Result<()> {
        if self.yes || !somebody() || agreed(&format!("{what}?"))? {
            return Ok(());
        }
        Err(usage("nothing was done"))
    }
}

/// Asks a question that only `yes` affirms.
pub(crate) fn agreed(question: &str) -> Result<bool> {
    let mut err = std::io::stderr().lock();
    write!(err, "{question} (yes/no) ")?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

/// A secret from a file (`-` is standard input), without the end of its line; else it is asked for
/// where somebody is there. None: there is neither.
pub(crate) fn secret(file: Option<&Path>, prompt: &str) -> Result<Option<String>> {
    match from_file(file)? {
        None if somebody() => terminal::hidden(prompt).map(Some),
        read => Ok(read),
    }
}

/// As [`secret`], for one that is new: it is asked for twice.
pub(crate) fn new_secret(file: Option<&Path>, prompt: &str) -> Result<Option<String>> {
    let first = secret(file, prompt)?;
    if file.is_none() && first.is_some() && first != secret(None, "The same again")? {
        return Err(usage("these were not the same; nothing was done"));
    }
    Ok(first)
}

/// A secret from a file, when one is given.
pub(crate) fn from_file(path: Option<&Path>) -> Result<Option<String>> {
    let Some(path) = path else { return Ok(None) };
    let mut text = String::new();
    let read = match path.as_os_str() == "-" {
        true => std::io::stdin().take(MAX_SECRET + 1).read_to_string(&mut text),
        false => std::fs::File::open(path)
            .and_then(|file| file.take(MAX_SECRET + 1).read_to_string(&mut text)),
    };
    read.with_context(|| format!("reading {}", path.display()))?;
    if text.len() as u64 > MAX_SECRET {
        return Err(usage(format!("{} is too long for a secret", path.display())));
    }
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}

/// Where the password of a user comes from.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct PasswordArgs {
    /// The password is the first line of this file, `-` of standard input [default: it is asked for]
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

impl PasswordArgs {
    /// The password that there is.
    pub(crate) fn read(&self, prompt: &str) -> Result<String> {
        secret(self.password_file.as_deref(), prompt)?.ok_or_else(|| nobody("--password-file"))
    }
}

/// What is said where a secret is missing and nobody is there.
pub(crate) fn nobody(option: &str) -> anyhow::Error {
    usage(format!("nobody is there to ask for it: give {option} FILE (`-` is standard input)"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_secret_is_the_first_line_of_a_file_of_bounded_size() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "four words\nand more\n").unwrap();
        assert_eq!(secret(Some(file.path()), "").unwrap().unwrap(), "four words");
        std::fs::write(file.path(), "x".repeat(MAX_SECRET as usize + 1)).unwrap();
        assert!(secret(Some(file.path()), "").is_err());
    }
}
