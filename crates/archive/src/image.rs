//! Images: what a backup leaves in a pool.
//!
//! An image is a root of the pool whose only node is its *top*; what a list shows of it is in the
//! root's `meta`, so that lists read no chunk.
//!
//! # Format of `meta`
//! | field | type | meaning |
//! |---|---|---|
//! | version | 1 byte | 1 |
//! | kind | 1 byte | 0 files, 1 block image, 2 stream |
//! | flags | 1 byte | bit 0: complete (nothing failed to be read); bit 1: sealed under a client's own key ([`crate::sealed`]); bit 2: kept for a time |
//! | host, user, program | byte strings | who made it, with which version; UTF-8 |
//! | paths, tags, excludes | each: varint count, byte strings | what was asked for |
//! | started, ended | signed varints | the client's wall clock, ns since the epoch; for show alone |
//! | parent | varint, then bytes | 0, or 1 and the 16 bytes of the root it was compared with |
//! | stats | varint count, varints | files, directories, other entries, bytes, new bytes, stored bytes, reused files, troubles; later versions append |
//! | key | 8 bytes | only when sealed: which key |
//! | hidden | byte string | only when sealed: paths and excludes, whose lists above are empty |
//! | kept for | signed varint | only when kept for a time: so many nanoseconds after the root was made, by the pool's own clock, it may be forgotten unasked |
//!
//! # Format of the top node
//! | field | type | meaning |
//! |---|---|---|
//! | tag | 1 byte | 18 |
//! | version | 1 byte | 1 |
//! | flags | 1 byte | bit 0: the first id of `nodes` is a table of names ([`crate::names`]) |
//! | devices | varint count, pairs of varints | major and minor number of each device, by index |
//! | entry | see [`crate::entry`] | the directory `/` with an empty name; or the file that holds the block image or stream |

use jiff::civil;
use jiff::tz::TimeZone;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::map::Nodes;
use strongroom_engine::node::Node;
use strongroom_engine::state::Root;

use crate::entry::{Body, Entry, EntryReader, EntryWriter};
use crate::names::Names;
use crate::sealed::KeyId;
use crate::store::Source;
use crate::tree::Dir;
use crate::{Error, Result, show};

/// [`Root::kind`] of an image.
pub const ROOT_KIND: u8 = 1;
/// The first payload byte of a top node.
pub const TOP_TAG: u8 = 18;
const VERSION: u8 = 1;

/// What an image was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// Files and directories.
    Files,
    /// A disk or a file that holds one, in chunks of fixed size.
    Block,
    /// What came in by a pipe.
    Stream,
}

impl ImageKind {
    /// Its number in the record of an image.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Files => 0,
            Self::Block => 1,
            Self::Stream => 2,
        }
    }
}

/// What making an image took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Regular files, each name counted.
    pub files: u64,
    /// Directories.
    pub dirs: u64,
    /// Links, FIFOs, devices and sockets.
    pub others: u64,
    /// Bytes of content, holes included.
    pub bytes: u64,
    /// Bytes the pool did not have, before compression.
    pub new_bytes: u64,
    /// Bytes that those take in packs, before redundancy.
    pub stored_bytes: u64,
    /// Files that were taken over from the parent unread.
    pub reused: u64,
    /// Files and directories with trouble.
    pub troubles: u64,
}

impl Stats {
    fn fields(&mut self) -> [&mut u64; 8] {
        [
            &mut self.files,
            &mut self.dirs,
            &mut self.others,
            &mut self.bytes,
            &mut self.new_bytes,
            &mut self.stored_bytes,
            &mut self.reused,
            &mut self.troubles,
        ]
    }
}

