//! Every route is declared once: method, path, operation id, the right it needs and on what, its
//! error codes. What it takes and gives follows from the types of its handler. Of that declaration
//! are made the router, the access check, the OpenAPI document and the table that the matrix test
//! walks, so none of them can differ from another.
//!
//! A [`Draft`] becomes a [`Route`] only by saying who may use it: [`Draft::needs`],
//! [`Draft::login`] or [`Draft::open`].

mod answer;
mod dispatch;
mod handler;
mod idempotency;
mod kept;
mod listing;
mod objects;
mod openapi;
mod part;
mod shape;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Method;

pub use self::answer::{
    Accepted, Answer, Archive, ArchiveKind, Created, Download, Empty, Events, Items, Json, Made,
    Pieces, Plain, Raw, Sent, Tagged, Text, TextKind,
};
pub use self::dispatch::LetThrough;
pub(crate) use self::dispatch::nowhere;
pub use self::handler::Handler;
use self::handler::{Run, Typed};
pub use self::idempotency::forget_cut_off;
pub(crate) use self::kept::Kept;
pub(crate) use self::listing::narrowed;
pub use self::part::{
    Body, IfMatch, LastEventId, Listed, Listing, Octets, Part, Path, Query, RangeHeader, Received,
};
pub use self::shape::Shape;
use strongroom_identity::Right;

use crate::access::{Need, On};
use crate::app::App;
use crate::problem::Code;

/// How long a request may take when its route says nothing else.
const TIME: Duration = Duration::from_secs(60);
/// Bytes of a body when its route says nothing else.
const BODY: usize = 1 << 20;

/// A route that doesn't say yet who may use it.
pub struct Draft {
    route: Route,
}

/// A declared route.
#[derive(Clone)]
pub struct Route {
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    need: Need,
    codes: BTreeSet<Code>,
    shape: Shape,
    idempotent: bool,
    recorded_by_service: bool,
    kept: bool,
    also_on_appliance: bool,
    refusals_recorded: bool,
    only_reads: bool,
    approved_by_handler: bool,
    comes_to: Option<&'static str>,
    time: Duration,
    body: usize,
    run: Arc<dyn Run>,
}

impl std::fmt::Debug for Draft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.route.fmt(f)
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} ({})", self.method, self.path, self.id)
    }
}

fn draft<P: 'static, H: Handler<P>>(
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    handler: H,
) -> Draft {
    let route = Route {
        method,
        path,
        id,
        summary,
        need: Need::Open(""),
        codes: BTreeSet::new(),
        shape: H::shape(),
        idempotent: false,
        recorded_by_service: false,
        kept: false,
        also_on_appliance: false,
        refusals_recorded: false,
        only_reads: false,
        approved_by_handler: false,
        comes_to: None,
        time: TIME,
        body: BODY,
        run: Arc::new(Typed::new(handler)),
    };
    Draft { route }
}

macro_rules! methods {
    ($($name:ident $method:ident $does:literal;)*) => {$(
        #[doc = $does]
        pub fn $name<P: 'static, H: Handler<P>>(
            path: &'static str,
            id: &'static str,
            summary: &'static str,
            handler: H,
        ) -> Draft {
            draft(Method::$method, path, id, summary, handler)
        }
    )*};
}

methods! {
    get GET "A route that reads: its path, operation id and summary.";
    post POST "A route that makes something or starts something.";
    put PUT "A route that puts something in place of what is there.";
    patch PATCH "A route that changes something in part.";
    delete DELETE "A route that removes something.";
}

impl Draft {
    /// Who calls it needs this right on that.
    #[must_use]
    pub fn needs(mut self, right: Right, on: On) -> Route {
        self.route.need = Need::Right(right, on);
        self.route
    }

    /// Anybody who is logged in may call it; it is about themselves alone.
    #[must_use]
    pub fn login(mut self) -> Route {
        self.route.need = Need::Login;
        self.route
    }

    /// Anybody may call it, for this reason.
    #[must_use]
    pub fn open(mut self, why: &'static str) -> Route {
        self.route.need = Need::Open(why);
        self.route
    }
}

impl Route {
    /// It may fail with these codes, beside those that follow from its types and its right.
    #[must_use]
    pub fn fails(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes.extend(codes);
        self
    }

    /// It takes `Idempotency-Key`: sent again, the same request has the same answer.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// The service writes its line of the audit trail, in the transaction of the change itself;
    /// else one is written when the handler has ended. Refusals are always written.
    #[must_use]
    pub fn recorded_by_service(mut self) -> Self {
        self.recorded_by_service = true;
        self
    }

