//! Sealing, and the names of chunks: the cryptography of the format, in one place.
//!
//! # Algorithm ids
//!
//! | what | id | algorithm |
//! |---|---|---|
//! | AEAD | 0 | none: bytes lie as they are, no tag |
//! | AEAD | 1 | AES-256-GCM, 96-bit nonce, 128-bit tag after the ciphertext (NIST SP 800-38D) |
//! | chunk hash | 1 | keyed BLAKE3, 256 bits |
//! | chunk hash | 2 | HMAC-SHA-256 (reserved; no version writes it yet) |
//!
//! # Packs
//!
//! Every pack has a key of its own, so that a nonce is nothing but the number of the sealed piece
//! within its pack and no two packs can ever share one:
//!
//! ```text
//! pack key = HKDF-SHA-256(ikm = data key of the epoch, salt = the pack's 32 random bytes,
//!                         info = "strongroom v1 pack key AES-256-GCM", length = 32)   (RFC 5869)
//! nonce    = the piece's number as a 96-bit big-endian integer
//! sealed   = ciphertext ‖ 16-byte tag
//! ```
//!
//! Whoever writes a pack must never seal two different pieces under one number. A pack that a crash
//! cut short is never continued: it would get a new number and a new salt.
//!
//! # Records
//!
//! Journal records, keyrings and wrapped keys are few and small: `12-byte random nonce ‖ ciphertext
//! ‖ 16-byte tag` under a key used for nothing else. 2^32 records may be sealed under one key.
//!
//! # Logs of volumes
//!
//! Each run of a volume's log has 32 random bytes of its own, and a key made of them as a pack's is, with
//! the info `strongroom v1 volume log key AES-256-GCM`. The nonce is a record's own number as a 96-bit
//! big-endian integer; no number is used twice in a run. The key of checks is `BLAKE3-derive-key(context,
//! log key)`, or in a pool that isn't encrypted `BLAKE3-derive-key(context, the 32 random bytes)`, with the
//! context `strongroom v1 volume log checks`; a check is the first 16 bytes of BLAKE3-keyed.
//!
//! # Deterministic sealing (synthetic IV)
//!
//! What a client seals under a key of its own, so that the pool can't read it and yet finds again
//! what it has (after RFC 5297): the same bytes in the same place give the same.
//!
//! ```text
//! siv    = the first 24 bytes of BLAKE3-keyed(mac key, length of aad as 64-bit big-endian ‖ aad ‖ bytes)
//! sealed = siv ‖ AES-256-GCM(BLAKE3-keyed(cipher key, siv), nonce 0, aad, bytes) ‖ 16-byte tag
//! ```
//!
//! The mac key and the cipher key are `BLAKE3-derive-key(context, key)` with the contexts
//! `strongroom v1 SIV mac key` and `strongroom v1 SIV cipher key`.
//!
//! # Chunk ids
//!
//! `id = BLAKE3-keyed(key of the kind, bytes)`, where the key of a kind is
//! `BLAKE3-derive-key(context, id key)` with the context `strongroom v1 chunk id of data` or
//! `strongroom v1 chunk id of nodes`.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::codec::DecodeError;
use crate::id::{ChunkId, ChunkKind};

/// A symmetric key, in bytes.
pub const KEY_LEN: usize = 32;
/// What sealing appends to a piece, in bytes.
pub const TAG_LEN: usize = 16;

