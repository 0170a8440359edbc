//! Every route of the OpenAPI document, called by every kind of principal, against `matrix.txt`:
//! a new route, or another right, shows there and must be looked at.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/credentials.rs"]
mod credentials;
mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use axum::body::Body;
use credentials::{Signer, Tokens};
use http::Request;
use serde_json::{Value, json};
use strongroom_api::Https;
use strongroom_api::route::LetThrough;
use strongroom_api::server::Peer;
use strongroom_archive::wire;
use strongroom_catalog::identity::{Grant, Role, User};
use strongroom_catalog::{Record, Sql};
use strongroom_identity::{KeyChange, KeySpec, Principal, Secret, UserSpec};
use support::{Answer, Appliance};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/matrix.txt");
const HEAD: &str = "\
# Who may call what. `+`: the request is let through to its handler; a number: it is refused with
# that status; `+` and a number: it is let through, and what is done there refuses the caller. All
# things asked for are there and belong to organisation A, directories and issuers to the appliance;
# the ingest and the reader were opened by A's operator.
#
# The callers, logged in with a password unless it says something else:
#   nobody
#   viewer, operator, tenant   a viewer, an operator and a tenant administrator of A
#   admin, auditor             an administrator and an auditor of the appliance
#   other                      a tenant administrator of organisation B
#   delegate                   an administrator of the appliance who acts for A's viewer
#   control                    who is at the control socket
#   oidc                       an operator of A, by a token of an issuer
#   signed                     A's operator, by requests signed with a key
#   jwt                        the auditor, with a JWT
#   key                        the administrator's key, for the operations that show pools
#   pool                       the administrator's key, for this pool
#   no-pool                    the administrator's key, for another pool
#   rights                     the administrator's key, with the rights to see pools and images
#   disabled, expired          the administrator's key that is switched off, session that is over
#
# When routes or rights change on purpose: UPDATE=1 cargo test -p strongroom-api --test matrix
";

const PASSWORD: &str = "correct horse battery";
/// What nothing of the appliance is called, and no number of it.
const NOWHERE: i64 = 999_999;

#[derive(Clone, Copy)]
enum Where {
    Root,
    A,
    B,
}

/// Users with a password: name, role, and where.
const USERS: [(&str, &str, Where); 7] = [
    ("viewer", "viewer", Where::A),
    ("operator", "operator", Where::A),
    ("tenant", "tenant administrator", Where::A),
    ("admin", "administrator", Where::Root),
    ("auditor", "auditor", Where::Root),
    ("other", "tenant administrator", Where::B),
    ("delegate", "administrator", Where::Root),
];

/// What is sent with a request to say who it is.
enum Sent {
    Nothing,
    Token(String),
    /// Through the control socket.
    Local,
    Signature(Box<Signer>),
}

struct Caller {
    name: &'static str,
    sent: Sent,
    /// Of a session: the user's name, and its kind.
    session: Option<(&'static str, &'static str)>,
}

/// The appliance, and what is asked for there; it is put back when a request removed it.
struct World {
    appliance: Appliance,
    root: i64,
    a: i64,
    b: i64,
    pool: i64,
    /// The image that readers read, by its id in the pool.
    image_root: String,
    user: i64,
    key: i64,
    role: i64,
    /// Another role, to be granted.
    granted: i64,
    directory: i64,
    issuer: i64,
    /// What brings all of it back.
    rows: Vec<Sql>,
    nonce: std::cell::Cell<u64>,
    /// Whether a request may have changed something since all was put back.
    changed: std::cell::Cell<bool>,
    _tokens: Tokens,
}

/// Numbers of what is nowhere but in a row.
const SESSION: i64 = 900;
const IMAGE: i64 = 902;
const JOB: i64 = 903;
const APPROVAL: i64 = 904;
const VOLUME: i64 = 907;
const SNAPSHOT: i64 = 908;

/// A column of text.
struct Text(String);

impl Record for Text {
    const COLUMNS: &'static str = "uuid";

    fn read(row: &mut strongroom_catalog::Row) -> strongroom_catalog::Result<Self> {
        Ok(Self(row.take()?))
    }
}

