//! From a [`List`] to SQL.

use super::{Filter, List, Operand, Operator};
use crate::db::{Catalog, Engine};
use crate::sql::Sql;
use crate::value::{Record, Value};
use crate::{Error, Result};

/// Counts above this are estimates where counting them would take long.
const EXACT: i64 = 50_000;
/// Keywords that fit more rows than this are looked for along the order asked for: a page is full
/// after a few rows then.
const DENSE: i64 = 2_000;

/// Whose rows there are for the one who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// Those of these organisations.
    Organisations(Vec<i64>),
}

/// How many items there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The number.
    pub count: u64,
    /// Whether it is exact. If not, there are at least so many.
    pub exact: bool,
}

/// Some of the items of a list.
#[derive(Clone, Debug)]
pub struct Page<R> {
    /// The items.
    pub items: Vec<R>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// How the rows with a keyword are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Row by row, in the order asked for.
    Along,
    /// By the table of trigrams, then sorted.
    Trigrams(&'static str),
}

impl List {
    /// The items.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn page<R: Record>(&self, catalog: &Catalog, scope: &Scope) -> Result<Page<R>> {
        let plan = self.plan(catalog).await?;
        let mut sql = Sql::default();
        sql.push("FROM ").push(self.resource.from);
        self.conditions(&mut sql, catalog.engine(), scope, plan);
        self.order(&mut sql, catalog.engine());
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        sql.push(" LIMIT ? OFFSET ?").value(limit.saturating_add(1)).value(offset);
        let mut items = catalog.find::<R>(sql).await?;
        let more = items.len() as u64 > self.limit;
        items.truncate(self.limit as usize);
        Ok(Page { items, more })
    }