/// HKDF's info for pack keys; see the module's text.
const PACK_INFO: &[u8] = b"strongroom v1 pack key AES-256-GCM";
/// HKDF's info for keys of volumes' logs.
const LOG_INFO: &[u8] = b"strongroom v1 volume log key AES-256-GCM";
/// BLAKE3's context for the keys of their checks.
const LOG_CONTEXT: &str = "strongroom v1 volume log checks";
/// What [`SivSealer`] puts in front, in bytes.
pub const SIV_LEN: usize = 24;
/// BLAKE3's contexts for the keys of [`SivSealer`].
const SIV_MAC_CONTEXT: &str = "strongroom v1 SIV mac key";
const SIV_CIPHER_CONTEXT: &str = "strongroom v1 SIV cipher key";
/// BLAKE3's context for the ids of data chunks.
const DATA_CONTEXT: &str = "strongroom v1 chunk id of data";
/// BLAKE3's context for the ids of node chunks.
const NODE_CONTEXT: &str = "strongroom v1 chunk id of nodes";

/// Sealed bytes are not what was sealed under this key, number and context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the seal is broken: the content was changed, or belongs elsewhere")]
pub struct Tampered;

/// How bytes are sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Aead {
    /// Not at all.
    None = 0,
    /// AES-256-GCM.
    Aes256Gcm = 1,
}

impl Aead {
    /// The algorithm with this id.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for any other.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            0 => Ok(Self::None),
            1 => Ok(Self::Aes256Gcm),
            _ => Err(DecodeError::Unknown("the sealing algorithm")),
        }
    }

    /// How many bytes a sealed piece of a pack is longer than the open one.
    pub fn overhead(self) -> usize {
        match self {
            Self::None => 0,
            Self::Aes256Gcm => TAG_LEN,
        }
    }

    /// How many bytes a sealed record is longer than the open one.
    pub fn record_overhead(self) -> usize {
        match self {
            Self::None => 0,
            Self::Aes256Gcm => NONCE_LEN + TAG_LEN,
        }
    }

    /// The cipher for `key`, if this algorithm has one.
    fn cipher(self, key: &[u8; KEY_LEN]) -> Option<LessSafeKey> {
        match self {
            Self::None => None,
            Self::Aes256Gcm => Some(LessSafeKey::new(
                UnboundKey::new(&AES_256_GCM, key).expect("the key has the cipher's length"),
            )),
        }
    }
}

/// How chunks get their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChunkHash {
    /// Keyed BLAKE3 of 256 bits.
    Blake3 = 1,
}

impl ChunkHash {
    /// The algorithm with this id.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] for any other, the reserved one included.
    pub fn from_code(code: u8) -> Result<Self, DecodeError> {
        match code {
            1 => Ok(Self::Blake3),
            _ => Err(DecodeError::Unknown("the chunk hash")),
        }
    }
}

/// HKDF-SHA-256 (RFC 5869) for one 256-bit key.
pub(crate) fn derive_key(ikm: &[u8], salt: &[u8], info: &[u8]) -> Zeroizing<[u8; KEY_LEN]> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(ikm)
        .expand(&[info], hkdf::HKDF_SHA256)
        .and_then(|okm| okm.fill(&mut key[..]))
        .expect("HKDF-SHA-256 gives up to 255 blocks");
    key
}

/// Fills `bytes` from the operating system's generator.
///
/// # Panics
/// When there is no randomness to be had; nothing safe can be done then.
pub(crate) fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("the operating system gives randomness");
}

/// Seals and opens the pieces of one pack.
pub struct PackSealer {
    cipher: Option<LessSafeKey>,
}

impl PackSealer {
    /// The sealer of the pack with this salt, under the data key of its epoch. With [`Aead::None`]
    /// neither matters, and bytes pass through.
    pub fn new(aead: Aead, data_key: &[u8; KEY_LEN], pack_salt: &[u8; 32]) -> Self {
        match aead {
            Aead::None => Self { cipher: None },
            _ => Self { cipher: aead.cipher(&derive_key(data_key, pack_salt, PACK_INFO)) },
        }
    }

    /// A sealer that leaves bytes as they are: for a pool that isn't encrypted.
    pub fn plain() -> Self {
        Self { cipher: None }
    }

    /// How many bytes a sealed piece is longer than the open one.
    pub fn overhead(&self) -> usize {
        if self.cipher.is_some() { TAG_LEN } else { 0 }
    }

