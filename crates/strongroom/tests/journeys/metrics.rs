//! The dashboard and the alerts ask for metrics that there are.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;

use crate::support::served::Served;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging");
const RULES: &str = "prometheus/strongroom.rules.yml";

/// The names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("strongroom_") || word.starts_with("process_")).collect()
}

#[test]
fn what_dashboard_and_alerts_ask_for_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(&dir.path().join("data"));
    let mut stream = UnixStream::connect(dir.path().join("data/control.sock")).unwrap();
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut told = String::new();
    stream.read_to_string(&mut told).unwrap();
    served.stop();

    // Each is declared, even when there is nothing to tell yet.
    let kinds: BTreeSet<_> =
        told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(kinds.len() > 40, "{told}");
    let read = |name: &str| fs::read_to_string(Path::new(PACKAGING).join(name)).unwrap();
    let (board, rules) = (read("grafana/strongroom.json"), read(RULES));
    serde_json::from_str::<serde_json::Value>(&board).unwrap();
    let asked = names(&board).into_iter().chain(names(&rules)).collect::<BTreeSet<_>>();
    assert!(asked.len() > 30, "{asked:?}");
    for name in asked {
        let base = name.strip_suffix("_total").or_else(|| name.strip_suffix("_bucket"));
        assert!(kinds.contains(base.unwrap_or(name)), "nothing is called {name}:\n{told}");
    }
    for line in ["strongroom_certificate_end_timestamp_seconds ", "strongroom_build_info{version="]
    {
        assert!(told.lines().any(|there| there.starts_with(line)), "{line}:\n{told}");
    }
}

#[test]
fn the_alerts_are_understood_by_prometheus() {
    let rules = Path::new(PACKAGING).join(RULES);
    let checked = Command::new("promtool").args(["check", "rules"]).arg(rules).output();
    let checked = checked.expect("promtool is of the Debian package `prometheus`");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
