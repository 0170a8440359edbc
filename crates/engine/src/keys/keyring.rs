//! All keys of a pool.

use std::fmt;

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec::{DecodeError, Reader};
use crate::error::{Error, Result};
use crate::id::PoolId;
use crate::journal::Sealing;
use crate::seal::{self, Aead, ChunkHasher, KEY_LEN, LogSealer, PackSealer, RecordSealer};

/// How many data keys a pool can have at once.
const MAX_EPOCHS: usize = 512;
/// The context under which a keyring is sealed, followed by the pool's id.
const CONTEXT: &[u8] = b"strongroom v1 keyring";

/// The key that opens the keyring; each key slot wraps it. Wiped when dropped, never shown.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Master(pub(super) [u8; KEY_LEN]);

impl Master {
    /// A fresh random one.
    pub(super) fn random() -> Self {
        let mut key = Self([0; KEY_LEN]);
        seal::random(&mut key.0);
        key
    }

    fn sealer(&self) -> RecordSealer {
        RecordSealer::new(Aead::Aes256Gcm, &self.0)
    }
}

impl fmt::Debug for Master {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Master(..)")
    }
}

/// All keys of a pool. Wiped when dropped, never shown.
///
/// # As a record
///
/// | field | type |
/// |---|---|
/// | AEAD id of packs and journal, see [`crate::seal`] | byte |
/// | id key: gives chunks their ids | 32 bytes |
/// | the rest only with an AEAD other than 0: | |
/// | journal key | 32 bytes |
/// | epochs: 1 to 512 | u16, little-endian |
/// | for each, rising: its number, from 1 | u32, little-endian |
/// | … and its data key | 32 bytes |
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Keyring {
    #[zeroize(skip)]
    aead: Aead,
    id_key: [u8; KEY_LEN],
    journal_key: [u8; KEY_LEN],
    /// Rising numbers from 1; empty in a pool that isn't encrypted.
    epochs: Vec<(u32, [u8; KEY_LEN])>,
}

impl Keyring {
    /// Fresh random keys for a pool sealed by `aead`, with its first epoch.
    pub fn generate(aead: Aead) -> Self {
        let mut ring =
            Self { aead, id_key: [0; KEY_LEN], journal_key: [0; KEY_LEN], epochs: Vec::new() };
        seal::random(&mut ring.id_key);
        if aead != Aead::None {
            seal::random(&mut ring.journal_key);
            ring.new_epoch().expect("a new keyring has room for an epoch");
        }
        ring
    }

    /// What seals the pool.
    pub fn aead(&self) -> Aead {
        self.aead
    }

    /// Gives chunks their ids.
    pub fn hasher(&self) -> ChunkHasher {
        ChunkHasher::new(&self.id_key)
    }

    /// Seals the records of the journal.
    pub fn journal(&self) -> Sealing {
        match self.aead {
            Aead::None => Sealing::Plain,
            Aead::Aes256Gcm => Sealing::Aes256Gcm(Zeroizing::new(self.journal_key)),
        }
    }

