//! Where storage is beside the data directory: a share or a disk that is attached by the next start of
//! the process, at a place of the data directory that a disk of a pool can be at.
//!
//! What is set is kept sealed in a file of its own: the machine's, and not the catalogue's, which other
//! machines may share. ADR 0020.

mod attach;
mod iscsi;
mod machine;
mod operations;
mod settings;
mod target;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use strongroom_identity::{ApplianceKey, Identity};
use zeroize::Zeroizing;

use self::attach::Attacher;
use self::machine::Machine;
pub use self::settings::{StorageKind, StorageSettings, StorageValue};
use crate::files;
use crate::{Error, Result};

/// The name of the file, in the data directory.
pub(crate) const NAME: &str = "storage.sealed";
/// Its bytes, at most.
pub(crate) const SIZE: u64 = 64 << 10;
/// What it is sealed for.
const PURPOSE: &str = "storage options";
/// What those are sealed for that a job will keep.
const LATER: &str = "storage options for a job";

/// How it is with what is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageState {
    /// Nothing is set, and nothing attached.
    Nothing,
    /// The next start attaches it, or detaches what there is.
    Waits,
    /// It is attached.
    Attached,
    /// It could not be attached.
    Failed,
}

impl StorageState {
    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Waits => "waits",
            Self::Attached => "attached",
            Self::Failed => "failed",
        }
    }
}

/// What of a kind can be done here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageType {
    /// Which.
    pub kind: StorageKind,
    /// Whether it may be set: the configuration can leave it out.
    pub offered: bool,
    /// Why this machine can't attach it; nothing: it can.
    pub lacks: Vec<String>,
}

/// What is set, and what came of it.
#[derive(Clone, Debug)]
pub struct StorageStatus {
    /// What is set.
    pub settings: Option<StorageSettings>,
    /// How it is with that.
    pub state: StorageState,
    /// Where something is attached now: a disk of a pool can be there.
    pub path: Option<PathBuf>,
    /// Why it could not be attached.
    pub error: Option<String>,
    /// All kinds.
    pub types: Vec<StorageType>,
    /// The kinds that a caller can choose from: those that the configuration names, else those that
    /// this machine can attach.
    pub options: Vec<StorageKind>,
}

/// What is kept: the settings, under a name that no others had.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    id: String,
    settings: StorageSettings,
}

/// What the start did.
#[derive(Clone, Debug, Default)]
struct Applied {
    /// Of which settings.
    id: Option<String>,
    path: Option<PathBuf>,
    error: Option<String>,
    /// Whether it is done.
    done: bool,
}

/// The service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StorageOptions {
    path: PathBuf,
    identity: Identity,
    offered: Option<Arc<[StorageKind]>>,
    attacher: Attacher,
    applied: Arc<Mutex<Applied>>,
}

impl StorageOptions {
    /// Of the appliance with this data directory. `offered`: the kinds that may be set; none: all.
    pub fn of(data: &Path, identity: Identity, offered: Option<Vec<StorageKind>>) -> Self {
        Self::on(data, identity, offered, Machine::here())
    }

    fn on(
        data: &Path,
        identity: Identity,
        offered: Option<Vec<StorageKind>>,
        machine: Machine,
    ) -> Self {
        Self {
            path: data.join(NAME),
            identity,
            offered: offered.map(Into::into),
            attacher: Attacher::new(data, machine),
            applied: Arc::default(),
        }
    }

