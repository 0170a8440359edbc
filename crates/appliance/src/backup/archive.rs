//! The archive: one tar. `manifest.json` is first, then the sealed files in its order, then
//! `manifest.mac`, the HMAC-SHA-256 of the manifest's bytes. Nothing of it is secret but what is
//! sealed; see `seal` for how.
//!
//! Whoever reads one trusts nothing of it: members are plain files of the names, the order and the
//! sizes that the manifest says, few, and no larger in all than the archive itself.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::seal::{ArchiveKey, SALT, Sealing, sealed_length, unseal};
use crate::{Error, Result};

/// The format that this program writes, and the only one there is.
const FORMAT: u32 = 1;
const MANIFEST: &str = "manifest.json";
const MAC: &str = "manifest.mac";
/// Before the path of a file that is sealed.
const SEALED: &str = "sealed/";
/// Bytes of the manifest; what it doesn't need are line ends.
const MANIFEST_ROOM: u64 = 16 << 10;
const MAC_LENGTH: u64 = 32;
const RANDOM: usize = 32;
/// Files that there are at most.
const FILES: usize = 8;
/// Bytes of a path, so that it has room in a header of tar.
const LONGEST_PATH: usize = 80;
/// Directories at the top that hold what is never in an archive.
const NOT_OURS: &[&str] = &["pools", "staged", "backup", "restore", "before-restore"];
const BLOCK: u64 = 512;

/// What a file is to the appliance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Users, rights, keys, jobs, settings, and which pools and images there are.
    Catalogue,
    /// The configuration file.
    Configuration,
    /// What secrets in the catalogue are sealed with.
    ApplianceKey,
    /// The certificate with its chain.
    Certificate,
    /// Its private key.
    CertificateKey,
    /// The licence.
    Licence,
    /// What storage is attached, sealed with the appliance's key.
    StorageOptions,
    /// What is asked of an authority, and the account there, sealed with the appliance's key.
    Acme,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// Where it belongs, from the data directory.
    pub path: String,
    /// Its bytes.
    pub bytes: u64,
    /// The bytes that it is sealed in.
    pub sealed_bytes: u64,
    /// The SHA-256 of those.
    pub sealed_sha256: String,
}

/// What an archive says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of the archive.
    pub format: u32,
    /// The version of the program that made it.
    pub program: String,
    /// The schema of the catalogue.
    pub schema: i64,
    /// Where the catalogue was, `sqlite` or `postgresql`; it is a file of SQLite in any case.
    pub database: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// For the passphrase.
    pub(super) salt: String,
    /// For the keys of the files.
    pub(super) random: String,
    /// The files.
    pub files: Vec<Member>,
    /// What belongs to the appliance and is not in it, and why.
    pub left_out: Vec<String>,
}

/// What the maker of an archive knows of it.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) schema: i64,
    pub(crate) database: &'static str,
    pub(crate) made_at: Timestamp,
    pub(crate) left_out: Vec<String>,
}

/// A file that is to be in an archive.
pub(crate) struct Source {
    pub(crate) role: Role,
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) from: Box<dyn Read>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?} {})", self.role, self.path)
    }
}

/// Whether that can be the path of a file in an archive.
pub(crate) fn is_path(path: &str) -> bool {
    let mut parts = path.split('/');
    let fine = |part: &str| {
        !matches!(part, "" | "." | "..")
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_.".contains(&c))
    };
    let top = path.split('/').next().unwrap_or_default();
    path.len() <= LONGEST_PATH && parts.all(fine) && !NOT_OURS.contains(&top)
}

fn header(name: &str, length: u64, at: Timestamp) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_mtime(u64::try_from(at.as_second()).unwrap_or_default());
    header.set_size(length);
    header.set_cksum();
    Ok(header)
}

