//! API keys, and requests that are signed with them.

use aws_lc_rs::hmac;
use strongroom_catalog::{Sql, testing};
use strongroom_identity::{
    AuthError, Credential, Decision, Error, KeyChange, KeySpec, Object, Right, RightSet, Secret,
    SignedRequest, UserChange, Via, decide,
};

use crate::world::{HOUR, MINUTE, PASSWORD, World, origin};

fn spec(user_id: i64) -> KeySpec {
    KeySpec { user_id, name: "ci".into(), ..KeySpec::default() }
}

#[tokio::test]
async fn a_key_is_its_user_until_it_ends() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let user = world.user("jo", "operator", world.root).await;
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        let identity = &world.identity;
        let end = world.clock.now() + HOUR;
        let with_end = KeySpec { expires_at: Some(end), ..spec(user.id) };
        let (key, secret) = identity.create_key(&jo, with_end).await.unwrap();
        assert!(secret.expose().starts_with(&format!("srk_{}_", key.prefix)));
        let principal = world.bearer(&secret).await.unwrap();
        assert_eq!((principal.via, principal.key_id), (Via::Key, Some(key.id)));
        assert_eq!(principal.rights_in(world.root), jo.rights_in(world.root));
        assert!(matches!(identity.show_key(&jo, key.id).await, Err(Error::State(_))));

        let mut wrong = secret.expose().to_owned();
        wrong.pop();
        for text in [wrong.clone(), wrong + "!", format!("srk_{}_", key.prefix), "srk_".into()] {
            let refused = world.bearer(&Secret::new(text.as_str())).await;
            assert!(matches!(refused, Err(AuthError::Credentials)), "{text}");
        }
        let off = |enabled| KeyChange { enabled: Some(enabled), ..KeyChange::default() };
        let changed = identity.change_key(&jo, key.id, Some(key.version), off(false)).await;
        assert!(!changed.unwrap().enabled);
        assert!(matches!(world.bearer(&secret).await, Err(AuthError::Disabled)));
        let stale = identity.change_key(&jo, key.id, Some(key.version), off(true)).await;
        let stale = stale.unwrap_err().to_string();
        assert!(stale.contains("changed meanwhile"), "{stale}");
        identity.change_key(&jo, key.id, None, off(true)).await.unwrap();
        assert!(world.bearer(&secret).await.is_ok());
        world.clock.advance(HOUR);
        assert!(matches!(world.bearer(&secret).await, Err(AuthError::Ended)));
        let past = KeySpec { expires_at: Some(end), ..spec(user.id) };
        let past = identity.create_key(&jo, past).await;
        assert!(matches!(past, Err(Error::Invalid { field: "expires_at", .. })));
    })
    .await;
}

#[tokio::test]
async fn a_key_follows_its_user() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let user = world.user("jo", "operator", world.root).await;
        let (_, secret) = world.identity.create_key(&world.admin, spec(user.id)).await.unwrap();
        assert!(world.bearer(&secret).await.unwrap().has(Right::ImageCreate, world.root));
        let grant = world.role(user.id, "operator", world.root).await;
        world.identity.revoke(&world.admin, grant).await.unwrap();
        assert!(!world.bearer(&secret).await.unwrap().has(Right::ImageCreate, world.root));
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        world.identity.change_user(&world.admin, user.id, None, off).await.unwrap();
        assert!(matches!(world.bearer(&secret).await, Err(AuthError::Disabled)));
        world.identity.remove_user(&world.admin, user.id).await.unwrap();
        assert!(matches!(world.bearer(&secret).await, Err(AuthError::Credentials)));
    })
    .await;
}

