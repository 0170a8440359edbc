//! The dialect NGX Storage: the published document's examples, what can be changed, and which keys are
//! let in to what.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_api::Dialects;
use strongroom_api::dialects::ngx::{self, Operation, Shapes};
use strongroom_api::route::LetThrough;
use strongroom_catalog::identity::{Grant, Role};
use strongroom_catalog::volumes;
use strongroom_identity::{KeyChange, KeySpec, Principal, UserSpec};
use strongroom_storage::{Encryption, NewPool};
use support::{Answer, Appliance};

/// The examples of the published document, with the commas that it lacks.
const EXAMPLES: &str = include_str!("ngx/examples.json");
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

/// What of an answer is not as in an example; what only the answer has may be there.
fn differs(example: &Value, answer: &Value, at: &str) -> Option<String> {
    match (example, answer) {
        (Value::Object(wanted), Value::Object(has)) => wanted.iter().find_map(|(name, wanted)| {
            let at = format!("{at}.{name}");
            match has.get(name) {
                Some(value) => differs(wanted, value, &at),
                None => Some(format!("{at} is missing")),
            }
        }),
        (Value::Array(wanted), Value::Array(has)) => {
            has.iter().enumerate().find_map(|(n, value)| {
                let at = format!("{at}[{n}]");
                let all: Vec<_> = wanted.iter().map(|one| differs(one, value, &at)).collect();
                match all.iter().any(Option::is_none) || all.is_empty() {
                    true => None,
                    false => all.into_iter().next().flatten(),
                }
            })
        }
        // What is not there is null; then there may be something.
        (Value::Null, Value::Null | Value::String(_)) => None,
        (Value::String(_), Value::String(_)) | (Value::Number(_), Value::Number(_)) => None,
        (wanted, has) => Some(format!("{at} is {has}, and in the document {wanted}")),
    }
}

/// Every answer that the document shows has its names and types.
#[tokio::test]
async fn every_answer_has_the_names_and_types_of_the_document() {
    let world = World::new().await;
    let (full, x) = (world.lun("nvme1", "lun2").await, world.lun("nvme1", "x").await);
    let full_at = format!("/lun/{full}");
    let body = json!({"provision_type": "full", "qos_priority": 128, "compress": "off"});
    world.change("PATCH", &full_at, body).await;
    let snapshot = world.change("POST", "/snapshot", json!({"name": "x", "volume_id": x})).await;
    let group = json!({"name": "metro", "initiator": [
        {"iqn": "iqn.1993-08.org.debian:01:569060d5dd3c", "iqn_alias": "bbq"}]});
    let group = text(&world.change("POST", "/auth_group", group).await["id"]);
    let chap = json!({"username": "metroclient", "password": "secretsecret"});
    world.change("PATCH", &format!("/auth_group/chap/{group}"), chap).await;
    world.change("POST", "/auth_group", json!({"name": "x"})).await;
    let none = json!({"name": "asgasdg", "listen_ips": ["127.0.0.1:0"]});
    assert_eq!(world.refused("POST", "/portal_group", none).await, (400, 9400));
    let portal = json!({"name": "asgasdg", "listen_ips": ["127.0.0.1:33260"]});
    let portal = world.change("POST", "/portal_group", portal).await;
    let target = json!({"name": "t1", "auth_group_id": group, "portal_group_id": portal["id"]});
    let target = text(&world.change("POST", "/target/iscsi", target).await["id"]);
    let map = format!("/target/iscsi/lun/{target}");
    world.change("PUT", &map, json!({"lun_ids": [x], "owner": "1"})).await;
    let pool = text(&world.get("/pool").await[0]["pool_id"]);
    assert_eq!(pool.len(), 40);
    // As if nearly all of it had been written.
    let sql = "UPDATE volumes SET used = 1042223104, measured_at = 1 WHERE name = 'lun2'";
    world.appliance.app.catalog().execute(strongroom_catalog::Sql::new(sql)).await.unwrap();
    assert_eq!(world.get("/status/overloaded_volumes").await["last_check_time"], Value::Null);
    world.appliance.app.storage().check_volumes(90).await.unwrap();

    let examples: Value = serde_json::from_str(EXAMPLES).unwrap();
    assert_eq!(examples.as_object().unwrap().len(), 22);
    let ids = [
        ("/lun/", &x),
        ("/pool/", &pool),
        ("/snapshot/", &text(&snapshot["snap_id"])),
        ("/auth_group/", &group),
        ("/iscsi_target/", &target),
    ];
    for (path, example) in examples.as_object().unwrap() {
        let id = ids.iter().find(|(prefix, _)| path.starts_with(prefix)).map(|(_, id)| id.as_str());
        let at = path.replace("{id}", id.unwrap_or_default());
        let (answer, slash) = (world.get(&at).await, world.get(&format!("{at}/")).await);
        // By the names of pools.
        let (example, shown) = match path.as_str() {
            "/status/capacity" => (&example["example_pool"], &answer["nvme1"]),
            _ => (example, &answer),
        };
        assert_eq!(differs(example, shown, path), None, "{answer}");
        // What is measured changes.
        if !path.starts_with("/status/") {
            assert_eq!(answer, slash, "{path}");
        }
        for name in ["code", "error"] {
            assert!(answer.get(name).is_none(), "{path}");
        }
    }
    // Nothing that was compared was empty.
    let lists =
        ["/lun/list", "/pool/list", "/auth_group/list", "/iscsi_target/list", "/status/pools"];
    for path in lists {
        assert!(!world.get(path).await.as_array().unwrap().is_empty(), "{path}");
    }
    for path in ["/snapshot", "/snapshot/list"] {
        let answer = world.get(path).await;
        assert_eq!((answer["luns"].as_array().unwrap().len(), &answer["shares"]), (1, &json!([])));
    }
    assert_eq!(world.get("/auth_group/list").await[0]["group_name"], "DefaultAuthGroup");
    assert!(world.get("/auth_group/list").await[0].get("chap").is_none());

    // All of it true.
    let shown = world.get(&format!("/lun/{x}")).await;
    assert_eq!((&shown["vol_size"], &shown["size"]), (&json!(GIB.to_string()), &shown["vol_size"]));
    assert_eq!(shown["protocols"], json!({"fc": null, "iscsi": "t1"}));
    assert_eq!(
        (&shown["provision_type"], &shown["thin_provision"]),
        (&"thin".into(), &"on".into())
    );
    let shown = world.get(&full_at).await;
    assert_eq!((&shown["provision_type"], &shown["qos_priority"]), (&"full".into(), &128.into()));
    assert_eq!((&shown["compress"], &shown["dedup"]), (&"off".into(), &"on".into()));
    let shown = world.get(&format!("/iscsi_target/{target}")).await;
    let (iqn, name) = (text(&shown["target_iqn"]), text(&shown["iqn_name"]));
    assert_eq!(iqn, format!("{name}:t1"));
    assert_eq!(shown["luns"][0]["vol_id"], x.as_str());
    assert_eq!(shown["luns"][0]["lun_id"], world.get(&format!("/lun/{x}")).await["scsi_lunid"]);
    let overloaded = world.get("/status/overloaded_volumes").await;
    let named: Vec<_> = overloaded["overloaded_volumes"].as_array().unwrap().iter().collect();
    assert_eq!((named.len(), &named[0]["vol_id"]), (1, &full.as_str().into()));
    assert_eq!(world.get("/status/cluster").await["status"], "Master");
    let services = world.get("/status/services").await;
    assert_eq!(services, json!({"cifs": 0, "nfs": 0, "s3": 0, "san": 0}));
    let info = world.get("/info/system").await;
    assert_eq!(
        (&info["luns"], &info["used_lun"], &info["snapshot_count"]),
        (&2.into(), &1.into(), &"1".into())
    );
}

