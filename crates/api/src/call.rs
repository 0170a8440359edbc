//! What a handler knows of the request beside its parts.

use std::sync::Arc;
use strongroom_appliance::network::Reached;

use aws_lc_rs::digest;

use http::request::Parts;
use strongroom_catalog::Record;
use strongroom_catalog::jobs::Request;
use strongroom_catalog::list::{Count, Page, Scope};
use strongroom_identity::{Deed, Object, Principal, Right};

use crate::access::{self, Caller, Need};
use crate::app::App;
use crate::problem::Result;
use crate::route::{self, Items, Listed, Listing, Route};

/// One request that was let through.
#[derive(Clone, Debug)]
pub struct Call {
    app: App,
    caller: Caller,
    object: Object,
    operation: &'static str,
    need: Need,
    origin: strongroom_identity::Origin,
    reached: Option<Reached>,
    request: Option<Request>,
    unapproved: Option<Unapproved>,
}

/// What a second administrator must approve before it is done.
#[derive(Clone, Debug)]
pub(crate) struct Unapproved {
    /// The path, for people.
    pub(crate) place: String,
    /// A hash of all that says what will be done.
    pub(crate) request: [u8; 32],
}

impl Call {
    pub(crate) fn new(
        app: App,
        route: &Route,
        caller: Caller,
        object: Object,
        parts: &Parts,
        request: Option<Request>,
    ) -> Self {
        let (origin, reached) = (access::origin(parts), access::reached(parts));
        let (operation, need) = (route.id(), route.need());
        Self { app, caller, object, operation, need, origin, reached, request, unapproved: None }
    }

    /// A part of it, as the handler finds out, needs this approval.
    pub(crate) fn unapproved(self, unapproved: Option<Unapproved>) -> Self {
        Self { unapproved, ..self }
    }

    /// Asks for a second administrator's approval of what the route says that its handler asks
    /// for: an error until it was given, once. `what` is told to whoever decides.
    ///
    /// # Errors
    /// The problem to answer with; those of the database.
    pub async fn approved(&self, what: &str) -> Result<()> {
        let Some(Unapproved { place, request }) = &self.unapproved else { return Ok(()) };
        let about = format!("{place}: {what}");
        access::admit(&self.app, self.operation, &self.caller, &self.object, &about, request).await
    }

    /// Whether another administrator must approve of the request yet.
    pub(crate) fn waits_for_approval(&self) -> bool {
        self.unapproved.is_some()
    }

    /// As [`Call::approved`], of what is named by this too, which is not in the request: who approves
    /// sees it, and of something else they did not approve.
    ///
    /// # Errors
    /// As [`Call::approved`].
    pub(crate) async fn approved_of(&self, what: &str) -> Result<()> {
        let Some(Unapproved { place, request }) = &self.unapproved else { return Ok(()) };
        let place = format!("{place}: {what}");
        let mut all = digest::Context::new(&digest::SHA256);
        all.update(request);
        all.update(what.as_bytes());
        let mut request = [0; 32];
        request.copy_from_slice(all.finish().as_ref());
        access::admit(&self.app, self.operation, &self.caller, &self.object, &place, &request).await
    }

    /// Writes down that something left the appliance, though nothing was changed.
    ///
    /// # Errors
    /// When nobody is logged in; those of the database.
    pub async fn record(&self, what: &str) -> Result<()> {
        let deed = Deed::new(self.operation, what);
        Ok(self.app.identity().record(&**self.principal()?, deed).await?)
    }

    /// The services.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Who asks.
    ///
    /// # Errors
    /// A problem that asks to log in, on routes open to everybody.
    pub fn principal(&self) -> Result<&Arc<Principal>> {
        self.caller.principal()
    }

    /// What the path names.
    pub fn object(&self) -> &Object {
        &self.object
    }

    /// From where they ask.
    pub fn origin(&self) -> &strongroom_identity::Origin {
        &self.origin
    }

    /// How they came over the network; none: through the control socket.
    pub fn reached(&self) -> Option<Reached> {
        self.reached
    }

    /// The request itself, if it came with a key because it may be sent again.
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The operation's id.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// Asks whether the caller has the route's right on something that only the body names.
    ///
    /// # Errors
    /// The problem to answer with.
    pub fn allow(&self, right: Right, object: &Object, noun: &str) -> Result<()> {
        access::allow(self.principal()?, right, object, self.operation, noun)
    }

    /// Whose rows the caller may see here.
    ///
    /// # Errors
    /// A problem that asks to log in.
    pub fn scope(&self) -> Result<Scope> {
        match self.need {
            Need::Right(right, _) => Ok(self.principal()?.scope(right)),
            Need::Open(_) | Need::Login => Ok(Scope::Organisations(Vec::new())),
        }
    }

    /// The items of a list that the caller may see, each as it is shown.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn items<R: Record, L: Listed, T>(
        &self,
        listing: &Listing<L>,
        show: impl FnMut(R) -> T,
    ) -> Result<Items<T>> {
        let (catalog, scope) = (self.app.catalog(), self.scope()?);
        let Some(list) = route::narrowed(L::RESOURCE, &listing.pairs, self.principal()?)? else {
            let count = listing.count.then_some(Count { count: 0, exact: true });
            return Ok(Items { items: Vec::new(), more: false, count });
        };
        let page: Page<R> = list.page(catalog, &scope).await?;
        let count = match listing.count {
            true => Some(list.count(catalog, &scope).await?),
            false => None,
        };
        Ok(Items { items: page.items.into_iter().map(show).collect(), more: page.more, count })
    }
}
