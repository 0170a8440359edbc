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
    if principal.narrowing.pools.is_some() && of_all_pools(right, object) {
        return forbidden("this key is for some pools: that is about all there are".into());
    }
    if principal.needs_approval(operation) {
        return Decision::NeedsApproval;
    }
    Decision::Allow
}

/// Whether it is done to all pools, or makes one more.
fn of_all_pools(right: Right, object: &Object) -> bool {
    *object == Object::APPLIANCE && matches!(right, Right::PoolManage | Right::StatsView)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use proptest::prelude::*;
    use strongroom_catalog::list::Scope;

    use super::*;
    use crate::principal::{Narrowing, Rights, Via, effective, spread};
    use crate::rights::RightSet;

    const ROOT: i64 = 1;
    const ORGANISATIONS: i64 = 6;

    fn principal(rights: Rights, narrowing: Narrowing, four_eyes: &[&str]) -> Principal {
        Principal {
            user_id: Some(1),
            name: "jo".into(),
            organisation_id: ROOT,
            delegate_of: None,
            via: Via::Key,
            key_id: None,
            session_id: None,
            address: None,
            must_change: false,
            root: ROOT,
            rights: Arc::new(rights),
            narrowing: Arc::new(narrowing),
            four_eyes: Arc::new(four_eyes.iter().map(|&o| o.to_owned()).collect()),
        }
    }

    fn sets() -> impl Strategy<Value = RightSet> {
        let some = proptest::sample::subsequence(Right::ALL, 0..=Right::ALL.len());
        prop_oneof![some.prop_map(|rights| RightSet::of(&rights)), Just(RightSet::ALL)]
    }

    /// A tree in which each is part of one before it.
    fn trees() -> impl Strategy<Value = BTreeMap<i64, Option<i64>>> {
        proptest::collection::vec(0..ORGANISATIONS, ORGANISATIONS as usize).prop_map(|parents| {
            let edges = (2..=ORGANISATIONS).zip(parents);
            let below = edges.map(|(id, parent)| (id, Some(parent % (id - 1) + 1)));
            below.chain([(ROOT, None)]).collect()
        })
    }

    fn grants() -> impl Strategy<Value = Rights> {
        proptest::collection::btree_map(1..=ORGANISATIONS, sets(), 0..4)
    }

    fn objects() -> impl Strategy<Value = Object> {
        (proptest::option::of(1..=ORGANISATIONS + 1), proptest::option::of(1..4i64))
            .prop_map(|(organisation, pool)| Object { organisation, pool })
    }

    fn narrowings() -> impl Strategy<Value = Narrowing> {
        let pools = proptest::option::of(proptest::collection::btree_set(1..4i64, 0..3));
        let operations =
            proptest::option::of(proptest::sample::subsequence(vec!["a", "b", "c"], 0..3));
        (proptest::option::of(sets()), pools, operations).prop_map(|(rights, pools, operations)| {
            let operations = operations.map(|all| all.into_iter().map(str::to_owned).collect());
            Narrowing { rights, pools, operations, dialect: None }
        })
    }

    fn rights() -> impl Strategy<Value = Right> {
        proptest::sample::select(Right::ALL)
    }

    proptest! {
        #[test]
        fn a_key_allows_what_its_user_may_and_it_is_for_and_nothing_else(
            tree in trees(), granted in grants(), key in narrowings(), right in rights(),
            object in objects(), operation in "[abc]",
        ) {
            let own = spread(&granted, &tree);
            let user = principal(own.clone(), Narrowing::default(), &[]);
            let by_key = principal(effective(own, None, key.rights), key.clone(), &[]);
            let allowed = decide(&user, right, &object, &operation) == Decision::Allow;
            let is_for = key.rights.is_none_or(|rights| rights.has(right))
                && key.operations.is_none_or(|all| all.contains(&operation))
                && object.pool.is_none_or(|pool| key.pools.as_ref().is_none_or(|all| all.contains(&pool)));
            let of_one = object != Object::APPLIANCE
                || ![Right::PoolManage, Right::StatsView].contains(&right);
            let is_for = is_for && (key.pools.is_none() || of_one);
            let decided = decide(&by_key, right, &object, &operation);
            prop_assert_eq!(decided == Decision::Allow, allowed && is_for);
        }

        #[test]
        fn a_delegate_may_what_both_may(
            tree in trees(), granted in grants(), other in grants(), right in rights(),
            object in objects(),
        ) {
            let (own, other) = (spread(&granted, &tree), spread(&other, &tree));
            let whole = Narrowing::default;
            let delegate = principal(effective(own.clone(), Some(&other), None), whole(), &[]);
            let allows = |principal: &Principal| {
                decide(principal, right, &object, "a") == Decision::Allow
            };
            let both = allows(&principal(own, whole(), &[])) && allows(&principal(other, whole(), &[]));
            prop_assert_eq!(allows(&delegate), both);
        }

        #[test]
        fn what_is_hidden_is_not_listed_and_what_is_listed_is_allowed(
            tree in trees(), granted in grants(), right in rights(), id in 1..=ORGANISATIONS,
        ) {
            let user = principal(spread(&granted, &tree), Narrowing::default(), &[]);
            let listed = match user.scope(right) {
                Scope::All => true,
                Scope::Organisations(ids) => ids.contains(&id),
            };
            let decided = decide(&user, right, &Object::of(id), "a");
            prop_assert_eq!(listed, decided == Decision::Allow);
            prop_assert_eq!(user.sees(id), decided != Decision::Hidden);
        }
    }

    #[test]
    fn outside_ones_organisations_nothing_exists() {
        let rights = Rights::from([(2, RightSet::ALL)]);
        let user = principal(rights, Narrowing::default(), &["a"]);
        let on = |object| decide(&user, Right::ImageDelete, &object, "b");
        assert_eq!(on(Object::of(2)), Decision::Allow);
        assert_eq!(on(Object::of(3)), Decision::Hidden);
        assert_eq!(on(Object::of(ROOT)), Decision::Hidden);
        // Even for an operation that would need approval.
        assert_eq!(decide(&user, Right::ImageDelete, &Object::of(3), "a"), Decision::Hidden);
        assert!(
            matches!(on(Object::APPLIANCE), Decision::Forbidden { why } if why.contains("topmost"))
        );
    }

    #[test]
    fn why_not_is_said() {
        let rights = Rights::from([(2, RightSet::of(&[Right::ImageView]))]);
        let mut user = principal(rights, Narrowing::default(), &[]);
        let why = |user: &Principal| match decide(user, Right::ImageDelete, &Object::of(2), "a") {
            Decision::Forbidden { why } => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(why(&user), "it needs the right `image.delete` in organisation 2");
        let operations = Some(BTreeSet::from(["b".to_owned()]));
        user.narrowing = Arc::new(Narrowing { operations, ..Narrowing::default() });
        assert_eq!(why(&user), "this key is not for the operation `a`");
        user.must_change = true;
        assert_eq!(why(&user), "you must change your password first");
    }

    #[test]
    fn four_eyes_come_after_the_right_and_guard_themselves() {
        let all = || Rights::from([(ROOT, RightSet::ALL)]);
        let viewer = Rights::from([(ROOT, RightSet::of(&[Right::ImageView]))]);
        let on = |principal: &Principal, operation: &str| {
            decide(principal, Right::ImageDelete, &Object::of(ROOT), operation)
        };
        let admin = principal(all(), Narrowing::default(), &["images.delete"]);
        assert_eq!(on(&admin, "images.delete"), Decision::NeedsApproval);
        assert_eq!(on(&admin, "images.forget"), Decision::Allow);
        assert_eq!(on(&admin, FOUR_EYES), Decision::NeedsApproval);
        let viewer = principal(viewer, Narrowing::default(), &["images.delete"]);
        assert!(matches!(on(&viewer, "images.delete"), Decision::Forbidden { .. }));
        let nobody_asks = principal(all(), Narrowing::default(), &[]);
        assert_eq!(on(&nobody_asks, FOUR_EYES), Decision::Allow);
    }
}
