//! Scripts for NGX Storage: by curl, and by the snippets of its document in other languages.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::support::served::{Served, ask};
use crate::support::{output, tool};
use crate::up::{run, until};

/// As the document has it, but for the address.
const PYTHON: &str = "import requests
headers = {
    'Authorization': 'Bearer <API_KEY>',
}
response = requests.get('<URL>/api/v2/pool/<POOL_ID>', headers=headers)
print(response.text)
";

/// As the document has it, but for the address; it says what came.
const FETCH: &str = "fetch('<URL>/api/v2/pool/<POOL_ID>', {
    headers: {
        'Authorization': 'Bearer <API_KEY>'
    }
}).then(response => response.text()).then(text => console.log(text));
";

struct World<'a> {
    served: &'a Served,
    key: String,
}

impl World<'_> {
    fn url(&self) -> &str {
        self.served.told["urls"][0].as_str().unwrap()
    }

    /// What curl prints; a body is sent as JSON.
    fn curl(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut curl = tool("curl");
        curl.args(["-sk", "--max-time", "60", "-w", "\n%{http_code}", "-X", method]);
        curl.args(["-H", &format!("Authorization: Bearer {}", self.key)]);
        if let Some(body) = body {
            curl.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
        }
        let out = output(curl.arg(format!("{}/api/v2{path}", self.url())));
        let out = String::from_utf8(out).unwrap();
        let (body, status) = out.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), serde_json::from_str(body).unwrap())
    }

    fn get(&self, path: &str) -> Value {
        let (status, body) = self.curl("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    fn change(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, body) = self.curl(method, path, Some(body));
        assert_eq!(status, 200, "{method} {path}: {body}");
        body
    }

    /// A snippet with what is to be filled in, by its interpreter, which believes in the appliance's
    /// certificate.
    fn snippet(&self, data: &Path, command: &mut Command, text: &str, pool: &str) -> Value {
        let text = text.replace("<URL>", self.url()).replace("<API_KEY>", &self.key);
        let certificate = data.join("tls/cert.pem");
        command.env("REQUESTS_CA_BUNDLE", &certificate).env("NODE_EXTRA_CA_CERTS", &certificate);
        let out = output(command.arg(text.replace("<POOL_ID>", pool)));
        serde_json::from_slice(&out).unwrap()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

/// A key that the command line makes.
fn key(data: &Path, words: &str) -> (String, String) {
    let line = format!("--json keys create {words}");
    let (code, out, err) = run(data, &line);
    assert_eq!(code, 0, "{line}: {err}");
    let made: Value = serde_json::from_str(&out).unwrap();
    (text(&made["secret"]), made["key"]["id"].to_string())
}

fn pool(data: &Path, name: &str) {
    let path = data.parent().unwrap().join(name);
    let body = json!({"name": name, "path": path, "encrypted": false});
    let (status, made) = ask(data, "POST", "/v1/pools", Some(body));
    assert_eq!(status, 201, "{made}");
}

#[test]
fn luns_are_provisioned_by_a_key_and_the_snippets_of_the_document() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    pool(&data, "nvme1");
    pool(&data, "ryo2");
    let (secret, number) = key(&data, "csi --user admin --dialect ngx --pool nvme1");
    let world = World { served: &served, key: secret.clone() };

    let made = world.change(
        "POST",
        "/lun/",
        json!({"pool_name": "nvme1", "name": "vol", "size": 1, "sing": "G"}),
    );
    let lun = text(&made["luns"][0]["id"]);
    // The lines that are asked for, as they are typed.
    for (path, wanted) in
        [("lun/list", "vol"), ("status/capacity", "nvme1"), ("snapshot/list", "luns")]
    {
        let script = r#"curl -sk -H "Authorization: Bearer $KEY" "$URL/api/v2/$1" | jq ."#;
        let mut sh = tool("sh");
        sh.args(["-c", script, "sh", path]).env("KEY", &secret).env("URL", world.url());
        let out = String::from_utf8(output(&mut sh)).unwrap();
        assert!(out.contains(wanted) && !out.contains("ryo2"), "{path}: {out}");
    }
    let pools = world.get("/pool");
    assert_eq!(pools.as_array().unwrap().len(), 1, "{pools}");
    let pool = text(&pools[0]["pool_id"]);
    let shown = world.get(&format!("/pool/{pool}"));
    assert_eq!((&shown["status"], &shown["encryption"]), (&"ONLINE".into(), &0.into()));
    let mut python = tool("python3");
    assert_eq!(world.snippet(&data, python.arg("-c"), PYTHON, &pool), shown);
    let mut node = tool("node");
    assert_eq!(world.snippet(&data, node.arg("-e"), FETCH, &pool), shown);

    // What disks do is noted by itself.
    let mut told = Value::Null;
    until("it is told what disks do", || {
        told = world.get("/status/bandwidth");
        !told["total"].is_null()
    });
    for name in ["read", "write", "total"] {
        let disks = told["disks"].as_object().unwrap().values();
        let sum: u64 = disks.map(|disk| disk[name].as_u64().unwrap()).sum();
        assert_eq!(told[name], sum, "{told}");
    }

    // A snapshot, a copy, more room.
    let snapshot = world.change("POST", "/snapshot", json!({"name": "s", "volume_id": lun}));
    let clone = format!("/snapshot/clone/{}", text(&snapshot["id"]));
    let copy = text(&world.change("POST", &clone, json!({"name": "copy"}))["volume_id"]);
    world.change("PATCH", &format!("/lun/{lun}"), json!({"size": 1, "sing": "G"}));
    assert_eq!(world.get(&format!("/lun/{lun}"))["vol_size"], (2u64 << 30).to_string());
    assert_eq!(world.get(&format!("/lun/{copy}"))["vol_size"], (1u64 << 30).to_string());

    // An initiator finds what is mapped, with the secret alone.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let group = text(&world.change("POST", "/auth_group", json!({"name": "g"}))["id"]);
    let chap = json!({"username": "user", "password": "secretsecret"});
    world.change("PATCH", &format!("/auth_group/chap/{group}"), chap);
    let portal = json!({"name": "p", "listen_ips": [format!("127.0.0.1:{port}")]});
    let portal = text(&world.change("POST", "/portal_group", portal)["id"]);
    let target = json!({"name": "t", "auth_group_id": group, "portal_group_id": portal});
    let target = world.change("POST", "/target/iscsi", target);
    let map = format!("/target/iscsi/lun/{}", text(&target["id"]));
    world.change("PUT", &map, json!({"lun_ids": [lun]}));
    assert_eq!(world.get("/status/services")["san"], 1);
    let iqn = text(&target["target_iqn"]);
    let list = |user: &str| {
        let url = format!("iscsi://{user}127.0.0.1:{port}/");
        let mut ls = tool("iscsi-ls");
        ls.args(["-s", &url]).stderr(Stdio::null());
        String::from_utf8_lossy(&ls.output().unwrap().stdout).into_owned()
    };
    until("what is mapped is found", || {
        let told = list("user%secretsecret@");
        told.contains(&iqn) && told.contains("Lun:0")
    });
    assert!(!list("user%wrongwrongwrong@").contains("Lun:0"));
    let serial = text(&world.get(&format!("/lun/{lun}"))["scsi_lunid"]);
    let mut inq = tool("iscsi-inq");
    inq.args(["-e", "1", "-c", "128"]);
    let inq = inq.arg(format!("iscsi://user%secretsecret@127.0.0.1:{port}/{iqn}/0"));
    let told = String::from_utf8(output(inq)).unwrap();
    assert!(told.contains(&serial), "{told}");
    assert_eq!(world.curl("DELETE", &format!("/lun/{lun}"), None).1["code"], 534);

    // The key holds over a start, is shown again, and is switched off at once.
    served.stop();
    let served = Served::start(&data);
    let world = World { served: &served, key: secret.clone() };
    assert_eq!(world.get("/lun").as_array().unwrap().len(), 2);
    let (code, out, err) = run(&data, &format!("keys reveal {number}"));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(&secret));
    let (reads, _) =
        key(&data, "watch --user admin --dialect ngx --allow lun.read --allow ngx.pool.list");
    let reads = World { served: &served, key: reads };
    assert_eq!(reads.get("/lun").as_array().unwrap().len(), 2);
    // With that of the first run.
    assert_eq!(reads.get("/pool").as_array().unwrap().len(), 3);
    assert_eq!(reads.curl("GET", "/pool/list", None).1["code"], 9403);
    assert_eq!(run(&data, &format!("keys disable {number}")).0, 0);
    let (status, body) = world.curl("GET", "/lun", None);
    assert_eq!((status, &body["code"]), (401, &5000.into()));
    let (code, _, err) = run(&data, "keys create x --user admin --dialect ngx --allow lun.raed");
    assert!(code != 0 && err.contains("lun.read"), "{code} {err}");
    let log = served.log();
    assert!(!log.contains(&secret) && !log.contains("secretsecret"));
    served.stop();
}

#[test]
fn later_shapes_are_a_setting_of_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    Served::start(&data).stop();
    let config = data.join("strongroom.toml");
    let before = fs::read_to_string(&config).unwrap();
    fs::write(&config, before + "\nngx_api = \"2.4\"\n").unwrap();
    let served = Served::start(&data);
    pool(&data, "nvme1");
    let (secret, _) = key(&data, "k --user admin --dialect ngx");
    let world = World { served: &served, key: secret };
    assert_eq!(world.get("/snapshot/list"), json!([]));
    let capacity = world.get("/status/capacity");
    let names: Vec<_> = capacity.as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
    assert_eq!(names, ["main", "nvme1"]);
    served.stop();
}
