//! What the servers of targets do, for the list of what is served and for the audit trail.

use std::any::Any;
use std::net::SocketAddr;

use strongroom_appliance::Services;
use strongroom_identity::{Deed, Identity};
use strongroom_storage::{RefusedLogin, TargetWatch};
use tokio::runtime::Handle;

/// Enters servers where they listen, and writes down who guesses secrets.
#[derive(Debug)]
pub(super) struct Watch {
    services: Services,
    identity: Identity,
    runtime: Handle,
}

impl Watch {
    /// Made within the runtime.
    pub(super) fn new(services: Services, identity: Identity) -> Self {
        Self { services, identity, runtime: Handle::current() }
    }
}

impl TargetWatch for Watch {
    fn listens(&self, address: SocketAddr) -> Box<dyn Any + Send + Sync> {
        tracing::info!(%address, "targets are reached over iSCSI");
        Box::new(self.services.enter("iscsi", Some(address.to_string())))
    }

    fn blocked(&self, refused: &RefusedLogin) {
        let RefusedLogin { address, initiator, target, seconds } = refused.clone();
        let identity = self.identity.clone();
        self.runtime.spawn(async move {
            let on = target.unwrap_or_else(|| "the names of targets".to_owned());
            let detail = format!(
                "{initiator} at {address} proved itself wrongly too often: not heard for {seconds} s"
            );
            let recorded = async {
                let who = identity.appliance().await?;
                identity.record(&who, Deed::new("targets.login.blocked", on).detail(detail)).await
            };
            if let Err(error) = recorded.await {
                tracing::error!(%error, "the audit trail can't be written");
            }
        });
    }
}
