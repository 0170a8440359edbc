//! What others ask for, each as a job.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use strongroom_catalog::jobs::{Job, NewJob, Request};
use strongroom_catalog::pools;
use strongroom_storage::Storage;

use crate::ingest::IngestJobs;
use crate::works::{
    self, BackupParameters, CheckParameters, DiskParameters, ForgetParameters, GcParameters,
    ImportParameters, RekeyParameters, RepairParameters, RestoreParameters, ScrubParameters,
};
use crate::{Engine, Error, Options, Result, Work};

/// As who the appliance asks for what it does by itself.
pub(crate) const ITSELF: &str = "appliance";

/// Who asks, and how much it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asker {
    /// Whose the job is.
    pub organisation_id: i64,
    /// Who asks.
    pub user_id: Option<i64>,
    /// That user's name.
    pub user_name: String,
    /// Higher ones come first; 0 is usual.
    pub priority: i64,
    /// How often it is tried; with 0 as often as jobs usually are ([`crate::Limits`]).
    pub attempts: u32,
    /// It isn't begun before then.
    pub run_at: Option<Timestamp>,
    /// It isn't begun after then.
    pub run_until: Option<Timestamp>,
    /// From which host the work comes that is done for who asks, where that isn't this one.
    pub host: Option<String>,
    /// The request, if it may be sent again: that finds the same job.
    pub request: Option<Request>,
}

impl Asker {
    /// The appliance, for a pool of this organisation.
    pub(crate) fn itself(organisation_id: i64) -> Self {
        Self { organisation_id, user_name: ITSELF.into(), ..Self::default() }
    }
}

/// The service: jobs over pools and images. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Protect {
    pub(crate) engine: Engine,
    pub(crate) storage: Storage,
    pub(crate) attended: IngestJobs,
}

