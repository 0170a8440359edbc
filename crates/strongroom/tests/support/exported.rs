//! `strongroom volume export`, running for a test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStderr, Command, Stdio};

use serde_json::Value;

use super::{Lab, output, tool};

/// An export that is served.
pub(crate) struct Exported {
    child: Child,
    pub(crate) told: Value,
    _stdout: BufReader<std::process::ChildStdout>,
    stderr: ChildStderr,
}

impl Exported {
    pub(crate) fn begin(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let mut first = String::new();
        stdout.read_line(&mut first).unwrap();
        let Ok(told) = serde_json::from_str(&first) else {
            let mut why = String::new();
            stderr.read_to_string(&mut why).unwrap();
            panic!("{first}{why}");
        };
        Self { child, told, _stdout: stdout, stderr }
    }

    /// Serves what this says at a socket in the lab.
    pub(crate) fn of(lab: &Lab, what: &str) -> Self {
        let line = format!("volume export {what} --nbd unix:socket --json");
        Self::begin(lab.command(line.split_whitespace()))
    }

    /// Serves a volume so that what is written to it stays.
    pub(crate) fn in_place(lab: &Lab, what: &str) -> Self {
        Self::of(lab, &format!("{what} --in-place"))
    }

    pub(crate) fn uri(&self) -> &str {
        self.told["uri"].as_str().unwrap()
    }

    /// The address for initiators of iSCSI.
    pub(crate) fn iscsi(&self) -> &str {
        self.told["iscsi"]["uri"].as_str().unwrap()
    }

    /// Kills it, at once.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ends it; its exit code, and what it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        output(tool("kill").args(["-INT", &self.child.id().to_string()]));
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        // Gone already, unless a test failed.
        let _ = self.child.kill();
    }
}
