//! Users, and what they may do.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::{self as known, Grant};
use strongroom_identity::{Right, UserChange, UserSpec};
use utoipa::{IntoParams, ToSchema};

use super::hidden::Hidden;
use super::paths::{UserPath, Users};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Query, Tagged, delete, get,
    patch, post, put,
};

pub(super) fn group() -> Group {
    let user = On::User("user");
    let refused = [Code::Invalid, Code::Conflict, Code::NotFound];
    Group::new(
        "Users",
        "Who may log in, and what they may do.",
        [
            get("/v1/users", "users.list", "Users", list).needs(Right::UserView, On::Any),
            post("/v1/users", "users.create", "Make a user", create)
                .needs(Right::UserManage, On::Any)
                .fails(refused)
                .fails([Code::Exists])
                .idempotent()
                .recorded_by_service(),
            get("/v1/users/{user}", "users.show", "A user", show).needs(Right::UserView, user),
            patch("/v1/users/{user}", "users.change", "Change a user", change)
                .needs(Right::UserManage, user)
                .fails(refused)
                .recorded_by_service(),
            delete("/v1/users/{user}", "users.remove", "Remove a user", remove)
                .needs(Right::UserManage, user)
                .fails(refused)
                .fails([Code::InUse])
                .recorded_by_service(),
            put(
                "/v1/users/{user}/password",
                "users.password",
                "Give a user another password",
                password,
            )
            .needs(Right::UserManage, user)
            .fails(refused)
            .recorded_by_service(),
            delete(
                "/v1/users/{user}/second-factor",
                "users.second_factor.remove",
                "Remove a lost second factor",
                factor,
            )
            .needs(Right::UserManage, user)
            .fails(refused)
            .recorded_by_service(),
            get("/v1/users/{user}/grants", "users.grants", "What a user was granted", grants)
                .needs(Right::UserView, user),
            post("/v1/users/{user}/grants", "users.grant", "Give a user a role", grant)
                .needs(Right::UserManage, user)
                .fails(refused)
                .idempotent()
                .recorded_by_service(),
            delete("/v1/users/{user}/grants", "users.revoke", "Take a role from a user", revoke)
                .needs(Right::UserManage, user)
                .fails(refused)
                .recorded_by_service(),
        ],
    )
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
struct User {
    /// The user's number.
    id: i64,
    /// The organisation the user belongs to.
    organisation_id: i64,
    /// The name to log in with.
    name: String,
    /// The person's name.
    full_name: String,
    /// The person's address.
    email: String,
    /// Who checks the password: `local`, `ldap` or `oidc`.
    source: String,
    /// Whether the password must be changed at the next login.
    must_change_password: bool,
    /// Whether there is a second factor.
    second_factor: bool,
    /// The user for whom this one acts.
    delegate_of: Option<i64>,
    /// Whether the user may log in.
    enabled: bool,
    /// When the user was made.
    created_at: Timestamp,
    /// The last login.
    last_login_at: Option<Timestamp>,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<known::User> for User {
    fn from(user: known::User) -> Self {
        Self {
            id: user.id,
            organisation_id: user.organisation_id,
            name: user.name,
            full_name: user.full_name,
            email: user.email,
            source: user.source,
            must_change_password: user.must_change,
            second_factor: user.second_factor,
            delegate_of: user.delegate_of,
            enabled: user.enabled,
            created_at: user.created_at,
            last_login_at: user.last_login_at,
            version: user.version,
        }
    }
}

fn tagged(user: known::User) -> Tagged<User> {
    let version = user.version;
    Tagged(user.into(), version)
}

async fn list(call: Call, list: Listing<Users>) -> Result<Items<User>> {
    call.items(&list, |user: known::User| user.into()).await
}

/// A new user, who may do nothing until a role is granted.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CreateUser {
    /// The name to log in with.
    name: String,
    /// The organisation it will belong to; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// The person's name.
    #[serde(default)]
    full_name: String,
    /// The person's address.
    #[serde(default)]
    email: String,
    /// The password; without one the user can only have keys.
    password: Option<Hidden>,
    /// Whether the password must be changed at the first login.
    #[serde(default)]
    must_change_password: bool,
    /// The user for whom it will act.
    delegate_of: Option<i64>,
}

async fn create(call: Call, Body(body): Body<CreateUser>) -> Result<Created<User>> {
    let by = call.principal()?;
    let spec = UserSpec {
        organisation_id: body.organisation_id.unwrap_or(by.organisation_id),
        name: body.name,
        full_name: body.full_name,
        email: body.email,
        password: body.password.map(|password| password.0),
        must_change: body.must_change_password,
        delegate_of: body.delegate_of,
    };
    let user = call.app().identity().create_user(by, spec).await?;
    Ok(Created { location: format!("/v1/users/{}", user.id), item: user.into() })
}

async fn show(call: Call, Path(path): Path<UserPath>) -> Result<Tagged<User>> {
    let user = call.app().catalog().find_one(known::User::by_id(path.user)).await?;
    user.map(tagged).ok_or_else(|| Problem::not_found("user"))
}

/// What is to be changed of a user; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangeUser {
    /// The organisation it belongs to.
    organisation_id: Option<i64>,
    /// The person's name.
    full_name: Option<String>,
    /// The person's address.
    email: Option<String>,
    /// Whether it may log in.
    enabled: Option<bool>,
}

