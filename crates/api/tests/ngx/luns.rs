//! LUNs and their snapshots.

use crate::{GIB, World, text};
use serde_json::{Value, json};
use strongroom_catalog::volumes;

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
