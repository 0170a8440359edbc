//! Backups and restores that the appliance carries out.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};
use strongroom_client::types::Job;

use super::{ApplianceArgs, from_root, images, jobs, pool};
use crate::exit::{Context, Done};

/// Backs up paths of this machine: `what` is the request but for them.
pub(crate) fn backup(
    context: &Context,
    pool_name: Option<&str>,
    paths: &[PathBuf],
    block: Option<&PathBuf>,
    mut what: Value,
) -> Result<Done> {
    let client = ApplianceArgs::default().client_or_env()?;
    let pool = pool(&client, pool_name)?;
    let paths = paths.iter().map(|path| from_root(&client, path)).collect::<Result<Vec<_>>>()?;
    what["paths"] = paths.into();
    what["block"] = block.map(|path| from_root(&client, path)).transpose()?.into();
    let job: Job = client.post(&format!("/v1/pools/{}/backups", pool.id), &what)?;
    jobs::follow(context, &client, job, true)
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
pub(crate) fn restore(context: &Context, restoring: Restoring<'_>) -> Result<Done> {
    let Restoring { pool, what, to, mut rest } = restoring;
    let client = ApplianceArgs::default().client_or_env()?;
    let (image, from) = what.split_once(":/").map_or((what, ""), |(image, path)| (image, path));
    let image = images::find(&client, pool, image)?;
    rest["to"] = json!(from_root(&client, &to)?);
    rest["from"] = json!(from);
    let job: Job = client.post(&format!("/v1/images/{}/restore", image.id), &rest)?;
    jobs::follow(context, &client, job, true)
}
