//! Reading by nodes and chunks: who may, and what is refused. What readers get is tested where it is
//! made, in `storage`, and where it is used, by the journeys of the command line.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use axum::body::Body;
use http::Request;
use serde_json::json;
use strongroom_archive::wire::{self, MAX_REQUEST, Parser, Part};
use strongroom_catalog::identity::{Grant, Role};
use strongroom_identity::{KeySpec, UserSpec};
use support::{Answer, Appliance};

/// Sends bytes.
async fn send(appliance: &Appliance, token: &str, path: &str, body: Vec<u8>) -> Answer {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/octet-stream");
    appliance.ask(request.body(Body::from(body)).unwrap()).await
}

fn request(wanted: Vec<wire::Wanted>) -> Vec<u8> {
    wire::Request { compress: false, must: wanted.len(), ahead: 1 << 20, wanted }.encode()
}

/// The token of a tenant administrator of an organisation of its own.
async fn stranger(appliance: &Appliance) -> String {
    let (identity, by) = (appliance.app.identity(), appliance.system().await);
    let organisation = identity.create_organisation(&by, by.root(), "Other", "").await.unwrap();
    // Who was looked up before doesn't know of it yet.
    let by = appliance.system().await;
    let spec = UserSpec {
        organisation_id: organisation.id,
        name: "stranger".into(),
        full_name: String::new(),
        email: String::new(),
        password: None,
        must_change: false,
        delegate_of: None,
    };
    let user_id = identity.create_user(&by, spec).await.unwrap().id;
    let role = Role::by_name("tenant administrator");
    let role: Option<Role> = appliance.app.catalog().find_one(role).await.unwrap();
    let role_id = role.unwrap().id;
    let grant = Grant { user_id, role_id, organisation_id: organisation.id };
    identity.grant(&by, grant).await.unwrap();
    let key = KeySpec {
        user_id,
        name: "key".into(),
        expires_at: None,
        rights: None,
        pools: None,
        operations: None,
        shown_again: false,
        dialect: None,
    };
    identity.create_key(&by, key).await.unwrap().1.expose().to_owned()
}

#[tokio::test]
async fn a_reader_is_for_who_opened_it_and_reads_what_it_was_shown() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let place = appliance.dir.path();
    std::fs::create_dir(place.join("source")).unwrap();
    std::fs::write(place.join("source/one"), "keep this").unwrap();
    let body = json!({"name": "main", "path": place.join("pool"), "encrypted": false});
    let pool = appliance.call(&token, "POST", "/v1/pools", Some(body)).await.json();
    let pool = pool["pool"]["id"].as_i64().unwrap();
    let body = json!({"paths": [place.join("source")], "name": "letters"});
    let path = format!("/v1/pools/{pool}/backups");
    let job = appliance.call(&token, "POST", &path, Some(body)).await.json();
    let job = job["id"].as_i64().unwrap();
    appliance.app.protect().engine().wait(job).await.unwrap();

    let readers = format!("/v1/pools/{pool}/readers");
    let opened = appliance.call(&token, "POST", &readers, None).await;
    assert_eq!(opened.status, 201, "{}", String::from_utf8_lossy(&opened.body));
    let path = opened.headers["location"].to_str().unwrap().to_owned();
    let told = opened.json();
    assert_eq!(path, format!("{readers}/{}", told["reader"].as_str().unwrap()));
    assert_eq!(told["data_key"].as_str().unwrap().len(), 64);
    assert_eq!(told["node_key"].as_str().unwrap().len(), 64);

    // The image's top, with its proof; then all that it reaches.
    let roots = appliance.call(&token, "GET", &format!("{path}/roots"), None).await;
    assert_eq!(roots.headers["content-type"], "application/octet-stream");
    let (mut top, mut root) = (None, String::new());
    let mut take = |part: Part<'_>| {
        if let Part::Root(found, proofs) = part {
            root = found.id.to_string();
            top = Some(wire::Wanted { id: found.nodes[0], proof: proofs[0] });
        }
        Ok(())
    };
    Parser::default().feed(&roots.body, &mut take).unwrap();
    let top = top.unwrap();
    let mut chunks = Vec::new();
    let nodes = send(&appliance, &token, &format!("{path}/nodes"), request(vec![top])).await;
    let mut take = |part: Part<'_>| {
        if let Part::Node(_, node, proofs) = part {
            let shown = proofs[node.nodes.len()..].iter();
            let wanted = node.data.iter().zip(shown);
            chunks.extend(wanted.map(|(id, proof)| wire::Wanted { id: *id, proof: *proof }));
        }
        Ok(())
    };
    Parser::default().feed(&nodes.body, &mut take).unwrap();
    let read = send(&appliance, &token, &format!("{path}/chunks"), request(chunks.clone())).await;
    assert_eq!(read.status, 200);
    assert!(read.body.windows(9).any(|bytes| bytes == b"keep this"));

    // An id alone is not enough, and neither is the proof of another.
    let other = wire::Wanted { proof: top.proof, ..chunks[0] };
    let refused = send(&appliance, &token, &format!("{path}/chunks"), request(vec![other])).await;
    assert_eq!((refused.status, refused.code()), (404, "not_found".into()));
    // Whose pool it isn't, to them there is none; whose reader it isn't, neither.
    let stranger = stranger(&appliance).await;
    for answer in [
        appliance.call(&stranger, "POST", &readers, None).await,
        send(&appliance, &stranger, &format!("{path}/chunks"), request(chunks.clone())).await,
        appliance.call(&stranger, "GET", &format!("{path}/roots"), None).await,
    ] {
        assert_eq!((answer.status, answer.code()), (404, "not_found".into()));
    }
    // A key for another pool, or for other operations.
    for (narrow, status) in
        [(json!({"pools": [pool + 1]}), 404), (json!({"operations": ["images.show"]}), 403)]
    {
        let mut body = json!({"name": format!("key {status}")});
        body.as_object_mut().unwrap().extend(narrow.as_object().unwrap().clone());
        let key = appliance.call(&token, "POST", "/v1/keys", Some(body)).await.json();
        let key = key["secret"].as_str().unwrap();
        assert_eq!(appliance.call(key, "POST", &readers, None).await.status, status);
    }

    // What is no request, or too large; and JSON where bytes are wanted.
    let nodes = format!("{path}/nodes");
    let garbage = send(&appliance, &token, &nodes, b"what?".to_vec()).await;
    assert_eq!((garbage.status, garbage.code()), (422, "invalid".into()));
    let large = send(&appliance, &token, &nodes, vec![0; MAX_REQUEST + 1]).await;
    assert_eq!((large.status, large.code()), (413, "too_large".into()));
    let text = appliance.call(&token, "POST", &nodes, Some(json!([]))).await;
    assert_eq!((text.status, text.code()), (415, "unsupported_media_type".into()));

    // An image is held by its id, and let go.
    let image = format!("{path}/images/{root}");
    for (method, path, status) in [
        ("PUT", image.as_str(), 204),
        ("DELETE", &image, 204),
        ("PUT", &format!("{path}/images/00"), 404),
        ("DELETE", &path, 204),
        ("DELETE", &path, 404),
    ] {
        assert_eq!(appliance.call(&token, method, path, None).await.status, status, "{path}");
    }
    // It was opened, held and closed; what it read fills no trail.
    let audit = appliance.call(&token, "GET", "/v1/audit?filter=operation:==readers.open", None);
    assert!(!audit.await.json()["items"].as_array().unwrap().is_empty());
    let audit = appliance.call(&token, "GET", "/v1/audit?filter=operation:==readers.chunks", None);
    assert_eq!(audit.await.json()["items"], json!([]));
}