#[tokio::test]
async fn later_software_is_answered_with_arrays_where_it_is_configured() {
    let mut world = World::new().await;
    let x = world.lun("nvme1", "x").await;
    world.change("POST", "/snapshot", json!({"name": "s", "volume_id": x})).await;
    let options = ngx::Options { shapes: Shapes::V24 };
    let dialects = Dialects { ngx: options, ..Dialects::default() };
    world.appliance.router = strongroom_api::router(&world.appliance.app, &dialects);
    for path in ["/snapshot", "/snapshot/list", &format!("/snapshot/list?volume_id={x}")] {
        let all = world.get(path).await;
        assert_eq!(all.as_array().unwrap().len(), 1, "{path}");
        let one = &all[0];
        assert_eq!((&one["volume_id"], &one["path"]), (&x.as_str().into(), &"x@s".into()));
        assert_eq!((&one["volume_type"], &one["name"]), (&"lun".into(), &"s".into()));
    }
    let capacity = world.get("/status/capacity").await;
    assert_eq!((&capacity[0]["name"], &capacity[1]["name"]), (&"nvme1".into(), &"ryo2".into()));
    assert!(capacity[0]["logical"]["available"].is_string());
    assert_eq!(world.get("/status/overloaded_volumes").await, json!([]));
}

#[tokio::test]
async fn luns_are_made_enlarged_and_deleted() {
    let world = World::new().await;
    let body = json!({"pool_name": "nvme1", "name": "a", "size": 2, "sing": "G", "owner": "1",
        "blocksize": "16k", "deduplication": "off", "compression": "off", "thin_provision": "off",
        "io_type": "sequential", "qos_priority": 64, "dram_cache": "off"});
    let made = world.change("POST", "/lun/", body.clone()).await;
    let lun = &made["luns"][0];
    for (name, value) in [
        ("vol_name", json!("a")),
        ("blocksize", json!("16384")),
        ("vol_size", json!((2 * GIB).to_string())),
        ("dedup", json!("off")),
        ("compression", json!("off")),
        ("provision_type", json!("full")),
        ("io_type", json!("sequential")),
        ("qos_priority", json!(64)),
        ("dram_cache", json!("off")),
        ("vol_used", json!("0")),
        ("clone", json!("")),
    ] {
        assert_eq!(lun[name], value, "{name}");
    }
    assert_eq!(world.refused("POST", "/lun", body).await, (409, 710));
    for (wrong, code) in [
        (json!({"pool_name": "nothing", "name": "b", "size": 1}), (404, 5011)),
        (json!({"pool_name": "nvme1", "size": 1}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b"}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": 0}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": -1}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": "99999999999999"}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": 1, "sing": "X"}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": 1, "blocksize": "3k"}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": 1, "qos_priority": 5}), (400, 9400)),
        (json!({"pool_name": "nvme1", "name": "b", "size": 1, "quantity": 65}), (400, 9400)),
        (json!(["nvme1"]), (400, 9400)),
    ] {
        assert_eq!(world.refused("POST", "/lun", wrong.clone()).await, code, "{wrong}");
    }
    assert_eq!(world.get("/lun").await.as_array().unwrap().len(), 1);

    let at = format!("/lun/{}", text(&lun["id"]));
    assert_eq!(
        world.change("PATCH", &at, json!({"size": 3, "sing": "G"})).await,
        json!({"success": true})
    );
    assert_eq!(world.get(&at).await["vol_size"], (5 * GIB).to_string());
    world.change("PATCH", &at, json!({"name": "b", "compression": "on", "size": "1"})).await;
    let shown = world.get(&at).await;
    assert_eq!((&shown["name"], &shown["compress"]), (&"b".into(), &"on".into()));
    assert_eq!(shown["size"], (6 * GIB).to_string());
    assert_eq!(world.refused("PATCH", &at, json!({"size": -1})).await, (400, 9400));
    assert_eq!(world.refused("PATCH", &at, json!({"compresion": "on"})).await, (400, 9400));

    let several = json!({"pool_name": "nvme1", "name": "many", "size": 1, "quantity": 2});
    let made = world.change("POST", "/lun", several.clone()).await;
    let names: Vec<_> = made["luns"].as_array().unwrap().iter().map(|l| text(&l["name"])).collect();
    assert_eq!(names, ["many1", "many2"]);
    // One that is there already: none is made.
    let first = format!("/lun/{}", text(&made["luns"][0]["id"]));
    world.change("DELETE", &first, json!({})).await;
    assert_eq!(world.refused("POST", "/lun", several).await, (409, 710));
    assert_eq!(world.get("/lun").await.as_array().unwrap().len(), 2);

    assert_eq!(world.change("DELETE", &at, json!({})).await, json!({"success": true}));
    assert_eq!(world.refused("DELETE", &at, json!({})).await, (404, 5011));
    assert_eq!(world.refused("GET", &at, json!(null)).await, (404, 5011));
}

