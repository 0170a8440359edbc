//! What is done with updates.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use strongroom_catalog::{SCHEMA, jobs};
use strongroom_protect::{Asker, Job, State};

use super::releases::on_trial;
use super::{Flaw, UpdateRecord};
use crate::administration::{Administration, URGENT, blocking};
use crate::backup::Spool;
use crate::works::{self, PACKAGE, UpdateParameters};
use crate::{Error, Result, Values};

/// Where a package is.
#[derive(Debug)]
pub enum UpdateSource {
    /// Somebody sent it whole.
    Spool(Arc<Spool>),
    /// It was handed over piece by piece.
    Upload,
    /// Somebody forgot it, which the job tells.
    Missing,
}

/// How it is installed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstallUpdate {
    /// Also when it is not newer than what is there.
    pub allow_older: bool,
    /// Also when the catalogue can't be copied before, as with PostgreSQL.
    pub without_catalogue_copy: bool,
}

/// How far a job that updates is; it stands in its checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Progressed {
    pub(crate) percentage: u8,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// The release that is on trial, or is about to be.
    pub(crate) release: Option<String>,
}

/// How updates are.
#[derive(Clone, Debug)]
pub struct UpdateStatus {
    /// The version that runs.
    pub version: String,
    /// The version that can be gone back to.
    pub previous: Option<String>,
    /// Whether what runs is on trial.
    pub on_trial: bool,
    /// The job that was asked for last.
    pub job: Option<Job>,
    /// How far that is, in percent.
    pub percentage: Option<u8>,
    /// What went wrong, as Jidoteki Admin has it.
    pub code: Option<String>,
    /// As that has it, in words.
    pub message: Option<String>,
}

impl Administration {
    /// The version of what runs: that of its release, else the program's own.
    pub fn version(&self) -> String {
        self.parts().updates.version.to_string()
    }

    /// What is new in it.
    pub fn changelog(&self) -> String {
        let updates = &self.parts().updates;
        updates.changelog.clone().unwrap_or_else(|| crate::CHANGELOG.to_owned())
    }

    /// A place for a package on its way in.
    ///
    /// # Errors
    /// [`Error::State`] while there is another; [`Error::File`].
    pub async fn update_spool(&self) -> Result<Spool> {
        let turn = Arc::clone(&self.parts().spools).try_acquire_owned();
        let busy = |_| Error::State("another file is being sent: wait until it is there".into());
        let turn = turn.map_err(busy)?;
        let (place, dir) = (self.parts().backup.clone(), self.parts().updates.dir());
        blocking(move || Spool::named(&place, &dir, turn)).await
    }

    /// Takes a piece of a package, which begins anew at 0; how many bytes there are then.
    ///
    /// # Errors
    /// As [`Administration::upload_backup`].
    pub async fn upload_update(&self, offset: u64, piece: Vec<u8>) -> Result<u64> {
        let _turn = self.parts().updating.lock().await;
        let (place, dir) = (self.parts().backup.clone(), self.parts().updates.dir());
        blocking(move || place.append_to(&dir, &dir.join("upload"), offset, &piece)).await
    }

    /// Begins to install an update.
    ///
    /// # Errors
    /// [`Error::Busy`] while another job of the appliance is not over; [`Error::State`] while one is
    /// on trial; [`Error::NoPackage`] when nothing was handed over; those of the engine.
    pub async fn install_update(
        &self,
        asker: Asker,
        source: UpdateSource,
        how: InstallUpdate,
        values: &Values,
    ) -> Result<Job> {
        let _pieces = self.parts().updating.lock().await;
        let _turn = self.parts().turn.lock().await;
        if let Err(error) = self.free(works::UPDATE).await {
            if let Error::Busy { job, .. } = &error {
                *self.parts().turned_away.lock().await = Some(*job);
            }
            return Err(error);
        }
        self.not_updating().await?;
        self.not_restored().await?;
        self.free(works::APPLIANCE_BACKUP).await?;
        self.free(works::APPLIANCE_RESTART).await?;
        let (staged, upload) =
            (self.parts().staged.clone(), self.parts().updates.dir().join("upload"));
        let name = blocking(move || match source {
            UpdateSource::Missing => Ok(None),
            UpdateSource::Spool(spool) => {
                spool.hand_over(|path| staged.adopt(path, PACKAGE)).map(Some)
            }
            UpdateSource::Upload if !upload.exists() => Err(Error::NoPackage),
            UpdateSource::Upload => staged.adopt(&upload, PACKAGE).map(Some),
        });
        let parameters = UpdateParameters {
            staged: name.await?,
            allow_older: how.allow_older,
            without_catalogue_copy: how.without_catalogue_copy,
            start: values.update_start.as_secs(),
            trial: values.update_trial.as_secs(),
        };
        // Somebody waits for it, and a second try would find what the first found.
        let asker = Asker { priority: URGENT, attempts: 1, ..asker };
        let object = "the appliance".to_owned();
        let asked = self.protect().ask(asker, works::UPDATE, object, &parameters).await;
        if let (Err(_), Some(staged)) = (&asked, &parameters.staged) {
            self.parts().staged.remove(staged);
        }
        Ok(asked?)
    }

