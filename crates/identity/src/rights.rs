//! What may be done: the closed list of rights, and sets of them.

use std::fmt;
use std::str::FromStr;

macro_rules! rights {
    ($($variant:ident $name:literal $doc:literal;)*) => {
        /// A right. It is had in an organisation, and in those below it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Right {
            $(#[doc = $doc] $variant,)*
        }

        impl Right {
            /// All rights.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What it lets one do.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)* }
            }
        }
    };
}

rights! {
    PoolView "pool.view" "See pools and their disks.";
    PoolManage "pool.manage" "Make, change, check and remove pools and their disks.";
    ImageView "image.view" "See that images exist: their names, times and sizes.";
    ImageCreate "image.create" "Back up: make images.";
    ImageRead "image.read" "Look into images, and download from them.";
    ImageRestore "image.restore" "Restore images to where the appliance can write.";
    ImageDelete "image.delete" "Remove images.";
    ImageRetain "image.retain" "Change how long images are kept.";
    VolumeView "volume.view" "See volumes, their snapshots and schedules.";
    VolumeManage "volume.manage" "Make, change, snapshot, clone, roll back and remove volumes and their snapshots; serve them, which is to read and write them.";
    TargetView "target.view" "See targets, where they are reached, and who may log in.";
    TargetManage "target.manage" "Make, change and remove targets, portals and who may log in.";
    JobView "job.view" "See jobs and their logs.";
    JobManage "job.manage" "Start, cancel and reorder jobs.";
    EventView "event.view" "See events.";
    UserView "user.view" "See users and what they may do.";
    UserManage "user.manage" "Make, change and remove users, and what they may do.";
    RoleView "role.view" "See roles.";
    RoleManage "role.manage" "Make, change and remove roles.";
    OrganisationView "organisation.view" "See organisations.";
    OrganisationManage "organisation.manage" "Make, change and remove organisations.";
    KeyView "key.view" "See the API keys of others.";
    KeyManage "key.manage" "Make, change and remove the API keys of others.";
    SessionView "session.view" "See the sessions of others.";
    SessionManage "session.manage" "End the sessions of others.";
    AuditView "audit.view" "Read and check the audit trail.";
    ApprovalView "approval.view" "See what waits for a second administrator.";
    ApprovalDecide "approval.decide" "Approve or refuse what another asks for.";
    DirectoryView "directory.view" "See directories and issuers of tokens.";
    DirectoryManage "directory.manage" "Make, change, try and remove directories and issuers of tokens.";
    SettingsView "settings.view" "See the appliance's settings.";
    SettingsManage "settings.manage" "Change the appliance's settings.";
    StatsView "stats.view" "See statistics and metrics.";
    SystemView "system.view" "See the appliance's state.";
    SystemManage "system.manage" "Stop, restart, update and mend the appliance; back it up and restore it, which is to have all of it.";
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Right {
    type Err = UnknownRight;

    fn from_str(name: &str) -> Result<Self, UnknownRight> {
        let found = Self::ALL.iter().find(|right| right.name() == name);
        found.copied().ok_or_else(|| UnknownRight(name.to_owned()))
    }
}

/// There is no such right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no right `{0}`; there are: {all}", all = RightSet::ALL)]
pub struct UnknownRight(String);

/// A set of rights.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RightSet(u64);

const _: () = assert!(Right::ALL.len() <= 64, "a set has a bit for each right");

impl RightSet {
    /// What is about pools, what is in them and what is done to them; all else is the appliance's.
    pub const OF_POOLS: Self = Self::of(&[
        Right::PoolView,
        Right::PoolManage,
        Right::ImageView,
        Right::ImageCreate,
        Right::ImageRead,
        Right::ImageRestore,
        Right::ImageDelete,
        Right::ImageRetain,
        Right::VolumeView,
        Right::VolumeManage,
        Right::JobView,
        Right::JobManage,
        Right::EventView,
        Right::StatsView,
        Right::SystemView,
    ]);
    /// What is about targets, which may have volumes of any pool.
    pub const OF_TARGETS: Self = Self::of(&[Right::TargetView, Right::TargetManage]);
    /// No right.
    pub const NONE: Self = Self(0);
    /// Every right.
    pub const ALL: Self = Self::of(Right::ALL);

    /// These.
    pub const fn of(rights: &[Right]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < rights.len() {
            bits |= 1 << rights[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether the right is among them.
    pub const fn has(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that the other doesn't have.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the other has all of these.
    pub const fn within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL.iter().copied().filter(move |right| self.has(*right))
    }

    /// What the catalogue holds. A name that this version doesn't know gives no right.
    pub(crate) fn stored(text: &str) -> Self {
        text.split_ascii_whitespace().filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromIterator<Right> for RightSet {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, |set, right| set.or(Self::of(&[right])))
    }
}

/// The names, separated by spaces.
impl fmt::Display for RightSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, right) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(right.name())?;
        }
        Ok(())
    }
}

impl fmt::Debug for RightSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromStr for RightSet {
    type Err = UnknownRight;

    fn from_str(text: &str) -> Result<Self, UnknownRight> {
        text.split_ascii_whitespace().map(Right::from_str).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for right in Right::ALL {
            assert_eq!(right.name().parse::<Right>(), Ok(*right));
            assert_eq!(RightSet::of(&[*right]).iter().collect::<Vec<_>>(), [*right]);
        }
        assert_eq!(RightSet::ALL.to_string().parse::<RightSet>(), Ok(RightSet::ALL));
        let error = "pool.view pool.drink".parse::<RightSet>().unwrap_err().to_string();
        assert!(error.contains("`pool.drink`") && error.contains("pool.manage"), "{error}");
    }

    #[test]
    fn what_another_version_stored_gives_no_right() {
        assert_eq!(RightSet::stored("pool.view moon.walk"), RightSet::of(&[Right::PoolView]));
    }

    #[test]
    fn sets_are_sets() {
        let a = RightSet::of(&[Right::PoolView, Right::JobView]);
        let b = RightSet::of(&[Right::JobView, Right::AuditView]);
        assert_eq!(a.and(b), RightSet::of(&[Right::JobView]));
        assert_eq!(a.without(b), RightSet::of(&[Right::PoolView]));
        assert!(a.within(RightSet::ALL) && a.and(b).within(a) && !a.within(b));
        assert!(a.and(RightSet::NONE).is_empty());
    }
}
