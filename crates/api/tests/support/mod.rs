//! An appliance for tests: a catalogue, an administrator, and the router over it.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by tests, each of which uses a part")]

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::Value;
use strongroom_api::{App, KeySealer, Machine};
use strongroom_appliance::acme::Serving;
use strongroom_appliance::backup::Belongings;
use strongroom_appliance::tls::TlsFiles;
use strongroom_appliance::updates::UpdateSetup;
use strongroom_appliance::{
    Acme, Administration, Hardware, Parts, Settings, StorageOptions, SupportSetup,
};
use strongroom_catalog::testing::Fresh;
use strongroom_catalog::{Address, Catalog, Engine};
use strongroom_identity::{ApplianceKey, Identity, Principal};
use strongroom_protect::{Options, Protect};
use strongroom_storage::Storage;
use tower::ServiceExt;

/// The database: PostgreSQL for the tests in `postgres.rs`, which are those of the other files.
pub(crate) fn engine() -> Engine {
    if module_path!().starts_with("postgres::") { Engine::Postgres } else { Engine::Sqlite }
}

/// What scripts for Jidoteki Admin show.
pub(crate) const TOKEN: &str = "yourtoken";

pub(crate) struct Appliance {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) app: App,
    /// What it takes the machine for.
    pub(crate) hardware: Hardware,
    pub(crate) router: Router,
    /// The passphrase of `admin`.
    pub(crate) passphrase: String,
    /// As if a listener answered authorities of certificates.
    pub(crate) serving: Option<Serving>,
    _database: Database,
}

/// What is backed up of it.
fn belongings(dir: &Path, catalog: &Catalog, fresh: &Fresh) -> Belongings {
    let (configuration, appliance_key) = (dir.join("strongroom.toml"), dir.join("appliance.key"));
    std::fs::write(&configuration, "listen = []\n").unwrap();
    std::fs::write(&appliance_key, [7; 32]).unwrap();
    Belongings {
        catalog: catalog.clone(),
        address: match fresh.address() {
            Address::Sqlite(_) => Address::Sqlite(dir.join("catalogue.db")),
            address => address.clone(),
        },
        address_given: true,
        configuration,
        appliance_key,
        named_keys: Vec::new(),
        check_configuration: |text, data| match text.contains("listen") {
            true => Ok(Address::Sqlite(data.join("catalogue.db"))),
            false => Err("it does not say where to listen".into()),
        },
    }
}

/// Gone when the test is, whatever came of it.
struct Database(Option<Fresh>);

impl Drop for Database {
    fn drop(&mut self) {
        let Some(fresh) = self.0.take() else { return };
        // Not on the test's runtime, which is at work.
        let removed = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(fresh.remove());
        });
        let _ = removed.join();
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) extensions: http::Extensions,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {text}", self.status))
    }

    /// As a script sees it: the status and the text.
    pub(crate) fn told(&self) -> (u16, String) {
        (self.status, String::from_utf8(self.body.clone()).unwrap())
    }

    pub(crate) fn code(&self) -> String {
        assert_eq!(self.headers["content-type"], "application/problem+json");
        self.json()["code"].as_str().unwrap().to_owned()
    }
}

impl Appliance {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let fresh = Fresh::new(engine()).await;
        let catalog = fresh.open().await;
        let key = ApplianceKey::from_bytes(&[7; 32]);
        let identity = Identity::open(catalog.clone(), key).await.unwrap();
        let first = identity.first_run(None).await.unwrap().unwrap();
        let sealer = Arc::new(KeySealer(identity.clone()));
        let storage = Storage::new(catalog.clone(), sealer, "a test").unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        drop(strongroom_api::server::Certificate::open_or_make(&cert, &key, &[]).unwrap());
        let parts = Parts::new(dir.path(), TlsFiles::open(&cert, &key));
        let updates =
            UpdateSetup { keys: vec![dir.path().join("vendor.pem")], ..Default::default() };
        let parts =
            parts.with(belongings(dir.path(), &catalog, &fresh)).updated_by(updates, None, None);
        let attached = StorageOptions::of(dir.path(), identity.clone(), None);
        let connect = Arc::new(strongroom_api::AcmeHttps::connect);
        let acme = Acme::of(dir.path(), identity.clone(), connect);
        let serving = Some(acme.challenges().serve());
        let parts = parts.with_storage(attached).with_acme(acme);
        let protect =
            Protect::start_with(storage, parts.works(), Options::default()).await.unwrap();
        let settings = Settings::open(identity.clone()).await.unwrap();
        let administration = Administration::new(parts, protect.clone());
        let keys = vec![dir.path().join("vendor.pem")];
        let setup =
            SupportSetup { key: Some(dir.path().join("support.pem")), ..Default::default() };
        let machine = Machine::of(dir.path(), keys, setup, &identity, &settings, administration);
        let hardware = machine.hardware.clone();
        let app = App::new(catalog, identity, protect, settings, machine);
        let router = strongroom_api::router(&app, &Default::default());
        let passphrase = first.passphrase.expose().to_owned();
        let _database = Database(Some(fresh));
        Self { dir, app, hardware, router, passphrase, serving, _database }
    }

    /// With [`TOKEN`].
    pub(crate) async fn with_token() -> Self {
        let appliance = Self::new().await;
        let by = appliance.system().await;
        appliance.app.identity().set_admin_token(&by, &TOKEN.into()).await.unwrap();
        appliance
    }

    /// What another node of it has open; none where there can be no other.
    pub(crate) async fn another_node(&self) -> Option<Catalog> {
        match self._database.0.as_ref().unwrap().address() {
            Address::Sqlite(_) => None,
            address => Some(Catalog::open(address).await.unwrap()),
        }
    }

    /// Who may do everything.
    pub(crate) async fn system(&self) -> Principal {
        self.app.identity().appliance().await.unwrap()
    }

    /// Asks, and leaves what is answered to be read: it may have no end.
    pub(crate) async fn begin(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn ask(&self, request: Request<Body>) -> Answer {
        let (parts, body) = self.begin(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        let (status, headers) = (parts.status.as_u16(), parts.headers);
        Answer { status, headers, extensions: parts.extensions, body }
    }

    /// Asks as the holder of a token, with a body if there is one.
    pub(crate) async fn call(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
    ) -> Answer {
        self.call_with(token, method, path, body, &[]).await
    }

    pub(crate) async fn call_with(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        headers: &[(&str, &str)],
    ) -> Answer {
        self.ask(request(token, method, path, body, headers)).await
    }

    /// Logs the administrator in.
    pub(crate) async fn admin(&self) -> String {
        let body = serde_json::json!({"name": "admin", "password": self.passphrase});
        let answer = self.call("", "POST", "/v1/sessions", Some(body)).await;
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["token"].as_str().unwrap().to_owned()
    }
}

/// A request of the holder of a token, with a body if there is one.
pub(crate) fn request(
    token: &str,
    method: &str,
    path: &str,
    body: Option<Value>,
    headers: &[(&str, &str)],
) -> Request<Body> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let mut request = Request::builder().method(method).uri(path);
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            Body::from(body.to_string())
        }
        None => Body::empty(),
    };
    request.body(body).unwrap()
}
