//! From a request to its answer, in the original's order: is there such a path, the first run, who
//! asks, the method, the handler.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strongroom_appliance::network::Reached;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::{Method, StatusCode};
use strongroom_appliance::backup::Spool;
use strongroom_identity::{
    AuthError, Decision, Deed, Object, Origin, Principal, Right, ShownToken, TokenState, decide,
};

use super::answer::{Answer, Fault, target};
use super::request::{Form, LARGEST, SMALL, refused as refused_upload};
use super::{Endpoint, OPTIONAL, Options, PREFIX};
use strongroom_protect::Asker;

use tracing::Instrument;

use crate::access;
use crate::app::App;
use crate::dialects::below;
use crate::problem::Problem;
use crate::route::LetThrough;

/// How long an answer may take to begin.
const TIME: Duration = Duration::from_secs(60);
/// As much where a file may be large that is sent.
const TIME_OF_LARGE: Duration = Duration::from_secs(2 * 3600);
/// Where a file may be large, which then goes to the disk: the path and the field.
const LARGE: &[(&str, &str)] =
    &[("/backup/restore", "archive"), (super::update::PATH, super::update::FIELD)];
/// What requests are counted as that lead nowhere.
const NOWHERE: &str = "jidoteki.nowhere";
/// Whoever sets the token says who they are in a way of their own.
const SETUP: &str = "/setup";

/// The dialect, as it is configured.
#[derive(Debug)]
pub(crate) struct Dialect {
    pub(crate) app: App,
    pub(crate) options: Options,
    endpoints: Vec<Endpoint>,
}

/// A request that was let through.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) dialect: Arc<Dialect>,
    pub(crate) form: Arc<Form>,
    pub(crate) origin: Origin,
    /// What was shown of the token; None: nothing.
    pub(crate) shown: Option<ShownToken>,
    /// Who asks, where that was asked for.
    pub(crate) principal: Option<Arc<Principal>>,
}

impl Call {
    pub(crate) fn app(&self) -> &App {
        &self.dialect.app
    }

    /// Who asks, for a job.
    pub(crate) fn asker(&self) -> Answer<Asker> {
        let who = self.principal.as_ref().ok_or_else(Fault::unauthenticated)?;
        Ok(Asker {
            organisation_id: who.organisation_id,
            user_id: who.user_id,
            user_name: who.name.clone(),
            ..Asker::default()
        })
    }
}

/// What is asked for, before it is known by whom.
struct Asked<'a> {
    /// All operations of the path.
    here: &'a [Endpoint],
    /// The one of the method.
    endpoint: Option<Endpoint>,
    state: TokenState,
    /// How it came over the network.
    reached: Option<Reached>,
    /// Whether the body could be taken.
    read: Answer<()>,
}

pub(super) fn router(app: &App, options: &Options) -> Router {
    let is_there = |one: &Endpoint| match &options.endpoints {
        Some(named) if OPTIONAL.contains(&one.name()) => {
            named.iter().any(|name| name == one.name())
        }
        _ => true,
    };
    let endpoints = super::endpoints().into_iter().filter(is_there).collect();
    let dialect = Dialect { app: app.clone(), options: options.clone(), endpoints };
    below(PREFIX, dialect, Dialect::serve)
}

