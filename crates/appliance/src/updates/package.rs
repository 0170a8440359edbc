//! A package of an update: a text of these lines, in this order, and right behind it the files, one
//! after the other. `docs/updates.md` tells it to people.
//!
//! ```text
//! Strongroom update, version 1
//! Version: 0.2.0
//! Minimum: 0.1.0
//! Architecture: x86_64
//! Built: 2026-11-28T01:00:00Z
//! Sealed: none
//! File: strongroom 41238712 <SHA-256, in small hexadecimal digits>
//! File: changelog 2047 <SHA-256>
//! Signature: <Ed25519 (RFC 8032) of all lines before this one, in base 64>
//! ```
//!
//! The changelog may be left out; `Minimum` is `none` where any version may be updated. A package
//! that is sealed says `Sealed: <salt> <random>`, 16 and 32 bytes in hexadecimal digits: each file is
//! then sealed as those of a backup of the appliance are, under the passphrase, and sizes and sums are
//! those of the files before. Each value has one way to be written. There are no names, links or
//! directories that somebody could lay a trap with.

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};

use aws_lc_rs::digest;
use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use strongroom_identity::Secret;

use super::{Flaw, UpdateSigner, UpdateVerifier, Version, damaged, flaw};
use crate::Result;
use crate::backup::{ArchiveKey, SALT, Sealing, sealed_length, unseal};
use crate::signing::SIGNATURE;

/// Its first line.
const TITLE: &str = "Strongroom update, version 1";
/// What every version of the format begins with.
pub(super) const MAGIC: &[u8] = b"Strongroom update, version ";
/// Bytes of the text.
const TEXT: usize = 4096;
/// Bytes of the program and of the changelog.
pub(super) const PROGRAM: u64 = 2 << 30;
pub(super) const CHANGELOG: u64 = 1 << 20;
const RANDOM: usize = 32;
const NONE: &str = "none";
/// The files' names, in their order.
pub(super) const NAMES: [&str; 2] = ["strongroom", "changelog"];

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFile {
    /// Its bytes.
    pub bytes: u64,
    /// Its SHA-256.
    pub sha256: String,
}

/// What a package says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageManifest {
    /// The version that it brings.
    pub version: Version,
    /// The oldest version that can be updated to it; none: any.
    pub minimum: Option<Version>,
    /// The processors that it is for.
    pub architecture: String,
    /// When it was made.
    pub built_at: Timestamp,
    /// For the passphrase, and for the keys of the files; none: it is not sealed.
    sealed: Option<([u8; SALT], [u8; RANDOM])>,
    /// The program.
    pub program: PackedFile,
    /// What is new in it.
    pub changelog: Option<PackedFile>,
}

impl fmt::Display for PackageManifest {
    /// What is signed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, minimum, architecture, built_at, sealed, .. } = self;
        let minimum = minimum.as_ref().map_or_else(|| NONE.to_owned(), Version::to_string);
        let sealed = sealed.map_or_else(
            || NONE.to_owned(),
            |(salt, random)| format!("{} {}", HEXLOWER.encode(&salt), HEXLOWER.encode(&random)),
        );
        write!(
            f,
            "{TITLE}\nVersion: {version}\nMinimum: {minimum}\nArchitecture: {architecture}\n\
             Built: {built_at}\nSealed: {sealed}\n"
        )?;
        for (name, file) in self.files() {
            writeln!(f, "File: {name} {} {}", file.bytes, file.sha256)?;
        }
        Ok(())
    }
}

impl PackageManifest {
    /// Its files, by their names, in their order.
    fn files(&self) -> impl Iterator<Item = (&'static str, &PackedFile)> {
        let files = [Some(&self.program), self.changelog.as_ref()];
        NAMES.into_iter().zip(files).filter_map(|(name, file)| Some((name, file?)))
    }

    /// Whether a passphrase is needed to open it.
    pub fn is_sealed(&self) -> bool {
        self.sealed.is_some()
    }

    /// Bytes of a file in the package.
    fn packed(&self, file: &PackedFile) -> Option<u64> {
        match self.sealed {
            Some(_) => sealed_length(file.bytes),
            None => Some(file.bytes),
        }
    }

