#![allow(clippy::unwrap_used, reason = "tests")]
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use strongroom_archive::backup::{Backup, Input, Progress};
use strongroom_block::Durability;
use strongroom_catalog::{Catalog, Sql, pools, testing, volumes};
use strongroom_engine::pool::{GcOptions, Meter};

use super::*;
use crate::tests::Bed;
use crate::{Error, Import, Storage};

const MIB: u64 = 1 << 20;

fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

fn nobody() -> Server {
    Server { name: "target t1".into(), in_use: Arc::new(|| false) }
}

/// Writes through a device, as who serves it does, and lets go of it.
async fn write(storage: &Storage, volume: i64, offset: u64, bytes: Vec<u8>) {
    let served = storage.serve_volume(volume, nobody()).await.unwrap();
    let write = move || {
        let device = served.device();
        device.write_at(offset, &bytes, Durability::Now).unwrap();
    };
    tokio::task::spawn_blocking(write).await.unwrap();
}

async fn read(storage: &Storage, volume: i64, offset: u64, len: usize) -> Vec<u8> {
    let served = storage.serve_volume(volume, nobody()).await.unwrap();
    let read = move || {
        let mut bytes = vec![0xee; len];
        served.device().read_at(offset, &mut bytes).unwrap();
        bytes
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Waits until something holds, and not for ever.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn quick(catalog: &Catalog) -> Bed {
    let pace = Pace {
        idle: Duration::from_millis(50),
        look: Duration::from_millis(10),
        ..Pace::default()
    };
    Bed::new(catalog).await.paced(pace)
}

#[tokio::test]
async fn a_volume_is_made_changed_grown_and_removed() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let new = NewVolume::new(pool.id, "vol1", 10 * MIB);
        let made = storage.create_volume(new.clone()).await.unwrap();
        assert_eq!((made.size, made.used, made.snapshots_used), (10 * MIB, Some(0), Some(0)));
        assert_eq!((made.block_size, made.sector_size, made.priority), (65536, 512, 16));
        assert_eq!(made.public_id.len(), 40);
        assert_eq!(made.public_id, public_id("volume", &made.uuid));
        assert!(error(storage.create_volume(new.clone()).await).contains("vol1"));
        for bad in ["", "a/b", "a@b", "a\nb", &"x".repeat(200)] {
            let bad = NewVolume { name: bad.into(), ..new.clone() };
            assert!(storage.create_volume(bad).await.is_err());
        }
        for (size, block_size, sector_size) in
            [(0, 65536, 512), (1000, 65536, 512), (MIB, 5000, 512), (MIB, 65536, 1024)]
        {
            let bad = NewVolume { name: "x".into(), size, block_size, sector_size, ..new.clone() };
            assert!(storage.create_volume(bad).await.is_err(), "{size} {block_size} {sector_size}");
        }

        let change = VolumeChange {
            name: Some("vol2".into()),
            compressed: Some(false),
            priority: Priority::new(64),
            io_type: Some(IoType::Sequential),
            ..VolumeChange::default()
        };
        let stale = storage.change_volume(made.id, change.clone(), Some(99)).await;
        assert!(matches!(stale, Err(Error::Catalog(strongroom_catalog::Error::Changed { .. }))));
        let changed = storage.change_volume(made.id, change, Some(made.version)).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.compressed), ("vol2", false));
        assert_eq!((changed.io_type.as_str(), changed.priority), ("sequential", 64));
        assert!(changed.deduplicated && changed.version > made.version);

        assert!(error(storage.grow_volume(made.id, 5 * MIB, None).await).contains("smaller"));
        write(storage, made.id, 10 * MIB - 512, vec![7; 512]).await;
        let grown = storage.grow_volume(made.id, 20 * MIB, None).await.unwrap();
        assert_eq!((grown.size, grown.id), (20 * MIB, made.id));
        let end = read(storage, made.id, 10 * MIB - 512, 1024).await;
        assert_eq!(end, [vec![7; 512], vec![0; 512]].concat());

        storage.remove_volume(made.id, Some(grown.version), Force::No).await.unwrap();
        assert!(storage.volume(made.id).await.is_err());
        assert!(storage.serve_volume(made.id, nobody()).await.is_err());
        // The name and the room are free again.
        storage.create_volume(new).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn snapshots_are_made_read_rolled_back_to_cloned_and_removed() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", 4 * MIB)).await.unwrap().id;
        write(storage, id, 0, vec![1; 65536]).await;
        let first = storage.create_snapshot(id, "first").await.unwrap();
        assert_eq!((first.size, first.scheduled, first.reserved), (4 * MIB, false, Some(0)));
        assert!(error(storage.create_snapshot(id, "first").await).contains("first"));
        write(storage, id, 0, vec![2; 65536]).await;

        let clone = NewClone { name: "c".into(), size: Some(8 * MIB) };
        let clone = storage.clone_snapshot(first.id, clone).await.unwrap();
        assert_eq!((clone.size, clone.origin.as_str()), (8 * MIB, "snapshot v@first"));
        assert_eq!(read(storage, clone.id, 0, 65536).await, vec![1; 65536]);
        let copy = NewClone { name: "d".into(), ..NewClone::default() };
        let copy = storage.clone_volume(id, copy).await.unwrap();
        assert_eq!(read(storage, copy.id, 0, 65536).await, vec![2; 65536]);
        assert_eq!(volumes::snapshots_of(&catalog, id).await.unwrap().len(), 1);
        let less = NewClone { name: "e".into(), size: Some(MIB) };
        assert!(storage.clone_snapshot(first.id, less).await.is_err());

        // What a snapshot alone has is told once it was measured.
        let measured = storage.measure_volume(id).await.unwrap();
        assert_eq!((measured.used, measured.snapshots_used), (Some(65536), Some(65536)));
        assert_eq!(storage.snapshot(first.id).await.unwrap().reserved, Some(65536));

        // Somebody who is connected must be thought of.
        let busy = Arc::new(AtomicBool::new(true));
        let asked = Arc::clone(&busy);
        let in_use: Arc<dyn Fn() -> bool + Send + Sync> =
            Arc::new(move || asked.load(Ordering::Relaxed));
        let served =
            storage.serve_volume(id, Server { name: "target t9".into(), in_use }).await.unwrap();
        assert!(error(storage.roll_back(first.id, Force::No).await).contains("target t9"));
        busy.store(false, Ordering::Relaxed);
        storage.roll_back(first.id, Force::No).await.unwrap();
        assert_eq!(read(storage, id, 0, 65536).await, vec![1; 65536]);
        busy.store(true, Ordering::Relaxed);
        storage.roll_back(first.id, Force::Yes).await.unwrap();
        drop(served);

        // A clone needs nothing of what it was made of.
        storage.remove_snapshot(first.id).await.unwrap();
        assert!(storage.snapshot(first.id).await.is_err());
        storage.remove_volume(id, None, Force::No).await.unwrap();
        let open = storage.open(pool.id).await.unwrap();
        let collect = move || open.gc(GcOptions::default()).map(drop);
        tokio::task::spawn_blocking(collect).await.unwrap().unwrap();
        assert_eq!(read(storage, clone.id, 0, 65536).await, vec![1; 65536]);
        assert_eq!(read(storage, copy.id, 0, 65536).await, vec![2; 65536]);
    })
    .await;
}