    fn kept(&self) -> Result<Option<Kept>> {
        let sealed = match files::read(&self.path, SIZE) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.map_err(Error::file(&self.path))?,
        };
        open(self.identity.key(), &sealed).map(Some)
    }

    /// Attaches what is set, and detaches what isn't any more. To be called by a start of the process,
    /// before a pool is opened; it waits for tools. What can't be done is told by
    /// [`StorageOptions::status`], and stops nobody.
    pub fn apply(&self) {
        let mut applied = Applied::default();
        let done = self.kept().map_err(|error| error.to_string()).and_then(|kept| {
            applied.id = kept.as_ref().map(|kept| kept.id.clone());
            self.applied().id.clone_from(&applied.id);
            // The configuration may leave out since what it offered then.
            let wanted = kept.as_ref().map(|kept| {
                self.offers(kept.settings.kind())?;
                kept.settings.target()
            });
            let wanted = wanted.transpose();
            // What means nothing takes the place of what was there, too.
            let (wanted, wrong) = match wanted {
                Ok(wanted) => (wanted, None),
                Err(error) => (None, Some(error.to_string())),
            };
            let id = applied.id.as_deref();
            let path = self.attacher.become_such(id.zip(wanted.as_ref()))?;
            wrong.map_or(Ok(path), Err)
        });
        match done {
            Ok(Some(path)) => {
                tracing::info!("storage is attached at {}", path.display());
                applied.path = Some(path);
            }
            Ok(None) => {}
            Err(error) => {
                // As long as it is the same, once.
                if self.applied().error.as_ref() != Some(&error) {
                    tracing::error!("storage is not attached: {error}");
                }
                applied.error = Some(error);
            }
        }
        applied.done = true;
        *self.applied() = applied;
    }

    /// Attaches what the start could not, if nothing is in the way: what is set is still that, and nothing
    /// is mounted, which might be in use. Whether it tried. It waits for tools.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Storage`] when what is set, or what is mounted, can't be read.
    pub(crate) fn apply_again(&self) -> Result<bool> {
        let kept = self.kept()?;
        {
            let mut applied = self.applied();
            let is_same = applied.id == kept.map(|kept| kept.id);
            if !applied.done || applied.error.is_none() || !is_same {
                return Ok(false);
            }
            if self.attacher.is_any_mounted().map_err(Error::Storage)? {
                return Ok(false);
            }
            // Nobody else begins.
            applied.done = false;
        }
        self.apply();
        Ok(true)
    }

    /// As [`StorageOptions::apply`], for so long at most, or until it is to stop. What is not done by then
    /// goes on beside, and is told as failed until it is.
    pub async fn apply_within(&self, patience: Duration, stop: impl Future<Output = ()>) {
        let (done, ended) = tokio::sync::oneshot::channel();
        let options = self.clone();
        // Not one of those that the end of the process waits for.
        std::thread::spawn(move || {
            options.apply();
            let _ = done.send(());
        });
        tokio::select! {
            _ = ended => return,
            () = stop => {}
            () = tokio::time::sleep(patience) => {}
        }
        let mut applied = self.applied();
        if !applied.done {
            let why = "it is not attached yet: what it waits for does not answer";
            tracing::error!("storage: {why}");
            applied.error = Some(why.into());
        }
    }

    /// Where something is mounted when it is attached.
    pub fn mount_points(&self) -> Vec<PathBuf> {
        let mounted = StorageKind::ALL.into_iter().filter(|kind| *kind != StorageKind::Local);
        mounted.map(|kind| self.attacher.place(kind)).collect()
    }

    fn applied(&self) -> std::sync::MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the configuration leaves this kind in.
    ///
    /// # Errors
    /// [`Error::Storage`] when it doesn't.
    pub fn offers(&self, kind: StorageKind) -> Result<()> {
        match &self.offered {
            Some(offered) if !offered.contains(&kind) => {
                let known: Vec<_> = offered.iter().map(|kind| kind.word()).collect();
                let (word, known) = (kind.word(), known.join(", "));
                let why = format!(
                    "type: `{word}` is not among those that the configuration offers \
                     (`storage_options`): {known}"
                );
                Err(Error::Storage(why))
            }
            _ => Ok(()),
        }
    }

    /// The kinds that the configuration offers.
    pub fn offered(&self) -> Vec<StorageKind> {
        match &self.offered {
            Some(offered) => offered.to_vec(),
            None => StorageKind::ALL.to_vec(),
        }
    }

    /// What is set, and what came of it. It waits for files.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn status(&self) -> Result<StorageStatus> {
        let (kept, unreadable) = match self.kept() {
            Ok(kept) => (kept, None),
            Err(error @ Error::File { .. }) => return Err(error),
            Err(error) => (None, Some(error.to_string())),
        };
        let Applied { id, path, error, done: _ } = self.applied().clone();
        let (state, error) = match &kept {
            _ if unreadable.is_some() => (StorageState::Failed, unreadable),
            kept if kept.as_ref().map(|kept| &kept.id) != id.as_ref() => {
                (StorageState::Waits, None)
            }
            _ if error.is_some() => (StorageState::Failed, error),
            Some(_) => (StorageState::Attached, None),
            None => (StorageState::Nothing, None),
        };
        let types = StorageKind::ALL.map(|kind| StorageType {
            kind,
            offered: self.offers(kind).is_ok(),
            lacks: self.lacks(kind),
        });
        let can = types.iter().filter(|one| one.lacks.is_empty()).map(|one| one.kind);
        let options = match &self.offered {
            Some(offered) => offered.to_vec(),
            None => can.collect(),
        };
        let settings = kept.map(|kept| kept.settings);
        Ok(StorageStatus { settings, state, path, error, types: types.into(), options })
    }

    /// Keeps these settings for the next start; what they mean is not looked at.
    ///
    /// # Errors
    /// [`Error::Storage`] for a kind that is not offered; [`Error::File`].
    pub(crate) fn keep(&self, settings: StorageSettings) -> Result<()> {
        self.offers(settings.kind())?;
        let mut id = [0u8; 16];
        getrandom::fill(&mut id).map_err(strongroom_identity::Error::Random)?;
        let kept = Kept { id: data_encoding::HEXLOWER.encode(&id), settings };
        let sealed = self.identity.key().seal(PURPOSE, &text_of(&kept)?)?;
        files::replace(&self.path, &sealed).map_err(Error::file(&self.path))
    }

    /// Seals settings that a job will keep.
    pub(crate) fn seal(&self, settings: &StorageSettings) -> Result<Vec<u8>> {
        Ok(self.identity.key().seal(LATER, &text_of(settings)?)?)
    }

    /// Opens what [`StorageOptions::seal`] has sealed.
    pub(crate) fn unseal(&self, sealed: &[u8]) -> Result<StorageSettings> {
        let text = self.identity.key().unseal(LATER, sealed).map_err(|_| {
            let why = "they can't be opened with the appliance's key: send them again";
            Error::Storage(why.into())
        })?;
        let wrong = |error| Error::Storage(format!("they are not understood: {error}"));
        serde_json::from_slice(&text).map_err(wrong)
    }

    /// Forgets the settings; the next start detaches what they attached. Whether there were any.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn forget(&self) -> Result<bool> {
        match std::fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::file(&self.path)(error)),
        }
    }

    /// Why this machine can't attach that.
    pub(crate) fn lacks(&self, kind: StorageKind) -> Vec<String> {
        self.attacher.machine().why_not(kind)
    }
}

