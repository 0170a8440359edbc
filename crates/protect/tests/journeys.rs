//! Jobs over real pools, from the asking to the end.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::time::Duration;

use common::{Bed, asker, assert_same, job, over, quick};
use jiff::SignedDuration;
use serde_json::json;
use strongroom_catalog::jobs::{self, Worker};
use strongroom_catalog::list::Scope;
use strongroom_catalog::{events, testing};
use strongroom_engine::id::{ChunkKind, RootId};
use strongroom_engine::pool::{NewRoot, Pool};
use strongroom_protect::works::{
    BackupParameters, CheckParameters, DiskParameters, ForgetParameters, GcParameters,
    ImportParameters, RepairParameters, RestoreParameters, ScrubParameters,
};
use strongroom_protect::{Asker, Collecting, NewJob, State};
use strongroom_storage::volumes::Force;
use strongroom_storage::{NewPool, PoolSecret, Rules};
use zeroize::Zeroizing;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_backed_up_comes_back() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        let protect = bed.protect(quick()).await;
        let source = bed.files("source", 40, 30_000);
        let what = BackupParameters {
            paths: vec![bed.text("source")],
            name: Some("docs".into()),
            tags: vec!["daily".into()],
            excludes: vec!["f39".into()],
            ..BackupParameters::default()
        };
        let mut changes = protect.engine().watch_all(None).await.unwrap();
        let job = protect.backup(asker(), pool, what.clone()).await.unwrap();
        let made = over(&protect, &job, State::Succeeded).await;
        let result = made.result.clone().unwrap();
        assert_eq!((result["files"].as_u64(), result["name"].as_str()), (Some(39), Some("docs")));
        assert_eq!(made.progress.bytes_done, 39 * 30_000);
        assert_eq!(made.progress.bytes_total, Some(39 * 30_000));
        assert!(made.rate(made.ended_at.unwrap()).unwrap() > 0.0);

        let image = bed.storage.choose_image("docs", None, &Scope::All).await.unwrap();
        assert_eq!(Some(image.id), result["image"].as_i64());
        assert_eq!((image.job_id, image.user_name.as_str()), (Some(job.id), "anna"));
        assert_eq!(image.tags, ["daily"]);

        let what = RestoreParameters {
            image: image.id,
            from: bed.text("source"),
            to: bed.text("back"),
            verify: true,
            ..RestoreParameters::default()
        };
        let job = protect.restore(asker(), what).await.unwrap();
        let restored = over(&protect, &job, State::Succeeded).await;
        assert_eq!(restored.result.unwrap()["verified"].as_u64(), Some(39));
        fs::remove_file(source.join("d4/f39")).unwrap();
        assert_same(&source, &bed.path("back"));

        // Who watches sees the last state of each, whatever came in between.
        let mut last = std::collections::HashMap::new();
        while last.values().filter(|state: &&State| state.is_over()).count() < 2 {
            let next = tokio::time::timeout(Duration::from_secs(30), changes.next()).await;
            let job = next.unwrap().unwrap();
            last.insert(job.id, job.state);
        }
        let told = events::after(&catalog, 0, 99).await.unwrap();
        let kinds: Vec<_> = told.iter().filter_map(|e| e.kind.strip_prefix("job.")).collect();
        assert_eq!(kinds, ["queued", "started", "succeeded", "queued", "started", "succeeded"]);
        protect.engine().drain(Duration::from_secs(5)).await;
        assert!(protect.backup(asker(), pool, BackupParameters::default()).await.is_err());
        assert!(changes.next().await.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn upkeep_of_a_pool_is_done_by_jobs() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let disks: Vec<_> = ["a", "b", "c"].iter().map(|name| bed.path(name)).collect();
        let layout = "2+1".parse().unwrap();
        let new = NewPool { layout, disks, ..NewPool::new("main", 1, bed.path("main")) };
        let made = bed.storage.create_pool(new).await.unwrap();
        let (pool, passphrase) = (made.pool.id, made.passphrase.unwrap());
        let protect = bed.protect(quick()).await;
        bed.files("source", 20, 50_000);
        for round in 0..3 {
            fs::write(bed.path("source/d1/f1"), [round; 400_000]).unwrap();
            let paths = vec![bed.text("source")];
            let what = BackupParameters { paths, ..BackupParameters::default() };
            let job = protect.backup(asker(), pool, what).await.unwrap();
            over(&protect, &job, State::Succeeded).await;
        }
        let rules = Rules { last: 1, ..Rules::default() };
        let what = ForgetParameters { rules, prune: true, ..ForgetParameters::default() };
        let job = protect.forget(asker(), pool, what).await.unwrap();
        let forgotten = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!(forgotten["forgotten"].as_array().map(Vec::len), Some(2));
        assert!(forgotten["gc"]["dead_chunks"].as_u64().unwrap() > 0);

        let how = GcParameters { max_unused: 0.0, ..GcParameters::default() };
        let job = protect.gc(asker(), pool, how).await.unwrap();
        over(&protect, &job, State::Succeeded).await;
        let how = CheckParameters { read_data: true };
        let job = protect.check(asker(), pool, how).await.unwrap();
        let checked = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!((checked["clean"].as_bool(), checked["images"].as_u64()), (Some(true), Some(1)));

        // A disk is lost; what was on it is rebuilt on another.
        let what = DiskParameters { number: 1, disk: bed.text("d") };
        let job = protect.replace_disk(asker(), pool, what).await.unwrap();
        let rebuilt = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!(
            (rebuilt["complete"].as_bool(), rebuilt["lost_packs"].as_u64()),
            (Some(true), Some(0))
        );
        assert!(rebuilt["healed"].as_u64().unwrap() > 0);
        let how = ScrubParameters { restart: true, ..ScrubParameters::default() };
        let job = protect.scrub(asker(), pool, how).await.unwrap();
        let scrubbed = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!(
            (scrubbed["bad_units"].as_u64(), scrubbed["bad_shards"].as_u64()),
            (Some(0), Some(0))
        );
        assert!(scrubbed["packs"].as_u64().unwrap() > 0);

        // What can't work says so, and is not tried again.
        let twice = Asker { attempts: 3, ..asker() };
        let what = DiskParameters { number: 1, disk: bed.text("a") };
        let job = protect.replace_disk(twice, pool, what).await.unwrap();
        let failed = over(&protect, &job, State::Failed).await;
        assert!(failed.error.unwrap().contains("part of a pool"));

        // The pool goes, and comes back with all that is in it.
        bed.storage.remove_pool(pool, Force::No).await.unwrap();
        let bytes = Zeroizing::new(passphrase.as_bytes().to_vec());
        let secret = bed.storage.seal_waiting(&PoolSecret::Passphrase(bytes)).unwrap();
        let what = ImportParameters {
            name: "back".into(),
            path: bed.text("elsewhere"),
            disks: ["c", "d", "a"].iter().map(|name| bed.text(name)).collect(),
            secret: Some(secret),
            ..ImportParameters::default()
        };
        let job = protect.import(asker(), what).await.unwrap();
        let imported = over(&protect, &job, State::Succeeded).await.result.unwrap();
        let back = bed.storage.pool_named("back").await.unwrap();
        assert_eq!(imported["pool"].as_i64(), Some(back.id));
        assert!(bed.storage.choose_image("source", Some(back.id), &Scope::All).await.is_ok());
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_expired_is_forgotten_unasked_by_a_job() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        let protect = bed.protect(quick()).await;
        bed.files("source", 3, 10);
        let paths = vec![bed.text("source")];
        let made = async |keep_seconds, immutable_seconds| {
            let what = BackupParameters {
                paths: paths.clone(),
                keep_seconds,
                immutable_seconds,
                ..BackupParameters::default()
            };
            let job = protect.backup(asker(), pool, what).await.unwrap();
            let result = over(&protect, &job, State::Succeeded).await.result.unwrap();
            bed.storage.image(result["image"].as_i64().unwrap()).await.unwrap()
        };
        let (ever, long) = (made(None, None).await, made(Some(3600), None).await);
        assert_eq!(ever.expires_at, None);
        assert_eq!(long.expires_at, Some(long.created_at + SignedDuration::from_hours(1)));
        assert_eq!(protect.forget_expired().await.unwrap(), []);
        let (over_now, held) = (made(Some(0), None).await, made(Some(0), Some(3600)).await);

        // First it is said what would go.
        let what = ForgetParameters { expired: true, dry_run: true, ..ForgetParameters::default() };
        let job = protect.forget(asker(), pool, what.clone()).await.unwrap();
        let result = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!(result, json!({"dry_run": true, "forgotten": [over_now.root]}));
        assert!(bed.storage.image(over_now.id).await.is_ok());
        let rules = Rules { last: 1, ..Rules::default() };
        let both = ForgetParameters { rules: rules.clone(), ..what };
        let why = protect.forget(asker(), pool, both).await.unwrap_err();
        assert!(why.to_string().contains("two jobs"), "{why}");
        let what = ForgetParameters { rules, dry_run: true, ..ForgetParameters::default() };
        let job = protect.forget(asker(), pool, what).await.unwrap();
        let result = over(&protect, &job, State::Succeeded).await.result.unwrap();
        // The latest of those that stay for ever does by the rule, and those that say for how long.
        assert_eq!((&result["kept"], &result["forgotten"]), (&json!(3), &json!([over_now.root])));
        assert!(bed.storage.image(ever.id).await.is_ok());

        // Then it goes, by a job that everybody sees; while one waits there is no other.
        let jobs = protect.forget_expired().await.unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!((jobs[0].kind.as_str(), jobs[0].user_name.as_str()), ("forget", "appliance"));
        let result = over(&protect, &jobs[0], State::Succeeded).await.result.unwrap();
        assert_eq!(result["forgotten"], json!([over_now.root]));
        assert!(bed.storage.image(over_now.id).await.is_err());
        for image in [ever, long, held] {
            assert!(bed.storage.image(image.id).await.is_ok());
        }
        assert_eq!(protect.forget_expired().await.unwrap(), []);
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_unasked_by_a_job() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        let protect = bed.protect(quick()).await;
        bed.files("source", 10, 7 << 20);
        let what =
            BackupParameters { paths: vec![bed.text("source")], ..BackupParameters::default() };
        let job = protect.backup(asker(), pool, what).await.unwrap();
        let image = over(&protect, &job, State::Succeeded).await.result.unwrap()["image"].as_i64();
        // Any time is long enough, once anything was let go.
        let soon = Duration::from_nanos(1);
        let when = Collecting { overwritten: 0, free: 0, every: soon, pause: soon };
        assert_eq!(protect.collect_garbage(&when).await.unwrap(), []);
        bed.storage.forget_images(&[image.unwrap()]).await.unwrap();
        let never = Collecting { every: Duration::ZERO, ..when };
        assert_eq!(protect.collect_garbage(&never).await.unwrap(), []);
        let seldom = Collecting { every: Duration::from_secs(86_400), ..when };
        assert_eq!(protect.collect_garbage(&seldom).await.unwrap(), []);
        let jobs = protect.collect_garbage(&when).await.unwrap();
        assert_eq!(jobs.len(), 1);
        assert_eq!((jobs[0].kind.as_str(), jobs[0].user_name.as_str()), ("gc", "appliance"));
        assert_eq!((jobs[0].pool_id, jobs[0].user_id), (Some(pool), None));
        let result = over(&protect, &jobs[0], State::Succeeded).await.result.unwrap();
        let freed = result["bytes_freed"].as_u64().unwrap();
        assert!(freed >= 70 << 20, "{result}");
        assert_eq!(protect.collect_garbage(&when).await.unwrap(), []);
        let figures = protect.pool_stats(pool).await.unwrap();
        let collections = figures.collections.unwrap();
        assert_eq!((collections.count, collections.urgent), (1, 0));
        assert_eq!(collections.bytes_freed, freed);
        assert_eq!(figures.garbage.unwrap().bytes, result["bytes_unused"].as_u64().unwrap());
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_collection_of_a_pool_waits_for_nothing_but_its_turn() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        // Nobody works: jobs stay in the queue.
        let mut options = quick();
        options.limits.slots = 0;
        let protect = bed.protect(options).await;
        let open = bed.storage.open(pool).await.unwrap();
        store_and_forget(&open);
        let soon = Duration::from_nanos(1);
        let when = Collecting { overwritten: 0, free: 0, every: soon, pause: soon };
        // One that somebody asked for is enough, and so is one of its own.
        let asked = protect.gc(asker(), pool, GcParameters::default()).await.unwrap();
        assert_eq!(protect.collect_garbage(&when).await.unwrap(), []);
        protect.engine().cancel(asked.id).await.unwrap();
        let own = protect.collect_garbage(&when).await.unwrap();
        assert_eq!(own.len(), 1);
        assert_eq!(protect.collect_garbage(&when).await.unwrap(), []);
        // Who cancels it has his peace.
        protect.engine().cancel(own[0].id).await.unwrap();
        assert_eq!(protect.collect_garbage(&when).await.unwrap(), []);
        // What writes waited for is told of.
        open.make_room(false, &mut || false);
        assert!(open.standing().collections.bytes_freed > 64 << 20);
        assert_eq!(protect.collect_garbage(&when).await.unwrap(), []);
        let told = events::after(&catalog, 0, 99).await.unwrap();
        let told: Vec<_> = told.iter().filter(|event| event.kind == "pool.collected").collect();
        assert_eq!(told.len(), 1);
        assert!(told[0].message.contains("the pool main had garbage collected 1 times"));
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

/// More than a collection is worth it for.
fn store_and_forget(pool: &Pool) {
    let session = pool.session().unwrap();
    let mut piece = vec![0; 1 << 20];
    for number in 0..70u64 {
        // Not what can be compressed.
        for (place, part) in piece.chunks_mut(32).enumerate() {
            let id =
                pool.id_of(ChunkKind::Data, &[number.to_le_bytes(), place.to_le_bytes()].concat());
            part.copy_from_slice(&id.0);
        }
        session.store(ChunkKind::Data, &[&piece], &mut Vec::new()).unwrap();
    }
    let (id, name) = (RootId::random(), "gone".into());
    let root = NewRoot { id, kind: 99, name, immutable_for: None, nodes: vec![], meta: vec![] };
    session.commit(root).unwrap();
    pool.forget(&[id]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_is_mended_and_gets_a_new_key_by_jobs() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let disks: Vec<_> = ["a", "b"].iter().map(|name| bed.path(name)).collect();
        let layout = "mirror".parse().unwrap();
        let new = NewPool { layout, disks, ..NewPool::new("main", 1, bed.path("main")) };
        let pool = bed.storage.create_pool(new).await.unwrap().pool.id;
        let protect = bed.protect(quick()).await;
        bed.files("source", 20, 50_000);
        let paths = vec![bed.text("source")];
        let what = BackupParameters { paths, ..BackupParameters::default() };
        let job = protect.backup(asker(), pool, what.clone()).await.unwrap();
        over(&protect, &job, State::Succeeded).await;
        let job = protect.rekey(asker(), pool).await.unwrap();
        let result = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!(result, json!({"data_key": 2}));

        // A superblock, and the index on both disks, are lost while nobody looks.
        bed.storage.close_all().await;
        let remove = |dir: &str, of: &str| {
            for entry in fs::read_dir(bed.path(dir)).unwrap().map(Result::unwrap) {
                if entry.file_name().to_string_lossy().contains(of) {
                    let path = entry.path();
                    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                        .unwrap();
                }
            }
        };
        remove("b", "superblock");
        remove("a", "index");
        remove("b", "index");
        let how = RepairParameters { rebuild_index: true };
        let job = protect.repair(asker(), pool, how).await.unwrap();
        let result = over(&protect, &job, State::Succeeded).await.result.unwrap();
        assert_eq!(result["superblocks"], json!([1]), "{result}");
        assert!(result["index_entries"].as_u64().unwrap() >= 20);
        assert_eq!(result["check"]["clean"], true);
        assert_eq!(
            (&result["scrub"]["complete"], &result["scrub"]["lost_packs"]),
            (&json!(true), &json!(0))
        );
        let job = protect.backup(asker(), pool, what).await.unwrap();
        over(&protect, &job, State::Succeeded).await;
        let told = events::after(&catalog, 0, 99).await.unwrap();
        assert!(told.iter().any(|event| event.kind == "pool.mended"));
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_can_not_be_read_are_named_and_the_rest_is_kept() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        let protect = bed.protect(quick()).await;
        bed.files("source", 3, 10);
        let paths = vec![bed.text("source"), bed.text("missing")];
        let what = BackupParameters { paths, ..BackupParameters::default() };
        let job = protect.backup(asker(), pool, what).await.unwrap();
        let made = over(&protect, &job, State::Warnings).await;
        assert_eq!(made.result.unwrap()["files"].as_u64(), Some(3));
        let log = protect.engine().log(job.id, 0, 99).await.unwrap();
        assert!(log.iter().any(|line| line.message.contains("missing")), "{log:?}");
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_is_decided_once_however_often_the_job_is_taken_up() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        let protect = bed.protect(quick()).await;
        bed.files("source", 3, 1000);
        let mut images = Vec::new();
        for round in 0..3 {
            fs::write(bed.path("source/d1/f1"), [round; 3000]).unwrap();
            let paths = vec![bed.text("source")];
            let what = BackupParameters { paths, ..BackupParameters::default() };
            let job = protect.backup(asker(), pool, what).await.unwrap();
            let made = over(&protect, &job, State::Succeeded).await.result.unwrap();
            images
                .push((made["image"].as_i64().unwrap(), made["root"].as_str().unwrap().to_owned()));
        }
        protect.engine().drain(Duration::from_secs(5)).await;

        // One decided when there were two images, forgot the first of them, and died.
        let rules = Rules { last: 1, ..Rules::default() };
        let what = ForgetParameters { rules, ..ForgetParameters::default() };
        let new = NewJob {
            pool_id: Some(pool),
            node: bed.storage.node().into(),
            ..job("forget", serde_json::to_value(&what).unwrap())
        };
        let queued = jobs::submit(&catalog, new).await.unwrap();
        let (name, node, kinds) = ("dead", bed.storage.node(), &["forget"][..]);
        let lease = Duration::ZERO;
        let (per_pool, per_host) = (1, 1);
        let dead = Worker { name, node, kinds, not_pools: &[], lease, per_pool, per_host };
        let claim = jobs::claim(&catalog, &dead).await.unwrap().unwrap();
        let decided = serde_json::json!({"kept": 1, "going": [images[0]]});
        assert!(jobs::checkpoint(&catalog, &claim.lease, &decided).await.unwrap());
        bed.storage.forget_images(&[images[0].0]).await.unwrap();

        let protect = bed.protect(quick()).await;
        let result = over(&protect, &queued, State::Succeeded).await.result.unwrap();
        assert_eq!(result["forgotten"], serde_json::json!([images[0].1]));
        for (id, _) in &images[1..] {
            bed.storage.image(*id).await.expect("it was to stay");
        }
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}
