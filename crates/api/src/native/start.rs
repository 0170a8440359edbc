//! What all requests that a job does have in common: when it is begun, and how often it is tried.

use jiff::Timestamp;
use strongroom_protect::Asker;

use crate::call::Call;
use crate::problem::{Code, Problem, Result};

/// When a job is begun, and how often it is tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) priority: i32,
    pub(super) attempts: Option<u32>,
    pub(super) run_at: Option<Timestamp>,
    pub(super) run_until: Option<Timestamp>,
}

/// The body of a request that a job does: its own fields, and those of [`How`].
pub(super) trait Starts {
    /// What it says of the job.
    fn how(&self) -> How;
}

/// Declares such a body.
macro_rules! starts {
    (
        $(#[$meta:meta])*
        struct $name:ident {
            $($(#[$attribute:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(::serde::Deserialize, ::utoipa::ToSchema)]
        #[serde(deny_unknown_fields)]
        struct $name {
            $($(#[$attribute])* $field: $type,)*
            /// Jobs with a higher one come first.
            #[serde(default)]
            priority: i32,
            /// How often the job is tried at most, 1 to 100; as the settings say when it isn't said.
            #[schema(minimum = 1, maximum = 100)]
            attempts: Option<u32>,
            /// The job isn't begun before then.
            run_at: Option<::jiff::Timestamp>,
            /// The job isn't begun after then: if it hasn't been, it is `not_run`.
            run_until: Option<::jiff::Timestamp>,
        }

        impl $crate::native::start::Starts for $name {
            fn how(&self) -> $crate::native::start::How {
                $crate::native::start::How {
                    priority: self.priority,
                    attempts: self.attempts,
                    run_at: self.run_at,
                    run_until: self.run_until,
                }
            }
        }
    };
}
pub(super) use starts;

/// Who asks, for a job.
pub(super) fn asker(call: &Call, body: &impl Starts) -> Result<Asker> {
    let how = body.how();
    if how.attempts == Some(0) {
        return Err(Problem::new(Code::Invalid, "a job is tried once at least"));
    }
    let attempts = how.attempts.unwrap_or_default();
    let (run_at, run_until) = (how.run_at, how.run_until);
    let asker = super::work::asker(call, how.priority.into())?;
    Ok(Asker { attempts, run_at, run_until, ..asker })
}
