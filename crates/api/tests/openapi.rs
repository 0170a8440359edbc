//! The committed document is the one that is served.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/difference.rs"]
mod difference;
mod support;

use std::path::Path;

use difference::{Difference, difference};
use serde_json::Value;
use support::Appliance;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/strongroom-v1.json");

/// How the committed document differs from the one that is made, for who reads it here.
fn told(committed: &str, made: &str) -> (Difference, String) {
    let read = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let difference = difference(&read(committed), &read(made));
    let mut text = String::new();
    for (title, lines) in [
        ("BREAKING, clients that kept to the committed document fail", &difference.breaking),
        ("additive", &difference.additive),
    ] {
        if !lines.is_empty() {
            text.push_str(&format!("{title}:\n  {}\n", lines.join("\n  ")));
        }
    }
    if text.is_empty() {
        let differs = made.lines().zip(committed.lines()).position(|(made, there)| made != there);
        let line = differs.unwrap_or_else(|| committed.lines().count()) + 1;
        text = format!("words only, first in line {line}\n");
    }
    (difference, text)
}

/// `UPDATE=1` writes what only adds; what breaks clients is written with `UPDATE=breaking`.
#[test]
fn the_committed_document_is_that_of_the_routes() {
    let made = strongroom_api::native::routes().document();
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    if made == committed {
        return;
    }
    let (difference, text) = told(&committed, &made);
    let update = std::env::var("UPDATE").unwrap_or_default();
    let breaking = !difference.breaking.is_empty();
    if update == "breaking" || (!update.is_empty() && !breaking) {
        eprintln!("{text}");
        std::fs::create_dir_all(Path::new(COMMITTED).parent().unwrap()).unwrap();
        std::fs::write(COMMITTED, &made).unwrap();
        return;
    }
    let how = if breaking { "breaking" } else { "1" };
    panic!(
        "openapi/strongroom-v1.json differs from the routes.\n{text}If that is what you want: \
         UPDATE={how} cargo test -p strongroom-api --test openapi"
    );
}

#[tokio::test]
async fn it_is_served_with_pages_that_need_nothing_else() {
    let appliance = Appliance::new().await;
    let answer = appliance.call("", "GET", "/openapi.json", None).await;
    assert_eq!((answer.status, &answer.json()["openapi"]), (200, &"3.1.0".into()));
    let page = appliance.call("", "GET", "/api/docs/index.html", None).await;
    assert_eq!(page.status, 200);
    assert!(page.headers["content-security-policy"].to_str().unwrap().contains("'self'"));
    let text = String::from_utf8(page.body).unwrap();
    for file in text.split('"').filter(|part| part.ends_with(".js") || part.ends_with(".css")) {
        assert!(!file.contains("//"), "{file} comes from elsewhere");
        let path = format!("/api/docs/{}", file.trim_start_matches("./"));
        assert_eq!(appliance.call("", "GET", &path, None).await.status, 200, "{path}");
    }
    let script = appliance.call("", "GET", "/api/docs/swagger-initializer.js", None).await;
    assert!(String::from_utf8(script.body).unwrap().contains("/openapi.json"));
}

#[test]
fn every_reference_leads_somewhere_and_every_operation_is_described() {
    let text = strongroom_api::native::routes().document();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    for part in text.split("\"$ref\": \"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(document.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            for member in ["operationId", "summary", "description"] {
                assert!(operation[member].is_string(), "{method} {path} has no {member}");
            }
            assert!(operation["responses"].as_object().unwrap().len() > 1, "{method} {path}");
        }
    }
}