    /// Seals `buf` as piece `number` of the pack, which must be used once only, and appends the
    /// tag; allocates nothing when `buf` has [`overhead`](Self::overhead) bytes to spare.
    pub fn seal_in_place(&self, number: u32, aad: &[u8], buf: &mut Vec<u8>) {
        if let Some(cipher) = &self.cipher {
            cipher
                .seal_in_place_append_tag(counter(number), Aad::from(aad), buf)
                .expect("a piece is far shorter than GCM's limit of 64 GiB");
        }
    }

    /// Opens piece `number` and gives the part of `buf` that then holds its bytes.
    ///
    /// # Errors
    /// [`Tampered`]; what is in `buf` then must not be used.
    pub fn open_in_place<'a>(
        &self,
        number: u32,
        aad: &[u8],
        buf: &'a mut [u8],
    ) -> Result<&'a mut [u8], Tampered> {
        match &self.cipher {
            None => Ok(buf),
            Some(cipher) => {
                cipher.open_in_place(counter(number), Aad::from(aad), buf).map_err(|_| Tampered)
            }
        }
    }
}

impl fmt::Debug for PackSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackSealer").field("sealed", &self.cipher.is_some()).finish_non_exhaustive()
    }
}

/// A number as a nonce: 96 bits, big-endian.
fn counter(number: impl Into<u64>) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - 8..].copy_from_slice(&number.into().to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Seals and checks what is in one run of a volume's log: see the module's text.
pub struct LogSealer {
    cipher: Option<LessSafeKey>,
    check: Zeroizing<[u8; KEY_LEN]>,
}

impl LogSealer {
    /// That of the run with this salt, under the data key of its epoch, which doesn't matter with
    /// [`Aead::None`].
    pub(crate) fn new(aead: Aead, data_key: &[u8; KEY_LEN], salt: &[u8; 32]) -> Self {
        let key = match aead {
            Aead::None => Zeroizing::new(*salt),
            _ => derive_key(data_key, salt, LOG_INFO),
        };
        let check = Zeroizing::new(blake3::derive_key(LOG_CONTEXT, &key[..]));
        Self { cipher: aead.cipher(&key), check }
    }

    /// Whether it seals; it only checks in a pool that isn't encrypted.
    pub fn is_sealed(&self) -> bool {
        self.cipher.is_some()
    }

    /// Seals `bytes` in place under a number, which must be used once only, and gives the tag; `None`
    /// in a pool that isn't encrypted.
    pub fn seal(&self, number: u64, aad: &[u8], bytes: &mut [u8]) -> Option<[u8; TAG_LEN]> {
        let cipher = self.cipher.as_ref()?;
        let tag = cipher
            .seal_in_place_separate_tag(counter(number), Aad::from(aad), bytes)
            .expect("a record is far shorter than GCM's limit of 64 GiB");
        Some(tag.as_ref().try_into().expect("GCM's tag has 16 bytes"))
    }

    /// Opens in place what [`LogSealer::seal`] sealed; what it gives is as long as `bytes` without the
    /// tag, which stands at their end.
    ///
    /// # Errors
    /// [`Tampered`]; what is in `bytes` then must not be used.
    pub fn open<'a>(
        &self,
        number: u64,
        aad: &[u8],
        bytes: &'a mut [u8],
    ) -> Result<&'a mut [u8], Tampered> {
        match &self.cipher {
            None => Ok(bytes),
            Some(cipher) => {
                cipher.open_in_place(counter(number), Aad::from(aad), bytes).map_err(|_| Tampered)
            }
        }
    }

    /// What tells that bytes were written in this run.
    pub fn check(&self, bytes: &[u8]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.check, bytes);
        *hash.as_bytes().first_chunk().expect("16 of 32 bytes")
    }
}

impl fmt::Debug for LogSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSealer").field("sealed", &self.is_sealed()).finish_non_exhaustive()
    }
}

