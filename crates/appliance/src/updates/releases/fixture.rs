//! An appliance with releases, for tests.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};

use super::Releases;
use super::directory::{CHANGELOG, PROGRAM};
use super::launch::{Launch, Launcher};
use super::state::{Previous, Trial};
use crate::Result;

pub(crate) struct Place {
    dir: tempfile::TempDir,
    pub(crate) installed: PathBuf,
}

const CATALOGUE: [(&str, &str); 2] = [("catalogue.db", "old"), ("catalogue.db-wal", "old log")];

impl Place {
    /// An appliance with a catalogue, and a program outside of its data directory.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let installed = dir.path().join("usr-bin-strongroom");
        fs::write(&installed, "installed").unwrap();
        fs::create_dir(dir.path().join("data")).unwrap();
        let place = Self { dir, installed };
        for (name, text) in CATALOGUE {
            fs::write(place.data().join(name), text).unwrap();
        }
        place
    }

    pub(crate) fn data(&self) -> PathBuf {
        fs::canonicalize(self.dir.path()).unwrap().join("data")
    }

    pub(crate) fn releases(&self, left: Option<u32>) -> Releases {
        let releases = Releases::of(&self.data());
        releases.left.set(left);
        releases
    }

    pub(crate) fn install(&self, version: &str) -> String {
        let releases = self.releases(None);
        let draft = releases.draft().unwrap();
        fs::write(draft.join(PROGRAM), format!("program {version}")).unwrap();
        fs::write(draft.join(CHANGELOG), "news").unwrap();
        let installed = Some(self.installed.as_path());
        releases.finish(&draft, &version.parse().unwrap(), None, installed).unwrap()
    }

    pub(crate) fn trial(&self, release: &str, from: Option<&str>) -> Trial {
        Trial {
            release: release.into(),
            previous: Previous {
                release: from.map(str::to_owned),
                version: "0.1.0".into(),
                schema: 7,
            },
            catalogue: Some(self.data().join("catalogue.db")),
            copied: false,
            begun: false,
            start: 5,
            trial: 5,
        }
    }

    pub(crate) fn launch_of(&self, releases: &Releases, program: &Path) -> Result<Launch> {
        let data = self.data();
        let installed = Some(self.installed.as_path());
        releases.launch(&Launcher { data: &data, program, installed }, &mut Vec::new())
    }

    pub(crate) fn launch(&self) -> Launch {
        self.launch_of(&self.releases(None), &self.installed).unwrap()
    }

    pub(crate) fn program(&self, release: &str) -> PathBuf {
        self.data().join("releases").join(release).join(PROGRAM)
    }

    pub(crate) fn catalogue(&self) -> Vec<Option<String>> {
        let read = |name: &str| fs::read_to_string(self.data().join(name)).ok();
        ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"].map(read).into()
    }

    pub(crate) fn migrate(&self) {
        for name in ["catalogue.db", "catalogue.db-wal", "catalogue.db-shm"] {
            fs::write(self.data().join(name), "new").unwrap();
        }
    }

    pub(crate) fn old() -> Vec<Option<String>> {
        vec![Some("old".into()), Some("old log".into()), None]
    }
}

pub(crate) fn is_watch(launch: &Launch, of: &str) -> bool {
    matches!(launch, Launch::Watch { release, .. } if release == of)
}

pub(crate) fn becomes(launch: &Launch, of: Option<&str>) -> bool {
    matches!(launch, Launch::Become { release, .. } if release.as_deref() == of)
}
