//! Targets: which volumes are served over iSCSI, where, and to whom.
//!
//! The catalogue says what there is to be; `serving.rs` makes the servers of this process follow it, after
//! each change and again for as long as something is in the way. So an operation here changes rows, whole or
//! not at all, and then has the servers follow.

mod auth_groups;
mod guard;
mod luns;
mod names;
mod operations;
mod portal_groups;
mod reservations;
mod serving;
mod sessions;
mod state;
#[cfg(test)]
mod tests;
mod wanted;

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde::Serialize;
use strongroom_catalog::Tx;
use strongroom_catalog::targets::{AuthGroup, Initiator, Lun, Portal, PortalGroup, Target};
use zeroize::Zeroizing;

pub use self::guard::Guard;
pub use self::luns::MAX_LUNS;
pub use self::names::TARGET_PREFIX;
pub(crate) use self::state::Targets;
use crate::{Error, Result};

/// Who is told what the servers of targets do.
pub trait TargetWatch: Send + Sync + fmt::Debug {
    /// A server listens there, for as long as what is given back lives.
    fn listens(&self, address: SocketAddr) -> Box<dyn Any + Send + Sync>;

    /// Initiators at that address proved themselves wrongly so often that no more is heard from there
    /// for a while.
    fn blocked(&self, refused: &RefusedLogin);
}

/// A wrong proof of an initiator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedLogin {
    /// Where it is.
    pub address: IpAddr,
    /// How it calls itself.
    pub initiator: String,
    /// The target's name in iSCSI; None: it asked for the names of targets.
    pub target: Option<String>,
    /// For how many seconds nothing more is heard from there.
    pub seconds: u64,
}

/// A name and a secret of CHAP.
#[derive(Clone, PartialEq, Eq)]
pub struct Chap {
    /// The name.
    pub user: String,
    /// The secret, of 12 to 255 bytes.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for Chap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chap").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An auth group to be made.
#[derive(Clone, Debug, Default)]
pub struct NewAuthGroup {
    /// Its name.
    pub name: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// What initiators prove.
    pub chap: Option<Chap>,
    /// What targets prove to initiators that ask for it.
    pub mutual: Option<Chap>,
    /// Names of the initiators that may log in, each with what users call it; none: all.
    pub initiators: Vec<(String, String)>,
}

/// What is to be another with an auth group; None: it stays.
#[derive(Clone, Debug, Default)]
pub struct AuthGroupChange {
    /// Its name.
    pub name: Option<String>,
    /// What initiators prove; none: nothing.
    pub chap: Option<Option<Chap>>,
    /// What targets prove to initiators.
    pub mutual: Option<Option<Chap>>,
    /// All initiators that it names, with what users call them; one that it names already keeps what it
    /// is called.
    pub initiators: Option<Vec<(String, String)>>,
    /// Targets may be open to whoever reaches them from another machine.
    pub open: bool,
}

/// The secrets of an auth group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthGroupSecrets {
    /// What initiators prove.
    pub chap: Option<Chap>,
    /// What targets prove.
    pub mutual: Option<Chap>,
}

/// An auth group, and whom it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthGroupDetails {
    /// The group.
    #[serde(flatten)]
    pub group: AuthGroup,
    /// The initiators that it lets in; none: all.
    pub named: Vec<Initiator>,
}

/// A portal group, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortalGroupDetails {
    /// The group.
    #[serde(flatten)]
    pub group: PortalGroup,
    /// Its addresses.
    pub portals: Vec<PortalDetails>,
}

/// An address of a portal group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PortalDetails {
    /// As the catalogue knows it.
    #[serde(flatten)]
    pub portal: Portal,
    /// Whether this process listens there. It does while an enabled target is reached there.
    pub listening: bool,
    /// Why it doesn't, though it should.
    pub trouble: Option<String>,
}

/// A target to be made.
#[derive(Clone, Debug, Default)]
pub struct NewTarget {
    /// What users call it.
    pub name: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// Its name in iSCSI; one is made of the machine's name and its own when it isn't said.
    pub iqn: Option<String>,
    /// Who may log in; None: everybody, or who is named here.
    pub auth_group_id: Option<i64>,
    /// An auth group of the target's name, made together with it.
    pub auth_group: Option<NewAuthGroup>,
    /// Where it is reached; None: the portal group `default`.
    pub portal_group_id: Option<i64>,
    /// Whether it is served.
    pub enabled: bool,
    /// It may be open to whoever reaches it from another machine.
    pub open: bool,
}

/// What is to be another with a target; None: it stays.
#[derive(Clone, Debug, Default)]
pub struct TargetChange {
    /// What users call it.
    pub name: Option<String>,
    /// Who may log in; none: everybody.
    pub auth_group_id: Option<Option<i64>>,
    /// Where it is reached. Initiators that are logged in are logged out.
    pub portal_group_id: Option<i64>,
    /// Whether it is served. When it no longer is, initiators are logged out.
    pub enabled: Option<bool>,
    /// It may be open to whoever reaches it from another machine.
    pub open: bool,
    /// Initiators that are logged in may be logged out.
    pub force: bool,
}

/// How a target fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TargetState {
    /// Initiators may log in.
    Served,
    /// It is not enabled.
    Disabled,
    /// Something is in the way, which is tried again.
    Waiting,
    /// Another machine has the disks of its volumes.
    Elsewhere,
    /// This process serves no targets: it starts or ends.
    Stopped,
}

impl TargetState {
    /// As one word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Disabled => "disabled",
            Self::Waiting => "waiting",
            Self::Elsewhere => "elsewhere",
            Self::Stopped => "stopped",
        }
    }
}

/// All that is known of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetDetails {
    /// The target.
    #[serde(flatten)]
    pub target: Target,
    /// How it fares.
    pub state: TargetState,
    /// What is in the way, if something is.
    pub trouble: Option<String>,
    /// Addresses at which it is reached.
    pub portals: Vec<String>,
    /// Volumes that are mapped to it.
    pub mapped: Vec<Lun>,
    /// Initiators that are logged in to it on this machine.
    pub sessions: Vec<TargetSession>,
}

/// An initiator that is logged in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TargetSession {
    /// The target.
    pub target_id: i64,
    /// The session's number there (TSIH).
    pub handle: u16,
    /// The initiator's name.
    pub initiator: String,
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Since when it is logged in.
    pub since: Timestamp,
}

/// How the targets of this machine fare, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TargetFigures {
    /// Those that initiators may log in to.
    pub served: usize,
    /// Those with something in the way.
    pub waiting: usize,
    /// Initiators that are logged in.
    pub sessions: usize,
}

/// Refuses what would open one of these targets, without a proof, to whoever reaches it from another
/// machine.
async fn are_guarded(tx: &mut Tx, affected: &[i64], open: bool) -> Result<()> {
    if open {
        return Ok(());
    }
    let all: Vec<Target> = tx.find(Target::open_to_the_network()).await?;
    match all.into_iter().find(|target| affected.contains(&target.id)) {
        None => Ok(()),
        Some(Target { name, portal_group, .. }) => Err(Error::Invalid(format!(
            "other machines reach the target {name} by the portal group {portal_group}, and anybody \
             there could use it: give it an auth group with CHAP, or say that it may be open (--open)"
        ))),
    }
}
