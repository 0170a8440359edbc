//! Answers have the names and types of the published document's examples.

use crate::{GIB, World, filled, refusal, text};
use serde_json::{Value, json};
use strongroom_api::Dialects;
use strongroom_api::dialects::ngx::{self, Shapes};

/// The examples of the published document, with the commas that it lacks.
const EXAMPLES: &str = include_str!("examples.json");

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
async fn each_path_may_end_with_a_slash() {
    let world = World::new().await;
    for one in ngx::operations() {
        let path = format!("{}/", filled(&one, &[]));
        let answer = world.appliance.call("", one.method.as_str(), &path, None).await;
        assert_eq!(refusal(&answer), (401, 5000), "{one:?}");
    }
}
