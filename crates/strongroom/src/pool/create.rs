//! `pool create`.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use strongroom_engine::chunker::Params;
use strongroom_engine::compress::DEFAULT_LEVEL;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::{Secret, Stretch};
use strongroom_engine::pool::{CreateOptions, Place, Pool};

use crate::access::used;
use crate::appliance::{ApplianceArgs, OnceArgs, pools};
use crate::exit::{Context, Done, usage};
use crate::output::size;
use crate::parse::{self, ChunkSizes, Layout};
use crate::secret::{self, SecretArgs};

/// Make a pool
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A pool on one disk lies in DIR itself. With --disk, DIR only says where the disks are, and each
disk is a directory that should lie on a disk of its own. With --name it becomes a pool of the
appliance, at directories of the appliance; without, it is your own. The password of an encrypted pool
of your own is asked for on a terminal unless an option gives it.

Examples:
  strongroom pool create /srv/branch --name branch
  strongroom pool create /srv/pool --encrypt --password-file /root/pool.pw
  strongroom pool create /srv/pool --layout mirror --disk /mnt/a --disk /mnt/b
  strongroom pool create /srv/pool --layout 2+1 --disk /mnt/a --disk /mnt/b --disk /mnt/c \\
      --encrypt --key-file /root/pool.key

Who loses the secret of an encrypted pool loses what is in it. Keep a copy elsewhere.")]
pub(crate) struct Args {
    /// The pool's directory; it is made when it is not there
    dir: PathBuf,
    /// single, mirror (of all disks), or K+M: any M of the K+M disks may be lost
    #[arg(long)]
    layout: Option<Layout>,
    /// A directory on a disk of its own; once for each disk
    #[arg(long = "disk", value_name = "DIR")]
    disks: Vec<PathBuf>,
    /// Encrypt everything; a secret must be given, and giving one by an option implies this
    #[arg(long)]
    encrypt: bool,
    #[command(flatten)]
    secret: SecretArgs,
    /// Size of the chunks of files and streams: the average, or MIN,AVG,MAX
    #[arg(long, value_name = "SIZE")]
    chunk_size: Option<ChunkSizes>,
    /// Size of the chunks of block images
    #[arg(long, value_name = "SIZE", value_parser = parse::size32)]
    image_chunk_size: Option<u32>,
    /// zstd level, 1 (fast) to 19 (small)
    #[arg(long, value_name = "LEVEL", default_value_t = DEFAULT_LEVEL,
          value_parser = clap::value_parser!(i32).range(1..=19))]
    compression: i32,
    /// A pack of chunks is closed once it has this size
    #[arg(long, value_name = "SIZE", default_value = "32M", value_parser = parse::size32)]
    pack_size: u32,
    /// Make it a pool of the appliance, under this name
    #[arg(long, conflicts_with = "key_file")]
    name: Option<String>,
    /// An appliance's pool without encryption; by default it makes a passphrase, shown once
    #[arg(long, requires = "name", conflicts_with_all = [
        "encrypt", "password_file", "password_command",
    ])]
    unencrypted: bool,
    #[command(flatten)]
    entered: Entered,
    #[command(flatten)]
    once: OnceArgs,
}

/// What is said of a pool that an appliance gets.
#[derive(clap::Args, Debug)]
pub(super) struct Entered {
    /// The organisation whose it is, by name or number [default: yours]
    #[arg(long, requires = "name")]
    org: Option<String>,
    #[command(flatten)]
    pub(super) appliance: ApplianceArgs,
}

impl Entered {
    /// Such a pool.
    pub(super) fn pool<'a>(
        &'a self,
        name: &'a str,
        dir: &'a Path,
        disks: &'a [PathBuf],
        passphrase: Option<String>,
    ) -> pools::New<'a> {
        pools::New { name, dir, disks, org: self.org.as_deref(), passphrase }
    }
}

/// How to make a pool.
#[derive(Debug)]
pub(crate) struct New<'a> {
    /// Its directory.
    pub(crate) dir: &'a Path,
    /// Those of its disks; none: the pool's own.
    pub(crate) disks: &'a [PathBuf],
    /// How many disks may be lost.
    pub(crate) parity: u8,
    /// The secret of an encrypted pool.
    pub(crate) secret: Option<&'a Secret>,
    /// How data is cut.
    pub(crate) chunking: Params,
    /// The zstd level.
    pub(crate) level: i32,
    /// When a pack is closed, in bytes.
    pub(crate) pack_size: u32,
}

