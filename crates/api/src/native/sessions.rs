//! Sessions: logging in and out.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{Credential, JwtLife, Life, Opened, Pair, Right};
use utoipa::ToSchema;

use super::hidden::Hidden;
use super::paths::{SessionPath, Sessions};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{Body, Created, Empty, Group, Items, Json, Listing, Path, delete, get, post};

pub(super) fn group() -> Group {
    let refused = [Code::Unauthenticated, Code::SecondFactor, Code::TooMany];
    Group::new(
        "Sessions",
        "Logging in and out.",
        [
            post("/v1/sessions", "sessions.open", "Log in", open)
                .open("whoever logs in is not known yet")
                .fails(refused)
                .recorded_by_service(),
            post("/v1/sessions/refresh", "sessions.refresh", "Renew a pair of tokens", refresh)
                .open("the refresh token says who it is")
                .fails(refused)
                .recorded_by_service(),
            get("/v1/sessions", "sessions.list", "Sessions", list)
                .needs(Right::SessionView, On::Any),
            delete("/v1/sessions/current", "sessions.close_own", "Log out", log_out)
                .login()
                .fails([Code::Conflict])
                .recorded_by_service(),
            delete("/v1/sessions/{session}", "sessions.close", "End a session", close)
                .login()
                .fails([Code::Forbidden])
                .recorded_by_service(),
        ],
    )
}

/// Who logs in, and what for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Login {
    /// The user's name.
    name: String,
    /// The password.
    password: Hidden,
    /// The code of the second factor, or a recovery code, where one is asked for.
    code: Option<Hidden>,
    /// The name of the directory that knows the user, when several do; without it, users of the
    /// appliance come first, then all directories are asked.
    directory: Option<String>,
    /// What is wanted.
    #[serde(default)]
    kind: LoginKind,
}

/// What stands for a session.
#[derive(Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum LoginKind {
    /// One token, which ends when it is not used (an hour, unless set otherwise).
    #[default]
    Session,
    /// A short token (15 minutes, unless set otherwise), and one that renews it.
    Pair,
    /// A short JWT (15 minutes, unless set otherwise), which goes on while it is used.
    Jwt,
    /// A short JWT whose end stays where it was when it was made.
    JwtFixed,
}

/// A session that was opened. Send its token as `Authorization: Bearer`.
#[derive(Serialize, ToSchema)]
struct OpenedSession {
    /// Its number.
    id: i64,
    /// What to send with each request.
    token: String,
    /// When the token ends at the latest.
    expires_at: Timestamp,
    /// What renews the token, once.
    refresh_token: Option<String>,
    /// When that ends.
    refresh_expires_at: Option<Timestamp>,
}

impl From<Opened> for OpenedSession {
    fn from(opened: Opened) -> Self {
        Self {
            id: opened.id,
            token: opened.token.expose().to_owned(),
            expires_at: opened.expires_at,
            refresh_token: None,
            refresh_expires_at: None,
        }
    }
}

impl From<Pair> for OpenedSession {
    fn from(pair: Pair) -> Self {
        Self {
            id: pair.id,
            token: pair.access.expose().to_owned(),
            expires_at: pair.access_expires_at,
            refresh_token: Some(pair.refresh.expose().to_owned()),
            refresh_expires_at: Some(pair.refresh_expires_at),
        }
    }
}

async fn open(call: Call, Body(body): Body<Login>) -> Result<Created<OpenedSession>> {
    let (identity, origin) = (call.app().identity(), call.origin());
    let code = body.code.map(|code| code.0);
    let (name, password, directory) = (body.name, body.password.0, body.directory);
    let credential = Credential::Password { name, password, code, directory };
    let who = identity.authenticate(credential, origin).await?;
    let set = call.app().settings().current();
    let item: OpenedSession = match body.kind {
        LoginKind::Session => {
            let life = Life { idle: Some(set.sessions_idle), total: set.sessions_life };
            identity.open_session(&who, life, origin).await?.into()
        }
        LoginKind::Pair => {
            let (access, refresh) = (set.tokens_access, set.tokens_refresh);
            identity.open_pair(&who, access, refresh, origin).await?.into()
        }
        LoginKind::Jwt | LoginKind::JwtFixed => {
            let life = match body.kind {
                LoginKind::JwtFixed => JwtLife::Fixed(set.tokens_access),
                _ => JwtLife::Sliding { idle: set.tokens_access, most: set.tokens_refresh },
            };
            identity.open_jwt(&who, life, serde_json::Map::new(), origin).await?.into()
        }
    };
    Ok(Created { location: format!("/v1/sessions/{}", item.id), item })
}

/// What renews a pair.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Refresh {
    /// The refresh token; it ends with that.
    refresh_token: Hidden,
}

async fn refresh(call: Call, Body(body): Body<Refresh>) -> Result<Json<OpenedSession>> {
    let identity = call.app().identity();
    let access = call.app().settings().current().tokens_access;
    let pair = identity.refresh(&body.refresh_token.0, access, call.origin()).await?;
    Ok(Json(pair.into()))
}

/// A session.
#[derive(Debug, Serialize, ToSchema)]
struct Session {
    /// Its number.
    id: i64,
    /// Whose it is.
    user_id: i64,
    /// The API key with which it was opened.
    key_id: Option<i64>,
    /// `session`, `pair` or `jwt`.
    kind: String,
    /// From where it was opened.
    address: String,
    /// With which program.
    agent: String,
    /// When it was opened.
    created_at: Timestamp,
    /// When it was last used.
    used_at: Timestamp,
    /// When it ends.
    expires_at: Timestamp,
}

async fn list(call: Call, list: Listing<Sessions>) -> Result<Items<Session>> {
    let show = |session: known::Session| Session {
        id: session.id,
        user_id: session.user_id,
        key_id: session.key_id,
        kind: session.kind,
        address: session.address,
        agent: session.agent,
        created_at: session.created_at,
        used_at: session.used_at,
        expires_at: session.expires_at,
    };
    call.items(&list, show).await
}

async fn log_out(call: Call) -> Result<Empty> {
    call.app().identity().log_out(call.principal()?).await?;
    Ok(Empty)
}

async fn close(call: Call, Path(path): Path<SessionPath>) -> Result<Empty> {
    call.app().identity().close_session(call.principal()?, path.session).await?;
    Ok(Empty)
}
