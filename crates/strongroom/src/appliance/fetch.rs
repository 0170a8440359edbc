//! Files that an operation gives.

use std::io::{self, IsTerminal, Write};
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::json;
use tempfile::NamedTempFile;

use super::ApplianceArgs;
use super::operation::Operation;
use crate::exit::{Context, usage};

/// What becomes of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Old {
    /// It stays, and that is an error.
    Stays,
    /// It goes once the new one is whole.
    Replaced,
}

/// Stores what an operation gives, for its owner alone: whole, or not at all. `-` is standard output.
pub(super) fn fetch(
    context: &Context,
    appliance: &ApplianceArgs,
    operation: &Operation,
    output: &Path,
    old: Old,
) -> Result<()> {
    let client = appliance.client()?;
    let path = operation.path(&[]);
    if output == Path::new("-") {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            return Err(usage("an archive is not for a terminal: name a file, or use a pipe"));
        }
        client.download(&path, &[], &mut out)?;
        return Ok(out.flush()?);
    }
    let writing = || format!("writing {}", output.display());
    if old == Old::Stays && output.symlink_metadata().is_ok() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists)).with_context(writing);
    }
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(dir.unwrap_or(Path::new("."))).with_context(writing)?;
    let bytes = client.download(&path, &[], &mut file)?;
    file.as_file().sync_all().with_context(writing)?;
    let kept = match old {
        Old::Stays => file.persist_noclobber(output),
        Old::Replaced => file.persist(output),
    };
    kept.map_err(|error| error.error).with_context(writing)?;
    let text = format!("{} has {bytes} bytes", output.display());
    Ok(context.out.done(json!({ "file": output, "bytes": bytes }), &text)?)
}
