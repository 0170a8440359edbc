//! From a request to its answer: is there such a path, whose key is it, may that one, what is sent,
//! and only then the handler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use http::{Method, header};
use strongroom_catalog::list::Scope;
use strongroom_identity::{Decision, Deed, Object, Origin, Principal, Right, Secret, decide};
use tracing::Instrument;

use super::answer::{Answer, Fault, Number};
use super::body::Fields;
use super::declared::{Endpoint, Over};
use super::path::{matched, words};
use super::{NAME, Options, PREFIX, Shapes};
use crate::access;
use crate::app::App;
use crate::dialects::below;
use crate::problem::Problem;
use crate::route::LetThrough;

/// How long an answer may take.
const TIME: Duration = Duration::from_secs(60);
/// What requests are counted as that lead nowhere.
const NOWHERE: &str = "ngx.nowhere";

/// The dialect, as it is configured.
#[derive(Debug)]
struct Dialect {
    app: App,
    options: Options,
    endpoints: Vec<Endpoint>,
}

/// A request that was let through.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    dialect: Arc<Dialect>,
    principal: Arc<Principal>,
    /// What was allowed: the operation, or what it shares with others.
    operation: &'static str,
    right: Right,
    id: String,
    query: Vec<(String, String)>,
    fields: Fields,
}

impl Call {
    /// The services.
    pub(crate) fn app(&self) -> &App {
        &self.dialect.app
    }

    /// Who asks.
    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether arrays are answered where later software does.
    pub(crate) fn is_newer(&self) -> bool {
        self.dialect.options.shapes == Shapes::V24
    }

    /// What stands in the braces of the path.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What was sent.
    pub(crate) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The parameter of the query.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(given, value)| given == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// Whose things are seen.
    pub(crate) fn scope(&self) -> Scope {
        self.principal.scope(self.right)
    }

    /// As [`Call::scope`], of another right.
    pub(crate) fn scope_of(&self, right: Right) -> Scope {
        self.principal.scope(right)
    }

    /// The pools of the key; none: all.
    pub(crate) fn only(&self) -> Option<Vec<i64>> {
        self.principal.pools().map(|pools| pools.iter().copied().collect())
    }

    /// Whether a thing of this organisation and pool is seen.
    pub(crate) fn sees(&self, organisation: i64, pool: Option<i64>) -> bool {
        let mut object = Object::of(organisation);
        object.pool = pool;
        decide(&self.principal, self.right, &object, self.operation) != Decision::Hidden
            && self.principal.has(self.right, organisation)
    }

    /// Whether the caller may do that to a thing; what isn't theirs to see is not there.
    pub(crate) fn may(&self, object: &Object, noun: &str) -> Answer<()> {
        self.may_also(self.right, object, noun)
    }

    /// As [`Call::may`], by another right than the operation's own.
    pub(crate) fn may_also(&self, right: Right, object: &Object, noun: &str) -> Answer<()> {
        decided(&self.principal, right, object, self.operation, noun)
    }
}

pub(super) fn router(app: &App, options: &Options) -> Router {
    let endpoints = super::endpoints();
    let dialect = Dialect { app: app.clone(), options: options.clone(), endpoints };
    below(PREFIX, dialect, Dialect::serve)
}

/// Where a request leads.
enum Lead {
    /// To this operation, with what stands in its braces.
    Here(Endpoint, String),
    /// To a path that has other methods.
    Other(Vec<Method>),
    Nowhere,
}

impl Dialect {
    fn lead(&self, method: &Method, path: &str) -> Lead {
        let path = path.strip_suffix('/').unwrap_or(path);
        let found = self.endpoints.iter().filter_map(|one| Some((one, matched(one.path(), path)?)));
        let mut found: Vec<_> = found.collect();
        let most = found.iter().map(|(one, _)| words(one.path())).max().unwrap_or_default();
        found.retain(|(one, _)| words(one.path()) == most);
        let method = if method == Method::HEAD { &Method::GET } else { method };
        match found.iter().position(|(one, _)| one.method() == *method) {
            Some(place) => {
                let (one, id) = found.swap_remove(place);
                Lead::Here(one.clone(), id.unwrap_or_default())
            }
            None if found.is_empty() => Lead::Nowhere,
            None => Lead::Other(found.iter().map(|(one, _)| one.method().clone()).collect()),
        }
    }

