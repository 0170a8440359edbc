//! Packages in the form of Jidoteki Admin, so that what builds them now can go on: made by
//!
//! ```text
//! tar -czf software_package.tar.gz version.txt strongroom
//! openssl dgst -sha256 -sign private.pem -out software_package.tar.gz.sign software_package.tar.gz
//! tar -cf package.tar software_package.tar.gz software_package.tar.gz.sign
//! openssl enc -aes-256-cbc -md sha256 -pbkdf2 -salt -pass file:updates.key -in package.tar -out package.enc
//! ```
//!
//! Nothing of the inner archive is looked at before its signature was found right. What is in it is
//! bounded nevertheless, and only plain files and directories are taken.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use aws_lc_rs::cipher::{AES_256, DecryptionContext, StreamingDecryptingKey, UnboundCipherKey};
use aws_lc_rs::{digest, pbkdf2};
use flate2::read::GzDecoder;
use strongroom_identity::Secret;
use tar::EntryType;
use zeroize::Zeroizing;

use super::package::{CHANGELOG, PROGRAM};
use super::{Flaw, UpdateVerifier, Version, damaged, flaw};
use crate::{Error, Result};

/// What stands before the salt.
pub(super) const MAGIC: &[u8; 8] = b"Salted__";
/// What `openssl enc -pbkdf2` takes when nobody says.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).expect("it is not zero");
const SALT: usize = 8;
const BLOCK: usize = 16;
/// Bytes that are decrypted at once.
const PIECE: usize = 64 << 10;
const INNER: &str = "software_package.tar.gz";
const SIGNATURES: [&str; 3] = ["software_package.tar.gz.sign", "software_package.sign", ".sign"];
/// Bytes of a signature, and of the file with the version.
const SIGNATURE: u64 = 1024;
const VERSION: u64 = 256;
/// Members of an archive, and bytes of them all.
const MEMBERS: usize = 10_000;
const WHOLE: u64 = 16 << 30;
/// Bytes of the headers that some programs write beside the file's own.
const HEADERS: u64 = 64 << 10;

fn undecrypted() -> Error {
    let why = "it can't be decrypted: the passphrase is another one, or it was made otherwise than \
               by `openssl enc -aes-256-cbc -md sha256 -pbkdf2` (`-md md5` is not taken)";
    flaw(Flaw::Sealed, why)
}

/// Decrypts what `openssl enc` has made.
struct Decrypting<R> {
    from: R,
    /// None once it has ended.
    key: Option<StreamingDecryptingKey>,
    read: Vec<u8>,
    ready: Vec<u8>,
    at: usize,
    length: usize,
}

impl<R: Read> Decrypting<R> {
    fn new(mut from: R, passphrase: &Secret) -> io::Result<Self> {
        let mut head = [0; MAGIC.len() + SALT];
        from.read_exact(&mut head)?;
        let (magic, salt) = head.split_at(MAGIC.len());
        if magic != MAGIC {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut derived = Zeroizing::new([0; 48]);
        let secret = passphrase.expose().as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, salt, secret, &mut derived[..]);
        let (key, iv) = derived.split_at(32);
        let iv: [u8; BLOCK] = iv.try_into().map_err(io::Error::other)?;
        let key = UnboundCipherKey::new(&AES_256, key).map_err(io::Error::other)?;
        let context = DecryptionContext::Iv128(iv.into());
        let key = StreamingDecryptingKey::cbc_pkcs7(key, context).map_err(io::Error::other)?;
        let (read, ready) = (vec![0; PIECE], vec![0; PIECE + BLOCK]);
        Ok(Self { from, key: Some(key), read, ready, at: 0, length: 0 })
    }

    fn next(&mut self) -> io::Result<()> {
        let Some(mut key) = self.key.take() else { return Ok(()) };
        let wrong = |_| io::Error::from(io::ErrorKind::InvalidData);
        let count = self.from.read(&mut self.read)?;
        let update = match count {
            0 => key.finish(&mut self.ready).map_err(wrong)?.written().len(),
            count => {
                let update = key.update(&self.read[..count], &mut self.ready).map_err(wrong)?;
                let length = update.written().len();
                self.key = Some(key);
                length
            }
        };
        (self.at, self.length) = (0, update);
        Ok(())
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.length && self.key.is_some() {
            self.next()?;
        }
        let ready = &self.ready[self.at..self.length];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.at += count;
        Ok(count)
    }
}

/// Adds up what is read.
struct Summed<'a, R> {
    from: R,
    sum: &'a mut digest::Context,
}

impl<R: Read> Read for Summed<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(out)?;
        self.sum.update(&out[..count]);
        Ok(count)
    }
}

