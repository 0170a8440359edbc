//! Initiators that are logged in.

use jiff::Timestamp;
use strongroom_iscsi as iscsi;

use super::{TargetFigures, TargetSession};
use crate::{Error, Result, Storage};

fn told(target: i64, session: iscsi::SessionInfo) -> TargetSession {
    TargetSession {
        target_id: target,
        handle: session.handle,
        initiator: session.initiator,
        address: session.address,
        // A clock beyond the years that a timestamp has is set wrong.
        since: Timestamp::try_from(session.since).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

impl Storage {
    /// Initiators that are logged in to a target on this machine.
    pub fn target_sessions(&self, target: i64) -> Vec<TargetSession> {
        let served = self.inner.targets.served(target);
        let sessions = served.map(|served| served.sessions()).unwrap_or_default();
        sessions.into_iter().map(|session| told(target, session)).collect()
    }

    /// Initiators that are logged in to any target on this machine.
    pub fn all_target_sessions(&self) -> Vec<TargetSession> {
        let all = self.inner.targets.all().into_iter();
        all.flat_map(|(id, target)| {
            target.sessions().into_iter().map(move |session| told(id, session))
        })
        .collect()
    }

    /// How the targets of this machine fare, in numbers.
    pub fn target_figures(&self) -> TargetFigures {
        self.inner.targets.figures()
    }

    /// Initiators that are logged in to targets that this volume is mapped to.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn volume_sessions(&self, volume: i64) -> Result<Vec<TargetSession>> {
        use strongroom_catalog::targets::Target;
        let targets: Vec<Target> = self.inner.catalog.find(Target::of_volume(volume)).await?;
        Ok(targets.iter().flat_map(|target| self.target_sessions(target.id)).collect())
    }

    /// That nobody is logged in to a target, or that it may be done all the same.
    pub(super) fn is_idle(&self, target: i64, name: &str, force: bool, what: &str) -> Result<()> {
        let sessions = self.target_sessions(target);
        match sessions.first() {
            Some(one) if !force => Err(Error::InUse(format!(
                "{} initiators are logged in to the target {name}, the first is {}: log them out \
                 first, or {what} all the same (--force)",
                sessions.len(),
                one.initiator
            ))),
            _ => Ok(()),
        }
    }
}