/// Seals and opens records, each with a random nonce of its own.
pub struct RecordSealer {
    cipher: Option<LessSafeKey>,
}

impl RecordSealer {
    /// A sealer under `key`, which must be used for nothing else.
    pub fn new(aead: Aead, key: &[u8; KEY_LEN]) -> Self {
        Self { cipher: aead.cipher(key) }
    }

    /// A sealer that leaves bytes as they are: for a pool that isn't encrypted.
    pub fn plain() -> Self {
        Self { cipher: None }
    }

    /// How many bytes a sealed record is longer than the open one.
    pub fn overhead(&self) -> usize {
        if self.cipher.is_some() { NONCE_LEN + TAG_LEN } else { 0 }
    }

    /// Seals `record`. `aad` is what it belongs to; whoever opens it must give the same.
    pub fn seal(&self, aad: &[u8], record: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        if self.cipher.is_some() {
            random(&mut nonce);
        }
        self.seal_with(nonce, aad, record)
    }

    fn seal_with(&self, nonce: [u8; NONCE_LEN], aad: &[u8], record: &[u8]) -> Vec<u8> {
        let Some(cipher) = &self.cipher else { return record.to_vec() };
        let mut sealed = Vec::with_capacity(record.len() + self.overhead());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(record);
        let tag = cipher
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad),
                &mut sealed[NONCE_LEN..],
            )
            .expect("a record is far shorter than GCM's limit of 64 GiB");
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Opens what [`seal`](Self::seal) gave.
    ///
    /// # Errors
    /// [`Tampered`]: the bytes, the key or `aad` are not those it was sealed with.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Tampered> {
        let Some(cipher) = &self.cipher else { return Ok(Zeroizing::new(sealed.to_vec())) };
        let (nonce, content) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Tampered)?;
        let mut record = Zeroizing::new(content.to_vec());
        let len = cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut record)
            .map_err(|_| Tampered)?
            .len();
        record.truncate(len);
        Ok(record)
    }
}

impl fmt::Debug for RecordSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordSealer")
            .field("sealed", &self.cipher.is_some())
            .finish_non_exhaustive()
    }
}

/// Seals deterministically, with a synthetic IV: see the module's text.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SivSealer {
    mac: [u8; KEY_LEN],
    cipher: [u8; KEY_LEN],
}

impl SivSealer {
    /// How many bytes what is sealed is longer.
    pub const OVERHEAD: usize = SIV_LEN + TAG_LEN;

    /// A sealer under a key that may be of any length, if it is random.
    pub fn new(key: &[u8]) -> Self {
        Self {
            mac: blake3::derive_key(SIV_MAC_CONTEXT, key),
            cipher: blake3::derive_key(SIV_CIPHER_CONTEXT, key),
        }
    }

    fn cipher(&self, siv: &[u8; SIV_LEN]) -> LessSafeKey {
        let key = Zeroizing::new(*blake3::keyed_hash(&self.cipher, siv).as_bytes());
        Aead::Aes256Gcm.cipher(&key).expect("this algorithm has one")
    }

    /// Appends `bytes`, sealed, to `out`. `aad` is what they belong to.
    pub fn seal(&self, aad: &[u8], bytes: &[u8], out: &mut Vec<u8>) {
        let mut mac = blake3::Hasher::new_keyed(&self.mac);
        mac.update(&(aad.len() as u64).to_be_bytes()).update(aad).update(bytes);
        let mut siv = [0; SIV_LEN];
        mac.finalize_xof().fill(&mut siv);
        out.extend_from_slice(&siv);
        let at = out.len();
        out.extend_from_slice(bytes);
        let tag = self
            .cipher(&siv)
            .seal_in_place_separate_tag(counter(0u32), Aad::from(aad), &mut out[at..])
            .expect("what is sealed is far shorter than GCM's limit of 64 GiB");
        out.extend_from_slice(tag.as_ref());
    }