#[tokio::test]
async fn a_narrow_key_stays_narrow() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let me = world.admin.user_id.unwrap();
        let narrow = KeySpec {
            rights: Some(RightSet::of(&[Right::ImageView, Right::UserManage])),
            pools: Some([3, 5].into()),
            operations: Some(["images.list".to_owned(), "images.show".to_owned()].into()),
            ..spec(me)
        };
        let (key, secret) = world.identity.create_key(&world.admin, narrow).await.unwrap();
        let by_key = world.bearer(&secret).await.unwrap();
        let on = |right, pool, operation: &str| {
            decide(&by_key, right, &Object::of(world.root).in_pool(pool), operation)
        };
        assert_eq!(on(Right::ImageView, 3, "images.list"), Decision::Allow);
        assert_eq!(on(Right::ImageView, 4, "images.list"), Decision::Hidden);
        let forbidden =
            [on(Right::ImageView, 3, "images.export"), on(Right::ImageDelete, 3, "images.show")];
        assert!(forbidden.iter().all(|decision| matches!(decision, Decision::Forbidden { .. })));
        // It can't make itself a wider one, in whatever way.
        let identity = &world.identity;
        let wider = [
            identity.create_key(&by_key, spec(me)).await.err(),
            identity.change_key(&by_key, key.id, None, KeyChange::default()).await.err(),
            identity.show_key(&by_key, key.id).await.err(),
            identity.set_password(&by_key, me, PASSWORD.into(), false).await.err(),
            identity.enrol_second_factor(&by_key).await.err(),
            identity.grant(&by_key, world.role(me, "viewer", world.root).await).await.err(),
        ];
        for refused in wider {
            assert!(matches!(refused, Some(Error::Forbidden { .. })), "{refused:?}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_keys_of_others_need_a_right_and_no_fewer_rights() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let acme = world.organisation(world.root, "acme").await.id;
        let tenant = world.user("tina", "tenant administrator", acme).await;
        world.user("otto", "operator", acme).await;
        world.user("vera", "viewer", acme).await;
        let identity = &world.identity;
        let tina = world.log_in("tina", PASSWORD).await.unwrap();
        let vera = world.log_in("vera", PASSWORD).await.unwrap();
        let otto = world.log_in("otto", PASSWORD).await.unwrap().user_id.unwrap();
        let (key, _) = identity.create_key(&tina, spec(otto)).await.unwrap();
        let other = identity.create_key(&vera, spec(otto)).await;
        assert!(matches!(other, Err(Error::Forbidden { .. })));
        let other = identity.remove_key(&vera, key.id).await;
        assert!(matches!(other, Err(Error::Forbidden { .. })));
        let above = identity.create_key(&tina, spec(world.admin.user_id.unwrap())).await;
        assert!(matches!(above, Err(Error::NotFound { .. })));
        let admin = world.admin().await;
        let grant = world.role(otto, "administrator", acme).await;
        identity.grant(&admin, grant).await.unwrap();
        // Now that one may more.
        let above = identity.create_key(&tina, spec(otto)).await;
        assert!(matches!(above, Err(Error::Forbidden { .. })));
        assert!(identity.create_key(&admin, spec(tenant.id)).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_key_that_is_shown_again_is_sealed() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let again = KeySpec { shown_again: true, ..spec(world.admin.user_id.unwrap()) };
        let (key, secret) = world.identity.create_key(&world.admin, again).await.unwrap();
        assert!(key.shown_again);
        let shown = world.identity.show_key(&world.admin, key.id).await.unwrap();
        assert_eq!(shown.expose(), secret.expose());
        let rows = Sql::new("SELECT sealed, hash FROM api_keys WHERE id = ?").bind(key.id);
        let rows = world.catalog.rows(rows).await;
        let mut row = rows.unwrap().into_iter().next().unwrap();
        let (sealed, hash): (Vec<u8>, Vec<u8>) = (row.take().unwrap(), row.take().unwrap());
        let plain = &secret.expose().as_bytes()[20..];
        assert!(!sealed.windows(plain.len()).any(|part| part == plain));
        assert_eq!(hash.len(), 32);
        let lines = world.identity.audit_lines(0, 1000).await.unwrap();
        assert!(lines.iter().any(|line| line.operation == "key.reveal"));
        let part = secret.expose().rsplit_once('_').unwrap().1;
        assert!(!format!("{lines:?}{key:?}{secret:?}").contains(part));
    })
    .await;
}

