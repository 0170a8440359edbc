//! Section 4: logs and debug bundles.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use strongroom_appliance::Bundle;
use strongroom_identity::Right;

use super::answer::{Answer, file};
use super::dispatch::Call;
use super::{BYTES, Documented, Endpoint};
use crate::support::{self, DEBUG, LOGS};

const SECTION: &str = "Support";

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get(
        SECTION,
        "/logs",
        "jidoteki.logs",
        "The logs",
        Right::SystemManage,
        &[
            Documented::found(BYTES, "An archive, `logs.tar.gz`."),
            Documented::bare(400, "Another archive is being made."),
        ],
        logs,
    ),
    Endpoint::get(
        SECTION,
        "/debug",
        "jidoteki.debug",
        "The logs and more, for the vendor alone",
        Right::SystemManage,
        &[
            Documented::found(BYTES, "`debug-bundle.tar`, encrypted."),
            Documented::bare(
                400,
                "No key of a vendor is configured, or another archive is being made.",
            ),
        ],
        debug,
    ),
];

fn logs(call: Call) -> BoxFuture<'static, Answer> {
    async move { Ok(give(LOGS, support::logs(call.app()).await?)) }.boxed()
}

fn debug(call: Call) -> BoxFuture<'static, Answer> {
    async move { Ok(give(DEBUG, support::debug(call.app()).await?)) }.boxed()
}

fn give(name: &'static str, bundle: Bundle) -> axum::response::Response {
    file(name, support::stream(bundle))
}
