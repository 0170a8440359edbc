//! What a volume must be: what some prefix of its changes made it, and not less than was durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use strongroom_block::volume::{IoType, Meta, Priority, Settings, Volume, VolumeId, Volumes};
use strongroom_block::{BlockDevice, Content, Durability, Error, Zeroing};
use strongroom_engine::pool::GcOptions;

use super::{Bed, Rng, small};

pub const SECTOR: u64 = 512;
const SIZE: u64 = 96 << 10;
const MOST: u64 = 160 << 10;

/// A volume after some change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    pub bytes: Vec<u8>,
    /// By name, oldest first.
    pub snapshots: Vec<(String, Arc<Vec<u8>>)>,
}

/// What a volume may be after a crash: the first of these at least was durable.
#[derive(Clone, Debug)]
pub struct History(VecDeque<State>, Vec<Settings>);

impl History {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(VecDeque::from([State { bytes, snapshots: Vec::new() }]), vec![Settings::default()])
    }

    /// How it is set, or was to be set.
    fn set(&self) -> &Settings {
        self.1.last().unwrap()
    }

    pub fn last(&self) -> &State {
        self.0.back().unwrap()
    }

    /// A change that was made, or was under way.
    fn push(&mut self, change: impl FnOnce(&mut State)) {
        let mut state = self.last().clone();
        change(&mut state);
        self.0.push_back(state);
    }

    /// All that was made is durable. Nobody hears of it when the power failed meanwhile: what was
    /// written before on some disks is enough then, but not if one of these is away, too.
    fn settle_if(&mut self, bed: &Bed) {
        if bed.world.is_off() {
            return;
        }
        let last = self.0.pop_back().unwrap();
        self.0 = VecDeque::from([last]);
    }
}

/// What must be in a pool.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub volumes: BTreeMap<String, History>,
    /// A clone that was being made.
    pub maybe: Option<(String, History)>,
    /// A volume that was being removed.
    pub going: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Act {
    Write(u64, u64, u64, Durability),
    Zero(u64, u64, Durability),
    Discard(u64, u64),
    Compare(u64, u64, bool),
    Flush,
    Snapshot,
    Delete(u64),
    RollBack(u64),
    Clone(u64),
    Grow(u64),
    Settle,
    Gc,
    Reopen,
    Read,
    Set(u64),
    Remove,
}

/// Some act on the volume with that number.
pub fn random_act(rng: &mut Rng) -> (u64, Act) {
    let which = rng.below(100);
    let offset = rng.below(MOST / SECTOR) * SECTOR;
    let length = match rng.below(3) {
        0 => SECTOR * (1 + rng.below(4)),
        1 => 4096 * (1 + rng.below(3)),
        _ => SECTOR * (1 + rng.below(60)),
    };
    let offset = if rng.chance(2) { offset / 4096 * 4096 } else { offset };
    let durability = if rng.chance(8) { Durability::Now } else { Durability::Later };
    let act = match rng.below(44) {
        0..17 => Act::Write(offset, length, rng.next(), durability),
        17..19 => Act::Zero(offset, length, durability),
        19..21 => Act::Discard(offset, length),
        21..23 => Act::Compare(offset, length, rng.chance(2)),
        23..26 => Act::Flush,
        26..29 => Act::Snapshot,
        29 => Act::Delete(rng.next()),
        30 => Act::RollBack(rng.next()),
        31 => Act::Clone(rng.next()),
        32 => Act::Grow(rng.below(16)),
        33..36 => Act::Settle,
        36 => Act::Gc,
        37 => Act::Reopen,
        40 => Act::Clone(rng.next()),
        41 => Act::Remove,
        42 => Act::Set(rng.next()),
        _ => Act::Read,
    };
    (which, act)
}

fn content(seed: u64, length: u64) -> Vec<u8> {
    match seed % 5 {
        0 => vec![0; length as usize],
        1 => vec![seed as u8; length as usize],
        _ => {
            let mut rng = Rng(seed);
            let mut bytes = vec![0; length as usize];
            bytes.chunks_mut(8).for_each(|part| part.copy_from_slice(&rng.next().to_le_bytes()));
            bytes
        }
    }
}

