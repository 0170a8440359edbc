//! Starting jobs, waiting for them, and telling how they end.

use std::io::Write;
use std::time::Duration;

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget};
use serde::Serialize;
use serde_json::Value;
use strongroom_client::Client;
use strongroom_client::types::{Items, Job, Line};

use super::jobs::{CANCEL, LOG, SHOW, WATCH};
use super::operation::{OnceArgs, Operation};
use super::resource::{describe, local};
use crate::exit::{Context, Done, usage};
use crate::output::size;
use crate::parse::{self, Moment};
use crate::progress::style;

/// How long a change is waited for before Ctrl-C is looked for.
pub(super) const LOOK: Duration = Duration::from_millis(150);
/// How many lines of a job that had trouble are told.
const TOLD: usize = 20;

/// The options of [`StartArgs`].
pub(crate) const OPTIONS: &str =
    "--no-wait, --idempotency-key, --priority, --attempts, --run-at or --run-until";

/// How a job is begun.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct StartArgs {
    /// Don't wait for the appliance's job: say its number and end [default: wait for it]
    #[arg(long)]
    pub(crate) no_wait: bool,
    #[command(flatten)]
    pub(crate) once: OnceArgs,
    #[command(flatten)]
    how: HowArgs,
}

/// When the appliance's job is begun, and how often it is tried.
#[derive(clap::Args, Clone, Debug, Default)]
struct HowArgs {
    /// Jobs with a higher one come first [default: 0]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "The job")]
    priority: Option<i32>,
    /// How often it is tried at most, 1 to 100 [default: as set by jobs.attempts]
    #[arg(long, value_name = "N", help_heading = "The job",
          value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: Option<u32>,
    /// Not begun before this: a time, or how long from now, like 2h
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse::moment, help_heading = "The job")]
    run_at: Option<Moment>,
    /// Not begun after this: if it hasn't been, it is not run
    #[arg(long, value_name = "TIME|DURATION", value_parser = parse::moment, help_heading = "The job")]
    run_until: Option<Moment>,
}

impl HowArgs {
    fn is_given(&self) -> bool {
        let Self { priority, attempts, run_at, run_until } = self;
        priority.is_some() || attempts.is_some() || run_at.is_some() || run_until.is_some()
    }

    /// Says it in a request.
    fn say(&self, body: &mut Value) -> Result<()> {
        let now = jiff::Timestamp::now();
        let time = |moment: Option<Moment>| -> Result<Option<String>> {
            let time = moment.map(|moment| moment.from(now)).transpose().map_err(usage)?;
            Ok(time.map(|time| time.to_string()))
        };
        let said = [
            ("priority", self.priority.map(Value::from)),
            ("attempts", self.attempts.map(Value::from)),
            ("run_at", time(self.run_at)?.map(Value::from)),
            ("run_until", time(self.run_until)?.map(Value::from)),
        ];
        for (name, value) in said {
            if let Some(value) = value {
                body[name] = value;
            }
        }
        Ok(())
    }
}

impl StartArgs {
    /// Refuses what is said of a job where there will be none.
    pub(crate) fn must_not_be_given(&self) -> Result<()> {
        match self.is_given() {
            true => {
                let text = "is for jobs of an appliance: --pool names a pool of your own";
                Err(usage(format!("{OPTIONS} {text}")))
            }
            false => Ok(()),
        }
    }

    /// Whether anything is said of a job.
    pub(crate) fn is_given(&self) -> bool {
        self.no_wait || self.once.idempotency_key.is_some() || self.how.is_given()
    }

    /// Begins a job, and waits for it unless that isn't wanted.
    pub(crate) fn start(
        &self,
        context: &Context,
        client: &Client,
        what: &Operation,
        parts: &[&str],
        body: &impl Serialize,
    ) -> Result<Done> {
        let mut body = serde_json::to_value(body)?;
        self.how.say(&mut body)?;
        let job: Job = what.make(client, parts, &body, &self.once)?;
        if !self.no_wait {
            return follow(context, client, job, Waiting::ForOwn);
        }
        context.out.summary(None, serde_json::to_value(&job)?, |out| {
            let (id, kind, object) = (job.id, &job.kind, &job.object);
            writeln!(out, "job {id}: {kind} {object}; `strongroom jobs watch {id}` waits for it")
        })?;
        Ok(Done::Well)
    }
}

