//! What is done with backups of the appliance.

use std::fs::File;
use std::sync::Arc;

use strongroom_catalog::jobs;
use strongroom_identity::Secret;
use strongroom_protect::works::BackupParameters;
use strongroom_protect::{Asker, Job, State};

use super::archive::Manifest;
use super::{ArchiveKey, BackupFile, Place, Spool, failed, restore, settle};
use crate::administration::{Administration, URGENT, blocking};
use crate::files::sum;
use crate::works::{self, BackupOfAppliance, RestartParameters};
use crate::{Error, Result};

/// Bytes of what an archive is sealed under.
const SHORTEST: usize = 8;
const LONGEST: usize = 1024;
/// The name of the images of backups in a pool.
pub(super) const SERIES: &str = "appliance";

/// How the backup is.
#[derive(Clone, Debug)]
pub struct BackupStatus {
    /// The last one that was asked for, unless it was over and then stopped.
    pub job: Option<Job>,
    /// The one that there is.
    pub file: Option<BackupFile>,
}

/// What stopping a backup did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// One that was not over is.
    Canceled,
    /// The one that there was is removed.
    Deleted,
    /// There was none.
    Nothing,
}

/// A backup that is in force from the next start on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it says of itself.
    pub manifest: Manifest,
}

impl Administration {
    fn place(&self) -> Place {
        self.parts().backup.clone()
    }

    /// Begins a backup that is sealed under a secret.
    ///
    /// # Errors
    /// [`Error::Passphrase`]; [`Error::Busy`] while one is not over; [`Error::Restoring`]; those of
    /// the engine.
    pub async fn start_backup(&self, asker: Asker, secret: &Secret) -> Result<Job> {
        let _turn = self.parts().turn.lock().await;
        self.not_restored().await?;
        self.free(works::APPLIANCE_BACKUP).await?;
        self.free(works::APPLIANCE_RESTART).await?;
        let staged = self.stage(secret).await?;
        let parameters = BackupOfAppliance { staged };
        let object = "the appliance".to_owned();
        let asked = self.protect().ask(asker, works::APPLIANCE_BACKUP, object, &parameters).await;
        if asked.is_err() {
            self.parts().staged.remove(&parameters.staged);
        }
        Ok(asked?)
    }

    /// Refuses what the restored catalogue would not know of.
    pub(crate) async fn not_restored(&self) -> Result<()> {
        let data = self.parts().data.clone();
        match blocking(move || settle::is_decided(&data)).await? {
            true => Err(Error::Restoring),
            false => Ok(()),
        }
    }

    /// Makes a key of a secret, for a job.
    async fn stage(&self, secret: &Secret) -> Result<String> {
        let (least, most) = (SHORTEST as u64, LONGEST as u64);
        if !(SHORTEST..=LONGEST).contains(&secret.expose().len()) {
            return Err(Error::Passphrase { least, most });
        }
        let (staged, secret) = (self.parts().staged.clone(), secret.clone());
        blocking(move || {
            let key = ArchiveKey::new(&secret)?;
            staged.put(&[(works::BACKUP_KEY, &key.bytes())])
        })
        .await
    }

    /// Stops the backup that is being made, or removes the one that there is.
    ///
    /// # Errors
    /// [`Error::File`]; those of the engine.
    pub async fn stop_backup(&self) -> Result<Stopped> {
        let _turn = self.parts().turn.lock().await;
        let job = self.newest(works::APPLIANCE_BACKUP).await?;
        if let Some(job) = job.as_ref().filter(|job| !job.state.is_over()) {
            self.protect().engine().cancel(job.id).await?;
            return Ok(Stopped::Canceled);
        }
        let place = self.place();
        blocking(move || {
            if let Some(job) = &job {
                place.forget(job)?;
            }
            Ok(match place.delete()? {
                true => {
                    place.tell_deleted();
                    Stopped::Deleted
                }
                false => Stopped::Nothing,
            })
        })
        .await
    }

