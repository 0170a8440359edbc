//! Catalogues of schema 1 as they were first written: every later build opens them, and what was
//! known is known.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Database, Plan, ask};
use crate::support::{output, tool};

/// What was kept of an appliance with this database.
fn golden(database: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/catalogue-v1");
    dir.join(database)
}

/// Serves a copy of it, and asks for all that was in it.
fn know_all(plan: &Plan, golden: &Path) {
    let key = plan.data.join("appliance.key");
    fs::copy(golden.join("appliance.key"), &key).unwrap();
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
    let secrets: Value =
        serde_json::from_slice(&fs::read(golden.join("secrets.json")).unwrap()).unwrap();
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
fn https(served: &crate::process::Served, path: &str, authorization: &str) -> Value {
    let url = format!("{}{path}", served.told["urls"][0].as_str().unwrap());
    let mut curl = tool("curl");
    curl.args(["-sSk", "--max-time", "30", "-H"]).arg(format!("authorization: {authorization}"));
    serde_json::from_slice(&output(curl.arg(url))).unwrap()
}

#[test]
fn a_file_of_schema_1_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let plan = Plan::new(dir.path().join("data"));
    fs::create_dir(&plan.data).unwrap();
    let golden = golden("sqlite");
    fs::copy(golden.join("catalogue.db"), plan.data.join("catalogue.db")).unwrap();
    know_all(&plan, &golden);
    // A copy was made before, if there was anything to do.
    let copy = plan.data.join("catalogue.db.schema-1");
    assert_eq!(copy.exists(), strongroom_catalog::SCHEMA > 1);
    if copy.exists() {
        // It is as good as what it was made of.
        let plan = Plan::new(dir.path().join("copy"));
        fs::create_dir(&plan.data).unwrap();
        fs::rename(copy, plan.data.join("catalogue.db")).unwrap();
        know_all(&plan, &golden);
    }
}

#[test]
fn a_database_of_schema_1_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    let database = Database::new();
    let golden = golden("postgres");
    let mut psql = tool("psql");
    psql.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(golden.join("catalogue.sql"));
    output(psql.arg(database.url()));
    let plan = Plan { database: Some(database.url()), ..Plan::new(dir.path().join("data")) };
    fs::create_dir(&plan.data).unwrap();
    know_all(&plan, &golden);
}