/// Somebody who works with the volumes of a pool, and says what must be in them.
pub struct Run<'b> {
    bed: &'b Bed,
    pub model: Model,
    away: Vec<usize>,
    volumes: Option<Volumes>,
    open: BTreeMap<String, Arc<Volume>>,
    made: u64,
}

pub type Outcome = Result<(), Error>;

fn id_of(volumes: &Volumes, name: &str) -> Option<VolumeId> {
    volumes.list().into_iter().find(|meta| meta.name == name).map(|meta| meta.volume)
}

/// Makes a pool with a volume.
pub fn create(bed: &Bed) -> Model {
    let volumes = bed.create();
    volumes.create(small("vol", SIZE)).unwrap();
    Model {
        volumes: [("vol".to_owned(), History::new(vec![0; SIZE as usize]))].into(),
        maybe: None,
        going: None,
    }
}

impl<'b> Run<'b> {
    pub fn new(bed: &'b Bed, model: Model, away: &[usize]) -> Self {
        let made = 0;
        Self { bed, model, away: away.to_vec(), volumes: None, open: BTreeMap::new(), made }
    }

    fn volumes(&mut self) -> Result<&Volumes, Error> {
        if self.volumes.is_none() {
            self.volumes = Some(self.bed.open_without(&self.away)?);
        }
        Ok(self.volumes.as_ref().unwrap())
    }

    fn volume(&mut self, name: &str) -> Result<Arc<Volume>, Error> {
        if let Some(volume) = self.open.get(name) {
            return Ok(Arc::clone(volume));
        }
        let volumes = self.volumes()?;
        let id = id_of(volumes, name).unwrap_or_else(|| panic!("there is no volume {name}"));
        let volume = volumes.open(id)?;
        self.open.insert(name.to_owned(), Arc::clone(&volume));
        // What it is now is durable: opening makes it so.
        self.model.volumes.get_mut(name).unwrap().settle_if(self.bed);
        Ok(volume)
    }

    pub fn close(&mut self) {
        self.open.clear();
        self.volumes = None;
    }

    pub fn all(&mut self, acts: &[(u64, Act)]) -> Outcome {
        for (which, act) in acts {
            self.act(*which, act)?;
            // Nothing is done by a process that is no more.
            if self.bed.world.is_off() {
                break;
            }
        }
        Ok(())
    }

