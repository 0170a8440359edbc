//! The programs that are measured, and how each is told what to do. Every name of a command or an
//! option stands here and nowhere else.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::corpora::VERSIONS;

/// A program that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Tool {
    /// Debian's.
    Restic,
    /// From crates.io.
    Rustic,
    /// From PyPI, else Debian's.
    Borg,
    /// From crates.io.
    Bupstash,
    /// `cp -r && sync`: no backup, but what the disk and the system can do.
    Cp,
    /// Ours.
    Strongroom,
}

impl Tool {
    /// Its name, on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
            Self::Bupstash => "bupstash",
            Self::Cp => "cp",
            Self::Strongroom => "strongroom",
        }
    }

    /// Whether it is another backup program.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Cp | Self::Strongroom)
    }
}

/// Where a program is and where it works.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The program.
    pub(crate) program: PathBuf,
    /// Its repository.
    pub(crate) repo: PathBuf,
    /// A directory for its caches and keys, emptied with the repository.
    pub(crate) home: PathBuf,
    /// A file with the password.
    pub(crate) password: PathBuf,
    /// A file with random bytes, for who can have a key instead of a password.
    pub(crate) key: PathBuf,
}

/// What a program is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act<'a> {
    /// Make the repository.
    Init,
    /// Back up a directory under a name.
    Backup { source: &'a Path, name: &'a str },
    /// The same, but read every file again, as if none were known.
    Reread { source: &'a Path, name: &'a str },
    /// Bring the last backup of that name back into an empty directory.
    Restore { name: &'a str, to: &'a Path },
    /// Read everything that is stored and verify it.
    Check,
    /// Forget all but the last `keep` backups and free their space.
    Prune { keep: u32 },
}

/// The commands for that, to be run one after the other; none when the program can't.
pub(crate) fn commands(tool: Tool, place: &Place, act: Act<'_>) -> Vec<Vec<OsString>> {
    match tool {
        Tool::Strongroom => strongroom(place, act),
        Tool::Restic => restic(place, act),
        Tool::Rustic => rustic(place, act),
        Tool::Borg => borg(place, act),
        Tool::Bupstash => bupstash(place, act),
        Tool::Cp => Vec::new(),
    }
}

/// What a program finds in its environment.
pub(crate) fn environment(tool: Tool, place: &Place) -> Vec<(&'static str, OsString)> {
    let path = |path: &Path| path.as_os_str().to_owned();
    let home = ("HOME", path(&place.home));
    let mut cat = OsString::from("cat ");
    cat.push(&place.password);
    match tool {
        Tool::Strongroom | Tool::Cp => vec![home],
        Tool::Restic => vec![
            home,
            ("RESTIC_REPOSITORY", path(&place.repo)),
            ("RESTIC_PASSWORD_FILE", path(&place.password)),
            ("RESTIC_CACHE_DIR", path(&place.home.join("cache"))),
        ],
        Tool::Rustic => vec![
            home,
            ("RUSTIC_REPOSITORY", path(&place.repo)),
            ("RUSTIC_PASSWORD_FILE", path(&place.password)),
            ("RUSTIC_CACHE_DIR", path(&place.home.join("cache"))),
            ("RUSTIC_NO_PROGRESS", "true".into()),
        ],
        Tool::Borg => vec![
            home,
            ("BORG_REPO", path(&place.repo)),
            ("BORG_PASSCOMMAND", cat),
            ("BORG_BASE_DIR", path(&place.home)),
        ],
        Tool::Bupstash => vec![
            home,
            ("XDG_CACHE_HOME", path(&place.home.join("cache"))),
            ("BUPSTASH_REPOSITORY", path(&place.repo)),
            ("BUPSTASH_KEY", path(&place.home.join("key"))),
        ],
    }
}

/// Builds a command line: `line!(program; "word" path "word")`.
macro_rules! line {
    ($program:expr; $($word:expr)*) => {
        vec![OsString::from($program.as_os_str()), $(OsString::from($word)),*]
    };
}

fn strongroom(place: &Place, act: Act<'_>) -> Vec<Vec<OsString>> {
    let (ours, repo, key) = (&place.program, &place.repo, &place.key);
    let mut line = match act {
        Act::Init => {
            let encrypt = "--encrypt";
            return vec![line!(ours; "pool" "create" repo encrypt "--key-file" key)];
        }
        Act::Backup { source, name } => line!(ours; "backup" source "--name" name),
        Act::Reread { source, name } => line!(ours; "backup" source "--name" name "--read-all"),
        Act::Restore { name, to } => line!(ours; "restore" name "--to" to),
        Act::Check => line!(ours; "pool" "check" "--read-data"),
        Act::Prune { keep } => line!(ours; "forget" "--keep-last" keep.to_string() "--prune"),
    };
    line.extend(["--pool".into(), repo.into(), "--key-file".into(), key.into()]);
    vec![line]
}