impl Dialect {
    /// The names of what is there, each once.
    pub(crate) fn names(&self) -> BTreeSet<&'static str> {
        self.endpoints.iter().map(Endpoint::name).collect()
    }

    async fn serve(self: Arc<Self>, request: Request) -> Response {
        let began = Instant::now();
        let method = request.method().clone();
        let path = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
        let bare = path.strip_suffix('/').unwrap_or(&path);
        let here: Vec<_> = self.endpoints.iter().filter(|one| one.path == bare).cloned().collect();
        let endpoint = here.iter().find(|one| one.method == method).cloned();
        let id = endpoint.as_ref().or(here.first()).map_or(NOWHERE, |one| one.id);
        let metrics = Arc::clone(self.app.metrics());
        // A change that was begun is ended, even if the client goes.
        let work = tokio::spawn(crate::request_id::within(crate::request_id::current(), {
            let dialect = Arc::clone(&self);
            let path = path.clone();
            async move { dialect.answer(request, here, endpoint, &path).await }.in_current_span()
        }));
        let time = match large(path.strip_suffix('/').unwrap_or(&path)) {
            Some(_) => TIME_OF_LARGE,
            None => TIME,
        };
        let response = match tokio::time::timeout(time, work).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => Fault::from(Problem::internal(&error)).response(None),
            Err(_) => Fault::bare(StatusCode::GATEWAY_TIMEOUT).response(None),
        };
        metrics.request(id, &method, response.status(), began.elapsed());
        response
    }

    async fn answer(
        self: Arc<Self>,
        request: Request,
        here: Vec<Endpoint>,
        endpoint: Option<Endpoint>,
        path: &str,
    ) -> Response {
        let (parts, body) = request.into_parts();
        if here.is_empty() {
            return Fault::not_found().response(None);
        }
        if parts.method != Method::GET && parts.method != Method::POST {
            return Fault::bare(StatusCode::NOT_IMPLEMENTED).response(None);
        }
        let state = match self.app.identity().admin_token_state().await {
            Ok(state) => state,
            Err(error) => return Fault::from(error).response(None),
        };
        // With an open setup there is no first run to be told of.
        let mut first_run = (!self.options.open_setup).then_some(state == TokenState::FirstRun);
        if state == TokenState::FirstRun {
            first_run = Some(true);
        }
        let origin = access::origin(&parts);
        let mut form = Form::of_query(&parts);
        let is_setup = here[0].path == SETUP;
        // Who says so in the query is known before a body is taken.
        let early = shown(&form, &parts.method, path).filter(|_| !is_setup);
        let mut known = None;
        if let Some(early) = early.as_ref().filter(|_| state == TokenState::Set) {
            match self.known_early(early, &origin, endpoint.as_ref()).await {
                Ok(principal) => known = Some(principal),
                Err(fault) => return fault.response(first_run),
            }
        }
        let field = large(here[0].path).filter(|_| known.is_some() && parts.method == Method::POST);
        let most = if is_setup { SMALL } else { LARGEST };
        let read = match field {
            Some(field) => match self.spool(here[0].path).await {
                Ok(spool) => form.read_large(&parts, body, field, spool).await,
                Err(error) => Err(refused_upload(field)(error)),
            },
            None => form.read(&parts, body, most).await,
        };
        let shown = shown(&form, &parts.method, path);
        // Who adds a hash in the body is to be known by that.
        let way = |shown: &Option<ShownToken>| shown.as_ref().map(std::mem::discriminant);
        let known = known.filter(|_| way(&early) == way(&shown));
        let call = Call {
            dialect: Arc::clone(&self),
            form: Arc::new(form),
            origin,
            shown,
            principal: known,
        };
        let mut permitted = false;
        let reached = access::reached(&parts);
        let asked = Asked { here: &here, endpoint, state, reached, read };
        let answer = self.let_through(call, asked, &mut permitted).await;
        let mut response = answer.unwrap_or_else(|fault| fault.response(first_run));
        if permitted {
            response.extensions_mut().insert(LetThrough);
        }
        response
    }

    /// A place for the large file of this path.
    async fn spool(&self, path: &str) -> strongroom_appliance::Result<Spool> {
        let administration = self.app.administration();
        match path {
            super::update::PATH => administration.update_spool().await,
            _ => administration.spool().await,
        }
    }

    async fn let_through(&self, call: Call, asked: Asked<'_>, permitted: &mut bool) -> Answer {
        let Asked { here, endpoint, state, reached, read } = asked;
        let other = || {
            let expected: Vec<_> = here.iter().map(|one| one.method.as_str()).collect();
            let expected = expected.join("' or '");
            Fault::bad(format!("Invalid authentication method. Expected {expected}"))
        };
        if here[0].path == SETUP {
            *permitted = true;
            let endpoint = endpoint.ok_or_else(other)?;
            read?;
            return (endpoint.run)(call).await;
        }
        if state == TokenState::FirstRun {
            let shown = call.shown.as_ref().ok_or_else(Fault::unauthenticated)?;
            self.known(shown, &call.origin).await?;
            return Err(Fault::unauthenticated());
        }
        let principal = match &call.principal {
            Some(principal) => Arc::clone(principal),
            None => {
                let shown = call.shown.as_ref().ok_or_else(Fault::unauthenticated)?;
                Arc::new(self.known(shown, &call.origin).await?)
            }
        };
        // Whoever is known has found the appliance where it is now.
        if self.app.administration().dialect_was_reached(reached).await {
            let deed = Deed::new("jidoteki.settings.confirm", target("/settings"));
            self.app.identity().record(&*principal, deed).await?;
        }
        let endpoint = endpoint.ok_or_else(other)?;
        // Also what changes nothing, where it takes the right to.
        let recorded = endpoint.method == Method::POST || endpoint.right == Right::SystemManage;
        let answer = match may(&principal, &endpoint) {
            Ok(()) => {
                *permitted = true;
                let call = Call { principal: Some(Arc::clone(&principal)), ..call };
                match read {
                    Ok(()) => (endpoint.run)(call).await,
                    Err(fault) => Err(fault),
                }
            }
            Err(fault) => Err(fault),
        };
        if recorded {
            let refused = answer.as_ref().err().map(Fault::word);
            self.record(&principal, &endpoint, refused).await?;
        }
        answer
    }

    /// Who says in the query who they are, and may send what is large where that is asked for.
    async fn known_early(
        &self,
        shown: &ShownToken,
        origin: &Origin,
        endpoint: Option<&Endpoint>,
    ) -> Answer<Arc<Principal>> {
        let principal = Arc::new(self.known(shown, origin).await?);
        if let Some(one) = endpoint.filter(|one| large(one.path).is_some())
            && let Err(fault) = may(&principal, one)
        {
            self.record(&principal, one, Some(fault.word())).await?;
            return Err(fault);
        }
        Ok(principal)
    }

    /// Writes down what was asked for, and whether it was refused.
    async fn record(
        &self,
        principal: &Principal,
        endpoint: &Endpoint,
        refused: Option<&str>,
    ) -> Answer<()> {
        let mut deed = Deed::new(endpoint.id, target(endpoint.path));
        if let Some(why) = refused {
            deed = deed.failed(why);
        }
        Ok(self.app.identity().record(principal, deed).await?)
    }

    async fn known(&self, shown: &ShownToken, origin: &Origin) -> Answer<Principal> {
        match self.app.identity().by_admin_token(shown, origin).await {
            Ok(principal) => Ok(principal),
            Err(AuthError::Internal(error)) => Err(error.into()),
            Err(AuthError::Blocked { wait }) => {
                Err(Fault::unauthenticated().retry_after(wait.as_secs().max(1)))
            }
            Err(_) => Err(Fault::unauthenticated()),
        }
    }
}

/// The field of this path whose file may be large.
fn large(path: &str) -> Option<&'static str> {
    LARGE.iter().find(|(at, _)| *at == path).map(|(_, field)| *field)
}

/// What was shown of the token: a hash, if there is one, else the token itself.
fn shown(form: &Form, method: &Method, path: &str) -> Option<ShownToken> {
    let given = |name: &str| form.text(name).filter(|text| !text.is_empty());
    if let Some(hash) = given("hash") {
        return Some(ShownToken::Hash { text: format!("{method}{PREFIX}{path}"), hash });
    }
    given("token").map(|word| ShownToken::Word(word.into()))
}

fn may(principal: &Principal, endpoint: &Endpoint) -> Answer<()> {
    match decide(principal, endpoint.right, &Object::APPLIANCE, endpoint.id) {
        Decision::Allow => Ok(()),
        Decision::NeedsApproval => {
            let text = "Another administrator must approve that: use the native API";
            Err(Fault::new(StatusCode::FORBIDDEN, text))
        }
        Decision::Forbidden { why } => Err(Fault::new(StatusCode::FORBIDDEN, why)),
        Decision::Hidden => Err(Fault::not_found()),
    }
}
