//! Catalogues of earlier schemas as they were written: every later build opens them, and what was
//! known is known.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Plan, Served, ask};
use crate::support::database::Database;
use crate::support::{output, tool};

/// What was kept of an appliance of this schema with this database.
fn golden(schema: u32, database: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    dir.join(format!("catalogue-v{schema}")).join(database)
}

/// Gives the appliance its key; what is to be known of its keys and sessions.
fn secrets(plan: &Plan, golden: &Path) -> Value {
    let key = plan.data.join("appliance.key");
    fs::copy(golden.join("appliance.key"), &key).unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    serde_json::from_slice(&fs::read(golden.join("secrets.json")).unwrap()).unwrap()
}

/// What is listed at a path, of each the field.
fn listed(served: &Served, path: &str, field: &str) -> Vec<Value> {
    let list = served.get(path);
    list["items"].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
}

/// Serves a copy of what was kept of schema 4, and asks for all that was in it.
fn know_all_of_4(plan: &Plan, golden: &Path) {
    let secrets = secrets(plan, golden);
    // The second time there is nothing to be done.
    for _ in 0..2 {
        let served = plan.start();
        assert_eq!(served.told["user"], Value::Null, "it is no first run");
        let jobs = "/v1/jobs?sort=id:asc&limit=100";
        let kinds = [
            "backup", "backup", "backup", "forget", "gc", "check", "scrub", "backup", "restore",
            "ingest", "gc",
        ];
        assert_eq!(listed(&served, jobs, "kind"), kinds);
        let mut states = ["succeeded"; 11];
        (states[7], states[10]) = ("failed", "queued");
        assert_eq!(listed(&served, jobs, "state"), states);
        assert_eq!(listed(&served, jobs, "attempts")[10], 2);
        assert_eq!(listed(&served, jobs, "run_until"), [(); 11].map(|()| Value::Null));
        let images = "/v1/images?sort=id:asc";
        assert_eq!(listed(&served, images, "name"), ["letters", "numbers", "sent"]);
        assert!(listed(&served, images, "immutable_until")[1].is_string());
        // Nobody said how long they are kept: they are.
        assert_eq!(listed(&served, images, "expires_at"), [(); 3].map(|()| Value::Null));
        assert_eq!(listed(&served, "/v1/pools?sort=id:asc", "name"), ["main", "second"]);
        assert_eq!(listed(&served, "/v1/pools?sort=id:asc", "encrypted"), [true, true]);
        let users = ["Paula", "admin", "robot", "second"];
        assert_eq!(listed(&served, "/v1/users?sort=name:asc", "name"), users);
        assert_eq!(listed(&served, "/v1/keys?sort=name:asc", "signing"), [false, true]);
        assert_eq!(listed(&served, "/v1/directories", "name"), ["staff"]);
        assert_eq!(listed(&served, "/v1/issuers", "name"), ["tokens"]);
        assert_eq!(listed(&served, "/v1/organisations?filter=name:==Sales", "name"), ["Sales"]);
        assert_eq!(listed(&served, "/v1/roles?filter=name:==reader", "name"), ["reader"]);
        assert_eq!(served.get("/v1/settings/jobs.per_node")["value"], 0);
        assert_eq!(
            served.get("/v1/settings/approvals")["operations"],
            json!(["organisations.create"])
        );
        assert!(served.get("/v1/stats/samples?count=true")["count"].as_u64().unwrap() > 0);
        assert_eq!(served.get("/v1/images?keyword=etter&count=true")["count"], 1);
        let verdict = served.post("/v1/audit/verify", &json!({}));
        assert_eq!(verdict["sound"], true, "{verdict}");
        let secret = format!("Bearer {}", secrets["key"].as_str().unwrap());
        let me = https(&served, "/v1/me", &secret);
        assert_eq!((&me["name"], &me["via"]), (&json!("second"), &json!("key")));
        let login = json!({"name": "second", "password": "battery staple horse"});
        let opened = ask(&plan.data, "POST", "/v1/sessions", &[], Some(&login)).unwrap();
        assert_eq!(opened.status, 201, "{}", opened.body);
        served.stop();
    }
}