#[tokio::test]
async fn a_disk_that_was_backed_up_is_a_volume_at_once() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        let dir = bed.files("source", &[("disk.img", &content)]);
        let root = bed.back_up(pool.id, &dir, None).await;
        let files = storage.record_image(pool.id, root, None).await.unwrap();
        let open = storage.open(pool.id).await.unwrap();
        let disk = dir.join("disk.img");
        let backup = Backup {
            name: Some("disk".into()),
            input: Input::Block(disk.clone()),
            ..Backup::default()
        };
        let made = tokio::task::spawn_blocking(move || {
            backup.run(open.session().unwrap(), &Progress::default()).unwrap().image.unwrap().id
        });
        let image = storage.record_image(pool.id, made.await.unwrap(), None).await.unwrap();

        let new = |name: &str| NewClone { name: name.into(), ..NewClone::default() };
        let volume = storage.clone_image(image.id, Vec::new(), new("a")).await.unwrap();
        assert_eq!(volume.size, 100_352, "whole sectors");
        assert!(volume.origin.contains("disk"), "{}", volume.origin);
        let path = disk.to_str().unwrap().as_bytes().to_vec();
        let file = storage.clone_image(files.id, path, new("b")).await.unwrap();
        let folder = storage.clone_image(files.id, Vec::new(), new("c")).await;
        assert!(error(folder).contains("no disk"));
        for id in [volume.id, file.id] {
            assert_eq!(read(storage, id, 0, 100_352).await[..100_000], content[..]);
            write(storage, id, 512, vec![9; 512]).await;
        }
        // The backup stays what it was, and the volume when the backup is gone.
        let opened = storage.open_file(files.id, disk.to_str().unwrap().as_bytes().to_vec()).await;
        assert_eq!(opened.unwrap().size, 100_000);
        storage.forget_images(&[image.id, files.id]).await.unwrap();
        let open = storage.open(pool.id).await.unwrap();
        let collect = move || open.gc(GcOptions::default()).map(drop);
        tokio::task::spawn_blocking(collect).await.unwrap().unwrap();
        let mut expected = content.clone();
        expected[512..1024].fill(9);
        assert_eq!(read(storage, volume.id, 0, 100_352).await[..100_000], expected[..]);
    })
    .await;
}

