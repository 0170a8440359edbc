//! What helps those who look for a fault, and that no secret is in it: they are planted wherever an
//! appliance has them, and in its logs, and looked for in what it gives away.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::jidoteki::curl;
use crate::support::served::{Served, ask, of_user};
use crate::support::{noise, output, tool};
use crate::up::{run, until};

/// Secrets, and what they are.
type Secrets = Vec<(&'static str, Vec<u8>)>;

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn openssl(dir: &Path, line: &str) {
    output(tool("openssl").args(line.split_whitespace()).current_dir(dir));
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.extend(files(&path)),
            false => all.push(path),
        }
    }
    all
}

/// Unpacks an archive, and fails if a secret is in it.
fn look(archive: &Path, secrets: &Secrets) -> PathBuf {
    let dir = archive.with_extension("out");
    fs::create_dir(&dir).unwrap();
    output(tool("tar").arg("-xf").arg(archive).arg("-C").arg(&dir));
    let mut found = Vec::new();
    for path in files(&dir).into_iter().chain([archive.to_owned()]) {
        let bytes = fs::read(&path).unwrap();
        for (what, secret) in secrets {
            if bytes.windows(secret.len()).any(|window| window == secret) {
                let name = path.strip_prefix(&dir).unwrap_or(&path).display().to_string();
                found.push(format!("{what} in {name}"));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
    dir
}

fn lines(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// An appliance that has secrets of each kind.
fn plant(data: &Path) -> (Served, Secrets) {
    let dir = data.parent().unwrap();
    fs::create_dir(data).unwrap();
    openssl(dir, "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out vendor.pem");
    openssl(dir, "pkey -in vendor.pem -pubout -out data/support.pub.pem");
    let config = "# database = \"postgres://old:planted-old-word@host/x\"\n\
                  database = \"postgres://strong:planted%2Ddb-word@127.0.0.1:1/none\"\n\
                  support_key = \"support.pub.pem\"\n";
    fs::write(data.join("strongroom.toml"), config).unwrap();
    let start = || {
        let mut command = of_user(data);
        command.env("STRONGROOM_DATABASE", "catalogue.db").env("PGPASSWORD", "planted-pg-word");
        Served::start_as(data, command)
    };
    let served = start();
    let bytes = |text: &str| text.as_bytes().to_vec();
    let mut secrets: Secrets = vec![
        ("the database's password", bytes("planted%2Ddb-word")),
        ("the database's password, decoded", bytes("planted-db-word")),
        ("the database's password of before", bytes("planted-old-word")),
        ("the database's password of the environment", bytes("planted-pg-word")),
        ("the administrator's passphrase", bytes(&text(&served.told["passphrase"]))),
        ("the setup's passphrase", bytes(&text(&served.told["setup_passphrase"]))),
        ("the pool's passphrase", bytes(&text(&served.told["pool_passphrase"]))),
    ];
    fs::write(dir.join("token"), "planted-admin-token\n").unwrap();
    fs::write(dir.join("pw"), "planted user password\n").unwrap();
    for line in [
        "system token set --token-file token",
        "users create ada --password-file pw --role administrator",
    ] {
        let (code, _, err) = run(data, line);
        assert_eq!(code, 0, "{line}: {err}");
    }
    secrets.push(("the token", bytes("planted-admin-token")));
    secrets.push(("a user's password", bytes("planted user password")));
    let ada = ask(data, "GET", "/v1/users?filter=name:==ada", None).1["items"][0]["id"].clone();
    let (code, key) =
        ask(data, "POST", "/v1/keys", Some(json!({"name": "planted", "user_id": ada})));
    assert_eq!(code, 201, "{key}");
    let key = text(&key["secret"]);
    let login = json!({"name": "ada", "password": "planted user password"});
    let (code, session) = ask(data, "POST", "/v1/sessions", Some(login));
    assert_eq!(code, 201, "{session}");
    let session = text(&session["token"]);
    let shorter = |text: &str| bytes(text.rsplit_once('_').unwrap().1);
    secrets.push(("an API key", shorter(&key)));
    secrets.push(("a session's token", shorter(&session)));
    let tls = fs::read_to_string(data.join("tls/key.pem")).unwrap();
    let inner = |pem: &str| bytes(pem.lines().find(|line| !line.starts_with("---")).unwrap());
    secrets.push(("the private key of TLS", inner(&tls)));
    let other = fs::read_to_string(dir.join("vendor.pem")).unwrap();
    secrets.push(("somebody's private key", inner(&other)));
    let own = fs::read(data.join("appliance.key")).unwrap();
    let hex = data_encoding::HEXLOWER.encode(&own);
    let base64 = data_encoding::BASE64.encode(&own);
    secrets.push(("the appliance's key", own));
    secrets.push(("the appliance's key in hexadecimal digits", bytes(&hex)));
    secrets.push(("the appliance's key in base 64", bytes(&base64)));
    let licence = "abcdefghijklmnopqrstuvwxyz234567abcdefghijkl";
    secrets.push(("a random word", bytes(licence)));

    // In a job that fails, its log and its event; in the audit trail, by who types it as a name.
    let body = json!({
        "paths": [format!("/nothing/{key}")], "name": format!("x {key}"), "attempts": 1,
    });
    let (code, job) = ask(data, "POST", "/v1/pools/1/backups", Some(body));
    assert_eq!(code, 202, "{job}");
    let path = format!("/v1/jobs/{}", job["id"]);
    until("the job fails", || ask(data, "GET", &path, None).1["state"] == "failed");
    let wrong = json!({"name": key, "password": "x"});
    assert_eq!(ask(data, "POST", "/v1/sessions", Some(wrong)).0, 401);

    // In the log, as others may write it.
    let pool = text(&served.told["pool_passphrase"]);
    let planted = format!(
        "2026 INFO the pool is opened with {pool}\n\
         2026 INFO request{{uri=/api/v1/admin/version?token=planted-admin-token&x=1}}\n\
         2026 INFO request{{uri=/api/v1/admin/version?hash={licence}}}\n\
         2026 INFO Authorization: Bearer {session}\n\
         2026 INFO the key {key} is used\n\
         2026 WARN postgres://strong:planted%2Ddb-word@127.0.0.1:1/none: planted-db-word, \
         planted-pg-word\n\
         2026 WARN PGPASSWORD=planted-pg-word\n\
         2026 WARN was postgres://old:planted-old-word@host/x\n\
         2026 INFO {{\"user\":\"ada\",\"password\":\"planted user password\"}}\n\
         2026 INFO setup passphrase: {}\n\
         2026 INFO admin passphrase = {}\n\
         2026 INFO key {hex} {base64}\n\
         {tls}{other}2026 INFO in one line: {}\n\
         2026 INFO random {licence}\n\
         2026 INFO this line has none\n",
        text(&served.told["setup_passphrase"]),
        text(&served.told["passphrase"]),
        other.replace('\n', "\\n"),
    );
    let mut old = fs::File::create(data.join("logs/strongroom.log.1")).unwrap();
    old.write_all(planted.as_bytes()).unwrap();
    // Now it knows no more than it is told.
    served.stop();
    (start(), secrets)
}

#[test]
fn no_secret_leaves_with_the_logs() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let (served, secrets) = plant(&data);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data.join("logs")), 0o700);
    assert_eq!(mode(&data.join("logs/strongroom.log")), 0o600);

    let (code, _, err) = run(&data, "system logs --output logs.tar.gz");
    assert_eq!(code, 0, "{err}");
    assert_eq!(mode(&dir.path().join("logs.tar.gz")), 0o600);
    let out = look(&dir.path().join("logs.tar.gz"), &secrets);
    let old = fs::read_to_string(out.join("logs/strongroom.log.1")).unwrap();
    assert!(old.contains("this line has none") && old.contains("[hidden]"), "{old}");
    // What it logs on standard error is there too.
    let log = fs::read_to_string(out.join("logs/strongroom.log")).unwrap();
    assert!(log.contains("stopping: no new work"), "{log}");
    let jobs = lines(out.join("jobs.jsonl"));
    let failed = jobs.iter().find(|job| job["state"] == "failed").unwrap();
    let log = lines(out.join(format!("jobs/{}.jsonl", failed["id"])));
    assert!(!log.is_empty());
    let events = lines(out.join("events.jsonl"));
    assert!(events.iter().any(|event| event["kind"] == "job.failed"), "{events:?}");
    let audit = lines(out.join("audit.jsonl"));
    for operation in ["key.create", "token.set"] {
        assert!(audit.iter().any(|line| line["operation"] == operation), "{operation}: {audit:#?}");
    }
    let document = |name: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(out.join(name)).unwrap()).unwrap()
    };
    let config = document("configuration.json");
    assert_eq!(config["database"], "postgres://127.0.0.1:1/none");
    assert_eq!(config["support_key"], "support.pub.pem");
    for name in ["version", "program_version"] {
        assert_eq!(document("version.json")[name], env!("CARGO_PKG_VERSION"));
    }
    assert_eq!(document("license.json")["state"], "none");
    assert!(document("health.json")["disk"]["total_bytes"].is_u64());
    assert!(document("settings.json").as_array().unwrap().len() > 5);

    // The calls of the document.
    let get = |path: &str, file: &str| {
        let query = format!("{path}?token=planted-admin-token");
        let file = dir.path().join(file);
        let (status, _) = curl(&served, "GET", &query, &["-o", file.to_str().unwrap()]);
        assert_eq!(status, 200, "{path}");
        file
    };
    look(&get("/logs", "again.tar.gz"), &secrets);
    let bundle = look(&get("/debug", "debug-bundle.tar"), &secrets);
    let names: Vec<_> =
        files(&bundle).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    // As the contract says, with the vendor's key and OpenSSL.
    fs::copy(dir.path().join("vendor.pem"), bundle.join("vendor.pem")).unwrap();
    openssl(&bundle, "pkeyutl -decrypt -inkey vendor.pem -in debug.key.enc -out debug.key");
    let line = "enc -d -aes-256-cbc -md sha256 -pbkdf2 -pass file:debug.key -in debug.tar.gz.enc \
                -out debug.tar.gz";
    openssl(&bundle, line);
    let out = look(&bundle.join("debug.tar.gz"), &secrets);
    for (name, holds) in [
        ("pools.txt", "main"),
        ("catalogue.json", "audit_lines"),
        ("process.txt", "VmRSS"),
        ("metrics.txt", "strongroom_"),
        ("logs/strongroom.log.1", "this line has none"),
    ] {
        let text = fs::read_to_string(out.join(name)).unwrap();
        assert!(text.contains(holds), "{name}: {text}");
    }
    let left: Vec<_> = files(&data)
        .into_iter()
        .filter(|path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().contains("bundle"))
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    served.stop();
}