/// What a list shows of an image, beside what its root says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageMeta {
    /// What it was made of.
    pub kind: ImageKind,
    /// Whether nothing failed to be read.
    pub complete: bool,
    /// The machine it was made on.
    pub host: String,
    /// Who made it.
    pub user: String,
    /// The program and version that made it.
    pub program: String,
    /// What was asked for: absolute paths.
    pub paths: Vec<Vec<u8>>,
    /// Labels; the user can change them.
    pub tags: Vec<String>,
    /// The rules that left things out.
    pub excludes: Vec<String>,
    /// When it was begun, by the client's clock, in nanoseconds since the epoch.
    pub started: i64,
    /// When it was done, likewise.
    pub ended: i64,
    /// The image it was compared with.
    pub parent: Option<RootId>,
    /// What it took.
    pub stats: Stats,
    /// When the image is sealed under a client's own key.
    pub sealing: Option<Sealing>,
    /// How long it is kept, in nanoseconds from when it was made by the pool's own clock; None:
    /// until somebody forgets it.
    pub kept_for: Option<i64>,
}

/// What is known of an image that is sealed under a client's own key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// Which key.
    pub key: KeyId,
    /// The record's paths and excludes, sealed; empty once they were opened.
    pub hidden: Vec<u8>,
}

impl ImageMeta {
    /// Under which key the image is sealed, as long as it wasn't opened.
    pub fn closed(&self) -> Option<KeyId> {
        let closed = self.sealing.as_ref().filter(|sealing| !sealing.hidden.is_empty());
        closed.map(|sealing| sealing.key)
    }

    /// The bytes of [`Root::meta`].
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.byte(VERSION);
        w.byte(self.kind.code());
        let flags = [self.complete, self.sealing.is_some(), self.kept_for.is_some()];
        let flags = flags.iter().enumerate().map(|(bit, set)| u8::from(*set) << bit);
        w.byte(flags.sum());
        for text in [&self.host, &self.user, &self.program] {
            w.bytes(text.as_bytes());
        }
        let list = |w: &mut Writer, items: &mut dyn ExactSizeIterator<Item = &[u8]>| {
            w.uint(items.len() as u64);
            items.for_each(|item| w.bytes(item));
        };
        list(&mut w, &mut self.paths.iter().map(Vec::as_slice));
        list(&mut w, &mut self.tags.iter().map(String::as_bytes));
        list(&mut w, &mut self.excludes.iter().map(String::as_bytes));
        w.int(self.started);
        w.int(self.ended);
        w.byte(self.parent.is_some().into());
        if let Some(parent) = self.parent {
            w.raw(&parent.0);
        }
        let mut stats = self.stats;
        let fields = stats.fields();
        w.uint(fields.len() as u64);
        for field in fields {
            w.uint(*field);
        }
        if let Some(sealing) = &self.sealing {
            w.raw(&sealing.key.0);
            w.bytes(&sealing.hidden);
        }
        if let Some(kept_for) = self.kept_for {
            w.int(kept_for);
        }
        w.finish()
    }

    /// Reads what [`ImageMeta::encode`] wrote, or a later version appended to.
    ///
    /// # Errors
    /// [`DecodeError`] for what isn't the meta record of an image.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(bytes);
        if r.byte()? != VERSION {
            return Err(DecodeError::Unknown("the version of an image"));
        }
        let kind = match r.byte()? {
            0 => ImageKind::Files,
            1 => ImageKind::Block,
            2 => ImageKind::Stream,
            _ => return Err(DecodeError::Unknown("the kind of an image")),
        };
        let flags = r.byte()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (host, user, program) = (text(r.bytes()?), text(r.bytes()?), text(r.bytes()?));
        let mut list = || -> Result<Vec<Vec<u8>>, DecodeError> {
            let count = r.count(1)?;
            (0..count).map(|_| Ok(r.bytes()?.to_vec())).collect()
        };
        let (paths, tags, excludes) = (list()?, list()?, list()?);
        let texts = |list: Vec<Vec<u8>>| list.iter().map(|item| text(item)).collect();
        let (started, ended) = (r.int()?, r.int()?);
        let parent = match r.byte()? {
            0 => None,
            1 => Some(RootId(r.array()?)),
            _ => return Err(DecodeError::Unknown("the parent of an image")),
        };
        let mut stats = Stats::default();
        let count = r.count(1)?;
        for (place, field) in stats.fields().into_iter().enumerate() {
            if place < count {
                *field = r.uint()?;
            }
        }
        for _ in stats.fields().len()..count {
            // What a later version appended.
            r.uint()?;
        }
        let sealing = match flags & 2 {
            0 => None,
            _ => Some(Sealing { key: KeyId(r.array()?), hidden: r.bytes()?.to_vec() }),
        };
        let kept_for = (flags & 4 != 0).then(|| r.int()).transpose()?;
        Ok(Self {
            kind,
            complete: flags & 1 == 1,
            host,
            user,
            program,
            paths,
            tags: texts(tags),
            excludes: texts(excludes),
            started,
            ended,
            parent,
            stats,
            sealing,
            kept_for,
        })
    }
}

