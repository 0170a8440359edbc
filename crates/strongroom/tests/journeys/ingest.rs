//! Backups that the client makes and sends to an appliance.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::served::{Served, ask, of_user, requests};
use crate::support::{assert_same, make_tree, noise};
use crate::up::run;

/// Looks until it finds something, for so long.
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{what} did not come");
        std::thread::yield_now();
    }
}

/// Logs a user in whose home is beside `user`, at this address.
pub(crate) fn log_in(user: &Path, served: &Served, url: &str) {
    let home = user.parent().unwrap();
    fs::create_dir_all(home).unwrap();
    fs::write(home.join("pw"), served.told["passphrase"].as_str().unwrap()).unwrap();
    let fingerprint = served.told["certificate_sha256"].as_str().unwrap();
    let login = format!("login {url} --password-file pw --fingerprint {fingerprint}");
    let (code, _, err) = run(user, &login);
    assert_eq!(code, 0, "{err}");
}

pub(crate) fn document(user: &Path, line: &str) -> Value {
    let (code, out, err) = run(user, &format!("{line} --json"));
    assert_eq!(code, 0, "{line}: {err}");
    serde_json::from_str(&out).unwrap()
}

/// A client that sends what it gets on its standard input.
fn sending(data: &Path, name: &str) -> Child {
    let mut command = of_user(data);
    command.args(["backup", "--stdin", "--here", "--name", name, "--json"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The job of a client, once the appliance has heard how far it is.
fn job_under_way(data: &Path) -> Value {
    eventually("a job that receives", || {
        let (_, jobs) = ask(data, "GET", "/v1/jobs?filter=state:==running", None);
        let job = jobs["items"].as_array()?.first()?.clone();
        (job["progress"]["bytes_done"].as_u64() > Some(0)).then_some(job)
    })
}

fn ended(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_backup_is_sent_from_elsewhere_and_only_what_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let user = dir.path().join("elsewhere/user");
    log_in(&user, &served, served.told["urls"][0].as_str().unwrap());
    let source = user.parent().unwrap().join("source");
    fs::create_dir(&source).unwrap();
    make_tree(&source);

    let trial = document(&user, "backup source --name tree --dry-run");
    assert_eq!((&trial["dry_run"], &trial["image"]), (&json!(true), &Value::Null));
    let first = document(
        &user,
        "backup source --name tree --tag far --exclude empty --immutable 1h --keep-for 30d",
    );
    assert!(first["new_bytes"].as_u64() > Some(3_000_000), "{first}");
    assert!(first["immutable_until"].is_string() && first["expires_at"].is_string());
    let second = document(&user, "backup source --name tree --exclude empty");
    assert!(second["new_bytes"].as_u64() < Some(100_000), "{second}");
    assert_eq!(second["parent"], first["image"]);
    assert!(second["reused_files"].as_u64() > Some(0), "{second}");
    let named = format!(
        "backup source --name tree --exclude empty --parent {}",
        first["image"].as_str().unwrap()
    );
    assert_eq!(document(&user, &named)["parent"], first["image"]);

    // The appliance has it as any other image, with what it knows itself.
    let (_, images) = ask(&data, "GET", "/v1/images?sort=id:asc", None);
    let image = &images["items"][0];
    assert_eq!((&image["name"], &image["tags"]), (&json!("tree"), &json!(["far"])));
    assert_eq!((&image["user_name"], &image["root"]), (&json!("admin"), &first["image"]));
    assert_eq!(image["new_size"], first["new_bytes"]);
    let (_, job) = ask(&data, "GET", &format!("/v1/jobs/{}", image["job_id"]), None);
    assert_eq!((&job["kind"], &job["state"]), (&json!("ingest"), &json!("succeeded")), "{job}");
    assert_eq!(job["host"], "127.0.0.1", "it counts for its host");
    assert!(image["expires_at"].is_string());
    let (code, _) = ask(&data, "DELETE", &format!("/v1/images/{}", image["id"]), None);
    assert_eq!(code, 409, "it is immutable");
    fs::remove_file(source.join("empty")).unwrap();
    let (code, _, err) = run(&data, "restore tree --to back --verify");
    assert_eq!(code, 0, "{err}");
    assert_same(
        &source.join("src"),
        &dir.path().join("back").join(source.strip_prefix("/").unwrap()).join("src"),
    );

    // Disks and streams as well, and with a name of a pool.
    fs::write(user.parent().unwrap().join("disk"), noise(9, 700_000)).unwrap();
    let disk = document(&user, "backup --image disk --name disk --pool main");
    assert_eq!(disk["bytes"], 700_000);
    let (code, _, err) = run(&user, "backup source --pool other");
    assert!(code == 2 && err.contains("It has: main"), "{err}");
    let (code, _, err) = run(&user, "backup nothing-here --name x");
    assert!(code == 1 && err.contains("nothing-here"), "{err}");
    served.stop();
}

#[test]
fn who_may_back_up_and_not_look_sends_without_looking() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let user = dir.path().join("elsewhere/user");
    let home = user.parent().unwrap();
    fs::create_dir_all(home).unwrap();
    for (name, what) in [("sender", noise(4, 900_000)), ("pw", b"a long enough phrase".to_vec())] {
        fs::write(home.join(name), what).unwrap();
    }
    fs::copy(home.join("pw"), dir.path().join("pw")).unwrap();
    for line in [
        "roles create sender --right pool.view --right image.create",
        "users create ada --password-file pw --role sender",
    ] {
        let (code, _, err) = run(&data, line);
        assert_eq!(code, 0, "{line}: {err}");
    }
    let (code, _, err) = run(&user, &format!("{} --user ada", served.login()));
    assert_eq!(code, 0, "{err}");

    let first = document(&user, "backup sender --name one");
    let second = document(&user, "backup sender --name one");
    assert_eq!((&first["parent"], &second["parent"]), (&Value::Null, &Value::Null));
    assert_eq!(second["bytes_read"], 900_000, "{second}");
    // The entry of a file that was new a moment ago says so, and then no longer.
    assert!(second["new_bytes"].as_u64() < Some(1000), "{second}");
    for line in ["ls one", "images show one", "restore one --to back"] {
        let (code, _, err) = run(&user, line);
        assert_eq!(code, 6, "{line}: {err}");
    }
    let (code, _, err) = run(&data, "restore one --to back --verify");
    assert_eq!(code, 0, "{err}");
    served.stop();
}

/// Passes connections on; the first one only until so many bytes went up.
fn breaking_proxy(to: String, after: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let (counted, left) = (Arc::clone(&connections), Arc::new(AtomicUsize::new(after)));
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            counted.fetch_add(1, Ordering::Relaxed);
            let server = TcpStream::connect(&to).unwrap();
            let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            let left = Arc::clone(&left);
            std::thread::spawn(move || pass(from, into, &left));
            std::thread::spawn(move || pass(server, client, &AtomicUsize::new(usize::MAX)));
        }
    });
    (address, connections)
}

