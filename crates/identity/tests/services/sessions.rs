//! Sessions, pairs of tokens, short signed tokens.

use crate::world::{HOUR, MINUTE, PASSWORD, SECOND, World, origin};
use data_encoding::BASE64URL_NOPAD;
use strongroom_catalog::identity::Session;
use strongroom_catalog::old::{self, Old};
use strongroom_catalog::{Sql, testing};
use strongroom_identity::{
    AuthError, Credential, Error, JwtLife, KeySpec, Life, Origin, Right, RightSet, Secret,
    UserChange, Via,
};

#[tokio::test]
async fn a_session_ends_without_use_and_in_any_case() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let life = Life { idle: Some(20 * MINUTE), total: HOUR };
        let open = world.identity.open_session(&world.admin, life, &origin()).await.unwrap();
        assert!(open.token.expose().starts_with("srs_"));
        let principal = world.bearer(&open.token).await.unwrap();
        assert_eq!((principal.via, principal.session_id), (Via::Session, Some(open.id)));
        assert_eq!(principal.user_id, world.admin.user_id);
        for _ in 0..3 {
            world.clock.advance(19 * MINUTE);
            assert!(world.bearer(&open.token).await.is_ok());
        }
        world.clock.advance(3 * MINUTE);
        assert!(matches!(world.bearer(&open.token).await, Err(AuthError::Ended)));

        let open = world.identity.open_session(&world.admin, life, &origin()).await.unwrap();
        world.clock.advance(20 * MINUTE + SECOND);
        assert!(matches!(world.bearer(&open.token).await, Err(AuthError::Ended)));
        let (catalog, now) = (world.identity.catalog(), world.clock.now());
        assert_eq!(old::remove(catalog, Old::Sessions, now, 10).await.unwrap(), 2);
        assert!(matches!(world.bearer(&open.token).await, Err(AuthError::Credentials)));
    })
    .await;
}

#[tokio::test]
async fn a_request_can_ask_not_to_count_as_use() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let life = Life { idle: Some(20 * MINUTE), total: 10 * HOUR };
        let open = world.identity.open_session(&world.admin, life, &origin()).await.unwrap();
        let watching = Origin { extends: false, ..origin() };
        for _ in 0..2 {
            world.clock.advance(9 * MINUTE);
            let token = Credential::Bearer(open.token.clone());
            assert!(world.identity.authenticate(token, &watching).await.is_ok());
        }
        world.clock.advance(3 * MINUTE);
        assert!(matches!(world.bearer(&open.token).await, Err(AuthError::Ended)));
    })
    .await;
}

#[tokio::test]
async fn a_session_of_one_who_is_switched_off_or_logs_out_ends_at_once() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let user = world.user("jo", "viewer", world.root).await;
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        let identity = &world.identity;
        let one = identity.open_session(&jo, Life::default(), &origin()).await.unwrap();
        let two = identity.open_session(&jo, Life::default(), &origin()).await.unwrap();
        let with_one = world.bearer(&one.token).await.unwrap();
        assert!(world.bearer(&two.token).await.is_ok());
        let chained = identity.open_session(&with_one, Life::default(), &origin()).await;
        assert!(matches!(chained, Err(Error::Forbidden { .. })));
        identity.log_out(&with_one).await.unwrap();
        assert!(matches!(world.bearer(&one.token).await, Err(AuthError::Credentials)));
        assert!(world.bearer(&two.token).await.is_ok());
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        identity.change_user(&world.admin, user.id, None, off).await.unwrap();
        assert!(world.bearer(&two.token).await.is_err());
        let on = UserChange { enabled: Some(true), ..UserChange::default() };
        identity.change_user(&world.admin, user.id, None, on).await.unwrap();
        assert!(world.bearer(&two.token).await.is_err());
        let mine = identity.open_session(&world.admin, Life::default(), &origin()).await.unwrap();
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        let others = identity.close_session(&jo, mine.id).await;
        assert!(matches!(others, Err(Error::Forbidden { .. })));
    })
    .await;
}

#[tokio::test]
async fn what_a_right_is_taken_from_loses_it_at_once() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let user = world.user("jo", "viewer", world.root).await;
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        let open = world.identity.open_session(&jo, Life::default(), &origin()).await.unwrap();
        assert!(world.bearer(&open.token).await.unwrap().has(Right::PoolView, world.root));
        let grant = world.role(user.id, "viewer", world.root).await;
        world.identity.revoke(&world.admin, grant).await.unwrap();
        assert!(!world.bearer(&open.token).await.unwrap().has(Right::PoolView, world.root));
    })
    .await;
}

