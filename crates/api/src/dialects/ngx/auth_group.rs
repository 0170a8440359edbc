//! Auth groups: who may log in to targets.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_catalog::targets::{AuthGroup, Initiator, Lun, Target};
use strongroom_identity::{Decision, Deed, Object, Right, decide};
use strongroom_storage::{AuthGroupChange, AuthGroupDetails, Chap, NewAuthGroup};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use super::answer::{Answer, Fault, Number, done, found};
use super::declared::{Endpoint, Over, Section, may, needed};
use super::dispatch::Call;
use super::{OWNER, PREFIX, rows};

pub(super) const SECTION: Section = Section {
    name: "Auth Group",
    reads: "ngx.auth_group.read",
    view: Right::TargetView,
    manage: Right::TargetManage,
    over: Over::Any,
};

/// The group that lets everybody in: targets that have none.
pub(super) const DEFAULT_ID: &str = "1";
pub(super) const DEFAULT_NAME: &str = "DefaultAuthGroup";
/// What a key must have been allowed to be shown secrets.
pub(super) const SECRETS: &str = "ngx.auth_group.secrets";

pub(super) fn endpoints() -> Vec<Endpoint> {
    const CHAP: &str = "as the original; `chap_password` is null unless the key may `auth_group.secrets` and its \
        user has the right `target.manage`; showing it is written to the audit trail";
    vec![
        SECTION.get::<Vec<AuthGroupShort>>("/auth_group", "ngx.auth_group.list", "Auth groups", |call| {
            list(call).boxed()
        }),
        SECTION
            .get::<Vec<AuthGroupShown>>("/auth_group/list", "ngx.auth_group.list_details", "Auth groups, with all that is known", |call| {
                details(call).boxed()
            })
            .state(CHAP),
        SECTION
            .get::<AuthGroupShown>("/auth_group/{id}", "ngx.auth_group.show", "An auth group", |call| {
                show(call).boxed()
            })
            .state(CHAP),
        SECTION
            .change(Method::POST, "/auth_group", "ngx.auth_group.create", "Make an auth group", |call| {
                create(call).boxed()
            })
            .answers::<AuthGroupShown>()
            .body(const { &[needed("name", "Its name."), may("initiator", INITIATORS)] })
            .state("of later software; `initiator` may be said at once"),
        SECTION
            .change(Method::PATCH, "/auth_group/{id}", "ngx.auth_group.change", "Change an auth group", |call| {
                change(call).boxed()
            })
            .body(const { &[may("name", "Its new name."), may("initiator", INITIATORS)] })
            .state("of later software, of which the names of members are not known: `name`, and `initiator` as it is shown; an initiator that stays keeps its alias"),
        SECTION
            .change(Method::DELETE, "/auth_group/{id}", "ngx.auth_group.delete", "Delete an auth group", |call| {
                remove(call).boxed()
            })
            .state("of later software; 534 while a target has it; `DefaultAuthGroup` stays"),
        SECTION
            .change(Method::PATCH, "/auth_group/chap/{id}", "ngx.auth_group.set_chap", "Have initiators prove themselves by CHAP", |call| {
                set_chap(call).boxed()
            })
            .body(const { &[needed("username", "The name."), needed("password", "The secret, 12 to 255 bytes.")] })
            .state("of later software"),
        SECTION
            .change(Method::DELETE, "/auth_group/chap/{id}", "ngx.auth_group.delete_chap", "Have initiators prove nothing", |call| {
                remove_chap(call).boxed()
            })
            .state("of later software; refused where a target would be open to the network"),
    ]
}

const INITIATORS: &str = "All initiators that may log in: names, or objects with `iqn` and `iqn_alias`; none: everybody.";

/// An auth group, in a list. The one that lets everybody in has no owner.
#[derive(Debug, Serialize, ToSchema)]
struct AuthGroupShort {
    group_id: String,
    group_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'static str>,
    /// As `group_id`.
    id: String,
    /// As `group_name`.
    name: String,
}

/// What initiators prove; null: nothing, or not to be shown.
#[derive(Serialize, ToSchema)]
struct GroupChap {
    chap_user: Option<String>,
    chap_password: Option<String>,
}

/// An initiator that may log in.
#[derive(Debug, Serialize, ToSchema)]
struct GroupInitiator {
    iqn: String,
    iqn_alias: String,
    id: String,
    group_id: String,
    /// As `iqn_alias`.
    alias: String,
}

