//! Requests and answers.

use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::connection::{self, Connections, Sender};
use crate::types::Count;
use crate::{Call, Error, Fingerprint, Place, Problem, Result};

/// Threads that open what came over TLS.
const THREADS: usize = 2;
/// How long an answer that has begun may make no progress.
const SILENCE: Duration = Duration::from_secs(120);

/// The longest answer that is taken whole, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// The longest line of a stream of events, in bytes.
const MAX_LINE: usize = 1 << 20;
/// How often a request is sent that its key lets be sent again.
const ATTEMPTS: u32 = 5;
/// The pause before the second attempt; it grows.
const PAUSE: Duration = Duration::from_millis(250);
/// What need not be escaped in a query or a part of a path.
pub(crate) const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Talks to one appliance.
#[derive(Debug)]
pub struct Client {
    place: Place,
    connections: Connections,
    runtime: Runtime,
}

impl Client {
    /// A client of the appliance at this place. Nothing is sent yet.
    ///
    /// # Errors
    /// [`Error::Unreachable`] when the system gives this process no event loop.
    pub fn new(place: Place) -> Result<Self> {
        // Several threads may ask at once, and what is encrypted is opened beside them.
        let runtime = Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
        let runtime =
            runtime.map_err(|source| Error::Unreachable { place: place.to_string(), source })?;
        Ok(Self { place, connections: Connections::default(), runtime })
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
        self.call(&Call::new(Method::GET, path).queried(query))
    }

