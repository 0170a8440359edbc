//! Every route of the OpenAPI document, called by every kind of principal, against `matrix.txt`:
//! a new route, or another right, shows there and must be looked at.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::{Value, json};
use strongroom_api::route::LetThrough;
use strongroom_catalog::Sql;
use strongroom_catalog::identity::{Grant, Organisation, Role, User};
use strongroom_identity::{KeySpec, Principal, UserSpec};
use support::{Appliance, request};

const TABLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/matrix.txt");
const HEAD: &str = "\
# Who may call what. `+`: the request is let through to its handler; a number: it is refused with
# that status. All things asked for belong to organisation A. The callers: nobody; a viewer, an
# operator and a tenant administrator of A; an administrator and an auditor of the appliance; a
# tenant administrator of organisation B; a key of the administrator that is for showing pools.
# When routes or rights change on purpose: UPDATE=1 cargo test -p strongroom-api --test matrix
";

/// The callers: name, role, and where.
const CALLERS: [(&str, &str, Where); 6] = [
    ("viewer", "viewer", Where::A),
    ("operator", "operator", Where::A),
    ("tenant", "tenant administrator", Where::A),
    ("admin", "administrator", Where::Root),
    ("auditor", "auditor", Where::Root),
    ("other", "tenant administrator", Where::B),
];

#[derive(Clone, Copy)]
enum Where {
    Root,
    A,
    B,
}

/// What is asked for; it is put back when a request removed it.
struct Things {
    organisation: i64,
    user: i64,
    key: i64,
    session: i64,
    role: i64,
    pool: i64,
    image: i64,
    job: i64,
    approval: i64,
    directory: i64,
    issuer: i64,
}

async fn organisation(appliance: &Appliance, by: &Principal, name: &str) -> Organisation {
    let identity = appliance.app.identity();
    identity.create_organisation(by, by.root(), name, "").await.unwrap()
}

async fn user(appliance: &Appliance, by: &Principal, name: &str, organisation: i64) -> User {
    let spec = UserSpec {
        organisation_id: organisation,
        name: name.into(),
        full_name: String::new(),
        email: String::new(),
        password: None,
        must_change: false,
        delegate_of: None,
    };
    appliance.app.identity().create_user(by, spec).await.unwrap()
}

async fn role(appliance: &Appliance, name: &str) -> i64 {
    let role: Option<Role> = appliance.app.catalog().find_one(Role::by_name(name)).await.unwrap();
    role.unwrap().id
}

fn key(user_id: i64, name: &str) -> KeySpec {
    KeySpec {
        user_id,
        name: name.into(),
        expires_at: None,
        rights: None,
        pools: None,
        operations: None,
        shown_again: false,
    }
}

/// The callers' names and tokens.
async fn callers(appliance: &Appliance, by: &Principal, a: i64, b: i64) -> Vec<(String, String)> {
    let identity = appliance.app.identity();
    let mut callers = vec![("nobody".to_owned(), String::new())];
    for (name, role_name, place) in CALLERS {
        let organisation_id = match place {
            Where::Root => by.root(),
            Where::A => a,
            Where::B => b,
        };
        let user_id = user(appliance, by, &format!("the {name}"), organisation_id).await.id;
        let role_id = role(appliance, role_name).await;
        identity.grant(by, Grant { user_id, role_id, organisation_id }).await.unwrap();
        let (_, secret) = identity.create_key(by, key(user_id, "matrix")).await.unwrap();
        callers.push((name.to_owned(), secret.expose().to_owned()));
        if name == "admin" {
            let mut narrow = key(user_id, "narrow");
            let operations = ["pools.list", "pools.show", "me.show"].map(str::to_owned);
            narrow.operations = Some(operations.into());
            let (_, secret) = identity.create_key(by, narrow).await.unwrap();
            callers.push(("key".to_owned(), secret.expose().to_owned()));
        }
    }
    callers.sort_by_key(|(name, _)| name == "key");
    callers
}

impl Things {
    async fn new(appliance: &Appliance, by: &Principal, organisation: i64) -> Self {
        let user = user(appliance, by, "somebody", organisation).await.id;
        let (key, _) = appliance.app.identity().create_key(by, key(user, "thing")).await.unwrap();
        let role = role(appliance, "viewer").await;
        let (key, session) = (key.id, 900);
        let things = Self {
            organisation,
            user,
            key,
            session,
            role,
            pool: 901,
            image: 902,
            job: 903,
            approval: 904,
            directory: 905,
            issuer: 906,
        };
        things.put_back(appliance).await;
        things
    }

