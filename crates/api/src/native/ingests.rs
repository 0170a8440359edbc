//! Backups that are made elsewhere: a client cuts, hashes and compresses, and sends what the pool
//! lacks.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use strongroom_archive::parcel;
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::pool::Stored;
use strongroom_identity::Right;
use strongroom_storage::ingest::{End, IDLE, Ingest as Session, NewImage, Opener, Told};
use utoipa::{IntoParams, ToSchema};

use super::paths::PoolPath;
use super::work::asker;
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Problem, Result};
use crate::route::{
    Body, Created, Draft, Empty, Group, Json, Octets, Path, Raw, Route, delete, post, put,
};

/// How long what is sent may take until it is stored: lines may be slow.
const PATIENCE: Duration = Duration::from_secs(85);
/// Bytes of the record of an image, as hexadecimal digits, and what is around it.
const COMMIT: usize = 1 << 20;

pub(super) fn group() -> Group {
    Group::new(
        "Ingest",
        "Backups that are made elsewhere. A client opens a session, cuts content as the pool does, \
         names chunks with the pool's keys, asks which the pool has, and sends the others \
         compressed, each checked against its name before anybody can use it. A session belongs to \
         its opener alone; it ends when it is committed or given up, or after some minutes without \
         a request. Every request may be sent again.",
        [
            session(post(
                "/v1/pools/{pool}/ingests",
                "ingests.open",
                "Begin to send a backup",
                open,
            ))
            .idempotent(),
            session(post(
                "/v1/pools/{pool}/ingests/{ingest}/known",
                "ingests.known",
                "Which chunks the pool has",
                known,
            ))
            .only_refusals_recorded(),
            session(post(
                "/v1/pools/{pool}/ingests/{ingest}/frames",
                "ingests.send",
                "Send chunks",
                frames,
            ))
            .only_refusals_recorded()
            .body(parcel::MAX_FRAMES)
            .within(PATIENCE),
            session(post(
                "/v1/pools/{pool}/ingests/{ingest}/pieces",
                "ingests.store",
                "Send data as it is",
                pieces,
            ))
            .only_refusals_recorded()
            .body(parcel::MAX_FRAMES)
            .within(PATIENCE),
            session(post(
                "/v1/pools/{pool}/ingests/{ingest}/parents",
                "ingests.lean",
                "Keep an image to use parts of it again",
                lean,
            ))
            .only_refusals_recorded(),
            session(post(
                "/v1/pools/{pool}/ingests/{ingest}/reuse",
                "ingests.reuse",
                "Whether chunks of a kept image may be used again",
                reuse,
            ))
            .only_refusals_recorded(),
            session(put(
                "/v1/pools/{pool}/ingests/{ingest}/progress",
                "ingests.progress",
                "Tell how far it is",
                progress,
            ))
            .only_refusals_recorded(),
            session(post(
                "/v1/pools/{pool}/ingests/{ingest}/commit",
                "ingests.commit",
                "Make the image",
                commit,
            ))
            .body(COMMIT + 1),
            session(delete(
                "/v1/pools/{pool}/ingests/{ingest}",
                "ingests.abort",
                "Give it up",
                abort,
            )),
        ],
    )
}

/// What all of them have in common.
fn session(route: Draft) -> Route {
    route.needs(Right::ImageCreate, On::Pool("pool")).fails([Code::Invalid, Code::Conflict])
}

/// A session of a pool.
#[derive(Debug, Deserialize, IntoParams)]
struct IngestPath {
    /// The pool's number.
    pool: i64,
    /// The session's id.
    ingest: String,
}

fn opener(call: &Call) -> Result<Opener> {
    let who = call.principal()?;
    Ok(Opener { user_id: who.user_id, delegate_of: who.delegate_of, key_id: who.key_id })
}

/// The session, if it is the caller's.
fn find(call: &Call, path: &IngestPath) -> Result<Session> {
    let found = call.app().storage().ingest(&path.ingest, &opener(call)?);
    let found = found.filter(|session| session.pool().id == path.pool);
    found.ok_or_else(|| Problem::not_found("session"))
}

/// What is to be sent.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct OpenIngest {
    /// What it is about, for the job that stands for it: the name of the image, or a path.
    #[serde(default)]
    object: String,
}

