//! What helps those who look for a fault: the logs, and more of that for the vendor.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use strongroom_identity::Right;

use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Group, Made, get};
use crate::support::{self, DEBUG, LOGS};

/// How long it may take to make what is sent when it is whole.
const MAKING: Duration = Duration::from_secs(10 * 60);

pub(super) fn group() -> Group {
    Group::new(
        "Support",
        "What helps those who look for a fault. Secrets are left out, and taken out of logs. One \
         archive is made at a time.",
        [
            get("/v1/system/logs", "system.logs", "The logs, as `logs.tar.gz`", logs)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Conflict]),
            get(
                "/v1/system/debug",
                "system.debug",
                "The logs and more, as `debug-bundle.tar`, for the holder of the vendor's key alone",
                debug,
            )
            .needs(Right::SystemManage, On::Appliance)
            .fails([Code::Conflict])
            .within(MAKING),
        ],
    )
}

async fn logs(call: Call) -> Result<Made<impl Stream<Item = io::Result<Bytes>>>> {
    let bundle = support::logs(call.app()).await?;
    call.record(LOGS).await?;
    Ok(Made { name: LOGS, bytes: support::stream(bundle) })
}

async fn debug(call: Call) -> Result<Made<impl Stream<Item = io::Result<Bytes>>>> {
    let bundle = support::debug(call.app()).await?;
    call.record(DEBUG).await?;
    Ok(Made { name: DEBUG, bytes: support::stream(bundle) })
}
