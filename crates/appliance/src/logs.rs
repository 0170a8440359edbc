//! The log of the process, kept in its data directory: a file, and some older ones beside it, none
//! of them large. Whoever writes to it is never held up by what is wrong with the disk: what can't be
//! written is left out, and the log on standard error has it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The directory in the data directory.
const DIR: &str = "logs";
/// The newest file; the older ones have a number behind, the oldest the highest.
const NAME: &str = "strongroom.log";
/// Bytes of one file.
const SIZE: u64 = 4 << 20;
/// Files in all.
const COUNT: u32 = 8;
/// Bytes that are kept of what is written at once.
const EVENT: usize = 64 << 10;
/// What stands where the rest was.
const CUT: &[u8] = b" [cut]\n";

/// The log. Cheap to clone; all clones are the same. What is written before it has a place is not
/// kept.
#[derive(Clone, Debug, Default)]
pub struct LogFile {
    open: Arc<Mutex<Option<Open>>>,
}

#[derive(Debug)]
struct Open {
    dir: PathBuf,
    /// None: it can't be opened at the moment.
    file: Option<File>,
    size: u64,
    most: u64,
    count: u32,
}

impl LogFile {
    /// From now on it is kept in this data directory, which nobody else logs to.
    ///
    /// # Errors
    /// When it can't be.
    pub fn keep_in(&self, data: &Path) -> io::Result<()> {
        self.keep(data, SIZE, COUNT)
    }

    fn keep(&self, data: &Path, most: u64, count: u32) -> io::Result<()> {
        let dir = data.join(DIR);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut open = Open { dir, file: None, size: 0, most, count };
        open.begin()?;
        *self.lock() = Some(open);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for LogFile {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        if let Some(open) = self.lock().as_mut() {
            // The next one tries again.
            if open.event(event).is_err() {
                open.file = None;
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Open {
    /// The file of this age; 0 is the one that is written.
    fn path(&self, age: u32) -> PathBuf {
        path(&self.dir, age)
    }

    fn begin(&mut self) -> io::Result<&mut File> {
        let mut options = OpenOptions::new();
        let options = options.append(true).create(true).mode(0o600);
        let file = options.custom_flags(NOFOLLOW).open(self.path(0))?;
        self.size = file.metadata()?.len();
        Ok(self.file.insert(file))
    }

    fn event(&mut self, event: &[u8]) -> io::Result<()> {
        let (event, cut) = match event.split_at_checked(EVENT) {
            Some((kept, rest)) if !rest.is_empty() => (kept, CUT),
            _ => (event, &b""[..]),
        };
        let length = (event.len() + cut.len()) as u64;
        if self.file.is_some() && self.size > 0 && self.size + length > self.most {
            self.turn()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.begin()?,
        };
        file.write_all(event)?;
        file.write_all(cut)?;
        self.size += length;
        Ok(())
    }

    /// Each file becomes the next older one; the oldest goes.
    fn turn(&mut self) -> io::Result<()> {
        self.file = None;
        for age in (1..self.count).rev() {
            match fs::rename(self.path(age - 1), self.path(age)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.begin().map(drop)
    }
}

const NOFOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

fn path(dir: &Path, age: u32) -> PathBuf {
    match age {
        0 => dir.join(NAME),
        age => dir.join(format!("{NAME}.{age}")),
    }
}

/// The files of a data directory's log that there are, the oldest first: their names, and how many
/// bytes they have now.
pub(crate) fn files(data: &Path) -> Vec<(String, File, u64)> {
    let dir = data.join(DIR);
    let open = |age| {
        let path = path(&dir, age);
        let name = path.file_name()?.to_str()?.to_owned();
        let file = OpenOptions::new().read(true).custom_flags(NOFOLLOW).open(&path).ok()?;
        let metadata = file.metadata().ok().filter(fs::Metadata::is_file)?;
        // One that others wrote may have any size.
        Some((name, file, metadata.len().min(2 * SIZE)))
    };
    (0..COUNT).rev().filter_map(open).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn names(data: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(data.join(DIR))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                (name, fs::read_to_string(path).unwrap())
            })
            .collect();
        all.sort();
        all
    }

    #[test]
    fn it_never_grows_beyond_its_bounds_and_keeps_the_newest() {
        let data = tempfile::tempdir().unwrap();
        let mut log = LogFile::default();
        log.write_all(b"too early\n").unwrap();
        log.keep(data.path(), 20, 3).unwrap();
        for number in 0..10 {
            log.clone().write_all(format!("event {number}\n").as_bytes()).unwrap();
        }
        let kept = [
            ("strongroom.log", "event 8\nevent 9\n"),
            ("strongroom.log.1", "event 6\nevent 7\n"),
            ("strongroom.log.2", "event 4\nevent 5\n"),
        ];
        let kept: Vec<_> = kept.map(|(a, b)| (a.to_owned(), b.to_owned())).into();
        assert_eq!(names(data.path()), kept);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&data.path().join(DIR)), 0o700);
        assert_eq!(mode(&data.path().join(DIR).join(NAME)), 0o600);
        // The next process goes on with it.
        let mut next = LogFile::default();
        next.keep(data.path(), 20, 3).unwrap();
        next.write_all(b"abc\n").unwrap();
        assert_eq!(names(data.path())[0].1, "event 8\nevent 9\nabc\n");
        let found: Vec<_> = files(data.path()).into_iter().map(|(name, _, _)| name).collect();
        assert_eq!(found, ["strongroom.log.2", "strongroom.log.1", "strongroom.log"]);
    }

    #[test]
    fn an_endless_event_is_cut() {
        let data = tempfile::tempdir().unwrap();
        let mut log = LogFile::default();
        log.keep_in(data.path()).unwrap();
        log.write_all(&vec![b'x'; EVENT + 1]).unwrap();
        log.write_all(b"next\n").unwrap();
        let text = &names(data.path())[0].1;
        assert_eq!(text.len(), EVENT + CUT.len() + 5);
        assert!(text.ends_with("x [cut]\nnext\n"));
    }

    #[test]
    fn what_is_in_its_way_stops_nobody_and_ends() {
        let data = tempfile::tempdir().unwrap();
        let mut log = LogFile::default();
        log.keep(data.path(), 10, 2).unwrap();
        log.write_all(b"12345678\n").unwrap();
        // It can't turn.
        let old = data.path().join(DIR).join("strongroom.log.1");
        fs::create_dir_all(old.join("full")).unwrap();
        log.write_all(b"lost\n").unwrap();
        fs::remove_dir_all(&old).unwrap();
        log.write_all(b"found\n").unwrap();
        log.write_all(b"again\n").unwrap();
        assert!(names(data.path()).iter().any(|(_, text)| text.contains("again")));
    }
}
