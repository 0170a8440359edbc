//! What was measured, as tables and as JSON, and whether it is as good as it must be.

use std::fmt::Write;

use serde_json::{Value, json};

use super::corpora::Corpus;
use super::measure::Measured;
use super::tools::Tool;

/// A step of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Step {
    /// The first backup into an empty repository (of the tree in versions: all twenty).
    Backup,
    /// A second backup for which every file is read again.
    Reread,
    /// A second backup where nothing changed, with nothing in the page cache.
    Unchanged,
    /// The same once more, with what the one before left in the page cache.
    UnchangedWarm,
    /// Everything brought back into an empty directory.
    Restore,
    /// All that is stored read and verified.
    Check,
    /// Ten of twenty versions forgotten and their space freed.
    Gc,
}

impl Step {
    /// Its name in tables.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Backup => "first backup",
            Self::Reread => "second backup, all read again",
            Self::Unchanged => "second backup, nothing changed",
            Self::UnchangedWarm => "the same, warm",
            Self::Restore => "restore",
            Self::Check => "check of all data",
            Self::Gc => "forget + gc of half",
        }
    }
}

/// One program's step on one corpus.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// Of what.
    pub(crate) corpus: Corpus,
    /// Doing what.
    pub(crate) step: Step,
    /// By whom.
    pub(crate) tool: Tool,
    /// What it took, or why there is no figure.
    pub(crate) outcome: Result<Measured, String>,
    /// How large the repository was afterwards, in bytes, where that matters.
    pub(crate) stored: Option<u64>,
}

/// What is demanded of a step.
#[derive(Clone, Copy, Debug)]
struct Floor {
    corpus: Corpus,
    step: Step,
    /// At least so many times as fast as the fastest peer.
    times: f64,
    /// And faster than `cp -r && sync`.
    below_cp: bool,
    /// And within so many seconds, at full scale.
    seconds: Option<f64>,
}

const fn floor(corpus: Corpus, step: Step, times: f64) -> Floor {
    Floor { corpus, step, times, below_cp: false, seconds: None }
}

/// The floors of the issue that this engine was made for.
const FLOORS: &[Floor] = &[
    Floor { below_cp: true, ..floor(Corpus::Images, Step::Backup, 2.5) },
    floor(Corpus::Small, Step::Backup, 1.5),
    floor(Corpus::Images, Step::Reread, 2.5),
    floor(Corpus::Small, Step::Reread, 2.5),
    floor(Corpus::Small, Step::Unchanged, 2.0),
    floor(Corpus::Small, Step::UnchangedWarm, 2.0),
    Floor { seconds: Some(10.0), ..floor(Corpus::Million, Step::Unchanged, 2.0) },
    Floor { seconds: Some(10.0), ..floor(Corpus::Million, Step::UnchangedWarm, 2.0) },
    Floor { below_cp: true, ..floor(Corpus::Images, Step::Restore, 2.5) },
    floor(Corpus::Small, Step::Restore, 1.3),
    floor(Corpus::Images, Step::Check, 3.0),
    floor(Corpus::Small, Step::Check, 3.0),
    floor(Corpus::Versions, Step::Gc, 2.0),
];

/// Stored size: not more than the smallest peer's, times this.
const STORED: f64 = 1.02;

/// Peak memory of any of our steps, in MiB, without the 2 bytes a chunk.
const MEMORY: f64 = 100.0;

/// The mean chunk that the 2 bytes are counted for, in bytes.
const CHUNK: f64 = 65_536.0;

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// In the order measured.
    pub(crate) records: Vec<Record>,
    /// Versions of the programs.
    pub(crate) versions: Vec<(Tool, String)>,
    /// Bytes in each corpus.
    pub(crate) sizes: Vec<(Corpus, u64)>,
    /// Remarks on how it was measured.
    pub(crate) remarks: Vec<String>,
    /// 1 for the full size.
    pub(crate) scale: f64,
}

impl Report {
    fn get(&self, corpus: Corpus, step: Step, tool: Tool) -> Option<&Record> {
        self.records.iter().find(|r| (r.corpus, r.step, r.tool) == (corpus, step, tool))
    }

    /// A figure of each peer that has one.
    fn best_peer(
        &self,
        corpus: Corpus,
        step: Step,
        figure: impl Fn(&Record) -> Option<f64>,
    ) -> Option<f64> {
        let ours = |r: &&Record| (r.corpus, r.step) == (corpus, step) && r.tool.is_peer();
        self.records.iter().filter(ours).filter_map(figure).min_by(f64::total_cmp)
    }

    /// The steps that anybody took, in the order of the corpora and the steps.
    fn steps(&self) -> Vec<(Corpus, Step)> {
        let mut steps: Vec<_> = self.records.iter().map(|r| (r.corpus, r.step)).collect();
        steps.sort();
        steps.dedup();
        steps
    }

