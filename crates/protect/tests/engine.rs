//! The engine under cancel, death and load.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Bed, asker, job, over, quick};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use strongroom_catalog::jobs::Cancel;
use strongroom_catalog::{Catalog, Sql, events, testing};
use strongroom_protect::works::{
    BackupParameters, CheckParameters, GcParameters, RestoreParameters, ScrubParameters,
};
use strongroom_protect::{
    Asker, Engine, Failure, Limits, NewJob, Options, Outcome, Progress, Run, Severity, State, Work,
};
use strongroom_storage::Storage;

/// Waits until it is told to end, or asked to stop.
struct Wait {
    begun: Arc<AtomicU32>,
    /// Up to which try it fails.
    fails: u32,
    end: Arc<AtomicU32>,
}

impl Wait {
    fn work(fails: u32) -> (Arc<dyn Work>, Arc<AtomicU32>, Arc<AtomicU32>) {
        let (begun, end) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let work = Self { begun: Arc::clone(&begun), fails, end: Arc::clone(&end) };
        (Arc::new(work), begun, end)
    }
}

impl Work for Wait {
    fn kind(&self) -> &'static str {
        "wait"
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        if parameters["wrong"] == true { Err("that is wrong".into()) } else { Ok(()) }
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let begun = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let before = run.checkpoint().and_then(Value::as_u64).unwrap_or(0);
        run.store_checkpoint(&json!(before + 1))?;
        run.log(Severity::Info, format!("try {begun}"));
        if run.job().parameters["panic"] == true {
            panic!("the work has a fault");
        }
        if begun <= self.fails {
            return Err(Failure::Failed("not yet".into()));
        }
        let (tell, told) = std::sync::mpsc::channel();
        run.on_stop(move || {
            let _ = tell.send(());
        });
        while self.end.load(Ordering::SeqCst) == 0 {
            let done = u64::from(begun);
            run.progress(Progress { bytes_done: done, ..Progress::default() });
            if told.recv_timeout(Duration::from_millis(5)).is_ok() {
                return Err(Failure::Canceled);
            }
        }
        run.hold()?;
        Ok(Outcome { result: json!({ "tries": before + 1 }), warnings: false })
    }
}

async fn organisation(catalog: &Catalog) {
    let sql = "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)";
    catalog.execute(Sql::new(sql)).await.unwrap();
}

async fn engine(catalog: &Catalog, work: &Arc<dyn Work>, options: Options) -> Engine {
    Engine::start(catalog.clone(), vec![Arc::clone(work)], options).await.unwrap()
}