/// What is in a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// The version that it brings.
    pub version: Version,
    /// Whether there is a program.
    pub program: bool,
    /// Whether there is a text of what is new.
    pub changelog: bool,
    /// Whether there is a script.
    pub script: bool,
}

/// A package whose signature is right.
#[derive(Debug)]
pub struct ForeignPackage {
    /// Of the inner archive.
    sum: digest::Digest,
}

impl ForeignPackage {
    /// Looks whether one of these keys signed it.
    ///
    /// # Errors
    /// [`Error::Package`].
    pub fn verify(
        from: &mut (impl Read + Seek),
        passphrase: &Secret,
        keys: &UpdateVerifier,
    ) -> Result<Self> {
        let (mut sum, mut signature) = (None, None);
        Self::walk(from, passphrase, |name, entry| {
            if name == INNER && sum.is_none() {
                let mut context = digest::Context::new(&digest::SHA256);
                io::copy(&mut Summed { from: entry, sum: &mut context }, &mut io::sink())
                    .map_err(|_| undecrypted())?;
                sum = Some(context.finish());
                return Ok(true);
            }
            if SIGNATURES.contains(&name) && signature.is_none() {
                signature = Some(small(entry, SIGNATURE)?);
                return Ok(true);
            }
            Ok(false)
        })?;
        let missing = |what: &str| damaged(format!("{what} is missing in it"));
        let sum = sum.ok_or_else(|| missing(INNER))?;
        let unsigned = || flaw(Flaw::Signature, format!("{} is missing in it", SIGNATURES[0]));
        let signature = signature.ok_or_else(unsigned)?;
        keys.signed_digest(&sum, &signature)?;
        Ok(Self { sum })
    }

    /// What is done with an inner archive once it is known who made it: for the fuzzer, which can sign
    /// nothing.
    ///
    /// # Errors
    /// [`Error::Package`]; [`Error::File`].
    #[doc(hidden)]
    pub fn fuzz(inner: &[u8], to: &Path) -> Result<Contents> {
        unpack_inner(&mut &inner[..], to, true)
    }

    /// Goes through the outer archive to its end.
    fn walk(
        from: &mut (impl Read + Seek),
        passphrase: &Secret,
        mut each: impl FnMut(&str, &mut dyn Read) -> Result<bool>,
    ) -> Result<()> {
        from.rewind().map_err(|error| damaged(error.to_string()))?;
        let opened = Decrypting::new(from, passphrase).map_err(|_| undecrypted())?;
        let mut archive = tar::Archive::new(opened);
        let entries = archive.entries().map_err(|_| undecrypted())?.raw(true);
        let mut count = 0;
        for entry in entries {
            // What was not decrypted rightly is no archive.
            let mut entry = entry.map_err(|_| undecrypted())?;
            count += 1;
            if count > MEMBERS {
                return Err(damaged("there are too many files in it"));
            }
            let name = match plain(&entry)? {
                Member::File(path) => path,
                Member::Directory(_) | Member::Nothing => continue,
            };
            let name = name.to_str().unwrap_or_default().to_owned();
            if !each(&name, &mut entry)? {
                return Err(damaged(format!("{name} is in it twice, or does not belong there")));
            }
        }
        // The padding at the end says whether all of it was there.
        let mut rest = archive.into_inner();
        io::copy(&mut rest, &mut io::sink()).map(drop).map_err(|_| undecrypted())
    }

    /// Writes what is in it to a directory: `strongroom`, `changelog`, and below `work` all that an
    /// `update.sh` may need, where that is wanted.
    ///
    /// # Errors
    /// [`Error::Package`]; [`Error::File`].
    pub fn unpack(
        &self,
        from: &mut (impl Read + Seek),
        passphrase: &Secret,
        to: &Path,
        script_wanted: bool,
    ) -> Result<Contents> {
        let mut sum = digest::Context::new(&digest::SHA256);
        let mut contents = None;
        Self::walk(from, passphrase, |name, entry| {
            if name == INNER {
                let mut summed = Summed { from: entry, sum: &mut sum };
                contents = Some(unpack_inner(&mut summed, to, script_wanted)?);
                // What follows the end of the archive was signed too.
                io::copy(&mut summed, &mut io::sink()).map_err(|_| undecrypted())?;
            }
            Ok(true)
        })?;
        match contents {
            Some(contents) if sum.finish().as_ref() == self.sum.as_ref() => Ok(contents),
            _ => Err(damaged("it was changed while it was read")),
        }
    }
}

