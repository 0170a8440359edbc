//! Volumes of a pool that this process opens, and their snapshots.
//!
//! A volume's log is replayed into a new one when it is opened, so the pool is opened to write whatever is
//! then done with the volume: nobody else may have it open.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use serde_json::json;
use strongroom_block::volume::{Limits, Meta, ROOT_KIND, VolumeId, Volumes};
use strongroom_block::{BlockDevice, ReadOnlyDevice};
use strongroom_engine::pool::Pool;

use super::settling::Settler;
use super::{Args, Subject, serve};
use crate::exit::{Context, Done, usage};
use crate::output::say_notes;

/// What a user knows a volume by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    id: VolumeId,
    name: String,
}

/// The volumes of a pool, also of one that is open to read only.
pub(super) fn volumes(pool: &Pool) -> Vec<Known> {
    let roots = pool.roots();
    let volumes = roots.iter().filter(|root| root.kind == ROOT_KIND);
    let metas = volumes.filter_map(|root| Meta::decode(&root.meta).ok());
    metas.map(|meta| Known { id: meta.volume, name: meta.name }).collect()
}

/// The volume that a user means by its name or its id, and the snapshot's name behind an `@`. Names may
/// have an `@` themselves: the longest counts.
pub(super) fn named<'v, 't>(
    volumes: &'v [Known],
    what: &'t str,
) -> Option<(&'v Known, Option<&'t str>)> {
    let of = |name: &str| {
        volumes.iter().find(|known| known.name == name || known.id.to_string() == name)
    };
    if let Some(known) = of(what) {
        return Some((known, None));
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
    let all = volumes(&pool);
    let Some((known, snapshot)) = named(&all, &args.what) else {
        bail!("there is no volume {} in the pool{}", args.what, others(&all));
    };
    if args.in_place && snapshot.is_some() {
        return Err(usage(
            "a snapshot is never changed: say --writable for a copy that is thrown away",
        ));
    }
    let volumes = Volumes::new(Arc::clone(&pool), Limits::default())?;
    let volume = volumes.open(known.id)?;
    let mut told = json!({ "volume": known.id.to_string(), "padding": 0 });
    let mut name = known.name.clone();
    let mut description = format!("volume {}", known.id);
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
            description = format!("snapshot {} of volume {}", found.id, known.id);
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
    let ended = settler.map_or(Ok(()), Settler::end);
    served.and(ended)?;
    context.out.notes(Some(&pool));
    Ok(Done::well_if(well.load(Ordering::Relaxed)))
}

/// What volumes there are, for who named none of them.
fn others(all: &[Known]) -> String {
    const MOST: usize = 10;
    let names: Vec<_> = all.iter().take(MOST).map(|known| &*known.name).collect();
    match names.is_empty() {
        true => ", which has none".to_owned(),
        false => {
            format!(": it has {}{}", names.join(", "), if all.len() > MOST { ", …" } else { "" })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(name: &str) -> Known {
        Known { id: VolumeId::random(), name: name.into() }
    }

    #[test]
    fn volumes_are_known_by_name_by_id_and_before_a_snapshot() {
        let all = [known("vm"), known("vm@home"), known("db")];
        let found = |what: &str| {
            named(&all, what).map(|(known, at)| (known.name.clone(), at.map(str::to_owned)))
        };
        let some = |name: &str, at: Option<&str>| Some((name.into(), at.map(Into::into)));
        assert_eq!(found("vm"), some("vm", None));
        assert_eq!(found("vm@home"), some("vm@home", None));
        assert_eq!(found("vm@home@a@b"), some("vm@home", Some("a@b")));
        assert_eq!(found("vm@monday"), some("vm", Some("monday")));
        assert_eq!(found(&all[2].id.to_string()), some("db", None));
        assert_eq!(found("d"), None);
        assert_eq!(others(&all), ": it has vm, vm@home, db");
        assert_eq!(others(&[]), ", which has none");
    }
}