struct Settings(String);

impl Record for Settings {
    const COLUMNS: &'static str = "settings";

    fn read(row: &mut strongroom_catalog::Row) -> strongroom_catalog::Result<Self> {
        Ok(Self(row.take()?))
    }
}

fn key(user_id: i64, name: &str) -> KeySpec {
    KeySpec { user_id, name: name.into(), ..KeySpec::default() }
}

async fn role(appliance: &Appliance, name: &str) -> i64 {
    let role: Option<Role> = appliance.app.catalog().find_one(Role::by_name(name)).await.unwrap();
    role.unwrap().id
}

impl World {
    async fn new() -> (Self, Vec<Caller>) {
        let (appliance, tokens) = (Appliance::new().await, Tokens::start().await);
        let identity = appliance.app.identity().clone();
        identity.fetch_with(Arc::new(Https));
        let by = appliance.system().await;
        let root = by.root();
        let mut organisations = Vec::new();
        for name in ["A", "B"] {
            organisations.push(identity.create_organisation(&by, root, name, "").await.unwrap().id);
        }
        let (a, b) = (organisations[0], organisations[1]);
        // What one may do in an organisation is known from when one asks.
        let by = appliance.system().await;
        let mut world = Self {
            appliance,
            root,
            a,
            b,
            pool: 0,
            image_root: String::new(),
            user: 0,
            key: 0,
            role: 0,
            granted: 0,
            directory: 0,
            issuer: 0,
            rows: Vec::new(),
            nonce: std::cell::Cell::default(),
            changed: std::cell::Cell::new(true),
            _tokens: tokens,
        };
        let callers = world.callers(&by).await;
        world.things(&by).await;
        (world, callers)
    }

    async fn user(&self, by: &Principal, name: &str, at: i64, acts_for: Option<i64>) -> User {
        let spec = UserSpec {
            organisation_id: at,
            name: name.into(),
            password: Some(Secret::new(PASSWORD)),
            delegate_of: acts_for,
            ..UserSpec::default()
        };
        self.appliance.app.identity().create_user(by, spec).await.unwrap()
    }

    /// Logs somebody in.
    async fn log_in(&self, name: &str, kind: &str) -> String {
        let body = json!({"name": name, "password": PASSWORD, "kind": kind});
        let opened = self.appliance.call("", "POST", "/v1/sessions", Some(body)).await;
        assert_eq!(opened.status, 201, "{}", String::from_utf8_lossy(&opened.body));
        opened.json()["token"].as_str().unwrap().to_owned()
    }

