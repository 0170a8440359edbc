//! What is done to the box: each operation once, for the native API and the dialects.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use strongroom_catalog::jobs;
use strongroom_protect::{Asker, Job, Line, Protect, State, Work};
use tokio::sync::{Mutex, Notify, Semaphore};

use crate::acme::Acme;
use crate::backup::{Belongings, Place};
use crate::network::{HostSetup, Network};
use crate::staged::Staged;
use crate::storage_options::StorageOptions;
use crate::tls::{CertificateFacts, NewCertificate, TlsFiles};
use crate::updates::{UpdateSetup, Updates};
use crate::works::{self, CertificateParameters, certificate_files};
use crate::{Error, Result};

/// The priority of what somebody waits for.
pub(crate) const URGENT: i64 = 100;

/// What works and operations have in common. Made before the engine of jobs, which takes the works.
#[derive(Clone, Debug)]
pub struct Parts {
    pub(crate) data: PathBuf,
    pub(crate) tls: TlsFiles,
    pub(crate) staged: Staged,
    pub(crate) backup: Place,
    pub(crate) network: Network,
    pub(crate) updates: Updates,
    belongings: Option<Belongings>,
    storage: Option<StorageOptions>,
    acme: Option<Acme>,
    /// Held while it is decided whether a job of the appliance, or a restore, may begin.
    pub(crate) turn: Arc<Mutex<()>>,
    /// Held while an archive is looked at.
    pub(crate) restoring: Arc<Mutex<()>>,
    /// One archive at a time is on its way in.
    pub(crate) spools: Arc<Semaphore>,
    /// Held while a piece of a package is taken, or all of it.
    pub(crate) updating: Arc<Mutex<()>>,
    /// The job that was in the way when another update was asked for.
    pub(crate) turned_away: Arc<Mutex<Option<i64>>>,
    /// Tells whoever runs the process that it is to start anew.
    pub(crate) restart: Arc<Notify>,
}

impl Parts {
    /// Of the data directory, and the certificate's files.
    pub fn new(data: &Path, tls: TlsFiles) -> Self {
        Self {
            data: data.to_owned(),
            tls,
            staged: Staged::of(data),
            backup: Place::of(data),
            network: Network::new(data, &HostSetup::default()),
            updates: Updates::of(data, UpdateSetup::default(), None, None),
            belongings: None,
            storage: None,
            acme: None,
            turn: Arc::default(),
            restoring: Arc::default(),
            spools: Arc::new(Semaphore::new(1)),
            updating: Arc::default(),
            turned_away: Arc::default(),
            restart: Arc::default(),
        }
    }

    /// With what is backed up of the appliance itself.
    #[must_use]
    pub fn with(self, belongings: Belongings) -> Self {
        Self { belongings: Some(belongings), ..self }
    }

    /// With the settings of the network, which may be brought to the machine.
    #[must_use]
    pub fn with_network(self, network: Network) -> Self {
        Self { network, ..self }
    }

    /// With what is configured of updates, the program that this process is, and the one that was
    /// installed, where this one is of a release.
    #[must_use]
    pub fn updated_by(
        self,
        setup: UpdateSetup,
        program: Option<&Path>,
        installed: Option<&Path>,
    ) -> Self {
        Self { updates: Updates::of(&self.data, setup, program, installed), ..self }
    }

    /// With what attaches storage.
    #[must_use]
    pub fn with_storage(self, storage: StorageOptions) -> Self {
        Self { storage: Some(storage), ..self }
    }

    /// With what asks authorities for certificates.
    #[must_use]
    pub fn with_acme(self, acme: Acme) -> Self {
        Self { acme: Some(acme), ..self }
    }

    /// What asks authorities for certificates.
    pub(crate) fn acme(&self) -> Result<&Acme> {
        let why = || Error::State("this process asks for no certificates".into());
        self.acme.as_ref().ok_or_else(why)
    }

    /// What attaches storage.
    pub(crate) fn storage(&self) -> Result<&StorageOptions> {
        self.storage.as_ref().ok_or_else(|| Error::State("this process attaches no storage".into()))
    }

    /// What is backed up.
    pub(crate) fn belongings(&self) -> Result<&Belongings> {
        self.belongings.as_ref().ok_or(Error::NotItself)
    }

