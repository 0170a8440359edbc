//! Updates of the program: what a package is and who is believed ([`Package`], [`ForeignPackage`]),
//! the releases that are installed and which is in force (`releases`), and what is done with them
//! (`operations`). ADR 0018; `docs/updates.md` tells it to people.

mod foreign;
mod keys;
mod open;
mod operations;
mod package;
mod releases;
mod version;

use std::path::{Path, PathBuf};

pub use foreign::{Contents, ForeignPackage};
pub use keys::{UpdateSigner, UpdateVerifier};
pub(crate) use open::Opened;
pub(crate) use operations::Progressed;
pub use operations::{InstallUpdate, UpdateSource, UpdateStatus};
pub use package::{NewPackage, Package, PackageManifest, PackedFile};
#[cfg(test)]
pub(crate) use releases::fixture;
pub use releases::{
    Launch, Launcher, Trial, UpdateRecord, UpdateResult, Watchman, catalogue_fits, confirm,
    is_on_trial, launch, need_catalogue, release_of, suspend, undo,
};
pub(crate) use releases::{Previous, Releases, forget_copy};
pub use version::Version;

use crate::Error;

/// What is wrong with a package, or with installing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// There is none.
    Missing,
    /// It can't be opened.
    Sealed,
    /// Nobody who is trusted signed it.
    Signature,
    /// It is not whole, or not what it says.
    Damaged,
    /// It brings a version, or is for a machine, that it can't be used with here.
    Version,
    /// It could not be installed, or did not prove itself.
    Install,
    /// Its script could not be run.
    Script,
}

impl Flaw {
    /// How far an update is when it is found, in percent, as Jidoteki Admin counts.
    pub fn percentage(self) -> u8 {
        match self {
            Self::Missing => 20,
            Self::Sealed => 30,
            Self::Signature => 40,
            Self::Damaged => 50,
            Self::Version => 60,
            Self::Install | Self::Script => 80,
        }
    }

    /// Its code there.
    pub fn code(self) -> &'static str {
        match self {
            Self::Missing => "E1003",
            Self::Sealed | Self::Signature | Self::Damaged => "E1005",
            Self::Version => "E1001",
            Self::Install => "E1002",
            Self::Script => "E1000",
        }
    }

    /// Its message there, but for those about versions, which name them.
    pub fn message(self) -> &'static str {
        match self {
            Self::Missing => "Missing update package",
            Self::Sealed => "Error decrypting software update package",
            Self::Signature => "Error verifying software update package signature",
            Self::Damaged => "Error extracting software update package",
            Self::Version => "Error comparing software update package version",
            Self::Install => "Error running update",
            Self::Script => "Script error",
        }
    }
}

fn flaw(flaw: Flaw, why: impl Into<String>) -> Error {
    Error::Package { flaw, why: why.into() }
}

fn damaged(why: impl Into<String>) -> Error {
    flaw(Flaw::Damaged, why)
}

/// What is configured of updates.
#[derive(Clone, Debug, Default)]
pub struct UpdateSetup {
    /// Files with the public keys of those who make updates.
    pub keys: Vec<PathBuf>,
    /// The file whose first line opens sealed packages.
    pub passphrase: Option<PathBuf>,
    /// Whether an `update.sh` of a package in Jidoteki's form is run.
    pub scripts: bool,
}

/// Where updates are in the data directory, and what is configured of them.
#[derive(Clone, Debug)]
pub(crate) struct Updates {
    data: PathBuf,
    pub(crate) setup: UpdateSetup,
    /// The release that this process is of; none: the installed program.
    pub(crate) running: Option<String>,
    /// The version that it has.
    pub(crate) version: Version,
    /// What is new in it, where the release says so.
    pub(crate) changelog: Option<String>,
    /// The installed program.
    pub(crate) installed: Option<PathBuf>,
}

impl Updates {
    /// `program`: what this process is; `installed`: what was installed, where that is another.
    pub(crate) fn of(
        data: &Path,
        setup: UpdateSetup,
        program: Option<&Path>,
        installed: Option<&Path>,
    ) -> Self {
        let releases = Releases::of(data);
        let running = program.and_then(|program| releases.is_of(program));
        let facts = running.as_ref().and_then(|release| releases.facts(release).ok());
        let version = facts.and_then(|facts| facts.version.parse().ok());
        let version = version.unwrap_or_else(Version::of_program);
        let text = running.as_ref().and_then(|release| releases.changelog(release).ok());
        // The program that runs may not be what is at its path any more.
        let own = || program.map(|_| Path::new("/proc/self/exe"));
        let installed = if running.is_some() { installed } else { own() };
        let (data, installed) = (data.to_owned(), installed.map(Path::to_owned));
        let changelog = text.flatten();
        let updates = Self { data, setup, running, version, changelog, installed };
        updates.sweep();
        updates
    }

    /// The releases.
    pub(crate) fn releases(&self) -> Releases {
        Releases::of(&self.data)
    }

    /// Where packages are on their way in.
    fn dir(&self) -> PathBuf {
        self.data.join("updates")
    }

    /// Removes packages that were on their way in when a process ended.
    fn sweep(&self) {
        let Ok(entries) = std::fs::read_dir(self.dir()) else { return };
        for entry in entries.flatten() {
            if let Err(error) = std::fs::remove_file(entry.path()) {
                tracing::warn!(%error, "what is left of an update can't be removed");
            }
        }
    }
}