#[tokio::test]
async fn an_old_refresh_token_ends_its_family() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let identity = &world.identity;
        let first = identity.open_pair(&world.admin, HOUR, 24 * HOUR, &origin()).await.unwrap();
        assert_eq!(world.bearer(&first.access).await.unwrap().via, Via::Pair);
        assert!(matches!(world.bearer(&first.refresh).await, Err(AuthError::Credentials)));
        let second = identity.refresh(&first.refresh, HOUR, &origin()).await.unwrap();
        assert_eq!(second.refresh_expires_at, first.refresh_expires_at);
        assert!(matches!(world.bearer(&first.access).await, Err(AuthError::Credentials)));
        assert!(world.bearer(&second.access).await.is_ok());
        world.clock.advance(HOUR + SECOND);
        assert!(matches!(world.bearer(&second.access).await, Err(AuthError::Ended)));
        let third = identity.refresh(&second.refresh, HOUR, &origin()).await.unwrap();
        assert!(world.bearer(&third.access).await.is_ok());

        let stolen = identity.refresh(&first.refresh, HOUR, &origin()).await;
        assert!(matches!(stolen, Err(AuthError::Reused)));
        assert!(matches!(world.bearer(&third.access).await, Err(AuthError::Credentials)));
        let gone = identity.refresh(&third.refresh, HOUR, &origin()).await;
        assert!(matches!(gone, Err(AuthError::Credentials)));
        let lines = identity.audit_lines(0, 1000).await.unwrap();
        assert!(lines.iter().any(|line| line.result == "reused token"));

        let late = identity.open_pair(&world.admin, HOUR, 2 * HOUR, &origin()).await.unwrap();
        world.clock.advance(2 * HOUR);
        let ended = identity.refresh(&late.refresh, HOUR, &origin()).await;
        assert!(matches!(ended, Err(AuthError::Ended)));
        for wrong in ["srr_", "srr_a_b", "srr_a", "", "srs_x_y"] {
            let refused = identity.refresh(&wrong.into(), HOUR, &origin()).await;
            assert!(matches!(refused, Err(AuthError::Credentials)), "{wrong}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_refresh_at_once_one_wins_at_most() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let pair = world.identity.open_pair(&world.admin, HOUR, HOUR, &origin()).await.unwrap();
        let tries: Vec<_> = (0..8)
            .map(|_| {
                let (identity, token) = (world.identity.clone(), pair.refresh.clone());
                tokio::spawn(async move { identity.refresh(&token, HOUR, &origin()).await })
            })
            .collect();
        let mut good = Vec::new();
        for attempt in tries {
            good.extend(attempt.await.unwrap());
        }
        assert_eq!(good.len(), 1);
        // The others used it again, so even that one has ended.
        assert!(world.bearer(&good[0].access).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_jwt_slides_or_does_not() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let open = async |life| {
            let extra = serde_json::from_str(r#"{"acc": "CUSTOMERS", "sub": "0"}"#).unwrap();
            world.identity.open_jwt(&world.admin, life, extra, &origin()).await.unwrap()
        };
        let fixed = open(JwtLife::Fixed(20 * MINUTE)).await;
        let sliding = open(JwtLife::Sliding { idle: 20 * MINUTE, most: HOUR }).await;
        let payload = fixed.token.expose().split('.').nth(1).unwrap();
        let payload = BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap();
        let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(payload["acc"], "CUSTOMERS");
        assert_eq!(payload["sub"], world.admin.user_id.unwrap().to_string());
        assert_eq!(payload["exp"], fixed.expires_at.as_second());
        assert_eq!(world.bearer(&fixed.token).await.unwrap().via, Via::Jwt);
        for _ in 0..3 {
            assert!(world.bearer(&sliding.token).await.is_ok());
            world.clock.advance(15 * MINUTE);
        }
        assert!(matches!(world.bearer(&fixed.token).await, Err(AuthError::Ended)));
        assert!(world.bearer(&sliding.token).await.is_ok());
        world.clock.advance(15 * MINUTE);
        assert!(matches!(world.bearer(&sliding.token).await, Err(AuthError::Ended)));
        let ended = open(JwtLife::Fixed(HOUR)).await;
        world.identity.close_session(&world.admin, ended.id).await.unwrap();
        assert!(matches!(world.bearer(&ended.token).await, Err(AuthError::Credentials)));
    })
    .await;
}

#[tokio::test]
async fn forged_jwts_are_refused() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let life = JwtLife::Fixed(HOUR);
        let (extra, from) = (Default::default(), origin());
        let open = world.identity.open_jwt(&world.admin, life, extra, &from).await.unwrap();
        let parts: Vec<&str> = open.token.expose().split('.').collect();
        let [header, payload, signature] = parts[..] else { panic!("{} parts", parts.len()) };
        let none = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"none"}"#);
        let hs512 = BASE64URL_NOPAD.encode(br#"{"typ":"JWT","alg":"HS512"}"#);
        let mut claims = BASE64URL_NOPAD.decode(payload.as_bytes()).unwrap();
        let at = claims.iter().position(u8::is_ascii_digit).unwrap();
        claims[at] ^= 1;
        let other = BASE64URL_NOPAD.encode(&claims);
        let first = if signature.starts_with('A') { 'B' } else { 'A' };
        for forged in [
            format!("{none}.{payload}."),
            format!("{none}.{payload}.{signature}"),
            format!("{hs512}.{payload}.{signature}"),
            format!("{header}.{other}.{signature}"),
            format!("{header}.{payload}."),
            format!("{header}.{payload}.{first}{}", &signature[1..]),
            "..".into(),
            "a.b.c".into(),
        ] {
            let refused = world.bearer(&Secret::new(forged.as_str())).await;
            assert!(matches!(refused, Err(AuthError::Credentials)), "{forged}");
        }
        assert!(world.bearer(&open.token).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_session_opened_with_a_key_is_as_narrow_and_ends_with_it() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let spec = KeySpec {
            user_id: world.admin.user_id.unwrap(),
            name: "ci".into(),
            rights: Some(RightSet::of(&[Right::JobView])),
            pools: Some([7].into()),
            ..KeySpec::default()
        };
        let (key, secret) = world.identity.create_key(&world.admin, spec).await.unwrap();
        let by_key = world.bearer(&secret).await.unwrap();
        let open = world.identity.open_session(&by_key, Life::default(), &origin()).await.unwrap();
        let principal = world.bearer(&open.token).await.unwrap();
        assert_eq!(principal.rights_in(world.root), RightSet::of(&[Right::JobView]));
        assert_eq!(principal.pools(), Some(&[7].into()));
        world.identity.remove_key(&world.admin, key.id).await.unwrap();
        assert!(matches!(world.bearer(&open.token).await, Err(AuthError::Credentials)));
    })
    .await;
}

