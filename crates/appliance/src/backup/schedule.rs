//! Backups of the appliance that nobody has to ask for: made when their time has come, sealed under the
//! administration token, stored in the pool `main`, of which the latest stay.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strongroom_catalog::{images, jobs};
use strongroom_identity::Identity;
use strongroom_protect::{Asker, Job, State, works};

use super::operations::SERIES;
use crate::administration::Administration;
use crate::{Error, Result, Values};

/// The pool that they are stored in.
const POOL: &str = "main";
/// As who they are asked for.
const ASKER: &str = "schedule";
/// After one that failed the next is tried no sooner.
const AGAIN: Duration = Duration::from_secs(3600);

/// What came of looking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheduled {
    /// It is switched off, or its time has not come.
    NotDue,
    /// There is no token that it could be sealed under.
    NoToken,
    /// It was made and stored.
    Done,
    /// The job that failed.
    Failed(i64),
}

fn over(at: Timestamp, wait: Duration, now: Timestamp) -> bool {
    let next = SignedDuration::try_from(wait).ok().and_then(|wait| at.checked_add(wait).ok());
    next.is_some_and(|next| next <= now)
}

impl Administration {
    /// Backs the appliance up if the settings say that it is time.
    ///
    /// # Errors
    /// Those of [`Administration::start_backup`] and [`Administration::store_backup`].
    pub async fn back_up_when_due(
        &self,
        identity: &Identity,
        values: &Values,
        now: Timestamp,
    ) -> Result<Scheduled> {
        let every = values.appliance_backup_every;
        if every.is_zero() {
            return Ok(Scheduled::NotDue);
        }
        let pool = self.protect().storage().pool_named(POOL).await;
        let pool = pool.map_err(strongroom_protect::Error::from)?.id;
        // Those of others, scripts among them, are not in the pool.
        let catalog = self.protect().storage().catalog();
        let last = jobs::last_done_by(catalog, works::BACKUP, pool, ASKER).await?;
        let last = last.and_then(|job| job.ended_at);
        let fresh = last.is_some_and(|at| !over(at, every, now));
        let newest = self.newest(crate::works::APPLIANCE_BACKUP).await?;
        let early = newest.is_some_and(|job| match job.ended_at {
            Some(ended) => job.user_name == ASKER && !over(ended, AGAIN.min(every), now),
            None => true,
        });
        if fresh || early {
            return Ok(Scheduled::NotDue);
        }
        let system = identity.appliance().await?;
        let Some(secret) = identity.admin_token_key(&system).await? else {
            return Ok(Scheduled::NoToken);
        };
        let organisation_id = system.organisation_id;
        let asker = || Asker { organisation_id, user_name: ASKER.into(), ..Asker::default() };
        let job = self.start_backup(asker(), &secret).await?;
        if let Some(failed) = self.failed(job).await? {
            return Ok(Scheduled::Failed(failed));
        }
        let job = self.store_backup(asker(), pool).await?;
        if let Some(failed) = self.failed(job).await? {
            return Ok(Scheduled::Failed(failed));
        }
        self.forget_stored(pool, values.appliance_backup_keep as usize).await?;
        Ok(Scheduled::Done)
    }

    /// Forgets all of them but the latest: what others store under the same name is theirs.
    async fn forget_stored(&self, pool: i64, keep: usize) -> Result<()> {
        let storage = self.protect().storage();
        // Nobody else's job has this asker and no user.
        let stored = images::made_for(storage.catalog(), pool, SERIES, ASKER).await?;
        for image in stored.iter().skip(keep) {
            if let Err(error) = storage.forget_images(&[image.id]).await {
                tracing::warn!(%error, "an old backup of the appliance is not forgotten");
            }
        }
        Ok(())
    }

    /// Waits for a job; its number, if it was not done.
    async fn failed(&self, job: Job) -> Result<Option<i64>, Error> {
        let job = self.protect().engine().wait(job.id).await?;
        Ok(match job.state {
            State::Succeeded | State::Warnings => None,
            _ => Some(job.id),
        })
    }
}
