//! Targets: over iSCSI; there is no Fibre Channel.

use std::collections::HashMap;

use futures_util::FutureExt;
use http::Method;
use serde::Serialize;
use strongroom_catalog::targets::{AuthGroup, Initiator, Lun, PortalGroup, Target};
use strongroom_catalog::volumes;
use strongroom_identity::{Object, Right};
use strongroom_storage::{NewTarget, TARGET_PREFIX, TargetChange};
use utoipa::ToSchema;

use super::answer::{Answer, Fault, Number, done, found};
use super::declared::{Endpoint, Section, may, needed};
use super::dispatch::Call;
use super::{OWNER, auth_group, fibre, portal_group, rows};

pub(super) const SECTION: Section =
    Section { name: "ISCSI Target", reads: "ngx.target.read", ..auth_group::SECTION };

pub(super) fn endpoints() -> Vec<Endpoint> {
    const DETAILS: &str = "as the original; LUNs of pools that the key isn't for are left out, and so are targets \
        that have no others";
    const LUNS: &[super::declared::Parameter] =
        &[needed("lun_ids", "The LUNs, by their ids."), may("owner", "It has no effect.")];
    let mut all = vec![
        SECTION.get::<Vec<TargetShort>>("/iscsi_target", "ngx.target.list", "Targets", |call| list(call).boxed()),
        SECTION
            .get::<Vec<TargetShown>>("/iscsi_target/list", "ngx.target.list_details", "Targets, with all that is known", |call| {
                details(call).boxed()
            })
            .state(DETAILS),
        SECTION
            .get::<TargetShown>("/iscsi_target/{id}", "ngx.target.show", "A target", |call| show(call).boxed())
            .state(DETAILS),
        SECTION
            .get::<Vec<TargetShort>>("/target/iscsi", "ngx.target.iscsi_list", "Targets", |call| {
                list(call).boxed()
            })
            .state("of later software; as `/iscsi_target`"),
        SECTION
            .get::<Vec<TargetShown>>("/target/iscsi/list", "ngx.target.iscsi_list_details", "Targets, with all that is known", |call| {
                details(call).boxed()
            })
            .state("of later software; as `/iscsi_target/list`"),
        SECTION
            .get::<TargetShown>("/target/iscsi/{id}", "ngx.target.iscsi_show", "A target", |call| {
                show(call).boxed()
            })
            .state("of later software; as `/iscsi_target/{id}`"),
        SECTION
            .change(Method::POST, "/target/iscsi", "ngx.target.create", "Make a target", |call| {
                create(call).boxed()
            })
            .answers::<TargetShown>()
            .body(const { &[
                needed("name", "Its name."),
                may("auth_group_id", "Who may log in; everybody when it isn't said."),
                may("portal_group_id", "Where it is reached; at the portal group `default` when it isn't said."),
                may("owner", "It has no effect."),
            ] })
            .state("of later software; refused where everybody on the network could log in: make a group with CHAP first; `target_iqn` is `iqn_name` and the name, where that is small letters, digits, `-` and `.`"),
        SECTION
            .change(Method::PATCH, "/target/iscsi/{id}", "ngx.target.change", "Change a target", |call| {
                change(call).boxed()
            })
            .body(const { &[
                may("name", "Its new name."),
                may("auth_group_id", "Who may log in."),
                may("portal_group_id", "Where it is reached."),
                may("owner", "It has no effect."),
            ] })
            .state("the original has it, its paths are not known: this one is ours; its name in iSCSI stays"),
        SECTION
            .change(Method::DELETE, "/target/iscsi/{id}", "ngx.target.delete", "Delete a target", |call| {
                remove(call).boxed()
            })
            .state("of later software; 534 while LUNs are mapped or initiators logged in; 611 when there is none"),
        SECTION
            .change(Method::PUT, "/target/iscsi/lun/{id}", "ngx.target.map", "Map LUNs to a target", |call| {
                map(call).boxed()
            })
            .body(LUNS)
            .state("of later software; 710 when the target has all of them already; all or none are mapped; takes the right `volume.manage` too"),
        SECTION
            .change(Method::PATCH, "/target/iscsi/lun/{id}", "ngx.target.unmap", "Unmap LUNs from a target", |call| {
                unmap(call).boxed()
            })
            .body(LUNS)
            .state("of later software; 5011 when the target has none of them; at once, also under initiators that are logged in"),
    ];
    all.extend(fibre::endpoints());
    all
}

/// A target, in a list.
#[derive(Debug, Serialize, ToSchema)]
struct TargetShort {
    owner: &'static str,
    scsi_id: String,
    scsi_target_name: String,
    /// As `scsi_id`.
    id: String,
    /// As `scsi_target_name`.
    name: String,
}

