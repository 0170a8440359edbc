//! One HTTP/2 connection to an appliance, on which several threads have requests under way at once.
//! When it breaks, the next request makes another and everything that was under way is sent again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};

use crate::{Call, Client, Error, Place, Result, connection};

/// The longest answer, in bytes.
const MAX_ANSWER: usize = 2 << 20;
/// How long is waited before what failed is tried again; after the last it is given up.
const PAUSES: [u64; 12] = [0, 100, 250, 500, 1000, 2000, 4000, 8000, 8000, 8000, 8000, 8000];
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(90);

const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(super) struct Channel {
    client: Arc<Client>,
    runtime: Runtime,
    sender: Mutex<Option<SendRequest<Full<Bytes>>>>,
    /// Requests that may still be begun.
    free: Mutex<usize>,
    freed: Condvar,
    given_up: AtomicBool,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.client.place())
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One of the requests that may be under way.
struct Turn<'c>(&'c Channel);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *lock(&self.0.free) += 1;
        self.0.freed.notify_one();
    }
}

impl Channel {
    /// To the appliance of that client. Nothing is sent yet.
    pub(super) fn new(client: Arc<Client>) -> Result<Self> {
        // One thread drives the connection; what is asked waits in the threads that ask.
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime
            .map_err(|source| Error::Unreachable { place: client.place().to_string(), source })?;
        let (sender, free) = (Mutex::new(None), Mutex::new(1));
        let given_up = AtomicBool::new(false);
        Ok(Self { client, runtime, sender, free, freed: Condvar::new(), given_up })
    }

    /// Whether the appliance is reached by its control socket, and so is on this machine: an address of
    /// this machine may be the near end of a tunnel.
    pub(super) fn by_socket(&self) -> bool {
        matches!(self.client.place(), Place::Socket(_))
    }

    /// Allows for so many requests under way at once.
    pub(super) fn widen(&self, parallel: usize) {
        *lock(&self.free) += parallel.saturating_sub(1);
        self.freed.notify_all();
    }

    /// Tries nothing again from here on.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Sends JSON, and reads JSON.
    pub(super) fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|e| self.client.broken(e))?;
        let (answer, _) = self.send(method, path, JSON, body.into())?;
        serde_json::from_slice(&answer).map_err(|e| self.client.broken(e))
    }

    /// Sends JSON; there is nothing to read.
    pub(super) fn tell(&self, method: Method, path: &str, body: &impl Serialize) -> Result<()> {
        let body = serde_json::to_vec(body).map_err(|e| self.client.broken(e))?;
        self.send(method, path, JSON, body.into()).map(drop)
    }

    /// Sends bytes.
    pub(super) fn bytes(&self, path: &str, body: impl Into<Bytes>) -> Result<Bytes> {
        self.timed(path, body).map(|(answer, _)| answer)
    }

    /// Sends bytes, and tells how long it took from when it was begun until the answer was there.
    pub(super) fn timed(&self, path: &str, body: impl Into<Bytes>) -> Result<(Bytes, Duration)> {
        self.send(Method::POST, path, OCTETS, body.into())
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        kind: HeaderValue,
        body: Bytes,
    ) -> Result<(Bytes, Duration)> {
        let _turn = self.turn();
        let mut pauses = PAUSES.iter();
        loop {
            let request = self.request(method.clone(), path, kind.clone(), body.clone())?;
            let began = Instant::now();
            let done = self.runtime.block_on(async {
                match tokio::time::timeout(PATIENCE, self.answer(request)).await {
                    Ok(done) => done,
                    Err(_) => Err(self.client.broken("no answer came")),
                }
            });
            let error = match done {
                Ok(answer) => return Ok((answer, began.elapsed())),
                Err(error) => error,
            };
            let pause = pauses.next().filter(|_| may_pass(&error));
            let Some(pause) = pause.filter(|_| !self.given_up.load(Ordering::Relaxed)) else {
                return Err(error);
            };
            std::thread::sleep(Duration::from_millis(*pause));
        }
    }

    fn turn(&self) -> Turn<'_> {
        let mut free = lock(&self.free);
        while *free == 0 {
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Turn(self)
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        kind: HeaderValue,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>> {
        let mut request = self.client.request(&Call::new(method, path))?;
        // HTTP/2 names the host in the address.
        let (scheme, host) = match self.client.place() {
            Place::Socket(_) => ("http", "localhost".to_owned()),
            Place::Remote { address, .. } => {
                ("https", address.to_string().trim_start_matches("https://").to_owned())
            }
        };
        let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|e| self.client.broken(e))?;
        request.headers_mut().remove(header::HOST);
        request.headers_mut().insert(header::CONTENT_TYPE, kind);
        *request.body_mut() = Full::new(body);
        Ok(request)
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Bytes> {
        let mut sender = self.sender().await?;
        let answer = match sender.send_request(request).await {
            Ok(answer) => answer,
            Err(error) => {
                // Others that are under way on it fail too, and find another.
                lock(&self.sender).take_if(|kept| kept.is_closed());
                return Err(self.client.broken(error));
            }
        };
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|e| self.client.broken(e))?.to_bytes();
        match status.is_success() {
            true => Ok(body),
            false => Err(self.client.refused(status, &body)),
        }
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>> {
        let kept = lock(&self.sender).clone().filter(|sender| !sender.is_closed());
        if let Some(sender) = kept {
            return Ok(sender);
        }
        let sender = connection::http2(self.client.place()).await?;
        *lock(&self.sender) = Some(sender.clone());
        Ok(sender)
    }
}

/// Whether it may be better when it is tried again.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Broken { .. } => true,
        Error::Refused(problem) => {
            let again = [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT];
            again.iter().any(|code| problem.status == code.as_u16()) || problem.status > 500
        }
        _ => false,
    }
}
