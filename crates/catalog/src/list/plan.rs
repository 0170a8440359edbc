//! By which way the rows of a list are found.
//!
//! A page can be found in two ways: gather all rows that one filter or keyword leaves and sort
//! them, or walk along the order that was asked for and take what fits until the page is full. Of
//! `rows` rows, `matches` that fit and a page of `page`, the one touches `matches` rows, here and
//! there, and the other about `page * rows / matches`, side by side. SQLite knows neither number,
//! and would walk a million rows for a rare word, or sort a million for a common one. So a short
//! walk is tried; a page that is full by then is as it should be. If it isn't, the matches are
//! counted, up to where both ways are equally long. PostgreSQL plans by statistics of its own, but
//! knows little of words: it is told by a sample whether they are worth to be looked for.

use super::trigrams::Trigrams;
use super::{Filter, List, Operator, Scope};
use crate::Result;
use crate::db::{Catalog, Engine};
use crate::sql::Sql;
use crate::value::single;

/// The most rows that are ever gathered, and so the most that are counted beforehand.
const MOST: u64 = 20_000;
/// How much longer it takes to get at a row anywhere than at the next.
const JUMP: u64 = 12;
/// The rows of a short walk.
pub(super) const SHORT: u64 = 2000;

/// Who asks, where, and for which words.
#[derive(Debug)]
pub(super) struct Asking<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) scope: &'a Scope,
    pub(super) trigrams: Option<Trigrams>,
}

impl Asking<'_> {
    pub(super) fn engine(&self) -> Engine {
        self.catalog.engine()
    }

    /// Whether trigrams may find the words.
    pub(super) fn may_find_words(&self) -> bool {
        let common_there =
            |trigrams: &Trigrams| trigrams.common && self.engine() == Engine::Postgres;
        self.trigrams.as_ref().is_some_and(|trigrams| !common_there(trigrams))
    }
}

/// Something that leaves fewer rows, and by which they can be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The organisations of the one who asks.
    Scope,
    /// The filters of one field.
    Field(usize),
    /// The keywords, by the table of trigrams.
    Words,
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

/// What a plan is made of.
#[derive(Debug)]
pub(super) struct Ways {
    /// Those that give rows in the order asked for.
    pub(super) served: Vec<Way>,
    /// All others.
    pub(super) others: Vec<Way>,
    /// Whether there is an index to walk along.
    pub(super) can_walk: bool,
}

impl List {
    /// The ways that there are to a page.
    pub(super) fn sorted_ways(&self, asking: &Asking<'_>) -> Ways {
        let Some((order, ..)) = self.order_columns().first().copied() else {
            return Ways { served: Vec::new(), others: Vec::new(), can_walk: false };
        };
        let in_order = |way: &Way| self.in_order(asking, *way, order);
        let (served, others) = self.ways(asking).into_iter().partition(in_order);
        let table = self.resource.from;
        let can_walk = order == self.resource.key || asking.catalog.indexes().lead(table, order);
        Ways { served, others, can_walk }
    }

    /// How a page is found.
    pub(super) async fn plan(&self, asking: &Asking<'_>, ways: Ways) -> Result<Plan> {
        let Ways { served, others, can_walk } = ways;
        if asking.engine() == Engine::Postgres {
            return Ok(Plan::Any);
        }
        if others.is_empty() {
            return Ok(if served.is_empty() { Plan::Any } else { Plan::Walk(served) });
        }
        let rows = self.about(asking.catalog).await?;
        // Without an index to walk along, the fewest are always the best.
        let most = match can_walk {
            true => (self.last().saturating_mul(rows) / JUMP).isqrt().clamp(1, MOST),
            false => MOST,
        };
        match self.sparsest(asking, others, most).await? {
            Some((way, _)) => Ok(Plan::Gather(way)),
            None if can_walk => Ok(Plan::Walk(served)),
            None => Ok(Plan::Any),
        }
    }

    /// Where the page ends, with the one behind it by which it is known whether there are more.
    pub(super) fn last(&self) -> u64 {
        self.offset.saturating_add(self.limit).saturating_add(1)
    }

    /// What leaves the fewest rows, and how many, if there are no more than `most`.
    pub(super) async fn sparsest(
        &self,
        asking: &Asking<'_>,
        ways: Vec<Way>,
        most: u64,
    ) -> Result<Option<(Way, u64)>> {
        let mut best = None;
        let mut most = most;
        for way in ways {
            let mut sql = Sql::new("SELECT COUNT(*) FROM (SELECT 1 FROM ");
            match (way, &asking.trigrams, asking.engine()) {
                (Way::Words, Some(trigrams), Engine::Sqlite) => {
                    sql.push(trigrams.table).push(" WHERE ").push(trigrams.table);
                    sql.push(" MATCH ?").value(trigrams.question());
                }
                _ => {
                    sql.push(self.resource.from).push(" WHERE ");
                    self.condition(&mut sql, asking, way, "");
                }
            }
            sql.push(" LIMIT ?) AS found").value(most.saturating_add(1).cast_signed());
            let matches: u64 = single(asking.catalog.rows(sql).await?)?;
            if matches <= most {
                best = Some((way, matches));
                most = matches.saturating_sub(1);
            }
        }
        Ok(best)
    }

