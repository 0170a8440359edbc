//! Reading images as a pool is read, node by node and chunk by chunk: for programs that restore,
//! mount and compare elsewhere.

use std::io;

use axum::body::Bytes;
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use strongroom_archive::wire::MAX_REQUEST;
use strongroom_engine::id::ChunkKind;
use strongroom_identity::Right;
use strongroom_storage::ReaderRef;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

use super::paths::PoolPath;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Created, Empty, Group, Octets, Path, Pieces, Query, Route, delete, get, post, put,
};

/// Pieces that wait for the client at most.
const WAITING: usize = 4;

pub(super) fn group() -> Group {
    let pool = On::Pool("pool");
    let answers_chunks =
        |route: Route| route.fails([Code::Conflict]).only_reads().body(MAX_REQUEST);
    Group::new(
        "Readers",
        "Images read as a pool is: by nodes and chunks, which come in bulk and in a binary form \
         (`crates/archive/src/wire.rs` describes it). A reader is the caller's who opened it; it \
         ends when it is closed or was idle for a while.",
        [
            post("/v1/pools/{pool}/readers", "readers.open", "Open a reader", open)
                .needs(Right::ImageRead, pool)
                .fails([Code::Conflict, Code::Invalid])
                .idempotent(),
            delete("/v1/pools/{pool}/readers/{reader}", "readers.close", "Close a reader", close)
                .needs(Right::ImageRead, pool),
            get(
                "/v1/pools/{pool}/readers/{reader}/roots",
                "readers.roots",
                "The images of the reader's pool",
                roots,
            )
            .needs(Right::ImageRead, pool),
            put(
                "/v1/pools/{pool}/readers/{reader}/images/{root}",
                "readers.hold",
                "Keep an image while the reader is open, whatever is forgotten",
                hold,
            )
            .needs(Right::ImageRead, pool)
            .only_reads(),
            delete(
                "/v1/pools/{pool}/readers/{reader}/images/{root}",
                "readers.release",
                "Keep an image no longer",
                release,
            )
            .needs(Right::ImageRead, pool)
            .only_reads(),
            answers_chunks(
                post(
                    "/v1/pools/{pool}/readers/{reader}/nodes",
                    "readers.nodes",
                    "Nodes, and those that will be wanted next",
                    nodes,
                )
                .needs(Right::ImageRead, pool),
            ),
            answers_chunks(
                post(
                    "/v1/pools/{pool}/readers/{reader}/chunks",
                    "readers.chunks",
                    "Chunks",
                    chunks,
                )
                .needs(Right::ImageRead, pool),
            ),
        ],
    )
}

/// A reader in the path.
#[derive(Debug, Deserialize, IntoParams)]
struct ReaderPath {
    /// The pool's number.
    pool: i64,
    /// The reader's name.
    reader: String,
}

/// A reader and an image.
#[derive(Debug, Deserialize, IntoParams)]
struct HoldPath {
    /// The pool's number.
    pool: i64,
    /// The reader's name.
    reader: String,
    /// The image's id in the pool: 32 hexadecimal digits.
    root: String,
}

fn reader(call: &Call, pool_id: i64, reader: String) -> Result<ReaderRef> {
    Ok(ReaderRef { pool_id, reader, user_id: call.principal()?.user_id })
}

/// A reader.
#[derive(Debug, Serialize, ToSchema)]
struct Reader {
    /// Its name.
    reader: String,
    /// The pool's time, in nanoseconds since 1970.
    now: i64,
    /// The key that the ids of data chunks are made with (BLAKE3), as hexadecimal digits: what
    /// comes, and what was restored, can be compared with what should be there.
    data_key: String,
    /// That of the ids of nodes.
    node_key: String,
    /// After so many seconds without a request it is closed.
    idle_seconds: u64,
}

async fn open(call: Call, Path(path): Path<PoolPath>) -> Result<Created<Reader>> {
    let user_id = call.principal()?.user_id;
    let opened = call.app().storage().open_reader(path.pool, user_id).await?;
    let location = format!("/v1/pools/{}/readers/{}", path.pool, opened.reader);
    let [data_key, node_key] = opened.id_keys.map(|key| data_encoding::HEXLOWER.encode(&key));
    let item = Reader {
        reader: opened.reader,
        now: opened.now.0,
        data_key,
        node_key,
        idle_seconds: opened.idle.as_secs(),
    };
    Ok(Created { item, location })
}

async fn close(call: Call, Path(path): Path<ReaderPath>) -> Result<Empty> {
    let at = reader(&call, path.pool, path.reader)?;
    call.app().storage().close_reader(&at)?;
    Ok(Empty)
}

async fn hold(call: Call, Path(path): Path<HoldPath>) -> Result<Empty> {
    let at = reader(&call, path.pool, path.reader)?;
    call.app().storage().hold_image(&at, &path.root)?;
    Ok(Empty)
}

async fn release(call: Call, Path(path): Path<HoldPath>) -> Result<Empty> {
    let at = reader(&call, path.pool, path.reader)?;
    call.app().storage().release_image(&at, &path.root)?;
    Ok(Empty)
}

/// How the answer is to come.
#[derive(Debug, Deserialize, IntoParams)]
struct RootsQuery {
    /// Whether pieces of it may be compressed.
    #[serde(default)]
    compress: bool,
}

async fn roots(
    call: Call,
    Path(path): Path<ReaderPath>,
    Query(query): Query<RootsQuery>,
) -> Result<Pieces<impl Stream<Item = io::Result<Bytes>>>> {
    let at = reader(&call, path.pool, path.reader)?;
    let storage = call.app().storage().clone();
    storage.find_reader(&at)?;
    Ok(stream(move |out| async move { storage.read_roots(&at, query.compress, out).await }))
}

async fn nodes(
    call: Call,
    Path(path): Path<ReaderPath>,
    Octets(request): Octets,
) -> Result<Pieces<impl Stream<Item = io::Result<Bytes>>>> {
    read(call, path, ChunkKind::Node, request).await
}

async fn chunks(
    call: Call,
    Path(path): Path<ReaderPath>,
    Octets(request): Octets,
) -> Result<Pieces<impl Stream<Item = io::Result<Bytes>>>> {
    read(call, path, ChunkKind::Data, request).await
}

async fn read(
    call: Call,
    path: ReaderPath,
    kind: ChunkKind,
    request: Bytes,
) -> Result<Pieces<impl Stream<Item = io::Result<Bytes>>>> {
    let at = reader(&call, path.pool, path.reader)?;
    let reading = call.app().storage().begin_reading(&at, kind, &request)?;
    Ok(stream(|out| reading.answer(out)))
}

/// The pieces of an answer as they come. When the client goes, sending fails.
fn stream<F>(
    work: impl FnOnce(Box<dyn Fn(Vec<u8>) -> io::Result<()> + Send + Sync>) -> F,
) -> Pieces<impl Stream<Item = io::Result<Bytes>> + Send + 'static>
where
    F: Future<Output = strongroom_storage::Result<()>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(WAITING);
    let failed = sender.clone();
    let out = move |piece: Vec<u8>| {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        sender.blocking_send(Ok(piece.into())).map_err(gone)
    };
    let work = work(Box::new(out));
    tokio::spawn(async move {
        if let Err(error) = work.await
            && !failed.is_closed()
        {
            tracing::warn!(%error, "an answer to a reader broke off");
            // The client must see that it is not whole.
            let _ = failed.send(Err(io::Error::other("the appliance failed"))).await;
        }
    });
    Pieces(async_stream::stream! {
        while let Some(piece) = receiver.recv().await {
            yield piece;
        }
    })
}