/// How content is cut, in bytes.
#[derive(Debug, Serialize, ToSchema)]
struct Chunking {
    /// The smallest chunk of files.
    min: u32,
    /// The average chunk of files.
    avg: u32,
    /// The largest chunk of files.
    max: u32,
    /// The chunks of disks.
    fixed: u32,
}

/// A session, and what its client must know of the pool.
#[derive(Serialize, ToSchema)]
struct Ingest {
    /// Its id.
    id: String,
    /// The job that stands for it.
    job: i64,
    /// How content is cut.
    chunking: Chunking,
    /// The zstd level of frames.
    level: i32,
    /// The key of the ids of data, BLAKE3, 64 hexadecimal digits. Keep it as you keep a token.
    data_key: String,
    /// The key of the ids of nodes, likewise.
    node_key: String,
    /// Whether chunks of the pool are known to be bad: ask before parts of an image are used again.
    damaged: bool,
    /// How many requests are to be under way at once, at most.
    parallel: usize,
    /// How many ids may be asked for at once.
    max_ids: usize,
    /// How many bytes of frames may be sent at once.
    max_bytes: usize,
    /// After so many seconds without a request the session ends.
    idle_seconds: u64,
}

async fn open(
    call: Call,
    Path(path): Path<PoolPath>,
    Body(body): Body<OpenIngest>,
) -> Result<Created<Ingest>> {
    let (asker, opener) = (asker(&call, 0)?, opener(&call)?);
    let opened = call.app().protect().open_ingest(asker, opener, path.pool, body.object).await?;
    let terms = opened.ingest.terms()?;
    let cut = terms.chunking;
    let [data_key, node_key] = terms.id_keys.map(|key| data_encoding::HEXLOWER.encode(&key));
    let id = opened.ingest.id().to_owned();
    let location = format!("/v1/pools/{}/ingests/{id}", path.pool);
    let item = Ingest {
        id,
        job: opened.job.id,
        chunking: Chunking { min: cut.min, avg: cut.avg, max: cut.max, fixed: cut.fixed },
        level: terms.level,
        data_key,
        node_key,
        damaged: terms.damaged,
        parallel: terms.parallel,
        max_ids: parcel::MAX_IDS,
        max_bytes: parcel::MAX_FRAMES,
        idle_seconds: IDLE.as_secs(),
    };
    Ok(Created { item, location })
}

async fn known(call: Call, Path(path): Path<IngestPath>, Octets(body): Octets) -> Result<Raw> {
    Ok(Raw(find(&call, &path)?.known(body).await?))
}

/// What was taken of the chunks that were sent.
#[derive(Debug, Serialize, ToSchema)]
struct Taken {
    /// Chunks that the pool lacked.
    new_chunks: u64,
    /// Their bytes.
    new_bytes: u64,
    /// What they take in packs, in bytes, before redundancy.
    stored_bytes: u64,
    /// Chunks that it had.
    known_chunks: u64,
    /// Their bytes.
    known_bytes: u64,
    /// Those of the new chunks that it once had and then lost to damage.
    healed_chunks: u64,
}

async fn frames(
    call: Call,
    Path(path): Path<IngestPath>,
    Octets(body): Octets,
) -> Result<Json<Taken>> {
    Ok(Json(find(&call, &path)?.take(body).await?.into()))
}

impl From<Stored> for Taken {
    fn from(stored: Stored) -> Self {
        Self {
            new_chunks: stored.new_chunks,
            new_bytes: stored.new_bytes,
            stored_bytes: stored.stored_bytes,
            known_chunks: stored.known_chunks,
            known_bytes: stored.known_bytes,
            healed_chunks: stored.healed_chunks,
        }
    }
}

/// What became of data that was sent as it is.
#[derive(Debug, Serialize, ToSchema)]
struct Named {
    /// The ids of the pieces, in their order: 64 hexadecimal digits each, one after the other.
    ids: String,
    /// What was taken of them.
    taken: Taken,
}

