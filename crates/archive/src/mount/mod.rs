//! Images as directories: a read-only FUSE filesystem over one image or a whole pool.
//!
//! # What is shown
//! One image ([`What::Image`]) is shown at the mount point itself, under the absolute paths that
//! were backed up; a block image or a stream is one regular file there. A pool ([`What::Pool`])
//! is shown as
//!
//! | path | what it is |
//! |---|---|
//! | `by-name/NAME/2026-11-21T01-02-03Z/` | an image, by the pool time it was made at |
//! | `by-name/NAME/latest` | a link to the newest of them |
//! | `by-id/ID` | a link to the image with those 32 digits |
//! | `by-time/2026-11-21/01-02-03-NAME` | the same, by date |
//!
//! Each image has one directory only, so that the kernel caches a file once whichever way it was
//! reached. An image made in the same second as another of its name has `-` and the first digits
//! of its id behind the time. In names, `/` and `%` are written `%2F` and `%25`.
//!
//! The list of images is that of the moment of mounting: later images need a new mount. Images
//! that are shown are held: in this process no collection removes what they refer to, and in other
//! processes none removes files while a reader has the pool open.
//!
//! # Attributes
//! Modes, numeric owners, times in nanoseconds, link counts of files, device numbers, extended
//! attributes, ACLs and capabilities are those of the source; the time of access is that of the
//! last change. Directories have a link count of 1, which means that it is not counted. Inode
//! numbers follow from the image and the path, so they are the same in every mount; names of one
//! file have one number. Device numbers beyond 12 bits major and 20 bits minor, which FUSE can't
//! carry, lose their high bits.
//!
//! # Who may read
//! By default only the user who mounts, and the kernel checks modes and ACLs
//! (`default_permissions`). The mount is `ro,nosuid,nodev`.
//!
//! # What it takes
//! `/dev/fuse`; for users other than root also `fusermount3` (Debian: package `fuse3`), and
//! `user_allow_other` in `/etc/fuse.conf` for [`Options::allow_other`].
//!
//! # Memory
//! Bounded, but for about a hundred bytes for each inode that the kernel has cached: the kernel
//! itself needs ten times that, and says when it forgets one.

mod attrs;
mod fs;
mod inodes;
mod runs;
mod views;

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use fuser::{Config, MountOption, Session, SessionACL, SessionUnmounter};

use crate::image::{Image, images};
use crate::store::{Hold, Source};
use crate::{Error, Result};
use fs::Tree;
use views::Views;

/// What to mount.
#[derive(Clone, Debug)]
pub enum What {
    /// One image.
    Image(Box<Image>),
    /// All images of the pool.
    Pool,
}

/// Hears, as one line of text, what could not be read; whoever asked for it got `EIO`.
pub type Report = Arc<dyn Fn(&str) + Send + Sync>;

/// How to mount.
#[derive(Clone)]
pub struct Options {
    /// Let other users in, too. Modes and ACLs are checked.
    pub allow_other: bool,
    /// Don't check modes and ACLs: the user who mounts may read all. Not with `allow_other`.
    pub ignore_permissions: bool,
    /// Hears what could not be read. Each thing is told once.
    pub report: Report,
}

impl Default for Options {
    /// For the user who mounts alone, with modes checked, reporting to nobody.
    fn default() -> Self {
        Self { allow_other: false, ignore_permissions: false, report: Arc::new(|_| {}) }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("allow_other", &self.allow_other)
            .field("ignore_permissions", &self.ignore_permissions)
            .finish_non_exhaustive()
    }
}

/// How an unmount went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// The filesystem is gone.
    Done,
    /// Some process uses it: it is no longer to be found, and goes when that process is done.
    Detached,
}

/// Unmounts from any thread, any number of times.
#[derive(Clone, Debug)]
pub struct Unmounter {
    mountpoint: PathBuf,
    session: Arc<Mutex<Option<SessionUnmounter>>>,
}

impl Unmounter {
    /// Unmounts; a filesystem in use is detached.
    ///
    /// # Errors
    /// [`Error::Local`] when it could be neither.
    pub fn unmount(&self) -> Result<Unmounted> {
        let Some(mut session) = lock(&self.session).take() else { return Ok(Unmounted::Done) };
        let Err(busy) = session.unmount() else { return Ok(Unmounted::Done) };
        let detach = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).arg(&self.mountpoint);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if detach("umount", &["-l", "--"]) || detach("fusermount3", &["-u", "-z", "--"]) {
            return Ok(Unmounted::Detached);
        }
        Err(Error::local(self.mountpoint.as_os_str().as_bytes(), busy))
    }
}

/// A mounted filesystem; unmounted when dropped.
#[derive(Debug)]
pub struct MountHandle {
    thread: Option<JoinHandle<io::Result<()>>>,
    unmounter: Unmounter,
}

impl MountHandle {
    /// For unmounting from another thread while [`MountHandle::run`] waits.
    pub fn unmounter(&self) -> Unmounter {
        self.unmounter.clone()
    }

    /// Waits until the filesystem is unmounted, by [`Unmounter::unmount`] or `umount`.
    ///
    /// # Errors
    /// [`Error::Local`] when the kernel's requests could no longer be read.
    pub fn run(mut self) -> Result<()> {
        self.join()
    }