    async fn put_back(&self, appliance: &Appliance) {
        let mut tx = appliance.app.catalog().begin().await.unwrap();
        let statements = [
            Sql::new(
                "INSERT INTO organisations (id, parent_id, name, created_at) \
                 SELECT ?, MIN(id), 'A', 0 FROM organisations WHERE parent_id IS NULL \
                 ON CONFLICT DO NOTHING",
            )
            .bind(self.organisation),
            Sql::new(
                "INSERT INTO users (id, organisation_id, name, folded, source, enabled, created_at) \
                 VALUES (?, ?, 'somebody', 'somebody', 'local', 1, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.user)
            .bind(self.organisation),
            Sql::new(
                "INSERT INTO api_keys (id, user_id, organisation_id, name, prefix, hash, enabled, \
                 created_at) VALUES (?, ?, ?, 'thing', 'thing', ?, 1, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.key)
            .bind(self.user)
            .bind(self.organisation)
            .bind(vec![1u8; 32]),
            Sql::new(
                "INSERT INTO sessions (id, user_id, kind, hash, address, agent, created_at, used_at, \
                 expires_at) VALUES (?, ?, 'session', ?, '', '', 0, 0, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.session)
            .bind(self.user)
            .bind(vec![2u8; 32]),
            Sql::new(
                "INSERT INTO pools (id, uuid, name, organisation_id, path, created_at) \
                 VALUES (?, '00', 'thing', ?, '/nowhere', 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.pool)
            .bind(self.organisation),
            Sql::new(
                "INSERT INTO images (id, pool_id, organisation_id, root, name, kind, host, \
                 user_name, paths, tags, complete, started_at, created_at, files, size, new_size, \
                 stored_size, search) VALUES (?, ?, ?, '00', 'thing', 'files', '', '', '', '', 1, \
                 0, 0, 0, 0, 0, 0, '') ON CONFLICT DO NOTHING",
            )
            .bind(self.image)
            .bind(self.pool)
            .bind(self.organisation),
            Sql::new(
                "INSERT INTO jobs (id, kind, state, priority, organisation_id, user_name, \
                 parameters, queued_at, run_at, changed_at) \
                 VALUES (?, 'gc', 'succeeded', 0, ?, '', '{}', 0, 0, 0) ON CONFLICT DO NOTHING",
            )
            .bind(self.job)
            .bind(self.organisation),
        ];
        for sql in statements {
            tx.execute(sql).await.unwrap();
        }
        tx.commit().await.unwrap();
    }

    fn fill(&self, path: &str) -> String {
        let mut filled = path.to_owned();
        for (name, id) in [
            ("organisation", self.organisation),
            ("user", self.user),
            ("key", self.key),
            ("session", self.session),
            ("role", self.role),
            ("pool", self.pool),
            ("image", self.image),
            ("job", self.job),
            ("approval", self.approval),
            // Only its opener has one.
            ("ingest", 905),
            // None that is there.
            ("slot", 906),
            ("directory", self.directory),
            ("issuer", self.issuer),
        ] {
            filled = filled.replace(&format!("{{{name}}}"), &id.to_string());
        }
        filled = filled.replace("{setting}", "sessions.idle");
        for name in ["reader", "root"] {
            filled = filled.replace(&format!("{{{name}}}"), "00112233445566778899aabbccddeeff");
        }
        assert!(!filled.contains('{'), "{path}: the test knows no such thing");
        filled
    }
}

#[tokio::test]
async fn the_table_says_who_may_call_what() {
    let appliance = Appliance::new().await;
    let by = appliance.system().await;
    let (a, b) =
        (organisation(&appliance, &by, "A").await.id, organisation(&appliance, &by, "B").await.id);
    // What one may do in an organisation is known from when one asks.
    let by = appliance.system().await;
    let callers = callers(&appliance, &by, a, b).await;
    let things = Things::new(&appliance, &by, a).await;

    let mut table = HEAD.to_owned();
    let names = callers.iter().map(|(name, _)| format!("{name:>9}")).collect::<String>();
    writeln!(table, "# {:<76}{names}", "").unwrap();
    let document: Value =
        serde_json::from_str(&strongroom_api::native::routes().document()).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            let method = method.to_uppercase();
            let mut cells = String::new();
            for (name, token) in &callers {
                things.put_back(&appliance).await;
                let cell = cell(&appliance, &things, token, &method, path, operation).await;
                if name == "nobody" && operation["security"] != json!([]) {
                    assert_eq!(cell, "401", "{method} {path}: nobody may call it");
                }
                write!(cells, "{cell:>9}").unwrap();
            }
            writeln!(table, "{method:<7} {path:<42} {id:<27}{cells}").unwrap();
        }
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(TABLE, &table).unwrap();
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

async fn cell(
    appliance: &Appliance,
    things: &Things,
    token: &str,
    method: &str,
    path: &str,
    operation: &Value,
) -> String {
    // A body that no route takes: who is let through is refused then, and nothing is changed.
    let body = operation["requestBody"].is_object().then(|| json!([]));
    let mut path = things.fill(path);
    // Parameters that must be there.
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let needed = parameters.filter(|p| p["in"] == "query" && p["required"] == true);
    let needed: Vec<_> = needed.map(|p| format!("{}=1", p["name"].as_str().unwrap())).collect();
    if !needed.is_empty() {
        path = format!("{path}?{}", needed.join("&"));
    }
    let answer = appliance.begin(request(token, method, &path, body, &[])).await;
    if answer.extensions().get::<LetThrough>().is_some() {
        return "+".to_owned();
    }
    let status = answer.status().as_u16();
    assert!(matches!(status, 401 | 403 | 404), "{method} {path}: {status}");
    status.to_string()
}
