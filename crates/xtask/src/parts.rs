//! The crates of others that the program is made of.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{run, workspace};

/// A crate of somebody else.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression.
    pub(crate) licence: String,
    /// Where it comes from, as cargo writes it.
    pub(crate) source: String,
    /// Where its files are.
    pub(crate) directory: PathBuf,
}

/// Those that are compiled for this machine, by name: what only tests use, and what only other
/// systems need, isn't among them.
pub(crate) fn parts() -> Result<Vec<Part>> {
    let mut tree = workspace::cargo();
    tree.args(["tree", "--package", "strongroom", "--edges", "normal,build", "--prefix", "none"]);
    tree.args(["--locked", "--format", "{p}"]);
    let used: BTreeSet<(String, String)> = run::capture(&mut tree)?
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ');
            Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
        })
        .collect();
    let metadata = workspace::metadata(true)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut parts = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let (name, version) = (text(&package["name"]), text(&package["version"]));
        let of_others = package["source"].is_string();
        if !of_others || !used.contains(&(name.clone(), version.clone())) {
            continue;
        }
        let manifest = text(&package["manifest_path"]);
        let directory = Path::new(&manifest).parent().context("a manifest lies somewhere")?;
        parts.push(Part {
            name,
            version,
            licence: text(&package["license"]),
            source: text(&package["source"]),
            directory: directory.to_owned(),
        });
    }
    // What can't be read must not pass as harmless.
    if parts.len() < 100 {
        bail!("only {} crates were found: that can't be all", parts.len());
    }
    Ok(parts)
}
