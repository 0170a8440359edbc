//! Approvals: deeds that wait for a second administrator.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{CLASSES, Class, FourEyes, FourEyesSet, Right};
use utoipa::{IntoParams, ToSchema};

use super::paths::Approvals;
use crate::access::On;
use crate::call::Call;
use crate::dialects::jidoteki;
use crate::problem::{Code, Problem, Result};
use crate::route::{Body, Group, IfMatch, Items, Json, Listing, Path, Tagged, get, post, put};

pub(super) fn group() -> Group {
    Group::new(
        "Approvals",
        "Deeds that need a second administrator.",
        [
            get("/v1/approvals", "approvals.list", "What was asked for", list)
                .needs(Right::ApprovalView, On::Any),
            post(
                "/v1/approvals/{approval}/decide",
                "approvals.decide",
                "Approve or refuse",
                decide,
            )
            .needs(Right::ApprovalDecide, On::Any)
            .fails([Code::Conflict, Code::NotFound])
            .recorded_by_service(),
            get("/v1/settings/approvals", "settings.approvals.show", "What needs approval", show)
                .needs(Right::SettingsView, On::Appliance),
            put(
                "/v1/settings/approvals",
                strongroom_identity::FOUR_EYES,
                "Say what needs approval",
                set,
            )
            .needs(Right::SettingsManage, On::Appliance)
            .fails([Code::Conflict])
            .recorded_by_service(),
        ],
    )
}

/// Something that needs approval.
#[derive(Debug, Serialize, ToSchema)]
struct Approval {
    /// Its number.
    id: i64,
    /// Whose object it is about.
    organisation_id: i64,
    /// The operation.
    operation: String,
    /// To what.
    object: String,
    /// Who asks.
    asker: String,
    /// Since when.
    asked_at: Timestamp,
    /// Until when it can be decided and done.
    expires_at: Timestamp,
    /// `asked`, `approved`, `refused` or `used`.
    state: String,
    /// Who decided.
    decided_by: Option<i64>,
    /// When.
    decided_at: Option<Timestamp>,
}

impl From<known::Approval> for Approval {
    fn from(approval: known::Approval) -> Self {
        Self {
            id: approval.id,
            organisation_id: approval.organisation_id,
            operation: approval.operation,
            object: approval.object,
            asker: approval.asker,
            asked_at: approval.asked_at,
            expires_at: approval.expires_at,
            state: approval.state,
            decided_by: approval.decided_by,
            decided_at: approval.decided_at,
        }
    }
}

async fn list(call: Call, list: Listing<Approvals>) -> Result<Items<Approval>> {
    call.items(&list, |approval: known::Approval| approval.into()).await
}

/// Which approval.
#[derive(Debug, Deserialize, IntoParams)]
struct ApprovalPath {
    /// The approval's number.
    approval: i64,
}

/// What was decided.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct DecideApproval {
    /// Whether it may be done.
    approve: bool,
}

async fn decide(
    call: Call,
    Path(path): Path<ApprovalPath>,
    Body(body): Body<DecideApproval>,
) -> Result<Json<Approval>> {
    let (identity, by) = (call.app().identity(), call.principal()?);
    Ok(Json(identity.decide_approval(by, path.approval, body.approve).await?.into()))
}

/// Which operations need a second administrator.
#[derive(Debug, Serialize, ToSchema)]
struct ApprovalSettings {
    /// Those that were named, by id.
    operations: Vec<String>,
    /// Those that do together.
    classes: Vec<ApprovalClass>,
    /// Hours from asking in which it must be decided and done.
    hours: u32,
    /// Counts changes; the `ETag`.
    version: i64,
}

/// Operations that are put on the list together; a later version may know more of them.
#[derive(Debug, Serialize, ToSchema)]
struct ApprovalClass {
    /// Its name.
    name: &'static str,
    /// What its operations do.
    meaning: &'static str,
    /// Their ids.
    operations: &'static [&'static str],
    /// Whether they need a second administrator.
    on: bool,
}

/// Which operations are to need a second administrator.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetApprovals {
    /// Their ids.
    operations: Vec<String>,
    /// The names of classes whose operations do too.
    #[serde(default)]
    classes: Vec<String>,
    /// Hours from asking in which it must be decided and done: 1 to 720.
    hours: u32,
}

fn tagged(set: FourEyesSet) -> Tagged<ApprovalSettings> {
    let FourEyesSet { rules, version } = set;
    let classes = CLASSES.iter().map(|class| {
        let Class { name, meaning, operations } = *class;
        ApprovalClass { name, meaning, operations, on: rules.classes.contains(name) }
    });
    let classes = classes.collect();
    let operations = rules.operations.into_iter().collect();
    Tagged(ApprovalSettings { operations, classes, hours: rules.hours, version }, version)
}

async fn show(call: Call) -> Result<Tagged<ApprovalSettings>> {
    Ok(tagged(call.app().identity().four_eyes().await?))
}

async fn set(
    call: Call,
    IfMatch(version): IfMatch,
    Body(body): Body<SetApprovals>,
) -> Result<Tagged<ApprovalSettings>> {
    let mut known: BTreeSet<&str> = super::routes().iter().map(|route| route.id()).collect();
    known.extend(jidoteki::operations().into_iter().map(|(_, _, id, _)| id));
    if let Some(wrong) = body.operations.iter().find(|id| !known.contains(id.as_str())) {
        // What is misspelt would need nobody, and look as if it did.
        return Err(Problem::new(Code::Invalid, format!("there is no operation `{wrong}`")));
    }
    let four_eyes = FourEyes {
        operations: body.operations.into_iter().collect(),
        classes: body.classes.into_iter().collect(),
        hours: body.hours,
    };
    let by = call.principal()?;
    Ok(tagged(call.app().identity().set_four_eyes(by, four_eyes, version).await?))
}
