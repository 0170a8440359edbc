//! Entries: what an image knows of one file, directory, link or device.
//!
//! # Format of an entry
//! Varints are unsigned LEB128 unless *signed* (zigzag); byte strings carry a varint length.
//!
//! | field | type | present | meaning |
//! |---|---|---|---|
//! | kind | 1 byte | always | low 3 bits: 0 file, 1 directory, 2 symbolic link, 3 FIFO, 4 character device, 5 block device, 6 socket; then flags |
//! | | bit 3 | | racy: changed so shortly before it was read that a later change may not show |
//! | | bit 4 | | has extended attributes |
//! | | bit 5 | | has more than one name (link count) |
//! | | bit 6 | | lies on another device than the directory |
//! | | bit 7 | | file: content is a map node; directory: only passed through on the way to a path that was asked for |
//! | name | byte string | always | 1 to 255 bytes, without `/` and NUL, not `.` or `..`; empty in the top node only |
//! | mode | varint | always | permission, set-id and sticky bits (07777) |
//! | uid, gid | varints | always | numeric owner and group, 32 bits |
//! | mtime | signed, varint | always | seconds since the epoch, nanoseconds below 10^9 |
//! | ctime | signed, varint | always | seconds minus those of mtime (wrapping), nanoseconds |
//! | inode | signed | always | minus that of the entry before in this node (wrapping), 0 before the first |
//! | links | varint | bit 5 | link count |
//! | device | varint | bit 6 | place in the image's table of devices |
//! | size, node | varint | file with bit 7 | length; takes the next id of the node's `nodes` list: a map node |
//! | extents | varint, then varints | file without bit 7 | count; each `length << 1`, plus 1 for a hole; each other takes the next id of `data` |
//! | entries | varint | directory | how many entries it has; takes the next id of `nodes`: a directory node |
//! | target | byte string | symbolic link | where it points |
//! | rdev | two varints | device | major and minor number |
//! | attributes | varint count, then each | bit 4 | name as byte string; `length << 1` plus 1 when stored as a chunk; the value itself, or nothing and the next id of `data` |

use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::id::ChunkId;
use strongroom_engine::map::{Extent, MapRef};

/// Values of extended attributes that are longer become chunks, in bytes.
pub const XATTR_INLINE: usize = 4096;
/// No value of an extended attribute is longer (Linux, `limits.h`), in bytes.
pub const XATTR_MAX: usize = 65536;

/// A reader refuses longer lists of extents in an entry.
const MAX_INLINE: usize = 4096;

/// A moment, as filesystems keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    /// Seconds since the Unix epoch.
    pub sec: i64,
    /// Nanoseconds of that second, below 10^9.
    pub nsec: u32,
}

impl Time {
    /// In nanoseconds since the epoch, cut to what 64 bits can say (the years 1677 to 2262).
    pub fn nanos(self) -> i64 {
        self.sec.saturating_mul(1_000_000_000).saturating_add(i64::from(self.nsec))
    }

    /// From nanoseconds since the epoch.
    pub fn from_nanos(nanos: i64) -> Self {
        let nsec = nanos.rem_euclid(1_000_000_000) as u32;
        Self { sec: nanos.div_euclid(1_000_000_000), nsec }
    }
}

/// What an entry is, with what only such entries have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A regular file.
    File(MapRef),
    /// A directory.
    Dir {
        /// Its node.
        node: ChunkId,
        /// How many entries it has.
        entries: u64,
    },
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// A FIFO.
    Fifo,
    /// A character device with major and minor number.
    Char(u32, u32),
    /// A block device with major and minor number.
    Block(u32, u32),
    /// A socket: noted, but not restored (its server makes it).
    Socket,
}

impl Body {
    fn code(&self) -> u8 {
        match self {
            Self::File(_) => 0,
            Self::Dir { .. } => 1,
            Self::Symlink(_) => 2,
            Self::Fifo => 3,
            Self::Char(..) => 4,
            Self::Block(..) => 5,
            Self::Socket => 6,
        }
    }

    /// The letter that `ls -l` begins a line with.
    pub fn letter(&self) -> char {
        ['-', 'd', 'l', 'p', 'c', 'b', 's'][usize::from(self.code())]
    }

    /// Whether both are of the same kind, whatever they hold.
    pub fn same_kind(&self, other: &Self) -> bool {
        self.code() == other.code()
    }
}

/// The value of an extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum XattrValue {
    /// The value itself.
    Inline(Vec<u8>),
    /// A chunk that holds it, and its length in bytes.
    Chunk(ChunkId, u32),
}

