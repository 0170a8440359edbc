//! Which key may ask for what.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::{World, filled, refusal, text};
use serde_json::json;
use strongroom_api::dialects::ngx::{self};
use strongroom_api::route::LetThrough;
use strongroom_identity::KeyChange;

/// A caller, and what comes of a request of that one.
struct Caller {
    name: &'static str,
    key: String,
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
