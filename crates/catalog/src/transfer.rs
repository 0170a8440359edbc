//! A catalogue in PostgreSQL as a file of SQLite, and back.
//!
//! The file is a catalogue as any other of SQLite: whoever has it can look into it, use it, or load
//! it into a database again. The tables have the same names and columns in both; what differs is
//! what each keeps for itself: the trigrams, the counts, the steps of the schema.

use std::path::Path;

use crate::db::{Address, Catalog, Engine, Tx};
use crate::sql::Sql;
use crate::value::{Row, Value, single};
use crate::{Error, Result, SCHEMA, migrate};

/// What is carried over. Who is referred to comes first, but for rows of one table among themselves.
const TABLES: &[&str] = &[
    "organisations",
    "sources",
    "users",
    "recovery_codes",
    "roles",
    "grants",
    "source_grants",
    "user_groups",
    "api_keys",
    "admin_token",
    "nonces",
    "sessions",
    "audit",
    "audit_head",
    "audit_sender",
    "approvals",
    "settings",
    "pools",
    "pool_samples",
    "images",
    "volumes",
    "snapshots",
    "snapshot_schedules",
    "auth_groups",
    "initiators",
    "portal_groups",
    "portals",
    "targets",
    "luns",
    "jobs",
    "job_log",
    "events",
    "idempotency",
    "leases",
];
/// Rows that are in memory at once.
const PAGE: i64 = 500;
/// Values of one statement: both databases take about as many.
const VALUES: usize = 30_000;

/// The type of a column, which even a null has for PostgreSQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Text,
    Bytes,
    Real,
}

/// A column, by its name.
type Column = (String, Kind);

impl Kind {
    fn of(name: &str) -> Result<Self> {
        Ok(match name {
            "bigint" => Self::Int,
            "text" => Self::Text,
            "bytea" => Self::Bytes,
            "double precision" => Self::Real,
            other => {
                let why = format!("{other} is no type of it");
                return Err(Error::Damaged { what: "schema".into(), why });
            }
        })
    }

    /// The value, if it is one of this type.
    fn fit(self, value: Value) -> Option<Value> {
        Some(match (self, value) {
            (_, Value::Int(None) | Value::Text(None) | Value::Bytes(None) | Value::Real(None)) => {
                match self {
                    Self::Int => Value::Int(None),
                    Self::Text => Value::Text(None),
                    Self::Bytes => Value::Bytes(None),
                    Self::Real => Value::Real(None),
                }
            }
            (Self::Int, value @ Value::Int(_))
            | (Self::Text, value @ Value::Text(_))
            | (Self::Bytes, value @ Value::Bytes(_))
            | (Self::Real, value @ Value::Real(_)) => value,
            _ => return None,
        })
    }
}

/// The columns of a table that hold what was put there, as PostgreSQL knows them.
async fn columns(tx: &mut Tx, table: &'static str) -> Result<Vec<Column>> {
    let sql = "SELECT column_name::text, data_type::text FROM information_schema.columns \
               WHERE table_schema = current_schema() AND table_name = ? \
               AND is_generated = 'NEVER' ORDER BY ordinal_position";
    let rows = tx.rows(Sql::new(sql).bind(table)).await?;
    let read = |mut row: Row| Ok((row.take()?, Kind::of(&row.take::<String>()?)?));
    rows.into_iter().map(read).collect()
}

fn names(columns: &[Column]) -> String {
    let quoted = |(name, _): &Column| format!("\"{}\"", name.replace('"', "\"\""));
    columns.iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Puts rows into a table, as many with one statement as may be.
async fn put(
    tx: &mut Tx,
    table: &'static str,
    columns: &[Column],
    rows: Vec<Vec<Value>>,
) -> Result<()> {
    let most = (VALUES / columns.len().max(1)).max(1);
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let mut sql = Sql::new("INSERT INTO ").and(table).and(" (");
        sql.push_owned(&names(columns)).push(") VALUES ");
        for (number, row) in rows.by_ref().take(most).enumerate() {
            if number > 0 {
                sql.push(", ");
            }
            sql.push_set(row);
        }
        tx.execute(sql).await?;
    }
    Ok(())
}

