//! One connection: requests in, answers out, until either side ends it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tower::ServiceExt;

use super::gate::{Busy, Place};
use super::io::Patient;
use super::{Limits, Peer, Reached};

/// How often a connection is looked at for being idle.
const LOOK: Duration = Duration::from_secs(5);
/// How often an HTTP/2 client is asked whether it is there, and how long it may take to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Bytes that may be on their way to us, of one request and of a connection: bodies that nobody takes
/// yet leave room for others, as long as a backup has no more under way than it may.
const WINDOWS: (u32, u32) = (1 << 20, MAX_PARALLEL << 20);
/// The same for the control socket, which only the appliance's own user and root may use: a
/// backup's bodies have room as wholes.
const WINDOWS_HERE: (u32, u32) = (5 << 20, MAX_PARALLEL * (5 << 20));
const MAX_PARALLEL: u32 = strongroom_archive::parcel::MAX_PARALLEL as u32;
/// The largest frame that an HTTP/2 client may send, in bytes: bodies of backups are cut to such.
const FRAME: u32 = 256 << 10;
/// Requests that an HTTP/2 client takes back before we came to them, and those that we refuse: more
/// of them end its connection.
const RESETS: (usize, usize) = (32, 256);
/// Bytes of headers that an HTTP/2 client may refer to later.
const TABLE: u32 = 4096;
/// Bytes of a body that nobody wanted which are read nevertheless; one that is longer ends its
/// connection.
const LEFTOVER: u64 = 64 << 10;

/// Serves connections with one router.
#[derive(Clone)]
pub(super) struct Handler {
    router: Router,
    limits: Limits,
    /// Where whoever it serves has come to.
    reached: Option<Reached>,
}

/// A connection of either protocol.
trait Connection: Future<Output = hyper::Result<()>> {
    fn end(self: Pin<&mut Self>);
}

impl<I, S> Connection for http1::Connection<I, S>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S, E> Connection for http2::Connection<I, S, E>
where
    Self: Future<Output = hyper::Result<()>>,
    S: hyper::service::HttpService<Incoming, ResBody = Body>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
    E: hyper::rt::bounds::Http2ServerConnExec<S::Future, Body>,
{
    fn end(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl Handler {
    pub(super) fn new(router: Router, limits: Limits) -> Self {
        Self { router, limits, reached: None }
    }

    /// For a connection that came to this address.
    pub(super) fn at(&self, address: io::Result<SocketAddr>) -> Self {
        let reached = address.ok().map(|address| Reached(address.ip().to_canonical()));
        Self { reached, ..self.clone() }
    }

    pub(super) async fn serve<S>(
        &self,
        stream: S,
        h2: bool,
        peer: Peer,
        place: Place,
        stop: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = &self.limits;
        let place = Arc::new(place);
        let io = TokioIo::new(Patient::new(stream, limits.write));
        let (router, of_service) = (self.router.clone(), Arc::clone(&place));
        let (patience, reached) = (limits.leftover, self.reached);
        let service = service_fn(move |request: Request<Incoming>| {
            let busy = Arc::new(of_service.begin());
            let of_body = Arc::clone(&busy);
            // A client that asks first has sent nothing yet; HTTP/2 resets the stream alone.
            let sends = !h2 && !request.headers().contains_key(http::header::EXPECT);
            let (back, mut left) = oneshot::channel();
            let back = sends.then_some(back);
            let mut request =
                request.map(|body| Body::new(Arriving { body: Some(body), busy: of_body, back }));
            request.extensions_mut().insert(peer);
            if let Some(reached) = reached {
                request.extensions_mut().insert(reached);
            }
            let answer = router.clone().oneshot(request);
            async move {
                let response: Response<Body> = answer.await?;
                if let Ok(body) = left.try_recv() {
                    // It gives way meanwhile, as one whose body is wanted.
                    busy.awaits(true);
                    let _ = tokio::time::timeout(patience, drain(body)).await;
                    busy.awaits(false);
                }
                Ok::<_, Infallible>(response.map(|body| Body::new(Counted { body, busy })))
            }
        });
        if h2 {
            let (of_request, of_connection) = match peer {
                Peer::Local { .. } => WINDOWS_HERE,
                Peer::Network(_) => WINDOWS,
            };
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_concurrent_streams(limits.streams)
                .max_pending_accept_reset_streams(RESETS.0)
                .max_local_error_reset_streams(RESETS.1)
                .header_table_size(TABLE)
                .max_frame_size(FRAME)
                .max_header_list_size(u32::try_from(limits.headers).unwrap_or(u32::MAX))
                .initial_stream_window_size(of_request)
                .initial_connection_window_size(of_connection)
                .max_send_buf_size(256 << 10)
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1);
            self.drive(builder.serve_connection(io, service), &place, stop).await;
        } else {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(limits.header)
                .max_header_size(limits.headers)
                .max_buf_size(limits.headers.max(128 << 10));
            self.drive(builder.serve_connection(io, service), &place, stop).await;
        }
    }

    async fn drive<C: Connection>(
        &self,
        connection: C,
        place: &Place,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut connection = std::pin::pin!(connection);
        let mut look = tokio::time::interval(LOOK.min(self.limits.idle).min(self.limits.write));
        let mut ending = false;
        loop {
            tokio::select! {
                done = &mut connection => {
                    if let Err(error) = done {
                        tracing::debug!(%error, "a connection ended");
                    }
                    return;
                }
                () = place.evicted() => {
                    if place.idle().is_some() || place.awaited().is_some() {
                        return;
                    }
                    place.stays();
                }
                _ = stop.wait_for(|stop| *stop), if !ending => {
                    ending = true;
                    connection.as_mut().end();
                }
                _ = look.tick() => {
                    let idle = place.idle().is_some_and(|idle| idle >= self.limits.idle);
                    let stalled = place.awaited().is_some_and(|wait| wait >= self.limits.write);
                    if idle || stalled {
                        return;
                    }
                }
            }
        }
    }
}

/// The body of a request: while somebody wants more of it, the client is waited for. What nobody
/// wanted goes back.
struct Arriving {
    body: Option<Incoming>,
    busy: Arc<Busy>,
    back: Option<oneshot::Sender<Incoming>>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let poll = Pin::new(body).poll_frame(cx);
        self.busy.awaits(poll.is_pending());
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.busy.awaits(false);
        let unread = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Some(back)) = (unread, self.back.take()) {
            // Its connection may have ended.
            let _ = back.send(body);
        }
    }
}

/// Reads a body to its end, unless it is long.
async fn drain(mut body: Incoming) {
    let mut left = LEFTOVER;
    while body.size_hint().lower() <= left {
        let Some(Ok(frame)) = body.frame().await else { return };
        let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
        let Some(rest) = left.checked_sub(bytes) else { return };
        left = rest;
    }
}

/// The body of an answer; its request lasts as long. What there is of it is for the client to take
/// until more is wanted.
struct Counted {
    body: Body,
    busy: Arc<Busy>,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        self.busy.awaits(poll.is_ready());
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