/// An auth group. The one that lets everybody in has nothing but its id and name.
#[derive(Serialize, ToSchema)]
struct AuthGroupShown {
    #[serde(skip_serializing_if = "Option::is_none")]
    chap: Option<Vec<GroupChap>>,
    group_id: String,
    group_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    initiator: Option<Vec<GroupInitiator>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner: Option<&'static str>,
    /// As `group_id`.
    id: String,
    /// As `group_name`.
    name: String,
    /// Whether initiators prove themselves by CHAP.
    chap_status: u8,
}

impl AuthGroupShown {
    fn everybody() -> Self {
        Self {
            chap: None,
            group_id: DEFAULT_ID.into(),
            group_name: DEFAULT_NAME.into(),
            initiator: None,
            owner: None,
            id: DEFAULT_ID.into(),
            name: DEFAULT_NAME.into(),
            chap_status: 0,
        }
    }

    fn of(details: AuthGroupDetails, secret: Option<String>) -> Self {
        let AuthGroupDetails { group, named } = details;
        let initiator = |one: Initiator| GroupInitiator {
            iqn: one.iqn,
            iqn_alias: one.alias.clone(),
            id: one.public_id,
            group_id: group.public_id.clone(),
            alias: one.alias,
        };
        Self {
            initiator: Some(named.into_iter().map(initiator).collect()),
            chap_status: group.chap_user.is_some().into(),
            chap: Some(vec![GroupChap { chap_user: group.chap_user, chap_password: secret }]),
            group_id: group.public_id.clone(),
            group_name: group.name.clone(),
            owner: Some(OWNER),
            id: group.public_id,
            name: group.name,
        }
    }
}

/// The group of this id; None: the one that lets everybody in.
pub(super) async fn find(call: &Call, id: &str) -> Answer<Option<AuthGroup>> {
    if id == DEFAULT_ID {
        return Ok(None);
    }
    let group: Option<AuthGroup> =
        call.app().catalog().find_one(AuthGroup::by_public_id(id)).await?;
    let group = group.ok_or_else(|| Fault::not_found("auth group"))?;
    call.may(&Object::of(group.organisation_id), "auth group")?;
    Ok(Some(group))
}

/// The groups that let in to LUNs of pools that the caller's key isn't for.
async fn foreign(call: &Call) -> Answer<BTreeSet<i64>> {
    let Some(pools) = call.principal().pools() else { return Ok(BTreeSet::new()) };
    let catalog = call.app().catalog();
    let luns: Vec<Lun> = catalog.find(Lun::all()).await?;
    let others = luns.into_iter().filter(|lun| !pools.contains(&lun.pool_id));
    let others: BTreeSet<i64> = others.map(|lun| lun.target_id).collect();
    let targets: Vec<Target> = catalog.find(Target::all()).await?;
    let targets = targets.into_iter().filter(|target| others.contains(&target.id));
    Ok(targets.filter_map(|target| target.auth_group_id).collect())
}

/// One that can be changed.
async fn changeable(call: &Call) -> Answer<AuthGroup> {
    let text = "DefaultAuthGroup lets everybody in, and stays as it is: make a group";
    let group = find(call, call.id()).await?;
    let group = group.ok_or_else(|| Fault::new(Number::Conflict, text))?;
    if foreign(call).await?.contains(&group.id) {
        let text = "this group lets in to LUNs of pools that this key isn't for";
        return Err(Fault::new(Number::Forbidden, text));
    }
    Ok(group)
}

/// Groups, with the secrets that the caller may see; that those were shown is written down.
async fn shown(call: &Call, all: Vec<AuthGroupDetails>) -> Answer<Vec<AuthGroupShown>> {
    let foreign = foreign(call).await?;
    let may_see = |group: &&AuthGroup| {
        let object = Object::of(group.organisation_id);
        let may = decide(call.principal(), Right::TargetManage, &object, SECRETS);
        group.chap_user.is_some() && !foreign.contains(&group.id) && may == Decision::Allow
    };
    let seen: Vec<&AuthGroup> = all.iter().map(|one| &one.group).filter(may_see).collect();
    let mut secrets = call.app().storage().secrets_of_auth_groups(&seen).await?;
    if secrets.values().any(|one| one.chap.is_some()) {
        let object = format!("{}/auth_group/{}", &PREFIX[1..], call.id());
        call.app().identity().record(call.principal(), Deed::new(SECRETS, object)).await?;
    }
    let show = |details: AuthGroupDetails| {
        let chap = secrets.remove(&details.group.id).and_then(|one| one.chap);
        AuthGroupShown::of(details, chap.map(|chap| chap.secret.to_string()))
    };
    Ok(all.into_iter().map(show).collect())
}