/// Waits for the job to come to this state, as one who watches.
async fn comes_to(engine: &Engine, id: i64, state: State) -> strongroom_protect::Job {
    let watch = async {
        let mut changes = engine.watch(id).await.unwrap();
        while let Some(job) = changes.next().await {
            if job.state == state {
                return Some(job);
            }
        }
        None
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), watch).await;
    seen.expect("it comes to that in time").expect("it comes to that before it is over")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canceled_job_stops_whoever_asks() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let (work, _, _) = Wait::work(0);
        let here = engine(&catalog, &work, quick()).await;
        let idle = Limits { slots: 0, ..Limits::default() };
        let there = engine(&catalog, &work, Options { limits: idle, ..quick() }).await;
        for canceler in [&here, &there] {
            let id = here.submit(job("wait", json!({}))).await.unwrap().id;
            comes_to(&here, id, State::Running).await;
            assert_eq!(canceler.cancel(id).await.unwrap(), Cancel::Asked);
            comes_to(&here, id, State::Canceled).await;
            assert_eq!(canceler.cancel(id).await.unwrap(), Cancel::Over);
        }
        let wrong = here.submit(job("wait", json!({"wrong": true}))).await.unwrap_err();
        assert_eq!(wrong.to_string(), "that is wrong");
        let unknown = here.submit(job("dance", json!({}))).await.unwrap_err();
        assert_eq!(unknown.to_string(), "no job is called dance; there are: wait");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_begins_within_its_time_or_never() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let (work, begun, end) = Wait::work(0);
        end.store(1, Ordering::SeqCst);
        let none = Limits { slots: 0, ..Limits::default() };
        let idle = engine(&catalog, &work, Options { limits: none, ..quick() }).await;
        let within = |millis| Some(Timestamp::now() + SignedDuration::from_millis(millis));
        let wait = || job("wait", json!({}));
        // Nobody has room for it in time.
        let late = idle.submit(NewJob { run_until: within(2000), ..wait() }).await.unwrap();
        let early = idle.submit(NewJob { run_at: within(3000), ..wait() }).await.unwrap();
        comes_to(&idle, late.id, State::NotRun).await;
        idle.set_limits(Limits::default());
        let over = comes_to(&idle, early.id, State::Succeeded).await;
        assert!(over.started_at.unwrap() >= early.run_at);
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        let why = async |new| idle.submit(new).await.unwrap_err().to_string();
        let never = NewJob { run_at: within(60_000), run_until: within(30_000), ..wait() };
        assert!(why(never).await.contains("could never begin"));
        let past = NewJob { run_until: within(-1), ..wait() };
        assert!(why(past).await.contains("could never begin"));
        assert!(why(NewJob { attempts: 101, ..wait() }).await.contains("100 times"));
        let usual = idle.submit(wait()).await.unwrap();
        assert_eq!(usual.attempts, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold_from_when_they_are_set() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let (work, _, end) = Wait::work(0);
        let one = Limits { slots: 1, ..Limits::default() };
        let engine = engine(&catalog, &work, Options { limits: one, ..quick() }).await;
        let first = engine.submit(job("wait", json!({}))).await.unwrap();
        comes_to(&engine, first.id, State::Running).await;
        let second = engine.submit(job("wait", json!({}))).await.unwrap();
        assert_eq!((second.state, second.attempts), (State::Queued, 3));
        engine.set_limits(Limits { slots: 2, attempts: 5, ..one });
        // While the first still runs.
        comes_to(&engine, second.id, State::Running).await;
        let third = engine.submit(job("wait", json!({}))).await.unwrap();
        assert_eq!(third.attempts, 5);
        end.store(1, Ordering::SeqCst);
        for job in [first, second, third] {
            assert_eq!(engine.wait(job.id).await.unwrap().state, State::Succeeded);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_is_tried_again_and_a_panic_is_a_failure() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let (work, begun, end) = Wait::work(2);
        end.store(1, Ordering::SeqCst);
        let engine = engine(&catalog, &work, quick()).await;
        let new = strongroom_protect::NewJob { attempts: 3, ..job("wait", json!({})) };
        let first = engine.submit(new).await.unwrap();
        let over = engine.wait(first.id).await.unwrap();
        assert_eq!((over.state, over.attempt), (State::Succeeded, 3));
        // The checkpoint went with it.
        assert_eq!(over.result, Some(json!({ "tries": 3 })));
        assert_eq!(begun.load(Ordering::SeqCst), 3);
        assert_eq!(engine.job(first.id).await.unwrap().state, State::Retried);
        let faulty = engine.submit(job("wait", json!({"panic": true}))).await.unwrap();
        let over = engine.wait(faulty.id).await.unwrap();
        assert_eq!(over.state, State::Failed);
        assert_eq!(over.error.as_deref(), Some("a fault of the program: the work has a fault"));
        let log = engine.log(first.id, 0, 9).await.unwrap();
        let lines: Vec<_> = log.iter().map(|line| line.message.as_str()).collect();
        assert_eq!(lines, ["try 1", "not yet"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_had_is_taken_up_and_the_dead_have_no_say() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let (work, _, _) = Wait::work(0);
        let dying = engine(&catalog, &work, quick()).await;
        let id = dying.submit(job("wait", json!({}))).await.unwrap().id;
        comes_to(&dying, id, State::Running).await;
        drop(dying);
        let (work, begun, end) = Wait::work(0);
        end.store(1, Ordering::SeqCst);
        let heir = engine(&catalog, &work, quick()).await;
        let over = tokio::time::timeout(Duration::from_secs(30), heir.wait(id)).await;
        let over = over.unwrap().unwrap();
        assert_eq!((over.state, over.attempt), (State::Succeeded, 1));
        assert_eq!(over.result, Some(json!({ "tries": 2 })));
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        // One that knows that it is alone does not wait for the lease.
        let (work, _, _) = Wait::work(0);
        let long = Options { lease: Duration::from_secs(3600), ..quick() };
        drop(heir);
        let dying = engine(&catalog, &work, long.clone()).await;
        let id = dying.submit(job("wait", json!({}))).await.unwrap().id;
        comes_to(&dying, id, State::Running).await;
        drop(dying);
        let (work, _, end) = Wait::work(0);
        end.store(1, Ordering::SeqCst);
        let heir = engine(&catalog, &work, Options { sole: true, ..long }).await;
        let over = tokio::time::timeout(Duration::from_secs(30), heir.wait(id)).await;
        assert_eq!(over.unwrap().unwrap().state, State::Succeeded);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_gives_jobs_back_for_others_to_go_on() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let (work, _, _) = Wait::work(0);
        let stopping = engine(&catalog, &work, quick()).await;
        let mut ids = Vec::new();
        for _ in 0..3 {
            ids.push(stopping.submit(job("wait", json!({}))).await.unwrap().id);
        }
        for id in &ids {
            comes_to(&stopping, *id, State::Running).await;
        }
        stopping.drain(Duration::from_secs(20)).await;
        for id in &ids {
            assert_eq!(stopping.job(*id).await.unwrap().state, State::Queued);
        }
        assert!(stopping.submit(job("wait", json!({}))).await.is_err());
        let (work, _, end) = Wait::work(0);
        end.store(1, Ordering::SeqCst);
        let next = engine(&catalog, &work, quick()).await;
        for id in ids {
            let over = next.wait(id).await.unwrap();
            assert_eq!(over.result, Some(json!({ "tries": 2 })));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_canceled_leaves_no_image() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        let protect = bed.protect(quick()).await;
        bed.files("source", 400, 200_000);
        let paths = vec![bed.text("source")];
        let what = BackupParameters { paths, ..BackupParameters::default() };
        let job = protect.backup(asker(), pool, what).await.unwrap();
        comes_to(protect.engine(), job.id, State::Running).await;
        let canceled = protect.engine().cancel(job.id).await.unwrap();
        let over = protect.engine().wait(job.id).await.unwrap();
        let images = bed.storage.open(pool).await.unwrap().roots().len();
        match (canceled, over.state) {
            (Cancel::Asked, State::Canceled) => assert_eq!(images, 0),
            // The machine was faster than the test.
            (_, State::Succeeded) => assert_eq!(images, 1),
            other => panic!("{other:?}"),
        }
        protect.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_jobs_of_two_engines_are_each_done_once() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pools = [bed.pool("one").await, bed.pool("two").await];
        let first = bed.protect(quick()).await;
        // The other has the pools open in a place of its own, and finds them in use: it gives back
        // what it can't do.
        let elsewhere =
            Storage::new(catalog.clone(), Arc::new(common::Plain), "another node").unwrap();
        let second = strongroom_protect::Protect::start(elsewhere, quick()).await.unwrap();
        let third = bed.protect(quick()).await;
        bed.files("source", 6, 2000);
        let paths = vec![bed.text("source")];
        let what = BackupParameters { paths, ..BackupParameters::default() };
        let made = first.backup(asker(), pools[0], what.clone()).await.unwrap();
        let made = over(&first, &made, State::Succeeded).await.result.unwrap();
        let image = made["image"].as_i64().unwrap();
        let mut jobs = Vec::new();
        for number in 0..200usize {
            let protect = [&first, &second, &third][number % 3];
            let pool = pools[number / 3 % 2];
            let asker = Asker { priority: number as i64 % 3, ..asker() };
            let submitted = match number % 10 {
                0..4 => {
                    let name = Some(format!("number {number}"));
                    let what = BackupParameters { name, ..what.clone() };
                    protect.backup(asker, pool, what).await
                }
                4..7 => {
                    let to = bed.text(&format!("to/{number}"));
                    let what = RestoreParameters { image, to, ..RestoreParameters::default() };
                    protect.restore(asker, what).await
                }
                7 => protect.gc(asker, pool, GcParameters::default()).await,
                8 => protect.scrub(asker, pool, ScrubParameters::default()).await,
                _ => protect.check(asker, pool, CheckParameters::default()).await,
            };
            jobs.push(submitted.unwrap());
        }
        // One of them dies in the middle of it.
        let half = &jobs[100];
        over(&first, half, State::Succeeded).await;
        drop(third);
        for job in &jobs {
            over(&first, job, State::Succeeded).await;
        }
        let mut images: HashMap<String, u32> = HashMap::new();
        for pool in pools {
            for root in bed.storage.open(pool).await.unwrap().roots() {
                *images.entry(root.name).or_default() += 1;
            }
        }
        assert_eq!(images.len(), 81);
        assert!(images.values().all(|times| *times == 1), "{images:?}");
        let told = events::after(&catalog, 0, 10_000).await.unwrap();
        let mut ends: HashMap<i64, u32> = HashMap::new();
        for event in told.iter().filter(|event| event.kind == "job.succeeded") {
            *ends.entry(event.job_id.unwrap()).or_default() += 1;
        }
        assert_eq!(ends.len(), 201);
        assert!(ends.values().all(|times| *times == 1));
        first.engine().drain(Duration::from_secs(5)).await;
        second.engine().drain(Duration::from_secs(5)).await;
    })
    .await;
}

/// Makes an image and loses its job right after.
struct Cut {
    inner: Arc<dyn Work>,
    catalog: Catalog,
    cuts: Mutex<u32>,
}

impl Work for Cut {
    fn kind(&self) -> &'static str {
        self.inner.kind()
    }

    fn check(&self, parameters: &Value) -> Result<(), String> {
        self.inner.check(parameters)
    }

    fn run(&self, run: &Run) -> Result<Outcome, Failure> {
        let outcome = self.inner.run(run)?;
        let cut = {
            let mut cuts = self.cuts.lock().unwrap();
            *cuts += 1;
            *cuts == 1
        };
        if cut {
            // As if the process had ended before it could say so.
            let sql = "UPDATE jobs SET lease_until = 0, worker = 'gone' WHERE id = ?";
            run.wait(self.catalog.execute(Sql::new(sql).bind(run.job().id)))?;
        }
        Ok(outcome)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_cut_off_after_its_image_makes_no_second_one() {
    testing::each(|catalog| async move {
        let bed = Bed::new(&catalog).await;
        let pool = bed.pool("main").await;
        bed.files("source", 3, 100);
        let works = strongroom_protect::works::all(&bed.storage);
        let inner = works.into_iter().find(|work| work.kind() == "backup").unwrap();
        let cut = Cut { inner, catalog: catalog.clone(), cuts: Mutex::new(0) };
        let engine = Engine::start(catalog.clone(), vec![Arc::new(cut)], quick()).await.unwrap();
        let parameters = json!({ "paths": [bed.text("source")] });
        let new = strongroom_protect::NewJob { pool_id: Some(pool), ..job("backup", parameters) };
        let id = engine.submit(new).await.unwrap().id;
        let over = tokio::time::timeout(Duration::from_secs(30), engine.wait(id)).await;
        let over = over.unwrap().unwrap();
        assert_eq!(over.state, State::Succeeded);
        let log = engine.log(id, 0, 99).await.unwrap();
        assert!(log.iter().any(|line| line.message.contains("made already")), "{log:?}");
        assert_eq!(bed.storage.open(pool).await.unwrap().roots().len(), 1);
    })
    .await;
}