async fn change(
    call: Call,
    Path(path): Path<UserPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<ChangeUser>,
) -> Result<Tagged<User>> {
    let what = UserChange {
        organisation_id: body.organisation_id,
        full_name: body.full_name,
        email: body.email,
        enabled: body.enabled,
        delegate_of: None,
    };
    let identity = call.app().identity();
    Ok(tagged(identity.change_user(call.principal()?, path.user, version, what).await?))
}

async fn remove(call: Call, Path(path): Path<UserPath>) -> Result<Empty> {
    call.app().identity().remove_user(call.principal()?, path.user).await?;
    Ok(Empty)
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetPassword {
    /// The password.
    password: Hidden,
    /// Whether the user must change it at the next login.
    #[serde(default = "yes")]
    must_change_password: bool,
}

fn yes() -> bool {
    true
}

async fn password(
    call: Call,
    Path(path): Path<UserPath>,
    Body(body): Body<SetPassword>,
) -> Result<Empty> {
    let (identity, by) = (call.app().identity(), call.principal()?);
    let must_change = body.must_change_password;
    identity.set_password(by, path.user, body.password.0, must_change).await?;
    Ok(Empty)
}

async fn factor(call: Call, Path(path): Path<UserPath>) -> Result<Empty> {
    call.app().identity().remove_second_factor(call.principal()?, path.user, None).await?;
    Ok(Empty)
}

/// A role that a user has in an organisation and in those below it.
#[derive(Debug, Serialize, ToSchema)]
struct Granted {
    /// The role.
    role_id: i64,
    /// The organisation.
    organisation_id: i64,
}

/// What a user was granted.
#[derive(Debug, Serialize, ToSchema)]
struct Grants {
    /// The roles.
    grants: Vec<Granted>,
}

async fn grants(call: Call, Path(path): Path<UserPath>) -> Result<Json<Grants>> {
    let found = call.app().identity().grants(path.user).await?;
    let show =
        |grant: Grant| Granted { role_id: grant.role_id, organisation_id: grant.organisation_id };
    Ok(Json(Grants { grants: found.into_iter().map(show).collect() }))
}

/// Which role, and where.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GrantRole {
    /// The role.
    role_id: i64,
    /// The organisation; it holds in those below it too.
    organisation_id: i64,
}

async fn grant(
    call: Call,
    Path(path): Path<UserPath>,
    Body(body): Body<GrantRole>,
) -> Result<Empty> {
    let GrantRole { role_id, organisation_id } = body;
    let grant = Grant { user_id: path.user, role_id, organisation_id };
    call.app().identity().grant(call.principal()?, grant).await?;
    Ok(Empty)
}

/// Which role, and where.
#[derive(Debug, Deserialize, IntoParams)]
struct RevokeQuery {
    /// The role.
    role_id: i64,
    /// The organisation in which it was granted.
    organisation_id: i64,
}

async fn revoke(
    call: Call,
    Path(path): Path<UserPath>,
    Query(query): Query<RevokeQuery>,
) -> Result<Empty> {
    let RevokeQuery { role_id, organisation_id } = query;
    let grant = Grant { user_id: path.user, role_id, organisation_id };
    call.app().identity().revoke(call.principal()?, grant).await?;
    Ok(Empty)
}
