//! `pool show` and `pool stats`.

use std::sync::Arc;

use anyhow::Result;
use serde_json::json;
use strongroom_archive::image;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::disk::Disk;
use strongroom_engine::id::ChunkKind;
use strongroom_engine::pool::OpenMode;
use strongroom_engine::state::State;
use strongroom_engine::superblock::Superblock;

use crate::access::PoolArgs;
use crate::appliance::pools;
use crate::exit::{Context, Done};
use crate::output::{count, json_time, local_time, print_table, size, table};
use crate::parse::Layout;

/// Show what a pool is made of, and how it is
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom pool show
  strongroom pool show --pool /srv/pool --password-file /root/pool.pw")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    pool: PoolArgs,
}

/// Show what deduplication and compression save
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Logical bytes are those of all images as if each were restored. Stored bytes are those of the packs
that hold them, before the layout's redundancy; until the next `pool gc` they contain what only
forgotten images had. What compression saves is taken from the record of each image.

Examples:
  strongroom pool stats
  strongroom pool stats --pool /srv/pool")]
pub(crate) struct StatsArgs {
    #[command(flatten)]
    pool: PoolArgs,
}

/// A disk as `show` tells it.
struct DiskRow {
    path: Option<String>,
    state: &'static str,
    total: Option<u64>,
    free: Option<u64>,
}

fn disk_row(disk: Option<&Arc<dyn Disk>>, newest: u64) -> DiskRow {
    let Some(disk) = disk else {
        return DiskRow { path: None, state: "missing", total: None, free: None };
    };
    let state = match Superblock::read(&**disk) {
        Ok(superblock) if superblock.generation < newest => "outdated",
        Ok(_) => "ok",
        Err(_) => "damaged",
    };
    let space = disk.space().ok();
    DiskRow {
        path: Some(disk.describe()),
        state,
        total: space.map(|space| space.total),
        free: space.map(|space| space.free),
    }
}

/// Sums over a pool's packs.
#[derive(Default)]
struct Packs {
    data: u64,
    data_chunks: u64,
    data_bytes: u64,
    node: u64,
    node_chunks: u64,
    node_bytes: u64,
    /// With redundancy.
    disk_bytes: u64,
    /// Given up, not yet removed.
    condemned: u64,
}

impl Packs {
    fn of(state: &State) -> Self {
        let mut sum = Self { condemned: state.condemned.len() as u64, ..Self::default() };
        for info in state.packs.values() {
            let (packs, chunks, bytes) = match info.kind {
                ChunkKind::Data => (&mut sum.data, &mut sum.data_chunks, &mut sum.data_bytes),
                ChunkKind::Node => (&mut sum.node, &mut sum.node_chunks, &mut sum.node_bytes),
            };
            *packs += 1;
            *chunks += u64::from(info.chunks);
            *bytes += info.len;
            let (data, parity) = (u64::from(info.data_shards), u64::from(info.parity_shards));
            sum.disk_bytes += info.len.div_ceil(data.max(1)) * (data + parity);
        }
        sum
    }

    fn bytes(&self) -> u64 {
        self.data_bytes + self.node_bytes
    }
}

