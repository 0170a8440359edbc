//! What `directories` and `issuers` have in common: they are written as files, and tried.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::Value;
use strongroom_client::Client;

use super::operation::Operation;
use super::resource::Column;
use crate::exit::{Context, Done, usage};
use crate::output::{print_table, table};

/// Bytes of a description.
const MOST: u64 = 1 << 20;

/// The columns of both lists.
pub(super) const COLUMNS: &[Column] = &[
    (">ID", "id"),
    ("NAME", "name"),
    (">ORGANISATION", "organisation_id"),
    ("ENABLED", "enabled"),
    ("MADE AT", "created_at"),
];

/// How it is to be.
#[derive(clap::Args, Debug)]
pub(super) struct FileArgs {
    /// How it is to be: the JSON that the API takes, see docs/identity.md; `-` is standard input
    file: PathBuf,
}

impl FileArgs {
    /// What is in the file.
    pub(super) fn read(&self) -> Result<Value> {
        let reading = || format!("reading {}", self.file.display());
        let mut text = String::new();
        let read = match self.file.as_os_str() == "-" {
            true => io::stdin().take(MOST).read_to_string(&mut text),
            false => open(&self.file).and_then(|file| file.take(MOST).read_to_string(&mut text)),
        };
        read.with_context(reading)?;
        let body: Value = serde_json::from_str(&text)
            .map_err(|e| usage(format!("{}: it is no JSON: {e}", self.file.display())))?;
        match body.is_object() {
            true => Ok(body),
            false => Err(usage(format!("{}: it is no JSON object", self.file.display()))),
        }
    }
}

fn open(path: &Path) -> io::Result<std::fs::File> {
    std::fs::File::open(path)
}

/// Replaces one by what is in a file, unless another changes it meanwhile.
pub(super) fn change(
    context: &Context,
    client: &Client,
    (show, change): (&Operation, &Operation),
    number: &str,
    body: &Value,
) -> Result<()> {
    let before: Value = show.ask(client, &[number])?;
    let version = before["version"].as_i64().unwrap_or_default();
    let changed: Value = client.call(&change.call(&[number]).with(body)?.of_version(version))?;
    let text = format!("changed {}", changed["name"].as_str().unwrap_or_default());
    Ok(context.out.done(changed, &text)?)
}

/// Tells what came of a trial.
pub(super) fn tell(context: &Context, trial: Value) -> Result<Done> {
    let ok = trial["ok"] == true;
    context.out.report(None, trial.clone(), |out| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut steps = table(&["STEP", "", "DETAIL"]);
        for step in trial["steps"].as_array().into_iter().flatten() {
            let went = if step["ok"] == true { "ok" } else { "failed" };
            steps.add_row([text(&step["name"]), went.to_owned(), text(&step["detail"])]);
        }
        print_table(out, &steps)?;
        for group in trial["groups"].as_array().into_iter().flatten() {
            writeln!(out, "group  {}", text(group))?;
        }
        for role in trial["roles"].as_array().into_iter().flatten() {
            let (id, place) = (&role["role_id"], &role["organisation_id"]);
            writeln!(out, "role   {id} in organisation {place}, by {}", text(&role["group"]))?;
        }
        Ok(())
    })?;
    Ok(Done::well_if(ok))
}
