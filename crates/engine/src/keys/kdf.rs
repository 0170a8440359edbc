//! From a secret to the key of a slot.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use aws_lc_rs::pbkdf2;
use zeroize::{Zeroize, Zeroizing};

use super::Secret;
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::seal::{self, KEY_LEN};

/// Bytes of salt in every slot.
pub(super) const SALT_LEN: usize = 32;

/// HKDF's info for key files.
const KEY_FILE_INFO: &[u8] = b"strongroom v1 key file";

/// The bounds within which a superblock's parameters are believed.
const MAX_MEMORY_KIB: u32 = 1 << 20;
const MAX_PASSES: u32 = 64;
const MAX_LANES: u32 = 16;
const MAX_ITERATIONS: u32 = 10_000_000;

/// How a passphrase is made slow to guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stretch {
    /// Argon2id, version 0x13 (RFC 9106).
    Argon2id {
        /// Memory, in KiB: 8 times the lanes to 1 GiB.
        memory_kib: u32,
        /// Passes over the memory, 1 to 64.
        passes: u32,
        /// Lanes, 1 to 16.
        lanes: u32,
    },
    /// PBKDF2-HMAC-SHA-256 (RFC 8018), where only approved algorithms may be used.
    Pbkdf2 {
        /// Iterations, 1 to 10 million.
        iterations: u32,
    },
}

impl Stretch {
    /// What new slots get: 46 MiB, so that a process that opens a pool stays below 100 MiB in all,
    /// and two passes, a tenth of a second on one core: twice the cost that OWASP asks for with so
    /// much memory, and paid by every command.
    pub const DEFAULT: Self = Self::Argon2id { memory_kib: 46 << 10, passes: 2, lanes: 1 };
    /// For pools where only approved algorithms may be used.
    pub const APPROVED: Self = Self::Pbkdf2 { iterations: 600_000 };
    /// Protects nothing, and costs nothing: for tests.
    pub const CHEAP: Self = Self::Argon2id { memory_kib: 8, passes: 1, lanes: 1 };

    /// Refuses parameters that would take all memory or forever.
    fn check(self) -> Result<Self, DecodeError> {
        let fine = match self {
            Self::Argon2id { memory_kib, passes, lanes } => {
                (1..=MAX_LANES).contains(&lanes)
                    && (8 * lanes..=MAX_MEMORY_KIB).contains(&memory_kib)
                    && (1..=MAX_PASSES).contains(&passes)
            }
            Self::Pbkdf2 { iterations } => (1..=MAX_ITERATIONS).contains(&iterations),
        };
        if fine { Ok(self) } else { Err(DecodeError::Unknown("the cost of a key slot")) }
    }
}

impl Default for Stretch {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// How a slot's key comes from its secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kdf {
    /// From a passphrase, stretched.
    Passphrase(Stretch),
    /// From a key file, by HKDF-SHA-256 (RFC 5869) with the info `strongroom v1 key file`.
    KeyFile,
}

impl Kdf {
    /// The derivation for this secret: key files are keys already and need no stretching.
    ///
    /// # Errors
    /// [`Error::Invalid`] for parameters out of bounds.
    pub(super) fn for_secret(secret: &Secret, stretch: Stretch) -> Result<Self> {
        if secret.is_key_file() {
            return Ok(Self::KeyFile);
        }
        let stretch = stretch.check().map_err(|e| Error::Invalid(e.to_string()))?;
        Ok(Self::Passphrase(stretch))
    }

    /// Whether a slot with this derivation could open with this secret.
    pub(super) fn fits(&self, secret: &Secret) -> bool {
        secret.is_key_file() == matches!(self, Self::KeyFile)
    }

