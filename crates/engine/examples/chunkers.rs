//! Speed and boundary quality of chunkers: the engine's own kernels against published crates.
//!
//! `cargo run --release -p strongroom-engine --example chunkers [MiB]` prints markdown tables.
//! Times are the CPU time of the thread, the best of several runs over a buffer in memory.
#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::collections::HashSet;
use std::hint::black_box;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strongroom_engine::chunker::{Chunker, Kernel, Params};

/// How often each measurement is made; the best counts.
const RUNS: usize = 5;

/// A way to cut: gives the length of the first chunk.
type Cutter = Box<dyn Fn(&[u8]) -> usize>;

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// Bytes that look random, the same on every run.
fn random(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Log lines: numbers and words, some words far more frequent than others.
fn text(len: usize) -> Vec<u8> {
    let noise = random("text", len / 4 + 64);
    let words: Vec<String> = (0..4096u32)
        .map(|n| {
            let letters = n.wrapping_mul(0x9e37_79b1).to_le_bytes();
            let size = 2 + (letters[3] % 9) as usize;
            (0..size).map(|i| char::from(b'a' + (letters[i % 4] >> (i / 4)) % 26)).collect()
        })
        .collect();
    let mut out = Vec::with_capacity(len + 128);
    let mut second = 1_700_000_000u64;
    let mut draws = noise.as_chunks::<2>().0.iter().map(|pair| u16::from_le_bytes(*pair));
    while out.len() < len {
        let Some(draw) = draws.next() else { break };
        second += u64::from(draw % 3);
        out.extend_from_slice(format!("{second} level={} ", draw % 5).as_bytes());
        for draw in draws.by_ref().take(8) {
            // The product of the draw with itself makes low ranks frequent.
            let rank = (u32::from(draw) * u32::from(draw)) >> 20;
            out.extend_from_slice(words[rank as usize % words.len()].as_bytes());
            out.push(b' ');
        }
        out.push(b'\n');
    }
    out.resize(len, b'\n');
    out
}

/// Programs and sources of this machine: the running program first, then the Rust sources it was
/// built from where they are found; repeated with changes up to the length.
fn mixed(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len);
    if let Ok(own) = std::env::current_exe().and_then(std::fs::read) {
        out.extend_from_slice(&own[..own.len().min(len / 2)]);
    }
    let home = std::env::var_os("CARGO_HOME").map(std::path::PathBuf::from);
    let home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let mut folders: Vec<_> = home.into_iter().map(|home| home.join("registry/src")).collect();
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_dir() {
                folders.push(path);
            } else if out.len() < len
                && let Ok(bytes) = std::fs::read(&path)
            {
                out.extend_from_slice(&bytes);
            }
        }
    }
    let own = out.len();
    while out.len() < len {
        let byte = out[out.len() - own];
        out.push(byte.rotate_left((out.len() / 1000 % 8) as u32));
    }
    out.truncate(len);
    out
}

/// The boundary rule of FastCDC on the hash of the `gearhash` crate, with its vector search.
fn gearhash_normalised(params: Params) -> Cutter {
    let bits = params.avg.ilog2();
    let strict = u64::MAX << (64 - bits - 2);
    let lax = u64::MAX << (64 - bits + 2);
    Box::new(move |data| {
        let end = data.len().min(params.max as usize);
        let (min, turn) = (params.min as usize, (params.avg as usize).min(end));
        if end <= min {
            return end;
        }
        let mut hasher = gearhash::Hasher::default();
        hasher.update(&data[min - 64..min]);
        if let Some(more) = hasher.next_match(&data[min..turn], strict) {
            return min + more;
        }
        hasher.next_match(&data[turn..end], lax).map_or(end, |more| turn + more)
    })
}

fn fastcdc_2020(params: Params) -> Cutter {
    Box::new(move |data| {
        let (min, avg, max) = (params.min, params.avg, params.max);
        let chunk =
            fastcdc::v2020::FastCDC::new(data, min as usize, avg as usize, max as usize).next();
        chunk.map_or(data.len(), |chunk| chunk.length)
    })
}

/// Every chunker for one set of sizes.
fn cutters(params: Params) -> Vec<(String, Cutter)> {
    let mut all: Vec<(String, Cutter)> = vec![
        ("fastcdc v2020".into(), fastcdc_2020(params)),
        ("gearhash, normalised".into(), gearhash_normalised(params)),
    ];
    for kernel in Kernel::available() {
        let chunker = Chunker::with_kernel(params, kernel);
        let name = format!("win2 {}", kernel.name());
        all.push((name, Box::new(move |data| chunker.next_cut(data, true))));
    }
    all
}

