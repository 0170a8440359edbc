//! The roles that come with the appliance.

use crate::rights::Right::{self, *};
use crate::rights::RightSet;

/// A role that comes with the appliance.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    /// Its name.
    pub name: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// What it lets one do.
    pub rights: RightSet,
}

/// The role that has every right.
pub const ADMINISTRATOR: &str = "administrator";

const VIEWER: &[Right] = &[
    PoolView,
    ImageView,
    VolumeView,
    TargetView,
    JobView,
    EventView,
    SettingsView,
    StatsView,
    SystemView,
];

/// All of them. They are what this version says they are, whatever an older one wrote.
pub const ROLES: &[Builtin] = &[
    Builtin { name: ADMINISTRATOR, description: "May do everything.", rights: RightSet::ALL },
    Builtin {
        name: "operator",
        description: "Backs up, restores and runs jobs; removes nothing and shortens nothing.",
        rights: RightSet::of(VIEWER).or(RightSet::of(&[
            ImageCreate,
            ImageRead,
            ImageRestore,
            JobManage,
        ])),
    },
    Builtin {
        name: "viewer",
        description: "Sees how things are; not what is in images.",
        rights: RightSet::of(VIEWER),
    },
    Builtin {
        name: "auditor",
        description: "Sees who may do what, and who did what.",
        rights: RightSet::of(VIEWER).or(RightSet::of(&[
            UserView,
            RoleView,
            OrganisationView,
            KeyView,
            SessionView,
            AuditView,
            ApprovalView,
            DirectoryView,
        ])),
    },
    Builtin {
        name: "tenant administrator",
        description: "May do everything with the images, volumes, jobs, users and keys of an \
                      organisation.",
        // All that operators, viewers and auditors have: else it could not make others those.
        // What belongs to the appliance is the topmost organisation's, so there it has no hold.
        rights: RightSet::of(VIEWER).or(RightSet::of(&[
            ImageCreate,
            ImageRead,
            ImageRestore,
            ImageDelete,
            ImageRetain,
            VolumeManage,
            TargetManage,
            JobManage,
            UserView,
            UserManage,
            RoleView,
            OrganisationView,
            OrganisationManage,
            KeyView,
            KeyManage,
            SessionView,
            SessionManage,
            AuditView,
            ApprovalView,
            DirectoryView,
            ApprovalDecide,
        ])),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_administrator_has_every_right() {
        for role in ROLES {
            assert_eq!(role.rights == RightSet::ALL, role.name == ADMINISTRATOR, "{}", role.name);
            let changes = [SettingsManage, SystemManage, RoleManage, PoolManage, DirectoryManage];
            let rules = changes.iter().any(|right| role.rights.has(*right));
            assert_eq!(rules, role.name == ADMINISTRATOR, "{}", role.name);
        }
    }

    #[test]
    fn a_tenant_administrator_can_give_all_but_the_administrators_role() {
        let find = |name| ROLES.iter().find(|role| role.name == name).map(|role| role.rights);
        let tenant = find("tenant administrator").unwrap_or_default();
        for role in ROLES {
            assert_eq!(role.rights.within(tenant), role.name != ADMINISTRATOR, "{}", role.name);
        }
    }

    #[test]
    fn who_only_looks_changes_nothing() {
        for role in ROLES.iter().filter(|role| ["viewer", "auditor"].contains(&role.name)) {
            assert!(role.rights.iter().all(|right| right.name().ends_with(".view")));
        }
    }
}
