//! What the catalogue and the services of this crate tell of the appliance, each in a paper of
//! bounded size.

use jiff::Timestamp;
use serde_json::{Value, json};
use strongroom_catalog::events::Event;
use strongroom_catalog::identity::{AuditHead, AuditLine};
use strongroom_catalog::jobs::{self, Job, State};
use strongroom_catalog::{Catalog, Record, SCHEMA, Sql};
use strongroom_identity::to_json;

use super::Paper;
use crate::{Build, Health, Result, Services, Settings, Usage};

/// Rows of each kind, the newest.
const ROWS: u32 = 5_000;
/// Rows that are read at once.
const BATCH: u32 = 500;
/// Bytes of a paper.
const SIZE: usize = 4 << 20;
/// Failed jobs whose logs are told, the newest.
const FAILED: u32 = 50;
/// Lines of each.
const LINES: u32 = 1_000;

/// A paper of one JSON document.
pub(super) fn document(name: &str, value: &Value) -> Paper {
    Paper { name: name.to_owned(), text: format!("{value:#}\n") }
}

/// Rows of a table that has an `id`, the newest first, as lines of JSON, until there are enough.
async fn newest<R: Record>(
    catalog: &Catalog,
    from: &'static str,
    id: impl Fn(&R) -> i64,
    show: impl Fn(&R) -> String,
) -> Result<String> {
    let (mut lines, mut size, mut count) = (Vec::new(), 0, 0);
    let mut before = i64::MAX;
    loop {
        let sql = Sql::new(from).bind(before).bind(BATCH);
        let rows: Vec<R> = catalog.find(sql).await?;
        for row in &rows {
            before = before.min(id(row));
            let line = show(row);
            size += line.len() + 1;
            count += 1;
            if size > SIZE || count > ROWS {
                return Ok(oldest_first(lines));
            }
            lines.push(line);
        }
        if rows.len() < BATCH as usize {
            return Ok(oldest_first(lines));
        }
    }
}

fn oldest_first(mut lines: Vec<String>) -> String {
    lines.reverse();
    lines.push(String::new());
    lines.join("\n")
}

pub(super) async fn events(catalog: &Catalog) -> Result<Paper> {
    let from = "FROM events WHERE id < ? ORDER BY id DESC LIMIT ?";
    let show = |event: &Event| {
        json!({
            "id": event.id,
            "at": event.at.to_string(),
            "severity": event.severity.word(),
            "kind": event.kind,
            "organisation_id": event.organisation_id,
            "object": event.object,
            "job_id": event.job_id,
            "message": event.message,
        })
        .to_string()
    };
    let text = newest(catalog, from, |event: &Event| event.id, show).await?;
    Ok(Paper { name: "events.jsonl".into(), text })
}

pub(super) async fn audit(catalog: &Catalog) -> Result<Paper> {
    let from = "FROM audit WHERE id < ? ORDER BY id DESC LIMIT ?";
    let text = newest(catalog, from, |line: &AuditLine| line.id, to_json).await?;
    Ok(Paper { name: "audit.jsonl".into(), text })
}

pub(super) async fn jobs(catalog: &Catalog) -> Result<Paper> {
    let from = "FROM jobs WHERE id < ? ORDER BY id DESC LIMIT ?";
    let text = newest(catalog, from, |job: &Job| job.id, show_job).await?;
    Ok(Paper { name: "jobs.jsonl".into(), text })
}

/// A job without what it was told to do: that may be anything.
fn show_job(job: &Job) -> String {
    let at = |at: Option<Timestamp>| at.map(|at| at.to_string());
    json!({
        "id": job.id,
        "kind": job.kind,
        "state": job.state.word(),
        "organisation_id": job.organisation_id,
        "user_name": job.user_name,
        "pool_id": job.pool_id,
        "node": job.node,
        "host": job.host,
        "object": job.object,
        "error": job.error,
        "attempt": job.attempt,
        "attempts": job.attempts,
        "retry_of": job.retry_of,
        "retried_as": job.retried_as,
        "queued_at": job.queued_at.to_string(),
        "run_at": job.run_at.to_string(),
        "started_at": at(job.started_at),
        "ended_at": at(job.ended_at),
        "worker": job.worker,
        "phase": job.progress.phase,
        "bytes_done": job.progress.bytes_done,
        "bytes_total": job.progress.bytes_total,
    })
    .to_string()
}

