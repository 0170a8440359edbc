//! The OpenAPI document of declared routes.

use std::collections::{BTreeMap, BTreeSet};

use http::{Method, StatusCode};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, Content, HeaderBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr,
    Required, Response,
};

use super::idempotency::MAX_KEY;
use super::listing::ListMetadata;
use super::shape::{Media, Shape};
use super::{Group, Route, Routes};
use crate::access::Need;
use crate::problem::{Code, MEDIA_TYPE, ProblemDetails};

/// The names of the ways to say who one is; the last two go together.
const BEARER: &str = "bearer";
const SIGNATURE: &str = "signature";
const SIGNATURE_INPUT: &str = "signature_input";

pub(super) fn document(routes: &Routes) -> OpenApi {
    let mut paths = Paths::new();
    let mut all = Shape::default();
    all.schema::<ProblemDetails>();
    let metadata = all.schema::<ListMetadata>();
    for (group, route) in routes.groups.iter().flat_map(|g| g.routes.iter().map(move |r| (g, r))) {
        all.schemas.extend(route.shape.schemas.iter().cloned());
        paths.add_path_operation(path(route), vec![method(&route.method)], operation(group, route));
        if route.shape.list.is_some() {
            let head = count_operation(group, route);
            paths.add_path_operation(path(route), vec![HttpMethod::Head], head);
            let options = metadata_operation(group, route, &metadata);
            paths.add_path_operation(path(route), vec![HttpMethod::Options], options);
        }
    }
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "The token of a session, an API key, or a token of an issuer that was set up.",
        ))
        .build();
    let mut schemas = BTreeMap::new();
    for (name, schema) in all.schemas {
        let same = schemas.get(&name).is_none_or(|known| *known == schema);
        assert!(same, "two types have the schema name {name}: one would stand for the other");
        schemas.insert(name, schema);
    }
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(BEARER, SecurityScheme::Http(scheme))
        .security_scheme(SIGNATURE, in_header("Signature", SIGNATURE_TEXT))
        .security_scheme(SIGNATURE_INPUT, in_header("Signature-Input", SIGNATURE_INPUT_TEXT))
        .build();
    let tag =
        |group: &Group| TagBuilder::new().name(group.name).description(Some(group.text)).build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title(routes.title)
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(routes.text)),
        )
        .paths(paths)
        .components(Some(components))
        .security(Some([bearer(), signed()]))
        .tags(Some(routes.groups.iter().map(tag)))
        .build()
}

/// The path without the star that lets a parameter hold slashes.
fn path(route: &Route) -> String {
    route.path.replace("{*", "{")
}

fn bearer() -> SecurityRequirement {
    SecurityRequirement::new(BEARER, Vec::<String>::new())
}

const SIGNATURE_TEXT: &str = "\
For programs that sign instead of sending a key: HTTP Message Signatures (RFC 9421) with `hmac-sha256`. \
The key of the HMAC is the whole API key, which was made with `signing`. The header is \
`sig=:BASE64:`, the signature of what `Signature-Input` names; it comes with that header, and with \
`Content-Digest` (RFC 9530, `sha-256`) where the operation takes a body. A signature is taken once.";

const SIGNATURE_INPUT_TEXT: &str = "\
What was signed, beside `Signature`: `sig=(\"@method\" \"@path\");created=1764216000;\
keyid=\"abcd1234\";nonce=\"b7c1e2d3f4a5968778695a4b\"`. It covers `@method` and `@path`; `@query` where \
there is a query; `content-digest` where the operation takes a body; `if-match` and `idempotency-key` \
where they are sent. `keyid` is the prefix of the API key, the part between its underscores.";

fn in_header(name: &str, text: &str) -> SecurityScheme {
    SecurityScheme::ApiKey(ApiKey::Header(ApiKeyValue::with_description(name, text)))
}

fn signed() -> SecurityRequirement {
    SecurityRequirement::new(SIGNATURE, Vec::<String>::new())
        .add(SIGNATURE_INPUT, Vec::<String>::new())
}

fn method(method: &Method) -> HttpMethod {
    match *method {
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::PATCH => HttpMethod::Patch,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn begin(group: &Group, route: &Route, id: String, summary: &str) -> OperationBuilder {
    let mut description = route.need.description();
    if route.also_on_appliance {
        description
            .push_str(" The same right is needed on the appliance, whose files it is about.");
    }
    let mut operation = OperationBuilder::new()
        .tag(group.name)
        .operation_id(Some(id))
        .summary(Some(summary))
        .description(Some(description));
    if let Need::Open(_) = route.need {
        operation = operation.securities(Some(Vec::new()));
    }
    operation
}

fn operation(group: &Group, route: &Route) -> OperationBuilder {
    let shape = &route.shape;
    let mut operation = begin(group, route, route.id.to_owned(), route.summary);
    for parameter in &shape.parameters {
        operation = operation.parameter(parameter.clone());
    }
    if route.idempotent {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name("Idempotency-Key")
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some(
                    "Any visible ASCII characters, new for each request. Sent again with it \
                     within a day, the same request does nothing and has the same answer.",
                ))
                .schema(Some(
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .min_length(Some(1))
                        .max_length(Some(MAX_KEY))
                        .pattern(Some("^[!-~]+$")),
                )),
        );
    }
    if let Some(body) = &shape.body {
        let body = RequestBodyBuilder::new().content(body.kind, content(body));
        operation = operation.request_body(Some(body.required(Some(Required::True)).build()));
    }
    for answer in &shape.answers {
        let mut response = ResponseBuilder::new().description(answer.description);
        for media in &answer.media {
            response = response.content(media.kind, content(media));
        }
        for (name, holds) in &answer.headers {
            response = response.header(*name, header(holds, Type::String));
        }
        operation = operation.response(answer.status.as_str(), response);
    }
    problems(operation, &codes(route))
}

