//! The appliance's own backup: made, lost, restored; and a process that starts anew.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use strongroom_catalog::Engine;

use crate::jidoteki::{curl, make, subject};
use crate::license::vendor;
use crate::support::served::{Served, ask};
use crate::support::{database, output, tool};
use crate::up::{run, within};

const DONE: &str = r#"{"Status":"200 OK"}"#;

/// Sets the token by the passphrase of the first run.
fn set_token(served: &Served, token: &str) {
    let phrase = served.told["setup_passphrase"].as_str().unwrap();
    let new = format!("newtoken={token}");
    let path = format!("/setup?token={phrase}");
    assert_eq!(curl(served, "POST", &path, &["-F", &new]), (200, DONE.into()));
}

/// Waits until it is so.
fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(60), is_so), "{what}: not within a minute");
}

/// Makes a backup as a script does, and downloads it.
fn back_up(served: &Served, to: &Path) {
    let start = curl(served, "POST", "/backup?token=yourtoken", &["-F", "action=START"]);
    assert_eq!(start.0, 202, "{start:?}");
    let shown = || -> Value {
        let (code, body) = curl(served, "GET", "/backup?token=yourtoken", &[]);
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    };
    until("the backup is made", || {
        let shown = shown();
        assert_ne!(shown["status"], "failed", "{}", served.log());
        shown["status"] == "success"
    });
    let file = to.display().to_string();
    let (code, _) = curl(served, "GET", "/backup/download?token=yourtoken", &["-o", &file]);
    assert_eq!(code, 200);
    let sum = tool("sha256sum").arg(to).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    assert!(sum.starts_with(shown()["sha256"].as_str().unwrap()), "{sum}");
}

fn restore(served: &Served, archive: &Path) -> (u16, String) {
    let part = format!("archive=@{}", archive.display());
    curl(served, "POST", "/backup/restore?token=yourtoken", &["-F", &part])
}

fn posted(data: &Path, path: &str, body: Value) -> Value {
    let (code, told) = ask(data, "POST", path, Some(body));
    assert!((200..300).contains(&code), "{path}: {code} {told}");
    told
}

fn ended(data: &Path, job: &Value) {
    let path = format!("/v1/jobs/{}", job["id"]);
    until("the job is over", || {
        let state = ask(data, "GET", &path, None).1["state"].clone();
        assert_ne!(state, "failed");
        state == "succeeded"
    });
}

