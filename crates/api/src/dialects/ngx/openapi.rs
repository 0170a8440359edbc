//! The OpenAPI document of the dialect.

use std::collections::BTreeMap;

use http::Method;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required,
};
use utoipa::{PartialSchema, ToSchema};

use super::answer::{ErrorBody, Number};
use super::declared::{Endpoint, Over, Parameter};
use super::{PREFIX, endpoints};

const TEXT: &str = "\
LUNs, snapshots, targets and the state of the appliance as the REST API of NGX Storage, software 2.3, \
has them, with what clients of later software expect beside. Every operation takes an API key that was \
made for this dialect (`strongroom keys create NAME --dialect ngx`), as `Authorization: Bearer KEY`. \
Errors have a number in `code` and a text in `error`; nothing else has a `code` at its top. A path may \
end with a slash.";

/// The document as it is served and committed.
pub fn document() -> String {
    let text = openapi().to_pretty_json();
    text.expect("a document of strings and numbers can be written") + "\n"
}

fn openapi() -> OpenApi {
    let mut paths = Paths::new();
    let mut schemas: Vec<(String, RefOr<Schema>)> = Vec::new();
    for one in endpoints() {
        let method = match *one.method() {
            Method::POST => HttpMethod::Post,
            Method::PUT => HttpMethod::Put,
            Method::PATCH => HttpMethod::Patch,
            Method::DELETE => HttpMethod::Delete,
            _ => HttpMethod::Get,
        };
        paths.add_path_operation(format!("{PREFIX}{}", one.path()), vec![method], operation(&one));
        let mut named = Vec::new();
        (one.answered.named)(&mut named);
        schemas.extend(named);
    }
    ErrorBody::schemas(&mut schemas);
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let mut components =
        ComponentsBuilder::new().security_scheme("key", SecurityScheme::Http(scheme));
    let mut seen = BTreeMap::new();
    for (name, schema) in schemas {
        let same = seen.get(&name).is_none_or(|before| *before == schema);
        assert!(same, "two types have the schema name {name}: one would stand for the other");
        seen.insert(name.clone(), schema.clone());
        components = components.schema(name, schema);
    }
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("NGX Storage").description(Some(TEXT)).version("2.3.2"))
        .paths(paths)
        .components(Some(components.build()))
        .security(Some([SecurityRequirement::new("key", Vec::<String>::new())]))
        .build()
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// What stands in the braces of a path.
fn in_path(path: &str) -> Option<&str> {
    path.split('/').find_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn operation(one: &Endpoint) -> OperationBuilder {
    let place = match one.over() {
        Over::Appliance => "on the appliance",
        Over::Any => "in an organisation; shows what belongs to those",
    };
    let allowed = match one.id() == one.permission() {
        true => format!("`{}`", one.id()),
        false => format!("`{}` or `{}`", one.permission(), one.id()),
    };
    let text = format!(
        "{}.\n\nA key must be allowed {allowed}; its user needs the right `{}` {place}.",
        one.state.trim_end_matches('.'),
        one.right()
    );
    let mut operation = OperationBuilder::new()
        .tag(one.section)
        .operation_id(Some(one.id()))
        .summary(Some(one.summary))
        .description(Some(text));
    if let Some(name) = in_path(one.path()) {
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(name)
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .schema(Some(string())),
        );
    }
    for Parameter { name, required, meaning } in one.query {
        let required = if *required { Required::True } else { Required::False };
        operation = operation.parameter(
            ParameterBuilder::new()
                .name(*name)
                .parameter_in(ParameterIn::Query)
                .required(required)
                .description(Some(*meaning))
                .schema(Some(string())),
        );
    }
    if !one.body.is_empty() {
        let mut object = ObjectBuilder::new();
        for Parameter { name, required, meaning } in one.body {
            // Numbers and switches come in several forms.
            object = object.property(
                *name,
                ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::SchemaType::AnyValue)
                    .description(Some(*meaning)),
            );
            if *required {
                object = object.required(*name);
            }
        }
        let body = RequestBodyBuilder::new()
            .content("application/json", Content::new(Some(Schema::from(object))));
        operation = operation.request_body(Some(body.build()));
    }
    let answer = ResponseBuilder::new()
        .description("As asked.")
        .content("application/json", Content::new(Some((one.answered.schema)())));
    operation.response("200", answer).response("default", error())
}

fn error() -> ResponseBuilder {
    let numbers: Vec<_> =
        Number::ALL.iter().map(|one| format!("{}: {}", one.value(), one.meaning())).collect();
    ResponseBuilder::new()
        .description(format!("An error. {}", numbers.join(" ")))
        .content("application/json", Content::new(Some(ErrorBody::schema())))
}
