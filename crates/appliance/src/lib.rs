//! The box itself: what it is ([`Build`]), of what ([`Hardware`]), how it fares ([`Health`]), what it serves
//! ([`Services`]) and others do beside ([`Units`]), what can be set ([`Settings`]), its licence
//! ([`Licences`]), what storage is attached to it ([`StorageOptions`]), what helps those who look for a
//! fault ([`LogFile`], [`Support`]), how it is reached ([`network`]), where its certificate comes from
//! ([`tls`], [`acme`]), which release of it is in force ([`updates`]), what is forgotten ([`Upkeep`]), and
//! what is done to it
//! ([`Administration`]), which takes jobs where it takes long ([`works`]).
//!
//! It decides what is set; it does not know what others do with it. Whoever starts the services
//! gives each what it needs of [`Values`], at the start and after every change.

pub mod acme;
mod administration;
pub mod backup;
mod command;
mod error;
mod files;
pub mod hardware;
mod health;
mod info;
mod licence;
mod logs;
pub mod network;
mod services;
mod settings;
mod signing;
mod staged;
mod storage_options;
mod support;
pub mod tls;
mod units;
pub mod updates;
mod upkeep;
pub mod works;

pub use acme::{Acme, AcmeSettings, AcmeStatus, Challenges};
pub use administration::{Administration, LastJob, Parts};
pub use error::{Error, Result};
pub use hardware::Hardware;
pub use health::{Cpu, Health, Measured, Usage};
pub use info::{Build, CHANGELOG};
pub use licence::{Licence, LicenceSigner, LicenceState, LicenceVerifier, Licences, SignedLicence};
pub use logs::LogFile;
pub use services::{Listening, Service, Services};
pub use settings::{DEFINITIONS, Definition, Setting, Settings, Source, Unit, Values};
pub use storage_options::{
    StorageKind, StorageOptions, StorageSettings, StorageState, StorageStatus, StorageType,
    StorageValue,
};
pub use support::{Bundle, Hidden, Paper, Support, SupportSetup};
pub use units::{MachineUnit, UnitState, Units};
pub use upkeep::Upkeep;
