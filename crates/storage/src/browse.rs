//! Looking into images: directories, differences, finding.

use serde::Serialize;
use strongroom_archive::diff::{Difference, diff};
use strongroom_archive::entry::{Body, Entry as Inner, Time};
use strongroom_archive::find::find_in;
use strongroom_archive::list::{Legend, Row};
use strongroom_archive::tree::Dir;
use strongroom_archive::{Troubles, image, show};
use strongroom_catalog::list::Page;

use crate::images::Opened;
use crate::{Error, Result, Storage};

/// How many entries one call gives at most.
const MAX_PAGE: u64 = 10_000;

/// Something in an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its path from the top of the image; bytes that aren't UTF-8 are escaped.
    pub path: String,
    /// The path's bytes in hexadecimal digits, when the text doesn't tell them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_hex: Option<String>,
    /// `file`, `dir`, `symlink`, `fifo`, `char`, `block` or `socket`.
    pub kind: &'static str,
    /// Permission, set-id and sticky bits, as octal digits.
    pub mode: String,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The owner's name where the image was made.
    pub user: Option<String>,
    /// The group's name likewise.
    pub group: Option<String>,
    /// Bytes of content.
    pub size: u64,
    /// When the content last changed, in nanoseconds since 1970.
    pub mtime: i64,
    /// Where a link points.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How many entries a directory has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entries: Option<u64>,
}

impl Entry {
    fn of(row: Row) -> Self {
        let text = std::str::from_utf8(&row.path);
        let plain = text.is_ok_and(|text| !text.chars().any(char::is_control));
        Self {
            path: show(&row.path),
            path_hex: (!plain).then(|| data_encoding::HEXLOWER.encode(&row.path)),
            kind: row.kind,
            mode: format!("{:04o}", row.mode),
            uid: row.uid,
            gid: row.gid,
            user: row.user.map(|name| show(&name)),
            group: row.group.map(|name| show(&name)),
            size: row.size,
            mtime: row.mtime.nanos(),
            target: row.target.map(|target| show(&target)),
            entries: row.entries,
        }
    }
}

/// A part of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entries {
    /// What was asked for itself.
    pub itself: Entry,
    /// What is in it, by name; nothing if it is no directory.
    pub items: Vec<Entry>,
    /// Whether there are more behind them.
    pub more: bool,
}

/// A difference between two images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `added`, `removed`, `replaced` (by something of another kind) or `changed`.
    pub what: &'static str,
    /// Whether the content differs.
    pub content: bool,
    /// Whether mode, owner or attributes differ.
    pub metadata: bool,
    /// Whether the time of modification differs.
    pub time: bool,
    /// What the first image has.
    pub left: Option<Entry>,
    /// What the second image has.
    pub right: Option<Entry>,
}

/// What is looked for in an image; everything that is given must fit.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Patterns, as those that leave things out; any of them.
    pub patterns: Vec<String>,
    /// At least so many bytes.
    pub min_size: Option<u64>,
    /// At most so many bytes.
    pub max_size: Option<u64>,
    /// Changed at or after this, in nanoseconds since 1970.
    pub newer: Option<i64>,
    /// Changed at or before this.
    pub older: Option<i64>,
    /// One of [`Entry::kind`].
    pub kind: Option<String>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What fits, by path.
    pub items: Vec<Entry>,
    /// Whether there are more behind them.
    pub more: bool,
    /// Directories that could not be read.
    pub unreadable: u64,
}

/// The bytes of a path: of its hexadecimal digits if there are any, else of the text.
///
/// # Errors
/// [`Error::Invalid`] for what aren't hexadecimal digits.
pub fn path_bytes(text: &str, hex: Option<&str>) -> Result<Vec<u8>> {
    match hex {
        None => Ok(text.as_bytes().to_vec()),
        Some(hex) => data_encoding::HEXLOWER_PERMISSIVE
            .decode(hex.as_bytes())
            .map_err(|_| Error::Invalid("path_hex is not hexadecimal digits, two a byte".into())),
    }
}

/// A path with one slash before each name.
fn full(path: &[u8]) -> Result<Vec<u8>> {
    let mut full = Vec::with_capacity(path.len() + 1);
    for name in image::components(path)? {
        full.push(b'/');
        full.extend_from_slice(name);
    }
    Ok(full)
}

/// Takes a part of what comes.
struct Part<T> {
    skip: u64,
    limit: u64,
    items: Vec<T>,
    more: bool,
}

impl<T> Part<T> {
    fn new(offset: u64, limit: u64) -> Self {
        Self { skip: offset, limit: limit.min(MAX_PAGE), items: Vec::new(), more: false }
    }

    /// An error, which ends the walk, once there is one more than is wanted.
    fn take(&mut self, item: impl FnOnce() -> T) -> strongroom_archive::Result<()> {
        if self.skip > 0 {
            self.skip -= 1;
        } else if self.items.len() as u64 == self.limit {
            self.more = true;
            return Err(strongroom_engine::Error::Canceled.into());
        } else {
            self.items.push(item());
        }
        Ok(())
    }

    /// The page, unless the walk ended for another reason.
    fn page(self, walked: strongroom_archive::Result<()>) -> Result<Page<T>> {
        match walked {
            Err(error) if !(self.more && error.is_canceled()) => Err(error.into()),
            _ => Ok(Page { items: self.items, more: self.more }),
        }
    }
}