    /// How many items there are, whatever the offset and limit.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count(&self, catalog: &Catalog, scope: &Scope) -> Result<Count> {
        let bare = self.filters.is_empty() && self.keywords.is_empty() && *scope == Scope::All;
        if let (Some(table), true) = (self.resource.counted, bare) {
            let sql = Sql::new("SELECT rows FROM counts WHERE name = ?").bind(table);
            if let Some(mut row) = catalog.rows(sql).await?.into_iter().next() {
                return Ok(Count { count: row.take()?, exact: true });
            }
        }
        let plan = self.plan(catalog).await?;
        let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
        sql.push(self.resource.from);
        self.conditions(&mut sql, catalog.engine(), scope, plan);
        sql.push(" LIMIT ?) AS found").value(EXACT + 1);
        let row = catalog.rows(sql).await?.into_iter().next();
        let count: i64 = row.ok_or(Error::NotFound { what: "count" })?.take()?;
        Ok(Count { count: count.min(EXACT).unsigned_abs(), exact: count <= EXACT })
    }

    /// Trigrams are for keywords that few rows have.
    async fn plan(&self, catalog: &Catalog) -> Result<Plan> {
        let search = match self.resource.search {
            Some(search) if !self.keywords.is_empty() => search,
            _ => return Ok(Plan::Along),
        };
        let (Some(table), Engine::Sqlite) = (search.trigrams, catalog.engine()) else {
            return Ok(Plan::Along);
        };
        if self.keywords.iter().any(|keyword| keyword.chars().count() < 3) {
            return Ok(Plan::Along);
        }
        let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
        sql.push(table).push(" WHERE ").push(table).push(" MATCH ?").value(self.trigrams());
        sql.push(" LIMIT ?) AS found").value(DENSE + 1);
        let row = catalog.rows(sql).await?.into_iter().next();
        let count: i64 = row.ok_or(Error::NotFound { what: "count" })?.take()?;
        Ok(if count > DENSE { Plan::Along } else { Plan::Trigrams(table) })
    }

    /// The keywords as FTS5 takes them: phrases, any of which may fit.
    fn trigrams(&self) -> String {
        let quoted = self.keywords.iter().map(|word| format!("\"{}\"", word.replace('"', "\"\"")));
        quoted.collect::<Vec<_>>().join(" OR ")
    }

    fn conditions(&self, sql: &mut Sql, engine: Engine, scope: &Scope, plan: Plan) {
        let mut and = " WHERE ";
        let mut next = |sql: &mut Sql| {
            sql.push(std::mem::replace(&mut and, " AND "));
        };
        if let (Scope::Organisations(ids), Some(column)) = (scope, self.resource.organisation) {
            next(sql);
            sql.push(column).push(" IN ").push_set(ids.iter().copied());
        }
        for (place, field) in self.resource.fields.iter().enumerate() {
            let of = |operator: Operator| {
                let fits = move |f: &&Filter| f.field == place && f.operator == operator;
                self.filters.iter().filter(fits).map(|filter| match &filter.value {
                    Operand::Int(value) => Value::from(*value),
                    Operand::Text(value) => Value::from(value),
                })
            };
            let unions = [(Operator::Equal, " IN "), (Operator::NotEqual, " NOT IN ")];
            for (operator, text) in unions {
                if of(operator).next().is_some() {
                    next(sql);
                    if operator == Operator::NotEqual {
                        // What isn't known is not equal to anything.
                        sql.push("(").push(field.column).push(" IS NULL OR ");
                    }
                    sql.push(field.column).push(text).push_set(of(operator));
                    if operator == Operator::NotEqual {
                        sql.push(")");
                    }
                }
            }
            for (operator, text) in [(Operator::AtLeast, " >= ?"), (Operator::AtMost, " <= ?")] {
                for value in of(operator) {
                    next(sql);
                    sql.push(field.column).push(text).value(value);
                }
            }
            for value in of(Operator::HasBits) {
                next(sql);
                sql.push("(").push(field.column).push(" & ?) <> 0").value(value);
            }
            for filter in &self.filters {
                if let (true, Operator::Contains, Operand::Text(text)) =
                    (filter.field == place, filter.operator, &filter.value)
                {
                    next(sql);
                    sql.push(field.column).push(like(engine)).value(pattern(text));
                }
            }
        }
        if let (Some(search), false) = (self.resource.search, self.keywords.is_empty()) {
            next(sql);
            match plan {
                Plan::Trigrams(table) => {
                    sql.push(self.resource.key).push(" IN (SELECT rowid FROM ").push(table);
                    sql.push(" WHERE ").push(table).push(" MATCH ?)").value(self.trigrams());
                }
                Plan::Along => {
                    sql.push("(");
                    for (i, word) in self.keywords.iter().enumerate() {
                        if i > 0 {
                            sql.push(" OR ");
                        }
                        // Both are in lower case already.
                        sql.push(search.column).push(" LIKE ? ESCAPE '\\'").value(pattern(word));
                    }
                    sql.push(")");
                }
            }
        }
    }

    fn order(&self, sql: &mut Sql, engine: Engine) {
        let resource = self.resource;
        let own = resource.fields.iter().position(|field| field.name == resource.order.0);
        let own = own.map(|place| (place, resource.order.1));
        let asked = self.sort.iter().copied().chain(own.filter(|_| self.sort.is_empty()));
        let mut columns: Vec<&'static str> = Vec::new();
        let mut last_down = false;
        sql.push(" ORDER BY ");
        for (place, down) in asked {
            let field = &resource.fields[place];
            if columns.contains(&field.column) {
                continue;
            }
            sql.push(field.column).push(if down { " DESC" } else { " ASC" });
            if field.nullable && engine == Engine::Postgres {
                // As SQLite has it.
                sql.push(if down { " NULLS LAST" } else { " NULLS FIRST" });
            }
            sql.push(", ");
            columns.push(field.column);
            last_down = down;
        }
        sql.push(resource.key).push(if last_down { " DESC" } else { " ASC" });
    }
}

/// Contains, in any case. SQLite folds the case of ASCII letters only.
fn like(engine: Engine) -> &'static str {
    match engine {
        Engine::Sqlite => " LIKE ? ESCAPE '\\'",
        Engine::Postgres => " ILIKE ? ESCAPE '\\'",
    }
}

fn pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('%');
    pattern
}