fn sum(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// Writes an archive to an empty file.
pub(crate) fn write(
    mut out: &File,
    key: &ArchiveKey,
    head: Head,
    sources: Vec<Source>,
    go_on: &dyn Fn() -> io::Result<()>,
) -> io::Result<Manifest> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let Head { schema, database, made_at, left_out } = head;
    let mut manifest = Manifest {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        schema,
        database: database.to_owned(),
        made_at,
        salt: HEXLOWER.encode(&key.salt()),
        random: HEXLOWER.encode(&random),
        files: Vec::new(),
        left_out,
    };
    let mut tar = tar::Builder::new(out);
    // Its place; what stands there is known when all is written.
    let room = || io::repeat(b'\n');
    tar.append(&header(MANIFEST, MANIFEST_ROOM, made_at)?, room().take(MANIFEST_ROOM))?;
    for Source { role, path, bytes, from } in sources {
        let length = sealed_length(bytes).ok_or(io::ErrorKind::FileTooLarge)?;
        let header = header(&format!("{SEALED}{path}"), length, made_at)?;
        let from = Watched { from, go_on };
        let mut sealing = Sealing::new(from, bytes, key, &random, &path);
        tar.append(&header, &mut sealing)?;
        let sealed_sha256 = sum(sealing.sum().as_ref());
        manifest.files.push(Member { role, path, bytes, sealed_bytes: length, sealed_sha256 });
    }
    let mut text = serde_json::to_vec_pretty(&manifest)?;
    if text.len() as u64 > MANIFEST_ROOM {
        return Err(io::Error::other("too much was left out to be told in the manifest"));
    }
    text.resize(MANIFEST_ROOM as usize, b'\n');
    let mac = key.sign(&random, &text);
    tar.append(&header(MAC, MAC_LENGTH, made_at)?, &mac[..])?;
    tar.finish()?;
    drop(tar);
    out.seek(SeekFrom::Start(BLOCK))?;
    out.write_all(&text)?;
    out.sync_all()?;
    Ok(manifest)
}

/// Reads for as long as it may go on.
struct Watched<'a, R> {
    from: R,
    go_on: &'a dyn Fn() -> io::Result<()>,
}

impl<R: Read> Read for Watched<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        (self.go_on)()?;
        self.from.read(out)
    }
}

/// An archive whose structure and sums are right; who made it isn't known yet.
#[derive(Debug)]
pub struct Plan {
    manifest: Manifest,
    /// The bytes that the MAC is of.
    text: Vec<u8>,
    mac: Vec<u8>,
    /// Where each file begins.
    places: Vec<u64>,
}

fn unfit(why: impl Into<String>) -> Error {
    Error::Archive(why.into())
}

fn unread(error: io::Error) -> Error {
    unfit(format!("it can't be read: {error}"))
}

impl Plan {
    /// Looks at a whole archive of so many bytes.
    ///
    /// # Errors
    /// [`Error::Archive`].
    pub fn read(archive: &mut (impl Read + Seek), length: u64) -> Result<Self> {
        archive.rewind().map_err(unread)?;
        let mut tar = tar::Archive::new(&mut *archive);
        // Nothing of the extensions of tar, which would be read into memory.
        let mut members = tar.entries().map_err(unread)?.raw(true);
        let (text, _) = member(&mut members, MANIFEST, length)?.small(MANIFEST_ROOM)?;
        let manifest = manifest(&text)?;
        let mut places = Vec::new();
        for file in &manifest.files {
            let member = member(&mut members, &format!("{SEALED}{}", file.path), length)?;
            if member.length != file.sealed_bytes {
                return Err(unfit(format!("{} has another size than it says", file.path)));
            }
            let (sha256, place) = member.sum()?;
            if sha256 != file.sealed_sha256 {
                return Err(unfit(format!("{} is damaged", file.path)));
            }
            places.push(place);
        }
        let (mac, _) = member(&mut members, MAC, length)?.small(MAC_LENGTH)?;
        match members.next() {
            None => {}
            Some(Err(error)) => return Err(unread(error)),
            Some(Ok(_)) => return Err(unfit("there is more in it than it says")),
        }
        Ok(Self { manifest, text, mac, places })
    }