/// Why a job is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// This command began it: Ctrl-C stops it.
    ForOwn,
    /// To see how far it is: Ctrl-C only ends the waiting.
    ToSee,
}

/// How it is shown how far a job is.
enum Shown {
    Bar(Bar),
    /// One line for each step; the last one.
    Lines(String),
    /// One document for each change.
    Documents,
    Nothing,
}

impl Shown {
    fn of(context: &Context, waiting: Waiting) -> Self {
        match waiting {
            _ if context.out.shows_progress() => Self::Bar(Bar::new(None)),
            Waiting::ToSee if context.out.json => Self::Documents,
            Waiting::ToSee if !context.out.quiet => Self::Lines(String::new()),
            _ => Self::Nothing,
        }
    }

    /// Shows that somebody waits still.
    fn tick(&self) {
        if let Self::Bar(bar) = self {
            bar.tick();
        }
    }

    fn show(&mut self, context: &Context, job: &Job) -> Result<()> {
        match self {
            Self::Bar(bar) => bar.show(job),
            Self::Documents => context.out.document(&serde_json::to_value(job)?)?,
            Self::Lines(last) => {
                let step = step(job);
                if *last != step {
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "{}", line(job))?;
                    out.flush()?;
                    *last = step;
                }
            }
            Self::Nothing => {}
        }
        Ok(())
    }
}

/// Waits for a job, shows how far it is, and tells how it ended.
pub(crate) fn follow(
    context: &Context,
    client: &Client,
    mut job: Job,
    waiting: Waiting,
) -> Result<Done> {
    let mut shown = Shown::of(context, waiting);
    let mut canceled = false;
    if job.is_over() && matches!(shown, Shown::Documents) {
        shown.show(context, &job)?;
    }
    loop {
        if let (true, Some(next)) = (job.state == "retried", job.retried_as) {
            job = SHOW.ask(client, &[&next.to_string()])?;
        }
        if job.is_over() {
            break;
        }
        // A stream that ends before the job does is opened again.
        let id = job.id.to_string();
        let mut changes = client.events::<Job>(&WATCH.path(&[&id]))?;
        while let Some(change) = changes.wait(LOOK) {
            match change? {
                Some(change) => {
                    job = change;
                    shown.show(context, &job)?;
                }
                None => shown.tick(),
            }
            if job.is_over() {
                break;
            }
            if context.interrupt.is_asked() && waiting == Waiting::ToSee {
                return Err(strongroom_engine::Error::Canceled.into());
            }
            if context.interrupt.is_asked() && !canceled {
                canceled = true;
                // It may be over by now; then that is told next.
                let _ = CANCEL.ask::<Job>(client, &[&id]);
            }
        }
    }
    let told = matches!(shown, Shown::Documents);
    if let Shown::Bar(bar) = shown {
        bar.end();
    }
    ended(context, client, &job, canceled, told)
}

/// Tells how a job ended; its document was `told` already, or not.
fn ended(
    context: &Context,
    client: &Client,
    job: &Job,
    canceled: bool,
    told: bool,
) -> Result<Done> {
    match job.state.as_str() {
        "succeeded" | "warnings" => {
            if job.state == "warnings" && !context.out.json {
                troubles(client, job)?;
            }
            if !told {
                context.out.summary(None, serde_json::to_value(job)?, |out| {
                    writeln!(out, "job {}: {} {} {}", job.id, job.kind, job.object, job.state)?;
                    job.result.as_ref().map_or(Ok(()), |result| describe(out, &[], result))
                })?;
            }
            Ok(Done::well_if(job.state == "succeeded"))
        }
        "not_run" => {
            let (id, kind, object) = (job.id, &job.kind, &job.object);
            Err(anyhow!("job {id} ({kind} {object}) was not begun in time, and is not run"))
        }
        "canceled" if canceled => Err(strongroom_engine::Error::Canceled.into()),
        state => {
            let why = job.error.clone().unwrap_or_else(|| state.replace('_', " "));
            Err(anyhow!("job {} ({} {}): {why}", job.id, job.kind, job.object))
        }
    }
}

