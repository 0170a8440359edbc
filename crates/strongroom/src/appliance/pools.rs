//! Pools of an appliance: what `strongroom pool` does with them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use strongroom_client::types::{Items, Pool};
use strongroom_client::{Client, Place};

use super::follow::StartArgs;
use super::operation::{OnceArgs, forced, operations};
use super::resource::{Resource, describe};
use crate::exit::{Context, Done, usage};
use crate::output::{print_table, table};

operations! {
    CREATE = "pools.create", POST "/v1/pools", by "pool create";
    IMPORT = "pools.import", POST "/v1/pools/import", by "pool import";
    SHOW = "pools.show", GET "/v1/pools/{pool}", by "pool show";
    DETAILS = "pools.details", GET "/v1/pools/{pool}/details", by "pool stats";
    RENAME = "pools.rename", PATCH "/v1/pools/{pool}", by "pool rename";
    REMOVE = "pools.remove", DELETE "/v1/pools/{pool}", by "pool remove";
    GC = "pools.gc", POST "/v1/pools/{pool}/gc", by "pool gc";
    SCRUB = "pools.scrub", POST "/v1/pools/{pool}/scrub", by "pool scrub";
    CHECK = "pools.check", POST "/v1/pools/{pool}/check", by "pool check";
    FORGET = "pools.forget", POST "/v1/pools/{pool}/forget", by "forget";
    REPLACE = "pools.replace_disk", POST "/v1/pools/{pool}/replace-disk", by "pool disk-replace";
    REPAIR = "pools.repair", POST "/v1/pools/{pool}/repair", by "pool repair";
    REKEY = "pools.rekey", POST "/v1/pools/{pool}/rekey", by "pool rekey";
    KEYS = "pools.keys", GET "/v1/pools/{pool}/keys", by "pool key list";
    ADD_KEY = "pools.add_key", POST "/v1/pools/{pool}/keys", by "pool key add";
    CHANGE_KEY = "pools.change_key", PUT "/v1/pools/{pool}/keys/{slot}", by "pool key change";
    REMOVE_KEY = "pools.remove_key", DELETE "/v1/pools/{pool}/keys/{slot}", by "pool key remove";
    BACKUP = "backups.start", POST "/v1/pools/{pool}/backups", by "backup";
}

/// Pools.
pub(crate) static POOLS: Resource = Resource {
    one: "pool",
    path: "/v1/pools",
    id: "pools.list",
    command: "pool list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        (">ORG", "organisation_id"),
        ("NODE", "node"),
        ("PATH", "path"),
        ("ENCRYPTED", "encrypted"),
        ("KNOWN SINCE", "created_at"),
    ],
    sort: None,
    limit: None,
};

/// The pool of that name or number; when none is named, `main` or the only one.
pub(crate) fn pool(client: &Client, name: Option<&str>) -> Result<Pool> {
    let found = |filter: &str| -> Result<Vec<Pool>> {
        let pools: Items<Pool> = client.get(POOLS.path, &[("filter", filter), ("limit", "2")])?;
        Ok(pools.items)
    };
    if let Some(pool) = found(&format!("name:=={}", name.unwrap_or("main")))?.pop() {
        return Ok(pool);
    }
    if name.is_some_and(|name| name.parse::<i64>().is_ok())
        && let Some(pool) = found(&format!("id:=={}", name.unwrap_or_default()))?.pop()
    {
        return Ok(pool);
    }
    let mut pools: Items<Pool> = client.get(POOLS.path, &[("limit", "20")])?;
    if let (None, [_]) = (name, &pools.items[..]) {
        return Ok(pools.items.remove(0));
    }
    let names = pools.items.iter().map(|pool| pool.name.as_str()).collect::<Vec<_>>().join(", ");
    match names.is_empty() {
        true => Err(usage("the appliance has no pool")),
        false => Err(usage(format!("which of the appliance's pools? It has: {names}"))),
    }
}