async fn pieces(
    call: Call,
    Path(path): Path<IngestPath>,
    Octets(body): Octets,
) -> Result<Json<Named>> {
    let (ids, stored) = find(&call, &path)?.store(body).await?;
    let mut text = String::with_capacity(64 * ids.len());
    ids.iter().for_each(|id| data_encoding::HEXLOWER.encode_append(&id.0, &mut text));
    Ok(Json(Named { ids: text, taken: stored.into() }))
}

/// An image of the pool.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Parent {
    /// Its id: 32 hexadecimal digits.
    root: String,
}

async fn lean(call: Call, Path(path): Path<IngestPath>, Body(body): Body<Parent>) -> Result<Empty> {
    let session = find(&call, &path)?;
    let root = RootId::parse(&body.root).ok_or_else(|| Problem::not_found("image"))?;
    session.lean_on(root).await?;
    Ok(Empty)
}

/// Whether chunks may be used again as they are.
#[derive(Debug, Serialize, ToSchema)]
struct Reuse {
    /// If not, at least one is bad or missing: read the source again, which mends it.
    may: bool,
}

async fn reuse(
    call: Call,
    Path(path): Path<IngestPath>,
    Octets(body): Octets,
) -> Result<Json<Reuse>> {
    Ok(Json(Reuse { may: find(&call, &path)?.reuse(body).await? }))
}

/// How far a client is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct IngestProgress {
    /// Bytes of content read.
    bytes_done: u64,
    /// Bytes of content to be read, as far as that is known.
    bytes_total: Option<u64>,
    /// Files, directories and others seen.
    items_done: u64,
}

async fn progress(
    call: Call,
    Path(path): Path<IngestPath>,
    Body(body): Body<IngestProgress>,
) -> Result<Empty> {
    let IngestProgress { bytes_done, bytes_total, items_done } = body;
    // Counts are kept as the catalogue has them.
    let largest = [Some(bytes_done), bytes_total, Some(items_done)].into_iter().flatten().max();
    if largest.is_some_and(|count| i64::try_from(count).is_err()) {
        return Err(Problem::new(Code::Invalid, "counts are at most 9223372036854775807"));
    }
    find(&call, &path)?.tell(Told { bytes_done, bytes_total, items_done })?;
    Ok(Empty)
}

/// An image to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CommitIngest {
    /// The series that it belongs to.
    name: String,
    /// The id of its top node: 64 hexadecimal digits.
    top: String,
    /// Its record, as hexadecimal digits.
    meta: String,
    /// For how many seconds nothing may remove it.
    immutable_seconds: Option<u64>,
}

/// An image that was made.
#[derive(Debug, Serialize, ToSchema)]
struct Made {
    /// Its number.
    image: i64,
    /// Its id: 32 hexadecimal digits.
    root: String,
    /// When, by the pool's own clock, in nanoseconds since 1970.
    created: i64,
    /// Until when nothing may remove it, likewise.
    immutable_until: Option<i64>,
    /// Its record as it is in the pool, as hexadecimal digits.
    meta: String,
}

async fn commit(
    call: Call,
    Path(path): Path<IngestPath>,
    Body(body): Body<CommitIngest>,
) -> Result<Created<Made>> {
    let session = find(&call, &path)?;
    let wrong =
        |what: &str| Problem::new(Code::Invalid, format!("`{what}` is no hexadecimal text"));
    let bytes = |text: &str| data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let top = bytes(&body.top).and_then(|top| top.try_into().ok()).ok_or_else(|| wrong("top"))?;
    let new = NewImage {
        name: body.name,
        top: ChunkId(top),
        meta: bytes(&body.meta).ok_or_else(|| wrong("meta"))?,
        immutable_seconds: body.immutable_seconds,
    };
    let done = call.app().protect().commit_ingest(&session, new).await?;
    let location = format!("/v1/images/{}", done.image.id);
    let item = Made {
        image: done.image.id,
        root: done.root.id.to_string(),
        created: done.root.created.0,
        immutable_until: done.root.immutable_until.map(|until| until.0),
        meta: data_encoding::HEXLOWER.encode(&done.root.meta),
    };
    Ok(Created { item, location })
}

async fn abort(call: Call, Path(path): Path<IngestPath>) -> Result<Empty> {
    find(&call, &path)?.end(End::Given).await;
    Ok(Empty)
}
