//! What a kind of job does.

use serde_json::Value;
use strongroom_catalog::jobs::Alone;

use crate::Run;

/// A kind of job. It runs on a thread of its own, where it may wait.
pub trait Work: Send + Sync {
    /// The name that jobs call it by.
    fn kind(&self) -> &'static str;

    /// What else may run on the same pool.
    fn alone(&self) -> Alone {
        Alone::No
    }

    /// Looks at parameters before a job is queued with them.
    ///
    /// # Errors
    /// What is wrong with them, and what would be right.
    fn check(&self, parameters: &Value) -> Result<(), String>;

    /// Does it. It must look at [`Run::is_canceled`] several times a second, or pass on what
    /// [`Run::on_stop`] tells it. It may be called again after it was cut off anywhere; what others
    /// can see must then be there once.
    ///
    /// # Errors
    /// Why it isn't done.
    fn run(&self, run: &Run) -> Result<Outcome, Failure>;
}

/// What came of a job that was done.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What to tell of it.
    pub result: Value,
    /// Whether parts were left out; the log names them.
    pub warnings: bool,
}

/// Why a job was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was asked to stop, and did.
    Canceled,
    /// Trying again would not help.
    Refused(String),
    /// Trying again may help.
    Failed(String),
    /// Another process has what it needs, and should do it.
    Elsewhere(String),
}

impl From<strongroom_storage::Error> for Failure {
    fn from(error: strongroom_storage::Error) -> Self {
        use strongroom_archive::Error as Archive;
        use strongroom_engine::Error as Pool;
        use strongroom_storage::Error as Storage;
        if error.is_canceled() {
            return Self::Canceled;
        }
        let text = error.to_string();
        if error.is_elsewhere() {
            return Self::Elsewhere(text);
        }
        let pool = match &error {
            Storage::Pool(pool) | Storage::Archive(Archive::Pool(pool)) => Some(pool),
            _ => None,
        };
        let lasting = match &error {
            Storage::Invalid(_) | Storage::Gone { .. } | Storage::Ambiguous { .. } => true,
            Storage::Archive(Archive::Invalid(_) | Archive::NoPath { .. }) => true,
            Storage::Archive(Archive::NoImage { .. } | Archive::Sealed { .. }) => true,
            Storage::Archive(Archive::SealedBefore { .. }) => true,
            Storage::Catalog(strongroom_catalog::Error::NotFound { .. }) => true,
            Storage::Catalog(strongroom_catalog::Error::Exists { .. }) => true,
            _ => matches!(
                pool,
                Some(
                    Pool::Invalid(_)
                        | Pool::Immutable { .. }
                        | Pool::NoSuchRoot { .. }
                        | Pool::NotAPool { .. }
                        | Pool::SecretNeeded
                        | Pool::WrongSecret
                        | Pool::Unsupported { .. }
                )
            ),
        };
        if lasting { Self::Refused(text) } else { Self::Failed(text) }
    }
}

impl From<strongroom_archive::Error> for Failure {
    fn from(error: strongroom_archive::Error) -> Self {
        strongroom_storage::Error::from(error).into()
    }
}

impl From<strongroom_engine::Error> for Failure {
    fn from(error: strongroom_engine::Error) -> Self {
        strongroom_storage::Error::from(error).into()
    }
}

impl From<strongroom_catalog::Error> for Failure {
    fn from(error: strongroom_catalog::Error) -> Self {
        strongroom_storage::Error::from(error).into()
    }
}