/// A LUN that is mapped.
#[derive(Debug, Serialize, ToSchema)]
struct MappedLun {
    /// The serial number that initiators see.
    lun_id: String,
    lun_name: String,
    lun_number: String,
    pool_name: String,
    /// Always `-`: there are no profiles of hosts.
    profile: &'static str,
    vol_id: String,
    /// As `vol_id`.
    id: String,
    /// As `lun_name`.
    name: String,
    /// As `lun_number`.
    number: String,
}

/// An initiator that may log in.
#[derive(Debug, Serialize, ToSchema)]
struct AllowedInitiator {
    id: String,
    iqn: String,
}

/// A target.
#[derive(Debug, Serialize, ToSchema)]
struct TargetShown {
    group_id: String,
    group_name: String,
    iqn_name: String,
    luns: Vec<MappedLun>,
    owner: &'static str,
    portal_id: String,
    portal_name: String,
    scsi_id: String,
    scsi_target_name: String,
    target_iqn: String,
    /// As `scsi_id`.
    id: String,
    /// As `scsi_target_name`.
    name: String,
    /// As `group_id`.
    auth_group_id: String,
    /// As `group_name`.
    auth_group_name: String,
    /// As `portal_id`.
    portal_group_id: String,
    /// As `portal_name`.
    portal_group_name: String,
    /// The initiators that the auth group names.
    initiators: Vec<AllowedInitiator>,
}

/// What targets are shown with.
struct Beside {
    /// The ids of groups, by their numbers.
    auth: HashMap<i64, String>,
    portal: HashMap<i64, String>,
    /// Whom auth groups name, by the groups' numbers.
    named: HashMap<i64, Vec<Initiator>>,
    /// What is mapped, by the targets' numbers.
    luns: HashMap<i64, Vec<Lun>>,
}

impl Beside {
    /// Of all targets, or of one.
    async fn of(call: &Call, one: Option<&Target>) -> Answer<Self> {
        let catalog = call.app().catalog();
        let auth: Vec<AuthGroup> = catalog.find(AuthGroup::all()).await?;
        let portal: Vec<PortalGroup> = catalog.find(PortalGroup::all()).await?;
        let luns = one.map_or_else(Lun::all, |target| Lun::of_target(target.id));
        let named = match one.map(|target| target.auth_group_id) {
            None => catalog.find_by(Initiator::all(), |one: &Initiator| one.auth_group_id).await?,
            Some(Some(id)) => {
                catalog.find_by(Initiator::of(id), |one: &Initiator| one.auth_group_id).await?
            }
            Some(None) => HashMap::new(),
        };
        Ok(Self {
            auth: auth.into_iter().map(|group| (group.id, group.public_id)).collect(),
            portal: portal.into_iter().map(|group| (group.id, group.public_id)).collect(),
            named,
            luns: catalog.find_by(luns, |lun: &Lun| lun.target_id).await?,
        })
    }
}

/// A target with its LUNs, as far as the caller sees them; None: it has others alone.
fn shown(call: &Call, beside: &mut Beside, target: Target) -> Option<TargetShown> {
    let mapped = beside.luns.remove(&target.id).unwrap_or_default();
    let all = mapped.len();
    let mut luns = Vec::new();
    for lun in mapped {
        if call.principal().pools().is_some_and(|pools| !pools.contains(&lun.pool_id)) {
            continue;
        }
        luns.push(MappedLun {
            lun_id: lun.volume_uuid,
            lun_name: lun.volume.clone(),
            lun_number: lun.number.to_string(),
            pool_name: lun.pool,
            profile: "-",
            vol_id: lun.volume_public_id.clone(),
            id: lun.volume_public_id,
            name: lun.volume,
            number: lun.number.to_string(),
        });
    }
    if luns.is_empty() && all > 0 {
        return None;
    }
    let named = target.auth_group_id.and_then(|id| beside.named.get(&id));
    let named = named.map(Vec::as_slice).unwrap_or_default();
    let (group_id, group_name) = match target.auth_group_id {
        Some(id) => {
            let public_id = beside.auth.get(&id).cloned().unwrap_or_default();
            (public_id, target.auth_group.unwrap_or_default())
        }
        None => (auth_group::DEFAULT_ID.into(), auth_group::DEFAULT_NAME.into()),
    };
    let portal_id = beside.portal.get(&target.portal_group_id).cloned().unwrap_or_default();
    let iqn_name = target.iqn.rsplit_once(':').map_or(&*target.iqn, |(before, _)| before);
    Some(TargetShown {
        iqn_name: iqn_name.to_owned(),
        luns,
        owner: OWNER,
        scsi_id: target.public_id.clone(),
        scsi_target_name: target.name.clone(),
        id: target.public_id,
        name: target.name,
        auth_group_id: group_id.clone(),
        auth_group_name: group_name.clone(),
        group_id,
        group_name,
        portal_group_id: portal_id.clone(),
        portal_group_name: target.portal_group.clone(),
        portal_id,
        portal_name: target.portal_group,
        target_iqn: target.iqn,
        initiators: named
            .iter()
            .map(|one| AllowedInitiator { id: one.public_id.clone(), iqn: one.iqn.clone() })
            .collect(),
    })
}

