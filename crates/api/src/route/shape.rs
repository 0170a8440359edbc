//! What a route takes and gives, as the types of its handler say.

use http::StatusCode;
use strongroom_catalog::list::Resource;
use utoipa::ToSchema;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{KnownFormat, Schema, SchemaFormat};
use utoipa::openapi::{Ref, RefOr};

/// Collected from the parts of a handler's arguments and from its answer.
#[derive(Clone, Default)]
pub struct Shape {
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Media>,
    pub(super) answers: Vec<AnswerShape>,
    pub(super) schemas: Vec<(String, RefOr<Schema>)>,
    pub(super) list: Option<&'static Resource>,
    pub(super) if_match: bool,
    pub(super) streams: bool,
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.parameters.iter().map(|parameter| &parameter.name);
        f.debug_list().entries(names).finish()
    }
}

/// A body: its media type, and its schema where it has one.
#[derive(Clone)]
pub(super) struct Media {
    pub(super) kind: &'static str,
    pub(super) schema: RefOr<Schema>,
}

/// One way in which a route answers when all is well.
#[derive(Clone)]
pub(super) struct AnswerShape {
    pub(super) status: StatusCode,
    pub(super) description: &'static str,
    /// The body; one of these, where there is one.
    pub(super) media: Vec<Media>,
    /// Headers, and what they hold.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

impl Shape {
    /// Refers to the schema of a type, and keeps that with all it refers to.
    pub(super) fn schema<T: ToSchema>(&mut self) -> RefOr<Schema> {
        let name = T::name().into_owned();
        self.schemas.push((name.clone(), T::schema()));
        T::schemas(&mut self.schemas);
        RefOr::Ref(Ref::from_schema_name(name))
    }

    pub(super) fn answer(&mut self, status: StatusCode, description: &'static str) {
        self.answers.push(AnswerShape {
            status,
            description,
            media: Vec::new(),
            headers: Vec::new(),
        });
    }

    pub(super) fn answer_with<T: ToSchema>(
        &mut self,
        status: StatusCode,
        description: &'static str,
    ) {
        let schema = self.schema::<T>();
        let media = vec![Media { kind: "application/json", schema }];
        self.answers.push(AnswerShape { status, description, media, headers: Vec::new() });
    }

    /// Whether a parameter is an integer of 64 bits with a sign, as the document says: so are those
    /// that can't be negative.
    pub(super) fn is_int64(&self, name: &str) -> bool {
        let int64 = Some(SchemaFormat::KnownFormat(KnownFormat::Int64));
        let schema =
            self.parameters.iter().find(|p| p.name == name).and_then(|p| p.schema.as_ref());
        matches!(schema, Some(RefOr::T(Schema::Object(object))) if object.format == int64)
    }

    pub(super) fn header(&mut self, name: &'static str, holds: &'static str) {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((name, holds));
        }
    }
}
