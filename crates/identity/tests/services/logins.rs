//! Names and passwords, waiting after failures, the second factor.

use crate::world::{MINUTE, PASSWORD, SECOND, World, origin, password};
use aws_lc_rs::hmac;
use jiff::Timestamp;
use strongroom_catalog::identity::AuditLine;
use strongroom_catalog::{Sql, testing};
use strongroom_identity::{
    AuthError, Credential, Decision, Error, OWN_PASSWORD, Object, Origin, Right, Secret,
    UserChange, UserSpec, decide,
};

#[tokio::test]
async fn wrong_passwords_and_unknown_names_are_the_same() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        world.user("jo", "viewer", world.root).await;
        for (name, text) in [("jo", "wrong password"), ("nobody", PASSWORD), ("jo", ""), ("", "")] {
            let refused = world.log_in(name, text).await.unwrap_err();
            assert!(matches!(refused, AuthError::Credentials), "{name}: {refused:?}");
        }
        let long = "x".repeat(100_000);
        for (name, text) in [("jo", long.as_str()), (long.as_str(), PASSWORD), ("j\0", PASSWORD)] {
            assert!(matches!(world.log_in(name, text).await, Err(AuthError::Credentials)));
        }
        assert_eq!(world.log_in("Jo", PASSWORD).await.unwrap().name, "jo");
        let lines = world.identity.audit_lines(0, 1000).await.unwrap();
        let failed: Vec<&AuditLine> =
            lines.iter().filter(|l| l.operation == "login" && l.result != "ok").collect();
        assert_eq!(failed.len(), 5);
        assert!(failed.iter().all(|line| line.address == "192.0.2.7"));
        // What was typed as a name may be a password.
        assert!(lines.iter().all(|line| !format!("{line:?}").contains("nobody")));
        assert_eq!(failed[1].user_name, "(unknown)");
    })
    .await;
}

#[tokio::test]
async fn failures_make_one_wait_also_after_a_restart() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        world.user("jo", "viewer", world.root).await;
        for name in ["jo", "nobody"] {
            for _ in 0..4 {
                let refused = world.log_in(name, "wrong password").await;
                assert!(matches!(refused, Err(AuthError::Credentials)));
            }
            // The right one too: else waiting would tell which one it is.
            let blocked = world.log_in(name, PASSWORD).await;
            assert!(matches!(blocked, Err(AuthError::Blocked { wait }) if wait == SECOND));
        }
        let other = world.another_node().await;
        let blocked = other.authenticate(password("jo", PASSWORD), &origin()).await;
        assert!(matches!(blocked, Err(AuthError::Blocked { wait }) if wait == SECOND));
        world.clock.advance(SECOND);
        let refused = world.log_in("jo", "wrong password").await;
        assert!(matches!(refused, Err(AuthError::Credentials)));
        let blocked = world.log_in("jo", PASSWORD).await;
        assert!(matches!(blocked, Err(AuthError::Blocked { wait }) if wait == 2 * SECOND));
        world.clock.advance(2 * SECOND);
        assert!(world.log_in("jo", PASSWORD).await.is_ok());
        assert!(other.authenticate(password("jo", PASSWORD), &origin()).await.is_ok());
        // It begins anew.
        for _ in 0..3 {
            assert!(matches!(world.log_in("jo", "wrong").await, Err(AuthError::Credentials)));
        }
        assert!(world.log_in("jo", PASSWORD).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn an_address_that_tries_many_names_waits_and_others_do_not() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let bad = Origin::new(Some("2001:db8::bad".parse().unwrap()), "");
        for i in 0..25 {
            let name = format!("user{i}");
            let refused = world.identity.authenticate(password(&name, "guess me"), &bad).await;
            match refused {
                Err(AuthError::Credentials) => assert!(i <= 20, "{i} were let through"),
                Err(AuthError::Blocked { .. }) => assert!(i > 20, "{i} was not"),
                other => panic!("{other:?}"),
            }
        }
        let text = world.passphrase.expose();
        let blocked = world.identity.authenticate(password("admin", text), &bad).await;
        assert!(matches!(blocked, Err(AuthError::Blocked { .. })));
        assert!(world.log_in("admin", text).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn who_is_switched_off_or_must_change_the_password() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let user = world.user("jo", "viewer", world.root).await;
        let admin = world.admin().await;
        let identity = &world.identity;
        identity.set_password(&admin, user.id, "another password".into(), true).await.unwrap();
        assert!(matches!(world.log_in("jo", PASSWORD).await, Err(AuthError::Credentials)));
        let jo = world.log_in("jo", "another password").await.unwrap();
        let may = |operation| decide(&jo, Right::PoolView, &Object::of(world.root), operation);
        assert!(
            matches!(may("pools.list"), Decision::Forbidden { why } if why.contains("password"))
        );
        assert_eq!(may(OWN_PASSWORD), Decision::Allow);
        let change = |old: &str, new: &str| {
            let (old, new) = (Secret::new(old), Secret::new(new));
            identity.change_own_password(&jo, old, new)
        };
        assert!(matches!(change("not that one", PASSWORD).await, Err(Error::Invalid { .. })));
        assert!(matches!(change("another password", "short").await, Err(Error::Invalid { .. })));
        let same = change("another password", "another password").await;
        assert!(matches!(same, Err(Error::Invalid { .. })));
        change("another password", PASSWORD).await.unwrap();
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        assert!(!jo.must_change);
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        identity.change_user(&admin, user.id, None, off).await.unwrap();
        assert!(matches!(world.log_in("jo", PASSWORD).await, Err(AuthError::Disabled)));
        assert!(matches!(world.log_in("jo", "wrong").await, Err(AuthError::Credentials)));
    })
    .await;
}

