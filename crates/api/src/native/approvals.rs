//! Approvals: deeds that wait for a second administrator.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{FourEyes, Right};
use utoipa::{IntoParams, ToSchema};

use super::paths::Approvals;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Group, Items, Json, Listing, Path, get, post, put};

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
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalSettings {
    /// Their ids.
    operations: Vec<String>,
    /// Hours from asking in which it must be decided and done: 1 to 720.
    hours: u32,
}

async fn show(call: Call) -> Result<Json<ApprovalSettings>> {
    let FourEyes { operations, hours } = call.app().identity().four_eyes().await?;
    Ok(Json(ApprovalSettings { operations: operations.into_iter().collect(), hours }))
}

async fn set(call: Call, Body(body): Body<ApprovalSettings>) -> Result<Json<ApprovalSettings>> {
    let four_eyes =
        FourEyes { operations: body.operations.into_iter().collect(), hours: body.hours };
    call.app().identity().set_four_eyes(call.principal()?, four_eyes).await?;
    show(call).await
}
