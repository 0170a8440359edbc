//! Volumes of an appliance: made, cloned, rolled back and kept, also over a crash and at another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use strongroom_block::volume::{Limits, VolumeId, Volumes};
use strongroom_block::{BlockDevice, Durability};
use strongroom_engine::clock::SystemClock;
use strongroom_engine::disk::FsDisk;
use strongroom_engine::pool::{OpenMode, OpenOptions, Pool, Use};

use crate::support::noise;
use crate::support::served::{Served, ask, of_user};

/// An appliance with a pool `vols` that isn't encrypted, and its user's home.
struct Home {
    served: Option<Served>,
    home: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let served = Some(Served::start(&home.path().join("data")));
        let it = Self { served, home };
        it.text("pool create store --name vols --unencrypted");
        it
    }

    fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Runs the words of a line; its output, if it ended with this code.
    fn ends(&self, code: i32, line: &str) -> (String, String) {
        let output = of_user(&self.data()).args(line.split_whitespace()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (out, err) = (text(output.stdout), text(output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}\n{err}\n{out}");
        (out, err)
    }

    fn text(&self, line: &str) -> String {
        self.ends(0, line).0
    }

    fn json(&self, line: &str) -> Value {
        let text = self.text(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text}"))
    }

    fn lines(&self, line: &str) -> Vec<Value> {
        let text = self.text(&format!("{line} --json"));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn refused(&self, code: i32, line: &str) -> String {
        self.ends(code, line).1
    }

    fn stop(&mut self) {
        self.served.take().unwrap().stop();
    }

    fn kill(&mut self) {
        self.served.take().unwrap().kill();
    }

    fn start(&mut self) {
        self.served = Some(Served::start(&self.data()));
    }

    /// Does something with a volume while nobody else has the pool.
    fn with_volume<R>(&self, volume: &Value, work: impl FnOnce(&dyn BlockDevice) -> R) -> R {
        assert!(self.served.is_none(), "the appliance has the pool");
        let pool = pool(&self.path("store"));
        let volumes = Volumes::new(pool, Limits::default()).unwrap();
        let id = VolumeId::parse(volume["uuid"].as_str().unwrap()).unwrap();
        let opened = volumes.open(id).unwrap();
        let done = work(&*opened);
        opened.flush().unwrap();
        done
    }
}

fn pool(dir: &Path) -> Arc<Pool> {
    let options = OpenOptions {
        disks: vec![Some(Arc::new(FsDisk::open(dir).unwrap()))],
        mode: OpenMode::Write,
        secret: None,
        without_index: false,
    };
    let clock = Arc::new(SystemClock::new().unwrap());
    let used = Use { clock, threads: 2, holder: "the test".into() };
    Arc::new(Pool::open(options, used).unwrap())
}

fn read(device: &dyn BlockDevice, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    device.read_at(offset, &mut bytes).unwrap();
    bytes
}

const MIB: usize = 1 << 20;

#[test]
fn a_volume_is_made_changed_grown_renamed_and_removed_by_commands() {
    let mut it = Home::new();
    let told = it.text("volume create vol1 --size 10G --pool vols");
    assert!(told.contains("vol1") && told.contains("10.0 GiB"), "{told}");
    assert!(it.refused(1, "volume create vol1 --size 1G --pool vols").contains("vol1"));
    // The same name in another pool is another volume.
    it.text("volume create vol1 --size 1G --pool main");
    assert!(it.refused(2, "volume show vol1").contains("POOL/vol1"));
    assert_eq!(it.json("volume show main/vol1")["volume"]["size"], 1u64 << 30);
    it.text("volume delete main/vol1 --yes");

    let shown = it.json("volume show vol1");
    assert_eq!((&shown["pool"], &shown["mapped_to"]), (&json!("vols"), &json!([])));
    let volume = &shown["volume"];
    assert_eq!(volume["public_id"].as_str().unwrap().len(), 40);
    assert_eq!((&volume["used_bytes"], &volume["thin"]), (&json!(0), &json!(true)));
    let number = volume["id"].clone();
    assert_eq!(it.json(&format!("volume show {number}"))["volume"], *volume);

    let changed = it.json("volume change vol1 --compress off --priority 64 --io-type sequential");
    assert_eq!((&changed["compressed"], &changed["priority"]), (&json!(false), &json!(64)));
    assert!(it.refused(2, "volume change vol1").contains("nothing to change"));
    assert!(it.refused(2, "volume change vol1 --priority 5").contains("128"));
    assert!(it.refused(2, "volume grow vol1 --size 5G").contains("smaller"));
    assert_eq!(it.json("volume grow vol1 --size 20G")["size"], 20u64 << 30);
    it.text("volume rename vol1 database");
    assert!(it.refused(2, "volume show vol1").contains("volume list"));
    let table = it.text("volume list --pool vols");
    assert!(table.contains("database") && table.contains("20.0 GiB"), "{table}");
    assert_eq!(it.lines("volume list --keyword data").len(), 1);
    assert!(it.text("volume list --count").starts_with('1'));

    // What another has changed is not changed unseen.
    let path = format!("/v1/volumes/{number}");
    let (status, _) = ask(&it.data(), "GET", &path, None);
    assert_eq!(status, 200);
    assert!(it.refused(2, "volume delete database").contains("--yes"));
    it.text("volume delete database --yes");
    assert_eq!(it.lines("volume list").len(), 0);
    let told = it.text("audit list");
    assert!(told.contains("volumes.remove"), "{told}");
    it.stop();
}

#[test]
fn a_backed_up_disk_is_cloned_written_snapshot_and_rolled_back_and_outlives_a_crash() {
    let mut it = Home::new();
    let disk = noise(7, 3 * MIB);
    std::fs::write(it.path("disk.img"), &disk).unwrap();
    it.text("backup --image disk.img --name disk --pool vols");
    let made = it.json("volume clone --image disk copy --size 8M");
    assert_eq!((&made["size"], &made["name"]), (&json!(8 * MIB), &json!("copy")));
    assert!(made["origin"].as_str().unwrap().contains("disk"));
    let first = it.json("volume snapshot create copy first");
    assert!(it.refused(1, "volume snapshot create copy first").contains("first"));

    // Killed in the midst of everything, with nothing settled.
    it.kill();
    it.with_volume(&made, |device| {
        assert_eq!(device.geometry().size, 8 * MIB as u64);
        assert!(read(device, 0, 3 * MIB) == disk, "the content of the backup");
        assert_eq!(read(device, 3 * MIB as u64, 4096), vec![0; 4096]);
        device.write_at(MIB as u64, &vec![9; MIB], Durability::Now).unwrap();
    });
    it.start();
    let mut written = disk.clone();
    written[MIB..2 * MIB].fill(9);

    // Clones of the volume, of the snapshot, and of a clone.
    let now = it.json("volume clone copy now");
    let then = it.json("volume snapshot clone copy@first then");
    let again = it.json("volume clone then again");
    assert_eq!(then["origin"], "snapshot copy@first");
    let measured = it.json("volume measure copy");
    let bytes = |value: &Value| value.as_u64().unwrap();
    assert_eq!(bytes(&measured["used_bytes"]), 3 * MIB as u64);
    assert_eq!(bytes(&measured["snapshots_used_bytes"]), MIB as u64);
    let shown = it.json("volume snapshot show copy@first");
    assert_eq!((&shown["id"], bytes(&shown["reserved_bytes"])), (&first["id"], MIB as u64));

    it.text("volume snapshot create copy second");
    assert_eq!(it.lines("volume snapshot list copy").len(), 2);
    assert!(it.refused(2, "volume snapshot restore copy@first").contains("--yes"));
    it.text("volume snapshot restore copy@first --yes");
    it.text("volume snapshot delete copy@first --yes");
    assert!(it.refused(2, "volume snapshot show copy@first").contains("no snapshot"));
    it.text("volume delete then --yes");
    it.text("images forget disk --yes --pool vols");
    it.text("pool gc --pool vols");
    it.kill();

    for (volume, content) in [(&made, &disk), (&now, &written), (&again, &disk)] {
        it.with_volume(volume, |device| {
            assert!(read(device, 0, 3 * MIB) == *content, "{}", volume["name"]);
        });
    }
    it.start();
    it.text("volume snapshot restore copy@second --yes");
    it.stop();
    it.with_volume(&made, |device| assert!(read(device, 0, 3 * MIB) == written));
}

#[test]
fn a_pool_takes_its_volumes_to_another_appliance() {
    let mut it = Home::new();
    it.text("volume create a --size 64M --pool vols");
    it.text("volume snapshot create a s1");
    it.text("volume grow a --size 128M");
    it.text("volume create b --size 1G --pool vols --block-size 16K --sector-size 4096");
    let before = it.lines("volume list --pool vols");
    it.stop();
    it.with_volume(&before[0], |device| {
        device.write_at(0, &[7; 4096], Durability::Now).unwrap();
    });

    let mut other = Home::new();
    let line = format!("pool import {} --name brought", it.path("store").display());
    other.text(&line);
    let after = other.lines("volume list --pool brought");
    let told = |volumes: &[Value], field: &str| -> Vec<Value> {
        volumes.iter().map(|volume| volume[field].clone()).collect()
    };
    for field in ["uuid", "public_id", "name", "size", "block_size", "sector_size", "snapshots"] {
        assert_eq!(told(&before, field), told(&after, field), "{field}");
    }
    assert_eq!(other.json("volume snapshot show brought/a@s1")["size"], 64 << 20);
    // What is mapped nowhere keeps nobody from letting go of the pool.
    other.text("pool remove brought --yes");
    assert_eq!(other.lines("volume list").len(), 0);
    other.stop();
}

#[test]
fn schedules_are_set_and_make_snapshots() {
    let mut it = Home::new();
    it.text("volume create v --size 64M --pool vols");
    assert!(it.refused(2, "volume schedule show v").contains("schedule"));
    assert!(it.refused(2, "volume schedule set v --every 1s --keep 3").contains("60"));
    let set = it.json("volume schedule set v --every 1h --keep 3");
    assert_eq!((&set["every_seconds"], &set["keep"]), (&json!(3600), &json!(3)));
    assert_eq!(it.json("volume show v")["schedule"]["enabled"], true);
    assert!(it.text("volume schedule show v").contains("3600"));
    it.text("volume schedule set v --every 1min --keep 1");
    it.text("volume snapshot create v mine");
    let end = Instant::now() + Duration::from_secs(150);
    let scheduled = || it.lines("volume snapshot list v --filter scheduled:==true");
    while scheduled().is_empty() {
        assert!(Instant::now() < end, "no snapshot is made: {}", it.served.as_ref().unwrap().log());
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(scheduled()[0]["name"].as_str().unwrap().starts_with("auto-"));
    it.text("volume schedule delete v --yes");
    assert_eq!(it.lines("volume snapshot list v").len(), 2);
    it.stop();
}