#[test]
fn what_was_lost_is_back_after_a_restore() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let data = path("data");
    let licence = vendor(&data);
    let served = Served::start(&data);
    set_token(&served, "yourtoken");
    assert_eq!(run(&data, "license set license.txt").0, 0);
    // A pool elsewhere with something in it, a user, a setting, a certificate.
    let body = json!({"name": "vault", "path": path("elsewhere"), "organisation_id": 1});
    let pool = posted(&data, "/v1/pools", body)["pool"]["id"].clone();
    fs::create_dir(path("src")).unwrap();
    fs::write(path("src/kept"), "kept").unwrap();
    let backups = format!("/v1/pools/{pool}/backups");
    let job = posted(&data, &backups, json!({"paths": [path("src")], "name": "kept"}));
    ended(&data, &job);
    posted(&data, "/v1/users", json!({"name": "carol", "password": "a long password"}));
    let (code, told) =
        ask(&data, "PATCH", "/v1/settings/password.shortest", Some(json!({"value": 11})));
    assert_eq!(code, 200, "{told}");
    make(dir.path(), "box.example", "rsa:2048", None);
    let replace = "system certificate replace --certificate box.example.pem --key box.example.key";
    assert_eq!(run(&data, replace).0, 0);
    let archive = path("backup.tar");
    back_up(&served, &archive);
    let names = tool("tar").arg("tf").arg(&archive).output().unwrap();
    let names = String::from_utf8(names.stdout).unwrap();
    assert!(names.starts_with("manifest.json\nsealed/catalogue.db\n"), "{names}");
    assert!(names.contains("sealed/license.txt\n"), "{names}");
    // The vendor's key is the administrator's to keep.
    let shown = run(&data, "system backup show").1;
    assert!(shown.contains("vendor.pub.pem") && !shown.contains("license.txt"), "{shown}");
    // What is done afterwards is not in it.
    posted(&data, "/v1/users", json!({"name": "later", "password": "a long password"}));
    served.stop();

    // All is gone but the pools; another data directory has the same token.
    database::lose(&data);
    for lost in ["appliance.key", "strongroom.toml", "backup/backup.tar"] {
        fs::remove_file(data.join(lost)).unwrap();
    }
    fs::remove_dir_all(data.join("tls")).unwrap();
    let fresh = path("fresh");
    let mut served = Served::start(&fresh);
    set_token(&served, "yourtoken");
    assert_ne!(subject(&served), "box.example");
    // It goes: the state that is restored had none.
    let (code, out, err) = run(&fresh, "system storage set local");
    assert!(code == 0 && fresh.join("storage.sealed").exists(), "{out} {err}");
    let process = served.id();
    let mut cut = fs::read(&archive).unwrap();
    cut.truncate(cut.len() - 2000);
    fs::write(path("cut.tar"), cut).unwrap();
    let (code, body) = restore(&served, &path("cut.tar"));
    assert!(code == 400 && body.contains("Unable to extract backup archive"), "{code} {body}");
    assert_eq!(restore(&served, &archive), (200, DONE.into()), "{}", served.log());
    served.started_anew();
    assert_eq!(served.id(), process);
    assert_eq!(subject(&served), "box.example");
    assert_eq!(curl(&served, "GET", "/version?token=yourtoken", &[]).0, 200);
    let has = |path: &str| ask(&fresh, "GET", path, None).1["items"].as_array().unwrap().len();
    assert_eq!(has("/v1/users?filter=name:==carol"), 1);
    assert_eq!(has("/v1/users?filter=name:==later"), 0);
    assert_eq!(has(&format!("/v1/jobs?filter=id:=={}", job["id"])), 1);
    // The job that made the archive does not run again.
    assert_eq!(curl(&served, "GET", "/backup?token=yourtoken", &[]).0, 404);
    assert_eq!(fs::read_to_string(fresh.join("license.txt")).unwrap(), licence);
    assert!(!fresh.join("storage.sealed").exists());
    let value = ask(&fresh, "GET", "/v1/settings/password.shortest", None).1["value"].clone();
    assert_eq!(value, 11);
    // The pool opens with what is sealed in the catalogue.
    let (code, out, err) = run(&fresh, "restore kept --pool vault --here --to out");
    assert_eq!(code, 0, "{out} {err}");
    let cat = tool("sh").arg("-c").arg("find out -type f | xargs cat").current_dir(&dir).output();
    assert_eq!(cat.unwrap().stdout, b"kept");
    let before = match database::engine() {
        Engine::Sqlite => "before-restore/old/catalogue.db",
        Engine::Postgres => "before-restore/old/catalogue.before",
    };
    assert!(fresh.join(before).exists() && !fresh.join("catalogue.load").exists());
    assert!(!fresh.join("restore").exists());
    let trail = run(&fresh, "--json audit list --limit 100").1;
    assert!(trail.contains("system.backup.restored"), "{trail}");
    assert!(!served.log().contains("yourtoken"), "{}", served.log());
    served.stop();
}

#[test]
fn what_does_not_start_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut served = Served::start(&data);
    set_token(&served, "yourtoken");
    // An address that no machine may listen at: it is right, and yet no start comes about.
    let config = data.join("strongroom.toml");
    let good = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{good}\nredirect = \"192.0.2.1:80\"\n")).unwrap();
    let archive = dir.path().join("backup.tar");
    back_up(&served, &archive);
    fs::write(&config, &good).unwrap();
    posted(&data, "/v1/users", json!({"name": "later", "password": "a long password"}));
    assert_eq!(restore(&served, &archive), (200, DONE.into()));
    served.started_anew();
    served.logs("what was there is back");
    assert_eq!(fs::read_to_string(&config).unwrap(), good);
    let users = ask(&data, "GET", "/v1/users?filter=name:==later", None).1;
    assert_eq!(users["items"].as_array().unwrap().len(), 1);
    assert!(!data.join("restore").exists());
    served.stop();
}

#[test]
fn killed_once_it_is_decided_it_is_done_by_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    set_token(&served, "yourtoken");
    let archive = dir.path().join("backup.tar");
    back_up(&served, &archive);
    let later = |data: &Path| {
        let users = ask(data, "GET", "/v1/users?filter=name:==later", None).1;
        users["items"].as_array().unwrap().len()
    };
    posted(&data, "/v1/users", json!({"name": "later", "password": "a long password"}));
    // Before: the old state, whatever was prepared.
    fs::create_dir_all(data.join("restore/new")).unwrap();
    fs::write(data.join("restore/new/2"), "half a catalogue").unwrap();
    served.kill();
    let served = Served::start(&data);
    assert_eq!(later(&data), 1);
    assert!(!data.join("restore").exists());
    // After: the new one.
    assert_eq!(restore(&served, &archive), (200, DONE.into()));
    served.kill();
    let served = Served::start(&data);
    assert_eq!(later(&data), 0);
    assert_eq!(curl(&served, "GET", "/version?token=yourtoken", &[]).0, 200);
    served.stop();
}

