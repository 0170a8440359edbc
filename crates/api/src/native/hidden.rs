//! Secrets in bodies: never in logs, and wiped when they go.

use serde::{Deserialize, Deserializer};
use strongroom_identity::Secret;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

/// A secret that a caller sends.
#[derive(Debug)]
pub(super) struct Hidden(pub(super) Secret);

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Secret::new(text)))
    }
}

impl PartialSchema for Hidden {
    fn schema() -> RefOr<Schema> {
        let format = SchemaFormat::KnownFormat(KnownFormat::Password);
        let schema = ObjectBuilder::new().schema_type(Type::String).format(Some(format));
        RefOr::T(Schema::Object(schema.write_only(true).build()))
    }
}

impl ToSchema for Hidden {
    fn name() -> std::borrow::Cow<'static, str> {
        "Secret".into()
    }
}