    /// How the backup is.
    ///
    /// # Errors
    /// [`Error::File`]; those of the catalogue.
    pub async fn backup_status(&self) -> Result<BackupStatus> {
        let job = self.newest(works::APPLIANCE_BACKUP).await?;
        let place = self.place();
        blocking(move || {
            let job = job.filter(|job| !place.is_forgotten(job));
            Ok(BackupStatus { job, file: place.found()? })
        })
        .await
    }

    /// The backup that there is, to be sent.
    ///
    /// # Errors
    /// [`Error::NoBackup`]; [`Error::File`].
    pub async fn open_backup(&self) -> Result<(File, BackupFile)> {
        let place = self.place();
        blocking(move || place.open()?.ok_or(Error::NoBackup)).await
    }

    /// The log of backups and restores.
    ///
    /// # Errors
    /// [`Error::NoBackup`] when there was none yet; [`Error::File`].
    pub async fn backup_log(&self) -> Result<String> {
        let place = self.place();
        blocking(move || place.read_log()?.ok_or(Error::NoBackup)).await
    }

    /// Stores the backup that there is as an image of a pool, `appliance`.
    ///
    /// # Errors
    /// [`Error::NoBackup`]; those of the engine.
    pub async fn store_backup(&self, asker: Asker, pool: i64) -> Result<Job> {
        let place = self.place();
        let path = blocking(move || {
            place.found()?.ok_or(Error::NoBackup)?;
            let path = place.file();
            path.to_str().map(str::to_owned).ok_or(Error::NoBackup)
        });
        let what = BackupParameters {
            paths: vec![path.await?],
            name: Some(SERIES.into()),
            ..BackupParameters::default()
        };
        Ok(self.protect().backup(asker, pool, what).await?)
    }

    /// A place for an archive on its way in.
    ///
    /// # Errors
    /// [`Error::Restoring`] while there is another; [`Error::File`].
    pub async fn spool(&self) -> Result<Spool> {
        let turn = Arc::clone(&self.parts().spools).try_acquire_owned();
        let turn = turn.map_err(|_| Error::Restoring)?;
        let place = self.place();
        blocking(move || Spool::new(&place, turn)).await
    }

    /// Takes a piece of an archive, which begins anew at 0; how many bytes there are then.
    ///
    /// # Errors
    /// [`Error::Offset`] when it does not follow; [`Error::TooLarge`] when there is too much;
    /// [`Error::Room`]; [`Error::File`].
    pub async fn upload_backup(&self, offset: u64, piece: Vec<u8>) -> Result<u64> {
        let _turn = self.parts().restoring.lock().await;
        let place = self.place();
        blocking(move || place.append_upload(offset, &piece)).await
    }

    /// The SHA-256 of what was handed over by [`Administration::upload_backup`].
    ///
    /// # Errors
    /// [`Error::NoBackup`] when there is nothing; [`Error::Restoring`]; [`Error::File`].
    pub async fn uploaded_backup(&self) -> Result<String> {
        let Ok(_turn) = self.parts().restoring.try_lock() else { return Err(Error::Restoring) };
        let (_, _, sha256) = self.uploaded().await?.ok_or(Error::NoBackup)?;
        Ok(sha256)
    }

    async fn uploaded(&self) -> Result<Option<(File, u64, String)>> {
        let place = self.place();
        blocking(move || {
            let Some((archive, length)) = place.take_upload()? else { return Ok(None) };
            let path = place.upload();
            let (_, sha256) = sum(&path).map_err(failed(&path))?;
            Ok(Some((archive, length, sha256)))
        })
        .await
    }