fn is_newest(found: i64) -> Result<()> {
    if found == SCHEMA {
        return Ok(());
    }
    Err(Error::Newer { found, known: SCHEMA })
}

/// Copies a PostgreSQL catalogue as it is at one moment to a new file of SQLite.
pub(crate) async fn copy_out(from: &Catalog, path: &Path) -> Result<()> {
    let local = |source| Error::Local { path: path.display().to_string(), source };
    // As SQLite's own copy: nothing is overwritten.
    if path.try_exists().map_err(local)? {
        return Err(local(std::io::ErrorKind::AlreadyExists.into()));
    }
    let copy = Catalog::open(&Address::Sqlite(path.to_owned())).await?;
    let copied = fill(from, &copy).await;
    // Writes the log back into the file.
    copy.close().await;
    copied
}

async fn fill(from: &Catalog, copy: &Catalog) -> Result<()> {
    let (mut from, mut to) = (from.begin().await?, copy.begin().await?);
    from.script("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY".into()).await?;
    is_newest(single(from.rows(Sql::new(migrate::LAST)).await?)?)?;
    // Rows of one table may refer to later ones.
    to.script("PRAGMA defer_foreign_keys = ON".into()).await?;
    for table in TABLES.iter().rev() {
        to.execute(Sql::new("DELETE FROM ").and(table)).await?;
    }
    for table in TABLES {
        let columns = columns(&mut from, table).await?;
        // By a name for each table: what a statement gives is remembered by its text.
        let mut cursor = Sql::new("DECLARE read_").and(table).and(" NO SCROLL CURSOR FOR SELECT ");
        cursor.push_owned(&names(&columns)).push(" FROM ").push(table);
        from.execute(cursor).await?;
        loop {
            let mut page = Sql::new("FETCH ");
            page.push_owned(&PAGE.to_string()).push(" FROM read_").push(table);
            let rows = from.rows(page).await?;
            if rows.is_empty() {
                break;
            }
            put(&mut to, table, &columns, rows.into_iter().map(Row::into_values).collect()).await?;
        }
        from.execute(Sql::new("CLOSE read_").and(table)).await?;
        // Numbers are not given twice, also those of rows that are gone.
        if let Some(Some(last)) = last_number(&mut from, table, &columns).await? {
            let was = Sql::new("DELETE FROM sqlite_sequence WHERE name = ?").bind(*table);
            to.execute(was).await?;
            let is = Sql::new("INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)");
            to.execute(is.bind(*table).bind(last)).await?;
        }
    }
    to.commit().await
}

/// The number that the database gave last to a row of it, if any; none where numbers are given otherwise.
async fn last_number(
    tx: &mut Tx,
    table: &'static str,
    columns: &[Column],
) -> Result<Option<Option<i64>>> {
    if columns.iter().all(|(name, _)| name != "id") {
        return Ok(None);
    }
    let sql = "SELECT pg_sequence_last_value(s) FROM \
               (SELECT pg_get_serial_sequence(?, 'id')::regclass AS s) AS its WHERE s IS NOT NULL";
    let rows = tx.rows(Sql::new(sql).bind(table)).await?;
    rows.into_iter().next().map(|mut row| row.take()).transpose()
}

/// Other processes that have this database open now: none is known to have a file of SQLite.
///
/// # Errors
/// Those of the database.
pub async fn others(catalog: &Catalog) -> Result<u64> {
    match catalog.engine() {
        Engine::Sqlite => Ok(0),
        Engine::Postgres => single(catalog.rows(Sql::new(OTHERS)).await?),
    }
}

/// Each process has a name of its own there.
const OTHERS: &str = "SELECT COUNT(DISTINCT application_name) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name LIKE 'strongroom %' \
    AND application_name <> current_setting('application_name')";

