//! Storage that is attached by a start: the calls of the document of Jidoteki Admin, and natively.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::jidoteki::curl;
use crate::support::served::{Served, ask, of_user, under};
use crate::up::run;

fn shown(data: &Path) -> Value {
    let (code, out, err) = run(data, "--json system storage show");
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

fn well(data: &Path, line: &str) -> String {
    let (code, out, err) = run(data, line);
    assert_eq!(code, 0, "{line}: {out} {err}");
    out
}

/// Waits until no job changes it.
fn settled(data: &Path) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let all = "/v1/jobs?filter=kind:==storage_options";
    loop {
        let jobs = ask(data, "GET", all, None).1["items"].as_array().unwrap().clone();
        let is_done =
            |job: &Value| ["succeeded", "warnings"].map(Value::from).contains(&job["state"]);
        if jobs.iter().all(is_done) {
            return;
        }
        assert!(std::time::Instant::now() < end, "{jobs:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

/// A process that may not mount, whatever this machine can.
fn without_mounting(data: &Path) -> Command {
    let strongroom = of_user(data);
    match rustix::process::geteuid().is_root() {
        true => under(&["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"], &strongroom),
        false => strongroom,
    }
}

#[test]
fn the_calls_of_the_document_set_it_and_a_start_applies_it() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut served = Served::start_as(&data, without_mounting(&data));
    fs::write(dir.path().join("token"), "yourtoken\n").unwrap();
    well(&data, "system token set --token-file token");
    let get = |served: &Served| curl(served, "GET", "/storage?token=yourtoken", &[]);
    let nothing = (404, r#"{"Status":"404 Not Found"}"#.to_owned());
    assert_eq!(get(&served), nothing);
    let file = dir.path().join("settings.json");
    let part = format!("settings=@{}", file.display());
    let accepted = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/storage"}"#;
    for (text, told) in [
        (
            "{\n    \"storage\": {\n        \"type\": \"nfs\",\n        \"mount_options\": \"noacl,sync\",\n        \"ip\": \"192.168.1.100\",\n        \"share\": \"/nfs/storage\"\n    }\n}\n",
            r#"{"type":"nfs","mount_options":"noacl,sync","ip":"192.168.1.100","share":"/nfs/storage"}"#,
        ),
        (
            "{\"storage\": {\"type\": \"aoe\", \"device\": \"e0.1\"}}",
            r#"{"type":"aoe","device":"e0.1"}"#,
        ),
        (
            "{\"storage\": {\"type\": \"nbd\", \"export_name\": \"otherexport\", \"ip\": \"192.168.1.100\", \"port\": \"1043\"}}",
            r#"{"type":"nbd","export_name":"otherexport","ip":"192.168.1.100","port":"1043"}"#,
        ),
        (
            "{\"storage\": {\"type\": \"iscsi\", \"target\": \"iqn.2016-01.com.example:storage.lun1\", \"ip\": \"192.168.1.100\", \"username\": \"user\", \"password\": \"hunter2\"}}",
            r#"{"type":"iscsi","target":"iqn.2016-01.com.example:storage.lun1","ip":"192.168.1.100","username":"user","password":"hunter2"}"#,
        ),
    ] {
        fs::write(&file, text).unwrap();
        let answer = curl(&served, "POST", "/storage?token=yourtoken", &["-F", &part]);
        assert_eq!(answer, (202, accepted.into()));
        settled(&data);
        let (status, body) = get(&served);
        assert!(status == 200 && body.starts_with(&format!("{{\"storage\":{told},")), "{body}");
    }
    for wrong in ["", "{}", "{\"storage\": {\"type\": \"tape\"}}", "nothing"] {
        fs::write(&file, wrong).unwrap();
        let answer = curl(&served, "POST", "/storage?token=yourtoken", &["-F", &part]);
        assert_eq!(answer.0, 400, "{wrong}: {}", answer.1);
    }
    assert!(get(&served).1.contains("hunter2"));
    assert_eq!(shown(&data)["state"], "waits");

    // What this process can't is told, and stops nobody: not the start, and nothing is left of it.
    let lacks = |shown: &Value| {
        let types = shown["types"].as_array().unwrap().clone();
        let iscsi = types.into_iter().find(|one| one["type"] == "iscsi").unwrap();
        assert_eq!(iscsi["possible"], json!(false));
        iscsi["lacks"].as_array().unwrap().clone()
    };
    well(&data, "system restart");
    served.started_anew();
    let now = shown(&data);
    assert_eq!((&now["state"], &now["path"]), (&json!("failed"), &Value::Null), "{now}");
    let error = now["error"].as_str().unwrap();
    for why in lacks(&now) {
        assert!(error.contains(why.as_str().unwrap()), "{error}");
    }
    assert!(!data.join("attached").exists() && !data.join("attached.json").exists());
    let text = well(&data, "system storage show");
    assert!(text.contains("failed") && text.contains("possible here"), "{text}");

    // What it can is there after the next start, ready for a pool, and stays there.
    well(&data, "system storage set local");
    assert_eq!(shown(&data)["state"], "waits");
    well(&data, "system restart");
    served.started_anew();
    let now = shown(&data);
    let place = data.canonicalize().unwrap().join("attached/local");
    assert_eq!((&now["state"], &now["path"]), (&json!("attached"), &json!(place)), "{now}");
    let path = place.join("pool").display().to_string();
    well(&data, &format!("pool create {path} --name there"));
    well(&data, "backup --pool there token");
    let told = get(&served).1;
    assert!(told.starts_with(r#"{"storage":{"type":"local"},"options":["local""#), "{told}");

    // Nobody's log has the password; the archive of the appliance brings the settings back.
    assert!(!served.log().contains("hunter2"), "{}", served.log());
    fs::write(dir.path().join("phrase"), "correct horse battery\n").unwrap();
    well(&data, "system backup start --passphrase-file phrase");
    well(&data, "system backup download box.tar");
    well(&data, "system storage clear --yes");
    assert_eq!(shown(&data)["state"], "waits");
    served.stop();
    let mut served = Served::start(&data);
    assert_eq!((&shown(&data)["state"], &shown(&data)["path"]), (&json!("nothing"), &Value::Null));
    assert_eq!(get(&served), nothing);
    assert!(place.join("pool").exists(), "what is in it stays");
    well(&data, "system backup restore box.tar --passphrase-file phrase --yes");
    served.started_anew();
    assert_eq!(shown(&data)["state"], "attached");
    well(&data, "--json images list --pool there");
    served.stop();
}

#[test]
fn types_can_be_left_out_by_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("strongroom.toml"), "storage_options = [\"nfs\", \"local\"]\n").unwrap();
    let served = Served::start(&data);
    let (code, _, err) = run(&data, "system storage set aoe --device e0.1");
    assert!(code != 0 && err.contains("storage_options"), "{err}");
    fs::write(dir.path().join("token"), "yourtoken\n").unwrap();
    well(&data, "system token set --token-file token");
    let form = r#"settings={"storage":{"type":"aoe","device":"e0.1"}}"#;
    let (status, body) = curl(&served, "POST", "/storage?token=yourtoken", &["-F", form]);
    let expected = "Invalid option: type. Allowed: nfs, local";
    assert!(status == 400 && body.contains(expected), "{status} {body}");
    well(&data, "system storage set local");
    // As they are configured.
    let told = curl(&served, "GET", "/storage?token=yourtoken", &[]).1;
    assert_eq!(told, r#"{"storage":{"type":"local"},"options":["nfs","local"]}"#);
    served.stop();
}