/// Serves a copy of what was kept of schema 1, and asks for all that was in it.
fn know_all(plan: &Plan, golden: &Path) {
    let secrets = secrets(plan, golden);
    // The second time there is nothing to be done.
    for _ in 0..2 {
        let served = plan.start();
        assert_eq!(served.told["user"], Value::Null, "it is no first run");
        let jobs = served.get("/v1/jobs?sort=id:asc&limit=100");
        let told = |key: &str| -> Vec<String> {
            let jobs = jobs["items"].as_array().unwrap().iter();
            jobs.map(|job| job[key].as_str().unwrap().to_owned()).collect()
        };
        let kinds = ["backup", "backup", "backup", "forget", "gc", "check", "backup", "restore"];
        assert_eq!(told("kind"), kinds);
        let mut states = ["succeeded"; 8];
        states[6] = "failed";
        assert_eq!(told("state"), states);
        assert_eq!(jobs["items"][6]["error"], "/nothing/here: entity not found");
        let images = served.get("/v1/images?sort=id:asc&filter=pool_id:==1");
        let images = images["items"].as_array().unwrap();
        assert_eq!(images.len(), 2);
        assert_eq!((&images[0]["name"], &images[0]["files"]), (&json!("letters"), &json!(3)));
        assert_eq!((&images[1]["name"], &images[1]["host"]), (&json!("numbers"), &json!("golden")));
        // Words are still found, and counted.
        let found = served.get("/v1/images?keyword=etter&count=true");
        assert_eq!(found["count"], 1, "{found}");
        assert_eq!(served.get("/v1/events?count=true&filter=kind:==job.succeeded")["count"], 7);
        let users = served.get("/v1/users?sort=name:asc");
        let names: Vec<_> = users["items"].as_array().unwrap().iter().map(|u| &u["name"]).collect();
        assert_eq!(names, ["Paula", "admin", "second"]);
        let verdict = served.post("/v1/audit/verify", &json!({}));
        assert_eq!(verdict["sound"], true, "{verdict}");
        // An answer that was kept is given again.
        let body = json!({"paths": ["/tmp/strongroom-golden/tree"], "name": "letters"});
        let key = [("idempotency-key", "golden-1")];
        let again = ask(&plan.data, "POST", "/v1/pools/1/backups", &key, Some(&body)).unwrap();
        // Kept for a day: then it is another request, for a pool that isn't on this machine.
        assert!(again.status != 500, "{}", again.body);
        // Passwords and keys are what they were.
        let secret = format!("Bearer {}", secrets["key"].as_str().unwrap());
        let login = json!({"name": "second", "password": "battery staple horse"});
        let opened = ask(&plan.data, "POST", "/v1/sessions", &[], Some(&login)).unwrap();
        assert_eq!(opened.status, 201, "{}", opened.body);
        let me = https(&served, "/v1/me", &secret);
        assert_eq!((&me["name"], &me["via"]), (&json!("second"), &json!("key")));
        served.stop();
    }
}

/// Asks over HTTPS with a credential.
fn https(served: &Served, path: &str, authorization: &str) -> Value {
    let url = format!("{}{path}", served.told["urls"][0].as_str().unwrap());
    let mut curl = tool("curl");
    curl.args(["-sSk", "--max-time", "30", "-H"]).arg(format!("authorization: {authorization}"));
    serde_json::from_slice(&output(curl.arg(url))).unwrap()
}

/// A file of that schema is copied before it is changed; both are as good as it was.
fn a_file_is_brought_up_to_date(schema: u32, know: fn(&Plan, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    fs::create_dir(&plan.data).unwrap();
    let golden = golden(schema, "sqlite");
    fs::copy(golden.join("catalogue.db"), plan.data.join("catalogue.db")).unwrap();
    know(&plan, &golden);
    // A copy was made before, if there was anything to do.
    let copy = plan.data.join(format!("catalogue.db.schema-{schema}"));
    assert_eq!(copy.exists(), strongroom_catalog::SCHEMA > schema.into());
    if copy.exists() {
        let plan = Plan::new(dir.path().join("copy"));
        fs::create_dir(&plan.data).unwrap();
        fs::rename(copy, plan.data.join("catalogue.db")).unwrap();
        know(&plan, &golden);
    }
}

fn a_database_is_brought_up_to_date(schema: u32, know: fn(&Plan, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::new();
    let golden = golden(schema, "postgres");
    let mut psql = tool("psql");
    psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(golden.join("catalogue.sql"));
    output(psql.arg(database.url()));
    let plan = Plan { database: Some(database.url()), ..Plan::new(dir.path().join("data")) };
    fs::create_dir(&plan.data).unwrap();
    know(&plan, &golden);
}

#[test]
fn a_file_of_schema_1_is_brought_up_to_date() {
    a_file_is_brought_up_to_date(1, know_all);
}

#[test]
fn a_database_of_schema_1_is_brought_up_to_date() {
    a_database_is_brought_up_to_date(1, know_all);
}

#[test]
fn a_file_of_schema_4_is_brought_up_to_date() {
    a_file_is_brought_up_to_date(4, know_all_of_4);
}

#[test]
fn a_database_of_schema_4_is_brought_up_to_date() {
    a_database_is_brought_up_to_date(4, know_all_of_4);
}
