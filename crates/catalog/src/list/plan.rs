//! By which way the rows of a list are found.
//!
//! A page can be found in two ways: gather all rows that one filter or keyword leaves and sort
//! them, or walk along the order that was asked for and take what fits until the page is full. Of
//! `rows` rows, `matches` that fit and a page of `page`, the one touches `matches` rows and the
//! other about `page * rows / matches`. SQLite knows neither number, and would walk a million rows
//! for a rare word, or sort a million for a common one. So the matches are counted, up to where
//! both ways are equally long; that takes less time than either. PostgreSQL plans by statistics
//! of its own.

use super::{Filter, List, Operator, Scope};
use crate::Result;
use crate::db::{Catalog, Engine};
use crate::sql::Sql;
use crate::value::single;

/// The most rows that are ever gathered, and so the most that are counted beforehand.
const MOST: u64 = 20_000;

/// Something that leaves fewer rows, and by which they can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The organisations of the one who asks.
    Scope,
    /// The filters of one field.
    Field(usize),
    /// The keywords, by the table of trigrams.
    Trigrams(&'static str),
}

/// How a statement is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// As the database likes.
    Any,
    /// Gather what this leaves.
    Gather(Way),
    /// Walk along the order; by these ways only, whose indexes are in that order as well.
    Walk(Vec<Way>),
}

impl Plan {
    /// Whether an index may be used for this.
    pub(super) fn uses(&self, way: Way) -> bool {
        match self {
            Self::Any => true,
            Self::Gather(one) => *one == way,
            Self::Walk(ways) => ways.contains(&way),
        }
    }
}

impl List {
    /// How a page is found.
    pub(super) async fn plan(&self, catalog: &Catalog, scope: &Scope) -> Result<Plan> {
        if catalog.engine() == Engine::Postgres {
            return Ok(Plan::Any);
        }
        let ways = self.ways(catalog, scope);
        let [order, ..] = &self.order_columns()[..] else { return Ok(Plan::Any) };
        let in_order = |way: &Way| self.in_order(catalog, scope, *way, order.0);
        let (served, others): (Vec<Way>, Vec<Way>) = ways.into_iter().partition(in_order);
        if others.is_empty() && self.trigrams_table().is_none() {
            return Ok(if served.is_empty() { Plan::Any } else { Plan::Walk(served) });
        }
        let rows = self.about(catalog).await?;
        let can_walk =
            order.0 == self.resource.key || catalog.indexes().lead(self.resource.from, order.0);
        let page = self.offset.saturating_add(self.limit).saturating_add(1);
        // Without an index to walk along, the fewest are always the best.
        let most = if can_walk { page.saturating_mul(rows).isqrt().clamp(1, MOST) } else { MOST };
        match self.sparsest(catalog, scope, others, most).await? {
            Some((way, _)) => Ok(Plan::Gather(way)),
            None if can_walk => Ok(Plan::Walk(served)),
            None => Ok(Plan::Any),
        }
    }

    /// What leaves the fewest rows, and how many, if there are no more than `most`.
    pub(super) async fn sparsest(
        &self,
        catalog: &Catalog,
        scope: &Scope,
        ways: Vec<Way>,
        most: u64,
    ) -> Result<Option<(Way, u64)>> {
        let mut best = None;
        let mut most = most;
        for way in ways {
            let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
            match way {
                Way::Trigrams(table) => {
                    sql.push(table).push(" WHERE ").push(table).push(" MATCH ?");
                    sql.value(self.trigrams());
                }
                Way::Scope | Way::Field(_) => {
                    sql.push(self.resource.from).push(" WHERE ");
                    self.condition(&mut sql, catalog.engine(), scope, way, "");
                }
            }
            sql.push(" LIMIT ?) AS found").value(most.saturating_add(1).cast_signed());
            let matches: u64 = single(catalog.rows(sql).await?)?;
            if matches <= most {
                best = Some((way, matches));
                most = matches.saturating_sub(1);
            }
        }
        Ok(best)
    }

    /// All by which rows can be found.
    pub(super) fn ways(&self, catalog: &Catalog, scope: &Scope) -> Vec<Way> {
        let table = self.resource.from;
        let leads =
            |column: &str| column == self.resource.key || catalog.indexes().lead(table, column);
        let mut ways = Vec::new();
        if let (Scope::Organisations(_), Some(column)) = (scope, self.resource.organisation)
            && leads(column)
        {
            ways.push(Way::Scope);
        }
        for (place, field) in self.resource.fields.iter().enumerate() {
            let finds = |filter: &Filter| {
                let operator = filter.operator;
                filter.field == place
                    && matches!(operator, Operator::Equal | Operator::AtLeast | Operator::AtMost)
            };
            if self.filters.iter().any(finds) && leads(field.column) {
                ways.push(Way::Field(place));
            }
        }
        if let (Some(table), Engine::Sqlite) = (self.trigrams_table(), catalog.engine()) {
            ways.push(Way::Trigrams(table));
        }
        ways
    }

    /// The table of trigrams, if there is one and these keywords have any.
    pub(super) fn trigrams_table(&self) -> Option<&'static str> {
        let table = self.resource.search?.trigrams?;
        let long = |keyword: &String| keyword.chars().count() >= 3;
        (!self.keywords.is_empty() && self.keywords.iter().all(long)).then_some(table)
    }

    /// The keywords as FTS5 takes them: phrases, any of which may fit.
    pub(super) fn trigrams(&self) -> String {
        let quoted = self.keywords.iter().map(|word| format!("\"{}\"", word.replace('"', "\"\"")));
        quoted.collect::<Vec<_>>().join(" OR ")
    }

    /// Whether what this way finds comes in the order of that column.
    fn in_order(&self, catalog: &Catalog, scope: &Scope, way: Way, column: &str) -> bool {
        let (by, single) = match (way, scope) {
            (Way::Scope, Scope::Organisations(ids)) => (self.resource.organisation, ids.len() == 1),
            (Way::Field(place), _) => {
                let filters = self.filters.iter().filter(|filter| filter.field == place);
                let single = filters.clone().count() == 1
                    && filters.clone().all(|filter| filter.operator == Operator::Equal);
                (Some(self.resource.fields[place].column), single)
            }
            (Way::Scope | Way::Trigrams(_), _) => (None, false),
        };
        let Some(by) = by else { return false };
        by == column || (single && catalog.indexes().order(self.resource.from, by, column))
    }

    /// About how many rows the table has.
    pub(super) async fn about(&self, catalog: &Catalog) -> Result<u64> {
        let Some(table) = self.resource.counted else { return Ok(0) };
        match catalog.sizes().get(table) {
            Some(rows) => Ok(rows),
            None => self.rows(catalog).await,
        }
    }

    /// How many rows the table has: exactly on SQLite, at the last analysis on PostgreSQL.
    pub(super) async fn rows(&self, catalog: &Catalog) -> Result<u64> {
        let Some(table) = self.resource.counted else { return Ok(0) };
        let sql = match catalog.engine() {
            Engine::Sqlite => "SELECT rows FROM counts WHERE name = ?",
            Engine::Postgres => {
                "SELECT GREATEST(reltuples, 0)::bigint FROM pg_class WHERE oid = to_regclass(?)"
            }
        };
        let rows = single(catalog.rows(Sql::new(sql).bind(table)).await?)?;
        catalog.sizes().set(table, rows);
        Ok(rows)
    }
}