#[tokio::test]
async fn a_key_of_a_dialect_opens_that_alone_and_nothing_else_opens_it() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let (identity, me) = (&world.identity, world.admin.user_id.unwrap());
        let of = KeySpec { dialect: Some("ngx".into()), shown_again: true, ..spec(me) };
        let (key, secret) = identity.create_key(&world.admin, of).await.unwrap();
        assert_eq!(key.dialect.as_deref(), Some("ngx"));
        let (_, native) = identity.create_key(&world.admin, spec(me)).await.unwrap();
        let other = |outcome| matches!(outcome, Err(AuthError::OtherInterface));
        let enter = async |dialect, key: &Secret| {
            identity.authenticate_in(dialect, key.clone(), &origin()).await
        };
        // Twice: the second time the answer is remembered.
        for _ in 0..2 {
            let principal = enter("ngx", &secret).await.unwrap();
            assert_eq!((principal.dialect(), principal.key_id), (Some("ngx"), Some(key.id)));
            assert!(other(world.bearer(&secret).await));
            assert!(other(enter("another", &secret).await));
            assert!(other(enter("ngx", &native).await));
        }
        let request = SignedRequest {
            prefix: key.prefix.clone(),
            text: "GET /v1/keys".into(),
            time: world.clock.now().as_second(),
            nonce: "0123456789abcdef".into(),
            signature: Vec::new(),
        };
        let credential = Credential::Signed(signed(request, &secret));
        assert!(other(identity.authenticate(credential, &origin()).await));
        // Nor does it make another key.
        let principal = enter("ngx", &secret).await.unwrap();
        let made = identity.create_key(&principal, spec(me)).await;
        assert!(matches!(made, Err(Error::Forbidden { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_signed_request_passes_once() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let me = world.admin.user_id.unwrap();
        let again = KeySpec { shown_again: true, ..spec(me) };
        let (key, secret) = world.identity.create_key(&world.admin, again).await.unwrap();
        let request = || SignedRequest {
            prefix: key.prefix.clone(),
            text: "POST /v1/jobs?a=b".into(),
            time: world.clock.now().as_second(),
            nonce: "0123456789abcdef".into(),
            signature: Vec::new(),
        };
        let send = async |request: &SignedRequest| {
            let credential = Credential::Signed(request.clone());
            world.identity.authenticate(credential, &origin()).await
        };
        let good = signed(request(), &secret);
        let changed = [
            SignedRequest { text: "PUT /v1/jobs?a=b".into(), ..good.clone() },
            SignedRequest { signature: Vec::new(), ..good.clone() },
            SignedRequest { signature: good.signature[1..].to_vec(), ..good.clone() },
            SignedRequest { prefix: "other".into(), ..good.clone() },
        ];
        for bad in &changed {
            assert!(matches!(send(bad).await, Err(AuthError::Credentials)), "{bad:?}");
        }
        let principal = send(&good).await.unwrap();
        assert_eq!((principal.via, principal.user_id), (Via::Signed, Some(me)));
        assert!(matches!(send(&good).await, Err(AuthError::Stale(_))));
        let node = world.another_node().await;
        let replayed = node.authenticate(Credential::Signed(good.clone()), &origin()).await;
        assert!(matches!(replayed, Err(AuthError::Stale(_))));
        // As long as its time is good, and after.
        world.clock.advance(5 * MINUTE);
        assert!(matches!(send(&good).await, Err(AuthError::Stale(_))));
        world.clock.advance(6 * MINUTE);
        assert!(matches!(send(&good).await, Err(AuthError::Stale(_))));
        let early = SignedRequest { time: world.clock.now().as_second() + 301, ..request() };
        assert!(matches!(send(&signed(early, &secret)).await, Err(AuthError::Stale(_))));
        let short = SignedRequest { nonce: "short".into(), ..request() };
        assert!(matches!(send(&signed(short, &secret)).await, Err(AuthError::Stale(_))));
        assert!(send(&signed(request(), &secret)).await.is_ok());

        let (plain, secret) = world.identity.create_key(&world.admin, spec(me)).await.unwrap();
        let by_plain = SignedRequest { prefix: plain.prefix, ..request() };
        let by_plain = signed(by_plain, &secret);
        assert!(matches!(send(&by_plain).await, Err(AuthError::Credentials)));
    })
    .await;
}

fn signed(request: SignedRequest, key: &Secret) -> SignedRequest {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    let tag = hmac::sign(&key, request.text.as_bytes());
    SignedRequest { signature: tag.as_ref().to_vec(), ..request }
}
