//! What the services tell of themselves for an archive of logs, and for the vendor.

use std::io;

use bytes::Bytes;
use futures_util::Stream;
use jiff::Timestamp;
use serde_json::json;
use strongroom_appliance::{Bundle, Hidden, Paper};
use strongroom_catalog::list::Scope;
use strongroom_catalog::pools;
use strongroom_protect::StatsOf;

use crate::app::App;
use crate::native::License;
use crate::problem::Result;

/// The archive of logs.
pub(crate) const LOGS: &str = "logs.tar.gz";
/// What only the vendor opens.
pub(crate) const DEBUG: &str = "debug-bundle.tar";

pub(crate) async fn logs(app: &App) -> Result<Bundle> {
    let hidden = hidden(app).await?;
    Ok(app.support().logs(app.services(), vec![licence(app).await?], hidden).await?)
}

pub(crate) async fn debug(app: &App) -> Result<Bundle> {
    let hidden = hidden(app).await?;
    let more = vec![licence(app).await?, pools(app).await, metrics(app).await];
    Ok(app.support().debug(app.services(), more, hidden).await?)
}

/// The bytes, as they come.
pub(crate) fn stream(mut bundle: Bundle) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    async_stream::stream! {
        while let Some(piece) = bundle.next().await {
            yield piece.map(Bytes::from);
        }
    }
}

/// What opens the pools.
async fn hidden(app: &App) -> Result<Hidden> {
    let mut hidden = Hidden::default();
    for pool in pools::all(app.catalog()).await? {
        if let Some(passphrase) = app.storage().passphrase(&pool).await? {
            hidden.text(&passphrase);
        }
    }
    // What the administration token's HMACs are made with.
    let appliance = app.identity().appliance().await?;
    if let Some(key) = app.identity().admin_token_key(&appliance).await? {
        hidden.text(key.expose());
    }
    Ok(hidden)
}

async fn licence(app: &App) -> Result<Paper> {
    let told = app.licences(|all| Ok(all.current())).await?;
    let told = match told {
        Ok(Some(licence)) => json!(License::from(licence)),
        Ok(None) => json!({"state": "none"}),
        Err(error) => json!({"state": "invalid", "error": error.to_string()}),
    };
    Ok(Paper::json("license.json", &told))
}

/// All that is known of pools, as this program has it. What can't be had is told as such.
async fn pools(app: &App) -> Paper {
    let now = Timestamp::now();
    let all = StatsOf { scope: Scope::All, pools: None };
    let text = match app.protect().stats(all, now, now).await {
        Ok(stats) => format!("{stats:#?}\n"),
        Err(error) => format!("{error}\n"),
    };
    Paper { name: "pools.txt".into(), text }
}

async fn metrics(app: &App) -> Paper {
    Paper { name: "metrics.txt".into(), text: app.metrics().text(app).await }
}
