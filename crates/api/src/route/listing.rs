//! What every list has beside its items: HEAD counts, OPTIONS tells its fields.

use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use strongroom_catalog::list::{Count, DEFAULT_LIMIT, MAX_LIMIT, Resource};
use utoipa::ToSchema;

use super::answer::{Answer, Empty, Json};

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

/// The answer to HEAD.
pub(super) fn count(count: Count) -> Response {
    let mut response = Empty.respond();
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    headers.insert(COUNT, HeaderValue::from(count.count));
    headers.insert(EXACT, HeaderValue::from_static(if count.exact { "true" } else { "false" }));
    response
}
