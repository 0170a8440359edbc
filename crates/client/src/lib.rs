//! The typed client of the native API.
