//! What a handler answers with: the status and the document follow from its type.

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use strongroom_catalog::list::Count;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type,
};

use super::shape::{AnswerShape, Media, Shape};
use crate::problem::Problem;

/// An answer of a handler.
pub trait Answer: Send + 'static {
    /// Says what it gives.
    fn describe(shape: &mut Shape);
    /// Gives it.
    fn respond(self) -> Response;
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => {
            let kind = HeaderValue::from_static("application/json");
            (status, [(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}

/// 200 and JSON.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize + ToSchema + Send + 'static> Answer for Json<T> {
    fn describe(shape: &mut Shape) {
        shape.answer_with::<T>(StatusCode::OK, "Done.");
    }

    fn respond(self) -> Response {
        json(StatusCode::OK, &self.0)
    }
}

/// 200, JSON, and the version as `ETag`.
#[derive(Debug)]
pub struct Tagged<T>(pub T, pub i64);

impl<T: Serialize + ToSchema + Send + 'static> Answer for Tagged<T> {
    fn describe(shape: &mut Shape) {
        shape.answer_with::<T>(StatusCode::OK, "Done.");
        shape.header("ETag", "The version, for If-Match.");
    }

    fn respond(self) -> Response {
        let mut response = json(StatusCode::OK, &self.0);
        tag(&mut response, self.1);
        response
    }
}

fn tag(response: &mut Response, version: i64) {
    if let Ok(value) = HeaderValue::from_str(&format!("\"v{version}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
}

/// 201, JSON, and where it is found.
#[derive(Debug)]
pub struct Created<T> {
    /// What was made.
    pub item: T,
    /// Its path.
    pub location: String,
}

impl<T: Serialize + ToSchema + Send + 'static> Answer for Created<T> {
    fn describe(shape: &mut Shape) {
        shape.answer_with::<T>(StatusCode::CREATED, "Made.");
        shape.header("Location", "Its path.");
    }

    fn respond(self) -> Response {
        located(json(StatusCode::CREATED, &self.item), &self.location)
    }
}

/// 202: a job does it. JSON with the job, and where that is found.
#[derive(Debug)]
pub struct Accepted<T> {
    /// The job.
    pub job: T,
    /// Its path.
    pub location: String,
}

impl<T: Serialize + ToSchema + Send + 'static> Answer for Accepted<T> {
    fn describe(shape: &mut Shape) {
        shape.answer_with::<T>(StatusCode::ACCEPTED, "A job will do it.");
        shape.header("Location", "The job's path.");
    }

    fn respond(self) -> Response {
        located(json(StatusCode::ACCEPTED, &self.job), &self.location)
    }
}

fn located(mut response: Response, location: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(location) {
        response.headers_mut().insert(header::LOCATION, value);
    }
    response
}

/// 204.
#[derive(Clone, Copy, Debug)]
pub struct Empty;

impl Answer for Empty {
    fn describe(shape: &mut Shape) {
        shape.answer(StatusCode::NO_CONTENT, "Done; there is nothing to tell.");
    }

    fn respond(self) -> Response {
        StatusCode::NO_CONTENT.into_response()
    }
}

/// Some items of a list.
#[derive(Debug)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
    /// Whether there are more behind them.
    pub more: bool,
    /// How many there are in all, when that was asked for.
    pub count: Option<Count>,
}

#[derive(Serialize)]
struct ItemsView<T> {
    items: Vec<T>,
    more: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count_exact: Option<bool>,
}

impl<T: Serialize + ToSchema + Send + 'static> Answer for Items<T> {
    fn describe(shape: &mut Shape) {
        let item = shape.schema::<T>();
        let bool =
            |text| ObjectBuilder::new().schema_type(Type::Boolean).description(Some(text)).build();
        let count = ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .description(Some("How many there are in all; with `count=true`."));
        let schema = ObjectBuilder::new()
            .property("items", ArrayBuilder::new().items(item))
            .required("items")
            .property("more", bool("Whether there are more behind them."))
            .required("more")
            .property("count", count)
            .property("count_exact", bool("Whether the count is exact; else it is at least that."));
        let schema = RefOr::T(Schema::Object(schema.build()));
        let media = vec![Media { kind: "application/json", schema }];
        let (status, description) = (StatusCode::OK, "Some items of the list.");
        shape.answers.push(AnswerShape { status, description, media, headers: Vec::new() });
    }

    fn respond(self) -> Response {
        let (count, exact) = (self.count.map(|c| c.count), self.count.map(|c| c.exact));
        let view = ItemsView { items: self.items, more: self.more, count, count_exact: exact };
        json(StatusCode::OK, &view)
    }
}

