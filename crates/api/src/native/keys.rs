//! API keys: for programs.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{KeyChange, KeySpec, Object, Right};
use utoipa::ToSchema;

use super::given;
use super::paths::{KeyPath, Keys};
use super::roles::right_set;
use crate::access::On;
use crate::call::Call;
use crate::dialects::{self, KeyDialect};
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Tagged, delete, get, patch,
    post,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Forbidden, Code::NotFound];
    Group::new(
        "Keys",
        "API keys: for programs that act for a user, with no more rights than that one.",
        [
            get("/v1/keys", "keys.list", "Keys", list).needs(Right::KeyView, On::Any),
            post("/v1/keys", "keys.create", "Make a key, for oneself or another", create)
                .login()
                .fails(refused)
                .idempotent()
                .recorded_by_service(),
            get("/v1/keys/{key}", "keys.show", "A key", show).needs(Right::KeyView, On::Key("key")),
            patch("/v1/keys/{key}", "keys.change", "Change a key", change)
                .login()
                .fails(refused)
                .recorded_by_service(),
            delete("/v1/keys/{key}", "keys.remove", "Remove a key", remove)
                .login()
                .fails(refused)
                .recorded_by_service(),
            post("/v1/keys/{key}/reveal", "keys.reveal", "Show the secret of a key again", reveal)
                .needs(Right::KeyManage, On::Key("key"))
                .fails(refused)
                .recorded_by_service(),
        ],
    )
}

/// A key, without what is secret of it.
#[derive(Debug, Serialize, ToSchema)]
struct Key {
    /// Its number.
    id: i64,
    /// Whose it is.
    user_id: i64,
    /// The organisation of that user.
    organisation_id: i64,
    /// Its name.
    name: String,
    /// The part of it that is not secret.
    prefix: String,
    /// Whether it can be used.
    enabled: bool,
    /// Only these rights; none: all that the user has.
    rights: Option<Vec<String>>,
    /// Only these pools, and nothing but what is about them.
    pools: Option<Vec<i64>>,
    /// Only these operations.
    operations: Option<Vec<String>>,
    /// Whether requests can be signed with it (RFC 9421).
    signing: bool,
    /// Whether its secret can be shown again.
    revealable: bool,
    /// The dialect that it is for, and nothing else; null: this API.
    dialect: Option<String>,
    /// When it was made.
    created_at: Timestamp,
    /// When it ends.
    expires_at: Option<Timestamp>,
    /// When it was last used.
    last_used_at: Option<Timestamp>,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::ApiKey> for Key {
    fn from(key: known::ApiKey) -> Self {
        let words =
            |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<String>>();
        let numbers = |text: String| words(text).iter().filter_map(|w| w.parse().ok()).collect();
        Self {
            id: key.id,
            user_id: key.user_id,
            organisation_id: key.organisation_id,
            name: key.name,
            prefix: key.prefix,
            enabled: key.enabled,
            rights: key.rights.map(words),
            pools: key.pools.map(numbers),
            operations: key.operations.map(words),
            signing: key.shown_again && key.dialect.is_none(),
            revealable: key.shown_again,
            dialect: key.dialect,
            created_at: key.created_at,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            version: key.version,
        }
    }
}

async fn list(call: Call, list: Listing<Keys>) -> Result<Items<Key>> {
    call.items(&list, |key: known::ApiKey| key.into()).await
}

async fn show(call: Call, Path(path): Path<KeyPath>) -> Result<Tagged<Key>> {
    let key: Option<known::ApiKey> =
        call.app().catalog().find_one(known::ApiKey::by_id(path.key)).await?;
    let key = key.ok_or_else(|| Problem::not_found("key"))?;
    let version = key.version;
    Ok(Tagged(key.into(), version))
}

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateKey {
    /// Whose it will be; the caller's when it isn't said.
    user_id: Option<i64>,
    /// Its name.
    name: String,
    /// When it ends.
    expires_at: Option<Timestamp>,
    /// Only these rights; none: all that the user has.
    rights: Option<Vec<String>>,
    /// Only these pools, by number, and nothing but what is about them, their images and jobs.
    pools: Option<Vec<i64>>,
    /// Only these operations, by id. Of a dialect, those of its page in the documentation.
    operations: Option<Vec<String>>,
    /// The dialect that it is for, and nothing else: `ngx`. Such a key can be shown again. None:
    /// this API.
    dialect: Option<String>,
    /// Whether requests can be signed with it (RFC 9421): it is kept sealed with the appliance's
    /// key, not as a hash alone.
    #[serde(default)]
    signing: bool,
}

/// A key that was made.
#[derive(Serialize, ToSchema)]
struct CreatedKey {
    /// What is known of it.
    key: Key,
    /// What to send as `Authorization: Bearer`. It is not shown again, but for one that signs or is
    /// for a dialect.
    secret: String,
}

async fn create(call: Call, Body(body): Body<CreateKey>) -> Result<Created<CreatedKey>> {
    let by = call.principal()?;
    let none = || {
        let text = "say whose key it will be: at the control socket there is no user";
        Problem::new(Code::Invalid, text)
    };
    let dialect = body.dialect.as_deref().map(dialects::of_keys).transpose()?;
    if dialect.is_some() && body.signing {
        let text = "requests to a dialect are not signed: leave out `signing` or `dialect`";
        return Err(Problem::new(Code::Invalid, text));
    }
    let operations = body.operations.map(|ids| known_operations(dialect, ids)).transpose()?;
    let spec = KeySpec {
        user_id: body.user_id.or(by.user_id).ok_or_else(none)?,
        name: body.name,
        expires_at: body.expires_at,
        rights: body.rights.map(|names| right_set(&names)).transpose()?,
        pools: body.pools.map(|pools| pools.into_iter().collect()),
        operations,
        shown_again: body.signing || dialect.is_some(),
        dialect: dialect.map(|dialect| dialect.name.to_owned()),
    };
    let (key, secret) = call.app().identity().create_key(by, spec).await?;
    let location = format!("/v1/keys/{}", key.id);
    let item = CreatedKey { key: key.into(), secret: secret.expose().to_owned() };
    Ok(Created { item, location })
}

/// Operations that a key may have; of a dialect, those that it has.
fn known_operations(dialect: Option<&KeyDialect>, ids: Vec<String>) -> Result<BTreeSet<String>> {
    match dialect {
        Some(dialect) => ids.iter().map(|id| dialect.operation(id)).collect(),
        None => Ok(ids.into_iter().collect()),
    }
}

/// What is to be changed of a key; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeKey {
    /// Its name.
    name: Option<String>,
    /// Whether it can be used.
    enabled: Option<bool>,
    /// When it ends; null: never.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Timestamp>)]
    expires_at: Option<Option<Timestamp>>,
    /// Only these rights; null: all that the user has.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    rights: Option<Option<Vec<String>>>,
    /// Only these pools, by number, and nothing but what is about them; null: all.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<i64>>)]
    pools: Option<Option<Vec<i64>>>,
    /// Only these operations, by id; null: all.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    operations: Option<Option<Vec<String>>>,
}

