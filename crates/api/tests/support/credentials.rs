//! Who one is, in every way that requests can say it: an issuer of tokens, and signatures.
#![allow(clippy::unwrap_used, dead_code, reason = "shared by tests, each of which uses a part")]

use std::sync::Arc;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use aws_lc_rs::{digest, hmac, rand};
use axum::Router;
use axum::body::Body;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

/// An issuer of tokens on this machine, over TLS, until its task is dropped.
pub(crate) struct Tokens {
    pub(crate) url: String,
    ca: String,
    key: EcdsaKeyPair,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tokens {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}/realm", listener.local_addr().unwrap().port());
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref();
        let part = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "k", "use": "sig",
            "x": part(&point[1..33]), "y": part(&point[33..])}]});
        let configuration = json!({"issuer": url, "jwks_uri": format!("{url}/keys")});
        let document = |value: Value| {
            axum::routing::get(move || std::future::ready(axum::Json(value.clone())))
        };
        let moved = axum::routing::get(|| async {
            axum::response::Redirect::temporary("/realm/.well-known/openid-configuration")
        });
        let big = axum::routing::get(|| async { "x".repeat(2 << 20) });
        let router = Router::new()
            .route("/realm/.well-known/openid-configuration", document(configuration))
            .route("/realm/keys", document(keys))
            .route("/moved/.well-known/openid-configuration", moved)
            .route("/big/.well-known/openid-configuration", big);

        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = KeyPair::generate().unwrap();
        let ca = params.self_signed(&authority).unwrap().pem();
        let issuer = Issuer::new(params, authority);
        let own = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = certificate.signed_by(&own, &issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
            )
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, router) = (acceptor.clone(), router.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service =
                        hyper::service::service_fn(move |request| router.clone().oneshot(request));
                    let builder = Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { url, ca, key, task }
    }

    /// A token for an hour.
    pub(crate) fn token(&self, name: &str, groups: &[&str]) -> String {
        let now = jiff::Timestamp::now().as_second();
        let claims = json!({
            "iss": self.url, "aud": "strongroom", "sub": name, "preferred_username": name,
            "iat": now, "exp": now + 3600, "groups": groups,
        });
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let text = format!("{}.{}", part(&json!({"alg": "ES256", "kid": "k"})), part(&claims));
        let signature = self.key.sign(&rand::SystemRandom::new(), text.as_bytes()).unwrap();
        format!("{text}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    pub(crate) fn body(&self, groups: Value) -> Value {
        json!({
            "name": "realm",
            "checks": {"issuer": self.url, "audiences": ["strongroom"], "ca_certificate": self.ca},
            "groups": groups,
        })
    }
}

/// Signs requests with a key, as RFC 9421 says.
pub(crate) struct Signer {
    prefix: String,
    key: hmac::Key,
}

impl Signer {
    /// With this key.
    pub(crate) fn new(secret: &str) -> Self {
        let prefix = secret.split('_').nth(1).unwrap().to_owned();
        Self { prefix, key: hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()) }
    }

    /// A request with JSON, or without a body.
    pub(crate) fn request(
        &self,
        method: &str,
        target: &str,
        body: &str,
        nonce: &str,
    ) -> Request<Body> {
        let kind = (!body.is_empty()).then_some("application/json");
        self.request_of(method, target, kind, body.as_bytes(), nonce)
    }

    /// A request, with a body if there is a kind.
    pub(crate) fn request_of(
        &self,
        method: &str,
        target: &str,
        kind: Option<&str>,
        body: &[u8],
        nonce: &str,
    ) -> Request<Body> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut components = vec![("@method", method.to_owned()), ("@path", path.to_owned())];
        if !query.is_empty() {
            components.push(("@query", format!("?{query}")));
        }
        let hash = BASE64.encode(digest::digest(&digest::SHA256, body).as_ref());
        let told = format!("sha-256=:{hash}:");
        let mut request = Request::builder().method(method).uri(target);
        if let Some(kind) = kind {
            components.push(("content-digest", told.clone()));
            request = request.header("content-digest", told).header("content-type", kind);
        }
        let names: Vec<_> = components.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let now = jiff::Timestamp::now().as_second();
        let parameters = format!(
            "({});created={now};keyid=\"{}\";nonce=\"{nonce}\";alg=\"hmac-sha256\"",
            names.join(" "),
            self.prefix
        );
        let mut text = String::new();
        for (name, value) in &components {
            text.push_str(&format!("\"{name}\": {value}\n"));
        }
        text.push_str(&format!("\"@signature-params\": {parameters}"));
        let signature = BASE64.encode(hmac::sign(&self.key, text.as_bytes()).as_ref());
        request
            .header("signature-input", format!("sig={parameters}"))
            .header("signature", format!("sig=:{signature}:"))
            .body(Body::from(body.to_vec()))
            .unwrap()
    }
}
