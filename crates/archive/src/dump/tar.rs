//! tar in the pax interchange format (POSIX.1-2001, IEEE Std 1003.1, "pax").

use std::io::Write;

use ::tar::{EntryType, Header};

use super::{Event, Item, Place, acl, broken};
use crate::entry::{Body, Time};
use crate::flow::Taker;
use crate::list::Legend;
use crate::{Result, Troubles, show};

const BLOCK: u64 = 512;
/// What twelve, eight digits (less one for the end) can say.
const SIZE_MAX: u64 = 0o777_7777_7777;
const ID_MAX: u32 = 0o777_7777;

pub(super) struct Writer<'a> {
    out: &'a mut dyn Write,
    legend: &'a Legend,
    troubles: Troubles,
    place: Place,
}

/// The records of an extended header.
#[derive(Default)]
struct Records {
    bytes: Vec<u8>,
    /// Some name in them isn't UTF-8.
    binary: bool,
}

impl Records {
    /// Appends `length key=value\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        self.bytes.extend_from_slice(format!("{len} ").as_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.push(b'=');
        self.bytes.extend_from_slice(value);
        self.bytes.push(b'\n');
    }

    fn name(&mut self, key: &str, value: &[u8]) {
        self.binary |= std::str::from_utf8(value).is_err();
        self.add(key.as_bytes(), value);
    }

    fn finish(self) -> Vec<u8> {
        let mut all = Self::default();
        if self.binary {
            all.add(b"hdrcharset", b"BINARY");
        }
        all.bytes.extend_from_slice(&self.bytes);
        all.bytes
    }
}

/// Seconds with a fraction, as pax writes them.
fn decimal(time: Time) -> String {
    match time {
        Time { sec, nsec: 0 } => sec.to_string(),
        Time { sec, nsec } if sec < 0 => {
            let (sec, nsec) = ((sec + 1).unsigned_abs(), 1_000_000_000 - nsec);
            format!("-{sec}.{nsec:09}")
        }
        Time { sec, nsec } => format!("{sec}.{nsec:09}"),
    }
}

