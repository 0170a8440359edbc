//! Targets: by which initiators reach volumes over iSCSI.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::targets as known;
use strongroom_identity::{Object, Right};
use strongroom_storage::{NewAuthGroup, NewTarget, TargetChange, TargetDetails, TargetSession};
use utoipa::{IntoParams, ToSchema};

use super::auth_groups::{ChapCredential, initiators};
use super::given;
use super::paths::{LunPath, TargetPath, Targets};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Query, Tagged, delete, get,
    patch, post,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Exists, Code::InUse];
    let target = On::Target("target");
    Group::new(
        "Targets",
        "By which initiators reach volumes over iSCSI.",
        [
            get("/v1/targets", "targets.list", "Targets", list).needs(Right::TargetView, On::Any),
            post("/v1/targets", "targets.create", "Make a target", create)
                .needs(Right::TargetManage, On::Any)
                .fails(refused)
                .fails([Code::NotFound])
                .idempotent(),
            get("/v1/targets/{target}", "targets.show", "A target, and how it fares", show)
                .needs(Right::TargetView, target),
            patch("/v1/targets/{target}", "targets.change", "Change a target", change)
                .needs(Right::TargetManage, target)
                .fails(refused),
            delete("/v1/targets/{target}", "targets.remove", "Remove a target", remove)
                .needs(Right::TargetManage, target)
                .fails([Code::InUse]),
            get("/v1/targets/{target}/luns", "targets.luns", "The volumes of a target", luns)
                .needs(Right::TargetView, target),
            post("/v1/targets/{target}/luns", "targets.map", "Map a volume to a target", map)
                .needs(Right::TargetManage, target)
                .fails(refused)
                .idempotent(),
            delete(
                "/v1/targets/{target}/luns/{lun}",
                "targets.unmap",
                "Unmap a volume from a target",
                unmap,
            )
            .needs(Right::TargetManage, target)
            .fails([Code::InUse]),
            get(
                "/v1/targets/{target}/sessions",
                "targets.sessions",
                "Initiators that are logged in to a target",
                sessions,
            )
            .needs(Right::TargetView, target),
        ],
    )
}

