//! Putting the files of a restored backup in place, all of them or none.
//!
//! The new files lie in `restore/new` of the data directory until a note is written that names them,
//! `decided`: from then on they are the appliance's. The next start puts them in place before anything
//! is opened, and keeps what was there in `restore/old`; then the note is called `trial`. When the
//! start comes about it is called `kept`, and what was there before is left in `before-restore`. When
//! it fails, the note is called `undo`, and what was there before is put back. Each step may be cut off
//! and done again; a start that dies without a word is tried a few times.
//!
//! | note | what is in force | the next start |
//! |---|---|---|
//! | none | the old state | removes what was prepared |
//! | `decided` | the new one, once it is in place | puts the new files in place |
//! | `trial` | the new one, if it starts | tries again, and undoes after some tries |
//! | `kept` | the new one | tidies up |
//! | `undo` | the old one | puts the old files back |

use std::cell::Cell;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::database;
use crate::updates::forget_copy;
use crate::{Error, Result};

/// Where all of it is, in the data directory, and where what was there before is left.
pub(super) const DIR: &str = "restore";
const BEFORE: &str = "before-restore";
const DECIDED: &str = "decided";
const TRIAL: &str = "trial";
const KEPT: &str = "kept";
const UNDO: &str = "undo";
/// Starts that may die without a word.
const TRIES: u32 = 3;

/// A file that is replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    /// Where it belongs, from the data directory.
    pub(super) path: String,
    /// There is a new one; else what is there goes.
    pub(super) is_new: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    entries: Vec<Entry>,
    tries: u32,
    /// Who decided it, and on what, for the audit trail of the new state.
    told: String,
}

/// The steps on the disk. A test lets them end after some.
#[derive(Debug)]
struct Steps {
    data: PathBuf,
    dir: PathBuf,
    left: Cell<Option<u32>>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error + '_ {
    |source| Error::File { path: path.to_owned(), source }
}

pub(super) fn sync(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))
}

pub(super) fn is_there(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed(path)(error)),
    }
}

