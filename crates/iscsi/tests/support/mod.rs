//! Servers and initiators for tests.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(clippy::unwrap_used, reason = "tests")]

pub(crate) mod initiator;

use std::net::SocketAddr;
use std::sync::Arc;

use strongroom_block::BlockDevice;
use strongroom_iscsi::scsi::{Identity, LogicalUnit};
use strongroom_iscsi::{Limits, Server, Target};

/// A server of one target with one unit.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) server: Server,
    pub(crate) target: Arc<Target>,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn device(device: Arc<dyn BlockDevice>) -> Self {
        Self::unit(LogicalUnit::new(device, Identity::default(), None).unwrap())
    }

    pub(crate) fn unit(unit: LogicalUnit) -> Self {
        Self::within(Limits::default(), unit)
    }

    pub(crate) fn within(limits: Limits, unit: LogicalUnit) -> Self {
        let target = Target::new(initiator::TARGET).unwrap();
        target.map(0, Arc::new(unit)).unwrap();
        let server = Server::new(limits);
        server.add(Arc::clone(&target)).unwrap();
        let address = server.listen(([127, 0, 0, 1], 0).into()).unwrap();
        Self { server, target, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("iscsi://{}/{}/0", self.address, initiator::TARGET)
    }
}
