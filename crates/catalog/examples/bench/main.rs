//! `cargo xtask bench catalog`: a catalogue with many rows, and how long its lists take, beside
//! the same questions written by hand in SQL and asked through the same driver.
//!
//! Arguments: `sqlite`, `postgres`, `both` or the address of a database (which is filled if it is
//! empty, and stays), the number of images, that of events, and that of requests of each kind.
#![allow(clippy::print_stdout, reason = "its output is the table")]

mod data;
mod fill;
mod hand;
mod questions;
mod time;

use std::time::Instant;

use strongroom_catalog::testing::Fresh;
use strongroom_catalog::{Address, Catalog, Engine, Sql};

/// The sizes of a run.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    images: u64,
    events: u64,
    requests: usize,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let database = arguments.next().unwrap_or_else(|| "both".to_owned());
    let mut number = |default: u64| arguments.next().map_or(Ok(default), |text| text.parse());
    let (images, events, requests) = (number(1_000_000)?, number(5_000_000)?, number(300)?);
    let sizes = Sizes { images, events, requests: usize::try_from(requests)? };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let engines = match database.as_str() {
        "sqlite" => vec![Engine::Sqlite],
        "postgres" => vec![Engine::Postgres],
        "both" => vec![Engine::Sqlite, Engine::Postgres],
        address => return runtime.block_on(run(&address.parse()?, sizes)),
    };
    for engine in engines {
        runtime.block_on(async {
            let fresh = Fresh::new(engine).await;
            let outcome = run(fresh.address(), sizes).await;
            fresh.remove().await;
            outcome
        })?;
    }
    Ok(())
}

async fn run(address: &Address, sizes: Sizes) -> Result<(), Box<dyn std::error::Error>> {
    let catalog = Catalog::open(address).await?;
    println!("\n{:?}: {} images, {} events", catalog.engine(), sizes.images, sizes.events);
    if catalog.rows(Sql::new("SELECT id FROM images LIMIT 1")).await?.is_empty() {
        let start = Instant::now();
        fill::fill(address, sizes).await?;
        println!("filled in {:.0} s", start.elapsed().as_secs_f64());
    }
    let hand = hand::Hand::open(address).await?;
    let failed = time::all(&catalog, &hand, sizes).await?;
    hand.close().await;
    catalog.close().await;
    println!("{}", if failed == 0 { "all within".to_owned() } else { format!("{failed} missed") });
    Ok(())
}
