//! What commands of a vendor share: the pair of keys that one signs with, and small files.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use zeroize::Zeroizing;

use crate::exit::Context;

/// Bytes of a key's file.
const KEY: u64 = 64 << 10;

#[derive(clap::Args, Debug)]
pub(crate) struct PairArgs {
    /// Where the private key goes, for its owner alone
    #[arg(long, value_name = "FILE")]
    private: PathBuf,
    /// Where the public key goes, which appliances are given
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
}

impl PairArgs {
    /// Keeps a pair of keys in PEM, with which `what` is signed. Files that are there stay.
    pub(crate) fn keep(
        &self,
        context: &Context,
        what: &str,
        private_pem: &str,
        public_pem: &str,
    ) -> Result<()> {
        let (private, public) = (&self.private, &self.public);
        for path in [private, public] {
            let there = path.symlink_metadata().is_ok();
            ensure!(!there, "{} is there already", path.display());
        }
        create(private, 0o600, private_pem.as_bytes())?;
        create(public, 0o644, public_pem.as_bytes())?;
        let told = json!({ "private": private, "public": public });
        let text = format!("{what} are signed with {}", private.display());
        Ok(context.out.done(told, &text)?)
    }
}

/// What a file with keys in PEM is taken for by `of_pem`.
pub(crate) fn read_keys<T, E>(path: &Path, of_pem: impl FnOnce(&[u8]) -> Result<T, E>) -> Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let pem = Zeroizing::new(read(path, KEY)?);
    of_pem(&pem).with_context(|| format!("reading {}", path.display()))
}

/// Reads a file that has no more bytes than that.
pub(crate) fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("reading {}", path.display()))?;
    ensure!(bytes.len() as u64 <= most, "{} has more than {most} bytes", path.display());
    Ok(bytes)
}

/// Writes a file that must not be there yet.
pub(crate) fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("writing {}", path.display()))
}