/// Makes a directory for its owner alone, if it isn't there.
pub(super) fn directory(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

impl Steps {
    fn new(data: &Path) -> Self {
        Self { data: data.to_owned(), dir: data.join(DIR), left: Cell::new(None) }
    }

    /// Before each step.
    fn step(&self) -> Result<()> {
        let Some(left) = self.left.get() else { return Ok(()) };
        let Some(left) = left.checked_sub(1) else {
            return Err(Error::Archive("cut off by a test".into()));
        };
        self.left.set(Some(left));
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.step()?;
        directory(parent(to))?;
        fs::rename(from, to).map_err(failed(to))?;
        sync(parent(to))?;
        sync(parent(from))
    }

    /// The whole file, or none.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.step()?;
        let mut draft = path.as_os_str().to_owned();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft);
        let written = file.and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        written.map_err(failed(&draft))?;
        self.step()?;
        fs::rename(&draft, path).map_err(failed(path))?;
        sync(parent(path))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.step()?;
        match fs::remove_file(path) {
            Ok(()) => sync(parent(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(path)(error)),
        }
    }

    fn remove_all(&self, path: &Path) -> Result<()> {
        self.step()?;
        match fs::remove_dir_all(path) {
            Ok(()) => sync(parent(path)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed(path)(error)),
        }
    }

    fn read(&self, name: &str) -> Result<Option<Note>> {
        let path = self.dir.join(name);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let note = serde_json::from_slice(&text);
        note.map(Some).map_err(|error| failed(&path)(error.into()))
    }

    fn note(&self, name: &str, note: &Note) -> Result<()> {
        self.write(&self.dir.join(name), &serde_json::to_vec(note).unwrap_or_default())
    }

    fn called(&self, from: &str, to: &str) -> Result<()> {
        self.rename(&self.dir.join(from), &self.dir.join(to))
    }

    /// What was prepared, becomes what will be in force.
    fn decide(&self, entries: Vec<Entry>, told: String) -> Result<()> {
        for dir in ["new", "old", "none"] {
            directory(&self.dir.join(dir))?;
            sync(&self.dir.join(dir))?;
        }
        sync(&self.data)?;
        self.note(DECIDED, &Note { entries, tries: 0, told })
    }

    /// New files to their places, old ones aside.
    fn place(&self, note: &Note) -> Result<()> {
        for (number, entry) in note.entries.iter().enumerate() {
            let path = self.data.join(&entry.path);
            let new = self.dir.join("new").join(number.to_string());
            let old = self.dir.join("old").join(&entry.path);
            let none = self.dir.join("none").join(number.to_string());
            if !is_there(&old)? && !is_there(&none)? {
                match is_there(&path)? {
                    true => self.rename(&path, &old)?,
                    false => self.write(&none, b"")?,
                }
            }
            if entry.is_new && is_there(&new)? {
                self.rename(&new, &path)?;
            }
        }
        Ok(())
    }

    /// Old files to their places.
    fn put_back(&self, note: &Note) -> Result<()> {
        for (number, entry) in note.entries.iter().enumerate() {
            let path = self.data.join(&entry.path);
            let old = self.dir.join("old").join(&entry.path);
            if is_there(&self.dir.join("none").join(number.to_string()))? {
                self.remove(&path)?;
            } else if is_there(&old)? {
                self.rename(&old, &path)?;
            }
        }
        // What was in a database before is loaded by the same start.
        let before = database::before(&self.dir);
        if is_there(&before)? {
            self.rename(&before, &self.data.join(database::BACK))?;
        }
        self.remove(&self.dir.join(UNDO))?;
        self.remove_all(&self.dir)
    }

    /// The old state is left where it is out of the way.
    fn tidy(&self) -> Result<()> {
        let before = self.data.join(BEFORE);
        self.remove_all(&before)?;
        self.remove_all(&self.dir.join("new"))?;
        self.rename(&self.dir, &before)
    }

    fn settle(&self) -> Result<Option<Note>> {
        if !is_there(&self.dir)? {
            return Ok(None);
        }
        if let Some(note) = self.read(UNDO)? {
            self.put_back(&note)?;
            tracing::warn!("the restored backup did not start: what was there is back");
        } else if self.read(KEPT)?.is_some() {
            self.tidy()?;
        } else if let Some(note) = self.read(TRIAL)? {
            let note = Note { tries: note.tries + 1, ..note };
            if note.tries > TRIES {
                self.called(TRIAL, UNDO)?;
                self.put_back(&note)?;
                tracing::error!(
                    "the restored backup did not start {TRIES} times: what was there is back"
                );
                return Ok(None);
            }
            self.note(TRIAL, &note)?;
            return Ok(Some(note));
        } else if let Some(note) = self.read(DECIDED)? {
            if let Err(error) = self.place(&note) {
                self.called(DECIDED, UNDO)?;
                self.put_back(&note)?;
                tracing::error!(%error, "the restored files can't be put in place: the old ones are back");
                return Ok(None);
            }
            self.called(DECIDED, TRIAL)?;
            let note = Note { tries: 1, ..note };
            self.note(TRIAL, &note)?;
            return Ok(Some(note));
        } else {
            self.remove_all(&self.dir)?;
        }
        Ok(None)
    }
}

/// A start with the state of a backup, which is good once all is open.
#[derive(Debug)]
pub struct Trial {
    steps: Steps,
    note: Note,
}

/// Brings a restore to where it can go on, whatever it was cut off at. To be called before anything
/// of the data directory is opened. Gives the trial that this start is, if it is one.
///
/// # Errors
/// [`Error::File`].
pub fn settle(data: &Path) -> Result<Option<Trial>> {
    let steps = Steps::new(data);
    let trial = steps.settle()?;
    Ok(trial.map(|note| Trial { steps, note }))
}

impl Trial {
    /// All is open: the new state stays.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn keep(self) -> Result<()> {
        // Before it is kept for good, or a start that is cut off here would leave the copy.
        forget_copy(&self.steps.data)?;
        self.steps.called(TRIAL, KEPT)?;
        self.steps.tidy()
    }

    /// It can't be started: the next start puts back what was there before. Not this process, which
    /// may have some of it open still.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn undo(self) -> Result<()> {
        self.steps.called(TRIAL, UNDO)
    }

    /// Who decided it, and on what.
    pub fn told(&self) -> &str {
        &self.note.told
    }
}

