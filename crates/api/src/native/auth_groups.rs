//! Auth groups: who may log in to targets.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::targets as known;
use strongroom_identity::{Object, Right};
use strongroom_storage::{AuthGroupChange, AuthGroupDetails, AuthGroupSecrets, Chap, NewAuthGroup};
use utoipa::{IntoParams, ToSchema};
use zeroize::Zeroizing;

use super::given;
use super::hidden::Hidden;
use super::paths::{AuthGroupPath, AuthGroups, InitiatorPath};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Query, Tagged, delete, get,
    patch, post,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Exists];
    let group = On::AuthGroup("auth_group");
    Group::new(
        "Auth groups",
        "Who may log in to targets: initiators by their names, and by what they prove (CHAP).",
        [
            get("/v1/auth-groups", "auth_groups.list", "Auth groups", list)
                .needs(Right::TargetView, On::Any),
            post("/v1/auth-groups", "auth_groups.create", "Make an auth group", create)
                .needs(Right::TargetManage, On::Any)
                .fails(refused)
                .fails([Code::NotFound])
                .idempotent(),
            get("/v1/auth-groups/{auth_group}", "auth_groups.show", "An auth group", show)
                .needs(Right::TargetView, group),
            patch(
                "/v1/auth-groups/{auth_group}",
                "auth_groups.change",
                "Change an auth group",
                change,
            )
            .needs(Right::TargetManage, group)
            .fails(refused),
            delete(
                "/v1/auth-groups/{auth_group}",
                "auth_groups.remove",
                "Remove an auth group that no target has",
                remove,
            )
            .needs(Right::TargetManage, group)
            .fails([Code::InUse]),
            get(
                "/v1/auth-groups/{auth_group}/secrets",
                "auth_groups.secrets",
                "The secrets of an auth group",
                secrets,
            )
            .needs(Right::TargetManage, group)
            .recorded_by_service(),
            post(
                "/v1/auth-groups/{auth_group}/initiators",
                "auth_groups.add_initiator",
                "Have an auth group name an initiator",
                add,
            )
            .needs(Right::TargetManage, group)
            .fails(refused)
            .idempotent(),
            delete(
                "/v1/auth-groups/{auth_group}/initiators/{initiator}",
                "auth_groups.remove_initiator",
                "Have an auth group name an initiator no more",
                remove_initiator,
            )
            .needs(Right::TargetManage, group)
            .fails([Code::Invalid]),
        ],
    )
}

/// A name and a secret of CHAP.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChapCredential {
    /// The name.
    user: String,
    /// The secret, of 12 to 255 bytes.
    secret: Hidden,
}

impl ChapCredential {
    pub(super) fn into_chap(self) -> Chap {
        let secret = Zeroizing::new(self.secret.0.expose().to_owned());
        Chap { user: self.user, secret }
    }
}

/// Initiators that users call nothing.
pub(super) fn initiators(names: Vec<String>) -> Vec<(String, String)> {
    names.into_iter().map(|name| (name, String::new())).collect()
}

/// An auth group, without what is secret of it.
#[derive(Debug, Serialize, ToSchema)]
struct AuthGroup {
    /// Its number.
    id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    public_id: String,
    /// Its name.
    name: String,
    /// Whose it is.
    organisation_id: i64,
    /// The name that initiators prove by CHAP; null: they prove nothing.
    chap_user: Option<String>,
    /// The name that targets prove to initiators which ask for it.
    mutual_user: Option<String>,
    /// How many initiators it names; 0: it lets in all that prove what they have to.
    initiator_count: u64,
    /// How many targets have it.
    target_count: u64,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::AuthGroup> for AuthGroup {
    fn from(row: known::AuthGroup) -> Self {
        let known::AuthGroup { id, public_id, organisation_id, name, created_at, .. } = row;
        Self {
            id,
            public_id,
            name,
            organisation_id,
            chap_user: row.chap_user,
            mutual_user: row.mutual_user,
            initiator_count: row.initiators,
            target_count: row.targets,
            created_at,
            version: row.version,
        }
    }
}

/// An initiator that an auth group names.
#[derive(Debug, Serialize, ToSchema)]
struct Initiator {
    /// Its number.
    id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    public_id: String,
    /// Its name in iSCSI.
    iqn: String,
    /// What users call it.
    alias: String,
}

/// An auth group, and whom it names.
#[derive(Debug, Serialize, ToSchema)]
struct AuthGroupShown {
    #[serde(flatten)]
    group: AuthGroup,
    /// The initiators that it lets in; none: all that prove what they have to.
    initiators: Vec<Initiator>,
}

impl From<AuthGroupDetails> for AuthGroupShown {
    fn from(details: AuthGroupDetails) -> Self {
        let one = |row: known::Initiator| {
            let known::Initiator { id, public_id, iqn, alias, .. } = row;
            Initiator { id, public_id, iqn, alias }
        };
        let initiators = details.named.into_iter().map(one).collect();
        Self { group: details.group.into(), initiators }
    }
}

fn tagged(details: AuthGroupDetails) -> Tagged<AuthGroupShown> {
    let version = details.group.version;
    Tagged(details.into(), version)
}

async fn list(call: Call, list: Listing<AuthGroups>) -> Result<Items<AuthGroup>> {
    call.items(&list, |row: known::AuthGroup| row.into()).await
}

async fn show(call: Call, Path(path): Path<AuthGroupPath>) -> Result<Tagged<AuthGroupShown>> {
    Ok(tagged(call.app().storage().auth_group(path.auth_group).await?))
}

/// A new auth group.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateAuthGroup {
    /// Its name: letters, digits, `-`, `_` and `.`.
    name: String,
    /// Whose it is; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// What initiators have to prove.
    chap: Option<ChapCredential>,
    /// What targets prove to initiators that ask for it.
    mutual: Option<ChapCredential>,
    /// Names of the initiators that may log in; none: all that prove what they have to.
    #[serde(default)]
    initiators: Vec<String>,
}