#[tokio::test]
async fn snapshots_are_made_cloned_restored_and_scheduled() {
    let world = World::new().await;
    let x = world.lun("nvme1", "x").await;
    let new = json!({"name": "s1", "volume_id": x});
    let made = world.change("POST", "/snapshot", new.clone()).await;
    let id = text(&made["id"]);
    for (name, value) in [
        ("binded", json!(0)),
        ("restore", json!(1)),
        ("path", json!("x@s1")),
        ("pool_name", json!("nvme1")),
        ("reserved", json!("0")),
        ("vol_size", json!(GIB.to_string())),
        ("volume_id", json!(x)),
    ] {
        assert_eq!(made[name], value, "{name}");
    }
    assert_eq!(world.refused("POST", "/snapshot", new).await, (409, 710));
    let none = json!({"name": "s", "volume_id": "0".repeat(40)});
    assert_eq!(world.refused("POST", "/snapshot", none).await, (404, 5011));

    let at = format!("/snapshot/{id}");
    let clone = format!("/snapshot/clone/{id}");
    let cloned = world.change("POST", &clone, json!({"name": "y"})).await;
    let y = world.get(&format!("/lun/{}", text(&cloned["volume_id"]))).await;
    assert!(text(&y["clone"]).contains("s1"), "{y}");
    assert_eq!(world.refused("POST", &clone, json!({"name": "y"})).await, (409, 710));
    let restore = format!("/snapshot/restore/{id}");
    assert_eq!(world.refused("POST", &restore, json!({})).await, (400, 9400));
    world.change("POST", &restore, json!({"confirm": "true"})).await;

    let schedule = format!("/snapshot/schedule/{x}");
    assert_eq!(world.refused("GET", &schedule, json!(null)).await, (404, 5011));
    let set = json!({"interval": "1h", "retention": "24", "enabled": true});
    let shown = world.change("POST", &schedule, set).await;
    assert_eq!((&shown["interval"], &shown["retention"]), (&"3600".into(), &"24".into()));
    assert_eq!(world.get(&schedule).await, shown);
    assert!(text(&shown["next_run"]).parse::<u64>().unwrap() > 0);
    let wrong = json!({"interval": 1, "retention": 1});
    assert_eq!(world.refused("POST", &schedule, wrong).await, (400, 9400));
    world.change("DELETE", &schedule, json!({})).await;
    assert_eq!(world.refused("DELETE", &schedule, json!({})).await, (404, 5011));

    world.change("POST", "/snapshot", json!({"name": "s2", "volume_id": x})).await;
    world.change("DELETE", &at, json!({})).await;
    assert_eq!(world.refused("DELETE", &at, json!({})).await, (404, 5011));
    world.change("DELETE", &format!("/snapshot/all/{x}"), json!({})).await;
    assert_eq!(world.get("/snapshot").await["luns"], json!([]));
    // The clone needs none of them.
    assert_eq!(world.get("/lun").await.as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn targets_have_groups_and_luns() {
    let world = World::new().await;
    let (x, y) = (world.lun("nvme1", "x").await, world.lun("ryo2", "y").await);
    let group = world.change("POST", "/auth_group", json!({"name": "g", "owner": "1"})).await;
    let group = text(&group["id"]);
    assert_eq!(world.refused("POST", "/auth_group", json!({"name": "g"})).await, (409, 710));
    let chap = format!("/auth_group/chap/{group}");
    let short = json!({"username": "u", "password": "short"});
    assert_eq!(world.refused("PATCH", &chap, short).await, (400, 9400));
    world.change("PATCH", &chap, json!({"username": "u", "password": "secretsecret"})).await;
    let shown = world.get(&format!("/auth_group/{group}")).await;
    assert_eq!(shown["chap"], json!([{"chap_user": "u", "chap_password": "secretsecret"}]));
    assert_eq!(shown["chap_status"], 1);
    let named = json!({"initiator": ["iqn.2016-04.com.open-iscsi:a",
        {"iqn": "iqn.2016-04.com.open-iscsi:b", "alias": "b"}]});
    let at = format!("/auth_group/{group}");
    world.change("PATCH", &at, named).await;
    world
        .change("PATCH", &at, json!({"initiator": [{"iqn": "iqn.2016-04.com.open-iscsi:b"}]}))
        .await;
    let shown = world.get(&at).await;
    let initiators = shown["initiator"].as_array().unwrap();
    assert_eq!((initiators.len(), &initiators[0]["iqn_alias"]), (1, &"b".into()));
    assert_eq!(initiators[0]["group_id"], group.as_str());
    let twice =
        json!({"initiator": ["iqn.2016-04.com.open-iscsi:a", "iqn.2016-04.com.open-iscsi:A"]});
    assert_eq!(world.refused("PATCH", &at, twice).await, (409, 522));
    assert_eq!(world.refused("PATCH", "/auth_group/1", json!({"name": "z"})).await, (409, 9409));
    assert_eq!(world.refused("DELETE", "/auth_group/1", json!({})).await, (409, 9409));

    let portal = json!({"name": "p", "owner": "1", "listen_ips": ["127.0.0.1:33260"]});
    let portal = text(&world.change("POST", "/portal_group", portal).await["id"]);
    let shown = world.get(&format!("/portal_group/{portal}")).await;
    assert_eq!(shown["listen_ips"][0]["ip_address"], "127.0.0.1");
    let new = json!({"name": "t", "auth_group_id": group, "portal_group_id": portal, "owner": "1"});
    let target = text(&world.change("POST", "/target/iscsi", new.clone()).await["id"]);
    assert_eq!(world.refused("POST", "/target/iscsi", new).await, (409, 710));
    assert_eq!(world.refused("DELETE", &at, json!({})).await, (409, 534));
    let portal_at = format!("/portal_group/{portal}");
    assert_eq!(world.refused("DELETE", &portal_at, json!({})).await, (409, 534));

    let map = format!("/target/iscsi/lun/{target}");
    world.change("PUT", &map, json!({"owner": "1", "lun_ids": [x]})).await;
    assert_eq!(world.refused("PUT", &map, json!({"lun_ids": [x]})).await, (409, 710));
    world.change("PUT", &map, json!({"lun_ids": [x, y]})).await;
    let none = json!({"lun_ids": ["0".repeat(40)]});
    assert_eq!(world.refused("PUT", &map, none).await, (404, 5011));
    let at = format!("/target/iscsi/{target}");
    let luns = world.get(&at).await["luns"].clone();
    assert_eq!((&luns[0]["number"], &luns[1]["lun_number"]), (&"0".into(), &"1".into()));
    assert_eq!(luns[1]["pool_name"], "ryo2");
    assert_eq!(world.refused("DELETE", &format!("/lun/{x}"), json!({})).await, (409, 534));
    assert_eq!(world.refused("DELETE", &at, json!({})).await, (409, 534));

    // A key for one pool sees its own, and changes nothing that has others.
    let pools = [world.pools[0]];
    let (_, one) = world.make("one", |key| key.pools = Some(pools.into())).await;
    let shown = world.ask(&one, "GET", &at, None).await.json();
    assert_eq!(shown["luns"].as_array().unwrap().len(), 1);
    let renamed = world.ask(&one, "PATCH", &at, Some(json!({"name": "z"}))).await;
    assert_eq!(refusal(&renamed), (403, 9403));
    // Nor whom lets in to others, and how.
    let other = json!({"username": "u", "password": "othersecrets"});
    assert_eq!(refusal(&world.ask(&one, "PATCH", &chap, Some(other)).await), (403, 9403));
    let groups = world.ask(&one, "GET", "/auth_group/list", None).await.json();
    assert_eq!(groups[1]["chap"], json!([{"chap_user": "u", "chap_password": null}]));
    let foreign = world.ask(&one, "PUT", &map, Some(json!({"lun_ids": [y]}))).await;
    assert_eq!(refusal(&foreign).0, 403);
    let foreign = world.ask(&one, "PATCH", &map, Some(json!({"lun_ids": [y]}))).await;
    assert_eq!(refusal(&foreign), (404, 5011));
    world.change("PATCH", &map, json!({"lun_ids": [x]})).await;
    for path in [&at, "/iscsi_target/list", "/target/iscsi"] {
        let answer = world.ask(&one, "GET", path, None).await;
        match path.contains(&target) {
            true => assert_eq!(refusal(&answer), (404, 5011)),
            false => assert_eq!(answer.json(), json!([])),
        }
    }

    world.change("PATCH", &map, json!({"lun_ids": [y]})).await;
    assert_eq!(world.refused("PATCH", &map, json!({"lun_ids": [y]})).await, (404, 5011));
    world.change("PATCH", &at, json!({"name": "t2"})).await;
    assert_eq!(world.get(&at).await["name"], "t2");
    world.change("DELETE", &at, json!({})).await;
    assert_eq!(world.refused("DELETE", &at, json!({})).await, (404, 611));
    world.change("DELETE", &portal_at, json!({})).await;
    world.change("DELETE", &format!("/auth_group/chap/{group}"), json!({})).await;
    world.change("DELETE", &format!("/auth_group/{group}"), json!({})).await;
}

#[tokio::test]
async fn what_there_is_none_of_says_so() {
    let world = World::new().await;
    for path in [
        "/share",
        "/share/list",
        "/target/fc",
        "/target/fc/list",
        "/target/fc/ports",
        "/host",
        "/target/fc/initiator/tag",
        "/initiators",
        "/initiators/fc/1",
    ] {
        assert_eq!(world.get(path).await, json!([]), "{path}");
    }
    let share = json!({"pool_name": "nvme1", "name": "s", "soft_quota": 1});
    assert_eq!(world.refused("POST", "/share/", share).await, (501, 9501));
    assert_eq!(world.refused("POST", "/target/fc", json!({})).await, (501, 9501));
    assert_eq!(world.refused("POST", "/services/nfs/start", json!({})).await, (501, 9501));
    for path in ["/share/1", "/host/1", "/target/fc/1", "/user/999", "/pool/1", "/snapshot/x"] {
        assert_eq!(world.refused("GET", path, json!(null)).await, (404, 5011), "{path}");
    }
    assert_eq!(world.refused("GET", "/nothing", json!(null)).await, (404, 9404));
    assert_eq!(world.refused("GET", "/lun/1/2", json!(null)).await, (404, 9404));
    assert_eq!(world.refused("PUT", "/lun/1", json!({})).await, (405, 9405));
    let large = json!({"name": "x".repeat(300_000)});
    assert_eq!(world.refused("POST", "/lun", large).await, (413, 9413));
}

#[tokio::test]
async fn answers_measure_nothing() {
    let world = World::new().await;
    let app = &world.appliance.app;
    let x = world.lun("nvme1", "x").await;
    let made = world.change("POST", "/snapshot", json!({"name": "s", "volume_id": x})).await;
    let snapshot = format!("/snapshot/{}", text(&made["id"]));
    assert_eq!(world.get(&snapshot).await["reserved"], "0");
    let clone = format!("/snapshot/clone/{}", text(&made["id"]));
    let y = text(&world.change("POST", &clone, json!({"name": "y"})).await["volume_id"]);
    // As those of a pool that was just imported.
    let sql = strongroom_catalog::Sql::new("UPDATE snapshots SET reserved = NULL");
    app.catalog().execute(sql).await.unwrap();

    // What each of these has of what is measured: what is null then is a text later.
    let figures = || async {
        let list = world.get("/lun/list").await;
        assert_eq!((&list[0]["name"], &list[0]["vol_used"]), (&"x".into(), &"0".into()));
        let shown = world.get(&format!("/lun/{y}")).await;
        assert_eq!(list[1], shown);
        let all = world.get("/snapshot/list").await;
        assert_eq!(all["luns"][0], world.get(&snapshot).await);
        let capacity = world.get("/status/capacity").await;
        assert_eq!(capacity["ryo2"]["protocol_usage"]["iscsi"], "0");
        let sum = capacity["nvme1"]["protocol_usage"]["iscsi"].clone();
        let names = ["vol_used", "used", "sizebysnapshots"];
        let mut figures: Vec<_> = names.iter().map(|name| shown[name].clone()).collect();
        figures.extend([all["luns"][0]["reserved"].clone(), sum]);
        figures
    };
    for _ in 0..2 {
        assert_eq!(
            figures().await,
            [Value::Null, Value::Null, Value::Null, Value::Null, Value::Null]
        );
    }
    let row = volumes::of_public_id(app.catalog(), &y).await.unwrap();
    assert_eq!((row.used, row.measured_at), (None, None));
    assert_eq!(app.storage().measure_volumes().await.unwrap(), 2);
    assert_eq!(figures().await, ["0", "0", "0", "0", "0"]);
}

#[tokio::test]
async fn lists_say_of_each_what_is_told_of_one() {
    let world = World::new().await;
    let mut groups = Vec::new();
    for (pool, name, port) in [("nvme1", "a", 33_260), ("ryo2", "b", 33_261)] {
        let lun = world.lun(pool, name).await;
        let iqn = format!("iqn.2016-04.com.open-iscsi:{name}");
        let group = json!({"name": name, "initiator": [iqn]});
        let group = text(&world.change("POST", "/auth_group", group).await["id"]);
        let chap = json!({"username": "u", "password": format!("secretsecret{name}")});
        world.change("PATCH", &format!("/auth_group/chap/{group}"), chap).await;
        let portal = json!({"name": name, "listen_ips": [format!("127.0.0.1:{port}")]});
        let portal = text(&world.change("POST", "/portal_group", portal).await["id"]);
        let new = json!({"name": name, "auth_group_id": group, "portal_group_id": portal});
        let target = text(&world.change("POST", "/target/iscsi", new).await["id"]);
        let map = format!("/target/iscsi/lun/{target}");
        world.change("PUT", &map, json!({"lun_ids": [lun]})).await;
        groups.push(group);
    }
    let pools = [world.pools[0]];
    let (_, one) = world.make("one", |key| key.pools = Some(pools.into())).await;
    for (key, seen) in [(&world.key, 2), (&one, 1)] {
        for (list, at, count) in [
            ("/auth_group/list", "/auth_group", 3),
            ("/portal_group/list", "/portal_group", 2),
            ("/iscsi_target/list", "/iscsi_target", seen),
            ("/target/iscsi/list", "/target/iscsi", seen),
            ("/lun/list", "/lun", seen),
            ("/pool/list", "/pool", seen),
        ] {
            let all = world.ask(key, "GET", list, None).await.json();
            let all = all.as_array().unwrap();
            assert_eq!(all.len(), count, "{list}");
            for told in all {
                let at = format!("{at}/{}", text(&told["id"]));
                assert_eq!(world.ask(key, "GET", &at, None).await.json(), *told, "{at}");
            }
        }
    }
    let shown = world.get("/target/iscsi/list").await;
    assert_eq!(shown[1]["initiators"][0]["iqn"], "iqn.2016-04.com.open-iscsi:b");
    let shown = world.ask(&one, "GET", "/auth_group/list", None).await.json();
    let secret = |n: usize| shown[n]["chap"][0]["chap_password"].clone();
    assert_eq!((secret(1), secret(2)), ("secretsecreta".into(), Value::Null));
    assert_eq!(shown[2]["initiator"][0]["group_id"], groups[1].as_str());
}

#[tokio::test]
async fn what_happened_and_who_there_is_are_told() {
    let world = World::new().await;
    world.lun("nvme1", "x").await;
    let sql = strongroom_catalog::Sql::new("UPDATE volumes SET used = size, measured_at = 1");
    world.appliance.app.catalog().execute(sql).await.unwrap();
    world.appliance.app.storage().check_volumes(90).await.unwrap();
    let of = |all: &Value, name: &str, word: &str| {
        all.as_array().unwrap().iter().find(|one| one[name] == word).cloned()
    };
    let (alerts, events) = (world.get("/log/alert").await, world.get("/log/system_event").await);
    let alert = of(&alerts, "event", "volume.overloaded").unwrap();
    assert_eq!((&alert["level"], &alert["object"]), (&"warning".into(), &"nvme1/x".into()));
    assert_eq!(of(&events, "event", "volume.overloaded"), Some(alert));
    assert_eq!(of(&events, "event", "volume.created").unwrap()["level"], "info");
    assert_eq!(of(&alerts, "event", "volume.created"), None);
    let line = of(&world.get("/log/audit").await, "operation", "ngx.lun.create").unwrap();
    assert_eq!((&line["user"], &line["result"]), (&"admin".into(), &"ok".into()));
    let user = world.get(&format!("/user/{}", world.user)).await;
    assert_eq!(of(&world.get("/user").await, "name", "admin"), Some(user));
    let overview = json!({"total": 2, "online": 2, "degraded": 0, "faulted": 0,
        "unavailable": 0, "disks": 2});
    assert_eq!(world.get("/pool/overview").await, overview);
}

#[tokio::test]
async fn what_disks_do_is_told_at_once_and_null_before_it_was_noted() {
    let world = World::new().await;
    let unknown = json!({"read": null, "write": null, "total": null, "disks": {}});
    for path in ["/status/iops", "/status/bandwidth"] {
        assert_eq!(world.get(path).await, unknown, "{path}");
    }
    world.appliance.hardware.note_traffic();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let told = world.get("/status/bandwidth").await;
        if told != unknown {
            let sum = |name: &str| {
                let disks = told["disks"].as_object().unwrap().values();
                disks.map(|disk| disk[name].as_u64().unwrap()).sum::<u64>()
            };
            for name in ["read", "write", "total"] {
                assert_eq!(told[name].as_u64().unwrap(), sum(name), "{told}");
            }
            assert_eq!(sum("total"), sum("read") + sum("write"));
            break;
        }
        assert!(Instant::now() < end, "it is never told");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn each_path_may_end_with_a_slash() {
    let world = World::new().await;
    for one in ngx::operations() {
        let path = format!("{}/", filled(&one, &[]));
        let answer = world.appliance.call("", one.method.as_str(), &path, None).await;
        assert_eq!(refusal(&answer), (401, 5000), "{one:?}");
    }
}

#[tokio::test]
async fn a_tenant_sees_and_changes_its_own_alone() {
    let world = World::new().await;
    let x = world.lun("nvme1", "x").await;
    let snapshot = json!({"name": "s", "volume_id": x});
    let snapshot = text(&world.change("POST", "/snapshot", snapshot).await["id"]);
    let group = text(&world.change("POST", "/auth_group", json!({"name": "g"})).await["id"]);
    let new = json!({"name": "t", "auth_group_id": group});
    let target = text(&world.change("POST", "/target/iscsi", new).await["id"]);
    let map = format!("/target/iscsi/lun/{target}");
    world.change("PUT", &map, json!({"lun_ids": [x]})).await;
    let pool = text(&world.get("/pool").await[0]["pool_id"]);

    let tenant = world.tenant().await;
    let ask = |method: &'static str, path: &str, body: Option<Value>| {
        let path = path.to_owned();
        let (world, tenant) = (&world, &tenant);
        async move { world.ask(tenant, method, &path, body).await }
    };
    let change = |method: &'static str, path: &str, body: Value| {
        let (asked, path) = (ask(method, path, Some(body)), path.to_owned());
        async move {
            let answer = asked.await;
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.json());
            answer.json()
        }
    };
    let new = json!({"pool_name": "theirs", "name": "y", "size": 1});
    let y = text(&change("POST", "/lun", new).await["luns"][0]["id"]);
    change("POST", "/snapshot", json!({"name": "own", "volume_id": y})).await;
    let own = text(&change("POST", "/auth_group", json!({"name": "h"})).await["id"]);
    let new = json!({"name": "u", "auth_group_id": own});
    let own = text(&change("POST", "/target/iscsi", new).await["id"]);
    let own_map = format!("/target/iscsi/lun/{own}");
    change("PUT", &own_map, json!({"lun_ids": [y]})).await;

    for (path, names) in [
        ("/pool", &["theirs"][..]),
        ("/pool/list", &["theirs"]),
        ("/status/pools", &["theirs"]),
        ("/lun", &["y"]),
        ("/lun/list", &["y"]),
        ("/iscsi_target", &["u"]),
        ("/target/iscsi/list", &["u"]),
        ("/auth_group", &["DefaultAuthGroup", "h"]),
        ("/auth_group/list", &["DefaultAuthGroup", "h"]),
    ] {
        let all = ask("GET", path, None).await.json();
        let told: Vec<_> = all.as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
        assert_eq!(told, names, "{path}");
    }
    for path in ["/snapshot", "/snapshot/list"] {
        let all = ask("GET", path, None).await.json();
        assert_eq!((&all["luns"][0]["name"], &all["luns"][1]), (&"own".into(), &Value::Null));
    }
    let capacity = ask("GET", "/status/capacity", None).await.json();
    assert_eq!(capacity.as_object().unwrap().keys().collect::<Vec<_>>(), ["theirs"]);
    // Plugins begin with that; the machine's serial number is its administrators'.
    let cluster = ask("GET", "/status/cluster", None).await.json();
    let node = world.appliance.app.storage().node();
    assert_eq!((&cluster["status"], &cluster["connected"]), (&"Master".into(), &1.into()));
    assert_eq!(cluster["peers"], json!([{"id": node, "status": "Master"}]));

    // What is others' isn't there.
    for path in [
        format!("/lun/{x}"),
        format!("/snapshot/{snapshot}"),
        format!("/snapshot?volume_id={x}"),
        format!("/snapshot/schedule/{x}"),
        format!("/pool/{pool}"),
        format!("/auth_group/{group}"),
        format!("/iscsi_target/{target}"),
        format!("/initiators/iscsi/{target}"),
    ] {
        assert_eq!(refusal(&ask("GET", &path, None).await), (404, 5011), "{path}");
    }
    let chap = json!({"username": "u", "password": "secretsecret"});
    for (method, path, body) in [
        ("PATCH", format!("/lun/{x}"), json!({"name": "z"})),
        ("DELETE", format!("/lun/{x}"), json!({})),
        ("POST", "/lun".into(), json!({"pool_name": "nvme1", "name": "z", "size": 1})),
        ("POST", "/snapshot".into(), json!({"name": "z", "volume_id": x})),
        ("DELETE", format!("/snapshot/{snapshot}"), json!({})),
        ("DELETE", format!("/snapshot/all/{x}"), json!({})),
        ("POST", format!("/snapshot/clone/{snapshot}"), json!({"name": "z"})),
        ("POST", format!("/snapshot/restore/{snapshot}"), json!({"confirm": "true"})),
        ("PATCH", format!("/auth_group/chap/{group}"), chap),
        ("DELETE", format!("/auth_group/{group}"), json!({})),
        ("PATCH", format!("/target/iscsi/{target}"), json!({"name": "z"})),
        ("PATCH", format!("/target/iscsi/{own}"), json!({"auth_group_id": group})),
        ("PUT", map.clone(), json!({"lun_ids": [y]})),
        ("PATCH", map.clone(), json!({"lun_ids": [x]})),
        ("PUT", own_map.clone(), json!({"lun_ids": [x]})),
    ] {
        let answer = ask(method, &path, Some(body)).await;
        assert_eq!(refusal(&answer), (404, 5011), "{method} {path}");
    }
    let answer = ask("DELETE", &format!("/target/iscsi/{target}"), Some(json!({}))).await;
    assert_eq!(refusal(&answer), (404, 611));
    for path in ["/status/system_info", "/portal_group", "/hardware/disk/list"] {
        assert_eq!(refusal(&ask("GET", path, None).await), (403, 9403), "{path}");
    }
    assert_eq!(world.get(&format!("/lun/{x}")).await["name"], "x");
}