/// A directory that the appliance is to use, from the root: one of this machine when it is here.
pub(crate) fn place(client: &Client, path: &Path) -> Result<String> {
    match client.place() {
        Place::Remote { .. } if path.is_absolute() => path
            .to_str()
            .map(str::to_owned)
            .ok_or_else(|| usage(format!("{} is not text in UTF-8", path.display()))),
        Place::Remote { .. } => {
            let text =
                "the appliance is elsewhere: give the directory as it is there, from the root";
            Err(usage(text))
        }
        Place::Socket(_) => super::from_root(client, path),
    }
}

fn places(client: &Client, paths: &[PathBuf]) -> Result<Vec<String>> {
    paths.iter().map(|path| place(client, path)).collect()
}

/// A pool that an appliance is to have.
#[derive(Debug)]
pub(crate) struct New<'a> {
    pub(crate) name: &'a str,
    pub(crate) dir: &'a Path,
    pub(crate) disks: &'a [PathBuf],
    pub(crate) org: Option<&'a str>,
    pub(crate) passphrase: Option<String>,
}

impl New<'_> {
    fn body(&self, client: &Client) -> Result<Value> {
        let organisation =
            self.org.map(|org| super::named::id(client, &super::orgs::ORGANISATIONS, org));
        Ok(json!({
            "name": self.name,
            "path": place(client, self.dir)?,
            "disks": places(client, self.disks)?,
            "organisation_id": organisation.transpose()?,
            "passphrase": self.passphrase,
        }))
    }

    /// Has it made.
    pub(crate) fn create(
        &self,
        context: &Context,
        client: &Client,
        how: &Value,
        once: &OnceArgs,
    ) -> Result<Done> {
        let mut body = self.body(client)?;
        for (name, value) in how.as_object().into_iter().flatten() {
            body[name] = value.clone();
        }
        let made: Value = CREATE.make(client, &[], &body, once)?;
        let passphrase = made["passphrase"].as_str().map(str::to_owned);
        context.out.report(None, made.clone(), |out| {
            writeln!(out, "made the pool {} with the number {}", self.name, made["pool"]["id"])?;
            let Some(passphrase) = passphrase else { return Ok(()) };
            writeln!(out, "passphrase  {passphrase}")?;
            writeln!(
                out,
                "It is shown this once. Keep it elsewhere: only it and the appliance open the pool."
            )
        })?;
        Ok(Done::Well)
    }

    /// Has one entered that is there.
    pub(crate) fn import(
        &self,
        context: &Context,
        client: &Client,
        how: &StartArgs,
    ) -> Result<Done> {
        how.start(context, client, &IMPORT, &[], &self.body(client)?)
    }
}

/// Tells what a pool is made of.
pub(crate) fn show(context: &Context, client: &Client, name: Option<&str>) -> Result<Done> {
    let id = pool(client, name)?.id.to_string();
    let state: Value = match client.call(&DETAILS.call(&[&id])) {
        // It can't be opened here: then what the catalogue knows of it.
        Err(strongroom_client::Error::Refused(problem)) if problem.code == "conflict" => {
            let known: Value = SHOW.ask(client, &[&id])?;
            json!({ "pool": known, "why_not_more": problem.to_string() })
        }
        state => state?,
    };
    let first = ["pool.id", "pool.name", "state", "layout", "disks"];
    context.out.report(None, state.clone(), |out| describe(out, &first, &state))?;
    Ok(Done::Well)
}

/// Tells what deduplication and compression save.
pub(crate) fn stats(context: &Context, client: &Client, name: Option<&str>) -> Result<Done> {
    let state: Value = DETAILS.ask(client, &[&pool(client, name)?.id.to_string()])?;
    let fields = [
        "images",
        "files",
        "logical_bytes",
        "stored_bytes",
        "disk_bytes",
        "packs",
        "chunks",
        "deduplication",
        "compression",
        "reduction",
    ];
    let stats: Value = fields.iter().map(|field| (*field, state[*field].clone())).collect();
    context.out.report(None, stats.clone(), |out| describe(out, &fields, &stats))?;
    Ok(Done::Well)
}

/// Gives a pool another name.
pub(crate) fn rename(context: &Context, client: &Client, old: &str, new: &str) -> Result<Done> {
    let id = pool(client, Some(old))?.id.to_string();
    let pool: Value = RENAME.send(client, &[&id], &json!({ "name": new }))?;
    context.out.done(pool, &format!("the pool {old} is called {new} now"))?;
    Ok(Done::Well)
}