    /// All by which rows can be found.
    pub(super) fn ways(&self, asking: &Asking<'_>) -> Vec<Way> {
        let table = self.resource.from;
        let indexes = asking.catalog.indexes();
        let leads = |column: &str| column == self.resource.key || indexes.lead(table, column);
        let mut ways = Vec::new();
        if let (Scope::Organisations(_), Some(column)) = (asking.scope, self.resource.organisation)
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
        if asking.may_find_words() {
            ways.push(Way::Words);
        }
        ways
    }

    /// Whether what this way finds comes in the order of that column.
    fn in_order(&self, asking: &Asking<'_>, way: Way, column: &str) -> bool {
        // Of several values SQLite takes the rows of each up to where the page must be full.
        let (by, equal) = match (way, asking.scope) {
            (Way::Scope, Scope::Organisations(_)) => (self.resource.organisation, true),
            (Way::Field(place), _) => {
                let filters = self.filters.iter().filter(|filter| filter.field == place);
                let equal = filters.clone().all(|filter| filter.operator == Operator::Equal);
                (Some(self.resource.fields[place].column), equal)
            }
            (Way::Scope | Way::Words, _) => (None, false),
        };
        let Some(by) = by else { return false };
        let indexes = asking.catalog.indexes();
        by == column || (equal && indexes.order(self.resource.from, by, column))
    }

    /// About how many rows the table has.
    pub(super) async fn about(&self, catalog: &Catalog) -> Result<u64> {
        let Some(table) = self.resource.counted else { return Ok(0) };
        match catalog.sizes().rows(table) {
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
        catalog.sizes().set_rows(table, rows);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::resources::EVENTS;
    use crate::testing::Fresh;

    #[tokio::test]
    async fn few_are_gathered_and_many_walked_by() {
        let fresh = Fresh::new(Engine::Sqlite).await;
        let catalog = fresh.open().await;
        let mut tx = catalog.begin().await.unwrap();
        for number in 0..3000i64 {
            let sql = "INSERT INTO events (at, severity, kind, organisation_id, job_id, message, \
                       search) VALUES (?, ?, 'k', ?, ?, '', ?)";
            let severity = if number % 3 == 0 { "error" } else { "info" };
            let word = if number % 500 == 0 { "seldom" } else { "common" };
            let sql = Sql::new(sql).bind(number).bind(severity).bind(number % 2).bind(number);
            tx.execute(sql.bind(word)).await.unwrap();
        }
        tx.commit().await.unwrap();
        let field = |name: &str| {
            Way::Field(EVENTS.fields.iter().position(|field| field.name == name).unwrap())
        };
        let word = Way::Words;
        let errors = ("filter", "severity:==error");
        let infos = ("filter", "severity:==info");
        let one = Scope::Organisations(vec![1]);
        let cases = [
            (vec![], Scope::All, Plan::Any),
            (vec![errors], Scope::All, Plan::Walk(vec![field("severity")])),
            (vec![errors, infos], Scope::All, Plan::Walk(vec![field("severity")])),
            (vec![errors, infos, ("sort", "kind")], Scope::All, Plan::Walk(vec![])),
            (vec![], one.clone(), Plan::Walk(vec![Way::Scope])),
            (vec![("keyword", "seldom")], Scope::All, Plan::Gather(word)),
            (vec![("keyword", "common")], Scope::All, Plan::Walk(vec![])),
            (vec![("keyword", "se")], Scope::All, Plan::Any),
            (
                vec![("keyword", "common"), errors],
                one,
                Plan::Walk(vec![Way::Scope, field("severity")]),
            ),
            (vec![("keyword", "seldom"), errors], Scope::All, Plan::Gather(word)),
            // Its index is in the order of time.
            (
                vec![("filter", "job_id:==7"), ("sort", "object")],
                Scope::All,
                Plan::Gather(field("job_id")),
            ),
        ];
        for (query, scope, expected) in cases {
            let limit = ("limit", "20");
            let list = List::parse(&EVENTS, query.iter().copied().chain([limit])).unwrap();
            let trigrams = list.trigrams(&catalog).await.unwrap();
            let asking = Asking { catalog: &catalog, scope: &scope, trigrams };
            let plan = list.plan(&asking, list.sorted_ways(&asking)).await.unwrap();
            assert_eq!(plan, expected, "{query:?}");
        }
        fresh.remove().await;
    }
}
