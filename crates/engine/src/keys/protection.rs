//! How a pool's keyring lies in its superblock.

use super::{Keyring, Master, Secret, Slots, Stretch};
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::id::PoolId;
use crate::seal::Aead;

/// How a pool's keyring is kept; the record is described in [`crate::keys`].
#[derive(Clone, Debug)]
pub enum Protection {
    /// The pool isn't encrypted.
    Clear(Keyring),
    /// The pool is encrypted.
    Sealed {
        /// The ways to its master key.
        slots: Slots,
        /// The keyring, sealed under the master key.
        keyring: Vec<u8>,
    },
}

/// A keyring, and how it was come by.
#[derive(Debug)]
pub struct Unlocked {
    /// All keys of the pool.
    pub keyring: Keyring,
    /// In an encrypted pool, the slot that opened, and the master key in it.
    pub opened: Option<(u32, Master)>,
}

impl Protection {
    /// Seals `keyring` under a fresh master key, with one slot. For a new pool, and to protect one
    /// anew after a secret was lost to somebody; other slots are gone then.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a label or parameters out of bounds.
    pub fn seal(
        keyring: &Keyring,
        pool: PoolId,
        secret: &Secret,
        label: &str,
        stretch: Stretch,
    ) -> Result<Self> {
        let (slots, master) = Slots::create(secret, label, stretch)?;
        Ok(Self::Sealed { slots, keyring: keyring.seal(&master, pool) })
    }

    /// What seals the pool.
    pub fn aead(&self) -> Aead {
        match self {
            Self::Clear(_) => Aead::None,
            Self::Sealed { .. } => Aead::Aes256Gcm,
        }
    }

    /// The pool's keys. A pool that isn't encrypted needs no secret, and looks at none.
    ///
    /// # Errors
    /// [`Error::SecretNeeded`], [`Error::WrongSecret`], or [`Error::Damaged`] when the secret is
    /// right and the keyring isn't.
    pub fn unlock(&self, pool: PoolId, secret: Option<&Secret>) -> Result<Unlocked> {
        match self {
            Self::Clear(keyring) => Ok(Unlocked { keyring: keyring.clone(), opened: None }),
            Self::Sealed { slots, keyring } => {
                let (slot, master) = slots.unlock(secret.ok_or(Error::SecretNeeded)?)?;
                let keyring = Keyring::open(keyring, &master, pool)?;
                if keyring.aead() != self.aead() {
                    let why = "it is for another kind of pool";
                    return Err(Error::damaged("the pool's keyring", why));
                }
                Ok(Unlocked { keyring, opened: Some((slot, master)) })
            }
        }
    }

    /// The key slots of an encrypted pool.
    ///
    /// # Errors
    /// [`Error::Invalid`] in a pool that isn't encrypted.
    pub fn slots_mut(&mut self) -> Result<&mut Slots> {
        match self {
            Self::Sealed { slots, .. } => Ok(slots),
            Self::Clear(_) => {
                Err(Error::Invalid("the pool isn't encrypted; it has no key slots".into()))
            }
        }
    }

    /// Puts a changed keyring in the place of the old one, under the same master key.
    ///
    /// # Errors
    /// [`Error::Invalid`] in a pool that isn't encrypted: its keys never change.
    pub fn replace_keyring(
        &mut self,
        master: &Master,
        pool: PoolId,
        changed: &Keyring,
    ) -> Result<()> {
        match self {
            Self::Sealed { keyring, .. } => {
                *keyring = changed.seal(master, pool);
                Ok(())
            }
            Self::Clear(_) => {
                Err(Error::Invalid("the pool isn't encrypted; it has no keys to renew".into()))
            }
        }
    }

    /// Appends it to a record.
    pub fn encode(&self, w: &mut Writer) {
        w.byte(self.aead() as u8);
        match self {
            Self::Clear(keyring) => w.bytes(&keyring.encode()),
            Self::Sealed { slots, keyring } => {
                slots.encode(w);
                w.bytes(keyring);
            }
        }
    }

    /// Takes it from a record.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Protection::encode`] would not write.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match Aead::from_code(r.byte()?)? {
            Aead::None => {
                let keyring = Keyring::decode(r.bytes()?)?;
                if keyring.aead() != Aead::None {
                    return Err(DecodeError::Unknown("a keyring in clear"));
                }
                Ok(Self::Clear(keyring))
            }
            Aead::Aes256Gcm => {
                Ok(Self::Sealed { slots: Slots::decode(r)?, keyring: r.bytes()?.to_vec() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const POOL: PoolId = PoolId([3; 16]);

    fn sealed(secret: &Secret) -> (Protection, Keyring) {
        let keyring = Keyring::generate(Aead::Aes256Gcm);
        let protection = Protection::seal(&keyring, POOL, secret, "first", Stretch::CHEAP).unwrap();
        (protection, keyring)
    }

    fn reread(protection: &Protection) -> Protection {
        let mut w = Writer::new();
        protection.encode(&mut w);
        let record = w.finish();
        let mut r = Reader::new(&record);
        let read = Protection::decode(&mut r).unwrap();
        r.end().unwrap();
        read
    }

    #[test]
    fn an_encrypted_pool_opens_with_its_secret_only() {
        let secret = Secret::passphrase(b"right").unwrap();
        let (protection, keyring) = sealed(&secret);
        let protection = reread(&protection);
        let unlocked = protection.unlock(POOL, Some(&secret)).unwrap();
        assert_eq!(*unlocked.keyring.encode(), *keyring.encode());
        assert_eq!(unlocked.opened.unwrap().0, 1);
        let wrong = Secret::passphrase(b"wrong").unwrap();
        assert!(matches!(protection.unlock(POOL, Some(&wrong)), Err(Error::WrongSecret)));
        assert!(matches!(protection.unlock(POOL, None), Err(Error::SecretNeeded)));
        let elsewhere = protection.unlock(PoolId([4; 16]), Some(&secret));
        assert!(matches!(elsewhere, Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_new_epoch_is_found_by_every_secret() {
        let secrets = [b"a", b"b"].map(|word| Secret::passphrase(word).unwrap());
        let (mut protection, _) = sealed(&secrets[0]);
        let mut unlocked = protection.unlock(POOL, Some(&secrets[0])).unwrap();
        let (_, master) = unlocked.opened.unwrap();
        let slots = protection.slots_mut().unwrap();
        slots.add(&master, &secrets[1], "second", Stretch::CHEAP).unwrap();
        unlocked.keyring.new_epoch().unwrap();
        protection.replace_keyring(&master, POOL, &unlocked.keyring).unwrap();
        for secret in &secrets {
            let unlocked = reread(&protection).unlock(POOL, Some(secret)).unwrap();
            assert_eq!(unlocked.keyring.epoch(), 2);
        }
    }

    #[test]
    fn a_clear_pool_needs_no_secret_and_has_no_slots() {
        let mut protection = Protection::Clear(Keyring::generate(Aead::None));
        let unlocked = reread(&protection).unlock(POOL, None).unwrap();
        assert!(unlocked.opened.is_none() && unlocked.keyring.epoch() == 0);
        assert!(protection.slots_mut().is_err());
        let master = Master::random();
        assert!(protection.replace_keyring(&master, POOL, &unlocked.keyring).is_err());
    }

    #[test]
    fn keys_of_an_encrypted_pool_in_clear_are_refused() {
        let mut w = Writer::new();
        w.byte(0);
        w.bytes(&Keyring::generate(Aead::Aes256Gcm).encode());
        assert!(Protection::decode(&mut Reader::new(&w.finish())).is_err());
    }
}
