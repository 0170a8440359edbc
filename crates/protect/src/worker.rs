//! The engine's own work: claiming, keeping leases alive, ending.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use strongroom_catalog::Result;
use strongroom_catalog::events::Severity;
use strongroom_catalog::jobs::{self, Claim, End, State, Worker};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::engine::{Elsewhere, Inner, lock};
use crate::live::{Live, Stop};
use crate::{Failure, Outcome, Run, Work};

/// How long a job's thread is waited for before something else is looked at, when the catalogue
/// can't be written.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest text of why a job failed, in bytes.
const MAX_ERROR: usize = 4096;

/// Works until it is aborted.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut ticks = tokio::time::interval(inner.options.tick);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let poked = tokio::select! {
            _ = ticks.tick() => false,
            () = inner.poke.notified() => true,
        };
        if !poked && let Err(error) = tend(&inner).await {
            tracing::warn!("how far jobs are can't be written down: {error}");
        }
        let Ok(_claiming) = inner.claiming.acquire().await else { return };
        // Time goes on for those that wait, also where there is no room for them.
        if !poked
            && !has_room(&inner)
            && let Err(error) = jobs::tidy(&inner.catalog).await
        {
            tracing::warn!("jobs whose time is over can't be seen to: {error}");
        }
        while has_room(&inner) {
            match claim(&inner).await {
                Ok(Some(claimed)) => begin(&inner, claimed),
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!("jobs can't be claimed: {error}");
                    break;
                }
            }
        }
    }
}

fn has_room(inner: &Inner) -> bool {
    !inner.draining.load(Ordering::Acquire)
        && lock(&inner.running).len() < inner.limits().slots as usize
}

async fn claim(inner: &Inner) -> Result<Option<Claim>> {
    let not_pools: Vec<i64> = {
        let elsewhere = lock(&inner.elsewhere);
        let now = Instant::now();
        elsewhere.iter().filter(|(_, at)| at.until > now).map(|(pool, _)| *pool).collect()
    };
    let kinds: Vec<&str> = inner.works.keys().copied().collect();
    let (options, limits) = (&inner.options, inner.limits());
    let worker = Worker {
        name: &options.worker,
        node: &options.node,
        kinds: &kinds,
        not_pools: &not_pools,
        lease: options.lease,
        per_pool: limits.per_pool.max(1),
        per_host: limits.per_host.max(1),
    };
    jobs::claim(&inner.catalog, &worker).await
}

/// Hears who is to stop, and tells that this engine is alive and what is new.
async fn tend(inner: &Inner) -> Result<()> {
    let lives = inner.live();
    if lives.is_empty() {
        return Ok(());
    }
    for live in &lives {
        // Nobody can say whether the job is still this engine's.
        if live.silent() >= inner.options.lease {
            live.stop(Stop::Lost);
        }
    }
    let asked = jobs::asked_to_stop(&inner.catalog, &inner.options.worker).await?;
    for live in lives.iter().filter(|live| asked.contains(&live.lease.job)) {
        live.stop(Stop::Canceled);
    }
    let news: Vec<_> = lives
        .iter()
        .filter(|live| live.why_stop() != Stop::Lost)
        .filter_map(|live| Some((live, live.news(inner.options.lease / 4)?)))
        .collect();
    if news.is_empty() {
        return Ok(());
    }
    let at = Instant::now();
    let (lives, beats): (Vec<_>, Vec<_>) = news.into_iter().unzip();
    match jobs::beat(&inner.catalog, inner.options.lease, &beats).await {
        Ok(lost) => {
            for (live, beat) in lives.iter().zip(&beats) {
                match lost.contains(&live.lease.job) {
                    true => live.stop(Stop::Lost),
                    false => live.written(beat, at),
                }
            }
            inner.changed();
            Ok(())
        }
        Err(error) => {
            lives.iter().zip(beats).for_each(|(live, beat)| live.put_back(beat));
            Err(error)
        }
    }
}

/// Gives a job its thread.
fn begin(inner: &Arc<Inner>, claimed: Claim) {
    let Claim { job, checkpoint, lease } = claimed;
    let live = Arc::new(Live::new(lease, job.pool_id));
    let (id, attempt, attempts) = (job.id, job.attempt, job.attempts);
    let work = inner.works.get(job.kind.as_str()).cloned();
    let run = Run {
        job,
        checkpoint,
        live: Arc::clone(&live),
        catalog: inner.catalog.clone(),
        lease: inner.options.lease,
        handle: Handle::current(),
    };
    lock(&inner.running).insert(id, Arc::clone(&live));
    inner.recount();
    // Between the claim and this, the engine may have been asked to drain.
    if inner.draining.load(Ordering::Acquire) {
        live.stop(Stop::Draining);
    }
    inner.changed();
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name(format!("job {id}"));
    let spawned = thread.spawn(move || {
        let _ = tell.send(guarded(work, &run));
    });
    if let Err(error) = spawned {
        // The channel is closed then; that is how the job fails.
        tracing::error!("job {id} gets no thread: {error}");
    }
    let inner = Arc::clone(inner);
    tokio::spawn(async move {
        let done = told.await.unwrap_or_else(|_| {
            Err(Failure::Failed("the system gave no thread to run the job on".into()))
        });
        end(&inner, &live, done, attempt, attempts).await;
        lock(&inner.running).remove(&id);
        inner.recount();
        inner.poke.notify_one();
        inner.changed();
    });
}

