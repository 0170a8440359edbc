#![allow(clippy::unwrap_used, reason = "tests")]
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::*;
use crate::Sql;
use crate::db::Catalog;
use crate::testing;

const LEASE: Duration = Duration::from_secs(60);
const NO_LEASE: Duration = Duration::ZERO;

async fn organisation(catalog: &Catalog) {
    let sql = "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)";
    catalog.execute(Sql::new(sql)).await.unwrap();
}

fn job(kind: &str) -> NewJob {
    let organisation_id = 1;
    NewJob { kind: kind.into(), organisation_id, object: "it".into(), ..NewJob::default() }
}

fn on(pool: i64, alone: Alone) -> NewJob {
    NewJob { pool_id: Some(pool), alone, ..job("work") }
}

fn worker(name: &str) -> Worker<'_> {
    let kinds = &["work", "other"];
    Worker { name, node: "here", kinds, not_pools: &[], lease: LEASE, per_pool: 2, per_host: 2 }
}

fn last(claim: &Claim) -> Beat {
    Beat { lease: claim.lease.clone(), progress: None, lines: Vec::new() }
}

fn done() -> End {
    End { state: State::Succeeded, result: None, error: None, retry: None }
}

async fn next(catalog: &Catalog, name: &str) -> Option<Claim> {
    claim(catalog, &worker(name)).await.unwrap()
}

#[tokio::test]
async fn a_job_goes_from_queued_to_over() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let new = NewJob { parameters: serde_json::json!({"a": [1]}), ..job("work") };
        let queued = submit(&catalog, new).await.unwrap();
        assert_eq!((queued.state, queued.attempt), (State::Queued, 1));
        let claimed = next(&catalog, "w").await.unwrap();
        assert_eq!(claimed.job.id, queued.id);
        assert_eq!(claimed.job.parameters, serde_json::json!({"a": [1]}));
        assert!(next(&catalog, "v").await.is_none());
        let progress = Progress {
            phase: "reading".into(),
            bytes_done: 5,
            bytes_total: Some(10),
            ..Progress::default()
        };
        let line = (Timestamp::now(), Severity::Warning, "careful".to_owned());
        let beats =
            [Beat { progress: Some(progress.clone()), lines: vec![line], ..last(&claimed) }];
        assert!(beat(&catalog, LEASE, &beats).await.unwrap().is_empty());
        let running = find(&catalog, queued.id).await.unwrap();
        assert_eq!((running.state, &running.progress), (State::Running, &progress));
        assert_eq!(running.part(), Some(0.5));
        let now = running.started_at.unwrap() + SignedDuration::from_secs(4);
        assert_eq!(running.rate(now), Some(1.25));
        let end = running.estimated_end(now).unwrap();
        assert_eq!(end, now + SignedDuration::from_secs(4));
        let end = End { result: Some(serde_json::json!(7)), ..done() };
        let (over, again) = finish(&catalog, &last(&claimed), end).await.unwrap().unwrap();
        assert!(again.is_none() && over.state.is_over());
        assert_eq!((over.result, over.progress), (Some(serde_json::json!(7)), progress));
        assert_eq!(over.worker.as_deref(), Some("w"));
        let log = log(&catalog, queued.id, 0, 10).await.unwrap();
        assert_eq!((log[0].level, log[0].message.as_str()), (Severity::Warning, "careful"));
        let events = events::after(&catalog, 0, 10).await.unwrap();
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["job.queued", "job.started", "job.succeeded"]);
        assert!(events.iter().all(|event| event.job_id == Some(queued.id)));
        assert_eq!(events[2].message, "work of it succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_lost_its_lease_has_no_effect() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        submit(&catalog, job("work")).await.unwrap();
        let slow = Worker { lease: NO_LEASE, ..worker("slow") };
        let old = claim(&catalog, &slow).await.unwrap().unwrap();
        assert!(checkpoint(&catalog, &old.lease, &serde_json::json!("half")).await.unwrap());
        let new = next(&catalog, "quick").await.unwrap();
        assert_eq!(new.job.id, old.job.id);
        assert_eq!(new.checkpoint, Some(serde_json::json!("half")));
        assert!(new.lease.fence > old.lease.fence);
        let before = find(&catalog, new.job.id).await.unwrap();
        let line = (Timestamp::now(), Severity::Info, "ghost".to_owned());
        let ghost = Beat {
            progress: Some(Progress { bytes_done: 9, ..Progress::default() }),
            lines: vec![line],
            ..last(&old)
        };
        assert_eq!(
            beat(&catalog, LEASE, std::slice::from_ref(&ghost)).await.unwrap(),
            [old.job.id]
        );
        assert!(!hold(&catalog, &old.lease, LEASE).await.unwrap());
        assert!(!checkpoint(&catalog, &old.lease, &serde_json::json!("ghost")).await.unwrap());
        assert!(finish(&catalog, &ghost, done()).await.unwrap().is_none());
        assert!(release(&catalog, &ghost, NO_LEASE).await.unwrap().is_none());
        assert_eq!(find(&catalog, new.job.id).await.unwrap(), before);
        assert!(log(&catalog, new.job.id, 0, 9).await.unwrap().is_empty());
        assert!(hold(&catalog, &new.lease, LEASE).await.unwrap());
        assert!(finish(&catalog, &last(&new), done()).await.unwrap().is_some());
        assert!(finish(&catalog, &last(&new), done()).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test]
async fn a_job_that_kills_its_workers_is_given_up() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let id = submit(&catalog, job("work")).await.unwrap().id;
        let dying = Worker { lease: NO_LEASE, ..worker("w") };
        for _ in 0..MAX_DEATHS {
            assert!(claim(&catalog, &dying).await.unwrap().is_some());
        }
        assert!(claim(&catalog, &dying).await.unwrap().is_none());
        let over = find(&catalog, id).await.unwrap();
        assert_eq!(over.state, State::Failed);
        assert!(over.error.unwrap().starts_with(&MAX_DEATHS.to_string()));
    })
    .await;
}