#[test]
fn who_may_not_manage_gets_none_and_without_a_key_there_is_no_bundle() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let (code, _, err) = run(&data, "system debug --output x.tar");
    assert!(code != 0 && err.contains("support_key"), "{err}");
    // What can't be had leaves nothing.
    let left = fs::read_dir(dir.path()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("x.tar")), "{left:?}");
    fs::write(dir.path().join("pw"), "correct horse battery\n").unwrap();
    for line in [
        "users create seer --password-file pw --role viewer",
        &format!("{} --user seer", served.login()),
    ] {
        let (code, _, err) = run(&data, line);
        assert_eq!(code, 0, "{line}: {err}");
    }
    for what in ["logs", "debug"] {
        let (code, _, err) = run(&data, &format!("system {what} --output x.tar"));
        assert_eq!(code, 6, "{what}: {err}");
    }
    served.stop();
}

#[test]
fn large_logs_need_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    // Words that are too short to be taken for secrets.
    let line = |seed: u64| {
        let text = data_encoding::BASE64.encode(&noise(seed, 750));
        let words = text.as_bytes().chunks(30);
        words.map(|word| std::str::from_utf8(word).unwrap()).collect::<Vec<_>>().join(" ") + "\n"
    };
    let text: String = (0..4000).map(line).collect();
    for age in 1..=3 {
        fs::write(data.join(format!("logs/strongroom.log.{age}")), &text).unwrap();
    }
    let size = 3 * text.len() as u64;
    let status = |name: &str| {
        let text = fs::read_to_string(format!("/proc/{}/status", served.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    };
    // The peak is counted from now on.
    fs::write(format!("/proc/{}/clear_refs", served.id()), "5").unwrap();
    let before = status("VmHWM");
    let (code, _, err) = run(&data, "system logs --output logs.tar.gz");
    assert_eq!(code, 0, "{err}");
    let grown = status("VmHWM").saturating_sub(before);
    let made = fs::metadata(dir.path().join("logs.tar.gz")).unwrap().len();
    assert!(made > 8 << 20, "{made} bytes of {size}");
    assert!(grown < 6 << 20, "{grown} bytes of memory for {size} bytes of logs");
    served.stop();
}