async fn list(call: Call) -> Answer {
    let everybody = AuthGroupShort {
        group_id: DEFAULT_ID.into(),
        group_name: DEFAULT_NAME.into(),
        owner: None,
        id: DEFAULT_ID.into(),
        name: DEFAULT_NAME.into(),
    };
    let short = |group: AuthGroup| AuthGroupShort {
        group_id: group.public_id.clone(),
        group_name: group.name.clone(),
        owner: Some(OWNER),
        id: group.public_id,
        name: group.name,
    };
    let all = rows::auth_groups(&call).await?.into_iter().map(short);
    found(&std::iter::once(everybody).chain(all).collect::<Vec<_>>())
}

async fn details(call: Call) -> Answer {
    let all = rows::auth_groups(&call).await?;
    let all = shown(&call, call.app().storage().auth_groups(all).await?).await?;
    found(&std::iter::once(AuthGroupShown::everybody()).chain(all).collect::<Vec<_>>())
}

async fn show(call: Call) -> Answer {
    let Some(group) = find(&call, call.id()).await? else {
        return found(&AuthGroupShown::everybody());
    };
    let details = call.app().storage().auth_group(group.id).await?;
    let shown = shown(&call, vec![details]).await?;
    found(&shown.into_iter().next().ok_or_else(|| Fault::not_found("auth group"))?)
}

/// The initiators that are said, by name.
fn said(call: &Call) -> Answer<Option<BTreeMap<String, String>>> {
    let Some(all) = call.fields().initiators(&["initiator", "initiators"])? else {
        return Ok(None);
    };
    let mut said = BTreeMap::new();
    for (iqn, alias) in all {
        if said.insert(iqn.to_lowercase(), alias).is_some() {
            let text = format!("the initiator {iqn} is said twice");
            return Err(Fault::new(Number::InitiatorExists, text));
        }
    }
    Ok(Some(said))
}

async fn create(call: Call) -> Answer {
    let name = call.fields().needed(&["name", "group_name"])?;
    if name == DEFAULT_NAME {
        return Err(Fault::new(Number::Exists, "there is a group of that name already"));
    }
    let organisation_id = call.principal().organisation_id;
    call.may(&Object::of(organisation_id), "organisation")?;
    let initiators = said(&call)?.unwrap_or_default().into_iter().collect();
    let new = NewAuthGroup { name, organisation_id, chap: None, mutual: None, initiators };
    let made = call.app().storage().create_auth_group(new).await?;
    found(&AuthGroupShown::of(made, None))
}

async fn change(call: Call) -> Answer {
    let group = changeable(&call).await?;
    let (name, wanted) = (call.fields().text(&["name", "group_name"])?, said(&call)?);
    if name.is_none() && wanted.is_none() {
        return Err(Fault::invalid("nothing to change; there are: name, initiator"));
    }
    let initiators = wanted.map(|all| all.into_iter().collect());
    let change = AuthGroupChange { name, initiators, ..AuthGroupChange::default() };
    call.app().storage().change_auth_group(group.id, change, None).await?;
    done()
}

async fn remove(call: Call) -> Answer {
    let group = changeable(&call).await?;
    call.app().storage().remove_auth_group(group.id).await?;
    done()
}

async fn set_chap(call: Call) -> Answer {
    let group = changeable(&call).await?;
    let user = call.fields().needed(&["username", "chap_user"])?;
    let secret = Zeroizing::new(call.fields().needed(&["password", "chap_password"])?);
    let change =
        AuthGroupChange { chap: Some(Some(Chap { user, secret })), ..AuthGroupChange::default() };
    call.app().storage().change_auth_group(group.id, change, None).await?;
    done()
}

async fn remove_chap(call: Call) -> Answer {
    let group = changeable(&call).await?;
    let none =
        AuthGroupChange { chap: Some(None), mutual: Some(None), ..AuthGroupChange::default() };
    call.app().storage().change_auth_group(group.id, none, None).await?;
    done()
}
