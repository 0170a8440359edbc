//! What a volume and its snapshots hold, by their maps.

use std::iter::Peekable;

use strongroom_engine::map::{Extent, MapReader, MapRef};

use super::settle::data_bytes;
use super::{Usage, Volume};
use crate::Result;

/// Whether a map has an extent, asked for extents in order.
struct Neighbour<'m> {
    rest: Option<Peekable<MapReader<'m>>>,
}

impl<'m> Neighbour<'m> {
    fn new(volume: &'m Volume, map: Option<&MapRef>) -> Self {
        Self { rest: map.map(|map| MapReader::new(&*volume.pool, map, 0).peekable()) }
    }

    fn has(&mut self, at: u64, extent: Extent) -> Result<bool> {
        let Some(rest) = &mut self.rest else { return Ok(false) };
        while let Some(Ok((from, _))) = rest.peek()
            && *from < at
        {
            rest.next();
        }
        match rest.peek() {
            Some(Ok(there)) => Ok(*there == (at, extent)),
            Some(Err(_)) => {
                rest.next().transpose()?;
                Ok(false)
            }
            None => Ok(false),
        }
    }
}

/// See [`Volume::usage`].
pub(super) fn usage(volume: &Volume) -> Result<Usage> {
    let upkeep = volume.upkeep();
    let (snapshots, current) = {
        let live = volume.lives.read();
        (live.snapshots.clone(), live.current.clone())
    };
    // What the maps have stays while they are read, whoever settles meanwhile. Those of a clone that has none
    // of its own are another's, and nothing is settled until they are read.
    let root = upkeep.meta.parent.is_none().then_some(upkeep.root);
    let _lease = root.map(|root| volume.pool.lease(root)).transpose()?;
    let _upkeep = root.is_none().then_some(upkeep);
    let mut usage = Usage { log: volume.log.bytes(), ..Usage::default() };
    for item in MapReader::new(&*volume.pool, &current.base, 0) {
        usage.volume += data_bytes(item?.1);
    }
    let maps: Vec<&MapRef> =
        snapshots.iter().map(|one| &*one.view.base).chain([&*current.base]).collect();
    for (place, snapshot) in snapshots.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| maps.get(before));
        let mut before = Neighbour::new(volume, before.copied());
        let mut after = Neighbour::new(volume, maps.get(place + 1).copied());
        let mut now = Neighbour::new(volume, Some(&current.base));
        let mut alone = 0;
        for item in MapReader::new(&*volume.pool, &snapshot.view.base, 0) {
            let (at, extent) = item?;
            // What the one before has as well is counted there.
            if before.has(at, extent)? {
                continue;
            }
            if !after.has(at, extent)? {
                alone += data_bytes(extent);
            }
            if !now.has(at, extent)? {
                usage.in_snapshots += data_bytes(extent);
            }
        }
        if !snapshot.is_hidden() {
            usage.snapshots.push((snapshot.id, alone));
        }
    }
    Ok(usage)
}
