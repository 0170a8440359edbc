//! The box itself: what can be set ([`Settings`]), and what is forgotten ([`Upkeep`]).
//!
//! It decides what is set; it does not know what others do with it. Whoever starts the services
//! gives each what it needs of [`Values`], at the start and after every change.

mod error;
mod settings;
mod upkeep;

pub use error::{Error, Result};
pub use settings::{DEFINITIONS, Definition, Setting, Settings, Source, Unit, Values};
pub use upkeep::Upkeep;