    async fn callers(&self, by: &Principal) -> Vec<Caller> {
        let identity = self.appliance.app.identity();
        let mut callers = vec![Caller { name: "nobody", sent: Sent::Nothing, session: None }];
        let mut numbers = std::collections::HashMap::new();
        for (name, role_name, place) in USERS {
            let organisation_id = match place {
                Where::Root => self.root,
                Where::A => self.a,
                Where::B => self.b,
            };
            let acts_for = (name == "delegate").then(|| numbers["viewer"]);
            let user_id = self.user(by, name_of(name), organisation_id, acts_for).await.id;
            numbers.insert(name, user_id);
            let role_id = role(&self.appliance, role_name).await;
            identity.grant(by, Grant { user_id, role_id, organisation_id }).await.unwrap();
            callers.push(self.session(name, name_of(name), "session").await);
        }
        callers.push(Caller { name: "control", sent: Sent::Local, session: None });
        let token = |name, token| Caller { name, sent: Sent::Token(token), session: None };

        let admin = self.appliance.admin().await;
        let operator = role(&self.appliance, "operator").await;
        let groups = json!([{"group": "staff", "role_id": operator, "organisation_id": self.a}]);
        let mut body = self._tokens.body(groups);
        body["organisation_id"] = json!(self.a);
        let made = self.appliance.call(&admin, "POST", "/v1/issuers", Some(body)).await;
        assert_eq!(made.status, 201, "{}", made.json());
        callers.push(token("oidc", self._tokens.token("jo", &["staff"])));

        let make = async |spec: KeySpec| {
            let (key, secret) = identity.create_key(by, spec).await.unwrap();
            (key.id, secret.expose().to_owned())
        };
        let spec = KeySpec { shown_again: true, ..key(numbers["operator"], "signing") };
        let signer = Signer::new(&make(spec).await.1);
        callers.push(Caller {
            name: "signed",
            sent: Sent::Signature(Box::new(signer)),
            session: None,
        });
        callers.push(self.session("jwt", name_of("auditor"), "jwt").await);

        let own = |name: &str| key(numbers["admin"], name);
        let operations = ["pools.list", "pools.show", "me.show"].map(str::to_owned).into();
        let spec = KeySpec { operations: Some(operations), ..own("operations") };
        callers.push(token("key", make(spec).await.1));
        // Which pool is not known yet.
        callers.push(token("pool", make(own("pool")).await.1));
        let spec = KeySpec { pools: Some([NOWHERE].into()), ..own("no pool") };
        callers.push(token("no-pool", make(spec).await.1));
        let rights = ["pool.view".parse().unwrap(), "image.view".parse().unwrap()];
        let spec = KeySpec { rights: Some(rights.into_iter().collect()), ..own("rights") };
        callers.push(token("rights", make(spec).await.1));
        let (id, secret) = make(own("disabled")).await;
        let off = KeyChange { enabled: Some(false), ..KeyChange::default() };
        identity.change_key(by, id, None, off).await.unwrap();
        callers.push(token("disabled", secret));
        let expired = self.log_in(name_of("admin"), "session").await;
        let over = Sql::new(
            "UPDATE sessions SET expires_at = 1 WHERE id = (SELECT MAX(id) FROM sessions)",
        );
        assert_eq!(self.appliance.app.catalog().execute(over).await.unwrap(), 1);
        callers.push(token("expired", expired));
        callers
    }

    async fn session(&self, name: &'static str, user: &'static str, kind: &'static str) -> Caller {
        let sent = Sent::Token(self.log_in(user, kind).await);
        Caller { name, sent, session: Some((user, kind)) }
    }

    /// Makes what is asked for.
    async fn things(&mut self, by: &Principal) {
        let admin = self.appliance.admin().await;
        let made = async |path: &str, body: Value| {
            let made = self.appliance.call(&admin, "POST", path, Some(body)).await;
            assert!(matches!(made.status, 201 | 202), "{path}: {}", made.json());
            made.json()
        };
        let place = self.appliance.dir.path();
        let body = json!({"name": "thing", "path": place.join("pool"), "encrypted": false,
            "organisation_id": self.a});
        let pool = made("/v1/pools", body).await["pool"]["id"].as_i64().unwrap();
        std::fs::write(place.join("file"), "content").unwrap();
        let body = json!({"paths": [place.join("file")], "name": "read"});
        let job = made(&format!("/v1/pools/{pool}/backups"), body).await["id"].as_i64().unwrap();
        self.appliance.app.protect().engine().wait(job).await.unwrap();
        let images = self.appliance.call(&admin, "GET", "/v1/images", None).await.json();
        let image_root = images["items"][0]["root"].as_str().unwrap().to_owned();
        let directory = json!({"name": "thing of ldap", "connection": {"url": "ldaps://127.0.0.1:9",
            "base_dn": "dc=corp"}});
        let directory = made("/v1/directories", directory).await["id"].as_i64().unwrap();
        let checks = json!({"issuer": "https://127.0.0.1:9", "audiences": ["strongroom"]});
        let issuer = json!({"name": "thing of oidc", "checks": checks});
        let issuer = made("/v1/issuers", issuer).await["id"].as_i64().unwrap();
        let user = self.user(by, "somebody", self.a, None).await.id;
        let identity = self.appliance.app.identity();
        let (thing, _) = identity.create_key(by, key(user, "thing")).await.unwrap();
        // The key that is for this pool.
        let pools = KeyChange { pools: Some(Some([pool].into())), ..KeyChange::default() };
        let keys = self.appliance.call(&admin, "GET", "/v1/keys?filter=name:==pool", None).await;
        let narrowed = keys.json()["items"][0]["id"].as_i64().unwrap();
        identity.change_key(by, narrowed, None, pools).await.unwrap();

        let catalog = self.appliance.app.catalog();
        let uuid = Sql::new("FROM pools WHERE id = ?").bind(pool);
        let uuid = catalog.find_one::<Text>(uuid).await.unwrap().unwrap().0;
        let mut sources = Vec::new();
        for (id, kind) in [(directory, "ldap"), (issuer, "oidc")] {
            let settings = Sql::new("FROM sources WHERE id = ?").bind(id);
            let settings = catalog.find_one::<Settings>(settings).await.unwrap().unwrap().0;
            sources.push((id, kind, settings));
        }
        self.role = role(&self.appliance, "viewer").await;
        self.granted = role(&self.appliance, "operator").await;
        (self.pool, self.image_root, self.user, self.key) = (pool, image_root, user, thing.id);
        (self.directory, self.issuer) = (directory, issuer);
        let path = self.appliance.dir.path().join("pool").display().to_string();
        self.rows = self.rows_of(&uuid, &path, sources);
        self.put_back().await;
    }

