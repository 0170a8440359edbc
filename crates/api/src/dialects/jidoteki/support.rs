//! Section 4: logs and debug bundles.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::Method;
use strongroom_appliance::Bundle;
use strongroom_identity::Right;

use super::answer::{Answer, file};
use super::dispatch::Call;
use super::{Documented, Endpoint};
use crate::support::{self, DEBUG, LOGS};

const BYTES: &str = "application/octet-stream";

const fn gives(
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    answers: &'static [Documented],
    run: super::Run,
) -> Endpoint {
    Endpoint {
        method: Method::GET,
        path,
        id,
        summary,
        section: "Support",
        right: Right::SystemManage,
        parameters: &[],
        answers,
        run,
    }
}

pub(super) const ENDPOINTS: &[Endpoint] = &[
    gives(
        "/logs",
        "jidoteki.logs",
        "The logs",
        &[
            Documented { status: 200, kind: Some(BYTES), meaning: "An archive, `logs.tar.gz`." },
            Documented { status: 400, kind: None, meaning: "Another archive is being made." },
        ],
        logs,
    ),
    gives(
        "/debug",
        "jidoteki.debug",
        "The logs and more, for the vendor alone",
        &[
            Documented {
                status: 200,
                kind: Some(BYTES),
                meaning: "`debug-bundle.tar`, encrypted.",
            },
            Documented {
                status: 400,
                kind: None,
                meaning: "No key of a vendor is configured, or another archive is being made.",
            },
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
