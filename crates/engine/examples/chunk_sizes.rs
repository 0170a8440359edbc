//! What chunk sizes and compression frames cost and bring on real data.
//!
//! `cargo run --release -p strongroom-engine --example chunk_sizes NAME=MODE=PATH[,PATH..]..`
//!
//! MODE is `content`, `fixed` or `both`. The paths of a corpus are backups that follow each other:
//! a folder stands for its files, each a stream of its own, in order of their names; a file for one
//! stream. A corpus is read to memory whole. For each, a markdown table is printed of chunk sizes,
//! and one of frame sizes and compression levels. Times are the CPU time of one thread.
#![allow(clippy::print_stdout, reason = "a program that prints its measurements")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use strongroom_engine::chunker::{Chunker, Params};

/// What an index entry takes, in bytes.
const INDEX_ENTRY: usize = 56;
/// The averages that are compared by content, in KiB.
const AVERAGES: [u32; 7] = [16, 32, 64, 128, 256, 512, 1024];
/// The fixed sizes that are compared, in KiB.
const FIXED: [u32; 9] = [4, 8, 16, 32, 64, 128, 256, 512, 1024];
/// The size for which frames and levels are compared, in KiB.
const USUAL: u32 = 64;

type Fallible<T> = Result<T, Box<dyn std::error::Error>>;

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// How to cut.
#[derive(Clone, Copy)]
enum Cut {
    Content(Chunker),
    Fixed(usize),
}

impl Cut {
    fn ends(self, data: &[u8], ends: &mut Vec<usize>) {
        match self {
            Self::Content(chunker) => drop(chunker.cuts(data, true, ends)),
            Self::Fixed(size) => {
                ends.extend((size..data.len()).step_by(size));
                if !data.is_empty() {
                    ends.push(data.len());
                }
            }
        }
    }
}

/// Backups that follow each other, each a list of streams.
struct Corpus {
    streams: Vec<Vec<u8>>,
    bytes: usize,
}

impl Corpus {
    fn read(paths: &str) -> Fallible<Self> {
        let mut streams = Vec::new();
        for path in paths.split(',') {
            read_streams(Path::new(path), &mut streams)?;
        }
        let bytes = streams.iter().map(Vec::len).sum();
        Ok(Self { streams, bytes })
    }
}

fn read_streams(path: &Path, streams: &mut Vec<Vec<u8>>) -> Fallible<()> {
    let kind = path.symlink_metadata()?.file_type();
    if kind.is_dir() {
        let entries: Result<Vec<_>, _> = path.read_dir()?.collect();
        let mut paths: Vec<PathBuf> = entries?.iter().map(std::fs::DirEntry::path).collect();
        paths.sort();
        paths.iter().try_for_each(|path| read_streams(path, streams))?;
    } else if kind.is_file() {
        streams.push(std::fs::read(path)?);
    }
    Ok(())
}

/// The chunks of a corpus that are new when they come up, and what it took to find them.
struct New<'a> {
    pieces: Vec<&'a [u8]>,
    chunks: usize,
    bytes: usize,
    speed: f64,
}

fn find_new(corpus: &Corpus, cut: Cut) -> New<'_> {
    let key = [7; 32];
    let mut all = Vec::new();
    let mut ends = Vec::new();
    let start = thread_time();
    for stream in &corpus.streams {
        ends.clear();
        cut.ends(stream, &mut ends);
        let mut from = 0;
        for &end in &ends {
            let piece = &stream[from..end];
            all.push((blake3::keyed_hash(&key, piece), piece));
            from = end;
        }
    }
    let took = thread_time() - start;
    let chunks = all.len();
    let mut known = HashSet::new();
    let pieces = all.into_iter().filter_map(|(id, piece)| known.insert(id).then_some(piece));
    let pieces: Vec<_> = pieces.collect();
    let bytes = pieces.iter().map(|piece| piece.len()).sum();
    New { pieces, chunks, bytes, speed: corpus.bytes as f64 / took.as_secs_f64() / 1e9 }
}

/// What compression makes of chunks.
struct Compressed {
    bytes: usize,
    speed: f64,
    restore_speed: f64,
}

