//! Journeys through the native interface: from a login to a file that comes back.
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use http::Request;
use serde_json::json;
use strongroom_catalog::Sql;
use support::Appliance;

#[tokio::test]
async fn a_directory_goes_in_and_comes_back() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let place = appliance.dir.path();
    let (source, target) = (place.join("source"), place.join("target"));
    fs::create_dir_all(source.join("letters")).unwrap();
    fs::write(source.join("letters/one"), "Dear pool,\nplease keep this.\n").unwrap();

    let body = json!({"name": "main", "path": place.join("pool"), "encrypted": true});
    let made = appliance.call(&token, "POST", "/v1/pools", Some(body)).await;
    assert_eq!(made.status, 201, "{}", String::from_utf8_lossy(&made.body));
    let pool = made.json()["pool"]["id"].as_i64().unwrap();
    assert!(made.json()["passphrase"].as_str().unwrap().len() > 20);
    assert_eq!(made.headers["location"].to_str().unwrap(), format!("/v1/pools/{pool}"));

    let body = json!({"paths": [source], "name": "letters", "tags": ["first"]});
    let path = format!("/v1/pools/{pool}/backups");
    let job = appliance.call(&token, "POST", &path, Some(body)).await;
    assert_eq!(job.status, 202, "{}", String::from_utf8_lossy(&job.body));
    let job = job.json()["id"].as_i64().unwrap();
    let watched = appliance.call(&token, "GET", &format!("/v1/jobs/{job}/events"), None).await;
    assert_eq!(watched.headers["content-type"], "text/event-stream");
    let events = String::from_utf8(watched.body).unwrap();
    let last = events.split("\n\n").filter(|event| event.starts_with("event: job")).last();
    assert!(last.unwrap().contains("\"state\":\"succeeded\""), "{events}");

    let images = appliance.call(&token, "GET", "/v1/images?filter=name:==letters", None).await;
    let image = images.json()["items"][0]["id"].as_i64().unwrap();
    let head = appliance.call(&token, "HEAD", "/v1/images?keyword=letters", None).await;
    assert_eq!((head.status, head.headers["x-total-count"].to_str().unwrap()), (200, "1"));

    let top = source.to_str().unwrap();
    let file = format!("{top}/letters/one");
    let listed = appliance
        .call(&token, "GET", &format!("/v1/images/{image}/entries?path={top}/letters"), None)
        .await;
    assert_eq!(listed.status, 200, "{}", String::from_utf8_lossy(&listed.body));
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 1);
    let path = format!("/v1/images/{image}/content?path={file}");
    let whole = appliance.call(&token, "GET", &path, None).await;
    assert_eq!((whole.status, &whole.body[..]), (200, &b"Dear pool,\nplease keep this.\n"[..]));
    let part = appliance.call_with(&token, "GET", &path, None, &[("range", "bytes=5-8")]).await;
    assert_eq!((part.status, &part.body[..]), (206, &b"pool"[..]));
    assert_eq!(part.headers["content-range"], "bytes 5-8/29");
    let none = appliance.call_with(&token, "GET", &path, None, &[("range", "bytes=99-")]).await;
    assert_eq!((none.status, none.code()), (416, "range_not_satisfiable".into()));
    let zip = appliance
        .call(&token, "GET", &format!("/v1/images/{image}/archive?format=zip"), None)
        .await;
    assert!(zip.status == 200 && zip.body.starts_with(b"PK"), "{}", zip.status);

    let body = json!({"to": target, "from": top});
    let path = format!("/v1/images/{image}/restore");
    let job = appliance.call(&token, "POST", &path, Some(body)).await;
    assert_eq!(job.status, 202, "{}", String::from_utf8_lossy(&job.body));
    let job = job.json()["id"].as_i64().unwrap();
    let job = appliance.app.protect().engine().wait(job).await.unwrap();
    assert_eq!(job.state.word(), "succeeded", "{:?}", job.error);
    let restored = fs::read_to_string(target.join("letters/one")).unwrap();
    assert_eq!(restored, "Dear pool,\nplease keep this.\n");

    // What was done left its lines, and they are sound.
    let audit = appliance.call(&token, "GET", "/v1/audit?filter=operation:==backups.start", None);
    let audit = audit.await.json();
    assert_eq!(audit["items"][0]["result"], "ok", "{audit}");
    let verdict = appliance.call(&token, "POST", "/v1/audit/verify", None).await.json();
    assert_eq!(verdict["sound"], true, "{verdict}");
}

