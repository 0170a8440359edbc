//! The data that the benchmark backs up, made the same in every run from the sources of the
//! packages that Cargo.lock names, and from numbers that only look random.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::random::Random;
use crate::workspace;

/// A corpus.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Corpus {
    /// Three disk images, 6 GiB in all: 30 % random, 10 % zero, 60 % source text; a third of the
    /// second and of the third repeats regions of the first at other offsets.
    Images,
    /// 16,000 small files, about 200 MB of sources.
    Small,
    /// The small files in 20 versions; each changes, adds and removes about 3 % of them.
    Versions,
    /// One file of 4 GiB that can't be compressed.
    Random,
    /// A million files, most of them empty.
    Million,
}

impl Corpus {
    /// Its name, on the command line and in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Small => "small",
            Self::Versions => "versions",
            Self::Random => "random",
            Self::Million => "million",
        }
    }

    /// How much room it takes at full size, with all that programs make of it, in bytes.
    pub(crate) fn room(self) -> f64 {
        match self {
            Self::Images => 20e9,
            Self::Small | Self::Versions | Self::Million => 8e9,
            Self::Random => 15e9,
        }
    }
}

/// How many versions there are of the tree in versions.
pub(crate) const VERSIONS: u32 = 20;

/// Changes when the generator makes other data than before.
const GENERATOR: u32 = 1;

const MIB: u64 = 1 << 20;
const PAGE: usize = 4096;

/// Makes a corpus below `dir` unless it is there already, and gives its directory. `scale` 1 is
/// the full size.
pub(crate) fn make(corpus: Corpus, dir: &Path, scale: f64) -> Result<PathBuf> {
    let made = dir.join(corpus.name());
    let marker = dir.join(format!("{}.made", corpus.name()));
    let parameters = format!("generator {GENERATOR}, scale {scale}\n");
    // The tree in versions has been changed by whoever used it last.
    let reusable = corpus != Corpus::Versions && made.is_dir();
    if reusable && fs::read_to_string(&marker).is_ok_and(|found| found == parameters) {
        return Ok(made);
    }
    println!("making corpus {}", corpus.name());
    let _ = fs::remove_file(&marker);
    remove(&made)?;
    create_dir(&made)?;
    let scaled = |n: u64| ((n as f64 * scale) as u64).max(1);
    match corpus {
        Corpus::Images => images(&made, scaled(2048) * MIB)?,
        Corpus::Small | Corpus::Versions => copy_sources(&made, scaled(16_000) as usize)?,
        Corpus::Random => random(&made.join("random.bin"), scaled(4096) * MIB)?,
        Corpus::Million => million(&made, scaled(1_000_000))?,
    }
    fs::write(&marker, parameters).with_context(|| format!("can't write {}", marker.display()))?;
    Ok(made)
}

/// Removes a directory tree, if it is there.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("can't remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

/// Creates a directory and those above it.
pub(crate) fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))
}

/// All files below a directory, in order of their paths.
pub(crate) fn files_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        let list = || format!("can't list {}", dir.display());
        for entry in fs::read_dir(&dir).with_context(list)? {
            let entry = entry.with_context(list)?;
            let kind = entry.file_type().with_context(list)?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
}

/// Directories with sources: of each package in Cargo.lock, then of the system, should those of
/// the packages not suffice.
fn source_dirs() -> Result<BTreeMap<String, PathBuf>> {
    let metadata = workspace::metadata(true)?;
    let mut dirs = BTreeMap::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let (name, version) = (package["name"].as_str(), package["version"].as_str());
        if let (Some(name), Some(version), Some(manifest), true) =
            (name, version, package["manifest_path"].as_str(), package["source"].is_string())
        {
            let dir = Path::new(manifest).parent().context("a manifest lies in a directory")?;
            dirs.insert(format!("{name}-{version}"), dir.to_owned());
        }
    }
    for (name, dir) in [
        ("~1-include", "/usr/include"),
        ("~2-perl", "/usr/share/perl"),
        ("~3-python", "/usr/lib/python3"),
        ("~4-doc", "/usr/share/doc"),
    ] {
        if Path::new(dir).is_dir() {
            dirs.insert(name.to_owned(), dir.into());
        }
    }
    Ok(dirs)
}

/// Copies the first `count` source files of at most 1 MiB.
fn copy_sources(to: &Path, count: usize) -> Result<()> {
    let mut left = count;
    for (name, dir) in source_dirs()? {
        for file in files_below(&dir)? {
            if left == 0 {
                return Ok(());
            }
            if fs::metadata(&file).is_ok_and(|m| m.len() > MIB) {
                continue;
            }
            let copy = to.join(&name).join(file.strip_prefix(&dir).unwrap_or(&file));
            create_dir(copy.parent().unwrap_or(to))?;
            fs::copy(&file, &copy).with_context(|| format!("can't copy {}", file.display()))?;
            left -= 1;
        }
    }
    println!("only {} of {count} source files were found", count - left);
    Ok(())
}