    /// Replaces `out` by what was sealed.
    ///
    /// # Errors
    /// [`Tampered`]; `out` is empty then.
    pub fn open(&self, aad: &[u8], sealed: &[u8], out: &mut Vec<u8>) -> Result<(), Tampered> {
        out.clear();
        let (siv, content) = sealed.split_first_chunk::<SIV_LEN>().ok_or(Tampered)?;
        out.extend_from_slice(content);
        let opened = self.cipher(siv).open_in_place(counter(0u32), Aad::from(aad), out);
        let len = opened.map(|open| open.len());
        out.truncate(len.unwrap_or(0));
        len.map(drop).map_err(|_| Tampered)
    }
}

impl fmt::Debug for SivSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SivSealer").finish_non_exhaustive()
    }
}

/// Gives chunks their ids: see the module's text. Cheap to share and to clone.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct ChunkHasher {
    data: [u8; KEY_LEN],
    node: [u8; KEY_LEN],
}

impl ChunkHasher {
    /// The hasher of the pool with this id key.
    pub fn new(id_key: &[u8; KEY_LEN]) -> Self {
        Self {
            data: blake3::derive_key(DATA_CONTEXT, id_key),
            node: blake3::derive_key(NODE_CONTEXT, id_key),
        }
    }

    /// The hasher with these keys: of data, then of nodes.
    pub fn of_keys(keys: [[u8; KEY_LEN]; 2]) -> Self {
        let [data, node] = keys;
        Self { data, node }
    }

    /// Its keys, of data, then of nodes: with them one can tell which id a content has, and nothing
    /// else of a pool.
    pub fn keys(&self) -> Zeroizing<[[u8; KEY_LEN]; 2]> {
        Zeroizing::new([self.data, self.node])
    }

    /// The id of a chunk of this kind with these bytes.
    pub fn id(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::Node => &self.node,
        };
        ChunkId(*blake3::keyed_hash(key, bytes).as_bytes())
    }
}

