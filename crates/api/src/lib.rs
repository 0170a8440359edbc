//! The HTTP interface. [`server`] serves it; [`problem`] is how it says what went wrong.

mod error;
pub mod problem;
pub mod request_id;

pub mod server;

pub use error::{Error, Result};
pub use problem::Problem;
