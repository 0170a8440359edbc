//! Four eyes.

use strongroom_catalog::testing;
use strongroom_identity::{
    Admission, Credential, Decision, Error, FOUR_EYES, FourEyes, KeySpec, Object, Principal, Right,
    UserChange, decide,
};

use crate::world::{HOUR, PASSWORD, World, origin};

const DELETE: &str = "images.delete";

struct Two {
    world: World,
    admin: Principal,
    other: Principal,
    object: Object,
}

impl Two {
    /// Two administrators, and deleting images needs both.
    async fn new(catalog: strongroom_catalog::Catalog) -> Self {
        let world = World::new(catalog).await;
        world.user("olga", "administrator", world.root).await;
        let operations = [DELETE.to_owned()].into();
        let four_eyes = FourEyes { operations, hours: 2, ..FourEyes::default() };
        world.identity.set_four_eyes(&world.admin, four_eyes, None).await.unwrap();
        let (admin, other) = (world.admin().await, world.log_in("olga", PASSWORD).await.unwrap());
        let object = Object::of(world.root);
        Self { world, admin, other, object }
    }

    async fn ask(&self, who: &Principal, request: u8) -> Admission {
        let identity = &self.world.identity;
        identity.admit(who, DELETE, &self.object, "image 7", &[request; 32]).await.unwrap()
    }

    async fn asked(&self, who: &Principal, request: u8) -> i64 {
        match self.ask(who, request).await {
            Admission::Asked { id, .. } => id,
            other => panic!("{other:?}"),
        }
    }

    async fn decide(&self, who: &Principal, id: i64, approve: bool) -> Result<(), Error> {
        self.world.identity.decide_approval(who, id, approve).await.map(drop)
    }
}

#[tokio::test]
async fn what_another_approved_passes_once() {
    testing::each(|catalog| async move {
        let two = Two::new(catalog).await;
        let decided = decide(&two.admin, Right::ImageDelete, &two.object, DELETE);
        assert_eq!(decided, Decision::NeedsApproval);
        let id = two.asked(&two.admin, 1).await;
        assert_eq!(two.asked(&two.admin, 1).await, id);
        assert_ne!(two.asked(&two.admin, 2).await, id);
        two.decide(&two.other, id, true).await.unwrap();
        // Another's, and another request, are not it.
        assert_ne!(two.asked(&two.other, 1).await, id);
        assert_ne!(two.asked(&two.admin, 2).await, id);
        assert_eq!(two.ask(&two.admin, 1).await, Admission::Pass);
        assert_ne!(two.asked(&two.admin, 1).await, id);
        assert!(matches!(two.decide(&two.other, id, true).await, Err(Error::State(_))));
        let lines = two.world.identity.audit_lines(0, 1000).await.unwrap();
        for operation in ["approval.ask", "approval.approve", "approval.use"] {
            assert!(lines.iter().any(|line| line.operation == operation), "{operation}");
        }
        assert!(two.world.identity.verify_audit().await.unwrap().is_good());
    })
    .await;
}

#[tokio::test]
async fn only_another_with_the_right_decides() {
    testing::each(|catalog| async move {
        let two = Two::new(catalog).await;
        let (world, identity) = (&two.world, &two.world.identity);
        let id = two.asked(&two.admin, 1).await;
        let forbidden = |outcome| matches!(outcome, Err(Error::Forbidden { .. }));
        assert!(forbidden(two.decide(&two.admin, id, true).await));
        // Nor with a key of one's own, nor at the machine itself, nor by one who acts for the asker.
        let mine = two.admin.user_id.unwrap();
        let spec = KeySpec { user_id: mine, name: "mine".into(), ..KeySpec::default() };
        let (_, key) = identity.create_key(&two.admin, spec).await.unwrap();
        assert!(forbidden(two.decide(&world.bearer(&key).await.unwrap(), id, true).await));
        let local = identity.authenticate(Credential::Local { uid: 0 }, &origin()).await.unwrap();
        assert!(forbidden(two.decide(&local, id, true).await));
        let dora = world.user("dora", "administrator", world.root).await;
        let act = UserChange { delegate_of: Some(Some(mine)), ..UserChange::default() };
        identity.change_user(&two.admin, dora.id, None, act).await.unwrap();
        let dora = world.log_in("dora", PASSWORD).await.unwrap();
        assert!(forbidden(two.decide(&dora, id, true).await));
        // And the other way round.
        let hers = two.asked(&dora, 1).await;
        assert!(forbidden(two.decide(&two.admin, hers, true).await));
        world.user("vera", "auditor", world.root).await;
        let vera = world.log_in("vera", PASSWORD).await.unwrap();
        assert!(forbidden(two.decide(&vera, id, true).await));
        let acme = world.organisation(world.root, "acme").await.id;
        world.user("tina", "tenant administrator", acme).await;
        let tina = world.log_in("tina", PASSWORD).await.unwrap();
        let hidden = two.decide(&tina, id, true).await;
        assert!(matches!(hidden, Err(Error::NotFound { .. })));
        two.decide(&two.other, id, true).await.unwrap();
        // One at the machine needs a second administrator as well.
        let by_local = two.asked(&local, 1).await;
        two.decide(&two.admin, by_local, true).await.unwrap();
        assert_eq!(two.ask(&local, 1).await, Admission::Pass);
    })
    .await;
}