#[tokio::test]
async fn a_key_makes_a_repeated_request_harmless() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let key = [("idempotency-key", "k-1")];
    let body = json!({"name": "ci"});
    let ask = |body| appliance.call_with(&token, "POST", "/v1/keys", Some(body), &key);
    let (first, again) = (ask(body.clone()).await, ask(body).await);
    assert_eq!((first.status, again.status), (201, 201));
    assert_eq!(first.body, again.body, "the secret that is shown once too");
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["location"], first.headers["location"]);
    let other = ask(json!({"name": "another"})).await;
    assert_eq!((other.status, other.code()), (422, "idempotency_key_reused".into()));
    let keys = "/v1/keys?count=true&filter=name:==ci";
    let keys = appliance.call(&token, "GET", keys, None).await.json();
    assert_eq!(keys["count"], 1, "{keys}");
    // What is kept of the answer is sealed.
    let secret = first.json()["secret"].as_str().unwrap().to_owned();
    let kept = strongroom_catalog::Sql::new("SELECT answer FROM idempotency");
    let kept: String = appliance.app.catalog().rows(kept).await.unwrap().remove(0).take().unwrap();
    assert!(!kept.contains(&secret) && kept.len() > secret.len());
    // With the secret one is that user.
    let me = appliance.call(&secret, "GET", "/v1/me", None).await.json();
    assert_eq!((&me["name"], &me["via"]), (&json!("admin"), &json!("key")));
}

#[tokio::test]
async fn a_job_is_found_again_by_a_request_that_was_cut_off() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let body =
        json!({"name": "main", "path": appliance.dir.path().join("pool"), "encrypted": false});
    let made = appliance.call(&token, "POST", "/v1/pools", Some(body)).await;
    let path = format!("/v1/pools/{}/check", made.json()["pool"]["id"]);
    let key = [("idempotency-key", "k-1")];
    let ask = || appliance.call_with(&token, "POST", &path, Some(json!({})), &key);
    let first = ask().await;
    assert_eq!(first.status, 202, "{}", String::from_utf8_lossy(&first.body));
    // As a process leaves it that ends between the job and the answer.
    let catalog = appliance.app.catalog();
    let noted = format!("job {}", first.json()["id"]);
    let cut_off = Sql::new("UPDATE idempotency SET status = NULL, answer = ?").bind(noted);
    catalog.execute(cut_off).await.unwrap();
    let again = ask().await;
    assert_eq!((again.status, &again.json()["id"]), (202, &first.json()["id"]));
    assert_eq!(again.headers["location"], first.headers["location"]);
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let jobs = appliance.call(&token, "GET", "/v1/jobs?count=true", None).await.json();
    assert_eq!(jobs["count"], 1, "{jobs}");
    // From now on the answer is kept like any other.
    let kept = catalog.rows(Sql::new("SELECT status FROM idempotency")).await.unwrap().remove(0);
    assert_eq!({ kept }.take::<i64>().unwrap(), 202);
    assert_eq!(ask().await.json()["id"], first.json()["id"]);

    // One that was cut off before it did anything is done by the next process that is alone.
    let nothing = Sql::new("UPDATE idempotency SET status = NULL, answer = NULL");
    catalog.execute(nothing).await.unwrap();
    assert_eq!((ask().await.status, ask().await.code()), (409, "in_progress".into()));
    strongroom_api::route::forget_cut_off(catalog).await.unwrap();
    assert_ne!(ask().await.json()["id"], first.json()["id"]);
}

#[tokio::test]
async fn a_list_that_is_kept_is_never_old_and_never_another_s() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let body =
        json!({"name": "main", "path": appliance.dir.path().join("pool"), "encrypted": false});
    let made = appliance.call(&token, "POST", "/v1/pools", Some(body)).await;
    let check = format!("/v1/pools/{}/check", made.json()["pool"]["id"]);
    let list = async |token: &str| appliance.call(token, "GET", "/v1/jobs?limit=20", None).await;
    for jobs in 0..3 {
        for _ in 0..3 {
            // A change is in the very next answer.
            assert_eq!(list(&token).await.json()["items"].as_array().unwrap().len(), jobs);
        }
        let job = appliance.call(&token, "POST", &check, Some(json!({}))).await;
        assert_eq!(job.status, 202);
    }
    let last = list(&token).await.json()["items"][0]["id"].as_i64().unwrap();
    appliance.app.protect().engine().wait(last).await.unwrap();
    let before = list(&token).await;
    assert_eq!(before.json()["items"][0]["state"], "succeeded");
    assert_eq!(list(&token).await.body, before.body);

    // Who sees no jobs of others is shown none, by whatever means they come.
    let body = json!({"name": "Sales"});
    let sales = appliance.call(&token, "POST", "/v1/organisations", Some(body)).await.json();
    let body = json!({"name": "viewer", "password": "correct horse battery",
                      "organisation_id": sales["id"]});
    let user = appliance.call(&token, "POST", "/v1/users", Some(body)).await.json();
    let roles = appliance.call(&token, "GET", "/v1/roles?filter=name:==viewer", None).await;
    let grant = json!({"role_id": roles.json()["items"][0]["id"], "organisation_id": sales["id"]});
    let path = format!("/v1/users/{}/grants", user["id"]);
    assert_eq!(appliance.call(&token, "POST", &path, Some(grant.clone())).await.status, 204);
    let body = json!({"name": "viewer", "password": "correct horse battery"});
    let opened = appliance.call("", "POST", "/v1/sessions", Some(body)).await.json();
    let other = opened["token"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(list(&token).await.json()["items"].as_array().unwrap().len(), 3);
        assert_eq!(list(other).await.json()["items"], json!([]));
    }
    // Rights that are taken away, and sessions that are ended, let nobody in one request longer.
    let (role, organisation) = (&grant["role_id"], &grant["organisation_id"]);
    let gone = format!("{path}?role_id={role}&organisation_id={organisation}");
    let gone = appliance.call(&token, "DELETE", &gone, None).await;
    assert_eq!(gone.status, 204, "{}", String::from_utf8_lossy(&gone.body));
    assert_eq!(list(other).await.status, 404);
    let path = format!("/v1/sessions/{}", opened["id"]);
    assert_eq!(list(&token).await.status, 200);
    assert_eq!(appliance.call(&token, "DELETE", &path, None).await.status, 204);
    assert_eq!(list(other).await.status, 401);
    let me = appliance.call(&token, "DELETE", "/v1/sessions/current", None).await;
    assert_eq!(me.status, 204, "{}", String::from_utf8_lossy(&me.body));
    assert_eq!(list(&token).await.status, 401);
}

