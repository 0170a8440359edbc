//! The OpenAPI document of the dialect.

use http::{Method, StatusCode};
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, Content, HeaderBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Required,
};

use super::{Documented, Endpoint, PREFIX, endpoints};

const TEXT: &str = "\
The administration of the appliance as Jidoteki Admin 1.24.0 has it, for scripts that were written \
for that. Every operation needs the token, as `token`, or an HMAC as `hash`: HMAC-SHA-256, in small \
hexadecimal digits, of the method and the path (`GET/api/v1/admin/version`) under the 64 small \
hexadecimal digits of the token's SHA-256. Both may stand in the query or in a form.";

/// The document as it is served and committed.
pub fn document() -> String {
    let text = openapi().to_pretty_json();
    text.expect("a document of strings and numbers can be written") + "\n"
}

fn openapi() -> OpenApi {
    let mut paths = Paths::new();
    for one in endpoints() {
        let method = match one.method {
            Method::POST => HttpMethod::Post,
            _ => HttpMethod::Get,
        };
        paths.add_path_operation(format!("{PREFIX}{}", one.path), vec![method], operation(&one));
    }
    let scheme = |name: &str, holds: &str| {
        let value = ApiKeyValue::with_description(name, holds);
        SecurityScheme::ApiKey(ApiKey::Query(value))
    };
    let components = ComponentsBuilder::new()
        .security_scheme("token", scheme("token", "The token."))
        .security_scheme("hash", scheme("hash", "The HMAC of method and path."))
        .build();
    OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Jidoteki Admin").description(Some(TEXT)).version("1.24.0"))
        .paths(paths)
        .components(Some(components))
        .security(Some([requirement("token"), requirement("hash")]))
        .build()
}

fn requirement(name: &str) -> SecurityRequirement {
    SecurityRequirement::new(name, Vec::<String>::new())
}

fn string() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

fn operation(one: &Endpoint) -> OperationBuilder {
    let right = format!("Needs the right `{}` on the appliance.", one.right.name());
    let mut operation = OperationBuilder::new()
        .tag(one.section)
        .operation_id(Some(one.id))
        .summary(Some(one.summary))
        .description(Some(right));
    if !one.parameters.is_empty() {
        let mut form = ObjectBuilder::new();
        for parameter in one.parameters {
            let format = SchemaFormat::KnownFormat(KnownFormat::Binary);
            let holds = string()
                .description(Some(parameter.meaning))
                .format(parameter.is_file.then_some(format));
            form = form.property(parameter.name, holds);
            if parameter.required {
                form = form.required(parameter.name);
            }
            if !parameter.is_file {
                operation = operation.parameter(
                    ParameterBuilder::new()
                        .name(parameter.name)
                        .parameter_in(ParameterIn::Query)
                        .required(Required::False)
                        .description(Some("Instead of the form's field."))
                        .schema(Some(string())),
                );
            }
        }
        let body = RequestBodyBuilder::new()
            .content("multipart/form-data", Content::new(Some(Schema::from(form))));
        operation = operation.request_body(Some(body.build()));
    }
    for answer in one.answers {
        operation = operation.response(answer.status.to_string(), response(answer));
    }
    let refused =
        Documented { status: 403, kind: None, meaning: "The token or hash is not right." };
    operation.response("403", response(&refused))
}

fn response(answer: &Documented) -> ResponseBuilder {
    let status = Schema::from(
        ObjectBuilder::new()
            .property("Status", string())
            .required("Status")
            .property("Error-Message", string())
            .property("First-Run", ObjectBuilder::new().schema_type(Type::Boolean)),
    );
    let mut response = ResponseBuilder::new().description(answer.meaning);
    response = match answer.kind {
        None => response.content("application/json", Content::new(Some(status))),
        Some(kind @ "application/json") => {
            response.content(kind, Content::new(Some(Schema::from(ObjectBuilder::new()))))
        }
        Some(kind) => response.content(kind, Content::new(Some(Schema::from(string())))),
    };
    let is_error = StatusCode::from_u16(answer.status).is_ok_and(|status| status.is_client_error());
    if is_error {
        let holds = HeaderBuilder::new().schema(Some(Schema::from(string())));
        response = response.header("Error-Message", holds.build());
    }
    response
}
