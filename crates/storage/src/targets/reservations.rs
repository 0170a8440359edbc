//! Where persistent reservations outlast a restart: with the volume, in the catalogue.

use std::io;

use strongroom_catalog::{Catalog, targets};
use strongroom_iscsi::scsi::ReservationStore;
use tokio::runtime::Handle;

/// The reservations of one volume. It is called from threads outside of the runtime, which wait.
#[derive(Debug)]
pub(super) struct Kept {
    catalog: Catalog,
    volume: i64,
    runtime: Handle,
}

impl Kept {
    /// Those of a volume; called within the runtime.
    pub(super) fn of(catalog: &Catalog, volume: i64) -> Self {
        Self { catalog: catalog.clone(), volume, runtime: Handle::current() }
    }
}

impl ReservationStore for Kept {
    fn load(&self) -> io::Result<Option<Vec<u8>>> {
        let load = targets::reservations(&self.catalog, self.volume);
        self.runtime.block_on(load).map_err(io::Error::other)
    }

    fn keep(&self, reservations: Option<&[u8]>) -> io::Result<()> {
        let reservations = reservations.map(<[u8]>::to_vec);
        let keep = targets::keep_reservations(&self.catalog, self.volume, reservations);
        self.runtime.block_on(keep).map_err(io::Error::other)
    }
}
