//! Issuers of tokens (OpenID Connect).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{IssuerSettings, Right, SourceSpec, Sourced};
use utoipa::ToSchema;

use super::directories::same_fields;
use super::hidden::Hidden;
use super::paths::{IssuerPath, Issuers};
use super::sources::{GroupRole, Trial, groups, yes};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Tagged, delete, get, post,
    put,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Exists, Code::NotFound];
    Group::new(
        "Issuers",
        "Issuers of tokens (OpenID Connect), as Keycloak or Entra: their JWTs are sent as \
         `Authorization: Bearer`, as those of sessions are.",
        [
            get("/v1/issuers", "issuers.list", "Issuers", list)
                .needs(Right::DirectoryView, On::Appliance),
            post("/v1/issuers", "issuers.create", "Set up an issuer", create)
                .needs(Right::DirectoryManage, On::Appliance)
                .fails(refused)
                .idempotent()
                .recorded_by_service(),
            get("/v1/issuers/{issuer}", "issuers.show", "An issuer", show)
                .needs(Right::DirectoryView, On::Appliance),
            put("/v1/issuers/{issuer}", "issuers.change", "Set up an issuer otherwise", change)
                .needs(Right::DirectoryManage, On::Appliance)
                .fails(refused)
                .recorded_by_service(),
            delete("/v1/issuers/{issuer}", "issuers.remove", "Remove an issuer", remove)
                .needs(Right::DirectoryManage, On::Appliance)
                .fails([Code::InUse, Code::Conflict])
                .recorded_by_service(),
            post("/v1/issuers/{issuer}/test", "issuers.test", "Try an issuer", test)
                .needs(Right::DirectoryManage, On::Appliance)
                .recorded_by_service(),
        ],
    )
}

/// How an issuer's tokens are checked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Checks {
    /// The issuer's name, an address: what its tokens have as `iss`.
    issuer: String,
    /// What tokens must have as `aud`: one of these.
    audiences: Vec<String>,
    /// The clients that may have got them (`azp`, else `client_id`, else `appid`); none: any.
    #[serde(default)]
    authorized_parties: Vec<String>,
    /// The algorithms that may sign them, of `RS256`, `PS256`, `ES256` and `EdDSA`.
    #[serde(default = "algorithms")]
    algorithms: Vec<String>,
    /// Where the issuer's keys are; without it, where its
    /// `/.well-known/openid-configuration` says.
    jwks_url: Option<String>,
    /// The certificates, in PEM, of who vouches for the issuer's server; without them, whom the
    /// appliance's machine trusts.
    ca_certificate: Option<String>,
    /// The claim with the user's name.
    #[serde(default = "name_claim")]
    name_claim: String,
    /// The claim with the groups; points lead into claims, as `realm_access.roles`.
    #[serde(default = "groups_claim")]
    groups_claim: String,
    /// How many seconds the issuer's clock may be off: 0 to 300.
    #[serde(default = "leeway")]
    leeway_seconds: u32,
    /// Whether one who comes for the first time is let in.
    #[serde(default = "yes")]
    create_users: bool,
}

fn algorithms() -> Vec<String> {
    ["RS256", "ES256"].map(str::to_owned).into()
}

fn name_claim() -> String {
    "preferred_username".to_owned()
}

fn groups_claim() -> String {
    "groups".to_owned()
}

fn leeway() -> u32 {
    60
}

same_fields! {
    Checks IssuerSettings {
        issuer, audiences, authorized_parties, algorithms, jwks_url, ca_certificate, name_claim,
        groups_claim, leeway_seconds, create_users,
    }
}

/// An issuer.
#[derive(Debug, Serialize, ToSchema)]
struct Issuer {
    /// Its number.
    id: i64,
    /// Its name here.
    name: String,
    /// The organisation to which its users belong.
    organisation_id: i64,
    /// Whether its tokens are good.
    enabled: bool,
    /// How they are checked.
    checks: Checks,
    /// Which roles its groups have.
    groups: Vec<GroupRole>,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<Sourced<IssuerSettings>> for Issuer {
    fn from(found: Sourced<IssuerSettings>) -> Self {
        let known::Source { id, name, organisation_id, enabled, created_at, version, .. } =
            found.row;
        let (checks, groups) = (found.settings.into(), groups(found.groups));
        Self { id, name, organisation_id, enabled, checks, groups, created_at, version }
    }
}

fn tagged(found: Sourced<IssuerSettings>) -> Tagged<Issuer> {
    let version = found.row.version;
    Tagged(found.into(), version)
}

/// An issuer, as it stands in a list.
#[derive(Debug, Serialize, ToSchema)]
struct IssuerItem {
    /// Its number.
    id: i64,
    /// Its name here.
    name: String,
    /// The organisation to which its users belong.
    organisation_id: i64,
    /// Whether its tokens are good.
    enabled: bool,
    /// When it was made.
    created_at: Timestamp,
}

async fn list(call: Call, list: Listing<Issuers>) -> Result<Items<IssuerItem>> {
    let show = |row: known::Source| IssuerItem {
        id: row.id,
        name: row.name,
        organisation_id: row.organisation_id,
        enabled: row.enabled,
        created_at: row.created_at,
    };
    call.items(&list, show).await
}

async fn show(call: Call, Path(path): Path<IssuerPath>) -> Result<Tagged<Issuer>> {
    Ok(tagged(call.app().identity().source(path.issuer).await?))
}

/// An issuer as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteIssuer {
    /// Its name here.
    name: String,
    /// The organisation to which its users will belong; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// Whether its tokens are good.
    #[serde(default = "yes")]
    enabled: bool,
    /// How they are checked.
    checks: Checks,
    /// Which roles its groups have. Who is in none of these is not let in.
    #[serde(default)]
    groups: Vec<GroupRole>,
}

impl WriteIssuer {
    fn spec(self, call: &Call) -> Result<SourceSpec<IssuerSettings>> {
        Ok(SourceSpec {
            name: self.name,
            organisation_id: self.organisation_id.unwrap_or(call.principal()?.organisation_id),
            enabled: self.enabled,
            settings: self.checks.into(),
            secret: None,
            groups: groups(self.groups),
        })
    }
}

async fn create(call: Call, Body(body): Body<WriteIssuer>) -> Result<Created<Issuer>> {
    let spec = body.spec(&call)?;
    let made = call.app().identity().create_source(call.principal()?, spec).await?;
    let location = format!("/v1/issuers/{}", made.row.id);
    Ok(Created { location, item: made.into() })
}

async fn change(
    call: Call,
    Path(path): Path<IssuerPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<WriteIssuer>,
) -> Result<Tagged<Issuer>> {
    let (identity, by, spec) = (call.app().identity(), call.principal()?, body.spec(&call)?);
    Ok(tagged(identity.change_source(by, path.issuer, version, spec).await?))
}

async fn remove(call: Call, Path(path): Path<IssuerPath>) -> Result<Empty> {
    let identity = call.app().identity();
    identity.remove_source::<IssuerSettings>(call.principal()?, path.issuer).await?;
    Ok(Empty)
}

/// What to try it with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TryIssuer {
    /// A token of the issuer; without one, only its keys are fetched.
    token: Option<Hidden>,
}

async fn test(
    call: Call,
    Path(path): Path<IssuerPath>,
    Body(body): Body<TryIssuer>,
) -> Result<Json<Trial>> {
    let (identity, by) = (call.app().identity(), call.principal()?);
    let token = body.token.map(|token| token.0);
    Ok(Json(identity.try_issuer(by, path.issuer, token).await?.into()))
}
