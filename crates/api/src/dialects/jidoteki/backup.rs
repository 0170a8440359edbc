//! Section 12: the backup of the appliance itself.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use strongroom_appliance::Error;
use strongroom_identity::{Right, Secret};
use strongroom_protect::State;

use super::answer::{Answer, Fault, accepted, done, file, found, plain};
use super::dispatch::Call;
use super::information::short;
use super::{BYTES, Documented, Endpoint, JSON, Parameter, TEXT};
use crate::stream::of_file;

const PATH: &str = "/backup";
const SECTION: &str = "Backup";
const ARCHIVE: &str = "backup.tar";
const NO_ARCHIVE: &str = "Unable to extract backup archive";

const NONE: Documented = Documented::bare(404, "There is none.");

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: PATH,
        id: "jidoteki.backup.start",
        summary: "Start a backup of the appliance, or stop or delete it",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[Parameter::text(
            "action",
            true,
            "`START` to start one, `STOP` to stop or delete it.",
        )],
        answers: &[
            Documented::bare(
                202,
                "A job makes it, sealed under the token; or it is stopped or deleted.",
            ),
            Documented::bare(400, "The action is another one."),
        ],
        run: start,
    },
    Endpoint::get(
        SECTION,
        PATH,
        "jidoteki.backup.show",
        "How the backup went",
        Right::SystemView,
        &[Documented::found(JSON, "`running`, `failed`, or `success` with size and sum."), NONE],
        show,
    ),
    Endpoint::get(
        SECTION,
        "/backup/download",
        "jidoteki.backup.download",
        "The backup",
        Right::SystemManage,
        &[Documented::found(BYTES, "A tar of sealed files."), NONE],
        download,
    ),
    Endpoint::get(
        SECTION,
        "/backup/log",
        "jidoteki.backup.log",
        "The log of backups and restores",
        Right::SystemView,
        &[Documented::found(TEXT, "All of it."), NONE],
        log,
    ),
    Endpoint {
        method: Method::POST,
        path: "/backup/restore",
        id: "jidoteki.backup.restore",
        summary: "Put a backup in the place of what is there",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[Parameter::file(
            "archive",
            true,
            "The backup, of an appliance that had the same token.",
        )],
        answers: &[
            Documented::bare(
                200,
                "It is right and will be in force; the appliance starts again with it.",
            ),
            Documented::bare(400, "It is missing, or can't be restored: nothing was changed."),
        ],
        run: restore,
    },
];

/// What an archive is sealed under: what who has the token can tell.
pub(super) async fn secret(call: &Call) -> Answer<Option<Secret>> {
    let who = call.principal.as_ref().ok_or_else(Fault::unauthenticated)?;
    Ok(call.app().identity().admin_token_key(who).await?)
}

fn start(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let administration = call.app().administration();
        let action = call.form.text("action").unwrap_or_default().to_ascii_uppercase();
        match action.as_str() {
            "START" => {
                let secret = secret(&call).await?.ok_or_else(Fault::unauthenticated)?;
                match administration.start_backup(call.asker()?, &secret).await {
                    // As with the original, the one that runs goes on.
                    Ok(_) | Err(Error::Busy { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            "STOP" => {
                administration.stop_backup().await?;
            }
            _ => {
                return Err(Fault::bad(
                    "Missing or invalid option: action. Expected value 'START' or 'STOP'",
                ));
            }
        }
        Ok(accepted(PATH))
    }
    .boxed()
}

/// A backup that there is.
#[derive(Debug, Serialize)]
struct Told {
    status: &'static str,
    filesize: String,
    sha256: String,
}

fn show(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let status = call.app().administration().backup_status().await?;
        let state = status.job.map(|job| job.state);
        match (state, status.file) {
            (Some(State::Queued | State::Running | State::Retried), _) => {
                Ok(found(&json!({"status": "running"})))
            }
            (Some(State::Failed), _) => Ok(found(&json!({"status": "failed"}))),
            (_, Some(file)) => Ok(found(&Told {
                status: "success",
                filesize: short(file.bytes),
                sha256: file.sha256,
            })),
            _ => Err(Fault::not_found()),
        }
    }
    .boxed()
}

fn download(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let (archive, facts) = call.app().administration().open_backup().await?;
        let mut response = file(ARCHIVE, of_file(archive));
        response.headers_mut().insert(header::CONTENT_LENGTH, facts.bytes.into());
        Ok(response)
    }
    .boxed()
}

fn log(call: Call) -> BoxFuture<'static, Answer> {
    async move { Ok(plain(call.app().administration().backup_log().await?)) }.boxed()
}

/// Why an archive was not taken, as far as the dialect tells; the log says more.
pub(super) fn refused(error: Error) -> Fault {
    match error {
        Error::Archive(_)
        | Error::TooLarge { .. }
        | Error::Busy { .. }
        | Error::Restoring
        | Error::Room { .. }
        | Error::Catalog(strongroom_catalog::Error::Busy { .. })
        | Error::Certificate { .. } => Fault::bad(NO_ARCHIVE),
        error => error.into(),
    }
}

fn restore(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let administration = call.app().administration();
        let secret = secret(&call).await?.ok_or_else(Fault::unauthenticated)?;
        let by = call.principal.as_ref().map(|by| by.name.clone()).unwrap_or_default();
        let restored = match (call.form.spooled(), call.form.file("archive")) {
            (Some(spool), _) if !spool.is_empty() => {
                administration.restore_backup(spool, &secret, &by).await
            }
            // A small one, with the token in the form.
            (None, Some(bytes)) if !bytes.is_empty() => {
                let mut spool = administration.spool().await.map_err(refused)?;
                spool.write(bytes).map_err(refused)?;
                administration.restore_backup(&spool, &secret, &by).await
            }
            (None, None) if call.form.text("archive").is_some_and(|text| !text.is_empty()) => {
                return Err(Fault::bad(NO_ARCHIVE));
            }
            _ => return Err(Fault::bare(StatusCode::BAD_REQUEST)),
        };
        restored.map_err(refused)?;
        Ok(done())
    }
    .boxed()
}