/// The top of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Top {
    /// Major and minor numbers, by index.
    pub devices: Vec<(u32, u32)>,
    /// The table of names, if there is one.
    pub names: Option<ChunkId>,
    /// The directory `/`, or the file that holds the block image or stream.
    pub entry: Entry,
}

impl Top {
    /// The top as a node.
    pub fn encode(&self) -> Node {
        let mut w = Writer::new();
        w.byte(TOP_TAG);
        w.byte(VERSION);
        w.byte(self.names.is_some().into());
        w.uint(self.devices.len() as u64);
        for (major, minor) in &self.devices {
            w.uint(u64::from(*major));
            w.uint(u64::from(*minor));
        }
        let mut entry = EntryWriter::new(0);
        entry.push(&self.entry);
        w.raw(&entry.payload.finish());
        let nodes = self.names.into_iter().chain(entry.refs.nodes).collect();
        Node { nodes, data: entry.refs.data, payload: w.finish() }
    }

    /// Reads what [`Top::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for what isn't the top of an image.
    pub fn decode(node: &Node) -> Result<Self, DecodeError> {
        let mut r = Reader::new(&node.payload);
        if r.byte()? != TOP_TAG || r.byte()? != VERSION {
            return Err(DecodeError::Unknown("the top of an image"));
        }
        let (names, nodes) = match (r.byte()? & 1, node.nodes.split_first()) {
            (0, _) => (None, &node.nodes[..]),
            (_, Some((names, rest))) => (Some(*names), rest),
            (_, None) => return Err(DecodeError::Short),
        };
        let count = r.count(2)?;
        let devices = (0..count)
            .map(|_| Ok((r.uint32()?, r.uint32()?)))
            .collect::<Result<_, DecodeError>>()?;
        let mut reader = EntryReader::new(r, nodes, &node.data, 0);
        let entry = reader.take()?;
        reader.end()?;
        match entry.body {
            Body::Dir { .. } | Body::File(_) => Ok(Self { devices, names, entry }),
            _ => Err(DecodeError::Unknown("the top of an image")),
        }
    }
}

/// An image in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its identifier.
    pub id: RootId,
    /// The series it belongs to.
    pub name: String,
    /// When it was made, by the pool's own clock.
    pub created: PoolTime,
    /// Until when nothing may remove it, by the pool's own clock.
    pub immutable_until: Option<PoolTime>,
    /// Its top node.
    pub node: ChunkId,
    /// The rest of what a list shows.
    pub meta: ImageMeta,
}

impl Image {
    /// The image that a root is; None for a root of another kind.
    ///
    /// # Errors
    /// The pool's `Damaged` for a root that says it is an image but isn't.
    pub fn of(root: &Root) -> Result<Option<Self>> {
        if root.kind != ROOT_KIND {
            return Ok(None);
        }
        let what = format!("image {}", root.id);
        let meta = ImageMeta::decode(&root.meta)
            .map_err(|why| strongroom_engine::Error::damaged(what.as_str(), why))?;
        let [node] = root.nodes[..] else {
            let why = "it must have one top node";
            return Err(strongroom_engine::Error::damaged(what, why).into());
        };
        Ok(Some(Self {
            id: root.id,
            name: root.name.clone(),
            created: root.created,
            immutable_until: root.immutable_until,
            node,
            meta,
        }))
    }

