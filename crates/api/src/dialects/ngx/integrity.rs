//! Whether a pool is being scrubbed, in the dialect's words.

use serde::Serialize;
use strongroom_catalog::{jobs, pools};
use strongroom_storage::PoolDetails;
use utoipa::ToSchema;

use super::answer::Answer;
use super::dispatch::Call;

/// The kind of the jobs that scrub.
const SCRUB: &str = "scrub";

/// How a scrub of a pool stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Integrity {
    /// 1: one can be started.
    can_start: u8,
    /// 1: one is under way, and can be stopped.
    can_stop: u8,
    /// When there was one, for people.
    #[schema(example = "No info")]
    info: String,
}

/// The scrubs of all pools that are not over.
pub(super) struct Scrubs(Vec<jobs::Job>);

impl Scrubs {
    pub(super) async fn of(call: &Call) -> Answer<Self> {
        let node = call.app().storage().node();
        Ok(Self(jobs::open_of(call.app().catalog(), SCRUB, node).await?))
    }

    /// How it stands for one pool.
    pub(super) fn tell(&self, known: &pools::Pool, details: Option<&PoolDetails>) -> Integrity {
        let runs = self.0.iter().find(|job| job.pool_id == Some(known.id));
        let Some(details) = details else {
            return Integrity { can_start: 0, can_stop: 0, info: "No info".into() };
        };
        let info = match (runs, details.scrub_since, details.scrubbed_at) {
            (Some(job), _, _) => format!("In progress since {}", told(job.queued_at)),
            (None, Some(since), _) => format!("Begun {}, not finished", told(since)),
            (None, None, Some(at)) => format!("Finished {}", told(at)),
            (None, None, None) => "No info".into(),
        };
        let running = u8::from(runs.is_some());
        Integrity { can_start: 1 - running, can_stop: running, info }
    }
}

/// As `date` writes it.
pub(super) fn told(at: jiff::Timestamp) -> String {
    let zoned = at.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%a %b %-d %H:%M:%S %Z %Y").to_string()
}
