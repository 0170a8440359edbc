//! The box itself: what it is ([`Build`]), how it fares ([`Health`]), what it serves
//! ([`Services`]), what can be set ([`Settings`]), what is forgotten ([`Upkeep`]), and what is done to
//! it ([`Administration`]), which takes jobs where it takes long ([`works`]).
//!
//! It decides what is set; it does not know what others do with it. Whoever starts the services
//! gives each what it needs of [`Values`], at the start and after every change.

mod administration;
mod error;
mod health;
mod info;
mod services;
mod settings;
mod staged;
pub mod tls;
mod upkeep;
pub mod works;

pub use administration::{Administration, LastJob, Parts};
pub use error::{Error, Result};
pub use health::{Cpu, Health, Measured, Usage};
pub use info::{Build, CHANGELOG};
pub use services::{Listening, Service, Services};
pub use settings::{DEFINITIONS, Definition, Setting, Settings, Source, Unit, Values};
pub use upkeep::Upkeep;