/// Has the appliance let go of a pool.
pub(crate) fn remove(context: &Context, client: &Client, pool: &Pool, force: bool) -> Result<Done> {
    let remove = REMOVE.call(&[&pool.id.to_string()]);
    client.call::<()>(&remove.queried(&forced(force)))?;
    let text = format!("the appliance let go of the pool {}; its data stays", pool.name);
    context.out.done(json!({ "removed": pool.id }), &text)?;
    Ok(Done::Well)
}

/// Upkeep of a pool that the appliance does as a job.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Upkeep {
    Gc,
    Scrub,
    Check,
    Forget,
    ReplaceDisk,
    Repair,
    Rekey,
    Backup,
}

/// Has the appliance do this with a pool.
pub(crate) fn start(
    context: &Context,
    client: &Client,
    name: Option<&str>,
    what: Upkeep,
    body: &Value,
    how: &StartArgs,
) -> Result<Done> {
    let operation = match what {
        Upkeep::Gc => &GC,
        Upkeep::Scrub => &SCRUB,
        Upkeep::Check => &CHECK,
        Upkeep::Forget => &FORGET,
        Upkeep::ReplaceDisk => &REPLACE,
        Upkeep::Repair => &REPAIR,
        Upkeep::Rekey => &REKEY,
        Upkeep::Backup => &BACKUP,
    };
    let id = pool(client, name)?.id.to_string();
    how.start(context, client, operation, &[&id], body)
}

/// A key slot of a pool.
#[derive(Debug, Deserialize, Serialize)]
struct Slot {
    slot: u32,
    label: String,
    kind: String,
    opened: bool,
}

/// Lists the key slots of a pool.
pub(crate) fn keys(context: &Context, client: &Client, name: Option<&str>) -> Result<Done> {
    let id = pool(client, name)?.id.to_string();
    let slots: Items<Slot> = KEYS.ask(client, &[&id])?;
    context.out.report(None, json!({ "keys": slots.items }), |out| {
        if slots.items.is_empty() {
            return writeln!(out, "the pool is not encrypted");
        }
        let mut rows = table(&[">SLOT", "KIND", "LABEL", "OPENED"]);
        for slot in &slots.items {
            rows.add_row([
                slot.slot.to_string(),
                slot.kind.replace('_', " "),
                strongroom_archive::show(slot.label.as_bytes()),
                if slot.opened { "by the appliance" } else { "" }.into(),
            ]);
        }
        print_table(out, &rows)
    })?;
    Ok(Done::Well)
}

/// Adds a secret that opens a pool.
pub(crate) fn add_key(
    context: &Context,
    client: &Client,
    name: Option<&str>,
    (passphrase, label): (&str, &str),
    once: &OnceArgs,
) -> Result<Done> {
    let id = pool(client, name)?.id.to_string();
    let body = json!({ "passphrase": passphrase, "label": label });
    let slot: Slot = ADD_KEY.make(client, &[&id], &body, once)?;
    context
        .out
        .done(json!({ "added": slot.slot }), &format!("key slot {} was added", slot.slot))?;
    Ok(Done::Well)
}

/// Gives a key slot another secret.
pub(crate) fn change_key(
    context: &Context,
    client: &Client,
    name: Option<&str>,
    slot: u32,
    passphrase: &str,
) -> Result<Done> {
    let id = pool(client, name)?.id.to_string();
    let body = json!({ "passphrase": passphrase });
    let _: Slot = CHANGE_KEY.send(client, &[&id, &slot.to_string()], &body)?;
    context.out.done(json!({ "changed": slot }), &format!("key slot {slot} has a new secret"))?;
    Ok(Done::Well)
}

/// Removes a key slot.
pub(crate) fn remove_key(
    context: &Context,
    client: &Client,
    name: Option<&str>,
    slot: u32,
) -> Result<Done> {
    let id = pool(client, name)?.id.to_string();
    REMOVE_KEY.ask::<()>(client, &[&id, &slot.to_string()])?;
    context.out.done(json!({ "removed": slot }), &format!("key slot {slot} was removed"))?;
    Ok(Done::Well)
}