#[tokio::test]
async fn a_user_without_a_password_can_not_log_in_with_one() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let spec =
            UserSpec { organisation_id: world.root, name: "robot".into(), ..UserSpec::default() };
        world.identity.create_user(&world.admin, spec).await.unwrap();
        for text in ["", "nobody has this password"] {
            assert!(matches!(world.log_in("robot", text).await, Err(AuthError::Credentials)));
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_factor_is_enrolled_by_a_code_and_each_code_passes_once() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let user = world.user("jo", "viewer", world.root).await;
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        let identity = &world.identity;
        let enrolment = identity.enrol_second_factor(&jo).await.unwrap();
        assert!(enrolment.url.expose().contains(enrolment.secret.expose()));
        let code = || code(enrolment.secret.expose(), world.clock.now());
        // Not yet.
        assert!(world.log_in("jo", PASSWORD).await.is_ok());
        let wrong = identity.confirm_second_factor(&jo, "000000").await;
        assert!(matches!(wrong, Err(Error::Invalid { field: "code", .. })));
        let recovery = identity.confirm_second_factor(&jo, &code()).await.unwrap();
        assert_eq!(recovery.len(), 10);
        assert!(matches!(identity.enrol_second_factor(&jo).await, Err(Error::State(_))));
        let again = identity.confirm_second_factor(&jo, &code()).await;
        assert!(matches!(again, Err(Error::State(_))));

        let with = async |code: &str| {
            let credential = Credential::Password {
                name: "jo".into(),
                password: PASSWORD.into(),
                code: Some(code.into()),
                directory: None,
            };
            identity.authenticate(credential, &origin()).await
        };
        for _ in 0..10 {
            assert!(matches!(world.log_in("jo", PASSWORD).await, Err(AuthError::SecondFactor)));
        }
        assert!(matches!(world.log_in("jo", "wrong").await, Err(AuthError::Credentials)));
        // The one that confirmed was used by that.
        assert!(matches!(with(&code()).await, Err(AuthError::Credentials)));
        world.clock.advance(MINUTE);
        let fresh = code();
        assert!(with(&fresh).await.is_ok());
        assert!(matches!(with(&fresh).await, Err(AuthError::Credentials)));
        // An older one, which the other's clock would still allow, neither.
        let older = self::code(enrolment.secret.expose(), world.clock.now() - 30 * SECOND);
        assert!(matches!(with(&older).await, Err(AuthError::Credentials)));
        world.clock.advance(MINUTE);
        let typed = recovery[0].expose().to_uppercase().replace('-', " ");
        assert!(with(&typed).await.is_ok());
        assert!(matches!(with(&typed).await, Err(AuthError::Credentials)));
        assert!(with(recovery[1].expose()).await.is_ok());

        let none = identity.remove_second_factor(&jo, user.id, None).await;
        assert!(matches!(none, Err(Error::Invalid { field: "password", .. })));
        identity.remove_second_factor(&world.admin, user.id, None).await.unwrap();
        assert!(world.log_in("jo", PASSWORD).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn the_secret_of_the_second_factor_is_sealed() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let enrolment = world.identity.enrol_second_factor(&world.admin).await.unwrap();
        let secret = data_encoding::BASE32_NOPAD.decode(enrolment.secret.expose().as_bytes());
        let secret = secret.unwrap();
        let rows = world.catalog.rows(Sql::new("SELECT totp FROM users")).await.unwrap();
        let stored: Vec<u8> = rows.into_iter().next().unwrap().take().unwrap();
        assert!(!stored.windows(secret.len()).any(|part| part == secret));
    })
    .await;
}

/// RFC 6238, written once more.
fn code(secret: &str, at: Timestamp) -> String {
    let secret = data_encoding::BASE32_NOPAD.decode(secret.as_bytes()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &secret);
    let tag = hmac::sign(&key, &(at.as_second() / 30).to_be_bytes());
    let tag = tag.as_ref();
    let offset = usize::from(tag[19] & 15);
    let number = u32::from_be_bytes(tag[offset..offset + 4].try_into().unwrap());
    format!("{:06}", (number & 0x7fff_ffff) % 1_000_000)
}