    fn tools(&self) -> Vec<Tool> {
        let mut tools: Vec<_> = self.records.iter().map(|r| r.tool).collect();
        tools.sort();
        tools.dedup();
        tools
    }

    /// How many times as fast as the fastest peer we are, what is demanded, and whether it holds.
    fn verdict(&self, corpus: Corpus, step: Step) -> (String, String, String) {
        let seconds = |r: &Record| r.outcome.as_ref().ok().map(|m| m.wall);
        let ours = self.get(corpus, step, Tool::Strongroom).and_then(seconds);
        let peer = self.best_peer(corpus, step, seconds);
        let cp = self.get(corpus, Step::Backup, Tool::Cp).and_then(seconds);
        let ratio = ours.zip(peer).map(|(ours, peer)| peer / ours);
        let ratio_text = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"));
        let Some(floor) = FLOORS.iter().find(|f| (f.corpus, f.step) == (corpus, step)) else {
            return (ratio_text, String::new(), String::new());
        };
        let mut demand = format!("{}x", floor.times);
        let mut holds = ratio.map(|ratio| ratio >= floor.times);
        let mut and = |text: String, more: Option<bool>| {
            demand.push_str(&text);
            holds = holds.zip(more).map(|(one, two)| one && two);
        };
        if floor.below_cp {
            and(", less than cp".to_owned(), ours.zip(cp).map(|(ours, cp)| ours < cp));
        }
        if let Some(limit) = floor.seconds {
            and(format!(", under {limit} s"), ours.map(|ours| ours < limit * self.scale.max(0.1)));
        }
        (ratio_text, demand, pass(holds))
    }

    /// The tables.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# Strongroom and its peers\n\n");
        self.preface(&mut text);
        self.wall_table(&mut text);
        self.stored_table(&mut text);
        self.cost_table(&mut text);
        self.failures(&mut text);
        text
    }

    fn preface(&self, text: &mut String) {
        for (tool, version) in &self.versions {
            line(text, &format!("- {}: {version}", tool.name()));
        }
        for (corpus, bytes) in &self.sizes {
            line(text, &format!("- corpus {}: {:.0} MB", corpus.name(), *bytes as f64 / 1e6));
        }
        for remark in &self.remarks {
            line(text, &format!("- {remark}"));
        }
    }

    fn wall_table(&self, text: &mut String) {
        line(text, "\n## Seconds until the data is on disk\n");
        let tools = self.tools();
        self.head(text, &["corpus", "step"], &["ours to fastest peer", "must be", "verdict"]);
        for (corpus, step) in self.steps() {
            let mut cells = vec![corpus.name().to_owned(), step.name().to_owned()];
            cells.extend(tools.iter().map(|tool| match self.get(corpus, step, *tool) {
                None => "-".to_owned(),
                Some(Record { outcome: Err(_), .. }) => "failed".to_owned(),
                Some(Record { outcome: Ok(m), .. }) => format!("{:.2}", m.wall),
            }));
            let (ratio, demand, verdict) = self.verdict(corpus, step);
            cells.extend([ratio, demand, verdict]);
            row(text, &cells);
        }
    }

    fn stored_table(&self, text: &mut String) {
        line(text, "\n## Stored, in MB\n");
        let tools: Vec<_> = self.tools().into_iter().filter(|tool| *tool != Tool::Cp).collect();
        let head = ["ours to smallest peer", "must be", "verdict"];
        self.head_of(&tools, text, &["corpus", "after"], &head);
        for (corpus, step) in self.steps() {
            let stored = |r: &Record| r.stored.map(|bytes| bytes as f64);
            let of = |tool: &Tool| self.get(corpus, step, *tool).and_then(stored);
            if tools.iter().all(|tool| of(tool).is_none()) {
                continue;
            }
            let mut cells = vec![corpus.name().to_owned(), step.name().to_owned()];
            let show = |bytes: Option<f64>| bytes.map_or("-".into(), |b| format!("{:.1}", b / 1e6));
            cells.extend(tools.iter().map(|tool| show(of(tool))));
            let smallest = self.best_peer(corpus, step, stored);
            let ratio = of(&Tool::Strongroom).zip(smallest).map(|(ours, peer)| ours / peer);
            cells.push(ratio.map_or("-".into(), |ratio| format!("{ratio:.3}x")));
            // After gc every program keeps as much waste as it sees fit: shown, not judged.
            // A million empty files are all names and inodes: that corpus is for time.
            let judged = step == Step::Backup && corpus != Corpus::Million;
            cells.push(if judged { format!("{STORED}x") } else { String::new() });
            cells.push(if judged { pass(ratio.map(|r| r <= STORED)) } else { String::new() });
            row(text, &cells);
        }
    }

    fn cost_table(&self, text: &mut String) {
        line(text, "\n## Peak memory in MiB / CPU seconds / seconds until the program ended\n");
        let tools = self.tools();
        self.head(text, &["corpus", "step"], &["ours, at most", "verdict"]);
        for (corpus, step) in self.steps() {
            let mut cells = vec![corpus.name().to_owned(), step.name().to_owned()];
            let measured = |tool| self.get(corpus, step, tool)?.outcome.as_ref().ok();
            cells.extend(tools.iter().map(|tool| {
                let show = |m: &Measured| format!("{:.0} / {:.1} / {:.2}", m.peak, m.cpu, m.alone);
                measured(*tool).map_or("-".to_owned(), show)
            }));
            let bytes =
                self.sizes.iter().find(|(c, _)| *c == corpus).map_or(0, |(_, bytes)| *bytes);
            let limit = MEMORY + 2.0 * bytes as f64 / CHUNK / f64::from(1 << 20);
            let ours = measured(Tool::Strongroom);
            cells.extend([format!("{limit:.1}"), pass(ours.map(|m| m.peak <= limit))]);
            row(text, &cells);
        }
    }

    fn failures(&self, text: &mut String) {
        let failed = self.records.iter().filter_map(|r| Some((r, r.outcome.as_ref().err()?)));
        let mut failed = failed.peekable();
        if failed.peek().is_some() {
            line(text, "\n## What failed\n");
        }
        for (r, why) in failed {
            let (tool, step, corpus) = (r.tool.name(), r.step.name(), r.corpus.name());
            line(text, &format!("- {tool}, {step}, {corpus}: {why}"));
        }
    }

    fn head(&self, text: &mut String, before: &[&str], after: &[&str]) {
        self.head_of(&self.tools(), text, before, after);
    }

    fn head_of(&self, tools: &[Tool], text: &mut String, before: &[&str], after: &[&str]) {
        let tools = tools.iter().map(|tool| tool.name());
        let cells: Vec<_> =
            before.iter().copied().chain(tools).chain(after.iter().copied()).collect();
        row(text, &cells);
        row(text, &vec!["---"; cells.len()]);
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Value {
        let records = self.records.iter().map(|r| {
            let measured = r.outcome.as_ref().ok();
            json!({
                "corpus": r.corpus.name(),
                "step": r.step.name(),
                "tool": r.tool.name(),
                "seconds_on_disk": measured.map(|m| m.wall),
                "seconds_program": measured.map(|m| m.alone),
                "cpu_seconds": measured.map(|m| m.cpu),
                "peak_mib": measured.map(|m| m.peak),
                "stored_bytes": r.stored,
                "error": r.outcome.as_ref().err(),
            })
        });
        let versions =
            self.versions.iter().map(|(tool, v)| json!({"tool": tool.name(), "version": v}));
        let sizes = self.sizes.iter().map(|(c, bytes)| json!({"corpus": c.name(), "bytes": bytes}));
        json!({
            "scale": self.scale,
            "remarks": self.remarks,
            "versions": versions.collect::<Vec<_>>(),
            "corpora": sizes.collect::<Vec<_>>(),
            "records": records.collect::<Vec<_>>(),
        })
    }
}

