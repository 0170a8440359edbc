//! Key slots: the master key, wrapped once for each secret.

use super::kdf::SALT_LEN;
use super::{Kdf, Master, Secret, Stretch};
use crate::codec::{DecodeError, Reader, Writer};
use crate::error::{Error, Result};
use crate::seal::{self, Aead, KEY_LEN, RecordSealer};

/// How many slots a pool can have.
const MAX_SLOTS: usize = 16;
/// The longest label, in bytes.
const MAX_LABEL: usize = 128;
/// A wrapped master key: nonce, key, tag.
const WRAPPED_LEN: usize = 12 + KEY_LEN + seal::TAG_LEN;
/// The context under which a master key is wrapped, followed by the slot's other fields.
const CONTEXT: &[u8] = b"strongroom v1 key slot";

/// One way into the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySlot {
    id: u32,
    label: String,
    kdf: Kdf,
    salt: [u8; SALT_LEN],
    wrapped: [u8; WRAPPED_LEN],
}

impl KeySlot {
    fn wrap(
        id: u32,
        label: &str,
        secret: &Secret,
        stretch: Stretch,
        master: &Master,
    ) -> Result<Self> {
        if label.len() > MAX_LABEL || label.chars().any(char::is_control) {
            return Err(Error::Invalid(format!(
                "a key slot's label has at most {MAX_LABEL} bytes and no control characters"
            )));
        }
        let kdf = Kdf::for_secret(secret, stretch)?;
        let mut slot =
            Self { id, label: label.into(), kdf, salt: [0; SALT_LEN], wrapped: [0; WRAPPED_LEN] };
        seal::random(&mut slot.salt);
        let sealer = RecordSealer::new(Aead::Aes256Gcm, &*slot.kdf.derive(secret, &slot.salt)?);
        slot.wrapped = sealer
            .seal(&slot.context(), &master.0)
            .try_into()
            .expect("a sealed key has this length");
        Ok(slot)
    }

    /// The master key, or `None` when the slot doesn't open with this secret.
    fn open(&self, secret: &Secret) -> Result<Option<Master>> {
        if !self.kdf.fits(secret) {
            return Ok(None);
        }
        let sealer = RecordSealer::new(Aead::Aes256Gcm, &*self.kdf.derive(secret, &self.salt)?);
        let Ok(key) = sealer.open(&self.context(), &self.wrapped) else { return Ok(None) };
        let mut master = Master([0; KEY_LEN]);
        master.0.copy_from_slice(&key);
        Ok(Some(master))
    }

    fn context(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(CONTEXT);
        self.encode_head(&mut w);
        w.finish()
    }

    fn encode_head(&self, w: &mut Writer) {
        w.uint(self.id.into());
        w.bytes(self.label.as_bytes());
        self.kdf.encode(w);
        w.raw(&self.salt);
    }

    /// Its number: never used twice in a pool.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What its maker called it.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// How its key comes from its secret.
    pub fn kdf(&self) -> Kdf {
        self.kdf
    }
}

/// All key slots of an encrypted pool; there is always one at least.
///
/// # As a record
///
/// | field | type |
/// |---|---|
/// | the number that the next slot gets | varint |
/// | slots, 1 to 16 | varint |
/// | for each: its number | varint |
/// | … label: UTF-8, at most 128 bytes, no control characters | bytes |
/// | … KDF id: 1 Argon2id, 2 PBKDF2-HMAC-SHA-256, 3 HKDF-SHA-256 of a key file | byte |
/// | … with 1: memory in KiB (8 × lanes to 2^20), passes (to 64), lanes (to 16) | 3 varints |
/// | … with 2: iterations (to 10^7) | varint |
/// | … salt | 32 bytes |
/// | … the master key: a sealed record ([`crate::seal`], AES-256-GCM) under the slot's key; the context is `strongroom v1 key slot` and the slot's fields above, as they are here | 60 bytes |
///
/// The slot's key is 32 bytes long: `Argon2id(secret, salt)` version 0x13 with neither secret key
/// nor associated data, `PBKDF2(secret, salt)`, or
/// `HKDF(ikm = file, salt, info = "strongroom v1 key file")`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    next: u32,
    slots: Vec<KeySlot>,
}

impl Slots {
    /// A first slot, and the fresh master key in it. `stretch` is for passphrases.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a label or parameters out of bounds.
    pub fn create(secret: &Secret, label: &str, stretch: Stretch) -> Result<(Self, Master)> {
        let master = Master::random();
        let slots = vec![KeySlot::wrap(1, label, secret, stretch, &master)?];
        Ok((Self { next: 2, slots }, master))
    }

