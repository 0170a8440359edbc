//! Users of an issuer of tokens, which is run here: its keys are its own, and it can be down.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};
use strongroom_catalog::identity::User;
use strongroom_catalog::testing;
use strongroom_identity::{
    AuthError, Error, Fetch, Fetching, GroupRole, IssuerSettings, Principal, Right, Secret,
    SourceSpec, Sourced, Via, Wanted,
};

use crate::world::{HOUR, MINUTE, SECOND, World};

const URL: &str = "https://login.example/realms/main";

/// A key of the issuer.
enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Key {
    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Self {
        Self::Ec(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    /// As it is published.
    fn public(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        match self {
            Self::Rsa(key) => {
                let public = key.public_key();
                let PublicKeyComponents::<Vec<u8>> { n, e } = public.into();
                json!({"kty": "RSA", "use": "sig", "kid": kid, "n": text(&n), "e": text(&e)})
            }
            Self::Ec(key) => {
                let point = key.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y})
            }
            Self::Ed(key) => {
                let x = text(key.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": x})
            }
        }
    }

    fn sign(&self, algorithm: &str, text: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match self {
            Self::Rsa(key) => {
                let how = match algorithm {
                    "PS256" => &RSA_PSS_SHA256 as &dyn aws_lc_rs::signature::RsaEncoding,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(how, &random, text, &mut signature).unwrap();
                signature
            }
            Self::Ec(key) => key.sign(&random, text).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(text).as_ref().to_vec(),
        }
    }

    fn token(&self, algorithm: &str, kid: Option<&str>, claims: &Value) -> Secret {
        let mut header = json!({"alg": algorithm, "typ": "JWT"});
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        self.token_with(&header, claims)
    }

    fn token_with(&self, header: &Value, claims: &Value) -> Secret {
        let text = unsigned(header, claims);
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = BASE64URL_NOPAD.encode(&self.sign(algorithm, text.as_bytes()));
        Secret::new(format!("{text}.{signature}"))
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    format!("{}.{}", part(header), part(claims))
}

/// What the issuer publishes, and how often it was asked.
#[derive(Debug, Default)]
struct Published {
    documents: Mutex<HashMap<String, String>>,
    asked: AtomicUsize,
    down: AtomicBool,
}

impl Published {
    fn keys(&self, keys: &[Value]) {
        self.document("/keys", json!({ "keys": keys }).to_string());
    }

    fn document(&self, path: &str, text: String) {
        self.documents.lock().unwrap().insert(format!("{URL}{path}"), text);
    }

    /// How often it was asked since this was asked.
    fn asked(&self) -> usize {
        self.asked.swap(0, Ordering::Relaxed)
    }
}

impl Fetch for Published {
    fn fetch(&self, wanted: Wanted) -> Fetching {
        assert!(wanted.most <= 1 << 20);
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = match self.down.load(Ordering::Relaxed) {
            true => Err("it is down".to_owned()),
            false => {
                let found = self.documents.lock().unwrap().get(&wanted.url).cloned();
                found.map(String::into_bytes).ok_or_else(|| "404".to_owned())
            }
        };
        Box::pin(async move { found })
    }
}

struct Issuer {
    world: World,
    published: Arc<Published>,
    key: Key,
    row: Sourced<IssuerSettings>,
}

fn settings() -> IssuerSettings {
    IssuerSettings {
        issuer: URL.into(),
        audiences: vec!["strongroom".into()],
        authorized_parties: Vec::new(),
        algorithms: vec!["RS256".into(), "ES256".into()],
        jwks_url: None,
        ca_certificate: None,
        name_claim: "preferred_username".into(),
        groups_claim: "groups".into(),
        leeway_seconds: 60,
        create_users: true,
    }
}

impl Issuer {
    /// One with an RSA key `a`, whose operators are operators.
    async fn new(catalog: strongroom_catalog::Catalog) -> Self {
        let world = World::new(catalog).await;
        let published = Arc::new(Published::default());
        let key = Key::rsa();
        let configuration = json!({"issuer": URL, "jwks_uri": format!("{URL}/keys")});
        published.document("/.well-known/openid-configuration", configuration.to_string());
        published.keys(&[key.public("a")]);
        world.identity.fetch_with(published.clone());
        let role = world.role(0, "operator", world.root).await;
        let spec = SourceSpec {
            name: "login".into(),
            organisation_id: world.root,
            enabled: true,
            settings: settings(),
            secret: None,
            groups: vec![GroupRole {
                group: "/operators".into(),
                role_id: role.role_id,
                organisation_id: role.organisation_id,
            }],
        };
        let row = world.identity.create_source(&world.admin, spec).await.unwrap();
        Self { world, published, key, row }
    }

    /// Claims that are good for an hour.
    fn claims(&self) -> Value {
        let now = self.world.clock.now().as_second();
        json!({
            "iss": URL, "aud": "strongroom", "sub": "0b5b", "iat": now, "exp": now + 3600,
            "preferred_username": "jo", "name": "Jo Doe", "email": "jo@corp.example",
            "groups": ["/operators", "/others"],
        })
    }

    fn with(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        claims[name] = value;
        claims
    }

    async fn show(&self, claims: &Value) -> Result<Principal, AuthError> {
        self.world.bearer(&self.key.token("RS256", Some("a"), claims)).await
    }

    async fn refuses(&self, token: Secret) {
        let refused = self.world.bearer(&token).await;
        assert!(matches!(refused, Err(AuthError::Credentials)), "{refused:?}");
    }

    async fn change(&self, change: impl FnOnce(&mut SourceSpec<IssuerSettings>)) {
        let mut spec = SourceSpec {
            name: "login".into(),
            organisation_id: self.world.root,
            enabled: true,
            settings: settings(),
            secret: None,
            groups: self.row.groups.clone(),
        };
        change(&mut spec);
        let (identity, admin) = (&self.world.identity, &self.world.admin);
        identity.change_source(admin, self.row.row.id, None, spec).await.unwrap();
    }
}

#[tokio::test]
async fn who_shows_a_token_of_an_issuer_is_a_user_with_the_roles_of_its_groups() {
    testing::each(|catalog| async move {
        let issuer = Issuer::new(catalog).await;
        let world = &issuer.world;
        let jo = issuer.show(&issuer.claims()).await.unwrap();
        assert_eq!((jo.via, jo.name.as_str()), (Via::Oidc, "jo"));
        assert!(jo.has(Right::ImageCreate, world.root) && !jo.has(Right::UserView, world.root));
        let by_id = User::by_id(jo.user_id.unwrap());
        let row = world.catalog.find_one::<User>(by_id.clone()).await.unwrap().unwrap();
        assert_eq!((row.source.as_str(), row.external_id.as_deref()), ("oidc", Some("0b5b")));
        assert_eq!(row.email, "jo@corp.example");
        // A password is no way in.
        assert!(matches!(world.log_in("jo", "").await, Err(AuthError::Credentials)));
        assert!(issuer.show(&issuer.claims()).await.is_ok());
        world.clock.advance(MINUTE);
        // A token that was made later is a later login.
        assert!(issuer.show(&issuer.claims()).await.is_ok());
        let lines = world.identity.audit_lines(0, 1000).await.unwrap();
        let logins = lines.iter().filter(|l| l.via == "oidc" && l.operation == "login").count();
        assert_eq!(logins, 2);

        // The same name by another subject is another one, who can't have it.
        let other = issuer.show(&issuer.with("sub", json!("other"))).await;
        assert!(matches!(other, Err(AuthError::NameTaken)), "{other:?}");
        let admin = issuer.with("preferred_username", json!("admin"));
        let mut admin = admin;
        admin["sub"] = json!("another");
        assert!(matches!(issuer.show(&admin).await, Err(AuthError::NameTaken)));
        // One's groups are those of the newest token.
        let less = issuer.with("groups", json!(["/others"]));
        assert!(matches!(issuer.show(&less).await, Err(AuthError::NoRole)));
        assert!(world.identity.grants(row.id).await.unwrap().is_empty());
        let stranger = issuer.with("sub", json!("stranger"));
        issuer.change(|spec| spec.settings.create_users = false).await;
        assert!(matches!(issuer.show(&stranger).await, Err(AuthError::NoRole)));
        assert!(issuer.show(&issuer.claims()).await.is_ok());
        issuer.change(|spec| spec.enabled = false).await;
        assert!(matches!(issuer.show(&issuer.claims()).await, Err(AuthError::Credentials)));
    })
    .await;
}

#[tokio::test]
async fn a_token_for_others_or_another_time_is_refused() {
    testing::each(|catalog| async move {
        let issuer = Issuer::new(catalog).await;
        let now = issuer.world.clock.now().as_second();
        for (name, value) in [
            ("aud", json!("others")),
            ("aud", json!(["others", "more"])),
            ("aud", Value::Null),
            ("iss", json!("https://login.example/realms/other")),
            ("iss", json!(format!("{URL}/"))),
            ("iss", Value::Null),
            ("exp", json!(now - 60)),
            ("exp", json!("tomorrow")),
            ("exp", Value::Null),
            ("nbf", json!(now + 61)),
            ("nbf", json!("now")),
            ("iat", json!(now + 61)),
            ("sub", Value::Null),
            ("sub", json!("")),
            ("preferred_username", Value::Null),
            ("preferred_username", json!(7)),
            ("preferred_username", json!("")),
            ("preferred_username", json!("x".repeat(200))),
            ("preferred_username", json!("a\nb")),
        ] {
            let mut claims = issuer.with(name, value.clone());
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            }
            let refused = issuer.show(&claims).await;
            assert!(matches!(refused, Err(AuthError::Credentials)), "{name} {value}: {refused:?}");
        }
        // The other's clock may be off a little.
        for (name, value) in [
            ("aud", json!(["others", "strongroom"])),
            ("exp", json!(now - 59)),
            ("exp", json!(now as f64 + 0.5)),
            ("nbf", json!(now + 59)),
        ] {
            let claims = issuer.with(name, value.clone());
            assert!(issuer.show(&claims).await.is_ok(), "{name} {value}");
        }
        // It ends in the cache too.
        let short = issuer.key.token("RS256", Some("a"), &issuer.with("exp", json!(now + 5)));
        assert!(issuer.world.bearer(&short).await.is_ok());
        issuer.world.clock.advance(65 * SECOND);
        issuer.refuses(short).await;

        // By whom it may have been got.
        issuer.change(|spec| spec.settings.authorized_parties = vec!["cli".into()]).await;
        for (party, good) in [
            (json!({"azp": "cli"}), true),
            (json!({"client_id": "cli"}), true),
            (json!({"azp": "web"}), false),
            (json!({}), false),
            (json!({"azp": "web", "client_id": "cli"}), false),
        ] {
            let mut claims = issuer.claims();
            for (name, value) in party.as_object().unwrap() {
                claims[name] = value.clone();
            }
            assert_eq!(issuer.show(&claims).await.is_ok(), good, "{party}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_signature_is_one_by_the_issuers_key_and_an_allowed_algorithm() {
    testing::each(|catalog| async move {
        let issuer = Issuer::new(catalog).await;
        let claims = issuer.claims();
        let (ec, ed) = (Key::ec(), Key::ed());
        issuer.published.keys(&[
            issuer.key.public("a"),
            ec.public("b"),
            ed.public("c"),
            json!({"kty": "oct", "kid": "d", "k": "AAAA"}),
            json!({"kty": "from the future", "kid": "e"}),
        ]);
        let world = &issuer.world;
        assert!(world.bearer(&ec.token("ES256", Some("b"), &claims)).await.is_ok());
        // Not allowed, though the keys are there.
        issuer.refuses(ed.token("EdDSA", Some("c"), &claims)).await;
        issuer.refuses(issuer.key.token("PS256", Some("a"), &claims)).await;
        // Nobody's signature.
        for alg in ["none", "None", "NONE", ""] {
            let header = json!({"alg": alg, "kid": "a"});
            issuer.refuses(Secret::new(unsigned(&header, &claims) + ".")).await;
            issuer.refuses(Secret::new(unsigned(&header, &claims) + ".AAAA")).await;
        }
        // The public key as a secret in common.
        let Key::Rsa(rsa) = &issuer.key else { unreachable!("it is an RSA key") };
        let der = rsa.public_key().as_der().unwrap().as_ref().to_vec();
        for secret in [der, issuer.key.public("a").to_string().into_bytes(), vec![0; 3]] {
            for kid in ["a", "d"] {
                let text = unsigned(&json!({"alg": "HS256", "kid": kid}), &claims);
                let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
                let tag = hmac::sign(&key, text.as_bytes());
                let signature = BASE64URL_NOPAD.encode(tag.as_ref());
                issuer.refuses(Secret::new(format!("{text}.{signature}"))).await;
            }
        }
        // Another's key, also one that the token brings; another key of the issuer.
        let other = Key::rsa();
        issuer.refuses(other.token("RS256", Some("a"), &claims)).await;
        let brings = json!({"alg": "RS256", "kid": "z", "jwk": other.public("z"),
            "jku": "https://evil.example/keys"});
        issuer.refuses(other.token_with(&brings, &claims)).await;
        issuer.refuses(ec.token("ES256", Some("a"), &claims)).await;
        issuer.refuses(issuer.key.token("RS256", Some("b"), &claims)).await;
        // What is critical, or no token to come with.
        for header in [
            json!({"alg": "RS256", "kid": "a", "crit": ["b64"], "b64": false}),
            json!({"alg": "RS256", "kid": "a", "typ": "logout+jwt"}),
        ] {
            issuer.refuses(issuer.key.token_with(&header, &claims)).await;
        }
        let access = json!({"alg": "RS256", "kid": "a", "typ": "at+JWT"});
        assert!(world.bearer(&issuer.key.token_with(&access, &claims)).await.is_ok());
        // One bit.
        let good = issuer.key.token("RS256", Some("a"), &claims);
        let mut bytes = good.expose().as_bytes().to_vec();
        let last = bytes.len() - 10;
        bytes[last] = if bytes[last] == b'A' { b'B' } else { b'A' };
        issuer.refuses(Secret::new(String::from_utf8(bytes).unwrap())).await;
        // A token that names no key must leave no choice.
        assert!(world.bearer(&issuer.key.token("RS256", None, &claims)).await.is_ok());
        issuer.published.keys(&[issuer.key.public("a"), other.public("f")]);
        world.clock.advance(2 * HOUR);
        issuer.refuses(issuer.key.token("RS256", None, &issuer.claims())).await;
        assert!(issuer.show(&issuer.claims()).await.is_ok());
        // Too long.
        let long = issuer.with("long", json!("x".repeat(20_000)));
        issuer.refuses(issuer.key.token("RS256", Some("a"), &long)).await;
        issuer.change(|spec| spec.settings.algorithms = vec!["PS256".into(), "EdDSA".into()]).await;
        issuer.published.keys(&[issuer.key.public("a"), ed.public("c")]);
        assert!(world.bearer(&ed.token("EdDSA", Some("c"), &issuer.claims())).await.is_ok());
        let pss = issuer.key.token("PS256", Some("a"), &issuer.claims());
        assert!(world.bearer(&pss).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn keys_are_kept_asked_for_again_and_used_while_the_issuer_is_down() {
    testing::each(|catalog| async move {
        let issuer = Issuer::new(catalog).await;
        let (world, published) = (&issuer.world, &issuer.published);
        let claims = issuer.claims();
        let shown = || issuer.show(&claims);
        let at_once = tokio::join!(shown(), shown(), shown(), shown());
        let fine = [at_once.0, at_once.1, at_once.2, at_once.3].iter().all(Result::is_ok);
        // The configuration and the keys, once.
        assert_eq!((fine, published.asked()), (true, 2));
        world.clock.advance(MINUTE);
        assert!(issuer.show(&issuer.claims()).await.is_ok());
        assert_eq!(published.asked(), 0);

        // A new key is asked for when a token names it, and no more often than allowed.
        let new = Key::rsa();
        published.keys(&[issuer.key.public("a"), new.public("b")]);
        assert!(world.bearer(&new.token("RS256", Some("b"), &issuer.claims())).await.is_ok());
        assert_eq!(published.asked(), 2);
        for kid in ["c", "d", "e"] {
            issuer.refuses(new.token("RS256", Some(kid), &issuer.claims())).await;
        }
        assert_eq!(published.asked(), 0);
        world.clock.advance(30 * SECOND);
        issuer.refuses(new.token("RS256", Some("c"), &issuer.claims())).await;
        assert_eq!(published.asked(), 2);

        // A key that is withdrawn is good for an hour at most.
        published.keys(&[new.public("b")]);
        world.clock.advance(HOUR);
        issuer.refuses(issuer.key.token("RS256", Some("a"), &issuer.claims())).await;

        // Down: what is known is used for a day.
        published.down.store(true, Ordering::Relaxed);
        let _ = published.asked();
        for _ in 0..3 {
            world.clock.advance(2 * HOUR);
            let token = new.token("RS256", Some("b"), &issuer.claims());
            assert!(world.bearer(&token).await.is_ok());
            assert_eq!(published.asked(), 1);
        }
        world.clock.advance(20 * HOUR);
        let late = new.token("RS256", Some("b"), &issuer.claims());
        assert!(matches!(world.bearer(&late).await, Err(AuthError::Unreachable)));
        // Others are none the worse.
        world.admin().await;
        world.clock.advance(MINUTE);
        published.down.store(false, Ordering::Relaxed);
        assert!(world.bearer(&late).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn what_an_issuer_publishes_is_not_believed_blindly() {
    testing::each(|catalog| async move {
        let issuer = Issuer::new(catalog).await;
        let (world, published) = (&issuer.world, &issuer.published);
        let id = issuer.row.row.id;
        let trial = async |token: Option<Secret>| {
            world.identity.try_issuer(&world.admin, id, token).await.unwrap()
        };
        let token = issuer.key.token("RS256", Some("a"), &issuer.claims());
        let good = trial(Some(token)).await;
        assert_eq!(good.failed(), None);
        assert_eq!((good.groups.len(), good.roles.len()), (2, 1));
        let others = issuer.key.token("RS256", Some("a"), &issuer.with("aud", json!("others")));
        let failed = trial(Some(others)).await;
        let step = failed.failed().unwrap();
        assert_eq!((step.name, step.detail.contains("aud")), ("token", true), "{step:?}");

        let fails = async |why: &str| {
            let failed = trial(None).await;
            let step = failed.failed().unwrap();
            assert_eq!((step.name, step.detail.contains(why)), ("keys", true), "{step:?}");
        };
        let weak = json!({"kty": "RSA", "kid": "a", "e": "AQAB",
            "n": BASE64URL_NOPAD.encode(&[0xff; 128])});
        published.keys(&[weak]);
        fails("no key").await;
        published.keys(&[json!({"kty": "oct", "k": "AAAA"})]);
        fails("no key").await;
        let mut sealing = issuer.key.public("a");
        sealing["use"] = json!("enc");
        published.keys(&[sealing]);
        fails("no key").await;
        published.document("/keys", "<html>".into());
        fails("no set of keys").await;
        let configuration = "/.well-known/openid-configuration";
        let said = |issuer: &str, keys: &str| json!({"issuer": issuer, "jwks_uri": keys});
        published.document(configuration, said(URL, "http://evil.example/keys").to_string());
        fails("not https").await;
        published.document(configuration, said("https://evil.example", URL).to_string());
        fails("calls itself https://evil.example").await;
        published.down.store(true, Ordering::Relaxed);
        fails("down").await;

        world.user("op", "operator", world.root).await;
        let op = world.log_in("op", crate::world::PASSWORD).await.unwrap();
        let refused = world.identity.try_issuer(&op, id, None).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));
    })
    .await;
}