#[tokio::test]
async fn a_body_without_an_end_is_refused() {
    use axum::body::{Body, Bytes};
    use futures_util::stream;
    let appliance = Appliance::new().await;
    let count = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let taken = std::sync::Arc::clone(&count);
    let endless = stream::repeat_with(move || {
        taken.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok::<_, std::convert::Infallible>(Bytes::from_static(&[b' '; 1 << 16]))
    });
    let request = Request::post("/v1/sessions").header("content-type", "application/json");
    let answer = appliance.ask(request.body(Body::from_stream(endless)).unwrap()).await;
    assert_eq!((answer.status, answer.code()), (413, "too_large".into()));
    let taken = count.load(std::sync::atomic::Ordering::Relaxed);
    assert!(taken < 64, "{taken} pieces of 64 KiB were read");
}

#[tokio::test]
async fn changes_ask_for_the_version_that_was_read() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let body = json!({"name": "Sales"});
    let made = appliance.call(&token, "POST", "/v1/organisations", Some(body)).await;
    let path = made.headers["location"].to_str().unwrap().to_owned();
    let read = appliance.call(&token, "GET", &path, None).await;
    let tag = read.headers["etag"].to_str().unwrap().to_owned();
    let change = |name: &str| {
        let body = Some(json!({"name": name}));
        let (appliance, token, path, tag) = (&appliance, &token, &path, &tag);
        async move { appliance.call_with(token, "PATCH", path, body, &[("if-match", tag)]).await }
    };
    let changed = change("Marketing").await;
    assert_eq!((changed.status, &changed.json()["name"]), (200, &json!("Marketing")));
    let late = change("Accounting").await;
    assert_eq!((late.status, late.code()), (412, "changed".into()));
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_an_id() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let big = json!({"name": "x".repeat(2 << 20), "path": "/x"});
    for (method, path, body, status, code) in [
        ("GET", "/nowhere", None, 404, "not_found"),
        ("GET", "/v1/pools/7", None, 404, "not_found"),
        ("GET", "/v1/pools/seven", None, 404, "not_found"),
        ("PATCH", "/v1/pools", None, 405, "method_not_allowed"),
        ("GET", "/v1/jobs?limit=many", None, 400, "bad_request"),
        ("GET", "/v1/jobs?fitler=id:==1", None, 400, "bad_request"),
        ("GET", "/v1/jobs?filter=colour:==red", None, 400, "bad_request"),
        ("POST", "/v1/pools", None, 415, "unsupported_media_type"),
        ("POST", "/v1/pools", Some(json!({"name": 7})), 422, "invalid"),
        ("POST", "/v1/pools", Some(big), 413, "too_large"),
    ] {
        let answer = appliance.call(&token, method, path, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
        let problem = answer.json();
        assert_eq!(problem["status"], status, "{method} {path}");
        assert_eq!(answer.headers["x-request-id"].to_str().unwrap(), problem["request_id"]);
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    let answer = appliance.call("", "GET", "/v1/jobs", None).await;
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated".into()));
    let wrong = json!({"name": "admin", "password": "not this one"});
    let answer = appliance.call("", "POST", "/v1/sessions", Some(wrong)).await;
    assert_eq!((answer.status, answer.code()), (401, "unauthenticated".into()));
    let allowed = appliance.call(&token, "PATCH", "/v1/pools", None).await;
    assert_eq!(allowed.headers["allow"], "GET, HEAD, OPTIONS, POST");
}

#[tokio::test]
async fn a_key_for_some_pools_sees_no_others() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let mut pools = Vec::new();
    for name in ["one", "two"] {
        let path = appliance.dir.path().join(name);
        let body = json!({"name": name, "path": path, "encrypted": false});
        let made = appliance.call(&token, "POST", "/v1/pools", Some(body)).await;
        pools.push(made.json()["pool"]["id"].as_i64().unwrap());
    }
    let body = json!({"name": "narrow", "pools": [pools[0]]});
    let key = appliance.call(&token, "POST", "/v1/keys", Some(body)).await.json();
    let key = key["secret"].as_str().unwrap();
    let list = appliance.call(key, "GET", "/v1/pools?count=true", None).await.json();
    assert_eq!((&list["count"], &list["items"][0]["id"]), (&json!(1), &json!(pools[0])));
    let head = appliance.call(key, "HEAD", "/v1/pools", None).await;
    assert_eq!(head.headers["x-total-count"], "1");
    let path = format!("/v1/pools?filter=id:=={}", pools[1]);
    assert_eq!(appliance.call(key, "GET", &path, None).await.status, 403);
    let path = format!("/v1/pools/{}", pools[1]);
    assert_eq!(appliance.call(key, "GET", &path, None).await.status, 404);
}