    /// What it says of itself; believed only with the key.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The salt of the passphrase.
    pub(super) fn salt(&self) -> Result<[u8; SALT]> {
        let salt = HEXLOWER.decode(self.manifest.salt.as_bytes()).ok();
        let salt = salt.and_then(|salt| salt.try_into().ok());
        salt.ok_or_else(|| unfit("its salt is none"))
    }

    /// Believes it, if it was made with this key.
    pub(super) fn open<'a>(&'a self, key: &'a ArchiveKey) -> Result<Opened<'a>> {
        let random = HEXLOWER.decode(self.manifest.random.as_bytes()).ok();
        let random = random.filter(|random| random.len() == RANDOM);
        let random = random.ok_or_else(|| unfit("its random bytes are none"))?;
        match key.signed(&random, &self.text, &self.mac) {
            true => Ok(Opened { plan: self, key, random }),
            false => Err(unfit("the passphrase is another one, or it was changed")),
        }
    }
}

/// An archive that was made with the key.
#[derive(Debug)]
pub(super) struct Opened<'a> {
    plan: &'a Plan,
    key: &'a ArchiveKey,
    random: Vec<u8>,
}

impl Opened<'_> {
    /// Writes one of its files, opened.
    pub(super) fn extract(
        &self,
        archive: &mut (impl Read + Seek),
        number: usize,
        to: &mut impl Write,
    ) -> Result<()> {
        let file = &self.plan.manifest.files[number];
        archive.seek(SeekFrom::Start(self.plan.places[number])).map_err(unread)?;
        let sealed = archive.take(file.sealed_bytes);
        let opened = unseal(sealed, to, file.bytes, self.key, &self.random, &file.path);
        opened.map_err(|error| unfit(format!("{}: {error}", file.path)))
    }
}

/// A member whose header is right.
struct At<'a, R: Read> {
    entry: tar::Entry<'a, R>,
    length: u64,
}

fn member<'a, R: Read>(
    members: &mut tar::Entries<'a, R>,
    name: &str,
    archive: u64,
) -> Result<At<'a, R>> {
    let entry = members.next().ok_or_else(|| unfit(format!("{name} is missing")))?;
    let entry = entry.map_err(unread)?;
    let header = entry.header();
    if header.entry_type() != tar::EntryType::Regular || *header.path_bytes() != *name.as_bytes() {
        return Err(unfit(format!("there is something else where {name} should be")));
    }
    let (length, place) = (entry.size(), entry.raw_file_position());
    if place.checked_add(length).is_none_or(|end| end > archive) {
        return Err(unfit(format!("{name} is cut off")));
    }
    Ok(At { entry, length })
}

impl<R: Read> At<'_, R> {
    /// Its bytes, of which there must be so many.
    fn small(mut self, length: u64) -> Result<(Vec<u8>, u64)> {
        if self.length != length {
            return Err(unfit("a part of it has another size than all have"));
        }
        let (mut bytes, place) = (Vec::new(), self.entry.raw_file_position());
        (&mut self.entry).take(length).read_to_end(&mut bytes).map_err(unread)?;
        match bytes.len() as u64 == length {
            true => Ok((bytes, place)),
            false => Err(unfit("it is cut off")),
        }
    }

    /// The SHA-256 of its bytes.
    fn sum(mut self) -> Result<(String, u64)> {
        let place = self.entry.raw_file_position();
        let (mut context, mut left) = (digest::Context::new(&digest::SHA256), self.length);
        let mut buffer = vec![0; 64 << 10];
        while left > 0 {
            let count = self.entry.read(&mut buffer).map_err(unread)?;
            if count == 0 {
                return Err(unfit("it is cut off"));
            }
            context.update(&buffer[..count]);
            left = left.saturating_sub(count as u64);
        }
        Ok((sum(context.finish().as_ref()), place))
    }
}