    /// When it may be forgotten unasked, by the pool's own clock; None: never.
    pub fn expires(&self) -> Option<PoolTime> {
        self.meta.kept_for.map(|kept| self.created.plus(kept))
    }

    /// Whether it is to be forgotten at this time of the pool: it has been kept for as long as was
    /// asked for, and may go.
    pub fn is_expired(&self, now: PoolTime) -> bool {
        self.expires().is_some_and(|at| at <= now)
            && self.immutable_until.is_none_or(|until| until <= now)
    }

    /// Its top.
    ///
    /// # Errors
    /// [`Error::Sealed`]; those of the pool.
    pub fn top(&self, source: &(impl Nodes + ?Sized)) -> Result<Top> {
        if let Some(key) = self.meta.closed() {
            return Err(Error::Sealed { image: self.id, key });
        }
        let node = source.node(&self.node)?;
        Ok(Top::decode(&node).map_err(strongroom_engine::Error::decoding("the top of an image"))?)
    }

    /// The names of users and groups in it.
    ///
    /// # Errors
    /// Those of the pool.
    pub fn names(&self, source: &dyn Source) -> Result<Names> {
        let Some(id) = self.top(source)?.names else { return Ok(Names::default()) };
        let what = "the names of an image";
        let names = Names::decode(&source.node(&id)?);
        Ok(names.map_err(strongroom_engine::Error::decoding(what))?)
    }

    /// The entry at a path (bytes, from the top of the image); links are not followed. The empty
    /// path is the top itself.
    ///
    /// # Errors
    /// [`Error::NoPath`] when there is none, and those of the pool.
    pub fn entry(&self, source: &dyn Source, path: &[u8]) -> Result<Entry> {
        let mut entry = self.top(source)?.entry;
        for name in components(path)? {
            entry = match entry.body {
                Body::Dir { node, .. } => Dir::new(source, node).lookup(name)?,
                // A block image or stream may be called by its own name.
                Body::File(_) if entry.name == name => Some(entry),
                _ => None,
            }
            .ok_or_else(|| Error::NoPath { path: show(path) })?;
        }
        Ok(entry)
    }
}

/// The names of a path; empty ones and `.` are left out.
///
/// # Errors
/// [`Error::Invalid`] for `..`.
pub fn components(path: &[u8]) -> Result<Vec<&[u8]>> {
    let names: Vec<_> =
        path.split(|b| *b == b'/').filter(|n| !n.is_empty() && *n != b".").collect();
    if names.contains(&&b".."[..]) {
        return Err(Error::Invalid(format!("{}: `..` has no meaning in an image", show(path))));
    }
    Ok(names)
}

/// All images, the oldest first. Roots that can't be read are left out and counted.
///
/// # Errors
/// Those of the pool.
pub fn images(source: &dyn Source) -> Result<(Vec<Image>, usize)> {
    let mut damaged = 0;
    let mut images = Vec::new();
    for root in source.roots()? {
        match Image::of(&root) {
            Ok(image) => images.extend(image),
            Err(_) => damaged += 1,
        }
    }
    images.sort_by_key(|image| (image.created, image.id));
    Ok((images, damaged))
}

/// Splits `IMAGE[:PATH]` at the first colon. A time in `NAME@TIME` may have colons of its own when
/// it is written with a `T` or a space in it: then the path begins at the first `:/`.
pub fn split(text: &str) -> (&str, Option<&str>) {
    let by = if text.contains('@') { text.find(":/") } else { text.find(':') };
    match by {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    }
}