    /// What the engine of jobs must know how to do.
    pub fn works(&self) -> Vec<Arc<dyn Work>> {
        works::all(self)
    }
}

/// How the last job of a kind went.
#[derive(Clone, Debug)]
pub struct LastJob {
    /// The job.
    pub job: Job,
    /// The last lines of its log, oldest first.
    pub lines: Vec<Line>,
}

/// The operations. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Administration {
    parts: Parts,
    protect: Protect,
}

impl Administration {
    /// Over an engine that has [`Parts::works`].
    pub fn new(parts: Parts, protect: Protect) -> Self {
        Self { parts, protect }
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.parts
    }

    pub(crate) fn protect(&self) -> &Protect {
        &self.protect
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.parts.data
    }

    /// What the certificate says that is shown.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Certificate`].
    pub async fn certificate(&self) -> Result<CertificateFacts> {
        let tls = self.parts.tls.clone();
        blocking(move || tls.facts()).await
    }

    /// Shows another certificate from now on, also to who connects next.
    ///
    /// # Errors
    /// [`Error::Certificate`] when it can't be taken; [`Error::File`].
    pub async fn replace_certificate(
        &self,
        new: NewCertificate,
    ) -> Result<(CertificateFacts, Vec<String>)> {
        let tls = self.parts.tls.clone();
        blocking(move || {
            let checked = new.check(Timestamp::now())?;
            tls.replace(&checked)?;
            Ok((checked.facts, checked.warnings))
        })
        .await
    }

    /// As [`Administration::replace_certificate`], by a job, which also looks whether it can be
    /// taken.
    ///
    /// # Errors
    /// [`Error::Busy`] while another such job is not over; [`Error::File`]; those of the engine.
    pub async fn replace_certificate_later(
        &self,
        asker: Asker,
        new: NewCertificate,
    ) -> Result<Job> {
        let _turn = self.parts.turn.lock().await;
        self.free(works::CERTIFICATE).await?;
        self.free(works::CERTIFICATE_ACME).await?;
        let staged = self.parts.staged.clone();
        let name = blocking(move || {
            staged.put(&[
                (certificate_files::PUBLIC, &new.certificate),
                (certificate_files::PRIVATE, &new.key),
                (certificate_files::CHAIN, &new.chain),
            ])
        })
        .await?;
        // Somebody waits for it, and a second try would find what the first found.
        let asker = Asker { priority: URGENT, attempts: 1, ..asker };
        let parameters = CertificateParameters { staged: name };
        let object = "the certificate".to_owned();
        let asked = self.protect.ask(asker, works::CERTIFICATE, object, &parameters).await;
        if asked.is_err() {
            self.parts.staged.remove(&parameters.staged);
        }
        Ok(asked?)
    }

    /// Removes staged files that no job will come for, such as those of a job that was canceled.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn sweep(&self) -> Result<()> {
        let found = self.parts.staged.settled();
        if found.is_empty() {
            return Ok(());
        }
        let (catalog, node) = (self.protect.storage().catalog(), self.protect.storage().node());
        let mut open = Vec::new();
        for kind in works::STAGED {
            open.extend(jobs::open_of(catalog, kind, node).await?);
        }
        let is_wanted = |name: &String| {
            open.iter().any(|job| job.parameters["staged"].as_str() == Some(name.as_str()))
        };
        for name in found.iter().filter(|name| !is_wanted(name)) {
            self.parts.staged.remove(name);
        }
        Ok(())
    }

    /// How the last job of this kind went on this machine, with so many lines of its log.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn last(&self, kind: &str, lines: u32) -> Result<Option<LastJob>> {
        let (catalog, node) = (self.protect.storage().catalog(), self.protect.storage().node());
        let Some(job) = jobs::newest(catalog, kind, node).await? else { return Ok(None) };
        let lines = jobs::last_lines(catalog, job.id, lines).await?;
        Ok(Some(LastJob { job, lines }))
    }

    /// Refuses a second one while one is not over.
    pub(crate) async fn free(&self, kind: &'static str) -> Result<()> {
        let (catalog, node) = (self.protect.storage().catalog(), self.protect.storage().node());
        match jobs::newest(catalog, kind, node).await? {
            Some(job) if matches!(job.state, State::Queued | State::Running) => {
                Err(Error::Busy { kind, job: job.id })
            }
            _ => Ok(()),
        }
    }
}

/// Does what waits for files where that holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
