//! Backups that clients elsewhere make, each as a job.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use strongroom_catalog::events::Severity;
use strongroom_catalog::jobs::{Job, NewJob, Progress};
use strongroom_storage::ingest::{Committed, End, Ingest, NewImage, Opener};

use crate::engine::lock;
use crate::works::{INGEST, IngestParameters};
use crate::{Asker, Attended, Error, Failure, Outcome, Protect, Result};

/// The jobs of sessions that are open, by the sessions' ids.
#[derive(Clone, Debug, Default)]
pub(crate) struct IngestJobs(Arc<Mutex<HashMap<String, Arc<Attended>>>>);

/// A session that was opened, and its job.
#[derive(Debug)]
pub struct OpenedIngest {
    /// The session.
    pub ingest: Ingest,
    /// The job.
    pub job: Job,
}

impl Protect {
    /// Opens a session in which a client makes an image of a pool.
    ///
    /// # Errors
    /// Those of [`strongroom_storage::Storage::open_ingest`]; [`Error::Stopping`]; those of the
    /// database.
    pub async fn open_ingest(
        &self,
        asker: Asker,
        opener: Opener,
        pool: i64,
        object: String,
    ) -> Result<OpenedIngest> {
        let pool = self.here(pool).await?;
        let ingest = self.storage.open_ingest(pool.id, opener, &asker.user_name).await?;
        let parameters = IngestParameters { root: ingest.root().to_string() };
        let new = NewJob {
            kind: INGEST.to_owned(),
            priority: asker.priority,
            organisation_id: asker.organisation_id,
            user_id: asker.user_id,
            user_name: asker.user_name,
            pool_id: Some(pool.id),
            node: self.storage.node().into(),
            host: asker.host.unwrap_or_default(),
            object,
            parameters: serde_json::to_value(parameters)
                .map_err(|e| Error::Invalid(e.to_string()))?,
            attempts: 1,
            ..NewJob::default()
        };
        let attended = match self.engine.attend(new).await {
            Ok(attended) => Arc::new(attended),
            Err(error) => {
                ingest.end(End::Given).await;
                return Err(error);
            }
        };
        let job = attended.job().clone();
        ingest.set_job(job.id);
        let sampled = ingest.clone();
        attended.sample(move || progress(&sampled));
        let stopped =
            (Arc::downgrade(&attended), ingest.clone(), tokio::runtime::Handle::current());
        attended.on_stop(move || {
            let (attended, ingest, handle) = stopped;
            let canceled = attended.upgrade().is_some_and(|attended| attended.is_canceled());
            let why = if canceled { End::Canceled } else { End::Stopping };
            handle.spawn(async move { ingest.end(why).await });
        });
        lock(&self.attended.0).insert(ingest.id().to_owned(), Arc::clone(&attended));
        tokio::spawn(attend(self.attended.clone(), attended, ingest.clone()));
        Ok(OpenedIngest { ingest, job })
    }

    /// Makes the image of a session. Asked again, it says the same.
    ///
    /// # Errors
    /// Those of [`Ingest::commit`].
    pub async fn commit_ingest(&self, ingest: &Ingest, new: NewImage) -> Result<Committed> {
        let attended = lock(&self.attended.0).get(ingest.id()).cloned();
        // Without a job the session is over, and says why.
        if let Some(attended) = attended
            && !attended.hold().await?
        {
            ingest.end(End::Canceled).await;
        }
        Ok(ingest.commit(new).await?)
    }
}

fn progress(ingest: &Ingest) -> Progress {
    let (told, _) = ingest.progress();
    Progress {
        phase: "receiving".into(),
        bytes_done: told.bytes_done,
        bytes_total: told.bytes_total,
        items_done: told.items_done,
        items_total: None,
    }
}

/// Ends the job when its session is over.
async fn attend(jobs: IngestJobs, attended: Arc<Attended>, ingest: Ingest) {
    let end = ingest.over().await;
    let (_, stored) = ingest.progress();
    let done = match end {
        End::Committed(done) => Ok(Outcome {
            result: json!({
                "image": done.image.id,
                "root": done.image.root,
                "name": done.image.name,
                "files": done.image.files,
                "bytes": done.image.size,
                "new_bytes": stored.new_bytes,
                "stored_bytes": stored.stored_bytes,
                "healed_chunks": stored.healed_chunks,
            }),
            warnings: !done.image.complete,
        }),
        End::Canceled => Err(Failure::Canceled),
        End::Given => Err(Failure::Refused("its client gave it up".into())),
        End::Idle => Err(Failure::Refused("nothing was heard of its client for too long".into())),
        End::Stopping => Err(Failure::Refused(
            "the appliance stopped; the client must begin anew, what it sent is found again".into(),
        )),
    };
    if let Ok(Outcome { warnings: true, .. }) = &done {
        attended.log(Severity::Warning, "the client could not read everything; it says what");
    }
    attended.end(done).await;
    lock(&jobs.0).remove(ingest.id());
}
