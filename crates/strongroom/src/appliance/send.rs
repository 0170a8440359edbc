//! Files that an operation takes, however large they are.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use strongroom_client::Client;

use super::operation::Operation;

/// Bytes that are sent at once.
const PIECE: u64 = 4 << 20;

/// Sends a file piece by piece.
pub(super) fn send(client: &Client, operation: &Operation, path: &Path) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    let mut file = File::open(path).with_context(reading)?;
    let mut offset = 0u64;
    loop {
        let mut piece = Vec::new();
        (&mut file).take(PIECE).read_to_end(&mut piece).with_context(reading)?;
        if piece.is_empty() && offset > 0 {
            return Ok(());
        }
        let at = offset.to_string();
        let call = operation.call(&[]).queried(&[("offset", &at)]).bytes(piece);
        let sent: Value = client.call(&call)?;
        let Some(bytes) = sent["bytes"].as_u64().filter(|bytes| *bytes > offset) else {
            bail!("{} is empty", path.display());
        };
        offset = bytes;
    }
}