    /// Unmounts; waits for the end unless some process still uses the filesystem.
    ///
    /// # Errors
    /// As [`Unmounter::unmount`] and [`MountHandle::run`].
    pub fn unmount(mut self) -> Result<Unmounted> {
        self.end()
    }

    fn end(&mut self) -> Result<Unmounted> {
        let how = self.unmounter.unmount()?;
        if how == Unmounted::Done {
            self.join()?;
        } else {
            // It ends by itself, with the last user.
            drop(self.thread.take());
        }
        Ok(how)
    }

    fn join(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let ended = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended.map_err(|e| Error::local(self.unmounter.mountpoint.as_os_str().as_bytes(), e))
    }
}

impl Drop for MountHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            // Nobody is left to hear of it.
            let _ = self.end();
        }
    }
}

/// Mounts; the filesystem is there when this returns.
///
/// # Errors
/// [`Error::Local`] when the system refuses; [`Error::Invalid`] for contradictory options; those
/// of the pool when the image is gone.
pub fn mount(
    source: Arc<dyn Source + Send + Sync>,
    what: What,
    mountpoint: &Path,
    options: Options,
) -> Result<MountHandle> {
    if options.allow_other && options.ignore_permissions {
        let why = "other users can't be let in without checking permissions: they could read all";
        return Err(Error::Invalid(why.into()));
    }
    let shown = || mountpoint.as_os_str().as_bytes();
    // Resolved now: the working directory may be another one when it is unmounted.
    let place = mountpoint.canonicalize().map_err(|e| Error::local(shown(), e))?;
    if !place.is_dir() {
        return Err(Error::local(shown(), io::Error::from(io::ErrorKind::NotADirectory)));
    }
    let (ready, answer) = channel();
    let name = "strongroom-mount".to_string();
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn({
            let place = place.clone();
            move || serve(&source, what, &place, &options, &ready)
        })
        .map_err(|e| Error::local(shown(), e))?;
    match answer.recv() {
        Ok(Ok(session)) => {
            let session = Arc::new(Mutex::new(Some(session)));
            let unmounter = Unmounter { mountpoint: place, session };
            Ok(MountHandle { thread: Some(thread), unmounter })
        }
        Ok(Err(error)) => {
            let _ = thread.join();
            Err(error)
        }
        Err(_) => match thread.join() {
            Ok(_) => Err(Error::Invalid("the mount ended before it began".into())),
            Err(panic) => std::panic::resume_unwind(panic),
        },
    }
}

/// Mounts, says so, and serves until the end.
fn serve(
    source: &Shared,
    what: What,
    place: &Path,
    options: &Options,
    ready: &Sender<Result<SessionUnmounter>>,
) -> io::Result<()> {
    // Held for as long as this function runs.
    let (session, _holds) = match begin(source, what, place, options) {
        Ok(begun) => begun,
        Err(error) => {
            let _ = ready.send(Err(error));
            return Ok(());
        }
    };
    let mut session = session;
    if ready.send(Ok(session.unmount_callable())).is_err() {
        return Ok(());
    }
    session.run()
}

type Held<'s> = Vec<Box<dyn Hold + 's>>;

fn begin<'s>(
    source: &'s Shared,
    what: What,
    place: &Path,
    options: &Options,
) -> Result<(Session<Tree>, Held<'s>)> {
    let mut holds = Vec::new();
    let views = match what {
        What::Image(image) => {
            holds.push(source.hold(image.id)?);
            // Better an error now than an empty directory later.
            image.top(&**source)?;
            Views::of_image(*image)
        }
        What::Pool => {
            let (all, damaged) = images(&**source)?;
            if damaged > 0 {
                (options.report)(&format!("{damaged} images can't be shown: damaged records"));
            }
            let (all, sealed): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|image| image.meta.closed().is_none());
            if !sealed.is_empty() {
                let count = sealed.len();
                (options.report)(&format!("{count} images are not shown: sealed by their clients"));
            }
            let mut held = Vec::with_capacity(all.len());
            for image in all {
                // One that was forgotten just now is not shown.
                if let Ok(hold) = source.hold(image.id) {
                    holds.push(hold);
                    held.push(image);
                }
            }
            Views::of_pool(held)
        }
    };
    // Half of the threads may be busy reading ahead.
    let ahead = source.threads().clamp(2, 6);
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("strongroom".into()),
        MountOption::Subtype("strongroom".into()),
        MountOption::RO,
        MountOption::NoSuid,
        MountOption::NoDev,
    ];
    if !options.ignore_permissions {
        config.mount_options.push(MountOption::DefaultPermissions);
    }
    config.acl = if options.allow_other { SessionACL::All } else { SessionACL::Owner };
    config.n_threads = Some(2 * ahead);
    config.clone_fd = true;
    let tree = Tree::new(Arc::clone(source), views, ahead, options);
    let session = Session::new(tree, place, &config).map_err(|e| {
        let why = format!(
            "can't mount here: {e} (needed: /dev/fuse and, for users other than root, fusermount3)"
        );
        Error::local(place.as_os_str().as_bytes(), io::Error::new(e.kind(), why))
    })?;
    Ok((session, holds))
}

/// The pool of a mount.
type Shared = Arc<dyn Source + Send + Sync>;

/// Locks, also after a thread panicked: nothing behind these locks is ever half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