/// An extended attribute of any namespace: POSIX ACLs and capabilities are such too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Xattr {
    /// Its full name.
    pub name: Vec<u8>,
    /// Its value.
    pub value: XattrValue,
}

/// What an image knows of one file, directory, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in its directory; empty for the top of an image.
    pub name: Vec<u8>,
    /// What it is.
    pub body: Body,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// When its content last changed.
    pub mtime: Time,
    /// When its inode last changed.
    pub ctime: Time,
    /// Its inode number.
    pub inode: u64,
    /// Its device's place in the image's table.
    pub device: u32,
    /// How many names the inode has.
    pub links: u32,
    /// Changed so shortly before it was read that a later change may not show.
    pub racy: bool,
    /// A directory that was only passed through on the way to a path that was asked for.
    pub passed: bool,
    /// Extended attributes, sorted by name.
    pub xattrs: Vec<Xattr>,
}

impl Entry {
    /// The length of a file's content or of a link's target in bytes, else 0.
    pub fn size(&self) -> u64 {
        match &self.body {
            Body::File(map) => map.len(),
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.body, Body::Dir { .. })
    }

    /// What names of the same inode have in common; None when it has only this name.
    pub fn link_key(&self) -> Option<LinkKey> {
        (self.links > 1 && !self.is_dir()).then_some(LinkKey {
            device: self.device,
            inode: self.inode,
            ctime: self.ctime,
            size: self.size(),
        })
    }

    /// The ids that the content and the attributes refer to directly.
    pub fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        let content = match &self.body {
            Body::File(map) => Some(map.ids()),
            _ => None,
        };
        let values = self.xattrs.iter().filter_map(|xattr| match &xattr.value {
            XattrValue::Chunk(id, _) => Some(*id),
            XattrValue::Inline(_) => None,
        });
        content.into_iter().flatten().chain(values)
    }
}

/// What names of one inode have in common within an image. The change time and size keep apart
/// files that had the same inode number one after the other while the image was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkKey {
    device: u32,
    inode: u64,
    ctime: Time,
    size: u64,
}

/// Whether `name` may be that of a directory entry. A reader must refuse every other: a forged
/// name must not lead out of the directory that is restored to.
pub fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| *b == b'/' || *b == 0)
}

/// The references of the node that entries are written to.
#[derive(Debug, Default)]
pub(crate) struct Refs {
    pub(crate) nodes: Vec<ChunkId>,
    pub(crate) data: Vec<ChunkId>,
}

/// Where the entries of a node are written.
#[derive(Debug, Default)]
pub(crate) struct EntryWriter {
    pub(crate) refs: Refs,
    pub(crate) payload: Writer,
    pub(crate) device: u32,
    inode: u64,
}

impl EntryWriter {
    /// For a node whose entries lie on that device if they don't say otherwise.
    pub(crate) fn new(device: u32) -> Self {
        Self { device, ..Self::default() }
    }

    /// Appends an entry.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let w = &mut self.payload;
        let far = entry.device != self.device;
        let high = match &entry.body {
            Body::File(map) => matches!(map, MapRef::Tree(..)),
            Body::Dir { .. } => entry.passed,
            _ => false,
        };
        let flag = |on: bool, bit: u8| u8::from(on) << bit;
        w.byte(
            entry.body.code()
                | flag(entry.racy, 3)
                | flag(!entry.xattrs.is_empty(), 4)
                | flag(entry.links > 1, 5)
                | flag(far, 6)
                | flag(high, 7),
        );
        w.bytes(&entry.name);
        w.uint(entry.mode.into());
        w.uint(entry.uid.into());
        w.uint(entry.gid.into());
        w.int(entry.mtime.sec);
        w.uint(entry.mtime.nsec.into());
        w.int(entry.ctime.sec.wrapping_sub(entry.mtime.sec));
        w.uint(entry.ctime.nsec.into());
        w.int(entry.inode.wrapping_sub(self.inode) as i64);
        self.inode = entry.inode;
        if entry.links > 1 {
            w.uint(entry.links.into());
        }
        if far {
            w.uint(entry.device.into());
        }
        match &entry.body {
            Body::File(MapRef::Tree(node, len)) => {
                w.uint(*len);
                self.refs.nodes.push(*node);
            }
            Body::File(MapRef::Inline(extents)) => {
                w.uint(extents.len() as u64);
                for extent in extents {
                    extent.encode(w);
                    if let Extent::Data { id, .. } = extent {
                        self.refs.data.push(*id);
                    }
                }
            }
            Body::Dir { node, entries } => {
                w.uint(*entries);
                self.refs.nodes.push(*node);
            }
            Body::Symlink(target) => w.bytes(target),
            Body::Char(major, minor) | Body::Block(major, minor) => {
                w.uint((*major).into());
                w.uint((*minor).into());
            }
            Body::Fifo | Body::Socket => {}
        }
        if !entry.xattrs.is_empty() {
            w.uint(entry.xattrs.len() as u64);
            for xattr in &entry.xattrs {
                w.bytes(&xattr.name);
                match &xattr.value {
                    XattrValue::Inline(value) => {
                        w.uint((value.len() as u64) << 1);
                        w.raw(value);
                    }
                    XattrValue::Chunk(id, len) => {
                        w.uint(u64::from(*len) << 1 | 1);
                        self.refs.data.push(*id);
                    }
                }
            }
        }
    }

    /// How many bytes the node has so far, about.
    pub(crate) fn len(&self) -> usize {
        self.payload.len() + 32 * (self.refs.nodes.len() + self.refs.data.len())
    }
}

