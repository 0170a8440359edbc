//! `pool disk-replace` and `pool import`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::pool::{OpenMode, OpenOptions, Place, Pool, ScrubOptions};
use strongroom_engine::superblock::Superblock;

use super::create::Entered;
use super::upkeep::{scrub_json, scrub_text, scrubbed};
use crate::access::{PoolArgs, disks, used};
use crate::appliance::follow::StartArgs;
use crate::appliance::pools::{self, Upkeep};
use crate::exit::{Context, Done, usage};
use crate::parse::Layout;
use crate::secret::SecretArgs;

/// Put an empty disk in the place of a lost one, and rebuild what was on it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
`strongroom pool show` lists the disks with their numbers. If it is stopped, `strongroom pool scrub`
goes on with the rebuilding.

Examples:
  strongroom pool disk-replace 1 /mnt/new --pool main
  strongroom pool disk-replace 1 /mnt/new --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct ReplaceArgs {
    /// The number of the disk that is replaced
    place: usize,
    /// The new disk's directory
    dir: PathBuf,
    #[command(flatten)]
    pool: PoolArgs,
    #[command(flatten)]
    start: StartArgs,
}

pub(crate) fn replace(context: &Context, args: &ReplaceArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        let client = args.pool.appliance.client()?;
        let disk = pools::place(&client, &args.dir)?;
        let what = json!({ "number": args.place, "disk": disk });
        return pools::start(context, &client, name, Upkeep::ReplaceDisk, &what, &args.start);
    }
    args.start.must_not_be_given()?;
    let dir = args.pool.dir()?;
    let old = Place::find(dir)?;
    if old.disks.iter().any(|disk| disk == dir) {
        bail!(
            "the pool lies in its own directory on one disk; copy the directory, \
             or make a pool with several disks"
        );
    }
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("making the directory {}", args.dir.display()))?;
    let new =
        fs::canonicalize(&args.dir).with_context(|| format!("finding {}", args.dir.display()))?;
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(&new)?);
    // The signpost comes first: should the process die in between, the same command can be run
    // again, and the pool is found with every disk that is part of it.
    let mut place = old.clone();
    match place.disks.get_mut(args.place) {
        Some(path) => *path = new.clone(),
        None => place.disks.push(new.clone()),
    }
    place.write(dir)?;
    let (disks, used) = (disks(&old), used(context)?);
    let replaced = args.pool.opened(|secret| {
        let (disks, mode) = (disks.clone(), OpenMode::Write);
        let options = OpenOptions { disks, mode, secret, without_index: false };
        Pool::replace_disk(options, used.clone(), args.place, Arc::clone(&disk))
    });
    let pool = match replaced {
        Ok(pool) => Arc::new(pool),
        Err(error) => {
            if !Superblock::exists(&FsDisk::open(&new)?) {
                old.write(dir)?;
            }
            return Err(error);
        }
    };
    context.interrupt.stops(&pool);
    let options = ScrubOptions { restart: true, ..ScrubOptions::default() };
    let outcome = scrubbed(context, &pool, options, "rebuilding")?;
    let document = json!({
        "place": args.place, "disk": new.to_string_lossy(), "rebuilt": scrub_json(&outcome),
    });
    context.out.summary(Some(&pool), document, |out| {
        writeln!(out, "disk {} is now {}", args.place, new.display())?;
        scrub_text(out, &outcome)
    })?;
    if context.interrupt.is_asked() {
        return Err(strongroom_engine::Error::Canceled.into());
    }
    Ok(Done::well_if(outcome.lost.is_empty() && outcome.unreadable.is_empty()))
}

/// Make a pool's directory from its disks, which may come from another machine
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Everything is on the disks: images, names, times and immutability. The directory only says where
the disks are. Up to as many disks as the layout allows may be missing.

Examples:
  strongroom pool import /srv/pool --name old --password-file /root/pool.pw
  strongroom pool import /srv/pool --disk /mnt/a --disk /mnt/b --disk /mnt/c")]
pub(crate) struct ImportArgs {
    /// The pool's directory; it is made when it is not there
    dir: PathBuf,
    /// A disk's directory; once for each
    #[arg(long = "disk", value_name = "DIR", required_unless_present = "name")]
    disks: Vec<PathBuf>,
    /// Enter it as a pool of the appliance, under this name; DIR may then hold the pool itself
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    entered: Entered,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    secret: SecretArgs,
}

pub(crate) fn import(context: &Context, args: &ImportArgs) -> Result<Done> {
    if let Some(name) = &args.name {
        let client = args.entered.appliance.client()?;
        return args.entered.pool(name, &args.dir, &args.disks, args.secret.passphrase()?).import(
            context,
            &client,
            &args.start,
        );
    }
    args.start.must_not_be_given()?;
    let mut read = Vec::new();
    let mut paths = Vec::new();
    for path in &args.disks {
        let path = fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?;
        read.push(Superblock::read(&FsDisk::open(&path)?));
        paths.push(path);
    }
    let newest = Superblock::newest(&read)?.clone();
    let mut members = Vec::new();
    for (path, superblock) in paths.into_iter().zip(read) {
        let shown = path.display();
        let superblock = superblock?;
        if superblock.pool != newest.pool {
            return Err(usage(format!(
                "{shown} belongs to the pool {}, others to {}: import one pool at a time",
                superblock.pool, newest.pool
            )));
        }
        let Some(place) = newest.disks.iter().position(|disk| *disk == superblock.disk) else {
            bail!("{shown} was replaced by another disk and is no longer part of the pool");
        };
        if members.iter().any(|(other, _)| *other == place) {
            return Err(usage(format!(
                "{shown} is disk {place} of the pool, which is given twice"
            )));
        }
        members.push((place, path));
    }
    members.sort();
    let missing = newest.disks.len() - members.len();
    if missing > usize::from(newest.parity_shards) {
        return Err(strongroom_engine::Error::TooFewDisks {
            missing,
            total: newest.disks.len(),
            tolerated: newest.parity_shards.into(),
        }
        .into());
    }
    fs::create_dir_all(&args.dir)
        .with_context(|| format!("making the directory {}", args.dir.display()))?;
    let dir = fs::canonicalize(&args.dir)?;
    let place = Place { disks: members.iter().map(|(_, path)| path.clone()).collect() };
    if Place::find(&dir).is_ok_and(|there| there != place) {
        bail!("{} is the directory of a pool already", dir.display());
    }
    place.write(&dir)?;
    let layout = Layout::name(newest.data_shards, newest.parity_shards);
    let document = json!({
        "pool": newest.pool.to_string(),
        "layout": layout,
        "disks": members.iter().map(|(number, path)| json!({
            "place": number, "path": path.to_string_lossy(),
        })).collect::<Vec<_>>(),
        "missing": missing,
    });
    context.out.summary(None, document, |out| {
        writeln!(out, "found pool {} ({layout})", newest.pool)?;
        for (number, path) in &members {
            writeln!(out, "  disk {number}  {}", path.display())?;
        }
        if missing > 0 {
            writeln!(out, "  {missing} missing: see `strongroom pool show`, then disk-replace")?;
        }
        Ok(())
    })?;
    Ok(Done::Well)
}