fn restic(place: &Place, act: Act<'_>) -> Vec<Vec<OsString>> {
    let restic = &place.program;
    vec![match act {
        Act::Init => line!(restic; "init"),
        Act::Backup { source, name } => line!(restic; "backup" "--tag" name source),
        Act::Reread { source, name } => line!(restic; "backup" "--force" "--tag" name source),
        Act::Restore { name, to } => {
            line!(restic; "restore" "latest" "--tag" name "--target" to)
        }
        Act::Check => line!(restic; "check" "--read-data"),
        Act::Prune { keep } => {
            line!(restic; "forget" "--group-by" "host" "--keep-last" keep.to_string() "--prune")
        }
    }]
}

fn rustic(place: &Place, act: Act<'_>) -> Vec<Vec<OsString>> {
    let rustic = &place.program;
    vec![match act {
        Act::Init => line!(rustic; "init"),
        Act::Backup { source, name } => line!(rustic; "backup" "--label" name source),
        Act::Reread { source, name } => line!(rustic; "backup" "--force" "--label" name source),
        Act::Restore { name: _, to } => line!(rustic; "restore" "latest" to),
        Act::Check => line!(rustic; "check" "--read-data"),
        // What it doesn't free in the same run it would free after 23 hours.
        Act::Prune { keep } => {
            line!(rustic; "forget" "--group-by" "host" "--keep-last" keep.to_string() "--prune" "--instant-delete")
        }
    }]
}

fn borg(place: &Place, act: Act<'_>) -> Vec<Vec<OsString>> {
    let borg = &place.program;
    let archive = |name: &str| format!("::{name}");
    match act {
        Act::Init => vec![line!(borg; "init" "--encryption" "repokey-blake2")],
        Act::Backup { source, name } => {
            vec![line!(borg; "create" archive(&unique(place, name)) source)]
        }
        Act::Reread { source, name } => {
            let name = archive(&unique(place, name));
            vec![line!(borg; "create" "--files-cache" "disabled" name source)]
        }
        // It extracts into the working directory, the first backup: the content is the same.
        Act::Restore { name, to } => {
            let script = "cd \"$2\" && exec \"$0\" extract \"$1\"";
            let sh = Path::new("/bin/sh");
            vec![line!(sh; "-c" script borg.as_os_str() archive(&format!("{name}-1")) to)]
        }
        Act::Check => vec![line!(borg; "check" "--verify-data")],
        Act::Prune { keep } => {
            vec![line!(borg; "prune" "--keep-last" keep.to_string()), line!(borg; "compact")]
        }
    }
}

fn bupstash(place: &Place, act: Act<'_>) -> Vec<Vec<OsString>> {
    let bupstash = &place.program;
    let tag = |name: &str| format!("name={name}");
    match act {
        Act::Init => {
            vec![line!(bupstash; "init"), line!(bupstash; "new-key" "-o" place.home.join("key"))]
        }
        Act::Backup { source, name } => {
            let name = tag(&unique(place, name));
            vec![line!(bupstash; "put" "--no-progress" name source)]
        }
        Act::Reread { source, name } => {
            let name = tag(&unique(place, name));
            vec![line!(bupstash; "put" "--no-progress" "--no-stat-caching" name source)]
        }
        Act::Restore { name, to } => {
            let name = tag(&format!("{name}-1"));
            vec![line!(bupstash; "restore" "--no-progress" "--into" to name)]
        }
        Act::Check => Vec::new(),
        Act::Prune { keep } => {
            let mut commands: Vec<_> = (1..=VERSIONS - keep)
                .map(|n| line!(bupstash; "rm" tag(&format!("versions-{n}"))))
                .collect();
            commands.push(line!(bupstash; "gc"));
            commands
        }
    }
}

/// A name for the next backup, for programs that want every one to be different: the count of
/// those made so far is kept beside the repository.
fn unique(place: &Place, name: &str) -> String {
    let counter = place.home.join("backups-made");
    let made = std::fs::read_to_string(&counter).ok().and_then(|n| n.parse::<u32>().ok());
    let number = made.unwrap_or(0) + 1;
    // Should this fail, the program will say that the name is taken.
    let _ = std::fs::write(&counter, number.to_string());
    format!("{name}-{number}")
}
