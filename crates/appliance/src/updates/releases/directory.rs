//! The directories of releases. Each has a name once it is whole, and never changes then.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::super::Version;
use super::{Releases, remove_all, sync};
use crate::files::{self, sum};
use crate::{Error, Result};

/// Bytes of what a release says of itself, and of its changelog.
const TEXT: u64 = 1 << 20;
/// Files of a release.
pub(super) const PROGRAM: &str = "strongroom";
pub(super) const CHANGELOG: &str = "changelog";
pub(super) const FACTS: &str = "release.json";
/// What a directory is called until it is whole.
const DRAFT: &str = "draft-";

/// What a release says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Its version.
    pub(crate) version: String,
    /// When it was built.
    pub(crate) built_at: Option<Timestamp>,
    /// When it was installed.
    pub(crate) installed_at: Timestamp,
    /// The bytes of its program.
    pub(crate) bytes: u64,
    /// The SHA-256 of that.
    pub(crate) sha256: String,
    /// The SHA-256 of the installed program that it was chosen over.
    #[serde(default)]
    pub(crate) over: Option<String>,
}

impl Releases {
    /// What a release says of itself.
    pub(crate) fn facts(&self, release: &str) -> Result<Facts> {
        let path = self.path(release).join(FACTS);
        let text = files::read(&path, TEXT).map_err(Error::file(&path))?;
        serde_json::from_slice(&text).map_err(|error| Error::file(&path)(error.into()))
    }

    /// The release that this program is of.
    pub(crate) fn is_of(&self, program: &Path) -> Option<String> {
        let dir = program.parent().filter(|_| program.file_name() == Some(PROGRAM.as_ref()))?;
        let dir = dir.strip_prefix(fs::canonicalize(&self.dir).ok()?).ok()?;
        let name = dir.to_str().filter(|name| !name.is_empty() && !name.contains('/'))?;
        self.facts(name).is_ok().then(|| name.to_owned())
    }

    /// What is new in a release.
    pub(crate) fn changelog(&self, release: &str) -> Result<Option<String>> {
        let path = self.path(release).join(CHANGELOG);
        match files::read(&path, TEXT) {
            Ok(text) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file(&path)(error)),
        }
    }

    /// A directory for what is unpacked. Removes what was left half made.
    pub(crate) fn draft(&self) -> Result<PathBuf> {
        self.sweep()?;
        let mut name = [0; 8];
        getrandom::fill(&mut name).map_err(strongroom_identity::Error::Random)?;
        let path = self.dir.join(format!("{DRAFT}{}", HEXLOWER.encode(&name)));
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::file(&path))?;
        Ok(path)
    }

    /// Removes the releases that nobody can go back to, and drafts.
    pub(crate) fn sweep(&self) -> Result<()> {
        self.directory()?;
        let state = self.read()?;
        let trial = state.trial.as_ref();
        let kept = [
            state.active.as_ref(),
            state.previous.as_ref().and_then(|previous| previous.release.as_ref()),
            trial.and_then(|trial| trial.previous.release.as_ref()),
            state.watcher.as_ref(),
        ];
        for entry in fs::read_dir(&self.dir).map_err(Error::file(&self.dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_kept = kept.iter().flatten().any(|kept| **kept == name);
            if entry.path().is_dir() && !is_kept {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Gives a draft with a program its name: it is a release now, which is not in force. It is
    /// chosen over the installed program, whether that is newer or not, until that is another.
    pub(crate) fn finish(
        &self,
        draft: &Path,
        version: &Version,
        built_at: Option<Timestamp>,
        installed: Option<&Path>,
    ) -> Result<String> {
        let program = draft.join(PROGRAM);
        let (bytes, sha256) = sum(&program).map_err(Error::file(&program))?;
        let mode = fs::Permissions::from_mode(0o700);
        fs::set_permissions(&program, mode).map_err(Error::file(&program))?;
        let file = File::open(&program).and_then(|file| file.sync_all());
        file.map_err(Error::file(&program))?;
        let facts = Facts {
            version: version.to_string(),
            built_at,
            installed_at: Timestamp::now(),
            bytes,
            sha256,
            // Without it, the newer one wins.
            over: installed.and_then(|program| sum(program).ok()).map(|(_, sha256)| sha256),
        };
        let path = draft.join(FACTS);
        let text = serde_json::to_vec_pretty(&facts).map_err(|e| Error::file(&path)(e.into()))?;
        files::replace(&path, &text).map_err(Error::file(&path))?;
        sync(draft)?;
        let draft_name = draft.file_name().unwrap_or_default().to_string_lossy();
        let random = draft_name.strip_prefix(DRAFT).unwrap_or(&draft_name);
        let name = format!("{version}-{random}");
        self.step()?;
        fs::rename(draft, self.path(&name)).map_err(Error::file(draft))?;
        sync(&self.dir)?;
        Ok(name)
    }

    /// Whether a release is what was installed.
    pub(super) fn sound(&self, release: &str) -> Result<Facts, String> {
        let facts = self.facts(release).map_err(|error| error.to_string())?;
        let dir = self.path(release).symlink_metadata().map_err(|error| error.to_string())?;
        // A program that is elsewhere would not be known for this release's own.
        if !dir.is_dir() {
            return Err("it has no directory of its own".into());
        }
        let path = self.path(release).join(PROGRAM);
        let meta = path.symlink_metadata().map_err(|error| error.to_string())?;
        if !meta.is_file() || meta.permissions().mode() & 0o100 == 0 {
            return Err("its program is no program".into());
        }
        match sum(&path) {
            Ok((bytes, sha256)) if (bytes, &sha256) == (facts.bytes, &facts.sha256) => Ok(facts),
            Ok(_) => Err("its program is not the one that was installed".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The release that a program is of.
pub fn release_of(data: &Path, program: &Path) -> Option<String> {
    Releases::of(data).is_of(program)
}
