//! What helps those who look for a fault: the logs and what the appliance knows of itself, in an
//! archive; and more of that for the vendor, which only the vendor can open.
//!
//! Secrets are not put in; those that got into a log nevertheless are taken out ([`Hidden`]). One
//! archive is made at a time, and no whole one is ever in memory.

mod pack;
mod papers;
mod redact;
mod seal;

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;
use strongroom_identity::Identity;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

use self::pack::{PIECES, Pack, Sender, header};
pub use self::redact::Hidden;
use self::redact::Redactor;
use self::seal::SealedKey;
use crate::tls::TlsFiles;
use crate::{Error, Health, Result, Services, Settings, files, logs};

/// Bytes of the file with the vendor's key, and of one with a secret.
const KEY: u64 = 64 << 10;

/// A text of an archive.
#[derive(Clone, Debug)]
pub struct Paper {
    /// Its name there.
    pub name: String,
    /// What it says.
    pub text: String,
}

impl Paper {
    /// A document.
    pub fn json(name: &str, value: &Value) -> Self {
        papers::document(name, value)
    }
}

/// How the appliance is set up.
#[derive(Clone, Debug, Default)]
pub struct SupportSetup {
    /// The configuration, without secrets.
    pub configuration: Value,
    /// Secrets that stand in it.
    pub hidden: Hidden,
    /// Files that hold secrets. They are read when an archive is made.
    pub secret_files: Vec<PathBuf>,
    /// The certificate's files, whose key is another such secret.
    pub tls: Option<TlsFiles>,
    /// The file with the vendor's public key.
    pub key: Option<PathBuf>,
}

/// The service. Cheap to clone; all clones take turns.
#[derive(Clone, Debug)]
pub struct Support {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    data: PathBuf,
    version: String,
    setup: SupportSetup,
    identity: Identity,
    settings: Settings,
    health: Health,
    turn: Arc<Semaphore>,
}

/// An archive, which is made as it is taken.
#[derive(Debug)]
pub struct Bundle {
    pieces: mpsc::Receiver<Vec<u8>>,
    /// Until it is known whether that was all.
    work: Option<JoinHandle<io::Result<()>>>,
}

impl Bundle {
    /// The next bytes; none: that was all. An error: the rest can't be had.
    pub async fn next(&mut self) -> Option<io::Result<Vec<u8>>> {
        if let Some(piece) = self.pieces.recv().await {
            return Some(Ok(piece));
        }
        match self.work.take()?.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            Err(error) => Some(Err(io::Error::other(error))),
        }
    }

    /// What a thread writes that may wait.
    fn made_by(work: impl FnOnce(Sender) -> io::Result<()> + Send + 'static) -> Self {
        let (pieces, receiver) = mpsc::channel(PIECES);
        let sender = Sender { pieces, runtime: Handle::current() };
        let work = tokio::task::spawn_blocking(move || {
            let told =
                |error: &io::Error| tracing::warn!(%error, "an archive for support broke off");
            work(sender).inspect_err(told)
        });
        Self { pieces: receiver, work: Some(work) }
    }
}

/// What goes into one archive.
struct Contents {
    logs: Vec<(String, File, u64)>,
    papers: mpsc::Receiver<Result<Paper>>,
    redactor: Redactor,
    _turn: OwnedSemaphorePermit,
}

impl Support {
    /// Of the appliance with this data directory, and of the release of this version.
    pub fn new(
        data: &Path,
        version: String,
        setup: SupportSetup,
        identity: Identity,
        settings: Settings,
        health: Health,
    ) -> Self {
        let (data, turn) = (data.to_owned(), Arc::new(Semaphore::new(1)));
        Self { inner: Arc::new(Inner { data, version, setup, identity, settings, health, turn }) }
    }

    /// The logs, and what the catalogue and the services tell: `logs.tar.gz`. Beside that go these
    /// papers, and nothing of `hidden`.
    ///
    /// # Errors
    /// [`Error::State`] while another archive is made; [`Error::File`].
    pub async fn logs(
        &self,
        services: &Services,
        more: Vec<Paper>,
        hidden: Hidden,
    ) -> Result<Bundle> {
        let contents = self.contents(services, more, hidden, false).await?;
        Ok(Bundle::made_by(move |out| contents.pack(out.buffered())?.flush()))
    }