    fn parse(text: &str) -> Result<Self> {
        let mut lines = text.split('\n');
        if lines.next() != Some(TITLE) {
            return Err(damaged("it has another format"));
        }
        let mut field = |name: &str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
            value.ok_or_else(|| damaged(format!("there is no line `{name}` where it belongs")))
        };
        let version = |text: &str| text.parse::<Version>().map_err(damaged);
        let brings = version(field("Version")?)?;
        let minimum = match field("Minimum")? {
            NONE => None,
            text => Some(version(text)?),
        };
        let architecture = field("Architecture")?.to_owned();
        let is_word = |c: u8| c.is_ascii_alphanumeric() || c == b'_';
        if !(1..=32).contains(&architecture.len()) || !architecture.bytes().all(is_word) {
            return Err(damaged("`Architecture` is a word such as x86_64"));
        }
        let built_at = field("Built")?.parse::<Timestamp>();
        let built_at =
            built_at.map_err(|_| damaged("`Built` is a time such as 2026-11-28T01:00:00Z"))?;
        let sealed = match field("Sealed")? {
            NONE => None,
            text => Some(sealed(text).ok_or_else(|| damaged("`Sealed` is not understood"))?),
        };
        let program = packed_file(field("File")?, NAMES[0], PROGRAM)?;
        let changelog = match lines.next().unwrap_or_default() {
            "" => None,
            line => {
                let value = line.strip_prefix("File: ");
                let value = value.ok_or_else(|| damaged("something follows its files"))?;
                Some(packed_file(value, NAMES[1], CHANGELOG)?)
            }
        };
        let manifest =
            Self { version: brings, minimum, architecture, built_at, sealed, program, changelog };
        match manifest.to_string() == text {
            true => Ok(manifest),
            false => Err(damaged("its text is not written as this program writes it")),
        }
    }
}

fn sealed(text: &str) -> Option<([u8; SALT], [u8; RANDOM])> {
    let (salt, random) = text.split_once(' ')?;
    let bytes = |text: &str| HEXLOWER.decode(text.as_bytes()).ok();
    Some((bytes(salt)?.try_into().ok()?, bytes(random)?.try_into().ok()?))
}

fn packed_file(text: &str, name: &str, most: u64) -> Result<PackedFile> {
    let wrong = || damaged(format!("`File: {name}` is followed by its size and its SHA-256"));
    let rest = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(' ')).ok_or_else(wrong)?;
    let (bytes, sha256) = rest.split_once(' ').ok_or_else(wrong)?;
    let bytes: u64 = bytes.parse().map_err(|_| wrong())?;
    if !(1..=most).contains(&bytes) {
        return Err(damaged(format!("{name} may have 1 to {most} bytes")));
    }
    let is_sum = HEXLOWER.decode(sha256.as_bytes()).is_ok_and(|sum| sum.len() == 32);
    if !is_sum {
        return Err(wrong());
    }
    Ok(PackedFile { bytes, sha256: sha256.to_owned() })
}

/// A package whose text is understood and whose size is right.
#[derive(Clone, Debug)]
pub struct Package {
    manifest: PackageManifest,
    signature: [u8; SIGNATURE],
    /// Where the first file begins.
    start: u64,
}

impl Package {
    /// Reads what a package of so many bytes says of itself. Nobody vouches for it yet.
    ///
    /// # Errors
    /// [`crate::Error::Package`].
    pub fn read(from: &mut (impl Read + Seek), length: u64) -> Result<Self> {
        let unread = |error: io::Error| damaged(format!("it can't be read: {error}"));
        from.rewind().map_err(unread)?;
        let mut head = Vec::new();
        from.by_ref().take(TEXT as u64).read_to_end(&mut head).map_err(unread)?;
        if !head.starts_with(MAGIC) {
            return Err(flaw(Flaw::Sealed, "it is no package of an update"));
        }
        if !head.starts_with(TITLE.as_bytes()) || head.get(TITLE.len()) != Some(&b'\n') {
            return Err(damaged("it has another format: a newer program makes it"));
        }
        const SIGNED: &[u8] = b"\nSignature: ";
        let cut = || damaged("its signature is missing");
        let at =
            head.windows(SIGNED.len()).position(|window| window == SIGNED).ok_or_else(cut)? + 1;
        let (text, rest) = head.split_at(at);
        let rest = &rest[SIGNED.len() - 1..];
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(cut)?;
        let signature = BASE64.decode(&rest[..end]).ok();
        let signature = signature.and_then(|bytes| <[u8; SIGNATURE]>::try_from(bytes).ok());
        // One text for each: several ones in a row are decoded, too.
        let signature = signature.filter(|bytes| BASE64.encode(bytes).as_bytes() == &rest[..end]);
        let signature =
            signature.ok_or_else(|| damaged("its signature is not 64 bytes in base 64"))?;
        let text = std::str::from_utf8(text).map_err(|_| damaged("it is not text"))?;
        let manifest = PackageManifest::parse(text)?;
        let start = (at + SIGNED.len() - 1 + end + 1) as u64;
        let mut whole = start;
        for (name, file) in manifest.files() {
            let packed = manifest.packed(file).and_then(|bytes| whole.checked_add(bytes));
            whole = packed.ok_or_else(|| damaged(format!("{name} is too large")))?;
        }
        match whole == length {
            true => Ok(Self { manifest, signature, start }),
            false if whole > length => Err(damaged("it is cut off")),
            false => Err(damaged("something follows its files")),
        }
    }