    async fn serve(self: Arc<Self>, request: Request) -> Response {
        let began = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let lead = self.lead(&method, &path);
        let operation = match &lead {
            Lead::Here(one, _) => one.id(),
            _ => NOWHERE,
        };
        let metrics = Arc::clone(self.app.metrics());
        // A change that was begun is ended, even if the client goes.
        let work = tokio::spawn(crate::request_id::within(crate::request_id::current(), {
            let dialect = Arc::clone(&self);
            async move { dialect.answer(request, lead).await }.in_current_span()
        }));
        let response = match tokio::time::timeout(TIME, work).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => Fault::from(Problem::internal(&error)).response(),
            Err(_) => Fault::new(Number::Timeout, "it took too long").response(),
        };
        metrics.request(operation, &method, response.status(), began.elapsed());
        response
    }

    async fn answer(self: Arc<Self>, request: Request, lead: Lead) -> Response {
        let (parts, body) = request.into_parts();
        let (endpoint, id) = match lead {
            Lead::Here(endpoint, id) => (endpoint, id),
            Lead::Other(methods) => {
                let methods: Vec<_> = methods.iter().map(Method::as_str).collect();
                let text =
                    format!("this path has no {}; it has {}", parts.method, methods.join(", "));
                return Fault::new(Number::Method, text).response();
            }
            Lead::Nowhere => {
                let text = format!("there is nothing at {}", parts.uri.path());
                return Fault::new(Number::NoPath, text).response();
            }
        };
        let mut permitted = false;
        let answer = self.let_through(&parts, body, &endpoint, id, &mut permitted).await;
        let mut response = answer.unwrap_or_else(Fault::response);
        if permitted {
            response.extensions_mut().insert(LetThrough);
        }
        response
    }

    async fn let_through(
        self: Arc<Self>,
        parts: &Parts,
        body: Body,
        endpoint: &Endpoint,
        id: String,
        permitted: &mut bool,
    ) -> Answer {
        let principal = Arc::new(self.known(parts).await?);
        // Whoever was allowed the one operation was not allowed the others like it.
        let operation = match principal.operations() {
            Some(allowed) if allowed.contains(endpoint.id()) => endpoint.id(),
            _ => endpoint.permission(),
        };
        let right = endpoint.right();
        let object = match endpoint.over() {
            Over::Appliance => Object::APPLIANCE,
            Over::Any => access::somewhere(&principal, right),
        };
        let allowed = decided(&principal, right, &object, operation, "path");
        let answer = match allowed {
            Ok(()) => {
                *permitted = true;
                let call = Call {
                    dialect: Arc::clone(&self),
                    principal: Arc::clone(&principal),
                    operation,
                    right,
                    id,
                    query: query(parts),
                    fields: Fields::default(),
                };
                match body_of(parts, body, endpoint).await {
                    Ok(fields) => (endpoint.run)(Call { fields, ..call }).await,
                    Err(fault) => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        };
        if endpoint.method() != Method::GET {
            let mut deed = Deed::new(endpoint.id(), &parts.uri.path()[1..]);
            if let Err(fault) = &answer {
                deed = deed.failed(fault.word());
            }
            self.app.identity().record(&*principal, deed).await?;
        }
        answer
    }

    async fn known(&self, parts: &Parts) -> Answer<Principal> {
        let unknown = || {
            let text = "send an API key of this interface as `Authorization: Bearer KEY`";
            Fault::new(Number::Unauthorized, text)
        };
        let value = parts.headers.get(header::AUTHORIZATION).ok_or_else(unknown)?;
        let (scheme, key) =
            value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(unknown)?;
        if !scheme.eq_ignore_ascii_case("bearer") || key.trim().is_empty() {
            return Err(unknown());
        }
        let origin: Origin = access::origin(parts);
        let key = Secret::new(key.trim());
        Ok(self.app.identity().authenticate_in(NAME, key, &origin).await?)
    }
}

async fn body_of(parts: &Parts, body: Body, endpoint: &Endpoint) -> Answer<Fields> {
    match *endpoint.method() == Method::GET {
        true => Ok(Fields::default()),
        false => Fields::read(parts, body).await,
    }
}

fn query(parts: &Parts) -> Vec<(String, String)> {
    let text = parts.uri.query().unwrap_or_default();
    form_urlencoded::parse(text.as_bytes()).into_owned().take(64).collect()
}

fn decided(
    principal: &Principal,
    right: Right,
    object: &Object,
    operation: &str,
    noun: &str,
) -> Answer<()> {
    match decide(principal, right, object, operation) {
        Decision::Allow => Ok(()),
        Decision::NeedsApproval => {
            let text = "another administrator must approve that: use the native API";
            Err(Fault::new(Number::Forbidden, text))
        }
        Decision::Forbidden { why } => Err(Fault::new(Number::Forbidden, why)),
        Decision::Hidden => Err(Fault::not_found(noun)),
    }
}
