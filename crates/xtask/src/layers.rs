//! `cargo xtask layers`: the floors of ARCHITECTURE.md, checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{run, workspace};

/// Every crate of the design, by its directory, and the crates it may use. A new crate or edge is
/// a decision: draw it in ARCHITECTURE.md, then enter it here.
const FLOORS: &[(&str, &[&str])] = &[
    ("engine", &[]),
    ("archive", &["engine"]),
    ("block", &["engine"]),
    ("catalog", &[]),
    ("identity", &["catalog"]),
    ("iscsi", &["block"]),
    ("nbd", &["block"]),
    ("export", &["archive", "block", "engine"]),
    ("storage", &["archive", "block", "catalog", "engine", "export", "identity", "iscsi", "nbd"]),
    ("protect", &["archive", "block", "catalog", "engine", "identity", "storage"]),
    ("appliance", &["catalog", "identity", "protect"]),
    ("api", &["appliance", "archive", "catalog", "engine", "identity", "protect", "storage"]),
    ("web", &["appliance", "identity", "protect", "storage"]),
    ("client", &["archive", "engine"]),
    (
        "strongroom",
        &[
            "api",
            "appliance",
            "archive",
            "block",
            "catalog",
            "client",
            "engine",
            "export",
            "identity",
            "iscsi",
            "nbd",
            "protect",
            "storage",
            "web",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that are sync and know no network: nothing they use may bring a runtime or a protocol.
const SYNC: &[&str] = &["engine", "archive", "block"];

/// What a sync crate must not bring in, directly or through others.
const RUNTIMES: &[&str] = &[
    "async-executor",
    "async-io",
    "async-std",
    "axum",
    "futures-executor",
    "glommio",
    "hyper",
    "mio",
    "monoio",
    "quinn",
    "reqwest",
    "rustls",
    "smol",
    "tokio",
    "tower",
];

/// The modules that may hold `unsafe`, and why each was worth it.
const UNSAFE: &[(&str, &str)] = &[
    ("crates/engine/src/chunker/x86.rs", "finds boundaries at 32 or 64 positions at once"),
    ("crates/engine/src/erasure/gf.rs", "multiplies 32 bytes of parity with one shuffle"),
];

/// Runs all checks and names everything that is wrong, not only the first.
pub(crate) fn layers() -> Result<()> {
    let metadata = workspace::metadata(false)?;
    let crates = crates(&metadata)?;
    let mut wrong = wrong_edges(&crates);
    for name in SYNC.iter().filter(|name| crates.contains_key(**name)) {
        wrong.extend(runtimes_in(name)?);
    }
    let mut sources = Vec::new();
    for name in crates.keys() {
        collect_sources(&workspace::root().join("crates").join(name), &mut sources)?;
    }
    for path in &sources {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("can't read {}", path.display()))?;
        let name = path.strip_prefix(workspace::root()).unwrap_or(path);
        wrong.extend(wrong_unsafe(&name.to_string_lossy(), &text));
    }
    if wrong.is_empty() {
        println!("{} crates and {} source files keep to their layers", crates.len(), sources.len());
        return Ok(());
    }
    wrong.iter().for_each(|what| eprintln!("{what}"));
    bail!("{} breaks of the layers (see crates/xtask/src/layers.rs)", wrong.len());
}

/// The workspace's crates by directory, with the directories of those they use.
fn crates(metadata: &Value) -> Result<BTreeMap<String, Vec<String>>> {
    let directory = |manifest_dir: &Path| {
        manifest_dir.file_name().map(|name| name.to_string_lossy().into_owned())
    };
    let mut crates = BTreeMap::new();
    for package in metadata["packages"].as_array().context("cargo metadata lists no packages")? {
        let manifest = package["manifest_path"].as_str().context("a package has no manifest")?;
        let name = Path::new(manifest).parent().and_then(directory);
        let uses = package["dependencies"].as_array().into_iter().flatten();
        let uses = uses.filter_map(|d| directory(Path::new(d["path"].as_str()?))).collect();
        crates.insert(name.context("a package lies in no directory")?, uses);
    }
    Ok(crates)
}

fn wrong_edges(crates: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, uses) in crates {
        let Some((_, allowed)) = FLOORS.iter().find(|(floor, _)| floor == name) else {
            wrong.push(format!("crate `{name}` stands on no floor"));
            continue;
        };
        // A crate's tests may want a feature of its own.
        let others = uses.iter().filter(|used| *used != name);
        for used in others.filter(|used| !allowed.contains(&used.as_str())) {
            wrong.push(format!("crate `{name}` may not use `{used}`"));
        }
    }
    wrong
}

/// What the crate brings in (with its default features, as built) that it must not.
fn runtimes_in(name: &str) -> Result<Vec<String>> {
    let package = format!("strongroom-{name}");
    let tree = ["tree", "--edges", "normal", "--prefix", "none", "--format", "{p}", "--package"];
    let tree = run::capture(workspace::cargo().args(tree).arg(&package))?;
    let brought = tree.lines().filter_map(|line| line.split_whitespace().next());
    let mut brought: Vec<_> = brought.filter(|used| RUNTIMES.contains(used)).collect();
    brought.sort_unstable();
    brought.dedup();
    let tell = |used| format!("crate `{name}` brings in `{used}`; it must stay sync and offline");
    Ok(brought.into_iter().map(tell).collect())
}

/// All Rust files below a directory.
fn collect_sources(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    let entries =
        std::fs::read_dir(dir).with_context(|| format!("can't list {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            collect_sources(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Where a file that isn't listed uses `unsafe` or allows itself to.
fn wrong_unsafe(path: &str, text: &str) -> Vec<String> {
    if UNSAFE.iter().any(|(listed, _)| *listed == path) {
        return Vec::new();
    }
    let lines = text.lines().enumerate();
    let used = lines.filter(|(_, line)| uses_unsafe(line));
    used.map(|(n, _)| format!("{path}:{}: `unsafe` in a module not listed for it", n + 1)).collect()
}

/// Whether a line of code has the keyword or allows the lint; comments and strings don't count.
fn uses_unsafe(line: &str) -> bool {
    let line = line.replace("\\\"", "");
    let code = line.split("//").next().unwrap_or("");
    let outside_strings = code.split('"').step_by(2);
    outside_strings.flat_map(|code| code.split(|c: char| !c.is_alphanumeric() && c != '_')).any(
        |word| match word {
            "unsafe" => true,
            "unsafe_code" => code.contains("allow") || code.contains("expect"),
            _ => false,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_point_down_and_only_where_drawn() {
        let edge = |from: &str, to: &str| {
            wrong_edges(&BTreeMap::from([(from.to_owned(), vec![to.to_owned()])]))
        };
        assert!(edge("archive", "engine").is_empty());
        assert!(edge("strongroom", "archive").is_empty());
        assert_eq!(edge("engine", "archive").len(), 1);
        assert_eq!(edge("archive", "block").len(), 1);
        assert_eq!(edge("iscsi", "catalog").len(), 1);
        assert_eq!(edge("strongroom", "xtask").len(), 1);
        assert_eq!(edge("attic", "engine"), ["crate `attic` stands on no floor"]);
    }

    #[test]
    fn every_edge_of_the_table_leads_to_a_crate_above_it_in_the_table() {
        for (place, (name, allowed)) in FLOORS.iter().enumerate() {
            for used in *allowed {
                let below = FLOORS[..place].iter().any(|(floor, _)| floor == used);
                assert!(below, "{name} -> {used} doesn't point down");
            }
        }
    }

    #[test]
    fn only_code_counts_as_unsafe() {
        assert!(uses_unsafe("    unsafe { read(p) }"));
        assert!(uses_unsafe("#![allow(unsafe_code)]"));
        assert!(!uses_unsafe("// unsafe here would be wrong"));
        assert!(!uses_unsafe("    let text = \"unsafe\";"));
        assert!(!uses_unsafe("#![forbid(unsafe_code)]"));
        assert!(!uses_unsafe("let unsafety = 1;"));
        assert_eq!(wrong_unsafe("crates/a/src/lib.rs", "fn f() {}\nunsafe fn g() {}").len(), 1);
        assert!(wrong_unsafe(UNSAFE[0].0, "unsafe fn g() {}").is_empty());
    }
}
