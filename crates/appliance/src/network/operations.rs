//! What is done with the settings.

use std::sync::atomic::Ordering;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_identity::{Deed, Identity};
use strongroom_protect::{Asker, Job};

use super::document::Document;
use super::host::{HostDriver, Step};
use super::settings::NetworkSettings;
use super::state::{LastChange, SetNetwork};
use super::{CONFIRM, IDLE, Network, Reached};
use crate::administration::{Administration, URGENT, blocking};
use crate::works::{self, NetworkParameters};
use crate::{Error, Result};

/// The name of the request among the staged files.
pub(crate) const REQUEST: &str = "settings.json";

/// A change that is wanted.
#[derive(Clone, Debug)]
pub struct NetworkChange {
    /// The settings.
    pub settings: NetworkSettings,
    /// As a dialect's script has written them.
    pub given: Option<Document>,
    /// Settings of the application that are set with them.
    pub application: Option<Document>,
    /// Seconds in which it is to be confirmed; none: as it is configured.
    pub confirm: Option<u64>,
    /// Whether the next call of the dialect confirms it.
    pub by_dialect: bool,
}

/// A change, for the job that makes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    pub(crate) settings: NetworkSettings,
    pub(crate) given: Option<Document>,
    pub(crate) application: Option<Document>,
    pub(crate) confirm: Option<u64>,
    pub(crate) by_dialect: bool,
    pub(crate) by: String,
}

/// How the network is set.
#[derive(Clone, Debug)]
pub struct NetworkStatus {
    /// Who brings it to the machine.
    pub driver: HostDriver,
    /// What is set; none: nothing yet.
    pub set: Option<SetNetwork>,
    /// The change that is not over.
    pub pending: Option<PendingChange>,
    /// The last one that is.
    pub last: Option<LastChange>,
}

/// A change that is not over.
#[derive(Clone, Debug)]
pub struct PendingChange {
    /// The job that makes it.
    pub job: i64,
    /// When that was asked for.
    pub asked_at: Option<Timestamp>,
    /// Who asked for it.
    pub by: String,
    /// What it says.
    pub settings: NetworkSettings,
    /// Until when it can be confirmed; none: it is being applied.
    pub until: Option<Timestamp>,
    /// Whether that must come over the network, to an address that it sets.
    pub moves: bool,
    /// What was done.
    pub steps: Vec<Step>,
}

impl Network {
    pub(crate) fn status(&self) -> Result<NetworkStatus> {
        // Without the turn: while a change is being applied, it is told that it is.
        let state = self.inner.store.read()?;
        let pending = state.pending.map(|pending| PendingChange {
            job: pending.job,
            asked_at: pending.asked_at,
            by: pending.by,
            settings: pending.network.settings,
            until: pending.until.map(|until| until.at),
            moves: pending.moves,
            steps: pending.steps,
        });
        let driver = self.inner.host.driver();
        Ok(NetworkStatus { driver, set: state.network, pending, last: state.last })
    }

    fn application(&self) -> Result<Option<Document>> {
        Ok(self.inner.store.read()?.application)
    }

    fn set_application(&self, document: Document) -> Result<()> {
        document.check().map_err(Error::Application)?;
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        // The newer one counts.
        if let Some(pending) = &mut state.pending {
            pending.application = None;
        }
        state.application = Some(document);
        self.keep(&state)
    }

    /// Why changes were taken back of which the audit trail doesn't tell yet.
    fn untold(&self) -> Result<Vec<String>> {
        Ok(self.inner.store.read()?.untold)
    }

    /// The audit trail tells of the first of them.
    fn is_told(&self) -> Result<()> {
        let _turn = self.turn();
        let mut state = self.inner.store.read()?;
        if !state.untold.is_empty() {
            state.untold.remove(0);
            self.keep(&state)?;
        }
        Ok(())
    }

    /// Whether a change waits that the next call of the dialect confirms.
    fn waits_for_dialect(&self) -> Result<bool> {
        let pending = self.inner.store.read()?.pending;
        Ok(pending.is_some_and(|pending| pending.by_dialect && pending.until.is_some()))
    }
}