    /// Makes or begins something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.call(&Call::new(Method::POST, path).with(body)?)
    }

    /// Removes or ends something.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn delete(&self, path: &str) -> Result<()> {
        self.call(&Call::new(Method::DELETE, path))
    }

    /// Sends a request and reads the answer; one without content is `null`. A request with a key
    /// ([`Call::once`]) is sent again when nobody can tell whether it arrived.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T> {
        let bytes = self.bytes(call)?;
        let json = if bytes.is_empty() { &b"null"[..] } else { &bytes[..] };
        serde_json::from_slice(json).map_err(|e| self.broken(e))
    }

    /// As [`Client::call`], for an answer that is text.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn text(&self, call: &Call<'_>) -> Result<String> {
        String::from_utf8(self.bytes(call)?.into()).map_err(|e| self.broken(e))
    }

    /// Counts what a list has.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn count(&self, path: &str, query: &[(&str, &str)]) -> Result<Count> {
        let request = self.request(&Call::new(Method::HEAD, path).queried(query))?;
        let answer = self.runtime.block_on(self.answer(request))?.0;
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let count = header("x-total-count").and_then(|text| text.parse().ok());
        let count = count.ok_or_else(|| self.broken("it did not count"))?;
        Ok(Count { count, exact: header("x-total-exact") == Some("true") })
    }

    fn bytes(&self, call: &Call<'_>) -> Result<Bytes> {
        let mut attempt = 1;
        loop {
            let request = self.request(call)?;
            let taken = self.runtime.block_on(async {
                let (answer, sender) = self.answer(request).await?;
                self.whole(answer, sender).await
            });
            let again = match &taken {
                Err(Error::Broken { .. }) => true,
                // It arrived before, and is being worked on.
                Err(Error::Refused(problem)) => attempt > 1 && problem.code == "in_progress",
                _ => false,
            };
            if !(again && call.has_key() && attempt < ATTEMPTS) {
                return taken;
            }
            std::thread::sleep(PAUSE * attempt);
            attempt += 1;
        }
    }

    /// Writes what is at a path to `out` as it comes; gives the number of bytes.
    ///
    /// # Errors
    /// As [`Client::get`]; [`Error::Local`] when it can't be written.
    pub fn download(&self, path: &str, query: &[(&str, &str)], out: &mut dyn Write) -> Result<u64> {
        let request = self.request(&Call::new(Method::GET, path).queried(query))?;
        self.runtime.block_on(async {
            let mut body = self.answer(request).await?.0.into_body();
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

    /// Sends a request and hands out the answer as it comes, until `stop` is true.
    pub(crate) fn stream<E: From<Error>>(
        &self,
        call: &Call<'_>,
        mut stop: watch::Receiver<bool>,
        take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let request = self.request(call)?;
        let stopped = || self.broken("it was asked to stop");
        self.runtime.block_on(async {
            let answer = tokio::select! {
                answer = self.answer(request) => answer?,
                _ = stop.wait_for(|stop| *stop) => return Err(stopped().into()),
            };
            let (mut body, sender) = (answer.0.into_body(), answer.1);
            loop {
                let frame = tokio::select! {
                    frame = tokio::time::timeout(SILENCE, body.frame()) => frame,
                    _ = stop.wait_for(|stop| *stop) => return Err(stopped().into()),
                };
                let silent = |_| self.broken("nothing came for too long");
                let Some(frame) = frame.map_err(silent)? else { break };
                let frame = frame.map_err(|e| self.broken(e))?;
                if let Some(bytes) = frame.data_ref() {
                    take(bytes)?;
                }
            }
            self.connections.keep(sender).await;
            Ok(())
        })
    }

    /// What happens, as it happens (server-sent events), until the appliance ends it.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn events<T: DeserializeOwned>(&self, path: &str) -> Result<Events<'_, T>> {
        self.events_after(path, None)
    }

    /// As [`Client::events`], but for what came up to the event with this id.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub fn events_after<T: DeserializeOwned>(
        &self,
        path: &str,
        last: Option<&str>,
    ) -> Result<Events<'_, T>> {
        let mut request = self.request(&Call::new(Method::GET, path))?;
        if let Some(last) = last {
            let id = HeaderValue::from_str(last).map_err(|e| self.broken(e))?;
            request.headers_mut().insert("last-event-id", id);
        }
        let body = self.runtime.block_on(self.answer(request))?.0.into_body();
        let (buffer, ready) = (Vec::new(), VecDeque::new());
        let last = last.map(str::to_owned);
        Ok(Events { client: self, body, buffer, ready, last, of: std::marker::PhantomData })
    }

    pub(crate) fn broken(&self, why: impl ToString) -> Error {
        Error::Broken { place: self.place.to_string(), why: why.to_string() }
    }

    pub(crate) fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>> {
        let mut target = call.path().to_owned();
        for (i, (name, value)) in call.query().iter().enumerate() {
            target.push(if i == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.extend(utf8_percent_encode(value, PLAIN));
        }
        let mut request = Request::builder().method(call.method()).uri(target);
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
                    let mut value = HeaderValue::try_from(bearer)
                        .map_err(|_| self.broken("the token is not one"))?;
                    value.set_sensitive(true);
                    request = request.header(header::AUTHORIZATION, value);
                }
            }
        }
        for (name, value) in call.headers() {
            request = request.header(name, value);
        }
        let body = Full::new(call.body().cloned().unwrap_or_default());
        request.body(body).map_err(|e| self.broken(e))
    }

    async fn whole(&self, answer: Response<Incoming>, sender: Sender) -> Result<Bytes> {
        let body = Limited::new(answer.into_body(), MAX_ANSWER);
        let bytes = body.collect().await.map_err(|e| self.broken(e))?.to_bytes();
        self.connections.keep(sender).await;
        Ok(bytes)
    }

    /// The answer, if it isn't a refusal.
    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<(Response<Incoming>, Sender)> {
        let (answer, sender) = self.connections.send(&self.place, request).await?;
        if answer.status().is_success() {
            return Ok((answer, sender));
        }
        let status = answer.status();
        let bytes = self.whole(answer, sender).await?;
        Err(self.refused(status, &bytes))
    }

    /// What an answer says that is a refusal.
    pub(crate) fn refused(&self, status: StatusCode, body: &[u8]) -> Error {
        let mut problem: Problem = serde_json::from_slice(body).unwrap_or_default();
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            let reason = status.canonical_reason().unwrap_or("no success");
            problem.title = format!("the appliance answered {} ({reason})", status.as_u16());
        }
        let had_token = matches!(self.place, Place::Remote { token: Some(_), .. });
        if status == StatusCode::UNAUTHORIZED && had_token {
            let text = problem.detail.as_mut().unwrap_or(&mut problem.title);
            text.push_str(": log in again with `strongroom login`");
        }
        Error::Refused(problem)
    }
}

