//! Writing a part of an image as a tar (POSIX.1-2001 pax) or zip archive, as a stream.

use std::collections::{HashMap, hash_map};
use std::io::{self, Read, Write};

use tar::{EntryType, Header};
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::cat::Content;
use crate::entry::{Body, Entry, LinkKey, Time, XattrValue};
use crate::image::Image;
use crate::list::List;
use crate::names::Names;
use crate::store::Source;
use crate::{Error, Result, Troubles};

/// How an archive is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// With everything but sockets: extended attributes as `SCHILY.xattr`, times in nanoseconds.
    Tar,
    /// Files, directories and symbolic links with their modes; other things are left out.
    Zip,
}

/// Writes what is at `path` of an image, and all below it, to `out`. Paths in the archive begin at
/// that entry's own name. What could not be put in is told in the result. Content that can't be
/// read ends the dump with an error: an archive has no way to say that a part is missing.
///
/// # Errors
/// [`Error::NoPath`], those of the pool, and those of `out`.
pub fn dump(
    source: &dyn Source,
    image: &Image,
    path: &[u8],
    format: Format,
    out: &mut dyn Write,
) -> Result<Troubles> {
    let _hold = source.hold(image.id)?;
    let top = image.entry(source, path)?;
    let mut troubles = Troubles::default();
    match format {
        Format::Tar => {
            let mut archive = Tar {
                source,
                names: image.names(source)?,
                builder: tar::Builder::new(out),
                links: HashMap::new(),
            };
            walk(source, &top, &mut |path, entry| archive.add(path, entry, &mut troubles))?;
            archive.builder.finish().map_err(output)?;
        }
        Format::Zip => {
            let mut archive = ZipWriter::new_stream(out);
            walk(source, &top, &mut |path, entry| {
                add_to_zip(source, &mut archive, path, entry, &mut troubles)
            })?;
            archive.finish().map_err(|e| output(e.into()))?;
        }
    }
    Ok(troubles)
}

fn output(error: io::Error) -> Error {
    // An error of the pool came through a reader: it is told as what it is.
    match error.downcast::<strongroom_engine::Error>() {
        Ok(error) => error.into(),
        Err(error) => Error::local("the archive", error),
    }
}

fn walk(
    source: &dyn Source,
    top: &Entry,
    add: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    if !top.name.is_empty() {
        add(&top.name, top)?;
    }
    let mut list = List::new(source, top, &top.name, usize::MAX);
    while let Some(entry) = list.next() {
        let entry = entry?;
        let path = list.path().strip_prefix(b"/").unwrap_or(list.path()).to_vec();
        add(&path, &entry)?;
    }
    Ok(())
}

struct Tar<'s, 'o> {
    source: &'s dyn Source,
    names: Names,
    builder: tar::Builder<&'o mut dyn Write>,
    links: HashMap<LinkKey, Vec<u8>>,
}

impl Tar<'_, '_> {
    fn add(&mut self, path: &[u8], entry: &Entry, troubles: &mut Troubles) -> Result<()> {
        let mut pax = Pax::default();
        let mut header = Header::new_ustar();
        let mut name = path.to_vec();
        let mut target: Option<&[u8]> = None;
        let mut size = 0;
        let first = match entry.link_key() {
            Some(key) if !matches!(entry.body, Body::Socket) => match self.links.entry(key) {
                hash_map::Entry::Occupied(first) => Some(&*first.into_mut()),
                hash_map::Entry::Vacant(place) => {
                    place.insert(name.clone());
                    None
                }
            },
            _ => None,
        };
        let kind = match &entry.body {
            _ if first.is_some() => {
                target = first.map(Vec::as_slice);
                EntryType::Link
            }
            Body::File(map) => {
                size = map.len();
                EntryType::Regular
            }
            Body::Dir { .. } => {
                name.push(b'/');
                EntryType::Directory
            }
            Body::Symlink(to) => {
                target = Some(to);
                EntryType::Symlink
            }
            Body::Fifo => EntryType::Fifo,
            Body::Char(major, minor) | Body::Block(major, minor) => {
                header.set_device_major(*major).map_err(output)?;
                header.set_device_minor(*minor).map_err(output)?;
                match entry.body {
                    Body::Char(..) => EntryType::Char,
                    _ => EntryType::Block,
                }
            }
            Body::Socket => {
                troubles.add(path, "a socket can't be put into an archive");
                return Ok(());
            }
        };
        header.set_entry_type(kind);
        header.set_mode(entry.mode);
        let field = |field: &mut [u8], value: &[u8]| {
            let fits = value.len() <= field.len();
            let len = value.len().min(field.len());
            field[..len].copy_from_slice(&value[..len]);
            fits
        };
        if let Some(ustar) = header.as_ustar_mut() {
            if !field(&mut ustar.name, &name) {
                pax.add(b"path", &name);
            }
            if let Some(target) = target
                && !field(&mut ustar.linkname, target)
            {
                pax.add(b"linkpath", target);
            }
            for (table, id, place, key) in [
                (&self.names.users, entry.uid, &mut ustar.uname, &b"uname"[..]),
                (&self.names.groups, entry.gid, &mut ustar.gname, b"gname"),
            ] {
                // The field's last byte is a NUL.
                if let Some(name) = table.get(&id)
                    && !field(&mut place[..31], name)
                {
                    pax.add(key, name);
                }
            }
        }
        number(entry.uid.into(), 0o7_777_777, b"uid", &mut pax, |n| header.set_uid(n));
        number(entry.gid.into(), 0o7_777_777, b"gid", &mut pax, |n| header.set_gid(n));
        number(size, 0o77_777_777_777, b"size", &mut pax, |n| header.set_size(n));
        header.set_mtime(entry.mtime.sec.clamp(0, 0o77_777_777_777) as u64);
        pax.add(b"mtime", decimal(entry.mtime).as_bytes());
        if kind != EntryType::Link {
            self.attributes(entry, &mut pax)?;
        }
        header.set_cksum();
        let mut extended = Header::new_ustar();
        extended.set_entry_type(EntryType::XHeader);
        extended.set_size(pax.0.len() as u64);
        extended.set_mode(0o644);
        if let Some(ustar) = extended.as_ustar_mut() {
            field(&mut ustar.name, b"././@PaxHeader");
        }
        extended.set_cksum();
        self.builder.append(&extended, &pax.0[..]).map_err(output)?;
        match &entry.body {
            Body::File(map) if kind == EntryType::Regular => {
                let content = Content::new(self.source, map).take(size);
                self.builder.append(&header, content).map_err(output)
            }
            _ => self.builder.append(&header, io::empty()).map_err(output),
        }
    }

