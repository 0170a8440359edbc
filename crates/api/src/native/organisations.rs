//! Organisations: to whom things belong.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{OrganisationChange, Right};
use utoipa::ToSchema;

use super::paths::{OrganisationPath, Organisations};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Listing, Path, Tagged, delete, get, patch, post,
};

pub(super) fn group() -> Group {
    let on = On::Organisation("organisation");
    let refused = [Code::Invalid, Code::Conflict, Code::Exists, Code::NotFound];
    Group::new(
        "Organisations",
        "To whom things belong: a tree, whose root owns the appliance.",
        [
            get("/v1/organisations", "organisations.list", "Organisations", list)
                .needs(Right::OrganisationView, On::Any),
            post("/v1/organisations", "organisations.create", "Make an organisation", create)
                .needs(Right::OrganisationManage, On::Any)
                .fails(refused)
                .idempotent()
                .recorded_by_service(),
            get("/v1/organisations/{organisation}", "organisations.show", "An organisation", show)
                .needs(Right::OrganisationView, on),
            patch(
                "/v1/organisations/{organisation}",
                "organisations.change",
                "Change an organisation",
                change,
            )
            .needs(Right::OrganisationManage, on)
            .fails(refused)
            .recorded_by_service(),
            delete(
                "/v1/organisations/{organisation}",
                "organisations.remove",
                "Remove an organisation",
                remove,
            )
            .needs(Right::OrganisationManage, on)
            .fails(refused)
            .fails([Code::InUse])
            .recorded_by_service(),
        ],
    )
}

/// An organisation.
#[derive(Debug, Serialize, ToSchema)]
struct Organisation {
    /// Its number.
    id: i64,
    /// The one it is part of.
    parent_id: Option<i64>,
    /// Its name.
    name: String,
    /// What it is.
    description: String,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::Organisation> for Organisation {
    fn from(organisation: known::Organisation) -> Self {
        let known::Organisation { id, parent_id, name, description, created_at, version } =
            organisation;
        Self { id, parent_id, name, description, created_at, version }
    }
}

async fn list(call: Call, list: Listing<Organisations>) -> Result<Items<Organisation>> {
    call.items(&list, |organisation: known::Organisation| organisation.into()).await
}

/// A new organisation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateOrganisation {
    /// The one it is part of; that of the caller when it isn't said.
    parent_id: Option<i64>,
    /// Its name.
    name: String,
    /// What it is.
    #[serde(default)]
    description: String,
}

async fn create(call: Call, Body(body): Body<CreateOrganisation>) -> Result<Created<Organisation>> {
    let by = call.principal()?;
    let parent = body.parent_id.unwrap_or(by.organisation_id);
    let identity = call.app().identity();
    let made = identity.create_organisation(by, parent, &body.name, &body.description).await?;
    Ok(Created { location: format!("/v1/organisations/{}", made.id), item: made.into() })
}

async fn show(call: Call, Path(path): Path<OrganisationPath>) -> Result<Tagged<Organisation>> {
    let sql = known::Organisation::by_id(path.organisation);
    let found: Option<known::Organisation> = call.app().catalog().find_one(sql).await?;
    let found = found.ok_or_else(|| Problem::not_found("organisation"))?;
    let version = found.version;
    Ok(Tagged(found.into(), version))
}

/// What is to be changed of an organisation; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeOrganisation {
    /// Its name.
    name: Option<String>,
    /// What it is.
    description: Option<String>,
    /// The one it is part of.
    parent_id: Option<i64>,
}

async fn change(
    call: Call,
    Path(path): Path<OrganisationPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeOrganisation>,
) -> Result<Tagged<Organisation>> {
    let ChangeOrganisation { name, description, parent_id } = body;
    let what = OrganisationChange { name, description, parent_id };
    let (identity, by) = (call.app().identity(), call.principal()?);
    let changed = identity.change_organisation(by, path.organisation, version, what).await?;
    let version = changed.version;
    Ok(Tagged(changed.into(), version))
}

async fn remove(call: Call, Path(path): Path<OrganisationPath>) -> Result<Empty> {
    call.app().identity().remove_organisation(call.principal()?, path.organisation).await?;
    Ok(Empty)
}