/// The newest jobs that failed.
pub(super) async fn failed(catalog: &Catalog) -> Result<Vec<i64>> {
    let words = [State::Failed, State::Retried, State::Warnings].map(State::word);
    let sql = "FROM jobs WHERE state IN (?, ?, ?) ORDER BY id DESC LIMIT ?";
    let sql = words.into_iter().fold(Sql::new(sql), Sql::bind).bind(FAILED);
    let jobs: Vec<Job> = catalog.find(sql).await?;
    Ok(jobs.into_iter().map(|job| job.id).collect())
}

/// The last lines of a job's log.
pub(super) async fn job_log(catalog: &Catalog, job: i64) -> Result<Paper> {
    let sql = "FROM job_log WHERE job_id = ? ORDER BY id DESC LIMIT ?";
    let lines: Vec<jobs::Line> = catalog.find(Sql::new(sql).bind(job).bind(LINES)).await?;
    let (mut kept, mut size) = (Vec::new(), 0);
    for line in lines {
        let jobs::Line { at, level, message, .. } = line;
        let line = json!({"at": at.to_string(), "level": level.word(), "message": message});
        let line = line.to_string();
        size += line.len() + 1;
        if size > SIZE {
            break;
        }
        kept.push(line);
    }
    Ok(Paper { name: format!("jobs/{job}.jsonl"), text: oldest_first(kept) })
}

pub(super) async fn settings(settings: &Settings) -> Result<Paper> {
    let show = |one: crate::Setting| {
        json!({
            "key": one.definition.key,
            "value": one.value,
            "changed_at": one.changed_at.map(|at| at.to_string()),
        })
    };
    let all: Vec<_> = settings.list().await?.into_iter().map(show).collect();
    Ok(document("settings.json", &all.into()))
}

pub(super) fn version(version: &str) -> Paper {
    let Build { version: program_version, commit, source_at, target, rustc } = Build::this();
    let value = json!({
        "version": version,
        "program_version": program_version,
        "commit": commit,
        "source_at": source_at.map(|at| at.to_string()),
        "target": target,
        "rustc": rustc,
        "catalogue_schema": SCHEMA,
    });
    document("version.json", &value)
}

pub(super) fn health(health: &Health) -> Paper {
    let measured = health.measure();
    let usage = |usage: Option<Usage>| {
        usage.map(|usage| {
            let Usage { total, used, free } = usage;
            json!({"total_bytes": total, "used_bytes": used, "free_bytes": free})
        })
    };
    let value = json!({
        "at": measured.at.to_string(),
        "disk": usage(measured.disk),
        "memory": usage(measured.memory),
        "cores": measured.cpu.cores,
        "loads": measured.cpu.loads,
    });
    document("health.json", &value)
}

pub(super) fn services(services: &Services) -> Paper {
    let show = |one: crate::Service| {
        json!({
            "name": one.name,
            "address": one.address,
            "listening": one.listening,
            "since": one.since.to_string(),
        })
    };
    let all: Vec<_> = services.list().into_iter().map(show).collect();
    document("services.json", &all.into())
}

/// How much the catalogue has.
pub(super) async fn catalogue(catalog: &Catalog) -> Result<Paper> {
    let mut rows = serde_json::Map::new();
    for table in ["events", "jobs", "job_log", "images", "pools", "users", "sessions", "api_keys"] {
        let sql = Sql::new("SELECT COUNT(*) FROM ").and(table);
        let count = catalog.rows(sql).await?.into_iter().next();
        let count: Option<i64> = count.and_then(|mut row| row.take().ok());
        rows.insert(table.to_owned(), count.into());
    }
    let head: Option<AuditHead> = catalog.find_one(AuditHead::only()).await?;
    let latencies = catalog.latencies();
    let value = json!({
        "engine": format!("{:?}", catalog.engine()),
        "schema": SCHEMA,
        "rows": rows,
        "audit_lines": head.map(|head| head.last),
        "latencies": format!("{latencies:?}"),
    });
    Ok(document("catalogue.json", &value))
}

/// What the system says of this process.
pub(super) fn process() -> Paper {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/self/{name}")).ok();
    let files = std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count);
    let mut text = format!("open files: {files:?}\n");
    for name in ["status", "limits", "io", "mountinfo", "cgroup"] {
        let told = read(name).unwrap_or_else(|| "not told\n".into());
        text.push_str(&format!("\n/proc/self/{name}\n{told}"));
    }
    for name in ["version", "loadavg", "meminfo", "pressure/io", "pressure/memory"] {
        let told = std::fs::read_to_string(format!("/proc/{name}"));
        text.push_str(&format!("\n/proc/{name}\n{}", told.unwrap_or_else(|_| "not told\n".into())));
    }
    text.truncate(text.floor_char_boundary(SIZE));
    Paper { name: "process.txt".into(), text }
}
