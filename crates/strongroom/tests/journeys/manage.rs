//! The command line of the appliance: people, pools, images and jobs, as tables and as JSON.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::served::{Served, of_user};
use crate::support::{BINARY, noise, tool};

/// An appliance, and its user's home.
struct Home {
    served: Option<Served>,
    home: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let served = Some(Served::start(&home.path().join("data")));
        Self { served, home }
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Runs the words of a line; its output, if it ended with this code.
    fn ends(&self, code: i32, line: &str) -> (String, String) {
        let output = of_user(&self.data()).args(line.split_whitespace()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}\n{err}\n{out}");
        (out, err)
    }

    /// What it prints.
    fn text(&self, line: &str) -> String {
        self.ends(0, line).0
    }

    /// The one document that it prints.
    fn json(&self, line: &str) -> Value {
        let text = self.text(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    }

    /// The documents that it prints, one a line.
    fn lines(&self, line: &str) -> Vec<Value> {
        let text = self.text(&format!("{line} --json"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Why it is refused.
    fn refused(&self, code: i32, line: &str) -> String {
        self.ends(code, line).1
    }

    fn stop(mut self) {
        self.served.take().unwrap().stop();
    }
}

/// The header of a table.
fn header(table: &str) -> Vec<&str> {
    table
        .lines()
        .next()
        .unwrap_or_default()
        .split("  ")
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .collect()
}

#[test]
fn people_are_managed_with_roles_keys_sessions_and_a_second_administrator() {
    let it = Home::new();
    it.write("pw", "correct horse battery\n");
    it.write("new", "staple battery horse\n");

    // Organisations and roles.
    let org = it.json("orgs create branch --description sea");
    assert_eq!(org["description"], "sea");
    assert_eq!(it.json("organisations show branch")["id"], org["id"]);
    it.ends(0, "orgs change branch --description hill");
    assert!(it.text("orgs list").contains("hill"));
    assert!(it.refused(2, "orgs change branch").contains("nothing to change"));
    let rights = it.lines("roles rights");
    assert!(rights.iter().any(|right| right["name"] == "job.view"));
    assert!(it.text("roles rights").contains("job.view"));
    it.ends(0, "roles create looker --right job.view --right pool.view");
    it.ends(0, "roles change looker --add-right event.view --remove-right pool.view --name seer");
    let rights = it.json("roles show seer")["rights"].to_string();
    assert!(rights.contains("event.view") && rights.contains("job.view"), "{rights}");
    assert!(!rights.contains("pool.view"), "{rights}");

    // Users.
    let ada = it.json("users create ada --password-file pw --org branch --role seer");
    assert_eq!(ada["organisation_id"], org["id"]);
    let made = it.json("users create bob --generate-password --must-change-password");
    assert_eq!(made["password"].as_str().unwrap().split('-').count(), 4);
    let why = it.refused(2, "users create eve");
    assert!(why.contains("nobody is there") && why.contains("--generate-password"), "{why}");
    it.ends(0, "users create robot --no-password --delegate-of ada --org branch");
    assert_eq!(it.lines("users delegates ada").len(), 1);
    let table = it.text("users list");
    assert_eq!(header(&table)[..3], ["ID", "NAME", "FULL NAME"]);
    assert!(table.contains("ada") && table.contains("robot"));
    assert_eq!(it.json("users list --count")["count"], 4);
    let two = it.text("users list --sort name --limit 2 --columns id,name");
    assert_eq!((header(&two), two.lines().count()), (vec!["ID", "NAME"], 3));
    assert_eq!(it.lines("users list --all --sort name:desc")[0]["name"], "robot");
    assert_eq!(it.lines("users list --keyword rob")[0]["delegate_of"], ada["id"]);
    assert!(it.text("users list --fields").contains("delegate_of"));
    assert!(it.refused(2, "users list --columns colour").contains("no field `colour`"));
    it.ends(0, "users change ada --email ada@example.org");
    assert!(it.text("users show ada").contains("ada@example.org"));
    assert!(it.refused(2, "users show nobody").contains("strongroom users list"));
    it.ends(0, "users grant ada viewer");
    let grants = it.lines("users grants ada");
    assert_eq!(grants.len(), 2);
    assert!(grants.iter().all(|grant| grant["organisation"] == "branch"));
    it.ends(0, "users revoke ada viewer");
    assert!(it.text("users grants ada").contains("seer"));
    it.ends(0, "users disable bob");
    assert_eq!(it.json("users show bob")["enabled"], false);
    it.ends(0, "users enable bob");
    it.ends(0, "users password bob --password-file new --final");

    // What is destructive is asked, and nobody is there.
    assert!(it.refused(2, "users delete bob").contains("--yes"));
    it.ends(0, "users delete bob --yes");
    it.refused(2, "users show bob");

    // Keys.
    let key =
        "keys create mine --user ada --pool main --operation jobs.list --expires 30d --signing";
    let key = it.json(key);
    assert!(key["secret"].as_str().unwrap().len() > 20);
    let told = it.text("keys list");
    assert!(told.contains("jobs.list") && !told.contains(key["secret"].as_str().unwrap()));
    it.ends(0, "keys disable mine");
    assert_eq!(it.json("keys show mine")["enabled"], false);
    it.ends(0, "keys enable mine");
    it.ends(0, "keys rename mine yours");
    let wide = "--operation jobs.list --operation jobs.show --any-pool --never-expires";
    let changed = it.json(&format!("keys update yours --right job.view {wide}"));
    assert_eq!(changed["rights"], json!(["job.view"]));
    assert_eq!((&changed["pools"], &changed["expires_at"]), (&Value::Null, &Value::Null));
    let changed = it.json("keys change yours --operation jobs.list --pool main --expires 9d");
    assert_eq!(changed["operations"], json!(["jobs.list"]));
    assert!(changed["pools"].is_array() && changed["expires_at"].is_string(), "{changed}");
    assert_eq!(changed["rights"], json!(["job.view"]), "it stays");
    assert!(it.refused(2, "keys change yours").contains("nothing to change"));
    it.refused(2, "keys change yours --right no.such");
    let turned = it.json("keys rotate yours --yes");
    assert_ne!(turned["secret"], key["secret"]);
    assert_eq!(turned["key"]["operations"], json!(["jobs.list"]));
    assert_eq!(turned["key"]["signing"], true);
    assert_eq!(it.lines("keys list --filter name:==yours").len(), 1);
    it.ends(0, "keys delete yours --yes");
    assert_eq!(it.text("keys list --filter name:==yours"), "no keys\n");

    // What is made once is made once, however often it is asked for.
    let once = it.json("orgs create twice --idempotency-key abc");
    assert_eq!(it.json("orgs create twice --idempotency-key abc")["id"], once["id"]);
    it.refused(1, "orgs create twice");
    it.ends(0, "orgs delete twice --yes");

    // Sessions: ada logs in elsewhere, changes the password, and uses a second factor.
    let served = it.served.as_ref().unwrap();
    let url = served.told["urls"][0].as_str().unwrap().to_owned();
    let fingerprint = served.told["certificate_sha256"].as_str().unwrap().to_owned();
    let login = format!("login {url} --user ada --fingerprint {fingerprint} --password-file");
    it.ends(0, &format!("{login} pw"));
    assert_eq!(it.json("whoami")["name"], "ada");
    assert_eq!(it.json("me show")["via"], "session");
    let local = format!("--appliance {}", it.data().display());
    it.refused(6, "users list");
    let sessions = it.lines(&format!("sessions list {local}"));
    assert_eq!(sessions[0]["user_id"], ada["id"]);
    it.ends(0, "me password --password-file pw --new-password-file new");
    it.refused(2, "me password --password-file pw --new-password-file new");
    let factor = it.json("me second-factor enrol");
    assert!(factor["url"].as_str().unwrap().starts_with("otpauth://"));
    it.write("code", "000000");
    it.ends(2, "me second-factor confirm --code-file code");
    let id = &sessions[0]["id"];
    it.ends(0, &format!("sessions end {id} {local}"));
    assert!(it.refused(6, "whoami").contains("strongroom login"));
    it.ends(0, &format!("logout {url}"));
    it.ends(0, "users remove-second-factor ada --yes");

    // A second administrator.
    assert_eq!(it.json("approvals rules")["operations"], json!([]));
    assert!(it.refused(2, "approvals require colour").contains("deletion"));
    assert!(it.refused(1, "approvals require deletion").contains("second administrator"));
    it.ends(0, "approvals change-rules --add users.remove --hours 2");
    assert!(it.text("approvals rules").contains("users.remove"));
    let why = it.refused(6, "users delete robot --yes");
    assert!(why.contains("approv"), "{why}");
    let open = it.lines("approvals list --open");
    assert_eq!((open.len(), &open[0]["operation"]), (1, &json!("users.remove")));
    // Whoever asked can't approve; refusing is another matter.
    it.ends(0, "users create boss --password-file pw --role administrator");
    it.ends(0, &format!("{} pw", login.replace("ada", "boss")));
    it.ends(0, &format!("approvals approve {}", open[0]["id"]));
    it.ends(0, &format!("users delete robot --yes {local}"));
    it.ends(6, &format!("users delete ada --yes {local}"));
    let open = it.lines("approvals list --open");
    it.ends(0, &format!("approvals deny {}", open[0]["id"]));
    assert_eq!(it.lines("approvals list").len(), 2);
    let require = format!("approvals require {local}");
    it.ends(6, &require);
    let open = it.lines("approvals list --open");
    it.ends(0, &format!("approvals approve {}", open[0]["id"]));
    assert!(it.text(&require).contains("deletion, which is deleting data"));
    let rules = it.json("approvals rules");
    let on = |class: &Value| class["on"] == true;
    assert!(rules["classes"].as_array().unwrap().iter().all(on), "{rules}");
    assert_eq!(rules["operations"], json!(["users.remove"]));
    it.ends(6, &format!("users create third --no-password {local}"));
    it.ends(0, &format!("logout {url}"));

    // All of that stands in the trail.
    let trail = it.lines("audit list --filter operation:==user.remove --filter result:==ok");
    assert_eq!(trail.len(), 2);
    assert_eq!(header(&it.text("audit list --limit 3"))[..3], ["LINE", "AT", "WHO"]);
    assert!(it.text("audit verify").contains("as they were written"));
    assert_eq!(it.json("audit verify")["sound"], true);
    let exported = it.text("audit export");
    let first: Value = serde_json::from_str(exported.lines().next().unwrap()).unwrap();
    assert_eq!(first["id"], 1);
    assert!(it.text("audit export --format syslog --after 1").contains("line=\"2\""));
    it.stop();
}

#[test]
fn pools_and_images_are_managed_by_jobs_of_the_appliance() {
    let it = Home::new();
    std::fs::create_dir(it.path("source")).unwrap();
    std::fs::write(it.path("source/file"), noise(1, 300_000)).unwrap();
    for name in ["one", "two"] {
        it.ends(0, &format!("backup source --name {name} --tag {name}"));
    }

    // A pool more: its passphrase is shown once, and brings it back.
    let made = it.json("pool create more --name more");
    it.write("phrase", made["passphrase"].as_str().unwrap());
    assert_eq!(it.lines("pool list").len(), 2);
    assert_eq!(header(&it.text("pool list"))[..2], ["ID", "NAME"]);
    it.ends(0, "pool rename more other");
    it.ends(0, "backup source --name three --pool other");
    assert!(it.refused(2, "pool remove other").contains("--yes"));
    it.ends(0, "pool remove other --yes");
    assert!(it.refused(2, "pool show --pool other").contains("It has: main"));
    let job = it.json("pool import more --name again --password-file phrase --priority 2");
    assert_eq!((&job["kind"], &job["state"]), (&json!("import"), &json!("succeeded")));
    assert_eq!(job["result"]["images"], 1);
    let shown = it.json("pool show --pool again");
    assert_eq!((&shown["state"], &shown["images"]), (&json!("ok"), &json!(1)));
    assert!(it.text("pool show").contains("layout"));
    assert!(it.text("pool stats").contains("deduplication"));
    let lines = [
        "pool gc --dry-run",
        "pool scrub",
        "pool check --read-data",
        "pool repair --rebuild-index",
        "pool rekey --pool again --priority 9 --attempts 1",
        "forget --expired --dry-run",
    ];
    for line in lines {
        let job = it.json(line);
        assert_eq!(job["state"], "succeeded", "{line}: {job}");
        assert!(job["result"].is_object());
    }
    assert!(it.text("pool check").contains("clean"), "what came of it is told");
    it.refused(2, "pool create third --name third --key-file phrase");

    // Who opens it: the appliance by one slot, others by more.
    it.write("office", "office words for it\n");
    it.write("own", "own words for it\n");
    let slots = it.json("pool key list --pool again")["keys"].clone();
    assert_eq!((slots.as_array().unwrap().len(), &slots[0]["opened"]), (1, &json!(true)));
    let (own, of) = (slots[0]["slot"].to_string(), "--pool again");
    let added = it.json(&format!("pool key add --label office --new-password-file office {of}"));
    it.ends(0, &format!("pool key change {own} --new-password-file own {of}"));
    assert!(it.refused(2, &format!("pool key remove {own} {of}")).contains("the appliance opens"));
    let told = it.text(&format!("pool key list {of}"));
    assert!(told.contains("by the appliance") && told.contains("office"), "{told}");
    assert!(it.refused(2, &format!("pool key add --new-key-file own {of}")).contains("passphrase"));
    it.ends(0, &format!("pool key remove {} {of}", added["added"]));
    it.ends(0, "pool remove again --yes");
    it.ends(1, "pool import more --name again --password-file phrase --attempts 1");
    it.ends(0, "pool import more --name again --password-file own");

    // A job that nobody has room for in time.
    it.ends(0, "settings change jobs.per_node 0");
    let why = it.refused(1, "pool gc --run-until 2s");
    assert!(why.contains("not begun in time"), "{why}");
    it.ends(0, "settings reset jobs.per_node");
    let late = it.json("pool gc --run-at 1h --no-wait --priority -4");
    assert_eq!(late["state"], "queued");
    assert_eq!(it.json(&format!("jobs show {}", late["id"]))["priority"], -4);
    it.ends(0, &format!("jobs cancel {}", late["id"]));
    assert!(it.refused(2, "pool gc --run-at 2h --run-until 1h").contains("could never begin"));

    // Jobs.
    let job = it.json("pool scrub --no-wait");
    let id = job["id"].to_string();
    let told = it.text(&format!("jobs watch {id}"));
    assert!(told.contains("scrub main") && told.contains("succeeded"), "{told}");
    let changes = it.lines(&format!("jobs watch {id}"));
    assert_eq!(changes.len(), 1, "it is over: {changes:?}");
    assert!(it.text(&format!("jobs show {id}")).contains("scrub"));
    it.ends(0, &format!("jobs log {id} --follow"));
    it.refused(1, &format!("jobs cancel {id}"));
    assert_eq!(it.json("jobs list --filter kind:==scrub --count")["count"], 2);
    assert!(it.refused(2, "pool gc --pool ./nowhere --no-wait").contains("pool of your own"));

    // Images.
    let images = it.lines("images list --pool main");
    assert_eq!((images.len(), &images[0]["name"]), (2, &json!("one")));
    assert_eq!(it.lines("images list --tag two")[0]["name"], "two");
    assert_eq!(it.json("images list --filter files:>=1 --count")["count"], 3);
    assert_eq!(header(&it.text("images list --columns name,size")), ["NAME", "SIZE"]);
    it.ends(0, "images tag one --add keep --remove one");
    assert_eq!(it.lines("images list --name one")[0]["tags"], json!(["keep"]));
    it.ends(0, "images immutable one --until 1d");
    // How long they are kept: longer, less long, for ever; what is over goes unasked.
    it.ends(0, "images retention one --until 30d");
    let until =
        |name: &str| it.lines(&format!("images list --name {name}"))[0]["expires_at"].clone();
    assert!(until("one").is_string());
    assert!(it.text("images retention one --unlimited").contains("until somebody forgets it"));
    assert_eq!(until("one"), json!(null));
    it.ends(2, "images retention one --until 2020-01-01");
    it.ends(0, "backup source --name short --keep-for 5s");
    let short = it.lines("images list --name short").remove(0);
    assert!(short["expires_at"].is_string());
    let went = "jobs list --filter kind:==forget --filter user_name:==appliance --filter state:==succeeded";
    let root = short["root"].as_str().unwrap();
    let waited = std::time::Instant::now();
    while !it.lines(went).iter().any(|job| job["result"]["forgotten"].to_string().contains(root)) {
        assert!(waited.elapsed() < std::time::Duration::from_secs(120), "it is not forgotten");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    assert_eq!(it.json("images list --name short --count")["count"], 0);
    assert!(it.refused(2, "images forget two").contains("Forget"));
    assert!(it.refused(1, "images forget one --yes").contains("immutable"));
    it.ends(0, "images forget two --yes");
    it.ends(0, "backup source --name one");
    let kept = it.json("forget --name one --keep-last 1 --prune");
    assert_eq!(kept["result"]["forgotten"], json!([]), "the older one is immutable");
    let would = it.json("forget --keep-last 1 --dry-run");
    assert_eq!(would["result"]["dry_run"], true);

    // Settings: with none allowed at once, a job waits, and Ctrl-C reaches it there, too.
    assert!(it.text("settings list").contains("jobs.per_node"));
    assert_eq!(it.json("settings show sessions.idle")["unit"], "seconds");
    it.ends(0, "settings change sessions.idle 30min");
    assert_eq!(it.json("settings show sessions.idle")["value"], 1800);
    assert!(it.text("settings reset sessions.idle").contains("3600 seconds"));
    assert!(it.refused(2, "settings change jobs.per_node many").contains("whole number"));
    it.refused(2, "settings change jobs.per_node 100000");
    it.refused(2, "settings show no.such");
    it.ends(0, "settings change jobs.per_node 0");
    for line in ["backup source --name late", "restore one --to back"] {
        let kind = line.split(' ').next().unwrap();
        let (mut child, job) = began(&it, line, kind, "queued");
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(130), "{line}");
        assert_eq!(it.json(&format!("jobs show {}", job["id"]))["state"], "canceled");
    }

    // What is stored, and what was done.
    let stats = it.json("stats show --last 1d");
    assert!(stats["jobs"].as_array().unwrap().iter().any(|jobs| jobs["kind"] == "scrub"));
    let told = it.text("stats show");
    assert!(told.contains("main") && told.contains("backup"), "{told}");
    assert_eq!(it.json("stats pool again")["name"], "again");
    it.ends(0, "stats samples --filter grain:==hour");

    let events = it.text("events list --limit 5");
    assert_eq!(header(&events)[..3], ["ID", "AT", "SEVERITY"]);
    assert!(it.json("status")["version"].is_string());
    it.stop();
}

/// Starts a command and gives it back when the appliance runs its job.
fn running(it: &Home, line: &str, kind: &str) -> (Child, Value) {
    began(it, line, kind, "running")
}

/// Starts a command and gives it back when its job is in this state.
fn began(it: &Home, line: &str, kind: &str, state: &str) -> (Child, Value) {
    let mut command = of_user(&it.data());
    command.args(line.split_whitespace()).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let filter = format!("jobs list --filter kind:=={kind} --filter state:=={state}");
    // Bounded: each round starts a process.
    for _ in 0..600 {
        if let Some(job) = it.lines(&filter).pop() {
            return (child, job);
        }
        if let Some(status) = child.try_wait().unwrap() {
            let mut err = String::new();
            child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
            panic!("{line} ended with {status} before its job ran: {err}");
        }
    }
    let _ = child.kill();
    panic!("the job of {line} is never {state}");
}

/// What a command prints, as it prints it.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let out = BufReader::new(child.stdout.take().unwrap());
    let (give, take) = channel();
    std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|l| give.send(l)));
    take
}

#[test]
fn ctrl_c_stops_the_job_that_the_command_began_and_no_other() {
    let it = Home::new();
    std::fs::create_dir(it.path("source")).unwrap();
    std::fs::write(it.path("source/file"), noise(1, 4 << 20)).unwrap();
    it.ends(0, "backup source --name s");

    // One byte a second: it would take until the end of days.
    let (scrub, job) = running(&it, "pool scrub --rate 1", "scrub");
    let (watch, _) = running(&it, &format!("jobs watch {}", job["id"]), "scrub");
    let end = |mut child: Child| {
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        (child.wait().unwrap().code(), err)
    };
    let state = || it.json(&format!("jobs show {}", job["id"]))["state"].clone();
    assert_eq!(end(watch).0, Some(130));
    assert_eq!(state(), "running", "who only watches stops nothing");
    // All jobs, live: what is open, then what changes.
    let (mut all, _) = running(&it, "jobs watch", "scrub");
    let told = lines_of(&mut all);
    let tells = |text: &str| loop {
        let line = told.recv_timeout(Duration::from_secs(60)).unwrap();
        if line.starts_with(&format!("job {}: scrub main: {text}", job["id"])) {
            break;
        }
    };
    tells("running");
    let (code, err) = end(scrub);
    assert_eq!(code, Some(130), "{err}");
    assert_eq!(state(), "canceled");
    tells("canceled");
    assert_eq!(end(all).0, Some(130));

    // A job that waits for its turn is stopped, too.
    let (first, _) = running(&it, "pool scrub --rate 1", "scrub");
    let mut second = of_user(&it.data());
    let second = second.args(["pool", "scrub"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let second = second.spawn().unwrap();
    let waiting = || it.lines("jobs list --filter kind:==scrub --filter state:==queued");
    let mut queued = waiting();
    for _ in 0..600 {
        if !queued.is_empty() {
            break;
        }
        queued = waiting();
    }
    assert_eq!(queued.len(), 1, "two scrubs of a pool do not run at once");
    assert_eq!(end(second).0, Some(130));
    assert_eq!(it.json(&format!("jobs show {}", queued[0]["id"]))["state"], "canceled");
    assert_eq!(end(first).0, Some(130));
    it.stop();
}

/// A mounted image that answers only while it is let.
struct Mounted(Child);

impl Mounted {
    fn new(it: &Home, line: &str) -> Self {
        let mut command = of_user(&it.data());
        command.args(line.split_whitespace()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(first.starts_with("mounted at"), "{first}");
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.signal(Signal::CONT);
        self.signal(Signal::INT);
        let _ = self.0.wait();
    }
}

#[test]
fn ctrl_c_stops_a_backup_in_the_midst_of_it() {
    let it = Home::new();
    std::fs::create_dir_all(it.path("source")).unwrap();
    for n in 0..300 {
        std::fs::write(it.path(&format!("source/{n}")), noise(n, 1000)).unwrap();
    }
    it.ends(0, "pool create own");
    it.ends(0, "backup source --name s --pool ./own");
    std::fs::create_dir(it.path("mnt")).unwrap();
    let mounted = Mounted::new(&it, "mount s mnt --pool ./own");

    // Whoever reads there waits.
    mounted.signal(Signal::STOP);
    let (mut backup, job) = running(&it, "backup mnt --name m", "backup");
    kill_process(Pid::from_child(&backup), Signal::INT).unwrap();
    let show = || it.json(&format!("jobs show {}", job["id"]));
    let asked = (0..600).any(|_| show()["cancel"] == true);
    assert!(asked, "Ctrl-C asks the appliance to stop the job");
    mounted.signal(Signal::CONT);
    assert_eq!(backup.wait().unwrap().code(), Some(130));
    assert_eq!(show()["state"], "canceled");
    assert_eq!(it.json("images list --count")["count"], 0, "nothing is left of it");
    drop(mounted);
    it.stop();
}

/// A command on a terminal of its own: what it wants typed is typed when it asks.
fn on_terminal(home: &Path, line: &str, answers: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut script = tool("script");
    script
        .args(["-qec", &format!("stty cols 90 && {BINARY} {line}"), "/dev/null"])
        .current_dir(home);
    script.env("HOME", home).env("TERM", "dumb").env("SHELL", "/bin/sh");
    for name in ["STRONGROOM_POOL", "STRONGROOM_PASSWORD_FILE", "STRONGROOM_APPLIANCE"] {
        script.env_remove(name);
    }
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut typed = child.stdin.take().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut seen = Vec::new();
    for (prompt, answer) in answers {
        let before = seen.len();
        while !String::from_utf8_lossy(&seen[before..]).contains(prompt) {
            let bytes = out.fill_buf().unwrap().to_vec();
            assert!(
                !bytes.is_empty(),
                "{prompt} was not asked: {}",
                String::from_utf8_lossy(&seen)
            );
            out.consume(bytes.len());
            seen.extend(bytes);
        }
        typed.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }
    out.read_to_end(&mut seen).unwrap();
    drop(typed);
    (child.wait().unwrap().code(), String::from_utf8_lossy(&seen).into_owned())
}

#[test]
fn secrets_are_asked_for_on_a_terminal_and_nowhere_else() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let make = "pool create pool --encrypt";
    let (code, seen) =
        on_terminal(home, make, &[("new pool: ", "one word"), ("The same again: ", "another")]);
    assert!(code == Some(2) && seen.contains("not the same"), "{seen}");
    let both = [("new pool: ", "correct horse"), ("The same again: ", "correct horse")];
    let (code, seen) = on_terminal(home, make, &both);
    assert_eq!(code, Some(0), "{seen}");
    assert!(!seen.contains("correct horse"), "it is not echoed: {seen}");

    let asked = [("Password of the pool: ", "correct horse")];
    let (code, seen) = on_terminal(home, "pool show --pool pool", &asked);
    assert!(code == Some(0) && seen.contains("1 key slot"), "{seen}");
    let wrong = [("Password of the pool: ", "battery")];
    assert_eq!(on_terminal(home, "pool show --pool pool", &wrong).0, Some(5));

    // What is destructive is asked for, and done only when that is affirmed.
    std::fs::write(home.join("pw"), "correct horse").unwrap();
    let with = "--pool pool --password-file pw";
    let run =
        |line: &str| of_user(&home.join("data")).args(line.split_whitespace()).output().unwrap();
    assert!(run(&format!("backup pw --name x {with}")).status.success());
    let forget = format!("images forget x {with}");
    assert_eq!(run(&forget).status.code(), Some(2), "nobody is there");
    let (code, seen) = on_terminal(home, &forget, &[("(yes/no) ", "no")]);
    assert!(code == Some(2) && seen.contains("nothing was done"), "{seen}");
    let (code, seen) = on_terminal(home, &forget, &[("(yes/no) ", "yes")]);
    assert_eq!(code, Some(0), "{seen}");

    // Without a terminal nothing is asked.
    let output = run("pool show --pool pool");
    assert_eq!(output.status.code(), Some(5));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Password"));
}

/// The code that an authenticator app shows now for a secret in base 32 (RFC 6238).
fn code_of(secret: &str) -> String {
    use aws_lc_rs::hmac::{HMAC_SHA1_FOR_LEGACY_USE_ONLY, Key, sign};
    let secret =
        data_encoding::BASE32_NOPAD.decode(secret.trim_end_matches('=').as_bytes()).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let step = (now.as_secs() / 30).to_be_bytes();
    let tag = sign(&Key::new(HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret), &step);
    let at = usize::from(tag.as_ref()[19] & 15);
    let part: [u8; 4] = tag.as_ref()[at..at + 4].try_into().unwrap();
    format!("{:06}", (u32::from_be_bytes(part) & 0x7fff_ffff) % 1_000_000)
}

#[test]
fn a_second_factor_is_asked_for_and_never_stands_on_the_command_line() {
    let it = Home::new();
    let served = it.served.as_ref().unwrap();
    let (url, print) = (&served.told["urls"][0], &served.told["certificate_sha256"]);
    it.write("pw", served.told["passphrase"].as_str().unwrap());
    let login = format!(
        "login {} --fingerprint {} --password-file pw",
        url.as_str().unwrap(),
        print.as_str().unwrap()
    );
    it.ends(0, &login);
    let secret = it.json("me second-factor enrol")["secret"].as_str().unwrap().to_owned();
    it.write("code", &code_of(&secret));
    let codes = it.json("me second-factor confirm --code-file code")["recovery_codes"].clone();
    let code = |at: usize| codes[at].as_str().unwrap().to_owned();
    assert!(it.text("users list").contains("yes"));

    let why = it.refused(6, &login);
    assert!(why.contains("second factor"), "{why}");
    let home = it.home.path();
    let (ended, seen) = on_terminal(home, &login, &[("Code of the second factor: ", &code(0))]);
    assert!(ended == Some(0) && !seen.contains(&code(0)), "{seen}");
    it.write("code", &code(1));
    it.ends(0, &format!("{login} --code-file code"));
    it.refused(6, &format!("{login} --code-file code"));
    assert!(it.refused(2, "me second-factor remove --password-file pw").contains("--yes"));
    it.ends(0, "me second-factor remove --password-file pw --yes");
    it.ends(0, &login);
    it.stop();
}

#[test]
fn tables_fit_the_terminal() {
    let it = Home::new();
    let long = "x".repeat(300);
    it.ends(0, &format!("orgs create wide --description {long}"));
    assert!(it.text("orgs list").contains(&long), "all of it where no terminal is");
    let (code, seen) = on_terminal(it.home.path(), "orgs list", &[]);
    assert_eq!(code, Some(0), "{seen}");
    let widest = seen.lines().map(|line| line.trim_end().chars().count()).max();
    assert!(widest <= Some(90) && seen.contains('…'), "{seen}");
    it.stop();
}