    fn attributes(&self, entry: &Entry, pax: &mut Pax) -> Result<()> {
        for xattr in &entry.xattrs {
            let mut read = Vec::new();
            let value = match &xattr.value {
                XattrValue::Inline(value) => value,
                XattrValue::Chunk(id, _) => {
                    self.source.chunk(id, &mut read)?;
                    &read
                }
            };
            // GNU tar takes lists of access rights from records of their own, and so does star.
            let key = match xattr.name.as_slice() {
                b"system.posix_acl_access" => Some(&b"SCHILY.acl.access"[..]),
                b"system.posix_acl_default" => Some(&b"SCHILY.acl.default"[..]),
                _ => None,
            };
            if let Some(key) = key
                && let Some(text) = acl_text(value)
            {
                pax.add(key, text.as_bytes());
            }
            pax.add(&[b"SCHILY.xattr.", xattr.name.as_slice()].concat(), value);
        }
        Ok(())
    }
}

/// The text of a POSIX ACL (acl(5), short form, numeric ids) from the kernel's extended attribute:
/// a version of 32 bits, then entries of tag, permissions (16 bits each) and id (32 bits). None for
/// what isn't one.
fn acl_text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&2u32.to_le_bytes())?;
    let mut texts = Vec::new();
    for entry in entries.chunks(8) {
        let [tag, tag_high, rights, _, id @ ..] = *<&[u8; 8]>::try_from(entry).ok()?;
        let id = u32::from_le_bytes(id);
        let (name, id) = match u16::from_le_bytes([tag, tag_high]) {
            0x01 => ("user", String::new()),
            0x02 => ("user", id.to_string()),
            0x04 => ("group", String::new()),
            0x08 => ("group", id.to_string()),
            0x10 => ("mask", String::new()),
            0x20 => ("other", String::new()),
            _ => return None,
        };
        let right = |bit, letter| if rights & bit > 0 { letter } else { '-' };
        texts.push(format!("{name}:{id}:{}{}{}", right(4, 'r'), right(2, 'w'), right(1, 'x')));
    }
    Some(texts.join(","))
}

/// A number that may be too large for its field in octal.
fn number(value: u64, max: u64, key: &[u8], pax: &mut Pax, set: impl FnOnce(u64)) {
    if value > max {
        pax.add(key, value.to_string().as_bytes());
        set(0);
    } else {
        set(value);
    }
}

fn decimal(time: Time) -> String {
    match (time.sec, time.nsec) {
        (sec, 0) => sec.to_string(),
        (sec @ 0.., nsec) => format!("{sec}.{nsec:09}"),
        // Before the epoch the fraction counts the other way.
        (sec, nsec) => {
            let nsec = 1_000_000_000 - nsec;
            format!("-{}.{nsec:09}", -(sec + 1))
        }
    }
}

/// Records of an extended header: `length key=value\n`, the length counting itself.
#[derive(Debug, Default)]
struct Pax(Vec<u8>);