/// The target of this id.
pub(super) async fn find(call: &Call, id: &str) -> Answer<Target> {
    let none = || Fault::not_found("target");
    let target: Option<Target> = call.app().catalog().find_one(Target::by_public_id(id)).await?;
    let target = target.ok_or_else(none)?;
    call.may(&Object::of(target.organisation_id), "target")?;
    let Some(pools) = call.principal().pools() else { return Ok(target) };
    let luns = call.app().storage().luns(target.id).await?;
    match luns.is_empty() || luns.iter().any(|lun| pools.contains(&lun.pool_id)) {
        true => Ok(target),
        false => Err(none()),
    }
}

/// One that may be changed, with all that is mapped to it.
async fn changeable(call: &Call) -> Answer<Target> {
    let target = find(call, call.id()).await?;
    let Some(pools) = call.principal().pools() else { return Ok(target) };
    let luns = call.app().storage().luns(target.id).await?;
    if luns.iter().any(|lun| !pools.contains(&lun.pool_id)) {
        let text = "this target has LUNs of pools that this key isn't for";
        return Err(Fault::new(Number::Forbidden, text));
    }
    Ok(target)
}

/// The targets that the caller sees.
pub(super) async fn seen(call: &Call) -> Answer<Vec<Target>> {
    let mut all = rows::targets(call).await?;
    if let Some(pools) = call.principal().pools() {
        let luns = call.app().catalog().find_by(Lun::all(), |lun: &Lun| lun.target_id).await?;
        let is_seen = |luns: &Vec<Lun>| luns.iter().any(|lun| pools.contains(&lun.pool_id));
        all.retain(|target| luns.get(&target.id).is_none_or(is_seen));
    }
    Ok(all)
}

/// They, as they are shown.
async fn all(call: &Call) -> Answer<Vec<TargetShown>> {
    // What is mapped is asked for last: a target without LUNs is everybody's.
    let all = rows::targets(call).await?;
    let mut beside = Beside::of(call, None).await?;
    Ok(all.into_iter().filter_map(|target| shown(call, &mut beside, target)).collect())
}

async fn show_one(call: &Call, target: Target) -> Answer {
    let mut beside = Beside::of(call, Some(&target)).await?;
    let shown = shown(call, &mut beside, target);
    found(&shown.ok_or_else(|| Fault::not_found("target"))?)
}

async fn list(call: Call) -> Answer {
    let short = |target: TargetShown| TargetShort {
        owner: OWNER,
        scsi_id: target.scsi_id,
        scsi_target_name: target.scsi_target_name,
        id: target.id,
        name: target.name,
    };
    found(&all(&call).await?.into_iter().map(short).collect::<Vec<_>>())
}

async fn details(call: Call) -> Answer {
    found(&all(&call).await?)
}

async fn show(call: Call) -> Answer {
    let target = find(&call, call.id()).await?;
    show_one(&call, target).await
}

/// The groups that are said: who may log in (the inner none: everybody), and where.
async fn groups(call: &Call) -> Answer<(Option<Option<i64>>, Option<i64>)> {
    let fields = call.fields();
    let auth = match fields.text(&["auth_group_id", "group_id"])? {
        Some(id) => Some(auth_group::find(call, &id).await?.map(|group| group.id)),
        None => None,
    };
    let portal = match fields.text(&["portal_group_id", "portal_id"])? {
        Some(id) => Some(portal_group::find(call, &id).await?.id),
        None => None,
    };
    Ok((auth, portal))
}

/// The name in iSCSI of a target: what stands before its last colon is the appliance's. None: names like
/// this one can't stand in it as they are.
fn iqn(node: &str, name: &str) -> Option<String> {
    let stands = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let letter = |c: char| if stands(c) { c } else { '-' };
    let node: String = node.to_lowercase().chars().map(letter).collect();
    name.chars().all(stands).then(|| format!("{TARGET_PREFIX}.{node}:{name}"))
}