#[tokio::test]
async fn what_is_served_can_not_be_removed_nor_its_pool_closed() {
    testing::each(|catalog| async move {
        let bed = quick(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", MIB)).await.unwrap().id;
        let served = storage.serve_volume(id, nobody()).await.unwrap();
        let again = storage.serve_volume(id, nobody()).await.unwrap();
        assert!(Arc::ptr_eq(&served.device(), &again.device()), "there is one device");
        assert_eq!((served.volume().id, served.pool()), (id, "main"));
        drop(again);
        assert!(error(storage.remove_volume(id, None, Force::No).await).contains("target t1"));
        assert!(error(storage.close(pool.id, "a test").await).contains("are served: v"));
        assert_eq!(storage.show_volume(id).await.unwrap().served_by, ["target t1"]);
        drop(served);

        // A target that has it counts, whether it serves it now or not.
        for sql in [
            "INSERT INTO portal_groups (id, organisation_id, public_id, name, created_at) \
             VALUES (1, 1, 'g', 'default', 0)",
            "INSERT INTO targets (id, organisation_id, public_id, name, iqn, portal_group_id, \
             enabled, created_at) VALUES (1, 1, 't', 't2', 'iqn', 1, 1, 0)",
        ] {
            catalog.execute(Sql::new(sql)).await.unwrap();
        }
        let map = "INSERT INTO luns (target_id, number, volume_id) VALUES (1, 0, ?)";
        catalog.execute(Sql::new(map).bind(id)).await.unwrap();
        assert!(error(storage.remove_volume(id, None, Force::No).await).contains("target t2"));
        assert!(error(storage.remove_pool(pool.id, Force::No).await).contains('v'));
        catalog.execute(Sql::new("DELETE FROM luns")).await.unwrap();

        // Who only worked on it a moment ago keeps nobody from closing the pool.
        write(storage, id, 0, vec![5; 4096]).await;
        drop(storage.close(pool.id, "a test").await.unwrap());
        assert_eq!(read(storage, id, 0, 4096).await, vec![5; 4096]);
        storage.remove_volume(id, None, Force::No).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn what_is_written_is_settled_and_what_nobody_uses_is_let_go() {
    testing::each(|catalog| async move {
        let bed = quick(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", 64 * MIB)).await.unwrap().id;
        let served = storage.serve_volume(id, nobody()).await.unwrap();
        let device = served.device();
        let fill = move || {
            for at in 0..64u64 {
                let bytes = vec![at as u8 + 1; 65536];
                device.write_at(at * 65536, &bytes, Durability::Later).unwrap();
            }
        };
        tokio::task::spawn_blocking(fill).await.unwrap();
        until("it is settled while it is served", || {
            storage.open_volumes().iter().all(|one| one.log_bytes == 0)
        })
        .await;
        assert_eq!(storage.open_volumes().len(), 1);
        assert_eq!(storage.measure_volumes().await.unwrap(), 1, "it was changed since");
        assert_eq!(storage.volume(id).await.unwrap().used, Some(64 * 65536));
        write(storage, id, 32 * MIB, vec![1; 65536]).await;
        assert_eq!(storage.measure_volumes().await.unwrap(), 0, "it was measured just now");
        let measured = storage.measure_volume(id).await.unwrap();
        assert_eq!(measured.used, Some(65 * 65536), "who asks need not wait");
        drop(served);
        until("it is let go of", || storage.open_volumes().is_empty()).await;
        assert_eq!(read(storage, id, 63 * 65536, 4096).await, vec![64; 4096]);
    })
    .await;
}

/// Another process with its own catalogue: the pool alone tells of volumes.
async fn import(catalog: &Catalog, bed: &Bed) -> (Storage, pools::Pool) {
    try_import(catalog, bed).await.unwrap()
}

async fn try_import(catalog: &Catalog, bed: &Bed) -> Result<(Storage, pools::Pool)> {
    let other = Storage::new(catalog.clone(), Arc::new(crate::tests::TestSealer), "another");
    let other = other.unwrap();
    let import = Import {
        name: "back".into(),
        organisation_id: 1,
        path: bed.path("p"),
        disks: Vec::new(),
        secret: None,
    };
    let pool = other.import_pool(import, &Meter::new()).await?;
    Ok((other, pool))
}

#[tokio::test]
async fn a_pool_brings_its_volumes_along_also_what_was_not_settled() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", MIB)).await.unwrap().id;
        write(storage, id, 0, vec![1; 4096]).await;
        let snapshot = storage.create_snapshot(id, "s").await.unwrap();
        write(storage, id, 0, vec![2; 4096]).await;
        storage.grow_volume(id, 2 * MIB, None).await.unwrap();
        let before = storage.volume(id).await.unwrap();
        storage.create_volume(NewVolume::new(pool.id, "w", MIB)).await.unwrap();
        // Ended in the midst of it: nothing is settled.
        storage.close_all().await;
        pools::remove(&catalog, pool.id).await.unwrap();

        let (other, pool) = import(&catalog, &bed).await;
        let all = volumes::of_pool(&catalog, pool.id).await.unwrap();
        let names: Vec<_> = all.iter().map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["v", "w"]);
        assert_eq!((all[0].size, &all[0].uuid), (2 * MIB, &before.uuid));
        assert_eq!(all[0].public_id, before.public_id);
        let snapshots = volumes::snapshots_of(&catalog, all[0].id).await.unwrap();
        assert_eq!(snapshots.len(), 1);
        assert_eq!((&snapshots[0].uuid, snapshots[0].scheduled), (&snapshot.uuid, false));
        assert_eq!(read(&other, all[0].id, 0, 4096).await, vec![2; 4096]);
        other.roll_back(snapshots[0].id, Force::No).await.unwrap();
        assert_eq!(read(&other, all[0].id, 0, 4096).await, vec![1; 4096]);
        other.close_all().await;
    })
    .await;
}

#[tokio::test]
async fn rows_that_a_crash_left_behind_are_put_right_when_the_pool_is_opened() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", MIB)).await.unwrap().id;
        storage.create_snapshot(id, "s").await.unwrap();
        drop(storage.close(pool.id, "a test").await.unwrap());
        for sql in [
            "UPDATE volumes SET name = 'other', size = 512",
            "DELETE FROM snapshots",
            "INSERT INTO volumes (pool_id, organisation_id, uuid, public_id, name, size, \
             block_size, sector_size, thin, deduplicated, compressed, cached, io_type, priority, \
             origin, created_at) VALUES (1, 1, '00', '00', 'v', 1, 1, 1, 1, 1, 1, 1, 'sequential', \
             4, '', 0)",
        ] {
            catalog.execute(Sql::new(sql)).await.unwrap();
        }
        storage.open(pool.id).await.unwrap();
        let all = volumes::of_pool(&catalog, pool.id).await.unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!((all[0].id, all[0].name.as_str(), all[0].size), (id, "v", MIB));
        assert_eq!(all[0].snapshots, 1);
    })
    .await;
}

