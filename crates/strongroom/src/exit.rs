//! How a run ends: exit codes, and errors in one line.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use anyhow::Result;
use strongroom_archive::Error as Archive;
use strongroom_client::Error as Client;
use strongroom_engine::Error as Engine;

use crate::args::Cli;
use crate::interrupt::Interrupt;
use crate::output::Output;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) out: Output,
    pub(crate) interrupt: Interrupt,
    /// The command's name.
    pub(crate) command: &'static str,
}

impl Context {
    pub(crate) fn new(cli: &Cli) -> Result<Self> {
        Ok(Self {
            out: Output { json: cli.json, quiet: cli.quiet },
            interrupt: Interrupt::install()?,
            command: cli.command.name(),
        })
    }
}

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// As it should.
    Well,
    /// With files that could not be read or restored, or with damage found.
    WithTroubles,
}

impl Done {
    /// [`Done::Well`] when it went well.
    pub(crate) fn well_if(well: bool) -> Self {
        if well { Self::Well } else { Self::WithTroubles }
    }
}

impl From<Done> for ExitCode {
    fn from(done: Done) -> Self {
        match done {
            Done::Well => Self::SUCCESS,
            Done::WithTroubles => Self::from(3),
        }
    }
}

/// A command line that contradicts itself in a way that its parser can't see.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// A [`Usage`] error.
pub(crate) fn usage(why: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(Usage(why.into()))
}

/// Prints an error, and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_closed_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // Nothing is left to be done when not even this can be said.
    let _ = writeln!(std::io::stderr(), "error: {}", text(error));
    ExitCode::from(code(error))
}

/// Whether nobody reads what is printed any more (`strongroom ls … | head`).
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let source = match (engine(error), error.downcast_ref::<Archive>()) {
        (Some(Engine::Io { source, .. }), _) | (_, Some(Archive::Local { source, .. })) => {
            Some(source)
        }
        _ => error.downcast_ref::<std::io::Error>(),
    };
    source.is_some_and(|source| source.kind() == ErrorKind::BrokenPipe)
}

/// The engine's error in an error.
fn engine(error: &anyhow::Error) -> Option<&Engine> {
    match error.downcast_ref::<Archive>() {
        Some(Archive::Pool(engine)) => Some(engine),
        Some(_) => None,
        None => error.downcast_ref::<Engine>(),
    }
}

/// The error and its causes in one line. A cause that its effect names already is left out.
fn text(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text.replace('\n', " ")
}

fn code(error: &anyhow::Error) -> u8 {
    let sealed = matches!(error.downcast_ref(), Some(Archive::SealedBefore { .. }));
    if sealed || error.is::<Usage>() {
        return 2;
    }
    if let Some(error) = error.downcast_ref::<Client>() {
        return code_of_client(error);
    }
    match engine(error) {
        Some(Engine::InUse { .. }) => 4,
        Some(Engine::SecretNeeded | Engine::WrongSecret) => 5,
        Some(Engine::Unreachable { .. }) => 7,
        Some(Engine::Canceled) => 130,
        _ => 1,
    }
}

/// The one place that says what an appliance's refusals are to scripts.
fn code_of_client(error: &Client) -> u8 {
    let problem = match error {
        Client::Unreachable { .. } => return 7,
        Client::Address(_) | Client::Unsendable(_) => return 2,
        Client::Refused(problem) => problem,
        _ => return 1,
    };
    match (problem.code.as_str(), problem.status) {
        ("bad_request" | "invalid" | "not_found" | "idempotency_key_reused", _) => 2,
        (
            "unauthenticated"
            | "second_factor_needed"
            | "password_change_needed"
            | "forbidden"
            | "approval_needed",
            _,
        ) => 6,
        (
            "too_many_attempts" | "unavailable" | "timeout" | "request_timeout" | "in_progress",
            _,
        ) => 7,
        // Something between us and the appliance speaks.
        ("", 401 | 403) => 6,
        ("", 429 | 502..=504) => 7,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn causes_are_told_once_and_in_one_line() {
        let source = std::io::Error::other("no\nroom");
        let error = strongroom_engine::Error::io("writing x", source);
        assert_eq!(text(&anyhow::Error::new(error)), "writing x: no room");
    }

    #[test]
    fn refusals_have_the_code_of_their_kind() {
        use strongroom_client::Problem;
        let code = |text: &str, status: u16| {
            let problem = Problem { code: text.into(), status, ..Problem::default() };
            code(&anyhow::Error::new(Client::Refused(problem)).context("more"))
        };
        let codes = [
            ("invalid", 422, 2),
            ("not_found", 404, 2),
            ("exists", 409, 1),
            ("forbidden", 403, 6),
            ("approval_needed", 403, 6),
            ("too_many_attempts", 429, 7),
            ("internal", 500, 1),
            ("", 503, 7),
        ];
        for (text, status, wanted) in codes {
            assert_eq!(code(text, status), wanted, "{text}");
        }
    }

    #[test]
    fn codes_are_found_through_the_archive() {
        let engine = strongroom_engine::Error::WrongSecret;
        assert_eq!(code(&anyhow::Error::new(strongroom_archive::Error::from(engine))), 5);
        assert_eq!(code(&usage("no")), 2);
        assert_eq!(code(&anyhow::anyhow!("no")), 1);
    }
}