/// Puts the catalogue of a file of SQLite, whose schema is brought up to date before, in the place of
/// what is in a PostgreSQL database: all of it or nothing. Numbers that were given there are not given
/// again.
///
/// # Errors
/// [`Error::Busy`] while another process has it open; [`Error::Address`] when it is no PostgreSQL
/// database; [`Error::Damaged`] for a value that is none of its column's type; those of both databases.
pub async fn load(address: &Address, file: &Path) -> Result<()> {
    let to = Catalog::open(address).await?;
    let loaded = async {
        if to.engine() != Engine::Postgres {
            return Err(Error::Address("a file is put in place, not loaded".into()));
        }
        let from = Catalog::open_copy(file).await?;
        let loaded = async {
            migrate::run(&from, None).await?;
            replace(&from, &to).await
        };
        let loaded = loaded.await;
        from.close().await;
        loaded
    };
    let loaded = loaded.await;
    to.close().await;
    loaded
}

async fn replace(from: &Catalog, to: &Catalog) -> Result<()> {
    let mut tx = to.begin().await?;
    tx.rows(Sql::new("SELECT 1 FROM pg_advisory_xact_lock(?)").bind(migrate::LOCK)).await?;
    let others: u64 = single(tx.rows(Sql::new(OTHERS)).await?)?;
    if others > 0 {
        return Err(Error::Busy { others });
    }
    is_newest(single(tx.rows(Sql::new(migrate::LAST)).await?)?)?;
    let references = references(&mut tx).await?;
    for (table, name, _) in &references {
        tx.script(format!("ALTER TABLE {table} DROP CONSTRAINT {name}")).await?;
    }
    tx.script(format!("TRUNCATE {}", TABLES.join(", "))).await?;
    for table in TABLES {
        let columns = columns(&mut tx, table).await?;
        let mut after = i64::MIN;
        loop {
            let mut sql = Sql::new("SELECT rowid, ");
            sql.push_owned(&names(&columns)).push(" FROM ").push(table);
            sql.push(" WHERE rowid > ").value(after).push("? ORDER BY rowid LIMIT ?").value(PAGE);
            let mut rows = Vec::new();
            for mut row in from.rows(sql).await? {
                after = row.take()?;
                let values = row.into_values().into_iter().zip(&columns);
                let fit = |(value, (name, kind)): (Value, &Column)| {
                    kind.fit(value).ok_or_else(|| Error::Damaged {
                        what: format!("{name} of {table}"),
                        why: format!("it should be {kind:?}"),
                    })
                };
                rows.push(values.map(fit).collect::<Result<Vec<_>>>()?);
            }
            if rows.is_empty() {
                break;
            }
            put(&mut tx, table, &columns, rows).await?;
        }
        if let Some(given) = last_number(&mut tx, table, &columns).await? {
            let sql = "SELECT COALESCE(MAX(seq), 0) FROM sqlite_sequence WHERE name = ?";
            let last: i64 = single(from.rows(Sql::new(sql).bind(*table)).await?)?;
            // Never back: that would stay when this is not committed.
            if last > given.unwrap_or(0) {
                let sql = "SELECT setval(pg_get_serial_sequence(?, 'id')::regclass, ?)";
                tx.rows(Sql::new(sql).bind(*table).bind(last)).await?;
            }
        }
    }
    for (table, name, what) in &references {
        tx.script(format!("ALTER TABLE {table} ADD CONSTRAINT {name} {what}")).await?;
    }
    tx.commit().await
}

