//! Updates: an appliance that runs becomes another version of itself, or stays what it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::jidoteki::curl;
use crate::support::served::{Served, ask, of_user, text, try_ask};
use crate::support::{BINARY, noise, output, tool};
use crate::up::{run, within};

const OWN: &str = env!("CARGO_PKG_VERSION");

/// Waits until it is so.
fn until(what: &str, is_so: impl FnMut() -> bool) {
    assert!(within(Duration::from_secs(120), is_so), "{what}: not within two minutes");
}

/// A vendor, and an appliance that believes it.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new(more: &str) -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.data()).unwrap();
        place.well("update keygen --private vendor.pem --public data/vendor.pub.pem");
        let config = format!("update_keys = [\"vendor.pub.pem\"]\n{more}");
        fs::write(place.data().join("strongroom.toml"), config).unwrap();
        // What the linker left for debuggers would only take time.
        output(tool("strip").arg("-o").arg(place.at("program")).arg(BINARY));
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn data(&self) -> PathBuf {
        self.at("data")
    }

    fn well(&self, line: &str) -> String {
        let (code, out, err) = run(&self.data(), line);
        assert_eq!(code, 0, "{line}: {out} {err}");
        out
    }

    /// A package of the program that is tested, which brings this version.
    fn package(&self, version: &str) -> String {
        self.package_of(version, "program")
    }

    fn package_of(&self, version: &str, program: &str) -> String {
        let file = format!("{version}.update");
        fs::write(self.at("news.md"), format!("# News of {version}\n")).unwrap();
        self.well(&format!(
            "update build --key vendor.pem --version {version} --minimum 0.0.1 --program {program} \
             --changelog news.md --output {file}"
        ));
        file
    }

    fn script(&self, name: &str, text: &str) {
        let path = self.at(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn start(&self, start: u64, trial: u64) -> Served {
        let served = Served::start(&self.data());
        self.set("update.start", start);
        self.set("update.trial", trial);
        served
    }

    fn set(&self, key: &str, value: u64) {
        let path = format!("/v1/settings/{key}");
        let (code, told) = ask(&self.data(), "PATCH", &path, Some(json!({ "value": value })));
        assert_eq!(code, 200, "{told}");
    }

    /// Also while it starts anew, which takes its time.
    fn get(&self, path: &str) -> Value {
        let mut found = None;
        until("it answers", || {
            found = try_ask(&self.data(), "GET", path, None).ok();
            found.is_some()
        });
        let (code, told) = found.unwrap();
        assert_eq!(code, 200, "{path}: {told}");
        told
    }

    fn version(&self) -> String {
        self.get("/v1/system/version")["version"].as_str().unwrap().to_owned()
    }

    fn history(&self) -> Vec<Value> {
        self.get("/v1/system/updates/history")["items"].as_array().unwrap().clone()
    }

    /// The last job that updated, when it is over.
    fn job(&self) -> Value {
        let id = self.get("/v1/system/updates")["job_id"].clone();
        let path = format!("/v1/jobs/{id}");
        until("the job's end", || {
            !["queued", "running"].contains(&self.get(&path)["state"].as_str().unwrap())
        });
        self.get(&path)
    }
}

/// The process that serves, which may be another than the one that was started.
fn server(data: &Path) -> Pid {
    let text = fs::read_to_string(data.join("serve.lock")).unwrap();
    Pid::from_raw(text.trim().parse().unwrap()).unwrap()
}

#[test]
fn a_running_appliance_becomes_another_version_and_goes_back() {
    let place = Place::new("");
    let data = place.data();
    let mut served = place.start(60, 1);
    let process = served.id();
    assert_eq!(place.version(), OWN);
    // A job that takes its time, and can go on anywhere.
    fs::create_dir(place.at("source")).unwrap();
    for number in 0..4 {
        fs::write(place.at(&format!("source/{number}")), noise(number, 10_000_000)).unwrap();
    }
    place.well("backup source --name kept");
    let package = place.package("0.2.0");
    let told = place.well(&format!("update verify {package} --key data/vendor.pub.pem"));
    assert!(told.contains("0.2.0"), "{told}");
    let (code, scrub) = ask(&data, "POST", "/v1/pools/1/scrub", Some(json!({ "rate": 1_000_000 })));
    assert_eq!(code, 202, "{scrub}");
    let scrub = format!("/v1/jobs/{}", scrub["id"]);
    until("its first bytes", || place.get(&scrub)["progress"]["bytes_done"] != 0);

    let (code, out, err) = run(&data, &format!("system update install {package}"));
    assert_eq!(code, 0, "{out} {err} {}", served.log());
    assert!(out.contains("version 0.2.0 is in force"), "{out}");
    served.started_anew();
    assert_eq!((place.version().as_str(), served.id()), ("0.2.0", process));
    assert_eq!(place.get("/v1/system/version")["program_version"], OWN);
    assert_eq!(place.well("system changelog"), "# News of 0.2.0\n");
    // What is measured and what support is given say both as well.
    let both = format!("strongroom_build_info{{version=\"0.2.0\",program_version=\"{OWN}\",");
    let measured = text(&data, "/metrics");
    assert!(measured.contains(&both), "{measured}");
    place.well("system logs --output logs.tar.gz");
    let mut tar = tool("tar");
    tar.args(["--wildcards", "-xOzf"]).arg(place.at("logs.tar.gz")).arg("*version.json");
    let paper: Value = serde_json::from_slice(&output(&mut tar)).unwrap();
    assert_eq!((&paper["version"], &paper["program_version"]), (&json!("0.2.0"), &json!(OWN)));
    assert_ne!(server(&data), Pid::from_raw(process as i32).unwrap(), "it is watched over");
    let job = place.job();
    assert_eq!(job["result"], json!({"version": "0.2.0", "from_version": OWN}));
    let over = || !["queued", "running"].contains(&place.get(&scrub)["state"].as_str().unwrap());
    until("the other job's end", over);
    assert_eq!(place.get(&scrub)["state"], "succeeded");
    let begun = format!(
        "/v1/events?filter=job_id:=={}&filter=kind:==job.started&count=true",
        place.get(&scrub)["id"]
    );
    assert!(place.get(&begun)["count"].as_u64().unwrap() >= 2, "it was cut off, and taken up");
    let shown = place.get("/v1/system/updates");
    assert_eq!((&shown["on_trial"], &shown["percent"]), (&json!(false), &json!(100)), "{shown}");
    assert_eq!(shown["previous_version"], OWN);

    // The same again is none, and nothing happens.
    let (code, _, err) = run(&data, &format!("system update install {package}"));
    assert!(code != 0 && err.contains("already up-to-date"), "{err}");
    let old = place.package("0.0.9");
    let (code, _, err) = run(&data, &format!("system update install {old}"));
    assert!(code != 0 && err.contains("too old"), "{err}");

    // It starts anew as it is, without who watched over it; and after a stop.
    place.well("system restart");
    served.started_anew();
    assert_eq!(place.version(), "0.2.0");
    assert_eq!(server(&data), Pid::from_raw(process as i32).unwrap());
    served.stop();
    let mut served = Served::start(&data);
    assert_eq!(place.version(), "0.2.0");

    // From one release to the next, and back to the one before.
    let next = place.package("0.3.0-rc.1");
    place.well(&format!("system update install {next}"));
    served.started_anew();
    assert_eq!(place.version(), "0.3.0-rc.1");
    place.well("system update rollback --yes");
    served.started_anew();
    assert_eq!(place.version(), "0.2.0");
    let (code, _, err) = run(&data, "system update rollback --yes");
    assert!(code != 0 && err.contains("no earlier release"), "{err}");
    let told: Vec<_> = place.history().iter().map(|one| one["version"].clone()).collect();
    assert_eq!(told, ["0.2.0", "0.3.0-rc.1", "0.2.0"]);
    assert!(place.well("system update history").contains("0.3.0-rc.1"));
    let trail = place.well("--json audit list --limit 100");
    assert!(trail.contains("system.updates.install") && trail.contains("system.updates.rollback"));
    // What is damaged is not started, and in nobody's way.
    served.stop();
    let state = fs::read_to_string(data.join("releases/state.json")).unwrap();
    let state: Value = serde_json::from_str(&state).unwrap();
    let active = data.join("releases").join(state["active"].as_str().unwrap()).join("strongroom");
    fs::write(active, "not what was installed").unwrap();
    let served = Served::start(&data);
    assert_eq!(place.version(), OWN);
    served.logs("is not started");
    served.stop();
}

#[test]
fn what_is_broken_is_rolled_back_by_itself() {
    let place = Place::new("");
    let data = place.data();
    place.script("exits", "exit 0");
    place.script("fails", "echo broken >&2; exit 9");
    place.script("hangs", "exec sleep 1000");
    // It serves, but it is not the version that was promised.
    place.script("lies", &format!("exec {} \"$@\"", place.at("program").display()));
    let mut served = place.start(4, 600);
    for (number, (program, expected)) in [
        ("exits", "exit status: 0"),
        ("fails", "exit status: 9"),
        ("hangs", "does not answer within"),
        ("lies", "it says that it is version"),
    ]
    .into_iter()
    .enumerate()
    {
        let package = place.package_of(&format!("0.2.{number}"), program);
        let (code, _, err) = run(&data, &format!("system update install {package}"));
        assert!(code != 0 && err.contains("rolled back") && err.contains(expected), "{err}");
        served.started_anew();
        if program == "lies" {
            served.started_anew();
        }
        assert_eq!(place.version(), OWN);
        let record = place.history().remove(0);
        assert_eq!(record["result"], "rolled_back", "{record}");
        assert!(record["reason"].as_str().unwrap().contains(expected), "{record}");
        assert_eq!(place.job()["state"], "failed");
        let process = Pid::from_raw(served.id() as i32).unwrap();
        assert_eq!(server(&data), process, "{program}");
    }

    // A good one that dies in its trial, without a word or with one.
    place.set("update.start", 60);
    for (number, signal) in [Signal::ABORT, Signal::KILL].into_iter().enumerate() {
        let package = place.package(&format!("0.3.{number}"));
        place.well(&format!("system update install {package} --no-wait"));
        served.started_anew();
        assert_eq!(place.version(), format!("0.3.{number}"));
        assert_eq!(place.get("/v1/system/updates")["on_trial"], true);
        // Nothing else is done meanwhile.
        let (code, _, err) = run(&data, &format!("system update install {package}"));
        assert!(code != 0, "{err}");
        kill_process(server(&data), signal).unwrap();
        served.started_anew();
        assert_eq!(place.version(), OWN);
        let job = place.job();
        assert!(job["error"].as_str().unwrap().contains("signal"), "{job}");
    }
    // By hand, in its trial.
    let package = place.package("0.4.0");
    place.well(&format!("system update install {package} --no-wait"));
    served.started_anew();
    place.well("system update rollback --yes");
    served.started_anew();
    assert_eq!(place.version(), OWN);
    assert!(place.job()["error"].as_str().unwrap().contains("went back"));
    served.stop();
    // No package is left.
    let left = output(
        tool("find").arg(data.join("staged")).arg(data.join("updates")).args(["-type", "f"]),
    );
    assert!(left.is_empty(), "{}", String::from_utf8_lossy(&left));
}

#[test]
fn killed_in_its_trial_it_is_the_old_one_and_stopped_it_is_tried_on() {
    let place = Place::new("");
    let data = place.data();
    let mut served = place.start(60, 600);
    let package = place.package("0.2.0");
    place.well(&format!("system update install {package} --no-wait"));
    served.started_anew();
    assert_eq!(place.version(), "0.2.0");
    // Told to end, it goes on with its trial at the next start.
    served.stop();
    let served = Served::start(&data);
    assert_eq!(place.version(), "0.2.0");
    assert_eq!(place.get("/v1/system/updates")["on_trial"], true);
    // Killed without a word, and with it who watched over it.
    let child = server(&data);
    served.kill();
    until("the child is gone", || kill_process(child, Signal::CONT).is_err());
    let served = Served::start(&data);
    assert_eq!(place.version(), OWN);
    let job = place.job();
    assert!(job["error"].as_str().unwrap().contains("without a word"), "{job}");
    assert_eq!(place.history()[0]["result"], "rolled_back");
    served.stop();

    // Killed at any moment of an update it is one or the other, and the job says which.
    let state = || fs::read_to_string(data.join("releases/state.json")).unwrap_or_default();
    let unpacks = |version: &str| {
        let names = fs::read_dir(data.join("releases")).unwrap().flatten();
        let mut names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.any(|name| name.starts_with("draft-") || name.starts_with(version))
    };
    let succeeded = |version: &str| {
        let job = place.get("/v1/system/updates");
        job["version"] == version && job["job_state"] == "succeeded"
    };
    type Phase<'a> = (&'a str, &'a dyn Fn(&str) -> bool);
    let phases: [Phase<'_>; 5] = [
        ("unpacks", &unpacks),
        ("is decided", &|version| state().contains(&format!("\"release\": \"{version}-"))),
        ("is begun", &|version| state().contains(version) && state().contains("\"begun\": true")),
        ("serves", &|version| place.version() == version),
        ("is in force", &succeeded),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (round, (phase, is_reached)) in phases.into_iter().enumerate() {
        let mut served = place.start(60, 1);
        let before = place.version();
        let package = place.package(&format!("0.3.{round}"));
        place.well(&format!("system update install {package} --no-wait"));
        until(phase, || is_reached(&format!("0.3.{round}")));
        served.kill();
        served = Served::start(&data);
        let job = place.job();
        let version = place.version();
        let now = format!("0.3.{round}");
        match job["state"].as_str().unwrap() {
            "succeeded" => assert_eq!(version, now),
            "failed" => assert_eq!(version, before, "{job}"),
            other => panic!("{other}: {job}"),
        }
        seen.insert(job["state"].as_str().unwrap().to_owned());
        served.stop();
    }
    // Begun, it is rolled back; in force, it stays.
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[test]
fn a_broken_state_does_not_keep_it_from_starting() {
    let place = Place::new("");
    let releases = place.data().join("releases");
    fs::create_dir(&releases).unwrap();
    for (text, is_moved) in [("garbage", true), ("{\"format\": 2}", false)] {
        fs::write(releases.join("state.json"), text).unwrap();
        let served = Served::start(&place.data());
        assert_eq!(place.version(), OWN);
        served.logs("nothing is known of releases");
        served.stop();
        assert_eq!(releases.join("state.json").exists(), !is_moved);
        assert_eq!(fs::read_to_string(releases.join("state.json.broken")).unwrap(), "garbage");
    }
}

#[test]
fn an_older_one_that_was_asked_for_stays_and_a_canceled_job_of_one_in_force_succeeds() {
    let place = Place::new("");
    let data = place.data();
    let mut served = place.start(60, 5);
    let package = place.package("0.0.9");
    place.well(&format!("system update install {package} --allow-older --no-wait"));
    served.started_anew();
    assert_eq!(place.version(), "0.0.9");
    // It is too late for that.
    let id = place.get("/v1/system/updates")["job_id"].clone();
    let (code, told) = ask(&data, "POST", &format!("/v1/jobs/{id}/cancel"), None);
    assert!(code < 300, "{code} {told}");
    let job = place.job();
    assert_eq!((&job["state"], &job["result"]["version"]), (&json!("succeeded"), &json!("0.0.9")));
    served.stop();
    let served = Served::start(&data);
    assert_eq!(place.version(), "0.0.9");
    served.stop();
    // Who says that somebody watches over it, whom there isn't, serves nothing.
    let state: Value =
        serde_json::from_slice(&fs::read(data.join("releases/state.json")).unwrap()).unwrap();
    let release = state["active"].as_str().unwrap();
    let mut command = tool("env");
    command.arg(format!("STRONGROOM_LAUNCHED={release}")).arg("STRONGROOM_WATCHED_BY=999999999");
    command.arg(data.join("releases").join(release).join("strongroom"));
    command.args(["up", "--listen", "127.0.0.1:0", "--data"]).arg(&data);
    let ended = command.output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr);
    assert!(!ended.status.success() && err.contains("who watches over it is gone"), "{err}");
}

#[test]
fn told_to_stop_while_a_failed_release_is_ended_it_stops() {
    let place = Place::new("");
    let data = place.data();
    let (ending, go) = (place.at("ending"), place.at("go"));
    // It takes its time to end, but does not outlive the test for long.
    let (ending_at, go_at) = (ending.display(), go.display());
    let lingers = format!(
        "patience() {{ left=2400; until [ -e $1 ] || [ $((left -= 1)) = 0 ]; do sleep 0.05; done; }}
         trap 'touch {ending_at}; patience {go_at}; exit 1' TERM
         patience never"
    );
    place.script("lingers", &lingers);
    let served = place.start(2, 600);
    let package = place.package_of("0.2.0", "lingers");
    place.well(&format!("system update install {package} --no-wait"));
    until("it is ended", || ending.exists());
    served.signal(Signal::TERM);
    fs::write(go, "").unwrap();
    served.ended();
    let served = Served::start(&data);
    assert_eq!(place.version(), OWN);
    let record = place.history().remove(0);
    assert_eq!(record["result"], "rolled_back", "{record}");
    assert!(record["reason"].as_str().unwrap().contains("does not answer within"), "{record}");
    served.stop();
}

#[test]
fn a_catalogue_that_a_release_has_changed_comes_back_with_the_old_program() {
    let place = Place::new("");
    let data = place.data();
    // It brings the schema up to date, and fails.
    let migrates = format!(
        "python3 -c \"import sqlite3
db = sqlite3.connect('{}')
db.execute('INSERT INTO schema_steps (number, done_at) VALUES (99, 0)')
db.execute('DELETE FROM settings')
db.commit()\" || exit 9; exit 3",
        data.join("catalogue.db").display()
    );
    place.script("migrates", &migrates);
    let mut served = place.start(60, 600);
    let process = served.id();
    let package = place.package_of("0.2.0", "migrates");
    let (code, _, err) = run(&data, &format!("system update install {package}"));
    assert!(code != 0 && err.contains("exit status: 3"), "{err} {}", served.log());
    served.started_anew();
    assert_eq!((place.version().as_str(), served.id()), (OWN, process));
    assert!(
        served.log().contains("the catalogue of before the update is back"),
        "{}",
        served.log()
    );
    assert_eq!(place.get("/v1/settings/update.trial")["value"], 600);
    assert_eq!(place.job()["state"], "failed");
    assert!(data.join("catalogue.db.aside/catalogue.db").exists());
    served.stop();
    // It is as good as before.
    let mut served = Served::start(&data);
    place.set("update.trial", 1);
    let package = place.package("0.2.1");
    place.well(&format!("system update install {package}"));
    served.started_anew();
    assert_eq!(place.version(), "0.2.1");
    served.stop();
}

#[test]
fn a_script_is_run_where_that_is_allowed() {
    let place = Place::new("update_passphrase = \"updates.key\"\nupdate_scripts = true\n");
    vendor_of_jidoteki(&place);
    let served = place.start(60, 1);
    place.script("small", "exit 0");
    let told = || place.get("/v1/system/updates");
    for (script, more, expected) in [
        ("echo from the script; cat sub/file; echo $PATH; pwd >../../../ran", "", None),
        ("exit 3", "", Some("ended with 3")),
        ("nothing-of-this-name", "", Some("ended with 127")),
        ("kill -9 $$", "", Some("by a signal")),
    ] {
        let more = format!(
            "rm strongroom; mkdir sub; echo more >sub/file; echo '{script}' >update.sh; {more}"
        );
        let file = foreign(&place, "v0.2.0", "small", &more);
        let (code, _, err) =
            run(&place.data(), &format!("system update install {}", file.display()));
        assert_eq!(code == 0, expected.is_none(), "{err}");
        assert!(err.contains(expected.unwrap_or_default()), "{err}");
        let id = told()["job_id"].clone();
        let log = place.well(&format!("jobs log {id}"));
        if expected.is_none() {
            assert!(log.contains("from the script") && log.contains("more"), "{log}");
            assert!(place.data().join("ran").exists());
        }
    }
    // There was no program: what runs is what ran.
    assert_eq!(place.version(), OWN);
    assert_eq!(place.history().len(), 0);
    served.stop();
}

#[test]
fn systemd_hears_of_an_update_by_the_process_that_it_knows() {
    let place = Place::new("");
    let data = place.data();
    let path = place.at("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let hears = |what: &str| {
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            // It says something else again and again: that it lives.
            assert!(Instant::now() < end, "it never said {what}");
            let mut bytes = [0; 4096];
            let length =
                socket.recv(&mut bytes).unwrap_or_else(|e| panic!("it never said {what}: {e}"));
            let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            if text.lines().any(|line| line.starts_with(what)) {
                return text;
            }
        }
    };
    let mut command = of_user(&data);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000");
    let mut served = Served::start_as(&data, command);
    place.set("update.trial", 600);
    hears("READY=1");
    let package = place.package("0.2.0");
    place.well(&format!("system update install {package} --no-wait"));
    served.started_anew();
    hears("RELOADING=1");
    let ready = hears("READY=1");
    assert!(ready.contains(served.told["urls"][0].as_str().unwrap()), "{ready}");
    hears("WATCHDOG=1");
    // It is the parent that says so.
    let child = server(&data).as_raw_nonzero();
    let environ = fs::read(format!("/proc/{child}/environ")).unwrap();
    let own =
        format!("NOTIFY_SOCKET={}", fs::canonicalize(&data).unwrap().join("notify.sock").display());
    assert!(environ.split(|byte| *byte == 0).any(|one| one == own.as_bytes()), "{own}");
    // A signal is handed on, and the end is told.
    served.signal(Signal::HUP);
    hears("RELOADING=1");
    served.stop();
    hears("STOPPING=1");
}

/// The keys of one who makes packages for Jidoteki Admin.
fn vendor_of_jidoteki(place: &Place) {
    let keys = "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out rsa.pem
                openssl pkey -in rsa.pem -pubout >>data/vendor.pub.pem
                openssl rand -base64 24 >data/updates.key";
    output(tool("sh").args(["-ec", keys]).current_dir(place.dir.path()));
}

/// A package as a pipeline for Jidoteki Admin makes it.
fn foreign(place: &Place, version: &str, program: &str, more: &str) -> PathBuf {
    let script = format!(
        "rm -rf work package.enc; mkdir work; cp {program} work/strongroom; cd work
         echo {version} >version.txt; echo '# News' >changelog.txt; {more}
         tar -czf software_package.tar.gz *
         openssl dgst -sha256 -sign ../rsa.pem -out software_package.tar.gz.sign software_package.tar.gz
         tar -cf package.tar software_package.tar.gz software_package.tar.gz.sign
         openssl enc -aes-256-cbc -md sha256 -pbkdf2 -salt -pass file:../data/updates.key \
             -in package.tar -out ../package.enc"
    );
    output(tool("sh").args(["-ec", &script]).current_dir(place.dir.path()));
    place.at("package.enc")
}

#[test]
fn scripts_for_jidoteki_admin_update_it() {
    let place = Place::new("update_passphrase = \"updates.key\"\n");
    let data = place.data();
    vendor_of_jidoteki(&place);
    let mut served = place.start(60, 1);
    fs::write(place.at("token"), "yourtoken\n").unwrap();
    place.well("system token set --token-file token");
    let get =
        |served: &Served, path: &str| curl(served, "GET", &format!("{path}?token=yourtoken"), &[]);
    let none = r#"{"status":null,"log":null}"#;
    assert_eq!(get(&served, "/update"), (200, none.into()));
    assert_eq!(get(&served, "/update/log").0, 404);
    let send = |served: &Served, part: &str| {
        curl(served, "POST", "/update?token=yourtoken", &["-F", part])
    };
    let accepted =
        (202, r#"{"Status":"202 Accepted","Location":"/api/v1/admin/update"}"#.to_owned());
    let bare = (400, r#"{"Status":"400 Bad Request"}"#.to_owned());
    assert_eq!(send(&served, "other=x"), bare);
    fs::write(place.at("empty"), "").unwrap();
    assert_eq!(send(&served, &format!("update=@{}", place.at("empty").display())), bare);

    // Each error with its code, how far it came, and its message.
    fs::write(place.at("garbage"), noise(1, 100_000)).unwrap();
    fs::write(place.at("salted"), [b"Salted__".to_vec(), noise(1, 100_000)].concat()).unwrap();
    let from = |path: &Path| format!("update=@{}", path.display());
    let shown =
        |served: &Served| -> Value { serde_json::from_str(&get(served, "/update").1).unwrap() };
    place.script("small", "exit 0");
    let refused = |served: &Served, part: &str, percentage: u64, code: &str, message: &str| {
        assert_eq!(send(served, part), accepted);
        until("it is refused", || shown(served)["status"] == "failed");
        let (_, text) = get(served, "/update");
        let told = shown(served);
        assert_eq!(told["percentage"], percentage, "{text}");
        assert_eq!(
            (told["error-code"].as_str(), told["error-message"].as_str()),
            (Some(code), Some(message)),
            "{text}"
        );
        assert!(text.starts_with(r#"{"status":"failed","percentage":"#), "{text}");
        assert!(text.contains(r#"\\n","error-message":""#), "{text}");
    };
    let sealed = "Error decrypting software update package";
    refused(&served, "update=something", 20, "E1003", "Missing update package");
    refused(&served, &from(&place.at("garbage")), 30, "E1005", sealed);
    refused(&served, &from(&place.at("salted")), 30, "E1005", sealed);
    let good = foreign(&place, "v0.2.0", "small", "");
    let cut = fs::read(&good).unwrap();
    fs::write(place.at("cut"), &cut[..cut.len() - 1024]).unwrap();
    refused(&served, &from(&place.at("cut")), 30, "E1005", sealed);
    output(
        tool("sh")
            .args(["-ec", "mv rsa.pem kept; openssl genpkey -quiet -algorithm RSA -out rsa.pem"])
            .current_dir(place.dir.path()),
    );
    let other = foreign(&place, "v0.2.0", "small", "");
    refused(
        &served,
        &from(&other),
        40,
        "E1005",
        "Error verifying software update package signature",
    );
    fs::rename(place.at("kept"), place.at("rsa.pem")).unwrap();
    let trap = foreign(&place, "v0.2.0", "small", "ln -s /etc/passwd trap;");
    refused(&served, &from(&trap), 50, "E1005", "Error extracting software update package");
    let old = foreign(&place, "v0.0.1", "small", "");
    refused(&served, &from(&old), 60, "E1001", "software update package v0.0.1 is too old.");
    let same = foreign(&place, OWN, "small", "");
    let message = format!("software update package v{OWN} already up-to-date.");
    refused(&served, &from(&same), 60, "E1001", &message);
    let script = foreign(&place, "v0.2.0", "small", "echo 'touch ../../../../ran' >update.sh;");
    refused(&served, &from(&script), 80, "E1002", "Error running update");
    assert!(!place.at("ran").exists());
    let (_, log) = get(&served, "/update/log");
    assert!(
        log.contains("][SYSTEM] Updating system. Please wait..\n")
            && log.contains("update_scripts"),
        "{log}"
    );
    // One that exits at once is rolled back.
    assert_eq!(send(&served, &from(&foreign(&place, "v0.2.0", "small", ""))), accepted);
    served.started_anew();
    until("it is rolled back", || shown(&served)["status"] == "failed");
    let told = shown(&served);
    assert_eq!((&told["percentage"], &told["error-code"]), (&json!(80), &json!("E1002")), "{told}");

    // A good one, encrypted, and one of our own form.
    let good = foreign(&place, "v0.2.1", "program", "");
    assert_eq!(send(&served, &from(&good)), accepted);
    served.started_anew();
    until("it is done", || shown(&served)["status"] == "success");
    assert_eq!(shown(&served)["percentage"], 100);
    assert_eq!(get(&served, "/version"), (200, r#"{"version":"0.2.1"}"#.into()));
    assert_eq!(get(&served, "/changelog").1, "# News\n");
    assert!(get(&served, "/update/log").1.ends_with("Updating system successful\n"));
    let own = place.package("0.2.2");
    assert_eq!(send(&served, &from(&place.at(&own))), accepted);
    // While it is on its way another one is not begun, and that is told.
    assert_eq!(send(&served, "update=something"), accepted);
    served.started_anew();
    until("it is done", || shown(&served)["status"] == "success");
    assert!(shown(&served).get("error-code").is_none());
    assert_eq!(get(&served, "/version").1, r#"{"version":"0.2.2"}"#);
    served.stop();
    assert!(data.join("releases/state.json").exists());
}
