//! The pages with the API's documentation, in a real browser: without any other machine, and used
//! to log in and to try an operation out.
#![allow(clippy::unwrap_used, reason = "tests")]

mod driver;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;
use std::process::Command;

use serde_json::json;

use self::driver::Browser;
use self::support::served::{Served, ask};

/// The hash of a certificate's public key, as Chromium wants it (RFC 7469, 2.4).
fn spki(certificate: &Path) -> String {
    let script = "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | \
                  openssl dgst -sha256 -binary | base64";
    let output = Command::new("sh").arg("-c").arg(script).arg(certificate).output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn the_documentation_is_there_offline_and_operations_are_tried_out() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let url = served.told["urls"][0].as_str().unwrap();
    let key = json!({"user_id": 1, "name": "browser"});
    let (code, key) = ask(&data, "POST", "/v1/keys", Some(key));
    assert_eq!(code, 201, "{key}");
    let browser = Browser::start(dir.path(), &spki(&data.join("tls/cert.pem")));
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));

    browser.open(&format!("{url}/api/docs/index.html"));
    browser.find(".opblock");
    browser.screenshot(&pictures.join("docs.png"));
    assert_eq!(browser.title(), "Strongroom API");
    // The document alone is 100 kB: had it not come, there were no operations.
    let loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)");
    let loaded: Vec<_> = loaded.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    assert!(loaded.iter().any(|name| name.ends_with("/openapi.json")), "{loaded:?}");
    assert!(loaded.iter().all(|name| name.starts_with(url)), "{loaded:?}");

    // The page escapes the dot of the operation's id, and so must a selector its backslash.
    let operation = r"[id='operations-Me-me\\.show']";
    let try_out = || {
        browser.find(&format!("{operation} .execute")).click();
        let status = format!("{operation} .live-responses-table .response .response-col_status");
        browser.find(&status).text()
    };
    browser.find(&format!("{operation} .opblock-summary-control")).click();
    browser.find(&format!("{operation} .try-out__btn")).click();
    assert!(try_out().starts_with("401"), "nobody is logged in yet");
    browser.find(&format!("{operation} .btn-clear")).click();

    browser.find(".auth-wrapper .authorize").click();
    browser.find(".modal-ux input").write(key["secret"].as_str().unwrap());
    browser.screenshot(&pictures.join("authorize.png"));
    browser.find(".modal-ux .authorize").click();
    browser.find(".modal-ux .btn-done").click();
    assert!(try_out().starts_with("200"));
    let body = browser.find(&format!("{operation} .live-responses-table .highlight-code"));
    assert!(body.text().contains("\"via\": \"key\""), "{}", body.text());
    browser.screenshot(&pictures.join("tried.png"));

    let complaints = browser.complaints();
    let mut complaints = complaints.iter().filter(|line| !line.contains("status of 401"));
    assert_eq!(complaints.next(), None);
    drop(browser);
    served.stop();
}
