//! What has to be fetched for identity, by those who know how.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

/// A document that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where: `https://`, or `http://` on this machine.
    pub url: String,
    /// Who vouches for the server, as PEM; none: whom this machine trusts.
    pub ca_certificate: Option<String>,
    /// The most bytes that it may have.
    pub most: usize,
    /// How long all of it may take.
    pub within: Duration,
}

/// What is being fetched; the error says what is wrong.
pub type Fetching = Pin<Box<dyn Future<Output = Result<Vec<u8>, String>> + Send>>;

/// Fetches documents. It follows no redirection, and takes no answer but one that is all well.
pub trait Fetch: fmt::Debug + Send + Sync {
    /// Fetches one.
    fn fetch(&self, wanted: Wanted) -> Fetching;
}
