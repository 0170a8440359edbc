//! Who acts, and what that one may do where.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use strongroom_catalog::list::Scope;

use crate::decide::FOUR_EYES;
use crate::rights::{Right, RightSet};

/// How a principal was known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// By name and password.
    Password,
    /// By an opaque session's token.
    Session,
    /// By an access token that has a refresh token.
    Pair,
    /// By a short signed token.
    Jwt,
    /// By an API key.
    Key,
    /// By a request signed with an API key.
    Signed,
    /// By a name and password that a directory knows.
    Directory,
    /// By a token of an issuer.
    Oidc,
    /// By the Unix user at the control socket.
    Local,
    /// It is the appliance itself: a scheduler, a job.
    System,
}

impl Via {
    /// Its name, for the audit trail.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Session => "session",
            Self::Pair => "pair",
            Self::Jwt => "jwt",
            Self::Key => "key",
            Self::Signed => "signed",
            Self::Directory => "directory",
            Self::Oidc => "oidc",
            Self::Local => "local",
            Self::System => "system",
        }
    }
}

/// The rights in each organisation; one that isn't there does not exist for the one who asks.
pub type Rights = BTreeMap<i64, RightSet>;

/// What an API key is for; none: everything its user may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Narrowing {
    /// These rights only.
    pub rights: Option<RightSet>,
    /// These pools only.
    pub pools: Option<BTreeSet<i64>>,
    /// These operations only.
    pub operations: Option<BTreeSet<String>>,
    /// This dialect only; none: the native API.
    pub dialect: Option<String>,
}

/// Who acts: a user, perhaps for another, perhaps narrowed by a key. Made by
/// [`Identity::authenticate`](crate::Identity::authenticate).
#[derive(Clone, Debug)]
pub struct Principal {
    /// The user; none at the control socket and for the appliance itself.
    pub user_id: Option<i64>,
    /// Its name.
    pub name: String,
    /// The organisation it belongs to.
    pub organisation_id: i64,
    /// The user it acts for.
    pub delegate_of: Option<i64>,
    /// How it was known.
    pub via: Via,
    /// The API key it came with, or with which its session was opened.
    pub key_id: Option<i64>,
    /// The session it came with.
    pub session_id: Option<i64>,
    /// From where it came.
    pub address: Option<IpAddr>,
    /// It must choose another password before anything else.
    pub must_change: bool,
    pub(crate) root: i64,
    pub(crate) rights: Arc<Rights>,
    pub(crate) narrowing: Arc<Narrowing>,
    /// The operations for which a second administrator is needed.
    pub(crate) four_eyes: Arc<BTreeSet<String>>,
}

impl Principal {
    /// The rights in an organisation.
    pub fn rights_in(&self, organisation: i64) -> RightSet {
        self.rights.get(&organisation).copied().unwrap_or_default()
    }

    /// Whether it has a right in an organisation.
    pub fn has(&self, right: Right, organisation: i64) -> bool {
        self.rights_in(organisation).has(right)
    }

    /// Whether the organisation exists for it.
    pub fn sees(&self, organisation: i64) -> bool {
        !self.rights_in(organisation).is_empty()
    }

    /// The topmost organisation, to which the appliance itself belongs.
    pub fn root(&self) -> i64 {
        self.root
    }

    /// Whose rows a list shows to one who needs this right for them.
    pub fn scope(&self, right: Right) -> Scope {
        if self.has(right, self.root) {
            // A right in the root is had everywhere, also in organisations made since.
            return Scope::All;
        }
        let with = self.rights.iter().filter(|(_, rights)| rights.has(right));
        Scope::Organisations(with.map(|(id, _)| *id).collect())
    }

    /// The pools it is narrowed to, if it is.
    pub fn pools(&self) -> Option<&BTreeSet<i64>> {
        self.narrowing.pools.as_ref()
    }

    /// The operations it is narrowed to, if it is.
    pub fn operations(&self) -> Option<&BTreeSet<String>> {
        self.narrowing.operations.as_ref()
    }

    /// The dialect whose key it came with, if it did.
    pub fn dialect(&self) -> Option<&str> {
        self.narrowing.dialect.as_deref()
    }

    /// Whether a second administrator must approve of an operation.
    pub fn needs_approval(&self, operation: &str) -> bool {
        self.four_eyes.contains(operation) || (operation == FOUR_EYES && !self.four_eyes.is_empty())
    }

    /// Whether it may do everything, everywhere.
    pub fn is_administrator(&self) -> bool {
        self.rights_in(self.root) == RightSet::ALL && *self.narrowing == Narrowing::default()
    }
}

/// The rights that are left: those of the user, no more than those of the one acted for, and no
/// more than the key's.
pub fn effective(own: Rights, acted_for: Option<&Rights>, key: Option<RightSet>) -> Rights {
    let narrowed = own.into_iter().map(|(organisation, mut rights)| {
        if let Some(other) = acted_for {
            rights = rights.and(other.get(&organisation).copied().unwrap_or_default());
        }
        (organisation, rights.and(key.unwrap_or(RightSet::ALL)))
    });
    narrowed.filter(|(_, rights)| !rights.is_empty()).collect()
}

/// Spreads rights down a tree: what is granted in an organisation is had in all below it.
/// `parents` are all organisations, each with the one it is part of.
pub fn spread(granted: &Rights, parents: &BTreeMap<i64, Option<i64>>) -> Rights {
    let mut known = Rights::new();
    for &start in parents.keys() {
        // Up to one that is known, then down again; a ring, which can't be, ends it too.
        let mut path = Vec::new();
        let mut at = Some(start);
        let mut rights = RightSet::NONE;
        while let Some(id) = at {
            if let Some(found) = known.get(&id) {
                rights = *found;
                break;
            }
            if path.contains(&id) {
                break;
            }
            path.push(id);
            at = parents.get(&id).copied().flatten();
        }
        for id in path.into_iter().rev() {
            rights = rights.or(granted.get(&id).copied().unwrap_or_default());
            known.insert(id, rights);
        }
    }
    known.retain(|_, rights| !rights.is_empty());
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_reach_down_never_up_nor_sideways() {
        let tree =
            BTreeMap::from([(1, None), (2, Some(1)), (3, Some(2)), (4, Some(1)), (5, Some(3))]);
        let view = RightSet::of(&[Right::PoolView]);
        let manage = RightSet::of(&[Right::PoolManage]);
        let got = spread(&Rights::from([(2, view), (5, manage)]), &tree);
        assert_eq!(got, Rights::from([(2, view), (3, view), (5, view.or(manage))]));
        assert_eq!(spread(&Rights::new(), &tree), Rights::new());
        let everywhere = spread(&Rights::from([(1, view)]), &tree);
        assert_eq!(everywhere.len(), 5);
    }

    #[test]
    fn a_ring_does_not_hang() {
        let ring = BTreeMap::from([(1, Some(2)), (2, Some(1))]);
        let view = RightSet::of(&[Right::PoolView]);
        assert!(spread(&Rights::from([(1, view)]), &ring).contains_key(&1));
    }
}