fn unpack_inner(from: &mut impl Read, to: &Path, script_wanted: bool) -> Result<Contents> {
    let unread = |error: io::Error| damaged(format!("{INNER}: {error}"));
    let limited = GzDecoder::new(from).take(WHOLE);
    let mut archive = tar::Archive::new(limited);
    let (mut version, mut program, mut changelog, mut script) = (None, false, false, false);
    let work = to.join("work");
    let mut count = 0;
    for entry in archive.entries().map_err(unread)?.raw(true) {
        let mut entry = entry.map_err(unread)?;
        count += 1;
        if count > MEMBERS {
            return Err(damaged("there are too many files in it"));
        }
        let path = match plain(&entry)? {
            Member::Nothing => continue,
            Member::Directory(path) => {
                if script_wanted {
                    directory(&work.join(path))?;
                }
                continue;
            }
            Member::File(path) => path,
        };
        let twice = || damaged(format!("{} is in it twice", path.display()));
        let length = entry.size();
        let bounded = |most: u64| match length <= most {
            true => Ok(()),
            false => Err(damaged(format!("{} may have {most} bytes", path.display()))),
        };
        match path.to_str().unwrap_or_default() {
            "version.txt" => {
                bounded(VERSION)?;
                if version.is_some() {
                    return Err(twice());
                }
                let text = small(&mut entry, VERSION)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let first = text.lines().next().unwrap_or_default().trim();
                version = Some(first.parse().map_err(|why| flaw(Flaw::Version, why))?);
                if script_wanted {
                    write(&work.join(&path), text.as_bytes(), false)?;
                }
            }
            "strongroom" => {
                bounded(PROGRAM)?;
                if program {
                    return Err(twice());
                }
                program = true;
                write(&to.join("strongroom"), &mut entry, true)?;
            }
            "changelog" | "changelog.txt" => {
                bounded(CHANGELOG)?;
                if changelog {
                    return Err(twice());
                }
                changelog = true;
                write(&to.join("changelog"), &mut entry, false)?;
            }
            name => {
                let is_script = name == "update.sh";
                if is_script && script {
                    return Err(twice());
                }
                script |= is_script;
                if script_wanted {
                    write(&work.join(&path), &mut entry, is_script)?;
                }
            }
        }
    }
    // A checksum stands at the end of what was compressed.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink()).map_err(unread)?;
    if rest.limit() == 0 {
        return Err(damaged(format!("it may hold {WHOLE} bytes")));
    }
    let version = version.ok_or_else(|| flaw(Flaw::Version, "version.txt is missing in it"))?;
    if !program && !script {
        return Err(damaged("there is neither `strongroom` nor `update.sh` in it"));
    }
    Ok(Contents { version, program, changelog, script })
}

/// What a member is.
enum Member {
    File(PathBuf),
    Directory(PathBuf),
    /// It says something of others, which nobody needs.
    Nothing,
}

/// Takes plain files and directories below the archive's own, and nothing else.
fn plain<R: Read>(entry: &tar::Entry<'_, R>) -> Result<Member> {
    let kind = entry.header().entry_type();
    let bytes = entry.path_bytes();
    let shown = || String::from_utf8_lossy(&bytes).escape_debug().take(80).collect::<String>();
    if matches!(kind, EntryType::XHeader | EntryType::XGlobalHeader) && entry.size() <= HEADERS {
        return Ok(Member::Nothing);
    }
    let refused = |why: &str| damaged(format!("`{}` {why}", shown()));
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("is no plain path"))?;
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => path.push(part),
            _ => return Err(refused("leads out of it")),
        }
    }
    if text.contains('\0') || path.as_os_str().len() > 255 {
        return Err(refused("is no plain path"));
    }
    match kind {
        EntryType::Directory => Ok(Member::Directory(path)),
        EntryType::Regular if !path.as_os_str().is_empty() => Ok(Member::File(path)),
        _ => Err(refused("is no plain file")),
    }
}

fn small(mut from: impl Read, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = from.by_ref().take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| damaged(error.to_string()))?;
    match bytes.len() as u64 > most {
        true => Err(damaged(format!("a small file has more than {most} bytes"))),
        false => Ok(bytes),
    }
}

fn directory(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file(path))
}

