//! The document and the page of the dialect are those of its operations.

use serde_json::Value;
use strongroom_api::dialects::ngx::{self};

#[test]
fn the_committed_document_and_tables_are_those_of_the_operations() {
    let at = |path: &str| format!("{}/../../{path}", env!("CARGO_MANIFEST_DIR"));
    let (document, page) = (at("openapi/ngx-v2.json"), at("docs/dialects/ngx.md"));
    const BEGIN: &str = "<!-- made of the operations -->\n";
    let text = std::fs::read_to_string(&page).unwrap_or_default();
    let written = text.split_once(BEGIN).map(|(before, _)| before).unwrap_or(&text);
    let made = (ngx::document(), format!("{written}{BEGIN}\n{}", ngx::table()));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&document, &made.0).unwrap();
        std::fs::write(&page, &made.1).unwrap();
    }
    let committed = std::fs::read_to_string(&document).unwrap_or_default();
    let how = "if that is wanted: UPDATE=1 cargo test -p strongroom-api --test ngx";
    assert!(made.0 == committed, "the document: {how}");
    assert!(made.1 == std::fs::read_to_string(&page).unwrap_or_default(), "the tables: {how}");
    // Each reference leads somewhere, and each operation is described.
    let parsed: Value = serde_json::from_str(&made.0).unwrap();
    for part in made.0.split("\"$ref\": \"#").skip(1) {
        let pointer = part.split('"').next().unwrap();
        assert!(parsed.pointer(pointer).is_some(), "{pointer} leads nowhere");
    }
    for one in ngx::operations() {
        let method = one.method.as_str().to_lowercase();
        let told = &parsed["paths"][&one.path][&method];
        assert_eq!(told["operationId"], one.id);
        assert!(told["responses"]["200"].is_object() && told["summary"].is_string(), "{one:?}");
    }
}
