//! Backups and restores that the appliance carries out.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use serde_json::{Value, json};
use strongroom_archive::image::split;
use strongroom_archive::store::Source;
use strongroom_client::Client;
use strongroom_client::ingest::Blind;
use strongroom_client::source::RemoteSource;

use super::follow::StartArgs;
use super::pools::{Upkeep, start};
use super::{from_root, images};
use crate::exit::{Context, Done};

/// Backs up paths of this machine: `what` is the request but for them.
pub(crate) fn backup(
    context: &Context,
    client: &Client,
    pool: Option<&str>,
    (paths, block): (&[PathBuf], Option<&PathBuf>),
    mut what: Value,
    how: &StartArgs,
) -> Result<Done> {
    let paths = paths.iter().map(|path| from_root(client, path)).collect::<Result<Vec<_>>>()?;
    what["paths"] = paths.into();
    what["block"] = block.map(|path| from_root(client, path)).transpose()?.into();
    start(context, client, pool, Upkeep::Backup, &what, how)
}

/// A pool of an appliance to which a backup is sent.
pub(crate) struct Target {
    pub(crate) client: Arc<Client>,
    /// The pool's number.
    pub(crate) pool: i64,
    /// The same pool, for the image to compare with.
    pub(crate) source: Arc<dyn Source + Send + Sync>,
}

/// A pool of an appliance, to send to. Who may not read its images sends without looking.
pub(crate) fn target(context: &Context, client: Client, pool: Option<&str>) -> Result<Target> {
    let pool = super::pools::pool(&client, pool)?.id;
    let client = Arc::new(client);
    let source: Arc<dyn Source + Send + Sync> = match RemoteSource::open(Arc::clone(&client), pool)
    {
        Ok(source) => {
            let source = Arc::new(source);
            context.interrupt.stops(&source);
            source
        }
        Err(error) if error.is_forbidden() => Arc::new(Blind),
        Err(error) => return Err(error.into()),
    };
    Ok(Target { client, pool, source })
}

/// What is restored, and where to.
#[derive(Debug)]
pub(crate) struct Restoring<'a> {
    /// Only from this pool.
    pub(crate) pool: Option<&'a str>,
    /// IMAGE, or IMAGE:PATH.
    pub(crate) what: &'a str,
    pub(crate) to: PathBuf,
    /// The request but for these.
    pub(crate) rest: Value,
}

/// Restores to this machine.
pub(crate) fn restore(
    context: &Context,
    client: &Client,
    restoring: Restoring<'_>,
    how: &StartArgs,
) -> Result<Done> {
    let Restoring { pool, what, to, mut rest } = restoring;
    let (image, from) = split(what);
    let from = from.unwrap_or_default();
    let image = images::find(client, pool, image)?;
    rest["to"] = json!(from_root(client, &to)?);
    rest["from"] = json!(from);
    how.start(context, client, &images::RESTORE, &[&image.id.to_string()], &rest)
}