#[tokio::test]
async fn secrets_are_shown_to_who_may_see_them_and_told_in_the_trail() {
    let world = World::new().await;
    let group = text(&world.change("POST", "/auth_group", json!({"name": "g"})).await["id"]);
    let chap = json!({"username": "u", "password": "hunter2hunter2"});
    world.change("PATCH", &format!("/auth_group/chap/{group}"), chap).await;
    let allow = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect());
    let (_, reads) =
        world.make("reads", |key| key.operations = allow(&["ngx.auth_group.read"])).await;
    let both = &["ngx.auth_group.read", "ngx.auth_group.secrets"];
    let (_, sees) = world.make("sees", |key| key.operations = allow(both)).await;
    for path in [format!("/auth_group/{group}"), "/auth_group/list".into()] {
        let hidden = world.ask(&reads, "GET", &path, None).await;
        assert!(hidden.status == 200 && !hidden.json().to_string().contains("hunter2"), "{path}");
        let shown = world.ask(&sees, "GET", &path, None).await;
        assert!(shown.json().to_string().contains("hunter2"), "{path}");
    }
    let lines = world.appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let told = lines.iter().filter(|line| line.operation == "ngx.auth_group.secrets").count();
    assert_eq!(told, 2);
    assert!(lines.iter().any(|line| line.operation == "ngx.auth_group.set_chap"));
    assert!(!format!("{lines:?}").contains("hunter2"));
}