async fn create(call: Call, Body(body): Body<CreateAuthGroup>) -> Result<Created<AuthGroupShown>> {
    let organisation_id = body.organisation_id.unwrap_or(call.principal()?.organisation_id);
    call.allow(Right::TargetManage, &Object::of(organisation_id), "organisation")?;
    let new = NewAuthGroup {
        name: body.name,
        organisation_id,
        chap: body.chap.map(ChapCredential::into_chap),
        mutual: body.mutual.map(ChapCredential::into_chap),
        initiators: initiators(body.initiators),
    };
    let made = call.app().storage().create_auth_group(new).await?;
    let location = format!("/v1/auth-groups/{}", made.group.id);
    Ok(Created { item: made.into(), location })
}

/// What is to be changed of an auth group; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeAuthGroup {
    /// Its name.
    name: Option<String>,
    /// What initiators have to prove; null: nothing.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<ChapCredential>)]
    chap: Option<Option<ChapCredential>>,
    /// What targets prove to initiators that ask for it; null: nothing.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<ChapCredential>)]
    mutual: Option<Option<ChapCredential>>,
    /// That targets may be reached from other machines by whoever proves nothing.
    #[serde(default)]
    open: bool,
}

async fn change(
    call: Call,
    Path(path): Path<AuthGroupPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeAuthGroup>,
) -> Result<Tagged<AuthGroupShown>> {
    let change = AuthGroupChange {
        initiators: None,
        name: body.name,
        chap: body.chap.map(|chap| chap.map(ChapCredential::into_chap)),
        mutual: body.mutual.map(|mutual| mutual.map(ChapCredential::into_chap)),
        open: body.open,
    };
    Ok(tagged(call.app().storage().change_auth_group(path.auth_group, change, version).await?))
}

async fn remove(call: Call, Path(path): Path<AuthGroupPath>) -> Result<Empty> {
    call.app().storage().remove_auth_group(path.auth_group).await?;
    Ok(Empty)
}

/// A name of CHAP and its secret, as it is.
#[derive(Serialize, ToSchema)]
struct ShownChapCredential {
    /// The name.
    user: String,
    /// The secret.
    secret: String,
}

impl From<Chap> for ShownChapCredential {
    fn from(chap: Chap) -> Self {
        Self { user: chap.user, secret: chap.secret.to_string() }
    }
}

/// The secrets of an auth group.
#[derive(Serialize, ToSchema)]
struct AuthGroupSecretsShown {
    /// What initiators have to prove.
    chap: Option<ShownChapCredential>,
    /// What targets prove.
    mutual: Option<ShownChapCredential>,
}

async fn secrets(
    call: Call,
    Path(path): Path<AuthGroupPath>,
) -> Result<Json<AuthGroupSecretsShown>> {
    let storage = call.app().storage();
    let AuthGroupSecrets { chap, mutual } = storage.auth_group_secrets(path.auth_group).await?;
    call.record(&format!("auth group {}", path.auth_group)).await?;
    Ok(Json(AuthGroupSecretsShown { chap: chap.map(Into::into), mutual: mutual.map(Into::into) }))
}

/// An initiator to be named.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddInitiator {
    /// Its name in iSCSI.
    iqn: String,
    /// What users call it.
    #[serde(default)]
    alias: String,
}

async fn add(
    call: Call,
    Path(path): Path<AuthGroupPath>,
    Body(body): Body<AddInitiator>,
) -> Result<Created<AuthGroupShown>> {
    let storage = call.app().storage();
    let group = storage.add_initiator(path.auth_group, &body.iqn, &body.alias).await?;
    let location = format!("/v1/auth-groups/{}", path.auth_group);
    Ok(Created { item: group.into(), location })
}

/// How it is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
struct OpenQuery {
    /// Although everybody may log in then.
    #[serde(default)]
    open: bool,
}

async fn remove_initiator(
    call: Call,
    Path(path): Path<InitiatorPath>,
    Query(query): Query<OpenQuery>,
) -> Result<Json<AuthGroupShown>> {
    let storage = call.app().storage();
    let group = storage.remove_initiator(path.auth_group, &path.initiator, query.open).await?;
    Ok(Json(group.into()))
}