/// Whether a restore was decided that no start has put in place yet.
pub(super) fn is_decided(data: &Path) -> Result<bool> {
    is_there(&data.join(DIR).join(DECIDED))
}

/// Decides that the prepared files, `restore/new/NUMBER` by the numbers of the entries, take the place
/// of what is there.
pub(super) fn decide(data: &Path, entries: Vec<Entry>, told: String) -> Result<()> {
    Steps::new(data).decide(entries, told)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;

    use super::*;

    type Tree = BTreeMap<String, String>;

    struct Place {
        dir: tempfile::TempDir,
    }

    const PATHS: [(&str, bool); 5] = [
        ("catalogue.db-wal", false),
        ("catalogue.db", true),
        ("appliance.key", true),
        ("tls/cert.pem", true),
        ("extra.toml", true),
    ];

    impl Place {
        /// An appliance with an old state, and a new one that is prepared.
        fn new() -> Self {
            let place = Self { dir: tempfile::tempdir().unwrap() };
            for (path, text) in Self::old() {
                place.write(&path, &text);
            }
            for (number, (path, is_new)) in PATHS.iter().enumerate() {
                if *is_new {
                    place.write(&format!("restore/new/{number}"), &format!("new {path}"));
                }
            }
            place
        }

        fn old() -> Tree {
            let of = |path: &str| (path.to_owned(), format!("old {path}"));
            ["catalogue.db-wal", "catalogue.db", "appliance.key", "tls/cert.pem", "other"]
                .map(of)
                .into()
        }

        fn new_state() -> Tree {
            let of = |path: &str| (path.to_owned(), format!("new {path}"));
            let new = PATHS.iter().filter(|(_, is_new)| *is_new).map(|(path, _)| of(path));
            new.chain([("other".into(), "old other".into())]).collect()
        }

        fn data(&self) -> &Path {
            self.dir.path()
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.data().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }

        fn steps(&self, left: Option<u32>) -> Steps {
            let steps = Steps::new(self.data());
            steps.left.set(left);
            steps
        }

        fn entries() -> Vec<Entry> {
            let entry =
                |(path, is_new): &(&str, bool)| Entry { path: (*path).to_owned(), is_new: *is_new };
            PATHS.iter().map(entry).collect()
        }

        /// All but what a restore has of its own.
        fn state(&self) -> Tree {
            let mut all = Tree::new();
            let mut dirs = vec![self.data().to_owned()];
            while let Some(dir) = dirs.pop() {
                for entry in fs::read_dir(dir).unwrap() {
                    let path = entry.unwrap().path();
                    let name = path.strip_prefix(self.data()).unwrap().to_str().unwrap();
                    if name == DIR || name == BEFORE {
                        continue;
                    }
                    match path.is_dir() {
                        true => dirs.push(path.clone()),
                        false => {
                            drop(all.insert(name.to_owned(), fs::read_to_string(&path).unwrap()))
                        }
                    }
                }
            }
            all
        }
    }

    #[test]
    fn cut_off_anywhere_it_is_the_old_state_or_the_new() {
        // Deciding, placing and keeping, cut off after each number of steps; then a start.
        let (mut old, mut new) = (0, 0);
        for left in 0.. {
            let place = Place::new();
            let steps = place.steps(Some(left));
            let done = steps
                .decide(Place::entries(), "by a test".into())
                .and_then(|()| steps.settle())
                .and_then(|note| Trial { steps, note: note.unwrap() }.keep());
            let over = done.is_ok();
            let decided = place.data().join(DIR).join(DECIDED).exists();
            if let Some(trial) = settle(place.data()).unwrap() {
                trial.keep().unwrap();
            }
            let state = place.state();
            assert!(!place.data().join(DIR).exists());
            match state == Place::old() {
                true => {
                    old += 1;
                    assert!(!decided && !over, "what was decided is done: {left}");
                }
                false => {
                    new += 1;
                    assert_eq!(state, Place::new_state(), "{left}");
                    let before = place.data().join(BEFORE).join("old/catalogue.db");
                    assert_eq!(fs::read_to_string(before).unwrap(), "old catalogue.db");
                }
            }
            if over {
                break;
            }
        }
        assert!(old >= 2 && new > 12, "{old} {new}");
    }

    #[test]
    fn the_copy_of_a_catalogue_before_an_update_is_not_put_beside_another_key() {
        use crate::updates::fixture::Place as Updated;
        let updated = Updated::new();
        let (data, releases) = (updated.data(), updated.releases(None));
        let release = updated.install("0.2.0");
        releases.decide(updated.trial(&release, None), "me", None).unwrap();
        updated.launch();
        releases.confirm(&release).unwrap();
        updated.migrate();
        let restored = || {
            let key = data.join(DIR).join("new/0");
            directory(key.parent().unwrap()).unwrap();
            fs::write(key, "another key").unwrap();
            let entries = vec![Entry { path: "appliance.key".into(), is_new: true }];
            decide(&data, entries, "by a test".into()).unwrap();
            settle(&data).unwrap().unwrap()
        };
        // One that does not start changes nothing of it.
        let before = releases.read().unwrap();
        restored().undo().unwrap();
        assert!(settle(&data).unwrap().is_none());
        assert_eq!(releases.read().unwrap(), before);
        restored().keep().unwrap();
        let refused = releases.go_back(8, true, "me").unwrap_err().to_string();
        assert!(refused.contains("no copy of the one that it had"), "{refused}");
        // What knows the catalogue as it is now may come.
        assert_eq!(releases.go_back(7, false, "me").unwrap(), "0.1.0");
    }

    #[test]
    fn undoing_cut_off_anywhere_is_ended() {
        for left in 0.. {
            let place = Place::new();
            place.steps(None).decide(Place::entries(), "by a test".into()).unwrap();
            let trial = settle(place.data()).unwrap().unwrap();
            assert_eq!(place.state(), Place::new_state());
            // What the trial left beside.
            place.write("catalogue.db-wal", "of the trial");
            let Trial { steps, note } = trial;
            steps.left.set(Some(left));
            assert_eq!(note.told, "by a test");
            let over = Trial { steps, note }.undo().is_ok();
            if !over {
                // It was not begun: the start that died before is tried again.
                settle(place.data()).unwrap().unwrap().undo().unwrap();
            }
            // The next start may be cut off too.
            for left in 0.. {
                let steps = place.steps(Some(left));
                if steps.settle().is_ok() {
                    break;
                }
            }
            assert!(settle(place.data()).unwrap().is_none());
            assert_eq!(place.state(), Place::old(), "{left}");
            assert!(!place.data().join(DIR).exists());
            if over {
                break;
            }
        }
    }

    #[test]
    fn a_trial_that_always_dies_is_undone() {
        let place = Place::new();
        place.steps(None).decide(Place::entries(), "by a test".into()).unwrap();
        for _ in 0..TRIES {
            assert!(settle(place.data()).unwrap().is_some());
            assert_eq!(place.state(), Place::new_state());
            // The catalogue's log of a start that died is not taken for an old one.
            place.write("catalogue.db-wal", "new log");
            assert!(settle_is_trial_of(&place));
        }
        assert!(settle(place.data()).unwrap().is_none());
        assert_eq!(place.state(), Place::old());
        assert!(settle(place.data()).unwrap().is_none());
    }

    /// The log is still there; the file goes so that the next round is as the first.
    fn settle_is_trial_of(place: &Place) -> bool {
        let log = place.data().join("catalogue.db-wal");
        let there = fs::read_to_string(&log).unwrap() == "new log";
        fs::remove_file(log).unwrap();
        there
    }

    #[test]
    fn what_was_not_decided_is_removed() {
        let place = Place::new();
        assert!(!is_decided(place.data()).unwrap());
        assert!(settle(place.data()).unwrap().is_none());
        assert!(!place.data().join(DIR).exists());
        assert_eq!(place.state(), Place::old());
    }
}
