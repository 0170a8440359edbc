//! What every list has beside its items: HEAD counts, OPTIONS tells its fields.

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use strongroom_catalog::list::{Count, DEFAULT_LIMIT, List, MAX_LIMIT, Resource};
use strongroom_identity::Principal;
use utoipa::ToSchema;

use super::answer::{Answer, Empty, Json};
use crate::problem::{Code, Problem, Result};

/// How many items there are.
pub(super) const COUNT: HeaderName = HeaderName::from_static("x-total-count");
/// Whether that is exact.
pub(super) const EXACT: HeaderName = HeaderName::from_static("x-total-exact");

/// How a list may be asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListMetadata {
    /// The name of one item.
    resource: &'static str,
    /// The fields.
    fields: Vec<FieldMetadata>,
    /// The order when none is asked for.
    order: String,
    /// Whether there is `keyword`.
    keyword: bool,
    /// How many items there are when no limit is given.
    default_limit: u64,
    /// The highest limit.
    max_limit: u64,
}

/// A field of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct FieldMetadata {
    /// Its name.
    name: &'static str,
    /// What it holds.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What it means.
    description: &'static str,
    /// The operators that filters may use with it; none: it can't be filtered by.
    operators: Vec<&'static str>,
    /// The values that it may have, if it doesn't take any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<&'static str>,
    /// Whether lists can be sorted by it.
    sortable: bool,
    /// Whether keywords are looked for in it.
    searched: bool,
    /// Whether an item may lack it.
    nullable: bool,
}

/// The answer to OPTIONS.
pub(super) fn metadata(resource: &'static Resource) -> Response {
    let field = |field: &strongroom_catalog::list::Field| FieldMetadata {
        name: field.name,
        kind: field.kind.name(),
        description: field.doc,
        operators: match field.filterable {
            true => field.kind.operators().iter().map(|operator| operator.text()).collect(),
            false => Vec::new(),
        },
        values: field.kind.values(),
        sortable: field.sortable,
        searched: field.searched,
        nullable: field.nullable,
    };
    let (name, down) = resource.order;
    let view = ListMetadata {
        resource: resource.name,
        fields: resource.fields.iter().map(field).collect(),
        order: format!("{name}:{}", if down { "desc" } else { "asc" }),
        keyword: resource.search.is_some(),
        default_limit: DEFAULT_LIMIT,
        max_limit: MAX_LIMIT,
    };
    Json(view).respond()
}

/// The list that a caller gets who asks for it so: keys that are for some pools see no others. None:
/// nothing at all.
pub(crate) fn narrowed(
    resource: &'static Resource,
    pairs: &[(String, String)],
    principal: &Principal,
) -> Result<Option<List>> {
    // Pools themselves are told apart by their number.
    let field = if resource.name == "pool" { "id" } else { "pool_id" };
    let (Some(pools), Some(_)) = (principal.pools(), resource.field(field)) else {
        return super::part::list(resource, pairs).map(Some);
    };
    let by_pool = |(name, value): &(String, String)| {
        let of = value.split(':').next().unwrap_or_default().trim();
        name == "filter" && of.eq_ignore_ascii_case(field)
    };
    let mut pairs = pairs.to_vec();
    if pairs.iter().any(by_pool) {
        let text = format!("this key is for some pools only: leave out the filter by `{field}`");
        return Err(Problem::new(Code::Forbidden, text));
    }
    if pools.is_empty() {
        return Ok(None);
    }
    pairs.extend(pools.iter().map(|pool| ("filter".to_owned(), format!("{field}:=={pool}"))));
    super::part::list(resource, &pairs).map(Some)
}

/// The answer to HEAD.
pub(super) fn count(count: Count) -> Response {
    let mut response = Empty.respond();
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(COUNT, HeaderValue::from(count.count));
    headers.insert(EXACT, HeaderValue::from_static(if count.exact { "true" } else { "false" }));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn every_resource_of_pools_can_be_narrowed_to_some() {
        use strongroom_catalog::resources::{IMAGES, JOBS, POOLS};
        assert_eq!(POOLS.name, "pool");
        assert!(POOLS.field("id").is_some());
        assert!(IMAGES.field("pool_id").is_some() && JOBS.field("pool_id").is_some());
    }

    #[test]
    fn metadata_tells_what_the_list_takes() {
        let response = metadata(&strongroom_catalog::resources::JOBS);
        assert_eq!(response.status(), StatusCode::OK);
    }
}