    /// What it says, if one of these keys signed it.
    ///
    /// # Errors
    /// [`crate::Error::Package`].
    pub fn verify(&self, keys: &UpdateVerifier) -> Result<&PackageManifest> {
        keys.signed(self.manifest.to_string().as_bytes(), &self.signature)?;
        Ok(&self.manifest)
    }

    /// What it says, whoever made it.
    pub fn manifest(&self) -> &PackageManifest {
        &self.manifest
    }

    /// Gives each file to a writer, by its name, and looks whether it is what was signed.
    ///
    /// # Errors
    /// [`crate::Error::Package`]; those of `open`.
    pub fn unpack<W: Write>(
        &self,
        from: &mut (impl Read + Seek),
        passphrase: Option<&Secret>,
        mut open: impl FnMut(&'static str) -> Result<W>,
    ) -> Result<()> {
        let key = match (&self.manifest.sealed, passphrase) {
            (None, _) => None,
            (Some((salt, random)), Some(secret)) => {
                Some((ArchiveKey::with_salt(secret, *salt)?, *random))
            }
            (Some(_), None) => {
                let why = "it is sealed, and no passphrase is known: name its file as \
                           `update_passphrase` in the configuration";
                return Err(flaw(Flaw::Sealed, why));
            }
        };
        let mut at = self.start;
        for (name, file) in self.manifest.files() {
            let packed = self.manifest.packed(file).expect("reading it has added them up");
            from.seek(SeekFrom::Start(at)).map_err(|error| damaged(error.to_string()))?;
            at += packed;
            let mut to = Summing::new(open(name)?);
            let piece = from.by_ref().take(packed);
            let copied = match &key {
                None => copy(piece, &mut to, file.bytes),
                Some((key, random)) => {
                    unseal(piece, &mut to, file.bytes, key, random, &sealed_name(name))
                }
            };
            copied.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData if key.is_some() => {
                    flaw(Flaw::Sealed, "the passphrase is another one, or it was changed")
                }
                _ => damaged(format!("{name}: {error}")),
            })?;
            if to.sha256() != file.sha256 {
                return Err(damaged(format!("{name} is not what was signed")));
            }
        }
        Ok(())
    }
}

/// What a file's key is made for.
fn sealed_name(name: &str) -> String {
    format!("update/{name}")
}