    /// Restores what was handed over by [`Administration::upload_backup`]; if somebody approved of it,
    /// it must be the archive of that SHA-256 still. The trail names `by`.
    ///
    /// # Errors
    /// As [`Administration::restore_backup`]; [`Error::NoBackup`] when there is nothing.
    pub async fn restore_upload(
        &self,
        secret: &Secret,
        approved: Option<&str>,
        by: &str,
    ) -> Result<Restored> {
        let Ok(_turn) = self.parts().restoring.try_lock() else { return Err(Error::Restoring) };
        let place = self.place();
        let (archive, length) = match approved {
            None => blocking(move || place.take_upload()).await?.ok_or(Error::NoBackup)?,
            Some(approved) => {
                let (archive, length, sha256) = self.uploaded().await?.ok_or(Error::NoBackup)?;
                if sha256 != approved {
                    let why = "another one was sent since that was approved: send it again";
                    return Err(Error::Archive(why.into()));
                }
                (archive, length)
            }
        };
        let restored = self.restore(archive, length, secret, by).await?;
        self.place().end_upload();
        self.restart_now();
        Ok(restored)
    }

    /// Looks at an archive, and puts what it holds in the place of what is there: durably decided when
    /// this returns, and done by the restart that it asks for.
    ///
    /// # Errors
    /// [`Error::Archive`] when it can't be restored; [`Error::Busy`] while a backup is made;
    /// [`Error::Restoring`]; [`Error::Room`]; [`Error::File`].
    pub async fn restore_backup(
        &self,
        spool: &Spool,
        secret: &Secret,
        by: &str,
    ) -> Result<Restored> {
        let Ok(_turn) = self.parts().restoring.try_lock() else { return Err(Error::Restoring) };
        let restored = self.restore(spool.file()?, spool.len(), secret, by).await?;
        self.restart_now();
        Ok(restored)
    }

    async fn restore(
        &self,
        archive: File,
        length: u64,
        secret: &Secret,
        by: &str,
    ) -> Result<Restored> {
        let _turn = self.parts().turn.lock().await;
        self.free(works::APPLIANCE_BACKUP).await?;
        self.free(works::APPLIANCE_RESTART).await?;
        self.free(works::UPDATE).await?;
        self.not_updating().await?;
        let place = self.place();
        place.tell("Restoring backup");
        match restore::restore(self.parts(), archive, length, secret, by).await {
            Ok(manifest) => {
                place.tell("Backup checked: restarting with it");
                Ok(Restored { manifest })
            }
            Err(error) => {
                place.tell(&format!("Restore failed: {error}"));
                Err(error)
            }
        }
    }

    /// Restarts the process once jobs have come to where they can go on; with a secret, after a
    /// backup.
    ///
    /// # Errors
    /// [`Error::Passphrase`]; [`Error::Busy`] while a backup or a restart is not over;
    /// [`Error::Restoring`]; those of the engine.
    pub async fn restart(&self, asker: Asker, secret: Option<&Secret>) -> Result<Job> {
        let _turn = self.parts().turn.lock().await;
        self.not_restored().await?;
        self.free(works::APPLIANCE_BACKUP).await?;
        self.free(works::APPLIANCE_RESTART).await?;
        let staged = match secret {
            Some(secret) => Some(self.stage(secret).await?),
            None => None,
        };
        // Somebody waits for it.
        let asker = Asker { priority: URGENT, ..asker };
        let parameters = RestartParameters { staged };
        let object = "the appliance".to_owned();
        let asked = self.protect().ask(asker, works::APPLIANCE_RESTART, object, &parameters).await;
        if let (Err(_), Some(staged)) = (&asked, &parameters.staged) {
            self.parts().staged.remove(staged);
        }
        Ok(asked?)
    }

    /// Asks the process to restart itself.
    pub(crate) fn restart_now(&self) {
        self.parts().restart.notify_one();
    }

    /// Waits until a restart is asked for.
    pub async fn restarts(&self) {
        self.parts().restart.notified().await;
    }

    pub(super) async fn newest(&self, kind: &str) -> Result<Option<Job>> {
        let storage = self.protect().storage();
        let job = jobs::newest(storage.catalog(), kind, storage.node()).await?;
        Ok(job.filter(|job| job.state != State::Retried))
    }
}
