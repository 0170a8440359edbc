//! The dialect Jidoteki Admin: the seed's calls and answers, and who is let in.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use aws_lc_rs::{digest, hmac};
use axum::body::Body;
use data_encoding::HEXLOWER;
use http::Request;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use strongroom_api::Dialects;
use strongroom_api::dialects::jidoteki;
use strongroom_api::route::LetThrough;
use strongroom_appliance::{Licence, LicenceSigner};
use strongroom_identity::{KeyChange, TokenState};
use support::{Answer, Appliance, TOKEN};

fn hash(token: &str, text: &str) -> String {
    let key = HEXLOWER.encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    HEXLOWER.encode(hmac::sign(&key, text.as_bytes()).as_ref())
}

/// A request with fields of a form as curl sends them; without any it has no body.
fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let mut body = String::new();
    for (name, value) in fields {
        body.push_str(&format!(
            "--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        ));
    }
    let request = Request::builder().method(method).uri(format!("/api/v1/admin{path}"));
    if fields.is_empty() {
        return request.body(Body::empty()).unwrap();
    }
    let request = request.header("content-type", "multipart/form-data; boundary=x");
    // In pieces, without a length: as a chunked form comes.
    let pieces = (body + "--x--\r\n").into_bytes();
    let pieces: Vec<_> =
        pieces.chunks(7).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
    request.body(Body::from_stream(futures_util::stream::iter(pieces))).unwrap()
}

const REFUSED: &str =
    r#"{"Status":"403 Forbidden","Error-Message":"Authentication error","First-Run":false}"#;
const FIRST_RUN: &str =
    r#"{"Status":"403 Forbidden","Error-Message":"Authentication error","First-Run":true}"#;
const BARE: &str = r#"{"Status":"403 Forbidden"}"#;
const DONE: &str = r#"{"Status":"200 OK"}"#;

async fn get(appliance: &Appliance, path: &str) -> Answer {
    appliance.ask(request("GET", path, &[])).await
}

#[tokio::test]
async fn the_example_of_the_document_opens_the_version() {
    let appliance = Appliance::with_token().await;
    let hash = "b714a60732e096ccef06e360eefe0f1ba4fa5d16ef7da726612e2026e5523241";
    let answer = get(&appliance, &format!("/version?hash={hash}")).await;
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(answer.told(), (200, format!(r#"{{"version":"{version}"}}"#)));
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["x-frame-options"], "deny");
    // The token itself, in the query or in a form.
    assert_eq!(get(&appliance, "/version?token=yourtoken").await.status, 200);
    let fields = [("token", TOKEN)];
    let answer = appliance.ask(request("GET", "/version", &fields)).await;
    assert_eq!(answer.status, 200);
    // A hash counts more, wherever it is.
    let form = request("POST", "/version?token=yourtoken", &[("hash", "wrong")]);
    assert_eq!(appliance.ask(form).await.told(), (403, REFUSED.into()));
    // The path is signed as it is asked for.
    let answer = get(&appliance, &format!("/version/?hash={hash}")).await;
    assert_eq!(answer.told(), (403, REFUSED.into()));
    let slash = self::hash(TOKEN, "GET/api/v1/admin/version/");
    assert_eq!(get(&appliance, &format!("/version/?hash={slash}")).await.status, 200);
}

#[tokio::test]
async fn the_first_run_ends_with_a_token_that_its_passphrase_sets() {
    let appliance = Appliance::new().await;
    let identity = appliance.app.identity();
    let by = appliance.system().await;
    let phrase = identity.reset_admin_token(&by).await.unwrap().expose().to_owned();
    // Nothing else is open, with the right passphrase too.
    for path in ["/version".to_owned(), format!("/version?token={phrase}")] {
        let answer = get(&appliance, &path).await;
        assert_eq!(answer.told(), (403, FIRST_RUN.into()));
        assert_eq!(answer.headers["error-message"], "Authentication error");
    }
    assert_eq!(
        get(&appliance, "/nothing").await.told(),
        (404, r#"{"Status":"404 Not Found"}"#.into())
    );
    // Not with a wrong one.
    let fields = [("newtoken", TOKEN), ("token", "wrong")];
    let began = Instant::now();
    let answer = appliance.ask(request("POST", "/setup", &fields)).await;
    assert_eq!(answer.told(), (403, BARE.into()));
    assert!(answer.headers.get("error-message").is_none());
    assert!(began.elapsed() >= Duration::from_secs(2));
    // What can't be a token leaves everything as it was.
    let setup = format!("/setup?token={phrase}");
    for (new, message) in [
        ("", None),
        ("a b", Some("Missing or invalid string for option: newtoken. Allowed: !\"#")),
        (
            &*"x".repeat(256),
            Some("Invalid string length for option: newtoken. Allowed: >= 1 and <= 255"),
        ),
    ] {
        let answer = appliance.ask(request("POST", &setup, &[("newtoken", new)])).await;
        assert_eq!(answer.status, 400, "{new}");
        let told = answer.json();
        match message {
            Some(message) => {
                assert!(told["Error-Message"].as_str().unwrap().starts_with(message), "{told}");
                assert_eq!(told["First-Run"], true);
            }
            None => assert_eq!(told, json!({"Status": "400 Bad Request"})),
        }
        assert_eq!(identity.admin_token_state().await.unwrap(), TokenState::FirstRun);
    }
    let signed = hash(&phrase, "POST/api/v1/admin/setup");
    let fields = [("newtoken", TOKEN), ("hash", &*signed)];
    let answer = appliance.ask(request("POST", "/setup", &fields)).await;
    assert_eq!(answer.told(), (200, DONE.into()));
    assert_eq!(get(&appliance, "/version?token=yourtoken").await.status, 200);
    assert_eq!(
        get(&appliance, &format!("/version?token={phrase}")).await.told(),
        (403, REFUSED.into())
    );
    // And another by that one.
    let answer =
        appliance.ask(request("POST", "/setup?token=yourtoken", &[("newtoken", "next")])).await;
    assert_eq!(answer.told(), (200, DONE.into()));
    assert_eq!(get(&appliance, "/version?token=yourtoken").await.status, 403);
    assert_eq!(get(&appliance, "/version?token=next").await.status, 200);
    assert_eq!(appliance.ask(request("GET", "/setup", &[])).await.status, 400);
}

#[tokio::test]
async fn many_wrong_setups_at_once_take_as_long_as_one_after_the_other() {
    let appliance = Appliance::with_token().await;
    let began = Instant::now();
    let tries = (0..3).map(|i| {
        let (router, word) = (appliance.router.clone(), format!("wrong{i}"));
        tokio::spawn(async move {
            use tower::ServiceExt;
            let path = format!("/setup?token={word}&newtoken=mine");
            router.oneshot(request("POST", &path, &[])).await.unwrap().status().as_u16()
        })
    });
    for done in tries.collect::<Vec<_>>() {
        assert_eq!(done.await.unwrap(), 403);
    }
    assert!(began.elapsed() >= Duration::from_secs(6), "{:?}", began.elapsed());
    assert_eq!(get(&appliance, "/version?token=yourtoken").await.status, 200);
}

#[tokio::test]
async fn a_setup_is_open_only_where_that_is_configured_and_there_is_no_token() {
    let mut appliance = Appliance::new().await;
    let by = appliance.system().await;
    let identity = appliance.app.identity().clone();
    let key = identity.admin_token(&by).await.unwrap().key.unwrap();
    identity.remove_key(&by, key.id).await.unwrap();
    assert_eq!(identity.admin_token_state().await.unwrap(), TokenState::Absent);
    let fields = [("newtoken", TOKEN)];
    let answer = appliance.ask(request("POST", "/setup", &fields)).await;
    assert_eq!(answer.told(), (403, BARE.into()));
    assert_eq!(get(&appliance, "/version?token=").await.told(), (403, REFUSED.into()));

    let options = jidoteki::Options { open_setup: true, endpoints: None };
    appliance.router = strongroom_api::router(
        &appliance.app,
        &Dialects { jidoteki: options, ..Dialects::default() },
    );
    assert_eq!(appliance.ask(request("POST", "/setup", &fields)).await.told(), (200, DONE.into()));
    assert_eq!(get(&appliance, "/version?token=yourtoken").await.status, 200);
    // That was the only time. There is no first run to be told of.
    let answer = appliance.ask(request("POST", "/setup", &[("newtoken", "mine")])).await;
    assert_eq!(answer.told(), (403, BARE.into()));
    let refused = r#"{"Status":"403 Forbidden","Error-Message":"Authentication error"}"#;
    assert_eq!(get(&appliance, "/version?token=mine").await.told(), (403, refused.into()));
}

#[tokio::test]
async fn a_hash_counts_more_than_a_token_and_an_empty_one_is_none() {
    let appliance = Appliance::with_token().await;
    for (query, status) in [
        ("hash=0&token=yourtoken", 403),
        ("hash=&token=yourtoken", 200),
        ("token=wrong&token=yourtoken", 200),
        ("token=yourtoken&token=wrong", 403),
        ("token=yourtoken&unknown=1", 200),
        ("token=%79ourtoken", 200),
    ] {
        assert_eq!(get(&appliance, &format!("/version?{query}")).await.status, status, "{query}");
    }
    // Upper case is another hash.
    let upper = hash(TOKEN, "GET/api/v1/admin/version").to_uppercase();
    assert_eq!(get(&appliance, &format!("/version?hash={upper}")).await.status, 403);
}

#[tokio::test]
async fn who_is_not_known_is_told_no_more_than_which_paths_there_are() {
    let appliance = Appliance::with_token().await;
    for (method, path, fields, expected) in [
        ("GET", "/version", &[][..], (403, REFUSED)),
        ("POST", "/version", &[][..], (403, REFUSED)),
        ("POST", "/version?token=yourtoken", &[][..], (400, "")),
        ("GET", "/", &[][..], (404, r#"{"Status":"404 Not Found"}"#)),
        ("GET", "", &[][..], (404, r#"{"Status":"404 Not Found"}"#)),
        ("GET", "/../../v1/users", &[][..], (404, r#"{"Status":"404 Not Found"}"#)),
        ("PUT", "/version", &[][..], (501, r#"{"Status":"501 Not Implemented"}"#)),
        ("HEAD", "/version", &[][..], (501, "")),
    ] {
        let answer = appliance.ask(request(method, path, fields)).await;
        assert_eq!(answer.status, expected.0, "{method} {path}");
        if !expected.1.is_empty() {
            assert_eq!(answer.told().1, expected.1, "{method} {path}");
        }
    }
    let answer = appliance.ask(request("POST", "/version?token=yourtoken", &[])).await;
    assert_eq!(answer.json()["Error-Message"], "Invalid authentication method. Expected GET");
    // A body that can't be taken is told of to who is known.
    let broken = |path: &str| {
        let request = Request::post(format!("/api/v1/admin{path}"));
        request
            .header("content-type", "multipart/form-data; boundary=x")
            .body(Body::from("nothing"))
    };
    assert_eq!(appliance.ask(broken("/version").unwrap()).await.status, 403);
    assert_eq!(appliance.ask(broken("/setup?token=yourtoken").unwrap()).await.status, 400);
}

#[tokio::test]
async fn wrong_tokens_cost_time_and_the_right_one_of_another_address_does_not() {
    use std::net::{IpAddr, SocketAddr};
    use strongroom_api::server::Peer;
    let appliance = Appliance::with_token().await;
    let from = |address: [u8; 4], token: &str| {
        let mut request = request("GET", &format!("/version?token={token}"), &[]);
        let address = SocketAddr::from((IpAddr::from(address), 1));
        request.extensions_mut().insert(Peer::Network(address));
        request
    };
    for _ in 0..4 {
        assert_eq!(appliance.ask(from([192, 0, 2, 1], "wrong")).await.status, 403);
    }
    let blocked = appliance.ask(from([192, 0, 2, 1], TOKEN)).await;
    assert_eq!(blocked.told(), (403, REFUSED.into()));
    assert!(blocked.headers.contains_key("retry-after"));
    assert_eq!(appliance.ask(from([192, 0, 2, 2], TOKEN)).await.status, 200);
}

#[tokio::test]
async fn each_operation_is_open_to_a_token_whose_key_and_user_may() {
    let appliance = Appliance::with_token().await;
    let identity = appliance.app.identity();
    let by = appliance.system().await;
    let key = identity.admin_token(&by).await.unwrap().key.unwrap();
    let narrow = KeyChange {
        operations: Some(Some(["jidoteki.version".to_owned()].into())),
        ..KeyChange::default()
    };
    let none = KeyChange {
        rights: Some(Some(Default::default())),
        operations: Some(None),
        ..KeyChange::default()
    };
    let off = KeyChange { enabled: Some(false), rights: Some(None), ..KeyChange::default() };
    for (name, change) in [
        ("whole", None),
        ("narrow", Some(narrow)),
        ("without rights", Some(none)),
        ("off", Some(off)),
    ] {
        if let Some(change) = change {
            identity.change_key(&by, key.id, None, change).await.unwrap();
        }
        for (method, path, id, _) in jidoteki::operations() {
            let path = path.strip_prefix(jidoteki::PREFIX).unwrap();
            if id == "jidoteki.setup" {
                let same = [("newtoken", TOKEN)];
                let setup = request("POST", &format!("{path}?token={TOKEN}"), &same);
                let status = appliance.ask(setup).await.status;
                assert_eq!(status, if name == "whole" { 200 } else { 403 }, "{name}");
                continue;
            }
            let nobody = appliance.ask(request(method.as_str(), path, &[])).await;
            assert_eq!(nobody.told(), (403, REFUSED.into()), "{id}: nobody");
            let path = format!("{path}?token={TOKEN}");
            let answer = appliance.ask(request(method.as_str(), &path, &[])).await;
            let open = name == "whole" || (name == "narrow" && id == "jidoteki.version");
            assert_eq!(answer.extensions.get::<LetThrough>().is_some(), open, "{id}: {name}");
            assert_eq!(answer.status == 403, !open, "{id}: {name}");
        }
    }
}

#[tokio::test]
async fn what_is_told_is_so() {
    let appliance = Appliance::with_token().await;
    let at = |path: &str| format!("{path}?token={TOKEN}");
    let answer = get(&appliance, &at("/changelog")).await;
    assert_eq!(answer.headers["content-type"], "text/plain");
    assert!(answer.told().1.starts_with("# Changelog"));
    let build = get(&appliance, &at("/build")).await.json();
    assert_eq!(build["version"], env!("CARGO_PKG_VERSION"));
    let health = get(&appliance, &at("/health")).await.json();
    let is_size = |value: &Value| value.as_str().unwrap().ends_with(['K', 'M', 'G', 'T', 'P']);
    assert!(is_size(&health["disk"]["used"]) && is_size(&health["disk"]["total"]), "{health}");
    assert!(health["memory"]["total"].as_str().unwrap().ends_with('M'), "{health}");
    assert!(health["memory"]["percentage"].is_u64() && health["cpu"]["num"].is_u64(), "{health}");
    assert_eq!(health["cpu"]["load"].as_str().unwrap().split(", ").count(), 3);
    let services = get(&appliance, &at("/services")).await.json();
    assert_eq!(services["services"][0], json!({"jidoteki-admin-api": "running"}));
    let endpoints = get(&appliance, &at("/endpoints")).await.json();
    let endpoints: Vec<_> =
        endpoints["endpoints"].as_array().unwrap().iter().map(|e| e.as_str().unwrap()).collect();
    assert!(endpoints.contains(&"/api/v1/admin/version"), "{endpoints:?}");
    assert_eq!(endpoints.last(), Some(&"/docs"));
    assert!(endpoints.is_sorted(), "{endpoints:?}");
}

/// A certificate signed by itself, and its key.
fn certificate(name: &str) -> [String; 2] {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap();
    let made = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key);
    [made.unwrap().pem(), key.serialize_pem()]
}

/// What is told of the certificate once nothing is done about it.
async fn certs(appliance: &Appliance) -> Value {
    let last = appliance.app.administration().last("certificate", 0).await.unwrap().unwrap();
    appliance.app.protect().engine().wait(last.job.id).await.unwrap();
    let answer = get(appliance, &format!("/certs?token={TOKEN}")).await;
    assert_eq!(answer.status, 200);
    answer.json()
}

#[tokio::test]
async fn a_certificate_is_replaced_by_a_job_that_tells_how_it_went() {
    let appliance = Appliance::with_token().await;
    let administration = appliance.app.administration();
    assert_eq!(
        get(&appliance, "/certs?token=yourtoken").await.told().1,
        r#"{"status":null,"log":null}"#
    );
    let before = administration.certificate().await.unwrap().sha256;
    let post = |fields: Vec<(&'static str, String)>| {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        request("POST", "/certs?token=yourtoken", &fields)
    };
    let [public, private] = certificate("box.example");
    let [_, stranger] = certificate("other.example");
    for fields in [
        vec![("public", public.clone())],
        vec![("private", private.clone())],
        vec![("public", String::new()), ("private", private.clone())],
    ] {
        let answer = appliance.ask(post(fields)).await;
        assert_eq!(answer.told(), (400, r#"{"Status":"400 Bad Request"}"#.into()));
    }
    // What does not belong together is taken, looked at, and changes nothing.
    let accepted = r#"{"Status":"202 Accepted","Location":"/api/v1/admin/certs"}"#;
    let answer = appliance.ask(post(vec![("public", public.clone()), ("private", stranger)])).await;
    assert_eq!(answer.told(), (202, accepted.into()));
    assert_eq!(answer.headers["location"], "/api/v1/admin/certs");
    let shown = certs(&appliance).await;
    assert_eq!(shown["status"], "failed");
    assert!(shown["log"].as_str().unwrap().ends_with("\\n"), "{shown}");
    assert_eq!(administration.certificate().await.unwrap().sha256, before);

    let answer = appliance.ask(post(vec![("public", public), ("private", private.clone())])).await;
    assert_eq!(answer.told(), (202, accepted.into()));
    let shown = certs(&appliance).await;
    assert_eq!(shown["status"], "success");
    let log = shown["log"].as_str().unwrap();
    assert!(log.contains("][SYSTEM] Validating and adding TLS certificates\\n["), "{log}");
    assert_eq!(administration.certificate().await.unwrap().names, ["box.example"]);
    // The key is in its file, and nowhere else.
    let secret = private.lines().nth(3).unwrap();
    let jobs = appliance.call(&appliance.admin().await, "GET", "/v1/jobs", None).await;
    assert!(!String::from_utf8_lossy(&jobs.body).contains(secret));
    let staged = appliance.dir.path().join("staged");
    assert_eq!(std::fs::read_dir(staged).unwrap().count(), 0);
}

#[tokio::test]
async fn natively_a_certificate_is_replaced_at_once_or_not_at_all() {
    let appliance = Appliance::new().await;
    let admin = appliance.admin().await;
    let path = "/v1/system/certificate";
    let before = appliance.call(&admin, "GET", path, None).await.json();
    let ([public, private], [_, stranger]) = (certificate("box.example"), certificate("x.example"));
    let body = json!({"certificate": public, "key": stranger});
    let refused = appliance.call(&admin, "PUT", path, Some(body)).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "invalid"));
    assert!(refused.json()["detail"].as_str().unwrap().contains("another certificate's"));
    assert_eq!(appliance.call(&admin, "GET", path, None).await.json(), before);
    let body = json!({"certificate": public, "key": private});
    let done = appliance.call(&admin, "PUT", path, Some(body)).await.json();
    assert_eq!(done["certificate"]["names"], json!(["box.example"]));
    assert_eq!(appliance.call(&admin, "GET", path, None).await.json(), done["certificate"]);
}

/// What the vendor signs with, and a licence's text.
fn licence(appliance: &Appliance) -> String {
    let signer = LicenceSigner::generate().unwrap();
    std::fs::write(appliance.dir.path().join("vendor.pem"), signer.public_pem()).unwrap();
    let licence = Licence {
        serial: "1".into(),
        app: "enterprise".into(),
        users: 20,
        issued: "2026-11-27".parse().unwrap(),
        expires: Some("2038-01-19".parse().unwrap()),
        name: "Enterprise Company".into(),
        contact: "cto@enterprise".into(),
    };
    signer.sign(licence).unwrap().to_string()
}

#[tokio::test]
async fn a_licence_is_set_and_shown_and_a_bad_one_changes_nothing() {
    let appliance = Appliance::with_token().await;
    let at = format!("/license?token={TOKEN}");
    let nothing = (404, r#"{"Status":"404 Not Found"}"#.to_owned());
    assert_eq!(get(&appliance, &at).await.told(), nothing);
    let good = licence(&appliance);
    let set = |text: &str| appliance.ask(request("POST", &at, &[("license", text)]));
    let bare = (400, r#"{"Status":"400 Bad Request"}"#.to_owned());
    assert_eq!(appliance.ask(request("POST", &at, &[])).await.told(), bare);
    assert_eq!(set("").await.told(), bare);
    assert_eq!(set("x").await.status, 400);
    assert_eq!(get(&appliance, &at).await.told(), nothing);
    let shown = concat!(
        r#"{"app":"enterprise","users":20,"expires":"19 January 2038","#,
        r#""name":"Enterprise Company","contact":"cto@enterprise"}"#
    );
    assert_eq!(set(&good).await.told(), (200, shown.into()));
    let many = good.replace("Users: 20", "Users: 9999");
    for bad in [many.as_str(), "-----BEGIN PGP MESSAGE-----", &good[..60], &"x".repeat(100_000)] {
        let answer = set(bad).await;
        assert_eq!(answer.status, 400, "{bad:.40}");
        assert!(answer.json()["Error-Message"].is_string());
        assert_eq!(get(&appliance, &at).await.told(), (200, shown.into()));
    }
    // Nobody vouches for it any more.
    std::fs::write(appliance.dir.path().join("vendor.pem"), "").unwrap();
    assert_eq!(set(&good).await.told().0, 400);
    let token = appliance.admin().await;
    let health = appliance.call(&token, "GET", "/v1/system/health", None).await.json();
    assert_eq!(health["license"], json!({"state": "invalid", "expires": null}));
}

#[tokio::test]
async fn a_licence_is_told_natively_and_by_health() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let ask = |method, body| appliance.call(&token, method, "/v1/system/license", body);
    let answer = ask("GET", None).await;
    assert_eq!((answer.status, answer.code()), (404, "not_found".into()));
    let health = || appliance.call(&token, "GET", "/v1/system/health", None);
    assert_eq!(health().await.json()["license"]["state"], "none");
    let good = licence(&appliance);
    let set = ask("PUT", Some(json!({"text": good}))).await;
    assert_eq!(set.status, 200);
    assert_eq!(ask("GET", None).await.json(), set.json());
    assert_eq!(set.json()["state"], "valid");
    let told = json!({"state": "valid", "expires": "2038-01-19"});
    assert_eq!(health().await.json()["license"], told);
    let forged = good.replace("Users: 20", "Users: 21");
    let answer = ask("PUT", Some(json!({"text": forged}))).await;
    assert_eq!((answer.status, answer.code()), (422, "invalid".into()));
    assert_eq!(ask("GET", None).await.json()["users"], 20);
    // Another vendor's key.
    licence(&appliance);
    assert_eq!(ask("GET", None).await.code(), "conflict");
}

#[tokio::test]
async fn logs_are_an_archive_and_debug_wants_a_key() {
    let appliance = Appliance::with_token().await;
    let answer = get(&appliance, &format!("/logs?token={TOKEN}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(answer.headers["filename"], "logs.tar.gz");
    let disposition = &answer.headers["content-disposition"];
    assert_eq!(disposition, "attachment; filename=\"logs.tar.gz\"");
    assert_eq!(answer.body[..2], [0x1f, 0x8b]);
    // Its key isn't there, then it is none.
    for _ in 0..2 {
        let answer = get(&appliance, &format!("/debug?token={TOKEN}")).await;
        assert_eq!(answer.status, 400);
        let why = answer.json()["Error-Message"].as_str().unwrap().to_owned();
        assert!(why.contains("support_key"), "{why}");
        std::fs::write(appliance.dir.path().join("support.pem"), "x").unwrap();
    }
    // A refused one frees the turn.
    let token = appliance.admin().await;
    let answer = appliance.call(&token, "GET", "/v1/system/debug", None).await;
    assert_eq!((answer.status, answer.code()), (409, "conflict".into()));
    let answer = appliance.call(&token, "GET", "/v1/system/logs", None).await;
    assert_eq!(answer.status, 200);
    let lines = appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let told: Vec<_> =
        lines.iter().map(|line| (line.operation.as_str(), line.result.as_str())).collect();
    for expected in [("jidoteki.logs", "ok"), ("system.logs", "ok")] {
        assert!(told.contains(&expected), "{told:?}");
    }
    assert!(told.iter().any(|(operation, result)| {
        *operation == "jidoteki.debug" && result.contains("support_key")
    }));
}

#[tokio::test]
async fn what_is_switched_off_is_not_there() {
    let mut appliance = Appliance::with_token().await;
    let options = jidoteki::Options { open_setup: false, endpoints: Some(Vec::new()) };
    appliance.router = strongroom_api::router(
        &appliance.app,
        &Dialects { jidoteki: options, ..Dialects::default() },
    );
    for name in jidoteki::OPTIONAL {
        let answer = get(&appliance, &format!("/{name}?token={TOKEN}")).await;
        assert_eq!(answer.told(), (404, r#"{"Status":"404 Not Found"}"#.into()), "{name}");
    }
    let endpoints = get(&appliance, &format!("/endpoints?token={TOKEN}")).await.json().to_string();
    assert!(jidoteki::OPTIONAL.iter().all(|name| !endpoints.contains(&format!("/{name}\""))));
}

#[tokio::test]
async fn no_line_of_the_audit_trail_holds_a_token() {
    let appliance = Appliance::with_token().await;
    let setup = appliance.ask(request("POST", "/setup?token=hunter2", &[("newtoken", "hunter3")]));
    assert_eq!(setup.await.status, 403);
    let setup = "/setup?token=yourtoken&newtoken=hunter4";
    assert_eq!(appliance.ask(request("POST", setup, &[])).await.status, 200);
    let lines = appliance.app.identity().audit_lines(0, 1000).await.unwrap();
    let text = format!("{lines:?}");
    assert!(text.contains("token.set") && text.contains("wrong credentials"), "{text}");
    assert!(!text.contains("hunter") && !text.contains(TOKEN), "{text}");
}

#[test]
fn the_committed_document_is_that_of_the_endpoints() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/jidoteki-v1.24.0.json");
    let made = jidoteki::document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        made == committed,
        "if that is wanted: UPDATE=1 cargo test -p strongroom-api --test jidoteki"
    );
}