    /// The epoch of new packs; 0 in a pool that isn't encrypted.
    pub fn epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |(epoch, _)| *epoch)
    }

    /// All epochs whose key is there, rising.
    pub fn epochs(&self) -> impl Iterator<Item = u32> + '_ {
        self.epochs.iter().map(|(epoch, _)| *epoch)
    }

    /// Seals and opens the pack with this salt, written in this epoch (0: not sealed at all).
    /// `None` when the pool doesn't have that epoch's key.
    pub fn pack(&self, epoch: u32, salt: &[u8; 32]) -> Option<PackSealer> {
        if epoch == 0 {
            // Never in an encrypted pool: who can write its disks could pass off packs of theirs.
            return (self.aead == Aead::None).then(PackSealer::plain);
        }
        let at = self.epochs.binary_search_by_key(&epoch, |(epoch, _)| *epoch).ok()?;
        Some(PackSealer::new(self.aead, &self.epochs[at].1, salt))
    }

    /// Seals and checks the run of a volume's log with this salt, begun in this epoch, as
    /// [`Keyring::pack`] does packs.
    pub fn log(&self, epoch: u32, salt: &[u8; 32]) -> Option<LogSealer> {
        if epoch == 0 {
            let plain = self.aead == Aead::None;
            return plain.then(|| LogSealer::new(Aead::None, &[0; KEY_LEN], salt));
        }
        let at = self.epochs.binary_search_by_key(&epoch, |(epoch, _)| *epoch).ok()?;
        Some(LogSealer::new(self.aead, &self.epochs[at].1, salt))
    }

    /// Adds a fresh data key; packs sealed from now on get it. Gives its epoch.
    ///
    /// # Errors
    /// [`Error::Invalid`] in a pool that isn't encrypted, and when there are 512 epochs: old ones
    /// must be [dropped](Self::drop_epoch) first.
    pub fn new_epoch(&mut self) -> Result<u32> {
        if self.aead == Aead::None {
            return Err(Error::Invalid("the pool isn't encrypted; it has no keys to renew".into()));
        }
        let epoch = match self.epoch().checked_add(1) {
            Some(epoch) if self.epochs.len() < MAX_EPOCHS => epoch,
            _ => return Err(Error::Invalid("the pool has too many data keys".into())),
        };
        // Copied by hand: a vector that grows would leave copies of the keys behind.
        let mut epochs = Vec::with_capacity(self.epochs.len() + 1);
        epochs.extend_from_slice(&self.epochs);
        epochs.push((epoch, [0; KEY_LEN]));
        seal::random(&mut epochs.last_mut().expect("just pushed").1);
        self.epochs.zeroize();
        self.epochs = epochs;
        Ok(epoch)
    }

    /// Forgets the data key of an old epoch: no pack of that epoch can be read any more. The newest
    /// one stays, whatever is asked.
    pub fn drop_epoch(&mut self, epoch: u32) {
        if let Ok(at) = self.epochs.binary_search_by_key(&epoch, |(epoch, _)| *epoch)
            && at + 1 < self.epochs.len()
        {
            let (_, mut key) = self.epochs.remove(at);
            key.zeroize();
        }
    }

    /// The keyring as a record; see the type's text.
    pub fn encode(&self) -> Zeroizing<Vec<u8>> {
        let room = 1 + 2 * KEY_LEN + 2 + self.epochs.len() * (4 + KEY_LEN);
        let mut record = Zeroizing::new(Vec::with_capacity(room));
        record.push(self.aead as u8);
        record.extend_from_slice(&self.id_key);
        if self.aead != Aead::None {
            record.extend_from_slice(&self.journal_key);
            let count = u16::try_from(self.epochs.len()).expect("at most 512 epochs");
            record.extend_from_slice(&count.to_le_bytes());
            for (epoch, key) in &self.epochs {
                record.extend_from_slice(&epoch.to_le_bytes());
                record.extend_from_slice(key);
            }
        }
        record
    }

    /// Reads the record that [`Keyring::encode`] gives.
    ///
    /// # Errors
    /// [`DecodeError`] for anything else.
    pub fn decode(record: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new(record);
        let mut ring = Self {
            aead: Aead::from_code(r.byte()?)?,
            id_key: r.array()?,
            journal_key: [0; KEY_LEN],
            epochs: Vec::new(),
        };
        if ring.aead != Aead::None {
            ring.journal_key = r.array()?;
            let count = usize::from(u16::from_le_bytes(r.array()?));
            if !(1..=MAX_EPOCHS).contains(&count) {
                return Err(DecodeError::Unknown("the number of data keys"));
            }
            ring.epochs = Vec::with_capacity(count);
            for _ in 0..count {
                let epoch = u32::from_le_bytes(r.array()?);
                if epoch <= ring.epoch() {
                    return Err(DecodeError::Unknown("the order of data keys"));
                }
                ring.epochs.push((epoch, r.array()?));
            }
        }
        r.end()?;
        Ok(ring)
    }

    /// Seals the keyring of `pool` under its master key.
    pub fn seal(&self, master: &Master, pool: PoolId) -> Vec<u8> {
        master.sealer().seal(&context(pool), &self.encode())
    }

    /// Opens what [`Keyring::seal`] gave.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it isn't the keyring of that pool under that master key.
    pub fn open(sealed: &[u8], master: &Master, pool: PoolId) -> Result<Self> {
        let record = master
            .sealer()
            .open(&context(pool), sealed)
            .map_err(|e| Error::damaged("the pool's keyring", e))?;
        Self::decode(&record).map_err(Error::decoding("the pool's keyring"))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("aead", &self.aead)
            .field("epoch", &self.epoch())
            .finish_non_exhaustive()
    }
}

