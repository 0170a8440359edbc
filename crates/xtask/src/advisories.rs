//! `cargo xtask advisories`: whether the program may be made of what it is made of. Licences, bans
//! and sources are held to `deny.toml`; known holes are looked for in a copy of RustSec's database,
//! where there is one. cargo-deny would do both, but takes minutes to install on each fresh machine.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use semver::{Version, VersionReq};
use serde::Deserialize;

use crate::parts::{self, Part};
use crate::workspace;

/// Where to look.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Options {
    /// A copy of <https://github.com/rustsec/advisory-db> [default: ~/.cargo/advisory-db, if there
    /// is one].
    #[arg(long, value_name = "DIR", env = "STRONGROOM_ADVISORY_DB")]
    database: Option<PathBuf>,
}

/// The part of `deny.toml` that is held to here.
#[derive(Debug, Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
    sources: Sources,
    advisories: Ignored,
}

#[derive(Debug, Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Debug, Deserialize)]
struct Ban {
    name: String,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Ignored {
    ignore: Vec<Ignore>,
}

#[derive(Debug, Deserialize)]
struct Ignore {
    id: String,
    #[allow(dead_code, reason = "it must be there, for the reader")]
    reason: String,
}

/// Checks all of it; names everything that is wrong.
pub(crate) fn advisories(options: &Options) -> Result<()> {
    let path = workspace::root().join("deny.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let policy: Policy = toml::from_str(&text).context("deny.toml")?;
    let parts = parts::parts()?;
    let mut wrong: Vec<String> = parts.iter().filter_map(|part| policy.refuses(part)).collect();
    println!("{} crates: licences, bans and sources are held to deny.toml", parts.len());

    let usual = std::env::home_dir().map(|home| home.join(".cargo/advisory-db"));
    let usual = usual.filter(|dir| dir.is_dir());
    match options.database.as_ref().or(usual.as_ref()) {
        None => println!(
            "known holes were NOT looked for: there is no copy of RustSec's database. To have one: \
             git clone https://github.com/rustsec/advisory-db ~/.cargo/advisory-db"
        ),
        Some(database) => {
            let (known, found) = holes(database, &parts)?;
            println!("{known} advisories in {} were looked through", database.display());
            for (advisory, text) in found {
                let ignored =
                    policy.advisories.ignore.iter().any(|ignore| ignore.id == advisory.id);
                match (ignored, &advisory.informational) {
                    (true, _) => println!("ignored: {text}"),
                    (false, Some(kind)) => println!("{kind}: {text}"),
                    (false, None) => wrong.push(text),
                }
            }
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    wrong.iter().for_each(|text| eprintln!("{text}"));
    bail!("the program may not be made of all that it is made of: {} objections", wrong.len())
}

impl Policy {
    /// Why it may not be used.
    fn refuses(&self, part: &Part) -> Option<String> {
        let Part { name, version, licence, source, .. } = part;
        if let Some(ban) = self.bans.deny.iter().find(|ban| ban.name == *name) {
            return Some(format!("{name} {version} is banned: {}", ban.reason));
        }
        let registry = source.strip_prefix("registry+");
        if !registry.is_some_and(|url| self.sources.allow_registry.iter().any(|a| a == url)) {
            return Some(format!("{name} {version} comes from elsewhere: {source}"));
        }
        // Some still write the old slash.
        let expression = licence.replace('/', " OR ");
        let Ok(parsed) = spdx::Expression::parse(&expression) else {
            return Some(format!(
                "{name} {version} has no licence that is understood: `{licence}`"
            ));
        };
        let allowed = parsed.evaluate(|wanted| self.licenses.allow.contains(&wanted.to_string()));
        (!allowed).then(|| format!("{name} {version} is under a licence not allowed: {licence}"))
    }
}

/// The head of an advisory.
#[derive(Debug, Deserialize)]
struct Document {
    advisory: Advisory,
    versions: Versions,
}

#[derive(Debug, Deserialize)]
struct Advisory {
    id: String,
    package: String,
    withdrawn: Option<String>,
    /// `unmaintained` and the like: nothing that is to be mended by another version.
    informational: Option<String>,
    #[serde(default)]
    url: String,
}

#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(default)]
    patched: Vec<VersionReq>,
    #[serde(default)]
    unaffected: Vec<VersionReq>,
}

impl Document {
    /// The TOML at the beginning of a file of the database.
    fn read(text: &str) -> Result<Self> {
        let head = text.strip_prefix("```toml\n").and_then(|rest| rest.split_once("\n```"));
        let (head, _) = head.context("no TOML at its beginning")?;
        Ok(toml::from_str(head)?)
    }

    fn is_about(&self, version: &Version) -> bool {
        let fits = |all: &[VersionReq]| all.iter().any(|wanted| wanted.matches(version));
        let Versions { patched, unaffected } = &self.versions;
        self.advisory.withdrawn.is_none() && !fits(patched) && !fits(unaffected)
    }
}

/// How many advisories are about crates of these names, and those that are about their versions.
fn holes(database: &Path, parts: &[Part]) -> Result<(usize, Vec<(Advisory, String)>)> {
    let crates = database.join("crates");
    if !crates.join("openssl").is_dir() {
        bail!("{} is no copy of RustSec's database", database.display());
    }
    let (mut known, mut found) = (0, Vec::new());
    for part in parts {
        let dir = crates.join(&part.name);
        if !dir.is_dir() {
            continue;
        }
        let version = Version::parse(&part.version)?;
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|end| end != "md") {
                continue;
            }
            let document = Document::read(&fs::read_to_string(&path)?);
            let document = document.with_context(|| format!("reading {}", path.display()))?;
            known += 1;
            if document.is_about(&version) {
                let Advisory { id, package, url, .. } = &document.advisory;
                let text = format!("{package} {version}: {id} {url}");
                found.push((document.advisory, text));
            }
        }
    }
    Ok((known, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        let text = fs::read_to_string(workspace::root().join("deny.toml"));
        toml::from_str(&text.expect("it is there")).expect("it is understood")
    }

    fn part(name: &str, licence: &str, source: &str) -> Part {
        let [name, licence, source] = [name, licence, source].map(str::to_owned);
        Part { name, version: "1.2.3".to_owned(), licence, source, directory: PathBuf::new() }
    }

    #[test]
    fn licences_bans_and_sources_are_held_to() {
        const HERE: &str = "registry+https://github.com/rust-lang/crates.io-index";
        let refuses = |name, licence, source| policy().refuses(&part(name, licence, source));
        assert_eq!(refuses("a", "MIT/Apache-2.0", HERE), None);
        assert_eq!(refuses("a", "GPL-3.0-only OR (MIT AND Unicode-3.0)", HERE), None);
        assert_eq!(refuses("a", "Apache-2.0 WITH LLVM-exception", HERE), None);
        for (name, licence, source, why) in [
            ("ring", "ISC", HERE, "is banned: aws-lc-rs"),
            ("a", "MIT AND GPL-3.0-only", HERE, "not allowed"),
            ("a", "GPL-2.0-only WITH Classpath-exception-2.0", HERE, "not allowed"),
            ("a", "", HERE, "no licence"),
            ("a", "MIT", "git+https://github.com/a/a#1", "elsewhere"),
        ] {
            let said = refuses(name, licence, source).unwrap_or_default();
            assert!(said.contains(why), "{name} {licence}: {said}");
        }
    }

    #[test]
    fn an_advisory_is_about_what_is_neither_patched_nor_unaffected() {
        let text = "```toml\n[advisory]\nid = \"RUSTSEC-2026-0001\"\npackage = \"a\"\n\n\
                    [versions]\npatched = [\">= 1.3.0\", \"^1.2.5\"]\nunaffected = [\"< 1.0.0\"]\n\
                    ```\n\n# A hole\n";
        let document = Document::read(text).expect("it is understood");
        let about = |text: &str| document.is_about(&Version::parse(text).expect("a version"));
        assert!(about("1.2.3") && about("1.0.0"));
        assert!(!about("1.2.5") && !about("1.4.0") && !about("0.9.0"));
        let withdrawn =
            text.replace("\n\n[versions]", "\nwithdrawn = \"2026-02-02\"\n\n[versions]");
        let document = Document::read(&withdrawn).expect("it is understood");
        assert!(!document.is_about(&Version::new(1, 2, 3)));
        assert!(Document::read("# no head").is_err());
    }
}
