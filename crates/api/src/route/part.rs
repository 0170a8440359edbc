//! The parts of a request, each a typed argument of a handler: where it comes from, how it is
//! documented and how it is read are one thing.

use std::borrow::Cow;

use axum::body::Bytes;
use axum::extract::FromRequestParts;
use http::header;
use http::request::Parts;
use serde::de::DeserializeOwned;
use strongroom_catalog::list::{List, Resource};
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{RefOr, Required, Schema};
use utoipa::{IntoParams, ToSchema};

use super::objects;
use super::shape::{Media, Shape};
use crate::problem::{Code, Problem, Result};

/// A request whose body has arrived.
#[derive(Debug)]
pub struct Received {
    /// All but the body.
    pub parts: Parts,
    /// The body; empty where the route takes none.
    pub body: Bytes,
}

/// A part of a request.
pub trait Part: Sized + Send + 'static {
    /// Says what it takes.
    fn describe(shape: &mut Shape);
    /// Reads it.
    fn take(request: &mut Received) -> impl Future<Output = Result<Self>> + Send;
}

/// The values in the path.
#[derive(Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + IntoParams + Send + 'static> Part for Path<T> {
    fn describe(shape: &mut Shape) {
        shape.parameters.extend(T::into_params(|| Some(ParameterIn::Path)));
    }

    async fn take(request: &mut Received) -> Result<Self> {
        let path = axum::extract::Path::<T>::from_request_parts(&mut request.parts, &()).await;
        // A path that can't be one of ours leads nowhere.
        let missing = |_| Problem::new(Code::NotFound, "there is nothing at this path");
        path.map(|path| Self(path.0)).map_err(missing)
    }
}

/// The values in the query.
#[derive(Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + IntoParams + Send + 'static> Part for Query<T> {
    fn describe(shape: &mut Shape) {
        shape.parameters.extend(T::into_params(|| Some(ParameterIn::Query)));
    }

    async fn take(request: &mut Received) -> Result<Self> {
        let query = axum::extract::Query::<T>::try_from_uri(&request.parts.uri);
        let wrong = |rejection: axum::extract::rejection::QueryRejection| {
            Problem::new(Code::BadRequest, rejection.body_text())
        };
        query.map(|query| Self(query.0)).map_err(wrong)
    }
}

/// The body, JSON.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned + ToSchema + Send + 'static> Part for Body<T> {
    fn describe(shape: &mut Shape) {
        let schema = shape.schema::<T>();
        shape.body = Some(Media { kind: "application/json", schema });
    }

    async fn take(request: &mut Received) -> Result<Self> {
        if !is_json(&request.parts) {
            let text = "the body must be JSON: send it with Content-Type: application/json";
            return Err(Problem::new(Code::MediaType, text));
        }
        objects::from_slice(&request.body).map(Self).map_err(|error| {
            use serde_json::error::Category;
            // What was sent may be a secret, and serde quotes it: only its place is told then.
            let code = match error.classify() {
                Category::Data => Code::Invalid,
                _ => Code::BadRequest,
            };
            let place = format!("line {}, column {}", error.line(), error.column());
            Problem::new(code, format!("the body, {place}: {}", without_values(&error)))
        })
    }
}

/// The body, bytes.
#[derive(Debug)]
pub struct Octets(pub Bytes);

const OCTETS: &str = "application/octet-stream";

impl Part for Octets {
    fn describe(shape: &mut Shape) {
        let schema = ObjectBuilder::new().schema_type(Type::String);
        let schema = schema.format(Some(SchemaFormat::Custom("binary".to_owned())));
        let schema = RefOr::T(Schema::Object(schema.build()));
        shape.body = Some(Media { kind: OCTETS, schema });
    }

    async fn take(request: &mut Received) -> Result<Self> {
        if !kind(&request.parts).eq_ignore_ascii_case(OCTETS) {
            let text = format!("the body must be bytes: send it with Content-Type: {OCTETS}");
            return Err(Problem::new(Code::MediaType, text));
        }
        Ok(Self(std::mem::take(&mut request.body)))
    }
}

/// What serde says, without the values that it quotes.
fn without_values(error: &serde_json::Error) -> Cow<'static, str> {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
    match text.strip_prefix("invalid type: ").or(text.strip_prefix("invalid value: ")) {
        Some(rest) => match rest.rsplit_once(", expected ") {
            Some((_, expected)) => format!("expected {expected}").into(),
            None => "a value is of another kind than expected".into(),
        },
        None => text.to_owned().into(),
    }
}

