//! What is in an image: directories, searches, differences.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_identity::{Object, Right};
use strongroom_storage::{Change as Difference, Entry as Found, Query as Wanted, path_bytes};
use utoipa::{IntoParams, ToSchema};

use crate::access::On;
use crate::call::Call;
use crate::native::paths::ImagePath;
use crate::problem::{Code, Result};
use crate::route::{Items, Json, Path, Query, Route, get};

/// Entries of one answer when nobody says.
const LIMIT: u64 = 1000;

pub(super) fn browse_route() -> Route {
    get("/v1/images/{image}/entries", "images.browse", "A directory of an image", browse)
        .needs(Right::ImageRead, On::Image("image"))
        .fails([Code::Invalid, Code::Conflict])
}

pub(super) fn find_route() -> Route {
    get("/v1/images/{image}/find", "images.find", "Look through an image", find)
        .needs(Right::ImageRead, On::Image("image"))
        .fails([Code::Invalid, Code::Conflict])
}

pub(super) fn diff_route() -> Route {
    get("/v1/images/{image}/diff", "images.diff", "What differs in another image", diff)
        .needs(Right::ImageRead, On::Image("image"))
        .fails([Code::Invalid, Code::Conflict])
}

/// Where in an image.
#[derive(Debug, Deserialize, IntoParams)]
struct BrowseQuery {
    /// The path; the top when there is none.
    path: Option<String>,
    /// Instead, the bytes of the path as hexadecimal digits, where they are no text.
    path_hex: Option<String>,
    /// How many entries to leave out.
    offset: Option<u64>,
    /// How many entries there are at most: 1000 when nobody says.
    limit: Option<u64>,
}

/// Something in an image.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Entry {
    /// Its path; bytes that aren't UTF-8 are escaped.
    path: String,
    /// The path's bytes as hexadecimal digits, when the text doesn't tell them.
    path_hex: Option<String>,
    /// `file`, `dir`, `symlink`, `fifo`, `char`, `block` or `socket`.
    kind: &'static str,
    /// Permission, set-id and sticky bits, as octal digits.
    mode: String,
    /// Its owner.
    uid: u32,
    /// Its group.
    gid: u32,
    /// The owner's name where the image was made.
    user: Option<String>,
    /// The group's name likewise.
    group: Option<String>,
    /// Bytes of content.
    size: u64,
    /// When the content last changed, in nanoseconds since 1970.
    mtime: i64,
    /// Where a link points.
    target: Option<String>,
    /// How many entries a directory has.
    entries: Option<u64>,
}

impl From<Found> for Entry {
    fn from(entry: Found) -> Self {
        let Found {
            path,
            path_hex,
            kind,
            mode,
            uid,
            gid,
            user,
            group,
            size,
            mtime,
            target,
            entries,
        } = entry;
        Self { path, path_hex, kind, mode, uid, gid, user, group, size, mtime, target, entries }
    }
}

/// A directory of an image, or a part of it.
#[derive(Debug, Serialize, ToSchema)]
struct Directory {
    /// What was asked for itself.
    entry: Entry,
    /// What is in it, by name.
    items: Vec<Entry>,
    /// Whether there are more behind them.
    more: bool,
}

async fn browse(
    call: Call,
    Path(path): Path<ImagePath>,
    Query(query): Query<BrowseQuery>,
) -> Result<Json<Directory>> {
    let at = path_bytes(query.path.as_deref().unwrap_or_default(), query.path_hex.as_deref())?;
    let (offset, limit) = (query.offset.unwrap_or(0), query.limit.unwrap_or(LIMIT));
    let found = call.app().storage().browse(path.image, at, offset, limit).await?;
    let items = found.items.into_iter().map(Entry::from).collect();
    Ok(Json(Directory { entry: found.itself.into(), items, more: found.more }))
}

/// What is looked for; everything that is given must fit.
#[derive(Debug, Deserialize, IntoParams)]
struct FindQuery {
    /// A pattern of paths, as those that leave things out.
    pattern: Option<String>,
    /// At least so many bytes.
    min_size: Option<u64>,
    /// At most so many bytes.
    max_size: Option<u64>,
    /// Changed at or after this.
    newer: Option<Timestamp>,
    /// Changed at or before this.
    older: Option<Timestamp>,
    /// `file`, `dir`, `symlink`, `fifo`, `char`, `block` or `socket`.
    kind: Option<String>,
    /// How many entries to leave out.
    offset: Option<u64>,
    /// How many entries there are at most: 1000 when nobody says.
    limit: Option<u64>,
}

async fn find(
    call: Call,
    Path(path): Path<ImagePath>,
    Query(query): Query<FindQuery>,
) -> Result<Items<Entry>> {
    let nanos = |time: Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let wanted = Wanted {
        patterns: query.pattern.into_iter().collect(),
        min_size: query.min_size,
        max_size: query.max_size,
        newer: query.newer.map(nanos),
        older: query.older.map(nanos),
        kind: query.kind,
    };
    let (offset, limit) = (query.offset.unwrap_or(0), query.limit.unwrap_or(LIMIT));
    let found = call.app().storage().find_in_image(path.image, wanted, offset, limit).await?;
    let items = found.items.into_iter().map(Entry::from).collect();
    Ok(Items { items, more: found.more, count: None })
}

/// With which image, and where.
#[derive(Debug, Deserialize, IntoParams)]
struct DiffQuery {
    /// The number of the other image, of the same pool.
    with: i64,
    /// The path below which to look; the top when there is none.
    path: Option<String>,
    /// Instead, the bytes of the path as hexadecimal digits, where they are no text.
    path_hex: Option<String>,
    /// How many differences to leave out.
    offset: Option<u64>,
    /// How many differences there are at most: 1000 when nobody says.
    limit: Option<u64>,
}

/// A difference between two images.
#[derive(Debug, Serialize, ToSchema)]
struct Change {
    /// `added`, `removed`, `replaced` (by something of another kind) or `changed`.
    what: &'static str,
    /// Whether the content differs.
    content: bool,
    /// Whether mode, owner or attributes differ.
    metadata: bool,
    /// Whether the time of modification differs.
    time: bool,
    /// What the image has.
    left: Option<Entry>,
    /// What the other image has.
    right: Option<Entry>,
}

impl From<Difference> for Change {
    fn from(change: Difference) -> Self {
        Self {
            what: change.what,
            content: change.content,
            metadata: change.metadata,
            time: change.time,
            left: change.left.map(Entry::from),
            right: change.right.map(Entry::from),
        }
    }
}

async fn diff(
    call: Call,
    Path(path): Path<ImagePath>,
    Query(query): Query<DiffQuery>,
) -> Result<Items<Change>> {
    let storage = call.app().storage();
    // Only the first image is in the path.
    let other = storage.image(query.with).await?;
    let object = Object::of(other.organisation_id).in_pool(other.pool_id);
    call.allow(Right::ImageRead, &object, "image")?;
    let at = path_bytes(query.path.as_deref().unwrap_or_default(), query.path_hex.as_deref())?;
    let (offset, limit) = (query.offset.unwrap_or(0), query.limit.unwrap_or(LIMIT));
    let found = storage.diff_images(path.image, query.with, at, offset, limit).await?;
    let items = found.items.into_iter().map(Change::from).collect();
    Ok(Items { items, more: found.more, count: None })
}
