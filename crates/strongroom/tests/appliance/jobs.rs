//! Many jobs of many kinds, asked for as a careful client does, and what must be true of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::process::{Served, ask};
use crate::support::{BINARY, assert_same, noise, output};

/// Numbers that follow from a seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

pub(crate) fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().unwrap())
}

/// A request for a job, which may be sent any number of times.
#[derive(Clone, Debug)]
struct Wish {
    path: String,
    body: Value,
    kind: &'static str,
    /// The job that it was told of.
    job: Option<i64>,
    /// Whether it had to be sent again.
    again: bool,
    /// Of what a client sends: the image that was acknowledged.
    root: Option<String>,
}

impl Wish {
    fn is_acknowledged(&self) -> bool {
        self.job.is_some() || self.root.is_some()
    }
}

/// The jobs that are asked for, one after the other.
pub(crate) struct Wishes {
    place: PathBuf,
    pool: i64,
    dice: Dice,
    total: usize,
    wishes: Vec<Wish>,
    /// Whether clients send, disks are replaced and pools come, too.
    mixed: bool,
}

/// What came of asking for the next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It is acknowledged.
    Yes,
    /// Ask again when there is less to do.
    Later,
    /// Nobody answers.
    Silence,
    /// There is none left.
    All,
}

/// Jobs that wait or run at once.
const AT_ONCE: usize = 12;

impl Wishes {
    pub(crate) fn new(place: &Path, pool: i64, seed: u64, total: usize) -> Self {
        let (place, wishes) = (place.to_owned(), Vec::new());
        Self { place, pool, dice: Dice(seed), total, wishes, mixed: false }
    }

    /// Of one appliance alone, whose pool is a mirror: it can have disks replaced, clients send to
    /// it, and it gets more pools.
    pub(crate) fn mixed(self) -> Self {
        Self { mixed: true, ..self }
    }

    /// How many were asked for, whether acknowledged or not.
    pub(crate) fn asked(&self) -> usize {
        self.wishes.len()
    }

    pub(crate) fn all_asked(&self) -> bool {
        self.wishes.len() == self.total && self.wishes.iter().all(Wish::is_acknowledged)
    }

    fn source(&self, number: usize) -> PathBuf {
        self.place.join(format!("source{number}"))
    }

    fn target(&self, number: usize) -> PathBuf {
        self.place.join(format!("target{number}"))
    }

    /// A tree that no other is the same as, though most of it is.
    fn grow(&mut self, number: usize) {
        let dir = self.source(number);
        fs::create_dir_all(dir.join("sub")).unwrap();
        for file in 0..10 {
            fs::write(dir.join(format!("same{file}")), noise(file, 3000)).unwrap();
        }
        let size = 20_000 + self.dice.below(400_000) as usize;
        fs::write(dir.join("sub/own"), noise(number as u64 + 1000, size)).unwrap();
    }

    /// Images whose backups are over: their rows, oldest first.
    fn images(&self, data: &Path) -> Option<Vec<Value>> {
        let path = format!("/v1/images?limit=500&sort=id:asc&filter=pool_id:=={}", self.pool);
        let answer = ask(data, "GET", &path, &[], None).ok()?;
        (answer.status == 200).then(|| answer.body["items"].as_array().unwrap().clone())
    }

