//! From a [`List`] to SQL.

use super::plan::{Asking, Plan, SHORT, Way};
use super::{Filter, List, Operand, Operator};
use crate::Result;
use crate::db::{Catalog, Engine};
use crate::sql::Sql;
use crate::value::{Record, Value, single};

/// The most rows that are counted one by one, in an index.
const EXACT: u64 = 20_000;
/// The most that are looked at, here and there in the table, to be counted.
const FEW: u64 = 2_000;
/// How many of the newest rows stand for all where nothing but looking at each would tell.
const SAMPLE: u64 = 5_000;

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
    /// Whether it is exact. If not, there are at least so many, or about so many.
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

impl List {
    /// The items.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn page<R: Record>(&self, catalog: &Catalog, scope: &Scope) -> Result<Page<R>> {
        let trigrams = self.trigrams(catalog).await?;
        let asking = Asking { catalog, scope, trigrams };
        let ways = self.sorted_ways(&asking);
        if !ways.others.is_empty() && ways.can_walk && self.may_be_short(&asking).await? {
            let plan = Plan::Walk(ways.served.clone());
            let page = self.run(&asking, &plan, true).await?;
            if page.more {
                return Ok(page);
            }
        }
        let plan = self.plan(&asking, ways).await?;
        self.run(&asking, &plan, false).await
    }

    /// Whether a short walk may fill the page.
    async fn may_be_short(&self, asking: &Asking<'_>) -> Result<bool> {
        let nullable = self.order_columns().first().is_none_or(|(.., nullable)| *nullable);
        if asking.engine() == Engine::Postgres || nullable || self.last() > SHORT / 10 {
            return Ok(false);
        }
        Ok(self.about(asking.catalog).await? > SHORT)
    }

    async fn run<R: Record>(
        &self,
        asking: &Asking<'_>,
        plan: &Plan,
        short: bool,
    ) -> Result<Page<R>> {
        let resource = self.resource;
        let mut sql = Sql::default();
        sql.push("FROM ").push(resource.from);
        let none = self.conditions(&mut sql, asking, plan);
        if let (true, Some((column, down, _))) = (short, self.order_columns().first()) {
            sql.push(if none { " WHERE " } else { " AND " }).push(column);
            sql.push(if *down { " >= (SELECT " } else { " <= (SELECT " }).push(column);
            sql.push(" FROM ").push(resource.from).push(" ORDER BY ").push(column);
            sql.push(if *down { " DESC" } else { " ASC" });
            sql.push(" LIMIT 1 OFFSET ?)").value(SHORT.cast_signed());
        }
        self.order(&mut sql, asking.engine(), plan);
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let offset = i64::try_from(self.offset).unwrap_or(i64::MAX);
        sql.push(" LIMIT ? OFFSET ?").value(limit.saturating_add(1)).value(offset);
        let mut items = asking.catalog.find::<R>(sql).await?;
        let more = items.len() as u64 > self.limit;
        items.truncate(self.limit as usize);
        Ok(Page { items, more })
    }

    /// How many items there are, whatever the offset and limit. It is exact where that takes no
    /// long time: when all are asked for, or there are not many, or not many to be looked at.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn count(&self, catalog: &Catalog, scope: &Scope) -> Result<Count> {
        let engine = catalog.engine();
        let bare = self.filters.is_empty() && self.keywords.is_empty() && *scope == Scope::All;
        let rows = if bare { self.rows(catalog).await? } else { self.about(catalog).await? };
        if bare && self.resource.counted.is_some() && (engine == Engine::Sqlite || rows > EXACT) {
            return Ok(Count { count: rows, exact: engine == Engine::Sqlite });
        }
        let trigrams = self.trigrams(catalog).await?;
        let asking = Asking { catalog, scope, trigrams };
        let ways = self.ways(&asking);
        // All that an index finds fits then, so that counting may stop anywhere.
        let alone = matches!(&ways[..], [Way::Scope | Way::Field(_)]) && self.parts(scope) == 1;
        let plan = if rows <= SAMPLE || alone {
            ways.first().map_or(Plan::Any, |way| Plan::Gather(*way))
        } else {
            match self.sparsest(&asking, ways, FEW).await? {
                Some((way, _)) => Plan::Gather(way),
                None if bare => Plan::Any,
                None => return self.estimate(&asking, rows).await,
            }
        };
        let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
        sql.push(self.resource.from);
        self.conditions(&mut sql, &asking, &plan);
        sql.push(" LIMIT ?) AS found").value(EXACT.cast_signed() + 1);
        let count: u64 = single(catalog.rows(sql).await?)?;
        Ok(Count { count: count.min(EXACT), exact: count <= EXACT })
    }

    /// From how many of the newest rows fit.
    async fn estimate(&self, asking: &Asking<'_>, rows: u64) -> Result<Count> {
        let resource = self.resource;
        let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT * FROM ");
        sql.push(resource.from).push(" ORDER BY ").push(resource.key).push(" DESC LIMIT ?)");
        sql.value(SAMPLE.cast_signed()).push(" AS newest");
        // None of the ways: all of those rows are read.
        self.conditions(&mut sql, asking, &Plan::Walk(Vec::new()));
        let fit: u64 = single(asking.catalog.rows(sql).await?)?;
        Ok(Count { count: fit.saturating_mul(rows.max(SAMPLE)) / SAMPLE, exact: false })
    }

    /// How many conditions there are.
    fn parts(&self, scope: &Scope) -> usize {
        let fields = (0..self.resource.fields.len())
            .filter(|place| self.filters.iter().any(|filter| filter.field == *place));
        let scoped = self.resource.organisation.is_some() && *scope != Scope::All;
        fields.count() + usize::from(scoped) + usize::from(!self.keywords.is_empty())
    }

    /// All conditions; whether there are none.
    fn conditions(&self, sql: &mut Sql, asking: &Asking<'_>, plan: &Plan) -> bool {
        let mut none = true;
        let mut next = |sql: &mut Sql| {
            sql.push(if std::mem::take(&mut none) { " WHERE " } else { " AND " });
        };
        let engine = asking.engine();
        let by = |way: Way| match engine {
            // To SQLite an expression is not the column that an index is on.
            Engine::Sqlite if !plan.uses(way) => "+",
            Engine::Sqlite | Engine::Postgres => "",
        };
        if self.resource.organisation.is_some() && *asking.scope != Scope::All {
            next(sql);
            self.condition(sql, asking, Way::Scope, by(Way::Scope));
        }
        for place in 0..self.resource.fields.len() {
            if self.filters.iter().any(|filter| filter.field == place) {
                next(sql);
                let way = Way::Field(place);
                self.condition(sql, asking, way, by(way));
            }
        }
        let Some(search) = self.resource.search.filter(|_| !self.keywords.is_empty()) else {
            return none;
        };
        if asking.may_find_words() && plan.uses(Way::Words) {
            next(sql);
            self.condition(sql, asking, Way::Words, "");
        }
        // Also of what trigrams found: what counts as the same letter is told in one way only.
        next(sql);
        sql.push("(");
        for (i, word) in self.keywords.iter().enumerate() {
            // Both are in lower case already.
            sql.push(if i > 0 { " OR " } else { "" });
            match (engine, &asking.trigrams) {
                // What is no column isn't looked for in PostgreSQL's index of trigrams.
                (Engine::Postgres, Some(_)) => sql.push("(").push(search.column).push(" || '')"),
                _ => sql.push(search.column),
            };
            sql.push(" LIKE ? ESCAPE '\\'").value(pattern(word));
        }
        sql.push(")");
        none
    }

    /// One condition; `plus` stands before its column.
    pub(super) fn condition(
        &self,
        sql: &mut Sql,
        asking: &Asking<'_>,
        way: Way,
        plus: &'static str,
    ) {
        match way {
            Way::Scope => {
                if let (Scope::Organisations(ids), Some(column)) =
                    (asking.scope, self.resource.organisation)
                {
                    sql.push(plus).push(column).push(" IN ").push_set(ids.iter().copied());
                }
            }
            Way::Field(place) => self.of_field(sql, asking.engine(), place, plus),
            Way::Words => self.of_words(sql, asking),
        }
    }

    /// The rarest trigrams of the keywords.
    fn of_words(&self, sql: &mut Sql, asking: &Asking<'_>) {
        let (Some(trigrams), Some(search)) = (&asking.trigrams, self.resource.search) else {
            return;
        };
        if asking.engine() == Engine::Sqlite {
            let table = trigrams.table;
            sql.push(self.resource.key).push(" IN (SELECT rowid FROM ").push(table);
            sql.push(" WHERE ").push(table).push(" MATCH ?)").value(trigrams.question());
            return;
        }
        for (i, word) in trigrams.words.iter().enumerate() {
            sql.push(if i == 0 { "((" } else { ") OR (" });
            for (i, trigram) in word.iter().enumerate() {
                sql.push(if i == 0 { "" } else { " AND " }).push(search.column);
                sql.push(" LIKE ? ESCAPE '\\'").value(pattern(trigram));
            }
        }
        sql.push("))");
    }

    /// The filters of one field.
    fn of_field(&self, sql: &mut Sql, engine: Engine, place: usize, plus: &'static str) {
        let column = self.resource.fields[place].column;
        let mut and = "";
        let mut next = |sql: &mut Sql| {
            sql.push(std::mem::replace(&mut and, " AND "));
        };
        let of = |operator: Operator| {
            let fits = move |f: &&Filter| f.field == place && f.operator == operator;
            self.filters.iter().filter(fits).map(|filter| match &filter.value {
                Operand::Int(value) => Value::from(*value),
                Operand::Text(value) => Value::from(value),
            })
        };
        if of(Operator::Equal).next().is_some() {
            next(sql);
            sql.push(plus).push(column).push(" IN ").push_set(of(Operator::Equal));
        }
        if of(Operator::NotEqual).next().is_some() {
            next(sql);
            // What isn't known is not equal to anything.
            sql.push("(").push(column).push(" IS NULL OR ");
            sql.push(column).push(" NOT IN ").push_set(of(Operator::NotEqual)).push(")");
        }
        for (operator, text) in [(Operator::AtLeast, " >= ?"), (Operator::AtMost, " <= ?")] {
            for value in of(operator) {
                next(sql);
                sql.push(plus).push(column).push(text).value(value);
            }
        }
        for value in of(Operator::HasBits) {
            next(sql);
            sql.push("(").push(column).push(" & ?) <> 0").value(value);
        }
        for filter in &self.filters {
            if let (true, Operator::Contains, Operand::Text(text)) =
                (filter.field == place, filter.operator, &filter.value)
            {
                next(sql);
                sql.push(column).push(like(engine)).value(pattern(text));
            }
        }
    }

    /// The columns by which it is sorted, whether downwards, and whether they may be null: those
    /// asked for, then the resource's own order the same way round (so that one index serves
    /// both ways), then the key.
    pub(super) fn order_columns(&self) -> Vec<(&'static str, bool, bool)> {
        let resource = self.resource;
        let own = resource.fields.iter().position(|field| field.name == resource.order.0);
        let down = self.sort.last().map_or(resource.order.1, |(_, down)| *down);
        let asked = self.sort.iter().copied().chain(own.map(|place| (place, down)));
        let mut columns: Vec<(&'static str, bool, bool)> = Vec::new();
        for (place, down) in asked {
            let field = &resource.fields[place];
            if columns.iter().all(|(column, ..)| *column != field.column) {
                columns.push((field.column, down, field.nullable));
            }
        }
        if columns.iter().all(|(column, ..)| *column != resource.key) {
            columns.push((resource.key, down, false));
        }
        columns
    }

    fn order(&self, sql: &mut Sql, engine: Engine, plan: &Plan) {
        let plus = match plan {
            Plan::Gather(_) if engine == Engine::Sqlite => "+",
            _ => "",
        };
        for (i, (column, down, nullable)) in self.order_columns().into_iter().enumerate() {
            sql.push(if i == 0 { " ORDER BY " } else { ", " }).push(plus).push(column);
            sql.push(if down { " DESC" } else { " ASC" });
            if nullable && engine == Engine::Postgres {
                // As SQLite has it.
                sql.push(if down { " NULLS LAST" } else { " NULLS FIRST" });
            }
            if column == self.resource.key {
                // No two rows are the same by then.
                break;
            }
        }
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
