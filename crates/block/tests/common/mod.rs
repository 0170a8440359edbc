//! What the proofs of volumes share: pools on simulated disks, and what must be in a volume.
#![allow(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, unreachable_pub, reason = "each proof uses its part")]

pub mod model;

use std::sync::Arc;

use strongroom_block::Result;
use strongroom_block::volume::{Limits, NewVolume, Settings, Volumes};
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::{Clock, VirtualClock};
use strongroom_engine::disk::{Disk, SimWorld};
use strongroom_engine::keys::{Secret, Stretch};
use strongroom_engine::pool::{CreateOptions, OpenMode, OpenOptions, Pool, Use};

/// A number from the environment.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// How a pool's disks are used.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub disks: usize,
    pub parity: u8,
    pub encrypted: bool,
}

pub const LAYOUTS: [Layout; 6] = [
    Layout { disks: 1, parity: 0, encrypted: false },
    Layout { disks: 2, parity: 1, encrypted: true },
    Layout { disks: 3, parity: 1, encrypted: false },
    Layout { disks: 1, parity: 0, encrypted: true },
    Layout { disks: 2, parity: 1, encrypted: false },
    Layout { disks: 4, parity: 2, encrypted: true },
];

/// Simulated disks, and the ways to open the pool on them.
#[derive(Debug)]
pub struct Bed {
    pub world: SimWorld,
    pub layout: Layout,
    clock: VirtualClock,
    secret: Option<Secret>,
    pub limits: Limits,
}

impl Bed {
    pub fn new(layout: Layout, seed: u64) -> Self {
        let world = SimWorld::new(seed);
        (0..layout.disks).for_each(|_| drop(world.add_disk()));
        let secret = layout.encrypted.then(|| Secret::passphrase(b"first").unwrap());
        let clock = VirtualClock::new(1_700_000_000_000_000_000);
        // Records of both kinds.
        let limits = Limits { segment: 64 << 10, log: 512 << 10, long: 4096 };
        Self { world, layout, clock, secret, limits }
    }

    fn used(&self) -> Use {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        Use { clock, threads: 0, holder: "the test".into() }
    }

    fn handles(&self) -> Vec<Arc<dyn Disk>> {
        self.world.disks().into_iter().map(|disk| Arc::new(disk) as Arc<dyn Disk>).collect()
    }

    pub fn create(&self) -> Volumes {
        let options = CreateOptions {
            disks: self.handles(),
            parity: self.layout.parity,
            secret: self.secret.as_ref().map(|secret| (secret, Stretch::CHEAP)),
            chunking: Params::default(),
            level: 1,
            pack_size: 1 << 20,
        };
        let pool = Pool::create(options, self.used()).unwrap();
        Volumes::new(Arc::new(pool), self.limits).unwrap()
    }

    /// Opens the pool without some of its disks.
    pub fn open_without(&self, away: &[usize]) -> Result<Volumes> {
        let disks = self.handles().into_iter().enumerate();
        let disks = disks.map(|(i, disk)| (!away.contains(&i)).then_some(disk)).collect();
        let secret = self.secret.as_ref();
        let options = OpenOptions { disks, mode: OpenMode::Write, secret, without_index: false };
        Volumes::new(Arc::new(Pool::open(options, self.used())?), self.limits)
    }

    pub fn open(&self) -> Result<Volumes> {
        self.open_without(&[])
    }
}

/// A volume of that many bytes, in chunks of 4 KiB.
pub fn small(name: &str, size: u64) -> NewVolume {
    let settings = Settings::default();
    NewVolume { name: name.into(), size, chunk: 4096, sector: 512, settings }
}