async fn change(
    call: Call,
    Path(path): Path<KeyPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeKey>,
) -> Result<Tagged<Key>> {
    let rights = |names: Option<Vec<String>>| names.map(|names| right_set(&names)).transpose();
    let operations = match body.operations {
        Some(Some(ids)) => {
            let dialect = dialect_of(&call, path.key).await?;
            Some(Some(known_operations(dialect, ids)?))
        }
        operations => operations.map(|_| None),
    };
    let what = KeyChange {
        name: body.name,
        enabled: body.enabled,
        expires_at: body.expires_at,
        rights: body.rights.map(rights).transpose()?,
        pools: body.pools.map(|pools| pools.map(|pools| pools.into_iter().collect())),
        operations,
    };
    let identity = call.app().identity();
    let key = identity.change_key(call.principal()?, path.key, version, what).await?;
    let version = key.version;
    Ok(Tagged(key.into(), version))
}

/// The dialect that a key is for.
async fn dialect_of(call: &Call, key: i64) -> Result<Option<&'static KeyDialect>> {
    let key = call.app().catalog().find_one::<known::ApiKey>(known::ApiKey::by_id(key)).await?;
    let Some(key) = key else { return Ok(None) };
    // What is said of a key is said to who may change it.
    if call.principal()?.user_id != Some(key.user_id) {
        call.allow(Right::KeyManage, &Object::of(key.organisation_id), "key")?;
    }
    key.dialect.as_deref().map(dialects::of_keys).transpose()
}

/// The secret of a key.
#[derive(Serialize, ToSchema)]
struct KeySecret {
    /// What to send as `Authorization: Bearer`.
    secret: String,
}

async fn reveal(call: Call, Path(path): Path<KeyPath>) -> Result<Json<KeySecret>> {
    let secret = call.app().identity().show_key(call.principal()?, path.key).await?;
    Ok(Json(KeySecret { secret: secret.expose().to_owned() }))
}

async fn remove(call: Call, Path(path): Path<KeyPath>) -> Result<Empty> {
    call.app().identity().remove_key(call.principal()?, path.key).await?;
    Ok(Empty)
}
