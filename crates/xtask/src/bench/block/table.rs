//! The tables.

use std::fmt::Write;

use super::alone::{Alone, RATE};
use super::load::{Done, Load};
use super::{Part, Row};

/// What the others are to be beaten by, if anything.
fn floor(part: Part, load: Load, peer: &str) -> Option<f64> {
    match (part, peer) {
        (Part::Iscsi, "tgt") if load.depth >= 32 => Some(1.5),
        (Part::Iscsi, "tgt") | (_, "qemu-nbd") => Some(1.0),
        _ => None,
    }
}

fn sorted(mut all: Vec<f64>) -> Vec<f64> {
    all.sort_by(f64::total_cmp);
    all
}

fn median(all: &[f64]) -> f64 {
    let all = sorted(all.to_vec());
    all.get(all.len() / 2).copied().unwrap_or_default()
}

fn short(number: f64) -> String {
    match number {
        number if number >= 1e4 => format!("{:.1}k", number / 1e3),
        number => format!("{number:.0}"),
    }
}

/// Minimum, median and maximum.
fn three(all: &[f64]) -> String {
    let all = sorted(all.to_vec());
    let at = |place: usize| short(all.get(place).copied().unwrap_or_default());
    format!("{} / {} / {}", at(0), at(all.len() / 2), at(all.len().saturating_sub(1)))
}

fn speeds(load: Load, done: &[Done]) -> Vec<f64> {
    done.iter().map(|done| load.speed(done)).collect()
}

/// Ours beside others: speeds, and the ratio of each turn's, in the middle.
pub(super) fn compared(rows: &[Row]) -> String {
    let mut text = String::from(
        "| protocol | load | unit | ours | peer | theirs | ratio, median of turns | floor |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for Row { part, load, ours, peers } in rows {
        for (name, theirs) in peers {
            let (own, other) = (speeds(*load, ours), speeds(*load, theirs));
            let ratios: Vec<f64> = own.iter().zip(&other).map(|(own, other)| own / other).collect();
            let ratio = median(&ratios);
            let floor = match floor(*part, *load, name) {
                Some(floor) if ratio >= floor => format!("{floor:.1}x"),
                Some(floor) => format!("**{floor:.1}x missed**"),
                None => "-".to_owned(),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {name} | {} | {ratio:.2}x | {floor} |",
                part.name(),
                load.name(),
                load.unit(),
                three(&own),
                three(&other),
            );
        }
    }
    text
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1}", seconds * 1e3)
}

/// What a volume alone did.
pub(super) fn alone(told: &Alone) -> String {
    let mut text = format!(
        "\nA volume of 1 TiB, {} GiB written in {:.0} s; resident {:.0} MiB before and {:.0} MiB after.\n\n\
         | operation beside writes and reads | times | median, ms | longest, ms | floor |\n\
         |---|---|---|---|---|\n",
        told.filled, told.fill_seconds, told.resident[0], told.resident[1],
    );
    for (name, all) in [("snapshot", &told.snapshots), ("clone, and open it", &told.clones)] {
        let longest = all.iter().copied().fold(0.0, f64::max);
        let kept = if longest < 0.05 { "50 ms" } else { "**50 ms missed**" };
        let (middle, longest) = (milliseconds(median(all)), milliseconds(longest));
        let _ = writeln!(text, "| {name} | {} | {middle} | {longest} | {kept} |", all.len());
    }
    let _ = writeln!(
        text,
        "\n| {RATE} of 4 KiB in a second at random, beside | what | IOPS | median, ms | p99.9, ms | longest, ms | floor |\n\
         |---|---|---|---|---|---|---|"
    );
    for (beside, done) in &told.beside {
        for (what, done) in ["writes", "reads"].iter().zip(done) {
            let kept = if done.slow < 0.05 { "50 ms" } else { "**50 ms missed**" };
            let [middle, slow, longest] = [done.median, done.slow, done.longest].map(milliseconds);
            let rate = short(done.rate);
            let _ = writeln!(
                text,
                "| {beside} | {what} | {rate} | {middle} | {slow} | {longest} | {kept} |"
            );
        }
    }
    let mib = |bytes: u64| bytes >> 20;
    let (done, log) = (&told.overwrites, &told.overwritten);
    let _ = writeln!(
        text,
        "\nOverwritten at random, depth 32: {} IOPS, p99.9 {} ms, longest {} ms; the log had {} MiB at most and {} at the \
         end; settled {} times in {:.1} s, {} MiB of chunks.",
        short(done.rate),
        milliseconds(done.slow),
        milliseconds(done.longest),
        mib(log.most_log),
        mib(log.log),
        log.settled,
        log.settle_seconds,
        mib(log.settle_bytes),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::super::load::LOADS;
    use super::*;

    fn row(part: Part, ours: f64, theirs: f64, peer: &'static str) -> Row {
        let done = |rate| vec![Done { rate, ..Done::default() }];
        Row { part, load: LOADS[1], ours: done(ours), peers: vec![(peer, done(theirs))] }
    }

    #[test]
    fn a_floor_that_is_missed_is_seen() {
        let text = compared(&[
            row(Part::Iscsi, 140.0, 100.0, "tgt"),
            row(Part::Iscsi, 150.0, 100.0, "tgt"),
            row(Part::Tcp, 99.0, 100.0, "qemu-nbd"),
            row(Part::Tcp, 9.0, 100.0, "nbdkit"),
        ]);
        let missed: Vec<bool> = text.lines().skip(2).map(|line| line.contains("missed")).collect();
        assert_eq!(missed, [true, false, true, false], "{text}");
        assert!(text.contains("| 1.40x |"), "{text}");
    }
}
