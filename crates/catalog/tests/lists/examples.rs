//! The list language by examples, each with what it must find.

use strongroom_catalog::list::{Count, List, Scope};
use strongroom_catalog::{Catalog, Sql, testing};

use crate::things::{THINGS, Thing, ids, with};

fn thing(id: i64, name: &str, note: &str) -> Thing {
    Thing {
        id,
        name: name.into(),
        note: note.into(),
        state: ["queued", "running", "done"][id as usize % 3].into(),
        at: 1000 - id,
        until: (id % 2 == 0).then_some(id * 10),
        managed: id % 2 == 1,
        bits: id % 8,
        size: id * id,
        organisation_id: id % 3,
    }
}

/// Runs a test with a few things of awkward names.
async fn each<F: Future<Output = ()>>(test: impl Fn(Catalog) -> F) {
    testing::each_address(|address| {
        let things = [
            thing(1, "alpha", "the first"),
            thing(2, "Beta", "100% sure"),
            thing(3, "gamma_ray", "a_b"),
            thing(4, "delta\\path", "axb"),
            thing(5, "say \"hi\"", "1000 sure"),
            thing(6, "x'; DROP TABLE things; --", "Straße ÄÖ"),
            thing(7, "", "OR AND NOT NEAR(a b) col:x *"),
            thing(8, "alpha", "zz"),
        ];
        let test = &test;
        async move {
            let catalog = with(&address, &things).await;
            test(catalog.clone()).await;
            catalog.close().await;
        }
    })
    .await;
}

/// What a single pair finds, by id.
async fn found(catalog: &Catalog, pairs: &[(&str, &str)]) -> Vec<i64> {
    let mut found = ids(catalog, pairs, &Scope::All).await;
    found.sort_unstable();
    found
}

#[tokio::test]
async fn filters_mean_what_they_say() {
    each(|catalog| async move {
        let by = async |filters: &[&str]| {
            let pairs: Vec<_> = filters.iter().map(|text| ("filter", *text)).collect();
            found(&catalog, &pairs).await
        };
        assert_eq!(by(&["name:==alpha"]).await, [1, 8]);
        assert_eq!(by(&["NAME:==alpha"]).await, [1, 8]);
        assert_eq!(by(&["name:==Alpha"]).await, [0; 0], "equal is exact");
        assert_eq!(by(&["name:=|ALPHA"]).await, [1, 8], "contains is not");
        assert_eq!(by(&["name:==alpha", "name:==Beta"]).await, [1, 2, 8]);
        assert_eq!(by(&["name:!=alpha", "name:!=Beta"]).await, [3, 4, 5, 6, 7]);
        assert_eq!(by(&["name:=="]).await, [7]);
        assert_eq!(by(&["id:>=3", "id:<=5"]).await, [3, 4, 5]);
        assert_eq!(by(&["until:>=40"]).await, [4, 6, 8], "unknown is not at least");
        assert_eq!(by(&["until:!=40"]).await, [1, 2, 3, 5, 6, 7, 8], "unknown is not equal");
        assert_eq!(by(&["managed:==True"]).await, [1, 3, 5, 7]);
        assert_eq!(by(&["bits:=bUNMOUNT"]).await, [2, 3, 6, 7]);
        assert_eq!(by(&["bits:=b3"]).await, [1, 2, 3, 5, 6, 7]);
        assert_eq!(by(&["state:==done", "id:>=5"]).await, [5, 8]);
    })
    .await;
}

#[tokio::test]
async fn nothing_in_a_value_is_special() {
    each(|catalog| async move {
        let contains = async |text: &str| {
            let filter = format!("note:=|{text}");
            let by_filter = found(&catalog, &[("filter", &filter)]).await;
            assert_eq!(by_filter, found(&catalog, &[("keyword", text)]).await, "{text}");
            by_filter
        };
        assert_eq!(contains("0% sure").await, [2]);
        assert_eq!(contains("a_b").await, [3]);
        assert_eq!(contains("%").await, [2]);
        assert_eq!(contains("axb").await, [4]);
        assert_eq!(contains("col:x *").await, [7]);
        assert_eq!(contains("OR AND").await, [7]);
        assert_eq!(contains("NEAR(a b)").await, [7]);
        assert_eq!(contains("zz").await, [8]);
        for (value, id) in [
            ("say \"hi\"", 5),
            ("x'; DROP TABLE things; --", 6),
            ("delta\\path", 4),
            ("gamma_ray", 3),
        ] {
            assert_eq!(found(&catalog, &[("filter", &format!("name:=={value}"))]).await, [id]);
            assert_eq!(found(&catalog, &[("filter", &format!("name:=|{value}"))]).await, [id]);
            assert_eq!(found(&catalog, &[("keyword", value)]).await, [id]);
        }
        for value in ["' OR 1=1 --", "\" OR \"\"", "\\", "$1", "?", "?1", "nothing) OR (1=1"] {
            let there: &[i64] = if value == "\\" { &[4] } else { &[] };
            assert_eq!(found(&catalog, &[("keyword", value)]).await, there, "{value}");
            assert_eq!(found(&catalog, &[("filter", &format!("name:=|{value}"))]).await, there);
            assert_eq!(found(&catalog, &[("filter", &format!("name:=={value}"))]).await, [0; 0]);
        }
        let count = catalog.rows(Sql::new("SELECT id FROM things")).await.unwrap().len();
        assert_eq!(count, 8);
    })
    .await;
}