/// Finds an image by what a user writes: `latest`; a name (its latest image); `NAME@TIME` (its
/// latest image not after that time; `latest@TIME` for any name); or the first hexadecimal digits
/// (at least four) of an id. A time is RFC 3339 or `YYYY-MM-DD[ HH:MM[:SS]]` in the local zone; a
/// date alone is the end of that day.
///
/// # Errors
/// [`Error::NoImage`] and [`Error::Ambiguous`], and those of the pool.
pub fn find(source: &dyn Source, text: &str) -> Result<Image> {
    let (images, _) = images(source)?;
    choose(&images, text).cloned()
}

/// [`find`] among images that are sorted by age, the oldest first.
///
/// # Errors
/// [`Error::NoImage`] and [`Error::Ambiguous`].
pub fn choose<'i>(images: &'i [Image], text: &str) -> Result<&'i Image> {
    let missing = || Error::NoImage { what: text.into() };
    if let Some(image) = images.iter().rev().find(|image| image.name == text) {
        return Ok(image);
    }
    if text == "latest" {
        return images.last().ok_or_else(missing);
    }
    if let Some((name, time)) = text.rsplit_once('@') {
        let until = parse_time(time)?;
        let fits =
            |image: &&Image| (image.name == name || name == "latest") && image.created <= until;
        return images.iter().rev().find(fits).ok_or_else(missing);
    }
    let digits = text.to_ascii_lowercase();
    if digits.len() < 4 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(missing());
    }
    let mut fits = images.iter().filter(|image| image.id.to_string().starts_with(&digits));
    let first = fits.next().ok_or_else(missing)?;
    match fits.count() {
        0 => Ok(first),
        more => Err(Error::Ambiguous { what: text.into(), count: more + 1 }),
    }
}