/// Another administrator, logged in.
async fn second_administrator(appliance: &Appliance, token: &str) -> String {
    let body = json!({"name": "second", "password": "correct horse battery"});
    let second = appliance.call(token, "POST", "/v1/users", Some(body)).await.json();
    let roles = appliance.call(token, "GET", "/v1/roles?filter=name:==administrator", None).await;
    let grant = json!({"role_id": roles.json()["items"][0]["id"],
                       "organisation_id": second["organisation_id"]});
    let path = format!("/v1/users/{}/grants", second["id"]);
    assert_eq!(appliance.call(token, "POST", &path, Some(grant)).await.status, 204);
    let body = json!({"name": "second", "password": "correct horse battery"});
    let opened = appliance.call("", "POST", "/v1/sessions", Some(body)).await.json();
    opened["token"].as_str().unwrap().to_owned()
}

/// A pool with one image; their numbers.
async fn one_image(appliance: &Appliance, token: &str, keep_seconds: Option<u64>) -> (i64, i64) {
    let place = appliance.dir.path();
    fs::create_dir(place.join("source")).unwrap();
    fs::write(place.join("source/file"), "content").unwrap();
    let body = json!({"name": "main", "path": place.join("pool"), "passphrase": "four own words"});
    let made = appliance.call(token, "POST", "/v1/pools", Some(body)).await.json();
    let pool = made["pool"]["id"].as_i64().unwrap();
    let body =
        json!({"paths": [place.join("source")], "keep_seconds": keep_seconds, "attempts": 1});
    let job = done(appliance, token, &format!("/v1/pools/{pool}/backups"), body).await;
    (pool, job.result.unwrap()["image"].as_i64().unwrap())
}

/// What came of a job that was asked for so.
async fn done(
    appliance: &Appliance,
    token: &str,
    path: &str,
    body: serde_json::Value,
) -> strongroom_protect::Job {
    let asked = appliance.call(token, "POST", path, Some(body)).await;
    assert_eq!(asked.status, 202, "{}", String::from_utf8_lossy(&asked.body));
    let id = asked.json()["id"].as_i64().unwrap();
    let job = appliance.app.protect().engine().wait(id).await.unwrap();
    assert_eq!(job.state.word(), "succeeded", "{:?}", job.error);
    job
}

