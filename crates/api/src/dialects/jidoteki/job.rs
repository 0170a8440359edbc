//! What the dialect tells of jobs.

use strongroom_protect::{Line, State};

/// Lines of a log that stand in a status.
pub(super) const LINES: u32 = 10;

/// A job's state, as the dialect has it.
pub(super) fn status(state: State) -> &'static str {
    match state {
        State::Queued | State::Running | State::Retried => "running",
        State::Succeeded | State::Warnings => "success",
        State::Failed | State::Canceled | State::NotRun => "failed",
    }
}

/// The last lines of a log, each ended by a backslash and an `n`: the original's pages rely on it.
pub(super) fn log(lines: &[Line]) -> String {
    lines.iter().map(|one| line(one) + "\\n").collect()
}

/// A line of a log.
pub(super) fn line(line: &Line) -> String {
    format!("[{}][SYSTEM] {}", line.at.as_second(), line.message)
}
