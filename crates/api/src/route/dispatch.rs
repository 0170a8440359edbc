//! From a request to the answer of its route: who asks, may they, what do they send, and only then
//! the handler. There is no other way to a handler.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::request::Parts;
use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use strongroom_catalog::list::Count;
use strongroom_identity::Object;
use tokio::sync::OwnedSemaphorePermit;
use tracing::Instrument;

use super::kept::Question;
use super::part::Received;
use super::{Route, Routes, idempotency, listing};
use crate::access;
use crate::app::{App, BODIES};
use crate::call::{Call, Unapproved};
use crate::problem::{Code, Problem, Result};
use crate::request_id;

/// Marks the answer to a request that was let through: its route was open to the caller, whatever
/// came of it.
#[derive(Clone, Copy, Debug)]
pub struct LetThrough;

/// How long a body may take to arrive, and one that may be large.
const ARRIVAL: Duration = Duration::from_secs(30);
const ARRIVAL_OF_LARGE: Duration = Duration::from_secs(75);

pub(super) fn router(routes: &Routes, app: &App) -> Router {
    let mut by_path: BTreeMap<&'static str, Vec<Arc<Route>>> = BTreeMap::new();
    for route in routes.iter() {
        by_path.entry(route.path).or_default().push(Arc::new(route.clone()));
    }
    let mut router = Router::new();
    for (path, routes) in by_path {
        let mut methods = MethodRouter::new();
        let mut allowed = Vec::new();
        for route in routes {
            allowed.push(route.method.as_str().to_owned());
            methods = methods.merge(method(&route, filter(&route.method), app));
            if route.shape.list.is_some() {
                allowed.extend(["HEAD".to_owned(), "OPTIONS".to_owned()]);
                methods = methods.merge(method(&route, MethodFilter::HEAD, app));
                methods = methods.merge(method(&route, MethodFilter::OPTIONS, app));
            } else if route.method == Method::GET {
                allowed.push("HEAD".to_owned());
            }
        }
        let allowed = allowed.join(", ");
        let methods = methods.fallback(move |request: Request| {
            let problem = not_allowed(request.method(), &allowed);
            async move { problem }
        });
        router = router.route(path, methods);
    }
    router
}

fn not_allowed(method: &Method, allowed: &str) -> Problem {
    let text = format!("this path has no {method}; it has {allowed}");
    let problem = Problem::new(Code::MethodNotAllowed, text);
    match HeaderValue::from_str(allowed) {
        Ok(value) => problem.with(header::ALLOW, value),
        Err(_) => problem,
    }
}

fn filter(method: &Method) -> MethodFilter {
    match *method {
        Method::POST => MethodFilter::POST,
        Method::PUT => MethodFilter::PUT,
        Method::PATCH => MethodFilter::PATCH,
        Method::DELETE => MethodFilter::DELETE,
        _ => MethodFilter::GET,
    }
}

fn method(route: &Arc<Route>, filter: MethodFilter, app: &App) -> MethodRouter {
    let (route, app) = (Arc::clone(route), app.clone());
    on(filter, move |request: Request| {
        let (route, app) = (Arc::clone(&route), app.clone());
        async move { dispatch(&route, app, request).await }
    })
}

async fn dispatch(route: &Arc<Route>, app: App, request: Request) -> Response {
    let began = Instant::now();
    let metrics = Arc::clone(app.metrics());
    let method = request.method().clone();
    let reads = route.only_reads || matches!(method, Method::GET | Method::HEAD | Method::OPTIONS);
    let work = {
        let (route, app) = (Arc::clone(route), app);
        async move {
            let mut permitted = false;
            let answer = answer(&route, app, request, &mut permitted).await;
            (answer, permitted)
        }
    };
    let done = if reads {
        tokio::time::timeout(route.time, work).await.map_err(|_| late())
    } else {
        // A change that was begun is ended, and its answer kept, even if the client goes.
        let task = tokio::spawn(request_id::within(request_id::current(), work.in_current_span()));
        match tokio::time::timeout(route.time, task).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(Problem::internal(&error)),
            Err(_) => Err(late()),
        }
    };
    let (answer, permitted) = done.unwrap_or_else(|problem| (Err(problem), false));
    let mut response = answer.unwrap_or_else(IntoResponse::into_response);
    if permitted {
        response.extensions_mut().insert(LetThrough);
    }
    metrics.request(route.id, &method, response.status(), began.elapsed());
    response
}