/// The media type of a [`Text`].
pub trait TextKind: Send + 'static {
    /// As it stands in the header.
    const KIND: &'static str;
}

/// Text as it is.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl TextKind for Plain {
    const KIND: &'static str = "text/plain; charset=utf-8";
}

/// Text of a media type of its own.
#[derive(Debug)]
pub struct Text<K = Plain> {
    text: String,
    kind: std::marker::PhantomData<fn() -> K>,
}

impl<K> Text<K> {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), kind: std::marker::PhantomData }
    }
}

impl<K: TextKind> Answer for Text<K> {
    fn describe(shape: &mut Shape) {
        plain(shape, StatusCode::OK, "Done.", &[K::KIND], "");
    }

    fn respond(self) -> Response {
        let kind = HeaderValue::from_static(K::KIND);
        (StatusCode::OK, [(header::CONTENT_TYPE, kind)], self.text).into_response()
    }
}

fn plain(
    shape: &mut Shape,
    status: StatusCode,
    description: &'static str,
    kinds: &[&'static str],
    format: &str,
) {
    let mut schema = ObjectBuilder::new().schema_type(Type::String);
    if !format.is_empty() {
        schema = schema.format(Some(SchemaFormat::Custom(format.to_owned())));
    }
    let schema = RefOr::T(Schema::Object(schema.build()));
    let media = kinds.iter().map(|kind| Media { kind, schema: schema.clone() }).collect();
    shape.answers.push(AnswerShape { status, description, media, headers: Vec::new() });
}

/// 200 and bytes for a program.
#[derive(Debug)]
pub struct Raw(pub Vec<u8>);

impl Answer for Raw {
    fn describe(shape: &mut Shape) {
        plain(shape, StatusCode::OK, "Done.", &["application/octet-stream"], "binary");
    }

    fn respond(self) -> Response {
        let kind = HeaderValue::from_static("application/octet-stream");
        (StatusCode::OK, [(header::CONTENT_TYPE, kind)], self.0).into_response()
    }
}

/// A server-sent event: the JSON of one `T`.
#[derive(Debug)]
pub struct Sent<T> {
    /// Its name.
    pub name: &'static str,
    /// By which one who was away says what it had last.
    pub id: Option<String>,
    /// What it says.
    pub content: T,
}

impl<T> From<(&'static str, T)> for Sent<T> {
    fn from((name, content): (&'static str, T)) -> Self {
        Self { name, id: None, content }
    }
}

/// Server-sent events: each is the JSON of one `T`, under a name.
pub struct Events<T, S> {
    /// The events: name, id, content.
    pub events: S,
    content: std::marker::PhantomData<fn() -> T>,
}

impl<T, S> std::fmt::Debug for Events<T, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Events")
    }
}

impl<T, S> Events<T, S> {
    /// These, until they end.
    pub fn new(events: S) -> Self {
        Self { events, content: std::marker::PhantomData }
    }
}

impl<T, S> Answer for Events<T, S>
where
    T: Serialize + ToSchema + Send + 'static,
    S: Stream<Item: Into<Sent<T>>> + Send + 'static,
{
    fn describe(shape: &mut Shape) {
        shape.schema::<T>();
        shape.streams = true;
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let data = text().content_media_type("application/json");
        let data = data.description(Some(format!("The JSON of a `{}`.", T::name())));
        let event = ObjectBuilder::new()
            .property("event", text().description(Some("What the data is.")))
            .required("event")
            .property("data", data)
            .required("data");
        let schema = RefOr::T(Schema::Object(event.build()));
        let media = vec![Media { kind: "text/event-stream", schema }];
        let description = "Server-sent events, each of this form.";
        let status = StatusCode::OK;
        shape.answers.push(AnswerShape { status, description, media, headers: Vec::new() });
    }

    fn respond(self) -> Response {
        use axum::response::sse::{Event, KeepAlive, Sse};
        use futures_util::StreamExt;
        let events = self.events.map(|sent| {
            let Sent { name, id, content }: Sent<T> = sent.into();
            let data = serde_json::to_string(&content).map_err(axum::Error::new)?;
            let event = Event::default().event(name).data(data);
            Ok::<_, axum::Error>(match id {
                Some(id) => event.id(id),
                None => event,
            })
        });
        Sse::new(events).keep_alive(KeepAlive::default()).into_response()
    }
}