#[tokio::test]
async fn keeping_for_less_long_needs_approval_and_for_longer_does_not() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let other = second_administrator(&appliance, &token).await;
    let (_, image) = one_image(&appliance, &token, Some(3600)).await;
    let settings = json!({"operations": [], "classes": ["retention"], "hours": 1});
    let set = appliance.call(&token, "PUT", "/v1/settings/approvals", Some(settings)).await;
    assert_eq!(set.status, 200, "{}", String::from_utf8_lossy(&set.body));
    let shown = appliance.call(&token, "GET", &format!("/v1/images/{image}"), None).await;
    let first: jiff::Timestamp =
        shown.json()["image"]["expires_at"].as_str().unwrap().parse().unwrap();
    let path = format!("/v1/images/{image}/retention");
    let retain = |until: Option<jiff::Timestamp>| {
        let body = json!({"expires_at": until.map(|until| until.to_string())});
        appliance.call(&token, "PUT", &path, Some(body))
    };
    let hour = jiff::SignedDuration::from_hours(1);
    let longer = retain(Some(first + hour)).await;
    assert_eq!(longer.status, 200, "{}", String::from_utf8_lossy(&longer.body));
    let told: jiff::Timestamp = longer.json()["expires_at"].as_str().unwrap().parse().unwrap();
    assert_eq!(told, first + hour);
    let shorter = retain(Some(first)).await;
    assert_eq!((shorter.status, shorter.code()), (403, "approval_needed".into()));
    let waiting = appliance.call(&other, "GET", "/v1/approvals", None).await.json();
    assert_eq!(waiting["items"][0]["operation"], "images.retain");
    let object = waiting["items"][0]["object"].as_str().unwrap();
    assert!(
        object.ends_with(&format!("{image}/retention: to be kept for less long, until {first}")),
        "{object}"
    );
    let decide = format!("/v1/approvals/{}/decide", waiting["items"][0]["id"]);
    let decided = appliance.call(&other, "POST", &decide, Some(json!({"approve": true}))).await;
    assert_eq!(decided.status, 200, "{}", String::from_utf8_lossy(&decided.body));
    // Longer passes meanwhile, and takes nothing of it.
    assert_eq!(retain(Some(first + hour * 2)).await.status, 200);
    assert_eq!(retain(Some(first)).await.status, 200);
    assert_eq!(retain(None).await.json()["expires_at"], json!(null));
    assert_eq!(retain(Some(first)).await.status, 403, "it passes once");
    let body = appliance.call(&token, "PUT", &path, Some(json!({}))).await;
    assert_eq!((body.status, body.code()), (422, "invalid".into()), "null must be said");
}

#[tokio::test]
async fn keeping_for_less_long_takes_the_right_to_delete() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let (_, image) = one_image(&appliance, &token, Some(3600)).await;
    let key = async |rights: &[&str]| {
        let body = json!({"name": "k", "rights": rights});
        let made = appliance.call(&token, "POST", "/v1/keys", Some(body)).await.json();
        made["secret"].as_str().unwrap().to_owned()
    };
    let path = format!("/v1/images/{image}/retention");
    let now = jiff::Timestamp::now();
    let retain = async |key: &str, minutes| {
        let until = now + jiff::SignedDuration::from_mins(minutes);
        let body = json!({"expires_at": until.to_string()});
        appliance.call(key, "PUT", &path, Some(body)).await
    };
    let keeps = key(&["image.retain", "image.view"]).await;
    let refused = retain(&keeps, 5).await;
    assert_eq!((refused.status, refused.code()), (403, "forbidden".into()));
    let shown = appliance.call(&token, "GET", &format!("/v1/images/{image}"), None).await.json();
    let kept: jiff::Timestamp = shown["image"]["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(kept > now + jiff::SignedDuration::from_mins(50), "{kept}");
    assert_eq!(retain(&keeps, 120).await.status, 200);
    let deletes = key(&["image.retain", "image.view", "image.delete"]).await;
    assert_eq!(retain(&deletes, 5).await.status, 200);
}

#[tokio::test]
async fn key_slots_of_a_pool_are_kept_by_the_appliance_and_a_pool_comes_back_by_a_job() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let (pool, _) = one_image(&appliance, &token, None).await;
    let keys = format!("/v1/pools/{pool}/keys");
    let slots = appliance.call(&token, "GET", &keys, None).await.json();
    assert_eq!(slots["items"][0]["opened"], true);
    let own = slots["items"][0]["slot"].as_i64().unwrap();
    let body = json!({"passphrase": "the office words", "label": "office"});
    let added = appliance.call(&token, "POST", &keys, Some(body)).await;
    assert_eq!(added.status, 201, "{}", String::from_utf8_lossy(&added.body));
    assert!(!String::from_utf8_lossy(&added.body).contains("office words"));
    let body = json!({"passphrase": "other own words"});
    let changed = appliance.call(&token, "PUT", &format!("{keys}/{own}"), Some(body)).await;
    assert_eq!(changed.status, 200, "{}", String::from_utf8_lossy(&changed.body));
    let refused = appliance.call(&token, "DELETE", &format!("{keys}/{own}"), None).await;
    assert_eq!((refused.status, refused.code()), (422, "invalid".into()));
    let missing = appliance.call(&token, "DELETE", &format!("{keys}/{}", -1), None).await;
    assert_eq!((missing.status, missing.code()), (404, "not_found".into()));
    let office = added.json()["slot"].clone();
    let removed = appliance.call(&token, "DELETE", &format!("{keys}/{office}"), None).await;
    assert_eq!(removed.status, 204);
    done(&appliance, &token, &format!("/v1/pools/{pool}/rekey"), json!({})).await;
    let repair = format!("/v1/pools/{pool}/repair");
    let job = done(&appliance, &token, &repair, json!({"rebuild_index": true})).await;
    assert_eq!(job.result.unwrap()["check"]["clean"], true);

    // It goes and comes back, opened with the secret that it got.
    assert_eq!(
        appliance.call(&token, "DELETE", &format!("/v1/pools/{pool}"), None).await.status,
        204
    );
    let import = |name: &str, passphrase: &str| {
        json!({"name": name, "path": appliance.dir.path().join("pool"), "passphrase": passphrase,
               "priority": 7, "attempts": 2})
    };
    let path = "/v1/pools/import";
    let body = import("a/b", "other own words");
    let bad = appliance.call(&token, "POST", path, Some(body)).await;
    assert_eq!((bad.status, bad.code()), (422, "invalid".into()));
    let wrong = appliance.call(&token, "POST", path, Some(import("main", "four own words"))).await;
    let wrong = appliance.app.protect().engine().wait(wrong.json()["id"].as_i64().unwrap()).await;
    assert_eq!(wrong.unwrap().state.word(), "failed");
    let job = done(&appliance, &token, path, import("main", "other own words")).await;
    assert_eq!(job.result.unwrap()["images"], 1);
    let shown = appliance.call(&token, "GET", &format!("/v1/jobs/{}", job.id), None).await.json();
    assert_eq!(
        (&shown["kind"], &shown["priority"], &shown["attempts"]),
        (&json!("import"), &json!(7), &json!(2))
    );
    assert_eq!(shown["parameters"]["secret"], json!(null), "not even sealed: {shown}");
    let taken = appliance.call(&token, "POST", path, Some(import("main", "other own words"))).await;
    assert_eq!((taken.status, taken.code()), (409, "exists".into()));
}