/// A target.
#[derive(Debug, Serialize, ToSchema)]
struct Target {
    /// Its number.
    id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    public_id: String,
    /// Its name; initiators are told.
    name: String,
    /// Its name in iSCSI, which never changes.
    iqn: String,
    /// Whose it is.
    organisation_id: i64,
    /// The auth group that says who may log in; null: everybody may.
    auth_group_id: Option<i64>,
    /// That group's name.
    auth_group: Option<String>,
    /// The portal group that says where it is reached.
    portal_group_id: i64,
    /// That group's name.
    portal_group: String,
    /// Whether it is served.
    enabled: bool,
    /// `served`; `disabled`: it is not enabled; `waiting`: something is in the way, which is tried again;
    /// `elsewhere`: another machine has its volumes; `stopped`: the process starts or ends.
    state: &'static str,
    /// Volumes that are mapped to it.
    luns: u64,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl Target {
    fn of(row: known::Target, state: &'static str) -> Self {
        let known::Target { id, public_id, organisation_id, name, iqn, enabled, luns, .. } = row;
        Self {
            id,
            public_id,
            name,
            iqn,
            organisation_id,
            auth_group_id: row.auth_group_id,
            auth_group: row.auth_group,
            portal_group_id: row.portal_group_id,
            portal_group: row.portal_group,
            enabled,
            state,
            luns,
            created_at: row.created_at,
            version: row.version,
        }
    }
}

/// A volume that is mapped to a target.
#[derive(Debug, Serialize, ToSchema)]
struct Lun {
    /// The number under which initiators find it.
    number: u32,
    /// The volume's number.
    volume_id: i64,
    /// The volume's name.
    volume: String,
    /// The volume's bytes.
    size: u64,
    /// The pool that has the volume.
    pool_id: i64,
    /// That pool's name.
    pool: String,
}

impl From<known::Lun> for Lun {
    fn from(lun: known::Lun) -> Self {
        let known::Lun { number, volume_id, volume, size, pool_id, pool, .. } = lun;
        Self { number, volume_id, volume, size, pool_id, pool }
    }
}

/// An initiator that is logged in.
#[derive(Debug, Serialize, ToSchema)]
struct InitiatorSession {
    /// The session's number at the target (TSIH).
    handle: u16,
    /// The initiator's name.
    initiator: String,
    /// Where it is, if that is known.
    address: Option<String>,
    /// Since when it is logged in.
    logged_in_at: Timestamp,
}

impl From<TargetSession> for InitiatorSession {
    fn from(session: TargetSession) -> Self {
        let TargetSession { handle, initiator, address, since, .. } = session;
        let address = address.map(|address| address.to_string());
        Self { handle, initiator, address, logged_in_at: since }
    }
}

/// A target, and how it fares.
#[derive(Debug, Serialize, ToSchema)]
struct TargetShown {
    #[serde(flatten)]
    target: Target,
    /// What is in the way, if something is.
    trouble: Option<String>,
    /// Addresses at which it is reached.
    portals: Vec<String>,
    /// Volumes that are mapped to it.
    mapped: Vec<Lun>,
    /// Initiators that are logged in to it.
    sessions: Vec<InitiatorSession>,
}

impl From<TargetDetails> for TargetShown {
    fn from(details: TargetDetails) -> Self {
        let TargetDetails { target, state, trouble, portals, mapped, sessions } = details;
        Self {
            target: Target::of(target, state.word()),
            trouble,
            portals,
            mapped: mapped.into_iter().map(Lun::from).collect(),
            sessions: sessions.into_iter().map(InitiatorSession::from).collect(),
        }
    }
}

fn tagged(details: TargetDetails) -> Tagged<TargetShown> {
    let version = details.target.version;
    Tagged(details.into(), version)
}

async fn list(call: Call, list: Listing<Targets>) -> Result<Items<Target>> {
    let storage = call.app().storage().clone();
    let show = |row: known::Target| {
        let state = storage.target_state(&row).word();
        Target::of(row, state)
    };
    call.items(&list, show).await
}

async fn show(call: Call, Path(path): Path<TargetPath>) -> Result<Tagged<TargetShown>> {
    Ok(tagged(call.app().storage().target(path.target).await?))
}

/// A new target.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateTarget {
    /// Its name: letters, digits, `-`, `_` and `.`.
    name: String,
    /// Whose it is; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// Its name in iSCSI; one is made of the machine's name and its own when it isn't said.
    iqn: Option<String>,
    /// The auth group that says who may log in. Instead of one, `chap`, `mutual` and `initiators` make
    /// one of the target's name. With none of them everybody may log in.
    auth_group_id: Option<i64>,
    /// What initiators have to prove.
    chap: Option<ChapCredential>,
    /// What the target proves to initiators that ask for it.
    mutual: Option<ChapCredential>,
    /// Names of the initiators that may log in; none: all that prove what they have to.
    #[serde(default)]
    initiators: Vec<String>,
    /// The portal group that says where it is reached; `default`, on the machine itself, when it isn't
    /// said.
    portal_group_id: Option<i64>,
    /// Whether it is served.
    #[serde(default = "yes")]
    enabled: bool,
    /// That it may be reached from other machines by whoever proves nothing.
    #[serde(default)]
    open: bool,
}

fn yes() -> bool {
    true
}

async fn create(call: Call, Body(body): Body<CreateTarget>) -> Result<Created<TargetShown>> {
    let organisation_id = body.organisation_id.unwrap_or(call.principal()?.organisation_id);
    call.allow(Right::TargetManage, &Object::of(organisation_id), "organisation")?;
    let group = NewAuthGroup {
        chap: body.chap.map(ChapCredential::into_chap),
        mutual: body.mutual.map(ChapCredential::into_chap),
        initiators: initiators(body.initiators),
        ..NewAuthGroup::default()
    };
    let is_said = group.chap.is_some() || group.mutual.is_some() || !group.initiators.is_empty();
    let new = NewTarget {
        name: body.name,
        organisation_id,
        iqn: body.iqn,
        auth_group_id: body.auth_group_id,
        auth_group: is_said.then_some(group),
        portal_group_id: body.portal_group_id,
        enabled: body.enabled,
        open: body.open,
    };
    let made = call.app().storage().create_target(new).await?;
    let location = format!("/v1/targets/{}", made.target.id);
    Ok(Created { item: made.into(), location })
}

