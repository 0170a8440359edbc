//! Who hears of proofs, and may turn away those who guess.

use std::fmt;
use std::net::IpAddr;

/// Hears of every proof by CHAP that an initiator gives. It is asked by threads that serve
/// connections, and should answer at once.
pub trait Doorkeeper: fmt::Debug + Send + Sync {
    /// An initiator at this address is about to prove itself to a target (none: for a discovery); if
    /// this says no, its proof isn't looked at and it is told to come later.
    fn admits(&self, address: IpAddr, target: Option<&str>) -> bool;

    /// Its proof was wrong.
    fn failed(&self, address: IpAddr, target: Option<&str>, initiator: &str);

    /// Its proof was right.
    fn succeeded(&self, address: IpAddr, target: Option<&str>);
}
