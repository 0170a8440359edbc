//! What holds for statements and transactions, on both databases.
#![allow(clippy::unwrap_used, reason = "tests")]

use jiff::Timestamp;
use strongroom_catalog::jobs::{self, NewJob, State};
use strongroom_catalog::{Address, Catalog, Engine, Error, Row, Sql, Value, restored, testing};

async fn organisation(catalog: &Catalog, name: &str) -> Result<i64, Error> {
    let sql = "INSERT INTO organisations (name, created_at) VALUES (?, ?) RETURNING id";
    let mut tx = catalog.begin().await?;
    let id = tx.insert(Sql::new(sql).bind(name).bind(Timestamp::UNIX_EPOCH)).await?;
    tx.commit().await?;
    Ok(id)
}

async fn names(catalog: &Catalog) -> Vec<String> {
    let rows = catalog.rows(Sql::new("SELECT name FROM organisations ORDER BY name")).await;
    rows.unwrap().into_iter().map(|mut row| row.take().unwrap()).collect()
}

#[tokio::test]
async fn what_was_not_committed_never_was() {
    testing::each(|catalog| async move {
        let insert = "INSERT INTO organisations (name, created_at) VALUES (?, 0)";
        let mut tx = catalog.begin().await.unwrap();
        tx.execute(Sql::new(insert).bind("dropped")).await.unwrap();
        drop(tx);
        // A statement that fails takes those before it with it.
        let mut tx = catalog.begin().await.unwrap();
        tx.execute(Sql::new(insert).bind("half")).await.unwrap();
        tx.execute(Sql::new("INSERT INTO nowhere VALUES (1)")).await.unwrap_err();
        drop(tx);
        assert_eq!(names(&catalog).await, [""; 0]);
        let mut tx = catalog.begin().await.unwrap();
        assert_eq!(tx.execute(Sql::new(insert).bind("kept")).await.unwrap(), 1);
        tx.commit().await.unwrap();
        assert_eq!(names(&catalog).await, ["kept"]);
    })
    .await;
}