#[tokio::test]
async fn keys_are_made_for_the_dialect_and_shown_again() {
    let world = World::new().await;
    let admin = world.appliance.admin().await;
    let call = |method, path, body| world.appliance.call(&admin, method, path, body);
    let new = json!({"name": "csi", "dialect": "ngx", "pools": [world.pools[0]],
        "operations": ["lun.read", "ngx.pool.list"]});
    let made = call("POST", "/v1/keys", Some(new)).await.json();
    let key = &made["key"];
    assert_eq!((&key["dialect"], &key["revealable"]), (&"ngx".into(), &true.into()));
    assert_eq!(
        (&key["signing"], &key["operations"]),
        (&false.into(), &json!(["ngx.lun.read", "ngx.pool.list"]))
    );
    let secret = text(&made["secret"]);
    for (path, status) in [("/lun", 200), ("/lun/list", 200), ("/pool", 200), ("/pool/list", 403)] {
        assert_eq!(world.ask(&secret, "GET", path, None).await.status, status, "{path}");
    }
    let reveal = format!("/v1/keys/{}/reveal", key["id"]);
    assert_eq!(call("POST", &reveal, None).await.json()["secret"], secret.as_str());
    let lines = world.appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    assert!(lines.iter().any(|line| line.operation == "key.reveal"));

    for (wrong, told) in [
        (json!({"name": "x", "dialect": "ngx", "operations": ["lun.raed"]}), "lun.read"),
        (json!({"name": "x", "dialect": "other"}), "ngx"),
        (json!({"name": "x", "dialect": "ngx", "signing": true}), "signing"),
    ] {
        let refused = call("POST", "/v1/keys", Some(wrong.clone())).await;
        assert_eq!(refused.status, 422, "{wrong}");
        assert!(text(&refused.json()["detail"]).contains(told), "{}", refused.json());
    }
    let at = format!("/v1/keys/{}", key["id"]);
    let wrong = json!({"operations": ["pools.list"]});
    assert_eq!(call("PATCH", &at, Some(wrong)).await.status, 422);
    let changed = call("PATCH", &at, Some(json!({"operations": ["snapshot.read"]}))).await.json();
    assert_eq!(changed["operations"], json!(["ngx.snapshot.read"]));
    let native = call("POST", "/v1/keys", Some(json!({"name": "native"}))).await.json();
    assert_eq!(native["key"]["revealable"], false);
    let reveal = format!("/v1/keys/{}/reveal", native["key"]["id"]);
    assert_eq!(call("POST", &reveal, None).await.code(), "conflict");
    // Neither opens the other's.
    let secret = text(&native["secret"]);
    assert_eq!(refusal(&world.ask(&secret, "GET", "/lun", None).await), (401, 5000));
    let answer = world.appliance.call(&world.key, "GET", "/v1/me", None).await;
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated".into()));
}

