//! What the services' errors are to callers: the one place where that is said.

use strongroom_appliance::Error as Appliance;
use strongroom_identity::{AuthError, Error as Identity};
use strongroom_protect::Error as Protect;
use strongroom_storage::Error as Storage;

use crate::problem::{Code, Problem};

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        let code = match &error {
            AuthError::SecondFactor => Code::SecondFactor,
            AuthError::Blocked { wait } => {
                let seconds = wait.as_secs().max(1);
                return Self::new(Code::TooMany, error.to_string()).retry_after(seconds);
            }
            AuthError::Unreachable => {
                return Self::new(Code::Unavailable, error.to_string()).retry_after(30);
            }
            AuthError::Internal(_) => {
                let AuthError::Internal(error) = error else { unreachable!("it was matched") };
                return error.into();
            }
            _ => Code::Unauthenticated,
        };
        Self::new(code, error.to_string())
    }
}

impl From<Identity> for Problem {
    fn from(error: Identity) -> Self {
        let code = match &error {
            Identity::Catalog(_) => {
                let Identity::Catalog(error) = error else { unreachable!("it was matched") };
                return error.into();
            }
            Identity::Forbidden { .. } => Code::Forbidden,
            Identity::NotFound { .. } => Code::NotFound,
            Identity::Invalid { .. } => Code::Invalid,
            Identity::LastAdministrator | Identity::Builtin { .. } | Identity::State(_) => {
                Code::Conflict
            }
            Identity::InUse { .. } => Code::InUse,
            Identity::Busy => {
                return Self::new(Code::Unavailable, error.to_string()).retry_after(1);
            }
            _ => return Self::internal(&error),
        };
        Self::new(code, error.to_string())
    }
}

impl From<Appliance> for Problem {
    fn from(error: Appliance) -> Self {
        match error {
            Appliance::Catalog(error) => error.into(),
            Appliance::Identity(error) => error.into(),
            Appliance::Unknown { .. } => Self::new(Code::NotFound, error.to_string()),
            Appliance::Value { .. }
            | Appliance::Passphrase { .. }
            | Appliance::Certificate { .. }
            | Appliance::Network { .. }
            | Appliance::Application(_)
            | Appliance::Acme(_)
            | Appliance::Storage(_)
            | Appliance::Licence(_) => Self::new(Code::Invalid, error.to_string()),
            Appliance::State(_) | Appliance::LicenceKept(_) => {
                Self::new(Code::Conflict, error.to_string())
            }
            // Where the certificate's files can't be replaced; the path is the administrator's.
            Appliance::File { .. } => {
                tracing::error!(%error, "a file of the appliance");
                Self::new(Code::Conflict, error.to_string())
            }
            Appliance::Archive(_) | Appliance::Package { .. } | Appliance::TooLarge { .. } => {
                Self::new(Code::Invalid, error.to_string())
            }
            Appliance::Busy { .. } | Appliance::Restoring => {
                Self::new(Code::InProgress, error.to_string())
            }
            Appliance::Room { .. } | Appliance::Offset { .. } => {
                Self::new(Code::Conflict, error.to_string())
            }
            Appliance::NoBackup | Appliance::NoPackage => {
                Self::new(Code::NotFound, error.to_string())
            }
            Appliance::NotItself => Self::new(Code::Unavailable, error.to_string()),
            Appliance::Protect(error) => error.into(),
            error => Self::internal(&error),
        }
    }
}

impl From<Storage> for Problem {
    fn from(error: Storage) -> Self {
        let code = match &error {
            Storage::Catalog(_) => {
                let Storage::Catalog(error) = error else { unreachable!("it was matched") };
                return error.into();
            }
            Storage::Archive(inner) => of_archive(inner),
            Storage::Pool(inner) => of_pool(inner),
            Storage::Invalid(_) | Storage::Ambiguous { .. } => Some(Code::Invalid),
            Storage::Closed { .. } | Storage::Used { .. } | Storage::OtherNode { .. } => {
                Some(Code::Conflict)
            }
            Storage::Serving { .. } | Storage::VolumeServed { .. } => Some(Code::InUse),
            Storage::VolumeInUse { .. } | Storage::Stopped { .. } | Storage::Block(_) => {
                Some(Code::Conflict)
            }
            Storage::Gone { .. } | Storage::NoReader | Storage::NotShown => Some(Code::NotFound),
            Storage::IngestOver { .. } | Storage::Shortens => Some(Code::Conflict),
            Storage::Crowded => {
                return Self::new(Code::Unavailable, error.to_string()).retry_after(10);
            }
            Storage::TooManyReaders => {
                return Self::new(Code::TooMany, error.to_string()).retry_after(60);
            }
            // A directory that the caller named.
            Storage::Local { .. } => Some(Code::Invalid),
            _ => None,
        };
        match code {
            Some(code) => Self::new(code, error.to_string()),
            None => Self::internal(&error),
        }
    }
}

impl From<Protect> for Problem {
    fn from(error: Protect) -> Self {
        match error {
            Protect::Catalog(error) => error.into(),
            Protect::Storage(error) => error.into(),
            Protect::Invalid(text) => Self::new(Code::Invalid, text),
            Protect::Stopping => Self::new(Code::Unavailable, error.to_string()).retry_after(10),
            error => Self::internal(&error),
        }
    }
}

/// None: it is not the caller's.
fn of_archive(error: &strongroom_archive::Error) -> Option<Code> {
    use strongroom_archive::Error;
    match error {
        Error::Pool(error) => of_pool(error),
        Error::NoImage { .. } | Error::NoPath { .. } => Some(Code::NotFound),
        Error::Ambiguous { .. }
        | Error::Invalid(_)
        | Error::Local { .. }
        | Error::Sealed { .. }
        | Error::SealedBefore { .. } => Some(Code::Invalid),
        _ => None,
    }
}

fn of_pool(error: &strongroom_engine::Error) -> Option<Code> {
    use strongroom_engine::Error;
    match error {
        Error::Immutable { .. } => Some(Code::Immutable),
        Error::NoSuchRoot { .. } => Some(Code::NotFound),
        Error::Invalid(_)
        | Error::Forged { .. }
        | Error::NotAPool { .. }
        | Error::SecretNeeded
        | Error::WrongSecret => Some(Code::Invalid),
        Error::InUse { .. } | Error::ReadOnly { .. } | Error::TooFewDisks { .. } => {
            Some(Code::Conflict)
        }
        _ => None,
    }
}
