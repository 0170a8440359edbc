//! Roles: rights that go together.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{Right, RightSet, RoleSpec};
use utoipa::ToSchema;

use super::paths::{RolePath, Roles};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Tagged, delete, get, post,
    put,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Exists];
    Group::new(
        "Roles",
        "Rights that go together.",
        [
            get("/v1/rights", "rights.list", "All rights there are", rights).login(),
            get("/v1/roles", "roles.list", "Roles", list).needs(Right::RoleView, On::Any),
            post("/v1/roles", "roles.create", "Make a role", create)
                .needs(Right::RoleManage, On::Appliance)
                .fails(refused)
                .idempotent()
                .recorded_by_service(),
            get("/v1/roles/{role}", "roles.show", "A role", show).needs(Right::RoleView, On::Any),
            put("/v1/roles/{role}", "roles.change", "Make a role another", change)
                .needs(Right::RoleManage, On::Appliance)
                .fails(refused)
                .recorded_by_service(),
            delete("/v1/roles/{role}", "roles.remove", "Remove a role", remove)
                .needs(Right::RoleManage, On::Appliance)
                .fails(refused)
                .fails([Code::InUse])
                .recorded_by_service(),
        ],
    )
}

/// A right.
#[derive(Debug, Serialize, ToSchema)]
struct RightView {
    /// Its name.
    name: &'static str,
    /// What it lets one do.
    description: &'static str,
}

/// All rights.
#[derive(Debug, Serialize, ToSchema)]
struct RightList {
    /// The rights.
    rights: Vec<RightView>,
}

async fn rights(_: Call) -> Result<Json<RightList>> {
    let show = |right: &Right| RightView { name: right.name(), description: right.doc() };
    Ok(Json(RightList { rights: Right::ALL.iter().map(show).collect() }))
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
struct Role {
    /// Its number.
    id: i64,
    /// Its name.
    name: String,
    /// What it is for.
    description: String,
    /// The rights that it gives.
    rights: Vec<String>,
    /// Whether it came with the appliance; then it can't be changed.
    builtin: bool,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Role> for Role {
    fn from(role: known::Role) -> Self {
        Self {
            id: role.id,
            name: role.name,
            description: role.description,
            rights: role.rights.split_whitespace().map(str::to_owned).collect(),
            builtin: role.builtin,
            created_at: role.created_at,
            version: role.version,
        }
    }
}

async fn list(call: Call, list: Listing<Roles>) -> Result<Items<Role>> {
    call.items(&list, |role: known::Role| role.into()).await
}

async fn show(call: Call, Path(path): Path<RolePath>) -> Result<Tagged<Role>> {
    let role: Option<known::Role> =
        call.app().catalog().find_one(known::Role::by_id(path.role)).await?;
    let role = role.ok_or_else(|| Problem::not_found("role"))?;
    let version = role.version;
    Ok(Tagged(role.into(), version))
}

/// A role as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteRole {
    /// Its name.
    name: String,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// The rights that it gives.
    rights: Vec<String>,
}

/// The rights of these names.
pub(super) fn right_set(names: &[String]) -> Result<RightSet> {
    let all: std::result::Result<RightSet, _> = names.iter().map(|name| name.parse()).collect();
    all.map_err(|error: strongroom_identity::UnknownRight| {
        Problem::new(Code::Invalid, error.to_string())
    })
}

impl WriteRole {
    fn spec(self) -> Result<RoleSpec> {
        let rights = right_set(&self.rights)?;
        Ok(RoleSpec { name: self.name, description: self.description, rights })
    }
}

async fn create(call: Call, Body(body): Body<WriteRole>) -> Result<Created<Role>> {
    let role = call.app().identity().create_role(call.principal()?, body.spec()?).await?;
    Ok(Created { location: format!("/v1/roles/{}", role.id), item: role.into() })
}

async fn change(
    call: Call,
    Path(path): Path<RolePath>,
    IfMatch(version): IfMatch,
    Body(body): Body<WriteRole>,
) -> Result<Tagged<Role>> {
    let identity = call.app().identity();
    let role = identity.change_role(call.principal()?, path.role, version, body.spec()?).await?;
    let version = role.version;
    Ok(Tagged(role.into(), version))
}

async fn remove(call: Call, Path(path): Path<RolePath>) -> Result<Empty> {
    call.app().identity().remove_role(call.principal()?, path.role).await?;
    Ok(Empty)
}