#[tokio::test]
async fn writers_take_turns() {
    testing::each(|catalog| async move {
        catalog
            .execute(Sql::new(
                "INSERT INTO settings (name, value, changed_at) VALUES ('n', '0', 0)",
            ))
            .await
            .unwrap();
        let writers = (0..8).map(|_| {
            let catalog = catalog.clone();
            tokio::spawn(async move {
                for _ in 0..10 {
                    let add = "UPDATE settings SET version = version + 1 WHERE name = ?";
                    assert_eq!(catalog.execute(Sql::new(add).bind("n")).await.unwrap(), 1);
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
        let mut rows = catalog.rows(Sql::new("SELECT version FROM settings")).await.unwrap();
        assert_eq!(rows[0].take::<i64>().unwrap(), 81);
    })
    .await;
}

#[tokio::test]
async fn what_readers_see_was_committed() {
    testing::each(|catalog| async move {
        let mut tx = catalog.begin().await.unwrap();
        let insert = "INSERT INTO organisations (name, created_at) VALUES ('new', 0)";
        tx.execute(Sql::new(insert)).await.unwrap();
        assert_eq!(tx.rows(Sql::new("SELECT id FROM organisations")).await.unwrap().len(), 1);
        assert_eq!(names(&catalog).await, [""; 0]);
        tx.commit().await.unwrap();
        assert_eq!(names(&catalog).await, ["new"]);
    })
    .await;
}

#[tokio::test]
async fn readers_of_a_file_cannot_write() {
    let fresh = testing::Fresh::new(Engine::Sqlite).await;
    let catalog = fresh.open().await;
    let sneaky = "INSERT INTO organisations (name, created_at) VALUES ('x', 0) RETURNING id";
    assert!(catalog.rows(Sql::new(sneaky)).await.is_err());
    assert_eq!(names(&catalog).await, [""; 0]);
    fresh.remove().await;
}

#[tokio::test]
async fn a_second_one_of_its_kind_is_told_from_other_errors() {
    testing::each(|catalog| async move {
        organisation(&catalog, "one").await.unwrap();
        let twice = organisation(&catalog, "one").await.unwrap_err();
        assert!(matches!(&twice, Error::Exists { .. }), "{twice:?}");
        let user = "INSERT INTO users (organisation_id, name, folded, source, enabled, created_at) \
                    VALUES (?, 'u', 'u', 'local', 1, 0)";
        let lost = catalog.execute(Sql::new(user).bind(77i64)).await.unwrap_err();
        assert!(matches!(&lost, Error::Referenced { .. }), "{lost:?}");
        catalog.execute(Sql::new(user).bind(1i64)).await.unwrap();
        let used = catalog.execute(Sql::new("DELETE FROM organisations WHERE id = 1")).await;
        assert!(matches!(&used, Err(Error::Referenced { .. })), "{used:?}");
        let null = "INSERT INTO settings (name, value, changed_at) VALUES ('n', ?, 0)";
        let null = catalog.execute(Sql::new(null).bind(None::<String>)).await.unwrap_err();
        assert!(matches!(&null, Error::Database(_)), "{null:?}");
    })
    .await;
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    testing::each(|catalog| async move {
        let create = match catalog.engine() {
            Engine::Sqlite => "CREATE TABLE v (i BIGINT, t TEXT, b BLOB, r REAL)",
            Engine::Postgres => "CREATE TABLE v (i BIGINT, t TEXT, b BYTEA, r DOUBLE PRECISION)",
        };
        catalog.execute(Sql::new(create)).await.unwrap();
        let now = Timestamp::from_microsecond(1_795_000_000_123_456).unwrap();
        let sets: [[Value; 4]; 4] = [
            [i64::MIN.into(), "".into(), vec![0u8, 255].into(), 0.5.into()],
            [
                i64::MAX.into(),
                "'; DROP TABLE v; --\u{1}\u{10ffff}".into(),
                vec![].into(),
                f64::MAX.into(),
            ],
            [now.into(), "ÄÖ\n".into(), vec![b'x'; 100_000].into(), (-0.0).into()],
            [Value::Int(None), Value::Text(None), Value::Bytes(None), Value::Real(None)],
        ];
        for set in sets.clone() {
            let mut sql = Sql::new("INSERT INTO v (i, t, b, r) VALUES (?, ?, ?, ?)");
            for value in set {
                sql.value(value);
            }
            catalog.execute(sql).await.unwrap();
        }
        let order = match catalog.engine() {
            Engine::Sqlite => "SELECT i, t, b, r FROM v ORDER BY rowid",
            Engine::Postgres => "SELECT i, t, b, r FROM v ORDER BY ctid",
        };
        type Taken = (Option<i64>, Option<String>, Option<Vec<u8>>, Option<f64>);
        let take = |mut row: Row| -> Taken {
            let taken = (
                row.take().unwrap(),
                row.take().unwrap(),
                row.take().unwrap(),
                row.take().unwrap(),
            );
            assert!(matches!(row.take::<i64>(), Err(Error::Damaged { .. })));
            taken
        };
        let rows = catalog.rows(Sql::new(order)).await.unwrap();
        for (set, row) in sets.into_iter().zip(rows) {
            let (i, t, b, r) = take(row);
            assert_eq!([Value::Int(i), Value::Text(t), Value::Bytes(b), Value::Real(r)], set);
        }
        let mut rows = catalog
            .rows(Sql::new("SELECT i, t FROM v WHERE i = ").and("?").bind(now))
            .await
            .unwrap();
        assert_eq!(rows[0].take::<Timestamp>().unwrap(), now);
        assert!(rows[0].take::<i64>().unwrap_err().to_string().contains("integer"));
        // The sum of integers has a type of its own on PostgreSQL.
        let sum = Sql::new("SELECT CAST(SUM(i) AS BIGINT) FROM v WHERE i < 0");
        assert_eq!(catalog.rows(sum).await.unwrap()[0].take::<i64>().unwrap(), i64::MIN);
        let nul = catalog.execute(Sql::new("INSERT INTO v (t) VALUES (?)").bind("a\0b")).await;
        assert!(matches!(nul, Err(Error::Nul)), "{nul:?}");
    })
    .await;
}

#[tokio::test]
async fn sets_of_any_size_can_be_looked_in() {
    testing::each(|catalog| async move {
        for name in ["a", "b", "c"] {
            organisation(&catalog, name).await.unwrap();
        }
        for (set, found) in [(vec![], 0), (vec!["a"], 1), (vec!["c", "x", "a"], 2)] {
            let mut sql = Sql::new("SELECT id FROM organisations WHERE name IN ");
            sql.push_set(set);
            assert_eq!(catalog.rows(sql).await.unwrap().len(), found);
        }
    })
    .await;
}

#[tokio::test]
async fn a_copy_is_whole_while_others_write() {
    let fresh = testing::Fresh::new(Engine::Sqlite).await;
    let catalog = fresh.open().await;
    organisation(&catalog, "one").await.unwrap();
    let Address::Sqlite(path) = fresh.address() else { panic!("not a file") };
    let copy = path.with_extension("copy");
    catalog.copy_to(copy.to_str().unwrap()).await.unwrap();
    organisation(&catalog, "two").await.unwrap();
    let copied = Catalog::open(&Address::Sqlite(copy.clone())).await.unwrap();
    assert_eq!(names(&copied).await, ["one"]);
    assert!(catalog.copy_to(copy.to_str().unwrap()).await.is_err(), "it would be overwritten");
    fresh.remove().await;
}

#[tokio::test]
async fn a_copy_is_looked_at_before_it_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = testing::Fresh::new(Engine::Sqlite).await;
    let catalog = fresh.open().await;
    let root = organisation(&catalog, "one").await.unwrap();
    let job = |kind: &str| NewJob { kind: kind.into(), organisation_id: root, ..NewJob::default() };
    for kind in ["ours", "others"] {
        jobs::submit(&catalog, job(kind)).await.unwrap();
    }
    let file = dir.path().join("copy");
    catalog.copy_to(file.to_str().unwrap()).await.unwrap();
    let copy = Catalog::open_copy(&file).await.unwrap();
    restored::settle(&copy, "it is over").await.unwrap();
    copy.close().await;
    assert!(!dir.path().join("copy-wal").exists(), "nothing of it is beside it");
    let copy = Catalog::open_copy(&file).await.unwrap();
    let found = |kind: &'static str| jobs::newest(&copy, kind, "");
    for kind in ["ours", "others"] {
        let job = found(kind).await.unwrap().unwrap();
        assert_eq!((job.state, job.error.as_deref()), (State::Canceled, Some("it is over")));
    }
    // One of a program to come.
    let later = "INSERT INTO schema_steps (number, done_at) VALUES (99, 0)";
    copy.execute(Sql::new(later)).await.unwrap();
    copy.close().await;
    let newer = Catalog::open_copy(&file).await.unwrap_err();
    assert!(matches!(newer, Error::Newer { found: 99, .. }), "{newer}");
    // What is no catalogue, and one of which a page is gone.
    let mut bytes = std::fs::read(&file).unwrap();
    let page = bytes.len() / 2 / 4096 * 4096;
    bytes[page..page + 4096].fill(0x55);
    std::fs::write(&file, bytes).unwrap();
    Catalog::open_copy(&file).await.unwrap_err();
    std::fs::write(&file, "this is a text, and no database at all").unwrap();
    Catalog::open_copy(&file).await.unwrap_err();
    std::fs::write(&file, "").unwrap();
    Catalog::open_copy(&file).await.unwrap_err();
    fresh.remove().await;
}

#[tokio::test]
async fn passwords_are_not_shown() {
    let url = "postgres://me:hunter2@127.0.0.1:1/db?password=hunter2";
    let address: Address = url.parse().unwrap();
    assert_eq!(address.to_string(), "postgres://127.0.0.1:1/db");
    for bad in ["postgres://me:hunter2@[x/db", "postgres://hunter2:x:y@/"] {
        let error = Catalog::open(&bad.parse().unwrap()).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
    }
    assert!(!format!("{address:?}").contains("hunter2"));
    assert!("".parse::<Address>().is_err());
    assert!("mysql://x".parse::<Address>().is_err());
}