#[tokio::test]
async fn a_job_says_when_it_is_begun() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let (pool, _) = one_image(&appliance, &token, None).await;
    let path = format!("/v1/pools/{pool}/gc");
    let far = "2099-01-01T00:00:00Z";
    let body = json!({"run_at": far, "priority": -3});
    let job = appliance.call(&token, "POST", &path, Some(body)).await;
    assert_eq!((job.status, &job.json()["run_at"]), (202, &json!(far)));
    assert_eq!((&job.json()["state"], &job.json()["priority"]), (&json!("queued"), &json!(-3)));
    for body in [
        json!({"run_at": far, "run_until": "2098-01-01T00:00:00Z"}),
        json!({"run_until": "2020-01-01T00:00:00Z"}),
        json!({"attempts": 0}),
        json!({"attempts": 101}),
    ] {
        let refused = appliance.call(&token, "POST", &path, Some(body.clone())).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid".into()), "{body}");
    }
}

#[tokio::test]
async fn four_eyes_let_a_request_pass_once() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let other = &second_administrator(&appliance, &token).await;

    let settings = json!({"operations": ["organisations.create"], "hours": 1});
    let set = appliance.call(&token, "PUT", "/v1/settings/approvals", Some(settings)).await;
    assert_eq!(set.status, 200, "{}", String::from_utf8_lossy(&set.body));
    let make = || {
        let body = Some(json!({"name": "Branch"}));
        appliance.call(&token, "POST", "/v1/organisations", body)
    };
    let asked = make().await;
    assert_eq!((asked.status, asked.code()), (403, "approval_needed".into()));
    let waiting = appliance.call(other, "GET", "/v1/approvals", None).await.json();
    let path = format!("/v1/approvals/{}/decide", waiting["items"][0]["id"]);
    let own = appliance.call(&token, "POST", &path, Some(json!({"approve": true}))).await;
    assert_eq!(own.status, 403);
    let decided = appliance.call(other, "POST", &path, Some(json!({"approve": true}))).await;
    assert_eq!(decided.status, 200, "{}", String::from_utf8_lossy(&decided.body));
    assert_eq!(make().await.status, 201);
    assert_eq!(make().await.status, 403, "it passes once");
}

#[tokio::test]
async fn the_process_tells_how_it_is() {
    let appliance = Appliance::new().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(appliance.call("", "GET", path, None).await.status, 200, "{path}");
    }
    let token = appliance.admin().await;
    let metrics = appliance.call(&token, "GET", "/metrics", None).await;
    let text = String::from_utf8(metrics.body).unwrap();
    assert!(
        text.contains("operation=\"sessions.open\",method=\"POST\",status=\"201\"} 1"),
        "{text}"
    );
    // Large answers are compressed for those who take it.
    let request = Request::get("/openapi.json").header("accept-encoding", "gzip");
    let answer = appliance.ask(request.body(axum::body::Body::empty()).unwrap()).await;
    assert_eq!(answer.headers["content-encoding"], "gzip");
    // The control socket needs no login.
    let uid = rustix::process::getuid().as_raw();
    let mut request = Request::get("/v1/me").body(axum::body::Body::empty()).unwrap();
    request.extensions_mut().insert(strongroom_api::server::Peer::Local { uid });
    let me = appliance.ask(request).await.json();
    assert_eq!(me["via"], "local", "{me}");
}

