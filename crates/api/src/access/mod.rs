//! Who asks, and may they: the one place where a request is let through to a handler.

mod credential;
mod object;
mod signature;

use std::sync::Arc;

use http::request::Parts;
use strongroom_catalog::list::Scope;
use strongroom_identity::{
    Admission, Decision, Deed, OWN_PASSWORD, Object, Principal, Right, Via, decide,
};

pub(crate) use self::credential::{origin, reached};
pub use self::object::On;
pub(crate) use self::object::somewhere;
use crate::app::App;
use crate::problem::{Code, Problem, Result};
use crate::route::Route;

/// What one may do whose password must be changed.
const FIRST: [&str; 3] = [OWN_PASSWORD, "me.show", "sessions.close_own"];

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Anybody, for this reason.
    Open(&'static str),
    /// Anybody who is logged in: it is about themselves alone.
    Login,
    /// Who has this right on that.
    Right(Right, On),
}

impl Need {
    /// For the documentation.
    pub fn description(self) -> String {
        match self {
            Self::Open(why) => format!("Open to everybody: {why}."),
            Self::Login => "Needs a login.".to_owned(),
            Self::Right(right, on) => {
                format!("Needs the right `{}` {}.", right.name(), on.description())
            }
        }
    }

    /// For the table of routes.
    pub fn name(self) -> String {
        match self {
            Self::Open(_) => "open".to_owned(),
            Self::Login => "login".to_owned(),
            Self::Right(right, on) => format!("{} {}", right.name(), on.name()),
        }
    }
}

/// Who asks.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Nobody knows.
    Nobody,
    /// This one.
    Known(Arc<Principal>),
}

impl Caller {
    /// The user's number; 0 for who is none, which no user has.
    pub fn user_id(&self) -> i64 {
        match self {
            Self::Nobody => 0,
            Self::Known(principal) => principal.user_id.unwrap_or_default(),
        }
    }

    /// Who it is; only routes open to everybody are called by nobody.
    ///
    /// # Errors
    /// A problem that asks to log in.
    pub fn principal(&self) -> Result<&Arc<Principal>> {
        match self {
            Self::Known(principal) => Ok(principal),
            Self::Nobody => Err(must_log_in()),
        }
    }
}

fn must_log_in() -> Problem {
    let text =
        "log in first: POST /v1/sessions, then send its token as `Authorization: Bearer ...`";
    Problem::new(Code::Unauthenticated, text)
}

/// Finds out who asks. Where nobody needs to be known, credentials are not even looked at.
pub(crate) async fn authenticate(app: &App, route: &Route, parts: &Parts) -> Result<Caller> {
    if matches!(route.need(), Need::Open(_)) {
        return Ok(Caller::Nobody);
    }
    let credential = credential::of(parts, route.takes_body())?.ok_or_else(must_log_in)?;
    let principal = app.identity().authenticate(credential, &origin(parts)).await?;
    Ok(Caller::Known(Arc::new(principal)))
}

/// Refuses a body that is another than the one that was signed, where one was.
pub(crate) fn check_body(caller: &Caller, parts: &Parts, body: &[u8]) -> Result<()> {
    match caller {
        Caller::Known(principal) if principal.via == Via::Signed => {
            signature::check_body(parts, body)
        }
        _ => Ok(()),
    }
}

/// That a request may go on, and how.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    /// What it is about.
    pub(crate) object: Object,
    /// Whether a second administrator must have approved it.
    pub(crate) approval: bool,
}

/// Whether the caller may use the route on what its path names.
pub(crate) async fn check<'p>(
    app: &App,
    route: &Route,
    caller: &Caller,
    parameter: impl Fn(&str) -> Option<&'p str>,
) -> Result<Permit> {
    let (right, on) = match route.need() {
        Need::Open(_) => return Ok(Permit { object: Object::APPLIANCE, approval: false }),
        Need::Login => return themselves(caller.principal()?, route.id()),
        Need::Right(right, on) => (right, on),
    };
    let principal = caller.principal()?;
    let value = on.parameter().and_then(&parameter).unwrap_or_default().to_owned();
    let Some(object) = on.find(app, principal, right, &value).await? else {
        return Err(Problem::not_found(on.noun()));
    };
    let approval = decided(principal, right, &object, route.id(), on.noun())?
        || route.end().is_some_and(|operation| principal.needs_approval(operation));
    if route.is_also_on_appliance() {
        decided(principal, right, &Object::APPLIANCE, route.id(), on.noun())?;
    }
    Ok(Permit { object, approval })
}