#[test]
fn names_are_of_the_declaration_only() {
    for name in ["id; DROP TABLE things", "id--", "1", "things.id", "search", "organisation_id", ""]
    {
        for query in [("filter", format!("{name}:==1")), ("sort", format!("{name}:asc"))] {
            let listed = List::parse(&THINGS, [(query.0, query.1.as_str())]);
            let only_empty = name.is_empty() && query.0 == "sort";
            assert!(listed.is_err() || only_empty, "{query:?}");
        }
    }
    let nul = List::parse(&THINGS, [("filter", "name:==a\0b")]);
    assert!(nul.unwrap_err().to_string().contains("NUL"));
}

#[tokio::test]
async fn keywords_fold_case_and_any_of_them_will_do() {
    each(|catalog| async move {
        let words = async |words: &[&str]| {
            let pairs: Vec<_> = words.iter().map(|word| ("keyword", *word)).collect();
            found(&catalog, &pairs).await
        };
        assert_eq!(words(&["ALPHA"]).await, [1, 8]);
        assert_eq!(words(&["STRASSE"]).await, [0; 0]);
        assert_eq!(words(&["straße äö"]).await, [6]);
        assert_eq!(words(&["ÄÖ"]).await, [6], "two letters, neither of them ASCII");
        assert_eq!(words(&["alpha", "beta"]).await, [1, 2, 8]);
        assert_eq!(words(&["alpha", "zz"]).await, [1, 8], "short words are words as well");
        assert_eq!(words(&["z"]).await, [8]);
        assert_eq!(words(&["alphathe"]).await, [0; 0], "not over the end of a field");
        assert_eq!(words(&[""]).await.len(), 8, "no word at all");
        assert_eq!(found(&catalog, &[("keyword", "alpha"), ("filter", "id:>=2")]).await, [8]);
    })
    .await;
}

#[tokio::test]
async fn unknown_times_sort_first() {
    each(|catalog| async move {
        let sorted = async |sort: &str| ids(&catalog, &[("sort", sort)], &Scope::All).await;
        assert_eq!(sorted("until:asc").await, [7, 5, 3, 1, 2, 4, 6, 8]);
        assert_eq!(sorted("until:desc").await, [8, 6, 4, 2, 1, 3, 5, 7]);
        assert_eq!(sorted("state:asc,id:DESC").await, [8, 5, 2, 6, 3, 7, 4, 1]);
        assert_eq!(sorted("name").await, [7, 2, 8, 1, 4, 3, 5, 6], "byte by byte");
        assert_eq!(sorted("").await, [1, 2, 3, 4, 5, 6, 7, 8], "its own order");
    })
    .await;
}

#[tokio::test]
async fn pages_do_not_overlap_and_leave_nothing_out() {
    each(|catalog| async move {
        for sort in ["managed:asc", "managed:desc", "state:asc", "name:desc", ""] {
            let whole = ids(&catalog, &[("sort", sort)], &Scope::All).await;
            let mut pages = Vec::new();
            for offset in ["0", "3", "6", "9"] {
                let query = [("sort", sort), ("limit", "3"), ("offset", offset)];
                let list = List::parse(&THINGS, query).unwrap();
                let page = list.page::<Thing>(&catalog, &Scope::All).await.unwrap();
                assert_eq!(page.more, pages.len() + page.items.len() < 8, "{sort} {offset}");
                pages.extend(page.items.into_iter().map(|thing| thing.id));
            }
            assert_eq!(pages, whole, "{sort}");
        }
        assert_eq!(ids(&catalog, &[("limit", "0")], &Scope::All).await, [0; 0]);
    })
    .await;
}

#[tokio::test]
async fn others_rows_are_not_there() {
    each(|catalog| async move {
        let seen = async |organisations: Vec<i64>, query: &[(&str, &str)]| {
            let scope = Scope::Organisations(organisations);
            let list = List::parse(&THINGS, query.iter().copied()).unwrap();
            let count = list.count(&catalog, &scope).await.unwrap();
            let mut ids = ids(&catalog, query, &scope).await;
            ids.sort_unstable();
            assert_eq!(count, Count { count: ids.len() as u64, exact: true });
            ids
        };
        assert_eq!(seen(vec![1], &[]).await, [1, 4, 7]);
        assert_eq!(seen(vec![1, 2], &[]).await, [1, 2, 4, 5, 7, 8]);
        assert_eq!(seen(vec![], &[]).await, [0; 0]);
        assert_eq!(seen(vec![], &[("keyword", "alpha")]).await, [0; 0]);
        assert_eq!(seen(vec![1], &[("keyword", "alpha")]).await, [1]);
        assert_eq!(seen(vec![2], &[("filter", "name:==alpha")]).await, [8]);
    })
    .await;
}

#[tokio::test]
async fn counts_are_exact_while_there_are_few() {
    each(|catalog| async move {
        for (query, count) in [
            (vec![], 8),
            (vec![("filter", "name:==alpha")], 2),
            (vec![("keyword", "alpha"), ("keyword", "beta")], 3),
            (vec![("limit", "1"), ("offset", "7"), ("sort", "name:asc")], 8),
            (vec![("filter", "name:==nobody")], 0),
        ] {
            let list = List::parse(&THINGS, query.iter().copied()).unwrap();
            let counted = list.count(&catalog, &Scope::All).await.unwrap();
            assert_eq!(counted, Count { count, exact: true }, "{query:?}");
        }
    })
    .await;
}
