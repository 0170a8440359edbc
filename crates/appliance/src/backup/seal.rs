//! How what a backup of the appliance holds is sealed.
//!
//! A passphrase is made a key by Argon2id (46 MiB, two passes, one lane) with the archive's salt. Of
//! that HKDF-SHA-256, with 32 random bytes of the archive, makes one key for each file, by its path,
//! and one for the MAC of the manifest. A file is cut into pieces of 64 KiB, each sealed with
//! AES-256-GCM; the nonce is the piece's number, and whether it is the last.

use std::fmt;
use std::io::{self, Read, Write};

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, MAX_TAG_LEN, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{digest, hkdf, hmac};
use strongroom_identity::Secret;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// Bytes of a piece before it is sealed.
const PIECE: usize = 64 << 10;
/// Bytes of a salt.
pub(crate) const SALT: usize = 16;
const KEY: usize = 32;
/// What Argon2id takes; they are part of the format.
const MEMORY_KIB: u32 = 46 << 10;
const PASSES: u32 = 2;

/// A passphrase as a key of archives with one salt.
#[derive(Clone)]
pub(crate) struct ArchiveKey {
    salt: [u8; SALT],
    key: Zeroizing<[u8; KEY]>,
}

impl fmt::Debug for ArchiveKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ArchiveKey")
    }
}

impl ArchiveKey {
    /// With a salt of its own. It takes a tenth of a second.
    pub(crate) fn new(secret: &Secret) -> Result<Self> {
        let mut salt = [0; SALT];
        getrandom::fill(&mut salt).map_err(strongroom_identity::Error::Random)?;
        Self::with_salt(secret, salt)
    }

    /// With the salt of an archive.
    pub(crate) fn with_salt(secret: &Secret, salt: [u8; SALT]) -> Result<Self> {
        let failed = |error: argon2::Error| Error::Archive(format!("no key: {error}"));
        let params = Params::new(MEMORY_KIB, PASSES, 1, Some(KEY)).map_err(failed)?;
        let stretch = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = Zeroizing::new([0; KEY]);
        let made = stretch.hash_password_into(secret.expose().as_bytes(), &salt, &mut key[..]);
        made.map_err(failed)?;
        Ok(Self { salt, key })
    }

    /// For a file that only its owner may read.
    pub(crate) fn bytes(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&self.salt[..], &self.key[..]].concat())
    }

    /// As it was kept.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let (salt, key) = bytes.split_first_chunk::<SALT>()?;
        Some(Self { salt: *salt, key: Zeroizing::new(key.try_into().ok()?) })
    }

    pub(crate) fn salt(&self) -> [u8; SALT] {
        self.salt
    }

    fn derive(&self, random: &[u8], purpose: &[u8], name: &[u8]) -> Zeroizing<[u8; KEY]> {
        let mut out = Zeroizing::new([0; KEY]);
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, random).extract(&self.key[..]);
        let info = [purpose, name];
        let made = secret.expand(&info, hkdf::HKDF_SHA256);
        made.and_then(|okm| okm.fill(&mut out[..])).expect("one block is not too long for HKDF");
        out
    }

    /// The MAC of a manifest.
    pub(super) fn sign(&self, random: &[u8], manifest: &[u8]) -> Vec<u8> {
        hmac::sign(&self.mac_key(random), manifest).as_ref().to_vec()
    }

    /// Whether that is the MAC of a manifest, in a time that tells nothing.
    pub(super) fn signed(&self, random: &[u8], manifest: &[u8], mac: &[u8]) -> bool {
        hmac::verify(&self.mac_key(random), manifest, mac).is_ok()
    }

    fn mac_key(&self, random: &[u8]) -> hmac::Key {
        let key = self.derive(random, b"strongroom backup 1 manifest", b"");
        hmac::Key::new(hmac::HMAC_SHA256, &key[..])
    }

    fn of_file(&self, random: &[u8], path: &str) -> LessSafeKey {
        let key = self.derive(random, b"strongroom backup 1 file ", path.as_bytes());
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..]).expect("the key has its length"))
    }
}

/// How long so many bytes are when they are sealed.
pub(crate) fn sealed_length(plain: u64) -> Option<u64> {
    let pieces = plain.div_ceil(PIECE as u64).max(1);
    plain.checked_add(pieces.checked_mul(MAX_TAG_LEN as u64)?)
}

