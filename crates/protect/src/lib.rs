//! Jobs: what is done, by whom it was asked, and how far it is.
//!
//! [`Engine`] runs jobs of the catalogue: it claims them, gives each a thread, keeps its lease
//! alive, writes down how far it is, and what came of it. What a kind of job does is a [`Work`];
//! [`works`] has those of pools and images. [`Protect`] is what everybody else asks.
//!
//! Several engines, in one process or in many, may share a catalogue. A job is done by whoever
//! claims it; when that one dies, by the next. A worker that lost its claim has no effect in the
//! catalogue, and asks ([`Run::hold`]) before each step that others could see elsewhere.

mod attended;
mod collect;
mod engine;
mod error;
mod expiry;
mod ingest;
mod live;
mod run;
mod service;
mod stats;
mod watch;
mod work;
mod worker;
pub mod works;

pub use attended::Attended;
pub use collect::Collecting;
pub use engine::{Ended, Engine, Limits, Options};
pub use error::{Error, Result};
pub use ingest::OpenedIngest;
pub use run::Run;
pub use service::{Asker, Protect};
pub use stats::{Garbage, PoolFigures, Stats, StatsOf};
pub use watch::Changes;
pub use work::{Failure, Outcome, Work};

pub use strongroom_catalog::events::Severity;
pub use strongroom_catalog::jobs::{Alone, Job, Line, NewJob, Progress, State};