fn write(path: &Path, mut from: impl Read, executable: bool) -> Result<()> {
    if let Some(parent) = path.parent() {
        directory(parent)?;
    }
    let mode = if executable { 0o700 } else { 0o600 };
    let file: io::Result<File> =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = file.map_err(Error::file(path))?;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = from.read(&mut buffer).map_err(|error| damaged(error.to_string()))?;
        if count == 0 {
            return file.sync_all().map_err(Error::file(path));
        }
        file.write_all(&buffer[..count]).map_err(Error::file(path))?;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::io::Cursor;
    use std::process::Command;

    use super::*;

    /// Runs a line of a shell in a directory.
    fn sh(dir: &Path, line: &str) {
        let out = Command::new("sh").args(["-ec", line]).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// A place with keys, a passphrase, and a file of each name of the package.
    fn place() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        sh(
            dir.path(),
            "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out private.pem
             openssl pkey -in private.pem -pubout -out public.pem
             openssl rand -base64 24 >updates.key
             echo v1.2.3 >version.txt; printf '#!/bin/sh\\necho hello\\n' >strongroom
             echo '# New' >changelog.txt; echo 'exit 0' >update.sh; mkdir sub; echo more >sub/file",
        );
        dir
    }

    const PACK: &str = "
        openssl dgst -sha256 -sign private.pem -out software_package.tar.gz.sign software_package.tar.gz
        tar -cf package.tar software_package.tar.gz software_package.tar.gz.sign
        openssl enc -aes-256-cbc -md sha256 -pbkdf2 -salt -pass file:updates.key -in package.tar -out package.enc";

    fn pack(dir: &Path, inner: &str) -> Vec<u8> {
        sh(dir, &format!("{inner}\n{PACK}"));
        fs::read(dir.join("package.enc")).unwrap()
    }

    fn passphrase(dir: &Path) -> Secret {
        fs::read_to_string(dir.join("updates.key")).unwrap().trim().into()
    }

    fn unpack(
        dir: &Path,
        package: &[u8],
        script_wanted: bool,
    ) -> Result<(Contents, tempfile::TempDir)> {
        let mut keys = UpdateVerifier::default();
        keys.add_pem(&fs::read(dir.join("public.pem")).unwrap()).unwrap();
        let (mut from, secret) = (Cursor::new(package), passphrase(dir));
        let found = ForeignPackage::verify(&mut from, &secret, &keys)?;
        let to = tempfile::tempdir().unwrap();
        let contents = found.unpack(&mut from, &secret, to.path(), script_wanted)?;
        Ok((contents, to))
    }

    fn refused(dir: &Path, package: &[u8]) -> (Flaw, String) {
        match unpack(dir, package, true) {
            Err(Error::Package { flaw, why }) => (flaw, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_openssl_and_tar_make_is_taken() {
        let dir = place();
        let dir = dir.path();
        for inner in [
            "tar -czf software_package.tar.gz version.txt strongroom changelog.txt",
            "tar -czf software_package.tar.gz ./version.txt ./sub ./strongroom ./changelog.txt",
            "tar --format=posix -czf software_package.tar.gz version.txt strongroom changelog.txt",
        ] {
            let package = pack(dir, inner);
            let (contents, to) = unpack(dir, &package, false).unwrap();
            let version = "1.2.3".parse().unwrap();
            let expected = Contents { version, program: true, changelog: true, script: false };
            assert_eq!(contents, expected);
            let read = |name: &str| fs::read_to_string(to.path().join(name)).unwrap();
            assert_eq!(read("strongroom"), "#!/bin/sh\necho hello\n");
            assert_eq!(read("changelog"), "# New\n");
            assert!(!to.path().join("work").exists());
        }
        let all = "tar -czf software_package.tar.gz version.txt strongroom update.sh sub";
        let (contents, to) = unpack(dir, &pack(dir, all), true).unwrap();
        assert!(contents.script && contents.program && !contents.changelog);
        assert_eq!(fs::read_to_string(to.path().join("work/sub/file")).unwrap(), "more\n");
        assert_eq!(fs::read_to_string(to.path().join("work/update.sh")).unwrap(), "exit 0\n");
        // A large one: pieces and padding of all lengths.
        for size in [0, 1, 15, 16, 17, 65_536, 1_000_001] {
            sh(dir, &format!("head -c {size} /dev/urandom >>strongroom"));
            let (_, to) = unpack(dir, &pack(dir, all), false).unwrap();
            sh(dir, &format!("cmp strongroom {}", to.path().join("strongroom").display()));
        }
    }

    #[test]
    fn what_somebody_else_made_or_changed_is_refused() {
        let dir = place();
        let dir = dir.path();
        let inner = "tar -czf software_package.tar.gz version.txt strongroom";
        let good = pack(dir, inner);
        unpack(dir, &good, false).unwrap();
        for length in [0, 7, 16, 17, 32, 100, good.len() - 16, good.len() - 1] {
            let (flaw, why) = refused(dir, &good[..length]);
            assert!(matches!(flaw, Flaw::Sealed | Flaw::Damaged), "{length}: {why}");
        }
        for at in [0, 9, 20, 600, good.len() - 1] {
            let mut changed = good.clone();
            changed[at] ^= 1;
            refused(dir, &changed);
        }
        // Padding is nobody's; all else was signed.
        for at in (0..good.len()).step_by(97) {
            let mut changed = good.clone();
            changed[at] ^= 1;
            if let Ok((contents, to)) = unpack(dir, &changed, false) {
                assert!(contents.program && contents.version == "1.2.3".parse().unwrap());
                let program = fs::read(to.path().join("strongroom")).unwrap();
                assert_eq!(program, fs::read(dir.join("strongroom")).unwrap(), "{at}");
            }
        }
        // Another passphrase; the digest of long ago; another key; none.
        sh(
            dir,
            "openssl enc -aes-256-cbc -md sha256 -pbkdf2 -pass pass:other -in package.tar -out package.enc",
        );
        let (flaw, why) = refused(dir, &fs::read(dir.join("package.enc")).unwrap());
        assert!(flaw == Flaw::Sealed && why.contains("md5"), "{why}");
        sh(
            dir,
            "openssl enc -aes-256-cbc -md md5 -pass file:updates.key -in package.tar -out package.enc 2>/dev/null",
        );
        assert_eq!(refused(dir, &fs::read(dir.join("package.enc")).unwrap()).0, Flaw::Sealed);
        let other = "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out other.pem
            openssl dgst -sha256 -sign other.pem -out software_package.tar.gz.sign software_package.tar.gz";
        let rest = PACK.trim_start().split_once('\n').unwrap().1;
        sh(dir, &format!("{other}\n{rest}"));
        assert_eq!(refused(dir, &fs::read(dir.join("package.enc")).unwrap()).0, Flaw::Signature);
        sh(dir, &rest.replace(" software_package.tar.gz.sign", ""));
        assert_eq!(refused(dir, &fs::read(dir.join("package.enc")).unwrap()).0, Flaw::Signature);
    }

    #[test]
    fn traps_in_signed_archives_are_refused() {
        let dir = place();
        let dir = dir.path();
        sh(
            dir,
            "ln -s /etc/passwd link; ln strongroom hard; mkfifo fifo; mkdir deep
                 echo bad >version.bad; : >empty.txt; head -c 300 /dev/zero >long.txt",
        );
        for (inner, flaw, expected) in [
            ("version.txt strongroom link", Flaw::Damaged, "plain file"),
            ("version.txt strongroom hard", Flaw::Damaged, "plain file"),
            ("version.txt strongroom fifo", Flaw::Damaged, "plain file"),
            ("version.txt strongroom strongroom --hard-dereference", Flaw::Damaged, "twice"),
            (
                "-P --transform=s,strongroom,../strongroom, version.txt strongroom",
                Flaw::Damaged,
                "leads out",
            ),
            (
                "-P --transform=s,strongroom,/tmp/strongroom, version.txt strongroom",
                Flaw::Damaged,
                "leads out",
            ),
            ("version.txt", Flaw::Damaged, "neither"),
            ("strongroom", Flaw::Version, "version.txt"),
            (
                "--transform=s,version.bad,version.txt, version.bad strongroom",
                Flaw::Version,
                "no version",
            ),
            (
                "--transform=s,empty.txt,version.txt, empty.txt strongroom",
                Flaw::Version,
                "no version",
            ),
            ("--transform=s,long.txt,version.txt, long.txt strongroom", Flaw::Damaged, "256"),
        ] {
            let line = format!("tar -czf software_package.tar.gz {inner}");
            let package = pack(dir, &line);
            let (found, why) = refused(dir, &package);
            assert_eq!(found, flaw, "{inner}: {why}");
            assert!(why.contains(expected), "{inner}: {why}");
        }
        // A bomb: a small package that grows beyond what the program may have.
        let bomb = "truncate -s 3G bomb
            tar -cf - --transform=s,bomb,strongroom, version.txt bomb | head -c 20000 | gzip >software_package.tar.gz
            rm bomb";
        let (found, why) = refused(dir, &pack(dir, bomb));
        assert!(found == Flaw::Damaged && why.contains("may have"), "{why}");
        let cut = "tar -cf - version.txt strongroom | gzip | head -c 100 >software_package.tar.gz";
        assert_eq!(refused(dir, &pack(dir, cut)).0, Flaw::Damaged);
        let none = "echo x >software_package.tar.gz";
        assert_eq!(refused(dir, &pack(dir, none)).0, Flaw::Damaged);
    }
}