fn pass(mut from: TcpStream, mut into: TcpStream, left: &AtomicUsize) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        if into.write_all(&buffer[..len]).is_err() {
            break;
        }
        let before = left.load(Ordering::Relaxed);
        if before > 0 && before <= len {
            left.store(0, Ordering::Relaxed);
            break;
        }
        left.store(before.saturating_sub(len), Ordering::Relaxed);
    }
    // It may be closed already.
    let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
}

#[test]
fn a_broken_connection_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let url = served.told["urls"][0].as_str().unwrap();
    let (proxy, connections) =
        breaking_proxy(url.trim_start_matches("https://").to_owned(), 4 << 20);
    let user = dir.path().join("elsewhere/user");
    log_in(&user, &served, &format!("https://{proxy}"));
    let content = noise(3, 12 << 20);
    let source = user.parent().unwrap().join("content");
    fs::write(&source, &content).unwrap();
    let logged_in = connections.load(Ordering::Relaxed);
    document(&user, "backup content --name content");
    // What was stored before its answer was lost was new as well.
    let (_, images) = ask(&data, "GET", "/v1/images", None);
    assert!(images["items"][0]["new_size"].as_u64() >= Some(content.len() as u64), "{images}");
    assert!(connections.load(Ordering::Relaxed) >= logged_in + 2, "it was cut");
    let (code, _, err) = run(&data, "restore content --to back");
    assert_eq!(code, 0, "{err}");
    let back = dir.path().join("back").join(source.strip_prefix("/").unwrap());
    assert!(fs::read(back).unwrap() == content);
    served.stop();
}

