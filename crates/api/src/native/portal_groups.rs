//! Portal groups: where targets are reached.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::targets as known;
use strongroom_identity::{Object, Right};
use strongroom_storage::{PortalDetails, PortalGroupDetails};
use utoipa::ToSchema;

use super::paths::{PortalGroupPath, PortalGroups, PortalPath};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Tagged, delete, get, patch,
    post,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Exists];
    Group::new(
        "Portal groups",
        "Where targets are reached: addresses of the appliance, at which it listens while a target is \
         enabled there.",
        [
            get("/v1/portal-groups", "portal_groups.list", "Portal groups", list)
                .needs(Right::TargetView, On::Appliance),
            post("/v1/portal-groups", "portal_groups.create", "Make a portal group", create)
                .needs(Right::TargetManage, On::Appliance)
                .fails(refused)
                .fails([Code::NotFound])
                .idempotent(),
            get("/v1/portal-groups/{portal_group}", "portal_groups.show", "A portal group", show)
                .needs(Right::TargetView, On::Appliance),
            patch(
                "/v1/portal-groups/{portal_group}",
                "portal_groups.rename",
                "Give a portal group another name",
                rename,
            )
            .needs(Right::TargetManage, On::Appliance)
            .fails(refused),
            delete(
                "/v1/portal-groups/{portal_group}",
                "portal_groups.remove",
                "Remove a portal group that no target has",
                remove,
            )
            .needs(Right::TargetManage, On::Appliance)
            .fails([Code::InUse]),
            post(
                "/v1/portal-groups/{portal_group}/portals",
                "portal_groups.add_portal",
                "Give a portal group another address as well",
                add,
            )
            .needs(Right::TargetManage, On::Appliance)
            .fails(refused)
            .idempotent(),
            delete(
                "/v1/portal-groups/{portal_group}/portals/{portal}",
                "portal_groups.remove_portal",
                "Take an address from a portal group",
                remove_portal,
            )
            .needs(Right::TargetManage, On::Appliance)
            .fails([Code::Invalid]),
        ],
    )
}

/// A portal group.
#[derive(Debug, Serialize, ToSchema)]
struct PortalGroup {
    /// Its number.
    id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    public_id: String,
    /// Its name.
    name: String,
    /// Whose it is.
    organisation_id: i64,
    /// How many targets have it.
    target_count: u64,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::PortalGroup> for PortalGroup {
    fn from(row: known::PortalGroup) -> Self {
        let known::PortalGroup { id, public_id, organisation_id, name, created_at, .. } = row;
        let (target_count, version) = (row.targets, row.version);
        Self { id, public_id, name, organisation_id, target_count, created_at, version }
    }
}

/// An address of a portal group.
#[derive(Debug, Serialize, ToSchema)]
struct Portal {
    /// Its number.
    id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    public_id: String,
    /// An IP address and a port.
    address: String,
    /// Whether this process listens there.
    listening: bool,
    /// Why it doesn't, though it should.
    trouble: Option<String>,
}

impl From<PortalDetails> for Portal {
    fn from(details: PortalDetails) -> Self {
        let PortalDetails { portal, listening, trouble } = details;
        let known::Portal { id, public_id, address, .. } = portal;
        Self { id, public_id, address, listening, trouble }
    }
}

/// A portal group, and where it is.
#[derive(Debug, Serialize, ToSchema)]
struct PortalGroupShown {
    #[serde(flatten)]
    group: PortalGroup,
    /// Its addresses.
    portals: Vec<Portal>,
}

impl From<PortalGroupDetails> for PortalGroupShown {
    fn from(details: PortalGroupDetails) -> Self {
        let portals = details.portals.into_iter().map(Portal::from).collect();
        Self { group: details.group.into(), portals }
    }
}

fn tagged(details: PortalGroupDetails) -> Tagged<PortalGroupShown> {
    let version = details.group.version;
    Tagged(details.into(), version)
}

async fn list(call: Call, list: Listing<PortalGroups>) -> Result<Items<PortalGroup>> {
    call.items(&list, |row: known::PortalGroup| row.into()).await
}

async fn show(call: Call, Path(path): Path<PortalGroupPath>) -> Result<Tagged<PortalGroupShown>> {
    Ok(tagged(call.app().storage().portal_group(path.portal_group).await?))
}

/// A new portal group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreatePortalGroup {
    /// Its name: letters, digits, `-`, `_` and `.`.
    name: String,
    /// Whose it is; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// Its addresses, each `ADDRESS:PORT`.
    #[serde(default)]
    portals: Vec<String>,
}

async fn create(
    call: Call,
    Body(body): Body<CreatePortalGroup>,
) -> Result<Created<PortalGroupShown>> {
    let organisation = body.organisation_id.unwrap_or(call.principal()?.organisation_id);
    call.allow(Right::TargetManage, &Object::of(organisation), "organisation")?;
    let storage = call.app().storage();
    let made = storage.create_portal_group(organisation, &body.name, &body.portals).await?;
    let location = format!("/v1/portal-groups/{}", made.group.id);
    Ok(Created { item: made.into(), location })
}

/// The name of a portal group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RenamePortalGroup {
    /// Its new name.
    name: String,
}

async fn rename(
    call: Call,
    Path(path): Path<PortalGroupPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<RenamePortalGroup>,
) -> Result<Tagged<PortalGroupShown>> {
    let storage = call.app().storage();
    Ok(tagged(storage.rename_portal_group(path.portal_group, &body.name, version).await?))
}

async fn remove(call: Call, Path(path): Path<PortalGroupPath>) -> Result<Empty> {
    call.app().storage().remove_portal_group(path.portal_group).await?;
    Ok(Empty)
}

/// An address to be added.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddPortal {
    /// `ADDRESS:PORT`.
    address: String,
    /// That targets may be reached there from other machines by whoever proves nothing.
    #[serde(default)]
    open: bool,
}

async fn add(
    call: Call,
    Path(path): Path<PortalGroupPath>,
    Body(body): Body<AddPortal>,
) -> Result<Created<PortalGroupShown>> {
    let storage = call.app().storage();
    let group = storage.add_portal(path.portal_group, &body.address, body.open).await?;
    let location = format!("/v1/portal-groups/{}", path.portal_group);
    Ok(Created { item: group.into(), location })
}

async fn remove_portal(call: Call, Path(path): Path<PortalPath>) -> Result<Json<PortalGroupShown>> {
    let storage = call.app().storage();
    Ok(Json(storage.remove_portal(path.portal_group, &path.portal).await?.into()))
}
