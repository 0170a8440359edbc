//! The one kind of transaction in which identity is changed.

use strongroom_catalog::Tx;
use strongroom_catalog::identity::{AuditHead, GrantedRights, Organisation, Parent, User};

use crate::audit::{Deed, Who, append_at};
use crate::identity::Identity;
use crate::principal::{Narrowing, Principal, Rights, spread};
use crate::rights::{Right, RightSet};
use crate::{Error, Result};

/// A change that is under way. It has the end of the audit trail locked, on all nodes; dropped, it
/// leaves nothing.
pub(crate) struct Change<'a> {
    identity: &'a Identity,
    tx: Tx,
    head: AuditHead,
    who: Who,
    /// Whether an administrator must be left.
    guarded: bool,
}

impl Identity {
    pub(crate) async fn change(&self, who: Who) -> Result<Change<'_>> {
        let mut tx = self.inner.catalog.begin().await?;
        let head = AuditHead::lock(&mut tx).await?;
        Ok(Change { identity: self, tx, head, who, guarded: false })
    }
}

impl Change<'_> {
    pub(crate) fn tx(&mut self) -> &mut Tx {
        &mut self.tx
    }

    /// Somebody may stop being an administrator by it.
    pub(crate) fn guard(&mut self) {
        self.guarded = true;
    }

    /// Writes the line of the audit trail, and makes all of it durable.
    pub(crate) async fn commit(mut self, deed: Deed) -> Result<()> {
        if self.guarded && self.tx.find_one::<User>(User::administrators()).await?.is_none() {
            return Err(Error::LastAdministrator);
        }
        let inner = &self.identity.inner;
        append_at(&mut self.tx, self.head, &inner.key, inner.clock.now(), &self.who, deed).await?;
        let done = self.tx.commit().await;
        // Also when it failed: what was lost may be the answer alone.
        inner.cache.clear();
        Ok(done?)
    }

    pub(crate) async fn user(&mut self, id: i64) -> Result<User> {
        let user = self.tx.find_one(User::by_id(id)).await?;
        user.ok_or(Error::NotFound { what: "user" })
    }

    pub(crate) async fn organisation(&mut self, id: i64) -> Result<Organisation> {
        let found = self.tx.find_one(Organisation::by_id(id)).await?;
        found.ok_or(Error::NotFound { what: "organisation" })
    }

    /// Refuses one who may do less than the user that is to be changed: a password or key of
    /// somebody is all that one may.
    pub(crate) async fn covers(&mut self, by: &Principal, user: i64) -> Result<()> {
        if by.user_id == Some(user) {
            return Ok(());
        }
        let tree = self.tx.find::<Parent>(Parent::all()).await?;
        let tree = tree.into_iter().map(|edge| (edge.id, edge.parent_id)).collect();
        let granted = granted(self.tx.find(GrantedRights::of_user(user)).await?);
        for (organisation, rights) in spread(&granted, &tree) {
            let more = rights.without(by.rights_in(organisation));
            if !more.is_empty() {
                let why = format!(
                    "that user has rights in organisation {organisation} that you have not: {more}"
                );
                return Err(Error::Forbidden { why });
            }
        }
        Ok(())
    }
}

/// What is granted where, as the catalogue tells it.
pub(crate) fn granted(found: Vec<GrantedRights>) -> Rights {
    let mut rights = Rights::new();
    for grant in found {
        let here: &mut RightSet = rights.entry(grant.organisation_id).or_default();
        *here = here.or(RightSet::stored(&grant.rights));
    }
    rights
}

impl Principal {
    /// Refuses one who hasn't this right there; what isn't seen isn't there.
    pub(crate) fn require(
        &self,
        right: Right,
        organisation: i64,
        what: &'static str,
    ) -> Result<()> {
        if !self.sees(organisation) {
            return Err(Error::NotFound { what });
        }
        if !self.has(right, organisation) {
            let why = format!("it needs the right `{right}` in organisation {organisation}");
            return Err(Error::Forbidden { why });
        }
        Ok(())
    }

    /// Refuses one that a key narrows: it could make itself a wider one.
    pub(crate) fn require_whole(&self) -> Result<()> {
        if *self.narrowing == Narrowing::default() {
            return Ok(());
        }
        let why = "a key that is narrowed can't change users, keys or rights: log in, or use a key that isn't";
        Err(Error::Forbidden { why: why.into() })
    }

    /// The user; the control socket and the appliance have none.
    pub(crate) fn require_user(&self) -> Result<i64> {
        let none = "this is for users: log in as one";
        self.user_id.ok_or(Error::Forbidden { why: none.into() })
    }
}
