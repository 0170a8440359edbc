//! What the process uses up, under the names that Prometheus has for it. From `/proc`; what can't be
//! read there is left out.

use std::fs;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};
use std::sync::atomic::AtomicU64;

pub(super) fn register(registry: &mut Registry) {
    let mut gauge = |name: &str, help: &str, value: Option<i64>| {
        if let Some(value) = value {
            let gauge = Gauge::<i64>::default();
            gauge.set(value);
            registry.register(name, help, gauge);
        }
    };
    let resident = number("/proc/self/statm", 1).map(|pages| pages * page_size() as i64);
    gauge("process_resident_memory_bytes", "Memory that the process has", resident);
    let open = fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as i64);
    gauge("process_open_fds", "Files that the process has open", open);
    let most = getrlimit(Resource::Nofile).current;
    let most = most.and_then(|most| i64::try_from(most).ok());
    gauge("process_max_fds", "Files that the process may have open", most);
    gauge("process_threads", "Threads of the process", stat(19));

    let ticks = stat(13).zip(stat(14)).map(|(user, system)| user + system);
    if let Some(ticks) = ticks {
        let counter = Counter::<f64, AtomicU64>::default();
        counter.inc_by(ticks as f64 / clock_ticks_per_second() as f64);
        registry.register("process_cpu_seconds", "Processor time of the process", counter);
    }
}

/// A number in a file of numbers, counted from 0.
fn number(path: &str, place: usize) -> Option<i64> {
    fs::read_to_string(path).ok()?.split_ascii_whitespace().nth(place)?.parse().ok()
}

/// A field of `/proc/self/stat`, counted from 0. The second one, a name in brackets, may hold
/// anything.
fn stat(place: usize) -> Option<i64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(place.checked_sub(2)?)?.parse().ok()
}