#[tokio::test]
async fn schedules_make_snapshots_and_remove_only_their_own() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", MIB)).await.unwrap().id;
        let new = NewSchedule { enabled: true, every: 3600, keep: 2 };
        let wrong = NewSchedule { every: 1, ..new };
        assert!(storage.set_snapshot_schedule(id, wrong, None).await.is_err());
        let wrong = NewSchedule { keep: 0, ..new };
        assert!(storage.set_snapshot_schedule(id, wrong, None).await.is_err());
        let set = storage.set_snapshot_schedule(id, new, Some(0)).await.unwrap();
        assert!(storage.set_snapshot_schedule(id, new, Some(0)).await.is_err(), "it has one");
        storage.create_snapshot(id, "mine").await.unwrap();
        assert_eq!(storage.run_snapshot_schedules().await.unwrap(), Snapped::default());

        // Each is made at another second, for the name has it.
        for count in 1..=4usize {
            let sql = "UPDATE snapshot_schedules SET next_at = 0";
            catalog.execute(Sql::new(sql)).await.unwrap();
            let ran = storage.run_snapshot_schedules().await.unwrap();
            assert_eq!((ran.made, ran.removed, ran.failed), (1, usize::from(count > 2), 0));
            let again = storage.run_snapshot_schedules().await.unwrap();
            assert_eq!(again, Snapped::default(), "it is not due twice");
            let second = Timestamp::now().as_second();
            until("the second is over", || Timestamp::now().as_second() > second).await;
        }
        let all = volumes::snapshots_of(&catalog, id).await.unwrap();
        assert_eq!(all.iter().filter(|one| one.scheduled).count(), 2);
        assert!(all.iter().any(|one| one.name == "mine"));

        // A time that is further away than it can be was set by another clock.
        let sql = "UPDATE snapshot_schedules SET next_at = ?";
        let far = Timestamp::now().as_microsecond() * 2;
        catalog.execute(Sql::new(sql).bind(far)).await.unwrap();
        storage.run_snapshot_schedules().await.unwrap();
        let moved = storage.snapshot_schedule(id).await.unwrap().unwrap();
        assert!(moved.next_at.as_microsecond() < far, "{}", moved.next_at);
        assert_eq!((moved.every, moved.keep), (set.every, set.keep));

        storage.remove_snapshot_schedule(id).await.unwrap();
        assert!(storage.remove_snapshot_schedule(id).await.is_err());
        assert_eq!(volumes::snapshots_of(&catalog, id).await.unwrap().len(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_for_a_clone_that_was_cut_off_goes_when_the_pool_is_opened() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", MIB)).await.unwrap().id;
        storage.create_snapshot(id, "s").await.unwrap();
        let known = storage.known_volume(id).await.unwrap();
        let held = storage.held(&known, None).await.unwrap();
        held.snapshot("@left").unwrap();
        drop(held);
        drop(storage.close(pool.id, "a test").await.unwrap());
        storage.open(pool.id).await.unwrap();
        let left = volumes::snapshots_of(&catalog, id).await.unwrap();
        let names: Vec<_> = left.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["s"]);
        let held = storage.held(&known, None).await.unwrap();
        assert_eq!(held.snapshots().len(), 1);
    })
    .await;
}