impl Pax {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.0.extend_from_slice(len.to_string().as_bytes());
        self.0.push(b' ');
        self.0.extend_from_slice(key);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

fn add_to_zip<W: Write + io::Seek>(
    source: &dyn Source,
    archive: &mut ZipWriter<W>,
    path: &[u8],
    entry: &Entry,
    troubles: &mut Troubles,
) -> Result<()> {
    let zipped = |e: zip::result::ZipError| output(e.into());
    let name = crate::show(path);
    let options = SimpleFileOptions::default()
        .unix_permissions(entry.mode & 0o777)
        .last_modified_time(zip_time(entry.mtime))
        .large_file(entry.size() >= u64::from(u32::MAX));
    match &entry.body {
        Body::File(map) => {
            archive.start_file(name, options).map_err(zipped)?;
            io::copy(&mut Content::new(source, map), archive).map_err(output)?;
            Ok(())
        }
        Body::Dir { .. } => archive.add_directory(name, options).map_err(zipped),
        Body::Symlink(target) => {
            archive.add_symlink(name, crate::show(target), options).map_err(zipped)
        }
        _ => {
            troubles.add(path, "only files, directories and links can be put into a zip");
            Ok(())
        }
    }
}

/// Zip keeps years from 1980 to 2107, to two seconds, without a zone: UTC.
fn zip_time(time: Time) -> zip::DateTime {
    let stamp = jiff::Timestamp::from_second(time.sec).unwrap_or_default();
    let at = stamp.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    zip::DateTime::from_date_and_time(
        at.year() as u16,
        at.month() as u8,
        at.day() as u8,
        at.hour() as u8,
        at.minute() as u8,
        at.second() as u8,
    )
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::process::Command;

    use super::*;
    use crate::backup::{Backup, Input, Progress};
    use crate::memory::Memory;
    use crate::trees;

    fn keep(pool: &Memory, path: &std::path::Path) -> Image {
        let backup = Backup { input: Input::Paths(vec![path.into()]), ..Backup::default() };
        backup.run(pool, &Progress::default()).unwrap().image.unwrap()
    }

    #[test]
    fn acls_become_text() {
        let id = u32::MAX.to_le_bytes();
        let entry = |tag: u8, rights: u8, id: [u8; 4]| [&[tag, 0, rights, 0][..], &id].concat();
        let acl = [
            vec![2, 0, 0, 0],
            entry(1, 7, id),
            entry(2, 5, 1234u32.to_le_bytes()),
            entry(4, 4, id),
            entry(0x10, 5, id),
            entry(0x20, 0, id),
        ]
        .concat();
        let text = "user::rwx,user:1234:r-x,group::r--,mask::r-x,other::---";
        assert_eq!(acl_text(&acl).as_deref(), Some(text));
        for len in 0..acl.len() {
            let text = acl_text(&acl[..len]);
            assert!(text.is_none() || len % 8 == 4, "{len}");
        }
    }

    #[test]
    fn a_tar_unpacks_to_the_same_tree() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        trees::make(from.path(), 11);
        fs::write(from.path().join("long".repeat(50)), "x").unwrap();
        let pool = Memory::default();
        let image = keep(&pool, from.path());
        let archive = to.path().join("a.tar");
        let mut out = fs::File::create(&archive).unwrap();
        let path = from.path().as_os_str().as_bytes();
        let troubles = dump(&pool, &image, path, Format::Tar, &mut out).unwrap();
        assert!(troubles.is_empty(), "{troubles:?}");
        let done = Command::new("tar")
            .args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"])
            .args([archive.as_os_str(), "-C".as_ref(), to.path().as_os_str()])
            .status();
        if done.is_ok_and(|status| status.success()) {
            trees::assert_same(from.path(), &to.path().join(from.path().file_name().unwrap()));
        }
    }

    #[test]
    fn a_zip_holds_the_files() {
        let from = tempfile::tempdir().unwrap();
        fs::create_dir(from.path().join("d")).unwrap();
        let content = trees::Dice(3).bytes(300_000);
        fs::write(from.path().join("d/f"), &content).unwrap();
        let pool = Memory::default();
        let image = keep(&pool, from.path());
        let mut out = Vec::new();
        let path = from.path().join("d");
        dump(&pool, &image, path.as_os_str().as_bytes(), Format::Zip, &mut out).unwrap();
        let mut archive = zip::ZipArchive::new(io::Cursor::new(out)).unwrap();
        let mut found = Vec::new();
        archive.by_name("d/f").unwrap().read_to_end(&mut found).unwrap();
        assert!(found == content);
        assert!(archive.by_name("d/").unwrap().is_dir());
    }

    #[test]
    fn a_record_counts_its_own_length() {
        for len in 0..1200 {
            let mut pax = Pax::default();
            pax.add(b"k", &vec![b'v'; len]);
            let text = String::from_utf8(pax.0).unwrap();
            let (number, _) = text.split_once(' ').unwrap();
            assert_eq!(number.parse::<usize>().unwrap(), text.len());
        }
        assert_eq!(decimal(Time { sec: -2, nsec: 250_000_000 }), "-1.750000000");
        assert_eq!(decimal(Time { sec: -1, nsec: 250_000_000 }), "-0.750000000");
    }
}
