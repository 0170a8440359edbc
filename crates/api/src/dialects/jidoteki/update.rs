//! Section 3: updates.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use serde::Serialize;
use strongroom_appliance::Error;
use strongroom_appliance::updates::{InstallUpdate, UpdateSource};
use strongroom_appliance::works::UPDATE;
use strongroom_identity::Right;

use super::answer::{Answer, Fault, accepted, found, plain};
use super::dispatch::Call;
use super::job::{LINES, line, log, status};
use super::{Documented, Endpoint, JSON, Parameter, TEXT};

pub(super) const PATH: &str = "/update";
pub(super) const FIELD: &str = "update";
const SECTION: &str = "Updates";
/// Lines of the whole log.
const ALL: u32 = 5000;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: PATH,
        id: "jidoteki.update.install",
        summary: "Install another version",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[Parameter::file(
            FIELD,
            true,
            "A package, encrypted and signed as docs/updates.md describes, or one of our own form.",
        )],
        answers: &[
            Documented::bare(202, "A job checks and installs it."),
            Documented::bare(
                400,
                "It is missing, an update is on trial, or the appliance is being backed up, \
                 restored or started anew.",
            ),
        ],
        run: install,
    },
    Endpoint::get(
        SECTION,
        PATH,
        "jidoteki.update.show",
        "How the last update went",
        Right::SystemView,
        &[Documented::found(
            JSON,
            "`running`, `success` or `failed`, how far it is in percent, the last ten lines of its \
             log, and what went wrong; null when there was none.",
        )],
        show,
    ),
    Endpoint::get(
        SECTION,
        "/update/log",
        "jidoteki.update.log",
        "The log of the last update",
        Right::SystemView,
        &[Documented::found(TEXT, "All of it."), Documented::bare(404, "There was none.")],
        whole_log,
    ),
];

/// Why a package was not taken.
pub(super) fn refused(error: Error) -> Fault {
    error.into()
}

fn install(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let administration = call.app().administration();
        let source = match (call.form.shared_spool(), call.form.file(FIELD)) {
            (Some(spool), _) if !spool.is_empty() => UpdateSource::Spool(spool),
            // A small one, with the token in the form.
            (None, Some(bytes)) if !bytes.is_empty() => {
                let mut spool = administration.update_spool().await.map_err(refused)?;
                spool.write(bytes).map_err(refused)?;
                UpdateSource::Spool(Arc::new(spool))
            }
            // As with the original, the job finds that there is no file.
            (None, None) if call.form.text(FIELD).is_some_and(|text| !text.is_empty()) => {
                UpdateSource::Missing
            }
            _ => return Err(Fault::bare(StatusCode::BAD_REQUEST)),
        };
        let values = call.app().settings().current();
        let how = InstallUpdate::default();
        match administration.install_update(call.asker()?, source, how, &values).await {
            // The one that runs goes on; its status tells of this one as long as it does.
            Ok(_) | Err(Error::Busy { kind: UPDATE, .. }) => Ok(accepted(PATH)),
            Err(error) => Err(refused(error)),
        }
    }
    .boxed()
}

/// In the order of the original.
#[derive(Debug, Serialize)]
struct Told {
    status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percentage: Option<u8>,
    log: Option<String>,
    #[serde(rename = "error-message", skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(rename = "error-code", skip_serializing_if = "Option::is_none")]
    code: Option<String>,
}

fn show(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let administration = call.app().administration();
        let updates = administration.update_status().await?;
        let last = administration.last(UPDATE, LINES).await?;
        let log = last.map(|last| log(&last.lines)).filter(|log| !log.is_empty());
        Ok(found(&Told {
            status: updates.job.map(|job| status(job.state)),
            percentage: updates.percentage,
            log,
            message: updates.message,
            code: updates.code,
        }))
    }
    .boxed()
}

fn whole_log(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let last = call.app().administration().last(UPDATE, ALL).await?;
        let last = last.ok_or_else(Fault::not_found)?;
        let lines = last.lines.iter().map(|one| line(one) + "\n");
        Ok(plain(lines.collect::<String>()))
    }
    .boxed()
}