pub(crate) fn show(context: &Context, args: &ShowArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        return pools::show(context, &args.pool.appliance.client()?, name);
    }
    let pool = args.pool.open(context, OpenMode::Read)?;
    let superblock = pool.superblock();
    let state = pool.state();
    let rows: Vec<DiskRow> =
        pool.disks().iter().map(|disk| disk_row(disk.as_ref(), superblock.generation)).collect();
    let packs = Packs::of(&state);
    let index_entries: u64 = state.segments.values().map(|segment| segment.entries).sum();
    let index_bytes: u64 = state.segments.values().map(|segment| segment.len).sum();
    let slots = pool.slots();
    let encrypted = !slots.is_empty();
    let (images, unreadable) = image::images(&*pool)?;
    let layout = Layout::name(superblock.data_shards, superblock.parity_shards);
    let now = pool.now();
    let wall = PoolTime(i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX));
    let chunking = superblock.chunking;
    let created = PoolTime(superblock.created);
    let scrub_under_way = state.scrub.map(|mark| mark.started);

    let document = json!({
        "pool": pool.id().to_string(),
        "created": json_time(created),
        "layout": layout,
        "data_disks": superblock.data_shards,
        "parity_disks": superblock.parity_shards,
        "disks": rows.iter().map(|row| json!({
            "path": row.path, "state": row.state, "total": row.total, "free": row.free,
        })).collect::<Vec<_>>(),
        "encrypted": encrypted,
        "keys": slots.iter().map(super::keys::slot_json).collect::<Vec<_>>(),
        "chunk_size": { "min": chunking.min, "avg": chunking.avg, "max": chunking.max },
        "image_chunk_size": chunking.fixed,
        "compression": superblock.compression_level,
        "pack_size": superblock.pack_size,
        "images": images.len(),
        "packs": packs.data + packs.node,
        "packs_to_remove": packs.condemned,
        "chunks": packs.data_chunks + packs.node_chunks,
        "stored_bytes": packs.bytes(),
        "disk_bytes": packs.disk_bytes,
        "index_entries": index_entries,
        "index_bytes": index_bytes,
        "bad_copies": state.bad.len(),
        "pool_time": json_time(now),
        "machine_time": json_time(wall),
        "last_scrub": state.scrubbed.map(json_time),
        "scrub_under_way_since": scrub_under_way.map(json_time),
    });
    context.out.report(Some(&pool), document, |out| {
        writeln!(out, "pool         {}", pool.id())?;
        writeln!(out, "created      {}", local_time(created))?;
        writeln!(out, "layout       {layout}")?;
        let keys = count(slots.len() as u64, "key slot", "key slots");
        let encryption = if encrypted { format!("AES-256-GCM, {keys}") } else { "none".into() };
        writeln!(out, "encryption   {encryption}")?;
        let (min, max) = (size(chunking.min.into()), size(chunking.max.into()));
        let (avg, fixed) = (size(chunking.avg.into()), size(chunking.fixed.into()));
        writeln!(out, "chunks       {avg} ({min} to {max}), block images {fixed}")?;
        writeln!(out, "compression  zstd level {}", superblock.compression_level)?;
        write!(out, "images       {}", images.len())?;
        writeln!(out, "{}", if unreadable > 0 { " (and some that can't be read)" } else { "" })?;
        let chunks = packs.data_chunks + packs.node_chunks;
        let count_packs = count(packs.data + packs.node, "pack", "packs");
        writeln!(out, "content      {} in {chunks} chunks, {count_packs}", size(packs.bytes()))?;
        writeln!(out, "on disk      {} with redundancy", size(packs.disk_bytes))?;
        let index = size(index_bytes);
        writeln!(out, "index        {index} on each disk, {index_entries} entries")?;
        if packs.condemned > 0 {
            writeln!(out, "to remove    {} packs, by the next gc", packs.condemned)?;
        }
        if !state.bad.is_empty() {
            let bad = count(state.bad.len() as u64, "bad copy", "bad copies");
            writeln!(out, "damage       {bad} of chunks; see `pool check`")?;
        }
        writeln!(out, "pool's time  {}", local_time(now))?;
        writeln!(out, "machine's    {}", local_time(wall))?;
        let last = state.scrubbed.map_or("never".into(), local_time);
        writeln!(out, "last scrub   {last}")?;
        if let Some(started) = scrub_under_way {
            let since = local_time(started);
            writeln!(out, "             one begun {since} is not done; `pool scrub` goes on")?;
        }
        writeln!(out)?;
        let mut disks = table(&["DISK", "STATE", ">SIZE", ">FREE", "PATH"]);
        for (number, row) in rows.iter().enumerate() {
            disks.add_row([
                number.to_string(),
                row.state.into(),
                row.total.map_or(String::new(), size),
                row.free.map_or(String::new(), size),
                row.path.clone().unwrap_or_default(),
            ]);
        }
        print_table(out, &disks)
    })?;
    Ok(Done::Well)
}

fn ratio(whole: u64, part: u64) -> Option<f64> {
    (part > 0).then(|| (whole as f64 / part as f64 * 100.0).round() / 100.0)
}

pub(crate) fn stats(context: &Context, args: &StatsArgs) -> Result<Done> {
    if let Some(name) = args.pool.at_appliance() {
        return pools::stats(context, &args.pool.appliance.client()?, name);
    }
    let pool = args.pool.open(context, OpenMode::Read)?;
    let (images, unreadable) = image::images(&*pool)?;
    let packs = Packs::of(&pool.state());
    let sum = |field: fn(&image::Stats) -> u64| -> u64 {
        images.iter().map(|image| field(&image.meta.stats)).fold(0, u64::saturating_add)
    };
    let (logical, files) = (sum(|stats| stats.bytes), sum(|stats| stats.files));
    let (new, new_stored) = (sum(|stats| stats.new_bytes), sum(|stats| stats.stored_bytes));
    let reduction = ratio(logical, packs.bytes());
    let compression = ratio(new, new_stored);
    let document = json!({
        "images": images.len(),
        "unreadable_images": unreadable,
        "files": files,
        "logical_bytes": logical,
        "data": { "packs": packs.data, "chunks": packs.data_chunks, "bytes": packs.data_bytes },
        "nodes": { "packs": packs.node, "chunks": packs.node_chunks, "bytes": packs.node_bytes },
        "stored_bytes": packs.bytes(),
        "disk_bytes": packs.disk_bytes,
        "reduction": reduction,
        "compression": compression,
    });
    context.out.report(Some(&pool), document, |out| {
        writeln!(out, "pool         {}", pool.id())?;
        let shown = |ratio: Option<f64>| ratio.map_or("unknown".into(), |r| format!("{r:.2}"));
        writeln!(out, "images       {}, with {files} files", images.len())?;
        writeln!(out, "logical      {}", size(logical))?;
        let (data, nodes) = (size(packs.data_bytes), size(packs.node_bytes));
        writeln!(
            out,
            "stored       {} ({data} of data, {nodes} of directories)",
            size(packs.bytes())
        )?;
        writeln!(out, "on disk      {} with redundancy", size(packs.disk_bytes))?;
        writeln!(out, "reduction    {} (logical by stored)", shown(reduction))?;
        writeln!(out, "compression  {} (of what was new in these images)", shown(compression))
    })?;
    Ok(Done::Well)
}