/// Writes down what the appliance took back by itself: twice rather than never.
async fn tell_of(network: &Network, identity: &Identity) -> Result<()> {
    let (all, told) = (network.clone(), network.clone());
    for why in blocking(move || all.untold()).await? {
        let who = identity.appliance().await?;
        let deed = Deed::new("system.network.taken_back", "the network").detail(why);
        identity.record(&who, deed).await?;
        let told = told.clone();
        blocking(move || told.is_told()).await?;
    }
    Ok(())
}

impl Administration {
    fn network(&self) -> Network {
        self.parts().network.clone()
    }

    /// How the network is set.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn network_status(&self) -> Result<NetworkStatus> {
        let network = self.network();
        blocking(move || network.status()).await
    }

    /// Changes the settings of the network, by a job. It waits to be confirmed then.
    ///
    /// # Errors
    /// [`Error::Network`], [`Error::Application`]; [`Error::Busy`] while another such job is not over;
    /// [`Error::State`] while a change waits; [`Error::File`]; those of the engine.
    pub async fn change_network(&self, asker: Asker, change: NetworkChange) -> Result<Job> {
        let (least, most, _) = CONFIRM;
        if change.confirm.is_some_and(|seconds| !(least..=most).contains(&seconds)) {
            let why = format!("it takes {least} to {most} seconds");
            return Err(Error::Network { field: "confirm_seconds", why });
        }
        for document in change.given.iter().chain(&change.application) {
            document.check().map_err(Error::Application)?;
        }
        let _turn = self.parts().turn.lock().await;
        self.free(works::NETWORK).await?;
        if self.network_status().await?.pending.is_some() {
            return Err(super::waiting());
        }
        let object = change.settings.interface.clone();
        let request = Request {
            settings: change.settings,
            given: change.given,
            application: change.application,
            confirm: change.confirm,
            by_dialect: change.by_dialect,
            by: asker.user_name.clone(),
        };
        let staged = self.parts().staged.clone();
        // Settings of an application may be secret: they don't stand in the job.
        let staged = blocking(move || {
            let text = serde_json::to_vec(&request)
                .map_err(|error| Error::Application(error.to_string()))?;
            staged.put(&[(REQUEST, &text)])
        })
        .await?;
        let asker = Asker { priority: URGENT, attempts: 1, ..asker };
        let parameters = NetworkParameters { staged };
        let asked = self.protect().ask(asker, works::NETWORK, object, &parameters).await;
        if asked.is_err() {
            self.parts().staged.remove(&parameters.staged);
        }
        Ok(asked?)
    }

    /// Keeps the change that waits, for who came that way; none: through the control socket.
    ///
    /// # Errors
    /// [`Error::State`] when none waits, or it must come to another address; [`Error::File`].
    pub async fn confirm_network(&self, reached: Option<Reached>) -> Result<NetworkStatus> {
        let network = self.network();
        blocking(move || {
            network.confirm(reached)?;
            network.status()
        })
        .await
    }

    /// A call of the dialect has come that way: it keeps a change of the dialect's that waits,
    /// if it may. Whether it did.
    pub async fn dialect_was_reached(&self, reached: Option<Reached>) -> bool {
        let network = self.network();
        if !network.inner.waits.load(Ordering::Acquire) {
            return false;
        }
        let confirmed = blocking(move || match network.waits_for_dialect()? {
            true => network.confirm(reached).map(|()| true),
            false => Ok(false),
        });
        confirmed.await.unwrap_or_else(|error| {
            tracing::info!("a call does not confirm the change of the network: {error}");
            false
        })
    }

    /// The settings of the application; none: they were never set.
    ///
    /// # Errors
    /// [`Error::File`].
    pub async fn application(&self) -> Result<Option<Document>> {
        let network = self.network();
        blocking(move || network.application()).await
    }

    /// Puts other settings of the application in the place of those that there are.
    ///
    /// # Errors
    /// [`Error::Application`] for one that is too large; [`Error::File`].
    pub async fn set_application(&self, document: Document) -> Result<()> {
        let network = self.network();
        blocking(move || network.set_application(document)).await
    }

    /// Writes down which changes of the network were taken back, also by a start that failed, for as
    /// long as it is polled.
    pub async fn watch_network(&self, identity: &Identity) {
        let network = self.network();
        loop {
            if let Err(error) = tell_of(&network, identity).await {
                tracing::error!(%error, "the audit trail does not tell of the network yet");
            }
            let _ = tokio::time::timeout(IDLE, network.inner.untold.notified()).await;
        }
    }
}
