//! The API keeps to its document: schemathesis asks a real appliance thousands of things that the
//! document allows, and thousands that it does not. What must not happen: an answer that says the
//! appliance failed, one that the document does not know, or a wrong request that is let pass.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use self::support::BINARY;
use self::support::served::{Served, ask, of_user, text};

/// Where `cargo xtask test` puts it, unless this names another.
fn schemathesis() -> PathBuf {
    let named = std::env::var_os("STRONGROOM_SCHEMATHESIS").map(PathBuf::from);
    let program = named.unwrap_or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.filter(|dir| !dir.as_os_str().is_empty());
        let cache = cache.or_else(|| Some(std::env::home_dir()?.join(".cache")));
        cache.unwrap_or_default().join("strongroom/schemathesis/bin/schemathesis")
    });
    assert!(program.exists(), "`cargo xtask test` installs {}", program.display());
    program
}

/// The appliance, which may write nothing of this machine but its own directory, where it is root.
fn confined(dir: &Path, data: &Path) -> Command {
    let user = of_user(data);
    let mut command = if rustix::process::geteuid().is_root() {
        let script = "mount --make-rprivate /; mount --bind \"$0\" \"$0\"; \
                      mount -o remount,bind,ro /; exec \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-euc", script]).arg(dir).arg(BINARY);
        unshare
    } else {
        Command::new(BINARY)
    };
    for (name, value) in user.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(dir).env("RUST_LOG", "warn");
    command
}

/// Makes something, and gives it.
fn made(data: &Path, path: &str, body: Value) -> Value {
    let (code, answer) = ask(data, "POST", path, Some(body));
    assert_eq!(code, 201, "POST {path}: {answer}");
    answer
}

/// A key of a user, new.
fn key_of(data: &Path, user: &Value, name: &str) -> Value {
    made(data, "/v1/keys", json!({"user_id": user, "name": name}))
}

/// How many requests there were so far whose caller was not known, and how many in all.
fn unknown(data: &Path) -> (u64, u64) {
    let told = text(data, "/metrics");
    let lines = told.lines().filter(|line| line.starts_with("strongroom_http_requests_total{"));
    lines.fold((0, 0), |(refused, all), line| {
        let count: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
        let unknown = line.contains("status=\"401\"");
        (refused + if unknown { count } else { 0 }, all + count)
    })
}

#[test]
fn the_api_does_what_its_document_says() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let play = dir.path().join("play");
    fs::create_dir_all(play.join("source")).unwrap();
    fs::create_dir(play.join("pools")).unwrap();
    fs::write(play.join("source/file"), "content").unwrap();
    let served = Served::start_as(&data, confined(dir.path(), &data));

    // Two or three of each thing, so that there is something to be asked about.
    let mine = key_of(&data, &json!(1), "mine");
    let other_key = key_of(&data, &json!(1), "other");
    let user = |name: &str| made(&data, "/v1/users", json!({"name": name}))["id"].clone();
    let (second_user, third) = (user("second"), user("third"));
    let branch = made(&data, "/v1/organisations", json!({"name": "branch", "parent_id": 1}));
    let role = made(&data, "/v1/roles", json!({"name": "some", "rights": []}));
    let second = json!({"name": "second", "path": play.join("second"), "encrypted": false});
    let second = made(&data, "/v1/pools", second);
    for name in ["one", "two", "three"] {
        let mut backup = of_user(&data);
        backup.args(["backup", "--pool", "main", "--name", name]).arg(play.join("source"));
        assert!(backup.status().unwrap().success());
    }
    let known = json!({
        "pool": [1, second["pool"]["id"]],
        "image": [1, 2, 3],
        "job": [1, 2, 3],
        "user": [1, second_user, third],
        "role": [1, role["id"]],
        "organisation": [1, branch["id"]],
        "key": [mine["key"]["id"], other_key["key"]["id"]],
        "session": [1, 2],
        "approval": [1],
    });

    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract");
    let url = served.told["urls"][0].as_str().unwrap();
    let ask_as = |who: &str, key: &Value, arguments: &[&str]| {
        let mut command = Command::new(schemathesis());
        command.arg("--config-file").arg(here.join("schemathesis.toml"));
        command.args(["run", &format!("{url}/openapi.json"), "--no-color"]).args(arguments);
        command.arg("--tls-verify").arg(data.join("tls/cert.pem"));
        if let Some(secret) = key["secret"].as_str() {
            command.arg("--header").arg(format!("Authorization: Bearer {secret}"));
        }
        command.env("SCHEMATHESIS_HOOKS", "hooks").env("PYTHONPATH", &here);
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("HOME", dir.path());
        command.env("STRONGROOM_PLAYGROUND", &play).env("STRONGROOM_KNOWN", known.to_string());
        let output = command.current_dir(dir.path()).output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "as {who}:\n{told}\n{failed}");
    };
    ask_as("administrator", &mine, &["--phases", "coverage,fuzzing,stateful", "--checks", "all"]);
    let tried = |who: &str, before: (u64, u64), part: u64| {
        let now = unknown(&data);
        let (refused, all) = (now.0 - before.0, now.1 - before.1);
        assert!(refused * part < all, "{who}: nobody in {refused} of {all} requests: tried little");
        now
    };
    let before = tried("administrator", (0, 0), 5);
    // Those who may little are held to the same; what is done in turn, and with each field, was seen
    // above. Whoever was there before may have been removed.
    let viewer = user("viewer");
    let (_, roles) = ask(&data, "GET", "/v1/roles?filter=name:==viewer", None);
    let grant = json!({"role_id": roles["items"][0]["id"], "organisation_id": 1});
    assert_eq!(ask(&data, "POST", &format!("/v1/users/{viewer}/grants"), Some(grant)).0, 204);
    let viewers = key_of(&data, &viewer, "viewer's");
    let few = ["--phases", "fuzzing", "--max-examples", "5", "--checks", "all"];
    ask_as("viewer", &viewers, &few);
    tried("viewer", before, 3);
    ask_as("nobody", &Value::Null, &few);

    let (code, verdict) = ask(&data, "POST", "/v1/audit/verify", None);
    assert_eq!((code, &verdict["sound"]), (200, &json!(true)), "{verdict}");
    let log = served.log();
    assert!(!log.contains("panicked"), "{log}");
    served.stop();
}
