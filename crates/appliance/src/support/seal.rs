//! What only the vendor can read, in the form that OpenSSL's own commands open:
//!
//! ```text
//! openssl pkeyutl -decrypt -inkey private.pem -in debug.key.enc -out debug.key
//! openssl enc -d -aes-256-cbc -md sha256 -pbkdf2 -pass file:debug.key -in debug.tar.gz.enc
//! ```
//!
//! So RSA with the padding of PKCS #1 v1.5 (RFC 8017, 7.2) for a random passphrase, and under that
//! AES-256-CBC, salted, with a key of PBKDF2 (RFC 8018). Nobody can read it; that nobody changed it
//! on its way is not proven.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZeroU32;

use aws_lc_rs::cipher::{AES_256, EncryptionContext, StreamingEncryptingKey, UnboundCipherKey};
use aws_lc_rs::pbkdf2;
use aws_lc_rs::rand;
use aws_lc_rs::rsa::{Pkcs1PublicEncryptingKey, PublicEncryptingKey};
use data_encoding::BASE64;
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::{Error, Result};

/// What `openssl enc` takes when nobody says.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(10_000).expect("it is not zero");
/// What stands before the salt.
const MAGIC: &[u8; 8] = b"Salted__";
const BLOCK: usize = 16;
/// Bytes that are encrypted at once.
const PIECE: usize = 64 << 10;
/// Bits of a key.
const BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A passphrase for one bundle, and how the vendor gets it.
pub(super) struct SealedKey {
    passphrase: Zeroizing<String>,
    /// The passphrase for the vendor's key.
    pub(super) sealed: Vec<u8>,
}

impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedKey")
    }
}

impl SealedKey {
    /// Makes a passphrase for the holder of this key: a public RSA key in PEM.
    ///
    /// # Errors
    /// [`Error::State`] when that is no such key; [`Error::Crypto`].
    pub(super) fn make(pem: &[u8]) -> Result<Self> {
        let wrong = || {
            let (least, most) = (BITS.start(), BITS.end());
            Error::State(format!(
                "`support_key` names no public RSA key of {least} to {most} bits in PEM (BEGIN \
                 PUBLIC KEY)"
            ))
        };
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| wrong())?;
        let key = PublicEncryptingKey::from_der(&der).map_err(|_| wrong())?;
        if !BITS.contains(&key.key_size_bits()) {
            return Err(wrong());
        }
        let mut random = Zeroizing::new([0; 48]);
        rand::fill(&mut random[..]).map_err(|_| Error::Crypto("there are no random bytes"))?;
        let passphrase = Zeroizing::new(BASE64.encode(&random[..]));
        let failed = |_| Error::Crypto("the bundle's key can't be encrypted");
        let key = Pkcs1PublicEncryptingKey::new(key).map_err(failed)?;
        let mut sealed = vec![0; key.ciphertext_size()];
        let length = key.encrypt(passphrase.as_bytes(), &mut sealed).map_err(failed)?.len();
        sealed.truncate(length);
        Ok(Self { passphrase, sealed })
    }

    /// Encrypts what is written from now on.
    pub(super) fn encrypt<W: Write>(&self, mut out: W) -> io::Result<Encrypting<W>> {
        let mut salt = [0; 8];
        rand::fill(&mut salt).map_err(io::Error::other)?;
        let mut derived = Zeroizing::new([0; 48]);
        let passphrase = self.passphrase.as_bytes();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, passphrase, &mut derived[..]);
        let (key, iv) = derived.split_at(32);
        let iv: [u8; BLOCK] = iv.try_into().map_err(io::Error::other)?;
        let key = UnboundCipherKey::new(&AES_256, key).map_err(io::Error::other)?;
        let context = EncryptionContext::Iv128(iv.into());
        let key = StreamingEncryptingKey::less_safe_cbc_pkcs7(key, context);
        out.write_all(MAGIC)?;
        out.write_all(&salt)?;
        let key = key.map_err(io::Error::other)?;
        Ok(Encrypting { key, out, buffer: vec![0; PIECE + BLOCK] })
    }
}

/// Encrypts to another writer.
pub(super) struct Encrypting<W> {
    key: StreamingEncryptingKey,
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Encrypting<W> {
    /// Writes the end.
    pub(super) fn finish(mut self) -> io::Result<W> {
        let (_, last) = self.key.finish(&mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(last.written())?;
        Ok(self.out)
    }
}

impl<W: Write> Write for Encrypting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(PIECE)];
        let done = self.key.update(piece, &mut self.buffer).map_err(io::Error::other)?;
        self.out.write_all(done.written())?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;
    use std::process::Command;

    use super::*;

    fn openssl(dir: &Path, line: &str) -> Vec<u8> {
        let words = line.split_whitespace();
        let out = Command::new("openssl").args(words).current_dir(dir).output().unwrap();
        assert!(out.status.success(), "{line}: {}", String::from_utf8_lossy(&out.stderr));
        out.stdout
    }

    #[test]
    fn openssl_opens_what_is_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        openssl(
            dir,
            "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out private.pem",
        );
        openssl(dir, "pkey -in private.pem -pubout -out public.pem");
        let key = SealedKey::make(&std::fs::read(dir.join("public.pem")).unwrap()).unwrap();
        std::fs::write(dir.join("key.enc"), &key.sealed).unwrap();
        openssl(dir, "pkeyutl -decrypt -inkey private.pem -in key.enc -out key");
        for length in [0, 1, 15, 16, 17, PIECE, 3 * PIECE + 5] {
            let plain: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut sealing = key.encrypt(Vec::new()).unwrap();
            sealing.write_all(&plain).unwrap();
            std::fs::write(dir.join("enc"), sealing.finish().unwrap()).unwrap();
            let line = "enc -d -aes-256-cbc -md sha256 -pbkdf2 -pass file:key -in enc";
            assert_eq!(openssl(dir, line), plain, "{length}");
        }
    }

    #[test]
    fn what_is_no_key_of_the_vendor_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        openssl(dir, "genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:1024 -out small.pem");
        openssl(dir, "genpkey -algorithm ED25519 -out other.pem");
        for name in ["small", "other"] {
            openssl(dir, &format!("pkey -in {name}.pem -pubout -out {name}.pub"));
        }
        let read = |name: &str| std::fs::read(dir.join(name)).unwrap();
        let torn = b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n".to_vec();
        for bad in [
            Vec::new(),
            b"x".to_vec(),
            torn,
            read("small.pem"),
            read("small.pub"),
            read("other.pub"),
        ] {
            assert!(matches!(SealedKey::make(&bad), Err(Error::State(_))), "{bad:?}");
        }
    }
}