    /// The same and more, that the holder of the vendor's key can open and nobody else:
    /// `debug-bundle.tar`. It is made before it is sent.
    ///
    /// # Errors
    /// As [`Support::logs`]; [`Error::State`] where there is no key.
    pub async fn debug(
        &self,
        services: &Services,
        more: Vec<Paper>,
        hidden: Hidden,
    ) -> Result<Bundle> {
        let Some(path) = self.inner.setup.key.clone() else {
            let text = "for whom? Name the file with the vendor's public key as `support_key` in \
                        the configuration";
            return Err(Error::State(text.into()));
        };
        let contents = self.contents(services, more, hidden, true).await?;
        let data = self.inner.data.clone();
        let made = tokio::task::spawn_blocking(move || -> Result<(Vec<u8>, File)> {
            let unreadable = |error| {
                let path = path.display();
                Error::State(format!("`support_key`: {path} can't be read: {error}"))
            };
            let pem = files::read(&path, KEY).map_err(unreadable)?;
            let key = SealedKey::make(&pem)?;
            let file = nameless(&data).map_err(Error::file(&data))?;
            let sealed = key.encrypt(file).and_then(|out| contents.pack(out)?.finish());
            Ok((key.sealed, sealed.map_err(Error::file(&data))?))
        });
        let (key, mut sealed) =
            made.await.map_err(|_| Error::Crypto("the bundle's maker failed"))??;
        Ok(Bundle::made_by(move |out| {
            let now = Timestamp::now().as_second().try_into().unwrap_or_default();
            let mut tar = tar::Builder::new(out.buffered());
            let mut first = header(key.len() as u64, now);
            tar.append_data(&mut first, "debug.key.enc", &key[..])?;
            let size = sealed.stream_position()?;
            sealed.rewind()?;
            let mut second = header(size, now);
            tar.append_data(&mut second, "debug.tar.gz.enc", sealed)?;
            tar.into_inner()?.flush()
        }))
    }