/// Puts a name in a field of fixed size if it fits.
fn put(field: &mut [u8], name: &[u8]) -> bool {
    field.fill(0);
    let len = name.len().min(field.len());
    field[..len].copy_from_slice(&name[..len]);
    name.len() == len
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut dyn Write, legend: &'a Legend, troubles: Troubles) -> Self {
        Self { out, legend, troubles, place: Place::default() }
    }

    /// Two empty blocks end an archive.
    pub(super) fn finish(self) -> Result<Troubles> {
        self.out.write_all(&[0; 2 * BLOCK as usize]).map_err(broken)?;
        Ok(self.troubles)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(broken)
    }

    fn pad(&mut self, len: u64) -> Result<()> {
        let pad = len.next_multiple_of(BLOCK) - len;
        self.write(&[0; BLOCK as usize][..pad as usize])
    }

    fn header(&mut self, item: &Item) -> Result<()> {
        let entry = &item.entry;
        let mut records = Records::default();
        let mut header = Header::new_ustar();
        let (kind, size, target) = match (&item.link, &entry.body) {
            (Some(first), _) => (EntryType::Link, 0, Some(&first[..])),
            (None, Body::File(map)) => (EntryType::Regular, map.len(), None),
            (None, Body::Dir { .. }) => (EntryType::Directory, 0, None),
            (None, Body::Symlink(to)) => (EntryType::Symlink, 0, Some(&to[..])),
            (None, Body::Fifo) => (EntryType::Fifo, 0, None),
            (None, Body::Char(..)) => (EntryType::Char, 0, None),
            (None, _) => (EntryType::Block, 0, None),
        };
        header.set_entry_type(kind);
        header.set_mode(entry.mode);
        header.set_size(size);
        header.set_uid(entry.uid.into());
        header.set_gid(entry.gid.into());
        let mtime = u64::try_from(entry.mtime.sec).unwrap_or(0).min(SIZE_MAX);
        header.set_mtime(mtime);
        let mut name = item.name.clone();
        if entry.is_dir() {
            name.push(b'/');
        }
        let field = &mut header.as_old_mut().name;
        if !put(field, &name) {
            records.name("path", &name);
        }
        if let Some(target) = target
            && !put(&mut header.as_old_mut().linkname, target)
        {
            records.name("linkpath", target);
        }
        if size > SIZE_MAX {
            records.add(b"size", size.to_string().as_bytes());
        }
        for (key, id) in [(&b"uid"[..], entry.uid), (b"gid", entry.gid)] {
            if id > ID_MAX {
                records.add(key, id.to_string().as_bytes());
            }
        }
        if i64::try_from(mtime) != Ok(entry.mtime.sec) || entry.mtime.nsec != 0 {
            records.add(b"mtime", decimal(entry.mtime).as_bytes());
        }
        if let Some(ustar) = header.as_ustar_mut() {
            let (user, group) = (self.legend.user(entry.uid), self.legend.group(entry.gid));
            // The last byte of these fields must be zero.
            if !put(&mut ustar.uname[..31], user.unwrap_or_default()) {
                records.name("uname", user.unwrap_or_default());
            }
            if !put(&mut ustar.gname[..31], group.unwrap_or_default()) {
                records.name("gname", group.unwrap_or_default());
            }
            if let Body::Char(major, minor) | Body::Block(major, minor) = entry.body {
                ustar.set_device_major(major);
                ustar.set_device_minor(minor);
            }
        }
        for (name, value) in &item.xattrs {
            let acl = match &name[..] {
                b"system.posix_acl_access" => Some(&b"SCHILY.acl.access"[..]),
                b"system.posix_acl_default" => Some(&b"SCHILY.acl.default"[..]),
                _ => None,
            };
            if let (Some(key), Some(text)) = (acl, acl::text(value)) {
                records.add(key, text.as_bytes());
            }
            let mut key = b"SCHILY.xattr.".to_vec();
            for byte in name {
                // As GNU tar does: `=` would end the key.
                match byte {
                    b'=' => key.extend_from_slice(b"%3D"),
                    b'%' => key.extend_from_slice(b"%25"),
                    other => key.push(*other),
                }
            }
            records.add(&key, value);
        }
        let records = records.finish();
        if !records.is_empty() {
            self.extended(&name, mtime, &records)?;
        }
        header.set_cksum();
        self.write(header.as_bytes())
    }

    fn extended(&mut self, name: &[u8], mtime: u64, records: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(mtime);
        header.set_size(records.len() as u64);
        let name = name.strip_suffix(b"/").unwrap_or(name);
        let last = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
        let shown = [b"PaxHeaders/", &last[..last.len().min(80)]].concat();
        put(&mut header.as_old_mut().name, &shown);
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(records)?;
        self.pad(records.len() as u64)
    }

    fn end_file(&mut self) -> Result<()> {
        if self.place.at == self.place.size { self.pad(self.place.size) } else { Ok(()) }
    }
}

impl Taker<Event> for Writer<'_> {
    fn item(&mut self, step: Event) -> Result<()> {
        let item = match step {
            Event::Trouble(path, what) => {
                self.troubles.add(&path, what);
                return Ok(());
            }
            Event::Item(item) => item,
        };
        if matches!(item.entry.body, Body::Socket) {
            self.troubles.add(&item.name, "a socket can't be put into an archive");
            return Ok(());
        }
        for what in &item.troubles {
            self.troubles.add(&item.name, what);
        }
        self.header(&item)?;
        let size = match &item.entry.body {
            Body::File(map) if item.link.is_none() => map.len(),
            _ => 0,
        };
        self.place = Place { path: item.name, at: 0, size };
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.write(bytes)?;
        self.place.at += bytes.len() as u64;
        self.end_file()
    }

    fn lost(&mut self, len: u64, why: &str) -> Result<()> {
        let what = self.place.lost(len, why);
        self.troubles.add(&self.place.path, what);
        self.zeros(len)
    }
}

impl std::fmt::Debug for Writer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Writer(at {} of {})", self.place.at, show(&self.place.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_record_counts_itself() {
        let mut records = Records::default();
        records.add(b"path", &[b'x'; 90]);
        records.add(b"path", &[b'x'; 91]);
        records.add(b"a", b"b");
        let text = String::from_utf8_lossy(&records.bytes);
        for line in text.lines() {
            let said = line.split(' ').next().and_then(|digits| digits.parse().ok());
            assert_eq!(said, Some(line.len() + 1), "{line}");
        }
    }

    #[test]
    fn times_before_the_epoch_have_a_sign_in_front() {
        assert_eq!(decimal(Time { sec: -2, nsec: 500_000_000 }), "-1.500000000");
        assert_eq!(decimal(Time { sec: -1, nsec: 999_999_999 }), "-0.000000001");
        assert_eq!(decimal(Time { sec: -1, nsec: 0 }), "-1");
        assert_eq!(decimal(Time { sec: 7, nsec: 1 }), "7.000000001");
    }
}
