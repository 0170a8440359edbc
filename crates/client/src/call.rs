//! A request, before it is sent.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use percent_encoding::utf8_percent_encode;
use serde::Serialize;

use crate::client::PLAIN;
use crate::{Error, Result};

const JSON: &str = "application/json";

/// One request to the native API.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    method: Method,
    path: String,
    query: Vec<(&'a str, &'a str)>,
    body: Option<Bytes>,
    /// The body's media type.
    kind: &'static str,
    key: Option<HeaderValue>,
    version: Option<i64>,
}

impl<'a> Call<'a> {
    /// A request without query and body.
    pub fn new(method: Method, path: impl Into<String>) -> Self {
        let (query, body, kind, key, version) = (Vec::new(), None, JSON, None, None);
        Self { method, path: path.into(), query, body, kind, key, version }
    }

    /// A request for a path whose parts in braces stand for these, in this order.
    pub fn to(method: Method, template: &str, parts: &[&str]) -> Self {
        let mut path = String::new();
        let mut rest = template;
        for part in parts {
            let Some((before, after)) = rest.split_once('{') else { break };
            path.push_str(before);
            path.extend(utf8_percent_encode(part, PLAIN));
            rest = after.split_once('}').map_or("", |(_, after)| after);
        }
        path.push_str(rest);
        Self::new(method, path)
    }

    /// With these pairs in its query, too.
    #[must_use]
    pub fn queried(mut self, query: &[(&'a str, &'a str)]) -> Self {
        self.query.extend(query);
        self
    }

    /// With this as its JSON.
    ///
    /// # Errors
    /// [`Error::Unsendable`].
    pub fn with(mut self, body: &impl Serialize) -> Result<Self> {
        let body = serde_json::to_vec(body).map_err(|e| Error::Unsendable(e.to_string()))?;
        self.body = Some(body.into());
        Ok(self)
    }

    /// With these bytes.
    #[must_use]
    pub fn bytes(mut self, body: Vec<u8>) -> Self {
        (self.body, self.kind) = (Some(body.into()), "application/octet-stream");
        self
    }

    /// Under this key (`Idempotency-Key`): however often it is sent, it is done once.
    ///
    /// # Errors
    /// [`Error::Unsendable`] when the key can't be in a header.
    pub fn once(mut self, key: &str) -> Result<Self> {
        let wrong = |_| Error::Unsendable("an Idempotency-Key is visible ASCII".to_owned());
        self.key = Some(HeaderValue::from_str(key).map_err(wrong)?);
        Ok(self)
    }

    /// As [`Call::once`], under a key that nobody else has.
    ///
    /// # Errors
    /// [`Error::Unsendable`] when there is no randomness.
    pub fn only_once(self) -> Result<Self> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes)
            .map_err(|_| Error::Unsendable("the system gives no random bytes".to_owned()))?;
        self.once(&data_encoding::HEXLOWER.encode(&bytes))
    }

    /// Only if what is to be changed has this version still (`If-Match`).
    #[must_use]
    pub fn of_version(mut self, version: i64) -> Self {
        self.version = Some(version);
        self
    }

    pub(crate) fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, without the query.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn query(&self) -> &[(&'a str, &'a str)] {
        &self.query
    }

    pub(crate) fn body(&self) -> Option<&Bytes> {
        self.body.as_ref()
    }

    pub(crate) fn has_key(&self) -> bool {
        self.key.is_some()
    }

    /// The headers that only this request has.
    pub(crate) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let kind = HeaderValue::from_static(self.kind);
        let kind = self.body.is_some().then_some((header::CONTENT_TYPE, kind));
        let key = self.key.clone().map(|key| (HeaderName::from_static("idempotency-key"), key));
        let version = self.version.and_then(|version| {
            let tag = HeaderValue::from_str(&format!("\"v{version}\"")).ok()?;
            Some((header::IF_MATCH, tag))
        });
        kind.into_iter().chain(key).chain(version)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn paths_are_filled_and_what_fills_them_is_escaped() {
        let call = Call::to(Method::GET, "/v1/pools/{pool}/x/{y}/z", &["7", "a/b?"]);
        assert_eq!(call.path(), "/v1/pools/7/x/a%2Fb%3F/z");
        assert_eq!(Call::to(Method::GET, "/v1/pools", &[]).path(), "/v1/pools");
    }

    #[test]
    fn headers_are_those_that_were_asked_for() {
        let call = Call::new(Method::PUT, "/").with(&1).unwrap().once("k").unwrap().of_version(3);
        let headers: Vec<_> = call.headers().collect();
        let texts: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value)).collect();
        assert_eq!(
            texts,
            [
                ("content-type", &HeaderValue::from_static("application/json")),
                ("idempotency-key", &HeaderValue::from_static("k")),
                ("if-match", &HeaderValue::from_static("\"v3\"")),
            ]
        );
        assert!(Call::new(Method::GET, "/").once("new\nline").is_err());
    }
}