impl Storage {
    /// A part of a directory of an image, by name.
    ///
    /// # Errors
    /// [`strongroom_archive::Error::NoPath`]; [`Error::Gone`]; those of the pool.
    pub async fn browse(
        &self,
        image_id: i64,
        path: Vec<u8>,
        offset: u64,
        limit: u64,
    ) -> Result<Entries> {
        let Opened { pool, image, .. } = self.opened(image_id).await?;
        self.blocking(move || {
            let _lease = pool.lease(image.id)?;
            let legend = Legend::of(&*pool, &image, &mut Troubles::default())?;
            let (entry, mut at) = (image.entry(&*pool, &path)?, full(&path)?);
            let itself = Entry::of(legend.row(&at, &entry));
            let Body::Dir { node, entries: count } = entry.body else {
                return Ok(Entries { itself, items: Vec::new(), more: false });
            };
            let limit = limit.min(MAX_PAGE);
            let mut entries = Dir::new(&*pool, node).entries_from(offset);
            let mut items = Vec::new();
            let length = at.len();
            while (items.len() as u64) < limit {
                let Some(entry) = entries.next() else { break };
                let entry = entry?;
                at.truncate(length);
                at.push(b'/');
                at.extend_from_slice(&entry.name);
                items.push(Entry::of(legend.row(&at, &entry)));
            }
            let more = offset.saturating_add(items.len() as u64) < count;
            Ok(Entries { itself, items, more })
        })
        .await
    }

    /// A part of the differences between two images of one pool, below a path.
    ///
    /// # Errors
    /// [`Error::Invalid`] for images of two pools; [`strongroom_archive::Error::NoPath`];
    /// [`Error::Gone`]; those of the pool.
    pub async fn diff_images(
        &self,
        left: i64,
        right: i64,
        path: Vec<u8>,
        offset: u64,
        limit: u64,
    ) -> Result<Page<Change>> {
        let (left, right) = (self.opened(left).await?, self.opened(right).await?);
        if left.row.pool_id != right.row.pool_id {
            let text = "only images of the same pool can be compared";
            return Err(Error::Invalid(text.into()));
        }
        self.blocking(move || {
            let pool = left.pool;
            let _leases = [pool.lease(left.image.id)?, pool.lease(right.image.id)?];
            let mut troubles = Troubles::default();
            let legends = [
                Legend::of(&*pool, &left.image, &mut troubles)?,
                Legend::of(&*pool, &right.image, &mut troubles)?,
            ];
            let tops = [left.image.entry(&*pool, &path)?, right.image.entry(&*pool, &path)?];
            let mut part = Part::new(offset, limit);
            let walked = diff(&*pool, &tops[0], &tops[1], &path, &mut |path, difference| {
                part.take(|| change(&legends, path, difference))
            });
            part.page(walked)
        })
        .await
    }

    /// Looks through an image.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what can't be looked for; [`Error::Gone`]; those of the pool.
    pub async fn find_in_image(
        &self,
        image_id: i64,
        query: Query,
        offset: u64,
        limit: u64,
    ) -> Result<Found> {
        let query = query.checked()?;
        let Opened { pool, image, .. } = self.opened(image_id).await?;
        self.blocking(move || {
            let _lease = pool.lease(image.id)?;
            let legend = Legend::of(&*pool, &image, &mut Troubles::default())?;
            let mut part = Part::new(offset, limit);
            let mut unreadable = 0;
            let mut tell =
                |path: &[u8], entry: &Inner| part.take(|| Entry::of(legend.row(path, entry)));
            let mut failed = |_: &[u8], _| unreadable += 1;
            let walked = find_in(&*pool, &image, &query, &mut tell, &mut failed);
            let Page { items, more } = part.page(walked)?;
            Ok(Found { items, more, unreadable })
        })
        .await
    }
}

impl Query {
    fn checked(self) -> Result<strongroom_archive::find::Query> {
        let kinds = [
            ("file", '-'),
            ("dir", 'd'),
            ("symlink", 'l'),
            ("fifo", 'p'),
            ("char", 'c'),
            ("block", 'b'),
            ("socket", 's'),
        ];
        let letter = |kind: String| {
            let found = kinds.iter().find(|(name, _)| *name == kind);
            found.map(|(_, letter)| *letter).ok_or_else(|| {
                let names: Vec<_> = kinds.iter().map(|(name, _)| *name).collect();
                Error::Invalid(format!("{kind:?} is not a kind: give one of {}", names.join(", ")))
            })
        };
        Ok(strongroom_archive::find::Query {
            patterns: self.patterns,
            min_size: self.min_size,
            max_size: self.max_size,
            newer: self.newer.map(Time::from_nanos),
            older: self.older.map(Time::from_nanos),
            kind: self.kind.map(letter).transpose()?,
        })
    }
}

fn change(legends: &[Legend; 2], path: &[u8], difference: Difference) -> Change {
    let left = |entry: &Inner| Some(Entry::of(legends[0].row(path, entry)));
    let right = |entry: &Inner| Some(Entry::of(legends[1].row(path, entry)));
    let (content, metadata, time) = (false, false, false);
    let plain = |what, left, right| Change { what, content, metadata, time, left, right };
    match difference {
        Difference::Added(entry) => plain("added", None, right(&entry)),
        Difference::Removed(entry) => plain("removed", left(&entry), None),
        Difference::Replaced(old, new) => plain("replaced", left(&old), right(&new)),
        Difference::Changed(old, new, changes) => Change {
            content: changes.content,
            metadata: changes.metadata,
            time: changes.time,
            ..plain("changed", left(&old), right(&new))
        },
    }
}