    pub fn act(&mut self, which: u64, act: &Act) -> Outcome {
        let bed = self.bed;
        let names: Vec<String> = self.model.volumes.keys().cloned().collect();
        let name = names[which as usize % names.len()].clone();
        match act {
            Act::Reopen => {
                self.close();
                return Ok(());
            }
            Act::Gc => {
                let volumes = self.volumes()?;
                let options = GcOptions { dry_run: false, max_unused: 0.0 };
                return volumes.pool().gc(options).map(drop).map_err(Error::from);
            }
            Act::Remove if names.len() > 1 => {
                self.open.remove(&name);
                self.model.going = Some(name.clone());
                let volumes = self.volumes()?;
                let id = id_of(volumes, &name).unwrap();
                volumes.remove(id)?;
                if !bed.world.is_off() {
                    self.model.going = None;
                    self.model.volumes.remove(&name);
                }
                return Ok(());
            }
            _ => {}
        }
        let volume = self.volume(&name)?;
        let history = self.model.volumes.get_mut(&name).unwrap();
        let size = history.last().bytes.len() as u64;
        let clip = |offset: u64, length: u64| {
            let offset = offset % size;
            (offset, length.min(size - offset))
        };
        let range = |offset: u64, length: u64| offset as usize..(offset + length) as usize;
        let pick = |history: &History, seed: u64| {
            let snapshots = &history.last().snapshots;
            let one = snapshots.get(seed as usize % snapshots.len().max(1));
            one.map(|(name, bytes)| (name.clone(), Arc::clone(bytes)))
        };
        let id = |name: &str| {
            let snapshots = volume.snapshots();
            snapshots.into_iter().find(|one| one.name == name).map(|one| one.id).unwrap()
        };
        match act {
            Act::Write(offset, length, seed, durability) => {
                let (offset, length) = clip(*offset, *length);
                let bytes = content(*seed, length);
                history.push(|state| state.bytes[range(offset, length)].copy_from_slice(&bytes));
                volume.write_at(offset, &bytes, *durability)?;
                if *durability == Durability::Now {
                    history.settle_if(bed);
                }
            }
            Act::Zero(offset, length, durability) => {
                let (offset, length) = clip(*offset, *length);
                history.push(|state| state.bytes[range(offset, length)].fill(0));
                volume.write_zeroes(offset, length, Zeroing::MayUnmap, *durability)?;
                if *durability == Durability::Now {
                    history.settle_if(bed);
                }
            }
            Act::Discard(offset, length) => {
                let (offset, length) = clip(*offset, *length);
                if history.set().thin {
                    history.push(|state| state.bytes[range(offset, length)].fill(0));
                }
                volume.discard(offset, length)?;
            }
            Act::Compare(offset, length, same) => {
                let (offset, length) = clip(*offset, *length);
                let mut expected = history.last().bytes[range(offset, length)].to_vec();
                let bytes = content(offset ^ length << 20, length);
                if !same {
                    expected[length as usize / 2] ^= 1;
                    let differs =
                        volume.compare_and_write(offset, &expected, &bytes, Durability::Later)?;
                    assert_eq!(differs, Some(length / 2));
                    return Ok(());
                }
                history.push(|state| state.bytes[range(offset, length)].copy_from_slice(&bytes));
                let differs =
                    volume.compare_and_write(offset, &expected, &bytes, Durability::Later)?;
                assert_eq!(differs, None);
            }
            Act::Flush => {
                volume.flush()?;
                history.settle_if(bed);
            }
            Act::Snapshot => {
                self.made += 1;
                let number = self.made + history.last().snapshots.len() as u64 * 1000;
                let name = format!("s{number}");
                if history.last().snapshots.iter().any(|(other, _)| *other == name) {
                    return Ok(());
                }
                history.push(|state| {
                    let bytes = Arc::new(state.bytes.clone());
                    state.snapshots.push((name.clone(), bytes));
                });
                volume.snapshot(&name)?;
                history.settle_if(bed);
            }
            Act::Delete(seed) => {
                let Some((name, _)) = pick(history, *seed) else { return Ok(()) };
                history.push(|state| state.snapshots.retain(|(other, _)| *other != name));
                volume.delete_snapshot(id(&name))?;
                history.settle_if(bed);
            }
            Act::RollBack(seed) => {
                let Some((name, bytes)) = pick(history, *seed) else { return Ok(()) };
                history.push(|state| {
                    let size = state.bytes.len();
                    state.bytes = (*bytes).clone();
                    state.bytes.resize(size, 0);
                });
                volume.roll_back(id(&name))?;
                history.settle_if(bed);
            }
            Act::Clone(seed) => {
                let Some((snapshot, bytes)) = pick(history, *seed) else { return Ok(()) };
                let clone = format!("clone{:x}", seed & 0xff_ffff);
                if names.len() > 5 || names.contains(&clone) {
                    return Ok(());
                }
                let mut made = History::new((*bytes).clone());
                made.1 = vec![history.set().clone()];
                self.model.maybe = Some((clone.clone(), made.clone()));
                let id = id(&snapshot);
                self.volumes()?.clone_snapshot(&volume, id, &clone)?;
                if bed.world.is_off() {
                    return Ok(());
                }
                self.model.maybe = None;
                self.model.volumes.insert(clone, made);
            }
            Act::Grow(sectors) => {
                let grown = (size + sectors * SECTOR).min(MOST).max(size);
                history.push(|state| state.bytes.resize(grown as usize, 0));
                volume.grow(grown)?;
                history.settle_if(bed);
                assert!(grown == SECTOR || volume.grow(grown - SECTOR).is_err());
            }
            Act::Settle => {
                volume.settle()?;
                history.settle_if(bed);
            }
            Act::Read => {
                let found = state_of(&volume)?;
                assert!(found == *history.last(), "{name} is not what was written");
            }
            Act::Set(seed) => {
                let settings = Settings {
                    thin: seed & 7 != 0,
                    deduplication: seed & 8 == 0,
                    compression: seed & 16 == 0,
                    cache: seed & 32 == 0,
                    io_type: if seed & 64 == 0 { IoType::Sequential } else { IoType::default() },
                    priority: Priority::ALL[(seed >> 8) as usize % Priority::ALL.len()],
                    origin: format!("{seed}"),
                };
                history.1.push(settings.clone());
                let id = volume.volume_id();
                self.volumes()?.change(id, settings.clone())?;
                assert_eq!(volume.settings(), settings);
                if !bed.world.is_off() {
                    self.model.volumes.get_mut(&name).unwrap().1 = vec![settings];
                }
            }
            Act::Gc | Act::Reopen | Act::Remove => {}
        }
        Ok(())
    }
}