/// Reads a manifest, and refuses what no program of ours writes.
fn manifest(text: &[u8]) -> Result<Manifest> {
    // Of another format, no more than that it is one may be known.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let version: Version =
        serde_json::from_slice(text).map_err(|_| unfit("its manifest is not understood"))?;
    if version.format != FORMAT {
        let format = version.format;
        return Err(unfit(format!("it has format {format}; this program knows {FORMAT}")));
    }
    let manifest: Manifest = serde_json::from_slice(text)
        .map_err(|error| unfit(format!("its manifest is not understood: {error}")))?;
    if manifest.files.len() > FILES {
        return Err(unfit(format!("it has more than {FILES} files")));
    }
    for (at, file) in manifest.files.iter().enumerate() {
        if !is_path(&file.path) {
            return Err(unfit(format!("{:?} is no path of the appliance's", file.path)));
        }
        let before = &manifest.files[..at];
        let within = |a: &str, b: &str| a.strip_prefix(b).is_some_and(|rest| rest.starts_with('/'));
        if before.iter().any(|one| {
            one.role == file.role
                || one.path == file.path
                || within(&one.path, &file.path)
                || within(&file.path, &one.path)
        }) {
            return Err(unfit(format!("{} is there twice", file.path)));
        }
        if sealed_length(file.bytes) != Some(file.sealed_bytes) {
            return Err(unfit(format!("{} can't have these sizes", file.path)));
        }
    }
    Ok(manifest)
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Cursor;

    use super::*;

    pub(crate) fn key() -> ArchiveKey {
        ArchiveKey::of_bytes(&[9; SALT + 32]).unwrap()
    }

    fn source(role: Role, path: &str, bytes: &[u8]) -> Source {
        let from = Box::new(Cursor::new(bytes.to_vec()));
        Source { role, path: path.into(), bytes: bytes.len() as u64, from }
    }

    fn made() -> Vec<u8> {
        let file = tempfile::tempfile().unwrap();
        let sources = vec![
            source(Role::Catalogue, "catalogue.db", &[5; 200_000]),
            source(Role::ApplianceKey, "appliance.key", &[6; 32]),
            source(Role::CertificateKey, "tls/key.pem", b"a private key"),
        ];
        let head = Head {
            schema: 5,
            database: "sqlite",
            made_at: Timestamp::from_second(1_800_000_000).unwrap(),
            left_out: vec!["/etc/cert.pem".into()],
        };
        let manifest = write(&file, &key(), head, sources, &|| Ok(())).unwrap();
        assert_eq!(manifest.files.len(), 3);
        let (mut file, mut bytes) = (file, Vec::new());
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Plan> {
        Plan::read(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    fn why(bytes: &[u8]) -> String {
        match read(bytes) {
            Ok(_) => "it was taken".into(),
            Err(error) => error.to_string(),
        }
    }

    /// An archive of these members, as anybody can make one.
    fn of(members: &[(&str, tar::EntryType, u64, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, kind, length, bytes) in members {
            let mut header = tar::Header::new_gnu();
            // Also names that the crate would refuse to write.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(*length);
            header.set_mode(0o777);
            header.set_cksum();
            out.extend_from_slice(header.as_bytes());
            out.extend_from_slice(bytes);
            out.resize(out.len().next_multiple_of(512), 0);
        }
        out.resize(out.len() + 1024, 0);
        out
    }

    fn text(files: &str) -> Vec<u8> {
        let zeros = |count| "00".repeat(count);
        let text = format!(
            r#"{{"format":1,"program":"1","schema":5,"database":"sqlite",
            "made_at":"2026-01-01T00:00:00Z","salt":"{}","random":"{}","left_out":[],
            "files":[{files}]}}"#,
            zeros(SALT),
            zeros(RANDOM)
        );
        let mut text = text.into_bytes();
        text.resize(MANIFEST_ROOM as usize, b' ');
        text
    }

    fn file(role: &str, path: &str, bytes: u64) -> String {
        let (sealed, sum) = (sealed_length(bytes).unwrap(), "00".repeat(32));
        format!(
            r#"{{"role":"{role}","path":"{path}","bytes":{bytes},"sealed_bytes":{sealed},
            "sealed_sha256":"{sum}"}}"#
        )
    }

    #[test]
    fn what_was_written_is_read_and_nothing_of_it_lies_open() {
        let bytes = made();
        let plan = read(&bytes).unwrap();
        assert_eq!((plan.manifest().format, plan.manifest().schema), (1, 5));
        assert_eq!(plan.manifest().left_out, ["/etc/cert.pem"]);
        let key = key();
        let opened = plan.open(&key).unwrap();
        for (number, expected) in [&[5; 200_000][..], &[6; 32], b"a private key"].iter().enumerate()
        {
            let mut out = Vec::new();
            opened.extract(&mut Cursor::new(&bytes), number, &mut out).unwrap();
            assert_eq!(out, *expected, "{number}");
        }
        for secret in [&[5; 16][..], &[6; 16], b"a private key"] {
            assert!(!bytes.windows(secret.len()).any(|window| window == secret));
        }
        let other = ArchiveKey::of_bytes(&[8; SALT + 32]).unwrap();
        assert!(plan.open(&other).unwrap_err().to_string().contains("another one"));
    }

    #[test]
    fn what_is_cut_off_or_changed_anywhere_is_refused() {
        let bytes = made();
        let end = bytes.len() - 1024;
        for cut in (0..end).step_by(509).chain([end - 1]) {
            assert!(read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let key = key();
        let mut places: Vec<_> = (0..end).step_by(1009).collect();
        places.extend([512, 520, 512 + MANIFEST_ROOM as usize - 1, end - 480]);
        for place in places {
            let mut bad = bytes.clone();
            bad[place] ^= 1;
            let taken = read(&bad).is_ok_and(|plan| plan.open(&key).is_ok());
            // Of a header, what says neither name, kind nor size (its checksum covers all) is the
            // padding behind a member.
            let padding = bytes[place] == 0;
            assert!(!taken || padding, "changed at {place}");
        }
    }

    #[test]
    fn hostile_archives_are_refused_for_what_they_are() {
        use tar::EntryType as Kind;
        let manifest = text(&file("catalogue", "catalogue.db", 5));
        let room = MANIFEST_ROOM;
        let first = (MANIFEST, Kind::Regular, room, &manifest[..]);
        let huge = 10 << 30;
        for (members, expected) in [
            (vec![], "manifest.json is missing"),
            (vec![("../manifest.json", Kind::Regular, 0, &b""[..])], "something else"),
            (vec![("/manifest.json", Kind::Regular, 0, b"")], "something else"),
            (vec![(MANIFEST, Kind::Symlink, 0, b"")], "something else"),
            (vec![(MANIFEST, Kind::Link, 0, b"")], "something else"),
            (vec![(MANIFEST, Kind::GNUSparse, 0, b"")], "something else"),
            (vec![("x", Kind::GNULongName, huge, b"")], "something else"),
            (vec![("x", Kind::XHeader, huge, b"")], "something else"),
            (vec![(MANIFEST, Kind::Regular, huge, b"{}")], "cut off"),
            (vec![(MANIFEST, Kind::Regular, 2, b"{}")], "another size"),
            (vec![first], "sealed/catalogue.db is missing"),
            (vec![first, ("sealed/../x", Kind::Regular, 21, &[0; 21])], "something else"),
            (vec![first, ("sealed/catalogue.db", Kind::Symlink, 0, b"")], "something else"),
            (vec![first, ("sealed/catalogue.db", Kind::Directory, 0, b"")], "something else"),
            (vec![first, ("sealed/catalogue.db", Kind::Regular, huge, b"")], "cut off"),
            (vec![first, ("sealed/catalogue.db", Kind::Regular, 20, &[0; 20])], "another size"),
            (vec![first, ("sealed/catalogue.db", Kind::Regular, 21, &[0; 21])], "damaged"),
            (vec![first, first], "something else"),
        ] {
            let why = why(&of(&members));
            assert!(why.contains(expected), "{members:.60?}: {why}");
        }
        assert!(why(&[]).contains("missing"));
        assert!(why(&[0x55; 4096]).contains("can't be restored"));
        // More than it says, or the same twice.
        let mut twice = made();
        let end = twice.len() - 1024;
        twice.truncate(end);
        twice.extend(made());
        assert!(why(&twice).contains("more in it"));
    }

    #[test]
    fn manifests_that_no_program_of_ours_writes_are_refused() {
        let many = (0..9).map(|n| file("catalogue", &format!("f{n}"), 1)).collect::<Vec<_>>();
        let long = "x".repeat(LONGEST_PATH + 1);
        for (files, expected) in [
            (file("catalogue", "../x", 1), "no path"),
            (file("catalogue", "/etc/passwd", 1), "no path"),
            (file("catalogue", "a//b", 1), "no path"),
            (file("catalogue", "a/./b", 1), "no path"),
            (file("catalogue", "", 1), "no path"),
            (file("catalogue", "a\\u0000b", 1), "no path"),
            (file("catalogue", "pools/main/superblock", 1), "no path"),
            (file("catalogue", "restore/decided", 1), "no path"),
            (file("catalogue", &long, 1), "no path"),
            (format!("{},{}", file("catalogue", "a", 1), file("catalogue", "b", 1)), "twice"),
            (format!("{},{}", file("catalogue", "a", 1), file("certificate", "a", 1)), "twice"),
            (format!("{},{}", file("catalogue", "a", 1), file("certificate", "a/b", 1)), "twice"),
            (format!("{},{}", file("catalogue", "a/b", 1), file("certificate", "a", 1)), "twice"),
            (many.join(","), "more than 8"),
            (
                file("catalogue", "a", 1).replace("\"sealed_bytes\":17", "\"sealed_bytes\":99"),
                "sizes",
            ),
            (
                file("catalogue", "a", 1).replace("\"bytes\":1", "\"bytes\":18446744073709551615"),
                "sizes",
            ),
            (file("password", "a", 1), "not understood"),
            ("5".into(), "not understood"),
        ] {
            let error = manifest(&text(&files)).unwrap_err().to_string();
            assert!(error.contains(expected), "{files}: {error}");
        }
        let newer = String::from_utf8(text("")).unwrap().replace("\"format\":1", "\"format\":2");
        assert!(manifest(newer.as_bytes()).unwrap_err().to_string().contains("format 2"));
        assert!(manifest(&[b'['; 16 << 10]).is_err());
    }

    #[test]
    fn the_seed_of_the_fuzzer_is_an_archive() {
        let seed = include_bytes!("../../../../fuzz/corpus/appliance_backup/empty");
        let plan = read(seed).unwrap();
        assert!(plan.manifest().files.is_empty() && plan.open(&key()).is_err());
    }

    #[test]
    fn writing_stops_when_it_is_told_to() {
        let file = tempfile::tempfile().unwrap();
        let head = Head {
            schema: 1,
            database: "sqlite",
            made_at: Timestamp::UNIX_EPOCH,
            left_out: Vec::new(),
        };
        let sources = vec![source(Role::Catalogue, "c", &[1; 1 << 20])];
        let stop = || Err(io::Error::other("canceled"));
        assert!(write(&file, &key(), head, sources, &stop).is_err());
    }
}
