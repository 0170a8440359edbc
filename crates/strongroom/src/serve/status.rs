//! `strongroom status`: how the appliance fares, asked through its control socket.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use strongroom_api::server::connect_control;

use super::start::SOCKET;
use crate::exit::{Context, Done};

/// Bytes of the answer at most.
const MAX: usize = 1 << 20;
/// How long it may take.
const TIME: Duration = Duration::from_secs(30);

/// Show how the appliance fares
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom status
  strongroom status --data /var/lib/strongroom --json")]
pub(crate) struct StatusArgs {
    /// The data directory of the appliance
    #[arg(long, value_name = "DIR", default_value = "strongroom-data")]
    data: PathBuf,
}

pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<Done> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let asking = async { tokio::time::timeout(TIME, ask(args)).await };
    let status = runtime.context("starting the runtime")?.block_on(asking);
    let status = status.context("the appliance doesn't answer")??;
    if context.out.json {
        context.out.document(&status)?;
        return Ok(Done::Well);
    }
    let mut out = std::io::stdout().lock();
    for (name, value) in status.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "{:<16} {text}", name.replace('_', " "))?;
    }
    Ok(Done::Well)
}

async fn ask(args: &StatusArgs) -> Result<Value> {
    let path = args.data.join(SOCKET);
    let nobody = || format!("nobody serves {}: run `strongroom serve`", args.data.display());
    let stream = connect_control(&path).await.with_context(nobody)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::get("/v1/system/status").header("host", "localhost");
    let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("reading the answer: {error}"))?.to_bytes();
    let answer: Value = serde_json::from_slice(&body).context("reading the answer")?;
    if !status.is_success() {
        bail!("{}", answer["detail"].as_str().unwrap_or("the appliance refuses"));
    }
    Ok(answer)
}
