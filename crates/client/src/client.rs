//! Requests and answers.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use crate::{Error, Fingerprint, Place, Problem, Result, connection};

/// The longest answer that is taken whole, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// The longest line of a stream of events, in bytes.
const MAX_LINE: usize = 1 << 20;
/// What need not be escaped in a query.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Talks to one appliance.
#[derive(Debug)]
pub struct Client {
    place: Place,
    runtime: Runtime,
}

impl Client {
    /// A client of the appliance at this place. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the system gives this process no event loop.
    pub fn new(place: Place) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime =
            runtime.map_err(|source| Error::Unreachable { place: place.to_string(), source })?;
        Ok(Self { place, runtime })
    }

    /// Where the appliance is.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The certificate that the appliance shows. Nothing is sent to it.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Broken`].
    pub fn look(&self) -> Result<Fingerprint> {
        let found = self.runtime.block_on(connection::look(&self.place))?;
        found.ok_or_else(|| self.broken("it showed no certificate"))
    }

    /// Reads something.
    ///
    /// # Errors
    /// [`Error::Refused`] and those of the connection; so it is with all of them.
    pub fn get<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T> {
        self.json(self.request(Method::GET, path, query, None)?)
    }

    /// Makes or begins something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(self.request(Method::POST, path, &[], Some(self.encode(body)?))?)
    }

    /// Changes something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn patch<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.json(self.request(Method::PATCH, path, &[], Some(self.encode(body)?))?)
    }

    /// Removes or ends something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &str) -> Result<()> {
        let request = self.request(Method::DELETE, path, &[], None)?;
        self.runtime.block_on(async {
            let answer = self.answer(request).await?;
            self.whole(answer).await.map(drop)
        })
    }

    /// Writes what is at a path to `out` as it comes; gives the number of bytes.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::Local`] when it can't be written.
    pub fn download(&self, path: &str, query: &[(&str, &str)], out: &mut dyn Write) -> Result<u64> {
        let request = self.request(Method::GET, path, query, None)?;
        self.runtime.block_on(async {
            let mut body = self.answer(request).await?.into_body();
            let mut total = 0;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|e| self.broken(e))?;
                let Some(bytes) = frame.data_ref() else { continue };
                out.write_all(bytes)
                    .map_err(|source| Error::Local { path: PathBuf::from("output"), source })?;
                total += bytes.len() as u64;
            }
            Ok(total)
        })
    }

    /// What happens, as it happens (server-sent events), until the appliance ends it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn events<T: DeserializeOwned>(&self, path: &str) -> Result<Events<'_, T>> {
        let request = self.request(Method::GET, path, &[], None)?;
        let body = self.runtime.block_on(self.answer(request))?.into_body();
        let (buffer, ready) = (Vec::new(), VecDeque::new());
        Ok(Events { client: self, body, buffer, ready, of: std::marker::PhantomData })
    }

    fn broken(&self, why: impl ToString) -> Error {
        Error::Broken { place: self.place.to_string(), why: why.to_string() }
    }

    fn encode(&self, body: &impl Serialize) -> Result<Vec<u8>> {
        serde_json::to_vec(body).map_err(|e| self.broken(e))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        query: &[(&str, &str)],
        body: Option<Vec<u8>>,
    ) -> Result<Request<Full<Bytes>>> {
        let mut target = path.to_owned();
        for (i, (name, value)) in query.iter().enumerate() {
            target.push(if i == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.extend(utf8_percent_encode(value, PLAIN));
        }
        let mut request = Request::builder().method(method).uri(target);
        request = request.header(header::ACCEPT, "application/json, application/problem+json, */*");
        let agent = concat!("strongroom/", env!("CARGO_PKG_VERSION"));
        request = request.header(header::USER_AGENT, agent);
        match &self.place {
            Place::Socket(_) => request = request.header(header::HOST, "localhost"),
            Place::Remote { address, token, .. } => {
                let host = address.to_string();
                request = request.header(header::HOST, host.trim_start_matches("https://"));
                if let Some(token) = token {
                    let bearer = format!("Bearer {}", token.expose());
                    let mut value = header::HeaderValue::try_from(bearer)
                        .map_err(|_| self.broken("the token is not one"))?;
                    value.set_sensitive(true);
                    request = request.header(header::AUTHORIZATION, value);
                }
            }
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(body.unwrap_or_default()));
        request.body(body).map_err(|e| self.broken(e))
    }

    fn json<T: DeserializeOwned>(&self, request: Request<Full<Bytes>>) -> Result<T> {
        let bytes = self.runtime.block_on(async {
            let answer = self.answer(request).await?;
            self.whole(answer).await
        })?;
        serde_json::from_slice(&bytes).map_err(|e| self.broken(e))
    }

    async fn whole(&self, answer: Response<Incoming>) -> Result<Bytes> {
        let body = Limited::new(answer.into_body(), MAX_ANSWER);
        Ok(body.collect().await.map_err(|e| self.broken(e))?.to_bytes())
    }

    /// The answer, if it isn't a refusal.
    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>> {
        let answer = connection::send(&self.place, request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = self.whole(answer).await?;
        let mut problem: Problem = serde_json::from_slice(&bytes).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            let reason = status.canonical_reason().unwrap_or("no success");
            problem.title = format!("the appliance answered {} ({reason})", status.as_u16());
        }
        if status == StatusCode::UNAUTHORIZED && matches!(self.place, Place::Remote { .. }) {
            problem.title.push_str(": log in with `strongroom login`");
        }
        Err(Error::Refused(problem))
    }
}

/// What happens, see [`Client::events`].
#[derive(Debug)]
pub struct Events<'c, T> {
    client: &'c Client,
    body: Incoming,
    buffer: Vec<u8>,
    ready: VecDeque<String>,
    of: std::marker::PhantomData<fn() -> T>,
}

impl<T> Events<'_, T> {
    /// Takes the lines that are whole out of the buffer.
    fn take_lines(&mut self) -> Result<()> {
        let mut from = 0;
        while let Some(at) = self.buffer[from..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.buffer[from..from + at]);
            if let Some(data) = line.strip_prefix("data:") {
                self.ready.push_back(data.trim().to_owned());
            }
            from += at + 1;
        }
        self.buffer.drain(..from);
        match self.buffer.len() > MAX_LINE {
            true => Err(self.client.broken("an event is too long")),
            false => Ok(()),
        }
    }
}

impl<T: DeserializeOwned> Iterator for Events<'_, T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                return Some(serde_json::from_str(&data).map_err(|e| self.client.broken(e)));
            }
            let frame = self.client.runtime.block_on(self.body.frame())?;
            let taken = match frame {
                Ok(frame) => {
                    self.buffer.extend_from_slice(frame.data_ref().map_or(&[][..], |b| b));
                    self.take_lines()
                }
                Err(e) => Err(self.client.broken(e)),
            };
            if let Err(e) = taken {
                return Some(Err(e));
            }
        }
    }
}
