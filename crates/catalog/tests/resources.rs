//! Every resource that is declared is as the tables have it.
#![allow(clippy::unwrap_used, reason = "tests")]

use strongroom_catalog::list::{Field, List, Resource, Scope};
use strongroom_catalog::{Catalog, Record, Result, Row, events, identity, images, jobs, pools};
use strongroom_catalog::{Sql, resources, testing};

/// A value that a field takes.
fn value(field: &Field) -> &'static str {
    match field.kind.values().first() {
        Some(value) => value,
        None if field.kind.name() == "time" => "2026-01-31T12:00:00Z",
        None => "12",
    }
}

/// Any record: only the key.
struct Key;

impl Record for Key {
    const COLUMNS: &'static str = "id";

    fn read(row: &mut Row) -> Result<Self> {
        row.take::<i64>().map(|_| Self)
    }
}

async fn list(catalog: &Catalog, resource: &'static Resource, query: &[(&str, &str)]) {
    let list = List::parse(resource, query.iter().copied()).unwrap();
    for scope in [Scope::All, Scope::Organisations(vec![1, 2])] {
        let page = list.page::<Key>(catalog, &scope).await;
        assert!(page.is_ok(), "{} {query:?}: {:?}", resource.name, page.err());
        let count = list.count(catalog, &scope).await;
        assert!(count.is_ok(), "{} {query:?}: {:?}", resource.name, count.err());
    }
}

#[tokio::test]
async fn every_field_can_be_filtered_and_sorted_by_as_declared() {
    testing::each(|catalog| async move {
        for resource in resources::ALL.iter().copied() {
            assert!(resource.field(resource.order.0).is_some(), "{}", resource.name);
            list(&catalog, resource, &[]).await;
            for field in resource.fields {
                for operator in field.metadata().operators {
                    let filter = format!("{}:{operator}{}", field.name, value(field));
                    list(&catalog, resource, &[("filter", &filter)]).await;
                }
                if field.sortable {
                    list(&catalog, resource, &[("sort", &format!("{}:asc", field.name))]).await;
                    list(&catalog, resource, &[("sort", &format!("{}:desc", field.name))]).await;
                }
            }
            let searched = resource.fields.iter().any(|field| field.searched);
            assert_eq!(searched, resource.search.is_some(), "{}", resource.name);
            if searched {
                for word in ["word", "wo", "%"] {
                    list(&catalog, resource, &[("keyword", word), ("keyword", "other")]).await;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn records_fit_their_resources() {
    async fn none<R: Record>(catalog: &Catalog, resource: &'static Resource) {
        let page = List::all(resource).page::<R>(catalog, &Scope::All).await;
        assert!(page.is_ok(), "{}: {:?}", resource.name, page.err());
    }
    testing::each(|catalog| async move {
        none::<images::Image>(&catalog, &resources::IMAGES).await;
        none::<events::Event>(&catalog, &resources::EVENTS).await;
        none::<jobs::Job>(&catalog, &resources::JOBS).await;
        none::<pools::Pool>(&catalog, &resources::POOLS).await;
        none::<identity::User>(&catalog, &identity::USERS).await;
        none::<identity::Role>(&catalog, &identity::ROLES).await;
        none::<identity::Organisation>(&catalog, &identity::ORGANISATIONS).await;
        none::<identity::ApiKey>(&catalog, &identity::API_KEYS).await;
        none::<identity::Session>(&catalog, &identity::SESSIONS).await;
        none::<identity::AuditLine>(&catalog, &identity::AUDIT).await;
        none::<identity::Source>(&catalog, &identity::DIRECTORIES).await;
        none::<identity::Source>(&catalog, &identity::ISSUERS).await;
        none::<identity::Approval>(&catalog, &identity::APPROVALS).await;
    })
    .await;
}

#[tokio::test]
async fn rows_are_counted_and_found_as_they_come_and_go() {
    testing::each(|catalog| async move {
        let count = async || {
            let counted = List::all(&resources::EVENTS).count(&catalog, &Scope::All).await;
            counted.unwrap()
        };
        let mut ids = Vec::new();
        for message in ["pool main is nearly full", "pool main is full", "pool spare is full"] {
            let event = events::NewEvent {
                severity: events::Severity::Warning,
                kind: "pool.space",
                organisation_id: 1,
                object: String::new(),
                job_id: None,
                message: message.into(),
            };
            ids.push(events::tell(&catalog, event).await.unwrap());
        }
        let found = async |word: &str| {
            let list =
                List::parse(&resources::EVENTS, [("keyword", word), ("sort", "id")]).unwrap();
            let page = list.page::<events::Event>(&catalog, &Scope::All).await.unwrap();
            page.items.into_iter().map(|event| event.id).collect::<Vec<_>>()
        };
        assert_eq!((count().await.count, count().await.exact), (3, true));
        assert_eq!(found("POOL main").await, ids[..2]);
        assert_eq!(found("is full").await, ids[1..]);
        let gone = Sql::new("DELETE FROM events WHERE id = ?").bind(ids[1]);
        catalog.execute(gone).await.unwrap();
        assert_eq!((count().await.count, count().await.exact), (2, true));
        assert_eq!(found("is full").await, ids[2..]);
    })
    .await;
}

#[test]
fn metadata_says_what_there_is() {
    let metadata = serde_json::to_value(resources::EVENTS.metadata()).unwrap();
    assert_eq!(metadata["default_sort"], "at:desc");
    assert_eq!(metadata["searchable"], true);
    assert_eq!(
        metadata["fields"][2],
        serde_json::json!({
            "name": "severity",
            "type": "enum",
            "description": "How much it matters.",
            "operators": ["==", "!="],
            "values": ["info", "warning", "error"],
            "sortable": true,
            "searched": false,
            "nullable": false,
        })
    );
    assert_eq!(metadata["fields"][7]["sortable"], false);
    assert!(metadata["fields"][7].get("values").is_none());
    let text = resources::EVENTS.document();
    assert!(text.starts_with("| field of an event |"), "{text}");
    assert!(
        text.contains("| `severity` | enum: info, warning, error | `==` `!=` | yes |  | How"),
        "{text}"
    );
    assert!(text.contains("`=\\|`"), "a bar would end the cell: {text}");
    assert!(text.contains("`at:desc`"));
}