#[tokio::test]
async fn settings_are_listed_changed_and_put_back() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let list = appliance.call(&token, "GET", "/v1/settings", None).await.json();
    let keys = list["items"].as_array().unwrap();
    assert!(keys.iter().any(|one| one["key"] == "jobs.per_pool" && one["value"] == 4), "{list}");
    // What has a shape of its own has its own route.
    let approvals = appliance.call(&token, "GET", "/v1/settings/approvals", None).await;
    assert_eq!(approvals.json()["hours"], 24);

    let path = "/v1/settings/sessions.idle";
    let read = appliance.call(&token, "GET", path, None).await;
    assert_eq!(read.json()["source"], "default");
    let tag = read.headers["etag"].to_str().unwrap().to_owned();
    let change = |value: serde_json::Value, tag: String| {
        let (appliance, token) = (&appliance, &token);
        let body = Some(json!({ "value": value }));
        async move { appliance.call_with(token, "PATCH", path, body, &[("if-match", &tag)]).await }
    };
    for wrong in [json!(59), json!(-1), json!(1u64 << 40), json!("60"), json!(60.5)] {
        let refused = change(wrong, tag.clone()).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid".into()));
    }
    let changed = change(json!(60), tag.clone()).await;
    assert_eq!((changed.status, &changed.json()["source"]), (200, &json!("set")));
    assert_eq!(change(json!(61), tag).await.code(), "changed");
    let opened = appliance.admin().await;
    let sql = "SELECT idle FROM sessions ORDER BY id DESC LIMIT 1";
    let idle = appliance.app.catalog().rows(strongroom_catalog::Sql::new(sql)).await;
    assert_eq!(idle.unwrap().remove(0).take::<i64>().unwrap(), 60_000_000);
    let back = appliance.call(&opened, "DELETE", path, None).await;
    assert_eq!((&back.json()["value"], &back.json()["version"]), (&json!(3600), &json!(2)));
    let unknown = appliance.call(&token, "GET", "/v1/settings/colour", None).await;
    assert_eq!((unknown.status, unknown.code()), (404, "not_found".into()));
    let audit = appliance.call(&token, "GET", "/v1/audit?filter=operation:=|settings.", None).await;
    let items = audit.json()["items"].as_array().unwrap().clone();
    let told: Vec<_> = items.iter().map(|line| (&line["operation"], &line["result"])).collect();
    assert!(told.contains(&(&json!("settings.change"), &json!("ok"))), "{told:?}");
}

#[tokio::test]
async fn stats_are_measured_and_kept() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let source = appliance.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("one"), vec![7u8; 100_000]).unwrap();
    let body = json!({"name": "main", "path": appliance.dir.path().join("pool")});
    let pool = appliance.call(&token, "POST", "/v1/pools", Some(body)).await.json();
    let pool = pool["pool"]["id"].as_i64().unwrap();
    let engine = appliance.app.protect().engine();
    for _ in 0..2 {
        let path = format!("/v1/pools/{pool}/backups");
        let body = json!({"paths": [source], "name": "x"});
        let job = appliance.call(&token, "POST", &path, Some(body)).await.json();
        let job = engine.wait(job["id"].as_i64().unwrap()).await.unwrap();
        assert_eq!(job.state.word(), "succeeded");
    }
    let gc = appliance.call(&token, "POST", &format!("/v1/pools/{pool}/gc"), Some(json!({}))).await;
    engine.wait(gc.json()["id"].as_i64().unwrap()).await.unwrap();

    let stats = appliance.call(&token, "GET", "/v1/stats", None).await.json();
    let one = &stats["pools"][0];
    assert_eq!(one["figures"]["images"], 2, "{stats}");
    assert_eq!(one["figures"]["logical_bytes"], 200_000);
    // What describes the files is stored too.
    assert!(one["figures"]["unique_bytes"].as_u64().unwrap() < 150_000, "{stats}");
    assert!(one["deduplication"].as_f64().unwrap() > 1.3, "{stats}");
    assert!(one["figures"]["capacity_bytes"].as_u64() > one["figures"]["free_bytes"].as_u64());
    assert!(one["garbage_bytes"].is_u64() && one["last_backup_at"].is_string(), "{stats}");
    assert_eq!(one["growth_bytes_per_day"], json!(null), "nobody watched for a day");
    assert_eq!(stats["total"]["images"], 2);
    let jobs = stats["jobs"].as_array().unwrap();
    let backups = jobs.iter().find(|jobs| jobs["kind"] == "backup").unwrap();
    assert_eq!((&backups["state"], &backups["count"]), (&json!("succeeded"), &json!(2)));
    assert!(backups["seconds"].as_f64().unwrap() > 0.0, "{stats}");

    // What was measured is kept, and listed.
    assert_eq!(appliance.app.storage().sample_pools().await.unwrap(), 1);
    let path = format!("/v1/stats/samples?filter=pool_id:=={pool}&filter=grain:==hour&count=true");
    let samples = appliance.call(&token, "GET", &path, None).await.json();
    assert_eq!(
        (&samples["count"], &samples["items"][0]["figures"]["images"]),
        (&json!(1), &json!(2))
    );
    let path = format!("/v1/pools/{pool}/stats");
    let alone = appliance.call(&token, "GET", &path, None).await.json();
    assert_eq!(alone["figures"]["images"], 2);
    let path = "/v1/stats?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z";
    assert_eq!(appliance.call(&token, "GET", path, None).await.code(), "bad_request");

    // Prometheus reads the same.
    let metrics = appliance.call(&token, "GET", "/metrics", None).await;
    let text = String::from_utf8(metrics.body).unwrap();
    for line in [
        "strongroom_pool_images{pool=\"main\"} 2",
        "strongroom_pool_missing_disks{pool=\"main\"} 0",
        "strongroom_disk_ok{pool=\"main\",disk=\"0\"} 1",
        "strongroom_jobs_ended_total{kind=\"backup\",state=\"succeeded\"} 2",
        "strongroom_logins_total{result=\"passed\"} 1",
        "strongroom_sessions 1",
    ] {
        assert!(text.lines().any(|there| there.starts_with(line)), "{line}:\n{text}");
    }
    assert!(text.ends_with("# EOF\n") && text.matches("# EOF").count() == 1);
    assert!(text.contains("strongroom_catalogue_write_seconds_bucket{le=\"+Inf\"}"), "{text}");
    assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
}

