//! `strongroom jobs watch` without a number: all jobs of an appliance, live.

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use indicatif::{MultiProgress, ProgressDrawTarget};
use strongroom_client::Client;
use strongroom_client::types::{Items, Job, JobEvent};

use super::follow::{Bar, LOOK, line, step};
use super::jobs::{JOBS, WATCH_ALL};
use crate::exit::{Context, Done};

/// How many bars a terminal has room for.
const BARS: usize = 16;
/// The query for what is not over.
const OPEN: [(&str, &str); 4] = [
    ("filter", "state:==queued"),
    ("filter", "state:==running"),
    ("sort", "id:asc"),
    ("limit", "1000"),
];

/// Shows all jobs whenever they change, until it is told to stop.
pub(super) fn all(context: &Context, client: &Client) -> Result<Done> {
    let mut shown = Shown::of(context);
    let mut last: Option<String> = None;
    let mut known = false;
    loop {
        // It is open before what there is is read: nothing happens in between.
        let path = WATCH_ALL.path(&[]);
        let mut events = client.events_after::<JobEvent>(&path, last.as_deref())?;
        while let Some(event) = if known { events.wait(LOOK) } else { Some(Ok(None)) } {
            if context.interrupt.is_asked() {
                return Err(strongroom_engine::Error::Canceled.into());
            }
            match event? {
                Some(JobEvent::Job(job)) => shown.show(context, &job)?,
                Some(JobEvent::Resync { .. }) => known = false,
                None => shown.tick(),
            }
            if !known {
                let jobs: Items<Job> = client.get(JOBS.path, &OPEN)?;
                jobs.items.iter().try_for_each(|job| shown.show(context, job))?;
                known = true;
            }
        }
        // It ends now and then; what happens until it is open again is told by it, or read.
        last = events.last_id().map(str::to_owned);
        known = last.is_some();
    }
}

/// How jobs are shown.
enum Shown {
    /// Bars for those that go on, and a line for each that is over.
    Bars(MultiProgress, HashMap<i64, Bar>),
    /// A line for each step; the last of each job that goes on.
    Lines(HashMap<i64, String>),
    /// A document for each change.
    Documents,
}

impl Shown {
    fn of(context: &Context) -> Self {
        let target = ProgressDrawTarget::stderr();
        match (context.out.json, context.out.shows_progress()) {
            (true, _) => Self::Documents,
            (false, true) => Self::Bars(MultiProgress::with_draw_target(target), HashMap::new()),
            (false, false) => Self::Lines(HashMap::new()),
        }
    }

    fn tick(&self) {
        if let Self::Bars(_, bars) = self {
            bars.values().for_each(Bar::tick);
        }
    }

    fn show(&mut self, context: &Context, job: &Job) -> Result<()> {
        match self {
            Self::Bars(all, bars) if job.is_over() => {
                if let Some(bar) = bars.remove(&job.id) {
                    bar.end();
                }
                all.println(line(job))?;
            }
            Self::Bars(all, bars) => {
                if bars.len() < BARS || bars.contains_key(&job.id) {
                    bars.entry(job.id).or_insert_with(|| Bar::new(Some(all))).show(job);
                }
            }
            Self::Lines(steps) => {
                let step = step(job);
                if steps.get(&job.id) != Some(&step) {
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{}", line(job))?;
                    out.flush()?;
                }
                match job.is_over() {
                    true => steps.remove(&job.id),
                    false => steps.insert(job.id, step),
                };
            }
            Self::Documents => context.out.document(&serde_json::to_value(job)?)?,
        }
        Ok(())
    }
}