async fn create(call: Call) -> Answer {
    let name = call.fields().needed(&["name", "scsi_target_name"])?;
    let organisation_id = call.principal().organisation_id;
    call.may(&Object::of(organisation_id), "organisation")?;
    let (auth, portal_group_id) = groups(&call).await?;
    let iqn = iqn(call.app().storage().node(), &name);
    let new = NewTarget {
        name,
        organisation_id,
        auth_group_id: auth.flatten(),
        portal_group_id,
        iqn,
        enabled: true,
        ..NewTarget::default()
    };
    let made = call.app().storage().create_target(new).await?;
    show_one(&call, made.target).await
}

async fn change(call: Call) -> Answer {
    let target = changeable(&call).await?;
    let name = call.fields().text(&["name", "scsi_target_name"])?;
    let (auth_group_id, portal_group_id) = groups(&call).await?;
    if name.is_none() && auth_group_id.is_none() && portal_group_id.is_none() {
        let text = "nothing to change; there are: name, auth_group_id, portal_group_id";
        return Err(Fault::invalid(text));
    }
    let change = TargetChange { name, auth_group_id, portal_group_id, ..TargetChange::default() };
    call.app().storage().change_target(target.id, change, None).await?;
    done()
}

async fn remove(call: Call) -> Answer {
    let gone = |fault: Fault| fault.told_as(Number::NotFound, Number::NoTarget);
    let target = changeable(&call).await.map_err(gone)?;
    let removed = call.app().storage().remove_target(target.id, false).await;
    removed.map_err(|error| gone(error.into()))?;
    done()
}

/// The volumes that are said.
async fn said(call: &Call) -> Answer<Vec<volumes::Volume>> {
    let ids = call.fields().texts(&["lun_ids", "lun_id"])?.unwrap_or_default();
    if ids.is_empty() {
        return Err(Fault::invalid("`lun_ids` is missing"));
    }
    let mut all: Vec<volumes::Volume> = Vec::new();
    for id in ids {
        let none = || Fault::not_found("LUN");
        let volume = volumes::of_public_id(call.app().catalog(), &id).await;
        let volume = volume.map_err(|error| match error {
            strongroom_catalog::Error::NotFound { .. } => none(),
            error => error.into(),
        })?;
        let object = Object::of(volume.organisation_id).in_pool(volume.pool_id);
        // Who maps it lets others read and write it.
        call.may_also(Right::VolumeManage, &object, "LUN")?;
        if !all.iter().any(|one| one.id == volume.id) {
            all.push(volume);
        }
    }
    Ok(all)
}

async fn map(call: Call) -> Answer {
    let target = changeable(&call).await?;
    let said = said(&call).await?;
    let storage = call.app().storage();
    let there = storage.luns(target.id).await?;
    let is_there = |id: i64| there.iter().any(|lun| lun.volume_id == id);
    let new: Vec<_> = said.iter().filter(|volume| !is_there(volume.id)).collect();
    if new.is_empty() {
        return Err(Fault::new(Number::Exists, "these LUNs are mapped to this target already"));
    }
    let mut done_so_far: Vec<i64> = Vec::new();
    for volume in new {
        if let Err(error) = storage.map_volume(target.id, volume.id, None).await {
            take_back(&call, target.id, &done_so_far).await?;
            return Err(error.into());
        }
        done_so_far.push(volume.id);
    }
    done()
}

/// Unmaps what this request has mapped.
async fn take_back(call: &Call, target: i64, volumes: &[i64]) -> Answer<()> {
    let storage = call.app().storage();
    for lun in storage.luns(target).await? {
        if volumes.contains(&lun.volume_id) {
            storage.unmap_volume(target, lun.number, true).await?;
        }
    }
    Ok(())
}

async fn unmap(call: Call) -> Answer {
    let target = find(&call, call.id()).await?;
    let said = said(&call).await?;
    let storage = call.app().storage();
    let there = storage.luns(target.id).await?;
    let found: Vec<_> =
        there.iter().filter(|lun| said.iter().any(|volume| volume.id == lun.volume_id)).collect();
    if found.is_empty() {
        return Err(Fault::not_found("LUN of this target"));
    }
    for lun in found {
        storage.unmap_volume(target.id, lun.number, true).await?;
    }
    done()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_iscsi_end_with_the_targets() {
        let told = iqn("Box_1.lan", "t1").unwrap_or_default();
        assert_eq!(told, "iqn.2026-11.io.strongroom.box-1.lan:t1");
        assert_eq!(iqn("box", "T 1"), None);
    }
}