    /// Only what it refuses is written to the audit trail: one deed of a caller takes it a great
    /// many times, and is recorded where it begins and ends.
    #[must_use]
    pub fn only_refusals_recorded(mut self) -> Self {
        self.refusals_recorded = true;
        self
    }

    /// Its answer follows from the catalogue alone: it may be kept until that changes.
    #[must_use]
    pub fn kept(mut self) -> Self {
        self.kept = true;
        self
    }

    /// The right is needed on the appliance too: the files of that machine belong to its owner,
    /// whoever has the pool.
    #[must_use]
    pub fn also_on_appliance(mut self) -> Self {
        self.also_on_appliance = true;
        self
    }

    /// It changes nothing that lasts, whatever its method: so it ends with its client, and leaves no
    /// line in the audit trail.
    #[must_use]
    pub fn only_reads(mut self) -> Self {
        self.only_reads = true;
        self
    }

    /// Only a part of what it does needs approval, where its operation does: the handler asks for
    /// it ([`Call::approved`](crate::call::Call::approved)) when it comes to that.
    #[must_use]
    pub fn approved_by_handler(mut self) -> Self {
        self.approved_by_handler = true;
        self
    }

    /// A part of what it does comes to this operation in the end: where that needs approval, it
    /// does too.
    #[must_use]
    pub fn comes_to(mut self, operation: &'static str) -> Self {
        self.comes_to = Some(operation);
        self
    }

    /// Whether [`Route::also_on_appliance`] was said.
    pub fn is_also_on_appliance(&self) -> bool {
        self.also_on_appliance
    }

    /// It may take so long until its answer begins.
    #[must_use]
    pub fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Its body may have so many bytes.
    #[must_use]
    pub fn body(mut self, bytes: usize) -> Self {
        self.body = bytes;
        self
    }

    /// Whether a body comes with it.
    pub fn takes_body(&self) -> bool {
        self.shape.body.is_some()
    }

    /// The operation that it comes to in the end, if that is another.
    pub(crate) fn end(&self) -> Option<&'static str> {
        self.comes_to
    }

    /// Its method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, with the names of its parameters in braces.
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Its operation id.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// Who may use it.
    pub fn need(&self) -> Need {
        self.need
    }
}

/// Routes about one thing.
#[derive(Debug)]
pub struct Group {
    name: &'static str,
    text: &'static str,
    routes: Vec<Route>,
}

impl Group {
    /// Its name, what it is about, and its routes.
    pub fn new(
        name: &'static str,
        text: &'static str,
        routes: impl IntoIterator<Item = Route>,
    ) -> Self {
        Self { name, text, routes: routes.into_iter().collect() }
    }
}

/// All routes of an interface.
#[derive(Debug)]
pub struct Routes {
    title: &'static str,
    text: &'static str,
    groups: Vec<Group>,
}

impl Routes {
    /// The title and text of the document, and the groups of routes.
    ///
    /// # Panics
    /// When a route contradicts itself or another: that is a mistake in this program, and would
    /// otherwise show only when the route is used.
    pub fn new(title: &'static str, text: &'static str, groups: Vec<Group>) -> Self {
        let routes = Self { title, text, groups };
        let mut ids = BTreeSet::new();
        for route in routes.iter() {
            assert!(ids.insert(route.id), "{route:?}: another route has this id");
            let named = names(route.path).collect::<BTreeSet<_>>();
            let described = route.shape.parameters.iter();
            let described =
                described.filter(|p| p.parameter_in == utoipa::openapi::path::ParameterIn::Path);
            let described = described.map(|p| p.name.as_str()).collect::<BTreeSet<_>>();
            assert!(
                named == described,
                "{route:?}: the path has {named:?}, its type {described:?}"
            );
            if let Need::Right(_, on) = route.need
                && let Some(name) = on.parameter()
            {
                assert!(
                    named.contains(name),
                    "{route:?}: its right is on `{name}`, which it lacks"
                );
            }
            let is_list = route.shape.list.is_some();
            assert!(!is_list || route.method == Method::GET, "{route:?}: a list is read");
            assert!(
                !route.idempotent || route.method == Method::POST,
                "{route:?}: only POST needs a key to be sent twice"
            );
        }
        routes
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.groups.iter().flat_map(|group| &group.routes)
    }

    /// A router of them.
    pub fn router(&self, app: &App) -> Router {
        dispatch::router(self, app)
    }

    /// The OpenAPI document as it is served and committed.
    pub fn document(&self) -> String {
        let text = self.openapi().to_pretty_json();
        text.expect("a document of strings and numbers can be written") + "\n"
    }

    /// The OpenAPI document, made of them.
    pub fn openapi(&self) -> utoipa::openapi::OpenApi {
        openapi::document(self)
    }
}

/// The names of a path's parameters.
fn names(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| name.trim_start_matches('*'))
}