/// Source text to cut pieces from, at most 128 MiB of it.
fn text() -> Result<Vec<u8>> {
    let mut text = Vec::new();
    for (_, dir) in source_dirs()? {
        for file in files_below(&dir)? {
            let kinds = ["rs", "c", "h", "md", "S", "cc", "py", "toml"];
            if text.len() as u64 > 128 * MIB {
                return Ok(text);
            }
            if file.extension().is_some_and(|e| kinds.iter().any(|kind| e == *kind)) {
                text.extend(
                    fs::read(&file).with_context(|| format!("can't read {}", file.display()))?,
                );
            }
        }
    }
    anyhow::ensure!(text.len() as u64 > MIB, "too few sources found to make disk images of");
    Ok(text)
}

/// Three images of `size` bytes each.
fn images(dir: &Path, size: u64) -> Result<()> {
    let text = text()?;
    for number in 0..3u64 {
        let mut random = Random::new(100 + number);
        let first = (number > 0).then(|| File::open(dir.join("disk-0.img"))).transpose()?;
        let path = dir.join(format!("disk-{number}.img"));
        let mut image = BufWriter::with_capacity(1 << 20, create(&path)?);
        let (mut at, mut extent) = (0, Vec::new());
        while at < size {
            // As files lie on a disk: from one page to 4 MiB, small ones as frequent as large ones.
            let pages = 1 << random.below(11);
            let len = (pages * PAGE as u64).min(size - at) as usize;
            extent.resize(len, 0);
            match (&first, random.below(3)) {
                (Some(first), 0) => {
                    let pages_before = (size - len as u64) / PAGE as u64 + 1;
                    let from = random.below(pages_before) * PAGE as u64;
                    std::os::unix::fs::FileExt::read_exact_at(first, &mut extent, from)?;
                }
                _ => match random.below(10) {
                    0 => extent.fill(0),
                    1..=3 => random.fill(&mut extent),
                    _ => stitch(&text, &mut random, &mut extent),
                },
            }
            image.write_all(&extent)?;
            at += len as u64;
        }
        image.into_inner().map_err(|e| e.into_error())?.sync_all()?;
    }
    Ok(())
}

/// Fills `extent` with short pieces of the text, so that no long run of it comes twice.
fn stitch(text: &[u8], random: &mut Random, extent: &mut [u8]) {
    let mut rest = extent;
    while !rest.is_empty() {
        let len = (512 + random.below(7 * 1024) as usize).min(rest.len());
        let from = random.below((text.len() - len) as u64) as usize;
        let (piece, after) = rest.split_at_mut(len);
        piece.copy_from_slice(&text[from..from + len]);
        rest = after;
    }
}

fn random(path: &Path, size: u64) -> Result<()> {
    let mut random = Random::new(200);
    let mut file = create(path)?;
    let mut piece = vec![0; MIB as usize];
    for _ in 0..size / MIB {
        random.fill(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(file.sync_all()?)
}

/// A thousand files to a directory; every tenth holds a line.
fn million(dir: &Path, count: u64) -> Result<()> {
    for number in 0..count {
        let sub = dir.join(format!("{:04}", number / 1000));
        if number % 1000 == 0 {
            create_dir(&sub)?;
        }
        let mut file = create(&sub.join(format!("file-{number:07}")))?;
        if number % 10 == 0 {
            writeln!(file, "file {number} of {count}")?;
        }
    }
    Ok(())
}

/// Makes the tree in versions what it is in version `version` (counted from 1) from what it was
/// in the version before; version 1 is the tree as it was made.
pub(crate) fn next_version(tree: &Path, version: u32) -> Result<()> {
    let mut random = Random::new(300 + u64::from(version));
    for file in files_below(tree)? {
        if version == 1 || random.below(100) >= 3 {
            continue;
        }
        let what = random.below(20);
        if what < 3 {
            fs::remove_file(&file).with_context(|| format!("can't remove {}", file.display()))?;
            continue;
        }
        let mut content =
            fs::read(&file).with_context(|| format!("can't read {}", file.display()))?;
        let at = random.below(content.len() as u64 + 1) as usize;
        let line = format!("// version {version}: {:016x}\n", random.next());
        let mut path = file;
        match what {
            3..=5 => {
                path = path.with_extension(format!("v{version}"));
                content.splice(at..at, line.into_bytes());
            }
            6..=9 => content.extend(line.into_bytes()),
            10..=13 => {
                let end = content.len().min(at + 200);
                content.splice(at..end, line.into_bytes());
            }
            _ => drop(content.splice(at..at, line.into_bytes())),
        }
        fs::write(&path, content).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

fn create(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("can't create {}", path.display()))
}