fn compress(new: &New<'_>, frame: usize, level: i32) -> Fallible<Compressed> {
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    let mut decompressor = zstd::bulk::Decompressor::new()?;
    let mut raw = Vec::with_capacity(frame.max(8 << 20));
    let mut packed = vec![0; zstd::zstd_safe::compress_bound(raw.capacity())];
    let mut back = Vec::with_capacity(raw.capacity());
    let (mut bytes, mut took, mut restored) = (0, Duration::ZERO, Duration::ZERO);
    let mut flush = |raw: &mut Vec<u8>| -> Fallible<()> {
        if raw.is_empty() {
            return Ok(());
        }
        let start = thread_time();
        let size = compressor.compress_to_buffer(raw, &mut packed[..])?;
        let middle = thread_time();
        back.clear();
        decompressor.decompress_to_buffer(&packed[..size], &mut back)?;
        restored += thread_time() - middle;
        took += middle - start;
        bytes += size.min(raw.len());
        raw.clear();
        Ok(())
    };
    for piece in &new.pieces {
        if raw.len() + piece.len() > frame {
            flush(&mut raw)?;
        }
        raw.extend_from_slice(piece);
    }
    flush(&mut raw)?;
    let speed = |took: Duration| new.bytes as f64 / took.as_secs_f64() / 1e6;
    Ok(Compressed { bytes, speed: speed(took), restore_speed: speed(restored) })
}

fn percent(part: usize, whole: usize) -> f64 {
    part as f64 * 100.0 / whole as f64
}

fn sizes_table(corpus: &Corpus, cuts: impl Iterator<Item = (String, Cut)>) -> Fallible<()> {
    println!(
        "| size | chunks | mean KiB | unique % | zstd-1 in 512K frames % | with index % | \
         index MiB/TiB unique | chunk+hash GB/s |\n|---|---|---|---|---|---|---|---|"
    );
    for (name, cut) in cuts {
        let new = find_new(corpus, cut);
        let stored = compress(&new, 512 << 10, 1)?.bytes;
        let index = new.pieces.len() * INDEX_ENTRY;
        println!(
            "| {name} | {} | {:.1} | {:.2} | {:.2} | {:.2} | {:.0} | {:.2} |",
            new.chunks,
            corpus.bytes as f64 / new.chunks as f64 / 1024.0,
            percent(new.bytes, corpus.bytes),
            percent(stored, corpus.bytes),
            percent(stored + index, corpus.bytes),
            index as f64 / new.bytes as f64 * f64::from(1 << 20),
            new.speed,
        );
    }
    println!();
    Ok(())
}

fn frames_table(corpus: &Corpus, cut: Cut) -> Fallible<()> {
    println!("| frame | level | stored % | compress MB/s | restore MB/s |\n|---|---|---|---|---|");
    let new = find_new(corpus, cut);
    let combinations = [
        ("one chunk", 1, 1),
        ("128K", 128 << 10, 1),
        ("256K", 256 << 10, 1),
        ("512K", 512 << 10, 1),
        ("1M", 1 << 20, 1),
        ("256K", 256 << 10, 3),
        ("512K", 512 << 10, 2),
        ("512K", 512 << 10, 3),
    ];
    for (name, frame, level) in combinations {
        let made = compress(&new, frame, level)?;
        println!(
            "| {name} | {level} | {:.2} | {:.0} | {:.0} |",
            percent(made.bytes, corpus.bytes),
            made.speed,
            made.restore_speed
        );
    }
    println!();
    Ok(())
}

fn main() -> Fallible<()> {
    for arg in std::env::args().skip(1) {
        let (name, rest) = arg.split_once('=').ok_or("NAME=MODE=PATH[,PATH..] is wanted")?;
        let (mode, paths) = rest.split_once('=').ok_or("NAME=MODE=PATH[,PATH..] is wanted")?;
        let corpus = Corpus::read(paths)?;
        println!(
            "### {name}\n\n{} MiB in {} streams, {} backups.\n",
            corpus.bytes >> 20,
            corpus.streams.len(),
            paths.split(',').count()
        );
        let content = |kibi: u32| -> Fallible<Cut> {
            Ok(Cut::Content(Chunker::new(Params::around(kibi << 10, 4096)?)))
        };
        let fixed = |kibi: u32| Cut::Fixed((kibi as usize) << 10);
        if matches!(mode, "content" | "both") {
            println!("By content:\n");
            let cuts: Fallible<Vec<_>> =
                AVERAGES.iter().map(|&kibi| Ok((format!("{kibi}K"), content(kibi)?))).collect();
            sizes_table(&corpus, cuts?.into_iter())?;
        }
        if matches!(mode, "fixed" | "both") {
            println!("Of fixed size:\n");
            sizes_table(&corpus, FIXED.iter().map(|&kibi| (format!("{kibi}K"), fixed(kibi))))?;
        }
        let usual = if mode == "content" { content(USUAL)? } else { fixed(USUAL) };
        println!("Frames and levels, chunks of {USUAL}K:\n");
        frames_table(&corpus, usual)?;
    }
    Ok(())
}