/// Bytes of a file, all or some of them.
pub struct Download<S> {
    /// What a browser would call the file.
    pub name: String,
    /// First byte, the byte behind the last, and the size of the whole.
    pub range: (u64, u64, u64),
    /// The bytes.
    pub bytes: S,
}

impl<S> std::fmt::Debug for Download<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Download({:?})", self.range)
    }
}

/// An archive, which is made as it is sent: its size isn't known beforehand.
pub struct Archive<S> {
    /// How it is packed.
    pub kind: ArchiveKind,
    /// What a browser would call the file.
    pub name: String,
    /// The bytes.
    pub bytes: S,
}

/// Bytes under the name of a file, which are made as they are sent: their number isn't known
/// beforehand.
pub struct Made<S> {
    /// What a browser would call the file.
    pub name: &'static str,
    /// The bytes.
    pub bytes: S,
}

impl<S> std::fmt::Debug for Made<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Made({})", self.name)
    }
}

impl<S> Answer for Made<S>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    fn describe(shape: &mut Shape) {
        shape.streams = true;
        plain(shape, StatusCode::OK, "The whole.", &[BYTES], "binary");
    }

    fn respond(self) -> Response {
        attachment(BYTES, self.name, self.bytes)
    }
}

/// How an archive is packed.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ArchiveKind {
    /// As tar.
    #[default]
    Tar,
    /// As zip.
    Zip,
}

impl ArchiveKind {
    const TYPES: [&'static str; 2] = ["application/x-tar", "application/zip"];

    fn media_type(self) -> &'static str {
        match self {
            Self::Tar => Self::TYPES[0],
            Self::Zip => Self::TYPES[1],
        }
    }
}

impl<S> std::fmt::Debug for Archive<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Archive({:?})", self.kind)
    }
}

impl<S> Answer for Archive<S>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    fn describe(shape: &mut Shape) {
        shape.streams = true;
        plain(shape, StatusCode::OK, "The whole.", &ArchiveKind::TYPES, "binary");
    }

    fn respond(self) -> Response {
        attachment(self.kind.media_type(), &self.name, self.bytes)
    }
}

/// Bytes that a browser stores under this name.
fn attachment<S>(kind: &'static str, name: &str, bytes: S) -> Response
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    let mut response = axum::body::Body::from_stream(bytes).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    let name = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    if let Ok(value) = HeaderValue::from_str(&format!("attachment; filename*=UTF-8''{name}")) {
        headers.insert(header::CONTENT_DISPOSITION, value);
    }
    response
}

/// The media type of a file's bytes.
const BYTES: &str = "application/octet-stream";

/// 200 and bytes for a program, as they come.
pub struct Pieces<S>(pub S);

impl<S> std::fmt::Debug for Pieces<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pieces")
    }
}

impl<S> Answer for Pieces<S>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    fn describe(shape: &mut Shape) {
        shape.streams = true;
        plain(shape, StatusCode::OK, "The answer, in pieces.", &[BYTES], "binary");
    }

    fn respond(self) -> Response {
        let mut response = axum::body::Body::from_stream(self.0).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(BYTES));
        response
    }
}

impl<S> Answer for Download<S>
where
    S: Stream<Item = std::io::Result<Bytes>> + Send + 'static,
{
    fn describe(shape: &mut Shape) {
        shape.streams = true;
        plain(shape, StatusCode::OK, "The whole.", &[BYTES], "binary");
        let some = "The bytes asked for.";
        plain(shape, StatusCode::PARTIAL_CONTENT, some, &[BYTES], "binary");
        shape.header("Content-Range", "Which bytes of how many.");
    }

    fn respond(self) -> Response {
        let mut response = attachment(BYTES, &self.name, self.bytes);
        let headers = response.headers_mut();
        let (first, end, size) = self.range;
        headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - first));
        if (first, end) != (0, size) {
            let text = format!("bytes {first}-{}/{size}", end - 1);
            if let Ok(value) = HeaderValue::from_str(&text) {
                headers.insert(header::CONTENT_RANGE, value);
            }
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        }
        response
    }
}