impl fmt::Debug for ChunkHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkHasher").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use proptest::prelude::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    fn sealer() -> PackSealer {
        PackSealer::new(Aead::Aes256Gcm, &[1; 32], &[2; 32])
    }

    #[test]
    fn a_log_is_opened_by_its_own_run_number_and_place_alone() {
        let sealer = LogSealer::new(Aead::Aes256Gcm, &[1; 32], &[2; 32]);
        let mut sealed = *b"content";
        let tag = sealer.seal(1 << 40, b"here", &mut sealed).unwrap();
        let sealed = [&sealed[..], &tag].concat();
        let open = |sealer: &LogSealer, number, aad: &[u8]| {
            let mut bytes = sealed.clone();
            sealer.open(number, aad, &mut bytes).map(|open| open.to_vec())
        };
        assert_eq!(open(&sealer, 1 << 40, b"here").unwrap(), b"content");
        assert_eq!(open(&sealer, 1, b"here"), Err(Tampered));
        assert_eq!(open(&sealer, 1 << 40, b"there"), Err(Tampered));
        let other = LogSealer::new(Aead::Aes256Gcm, &[1; 32], &[3; 32]);
        assert_eq!(open(&other, 1 << 40, b"here"), Err(Tampered));
        assert_ne!(sealer.check(b"a"), other.check(b"a"));
        let plain = LogSealer::new(Aead::None, &[0; 32], &[2; 32]);
        assert_eq!((plain.is_sealed(), plain.seal(1, b"", &mut [0; 4])), (false, None));
        assert_ne!(plain.check(b"a"), sealer.check(b"a"));
    }

    /// Changing any of these changes the format: old pools would no longer open.
    #[test]
    fn golden_ids() {
        let hasher = ChunkHasher::new(&[7; 32]);
        assert_eq!(
            hasher.id(ChunkKind::Data, b"strongroom").to_string(),
            "736f496149e46820ffc6324119cd7b4df883943eb45b087119d33c28448e66d5"
        );
        assert_eq!(
            hasher.id(ChunkKind::Node, b"strongroom").to_string(),
            "cfcdbca6dcf9f40374ed384894dfa516816df3250c4b69db5ef66718f616afd9"
        );
    }

    #[test]
    // The bytes below were also computed with another implementation (Python's cryptography).
    fn golden_pack_key_and_piece() {
        assert_eq!(
            hex(&derive_key(&[1; 32], &[2; 32], PACK_INFO)[..]),
            "062ca390104833e75a54f0cbd4ef59cbda0b882811b068d6ccad7890726cb322"
        );
        let mut piece = b"a frame of chunks".to_vec();
        sealer().seal_in_place(0x0102_0304, b"its place", &mut piece);
        assert_eq!(
            hex(&piece),
            "769443a12d715b84d3e1685e9740dcda0c602d666dfb474275de9145109121ee10"
        );
    }

    #[test]
    fn golden_record() {
        let sealer = RecordSealer::new(Aead::Aes256Gcm, &[3; 32]);
        let sealed = sealer.seal_with([4; 12], b"its place", b"a record");
        assert_eq!(
            hex(&sealed),
            "040404040404040404040404210761a8cef1757a7bf144d14bf7c28adedb64f1178733a1"
        );
        assert_eq!(sealer.open(b"its place", &sealed).unwrap().as_slice(), b"a record");
    }

    #[test]
    // Also computed with another implementation (Python's blake3 and cryptography).
    fn golden_siv() {
        let mut sealed = Vec::new();
        SivSealer::new(&[6; 32]).seal(b"its place", b"a chunk", &mut sealed);
        assert_eq!(
            hex(&sealed),
            "aaf47444c5df5f1e927cd427f3d1cf41e554746f34642f9ae58539de0ee1ea2823573363dfc252618b168a87d9c106"
        );
    }

    /// RFC 5869, appendix A.1, its first 32 bytes: our HKDF is everybody's HKDF.
    #[test]
    fn the_key_derivation_is_that_of_the_rfc() {
        let salt: Vec<u8> = (0..=0x0c).collect();
        let info: Vec<u8> = (0xf0..=0xf9).collect();
        assert_eq!(
            hex(&derive_key(&[0x0b; 22], &salt, &info)[..]),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf"
        );
    }

    #[test]
    fn data_never_passes_for_a_node_nor_for_another_pool() {
        let hasher = ChunkHasher::new(&[7; 32]);
        let id = hasher.id(ChunkKind::Data, b"x");
        assert_ne!(id, hasher.id(ChunkKind::Node, b"x"));
        assert_eq!(id, ChunkHasher::of_keys(*hasher.keys()).id(ChunkKind::Data, b"x"));
        assert_ne!(id, ChunkHasher::new(&[8; 32]).id(ChunkKind::Data, b"x"));
    }

    #[test]
    fn without_a_cipher_bytes_pass_through() {
        let sealer = PackSealer::new(Aead::None, &[0; 32], &[0; 32]);
        let mut piece = b"open".to_vec();
        sealer.seal_in_place(1, b"", &mut piece);
        assert_eq!((piece.as_slice(), sealer.overhead()), (&b"open"[..], 0));
        assert_eq!(sealer.open_in_place(9, b"x", &mut piece).unwrap(), b"open");
        let sealer = RecordSealer::plain();
        let record = sealer.open(b"", &sealer.seal(b"", b"open")).unwrap();
        assert_eq!(record.as_slice(), b"open");
    }

    #[test]
    fn sealing_into_room_to_spare_does_not_move_the_buffer() {
        let mut piece = Vec::with_capacity(100 + TAG_LEN);
        piece.resize(100, 9);
        let before = piece.as_ptr();
        sealer().seal_in_place(0, b"", &mut piece);
        assert_eq!((piece.as_ptr(), piece.len()), (before, 100 + sealer().overhead()));
    }

    #[test]
    fn nothing_secret_is_shown() {
        let siv = SivSealer::new(&[7; 32]);
        let text = format!("{:?} {:?} {siv:?}", ChunkHasher::new(&[7; 32]), sealer());
        let shown = "ChunkHasher { .. } PackSealer { sealed: true, .. } SivSealer { .. }";
        assert_eq!(text, shown);
    }

    proptest! {
        #[test]
        fn a_piece_opens_as_itself_only(
            content in any::<Vec<u8>>(), number in any::<u32>(), at in any::<prop::sample::Index>(),
            bit in 0..8u32,
        ) {
            let sealer = sealer();
            let mut sealed = content.clone();
            sealer.seal_in_place(number, b"aad", &mut sealed);
            let open = |number, aad: &[u8], mut sealed: Vec<u8>| {
                sealer.open_in_place(number, aad, &mut sealed).map(|open| open.to_vec())
            };
            prop_assert_eq!(open(number, b"aad", sealed.clone()), Ok(content));
            prop_assert_eq!(open(number ^ 1, b"aad", sealed.clone()), Err(Tampered));
            prop_assert_eq!(open(number, b"other", sealed.clone()), Err(Tampered));
            prop_assert_eq!(open(number, b"aad", sealed[1..].to_vec()), Err(Tampered));
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(open(number, b"aad", sealed), Err(Tampered));
        }

        #[test]
        fn a_record_opens_as_itself_only(
            content in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let sealer = RecordSealer::new(Aead::Aes256Gcm, &[5; 32]);
            let mut sealed = sealer.seal(b"aad", &content);
            prop_assert_eq!(sealed.len(), content.len() + sealer.overhead());
            prop_assert_eq!(sealer.open(b"aad", &sealed), Ok(Zeroizing::new(content)));
            prop_assert!(sealer.open(b"other", &sealed).is_err());
            prop_assert!(sealer.open(b"aad", &sealed[..sealed.len() - 1]).is_err());
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.open(b"aad", &sealed).is_err());
        }

        #[test]
        fn the_same_gives_the_same_and_opens_as_itself_only(
            content in any::<Vec<u8>>(), at in any::<prop::sample::Index>(), bit in 0..8u32,
        ) {
            let sealer = SivSealer::new(&[6; 40]);
            let seal = |aad: &[u8], bytes: &[u8]| {
                let mut sealed = Vec::new();
                sealer.seal(aad, bytes, &mut sealed);
                sealed
            };
            let mut sealed = seal(b"aad", &content);
            prop_assert_eq!(sealed.len(), content.len() + SivSealer::OVERHEAD);
            prop_assert_eq!(&sealed, &seal(b"aad", &content));
            prop_assert_ne!(&sealed[..SIV_LEN], &seal(b"aa", &content)[..SIV_LEN]);
            let mut out = vec![1];
            prop_assert_eq!(sealer.open(b"aad", &sealed, &mut out), Ok(()));
            prop_assert_eq!(&out, &content);
            prop_assert!(sealer.open(b"other", &sealed, &mut out).is_err());
            prop_assert!(out.is_empty());
            prop_assert!(SivSealer::new(&[7; 40]).open(b"aad", &sealed, &mut out).is_err());
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert!(sealer.open(b"aad", &sealed, &mut out).is_err());
        }

        #[test]
        fn noise_never_opens(mut noise in any::<Vec<u8>>()) {
            prop_assert!(RecordSealer::new(Aead::Aes256Gcm, &[5; 32]).open(b"", &noise).is_err());
            prop_assert!(SivSealer::new(&[5; 32]).open(b"", &noise, &mut Vec::new()).is_err());
            prop_assert!(sealer().open_in_place(0, b"", &mut noise).is_err());
        }
    }
}