/// Reads a time as [`find`] documents it.
///
/// # Errors
/// [`Error::Invalid`] for what isn't one.
pub fn parse_time(text: &str) -> Result<PoolTime> {
    let bad = || {
        let form = "a time is YYYY-MM-DD[ HH:MM[:SS]] or RFC 3339";
        Error::Invalid(format!("{text:?} is not a time: {form}"))
    };
    let nanos = if let Ok(stamp) = text.parse::<jiff::Timestamp>() {
        stamp.as_nanosecond()
    } else {
        let local = if let Ok(date) = text.parse::<civil::Date>()
            && text.len() <= 10
        {
            date.to_datetime(civil::Time::MAX)
        } else {
            text.parse::<civil::DateTime>().map_err(|_| bad())?
        };
        let zoned = local.to_zoned(TimeZone::system()).map_err(|_| bad())?;
        zoned.timestamp().as_nanosecond()
    };
    i64::try_from(nanos).map(PoolTime).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::entry::Time;

    fn meta() -> ImageMeta {
        ImageMeta {
            kind: ImageKind::Files,
            complete: true,
            host: "h".into(),
            user: "u".into(),
            program: "strongroom 1".into(),
            paths: vec![b"/usr".to_vec(), b"/\xff".to_vec()],
            tags: vec!["a".into()],
            excludes: vec!["*.o".into()],
            started: -5,
            ended: 7,
            parent: Some(RootId([3; 16])),
            stats: Stats { files: 1, troubles: 9, ..Stats::default() },
            sealing: None,
            kept_for: None,
        }
    }

    fn image(id: u8, name: &str, created: i64) -> Image {
        Image {
            id: RootId([id; 16]),
            name: name.into(),
            created: PoolTime(created),
            immutable_until: None,
            node: ChunkId([0; 32]),
            meta: meta(),
        }
    }

    #[test]
    fn the_meta_record_survives_its_bytes() {
        assert_eq!(ImageMeta::decode(&meta().encode()), Ok(meta()));
        let sealing = Some(Sealing { key: KeyId([9; 8]), hidden: b"sealed".to_vec() });
        let sealed = ImageMeta { sealing, complete: false, ..meta() };
        assert_eq!(ImageMeta::decode(&sealed.encode()), Ok(sealed.clone()));
        for kept_for in [Some(0), Some(i64::MAX)] {
            let kept = ImageMeta { kept_for, ..sealed.clone() };
            assert_eq!(ImageMeta::decode(&kept.encode()), Ok(kept));
        }
    }

    #[test]
    fn an_image_expires_by_the_pools_time_and_never_while_it_is_immutable() {
        let mut image = image(1, "a", 10);
        assert_eq!((image.expires(), image.is_expired(PoolTime(i64::MAX))), (None, false));
        image.meta.kept_for = Some(5);
        assert_eq!(image.expires(), Some(PoolTime(15)));
        assert!(!image.is_expired(PoolTime(14)) && image.is_expired(PoolTime(15)));
        image.immutable_until = Some(PoolTime(20));
        assert!(!image.is_expired(PoolTime(19)) && image.is_expired(PoolTime(20)));
        image.meta.kept_for = Some(i64::MAX);
        assert_eq!(image.expires(), Some(PoolTime(i64::MAX)));
    }

    #[test]
    fn the_top_survives_its_bytes() {
        for names in [None, Some(ChunkId([7; 32]))] {
            let entry = Entry {
                name: Vec::new(),
                body: Body::Dir { node: ChunkId([8; 32]), entries: 3 },
                mode: 0o755,
                uid: 1,
                gid: 2,
                mtime: Time { sec: 1, nsec: 2 },
                ctime: Time { sec: 3, nsec: 4 },
                inode: 5,
                device: 0,
                links: 1,
                racy: false,
                passed: true,
                xattrs: Vec::new(),
            };
            let top = Top { devices: vec![(8, 1), (0, 30)], names, entry };
            assert_eq!(Top::decode(&top.encode()), Ok(top));
        }
    }

    #[test]
    fn images_are_found_by_name_time_and_id() {
        let day = 86_400_000_000_000;
        let images =
            [image(0xaa, "db", day), image(0xab, "usr", 2 * day), image(0xbb, "db", 3 * day)];
        let found = |text: &str| choose(&images, text).map(|image| image.id.0[0]).ok();
        assert_eq!(found("latest"), Some(0xbb));
        assert_eq!(found("db"), Some(0xbb));
        assert_eq!(found("usr"), Some(0xab));
        assert_eq!(found("db@1970-01-03T00:00:00Z"), Some(0xaa));
        assert_eq!(found("latest@1970-01-03T00:00:00Z"), Some(0xab));
        assert_eq!(found("db@1969-01-03T00:00:00Z"), None);
        assert_eq!(found("aaaa"), Some(0xaa));
        assert_eq!(found("aaa"), None);
        assert_eq!(found("nothing"), None);
        let same = [image(0xaa, "x", 1), image(0xaa, "y", 2)];
        assert!(matches!(choose(&same, "aaaaaa"), Err(Error::Ambiguous { count: 2, .. })));
    }

    #[test]
    fn a_path_may_follow_an_image() {
        assert_eq!(split("usr:/bin"), ("usr", Some("/bin")));
        assert_eq!(split("usr:bin/x:y"), ("usr", Some("bin/x:y")));
        assert_eq!(split("usr"), ("usr", None));
        assert_eq!(split("usr@2026-01-01 10:20:/etc"), ("usr@2026-01-01 10:20", Some("/etc")));
        assert_eq!(split("usr@2026-01-01T10:20"), ("usr@2026-01-01T10:20", None));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in any::<Vec<u8>>(), tag in any::<bool>()) {
            let mut bytes = bytes;
            if tag && bytes.len() > 2 {
                bytes[..2].copy_from_slice(&[TOP_TAG, 1]);
            }
            let _ = Top::decode(&Node { payload: bytes.clone(), ..Node::default() });
            if tag && !bytes.is_empty() {
                bytes[0] = 1;
            }
            let _ = ImageMeta::decode(&bytes);
        }
    }
}