    /// Opens the first slot that opens with this secret; gives its number, too. Every slot for
    /// that kind of secret costs its key derivation.
    ///
    /// # Errors
    /// [`Error::WrongSecret`] when none does.
    pub fn unlock(&self, secret: &Secret) -> Result<(u32, Master)> {
        for slot in &self.slots {
            if let Some(master) = slot.open(secret)? {
                return Ok((slot.id, master));
            }
        }
        Err(Error::WrongSecret)
    }

    /// All slots, oldest first.
    pub fn iter(&self) -> std::slice::Iter<'_, KeySlot> {
        self.slots.iter()
    }

    /// Adds a slot for another secret and gives its number.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there are 16, and for a label or parameters out of bounds.
    pub fn add(
        &mut self,
        master: &Master,
        secret: &Secret,
        label: &str,
        stretch: Stretch,
    ) -> Result<u32> {
        let id = self.next;
        let next = match id.checked_add(1) {
            Some(next) if self.slots.len() < MAX_SLOTS => next,
            _ => return Err(Error::Invalid(format!("a pool has at most {MAX_SLOTS} key slots"))),
        };
        self.slots.push(KeySlot::wrap(id, label, secret, stretch, master)?);
        self.next = next;
        Ok(id)
    }

    /// Gives a slot another secret; its number and label stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such slot, and for parameters out of bounds.
    pub fn change(
        &mut self,
        id: u32,
        master: &Master,
        secret: &Secret,
        stretch: Stretch,
    ) -> Result<()> {
        let at = self.position(id)?;
        let slot = &mut self.slots[at];
        *slot = KeySlot::wrap(id, &slot.label, secret, stretch, master)?;
        Ok(())
    }

    /// Removes a slot.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such slot, or no other.
    pub fn remove(&mut self, id: u32) -> Result<()> {
        let at = self.position(id)?;
        if self.slots.len() == 1 {
            return Err(Error::Invalid(
                "this is the pool's only key slot; without it nothing could be read any more"
                    .into(),
            ));
        }
        self.slots.remove(at);
        Ok(())
    }

    fn position(&self, id: u32) -> Result<usize> {
        self.slots
            .iter()
            .position(|slot| slot.id == id)
            .ok_or_else(|| Error::Invalid(format!("the pool has no key slot {id}")))
    }

    /// Appends the slots to a record; see the type's text.
    pub fn encode(&self, w: &mut Writer) {
        w.uint(self.next.into());
        w.uint(self.slots.len() as u64);
        for slot in &self.slots {
            slot.encode_head(w);
            w.raw(&slot.wrapped);
        }
    }

    /// Takes slots from a record.
    ///
    /// # Errors
    /// [`DecodeError`] for anything that [`Slots::encode`] would not write.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let next = r.uint32()?;
        let count = r.count(SALT_LEN + WRAPPED_LEN)?;
        if !(1..=MAX_SLOTS).contains(&count) {
            return Err(DecodeError::Unknown("the number of key slots"));
        }
        let mut slots: Vec<KeySlot> = Vec::with_capacity(count);
        for _ in 0..count {
            let id = r.uint32()?;
            if id >= next || slots.last().is_some_and(|last| last.id >= id) {
                return Err(DecodeError::Unknown("the order of key slots"));
            }
            let label = String::from_utf8(r.bytes()?.to_vec())
                .ok()
                .filter(|label| label.len() <= MAX_LABEL && !label.chars().any(char::is_control))
                .ok_or(DecodeError::Unknown("the label of a key slot"))?;
            slots.push(KeySlot {
                id,
                label,
                kdf: Kdf::decode(r)?,
                salt: r.array()?,
                wrapped: r.array()?,
            });
        }
        Ok(Self { next, slots })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn word(text: &str) -> Secret {
        Secret::passphrase(text.as_bytes()).unwrap()
    }

    fn key_file(byte: u8) -> Secret {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [byte; 32]).unwrap();
        Secret::key_file(file.path()).unwrap()
    }

    fn created() -> (Slots, Master) {
        Slots::create(&word("first"), "me", Stretch::CHEAP).unwrap()
    }

    fn wrong(slots: &Slots, secret: &Secret) -> bool {
        matches!(slots.unlock(secret), Err(Error::WrongSecret))
    }

    #[test]
    fn every_secret_leads_to_the_same_master_key() {
        let (mut slots, master) = created();
        let pbkdf2 = Stretch::Pbkdf2 { iterations: 10 };
        assert_eq!(slots.add(&master, &word("second"), "", pbkdf2).unwrap(), 2);
        assert_eq!(slots.add(&master, &key_file(1), "stick", Stretch::CHEAP).unwrap(), 3);
        for (secret, id) in [(word("first"), 1), (word("second"), 2), (key_file(1), 3)] {
            let (slot, opened) = slots.unlock(&secret).unwrap();
            assert_eq!((slot, opened.0), (id, master.0));
        }
        assert!(wrong(&slots, &word("third")) && wrong(&slots, &key_file(2)));
        // A key file's bytes don't open it as a passphrase.
        assert!(wrong(&slots, &Secret::passphrase(&[1; 32]).unwrap()));
        let labels: Vec<_> = slots.iter().map(|slot| (slot.id(), slot.label())).collect();
        assert_eq!(labels, [(1, "me"), (2, ""), (3, "stick")]);
    }

    #[test]
    fn a_secret_can_be_changed_and_removed() {
        let (mut slots, master) = created();
        slots.change(1, &master, &word("new"), Stretch::CHEAP).unwrap();
        assert!(wrong(&slots, &word("first")));
        assert_eq!(slots.unlock(&word("new")).unwrap().1.0, master.0);
        assert!(slots.remove(1).unwrap_err().to_string().contains("only key slot"));
        slots.add(&master, &word("other"), "", Stretch::CHEAP).unwrap();
        slots.remove(2).unwrap();
        assert_eq!(slots.add(&master, &word("other"), "", Stretch::CHEAP).unwrap(), 3);
        slots.remove(1).unwrap();
        assert!(wrong(&slots, &word("new")) && slots.unlock(&word("other")).is_ok());
        assert!(slots.remove(1).is_err());
        assert!(slots.change(1, &master, &word("x"), Stretch::CHEAP).is_err());
    }

    #[test]
    fn bounds_are_kept() {
        let (mut slots, master) = created();
        for label in ["x".repeat(129), "a\nb".into()] {
            assert!(slots.add(&master, &word("x"), &label, Stretch::CHEAP).is_err());
        }
        let costly = Stretch::Argon2id { memory_kib: 8, passes: 65, lanes: 1 };
        assert!(slots.add(&master, &word("x"), "", costly).is_err());
        while slots.iter().len() < MAX_SLOTS {
            slots.add(&master, &word("x"), "", Stretch::CHEAP).unwrap();
        }
        assert!(slots.add(&master, &word("x"), "", Stretch::CHEAP).is_err());
    }

    #[test]
    fn every_field_of_a_slot_is_bound_to_its_key() {
        let (slots, _) = created();
        let broken = |change: &dyn Fn(&mut KeySlot)| {
            let mut slots = slots.clone();
            change(&mut slots.slots[0]);
            wrong(&slots, &word("first"))
        };
        assert!(broken(&|slot| slot.id = 0));
        assert!(broken(&|slot| slot.label = "you".into()));
        assert!(broken(&|slot| slot.salt[0] ^= 1));
        assert!(broken(&|slot| slot.wrapped[20] ^= 1));
        let longer = Stretch::Argon2id { memory_kib: 8, passes: 2, lanes: 1 };
        assert!(broken(&|slot| slot.kdf = Kdf::Passphrase(longer)));
    }

    #[test]
    fn records_give_back_what_was_put_in() {
        let (mut slots, master) = created();
        slots.add(&master, &key_file(1), "ä", Stretch::CHEAP).unwrap();
        let mut w = Writer::new();
        slots.encode(&mut w);
        let record = w.finish();
        let mut r = Reader::new(&record);
        assert_eq!(Slots::decode(&mut r), Ok(slots));
        assert_eq!(r.end(), Ok(()));
        for cut in 0..record.len() {
            assert!(Slots::decode(&mut Reader::new(&record[..cut])).is_err());
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in any::<Vec<u8>>(), at in any::<prop::sample::Index>()) {
            let _ = Slots::decode(&mut Reader::new(&noise));
            let mut w = Writer::new();
            created().0.encode(&mut w);
            let mut record = w.finish();
            let from = at.index(record.len());
            record.splice(from.., noise);
            let _ = Slots::decode(&mut Reader::new(&record));
        }
    }
}
