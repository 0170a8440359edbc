//! Oneself: who one is, one's password and second factor.

use serde::{Deserialize, Serialize};
use strongroom_identity::{Principal, Right};
use utoipa::ToSchema;

use super::hidden::Hidden;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Empty, Group, Json, delete, get, post, put};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Forbidden, Code::Conflict];
    Group::new(
        "Me",
        "Who asks, and what they alone may change of themselves.",
        [
            get("/v1/me", "me.show", "Who asks", show).login(),
            put(
                "/v1/me/password",
                strongroom_identity::OWN_PASSWORD,
                "Change one's password",
                password,
            )
            .login()
            .fails(refused)
            .recorded_by_service(),
            post(
                "/v1/me/second-factor",
                "me.second_factor.enrol",
                "Begin to use a second factor",
                enrol,
            )
            .login()
            .fails(refused)
            .recorded_by_service(),
            post(
                "/v1/me/second-factor/confirm",
                "me.second_factor.confirm",
                "Show that it works",
                confirm,
            )
            .login()
            .fails(refused)
            .recorded_by_service(),
            delete(
                "/v1/me/second-factor",
                "me.second_factor.remove",
                "Do without a second factor",
                remove,
            )
            .login()
            .fails(refused)
            .recorded_by_service(),
        ],
    )
}

/// Who asks.
#[derive(Debug, Serialize, ToSchema)]
struct Me {
    /// The user's number; none at the control socket.
    user_id: Option<i64>,
    /// The name.
    name: String,
    /// The organisation the user belongs to.
    organisation_id: i64,
    /// The user for whom this one acts.
    delegate_of: Option<i64>,
    /// How the user was known.
    via: &'static str,
    /// The API key it came with.
    key_id: Option<i64>,
    /// The session it came with.
    session_id: Option<i64>,
    /// Whether the password must be changed first.
    must_change_password: bool,
    /// What it may do in its own organisation.
    rights: Vec<&'static str>,
    /// The pools it is narrowed to, if it is.
    pools: Option<Vec<i64>>,
    /// The operations it is narrowed to, if it is.
    operations: Option<Vec<String>>,
}

impl From<&Principal> for Me {
    fn from(who: &Principal) -> Self {
        Self {
            user_id: who.user_id,
            name: who.name.clone(),
            organisation_id: who.organisation_id,
            delegate_of: who.delegate_of,
            via: who.via.name(),
            key_id: who.key_id,
            session_id: who.session_id,
            must_change_password: who.must_change,
            rights: who.rights_in(who.organisation_id).iter().map(Right::name).collect(),
            pools: who.pools().map(|pools| pools.iter().copied().collect()),
            operations: who.operations().map(|all| all.iter().cloned().collect()),
        }
    }
}

async fn show(call: Call) -> Result<Json<Me>> {
    Ok(Json(Me::from(&**call.principal()?)))
}

/// A change of one's password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ChangePassword {
    /// The password until now.
    old: Hidden,
    /// The password from now on.
    new: Hidden,
}

async fn password(call: Call, Body(body): Body<ChangePassword>) -> Result<Empty> {
    let identity = call.app().identity();
    identity.change_own_password(call.principal()?, body.old.0, body.new.0).await?;
    Ok(Empty)
}

/// What an authenticator app needs. It is shown this once.
#[derive(Serialize, ToSchema)]
struct EnrolledFactor {
    /// The secret, in base 32.
    secret: String,
    /// The same as an address that apps read, also from a QR code.
    url: String,
}

async fn enrol(call: Call) -> Result<Json<EnrolledFactor>> {
    let made = call.app().identity().enrol_second_factor(call.principal()?).await?;
    let (secret, url) = (made.secret.expose().to_owned(), made.url.expose().to_owned());
    Ok(Json(EnrolledFactor { secret, url }))
}

/// A code that an authenticator app shows.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConfirmFactor {
    /// Its six digits.
    code: Hidden,
}

/// Each stands for a code once; they are shown this once.
#[derive(Serialize, ToSchema)]
struct RecoveryCodes {
    /// The codes.
    recovery_codes: Vec<String>,
}

async fn confirm(call: Call, Body(body): Body<ConfirmFactor>) -> Result<Json<RecoveryCodes>> {
    let identity = call.app().identity();
    let codes = identity.confirm_second_factor(call.principal()?, body.code.0.expose()).await?;
    let recovery_codes = codes.iter().map(|code| code.expose().to_owned()).collect();
    Ok(Json(RecoveryCodes { recovery_codes }))
}

/// Who removes a second factor shows the password again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RemoveFactor {
    /// The password.
    password: Hidden,
}

async fn remove(call: Call, Body(body): Body<RemoveFactor>) -> Result<Empty> {
    let who = call.principal()?;
    // One without a user is refused by the service; no user has this number.
    let user = who.user_id.unwrap_or_default();
    call.app().identity().remove_second_factor(who, user, Some(body.password.0)).await?;
    Ok(Empty)
}