#[test]
fn what_is_large_and_no_archive_takes_no_memory_and_leaves_nothing() {
    const BYTES: u64 = 200 << 20;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    set_token(&served, "yourtoken");
    let large = dir.path().join("large");
    fs::File::create(&large).unwrap().set_len(BYTES).unwrap();
    let kept = || -> u64 {
        let told = String::from_utf8(output(tool("du").arg("-sb").arg(&data))).unwrap();
        told.split_whitespace().next().unwrap().parse().unwrap()
    };
    let before = kept();
    for (name, chunked) in [("archive", true), ("archive", false), ("update", false)] {
        let field = format!("{name}=@{}", large.display());
        let mut more = vec!["-F", &*field];
        if chunked {
            more.extend(["-H", "Transfer-Encoding: chunked"]);
        }
        let path = if name == "archive" { "/backup/restore" } else { "/update" };
        let mut answer = (0, String::new());
        let grown = served.grows_by(|| {
            answer = curl(&served, "POST", &format!("{path}?token=yourtoken"), &more);
        });
        assert!(grown < 48 << 20, "{path}: {grown} bytes of memory");
        match name {
            "archive" => {
                assert_eq!(answer.0, 400, "{answer:?}");
                assert!(answer.1.contains("Unable to extract backup archive"), "{answer:?}");
            }
            _ => {
                assert_eq!(answer.0, 202, "{answer:?}");
                until("it is refused", || {
                    let shown = curl(&served, "GET", "/update?token=yourtoken", &[]).1;
                    shown.contains("failed")
                });
            }
        }
    }
    // The database and logs grow by what is told of it.
    let more = kept().saturating_sub(before);
    assert!(more < 20 << 20, "{more} bytes stay");
    served.stop();
}

#[test]
fn a_reboot_is_a_new_start_with_the_same_data() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut served = Served::start(&data);
    set_token(&served, "yourtoken");
    let started = || ask(&data, "GET", "/v1/system/status", None).1["started_at"].clone();
    let (before, process) = (started(), served.id());
    let (code, body) = curl(&served, "GET", "/reboot?token=yourtoken", &[]);
    let accepted = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/reboot"}"#;
    assert_eq!((code, body.as_str()), (202, accepted));
    served.started_anew();
    assert_ne!(started(), before);
    assert_eq!(served.id(), process);
    assert_eq!(curl(&served, "GET", "/version?token=yourtoken", &[]).0, 200);
    // A backup was made before, and the job says that it is done.
    assert_eq!(
        curl(&served, "GET", "/backup/download?token=yourtoken", &["-o", "/dev/null"]).0,
        200
    );
    let jobs = ask(&data, "GET", "/v1/jobs?filter=kind:==appliance_restart", None).1;
    assert_eq!(jobs["items"].as_array().unwrap().len(), 1);
    assert_eq!(jobs["items"][0]["state"], "succeeded", "{jobs}");

    // By the command, which waits; then a backup natively, into a pool and back.
    let (before, system) = (started(), |words: &str| {
        let (code, out, err) = run(&data, &format!("system {words}"));
        assert_eq!(code, 0, "{words}: {out} {err}");
        out
    });
    system("restart");
    served.started_anew();
    assert_ne!(started(), before);
    fs::write(dir.path().join("phrase"), "correct horse battery\n").unwrap();
    system("backup start --passphrase-file phrase");
    assert!(system("backup show").contains("succeeded"));
    assert!(system("backup log").contains("Backup complete"));
    system("backup download box.tar");
    system("backup store");
    let images = run(&data, "--json images list --pool main").1;
    assert!(images.contains("\"appliance\""), "{images}");
    system("backup stop");
    assert!(run(&data, "system backup download other.tar").0 != 0);
    assert!(!dir.path().join("other.tar").exists());
    fs::write(dir.path().join("wrong"), "another phrase\n").unwrap();
    let (code, _, err) = run(&data, "system backup restore box.tar --passphrase-file wrong --yes");
    assert!(code != 0 && err.contains("passphrase"), "{err}");
    system("backup restore box.tar --passphrase-file phrase --yes");
    served.started_anew();
    assert!(!served.log().contains("horse"), "{}", served.log());
    served.stop();
}
