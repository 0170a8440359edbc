//! PostgreSQL.

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgArguments, PgConnectOptions, PgPool, PgPoolOptions, PgRow, PgValueRef};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Decode, Row as _, Transaction, TypeInfo, ValueRef};

use crate::sql::Sql;
use crate::value::{Row, Value};
use crate::{Error, Result};

/// Connections of one node at most.
const CONNECTIONS: u32 = 16;
/// How long one waits for a connection.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) async fn open(url: &str) -> Result<Self> {
        // The error of the parser may show the password.
        let options = PgConnectOptions::from_str(url).map_err(|_| {
            Error::Address(
                "the database's address is not postgres://USER:PASSWORD@HOST/DATABASE".into(),
            )
        })?;
        // Each process by a name of its own, so that others can be told from it.
        let now = jiff::Timestamp::now().as_nanosecond();
        let name = format!("strongroom {} {now:x}", std::process::id());
        let options = options.application_name(&name);
        let pool = PgPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(WAIT);
        Ok(Self { pool: pool.connect_with(options).await? })
    }

    pub(super) async fn rows(&self, sql: Sql) -> Result<Vec<Row>> {
        let (text, values) = sql.for_postgres()?;
        let rows = bound(text, values).fetch_all(&self.pool).await?;
        rows.iter().map(decode).collect()
    }

    pub(super) async fn begin(&self) -> Result<Transaction<'static, sqlx::Postgres>> {
        Ok(self.pool.begin().await?)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

pub(super) async fn execute(tx: &mut Transaction<'_, sqlx::Postgres>, sql: Sql) -> Result<u64> {
    let (text, values) = sql.for_postgres()?;
    Ok(bound(text, values).execute(&mut **tx).await?.rows_affected())
}

pub(super) async fn rows(tx: &mut Transaction<'_, sqlx::Postgres>, sql: Sql) -> Result<Vec<Row>> {
    let (text, values) = sql.for_postgres()?;
    let rows = bound(text, values).fetch_all(&mut **tx).await?;
    rows.iter().map(decode).collect()
}

pub(super) async fn script(tx: &mut Transaction<'_, sqlx::Postgres>, text: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut **tx).await?;
    Ok(())
}

/// The text is this program's own, see [`Sql`].
fn bound(text: String, values: Vec<Value>) -> Query<'static, sqlx::Postgres, PgArguments> {
    let mut query = sqlx::query(AssertSqlSafe(text));
    for value in values {
        query = match value {
            Value::Int(v) => query.bind(v),
            Value::Text(v) => query.bind(v),
            Value::Bytes(v) => query.bind(v),
            Value::Real(v) => query.bind(v),
        };
    }
    query
}

fn decode(row: &PgRow) -> Result<Row> {
    let values = (0..row.len()).map(|i| {
        let raw = row.try_get_raw(i)?;
        if raw.is_null() {
            return Ok(Value::Int(None));
        }
        let kind = raw.type_info();
        match kind.name() {
            "INT8" => read::<i64>(raw),
            "TEXT" | "VARCHAR" | "NAME" => read::<String>(raw),
            "BYTEA" => read::<Vec<u8>>(raw),
            "FLOAT8" => read::<f64>(raw),
            "INT4" => read::<i32>(raw),
            "BOOL" => read::<bool>(raw),
            other => Err(sqlx::Error::Decode(
                format!("{other} is no type of the catalogue: cast it").into(),
            )),
        }
    });
    Ok(Row::new(values.collect::<Result<_, sqlx::Error>>()?))
}

fn read<'r, T>(raw: PgValueRef<'r>) -> Result<Value, sqlx::Error>
where
    T: Decode<'r, sqlx::Postgres>,
    Value: From<T>,
{
    T::decode(raw).map(Value::from).map_err(sqlx::Error::Decode)
}