    /// The slot's key.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there isn't the memory that Argon2id needs.
    pub(super) fn derive(
        &self,
        secret: &Secret,
        salt: &[u8; SALT_LEN],
    ) -> Result<Zeroizing<[u8; KEY_LEN]>> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        match *self {
            Self::KeyFile => key = seal::derive_key(secret.expose(), salt, KEY_FILE_INFO),
            Self::Passphrase(Stretch::Pbkdf2 { iterations }) => pbkdf2::derive(
                pbkdf2::PBKDF2_HMAC_SHA256,
                NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN),
                salt,
                secret.expose(),
                &mut key[..],
            ),
            Self::Passphrase(Stretch::Argon2id { memory_kib, passes, lanes }) => {
                let failed = |e: &dyn std::fmt::Display| {
                    Error::Invalid(format!(
                        "the key slot needs {} MiB to be opened: {e}",
                        memory_kib.div_ceil(1 << 10)
                    ))
                };
                let params = Params::new(memory_kib, passes, lanes, Some(KEY_LEN))
                    .map_err(|e| failed(&e))?;
                // Our own memory, so that too little of it is an error and not the end.
                let mut memory = Vec::new();
                memory.try_reserve_exact(params.block_count()).map_err(|e| failed(&e))?;
                memory.resize(params.block_count(), Block::default());
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into_with_memory(
                        secret.expose(),
                        salt,
                        &mut key[..],
                        &mut memory,
                    )
                    .map_err(|e| failed(&e))?;
                memory.iter_mut().for_each(|block| block.as_mut().zeroize());
            }
        }
        Ok(key)
    }

    /// Appends it to a record: its id and parameters.
    pub(super) fn encode(&self, w: &mut Writer) {
        match *self {
            Self::Passphrase(Stretch::Argon2id { memory_kib, passes, lanes }) => {
                w.byte(1);
                w.uint(memory_kib.into());
                w.uint(passes.into());
                w.uint(lanes.into());
            }
            Self::Passphrase(Stretch::Pbkdf2 { iterations }) => {
                w.byte(2);
                w.uint(iterations.into());
            }
            Self::KeyFile => w.byte(3),
        }
    }

    /// Takes it from a record.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match r.byte()? {
            1 => Self::Passphrase(
                Stretch::Argon2id {
                    memory_kib: r.uint32()?,
                    passes: r.uint32()?,
                    lanes: r.uint32()?,
                }
                .check()?,
            ),
            2 => Self::Passphrase(Stretch::Pbkdf2 { iterations: r.uint32()? }.check()?),
            3 => Self::KeyFile,
            _ => return Err(DecodeError::Unknown("the key derivation of a slot")),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn derived(kdf: Kdf) -> String {
        let secret = if kdf == Kdf::KeyFile {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), [6; 32]).unwrap();
            Secret::key_file(file.path()).unwrap()
        } else {
            Secret::passphrase(b"correct horse").unwrap()
        };
        let key = kdf.derive(&secret, &[9; SALT_LEN]).unwrap();
        key.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Changing any of these changes the format: old pools would no longer open. They were also
    /// computed by other implementations (OpenSSL's Argon2, Python's hashlib).
    #[test]
    fn golden_slot_keys() {
        let argon2id = Stretch::Argon2id { memory_kib: 64, passes: 3, lanes: 2 };
        assert_eq!(
            derived(Kdf::Passphrase(argon2id)),
            "99d0894127a0cebecca8045d82e5efa4d2de4973b28b03cdfff448a044d289b1"
        );
        let pbkdf2 = Stretch::Pbkdf2 { iterations: 1_000 };
        assert_eq!(
            derived(Kdf::Passphrase(pbkdf2)),
            "7f3aedbd0668db223db427a23f7df7bf73d069743303b798816f9647c03e2363"
        );
        assert_eq!(
            derived(Kdf::KeyFile),
            "8a5f9a30b4ae812aa6fb441965d0d0dd87cd4e5e84fa8ce02cf20a70c97c129b"
        );
    }

    #[test]
    fn costs_out_of_bounds_are_refused() {
        let fine = |memory_kib, passes, lanes| {
            Stretch::Argon2id { memory_kib, passes, lanes }.check().is_ok()
        };
        assert!(fine(8, 1, 1) && fine(1 << 20, 64, 16));
        assert!(!fine(7, 1, 1) && !fine(127, 1, 16) && !fine((1 << 20) + 1, 1, 1));
        assert!(!fine(8, 0, 1) && !fine(8, 65, 1) && !fine(8, 1, 0) && !fine(8, 1, u32::MAX));
        let iterations = |iterations| Stretch::Pbkdf2 { iterations }.check().is_ok();
        assert!(iterations(1) && iterations(10_000_000));
        assert!(!iterations(0) && !iterations(10_000_001));
    }

    #[test]
    fn records_give_back_what_was_put_in() {
        for kdf in [
            Kdf::Passphrase(Stretch::DEFAULT),
            Kdf::Passphrase(Stretch::APPROVED),
            Kdf::Passphrase(Stretch::CHEAP),
            Kdf::KeyFile,
        ] {
            let mut w = Writer::new();
            kdf.encode(&mut w);
            assert_eq!(Kdf::decode(&mut Reader::new(&w.finish())), Ok(kdf));
        }
        assert!(Kdf::decode(&mut Reader::new(&[0])).is_err());
        assert!(Kdf::decode(&mut Reader::new(&[4])).is_err());
    }
}