/// Reads the entries of a node in order.
#[derive(Debug)]
pub(crate) struct EntryReader<'n> {
    reader: Reader<'n>,
    nodes: std::slice::Iter<'n, ChunkId>,
    data: std::slice::Iter<'n, ChunkId>,
    device: u32,
    inode: u64,
}

impl<'n> EntryReader<'n> {
    pub(crate) fn new(
        reader: Reader<'n>,
        nodes: &'n [ChunkId],
        data: &'n [ChunkId],
        device: u32,
    ) -> Self {
        Self { reader, nodes: nodes.iter(), data: data.iter(), device, inode: 0 }
    }

    /// Takes one entry. An empty name is let through: only the top node may have one.
    pub(crate) fn take(&mut self) -> Result<Entry, DecodeError> {
        let r = &mut self.reader;
        let nodes = &mut self.nodes;
        let data = &mut self.data;
        let mut next_node = || nodes.next().copied().ok_or(DecodeError::Short);
        let mut next_data = || data.next().copied().ok_or(DecodeError::Short);
        let kind = r.byte()?;
        let bit = |bit: u8| kind >> bit & 1 == 1;
        let name = r.bytes()?;
        if !name.is_empty() && !is_plain_name(name) {
            return Err(DecodeError::Unknown("the name of an entry"));
        }
        let mode = r.uint32()?;
        if mode > 0o7777 {
            return Err(DecodeError::Unknown("the mode of an entry"));
        }
        let (uid, gid) = (r.uint32()?, r.uint32()?);
        let nsec = |r: &mut Reader<'_>| match r.uint32()? {
            nsec @ 0..=999_999_999 => Ok(nsec),
            _ => Err(DecodeError::Unknown("the time of an entry")),
        };
        let mtime = Time { sec: r.int()?, nsec: nsec(r)? };
        let ctime = Time { sec: r.int()?.wrapping_add(mtime.sec), nsec: nsec(r)? };
        self.inode = self.inode.wrapping_add(r.int()? as u64);
        let links = if bit(5) { r.uint32()? } else { 1 };
        let device = if bit(6) { r.uint32()? } else { self.device };
        let mut passed = false;
        let body = match kind & 7 {
            0 if bit(7) => {
                let len = r.uint()?;
                Body::File(MapRef::Tree(next_node()?, len))
            }
            0 => {
                let count = r.count(1)?;
                if count > MAX_INLINE {
                    return Err(DecodeError::Unknown("the number of extents of an entry"));
                }
                let mut extents = Vec::with_capacity(count);
                let mut sum = 0u64;
                for _ in 0..count {
                    let extent = Extent::decode(r, &mut next_data)?;
                    sum = sum.checked_add(extent.len()).ok_or(DecodeError::Overlong)?;
                    extents.push(extent);
                }
                Body::File(MapRef::Inline(extents))
            }
            1 => {
                passed = bit(7);
                let entries = r.uint()?;
                Body::Dir { node: next_node()?, entries }
            }
            2 => Body::Symlink(r.bytes()?.to_vec()),
            3 => Body::Fifo,
            4 => Body::Char(r.uint32()?, r.uint32()?),
            5 => Body::Block(r.uint32()?, r.uint32()?),
            6 => Body::Socket,
            _ => return Err(DecodeError::Unknown("the kind of an entry")),
        };
        let mut xattrs = Vec::new();
        if bit(4) {
            let count = r.count(2)?;
            xattrs.reserve(count.min(64));
            for _ in 0..count {
                let name = r.bytes()?.to_vec();
                if name.is_empty() || name.len() > 255 || name.contains(&0) {
                    return Err(DecodeError::Unknown("the name of an attribute"));
                }
                let code = r.uint()?;
                let len = usize::try_from(code >> 1).unwrap_or(usize::MAX);
                if len > XATTR_MAX {
                    return Err(DecodeError::Unknown("the length of an attribute"));
                }
                let value = if code & 1 == 1 {
                    XattrValue::Chunk(next_data()?, len as u32)
                } else {
                    XattrValue::Inline(r.raw(len)?.to_vec())
                };
                xattrs.push(Xattr { name, value });
            }
        }
        Ok(Entry {
            name: name.to_vec(),
            body,
            mode,
            uid,
            gid,
            mtime,
            ctime,
            inode: self.inode,
            device,
            links,
            racy: bit(3),
            passed,
            xattrs,
        })
    }

    /// Ends the reading; bytes left over are an error.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        self.reader.end()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn id() -> impl Strategy<Value = ChunkId> {
        any::<[u8; 32]>().prop_map(ChunkId)
    }

    fn extent() -> impl Strategy<Value = Extent> {
        prop_oneof![
            (id(), 1u32..=8 << 20).prop_map(|(id, len)| Extent::Data { id, len }),
            (1u64..1 << 40).prop_map(|len| Extent::Hole { len }),
        ]
    }

    fn body() -> impl Strategy<Value = Body> {
        prop_oneof![
            prop::collection::vec(extent(), 0..5)
                .prop_map(|extents| Body::File(MapRef::Inline(extents))),
            (id(), any::<u64>()).prop_map(|(id, len)| Body::File(MapRef::Tree(id, len))),
            (id(), any::<u64>()).prop_map(|(node, entries)| Body::Dir { node, entries }),
            any::<Vec<u8>>().prop_map(Body::Symlink),
            Just(Body::Fifo),
            any::<(u32, u32)>().prop_map(|(a, b)| Body::Char(a, b)),
            any::<(u32, u32)>().prop_map(|(a, b)| Body::Block(a, b)),
            Just(Body::Socket),
        ]
    }

    fn time() -> impl Strategy<Value = Time> {
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(sec, nsec)| Time { sec, nsec })
    }

    fn xattr() -> impl Strategy<Value = Xattr> {
        let value = prop_oneof![
            any::<Vec<u8>>().prop_map(XattrValue::Inline),
            (id(), 0u32..65536).prop_map(|(id, len)| XattrValue::Chunk(id, len)),
        ];
        ("[a-z]{1,9}", value).prop_map(|(name, value)| Xattr { name: name.into_bytes(), value })
    }

    pub(crate) fn entry() -> impl Strategy<Value = Entry> {
        let name = prop::collection::vec(prop::num::u8::ANY, 1..40)
            .prop_filter("plain names only", |name| is_plain_name(name));
        let owner = (any::<u32>(), any::<u32>(), 0u32..=0o7777);
        let inode = (any::<u64>(), any::<u32>(), 1u32..5);
        let xattrs = prop::collection::vec(xattr(), 0..3);
        (name, body(), owner, (time(), time()), inode, any::<(bool, bool)>(), xattrs).prop_map(
            |(
                name,
                body,
                (uid, gid, mode),
                (mtime, ctime),
                (inode, device, links),
                flags,
                xattrs,
            )| {
                let passed = flags.1 && matches!(body, Body::Dir { .. });
                let racy = flags.0;
                Entry {
                    name,
                    body,
                    mode,
                    uid,
                    gid,
                    mtime,
                    ctime,
                    inode,
                    device,
                    links,
                    racy,
                    passed,
                    xattrs,
                }
            },
        )
    }

    proptest! {
        #[test]
        fn entries_survive_their_bytes(entries in prop::collection::vec(entry(), 0..6)) {
            let mut w = EntryWriter::new(3);
            entries.iter().for_each(|entry| w.push(entry));
            let payload = w.payload.finish();
            let mut r = EntryReader::new(Reader::new(&payload), &w.refs.nodes, &w.refs.data, 3);
            for entry in &entries {
                prop_assert_eq!(&r.take().unwrap(), entry);
            }
            r.end().unwrap();
        }

        #[test]
        fn no_bytes_make_the_reader_panic(payload in any::<Vec<u8>>(), refs in any::<Vec<[u8; 32]>>()) {
            let refs: Vec<_> = refs.into_iter().map(ChunkId).collect();
            let mut r = EntryReader::new(Reader::new(&payload), &refs, &refs, 0);
            while r.take().is_ok() {}
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", &[b'x'; 256]] {
            assert!(!is_plain_name(name));
        }
        for name in [&b"..."[..], b"-", b" ", b"\xff\n", &[b'x'; 255]] {
            assert!(is_plain_name(name));
        }
    }
}
