//! `strongroom up`: the main job from end to end, to see that it works.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use strongroom_archive::image;
use strongroom_archive::restore::{Overwrite, Restore};
use strongroom_engine::chunker::Params;
use strongroom_engine::compress::DEFAULT_LEVEL;
use strongroom_engine::keys::Secret;
use strongroom_engine::pool::{OpenMode, Place, Pool};

use crate::access::PoolArgs;
use crate::exit::{Context, Done};
use crate::images::{image_json, print_images, short};
use crate::output::{count, size};
use crate::secret::SecretArgs;
use crate::{backup, pool, restore};

/// Bytes in a pack of the pool.
const PACK_SIZE: u32 = 32 << 20;
/// Bytes of a key.
const KEY: usize = 32;
/// Bytes that are compared at a time.
const PIECE: usize = 1 << 20;

/// Make a pool, back up a path into it, restore it and compare: the main job, end to end
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Everything lies in the data directory: the pool, its key file (copy it elsewhere: without it nothing
opens the pool), and what was restored. Run again, it makes the next backup into the same pool.

Examples:
  strongroom up
  strongroom up ~/Documents --data /srv/strongroom")]
pub(crate) struct Args {
    /// What to back up; by default a few sample files
    path: Option<PathBuf>,
    /// The data directory; it is made when it is not there
    #[arg(long, value_name = "DIR", default_value = "strongroom-data")]
    data: PathBuf,
    /// Make a pool that is not encrypted
    #[arg(long)]
    no_encrypt: bool,
}

/// Tells step by step what is done.
struct Teller {
    step: u32,
    speaks: bool,
}

impl Teller {
    fn step(&mut self, text: &str) -> std::io::Result<()> {
        self.step += 1;
        let step = self.step;
        self.tell(|out| writeln!(out, "{step}. {text}"))
    }