impl Protect {
    /// Begins to work, within a tokio runtime.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn start(storage: Storage, options: Options) -> Result<Self> {
        Self::start_with(storage, Vec::new(), options).await
    }

    /// As [`Protect::start`], with works that are not of this crate.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn start_with(
        storage: Storage,
        more: Vec<Arc<dyn Work>>,
        options: Options,
    ) -> Result<Self> {
        let mut works = works::all(&storage);
        works.extend(more);
        let engine = Engine::start(storage.catalog().clone(), works, options).await?;
        Ok(Self { engine, storage, attended: IngestJobs::default() })
    }

    /// The engine: cancel, watch, wait, drain.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The pools and images that it works on.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    async fn submit(
        &self,
        asker: Asker,
        kind: &str,
        pool: Option<i64>,
        object: String,
        parameters: &(impl Serialize + Sync),
    ) -> Result<Job> {
        let parameters = serde_json::to_value(parameters);
        let parameters = parameters.map_err(|e| Error::Invalid(e.to_string()))?;
        // What is on a machine's disks is for that machine to do.
        let node = self.storage.node();
        let host = match kind {
            works::BACKUP | works::RESTORE => node,
            _ => "",
        };
        let new = NewJob {
            kind: kind.to_owned(),
            priority: asker.priority,
            organisation_id: asker.organisation_id,
            user_id: asker.user_id,
            user_name: asker.user_name,
            pool_id: pool,
            node: node.into(),
            host: host.into(),
            object,
            parameters,
            attempts: asker.attempts,
            run_at: asker.run_at,
            run_until: asker.run_until,
            request: asker.request,
            ..NewJob::default()
        };
        self.engine.submit(new).await
    }

    /// Asks this machine for work that is not of this crate.
    ///
    /// # Errors
    /// Those of [`Engine::submit`].
    pub async fn ask(
        &self,
        asker: Asker,
        kind: &str,
        object: String,
        parameters: &(impl Serialize + Sync),
    ) -> Result<Job> {
        self.submit(asker, kind, None, object, parameters).await
    }

    /// Backs up paths of this machine to a pool.
    ///
    /// # Errors
    /// Those of [`Engine::submit`]; [`Error::Storage`] for a pool that isn't there.
    pub async fn backup(&self, asker: Asker, pool: i64, what: BackupParameters) -> Result<Job> {
        let pool = self.here(pool).await?;
        let first = what.paths.first().or(what.block.as_ref());
        let object = what.name.clone().or_else(|| first.cloned()).unwrap_or_default();
        let user = what
            .user
            .clone()
            .or_else(|| (!asker.user_name.is_empty()).then(|| asker.user_name.clone()));
        let what = BackupParameters { user, ..what };
        self.submit(asker, works::BACKUP, Some(pool.id), object, &what).await
    }

    /// Restores an image, or a part of it, to this machine.
    ///
    /// # Errors
    /// Those of [`Engine::submit`]; [`Error::Storage`] for an image that isn't there.
    pub async fn restore(&self, asker: Asker, what: RestoreParameters) -> Result<Job> {
        let image = self.storage.image(what.image).await?;
        self.here(image.pool_id).await?;
        self.submit(asker, works::RESTORE, Some(image.pool_id), image.name, &what).await
    }

    /// Frees what no image needs any more.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn gc(&self, asker: Asker, pool: i64, how: GcParameters) -> Result<Job> {
        self.on_pool(asker, works::GC, pool, &how).await
    }

    /// Reads the disks of a pool and mends them.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn scrub(&self, asker: Asker, pool: i64, how: ScrubParameters) -> Result<Job> {
        self.on_pool(asker, works::SCRUB, pool, &how).await
    }

    /// Checks that a pool's images are whole.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn check(&self, asker: Asker, pool: i64, how: CheckParameters) -> Result<Job> {
        self.on_pool(asker, works::CHECK, pool, &how).await
    }

    /// Forgets images of a pool by rules.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn forget(&self, asker: Asker, pool: i64, what: ForgetParameters) -> Result<Job> {
        self.on_pool(asker, works::FORGET, pool, &what).await
    }

    /// Replaces a disk of a pool.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn replace_disk(&self, asker: Asker, pool: i64, what: DiskParameters) -> Result<Job> {
        self.on_pool(asker, works::REPLACE_DISK, pool, &what).await
    }

    /// Mends what can be mended of a pool.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn repair(&self, asker: Asker, pool: i64, how: RepairParameters) -> Result<Job> {
        self.on_pool(asker, works::REPAIR, pool, &how).await
    }

    /// Gives a pool a new data key.
    ///
    /// # Errors
    /// As [`Protect::backup`].
    pub async fn rekey(&self, asker: Asker, pool: i64) -> Result<Job> {
        self.on_pool(asker, works::REKEY, pool, &RekeyParameters {}).await
    }

    /// Enters a pool that is there already.
    ///
    /// # Errors
    /// Those of [`Engine::submit`]; [`Error::Storage`] for a name that can't be, or is taken.
    pub async fn import(&self, asker: Asker, what: ImportParameters) -> Result<Job> {
        self.storage.may_be_named(&what.name).await?;
        let object = what.name.clone();
        self.submit(asker, works::IMPORT, None, object, &what).await
    }

    /// The pool, if its disks are on this machine.
    pub(crate) async fn here(&self, id: i64) -> Result<pools::Pool> {
        let pool = self.storage.pool(id).await?;
        if self.storage.is_here(&pool) {
            return Ok(pool);
        }
        let (pool, node) = (pool.name, pool.node);
        Err(strongroom_storage::Error::OtherNode { pool, node }.into())
    }

    async fn on_pool(
        &self,
        asker: Asker,
        kind: &str,
        pool: i64,
        parameters: &(impl Serialize + Sync),
    ) -> Result<Job> {
        let pool = self.here(pool).await?;
        self.submit(asker, kind, Some(pool.id), pool.name, parameters).await
    }
}