/// The references between the tables: whose, by what name, and what they say. The database has quoted
/// the names.
async fn references(tx: &mut Tx) -> Result<Vec<(String, String, String)>> {
    let sql = "SELECT c.conrelid::regclass::text, quote_ident(c.conname), pg_get_constraintdef(c.oid) \
               FROM pg_constraint AS c JOIN pg_class AS t ON t.oid = c.conrelid \
               WHERE c.contype = 'f' AND c.connamespace = current_schema()::regnamespace \
               ORDER BY c.oid";
    let all = tx.rows(Sql::new(sql)).await?.into_iter();
    let read = |mut row: Row| Ok((row.take()?, row.take()?, row.take()?));
    let mut all = all.map(read).collect::<Result<Vec<(String, _, _)>>>()?;
    all.retain(|(table, _, _)| TABLES.iter().any(|known| known == table));
    Ok(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Fresh;

    /// What each database keeps for itself.
    const OWN: [&str; 2] = ["counts", "schema_steps"];

    async fn told(catalog: &Catalog, sql: &'static str) -> BTreeSet<String> {
        let rows = catalog.rows(Sql::new(sql)).await.unwrap();
        rows.into_iter().map(|mut row| row.take::<String>().unwrap()).collect()
    }

    #[tokio::test]
    async fn every_table_is_carried_over_with_all_its_columns() {
        let known: BTreeSet<String> = TABLES.iter().chain(&OWN).map(|&t| t.to_owned()).collect();
        let (of_file, of_server) =
            (Fresh::new(Engine::Sqlite).await, Fresh::new(Engine::Postgres).await);
        let (file, server) = (of_file.open().await, of_server.open().await);
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' \
                      AND name NOT LIKE 'sqlite_%' AND name NOT LIKE '%!_trigrams%' ESCAPE '!'";
        assert_eq!(told(&file, tables).await, known);
        let tables = "SELECT table_name::text FROM information_schema.tables \
                      WHERE table_schema = current_schema() AND table_type = 'BASE TABLE'";
        assert_eq!(told(&server, tables).await, known);
        let columns = "SELECT s.name || '.' || c.name FROM sqlite_schema AS s \
                       JOIN pragma_table_info(s.name) AS c WHERE s.type = 'table' \
                       AND s.name NOT LIKE 'sqlite_%' AND s.name NOT LIKE '%!_trigrams%' ESCAPE '!'";
        let columns = told(&file, columns).await;
        let mut tx = server.begin().await.unwrap();
        for table in TABLES {
            let its = super::columns(&mut tx, table).await.unwrap();
            let of_file = columns.iter().filter_map(|name| name.strip_prefix(&format!("{table}.")));
            let its = its.iter().map(|(name, _)| name.as_str());
            assert_eq!(its.collect::<BTreeSet<_>>(), of_file.collect(), "{table}");
        }
        drop(tx);
        file.close().await;
        server.close().await;
        of_file.remove().await;
        of_server.remove().await;
    }

    /// All rows of all tables.
    async fn everything(catalog: &Catalog) -> Vec<String> {
        let mut all = Vec::new();
        for table in TABLES {
            let text = match catalog.engine() {
                // Columns stand in the order in which they were made, which is one for both.
                Engine::Sqlite => {
                    let sql = "SELECT group_concat(name, ', ') FROM pragma_table_info(?)";
                    single(catalog.rows(Sql::new(sql).bind(*table)).await.unwrap()).unwrap()
                }
                Engine::Postgres => {
                    names(&columns(&mut catalog.begin().await.unwrap(), table).await.unwrap())
                }
            };
            let mut sql = Sql::new("SELECT ");
            sql.push_owned(&text).push(" FROM ").push(table);
            for row in catalog.rows(sql).await.unwrap() {
                // What is null has no type in an answer.
                all.push(format!("{table}: {:?}", row.into_values()));
            }
        }
        all.sort();
        all
    }

    /// A catalogue with some of what is hard: one who is above comes later, nulls, bytes, numbers of
    /// rows that are gone.
    async fn filled(catalog: &Catalog) {
        for sql in [
            "INSERT INTO organisations (id, parent_id, name, created_at) VALUES (900, NULL, 'top', 1)",
            "INSERT INTO organisations (id, parent_id, name, created_at) VALUES (5, 900, 'bottom', 2)",
            "INSERT INTO users (organisation_id, name, folded, source, enabled, created_at, totp) \
             VALUES (5, 'Ada', 'ada', 'local', 1, 3, NULL)",
            "INSERT INTO leases (name, holder, until) VALUES ('chores', 'it', 9)",
        ] {
            catalog.execute(Sql::new(sql)).await.unwrap();
        }
        let mut tx = catalog.begin().await.unwrap();
        let user: i64 =
            single(tx.rows(Sql::new("SELECT MAX(id) FROM users")).await.unwrap()).unwrap();
        let code = Sql::new("INSERT INTO recovery_codes (user_id, hash) VALUES (?, ?)");
        tx.execute(code.bind(user).bind(vec![0u8, 255, 7])).await.unwrap();
        for number in 0..1203i64 {
            let sql = "INSERT INTO events (at, severity, kind, organisation_id, message, search) \
                       VALUES (?, 'info', 'k', 5, 'Größe', 'größe')";
            tx.execute(Sql::new(sql).bind(number)).await.unwrap();
        }
        tx.execute(Sql::new("DELETE FROM events WHERE at > 1201")).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn next_event(catalog: &Catalog) -> i64 {
        let sql = "INSERT INTO events (at, severity, kind, organisation_id, message, search) \
                   VALUES (1, 'info', 'k', 5, '', '') RETURNING id";
        let mut tx = catalog.begin().await.unwrap();
        let id = tx.insert(Sql::new(sql)).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    #[tokio::test]
    async fn it_is_the_same_as_a_file_and_in_another_database() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.db");
        let first = Fresh::new(Engine::Postgres).await;
        let catalog = first.open().await;
        filled(&catalog).await;
        catalog.copy_to(path.to_str().unwrap()).await.unwrap();
        let before = everything(&catalog).await;
        assert!(before.len() > 1200, "{}", before.len());
        // Nothing is beside the file, and it is not overwritten.
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(catalog.copy_to(path.to_str().unwrap()).await.is_err());

        let file = Catalog::open(&Address::Sqlite(path.clone())).await.unwrap();
        assert_eq!(everything(&file).await, before);
        let counted = "SELECT rows FROM counts WHERE name = 'events'";
        let counted: i64 = single(file.rows(Sql::new(counted)).await.unwrap()).unwrap();
        assert_eq!(counted, 1202);
        let found = "SELECT COUNT(*) FROM events_trigrams WHERE events_trigrams MATCH 'grö'";
        assert_eq!(single::<i64>(file.rows(Sql::new(found)).await.unwrap()).unwrap(), 1202);
        file.close().await;

        // In the place of something else.
        let second = Fresh::new(Engine::Postgres).await;
        let other = second.open().await;
        let sql = "INSERT INTO organisations (name, created_at) VALUES ('other', 1)";
        other.execute(Sql::new(sql)).await.unwrap();
        let was = everything(&other).await;
        // Not while another has it open.
        let error = load(second.address(), &path).await.unwrap_err();
        assert!(matches!(error, Error::Busy { others: 1 }), "{error}");
        assert_eq!(everything(&other).await, was);
        other.close().await;
        load(second.address(), &path).await.unwrap();
        let other = second.open().await;
        assert_eq!(everything(&other).await, before);
        assert_eq!(others(&other).await.unwrap(), 0);
        assert_eq!(next_event(&other).await, 1204, "no number is given twice");
        let refused = "INSERT INTO organisations (parent_id, name, created_at) VALUES (77, 'x', 1)";
        let refused = other.execute(Sql::new(refused)).await.unwrap_err();
        assert!(matches!(refused, Error::Referenced { .. }), "references hold again: {refused}");
        other.close().await;
        catalog.close().await;
        first.remove().await;
        second.remove().await;
    }

    #[tokio::test]
    async fn what_does_not_fit_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("copy.db");
        let fresh = Fresh::new(Engine::Postgres).await;
        let catalog = fresh.open().await;
        filled(&catalog).await;
        let mut before = everything(&catalog).await;
        catalog.copy_to(path.to_str().unwrap()).await.unwrap();
        catalog.close().await;
        for (wrong, says) in [
            ("UPDATE events SET at = 'noon' WHERE id = 1000", "at of events"),
            ("UPDATE events SET at = 1 WHERE id = 1000", ""),
            ("UPDATE users SET organisation_id = 4711", "organisation"),
        ] {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
            let options = options.foreign_keys(false);
            let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
            sqlx::query(wrong).execute(&pool).await.unwrap();
            pool.close().await;
            let loaded = load(fresh.address(), &path).await;
            let catalog = fresh.open().await;
            let is = everything(&catalog).await;
            match says {
                "" => {
                    loaded.unwrap();
                    assert_ne!(is, before);
                    before = is;
                }
                says => {
                    let error = loaded.unwrap_err().to_string();
                    assert!(error.contains(says), "{error}");
                    assert_eq!(is, before, "{says}");
                }
            }
            catalog.close().await;
        }
        fresh.remove().await;
    }
}