/// Makes a pool and its directories.
pub(crate) fn make(context: &Context, new: &New<'_>) -> Result<(Arc<Pool>, Place)> {
    let dir = directory(new.dir)?;
    if Place::find(&dir).is_ok() {
        bail!("there is a pool in {} already", dir.display());
    }
    let paths: Vec<PathBuf> = match new.disks {
        [] => vec![dir.clone()],
        disks => disks.iter().map(|disk| directory(disk)).collect::<Result<_>>()?,
    };
    for (index, path) in paths.iter().enumerate() {
        if paths[..index].contains(path) {
            return Err(usage(format!("the disk {} is given twice", path.display())));
        }
        // What lies beside a pool's files would some day be taken for them.
        let mut names =
            fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
        if names.any(|name| name.is_ok_and(|name| name.file_name() != "lost+found")) {
            bail!("{} is not empty: a pool needs a directory of its own", path.display());
        }
    }
    let disks = paths
        .iter()
        .map(|path| Ok(Arc::new(FsDisk::open(path)?) as Arc<dyn Disk>))
        .collect::<Result<_>>()?;
    let options = CreateOptions {
        disks,
        parity: new.parity,
        secret: new.secret.map(|secret| (secret, Stretch::DEFAULT)),
        chunking: new.chunking,
        level: new.level,
        pack_size: new.pack_size,
    };
    let pool = Arc::new(Pool::create(options, used(context)?)?);
    context.interrupt.stops(&pool);
    let place = Place { disks: paths };
    place.write(&dir)?;
    Ok((pool, place))
}

/// Makes a directory if it is not there; its absolute path.
fn directory(path: &Path) -> Result<PathBuf> {
    let mut make = fs::DirBuilder::new();
    let made = make.recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("making the directory {}", path.display()))?;
    fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    let default = Params::default();
    let fixed = args.image_chunk_size.unwrap_or(default.fixed);
    let chunking = match args.chunk_size {
        None => Params::new(default.min, default.avg, default.max, fixed),
        Some(ChunkSizes::Around(avg)) => Params::around(avg, fixed),
        Some(ChunkSizes::Exactly(min, avg, max)) => Params::new(min, avg, max, fixed),
    };
    let chunking = chunking.map_err(|e| usage(e.to_string()))?;
    if let Some(name) = &args.name {
        let client = args.entered.appliance.client()?;
        let how = json!({
            "layout": args.layout.map(|layout| layout.to_string()),
            "encrypted": !args.unencrypted,
            "chunk_sizes": { "min": chunking.min, "avg": chunking.avg, "max": chunking.max },
            "block_size": chunking.fixed,
            "level": args.compression,
            "pack_size": args.pack_size,
        });
        let new = args.entered.pool(name, &args.dir, &args.disks, args.secret.passphrase()?);
        return new.create(context, &client, &how, &args.once);
    }
    if args.once.idempotency_key.is_some() {
        return Err(usage("--idempotency-key is for pools of an appliance: give --name"));
    }
    let count = args.disks.len().max(1);
    let layout = match (args.layout, count) {
        (Some(layout), _) => layout,
        (None, 1) => Layout::Single,
        (None, _) => {
            let text = "several disks can be used in several ways: give --layout mirror, or K+M";
            return Err(usage(text));
        }
    };
    let parity = layout.parity(count).map_err(usage)?;
    let secret = match args.secret.read()? {
        None if args.encrypt => {
            let nobody = || {
                usage(
                    "an encrypted pool needs a secret: give --password-file, --password-command \
                     or --key-file",
                )
            };
            Some(secret::prompted_new()?.ok_or_else(nobody)?)
        }
        secret => secret.filter(|_| args.encrypt || args.secret.is_given()),
    };
    let new = New {
        dir: &args.dir,
        disks: &args.disks,
        parity,
        secret: secret.as_ref(),
        chunking,
        level: args.compression,
        pack_size: args.pack_size,
    };
    let (pool, place) = make(context, &new)?;
    let encrypted = secret.is_some();
    let data = place.disks.len() as u8 - parity;
    let layout = Layout::name(data, parity);
    let document = json!({
        "pool": pool.id().to_string(),
        "layout": layout,
        "disks": place.disks.iter().map(|disk| disk.to_string_lossy()).collect::<Vec<_>>(),
        "encrypted": encrypted,
        "chunk_size": { "min": chunking.min, "avg": chunking.avg, "max": chunking.max },
        "image_chunk_size": chunking.fixed,
        "compression": args.compression,
        "pack_size": args.pack_size,
    });
    context.out.summary(Some(&pool), document, |out| {
        writeln!(out, "made pool {}", pool.id())?;
        for (number, disk) in place.disks.iter().enumerate() {
            writeln!(out, "  disk {number}  {}", disk.display())?;
        }
        let losses = match parity {
            0 => "what is on it is lost with the disk".into(),
            1 => "any one disk may be lost".into(),
            many => format!("any {many} disks may be lost"),
        };
        writeln!(out, "  layout  {layout}: {losses}")?;
        writeln!(
            out,
            "  chunks  {} on average ({} to {}), block images {}; zstd level {}",
            size(chunking.avg.into()),
            size(chunking.min.into()),
            size(chunking.max.into()),
            size(chunking.fixed.into()),
            args.compression
        )?;
        if encrypted {
            writeln!(out, "  encrypted with AES-256-GCM")?;
            writeln!(
                out,
                "Keep safe, elsewhere: a copy of the secret. Nothing opens the pool without."
            )
        } else {
            writeln!(out, "  not encrypted: who can read the disks can read the backups")
        }
    })?;
    Ok(Done::Well)
}
