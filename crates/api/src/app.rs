//! The services that routes call.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use strongroom_appliance::{
    Administration, Hardware, Health, Licences, MachineUnit, Services, Settings, Support,
    SupportSetup, Units,
};
use strongroom_catalog::{Catalog, Engine};
use strongroom_identity::Identity;
use strongroom_protect::Protect;
use strongroom_storage::{Sealer, Storage};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::metrics::Metrics;
use crate::problem::{Problem, Result};
use crate::route::Kept;

/// Memory for large bodies of requests that are being answered, in KiB; more wait.
pub(crate) const BODIES: u32 = 64 << 10;

/// The services of the box itself.
#[derive(Clone, Debug)]
pub struct Machine {
    /// How the machine fares.
    pub health: Health,
    /// The licence.
    pub licences: Licences,
    /// What helps those who look for a fault.
    pub support: Support,
    /// What is done to the box.
    pub administration: Administration,
    /// Services of the machine beside our own.
    pub units: Units,
    /// What the machine is made of.
    pub hardware: Hardware,
}

impl Machine {
    /// Of the appliance with this data directory; licences are believed that the keys in these files
    /// signed.
    pub fn of(
        data: &Path,
        license_keys: Vec<PathBuf>,
        setup: SupportSetup,
        identity: &Identity,
        settings: &Settings,
        administration: Administration,
    ) -> Self {
        let health = Health::of(data);
        let (identity, settings) = (identity.clone(), settings.clone());
        let version = administration.version();
        let support = Support::new(data, version, setup, identity, settings, health.clone());
        let (licences, units) = (Licences::of(data, license_keys), Units::default());
        let hardware = Hardware::default();
        Self { health, licences, support, administration, units, hardware }
    }

    /// With services of the machine that are told of beside our own.
    #[must_use]
    pub fn with_units(self, units: Units) -> Self {
        Self { units, ..self }
    }
}

/// All services of the appliance. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    catalog: Catalog,
    identity: Identity,
    protect: Protect,
    settings: Settings,
    machine: Machine,
    services: Services,
    metrics: Arc<Metrics>,
    bodies: Arc<Semaphore>,
    kept: Kept,
    started: Timestamp,
}

impl App {
    /// Of these services.
    pub fn new(
        catalog: Catalog,
        identity: Identity,
        protect: Protect,
        settings: Settings,
        machine: Machine,
    ) -> Self {
        let inner = Inner {
            catalog,
            identity,
            protect,
            settings,
            machine,
            services: Services::default(),
            metrics: Arc::default(),
            bodies: Arc::new(Semaphore::new(BODIES as usize)),
            kept: Kept::default(),
            started: Timestamp::now(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The database.
    pub fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Users, rights, sessions, audit.
    pub fn identity(&self) -> &Identity {
        &self.inner.identity
    }

    /// Pools and images.
    pub fn storage(&self) -> &Storage {
        self.inner.protect.storage()
    }

    /// Jobs.
    pub fn protect(&self) -> &Protect {
        &self.inner.protect
    }

    /// What is set.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// How the machine fares.
    pub fn health(&self) -> &Health {
        &self.inner.machine.health
    }

    /// Asks for the licence, or sets it, where files may be waited for.
    pub(crate) async fn licences<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Licences) -> strongroom_appliance::Result<T> + Send + 'static,
    ) -> Result<T> {
        let licences = self.inner.machine.licences.clone();
        let done = tokio::task::spawn_blocking(move || work(&licences)).await;
        Ok(done.map_err(|error| Problem::internal(&error))??)
    }

    /// What helps those who look for a fault.
    pub fn support(&self) -> &Support {
        &self.inner.machine.support
    }

    /// Looks at what the machine is made of, for which it waits for the kernel.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        at: impl FnOnce(&Hardware) -> T + Send + 'static,
    ) -> Result<T> {
        let hardware = self.inner.machine.hardware.clone();
        let looked = tokio::task::spawn_blocking(move || at(&hardware)).await;
        looked.map_err(|error| Problem::internal(&error))
    }

    /// What is done to the box.
    pub fn administration(&self) -> &Administration {
        &self.inner.machine.administration
    }

    /// Services of the machine beside our own; systemd may take its time.
    pub(crate) async fn units(&self) -> Result<Vec<MachineUnit>> {
        let units = self.inner.machine.units.clone();
        let listed = tokio::task::spawn_blocking(move || units.list()).await;
        listed.map_err(|error| Problem::internal(&error))
    }

    /// What this process serves.
    pub fn services(&self) -> &Services {
        &self.inner.services
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.inner.metrics
    }

    /// Room for large bodies, in KiB.
    pub(crate) fn bodies(&self) -> &Arc<Semaphore> {
        &self.inner.bodies
    }

    pub(crate) fn kept(&self) -> &Kept {
        &self.inner.kept
    }

    /// Which database holds the catalogue.
    pub(crate) fn database(&self) -> &'static str {
        match self.catalog().engine() {
            Engine::Sqlite => "sqlite",
            Engine::Postgres => "postgresql",
        }
    }

    /// When the server began.
    pub fn started(&self) -> Timestamp {
        self.inner.started
    }

    pub(crate) fn seal(&self, purpose: &str, bytes: &[u8]) -> Result<Vec<u8>> {
        Ok(self.identity().key().seal(purpose, bytes)?)
    }

    pub(crate) fn unseal(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        Ok(self.identity().key().unseal(purpose, sealed)?.to_vec())
    }
}

/// Seals the secrets of pools with the appliance's key.
#[derive(Debug)]
pub struct KeySealer(pub Identity);

impl Sealer for KeySealer {
    fn seal(&self, purpose: &str, plain: &[u8]) -> std::result::Result<Vec<u8>, String> {
        self.0.key().seal(purpose, plain).map_err(|error| error.to_string())
    }

    fn unseal(
        &self,
        purpose: &str,
        sealed: &[u8],
    ) -> std::result::Result<Zeroizing<Vec<u8>>, String> {
        self.0.key().unseal(purpose, sealed).map_err(|error| error.to_string())
    }
}
