//! Backups of the appliance that nobody has to ask for: made when their time has come, sealed under the
//! administration token, stored in the pool `main`, of which the latest stay.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use strongroom_identity::Identity;
use strongroom_protect::works::ForgetParameters;
use strongroom_protect::{Asker, Job, State};

use super::operations::SERIES;
use crate::administration::Administration;
use crate::{Error, Result, Values};

/// The pool that they are stored in.
const POOL: &str = "main";
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
        let status = self.backup_status().await?;
        let fresh = status.file.is_some_and(|file| !over(file.made_at, every, now));
        let early = status.job.is_some_and(|job| {
            job.ended_at.is_none_or(|ended| !over(ended, AGAIN.min(every), now))
        });
        if fresh || early {
            return Ok(Scheduled::NotDue);
        }
        let system = identity.appliance().await?;
        let Some(secret) = identity.admin_token_key(&system).await? else {
            return Ok(Scheduled::NoToken);
        };
        let organisation_id = system.organisation_id;
        let asker = || Asker { organisation_id, user_name: "schedule".into(), ..Asker::default() };
        let job = self.start_backup(asker(), &secret).await?;
        if let Some(failed) = self.failed(job).await? {
            return Ok(Scheduled::Failed(failed));
        }
        let pool = self.protect().storage().pool_named(POOL).await;
        let pool = pool.map_err(strongroom_protect::Error::from)?.id;
        let job = self.store_backup(asker(), pool).await?;
        if let Some(failed) = self.failed(job).await? {
            return Ok(Scheduled::Failed(failed));
        }
        let mut forget = ForgetParameters::default();
        forget.selection.name = Some(SERIES.into());
        forget.rules.last = u64::from(values.appliance_backup_keep);
        let job = self.protect().forget(asker(), pool, forget).await?;
        Ok(self.failed(job).await?.map_or(Scheduled::Done, Scheduled::Failed))
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
