//! The file for what is shown once, where the output may be kept in a log.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use zeroize::Zeroizing;

/// Opened before there is a secret: one that can't be written down must not come to be.
#[derive(Debug)]
pub(super) struct SecretsFile {
    path: PathBuf,
    file: File,
}

impl SecretsFile {
    /// Opens it, or makes it for its owner alone. What is in it stays.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.append(true).create(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("opening {} for secrets", path.display()))?;
        let open_to_others = file.metadata()?.mode() & 0o077 != 0;
        ensure!(!open_to_others, "{} is for secrets: chmod 600 it", path.display());
        Ok(Self { path: path.to_owned(), file })
    }

    /// Writes down what is called so.
    pub(super) fn keep(&mut self, secrets: &[(&str, &str)]) -> Result<()> {
        let mut text = Zeroizing::new(String::new());
        for (name, secret) in secrets {
            text.extend([name, " ", secret, "\n"]);
        }
        let written = self.file.write_all(text.as_bytes()).and_then(|()| self.file.sync_all());
        written.with_context(|| format!("writing secrets to {}", self.path.display()))?;
        tracing::info!("what the first run shows once is in {}", self.path.display());
        Ok(())
    }

    /// All is written. A file without content goes.
    pub(super) fn close(self) -> Result<()> {
        if self.file.metadata()?.len() == 0 {
            let removed = fs::remove_file(&self.path);
            removed.with_context(|| format!("removing {}", self.path.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_private_keeps_what_was_there_and_goes_when_there_is_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secrets");
        let open = || SecretsFile::open(&path).unwrap();
        open().close().unwrap();
        assert!(!path.exists());
        open().keep(&[("user", "admin"), ("passphrase", "one")]).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        open().close().unwrap();
        open().keep(&[("pool", "main")]).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "user admin\npassphrase one\npool main\n");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SecretsFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("chmod 600"), "{error}");
    }
}
