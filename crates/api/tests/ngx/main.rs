//! The dialect NGX Storage: the published document's examples, what can be changed, and which keys are
//! let in to what.
#![allow(clippy::unwrap_used, reason = "tests")]

mod document;
mod examples;
mod keys;
mod lists;
mod luns;
mod matrix;
#[path = "../support/mod.rs"]
mod support;
mod targets;
mod tenants;

use serde_json::{Value, json};
use strongroom_api::dialects::ngx::{self, Operation};
use strongroom_catalog::identity::{Grant, Role};
use strongroom_identity::{KeySpec, Principal, UserSpec};
use strongroom_storage::{Encryption, NewPool};
use support::{Answer, Appliance};

/// Volumes are as large as this, or larger.
const GIB: u64 = 1 << 30;

/// An appliance with two pools, and keys.
struct World {
    appliance: Appliance,
    by: Principal,
    user: i64,
    pools: [i64; 2],
    /// For everything.
    key: String,
}

impl World {
    async fn new() -> Self {
        let appliance = Appliance::new().await;
        let by = appliance.system().await;
        let mut pools = Vec::new();
        for name in ["nvme1", "ryo2"] {
            pools.push(make_pool(&appliance, name, by.root()).await);
        }
        let admin = appliance.admin().await;
        let me = appliance.call(&admin, "GET", "/v1/me", None).await.json();
        let user = me["user_id"].as_i64().unwrap();
        let mut world =
            Self { appliance, by, user, pools: [pools[0], pools[1]], key: String::new() };
        world.key = world.make("everything", |_| {}).await.1;
        world
    }

    /// A key for the dialect.
    async fn make(&self, name: &str, with: impl FnOnce(&mut KeySpec)) -> (i64, String) {
        let mut spec = KeySpec {
            user_id: self.user,
            name: name.into(),
            shown_again: true,
            dialect: Some(ngx::NAME.into()),
            ..KeySpec::default()
        };
        with(&mut spec);
        // What one may do in an organisation is known from when one asks.
        let by = self.appliance.system().await;
        let made = self.appliance.app.identity().create_key(&by, spec).await.unwrap();
        (made.0.id, made.1.expose().to_owned())
    }

    /// A user with this role in an organisation.
    async fn user(&self, name: &str, role: &str, organisation_id: i64) -> i64 {
        let by = self.appliance.system().await;
        let app = &self.appliance.app;
        let spec = UserSpec { organisation_id, name: name.into(), ..UserSpec::default() };
        let user_id = app.identity().create_user(&by, spec).await.unwrap().id;
        let role: Option<Role> = app.catalog().find_one(Role::by_name(role)).await.unwrap();
        let grant = Grant { user_id, role_id: role.unwrap().id, organisation_id };
        app.identity().grant(&by, grant).await.unwrap();
        user_id
    }

    /// A key of the administrator of a tenant that has the pool `theirs`.
    async fn tenant(&self) -> String {
        let identity = self.appliance.app.identity();
        let made = identity.create_organisation(&self.by, self.by.root(), "tenant", "").await;
        let organisation = made.unwrap().id;
        make_pool(&self.appliance, "theirs", organisation).await;
        let user = self.user("rents", "tenant administrator", organisation).await;
        self.make("tenant", |key| key.user_id = user).await.1
    }

    async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        self.appliance.call(key, method, &format!("{}{path}", ngx::PREFIX), body).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.ask(&self.key, "GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.json());
        assert_eq!(answer.headers["content-type"], "application/json");
        answer.json()
    }

    /// Asks for a change that is made.
    async fn change(&self, method: &str, path: &str, body: Value) -> Value {
        let answer = self.ask(&self.key, method, path, Some(body)).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.json());
        answer.json()
    }

    /// Asks for what is refused; its status and code.
    async fn refused(&self, method: &str, path: &str, body: Value) -> (u16, u64) {
        refusal(&self.ask(&self.key, method, path, Some(body)).await)
    }

    async fn lun(&self, pool: &str, name: &str) -> String {
        let body = json!({"pool_name": pool, "name": name, "size": 1, "sing": "G"});
        let made = self.change("POST", "/lun/", body).await;
        made["luns"][0]["id"].as_str().unwrap().to_owned()
    }
}

async fn make_pool(appliance: &Appliance, name: &str, organisation: i64) -> i64 {
    let mut new = NewPool::new(name, organisation, appliance.dir.path().join(name));
    new.encryption = Encryption::None;
    appliance.app.storage().create_pool(new).await.unwrap().pool.id
}

fn refusal(answer: &Answer) -> (u16, u64) {
    let body = answer.json();
    assert!(body["error"].is_string(), "{body}");
    (answer.status, body["code"].as_u64().unwrap())
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What stands in the braces of a path.
fn filled(operation: &Operation, ids: &[(&str, String)]) -> String {
    let id = ids.iter().find(|(prefix, _)| operation.path.contains(prefix));
    let id = id.map_or("1", |(_, id)| id.as_str());
    operation.path.replace("{id}", id).replace("{volume_id}", id)
}
