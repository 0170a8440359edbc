//! Streams are cut where they were cut when the pool was written: the golden vectors.
//!
//! The inputs are made as the head of `tests/golden/chunker.txt` says. If the algorithm is changed
//! on purpose, it gets a new number and a file of its own; this one stays.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;

use strongroom_engine::chunker::{Chunker, Kernel, Params};

const GOLDEN: &str = include_str!("../../../tests/golden/chunker.txt");

const HEAD: &str = "\
# Where win2 (chunker algorithm 1) cuts. The inputs are made from X(s, n): the first n bytes of the
# BLAKE3 extendable output of the ASCII string s.
#
# random  X('strongroom golden random', 4194304)
# words   for each byte of X('strongroom golden words', 524288): the word whose number is the byte
#         modulo 8 in `backup disk. pool the of chunk 2026-11-21 {\"id\":`, then a line feed if the
#         byte is 224 or more, else a space
# holes   for i = 0, 1, .. 15: X('strongroom golden holes <i>', 100003 + i), then (i + 1) * 40009
#         bytes of value 0 if i is even, 255 if it is odd
# period  the first 1048576 bytes of X('strongroom golden period', 1021), over and over
#
# A line `cuts <input> <min> <avg> <max>` is followed by the lengths of all chunks, in order.
";

fn xof(seed: &str, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn inputs() -> [(&'static str, Vec<u8>); 4] {
    let words = ["backup", "disk.", "pool", "the", "of", "chunk", "2026-11-21", "{\"id\":"];
    let mut text = Vec::new();
    for byte in xof("strongroom golden words", 524_288) {
        text.extend_from_slice(words[byte as usize % 8].as_bytes());
        text.push(if byte >= 224 { b'\n' } else { b' ' });
    }
    let mut holes = Vec::new();
    for i in 0..16 {
        holes.extend(xof(&format!("strongroom golden holes {i}"), 100_003 + i));
        let value = if i % 2 == 0 { 0 } else { 255 };
        holes.resize(holes.len() + (i + 1) * 40_009, value);
    }
    let period = xof("strongroom golden period", 1021).into_iter().cycle();
    [
        ("random", xof("strongroom golden random", 4 << 20)),
        ("words", text),
        ("holes", holes),
        ("period", period.take(1 << 20).collect()),
    ]
}

fn cut(kernel: Kernel) -> String {
    let mut out = HEAD.to_owned();
    for (name, data) in inputs() {
        for [min, avg, max] in [[4u32, 16, 64], [16, 64, 256], [64, 512, 1024]] {
            let params = Params::new(min << 10, avg << 10, max << 10, 4096).unwrap();
            let mut ends = Vec::new();
            Chunker::with_kernel(params, kernel).cuts(&data, true, &mut ends);
            write!(out, "cuts {name} {} {} {}", params.min, params.avg, params.max).unwrap();
            let mut start = 0;
            for (nth, end) in ends.into_iter().enumerate() {
                let gap = if nth % 12 == 0 { '\n' } else { ' ' };
                write!(out, "{gap}{}", end - start).unwrap();
                start = end;
            }
            out.push('\n');
        }
    }
    out
}

#[test]
fn every_kernel_cuts_where_it_always_did() {
    for kernel in Kernel::available() {
        let now = cut(kernel);
        if now != GOLDEN {
            let copy = concat!(env!("CARGO_TARGET_TMPDIR"), "/chunker.txt");
            std::fs::write(copy, now).unwrap();
            panic!("the {} kernel cuts elsewhere; its vectors are in {copy}", kernel.name());
        }
    }
}