/// What needs no right is about the callers themselves; it needs to be within what a key is for,
/// and a password that must be changed comes first there too.
fn themselves(principal: &Principal, operation: &str) -> Result<Permit> {
    if principal.must_change && !FIRST.contains(&operation) {
        return Err(change_password());
    }
    if principal.operations().is_some_and(|operations| !operations.contains(operation)) {
        let text = format!("this key is not for the operation `{operation}`");
        return Err(Problem::new(Code::Forbidden, text));
    }
    let object = Object::of(principal.organisation_id);
    // One's own password and the way out are nobody else's business.
    let approval = principal.needs_approval(operation) && !FIRST.contains(&operation);
    Ok(Permit { object, approval })
}

fn change_password() -> Problem {
    let text = "change your password first: PUT /v1/me/password";
    Problem::new(Code::PasswordChange, text)
}

/// Whether the one function that decides lets it through; if so, whether approval is needed.
fn decided(
    principal: &Principal,
    right: Right,
    object: &Object,
    operation: &str,
    noun: &str,
) -> Result<bool> {
    match decide(principal, right, object, operation) {
        Decision::Allow => Ok(false),
        Decision::NeedsApproval => Ok(true),
        Decision::Forbidden { .. } if principal.must_change => Err(change_password()),
        Decision::Forbidden { why } => Err(Problem::new(Code::Forbidden, why)),
        Decision::Hidden => Err(Problem::not_found(noun)),
    }
}

/// As [`check`], for what only a body names. Whether approval is needed was asked for the route.
pub(crate) fn allow(
    principal: &Principal,
    right: Right,
    object: &Object,
    operation: &str,
    noun: &str,
) -> Result<()> {
    decided(principal, right, object, operation, noun).map(|_| ())
}

/// Lets a request pass that another administrator has approved; else asks for that.
pub(crate) async fn admit(
    app: &App,
    operation: &str,
    caller: &Caller,
    object: &Object,
    path: &str,
    request: &[u8; 32],
) -> Result<()> {
    let principal = caller.principal()?;
    let admission = app.identity().admit(principal, operation, object, path, request).await?;
    let text = match admission {
        Admission::Pass => return Ok(()),
        Admission::Asked { id, expires_at } => format!(
            "another administrator must approve that first: approval {id} waits until \
             {expires_at}; then send the same request again"
        ),
        Admission::Refused { id, expires_at } => {
            format!("another administrator refused that: approval {id}, until {expires_at}")
        }
    };
    Err(Problem::new(Code::ApprovalNeeded, text))
}

/// Writes what came of a request to the audit trail.
pub(crate) async fn record(
    app: &App,
    route: &Route,
    caller: &Caller,
    object: &Object,
    path: &str,
    failed: Option<&str>,
) {
    let Caller::Known(principal) = caller else { return };
    let mut deed = Deed::new(route.id(), path);
    if let Some(organisation) = object.organisation {
        deed = deed.within(organisation);
    }
    if let Some(why) = failed {
        deed = deed.failed(why);
    }
    if let Err(error) = app.identity().record(&**principal, deed).await {
        tracing::error!(%error, operation = route.id(), "the audit trail can't be written");
    }
}

/// Whose rows the caller sees in the list of a route.
pub(crate) fn scope(route: &Route, caller: &Caller) -> Result<Scope> {
    match route.need() {
        Need::Right(right, _) => Ok(caller.principal()?.scope(right)),
        // A list that nobody needs a right for is nobody's.
        Need::Open(_) | Need::Login => Ok(Scope::Organisations(Vec::new())),
    }
}