#[test]
fn a_killed_appliance_has_nothing_half_made_and_begins_anew() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let content = noise(4, 6 << 20);
    let mut client = sending(&data, "stream");
    client.stdin.as_mut().unwrap().write_all(&content).unwrap();
    let job = job_under_way(&data);
    // By SIGKILL.
    drop(served);
    let served = Served::start(&data);
    // The session is gone with the process: the client is told, and nothing of it can be seen.
    let _ = client.stdin.as_mut().unwrap().write_all(&content);
    drop(client.stdin.take());
    let (code, err) = ended(client);
    assert!(code == 7 && err.contains("run the command again"), "{code} {err}");
    let job = eventually("the end of the job", || {
        let (_, job) = ask(&data, "GET", &format!("/v1/jobs/{}", job["id"]), None);
        (job["state"] == "failed").then_some(job)
    });
    assert!(job["error"].as_str().unwrap().contains("begin anew"), "{job}");
    let (_, images) = ask(&data, "GET", "/v1/images", None);
    assert_eq!(images["items"], json!([]));

    assert!(requests(&data, "ingests.store") > 0, "through the socket data goes as it is");

    let mut again = sending(&data, "stream");
    again.stdin.as_mut().unwrap().write_all(&content).unwrap();
    drop(again.stdin.take());
    assert_eq!(ended(again).0, 0);
    let (code, check) = ask(&data, "POST", "/v1/pools/1/check", Some(json!({"read_data": true})));
    assert_eq!(code, 202, "{check}");
    let check = eventually("the end of the check", || {
        let (_, job) = ask(&data, "GET", &format!("/v1/jobs/{}", check["id"]), None);
        (job["state"] != "queued" && job["state"] != "running").then_some(job)
    });
    assert_eq!(check["state"], "succeeded", "{check}");
    served.stop();
}

#[test]
fn a_job_that_is_canceled_ends_its_client() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let served = Served::start(&data);
    let mut client = sending(&data, "stream");
    client.stdin.as_mut().unwrap().write_all(&noise(5, 6 << 20)).unwrap();
    let id = job_under_way(&data)["id"].clone();
    // Collecting garbage meanwhile takes nothing away from it.
    let (code, gc) = ask(&data, "POST", "/v1/pools/1/gc", Some(json!({})));
    assert_eq!(code, 202, "{gc}");
    eventually("the end of the collection", || {
        let (_, job) = ask(&data, "GET", &format!("/v1/jobs/{}", gc["id"]), None);
        (job["state"] == "succeeded").then_some(())
    });
    let (code, _, err) = run(&data, &format!("jobs cancel {id}"));
    assert_eq!(code, 0, "{err}");
    let stdin = client.stdin.take().unwrap();
    let state = eventually("the end of the job", || {
        let (_, job) = ask(&data, "GET", &format!("/v1/jobs/{id}"), None);
        (job["state"] != "running").then(|| job["state"].clone())
    });
    assert_eq!(state, "canceled");
    drop(stdin);
    let (code, _) = ended(client);
    assert!(code == 130 || code == 1, "{code}");
    let (_, images) = ask(&data, "GET", "/v1/images", None);
    assert_eq!(images["items"], json!([]));
    served.stop();
}