/// Names what went wrong in a job, on standard error.
fn troubles(client: &Client, job: &Job) -> Result<()> {
    let path = LOG.path(&[&job.id.to_string()]);
    let lines: Items<Line> = client.get(&path, &[("limit", "10000")])?;
    let grave: Vec<&Line> = lines.items.iter().filter(|line| line.level != "info").collect();
    let mut err = std::io::stderr().lock();
    for line in grave.iter().take(TOLD) {
        let _ = writeln!(err, "{}: {}", line.level, line.message);
    }
    if grave.len() > TOLD || lines.more {
        let _ = writeln!(err, "warning: there is more: `strongroom jobs log {}`", job.id);
    }
    Ok(())
}

/// A job's bar.
pub(crate) struct Bar {
    bar: ProgressBar,
    /// Whether it is known how much there is to do.
    measured: bool,
}

impl Bar {
    /// A bar on the terminal, by itself or among others.
    pub(crate) fn new(among: Option<&indicatif::MultiProgress>) -> Self {
        let bar = match among {
            Some(bars) => bars.add(ProgressBar::new(1000)),
            None => ProgressBar::with_draw_target(Some(1000), ProgressDrawTarget::stderr()),
        };
        bar.set_style(style("{spinner} {elapsed} {wide_msg}"));
        Self { bar, measured: false }
    }

    /// Shows how far a job is.
    pub(crate) fn show(&mut self, job: &Job) {
        if let Some(percent) = job.progress.percent {
            if !self.measured {
                self.bar.set_style(style("[{bar:30}] {wide_msg}"));
                self.measured = true;
            }
            self.bar.set_position((percent.clamp(0.0, 100.0) * 10.0) as u64);
        }
        self.bar.set_message(line(job));
        self.bar.tick();
    }

    /// Shows that somebody waits still.
    pub(crate) fn tick(&self) {
        self.bar.tick();
    }

    /// Takes it away.
    pub(crate) fn end(self) {
        self.bar.finish_and_clear();
    }
}

/// What is worth a line of its own: another state or phase, and each tenth of the work.
pub(crate) fn step(job: &Job) -> String {
    let tenth = job.progress.percent.map(|percent| (percent / 10.0) as u32);
    format!("{} {} {} {tenth:?}", job.id, job.state, job.progress.phase)
}

/// How far a job is, in a line.
pub(crate) fn line(job: &Job) -> String {
    let progress = &job.progress;
    let mut line = format!("job {}: {} {}: {}", job.id, job.kind, job.object, job.state);
    if !progress.phase.is_empty() {
        line.push_str(&format!(", {}", progress.phase));
    }
    if let Some(percent) = progress.percent {
        line.push_str(&format!(", {percent:.0} %"));
    }
    match (progress.bytes_done, progress.bytes_total) {
        (done, Some(total)) => line.push_str(&format!(", {} of {}", size(done), size(total))),
        (0, None) => {}
        (done, None) => line.push_str(&format!(", {}", size(done))),
    }
    if job.is_over() {
        return line;
    }
    if let Some(rate) = progress.rate {
        line.push_str(&format!(", {}/s", size(rate as u64)));
    }
    if let Some(end) = &progress.estimated_end {
        line.push_str(&format!(", done at {}", local(end)));
    }
    line
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_tells_what_is_known_and_a_step_is_worth_one() {
        let job = |done: u64, percent: Option<f64>| -> Job {
            serde_json::from_value(json!({
                "id": 4, "kind": "gc", "state": "running", "object": "main", "user_name": "ada",
                "queued_at": "2026-01-01T00:00:00Z", "started_at": null, "ended_at": null,
                "retried_as": null, "error": null, "result": null,
                "progress": {
                    "phase": "collecting", "bytes_done": done, "bytes_total": null,
                    "items_done": 0, "items_total": null, "percent": percent, "rate": 1024.0,
                    "estimated_end": null,
                },
            }))
            .unwrap()
        };
        let (early, later) = (job(0, Some(11.0)), job(1 << 20, Some(19.0)));
        assert_eq!(line(&early), "job 4: gc main: running, collecting, 11 %, 1.00 KiB/s");
        assert_eq!(line(&later), "job 4: gc main: running, collecting, 19 %, 1.00 MiB, 1.00 KiB/s");
        assert_eq!(step(&early), step(&later));
        assert_ne!(step(&early), step(&job(0, Some(20.0))));
    }
}