fn header(holds: &str, kind: Type) -> utoipa::openapi::header::Header {
    let schema = ObjectBuilder::new().schema_type(kind);
    HeaderBuilder::new().schema(Some(Schema::from(schema))).description(Some(holds)).build()
}

fn count_operation(group: &Group, route: &Route) -> OperationBuilder {
    let summary = format!("Count: {}", route.summary);
    let mut operation = begin(group, route, format!("{}.count", route.id), &summary);
    for parameter in &route.shape.parameters {
        if !matches!(parameter.name.as_str(), "sort" | "offset" | "limit" | "count") {
            operation = operation.parameter(parameter.clone());
        }
    }
    let response = ResponseBuilder::new()
        .description("There are so many.")
        .header("X-Total-Count", header("How many items there are.", Type::Integer))
        .header("X-Total-Exact", header("Whether that is exact; else at least.", Type::Boolean));
    let mut operation = operation.response(StatusCode::OK.as_str(), response);
    let statuses: BTreeSet<_> = codes(route).iter().map(|code| code.status()).collect();
    for status in statuses {
        // An answer to HEAD has no body.
        operation = operation.response(status.as_str(), Response::new(status.to_string()));
    }
    operation
}

fn metadata_operation(group: &Group, route: &Route, schema: &RefOr<Schema>) -> OperationBuilder {
    let summary = format!("Fields: {}", route.summary);
    let mut operation = begin(group, route, format!("{}.fields", route.id), &summary);
    for parameter in &route.shape.parameters {
        if parameter.parameter_in == ParameterIn::Path {
            operation = operation.parameter(parameter.clone());
        }
    }
    let media = Media { kind: "application/json", schema: schema.clone() };
    let response = ResponseBuilder::new()
        .description("How the list may be asked for.")
        .content(media.kind, content(&media));
    problems(operation.response(StatusCode::OK.as_str(), response), &codes(route))
}

fn content(media: &Media) -> Content {
    Content::new(Some(media.schema.clone()))
}

/// One answer for each status, which names the codes that come with it.
fn problems(mut operation: OperationBuilder, codes: &BTreeSet<Code>) -> OperationBuilder {
    let statuses: BTreeSet<_> = codes.iter().map(|code| code.status()).collect();
    for status in statuses {
        let texts = codes.iter().filter(|code| code.status() == status);
        let texts = texts.map(|code| format!("`{}`: {}", code.text(), code.title()));
        let schema: RefOr<Schema> = RefOr::Ref(Ref::from_schema_name("ProblemDetails"));
        let response = ResponseBuilder::new()
            .description(texts.collect::<Vec<_>>().join(" "))
            .content(MEDIA_TYPE, Content::new(Some(schema)));
        operation = operation.response(status.as_str(), response);
    }
    operation
}

/// What is answered to who isn't let through where one must be known.
const KNOWN: [Code; 4] =
    [Code::Unauthenticated, Code::TooMany, Code::Forbidden, Code::PasswordChange];

/// All codes that a route may answer with: its own, and those that follow from what it is.
pub(super) fn codes(route: &Route) -> BTreeSet<Code> {
    let mut codes = route.codes.clone();
    codes.extend([Code::BadRequest, Code::Internal, Code::Unavailable, Code::Timeout]);
    match route.need {
        Need::Open(_) => {}
        // Whoever must change a password first is told so everywhere, and a key may be narrowed.
        Need::Login => codes.extend(KNOWN),
        Need::Right(_, on) => {
            codes.extend(KNOWN);
            if on.parameter().is_some() {
                codes.insert(Code::NotFound);
            }
        }
    }
    if super::names(route.path).next().is_some() {
        codes.insert(Code::NotFound);
    }
    if route.shape.body.is_some() {
        codes.extend([Code::TooLarge, Code::MediaType, Code::Invalid, Code::RequestTimeout]);
    }
    if route.shape.if_match {
        codes.insert(Code::Changed);
    }
    if route.idempotent {
        codes.extend([Code::InProgress, Code::KeyReused]);
    }
    codes
}