    /// Chooses the next wish; none when the appliance can't be asked what there is.
    fn choose(&mut self, data: &Path) -> Option<Wish> {
        let number = self.wishes.len();
        let pool = self.pool;
        let on_pool = |what: &str| format!("/v1/pools/{pool}/{what}");
        let wish = |kind, path: String, body| {
            Some(Wish { path, body, kind, job: None, again: false, root: None })
        };
        let sides = if self.mixed { 26 } else { 20 };
        let dice = if number < 6 { 0 } else { self.dice.below(sides) };
        match dice {
            9..=11 => {
                let images = self.images(data)?;
                // Those of odd series are never forgotten.
                let stays = |image: &&Value| image["name"].as_str().unwrap().starts_with("keep");
                let images: Vec<_> = images.iter().filter(stays).collect();
                let Some(image) = images.get(self.dice.below(images.len() as u64) as usize) else {
                    return wish("check", on_pool("check"), json!({}));
                };
                let of = image["tags"][0].as_str().unwrap();
                let body = json!({
                    "to": self.target(number),
                    "from": self.place.join(format!("source{of}")),
                    "verify": self.dice.below(2) == 0,
                });
                wish("restore", format!("/v1/images/{}/restore", image["id"]), body)
            }
            12..=13 => {
                let body = json!({"name": "rotate", "keep_last": 1 + self.dice.below(3)});
                wish("forget", on_pool("forget"), body)
            }
            14..=15 => wish("gc", on_pool("gc"), json!({"max_unused": 0.0})),
            16..=17 => wish("scrub", on_pool("scrub"), json!({"restart": true})),
            18..=19 => wish("check", on_pool("check"), json!({"read_data": true})),
            20..=21 => {
                let name = format!("imported{number}");
                let pool = self.place.join(&name);
                self.grow(number);
                self.run(&["pool", "create", pool.to_str().unwrap()], &pool);
                self.run(&["backup", self.source(number).to_str().unwrap()], &pool);
                let body = json!({"name": name, "path": pool});
                wish("import", "/v1/pools/import".into(), body)
            }
            22..=23 => {
                self.grow(number);
                wish("ingest", self.source(number).to_str().unwrap().into(), json!(null))
            }
            24..=25 => {
                let disk = self.place.join(format!("pool/disk-{number}"));
                let body = json!({"number": self.dice.below(2), "disk": disk});
                wish("disk_replace", on_pool("replace-disk"), body)
            }
            _ => {
                let name = if self.dice.below(2) == 0 { "rotate" } else { "keep" };
                self.grow(number);
                let body = json!({"paths": [self.source(number)], "name": name, "tags": [number.to_string()]});
                wish("backup", on_pool("backups"), body)
            }
        }
    }

    /// Asks for the next job, or again for one whose answer did not come.
    pub(crate) fn ask_next(&mut self, data: &Path) -> Asked {
        let open = self.wishes.last().is_some_and(|wish| !wish.is_acknowledged());
        if !open {
            if self.wishes.len() == self.total {
                return Asked::All;
            }
            let Some(left) = unfinished(data) else { return Asked::Silence };
            if left >= AT_ONCE {
                return Asked::Later;
            }
            let Some(wish) = self.choose(data) else { return Asked::Silence };
            self.wishes.push(wish);
        }
        let key = format!("wish-{}", self.wishes.len());
        if self.wishes.last().is_some_and(|wish| wish.kind == "ingest") {
            return self.send(data);
        }
        let wish = self.wishes.last_mut().unwrap();
        let headers = [("idempotency-key", key.as_str())];
        match ask(data, "POST", &wish.path, &headers, Some(&wish.body)) {
            Ok(answer) if answer.status == 202 => {
                wish.job = Some(answer.body["id"].as_i64().unwrap());
                Asked::Yes
            }
            // The same request may still be under way, or the process be stopping.
            Ok(answer) if answer.status == 409 || answer.status == 503 => {
                wish.again = true;
                Asked::Silence
            }
            Ok(answer) => panic!("{}: {} {}", wish.path, answer.status, answer.body),
            Err(_) => {
                wish.again = true;
                Asked::Silence
            }
        }
    }

    /// Sends the last wish's tree as a client does; when that is cut off, it is sent anew.
    fn send(&mut self, data: &Path) -> Asked {
        let number = self.wishes.len() - 1;
        let mut command = std::process::Command::new(BINARY);
        command.args(["backup", "--here", "--json", "--name", "sent", "--pool", "work", "--tag"]);
        command.arg(number.to_string()).arg(self.source(number));
        command.env("HOME", &self.place).env("STRONGROOM_APPLIANCE", data);
        command.current_dir(&self.place);
        let sent = command.output().unwrap();
        let wish = self.wishes.last_mut().unwrap();
        match serde_json::from_slice::<Value>(&sent.stdout) {
            Ok(told) if sent.status.success() => {
                wish.root = Some(told["image"].as_str().unwrap().to_owned());
                Asked::Yes
            }
            _ => {
                wish.again = true;
                eprint!("sending {number}: {}", String::from_utf8_lossy(&sent.stderr));
                Asked::Silence
            }
        }
    }

    /// Runs a command about a pool of one's own.
    fn run(&self, line: &[&str], pool: &Path) -> Vec<u8> {
        let mut command = std::process::Command::new(BINARY);
        command.args(line).env("STRONGROOM_POOL", pool).env("HOME", &self.place);
        output(command.current_dir(&self.place))
    }

