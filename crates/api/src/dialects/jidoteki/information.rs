//! Section 7: version, changelog, build, health, endpoints.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde_json::json;
use strongroom_appliance as known;
use strongroom_identity::Right;

use super::answer::{Answer, found, plain};
use super::dispatch::Call;
use super::{Documented, Endpoint, JSON, PREFIX, TEXT};
use crate::problem::Problem;

const SECTION: &str = "Information";

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint::get(
        SECTION,
        "/version",
        "jidoteki.version",
        "The version",
        Right::SystemView,
        &[Documented::found(JSON, "The version of the program.")],
        version,
    ),
    Endpoint::get(
        SECTION,
        "/changelog",
        "jidoteki.changelog",
        "What is new",
        Right::SystemView,
        &[Documented::found(TEXT, "What users notice of each version, newest first.")],
        changelog,
    ),
    Endpoint::get(
        SECTION,
        "/build",
        "jidoteki.build",
        "What was built",
        Right::SystemView,
        &[Documented::found(JSON, "What the builder said; null where it said nothing.")],
        build,
    ),
    Endpoint::get(
        SECTION,
        "/health",
        "jidoteki.health",
        "Disk, memory and processors",
        Right::SystemView,
        &[Documented::found(JSON, "Measured at the request; null where the system doesn't say.")],
        health,
    ),
    Endpoint::get(
        SECTION,
        "/endpoints",
        "jidoteki.endpoints",
        "What can be asked for",
        Right::SystemView,
        &[Documented::found(JSON, "The first level of all paths.")],
        endpoints,
    ),
];

fn version(call: Call) -> BoxFuture<'static, Answer> {
    async move { Ok(found(&json!({"version": call.app().administration().version()}))) }.boxed()
}

fn changelog(call: Call) -> BoxFuture<'static, Answer> {
    async move { Ok(plain(call.app().administration().changelog())) }.boxed()
}

#[derive(Debug, Serialize)]
struct Build {
    /// When its source was made, in seconds since 1970.
    builddate: Option<String>,
    version: String,
    commit: Option<&'static str>,
    target: &'static str,
    rustc: Option<&'static str>,
}

fn build(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let known::Build { commit, source_at, target, rustc, .. } = known::Build::this();
        let version = call.app().administration().version();
        let builddate = source_at.map(|at| at.as_second().to_string());
        Ok(found(&Build { builddate, version, commit, target, rustc }))
    }
    .boxed()
}

#[derive(Debug, Serialize)]
struct Health {
    disk: Option<Usage>,
    memory: Option<Usage>,
    cpu: Cpu,
}

#[derive(Debug, Serialize)]
struct Usage {
    used: String,
    total: String,
    percentage: u32,
}

#[derive(Debug, Serialize)]
struct Cpu {
    num: Option<u32>,
    load: Option<String>,
    cpu5min: Option<u64>,
}

fn health(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let health = call.app().health().clone();
        // A filesystem may take its time.
        let measured = tokio::task::spawn_blocking(move || health.measure()).await;
        let measured = measured.map_err(|error| Problem::internal(&error))?;
        let usage = |usage: known::Usage, size: fn(u64) -> String| Usage {
            used: size(usage.used),
            total: size(usage.total),
            percentage: usage.percent(),
        };
        let known::Cpu { cores, loads } = measured.cpu;
        let load = loads.map(|[one, five, fifteen]| format!("{one:.2}, {five:.2}, {fifteen:.2}"));
        // As in the document's example, where a load of 0.28 on one core is 0.
        let of_five =
            loads.zip(cores).map(|([_, five, _], cores)| (five / f64::from(cores)) as u64);
        Ok(found(&Health {
            disk: measured.disk.map(|disk| usage(disk, short)),
            memory: measured.memory.map(|memory| usage(memory, mebibytes)),
            cpu: Cpu { num: cores, load, cpu5min: of_five },
        }))
    }
    .boxed()
}

fn mebibytes(bytes: u64) -> String {
    format!("{}M", bytes.div_ceil(1 << 20))
}

/// As `df -h` and `du -h` write it: the next larger number, of two or three digits.
pub(super) fn short(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes == 0 {
        return "0".into();
    }
    let mut unit = 0;
    let mut size = 1u128 << 10;
    let bytes = u128::from(bytes);
    // What would be 1024 of a unit is 1.0 of the next.
    while bytes.div_ceil(size) >= 1024 && unit + 1 < UNITS.len() {
        size <<= 10;
        unit += 1;
    }
    // Less than the smallest unit is one of it.
    let tenths = (bytes * 10).div_ceil(size).max(10);
    match tenths < 100 {
        true => format!("{}.{}{}", tenths / 10, tenths % 10, UNITS[unit]),
        false => format!("{}{}", bytes.div_ceil(size), UNITS[unit]),
    }
}

fn endpoints(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let names = call.dialect.names();
        let mut paths: Vec<_> = names.iter().map(|name| format!("{PREFIX}/{name}")).collect();
        paths.push("/docs".into());
        Ok(found(&json!({"endpoints": paths})))
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_df() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1.0K"),
            (10_240, "10K"),
            (10_241, "11K"),
            (131_072, "128K"),
            (3_650_722_201, "3.4G"),
            ((1 << 20) - 1, "1.0M"),
            (234 << 30, "234G"),
            (u64::MAX, "16E"),
        ] {
            assert_eq!(short(bytes), text, "{bytes}");
        }
        assert_eq!(mebibytes(1000 << 20), "1000M");
    }
}