    async fn contents(
        &self,
        services: &Services,
        more: Vec<Paper>,
        hidden: Hidden,
        is_for_vendor: bool,
    ) -> Result<Contents> {
        let busy = |_| Error::State("an archive is being made already: try again later".into());
        let turn = Arc::clone(&self.inner.turn).try_acquire_owned().map_err(busy)?;
        let inner = Arc::clone(&self.inner);
        let read = tokio::task::spawn_blocking(move || {
            let mut hidden = hidden;
            hidden.extend(&inner.setup.hidden);
            let key = inner.setup.tls.as_ref().map(|files| files.paths().1);
            for path in inner.setup.secret_files.iter().chain(&key) {
                // One that isn't there hides nothing; one that can't be read might be in a log.
                match files::read(path, KEY) {
                    Ok(bytes) => hidden.file(&zeroize::Zeroizing::new(bytes)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(Error::file(path)(error)),
                }
            }
            let redactor = Redactor::new(&hidden);
            let redactor = redactor.ok_or(Error::Crypto("there are too many secrets to hide"))?;
            let mut fixed = vec![papers::version(&inner.version), papers::health(&inner.health)];
            if is_for_vendor {
                fixed.push(papers::process());
            }
            Ok((redactor, fixed, logs::files(&inner.data)))
        });
        let failed = |_| Error::Crypto("the bundle's maker failed");
        let (redactor, mut fixed, logs) = read.await.map_err(failed)??;
        fixed.push(papers::services(services));
        fixed.push(papers::document("configuration.json", &self.inner.setup.configuration));
        fixed.extend(more);
        let (sender, papers) = mpsc::channel(1);
        let support = self.clone();
        tokio::spawn(async move {
            if let Err(error) = support.tell(fixed, is_for_vendor, &sender).await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Contents { logs, papers, redactor, _turn: turn })
    }

    /// Hands all papers over, one at a time.
    async fn tell(
        &self,
        fixed: Vec<Paper>,
        is_for_vendor: bool,
        out: &mpsc::Sender<Result<Paper>>,
    ) -> Result<()> {
        // When nobody takes them any more, there is nobody to tell.
        let give = |paper: Paper| async { out.send(Ok(paper)).await.is_ok() };
        for paper in fixed {
            if !give(paper).await {
                return Ok(());
            }
        }
        let catalog = self.inner.identity.catalog();
        give(papers::settings(&self.inner.settings).await?).await;
        give(papers::events(catalog).await?).await;
        give(papers::jobs(catalog).await?).await;
        give(papers::audit(catalog).await?).await;
        if is_for_vendor {
            give(papers::catalogue(catalog).await?).await;
        }
        for job in papers::failed(catalog).await? {
            if !give(papers::job_log(catalog, job).await?).await {
                break;
            }
        }
        Ok(())
    }
}

impl Contents {
    /// Writes all of it, of a thread that may wait.
    fn pack<W: Write>(mut self, out: W) -> io::Result<W> {
        let mut pack = Pack::new(out, self.redactor);
        for (name, file, length) in &self.logs {
            pack.log(&format!("logs/{name}"), file, *length)?;
        }
        while let Some(paper) = self.papers.blocking_recv() {
            pack.paper(&paper.map_err(io::Error::other)?)?;
        }
        pack.finish()
    }
}

/// A file that is gone when it is closed, whatever happens to the process.
fn nameless(dir: &Path) -> io::Result<File> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = openat(CWD, dir, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Not every filesystem has those.
    let path = dir.join("debug-bundle.new");
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use strongroom_catalog::testing::Fresh;
    use strongroom_catalog::{Engine, events};
    use strongroom_identity::ApplianceKey;

    use super::*;
    use crate::LogFile;

    async fn support(dir: &Path) -> (Fresh, Support) {
        let fresh = Fresh::new(Engine::Sqlite).await;
        let key = ApplianceKey::from_bytes(&[7; 32]);
        let identity = Identity::open(fresh.open().await, key).await.unwrap();
        identity.first_run(None).await.unwrap();
        let settings = Settings::open(identity.clone()).await.unwrap();
        let setup = SupportSetup::default();
        (fresh, Support::new(dir, "9.8.7".into(), setup, identity, settings, Health::of(dir)))
    }

    async fn take(bundle: &mut Bundle) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(piece) = bundle.next().await {
            all.extend(piece?);
        }
        Ok(all)
    }

    async fn logs(support: &Support) -> Result<Bundle> {
        support.logs(&Services::default(), Vec::new(), Hidden::default()).await
    }

    #[tokio::test]
    async fn one_archive_is_made_at_a_time_and_who_goes_ends_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let (_fresh, support) = support(dir.path()).await;
        let mut log = LogFile::default();
        log.keep_in(dir.path()).unwrap();
        // More than the queue holds: it can't end before it is taken.
        let mut noise = vec![0; 1 << 20];
        aws_lc_rs::rand::fill(&mut noise).unwrap();
        let noise = data_encoding::HEXLOWER.encode(&noise);
        for line in noise.as_bytes().chunks(1000) {
            log.write_all(&[line, b"\n"].concat()).unwrap();
        }
        let first = logs(&support).await.unwrap();
        let second = logs(&support).await.unwrap_err();
        assert!(matches!(&second, Error::State(why) if why.contains("again")), "{second}");
        drop(first);
        // Its thread notices when it writes.
        let mut third = loop {
            match logs(&support).await {
                Ok(bundle) => break bundle,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        assert!(take(&mut third).await.unwrap().len() > 100_000);
    }

    #[tokio::test]
    async fn papers_are_bounded_and_the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (_fresh, support) = support(dir.path()).await;
        let catalog = support.inner.identity.catalog();
        let organisation_id = support.inner.identity.root().await.unwrap().id;
        let mut tx = catalog.begin().await.unwrap();
        for number in 0..1200 {
            let event = events::NewEvent {
                severity: events::Severity::Info,
                kind: "test",
                organisation_id,
                object: String::new(),
                job_id: None,
                message: format!("number {number}: {}", "x".repeat(4000)),
            };
            events::write(&mut tx, event).await.unwrap();
        }
        tx.commit().await.unwrap();
        let paper = papers::events(catalog).await.unwrap();
        assert!(paper.text.len() > 3 << 20 && paper.text.len() <= 4 << 20, "{}", paper.text.len());
        let last = paper.text.lines().last().unwrap();
        assert!(last.contains("number 1199:"));
        assert!(!paper.text.contains("number 100:"));
        assert!(paper.text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    }

    #[tokio::test]
    async fn what_breaks_off_is_not_taken_for_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (_fresh, support) = support(dir.path()).await;
        let mut bundle = logs(&support).await.unwrap();
        support.inner.identity.catalog().close().await;
        assert!(take(&mut bundle).await.is_err());
        let mut panics = Bundle::made_by(|mut out| {
            out.write_all(b"x")?;
            panic!("it is a test")
        });
        assert!(take(&mut panics).await.is_err());
        let none = support.debug(&Services::default(), Vec::new(), Hidden::default()).await;
        assert!(matches!(none, Err(Error::State(why)) if why.contains("support_key")));
    }

    #[test]
    fn a_nameless_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = nameless(dir.path()).unwrap();
        file.write_all(b"x").unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        file.rewind().unwrap();
        assert_eq!(io::read_to_string(file).unwrap(), "x");
    }
}