fn copy(mut from: impl Read, to: &mut impl Write, bytes: u64) -> io::Result<()> {
    match io::copy(&mut from, to)? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Adds up what is written.
pub(super) struct Summing<W> {
    to: W,
    sum: digest::Context,
}

impl<W> Summing<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, sum: digest::Context::new(&digest::SHA256) }
    }

    pub(super) fn sha256(self) -> String {
        HEXLOWER.encode(self.sum.finish().as_ref())
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.sum.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What goes into a package.
#[derive(Debug)]
pub struct NewPackage<F> {
    /// The version that it brings.
    pub version: Version,
    /// The oldest version that can be updated to it.
    pub minimum: Option<Version>,
    /// The processors that the program is for.
    pub architecture: String,
    /// When it is made.
    pub built_at: Timestamp,
    /// The program.
    pub program: F,
    /// What is new in it.
    pub changelog: Option<F>,
}

impl<F: Read + Seek> NewPackage<F> {
    /// Signs it, seals it where there is a passphrase, and writes it.
    ///
    /// # Errors
    /// [`crate::Error::Package`] when it could not be read again; [`crate::Error::Crypto`].
    pub fn write(
        self,
        signer: &UpdateSigner,
        passphrase: Option<&Secret>,
        out: &mut impl Write,
    ) -> Result<PackageManifest> {
        let unwritten = |error: io::Error| damaged(format!("it can't be written: {error}"));
        let Self { version, minimum, architecture, built_at, mut program, mut changelog } = self;
        let sum = |file: &mut F| -> Result<PackedFile> {
            let mut to = Summing::new(io::sink());
            file.rewind().map_err(unwritten)?;
            let bytes = io::copy(file, &mut to).map_err(unwritten)?;
            file.rewind().map_err(unwritten)?;
            Ok(PackedFile { bytes, sha256: to.sha256() })
        };
        let mut random = [0; RANDOM];
        getrandom::fill(&mut random).map_err(strongroom_identity::Error::Random)?;
        let key = passphrase.map(ArchiveKey::new).transpose()?;
        let manifest = PackageManifest {
            version,
            minimum,
            architecture,
            // The fraction of a second says nothing.
            built_at: Timestamp::from_second(built_at.as_second()).unwrap_or(built_at),
            sealed: key.as_ref().map(|key| (key.salt(), random)),
            program: sum(&mut program)?,
            changelog: changelog.as_mut().map(sum).transpose()?,
        };
        let text = manifest.to_string();
        if PackageManifest::parse(&text)? != manifest || text.len() > TEXT / 2 {
            return Err(damaged("it could not be read again"));
        }
        let signature = BASE64.encode(&signer.sign(text.as_bytes())?);
        out.write_all(format!("{text}Signature: {signature}\n").as_bytes()).map_err(unwritten)?;
        let files = [Some(program), changelog].into_iter().flatten();
        for (mut from, (name, file)) in files.zip(manifest.files()) {
            let copied = match &key {
                None => copy(&mut from, out, file.bytes),
                Some(key) => {
                    let name = sealed_name(name);
                    let mut sealing = Sealing::new(from, file.bytes, key, &random, &name);
                    let length = sealed_length(file.bytes).unwrap_or_default();
                    copy(&mut sealing, out, length)
                }
            };
            copied.map_err(unwritten)?;
        }
        out.flush().map_err(unwritten)?;
        Ok(manifest)
    }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::io::Cursor;

    use super::*;
    use crate::Error;

    pub(in crate::updates) fn new(version: &str, program: &[u8]) -> NewPackage<Cursor<Vec<u8>>> {
        NewPackage {
            version: version.parse().unwrap(),
            minimum: Some("0.1.0".parse().unwrap()),
            architecture: std::env::consts::ARCH.into(),
            built_at: "2026-11-28T01:00:00.5Z".parse().unwrap(),
            program: Cursor::new(program.to_vec()),
            changelog: Some(Cursor::new(b"# New\n".to_vec())),
        }
    }

    fn made(signer: &UpdateSigner, passphrase: Option<&Secret>) -> Vec<u8> {
        let mut out = Vec::new();
        new("0.2.0", &[7; 200_000]).write(signer, passphrase, &mut out).unwrap();
        out
    }

    fn unpack(
        bytes: &[u8],
        signer: &UpdateSigner,
        passphrase: Option<&Secret>,
    ) -> Result<BTreeMap<&'static str, Vec<u8>>> {
        let mut keys = UpdateVerifier::default();
        keys.add_pem(signer.public_pem().as_bytes()).unwrap();
        let mut from = Cursor::new(bytes);
        let package = Package::read(&mut from, bytes.len() as u64)?;
        package.verify(&keys)?;
        let dir = tempfile::tempdir().unwrap();
        package.unpack(&mut from, passphrase, |name| {
            Ok(std::fs::File::create(dir.path().join(name)).unwrap())
        })?;
        let read = |name: &&'static str| Some((*name, std::fs::read(dir.path().join(name)).ok()?));
        Ok(NAMES.iter().filter_map(read).collect())
    }

    fn flaw_of(done: Result<BTreeMap<&'static str, Vec<u8>>>) -> (Flaw, String) {
        match done {
            Err(Error::Package { flaw, why }) => (flaw, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let signer = UpdateSigner::generate().unwrap();
        let plain = made(&signer, None);
        let files = unpack(&plain, &signer, None).unwrap();
        assert_eq!(files["strongroom"], [7; 200_000]);
        assert_eq!(files["changelog"], b"# New\n");
        assert!(plain.starts_with(MAGIC));
        let secret = Secret::from("correct horse battery");
        let sealed = made(&signer, Some(&secret));
        assert!(!sealed.windows(64).any(|window| window == [7; 64]));
        assert_eq!(unpack(&sealed, &signer, Some(&secret)).unwrap(), files);
        let (flaw, why) = flaw_of(unpack(&sealed, &signer, None));
        assert!(flaw == Flaw::Sealed && why.contains("update_passphrase"), "{why}");
        let wrong = Secret::from("another phrase");
        assert_eq!(flaw_of(unpack(&sealed, &signer, Some(&wrong))).0, Flaw::Sealed);
        let mut package = new("0.2.0", b"x");
        (package.minimum, package.changelog) = (None, None);
        let mut out = Vec::new();
        package.write(&signer, None, &mut out).unwrap();
        assert_eq!(unpack(&out, &signer, None).unwrap().len(), 1);
    }

    #[test]
    fn what_was_changed_cut_off_or_lengthened_is_refused() {
        let signer = UpdateSigner::generate().unwrap();
        let other = UpdateSigner::generate().unwrap();
        let secret = Secret::from("correct horse battery");
        for passphrase in [None, Some(&secret)] {
            let good = made(&signer, passphrase);
            assert_eq!(flaw_of(unpack(&good, &other, passphrase)).0, Flaw::Signature);
            for length in [0, 10, 100, 600, good.len() - 1] {
                let refused = unpack(&good[..length], &signer, passphrase);
                assert!(matches!(flaw_of(refused).0, Flaw::Damaged | Flaw::Sealed), "{length}");
            }
            let longer = [&good[..], b"x"].concat();
            assert_eq!(flaw_of(unpack(&longer, &signer, passphrase)).0, Flaw::Damaged);
            // Each byte of the text, and some of the files.
            for at in (0..620).step_by(5).chain([1000, good.len() - 20, good.len() - 1]) {
                let mut changed = good.clone();
                changed[at] ^= 1;
                flaw_of(unpack(&changed, &signer, passphrase));
            }
        }
    }

    #[test]
    fn texts_that_no_program_of_ours_writes_are_refused() {
        let signer = UpdateSigner::generate().unwrap();
        let good = made(&signer, None);
        let end = good.windows(11).position(|window| window == b"\nSignature:").unwrap() + 1;
        let text = std::str::from_utf8(&good[..end]).unwrap().to_owned();
        PackageManifest::parse(&text).unwrap();
        let sum = "0".repeat(64);
        for (from, to) in [
            ("version 1", "version 2"),
            ("0.2.0", "two"),
            ("0.2.0", "v0.2.0"),
            ("0.2.0", "../0.2.0"),
            ("Minimum: 0.1.0", "Minimum: "),
            ("Minimum: 0.1.0\n", ""),
            ("Architecture: ", "Architecture: ../"),
            ("T01:00:00Z", ""),
            ("Sealed: none", "Sealed: 00 00"),
            ("Sealed: none", "Sealed: None"),
            ("strongroom 200000", "strongroom 0200000"),
            ("strongroom 200000", "strongroom 0"),
            ("strongroom 200000", "strongroom 99999999999"),
            ("strongroom 200000", "strongroom -1"),
            ("File: strongroom", "File: ../strongroom"),
            ("File: changelog 6", "File: changelog 9999999"),
            ("File: changelog", "File: strongroom"),
            ("Version: ", "Version:  "),
        ] {
            assert!(text.contains(from), "{from}");
            let changed = text.replace(from, to);
            assert!(PackageManifest::parse(&changed).is_err(), "{from} -> {to}");
        }
        for more in
            ["\n", "x\n", &format!("File: changelog 1 {sum}\n"), &format!("File: x 1 {sum}\n")]
        {
            assert!(PackageManifest::parse(&(text.clone() + more)).is_err(), "{more}");
        }
        assert!(PackageManifest::parse(&text.replace('\n', "\r\n")).is_err());
    }

    #[test]
    fn the_seed_of_the_fuzzer_is_a_package() {
        let seed = include_bytes!("../../../../fuzz/corpus/update_package/native");
        let package = Package::read(&mut Cursor::new(seed), seed.len() as u64).unwrap();
        assert_eq!(package.manifest().version.to_string(), "0.2.0");
    }
}