    /// What clients sent: what they were told of is there, and nothing that no job made.
    fn judge_sent(&self, sent: &[Value], rows: &BTreeMap<&str, &Value>) {
        let made: BTreeSet<&str> =
            sent.iter().filter_map(|job| job["result"]["root"].as_str()).collect();
        let of_jobs = |state: &str| sent.iter().filter(|job| job["state"] == state).count();
        assert_eq!(made.len(), of_jobs("succeeded"), "two jobs made one image: {sent:?}");
        assert_eq!(of_jobs("succeeded") + of_jobs("failed"), sent.len(), "{sent:?}");
        let listed = rows.iter().filter(|(_, row)| row["name"] == "sent").map(|(root, _)| *root);
        assert_eq!(made, listed.collect());
        for (number, wish) in self.wishes.iter().enumerate().filter(|(_, w)| w.kind == "ingest") {
            let root = wish.root.as_deref().unwrap();
            assert!(made.contains(root), "the image {root} of {number} is lost");
        }
    }

    /// What must be true when all is over, of a process that serves; there may be other jobs.
    pub(crate) fn judge(&self, served: &Served, others: &[i64]) {
        let mut jobs = all_jobs(served);
        jobs.retain(|job| !others.contains(&job["id"].as_i64().unwrap()));
        // A client that was cut off begins anew: there may be more of these than were wished for.
        let sent: Vec<Value> = jobs.extract_if(.., |job| job["kind"] == "ingest").collect();
        let asked = || self.wishes.iter().filter(|wish| wish.kind != "ingest");
        let by_id: BTreeMap<i64, &Value> =
            jobs.iter().map(|job| (job["id"].as_i64().unwrap(), job)).collect();
        // Each wish became one job, and there is no other.
        let told: BTreeSet<i64> = asked().map(|wish| wish.job.unwrap()).collect();
        assert_eq!(told.len(), asked().count(), "two wishes were told of one job");
        assert_eq!(told, by_id.keys().copied().collect(), "a wish became two jobs, or none");
        let again = self.wishes.iter().filter(|wish| wish.again).count();
        eprintln!("{} jobs, of which {again} had to be asked for again", jobs.len());
        for wish in asked() {
            let job = by_id[&wish.job.unwrap()];
            assert_eq!(job["kind"], wish.kind, "{job}");
            assert!(job["state"] == "succeeded" || job["state"] == "warnings", "{job}");
            let events = format!("/v1/events?filter=job_id:=={}&limit=100", job["id"]);
            let events = served.get(&events);
            let of = |kind: &str| {
                let items = events["items"].as_array().unwrap();
                items.iter().filter(|event| event["kind"] == kind).count()
            };
            let ended = of("job.succeeded") + of("job.warnings");
            assert_eq!(ended, 1, "it ended more than once: {events}");
        }
        let forgotten: BTreeSet<String> = jobs
            .iter()
            .filter(|job| job["kind"] == "forget")
            .flat_map(|job| job["result"]["forgotten"].as_array().unwrap().clone())
            .map(|root| root.as_str().unwrap().to_owned())
            .collect();
        let images = self.images(served.data()).unwrap();
        let rows: BTreeMap<&str, &Value> =
            images.iter().map(|image| (image["root"].as_str().unwrap(), image)).collect();
        assert_eq!(rows.len(), images.len());
        self.judge_sent(&sent, &rows);
        for wish in self.wishes.iter().filter(|wish| wish.kind == "import") {
            let pools = format!("/v1/pools?filter=name:=={}", wish.body["name"].as_str().unwrap());
            let pools = served.get(&pools);
            let pools = pools["items"].as_array().unwrap();
            assert_eq!(pools.len(), 1, "{} came once: {pools:?}", wish.body["name"]);
            let images = format!("/v1/images?count=true&filter=pool_id:=={}", pools[0]["id"]);
            assert_eq!(served.get(&images)["count"], 1);
        }
        let mut expected: BTreeSet<String> = sent
            .iter()
            .filter_map(|job| job["result"]["root"].as_str().map(str::to_owned))
            .collect();
        for (number, wish) in self.wishes.iter().enumerate().filter(|(_, w)| w.kind == "backup") {
            let root = by_id[&wish.job.unwrap()]["result"]["root"].as_str().unwrap();
            let row = match (forgotten.contains(root), rows.get(root)) {
                (true, None) => continue,
                (false, None) => panic!("the image {root} is lost"),
                (true, Some(row)) => {
                    made_anew(served, row);
                    row
                }
                (false, Some(row)) => row,
            };
            assert_eq!(row["tags"][0].as_str().unwrap(), number.to_string(), "{row}");
            expected.insert(root.to_owned());
        }
        assert_eq!(
            expected,
            rows.keys().map(|root| (*root).to_owned()).collect(),
            "too many images"
        );
        let verdict = served.post("/v1/audit/verify", &json!({}));
        assert_eq!(verdict["sound"], true, "{verdict}");
        let mut audited: BTreeMap<String, usize> = BTreeMap::new();
        for operation in ["backups.start", "images.restore", "pools.gc", "pools.scrub"] {
            let path =
                format!("/v1/audit?filter=operation:=={operation}&filter=result:==ok&count=true");
            let count = served.get(&path)["count"].as_u64().unwrap();
            audited.insert(operation.into(), count as usize);
        }
        let wished = |kind| self.wishes.iter().filter(|wish| wish.kind == kind).count();
        for (operation, kind) in
            [("backups.start", "backup"), ("images.restore", "restore"), ("pools.gc", "gc")]
        {
            assert!(audited[operation] >= wished(kind), "{operation} is missing in the trail");
        }
    }

