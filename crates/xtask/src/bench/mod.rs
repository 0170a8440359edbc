//! `cargo xtask bench`.

mod api;
mod block;
mod catalog;
mod corpora;
mod ingest;
mod install;
mod measure;
mod peers;
mod random;
mod report;
mod tools;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::{run, workspace};

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Run Strongroom and other backup programs in turn on the same data; print one table.
    ///
    /// The others (restic, rustic, Borg, bupstash) are installed from Debian, PyPI and crates.io
    /// when they are missing, into a cache outside of the repository; one that can't be had is
    /// left out, and the table says so. Every program encrypts and has its default settings
    /// otherwise. The tables are also written to target/bench/peers.md and peers.json.
    Peers(peers::Options),
    /// A volume by iSCSI and NBD beside tgt, qemu-nbd and nbdkit with plain files, in turn; and snapshots, clones,
    /// stalls, log and memory of a volume of 1 TiB.
    ///
    /// The others come from Debian. The tables are also written to target/bench/block.md.
    Block(block::Options),
    /// Chunkers: speed, and how well they find again what was moved.
    Chunkers(Arguments),
    /// Chunk sizes and frames over data of your own; see docs/benchmarks.md for what to give.
    ChunkSizes(Arguments),
    /// The catalogue's lists: a million images and five million events, beside the same questions
    /// written by hand in SQL.
    ///
    /// Makes its databases in the temporary directory (5 GB) and removes them. PostgreSQL is a
    /// server of its own, as for the tests.
    Catalog(catalog::Options),
    /// A backup through an appliance beside one to a pool of one's own, and many clients at once.
    ///
    /// The table is also written to target/bench/ingest.md.
    Ingest(ingest::Options),
    /// The API: a list of jobs, with a login, beside a bare handler that gives the same bytes.
    Api(api::Options),
    /// The index: memory per chunk, lookups, opening, with many millions of chunks.
    Index(Arguments),
    /// A whole pool of many millions of chunks: how long opening it takes, and what memory.
    Pool(Arguments),
}

/// Arguments of an example of the engine.
#[derive(Clone, Debug, Args)]
pub(crate) struct Arguments {
    /// Passed on as they are.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Measures.
pub(crate) fn bench(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Peers(options) => peers::peers(options),
        Bench::Block(options) => block::block(options),
        Bench::Api(options) => api::api(options),
        Bench::Catalog(options) => catalog::catalog(options),
        Bench::Ingest(options) => ingest::ingest(options),
        Bench::Chunkers(arguments) => example("chunkers", arguments),
        Bench::ChunkSizes(arguments) => example("chunk_sizes", arguments),
        Bench::Index(arguments) => example("index_scale", arguments),
        Bench::Pool(arguments) => example("pool_scale", arguments),
    }
}

/// Runs an example of the engine, optimised.
fn example(name: &str, arguments: &Arguments) -> Result<()> {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--release", "--package", "strongroom-engine", "--example", name, "--"]);
    run::run(cargo.args(&arguments.arguments))
}
