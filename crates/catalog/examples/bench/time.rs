//! Asks, takes the time, and judges.

use std::time::Instant;

use strongroom_catalog::events::Event;
use strongroom_catalog::images::Image;
use strongroom_catalog::list::List;
use strongroom_catalog::{Catalog, resources};

use crate::Sizes;
use crate::data::Random;
use crate::hand::{Hand, Table};
use crate::questions::{ALL, Asked, Kind};

/// How much longer than by hand it may take.
const RATIO: f64 = 1.5;

/// Prints the table; gives the number of questions that took too long.
pub(crate) async fn all(
    catalog: &Catalog,
    hand: &Hand,
    sizes: Sizes,
) -> Result<usize, Box<dyn std::error::Error>> {
    println!("\n| question | p50 ms | p99 ms | by hand p50 | by hand p99 | ratio | verdict |");
    println!("|---|---|---|---|---|---|---|");
    let mut missed = 0;
    for kind in ALL {
        missed += usize::from(!one(kind, catalog, hand, sizes).await?);
    }
    Ok(missed)
}

async fn one(
    kind: &Kind,
    catalog: &Catalog,
    hand: &Hand,
    sizes: Sizes,
) -> Result<bool, Box<dyn std::error::Error>> {
    let mut random = Random(7);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut estimated = 0;
    for turn in 0..sizes.requests {
        let asked = (kind.draw)(&mut random, sizes);
        // They take turns in going first: the second finds its pages in memory.
        for side in 0..2 {
            if (turn + side) % 2 == 0 {
                let start = Instant::now();
                let (found, exact) = listed(kind, &asked, catalog).await?;
                ours.push(start.elapsed().as_secs_f64() * 1e3);
                std::hint::black_box(found);
                estimated += usize::from(!exact);
            } else if let Some(question) = &asked.by_hand {
                let start = Instant::now();
                std::hint::black_box(hand.ask(question).await?);
                theirs.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
    }
    let (p50, p99) = percentiles(&mut ours);
    let mut good = p99 < kind.limit;
    let mut row = format!("| {} | {p50:.2} | {p99:.2} |", kind.name);
    if theirs.is_empty() {
        row.push_str(" | | |");
    } else {
        let (by_hand_p50, by_hand_p99) = percentiles(&mut theirs);
        let ratio = p50 / by_hand_p50;
        row.push_str(&format!(" {by_hand_p50:.2} | {by_hand_p99:.2} | {ratio:.2} |"));
        good &= ratio <= RATIO;
    }
    let told = if kind.count && estimated > 0 {
        format!(", {} % told as estimates", estimated * 100 / sizes.requests)
    } else {
        String::new()
    };
    let verdict = if good { "within" } else { "**missed**" };
    println!("{row} {verdict} {:.0} ms{told} |", kind.limit);
    Ok(good)
}

/// How many items, and whether a count was exact.
async fn listed(
    kind: &Kind,
    asked: &Asked,
    catalog: &Catalog,
) -> Result<(u64, bool), strongroom_catalog::Error> {
    let resource = match asked.table {
        Table::Images => &resources::IMAGES,
        Table::Events => &resources::EVENTS,
    };
    let pairs = asked.query.iter().map(|(name, value)| (*name, value.as_str()));
    let list = List::parse(resource, pairs)?;
    if kind.count {
        let count = list.count(catalog, &asked.scope).await?;
        return Ok((count.count, count.exact));
    }
    let items = match asked.table {
        Table::Images => list.page::<Image>(catalog, &asked.scope).await?.items.len(),
        Table::Events => list.page::<Event>(catalog, &asked.scope).await?.items.len(),
    };
    Ok((items as u64, true))
}

/// The middle, and what 99 of 100 stay below.
fn percentiles(times: &mut [f64]) -> (f64, f64) {
    times.sort_unstable_by(f64::total_cmp);
    let at = |part: f64| {
        let place = (times.len() as f64 * part) as usize;
        times.get(place.min(times.len().saturating_sub(1))).copied().unwrap_or(0.0)
    };
    (at(0.5), at(0.99))
}