#[tokio::test]
async fn a_failed_job_is_tried_again_later_with_what_it_had() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        submit(&catalog, NewJob { attempts: 2, ..job("work") }).await.unwrap();
        let first = next(&catalog, "w").await.unwrap();
        checkpoint(&catalog, &first.lease, &serde_json::json!(3)).await.unwrap();
        let retry = |after| End {
            state: State::Failed,
            result: None,
            error: Some("the disk".into()),
            retry: Some(after),
        };
        let end = retry(Duration::from_secs(3600));
        let (over, again) = finish(&catalog, &last(&first), end).await.unwrap().unwrap();
        let again = again.unwrap();
        assert_eq!((over.state, over.retried_as), (State::Retried, Some(again.id)));
        assert_eq!((again.attempt, again.retry_of), (2, Some(over.id)));
        assert!(next(&catalog, "w").await.is_none());
        let sql = Sql::new("UPDATE jobs SET run_at = 0 WHERE id = ?").bind(again.id);
        catalog.execute(sql).await.unwrap();
        let second = next(&catalog, "w").await.unwrap();
        assert_eq!(second.checkpoint, Some(serde_json::json!(3)));
        // Who asked it to stop doesn't want it again.
        assert_eq!(cancel(&catalog, again.id).await.unwrap(), Cancel::Asked);
        assert_eq!(asked_to_stop(&catalog, "w").await.unwrap(), [again.id]);
        assert!(asked_to_stop(&catalog, "v").await.unwrap().is_empty());
        let ended = finish(&catalog, &last(&second), retry(NO_LEASE)).await.unwrap().unwrap();
        assert_eq!((ended.0.state, ended.1), (State::Canceled, None));
        assert_eq!(cancel(&catalog, again.id).await.unwrap(), Cancel::Over);
    })
    .await;
}