#[tokio::test]
async fn what_was_refused_or_is_too_late_does_not_pass() {
    testing::each(|catalog| async move {
        let two = Two::new(catalog).await;
        let id = two.asked(&two.admin, 1).await;
        two.decide(&two.other, id, false).await.unwrap();
        assert!(
            matches!(two.ask(&two.admin, 1).await, Admission::Refused { id: of, .. } if of == id)
        );
        assert!(matches!(two.decide(&two.other, id, true).await, Err(Error::State(_))));
        let late = two.asked(&two.admin, 2).await;
        let approved = two.asked(&two.admin, 3).await;
        two.decide(&two.other, approved, true).await.unwrap();
        two.world.clock.advance(2 * HOUR);
        assert!(matches!(two.decide(&two.other, late, true).await, Err(Error::State(_))));
        assert_ne!(two.asked(&two.admin, 3).await, approved);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_passes() {
    testing::each(|catalog| async move {
        let two = Two::new(catalog).await;
        let id = two.asked(&two.admin, 1).await;
        two.decide(&two.other, id, true).await.unwrap();
        let nodes = [two.world.identity.clone(), two.world.another_node().await];
        let tries: Vec<_> = (0..8)
            .map(|n| {
                let (node, who, object) =
                    (nodes[n % 2].clone(), two.admin.clone(), two.object.clone());
                tokio::spawn(async move {
                    node.admit(&who, DELETE, &object, "image 7", &[1; 32]).await.unwrap()
                })
            })
            .collect();
        let mut passed = 0;
        for attempt in tries {
            passed += usize::from(attempt.await.unwrap() == Admission::Pass);
        }
        assert_eq!(passed, 1);
    })
    .await;
}

#[tokio::test]
async fn the_setting_guards_itself_and_is_checked() {
    testing::each(|catalog| async move {
        let two = Two::new(catalog).await;
        let appliance = &Object::APPLIANCE;
        let decided = decide(&two.admin, Right::SettingsManage, appliance, FOUR_EYES);
        assert_eq!(decided, Decision::NeedsApproval);
        let identity = &two.world.identity;
        let hours = |hours| FourEyes { hours, ..FourEyes::default() };
        for wrong in [0, 721] {
            let refused = identity.set_four_eyes(&two.admin, hours(wrong), None).await;
            assert!(matches!(refused, Err(Error::Invalid { field: "hours", .. })));
        }
        two.world.user("vera", "viewer", two.world.root).await;
        let vera = two.world.log_in("vera", PASSWORD).await.unwrap();
        let refused = identity.set_four_eyes(&vera, hours(1), None).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));
        identity.set_four_eyes(&two.admin, hours(1), None).await.unwrap();
        let decided = decide(&two.world.admin().await, Right::ImageDelete, &two.object, DELETE);
        assert_eq!(decided, Decision::Allow);
    })
    .await;
}

#[tokio::test]
async fn what_was_decided_does_not_hold_an_organisation() {
    testing::each(|catalog| async move {
        let two = Two::new(catalog).await;
        let identity = &two.world.identity;
        let acme = two.world.organisation(two.world.root, "acme").await.id;
        let admin = two.world.admin().await;
        let of = Object::of(acme);
        let asked = identity.admit(&admin, DELETE, &of, "image 7", &[1; 32]).await.unwrap();
        let Admission::Asked { id, .. } = asked else { panic!("{asked:?}") };
        let held = identity.remove_organisation(&admin, acme).await;
        assert!(matches!(held, Err(Error::InUse { .. })));
        let other = two.world.log_in("olga", PASSWORD).await.unwrap();
        two.decide(&other, id, false).await.unwrap();
        identity.remove_organisation(&admin, acme).await.unwrap();
    })
    .await;
}