async fn answer(
    route: &Route,
    app: App,
    request: Request,
    permitted: &mut bool,
) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    known_parameters(route, &parts)?;
    let caller = access::authenticate(&app, route, &parts).await?;
    let path = RawPathParams::from_request_parts(&mut parts, &()).await;
    // What isn't UTF-8 can't be the name of anything of ours.
    let path = path.map_err(|_| Problem::not_found("path"))?;
    let parameter = |name: &str| path.iter().find(|(n, _)| *n == name).map(|(_, value)| value);
    let writes = parts.method != Method::GET && route.method != Method::GET && !route.only_reads;
    let place = parts.uri.path().to_owned();
    let permit = match access::check(&app, route, &caller, parameter).await {
        Ok(permit) => permit,
        Err(problem) => {
            if writes {
                let (nothing, why) = (Object::default(), problem.code().text());
                access::record(&app, route, &caller, &nothing, &place, Some(why)).await;
            }
            return Err(problem);
        }
    };

    *permitted = true;
    if let Some(resource) = route.shape.list {
        if parts.method == Method::OPTIONS {
            return Ok(listing::metadata(resource));
        }
        if parts.method == Method::HEAD {
            let pairs = super::part::pairs(&parts)?;
            let scope = access::scope(route, &caller)?;
            let count = match listing::narrowed(resource, &pairs, caller.principal()?)? {
                Some(list) => list.count(app.catalog(), &scope).await?,
                None => Count { count: 0, exact: true },
            };
            return Ok(listing::count(count));
        }
    }

    let question = match route.kept && parts.method == Method::GET {
        true => Question::of(&app, route, &caller, &parts)?,
        false => None,
    };
    if let Some(answer) = question.as_ref().and_then(|question| app.kept().find(question)) {
        return Ok(answer);
    }

    let _room = room(route, &app, &parts).await;
    let body = match route.shape.body {
        Some(_) => {
            let body = receive(route, &parts, body).await?;
            access::check_body(&caller, &parts, &body)?;
            body
        }
        None => Bytes::new(),
    };
    let key = match route.idempotent {
        true => idempotency::key(&parts)?,
        false => None,
    };
    let received = Received { parts, body };
    // Of large bodies it would be dear.
    let digest = || idempotency::digest(&app, &received);
    let later = (permit.approval && route.approved_by_handler)
        .then(|| Unapproved { place: place.clone(), request: digest() });
    if permit.approval && later.is_none() {
        let (object, digest) = (&permit.object, digest());
        let admitted = access::admit(&app, route.id(), &caller, object, &place, &digest).await;
        if let Err(problem) = admitted {
            access::record(&app, route, &caller, object, &place, Some(problem.code().text())).await;
            return Err(problem);
        }
    }
    let begun = match key {
        Some(key) => Some(idempotency::begin(&app, &caller, &key, &digest()).await?),
        None => None,
    };
    let (entry, before) = match begun {
        Some(idempotency::Begun::Before(answer)) => return Ok(answer),
        Some(idempotency::Begun::CutOff(entry, answer)) => (Some(entry), Some(answer)),
        Some(idempotency::Begun::Now(entry)) => (Some(entry), None),
        None => (None, None),
    };
    let response = match before {
        Some(answer) => answer,
        None => {
            let request = entry.as_ref().map(|entry| entry.request().clone());
            let object = permit.object.clone();
            let call =
                Call::new(app.clone(), route, caller.clone(), object, &received.parts, request);
            let call = call.unapproved(later);
            let response = route.run.run(call, received).await;
            response.unwrap_or_else(IntoResponse::into_response)
        }
    };
    if writes && !route.recorded_by_service {
        let why = response.extensions().get::<Code>().map(|code| code.text());
        if why.is_some() || !route.refusals_recorded {
            access::record(&app, route, &caller, &permit.object, &place, why).await;
        }
    }
    Ok(match (entry, question) {
        (Some(entry), _) => entry.end(&app, response).await,
        (None, Some(question)) => app.kept().keep(question, response).await,
        (None, None) => response,
    })
}