#[tokio::test]
async fn a_job_that_began_in_time_goes_on_and_a_late_one_is_seen_to_without_room() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let state = async |id| find(&catalog, id).await.unwrap().state;
        let soon = Timestamp::now() + SignedDuration::from_secs(3600);
        let new = NewJob { run_until: Some(soon), ..job("work") };
        let begun = submit(&catalog, new.clone()).await.unwrap().id;
        let waits = submit(&catalog, new).await.unwrap().id;
        let dying = Worker { lease: NO_LEASE, ..worker("w") };
        assert_eq!(claim(&catalog, &dying).await.unwrap().unwrap().job.id, begun);
        tidy(&catalog).await.unwrap();
        assert_eq!(state(waits).await, State::Queued);
        catalog.execute(Sql::new("UPDATE jobs SET run_until = 1")).await.unwrap();
        // Its worker died, and its time to begin is over: it is taken up all the same.
        for _ in 0..2 {
            tidy(&catalog).await.unwrap();
        }
        assert_eq!((state(begun).await, state(waits).await), (State::Queued, State::NotRun));
        assert_eq!(next(&catalog, "v").await.unwrap().job.id, begun);
        let told = crate::events::after(&catalog, 0, 100).await.unwrap();
        let of = |kind: &str| told.iter().filter(|event| event.kind == kind).count();
        assert_eq!(of("job.not_run"), 1);
    })
    .await;
}

#[tokio::test]
async fn what_clients_do_on_a_host_counts_for_its_limit() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let on_host = |alone| NewJob { host: "h".into(), alone, ..job("work") };
        for _ in 0..2 {
            begin(&catalog, on_host(Alone::Beside), "w", LEASE).await.unwrap();
        }
        submit(&catalog, on_host(Alone::No)).await.unwrap();
        assert!(next(&catalog, "v").await.is_none());
        let elsewhere = NewJob { host: "i".into(), ..job("work") };
        let elsewhere = submit(&catalog, elsewhere).await.unwrap().id;
        assert_eq!(next(&catalog, "v").await.unwrap().job.id, elsewhere);
    })
    .await;
}

#[tokio::test]
async fn what_could_not_begin_again_in_time_has_failed() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let soon = Timestamp::now() + SignedDuration::from_secs(60);
        for (after, state) in [(120, State::Failed), (1, State::Retried)] {
            let new = NewJob { attempts: 3, run_until: Some(soon), ..job("work") };
            submit(&catalog, new).await.unwrap();
            let claimed = next(&catalog, "w").await.unwrap();
            let retry = Some(Duration::from_secs(after));
            let end = End { retry, error: Some("why".into()), ..done() };
            let (over, again) = finish(&catalog, &last(&claimed), end).await.unwrap().unwrap();
            assert_eq!((over.state, again.is_some()), (state, state == State::Retried));
            assert_eq!(over.error.as_deref(), Some("why"));
        }
    })
    .await;
}

#[tokio::test]
async fn what_failed_lately_is_known() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let long_ago = Timestamp::UNIX_EPOCH;
        let later = Timestamp::now() + SignedDuration::from_secs(60);
        let own = || NewJob { user_name: "me".into(), ..on(1, Alone::No) };
        let tried =
            async |failed, done| is_tried(&catalog, "work", 1, failed, ("me", done)).await.unwrap();
        assert!(!tried(long_ago, long_ago).await);
        // What others ask for is nothing to it.
        submit(&catalog, on(1, Alone::No)).await.unwrap();
        assert!(!tried(long_ago, long_ago).await);
        next(&catalog, "w").await.unwrap();
        submit(&catalog, own()).await.unwrap();
        assert!(tried(later, later).await, "it waits");
        let claimed = next(&catalog, "w").await.unwrap();
        let failed = End { state: State::Failed, ..done() };
        finish(&catalog, &last(&claimed), failed).await.unwrap();
        assert!(tried(long_ago, later).await && !tried(later, later).await);
        submit(&catalog, own()).await.unwrap();
        let claimed = next(&catalog, "w").await.unwrap();
        finish(&catalog, &last(&claimed), done()).await.unwrap();
        assert!(!is_tried(&catalog, "other", 1, long_ago, ("me", long_ago)).await.unwrap());
        // Those that went well count for a while too.
        assert!(tried(later, long_ago).await && !tried(later, later).await);
    })
    .await;
}