/// What is to be changed of a target; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeTarget {
    /// Its name. Its name in iSCSI stays.
    name: Option<String>,
    /// The auth group that says who may log in; null: everybody may. Who is logged in stays so.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<i64>)]
    auth_group_id: Option<Option<i64>>,
    /// The portal group that says where it is reached.
    portal_group_id: Option<i64>,
    /// Whether it is served.
    enabled: Option<bool>,
    /// That it may be reached from other machines by whoever proves nothing.
    #[serde(default)]
    open: bool,
    /// That initiators may be logged out by it.
    #[serde(default)]
    force: bool,
}

async fn change(
    call: Call,
    Path(path): Path<TargetPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeTarget>,
) -> Result<Tagged<TargetShown>> {
    let ChangeTarget { name, auth_group_id, portal_group_id, enabled, open, force } = body;
    let change = TargetChange { name, auth_group_id, portal_group_id, enabled, open, force };
    Ok(tagged(call.app().storage().change_target(path.target, change, version).await?))
}

/// How it is done.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ForceQuery {
    /// Although initiators or clients are connected, which lose it.
    #[serde(default)]
    pub(super) force: bool,
}

async fn remove(
    call: Call,
    Path(path): Path<TargetPath>,
    Query(query): Query<ForceQuery>,
) -> Result<Empty> {
    call.app().storage().remove_target(path.target, query.force).await?;
    Ok(Empty)
}

/// The volumes of a target.
#[derive(Debug, Serialize, ToSchema)]
struct Luns {
    /// They, by their numbers.
    luns: Vec<Lun>,
}

impl From<Vec<known::Lun>> for Luns {
    fn from(luns: Vec<known::Lun>) -> Self {
        Self { luns: luns.into_iter().map(Lun::from).collect() }
    }
}

async fn luns(call: Call, Path(path): Path<TargetPath>) -> Result<Json<Luns>> {
    Ok(Json(call.app().storage().luns(path.target).await?.into()))
}

/// A volume to be mapped.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct MapVolume {
    /// The volume, which the caller has to have the right `volume.manage` on.
    volume_id: i64,
    /// The number under which initiators find it; the lowest free one when it isn't said.
    #[schema(maximum = 16383)]
    number: Option<u32>,
}

async fn map(
    call: Call,
    Path(path): Path<TargetPath>,
    Body(body): Body<MapVolume>,
) -> Result<Created<Luns>> {
    let storage = call.app().storage();
    let volume = storage.volume(body.volume_id).await?;
    let object = Object::of(volume.organisation_id).in_pool(volume.pool_id);
    call.allow(Right::VolumeManage, &object, "volume")?;
    let luns = storage.map_volume(path.target, body.volume_id, body.number).await?;
    let location = format!("/v1/targets/{}/luns", path.target);
    Ok(Created { item: luns.into(), location })
}

async fn unmap(
    call: Call,
    Path(path): Path<LunPath>,
    Query(query): Query<ForceQuery>,
) -> Result<Json<Luns>> {
    let storage = call.app().storage();
    Ok(Json(storage.unmap_volume(path.target, path.lun, query.force).await?.into()))
}

/// Initiators that are logged in to a target.
#[derive(Debug, Serialize, ToSchema)]
struct InitiatorSessions {
    /// They.
    sessions: Vec<InitiatorSession>,
}

async fn sessions(call: Call, Path(path): Path<TargetPath>) -> Result<Json<InitiatorSessions>> {
    let sessions = call.app().storage().target_sessions(path.target);
    Ok(Json(InitiatorSessions {
        sessions: sessions.into_iter().map(InitiatorSession::from).collect(),
    }))
}
