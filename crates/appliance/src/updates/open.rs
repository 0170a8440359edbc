//! A package of either form, as who installs it sees it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use strongroom_identity::Secret;

use super::{
    Flaw, ForeignPackage, Package, UpdateSetup, UpdateVerifier, Version, flaw, foreign, package,
};
use crate::files;
use crate::{Error, Result};

/// Bytes of a file of keys, and of one with a passphrase.
const SMALL: u64 = 64 << 10;

/// A package that somebody trusted has signed.
#[derive(Debug)]
pub(crate) enum Opened {
    Native(Box<Package>),
    Foreign(ForeignPackage, Secret),
}

/// What lies in a directory now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpacked {
    pub(crate) version: Version,
    pub(crate) built_at: Option<Timestamp>,
    pub(crate) program: bool,
    pub(crate) script: bool,
}

impl UpdateSetup {
    fn verifier(&self) -> Result<UpdateVerifier> {
        if self.keys.is_empty() {
            let why = "no key of updates is trusted here: name its file as `update_keys` in the \
                       configuration";
            return Err(flaw(Flaw::Signature, why));
        }
        let mut verifier = UpdateVerifier::default();
        for path in &self.keys {
            let shown = path.display();
            let unreadable = |error| {
                flaw(Flaw::Signature, format!("`update_keys`: {shown} can't be read: {error}"))
            };
            let pem = files::read(path, SMALL).map_err(unreadable)?;
            verifier
                .add_pem(&pem)
                .map_err(|error| flaw(Flaw::Signature, format!("{shown}: {error}")))?;
        }
        Ok(verifier)
    }

    fn passphrase(&self) -> Result<Option<Secret>> {
        let Some(path) = &self.passphrase else { return Ok(None) };
        let wrong = |why: &str| {
            flaw(Flaw::Sealed, format!("`update_passphrase`: {}: {why}", path.display()))
        };
        let bytes = files::read(path, SMALL).map_err(|error| wrong(&error.to_string()))?;
        let bytes = zeroize::Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not text"))?;
        let line = text.lines().next().filter(|line| !line.is_empty());
        Ok(Some(line.ok_or_else(|| wrong("its first line is empty"))?.into()))
    }
}

impl Opened {
    /// Looks who signed a package of so many bytes.
    pub(crate) fn verify(from: &mut File, length: u64, setup: &UpdateSetup) -> Result<Self> {
        let mut magic = Vec::new();
        let unread = |error: std::io::Error| flaw(Flaw::Damaged, error.to_string());
        from.rewind().map_err(unread)?;
        from.by_ref().take(package::MAGIC.len() as u64).read_to_end(&mut magic).map_err(unread)?;
        if magic.starts_with(foreign::MAGIC) {
            let secret = setup.passphrase()?.ok_or_else(|| {
                let why = "it is encrypted, and no passphrase is known: name its file as \
                           `update_passphrase` in the configuration";
                flaw(Flaw::Sealed, why)
            })?;
            let found = ForeignPackage::verify(from, &secret, &setup.verifier()?)?;
            return Ok(Self::Foreign(found, secret));
        }
        let package = Package::read(from, length)?;
        package.verify(&setup.verifier()?)?;
        Ok(Self::Native(Box::new(package)))
    }

    /// Refuses what is not for this machine, or for this version. `allow_older`: any may come.
    pub(crate) fn suits(&self, version: &Version, allow_older: bool) -> Result<()> {
        let Self::Native(package) = self else { return Ok(()) };
        let manifest = package.manifest();
        let here = std::env::consts::ARCH;
        if manifest.architecture != here {
            let why = format!("it is for {}, and this machine is {here}", manifest.architecture);
            return Err(flaw(Flaw::Version, why));
        }
        newer(&manifest.version, version, allow_older)?;
        match &manifest.minimum {
            Some(minimum) if version < minimum => {
                let why = format!(
                    "it takes version {minimum} at least, and this is {version}: update to that \
                     before"
                );
                Err(flaw(Flaw::Version, why))
            }
            _ => Ok(()),
        }
    }