fn cut_all(cut: &Cutter, data: &[u8]) -> Vec<usize> {
    let (mut at, mut lengths) = (0, Vec::new());
    while at < data.len() {
        let len = cut(&data[at..]);
        lengths.push(len);
        at += len;
    }
    lengths
}

fn best_speed(data: &[u8], work: impl Fn()) -> f64 {
    let times = (0..RUNS).map(|_| {
        let start = thread_time();
        work();
        thread_time() - start
    });
    data.len() as f64 / times.min().unwrap_or_default().as_secs_f64() / 1e9
}

/// `data` with one to seven bytes put in about every MiB.
fn with_insertions(data: &[u8]) -> Vec<u8> {
    let noise = random("insertions", data.len() / (1 << 20) * 16 + 16);
    let mut out = Vec::with_capacity(data.len() + noise.len());
    for (mebi, draw) in data.chunks(1 << 20).zip(noise.as_chunks::<16>().0) {
        let place = u32::from_le_bytes([draw[0], draw[1], draw[2], 0]) as usize % mebi.len();
        out.extend_from_slice(&mebi[..place]);
        out.extend_from_slice(&draw[4..5 + (draw[3] % 7) as usize]);
        out.extend_from_slice(&mebi[place..]);
    }
    out
}

fn ids(data: &[u8], lengths: &[usize]) -> Vec<(blake3::Hash, usize)> {
    let mut rest = data;
    let pieces = lengths.iter().map(|len| {
        let (piece, after) = rest.split_at(*len);
        rest = after;
        (blake3::hash(piece), *len)
    });
    pieces.collect()
}

fn found_again(cut: &Cutter, data: &[u8], changed: &[u8]) -> f64 {
    let known: HashSet<_> = ids(data, &cut_all(cut, data)).into_iter().collect();
    let new = ids(changed, &cut_all(cut, changed));
    let again: usize = new.iter().filter(|piece| known.contains(piece)).map(|(_, len)| len).sum();
    again as f64 / changed.len() as f64
}

fn main() {
    let mebi = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(128usize);
    let len = mebi << 20;
    let sets = [("random", random("random", len)), ("text", text(len)), ("mixed", mixed(len))];
    let changed: Vec<_> = sets.iter().map(|(_, data)| with_insertions(data)).collect();
    let averages = [16u32, 64, 256, 1024].map(|kibi| kibi << 10);

    println!("Speed in GB/s, {mebi} MiB each of random / text / mixed data:\n");
    println!("| chunker | avg 16K | 64K | 256K | 1M |\n|---|---|---|---|---|");
    let names: Vec<String> = cutters(Params::default()).into_iter().map(|(name, _)| name).collect();
    for (row, name) in names.iter().enumerate() {
        print!("| {name} ");
        for avg in averages {
            let params = Params::around(avg, 4096).expect("the averages are valid");
            let (_, cut) = &cutters(params)[row];
            let speeds = sets.iter().map(|(_, data)| {
                let speed = best_speed(data, || drop(black_box(cut_all(cut, data))));
                format!("{speed:.2}")
            });
            print!("| {} ", speeds.collect::<Vec<_>>().join(" / "));
        }
        println!("|");
    }

    println!(
        "\nMean chunk in KiB, and the part of bytes found again after 1 to 7 bytes were put in"
    );
    println!("about every MiB, of random / text / mixed data:\n");
    println!("| chunker | avg 16K | 64K | 256K | 1M |\n|---|---|---|---|---|");
    for (row, name) in names.iter().enumerate() {
        let mut cells = Vec::new();
        for avg in averages {
            let params = Params::around(avg, 4096).expect("the averages are valid");
            let (_, cut) = &cutters(params)[row];
            let means = sets.iter().map(|(_, data)| {
                format!("{:.0}", (data.len() / cut_all(cut, data).len()) as f64 / 1024.0)
            });
            let again = sets
                .iter()
                .zip(&changed)
                .map(|((_, data), changed)| format!("{:.3}", found_again(cut, data, changed)));
            let means: Vec<_> = means.collect();
            let again: Vec<_> = again.collect();
            cells.push(format!("{}; {}", means.join(" / "), again.join(" / ")));
        }
        println!("| {name} | {} |", cells.join(" | "));
    }
}