/// A caller, and what comes of a request of that one.
struct Caller {
    name: &'static str,
    key: String,
}

/// What stands in the braces of a path.
fn filled(operation: &Operation, ids: &[(&str, String)]) -> String {
    let id = ids.iter().find(|(prefix, _)| operation.path.contains(prefix));
    let id = id.map_or("1", |(_, id)| id.as_str());
    operation.path.replace("{id}", id).replace("{volume_id}", id)
}

const MATRIX: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ngx/matrix.txt");
const HEAD: &str = "\
# Which key may ask for what. `+`: the request is let through and finds what it asks for; `+` and a
# number: it is let through, and what is done there answers with that code; a number: it is refused
# with that code. What is asked for is there, in the pool nvme1.
#
#   none, unknown              no key, and one that there isn't
#   disabled, expired          keys that are switched off, or have ended
#   native, session            a key of the native interface, and a login
#   nothing                    a key that is allowed something else
#   allowed                    a key that is allowed this operation alone
#   elsewhere                  a key for the pool ryo2
#   viewer                     a key of a viewer
#   tenant                     a key of the administrator of a tenant, which has another pool
#   right                      a key for everything
#
# When that changes on purpose: UPDATE=1 cargo test -p strongroom-api --test ngx
";

/// Every operation, asked for with every kind of key.
#[tokio::test]
async fn keys_are_let_in_to_what_they_are_for() {
    let world = World::new().await;
    let identity = world.appliance.app.identity();
    let x = world.lun("nvme1", "x").await;
    let snapshot = world.change("POST", "/snapshot", json!({"name": "s", "volume_id": x})).await;
    let group = text(&world.change("POST", "/auth_group", json!({"name": "g"})).await["id"]);
    let portal = json!({"name": "p", "listen_ips": ["127.0.0.1:33260"]});
    let portal = text(&world.change("POST", "/portal_group", portal).await["id"]);
    let target = json!({"name": "t", "auth_group_id": group, "portal_group_id": portal});
    let target = text(&world.change("POST", "/target/iscsi", target).await["id"]);
    world.change("PUT", &format!("/target/iscsi/lun/{target}"), json!({"lun_ids": [x]})).await;
    let pool = text(&world.get("/pool").await[0]["pool_id"]);
    let ids = [
        ("/v2/lun/", x.clone()),
        ("/snapshot/schedule/", x.clone()),
        ("/snapshot/all/", x.clone()),
        ("/snapshot/", text(&snapshot["id"])),
        ("/auth_group/", group),
        ("/portal_group/", portal),
        ("/initiators/iscsi/", target.clone()),
        ("/iscsi_target/", target.clone()),
        ("/target/iscsi/", target),
        ("/pool/", pool),
        ("/user/", world.user.to_string()),
    ];

    let (off, disabled) = world.make("disabled", |_| {}).await;
    let change = KeyChange { enabled: Some(false), ..KeyChange::default() };
    identity.change_key(&world.by, off, None, change).await.unwrap();
    let (ended, expired) = world.make("expired", |_| {}).await;
    let sql = strongroom_catalog::Sql::new("UPDATE api_keys SET expires_at = 1 WHERE id = ?");
    world.appliance.app.catalog().execute(sql.bind(ended)).await.unwrap();
    let (_, native) = world.make("native", |key| key.dialect = None).await;
    let pools = [world.pools[1]];
    let (_, elsewhere) = world.make("elsewhere", |key| key.pools = Some(pools.into())).await;
    let viewer = world.user("looks", "viewer", world.by.root()).await;
    let (_, viewer) = world.make("viewer", |key| key.user_id = viewer).await;
    let tenant = world.tenant().await;
    let caller = |name, key: &str| Caller { name, key: key.to_owned() };
    let mut callers = vec![
        caller("none", ""),
        caller("unknown", "srk_aaaaaaaa_bbbbbbbb"),
        caller("disabled", &disabled),
        caller("expired", &expired),
        caller("native", &native),
        caller("session", &world.appliance.admin().await),
    ];
    let before = callers.len();

    let mut table = format!("{HEAD}{:<7} {:<38} {:<32}", "", "", "");
    let names = [
        "none",
        "unknown",
        "disabled",
        "expired",
        "native",
        "session",
        "nothing",
        "allowed",
        "elsewhere",
        "viewer",
        "tenant",
        "right",
    ];
    for name in names {
        write!(table, "{name:>10}").unwrap();
    }
    table.push('\n');
    let mut operations = ngx::operations();
    // Nothing that is asked for is gone before the last of its kind.
    operations.sort_by_key(|one| (one.method != "GET", one.path.clone(), one.method.to_string()));
    for operation in &operations {
        let path = filled(operation, &ids);
        callers.truncate(before);
        let other = operations.iter().find(|one| one.permission != operation.permission).unwrap();
        let of = |id: &str| Some(BTreeSet::from([id.to_owned()]));
        let (_, key) = world.make("nothing", |key| key.operations = of(other.id)).await;
        callers.push(caller("nothing", &key));
        let (_, key) = world.make("allowed", |key| key.operations = of(operation.permission)).await;
        callers.push(caller("allowed", &key));
        callers.push(caller("elsewhere", &elsewhere));
        callers.push(caller("viewer", &viewer));
        callers.push(caller("tenant", &tenant));
        callers.push(caller("right", &world.key));
        let place = &operation.path[ngx::PREFIX.len()..];
        write!(table, "{:<7} {place:<38} {:<32}", operation.method, operation.id).unwrap();
        for caller in &callers {
            // An empty body changes nothing, where one is needed; nothing is deleted.
            let method = operation.method.as_str();
            let deletes = operation.method == "DELETE"
                && ["allowed", "right", "elsewhere", "tenant"].contains(&caller.name);
            let path = if deletes {
                operation.path.replace("{id}", "1").replace("{volume_id}", "1")
            } else {
                path.clone()
            };
            let answer = world.appliance.call(&caller.key, method, &path, None).await;
            let through = answer.extensions.get::<LetThrough>().is_some();
            let code = match answer.status {
                200 => String::new(),
                _ => refusal(&answer).1.to_string(),
            };
            let mark = if through { "+" } else { "" };
            write!(table, "{:>10}", format!("{mark}{code}")).unwrap();
            // What is the rule, whatever the table says.
            match caller.name {
                "none" | "unknown" | "disabled" | "expired" | "native" | "session" => {
                    assert_eq!(refusal(&answer), (401, 5000), "{operation:?} {}", caller.name);
                }
                "nothing" => assert_eq!(refusal(&answer), (403, 9403), "{operation:?}"),
                "allowed" | "right" => assert!(through, "{operation:?}"),
                "elsewhere" if answer.status == 200 => {
                    let told = String::from_utf8(answer.body).unwrap();
                    assert!(!told.contains("nvme1"), "{operation:?}: {told}");
                }
                "tenant" if answer.status == 200 => {
                    let told = String::from_utf8(answer.body).unwrap();
                    let mut others = vec!["nvme1", "ryo2"];
                    others.extend(ids.iter().map(|(_, id)| &**id).filter(|id| id.len() == 40));
                    let named = others.iter().find(|other| told.contains(**other));
                    assert!(named.is_none(), "{operation:?}: {named:?} in {told}");
                }
                _ => {}
            }
        }
        table.push('\n');
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(MATRIX, &table).unwrap();
    }
    let committed = std::fs::read_to_string(MATRIX).unwrap_or_default();
    assert!(
        table == committed,
        "{table}\nif that is wanted: UPDATE=1 cargo test -p strongroom-api --test ngx"
    );
}