#[tokio::test]
async fn tokens_are_not_stored_and_sessions_are_bounded() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let first = world.identity.open_session(&world.admin, Life::default(), &origin()).await;
        let first = first.unwrap();
        assert!(world.bearer(&first.token).await.is_ok());
        for _ in 0..100 {
            world.clock.advance(SECOND);
            let more = world.identity.open_session(&world.admin, Life::default(), &origin()).await;
            more.unwrap();
        }
        let sessions = world.catalog.find::<Session>(Sql::new("FROM sessions")).await.unwrap();
        assert_eq!(sessions.len(), 100);
        assert!(matches!(world.bearer(&first.token).await, Err(AuthError::Credentials)));
        let rows = world.catalog.rows(Sql::new("SELECT hash FROM sessions")).await.unwrap();
        for mut row in rows {
            assert_eq!(row.take::<Vec<u8>>().unwrap().len(), 32);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let long = format!("srk_{}", "_".repeat(10_000));
        for text in [
            "",
            " ",
            "\0",
            "srk",
            "srk_",
            "srk__",
            "srk_é_é",
            "srk_'; --_x",
            "srk_\0_x",
            "srs_",
            "srs_%",
            "sra_",
            "srr_a_b",
            ".",
            "..",
            "...",
            "é.é.é",
            "a.b",
            "admin",
            &long,
        ] {
            let refused = world.bearer(&text.into()).await;
            assert!(matches!(refused, Err(AuthError::Credentials)), "{text}");
        }
    })
    .await;
}
