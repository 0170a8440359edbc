//! The token of the administration interface, which dialects take that know no users.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_identity::{Right, TokenState};
use utoipa::ToSchema;

use super::hidden::Hidden;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Empty, Group, Json, get, post, put};

pub(super) fn group() -> Group {
    let path = "/v1/system/token";
    Group::new(
        "Administration token",
        "One token for all of the box, for scripts that know no users: those written for Jidoteki \
         Admin. It is an API key of a user and has no more rights; `PATCH /v1/keys/{key}` narrows \
         it, ends it or switches it off.",
        [
            get(path, "system.token.show", "Whether there is a token, and whose", show)
                .needs(Right::SystemView, On::Appliance),
            put(path, "system.token.set", "Set the token", set)
                .needs(Right::SystemManage, On::Appliance)
                .fails([Code::Conflict, Code::NotFound])
                .recorded_by_service(),
            post(
                "/v1/system/token/reset",
                "system.token.reset",
                "End the token, and give a passphrase to set another with",
                reset,
            )
            .needs(Right::SystemManage, On::Appliance)
            .fails([Code::Conflict, Code::NotFound])
            .recorded_by_service(),
        ],
    )
}

/// The token, without what is secret of it.
#[derive(Debug, Serialize, ToSchema)]
struct Token {
    /// `absent`; `first_run`: a passphrase that is good for setting one, and nothing else; `set`.
    #[schema(example = "set")]
    state: &'static str,
    /// The API key that it is.
    key_id: Option<i64>,
    /// Whose it is.
    user_id: Option<i64>,
    /// Whether it can be used.
    enabled: Option<bool>,
    /// When it ends.
    expires_at: Option<Timestamp>,
    /// When it was last used, to within minutes.
    last_used_at: Option<Timestamp>,
}

async fn show(call: Call) -> Result<Json<Token>> {
    let token = call.app().identity().admin_token(call.principal()?).await?;
    let state = match token.state {
        TokenState::Absent => "absent",
        TokenState::FirstRun => "first_run",
        TokenState::Set => "set",
    };
    let key = token.key.as_ref();
    Ok(Json(Token {
        state,
        key_id: key.map(|key| key.id),
        user_id: key.map(|key| key.user_id),
        enabled: key.map(|key| key.enabled),
        expires_at: key.and_then(|key| key.expires_at),
        last_used_at: key.and_then(|key| key.last_used_at),
    }))
}

/// A new token.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SetToken {
    /// 1 to 255 visible ASCII characters. Choose one that nobody guesses.
    token: Hidden,
}

async fn set(call: Call, Body(body): Body<SetToken>) -> Result<Empty> {
    call.app().identity().set_admin_token(call.principal()?, &body.token.0).await?;
    Ok(Empty)
}

/// What a token is set with.
#[derive(Serialize, ToSchema)]
struct ResetToken {
    /// What `POST /api/v1/admin/setup` takes as `token`. It is not shown again.
    passphrase: String,
}

async fn reset(call: Call) -> Result<Json<ResetToken>> {
    let passphrase = call.app().identity().reset_admin_token(call.principal()?).await?;
    Ok(Json(ResetToken { passphrase: passphrase.expose().to_owned() }))
}