    fn tell(
        &self,
        text: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
    ) -> std::io::Result<()> {
        if self.speaks { text(&mut std::io::stdout().lock()) } else { Ok(()) }
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    let speaks = !context.out.json && !context.out.quiet;
    let mut teller = Teller { step: 0, speaks };
    fs::create_dir_all(&args.data)
        .with_context(|| format!("making the directory {}", args.data.display()))?;
    let data = fs::canonicalize(&args.data)?;
    let pool = pool_of(context, &data, args.no_encrypt, &mut teller)?;

    let (source, name) = match &args.path {
        Some(path) => {
            let path =
                fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?;
            let name = path.file_name().map_or("root".into(), |name| name.to_string_lossy());
            let name = name.into_owned();
            (path, name)
        }
        None => (sample(&data)?, "sample".to_owned()),
    };
    if data.starts_with(&source) && args.path.is_some() {
        teller.tell(|out| writeln!(out, "   (the data directory itself is left out)"))?;
    }
    teller.step(&format!("back up {} as {name:?}", source.display()))?;
    let mut job = backup::of_path(&source, &name);
    if args.path.is_some() {
        job.excludes.push(rule_for(&data));
    }
    let (outcome, counts) = backup::make(context, &pool, job, false)?;
    context.out.troubles(&outcome.troubles);
    let Some(made) = &outcome.image else { bail!("the backup made no image") };
    teller.tell(|out| {
        let files = count(outcome.stats.files, "file", "files");
        writeln!(
            out,
            "   {files}, {}: {} read, {} new to the pool, {} stored",
            size(outcome.stats.bytes),
            size(counts.read),
            size(outcome.stats.new_bytes),
            size(outcome.stats.stored_bytes)
        )
    })?;

    teller.step("list the images in the pool")?;
    let (images, _) = image::images(&*pool)?;
    teller.tell(|out| {
        let mut lines = Vec::new();
        print_images(&mut lines, &images)?;
        for line in String::from_utf8_lossy(&lines).lines() {
            writeln!(out, "   {line}")?;
        }
        Ok(())
    })?;

    let to = data.join("restored");
    teller.step(&format!("restore {} to {}", short(&made.id), to.display()))?;
    if to.exists() {
        fs::remove_dir_all(&to).with_context(|| format!("clearing {}", to.display()))?;
    }
    let order = Restore {
        image: made.clone(),
        from: Vec::new(),
        paths: Vec::new(),
        to: to.clone(),
        include: Vec::new(),
        exclude: Vec::new(),
        overwrite: Overwrite::Always,
        verify: true,
        numeric_owner: false,
        no_owner: false,
    };
    let restored = restore::make(context, &pool, &order)?;
    context.out.troubles(&restored.troubles);
    teller.tell(|out| {
        let files = count(restored.counts.files, "file", "files");
        writeln!(out, "   {files}, {} written, all read back", size(restored.counts.bytes))
    })?;

    teller.step("compare what was restored with what was backed up")?;
    let copy = to.join(source.strip_prefix("/").unwrap_or(&source));
    let mut differences = Vec::new();
    let same = compare(&source, &copy, &data, args.path.is_none(), &mut differences)?;
    teller.tell(|out| {
        for difference in &differences {
            writeln!(out, "   {difference}")?;
        }
        let same = count(same, "file is", "files are");
        writeln!(out, "   {same} the same, {} differ", differences.len())
    })?;

    let well =
        outcome.troubles.is_empty() && restored.troubles.is_empty() && differences.is_empty();
    let document = json!({
        "pool": data.join("pool").to_string_lossy(),
        "image": image_json(made),
        "images": images.len(),
        "restored_to": copy.to_string_lossy(),
        "same": same,
        "differences": differences,
    });
    context.out.report(Some(&pool), document, |out| {
        if !speaks {
            return Ok(());
        }
        let shown = data.join("pool");
        let key = data.join("pool.key");
        writeln!(out, "\nTry next:")?;
        let with = match key.exists() {
            true => format!("--pool {} --key-file {}", shown.display(), key.display()),
            false => format!("--pool {}", shown.display()),
        };
        writeln!(out, "  strongroom ls latest --recursive {with}")?;
        writeln!(out, "  strongroom pool show {with}")
    })?;
    Ok(Done::well_if(well))
}

/// Opens the pool in the data directory, or makes it.
fn pool_of(
    context: &Context,
    data: &Path,
    no_encrypt: bool,
    teller: &mut Teller,
) -> Result<Arc<Pool>> {
    let dir = data.join("pool");
    let key = data.join("pool.key");
    if Place::find(&dir).is_ok() {
        let secret = match key.exists() {
            true => SecretArgs::of_key_file(&key),
            false => SecretArgs::default(),
        };
        teller.step(&format!("open the pool {}", dir.display()))?;
        return PoolArgs { pool: Some(dir), secret }.open(context, OpenMode::Write);
    }
    let secret = match no_encrypt {
        true => None,
        false => {
            if !key.exists() {
                make_key(&key).with_context(|| format!("making the key {}", key.display()))?;
            }
            Some(Secret::key_file(&key)?)
        }
    };
    let kind = if secret.is_some() { "an encrypted pool" } else { "a pool without encryption" };
    teller.step(&format!("make {kind} in {}", dir.display()))?;
    let new = pool::New {
        dir: &dir,
        disks: &[],
        parity: 0,
        secret: secret.as_ref(),
        chunking: Params::default(),
        level: DEFAULT_LEVEL,
        pack_size: PACK_SIZE,
    };
    let (pool, _) = pool::make(context, &new)?;
    if secret.is_some() {
        teller.tell(|out| {
            writeln!(out, "   its key is {}: keep a copy elsewhere,", key.display())?;
            writeln!(out, "   without it nothing opens the pool")
        })?;
    }
    Ok(pool)
}

/// Makes a key file. It appears whole or not at all, and only its owner can read it.
fn make_key(path: &Path) -> Result<()> {
    let mut key = [0; KEY];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut key)?;
    let new = path.with_extension("key.new");
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&key)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    if let Some(dir) = path.parent() {
        fs::File::open(dir)?.sync_all()?;
    }
    Ok(())
}