#[tokio::test]
async fn what_is_over_keeps_no_secret() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let new = || NewJob {
            parameters: serde_json::json!({"secret": "sealed", "from": "a"}),
            attempts: 2,
            ..job("work")
        };
        let secret = async |id| find(&catalog, id).await.unwrap().parameters["secret"].clone();
        let (sealed, none) = (Value::from("sealed"), serde_json::json!(null));
        let canceled = submit(&catalog, new()).await.unwrap().id;
        assert_eq!(secret(canceled).await, sealed);
        cancel(&catalog, canceled).await.unwrap();
        assert_eq!(secret(canceled).await, none);
        // The next try needs it.
        let first = submit(&catalog, new()).await.unwrap().id;
        let held = next(&catalog, "w").await.unwrap();
        let failed = End { state: State::Failed, retry: Some(NO_LEASE), ..done() };
        let ended = finish(&catalog, &last(&held), failed).await.unwrap().unwrap();
        let again = ended.1.unwrap().id;
        assert_eq!((secret(first).await, secret(again).await), (none.clone(), sealed));
        let held = next(&catalog, "w").await.unwrap();
        finish(&catalog, &last(&held), done()).await.unwrap();
        let kept = find(&catalog, again).await.unwrap().parameters;
        assert_eq!(kept, serde_json::json!({"secret": null, "from": "a"}));
    })
    .await;
}

#[tokio::test]
async fn what_is_canceled_or_late_never_begins() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let canceled = submit(&catalog, job("work")).await.unwrap().id;
        assert_eq!(cancel(&catalog, canceled).await.unwrap(), Cancel::Done);
        let past = Timestamp::now() - SignedDuration::from_secs(60);
        let late = NewJob { run_until: Some(past), ..job("work") };
        let late = submit(&catalog, late).await.unwrap().id;
        let future = Timestamp::now() + SignedDuration::from_secs(3600);
        let early = NewJob { run_at: Some(future), ..job("work") };
        submit(&catalog, early).await.unwrap();
        submit(&catalog, job("unknown")).await.unwrap();
        let there = NewJob { node: "there".into(), ..job("work") };
        submit(&catalog, there).await.unwrap();
        assert!(next(&catalog, "w").await.is_none());
        let state = async |id| find(&catalog, id).await.unwrap().state;
        assert_eq!((state(canceled).await, state(late).await), (State::Canceled, State::NotRun));
        assert!(matches!(cancel(&catalog, 999).await, Err(Error::NotFound { .. })));
        // A dead worker's job that was to stop is over.
        let id = submit(&catalog, job("work")).await.unwrap().id;
        let dying = Worker { lease: NO_LEASE, ..worker("w") };
        claim(&catalog, &dying).await.unwrap().unwrap();
        assert_eq!(cancel(&catalog, id).await.unwrap(), Cancel::Asked);
        assert!(next(&catalog, "w").await.is_none());
        assert_eq!(state(id).await, State::Canceled);
        // What is given back can be canceled meanwhile, too.
        let id = submit(&catalog, job("work")).await.unwrap().id;
        let held = next(&catalog, "w").await.unwrap();
        cancel(&catalog, id).await.unwrap();
        let given = release(&catalog, &last(&held), NO_LEASE).await.unwrap().unwrap();
        assert_eq!(given.state, State::Canceled);
        let removed = purge(&catalog, Timestamp::now() + SignedDuration::from_secs(9), 99).await;
        assert_eq!(removed.unwrap(), 4);
    })
    .await;
}

