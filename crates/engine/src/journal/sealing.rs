//! How the payloads of journal records are kept secret and authentic.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::record::{Chain, RecordHeader, Salt};
use crate::error::{Error, Result};

/// How the journal's payloads are stored, as the superblock says.
#[derive(Clone)]
pub enum Sealing {
    /// As they are (algorithm 0).
    Plain,
    /// With AES-256-GCM (algorithm 1) under keys derived from this one.
    Aes256Gcm(Zeroizing<[u8; 32]>),
}

impl fmt::Debug for Sealing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Aes256Gcm(_) => "Aes256Gcm(..)",
        })
    }
}

impl Sealing {
    /// The algorithm's number in the format.
    pub fn algorithm(&self) -> u8 {
        match self {
            Self::Plain => 0,
            Self::Aes256Gcm(_) => 1,
        }
    }

    /// The key of one file. No two files have the same salt, so a nonce (the number of a record in
    /// its file) is never used twice under one key: a file is written by one process in one run,
    /// which gives each number once.
    pub(super) fn file_key(&self, salt: &Salt) -> FileKey {
        let Self::Aes256Gcm(key) = self else { return FileKey(None) };
        let mut hasher = blake3::Hasher::new_derive_key("strongroom 1 journal file key");
        hasher.update(&key[..]).update(salt);
        let derived = Zeroizing::new(*hasher.finalize().as_bytes());
        let unbound = UnboundKey::new(&AES_256_GCM, &derived[..]).expect("the key has 32 bytes");
        FileKey(Some(LessSafeKey::new(unbound)))
    }
}

/// Seals and opens the payloads of one file.
pub(super) struct FileKey(Option<LessSafeKey>);

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileKey(..)")
    }
}

impl FileKey {
    /// How many bytes sealing adds.
    pub(super) fn overhead(&self) -> usize {
        if self.0.is_some() { AES_256_GCM.tag_len() } else { 0 }
    }

    fn nonce(header: &RecordHeader) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[..4].copy_from_slice(&header.number.to_le_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    /// The chain value stands for all that came before, the fields for the record itself.
    fn aad(header: &RecordHeader, before: Chain) -> Aad<[u8; 56]> {
        let mut aad = [0; 56];
        aad[..16].copy_from_slice(&before.0);
        aad[16..].copy_from_slice(&header.fields());
        Aad::from(aad)
    }

    /// Turns a payload into what is stored. `header.len` is the stored length.
    pub(super) fn seal(
        &self,
        header: &RecordHeader,
        before: Chain,
        payload: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(key) = &self.0 else { return Ok(()) };
        key.seal_in_place_append_tag(Self::nonce(header), Self::aad(header, before), payload)
            .map_err(|_| Error::Invalid("a journal record is too long to be sealed".into()))
    }

    /// Turns what is stored into the payload; none when it was sealed otherwise.
    pub(super) fn open<'a>(
        &self,
        header: &RecordHeader,
        before: Chain,
        stored: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        match &self.0 {
            None => Some(stored),
            Some(key) => key
                .open_in_place(Self::nonce(header), Self::aad(header, before), stored)
                .ok()
                .map(|opened| &*opened),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::record::Kind;
    use super::*;

    #[test]
    fn only_the_same_record_of_the_same_file_opens() {
        let sealing = Sealing::Aes256Gcm(Zeroizing::new([9; 32]));
        let key = sealing.file_key(&[1; 16]);
        let header =
            RecordHeader { kind: Kind::Commit, len: 22, number: 2, generation: 8, salt: [1; 16] };
        let chain = Chain([4; 16]);
        let mut sealed = b"secret".to_vec();
        key.seal(&header, chain, &mut sealed).unwrap();
        assert_eq!(sealed.len(), 6 + key.overhead());
        assert_eq!(key.open(&header, chain, &mut sealed.clone()), Some(&b"secret"[..]));
        let other = RecordHeader { number: 3, ..header };
        assert_eq!(key.open(&other, chain, &mut sealed.clone()), None);
        assert_eq!(key.open(&header, Chain([5; 16]), &mut sealed.clone()), None);
        let elsewhere = sealing.file_key(&[2; 16]);
        assert_eq!(elsewhere.open(&header, chain, &mut sealed), None);
        assert!(!format!("{sealing:?} {key:?}").contains('9'));
    }
}