#[test]
fn the_committed_document_and_tables_are_those_of_the_operations() {
    let at = |path: &str| format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    let (document, page) = (at("openapi/ngx-v2.json"), at("docs/dialects/ngx.md"));
    const BEGIN: &str = "<!-- made of the operations -->\n";
    let text = std::fs::read_to_string(&page).unwrap_or_default();
    let written = text.split_once(BEGIN).map(|(before, _)| before).unwrap_or(&text);
    let made = (ngx::document(), format!("{written}{BEGIN}\n{}", ngx::table()));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&document, &made.0).unwrap();
        std::fs::write(&page, &made.1).unwrap();
    }
    let committed = std::fs::read_to_string(&document).unwrap_or_default();
    let how = "if that is wanted: UPDATE=1 cargo test -p strongroom-api --test ngx";
    assert!(made.0 == committed, "the document: {how}");
    assert!(made.1 == std::fs::read_to_string(&page).unwrap_or_default(), "the tables: {how}");
    // Each reference leads somewhere, and each operation is described.
    let parsed: Value = serde_json::from_str(&made.0).unwrap();
    for part in made.0.split("\"$ref\": \"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(parsed.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    for one in ngx::operations() {
        let method = one.method.as_str().to_lowercase();
        let told = &parsed["paths"][&one.path][&method];
        assert_eq!(told["operationId"], one.id);
        assert!(told["responses"]["200"].is_object() && told["summary"].is_string(), "{one:?}");
    }
}
