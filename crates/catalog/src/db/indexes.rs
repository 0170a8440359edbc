//! Which indexes there are, as the database itself tells: lists are planned by them.

use std::collections::HashMap;

use super::{Catalog, Engine};
use crate::Result;
use crate::sql::Sql;

/// The columns of every index, by table.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    tables: HashMap<String, Vec<Vec<String>>>,
}

const SQLITE: &str = "SELECT s.tbl_name, s.rootpage, COALESCE(c.name, '') \
    FROM sqlite_schema AS s JOIN pragma_index_info(s.name) AS c \
    WHERE s.type = 'index' AND (s.sql IS NULL OR s.sql NOT LIKE '%) WHERE %') \
    ORDER BY s.rootpage, c.seqno";

const POSTGRES: &str = "SELECT t.relname::text, x.indexrelid::bigint, COALESCE(a.attname::text, '') \
    FROM pg_index AS x \
    JOIN pg_class AS t ON t.oid = x.indrelid \
    JOIN pg_namespace AS n ON n.oid = t.relnamespace AND n.nspname = current_schema() \
    JOIN pg_class AS i ON i.oid = x.indexrelid \
    JOIN pg_am AS m ON m.oid = i.relam AND m.amname = 'btree' \
    CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place) \
    LEFT JOIN pg_attribute AS a ON a.attrelid = t.oid AND a.attnum = k.number AND k.number > 0 \
    WHERE x.indpred IS NULL ORDER BY x.indexrelid, k.place";

impl Indexes {
    pub(super) async fn read(catalog: &Catalog) -> Result<Self> {
        let sql = match catalog.engine() {
            Engine::Sqlite => SQLITE,
            Engine::Postgres => POSTGRES,
        };
        let mut tables: HashMap<String, Vec<Vec<String>>> = HashMap::new();
        let mut last = None;
        for mut row in catalog.rows(Sql::new(sql)).await? {
            let table: String = row.take()?;
            let index: i64 = row.take()?;
            let indexes = tables.entry(table).or_default();
            if last.replace(index) != Some(index) {
                indexes.push(Vec::new());
            }
            if let Some(columns) = indexes.last_mut() {
                columns.push(row.take()?);
            }
        }
        Ok(Self { tables })
    }

    /// Whether rows can be found by this column, or read in its order.
    pub(crate) fn lead(&self, table: &str, column: &str) -> bool {
        self.of(table).any(|columns| columns.first().is_some_and(|first| first == column))
    }

    /// Whether those with one value of `column` can be read in the order of `then`.
    pub(crate) fn order(&self, table: &str, column: &str, then: &str) -> bool {
        self.of(table).any(|columns| matches!(&columns[..], [a, b, ..] if a == column && b == then))
    }

    fn of(&self, table: &str) -> impl Iterator<Item = &Vec<String>> {
        self.tables.get(table).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use crate::testing;

    #[tokio::test]
    async fn both_databases_have_the_same() {
        testing::each(|catalog| async move {
            let indexes = catalog.indexes();
            assert!(indexes.lead("images", "created_at"));
            assert!(indexes.lead("images", "pool_id"));
            assert!(!indexes.lead("images", "search"));
            assert!(!indexes.lead("images", "files"));
            assert!(!indexes.lead("nothing", "id"));
            assert!(indexes.order("images", "host", "created_at"));
            assert!(!indexes.order("images", "created_at", "host"));
            assert!(indexes.order("events", "severity", "at"));
            assert!(indexes.lead("users", "folded"), "what is unique has an index");
        })
        .await;
    }
}
