//! Fills a catalogue: rows first, in large transactions and with neither indexes nor triggers,
//! then those, as they were.

use std::time::Instant;

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use strongroom_catalog::{Address, Catalog, Engine, Result, Sql};

use crate::{Sizes, data};

/// Rows of a statement, and statements of a transaction.
const ROWS: u64 = 400;
const STATEMENTS: u64 = 250;

pub(crate) async fn fill(
    address: &Address,
    sizes: Sizes,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let catalog = Catalog::open(address).await?;
    owners(&catalog).await?;
    let again = take_away(address, &catalog).await?;
    let image = |sql: &mut Sql, number| data::image(sql, number, sizes);
    let images = Table { into: data::IMAGE, places: data::IMAGE_PLACES, rows: sizes.images };
    timed("images", rows(&catalog, images, image)).await?;
    let event = |sql: &mut Sql, number| data::event(sql, number, sizes);
    let events = Table { into: data::EVENT, places: data::EVENT_PLACES, rows: sizes.events };
    timed("events", rows(&catalog, events, event)).await?;
    catalog.close().await;
    timed("indexes", statements(address, &again)).await?;
    Ok(())
}

async fn timed<T, E>(
    what: &str,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let start = Instant::now();
    let result = work.await;
    println!("  {what}: {:.1} s", start.elapsed().as_secs_f64());
    result
}

/// Those to whom rows refer.
async fn owners(catalog: &Catalog) -> Result<()> {
    let mut tx = catalog.begin().await?;
    for number in 1..=data::ORGANISATIONS {
        let sql = Sql::new("INSERT INTO organisations (name, created_at) VALUES (?, 0)");
        tx.execute(sql.bind(format!("organisation {number}"))).await?;
    }
    for number in 1..=data::POOLS {
        let sql = "INSERT INTO pools (uuid, name, organisation_id, path, created_at) \
                   VALUES (?, ?, 1, '/', 0)";
        let name = format!("pool-{number}");
        tx.execute(Sql::new(sql).bind(&name).bind(&name)).await?;
    }
    tx.commit().await
}

/// What is filled, and with how many rows.
#[derive(Clone, Copy, Debug)]
struct Table {
    into: &'static str,
    places: &'static str,
    rows: u64,
}

async fn rows(catalog: &Catalog, table: Table, row: impl Fn(&mut Sql, u64)) -> Result<()> {
    let mut next = 0;
    while next < table.rows {
        let mut tx = catalog.begin().await?;
        for _ in 0..STATEMENTS {
            let end = table.rows.min(next + ROWS);
            if next == end {
                break;
            }
            let mut sql = Sql::new(table.into);
            for number in next..end {
                sql.push(if number > next { ", " } else { "" }).push(table.places);
                row(&mut sql, number);
            }
            tx.execute(sql).await?;
            next = end;
        }
        tx.commit().await?;
    }
    Ok(())
}

/// Removes the indexes and triggers of both tables; gives the statements that make them again.
async fn take_away(
    address: &Address,
    catalog: &Catalog,
) -> std::result::Result<Vec<String>, Box<dyn std::error::Error>> {
    let found = match catalog.engine() {
        Engine::Sqlite => {
            "SELECT type, name, sql FROM sqlite_schema WHERE tbl_name IN ('images', 'events') \
             AND type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY type"
        }
        Engine::Postgres => {
            "SELECT 'index', indexname::text, indexdef FROM pg_indexes \
             WHERE tablename IN ('images', 'events') AND indexname NOT LIKE '%_pkey'"
        }
    };
    let (mut drop, mut again) = (Vec::new(), Vec::new());
    if catalog.engine() == Engine::Postgres {
        again.push("SET maintenance_work_mem = '512MB'".to_owned());
    }
    for mut row in catalog.rows(Sql::new(found)).await? {
        let (kind, name): (String, String) = (row.take()?, row.take()?);
        drop.push(format!("DROP {kind} {name}"));
        again.push(row.take()?);
    }
    match catalog.engine() {
        Engine::Sqlite => {
            for table in ["images", "events"] {
                again.push(format!(
                    "INSERT INTO {table}_trigrams ({table}_trigrams) VALUES ('rebuild')"
                ));
                again.push(format!(
                    "UPDATE counts SET rows = (SELECT COUNT(*) FROM {table}) WHERE name = '{table}'"
                ));
            }
            again.push("PRAGMA wal_checkpoint(TRUNCATE)".to_owned());
        }
        Engine::Postgres => {
            again.push("VACUUM ANALYZE".to_owned());
            again.push("CHECKPOINT".to_owned());
        }
    }
    statements(address, &drop).await?;
    Ok(again)
}

async fn statements(address: &Address, texts: &[String]) -> std::result::Result<(), sqlx::Error> {
    match address {
        Address::Sqlite(path) => {
            let mut connection = SqliteConnection::connect(&path.to_string_lossy()).await?;
            for text in texts {
                connection.execute(AssertSqlSafe(text.clone())).await?;
            }
            connection.close().await
        }
        Address::Postgres(url) => {
            let mut connection = PgConnection::connect(url).await?;
            for text in texts {
                connection.execute(AssertSqlSafe(text.clone())).await?;
            }
            connection.close().await
        }
    }
}
