//! Whole lists of the catalogue, as far as the caller sees them.

use std::collections::HashMap;

use strongroom_catalog::identity::{USERS, User};
use strongroom_catalog::list::{List, MAX_LIMIT, Resource};
use strongroom_catalog::resources::{AUTH_GROUPS, PORTAL_GROUPS, SNAPSHOTS, TARGETS, VOLUMES};
use strongroom_catalog::targets::{AuthGroup, PortalGroup, Target};
use strongroom_catalog::volumes::{Snapshot, Volume};
use strongroom_catalog::{Record, pools};
use strongroom_identity::Right;

use super::answer::Answer;
use super::dispatch::Call;
use crate::problem::Problem;

/// All rows that the caller sees by this right.
async fn all<R: Record>(
    call: &Call,
    resource: &'static Resource,
    filters: &[String],
    right: Right,
) -> Answer<Vec<R>> {
    let scope = call.scope_of(right);
    let mut rows = Vec::new();
    loop {
        let (offset, limit) = (rows.len().to_string(), MAX_LIMIT.to_string());
        let filters = filters.iter().map(|filter| ("filter", filter.as_str()));
        let pairs = filters.chain([("offset", offset.as_str()), ("limit", limit.as_str())]);
        let list = List::parse(resource, pairs).map_err(Problem::from)?;
        let page = list.page::<R>(call.app().catalog(), &scope).await?;
        let more = page.more && !page.items.is_empty();
        rows.extend(page.items);
        if !more {
            return Ok(rows);
        }
    }
}

/// The users.
pub(super) async fn users(call: &Call) -> Answer<Vec<User>> {
    all(call, &USERS, &[], Right::UserView).await
}

/// Whether a key that is for some pools is for this one.
fn is_for(call: &Call, pool: i64) -> bool {
    call.principal().pools().is_none_or(|pools| pools.contains(&pool))
}

/// The volumes, by name.
pub(super) async fn volumes(call: &Call) -> Answer<Vec<Volume>> {
    let mut rows = all::<Volume>(call, &VOLUMES, &[], Right::VolumeView).await?;
    rows.retain(|volume| is_for(call, volume.pool_id));
    Ok(rows)
}

/// The snapshots, of one volume if it is said, the newest first.
pub(super) async fn snapshots(call: &Call, volume: Option<i64>) -> Answer<Vec<Snapshot>> {
    let filter = volume.map(|id| format!("volume_id:=={id}"));
    let filters: Vec<_> = filter.into_iter().collect();
    let mut rows = all::<Snapshot>(call, &SNAPSHOTS, &filters, Right::VolumeView).await?;
    rows.retain(|snapshot| is_for(call, snapshot.pool_id));
    Ok(rows)
}

/// The targets, by name.
pub(super) async fn targets(call: &Call) -> Answer<Vec<Target>> {
    all(call, &TARGETS, &[], Right::TargetView).await
}

/// The auth groups, by name.
pub(super) async fn auth_groups(call: &Call) -> Answer<Vec<AuthGroup>> {
    all(call, &AUTH_GROUPS, &[], Right::TargetView).await
}

/// The portal groups, by name.
pub(super) async fn portal_groups(call: &Call) -> Answer<Vec<PortalGroup>> {
    all(call, &PORTAL_GROUPS, &[], Right::TargetView).await
}

/// The names of all pools.
pub(super) async fn pool_names(call: &Call) -> Answer<HashMap<i64, String>> {
    let all = pools::all(call.app().catalog()).await?;
    Ok(all.into_iter().map(|pool| (pool.id, pool.name)).collect())
}