/// What happens, see [`Client::events`].
#[derive(Debug)]
pub struct Events<'c, T> {
    client: &'c Client,
    body: Incoming,
    buffer: Vec<u8>,
    ready: VecDeque<String>,
    last: Option<String>,
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
            } else if let Some(id) = line.strip_prefix("id:") {
                self.last = Some(id.trim().to_owned());
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

impl<T: DeserializeOwned> Events<'_, T> {
    /// The id of the event that arrived last, where they have ids.
    pub fn last_id(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The next event, or `Ok(None)` when there is none for so long; none at all: it ended.
    pub fn wait(&mut self, limit: Duration) -> Option<Result<Option<T>>> {
        loop {
            if let Some(data) = self.ready.pop_front() {
                let event = serde_json::from_str(&data).map_err(|e| self.client.broken(e));
                return Some(event.map(Some));
            }
            let frame = async { tokio::time::timeout(limit, self.body.frame()).await };
            let Ok(frame) = self.client.runtime.block_on(frame) else { return Some(Ok(None)) };
            let taken = match frame? {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::{BufRead, BufReader, Read};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    /// Answers requests with these texts, one after the other; nothing: it hangs up. Gives the
    /// heads of the requests.
    fn answers(listener: UnixListener, texts: &'static [&'static str]) -> Vec<String> {
        let answer = |text: &&str| {
            let (mut stream, _) = listener.accept().unwrap();
            let head = head(&stream);
            stream.write_all(text.as_bytes()).unwrap();
            head
        };
        texts.iter().map(answer).collect()
    }

    /// A place where nobody answers yet, and a client of it.
    fn listening() -> (tempfile::TempDir, UnixListener, Client) {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        (dir, listener, Client::new(Place::Socket(socket)).unwrap())
    }

    /// The head of the next request.
    fn head(stream: &UnixStream) -> String {
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        head.join("\n").to_lowercase()
    }

    const MADE: &str = "HTTP/1.1 201 Created\r\nconnection: close\r\ncontent-length: 1\r\n\r\n7";
    const BUSY: &str = "HTTP/1.1 409 Conflict\r\nconnection: close\r\ncontent-length: 22\r\n\r\n\
                        {\"code\":\"in_progress\"}";
    /// The client keeps this connection, although there comes no second answer on it.
    const KEPT: &str = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n8";

    #[test]
    fn what_is_made_once_is_sent_again_under_the_same_key_and_nothing_else_is() {
        let (_dir, listener, client) = listening();
        let seen = std::thread::spawn(|| answers(listener, &["", BUSY, MADE, ""]));

        let once = Call::new(Method::POST, "/").with(&1).unwrap().only_once().unwrap();
        assert_eq!(client.call::<i64>(&once).unwrap(), 7);
        let plain = Call::new(Method::POST, "/").with(&1).unwrap();
        assert!(matches!(client.call::<i64>(&plain), Err(Error::Broken { .. })));

        let heads = seen.join().unwrap();
        let key = |head: &String| {
            head.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned))
        };
        assert!(key(&heads[0]).is_some_and(|key| key.len() == 32));
        assert_eq!((key(&heads[1]), key(&heads[2])), (key(&heads[0]), key(&heads[0])));
        assert_eq!(key(&heads[3]), None);
    }

    #[test]
    fn what_changes_nothing_is_asked_again_when_a_kept_connection_has_ended() {
        let (_dir, listener, client) = listening();
        let seen = std::thread::spawn(|| {
            let (mut first, _) = listener.accept().unwrap();
            let (asked, _) = (head(&first), first.write_all(KEPT.as_bytes()).unwrap());
            // The second question is read, so it was sent; then nobody answers.
            let unanswered = head(&first);
            drop(first);
            (asked, unanswered, answers(listener, &[MADE]))
        });
        assert_eq!(client.get::<i64>("/", &[]).unwrap(), 8);
        assert_eq!(client.get::<i64>("/", &[]).unwrap(), 7);
        let (asked, unanswered, answered) = seen.join().unwrap();
        assert_eq!((&asked, &unanswered), (&answered[0], &answered[0]));
    }

    #[test]
    fn events_have_ids_and_waiting_for_them_has_an_end() {
        let (_dir, listener, client) = listening();
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let serve = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            // What comes before the question is no answer to it.
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                asked.push(byte[0]);
            }
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(b"event: x\nid: 41\ndata: 1\n\n").unwrap();
            wait.recv().unwrap();
            stream.write_all(b": still here\n\nid: 42\ndata: 2\n\n").unwrap();
        });
        let mut events = client.events_after::<i64>("/", Some("40")).unwrap();
        let long = Duration::from_secs(60);
        assert_eq!(events.wait(long).unwrap().unwrap(), Some(1));
        assert_eq!(events.last_id(), Some("41"));
        assert_eq!(events.wait(Duration::from_millis(1)).unwrap().unwrap(), None);
        go_on.send(()).unwrap();
        assert_eq!(events.wait(long).unwrap().unwrap(), Some(2));
        assert_eq!(events.last_id(), Some("42"));
        assert!(!matches!(events.wait(long), Some(Ok(_))), "it has ended");
        serve.join().unwrap();
    }
}
