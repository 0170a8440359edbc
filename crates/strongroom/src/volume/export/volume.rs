//! Volumes of a pool that this process opens, and their snapshots.
//!
//! A volume's log is replayed into a new one when it is opened, so the pool is opened to write whatever is
//! then done with the volume: nobody else may have it open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use serde_json::json;
use strongroom_block::volume::{Limits, Meta, ROOT_KIND, Volumes};
use strongroom_block::{BlockDevice, ReadOnlyDevice};
use strongroom_engine::pool::Pool;

use super::settling::Settler;
use super::{Args, Subject, serve};
use crate::exit::{Context, Done, usage};
use crate::output::say_notes;

/// The volumes of a pool, also of one that is open to read only.
pub(super) fn volumes(pool: &Pool) -> Vec<Meta> {
    let roots = pool.roots();
    let volumes = roots.iter().filter(|root| root.kind == ROOT_KIND);
    volumes.filter_map(|root| Meta::decode(&root.meta).ok()).collect()
}

/// The volume that a user means by its name or its id, and the snapshot's name behind an `@`. Names may
/// have an `@` themselves: the longest counts.
pub(super) fn named<'v, 't>(
    volumes: &'v [Meta],
    what: &'t str,
) -> Option<(&'v Meta, Option<&'t str>)> {
    let of = |name: &str| {
        volumes.iter().find(|meta| meta.name == name || meta.volume.to_string() == name)
    };
    if let Some(meta) = of(what) {
        return Some((meta, None));
    }
    let mut splits = what.rmatch_indices('@');
    splits.find_map(|(at, _)| Some((of(&what[..at])?, Some(&what[at + 1..]))))
}

/// Serves a volume, or a snapshot of one.
pub(super) fn run(context: &Context, args: &Args) -> Result<Done> {
    if args.pool.at_appliance().is_some() {
        return Err(usage(
            "an appliance serves its volumes itself: over NBD at the socket nbd.sock in its data \
             directory, and to initiators of iSCSI; name the directory of a pool that no other \
             process has open",
        ));
    }
    // Nothing that was written may be refused its way into the pool when it is told to stop.
    let pool = args.pool.open_kept(context)?;
    let volumes = Volumes::new(Arc::clone(&pool), Limits::default())?;
    let all = volumes.list();
    let Some((meta, snapshot)) = named(&all, &args.what) else {
        bail!("there is no volume {} in the pool{}", args.what, known(&all));
    };
    if args.in_place && snapshot.is_some() {
        return Err(usage(
            "a snapshot is never changed: say --writable for a copy that is thrown away",
        ));
    }
    let volume = volumes.open(meta.volume)?;
    let mut told = json!({ "volume": meta.volume.to_string(), "padding": 0 });
    let mut name = meta.name.clone();
    let mut description = format!("volume {}", meta.volume);
    let device: Arc<dyn BlockDevice> = match snapshot {
        None => volume.clone(),
        Some(wanted) => {
            let snapshots = volume.snapshots();
            let Some(found) = snapshots.iter().find(|snapshot| snapshot.name == wanted) else {
                let names: Vec<_> = snapshots.iter().map(|snapshot| &*snapshot.name).collect();
                let there = match names.is_empty() {
                    true => "it has none".to_owned(),
                    false => format!("it has {}", names.join(", ")),
                };
                bail!("volume {name} has no snapshot {wanted}: {there}");
            };
            told["snapshot"] = found.id.to_string().into();
            name = format!("{name}@{wanted}");
            description = format!("snapshot {} of volume {}", found.id, meta.volume);
            Arc::new(volume.snapshot_device(found.id)?)
        }
    };
    let device = match (args.in_place, args.writable) {
        (true, _) => device,
        (_, true) => args.thrown_away(device)?,
        _ => Arc::new(ReadOnlyDevice::new(device)),
    };
    let well = Arc::new(AtomicBool::new(true));
    say_notes(&volume.take_notices());
    let settler = args.in_place.then(|| Settler::begin(&volume, &well)).transpose()?;
    let served = serve(context, args, Subject { name, description, device }, Some(&pool), told);
    // Also when it could not be served.
    settler.map_or(Ok(()), Settler::end)?;
    served?;
    context.out.notes(Some(&pool));
    Ok(Done::well_if(well.load(Ordering::Relaxed)))
}

/// What volumes there are, for who named none of them.
fn known(all: &[Meta]) -> String {
    const MOST: usize = 10;
    let names: Vec<_> = all.iter().take(MOST).map(|meta| &*meta.name).collect();
    match names.is_empty() {
        true => ", which has none".to_owned(),
        false => {
            format!(": it has {}{}", names.join(", "), if all.len() > MOST { ", …" } else { "" })
        }
    }
}

#[cfg(test)]
mod tests {
    use strongroom_block::volume::{Settings, VolumeId};
    use strongroom_engine::clock::PoolTime;

    use super::*;

    fn meta(name: &str) -> Meta {
        Meta {
            volume: VolumeId::random(),
            name: name.into(),
            created: PoolTime(0),
            size: 1 << 20,
            chunk: 65_536,
            sector: 512,
            run: [0; 32],
            epoch: 0,
            settled: 0,
            settings: Settings::default(),
            parent: None,
        }
    }

    #[test]
    fn volumes_are_known_by_name_by_id_and_before_a_snapshot() {
        let all = [meta("vm"), meta("vm@home"), meta("db")];
        let found = |what: &str| {
            named(&all, what).map(|(meta, at)| (meta.name.clone(), at.map(str::to_owned)))
        };
        let some = |name: &str, at: Option<&str>| Some((name.into(), at.map(Into::into)));
        assert_eq!(found("vm"), some("vm", None));
        assert_eq!(found("vm@home"), some("vm@home", None));
        assert_eq!(found("vm@home@a@b"), some("vm@home", Some("a@b")));
        assert_eq!(found("vm@monday"), some("vm", Some("monday")));
        assert_eq!(found(&all[2].volume.to_string()), some("db", None));
        assert_eq!(found("d"), None);
        assert_eq!(known(&all), ": it has vm, vm@home, db");
        assert_eq!(known(&[]), ", which has none");
    }
}