/// Runs a work; a panic of it is a failure of this job alone.
fn guarded(work: Option<Arc<dyn Work>>, run: &Run) -> Result<Outcome, Failure> {
    let Some(work) = work else {
        return Err(Failure::Refused(format!("nothing here knows {}", run.job.kind)));
    };
    std::panic::catch_unwind(AssertUnwindSafe(|| work.run(run))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Failure::Failed(format!("a fault of the program: {text}")))
    })
}

/// What is to become of a job.
enum Verdict {
    End(End),
    GiveBack,
}

/// Writes down what came of a job; tries for as long as the lease may last.
pub(crate) async fn end(
    inner: &Inner,
    live: &Live,
    done: Result<Outcome, Failure>,
    attempt: u32,
    attempts: u32,
) {
    let why = live.why_stop();
    if let Err(Failure::Failed(text) | Failure::Refused(text) | Failure::Elsewhere(text)) = &done {
        let level = match &done {
            Err(Failure::Elsewhere(_)) => Severity::Info,
            _ => Severity::Error,
        };
        live.log(level, text);
    }
    if let Some(pool) = live.pool {
        note_elsewhere(inner, pool, matches!(done, Err(Failure::Elsewhere(_))));
    }
    if why == Stop::Lost {
        tracing::info!("job {} was taken from this worker", live.lease.job);
        return;
    }
    let again = (attempt < attempts).then(|| inner.limits().backoff_after(attempt));
    let verdict = verdict(done, why, again);
    let last = live.last();
    while live.silent() < inner.options.lease {
        let written = match &verdict {
            Verdict::End(end) => {
                let finished = jobs::finish(&inner.catalog, &last, end.clone()).await;
                if let Ok(Some((job, _))) = &finished {
                    inner.tally(job);
                }
                finished.map(|job| job.is_some())
            }
            Verdict::GiveBack => {
                let given = jobs::release(&inner.catalog, &last, Duration::ZERO).await;
                given.map(|job| job.is_some())
            }
        };
        match written {
            Ok(true) => return,
            Ok(false) => {
                tracing::info!("job {} was taken from this worker", live.lease.job);
                return;
            }
            Err(error) => {
                tracing::warn!("what came of job {} can't be written: {error}", live.lease.job);
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Notes whether a pool was found in use by another process.
fn note_elsewhere(inner: &Inner, pool: i64, is_elsewhere: bool) {
    let mut elsewhere = lock(&inner.elsewhere);
    if !is_elsewhere {
        elsewhere.remove(&pool);
        return;
    }
    let times = elsewhere.get(&pool).map_or(1, |before| before.times.saturating_add(1));
    let wait = inner.options.elsewhere.saturating_mul(1 << (times - 1).min(5));
    // That process may have died since: then its pool is free as soon as its jobs are.
    let wait = wait.min(inner.options.lease);
    elsewhere.insert(pool, Elsewhere { times, until: Instant::now() + wait });
}

fn verdict(done: Result<Outcome, Failure>, why: Stop, again: Option<Duration>) -> Verdict {
    let failed = |state, text: String, retry| {
        let mut end = text.len().min(MAX_ERROR);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let error = Some(text[..end].to_owned());
        Verdict::End(End { state, result: None, error, retry })
    };
    match (done, why) {
        (Ok(outcome), _) => {
            let state = if outcome.warnings { State::Warnings } else { State::Succeeded };
            Verdict::End(End { state, result: Some(outcome.result), error: None, retry: None })
        }
        (Err(Failure::Elsewhere(_)), _) | (Err(Failure::Canceled), Stop::Draining) => {
            Verdict::GiveBack
        }
        (Err(Failure::Canceled), Stop::No) => {
            let text = "it was stopped from outside of the jobs".into();
            failed(State::Failed, text, again)
        }
        (Err(Failure::Canceled), _) => {
            Verdict::End(End { state: State::Canceled, result: None, error: None, retry: None })
        }
        (Err(Failure::Refused(text)), _) => failed(State::Failed, text, None),
        (Err(Failure::Failed(text)), _) => failed(State::Failed, text, again),
    }
}
