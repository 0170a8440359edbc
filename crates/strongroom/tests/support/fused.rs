//! An export of NBD as a file, for programs that know files alone.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Lab, output, tool};

/// An export that is mounted as a file, until this is dropped.
pub(crate) struct Fused {
    child: Child,
    dir: PathBuf,
    file: PathBuf,
}

impl Fused {
    pub(crate) fn new(lab: &Lab, uri: &str) -> Self {
        let dir = lab.path("fused");
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("disk");
        let mut command = tool("nbdfuse");
        let child = command.arg(&file).arg(uri).stderr(Stdio::inherit()).spawn().unwrap();
        let mut fused = Self { child, dir, file };
        let end = Instant::now() + Duration::from_secs(30);
        while !fused.file.exists() {
            assert!(fused.child.try_wait().unwrap().is_none(), "nbdfuse has ended");
            assert!(Instant::now() < end, "nbdfuse shows nothing");
            std::thread::sleep(Duration::from_millis(20));
        }
        fused
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Unmounts it; what was written is with the server.
    pub(crate) fn end(mut self) {
        output(tool("fusermount3").arg("-u").arg(&self.dir));
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Fused {
    fn drop(&mut self) {
        // Unmounted already, unless a test failed.
        let mut unmount = Command::new("fusermount3");
        let _ = unmount.arg("-uz").arg(&self.dir).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