fn nonce(number: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[0] = u8::from(last);
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Fills the buffer as far as there is something.
fn fill(from: &mut impl Read, piece: &mut Vec<u8>, length: usize) -> io::Result<()> {
    piece.clear();
    from.take(length as u64).read_to_end(piece).map(drop)
}

/// Reads a file of so many bytes as it is sealed.
pub(crate) struct Sealing<R> {
    from: R,
    key: LessSafeKey,
    left: u64,
    number: u64,
    ended: bool,
    ready: Vec<u8>,
    taken: usize,
    sum: digest::Context,
}

impl<R: Read> Sealing<R> {
    pub(crate) fn new(from: R, plain: u64, key: &ArchiveKey, random: &[u8], path: &str) -> Self {
        Self {
            from,
            key: key.of_file(random, path),
            left: plain,
            number: 0,
            ended: false,
            ready: Vec::with_capacity(PIECE + MAX_TAG_LEN),
            taken: 0,
            sum: digest::Context::new(&digest::SHA256),
        }
    }

    /// The SHA-256 of what was read.
    pub(super) fn sum(self) -> digest::Digest {
        self.sum.finish()
    }

    fn next(&mut self) -> io::Result<()> {
        let length = self.left.min(PIECE as u64);
        fill(&mut self.from, &mut self.ready, length as usize)?;
        if self.ready.len() as u64 != length {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= length;
        self.ended = self.left == 0;
        let nonce = nonce(self.number, self.ended);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.ready);
        sealed.map_err(|_| io::Error::other("it can't be sealed"))?;
        self.number += 1;
        self.taken = 0;
        self.sum.update(&self.ready);
        Ok(())
    }
}

impl<R: Read> Read for Sealing<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.taken == self.ready.len() {
            if self.ended {
                return Ok(0);
            }
            self.next()?;
        }
        let ready = &self.ready[self.taken..];
        let count = ready.len().min(out.len());
        out[..count].copy_from_slice(&ready[..count]);
        self.taken += count;
        Ok(count)
    }
}

/// Opens what was sealed of a file of so many bytes.
pub(crate) fn unseal(
    mut from: impl Read,
    to: &mut impl Write,
    plain: u64,
    key: &ArchiveKey,
    random: &[u8],
    path: &str,
) -> Result<(), io::Error> {
    let key = key.of_file(random, path);
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "it was changed");
    let mut piece = Zeroizing::new(Vec::with_capacity(PIECE + MAX_TAG_LEN));
    let (mut left, mut number) = (plain, 0);
    loop {
        let length = left.min(PIECE as u64);
        fill(&mut from, &mut piece, length as usize + MAX_TAG_LEN)?;
        left -= length;
        let nonce = nonce(number, left == 0);
        let open = key.open_in_place(nonce, Aad::empty(), &mut piece).map_err(|_| broken())?;
        to.write_all(open)?;
        number += 1;
        if left == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn key() -> ArchiveKey {
        ArchiveKey::of_bytes(&[7; SALT + KEY]).unwrap()
    }

    fn sealed(plain: &[u8], path: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut sealing = Sealing::new(plain, plain.len() as u64, &key(), b"random", path);
        sealing.read_to_end(&mut out).unwrap();
        let sum = digest::digest(&digest::SHA256, &out);
        assert_eq!(sealing.sum().as_ref(), sum.as_ref());
        assert_eq!(out.len() as u64, sealed_length(plain.len() as u64).unwrap());
        out
    }

    fn open(sealed: &[u8], plain: u64, path: &str) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        unseal(sealed, &mut out, plain, &key(), b"random", path).map(|()| out)
    }

    #[test]
    fn what_is_sealed_opens_whole_and_for_its_path_alone() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE] {
            let plain: Vec<u8> = (0..length).map(|n| (n * 7) as u8).collect();
            let sealed = sealed(&plain, "a");
            assert_eq!(open(&sealed, length as u64, "a").unwrap(), plain);
            assert!(open(&sealed, length as u64, "b").is_err());
            assert!(open(&sealed[..sealed.len() - 1], length as u64, "a").is_err());
            if length > 0 {
                assert!(!sealed.windows(8).any(|window| plain.starts_with(window)));
                assert!(open(&sealed, length as u64 - 1, "a").is_err(), "{length}");
            }
        }
        // A piece that ends a file does so, and pieces keep their order.
        let two = sealed(&[1; 2 * PIECE], "a");
        let (first, second) = two.split_at(PIECE + MAX_TAG_LEN);
        assert!(open(first, PIECE as u64, "a").is_err());
        assert!(open(&[second, first].concat(), 2 * PIECE as u64, "a").is_err());
    }

    #[test]
    fn a_key_follows_from_the_passphrase_and_the_salt() {
        let of = |secret: &str, salt| ArchiveKey::with_salt(&secret.into(), [salt; SALT]).unwrap();
        let key = of("passphrase", 1);
        assert_eq!(key.bytes(), of("passphrase", 1).bytes());
        assert_ne!(key.bytes()[SALT..], of("passphrase", 2).bytes()[SALT..]);
        assert_ne!(key.bytes()[SALT..], of("another", 1).bytes()[SALT..]);
        assert_eq!(ArchiveKey::of_bytes(&key.bytes()).unwrap().bytes(), key.bytes());
        assert!(ArchiveKey::of_bytes(&key.bytes()[1..]).is_none());
        let mac = key.sign(b"r", b"manifest");
        assert!(key.signed(b"r", b"manifest", &mac) && !key.signed(b"r", b"manifesT", &mac));
        assert!(
            !key.signed(b"s", b"manifest", &mac) && !of("x", 1).signed(b"r", b"manifest", &mac)
        );
    }
}
