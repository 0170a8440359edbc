//! The secrets that open an encrypted pool.

use serde::{Deserialize, Serialize};
use strongroom_engine::pool::SlotInfo;
use strongroom_identity::Right;
use utoipa::{IntoParams, ToSchema};

use super::hidden::Hidden;
use super::paths::PoolPath;
use super::pools::pool_secret;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{Body, Created, Empty, Group, Items, Json, Path, Route, delete, get, post, put};

pub(super) fn group() -> Group {
    let needs = |draft: crate::route::Draft| -> Route {
        draft.needs(Right::PoolManage, On::Pool("pool")).fails([Code::Invalid, Code::Conflict])
    };
    Group::new(
        "Key slots",
        "The secrets that open an encrypted pool. The appliance keeps one of them, sealed; others \
         open the pool without it.",
        [
            needs(get("/v1/pools/{pool}/keys", "pools.keys", "Key slots", list)),
            needs(post("/v1/pools/{pool}/keys", "pools.add_key", "Add a secret", add)).idempotent(),
            needs(put(
                "/v1/pools/{pool}/keys/{slot}",
                "pools.change_key",
                "Give a key slot another secret",
                change,
            )),
            needs(delete(
                "/v1/pools/{pool}/keys/{slot}",
                "pools.remove_key",
                "Remove a key slot",
                remove,
            )),
        ],
    )
}

/// A key slot.
#[derive(Debug, Serialize, ToSchema)]
struct KeySlot {
    /// Its number.
    slot: u32,
    /// Its name.
    label: String,
    /// `passphrase` or `key_file`.
    kind: &'static str,
    /// Whether the appliance opens the pool with it.
    opened: bool,
}

impl From<SlotInfo> for KeySlot {
    fn from(slot: SlotInfo) -> Self {
        let kind = if slot.key_file { "key_file" } else { "passphrase" };
        Self { slot: slot.id, label: slot.label, kind, opened: slot.opened }
    }
}

/// A key slot of a pool.
#[derive(Debug, Deserialize, IntoParams)]
struct SlotPath {
    /// The pool's number.
    pool: i64,
    /// The slot's number.
    slot: i64,
}

impl SlotPath {
    fn slot(&self) -> Result<u32> {
        u32::try_from(self.slot).map_err(|_| Problem::not_found("key slot"))
    }
}

async fn list(call: Call, Path(path): Path<PoolPath>) -> Result<Items<KeySlot>> {
    let slots = call.app().storage().pool_keys(path.pool).await?;
    let items = slots.into_iter().map(KeySlot::from).collect();
    Ok(Items { items, more: false, count: None })
}

/// A secret that is to open the pool, too.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AddKeySlot {
    /// The passphrase.
    passphrase: Hidden,
    /// A name for the new slot.
    #[serde(default)]
    label: String,
}

async fn add(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<AddKeySlot>,
) -> Result<Created<KeySlot>> {
    let (storage, secret) = (call.app().storage(), pool_secret(&body.passphrase));
    let slot = storage.add_pool_key(path.pool, secret, &body.label).await?;
    let location = format!("/v1/pools/{}/keys", path.pool);
    Ok(Created { item: slot.into(), location })
}

/// The new secret of a key slot.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeKeySlot {
    /// The passphrase.
    passphrase: Hidden,
}

async fn change(
    call: Call,
    Path(path): Path<SlotPath>,
    Body(body): Body<ChangeKeySlot>,
) -> Result<Json<KeySlot>> {
    let (storage, secret) = (call.app().storage(), pool_secret(&body.passphrase));
    Ok(Json(storage.change_pool_key(path.pool, path.slot()?, secret).await?.into()))
}

async fn remove(call: Call, Path(path): Path<SlotPath>) -> Result<Empty> {
    call.app().storage().remove_pool_key(path.pool, path.slot()?).await?;
    Ok(Empty)
}