    /// The bytes of what is in it, where it says so.
    pub(crate) fn bytes(&self) -> Option<u64> {
        match self {
            Self::Native(package) => {
                let manifest = package.manifest();
                let changelog = manifest.changelog.as_ref().map_or(0, |file| file.bytes);
                Some(manifest.program.bytes.saturating_add(changelog))
            }
            Self::Foreign(..) => None,
        }
    }

    /// Writes what is in it to a directory.
    pub(crate) fn unpack(
        &self,
        from: &mut File,
        setup: &UpdateSetup,
        to: &Path,
        version: &Version,
        allow_older: bool,
    ) -> Result<Unpacked> {
        let unpacked = match self {
            Self::Native(package) => {
                let secret = match package.manifest().is_sealed() {
                    true => setup.passphrase()?,
                    false => None,
                };
                let mut written = Vec::new();
                package.unpack(from, secret.as_ref(), |name| {
                    let path = to.join(name);
                    let mode = if name == "strongroom" { 0o700 } else { 0o600 };
                    let mut options = OpenOptions::new();
                    let file = options.write(true).create_new(true).mode(mode).open(&path);
                    written.push(path.clone());
                    file.map_err(Error::file(&path))
                })?;
                for path in &written {
                    let synced = File::open(path).and_then(|file| file.sync_all());
                    synced.map_err(Error::file(path))?;
                }
                let manifest = package.manifest();
                Unpacked {
                    version: manifest.version.clone(),
                    built_at: Some(manifest.built_at),
                    program: true,
                    script: false,
                }
            }
            Self::Foreign(package, secret) => {
                let contents = package.unpack(from, secret, to, setup.scripts)?;
                newer(&contents.version, version, allow_older)?;
                Unpacked {
                    version: contents.version,
                    built_at: None,
                    program: contents.program,
                    script: contents.script,
                }
            }
        };
        if unpacked.program {
            runs_here(&to.join("strongroom"))?;
        }
        Ok(unpacked)
    }
}

/// Refuses a version that is not newer.
fn newer(version: &Version, than: &Version, allow_older: bool) -> Result<()> {
    match version.cmp(than) {
        _ if allow_older => Ok(()),
        std::cmp::Ordering::Greater => Ok(()),
        std::cmp::Ordering::Equal => Err(flaw(
            Flaw::Version,
            format!("software update package v{version} already up-to-date."),
        )),
        std::cmp::Ordering::Less => {
            Err(flaw(Flaw::Version, format!("software update package v{version} is too old.")))
        }
    }
}