/// A few files to back up; the second time there is a new one.
fn sample(data: &Path) -> Result<PathBuf> {
    let dir = data.join("sample");
    fs::create_dir_all(dir.join("letters"))?;
    let mut numbers = String::new();
    for number in 0..100_000u32 {
        numbers.push_str(&format!("{number} squared is {}\n", u64::from(number).pow(2)));
    }
    for (name, content) in [
        ("README", "Sample files, made by `strongroom up`.\n"),
        ("letters/one", "Dear pool,\nplease keep this.\n"),
        ("numbers", &numbers),
    ] {
        let path = dir.join(name);
        if !path.exists() {
            fs::write(path, content)?;
        }
    }
    let link = dir.join("letters/first");
    if link.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("one", link)?;
    }
    let visits = fs::read_dir(dir.join("letters"))?.count();
    let now = jiff::Timestamp::now();
    fs::write(dir.join(format!("letters/visit-{visits}")), format!("This was at {now}.\n"))?;
    Ok(dir)
}

/// A rule that fits exactly this path.
fn rule_for(path: &Path) -> String {
    let mut rule = String::new();
    for c in path.to_string_lossy().chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!') {
            rule.push('\\');
        }
        rule.push(c);
    }
    rule
}

/// Compares two trees; how many files are the same. What lies in `without` is left out, unless it
/// is what is compared.
fn compare(
    left: &Path,
    right: &Path,
    without: &Path,
    inside: bool,
    differences: &mut Vec<String>,
) -> Result<u64> {
    let mut same = 0;
    let mut stack = vec![(left.to_owned(), right.to_owned())];
    while let Some((left, right)) = stack.pop() {
        if left == without && !inside {
            continue;
        }
        let mut differs = |what: &str| differences.push(format!("{}: {what}", left.display()));
        let (Ok(one), Ok(two)) = (left.symlink_metadata(), right.symlink_metadata()) else {
            differs("it is not on both sides");
            continue;
        };
        if one.file_type().is_socket() {
            continue;
        }
        if one.mode() != two.mode() {
            differs("its kind or mode differs");
        } else if one.is_dir() {
            let names = fs::read_dir(&left);
            for name in names.with_context(|| format!("reading {}", left.display()))? {
                let name = name?.file_name();
                stack.push((left.join(&name), right.join(&name)));
            }
        } else if (one.mtime(), one.mtime_nsec()) != (two.mtime(), two.mtime_nsec()) {
            differs("its time differs: it was changed meanwhile");
        } else if one.is_symlink() {
            match fs::read_link(&left)? == fs::read_link(&right)? {
                true => same += 1,
                false => differs("it points elsewhere"),
            }
        } else if one.is_file() {
            let open = |path: &Path| {
                fs::File::open(path).with_context(|| format!("opening {}", path.display()))
            };
            match same_content(open(&left)?, open(&right)?)? {
                true => same += 1,
                false => differs("its content differs"),
            }
        }
    }
    Ok(same)
}

fn same_content(left: fs::File, right: fs::File) -> std::io::Result<bool> {
    use std::io::BufRead;
    let mut left = std::io::BufReader::with_capacity(PIECE, left);
    let mut right = std::io::BufReader::with_capacity(PIECE, right);
    loop {
        let (one, two) = (left.fill_buf()?, right.fill_buf()?);
        let len = one.len().min(two.len());
        if one[..len] != two[..len] {
            return Ok(false);
        }
        if len == 0 {
            return Ok(one.is_empty() && two.is_empty());
        }
        left.consume(len);
        right.consume(len);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn comparing_finds_what_differs() {
        let data = tempfile::tempdir().unwrap();
        let (left, right) = (sample(data.path()).unwrap(), data.path().join("other"));
        fs::create_dir(&right).unwrap();
        let mut differences = Vec::new();
        compare(&left, &right, Path::new("/none"), true, &mut differences).unwrap();
        assert_eq!(differences.len(), 3);
        differences.clear();
        let same = compare(&left, &left, Path::new("/none"), true, &mut differences).unwrap();
        assert_eq!((same, differences.len()), (5, 0));
    }

    #[test]
    fn a_rule_fits_names_with_signs_in_them() {
        assert_eq!(rule_for(Path::new("/a[1]*/b")), "/a\\[1\\]\\*/b");
    }
}