fn pass(holds: Option<bool>) -> String {
    match holds {
        Some(true) => "pass",
        Some(false) => "FAIL",
        None => "not measured",
    }
    .to_owned()
}

fn row(text: &mut String, cells: &[impl AsRef<str>]) {
    let cells: Vec<_> = cells.iter().map(AsRef::as_ref).collect();
    line(text, &format!("| {} |", cells.join(" | ")));
}

fn line(text: &mut String, content: &str) {
    writeln!(text, "{content}").expect("writing to a string doesn't fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(tool: Tool, wall: f64, stored: u64) -> Record {
        let outcome = Ok(Measured { alone: wall, wall, cpu: 1.0, peak: 50.0 });
        let (corpus, step) = (Corpus::Images, Step::Backup);
        Record { corpus, step, tool, outcome, stored: Some(stored) }
    }

    #[test]
    fn floors_are_judged_against_the_fastest_peer_and_cp() {
        let mut report = Report { scale: 1.0, ..Report::default() };
        report.records = vec![
            record(Tool::Restic, 30.0, 100),
            record(Tool::Borg, 50.0, 90),
            record(Tool::Cp, 20.0, 0),
            record(Tool::Strongroom, 10.0, 91),
        ];
        let verdict = report.verdict(Corpus::Images, Step::Backup);
        assert_eq!(verdict, ("3.00x".into(), "2.5x, less than cp".into(), "pass".into()));
        assert!(report.markdown().contains("| 1.011x | 1.02x | pass |"));
        report.records[3].outcome = Ok(Measured { wall: 19.0, ..Measured::default() });
        assert_eq!(report.verdict(Corpus::Images, Step::Backup).2, "FAIL");
        report.records[3].outcome = Err("no such command".into());
        assert_eq!(report.verdict(Corpus::Images, Step::Backup).2, "not measured");
        assert!(report.markdown().contains("strongroom, first backup, images: no such command"));
    }
}