fn text_of(told: &impl Serialize) -> Result<Zeroizing<Vec<u8>>> {
    let text = serde_json::to_vec(told);
    let wrong = |error| Error::Storage(format!("they can't be written: {error}"));
    text.map(Zeroizing::new).map_err(wrong)
}

fn open(key: &ApplianceKey, sealed: &[u8]) -> Result<Kept> {
    let text = key.unseal(PURPOSE, sealed).map_err(|_| {
        Error::Storage("what is set can't be opened with the appliance's key: set it again".into())
    })?;
    let wrong = |error| Error::Storage(format!("what is set is not understood: {error}"));
    serde_json::from_slice(&text).map_err(wrong)
}

/// Whether that is such a file, sealed with this key.
pub(crate) fn check(key: &ApplianceKey, sealed: &[u8]) -> Result<()> {
    open(key, sealed).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use strongroom_catalog::Engine;
    use strongroom_catalog::testing::Fresh;

    use super::*;

    /// A machine that can attach a share, and whose tools are scripts.
    struct Lab {
        dir: tempfile::TempDir,
        identity: Identity,
        machine: Machine,
        _catalogue: Fresh,
    }

    impl Lab {
        async fn new() -> Self {
            let fresh = Fresh::new(Engine::Sqlite).await;
            let key = ApplianceKey::from_bytes(&[7; 32]);
            let identity = Identity::open(fresh.open().await, key).await.unwrap();
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in [
                ("data/kept", ""),
                ("proc/filesystems", "nodev\tnfs4\n"),
                ("proc/self/status", "Uid:\t0\t0\t0\t0\nCapEff:\tffffffffffffffff\n"),
            ] {
                let path = dir.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            let tools = [&dir.path().join("bin"), Path::new("/usr/bin"), Path::new("/bin")];
            let machine = Machine::at(dir.path(), &tools);
            Self { dir, identity, machine, _catalogue: fresh }
        }

        /// A tool, which tells that it was called.
        fn tool(&self, name: &str, script: &str) {
            let (path, said) = (self.dir.path().join("bin").join(name), self.said());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let text = format!("#!/bin/sh\necho {name} >>'{}'\n{script}\n", said.display());
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        fn said(&self) -> PathBuf {
            self.dir.path().join("said")
        }

        /// How often its tools were called.
        fn calls(&self) -> usize {
            fs::read_to_string(self.said()).unwrap_or_default().lines().count()
        }

        fn options(&self, offered: Option<Vec<StorageKind>>) -> StorageOptions {
            let data = self.dir.path().join("data");
            StorageOptions::on(&data, self.identity.clone(), offered, self.machine.clone())
        }
    }

    fn share(path: &str) -> StorageSettings {
        let value = |text: &str| StorageValue::Text(text.to_owned());
        let values = [
            ("mount_options", value("sync")),
            ("ip", value("192.168.1.100")),
            ("share", value(path)),
        ];
        StorageSettings::new(StorageKind::Nfs, values).unwrap()
    }

    #[tokio::test]
    async fn what_does_not_answer_or_is_not_offered_any_more_is_told_and_holds_nobody() {
        let lab = Lab::new().await;
        for (name, script) in [("mount.nfs", "exec /bin/sleep 20"), ("test", ""), ("umount", "")] {
            lab.tool(name, script);
        }
        let attached = lab.options(None);
        attached.keep(share("/nfs/storage")).unwrap();
        // Not in the time that it has, and not when it is to stop.
        attached.apply_within(Duration::from_millis(50), std::future::pending()).await;
        let status = attached.status().unwrap();
        assert_eq!(status.state, StorageState::Failed);
        assert!(status.error.unwrap().contains("not attached yet"));
        assert!(!attached.apply_again().unwrap(), "the first is at it still");
        lab.options(None).apply_within(Duration::from_secs(3600), std::future::ready(())).await;
        let others = lab.options(Some(vec![StorageKind::Local]));
        others.apply();
        let status = others.status().unwrap();
        assert!(status.error.unwrap().contains("storage_options"));
        assert_eq!(status.state, StorageState::Failed);
    }

    /// What it mounts is mounted: the test must run as root.
    #[tokio::test]
    async fn what_failed_is_tried_again_while_nothing_is_mounted() {
        let lab = Lab::new().await;
        lab.tool("mount.nfs", "echo 'Connection refused' >&2; exit 32");
        let options = lab.options(None);
        assert!(!options.apply_again().unwrap(), "no start has tried");
        options.keep(share("/nfs/storage")).unwrap();
        options.apply();
        let failed = || {
            let status = options.status().unwrap();
            assert!(status.error.unwrap().contains("Connection refused"));
            assert_eq!(status.state, StorageState::Failed);
        };
        failed();
        assert!(options.apply_again().unwrap());
        failed();
        assert_eq!(lab.calls(), 2);
        // What somebody has mounted there may be in use.
        let place = options.attacher.place(StorageKind::Nfs);
        fs::create_dir_all(&place).unwrap();
        let run = |words: &[&str]| {
            let done = std::process::Command::new(words[0]).args(&words[1..]).arg(&place).status();
            assert!(done.unwrap().success());
        };
        let tmpfs = ["mount", "-t", "tmpfs", "-o", "size=1m", "none"];
        run(&tmpfs);
        let tried = options.apply_again();
        run(&["umount"]);
        assert!(!tried.unwrap());
        // Other settings wait for the next start.
        let kept = fs::read(&options.path).unwrap();
        options.keep(share("/nfs/other")).unwrap();
        assert!(!options.apply_again().unwrap());
        assert_eq!(options.status().unwrap().state, StorageState::Waits);
        fs::write(&options.path, kept).unwrap();
        assert_eq!(lab.calls(), 2);
        lab.tool("mount.nfs", "exec /bin/mount -t tmpfs -o size=1m none \"$2\"");
        let tried = options.apply_again();
        let status = options.status().unwrap();
        let again = options.apply_again();
        run(&["umount"]);
        assert!(tried.unwrap() && !again.unwrap(), "it is attached");
        assert_eq!((status.state, status.path), (StorageState::Attached, Some(place.clone())));
    }

    #[tokio::test]
    async fn what_waits_for_a_job_can_be_read_by_nobody_else() {
        let lab = Lab::new().await;
        let options = lab.options(None);
        let sealed = options.seal(&share("/nfs/storage")).unwrap();
        assert!(!sealed.windows(3).any(|window| window == b"nfs"));
        assert_eq!(options.unseal(&sealed).unwrap(), share("/nfs/storage"));
        // Nor is it taken for what is set.
        assert!(check(options.identity.key(), &sealed).is_err());
        let error = options.unseal(b"{\"type\":\"local\"}").unwrap_err();
        assert!(error.to_string().contains("send them again"), "{error}");
    }
}