/// The media type of the body, without parameters.
fn kind(parts: &Parts) -> &str {
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim()
}

fn is_json(parts: &Parts) -> bool {
    let kind = kind(parts);
    kind.eq_ignore_ascii_case("application/json")
        || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// Which version of the thing is to be changed: `If-Match`. None: whichever there is.
#[derive(Clone, Copy, Debug)]
pub struct IfMatch(pub Option<i64>);

impl Part for IfMatch {
    fn describe(shape: &mut Shape) {
        shape.if_match = true;
        shape.parameters.push(
            ParameterBuilder::new()
                .name("If-Match")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "The `ETag` of what was read: refuses when it was changed since.",
                ))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build(),
        );
    }

    async fn take(request: &mut Received) -> Result<Self> {
        let Some(value) = request.parts.headers.get(header::IF_MATCH) else {
            return Ok(Self(None));
        };
        let text = value.to_str().unwrap_or_default().trim();
        if text == "*" {
            return Ok(Self(None));
        }
        let version = text.strip_prefix("\"v").and_then(|text| text.strip_suffix('"'));
        match version.and_then(|version| version.parse().ok()) {
            Some(version) => Ok(Self(Some(version))),
            // No version of ours has such a name.
            None => {
                let text = "If-Match holds no ETag of this resource: read it again";
                Err(Problem::new(Code::Changed, text))
            }
        }
    }
}

/// A resource that can be listed.
pub trait Listed: Send + Sync + 'static {
    /// Its fields.
    const RESOURCE: &'static Resource;
}

/// Which items of a list are wanted; the list language of the catalogue.
#[derive(Debug)]
pub struct Listing<L> {
    /// The decoded pairs of the query, which are right.
    pub(crate) pairs: Vec<(String, String)>,
    /// Whether the count is wanted too.
    pub count: bool,
    resource: std::marker::PhantomData<fn() -> L>,
}

impl<L: Listed> Part for Listing<L> {
    fn describe(shape: &mut Shape) {
        shape.list = Some(L::RESOURCE);
        shape.parameters.extend(list_parameters(L::RESOURCE));
    }

    async fn take(request: &mut Received) -> Result<Self> {
        let pairs = pairs(&request.parts)?;
        list(L::RESOURCE, &pairs)?;
        let count = pairs.iter().rev().find(|(name, _)| name == "count");
        let count = match count.map(|(_, value)| value.as_str()) {
            Some("true") => true,
            None | Some("false") => false,
            Some(_) => return Err(Problem::new(Code::BadRequest, "`count` is true or false")),
        };
        Ok(Self { pairs, count, resource: std::marker::PhantomData })
    }
}

/// Reads the pairs of a query as a list request.
pub(super) fn list(resource: &'static Resource, pairs: &[(String, String)]) -> Result<List> {
    let pairs = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Ok(List::parse(resource, pairs)?)
}

/// The decoded pairs of the query.
pub(super) fn pairs(parts: &Parts) -> Result<Vec<(String, String)>> {
    let query = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let wrong = |rejection: axum::extract::rejection::QueryRejection| {
        Problem::new(Code::BadRequest, rejection.body_text())
    };
    query.map(|query| query.0).map_err(wrong)
}

fn list_parameters(resource: &'static Resource) -> Vec<Parameter> {
    let names = |fits: fn(&strongroom_catalog::list::Field) -> bool| {
        let names = resource.fields.iter().filter(|field| fits(field));
        names.map(|field| format!("`{}`", field.name)).collect::<Vec<_>>().join(", ")
    };
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let many = || Schema::Array(ArrayBuilder::new().items(text()).build());
    let one = || Schema::Object(text().build());
    let number = |max: Option<f64>| {
        let number = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0.0));
        let number = number.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)));
        Schema::Object(number.maximum(max).build())
    };
    let mut parameters = vec![
        (
            "filter",
            format!(
                "`<field>:<operator><value>`, may be repeated: all must hold. Fields: {}. \
                 OPTIONS tells the operators of each.",
                names(|field| field.filterable)
            ),
            many(),
        ),
        (
            "sort",
            format!("`<field>:asc|desc,...`. Fields: {}.", names(|field| field.sortable)),
            one(),
        ),
        ("offset", "How many items to leave out.".to_owned(), number(None)),
        ("limit", "How many items there are at most.".to_owned(), number(None)),
        (
            "count",
            "Whether to count all items too.".to_owned(),
            Schema::Object(ObjectBuilder::new().schema_type(Type::Boolean).build()),
        ),
    ];
    if resource.search.is_some() {
        let text = format!(
            "Text to look for in any of: {}. May be repeated: any of them.",
            names(|field| field.searched)
        );
        parameters.push(("keyword", text, many()));
    }
    let parameter = |(name, text, schema): (&str, String, Schema)| {
        ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Query)
            .required(Required::False)
            .description(Some(text))
            .schema(Some(RefOr::T(schema)))
            .build()
    };
    parameters.into_iter().map(parameter).collect()
}

