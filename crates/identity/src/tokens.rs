//! Short signed tokens: JWTs (RFC 7519) with HS256, under a key derived from the appliance's.
//!
//! Each has a session in the catalogue, found by its `jti`: so it can be ended, and its life can
//! slide. `exp` is the absolute end.

use std::time::Duration;

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::SessionTokens;

use crate::identity::Identity;
use crate::origin::Origin;
use crate::principal::Principal;
use crate::secret::{Secret, random_text, sha256};
use crate::sessions::{Life, Opened};
use crate::{AuthError, Error, Result};

pub(crate) const ISSUER: &str = "strongroom";

/// How long a token lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtLife {
    /// So long.
    Fixed(Duration),
    /// So long after its last use, and never longer than `most`.
    Sliding {
        /// After the last use.
        idle: Duration,
        /// In all.
        most: Duration,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    jti: String,
    iat: i64,
    exp: i64,
    token_type: String,
    user_id: i64,
    /// What a client looks for beyond these.
    #[serde(flatten)]
    extra: serde_json::Map<String, serde_json::Value>,
}

impl Identity {
    /// Opens a session whose token is a JWT. `extra` are claims that a client looks for; they mean
    /// nothing here, and those of the standard win.
    ///
    /// # Errors
    /// As [`Identity::open_session`].
    pub async fn open_jwt(
        &self,
        by: &Principal,
        life: JwtLife,
        mut extra: serde_json::Map<String, serde_json::Value>,
        origin: &Origin,
    ) -> Result<Opened> {
        let user_id = by.require_user()?;
        let life = match life {
            JwtLife::Fixed(total) => Life { idle: None, total },
            JwtLife::Sliding { idle, most } => Life { idle: Some(idle), total: most },
        };
        let jti = random_text::<16>()?;
        let hash = sha256(jti.as_bytes()).to_vec();
        let tokens = SessionTokens { hash, refresh: None, family: None };
        let (id, expires_at) = self.insert_session(by, "jwt", tokens, life, None, origin).await?;
        for name in ["iss", "sub", "jti", "iat", "exp", "token_type", "user_id"] {
            extra.remove(name);
        }
        let claims = Claims {
            iss: ISSUER.into(),
            sub: user_id.to_string(),
            jti: jti.to_string(),
            iat: self.inner.clock.now().as_second(),
            exp: expires_at.as_second(),
            token_type: "access".into(),
            user_id,
            extra,
        };
        let key = EncodingKey::from_secret(self.inner.key.tokens());
        let token = encode(&Header::new(Algorithm::HS256), &claims, &key);
        let token = token.map_err(|error| Error::Hash(error.to_string()))?;
        Ok(Opened { id, token: Secret::new(token), expires_at })
    }

    /// Who acts with a JWT, and until when that is known.
    pub(crate) async fn by_jwt(
        &self,
        token: &Secret,
        origin: &Origin,
    ) -> Result<(Principal, Timestamp), AuthError> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.set_issuer(&[ISSUER]);
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        // By this crate's clock, below.
        rules.validate_exp = false;
        let key = DecodingKey::from_secret(self.inner.key.tokens());
        let claims = decode::<Claims>(token.expose(), &key, &rules);
        let claims = claims.map_err(|_| AuthError::Credentials)?.claims;
        if claims.exp <= self.inner.clock.now().as_second() {
            return Err(AuthError::Ended);
        }
        let (principal, until) = self.by_session(&sha256(claims.jti.as_bytes()), origin).await?;
        if principal.user_id != Some(claims.user_id) {
            return Err(AuthError::Credentials);
        }
        let end = Timestamp::from_second(claims.exp).unwrap_or(until);
        Ok((principal, until.min(end)))
    }
}
