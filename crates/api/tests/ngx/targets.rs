//! Targets, their groups and their LUNs.

use crate::{World, refusal, text};
use serde_json::json;

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
