//! Users.

use futures_util::FutureExt;
use serde::Serialize;
use strongroom_catalog::identity::User;
use strongroom_identity::{Object, Right};
use utoipa::ToSchema;

use super::answer::{Answer, Fault, found};
use super::declared::{Endpoint, Over, Section};
use super::dispatch::Call;
use super::rows;

const SECTION: Section = Section {
    name: "User",
    reads: "ngx.user.read",
    view: Right::UserView,
    manage: Right::UserManage,
    over: Over::Any,
};

pub(super) fn endpoints() -> Vec<Endpoint> {
    const OURS: &str =
        "of later software, the members are ours; not for keys that are for some pools";
    vec![
        SECTION
            .get::<Vec<UserShown>>("/user", "ngx.user.list", "Users", |call| list(call).boxed())
            .state(OURS),
        SECTION
            .get::<UserShown>("/user/{id}", "ngx.user.show", "A user", |call| show(call).boxed())
            .state(OURS),
    ]
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
struct UserShown {
    id: String,
    name: String,
    full_name: String,
    email: String,
    enabled: u8,
    /// Seconds since 1970.
    created: String,
    last_login: Option<String>,
}

impl From<User> for UserShown {
    fn from(user: User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name,
            full_name: user.full_name,
            email: user.email,
            enabled: user.enabled.into(),
            created: user.created_at.as_second().to_string(),
            last_login: user.last_login_at.map(|at| at.as_second().to_string()),
        }
    }
}

async fn list(call: Call) -> Answer {
    let all = rows::users(&call).await?;
    found(&all.into_iter().map(UserShown::from).collect::<Vec<_>>())
}

async fn show(call: Call) -> Answer {
    let none = || Fault::not_found("user");
    let id = call.id().parse::<i64>().map_err(|_| none())?;
    let user = call.app().catalog().find_one::<User>(User::by_id(id)).await?.ok_or_else(none)?;
    call.may(&Object::of(user.organisation_id), "user")?;
    found(&UserShown::from(user))
}