    /// What must be true of the pool, with nobody using it: every image restores to what was backed
    /// up, and all is whole.
    pub(crate) fn judge_pool(&self, pool: &Path) {
        let run = |line: &[&str]| self.run(line, pool);
        run(&["pool", "check", "--read-data"]);
        let scrubbed: Value = serde_json::from_slice(&run(&["pool", "scrub", "--json"])).unwrap();
        assert_eq!(scrubbed["bad_shards"], 0, "{scrubbed}");
        let list: Value = serde_json::from_slice(&run(&["images", "list", "--json"])).unwrap();
        let images = list["images"].as_array().unwrap();
        let mut seen = BTreeSet::new();
        for image in images {
            let number: usize = image["tags"][0].as_str().unwrap().parse().unwrap();
            let once = seen.insert(number) || image["name"] == "sent";
            assert!(once, "the backup {number} made two images: {list}");
            let to = self.place.join("back");
            let _ = fs::remove_dir_all(&to);
            let id = image["id"].as_str().unwrap();
            run(&["restore", id, "--to", to.to_str().unwrap()]);
            let source = self.source(number);
            assert_same(&source, &to.join(source.strip_prefix("/").unwrap()));
        }
        for (number, wish) in self.wishes.iter().enumerate().filter(|(_, w)| w.kind == "restore") {
            let from = PathBuf::from(wish.body["from"].as_str().unwrap());
            assert_same(&from, &self.target(number));
        }
        eprintln!("{} images are there and restored the same", images.len());
    }
}

/// What was forgotten is back only if its job was killed after it had made the image and before it
/// said so, and then made it anew.
fn made_anew(served: &Served, row: &Value) {
    let root = row["root"].as_str().unwrap();
    let events = served.get(&format!("/v1/events?keyword={root}&sort=id:asc&limit=100"));
    let time = |text: &Value| text.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let gone = events["items"]
        .as_array()
        .unwrap()
        .iter()
        .rfind(|event| event["kind"] == "image.forgotten" || event["kind"] == "image.gone");
    let gone = gone.map(|event| time(&event["at"]));
    let anew = gone.is_some_and(|gone| time(&row["created_at"]) > gone);
    assert!(anew, "{root} was forgotten and is back: {row} {events}");
}

/// How many jobs wait or run; none when nobody answers.
pub(crate) fn unfinished(data: &Path) -> Option<usize> {
    let count = |state: &str| {
        let path = format!("/v1/jobs?filter=state:=={state}&limit=1&count=true");
        let answer = ask(data, "GET", &path, &[], None).ok()?;
        (answer.status == 200).then(|| answer.body["count"].as_u64().unwrap() as usize)
    };
    Some(count("queued")? + count("running")?)
}

fn all_jobs(served: &Served) -> Vec<Value> {
    let mut jobs = Vec::new();
    loop {
        let path = format!("/v1/jobs?limit=200&sort=id:asc&offset={}", jobs.len());
        let page = served.get(&path);
        let items = page["items"].as_array().unwrap();
        jobs.extend(items.iter().cloned());
        if items.is_empty() {
            return jobs;
        }
    }
}