fn context(pool: PoolId) -> Vec<u8> {
    [CONTEXT, &pool.0].concat()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn same(a: &Keyring, b: &Keyring) -> bool {
        *a.encode() == *b.encode()
    }

    #[test]
    fn keyrings_survive_their_record_and_their_seal() {
        let pool = PoolId([1; 16]);
        let master = Master::random();
        let mut ring = Keyring::generate(Aead::Aes256Gcm);
        assert_eq!(ring.new_epoch().unwrap(), 2);
        assert!(same(&Keyring::decode(&ring.encode()).unwrap(), &ring));
        let sealed = ring.seal(&master, pool);
        assert!(same(&Keyring::open(&sealed, &master, pool).unwrap(), &ring));
        for (key, pool) in [(&Master::random(), pool), (&master, PoolId([2; 16]))] {
            assert!(matches!(Keyring::open(&sealed, key, pool), Err(Error::Damaged { .. })));
        }
    }

    #[test]
    fn golden_keyring() {
        let ring = Keyring {
            aead: Aead::Aes256Gcm,
            id_key: [1; 32],
            journal_key: [2; 32],
            epochs: vec![(1, [3; 32]), (7, [4; 32])],
        };
        let mut record = vec![1];
        record.extend([1; 32]);
        record.extend([2; 32]);
        record.extend([2, 0, 1, 0, 0, 0]);
        record.extend([3; 32]);
        record.extend([7, 0, 0, 0]);
        record.extend([4; 32]);
        assert_eq!(*ring.encode(), record);
        // Sealed by another implementation under the master key [8; 32] with the nonce [9; 12].
        let sealed = concat!(
            "09090909090909090909090953fcc4761a02cfab8795beef78fd3574a91b046206202d88f374d80a",
            "966e30fffd3889e01f227fa922d9f710ad71a53a1d899d55c2b0230c5c5892d3e6d535368f7b2b77",
            "d711010afb146975d6e43b8d07cf90fe1d2c3cfe16d35daee622e589b913e986d0382786533e5c40",
            "5f470aa845c17b006165c163c2b297eeb84db6c9d028eb8c286c01e4ce96bad65167f0cfdcfbb793",
            "a7fc4f60682f6e",
        );
        let sealed: Vec<u8> = (0..sealed.len() / 2)
            .map(|i| u8::from_str_radix(&sealed[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let opened = Keyring::open(&sealed, &Master([8; 32]), PoolId([5; 16])).unwrap();
        assert!(same(&opened, &ring));
    }

    #[test]
    fn a_pool_that_is_not_encrypted_has_an_id_key_only() {
        let mut ring = Keyring::generate(Aead::None);
        assert_eq!((ring.encode().len(), ring.epoch()), (33, 0));
        assert!(ring.new_epoch().is_err());
        assert!(same(&Keyring::decode(&ring.encode()).unwrap(), &ring));
        assert_eq!(ring.journal().algorithm(), 0);
        assert_eq!(ring.pack(0, &[0; 32]).unwrap().overhead(), 0);
        assert!(ring.pack(1, &[0; 32]).is_none());
    }

    #[test]
    fn each_epoch_has_its_own_key() {
        let mut ring = Keyring::generate(Aead::Aes256Gcm);
        let mut piece = vec![0; 9];
        ring.pack(1, &[5; 32]).unwrap().seal_in_place(0, b"", &mut piece);
        ring.new_epoch().unwrap();
        assert_eq!(ring.epochs().collect::<Vec<_>>(), [1, 2]);
        let opens = |ring: &Keyring, epoch| {
            ring.pack(epoch, &[5; 32])
                .is_some_and(|pack| pack.open_in_place(0, b"", &mut piece.clone()).is_ok())
        };
        assert!(opens(&ring, 1) && !opens(&ring, 2) && !opens(&ring, 0) && !opens(&ring, 3));
        ring.drop_epoch(2);
        ring.drop_epoch(1);
        ring.drop_epoch(9);
        assert_eq!(ring.epochs().collect::<Vec<_>>(), [2]);
        assert_eq!(ring.new_epoch().unwrap(), 3);
    }

    #[test]
    fn epochs_are_bounded() {
        let mut ring = Keyring::generate(Aead::Aes256Gcm);
        while ring.new_epoch().is_ok() {}
        assert_eq!(ring.epochs().count(), MAX_EPOCHS);
        assert!(same(&Keyring::decode(&ring.encode()).unwrap(), &ring));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let text = format!("{:?} {:?}", Keyring::generate(Aead::None), Master::random());
        assert_eq!(text, "Keyring { aead: None, epoch: 0, .. } Master(..)");
    }

    proptest! {
        #[test]
        fn noise_is_no_keyring(mut noise in any::<Vec<u8>>()) {
            if let Ok(ring) = Keyring::decode(&noise) {
                prop_assert_eq!(&*ring.encode(), &noise);
            }
            noise.splice(..0, [1; 66]);
            let _ = Keyring::decode(&noise);
        }
    }
}