/// Refuses a program for other processors: an ELF file says for which it is.
fn runs_here(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    let read = File::open(path).and_then(|file| file.take(20).read_to_end(&mut head));
    read.map_err(Error::file(path))?;
    if head.starts_with(b"#!") {
        return Ok(());
    }
    let wrong = |why: &str| flaw(Flaw::Version, format!("its `strongroom` {why}"));
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return Err(wrong("is no program"));
    }
    let own = std::env::consts::ARCH;
    // e_machine of the ELF specification, in the byte order that e_ident says.
    let here: u16 = match own {
        "x86_64" => 62,
        "aarch64" => 183,
        "riscv64" => 243,
        "powerpc64" => 21,
        "s390x" => 22,
        "x86" => 3,
        "arm" => 40,
        _ => return Ok(()),
    };
    let bytes = [head[18], head[19]];
    let machine = if head[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    match machine == here {
        true => Ok(()),
        false => Err(wrong(&format!("is for another kind of machine than this {own}"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;

    use super::super::UpdateSigner;
    use super::super::package::tests::new;
    use super::*;

    fn setup(dir: &Path) -> (UpdateSigner, UpdateSetup) {
        let signer = UpdateSigner::generate().unwrap();
        let key = dir.join("vendor.pem");
        fs::write(&key, signer.public_pem()).unwrap();
        (signer, UpdateSetup { keys: vec![key], ..UpdateSetup::default() })
    }

    fn why(done: Result<impl std::fmt::Debug>) -> (Flaw, String) {
        match done {
            Err(Error::Package { flaw, why }) => (flaw, why),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_does_not_suit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, setup) = setup(dir.path());
        let made = |change: &dyn Fn(&mut super::super::NewPackage<_>)| {
            let mut package = new("0.2.0", b"#!/bin/sh\n");
            change(&mut package);
            let mut bytes = Vec::new();
            package.write(&signer, None, &mut bytes).unwrap();
            let path = dir.path().join("package");
            fs::write(&path, &bytes).unwrap();
            let mut file = File::open(path).unwrap();
            (Opened::verify(&mut file, bytes.len() as u64, &setup).unwrap(), file)
        };
        let of = |text: &str| text.parse::<Version>().unwrap();
        let (good, mut file) = made(&|_| ());
        good.suits(&of("0.1.9"), false).unwrap();
        let same = why(good.suits(&of("0.2.0"), false));
        assert_eq!(same.1, "software update package v0.2.0 already up-to-date.");
        let newer = why(good.suits(&of("0.3.0"), false));
        assert_eq!(newer, (Flaw::Version, "software update package v0.2.0 is too old.".into()));
        good.suits(&of("0.3.0"), true).unwrap();
        let (flaw, told) = why(good.suits(&of("0.0.9"), false));
        assert!(flaw == Flaw::Version && told.contains("0.1.0 at least"), "{told}");
        let to = dir.path().join("to");
        fs::create_dir(&to).unwrap();
        let unpacked = good.unpack(&mut file, &setup, &to, &of("0.1.0"), false).unwrap();
        assert_eq!(unpacked.version, of("0.2.0"));
        let (other, _) = made(&|package| package.architecture = "pdp11".into());
        assert!(why(other.suits(&of("0.1.0"), true)).1.contains("pdp11"));
        // An ELF file of other processors, and what is no program.
        for (bytes, expected) in [
            (&b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x99\x99rest"[..], "another kind"),
            (b"hello", "no program"),
            (b"\x7fELF", "no program"),
        ] {
            let (bad, mut file) =
                made(&|package| package.program = std::io::Cursor::new(bytes.to_vec()));
            fs::remove_dir_all(&to).unwrap();
            fs::create_dir(&to).unwrap();
            let (flaw, told) = why(bad.unpack(&mut file, &setup, &to, &of("0.1.0"), false));
            assert!(flaw == Flaw::Version && told.contains(expected), "{told}");
        }
    }

    #[test]
    fn what_is_not_configured_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (signer, good) = setup(dir.path());
        let mut bytes = Vec::new();
        new("0.2.0", b"#!").write(&signer, None, &mut bytes).unwrap();
        let path = dir.path().join("package");
        let verify = |bytes: &[u8], setup: &UpdateSetup| {
            fs::write(&path, bytes).unwrap();
            let mut file = File::open(&path).unwrap();
            Opened::verify(&mut file, bytes.len() as u64, setup)
        };
        verify(&bytes, &good).unwrap();
        let none = UpdateSetup::default();
        assert!(why(verify(&bytes, &none)).1.contains("update_keys"));
        let gone = UpdateSetup { keys: vec![dir.path().join("gone")], ..UpdateSetup::default() };
        assert!(why(verify(&bytes, &gone)).1.contains("gone"));
        assert!(why(verify(b"Salted__12345678", &good)).1.contains("update_passphrase"));
        assert_eq!(why(verify(b"garbage", &good)).0, Flaw::Sealed);
        assert_eq!(why(verify(b"", &good)).0, Flaw::Sealed);
        let empty = dir.path().join("empty");
        fs::write(&empty, "\n").unwrap();
        let setup = UpdateSetup { passphrase: Some(empty), ..good };
        assert!(why(verify(b"Salted__12345678", &setup)).1.contains("first line"));
    }
}
