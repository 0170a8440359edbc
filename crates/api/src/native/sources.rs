//! What directories and issuers of tokens have in common.

use serde::{Deserialize, Serialize};
use strongroom_identity as identity;
use utoipa::ToSchema;

/// Whoever is in a group there has a role here, in an organisation and in those below it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupRole {
    /// The group: in a directory the name of its entry, of an issuer what it calls it.
    group: String,
    /// The role.
    role_id: i64,
    /// The organisation.
    organisation_id: i64,
}

impl From<identity::GroupRole> for GroupRole {
    fn from(role: identity::GroupRole) -> Self {
        let identity::GroupRole { group, role_id, organisation_id } = role;
        Self { group, role_id, organisation_id }
    }
}

impl From<GroupRole> for identity::GroupRole {
    fn from(role: GroupRole) -> Self {
        let GroupRole { group, role_id, organisation_id } = role;
        Self { group, role_id, organisation_id }
    }
}

/// From one list of them to the other.
pub(super) fn groups<A: Into<B>, B>(groups: Vec<A>) -> Vec<B> {
    groups.into_iter().map(Into::into).collect()
}

/// A step of a trial.
#[derive(Debug, Serialize, ToSchema)]
struct TrialStep {
    /// Its name: of a directory `connect`, `tls`, `bind`, `search`, `password`, `groups`; of an
    /// issuer `keys`, `token`.
    name: &'static str,
    /// Whether it went well.
    ok: bool,
    /// What was found, or what is wrong.
    detail: String,
}

/// What came of a trial.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Trial {
    /// Whether every step went well.
    ok: bool,
    /// The steps, up to the first that failed.
    steps: Vec<TrialStep>,
    /// The groups of the user it was about.
    groups: Vec<String>,
    /// The roles that those have here.
    roles: Vec<GroupRole>,
}

impl From<identity::Trial> for Trial {
    fn from(trial: identity::Trial) -> Self {
        let ok = trial.failed().is_none();
        let step = |step: identity::TrialStep| TrialStep {
            name: step.name,
            ok: step.ok,
            detail: step.detail,
        };
        Self {
            ok,
            steps: trial.steps.into_iter().map(step).collect(),
            groups: trial.groups,
            roles: groups(trial.roles),
        }
    }
}

/// Whether something is so, when nobody says.
pub(super) fn yes() -> bool {
    true
}