/// A request's headers, for routes that answer parts of files.
#[derive(Clone, Debug)]
pub struct RangeHeader(pub Option<String>);

impl Part for RangeHeader {
    fn describe(shape: &mut Shape) {
        shape.parameters.push(
            ParameterBuilder::new()
                .name("Range")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some("Which bytes, `bytes=first-last` (RFC 9110): one range."))
                .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
                .build(),
        );
    }

    async fn take(request: &mut Received) -> Result<Self> {
        let value = request.parts.headers.get(header::RANGE);
        Ok(Self(value.and_then(|value| value.to_str().ok()).map(str::to_owned)))
    }
}

/// What one had last of a stream of events that broke off: `Last-Event-ID`, a number of up to 17
/// digits.
#[derive(Clone, Copy, Debug)]
pub struct LastEventId(pub Option<i64>);

impl Part for LastEventId {
    fn describe(shape: &mut Shape) {
        shape.parameters.push(
            ParameterBuilder::new()
                .name("Last-Event-ID")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "The id of the event that one had last: what came after follows.",
                ))
                .schema(Some(
                    ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[0-9]{1,17}$")),
                ))
                .build(),
        );
    }

    async fn take(request: &mut Received) -> Result<Self> {
        let Some(value) = request.parts.headers.get("last-event-id") else {
            return Ok(Self(None));
        };
        let digits = |text: &&str| {
            (1..=17).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        };
        let number = value.to_str().ok().filter(digits).and_then(|text| text.parse().ok());
        let wrong =
            || Problem::new(Code::BadRequest, "a Last-Event-ID is one that this stream gave");
        number.map(|number| Self(Some(number))).ok_or_else(wrong)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, ToSchema)]
    #[serde(deny_unknown_fields)]
    struct Login {
        #[allow(dead_code, reason = "it is only read")]
        name: String,
        #[allow(dead_code, reason = "it is only read")]
        number: u8,
    }

    async fn body(kind: &str, text: &str) -> Result<Body<Login>> {
        let request = http::Request::builder().header("content-type", kind).body(()).unwrap();
        let (parts, ()) = request.into_parts();
        Body::take(&mut Received { parts, body: text.to_owned().into() }).await
    }

    #[tokio::test]
    async fn bodies_are_refused_without_showing_them() {
        body("application/json; charset=utf-8", r#"{"name":"a","number":1}"#).await.unwrap();
        let refused = |kind: &'static str, text: &'static str| async move {
            let problem = body(kind, text).await.unwrap_err();
            assert!(!problem.detail().contains("hunter2"), "{}", problem.detail());
            (problem.code(), problem.detail().to_owned())
        };
        assert_eq!(refused("text/plain", "{}").await.0, Code::MediaType);
        assert_eq!(refused("application/json", "{").await.0, Code::BadRequest);
        let (code, text) = refused("application/json", r#"{"name":"a","number":"hunter2"}"#).await;
        assert_eq!(
            (code, text.as_str()),
            (Code::Invalid, "the body, line 1, column 30: expected u8")
        );
        let (_, text) = refused("application/json", r#"{"name":"a","nmber":1}"#).await;
        assert!(text.contains("expected `name` or `number`"), "{text}");
    }

    #[tokio::test]
    async fn etags_are_versions() {
        let take = |value: &'static str| async move {
            let request = http::Request::builder().header("if-match", value).body(()).unwrap();
            let (parts, ()) = request.into_parts();
            IfMatch::take(&mut Received { parts, body: Bytes::new() }).await.map(|m| m.0)
        };
        assert_eq!(take("\"v7\"").await.unwrap(), Some(7));
        assert_eq!(take("*").await.unwrap(), None);
        assert_eq!(take("\"other\"").await.unwrap_err().code(), Code::Changed);
    }
}