    fn rows_of(&self, uuid: &str, path: &str, sources: Vec<(i64, &str, String)>) -> Vec<Sql> {
        let mut rows = vec![
            // What was made by requests.
            Sql::new("DELETE FROM api_keys WHERE name = 'made'"),
            Sql::new("DELETE FROM users WHERE name = 'made'"),
            Sql::new("DELETE FROM organisations WHERE name = 'made'"),
            Sql::new("DELETE FROM grants WHERE user_id = ?").bind(self.user),
            Sql::new(
                "INSERT INTO organisations (id, parent_id, name, created_at) VALUES (?, ?, 'A', 0) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(self.a)
            .bind(self.root),
            Sql::new(
                "INSERT INTO users (id, organisation_id, name, folded, source, enabled, created_at) \
                 VALUES (?, ?, 'somebody', 'somebody', 'local', 1, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.user)
            .bind(self.a),
            Sql::new(
                "INSERT INTO api_keys (id, user_id, organisation_id, name, prefix, hash, enabled, \
                 created_at) VALUES (?, ?, ?, 'thing', 'thing', ?, 1, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.key)
            .bind(self.user)
            .bind(self.a)
            .bind(vec![1u8; 32]),
            Sql::new(
                "INSERT INTO sessions (id, user_id, kind, hash, address, agent, created_at, used_at, \
                 expires_at) VALUES (?, ?, 'session', ?, '', '', 0, 0, 0) ON CONFLICT DO NOTHING",
            )
            .bind(SESSION)
            .bind(self.user)
            .bind(vec![2u8; 32]),
            Sql::new(
                "INSERT INTO pools (id, uuid, name, organisation_id, path, created_at) \
                 VALUES (?, ?, 'thing', ?, ?, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.pool)
            .bind(uuid)
            .bind(self.a)
            .bind(path),
            Sql::new(
                "INSERT INTO jobs (id, kind, state, priority, organisation_id, pool_id, user_name, \
                 parameters, queued_at, run_at, changed_at) \
                 VALUES (?, 'gc', 'succeeded', 0, ?, ?, '', '{}', 0, 0, 0) \
                 ON CONFLICT (id) DO UPDATE SET pool_id = excluded.pool_id",
            )
            .bind(JOB)
            .bind(self.a)
            .bind(self.pool),
            Sql::new("DELETE FROM approvals WHERE id = ?").bind(APPROVAL),
            Sql::new(
                "INSERT INTO approvals (id, organisation_id, operation, object, request, asker, \
                 asked_at, expires_at, state) \
                 VALUES (?, ?, 'images.forget', 'image 1', '00', 'somebody', 0, ?, 'asked')",
            )
            .bind(APPROVAL)
            .bind(self.a)
            .bind(250_000_000_000_000_000_i64),
            Sql::new(
                "INSERT INTO audit_sender (id, settings, last, version) VALUES (1, ?, 0, 1) \
                 ON CONFLICT DO NOTHING",
            )
            .bind(r#"{"protocol":"udp","host":"127.0.0.1","port":9,"ca_certificate":null}"#),
            Sql::new("INSERT INTO grants (user_id, role_id, organisation_id) VALUES (?, ?, ?)")
                .bind(self.user)
                .bind(self.role)
                .bind(self.a),
        ];
        rows.extend(sources.into_iter().map(|(id, kind, settings)| {
            Sql::new(
                "INSERT INTO sources (id, kind, name, organisation_id, enabled, settings, \
                 created_at) VALUES (?, ?, 'thing of ' || ?, ?, 1, ?, 0) ON CONFLICT DO NOTHING",
            )
            .bind(id)
            .bind(kind)
            .bind(kind)
            .bind(self.root)
            .bind(settings)
        }));
        rows
    }

    async fn put_back(&self) {
        let mut tx = self.appliance.app.catalog().begin().await.unwrap();
        if self.changed.replace(false) {
            for sql in &self.rows {
                tx.execute(sql.clone()).await.unwrap();
            }
        }
        // Rows of images and volumes follow the pool, which has none such.
        let image = Sql::new(
            "INSERT INTO images (id, pool_id, organisation_id, root, name, kind, host, \
             user_name, paths, tags, complete, started_at, created_at, files, size, new_size, \
             stored_size, search) VALUES (?, ?, ?, '00', 'thing', 'files', '', '', '', '', 1, \
             0, 0, 0, 0, 0, 0, '') ON CONFLICT DO NOTHING",
        )
        .bind(IMAGE)
        .bind(self.pool)
        .bind(self.a);
        tx.execute(image).await.unwrap();
        let volume = Sql::new(
            "INSERT INTO volumes (id, pool_id, organisation_id, uuid, public_id, name, size, \
             block_size, sector_size, thin, deduplicated, compressed, cached, io_type, priority, \
             origin, created_at) VALUES (?, ?, ?, '00', 'v', 'thing', 512, 4096, 512, 1, 1, 1, 1, \
             'sequential', 16, '', 0) ON CONFLICT DO NOTHING",
        )
        .bind(VOLUME)
        .bind(self.pool)
        .bind(self.a);
        tx.execute(volume).await.unwrap();
        let snapshot = Sql::new(
            "INSERT INTO snapshots (id, volume_id, pool_id, organisation_id, uuid, public_id, name, \
             size, created_at) VALUES (?, ?, ?, ?, '00', 's', 'thing', 512, 0) \
             ON CONFLICT DO NOTHING",
        )
        .bind(SNAPSHOT)
        .bind(VOLUME)
        .bind(self.pool)
        .bind(self.a);
        tx.execute(snapshot).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The path with all that is asked for; `opened` is the ingest's or reader's name.
    fn fill(&self, path: &str, opened: &str) -> String {
        let mut filled = path.to_owned();
        for (name, id) in [
            ("organisation", self.a),
            ("user", self.user),
            ("key", self.key),
            ("session", SESSION),
            ("role", self.role),
            ("pool", self.pool),
            ("image", IMAGE),
            ("volume", VOLUME),
            ("snapshot", SNAPSHOT),
            ("job", JOB),
            ("approval", APPROVAL),
            // None that is there.
            ("slot", 906),
            ("directory", self.directory),
            ("issuer", self.issuer),
        ] {
            filled = filled.replace(&format!("{{{name}}}"), &id.to_string());
        }
        for (name, text) in [
            ("setting", "sessions.idle"),
            ("ingest", opened),
            ("reader", opened),
            ("root", &self.image_root),
        ] {
            filled = filled.replace(&format!("{{{name}}}"), text);
        }
        assert!(!filled.contains('{'), "{path}: the test knows no such thing");
        filled
    }

    /// What is sent to those that decide by what is in a body, or by whose a thing is, after the
    /// request was let through.
    fn telling(&self, id: &str, method: &str, takes_body: bool) -> Option<Vec<u8>> {
        let body = match id {
            "approvals.decide" => json!({"approve": false}),
            "keys.create" => json!({"name": "made", "user_id": self.user}),
            "keys.change" => json!({"name": "thing"}),
            "users.create" => json!({"name": "made", "organisation_id": self.a}),
            "users.grant" => json!({"role_id": self.granted, "organisation_id": self.a}),
            "organisations.create" => json!({"name": "made", "parent_id": self.a}),
            "ingests.open" => json!({"object": "made"}),
            "ingests.progress" => json!({"bytes_done": 1, "items_done": 1}),
            "ingests.lean" => json!({"root": self.image_root}),
            "ingests.commit" => json!({"name": "made", "top": "00".repeat(32), "meta": "00"}),
            "readers.nodes" | "readers.chunks" => {
                let (ahead, wanted) = (1, Vec::new());
                return Some(wire::Request { compress: false, must: 0, ahead, wanted }.encode());
            }
            id if id.starts_with("ingests.") || id.starts_with("readers.") => {
                return Some(Vec::new());
            }
            // The rows of these have nothing in the pool.
            id if ["images.", "volumes.", "snapshots."].iter().any(|of| id.starts_with(of)) => {
                return None;
            }
            _ if !takes_body && method != "GET" => return Some(Vec::new()),
            _ => return None,
        };
        Some(body.to_string().into_bytes())
    }

    /// Opens what belongs to its opener alone, as the operator; its name.
    async fn open(&self, path: &str, operator: &str) -> String {
        let (what, body) = match path {
            path if path.contains("{ingest}") => ("ingests", Some(json!({"object": "thing"}))),
            path if path.contains("{reader}") => ("readers", None),
            _ => return String::new(),
        };
        let place = format!("/v1/pools/{}/{what}", self.pool);
        let opened = self.appliance.call(operator, "POST", &place, body).await;
        assert_eq!(opened.status, 201, "{}", String::from_utf8_lossy(&opened.body));
        let opened = opened.json();
        opened.get("id").unwrap_or(&opened["reader"]).as_str().unwrap().to_owned()
    }

    async fn close(&self, path: &str, opened: &str, operator: &str) {
        let what = if path.contains("{ingest}") { "ingests" } else { "readers" };
        if !opened.is_empty() {
            let place = format!("/v1/pools/{}/{what}/{opened}", self.pool);
            self.appliance.call(operator, "DELETE", &place, None).await;
        }
    }

    fn request(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Request<Body> {
        if let Sent::Signature(signer) = &caller.sent {
            self.nonce.set(self.nonce.get() + 1);
            let nonce = format!("nonce-number-{:08}", self.nonce.get());
            let (kind, bytes) =
                body.map_or((None, Vec::new()), |(kind, bytes)| (Some(kind), bytes));
            return signer.request_of(method, path, kind, &bytes, &nonce);
        }
        let mut request = Request::builder().method(method).uri(path);
        if let Sent::Token(token) = &caller.sent {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let bytes = match body {
            Some((kind, bytes)) => {
                request = request.header("content-type", kind);
                bytes
            }
            None => Vec::new(),
        };
        let mut request = request.body(Body::from(bytes)).unwrap();
        if let Sent::Local = caller.sent {
            let uid = rustix::process::getuid().as_raw();
            request.extensions_mut().insert(Peer::Local { uid });
        }
        request
    }

    async fn cell(
        &self,
        caller: &Caller,
        operator: &str,
        method: &str,
        path: &str,
        operation: &Value,
    ) -> String {
        self.put_back().await;
        let id = operation["operationId"].as_str().unwrap();
        let opened = self.open(path, operator).await;
        let telling = self.telling(id, method, operation["requestBody"].is_object());
        let body = operation["requestBody"]["content"].as_object().map(|content| {
            let kind = content.keys().next().unwrap().as_str();
            // A body that no route takes: who is let through is refused then, and nothing is changed.
            (kind, telling.clone().unwrap_or_else(|| b"[]".to_vec()))
        });
        let mut filled = self.fill(path, &opened);
        // Parameters that must be there.
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let needed = parameters.filter(|p| p["in"] == "query" && p["required"] == true);
        let needed = needed.map(|p| match p["name"].as_str().unwrap() {
            "role_id" => format!("role_id={}", self.role),
            "organisation_id" => format!("organisation_id={}", self.a),
            name => format!("{name}=1"),
        });
        let needed: Vec<_> = needed.collect();
        if !needed.is_empty() {
            filled = format!("{filled}?{}", needed.join("&"));
        }
        let request = self.request(caller, method, &filled, body);
        let answer = self.appliance.begin(request).await;
        let through = answer.extensions().get::<LetThrough>().is_some();
        let status = answer.status().as_u16();
        drop(answer);
        if through && !["GET", "HEAD", "OPTIONS"].contains(&method) {
            self.changed.set(true);
        }
        self.close(path, &opened, operator).await;
        match (through, status) {
            (true, 500) => panic!("{method} {path} as {}: it failed", caller.name),
            (true, 403 | 404) if telling.is_some() => format!("+{status}"),
            (true, _) => "+".to_owned(),
            (false, 401 | 403 | 404) => status.to_string(),
            (false, _) => panic!("{method} {path} as {}: {status}", caller.name),
        }
    }
}

/// The name of the user who is called so in the table.
fn name_of(caller: &'static str) -> &'static str {
    match caller {
        "admin" => "the admin",
        other => other,
    }
}

fn compare(table: &str) {
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(TABLE, table).unwrap();
    }
    let committed = std::fs::read_to_string(TABLE).unwrap_or_default();
    let made: BTreeSet<_> = table.lines().collect();
    let there: BTreeSet<_> = committed.lines().collect();
    let new: Vec<_> = made.difference(&there).collect();
    let gone: Vec<_> = there.difference(&made).collect();
    assert!(
        table == committed,
        "who may call what has changed:\nnow  {new:#?}\nuntil now {gone:#?}"
    );
}

#[tokio::test]
async fn the_table_says_who_may_call_what() {
    let (world, mut callers) = World::new().await;
    let mut table = HEAD.to_owned();
    let names = callers.iter().map(|caller| format!("{:>9}", caller.name)).collect::<String>();
    writeln!(table, "# {:<76}{names}", "").unwrap();
    let document: Value =
        serde_json::from_str(&strongroom_api::native::routes().document()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let method = method.to_uppercase();
            let mut cells = String::new();
            for at in 0..callers.len() {
                let operator = callers.iter().find(|caller| caller.name == "operator").unwrap();
                let Sent::Token(operator) = &operator.sent else { unreachable!() };
                let caller = &callers[at];
                let cell = world.cell(caller, operator, &method, path, operation).await;
                if ["nobody", "disabled", "expired"].contains(&caller.name)
                    && operation["security"] != json!([])
                {
                    assert_eq!(cell, "401", "{method} {path}: {} may call it", caller.name);
                }
                write!(cells, "{cell:>9}").unwrap();
                if let (Some((user, kind)), "sessions.close_own") = (caller.session, id) {
                    callers[at].sent = Sent::Token(world.log_in(user, kind).await);
                }
            }
            writeln!(table, "{method:<7} {path:<42} {id:<27}{cells}").unwrap();
        }
    }
    compare(&table);
}

#[tokio::test]
async fn what_the_table_calls_by_name_is_who_it_says() {
    let (world, callers) = World::new().await;
    let me = async |caller: &Caller| -> Answer {
        world.appliance.ask(world.request(caller, "GET", "/v1/me", None)).await
    };
    for (name, via) in [
        ("viewer", "session"),
        ("delegate", "session"),
        ("control", "local"),
        ("oidc", "oidc"),
        ("signed", "signed"),
        ("jwt", "jwt"),
        ("pool", "key"),
    ] {
        let caller = callers.iter().find(|caller| caller.name == name).unwrap();
        assert_eq!(me(caller).await.json()["via"], via, "{name}");
    }
    for name in ["nobody", "disabled", "expired"] {
        let caller = callers.iter().find(|caller| caller.name == name).unwrap();
        assert_eq!(me(caller).await.status, 401, "{name}");
    }
}
