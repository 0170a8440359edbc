//! The one function that decides every access.

use crate::principal::Principal;
use crate::rights::Right;

/// The operation by which one changes one's own password: all that one may do who must.
pub const OWN_PASSWORD: &str = "me.password";

/// The operation that changes which operations need a second administrator. It needs one itself
/// as soon as any does.
pub const FOUR_EYES: &str = "settings.approvals";

/// What something is done to, as far as it matters for who may.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// The organisation it belongs to; none: the appliance itself.
    pub organisation: Option<i64>,
    /// The pool in which it lies.
    pub pool: Option<i64>,
}

impl Object {
    /// The appliance itself: what belongs to nobody in particular.
    pub const APPLIANCE: Self = Self { organisation: None, pool: None };

    /// Something of an organisation.
    pub const fn of(organisation: i64) -> Self {
        Self { organisation: Some(organisation), pool: None }
    }

    /// It lies in this pool.
    #[must_use]
    pub const fn in_pool(mut self, pool: i64) -> Self {
        self.pool = Some(pool);
        self
    }
}

/// What was decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow,
    /// It exists, but not that.
    Forbidden {
        /// Why not, and what would be needed.
        why: String,
    },
    /// For this one it does not exist.
    Hidden,
    /// Only after a second administrator's approval, see
    /// [`Identity::admit`](crate::Identity::admit).
    NeedsApproval,
}

/// Decides whether somebody may do an operation, which needs a right, to something.
pub fn decide(principal: &Principal, right: Right, object: &Object, operation: &str) -> Decision {
    let organisation = object.organisation.unwrap_or(principal.root);
    // The appliance itself exists for everybody, organisations only for those in them.
    if object.organisation.is_some() && !principal.sees(organisation) {
        return Decision::Hidden;
    }
    if let (Some(pool), Some(pools)) = (object.pool, &principal.narrowing.pools)
        && !pools.contains(&pool)
    {
        return Decision::Hidden;
    }
    let forbidden = |why: String| Decision::Forbidden { why };
    if principal.must_change && operation != OWN_PASSWORD {
        return forbidden("you must change your password first".into());
    }
    if let Some(operations) = &principal.narrowing.operations
        && !operations.contains(operation)
    {
        return forbidden(format!("this key is not for the operation `{operation}`"));
    }
    if !principal.has(right, organisation) {
        return forbidden(match object.organisation {
            Some(id) => format!("it needs the right `{right}` in organisation {id}"),
            None => format!("it needs the right `{right}` in the topmost organisation"),
        });
    }
    let four_eyes = &principal.four_eyes;
    if four_eyes.contains(operation) || (operation == FOUR_EYES && !four_eyes.is_empty()) {
        return Decision::NeedsApproval;
    }
    Decision::Allow
}