#[tokio::test]
async fn health_tells_of_the_disks_that_a_key_is_for() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let body = json!({"name": "main", "path": appliance.dir.path().join("pool")});
    let pool = appliance.call(&token, "POST", "/v1/pools", Some(body)).await.json();
    let pool = pool["pool"]["id"].as_i64().unwrap();
    let health = appliance.call(&token, "GET", "/v1/system/health", None).await.json();
    let disk = &health["pool_disks"][0];
    assert_eq!((&disk["pool_id"], &disk["number"]), (&json!(pool), &json!(0)), "{health}");
    assert_eq!(disk["total_bytes"], health["disk"]["total_bytes"], "{health}");

    for (pools, count) in [(json!([pool]), 1), (json!([pool + 1]), 0)] {
        let body = json!({"name": pools.to_string(), "pools": pools});
        let key = appliance.call(&token, "POST", "/v1/keys", Some(body)).await.json();
        let key = key["secret"].as_str().unwrap();
        let health = appliance.call(key, "GET", "/v1/system/health", None).await.json();
        assert_eq!(health["pool_disks"].as_array().unwrap().len(), count, "{health}");
    }
}

#[tokio::test]
async fn words_are_looked_for_in_every_list() {
    let appliance = Appliance::new().await;
    let token = appliance.admin().await;
    let text = strongroom_api::native::routes().document();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut lists = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let parameters = methods["get"]["parameters"].as_array().into_iter().flatten();
        let names: Vec<_> = parameters.map(|one| one["name"].as_str().unwrap()).collect();
        assert_eq!(names.contains(&"filter"), names.contains(&"keyword"), "{path}");
        lists += usize::from(names.contains(&"filter"));
    }
    assert!(lists >= 14, "{lists}");

    let rules = json!({"operations": ["organisations.create"], "hours": 1});
    appliance.call(&token, "PUT", "/v1/settings/approvals", Some(rules)).await;
    let asked =
        appliance.call(&token, "POST", "/v1/organisations", Some(json!({"name": "b"}))).await;
    assert_eq!(asked.status, 403);
    let body = json!({"name": "Wörter", "path": appliance.dir.path().join("pool")});
    assert_eq!(appliance.call(&token, "POST", "/v1/pools", Some(body)).await.status, 201);
    let find = async |list: &str, word: &str| {
        let path = format!("/v1/{list}keyword={word}&count=true");
        let found = appliance.call(&token, "GET", &path, None).await;
        assert_eq!(found.status, 200, "{}", found.json());
        found.json()["count"].as_u64().unwrap()
    };
    for (list, word) in [
        ("audit?", "ANISATIONS.CRE"),
        ("audit?filter=result:==ok&", "settings.approvals"),
        // Too short for trigrams.
        ("audit?", "ok"),
        ("approvals?", "Organisations.c"),
        ("sessions?", "ADMIN"),
    ] {
        assert!(find(list, word).await > 0, "{list}: {word}");
        assert_eq!(find(list, "no-such-word").await, 0, "{list}");
    }
    assert_eq!(find("audit?filter=result:==ok&", "anisations.cre").await, 0);
    assert_eq!(find("stats/samples?", "no-such-word").await, 0);
}