/// A client of an export, which goes when it is told to.
struct Connected(Arc<Mutex<Option<(Served, Entered)>>>);

impl Connected {
    async fn to(storage: &Storage, export: &str) -> Self {
        let slot = Arc::<Mutex<Option<(Served, Entered)>>>::default();
        let told = Arc::clone(&slot);
        // It takes a moment, and may wait for a disk.
        let end = move || {
            let told = Arc::clone(&told);
            std::thread::spawn(move || drop(told.lock().unwrap().take()));
        };
        let by = Server { name: "NBD client 1".into(), in_use: Arc::new(|| true) };
        let served = storage.serve_export(export, by).await.unwrap();
        let new = NewClient {
            export: export.into(),
            client: "CN=c".into(),
            address: Some("192.0.2.1:5".parse().unwrap()),
            end: Arc::new(end),
        };
        let entered = storage.connected(&served, new);
        *slot.lock().unwrap() = Some((served, entered));
        Self(slot)
    }

    fn is_there(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }

    async fn goes(&self) {
        until("it goes", || !self.is_there()).await;
    }
}

#[tokio::test]
async fn clients_of_exports_are_shown_and_let_go_by_force() {
    testing::each(|catalog| async move {
        let bed = quick(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let new = |name: &str| NewVolume::new(pool.id, name, MIB);
        let id = storage.create_volume(new("v")).await.unwrap().id;
        let other = storage.create_volume(new("w")).await.unwrap().id;
        storage.create_snapshot(id, "s").await.unwrap();
        let volume = Connected::to(storage, "main/v").await;
        let snapshot = Connected::to(storage, "main/v@s").await;
        let others = Connected::to(storage, "main/w").await;
        let shown = storage.show_volume(id).await.unwrap().clients;
        let exports: Vec<_> = shown.iter().map(|one| one.export.as_str()).collect();
        assert_eq!(exports, ["main/v", "main/v@s"]);
        assert_eq!((shown[0].client.as_str(), shown[0].volume_id), ("CN=c", id));

        let refused = error(storage.remove_volume(id, None, Force::No).await);
        assert!(refused.contains("NBD client 1"), "{refused}");
        assert!(volume.is_there() && snapshot.is_there());
        storage.remove_volume(id, None, Force::Yes).await.unwrap();
        assert!(!volume.is_there() && !snapshot.is_there() && others.is_there());

        let refused = error(storage.remove_pool(pool.id, Force::No).await);
        assert!(refused.contains("are served: w"), "{refused}");
        assert!(others.is_there());
        storage.remove_pool(pool.id, Force::Yes).await.unwrap();
        assert!(!others.is_there());
        assert!(storage.export_clients(other).is_empty());
        // Its disks can be had by another.
        let (again, _) = import(&catalog, &bed).await;
        again.close_all().await;
    })
    .await;
}

#[tokio::test]
async fn clients_go_when_what_they_have_is_no_longer_in_the_catalogue() {
    testing::each(|catalog| async move {
        let bed = quick(&catalog).await;
        let (storage, pool) = (&bed.storage, bed.pool().await);
        let id = storage.create_volume(NewVolume::new(pool.id, "v", MIB)).await.unwrap().id;
        let snap = storage.create_snapshot(id, "s").await.unwrap().id;
        let volume = Connected::to(storage, "main/v").await;
        let snapshot = Connected::to(storage, "main/v@s").await;
        storage.look_after_exports().await.unwrap();
        assert!(volume.is_there() && snapshot.is_there());
        storage.remove_snapshot(snap).await.unwrap();
        storage.look_after_exports().await.unwrap();
        snapshot.goes().await;
        assert!(volume.is_there());
        // Another node let go of the pool.
        pools::remove(&catalog, pool.id).await.unwrap();
        assert!(storage.if_open(pool.id).is_some());
        storage.look_after_exports().await.unwrap();
        volume.goes().await;
        storage.look_after_exports().await.unwrap();
        assert!(storage.if_open(pool.id).is_none(), "it is closed");
        // Its disks can be had as soon as it is.
        let end = Instant::now() + Duration::from_secs(60);
        let (again, _) = loop {
            match try_import(&catalog, &bed).await {
                Ok(imported) => break imported,
                Err(error) => assert!(error.is_elsewhere() && Instant::now() < end, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        again.close_all().await;
    })
    .await;
}