#[tokio::test]
async fn order_and_limits_are_kept() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        let mut ids = Vec::new();
        for new in [
            on(1, Alone::No),
            on(1, Alone::OfItsKind),
            on(1, Alone::OfItsKind),
            NewJob { priority: 5, ..on(1, Alone::No) },
            NewJob { host: "h".into(), ..job("work") },
            NewJob { host: "h".into(), ..job("work") },
            NewJob { host: "h".into(), ..job("work") },
            on(2, Alone::No),
            on(2, Alone::Wholly),
            NewJob { priority: -1, ..on(2, Alone::No) },
        ] {
            ids.push(submit(&catalog, new).await.unwrap().id);
        }
        let mut held = Vec::new();
        let mut order = Vec::new();
        while let Some(claimed) = next(&catalog, "w").await {
            order.push(ids.iter().position(|id| *id == claimed.job.id).unwrap());
            held.push(claimed);
        }
        // Two a pool and a host; the urgent one first; nothing passes who wants to be alone.
        assert_eq!(order, [3, 0, 4, 5, 7]);
        let end = async |place: usize, held: &[Claim]| {
            let claim = held.iter().find(|claim| claim.job.id == ids[place]).unwrap();
            finish(&catalog, &last(claim), done()).await.unwrap().unwrap();
        };
        end(7, &held).await;
        held.push(next(&catalog, "w").await.unwrap());
        assert_eq!(held.last().unwrap().job.id, ids[8]);
        assert!(next(&catalog, "w").await.is_none());
        for place in [0, 3] {
            end(place, &held).await;
        }
        held.push(next(&catalog, "w").await.unwrap());
        assert_eq!(held.last().unwrap().job.id, ids[1]);
        // The other piece of upkeep waits although there would be room.
        assert!(next(&catalog, "w").await.is_none());
        end(8, &held).await;
        let here = Worker { not_pools: &[2], ..worker("w") };
        assert!(claim(&catalog, &here).await.unwrap().is_none());
        assert_eq!(next(&catalog, "w").await.unwrap().job.id, ids[9]);
    })
    .await;
}

#[tokio::test]
async fn many_workers_do_each_job_once() {
    testing::each(|catalog| async move {
        organisation(&catalog).await;
        for number in 0..60 {
            submit(&catalog, on(number % 3, Alone::No)).await.unwrap();
        }
        let effects: Arc<Mutex<BTreeMap<i64, u32>>> = Arc::default();
        let running: Arc<Mutex<HashSet<(i64, i64)>>> = Arc::default();
        let mut workers = tokio::task::JoinSet::new();
        for number in 0..6 {
            let (catalog, effects) = (catalog.clone(), Arc::clone(&effects));
            let running = Arc::clone(&running);
            workers.spawn(async move {
                let name = format!("worker {number}");
                let mut turns = 0u32;
                while effects.lock().unwrap().len() < 60 {
                    let Some(claim) = next(&catalog, &name).await else {
                        tokio::task::yield_now().await;
                        continue;
                    };
                    let key = (claim.job.pool_id.unwrap(), claim.job.id);
                    {
                        let mut running = running.lock().unwrap();
                        assert!(running.insert(key));
                        assert!(running.iter().filter(|(pool, _)| *pool == key.0).count() <= 2);
                    }
                    turns += 1;
                    running.lock().unwrap().remove(&key);
                    // Every fifth worker gives up its job half way.
                    if turns % 5 == 4 {
                        release(&catalog, &last(&claim), NO_LEASE).await.unwrap().unwrap();
                        continue;
                    }
                    let over = finish(&catalog, &last(&claim), done()).await.unwrap();
                    assert!(over.is_some());
                    *effects.lock().unwrap().entry(claim.job.id).or_default() += 1;
                }
            });
        }
        workers.join_all().await;
        let effects = effects.lock().unwrap();
        assert_eq!(effects.len(), 60);
        assert!(effects.values().all(|times| *times == 1));
    })
    .await;
}
