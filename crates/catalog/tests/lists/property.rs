//! Any list that can be asked for: the model and both databases give the same answer.

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, TestRunner};
use strongroom_catalog::list::{List, Scope};
use strongroom_catalog::testing::{ENGINES, Fresh};

use crate::things::{BITS, STATES, THINGS, Thing, model, with};

/// Few letters, so that things are alike, and those that mean something to somebody.
const TEXT: &str = "[abAB%_\\\\\"'ßÄä 1*]{0,5}";

fn thing() -> impl Strategy<Value = Thing> {
    let words = (TEXT, TEXT, prop::sample::select(STATES));
    let numbers = (0..20i64, prop::option::of(0..5i64), any::<bool>(), 0..8i64, 0..30i64, 1..4i64);
    (words, numbers).prop_map(|((name, note, state), (at, until, managed, bits, size, of))| Thing {
        id: 0,
        name,
        note,
        state: state.into(),
        at,
        until,
        managed,
        bits,
        size,
        organisation_id: of,
    })
}

/// What a request may say of one field.
fn filters() -> impl Strategy<Value = Vec<String>> {
    let several = |name: &'static str, value: BoxedStrategy<String>| {
        let operator = prop::sample::select(&["==", "!="][..]);
        (operator, prop::collection::vec(value, 1..4)).prop_map(move |(operator, values)| {
            values.iter().map(|value| format!("{name}:{operator}{value}")).collect()
        })
    };
    let range = |name: &'static str| {
        let bound = || prop::option::of(0..30i64);
        (bound(), bound()).prop_map(move |(low, high)| {
            let low = low.map(|low| format!("{name}:>={low}"));
            low.into_iter().chain(high.map(|high| format!("{name}:<={high}"))).collect()
        })
    };
    let number = || (0..30i64).prop_map(|number| number.to_string()).boxed();
    let state = prop::sample::select(STATES).prop_map(str::to_owned).boxed();
    let bits = (1..1i64 << BITS.len()).prop_map(|bits| vec![format!("bits:=b{bits}")]);
    prop_oneof![
        several("name", TEXT.boxed()),
        several("state", state),
        several("size", number()),
        several("until", number()),
        several(
            "managed",
            prop::sample::select(&["true", "false"][..]).prop_map(str::to_owned).boxed()
        ),
        TEXT.prop_map(|text| vec![format!("note:=|{text}")]),
        range("size"),
        range("at"),
        range("until"),
        range("id"),
        bits,
    ]
}

fn query() -> impl Strategy<Value = Vec<(String, String)>> {
    let filters = prop::collection::vec(filters(), 0..3);
    const NAMES: &[&str] =
        &["id", "name", "note", "state", "at", "until", "managed", "bits", "size"];
    let sort = prop::sample::subsequence(NAMES, 0..3).prop_shuffle();
    let sort = (sort, any::<[bool; 3]>());
    let keywords = prop::collection::vec("[abAÄä%1]{1,4}", 0..3);
    (filters, sort, keywords).prop_map(|(filters, (sort, down), keywords)| {
        let mut query: Vec<(String, String)> = Vec::new();
        let mut fields = Vec::new();
        for filters in filters {
            let of = filters.first().map(|filter| filter.split(':').next().unwrap().to_owned());
            // One field can't be filtered in two ways.
            if of.is_some_and(|of| {
                !fields.contains(&of) && {
                    fields.push(of);
                    true
                }
            }) {
                query.extend(filters.into_iter().map(|filter| ("filter".into(), filter)));
            }
        }
        let words = sort
            .iter()
            .zip(down)
            .map(|(name, down)| format!("{name}:{}", if down { "desc" } else { "asc" }));
        let words: Vec<_> = words.collect();
        if !words.is_empty() {
            query.push(("sort".into(), words.join(",")));
        }
        query.extend(keywords.into_iter().map(|word| ("keyword".into(), word)));
        query
    })
}

fn scope() -> impl Strategy<Value = Scope> {
    prop_oneof![
        3 => Just(Scope::All),
        1 => prop::collection::vec(1..4i64, 0..3).prop_map(Scope::Organisations),
    ]
}

#[test]
fn every_list_is_as_the_model_has_it() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // So many that both ways are taken: to gather and to walk.
    let mut runner = TestRunner::deterministic();
    let things = prop::collection::vec(thing(), 400).new_tree(&mut runner).unwrap().current();
    let things: Vec<Thing> = things.into_iter().zip(1..).map(|(t, id)| Thing { id, ..t }).collect();
    let mut catalogs = Vec::new();
    for engine in ENGINES {
        let fresh = runtime.block_on(Fresh::new(engine));
        let catalog = runtime.block_on(with(fresh.address(), &things));
        catalogs.push((fresh, catalog));
    }
    let mut runner =
        TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let cases = (query(), scope(), 0..20u64, 0..20u64);
    let outcome = runner.run(&cases, |(query, scope, offset, limit)| {
        let expected = model(&things, &query, &scope);
        let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut list = List::parse(&THINGS, pairs).unwrap();
        (list.offset, list.limit) = (offset, limit);
        let behind = expected.iter().skip(offset as usize);
        let wanted: Vec<_> = behind.clone().take(limit as usize).map(|thing| thing.id).collect();
        for (_, catalog) in &catalogs {
            let engine = catalog.engine();
            let page = runtime.block_on(list.page::<Thing>(catalog, &scope)).unwrap();
            let ids: Vec<_> = page.items.iter().map(|thing| thing.id).collect();
            prop_assert_eq!(&ids, &wanted, "{:?}", engine);
            for item in &page.items {
                prop_assert_eq!(item, &things[item.id as usize - 1]);
            }
            prop_assert_eq!(page.more, behind.clone().count() as u64 > limit, "{:?}", engine);
            let count = runtime.block_on(list.count(catalog, &scope)).unwrap();
            prop_assert!(count.exact);
            prop_assert_eq!(count.count, expected.len() as u64, "{:?}", engine);
        }
        Ok(())
    });
    for (fresh, catalog) in catalogs {
        runtime.block_on(catalog.close());
        runtime.block_on(fresh.remove());
    }
    outcome.unwrap();
}