/// All that a volume has, and that what it says of holes is true.
pub fn state_of(volume: &Arc<Volume>) -> Result<State, Error> {
    let bytes = read_all(&**volume)?;
    let mut snapshots = Vec::new();
    for one in volume.snapshots() {
        let device = volume.snapshot_device(one.id)?;
        snapshots.push((one.name, Arc::new(read_all(&device)?)));
    }
    Ok(State { bytes, snapshots })
}

fn read_all(device: &dyn BlockDevice) -> Result<Vec<u8>, Error> {
    let size = device.geometry().size;
    let mut bytes = vec![0xee; size as usize];
    device.read_at(0, &mut bytes)?;
    let mut at = 0;
    for extent in device.extents(0, size, usize::MAX)? {
        assert_eq!(extent.offset, at);
        at += extent.length;
        let part = &bytes[extent.offset as usize..at as usize];
        assert!(extent.content == Content::Data || part.iter().all(|byte| *byte == 0));
    }
    assert_eq!(at, size);
    Ok(bytes)
}

/// Opens the pool and compares everything with the model, which is what was found from then on.
pub fn verify(bed: &Bed, model: &mut Model, away: &[usize]) -> Result<(), String> {
    let volumes = bed.open_without(away).map_err(|e| format!("opening the pool: {e}"))?;
    if let Some((name, history)) = model.maybe.take()
        && id_of(&volumes, &name).is_some()
    {
        model.volumes.insert(name, history);
    }
    if let Some(name) = model.going.take()
        && id_of(&volumes, &name).is_none()
    {
        model.volumes.remove(&name);
    }
    let metas: Vec<Meta> = volumes.list();
    if metas.len() != model.volumes.len() {
        let names: Vec<&String> = metas.iter().map(|meta| &meta.name).collect();
        return Err(format!("there are {names:?} instead of {:?}", model.volumes.keys()));
    }
    for (name, history) in &mut model.volumes {
        let id = id_of(&volumes, name).ok_or_else(|| format!("{name} is gone"))?;
        let volume = volumes.open(id).map_err(|e| format!("opening {name}: {e}"))?;
        let found = state_of(&volume).map_err(|e| format!("reading {name}: {e}"))?;
        let fits = history.0.iter().rposition(|state| *state == found);
        let Some(_) = fits else {
            let last = history.last();
            let names = |state: &State| -> Vec<String> {
                state.snapshots.iter().map(|(name, _)| name.clone()).collect()
            };
            let differs = found.bytes.iter().zip(&last.bytes).position(|(a, b)| a != b);
            return Err(format!(
                "{name} is none of {} states: {} bytes, snapshots {:?}; the last has {} and {:?}, \
                 first different byte {differs:?}",
                history.0.len(),
                found.bytes.len(),
                names(&found),
                last.bytes.len(),
                names(last),
            ));
        };
        let set = metas.iter().find(|meta| meta.volume == id).map(|meta| meta.settings.clone());
        let set = set.filter(|set| history.1.contains(set));
        history.1 = vec![set.ok_or_else(|| format!("{name} isn't set as it was: {history:?}"))?];
        if history.1[0] != volume.settings() {
            return Err(format!("{name} says that it is set otherwise"));
        }
        history.0 = VecDeque::from([found]);
    }
    Ok(())
}