    /// Refuses what must not happen while an update is on trial.
    pub(crate) async fn not_updating(&self) -> Result<()> {
        let updates = self.parts().updates.clone();
        match blocking(move || updates.releases().read()).await?.trial {
            Some(_) => Err(on_trial()),
            None => Ok(()),
        }
    }

    /// How updates are.
    ///
    /// # Errors
    /// [`Error::File`]; those of the catalogue.
    pub async fn update_status(&self) -> Result<UpdateStatus> {
        let updates = self.parts().updates.clone();
        let state = blocking(move || updates.releases().read()).await?;
        let trial = state.trial.as_ref().map(|trial| &trial.previous);
        let previous = trial.or(state.previous.as_ref()).map(|previous| previous.version.clone());
        let catalog = self.protect().storage().catalog();
        let job = jobs::newest(catalog, works::UPDATE, self.protect().storage().node()).await?;
        let mut progressed = Progressed::default();
        if let Some(job) = &job {
            let kept = jobs::checkpoint_of(catalog, job.id).await?;
            let kept = kept.and_then(|kept| Progressed::deserialize(kept).ok());
            progressed = kept.unwrap_or_default();
            match job.state {
                State::Succeeded | State::Warnings => progressed.percentage = 100,
                State::Failed | State::Canceled | State::NotRun if progressed.code.is_none() => {
                    progressed.code = Some(Flaw::Install.code().into());
                    progressed.message = Some(Flaw::Install.message().into());
                }
                State::Queued | State::Running
                    if *self.parts().turned_away.lock().await == Some(job.id) =>
                {
                    progressed.code = Some("E1004".into());
                    progressed.message = Some("Update is already running".into());
                }
                _ => {}
            }
        }
        Ok(UpdateStatus {
            version: self.version(),
            previous,
            on_trial: state.trial.is_some(),
            percentage: job.as_ref().map(|_| progressed.percentage.max(10)),
            job,
            code: progressed.code,
            message: progressed.message,
        })
    }

    /// What was done, the latest first.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn update_history(&self) -> Result<Vec<UpdateRecord>> {
        let updates = self.parts().updates.clone();
        let state = blocking(move || updates.releases().read()).await?;
        Ok(state.history.into_iter().rev().collect())
    }

    /// Goes back to the version before: decided when this returns, and done by the restart that
    /// it asks for. `put_back`: with the catalogue of before the update,
    /// where that is needed.
    ///
    /// # Errors
    /// [`Error::State`]; [`Error::Busy`] while an update is installed; [`Error::File`].
    pub async fn roll_update_back(&self, put_back: bool, by: &str) -> Result<String> {
        let _turn = self.parts().turn.lock().await;
        let updates = self.parts().updates.clone();
        let on_trial = blocking(move || updates.releases().read()).await?.trial.is_some();
        if !on_trial {
            self.free(works::UPDATE).await?;
        }
        self.not_restored().await?;
        let (updates, by) = (self.parts().updates.clone(), by.to_owned());
        let version = blocking(move || updates.releases().go_back(SCHEMA, put_back, &by)).await?;
        self.restart_now();
        Ok(version)
    }
}