/// A parameter that is misspelt must not be as good as none.
fn known_parameters(route: &Route, parts: &Parts) -> Result<()> {
    use utoipa::openapi::path::ParameterIn;
    if parts.uri.query().is_none_or(str::is_empty) {
        return Ok(());
    }
    let known = route.shape.parameters.iter().filter(|p| p.parameter_in == ParameterIn::Query);
    let known: Vec<&str> = known.map(|p| p.name.as_str()).collect();
    for (name, value) in super::part::pairs(parts)? {
        let text = if !known.contains(&name.as_str()) {
            match known.as_slice() {
                [] => format!("there is no parameter `{name}`: this route takes none"),
                known => format!("there is no parameter `{name}`; there are: {}", known.join(", ")),
            }
        } else if value.parse::<u64>().is_ok_and(|number| number > i64::MAX as u64)
            && route.shape.is_int64(&name)
        {
            format!("`{name}` is {} at most", i64::MAX)
        } else {
            continue;
        };
        return Err(Problem::new(Code::BadRequest, text));
    }
    Ok(())
}

/// Waits until there is memory for a large body, and keeps it for the request.
async fn room(route: &Route, app: &App, parts: &Parts) -> Option<OwnedSemaphorePermit> {
    if route.shape.body.is_none() || route.body <= super::BODY {
        return None;
    }
    let told = told_length(parts).and_then(|told| usize::try_from(told).ok());
    let bytes = told.unwrap_or(route.body).min(route.body);
    let wanted = u32::try_from(bytes >> 10).unwrap_or(u32::MAX) + 1;
    Arc::clone(app.bodies()).acquire_many_owned(wanted.min(BODIES)).await.ok()
}

fn told_length(parts: &Parts) -> Option<u64> {
    let told = parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    told.and_then(|length| length.parse().ok())
}

/// The body, if it is small enough and comes in time.
async fn receive(route: &Route, parts: &Parts, body: axum::body::Body) -> Result<Bytes> {
    let too_large = || {
        let text = format!("the body may have {} bytes", route.body);
        Problem::new(Code::TooLarge, text)
    };
    if told_length(parts).is_some_and(|n| n > route.body as u64) {
        return Err(too_large());
    }
    // For large ones there is room; of others as much is kept as has come.
    let large = route.body > super::BODY;
    let told = told_length(parts).filter(|_| large).unwrap_or_default();
    let arrival = if large { ARRIVAL_OF_LARGE } else { ARRIVAL };
    let mut body = Limited::new(body, route.body);
    let all = async {
        // Each piece is copied while it is at hand.
        let mut bytes = Vec::with_capacity(told as usize);
        while let Some(frame) = body.frame().await {
            // Trailers say nothing that we ask for.
            if let Ok(data) = frame?.into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(bytes)
    };
    match tokio::time::timeout(arrival, all).await {
        Ok(Ok(body)) => Ok(body.into()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Code::BadRequest, "the body broke off")),
        Err(_) => Err(Problem::new(Code::RequestTimeout, "the body did not arrive in time")),
    }
}

fn late() -> Problem {
    Problem::new(Code::Timeout, "it took too long; a job may be the better way")
}

/// What paths answer that lead nowhere.
pub(crate) async fn nowhere(request: Request) -> Response {
    debug_assert_eq!(Code::NotFound.status(), StatusCode::NOT_FOUND);
    let text = format!("there is nothing at {}", request.uri().path());
    Problem::new(Code::NotFound, text).into_response()
}
