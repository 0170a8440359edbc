//! Proofs that a reader was shown a reference: the first half of a keyed BLAKE3 of what kind of
//! chunk it is and of its id, under a key that is the reader's alone and never leaves this process.

use strongroom_archive::wire::{PROOF_LEN, Proof, Wanted};
use strongroom_engine::id::{ChunkId, ChunkKind};
use zeroize::Zeroizing;

use crate::{Error, Result};

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(&mut bytes[..])
        .map_err(|e| Error::Invalid(format!("the system gives no random numbers: {e}")))?;
    Ok(bytes)
}

/// A name that nobody can guess.
pub(super) fn random_name() -> Result<String> {
    Ok(data_encoding::HEXLOWER.encode(&random::<16>()?[..]))
}

/// Makes and checks the proofs of one reader.
pub(super) struct Prover(Zeroizing<[u8; 32]>);

impl Prover {
    pub(super) fn random() -> Result<Self> {
        random().map(Self)
    }

    pub(super) fn prove(&self, kind: ChunkKind, id: &ChunkId) -> Proof {
        let mut named = [kind as u8; 33];
        named[1..].copy_from_slice(&id.0);
        let hash = blake3::keyed_hash(&self.0, &named);
        let mut proof = [0; PROOF_LEN];
        proof.copy_from_slice(&hash.as_bytes()[..PROOF_LEN]);
        Proof(proof)
    }

    /// Whether the proof is right; None: there is none.
    pub(super) fn check(&self, kind: ChunkKind, wanted: &Wanted) -> Option<bool> {
        if wanted.proof == Proof::NONE {
            return None;
        }
        // Hashes are compared in constant time.
        let whole = |proof: Proof| {
            let mut bytes = [0; 32];
            bytes[..PROOF_LEN].copy_from_slice(&proof.0);
            blake3::Hash::from_bytes(bytes)
        };
        Some(whole(self.prove(kind, &wanted.id)) == whole(wanted.proof))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_proof_is_good_for_one_chunk_of_one_kind_and_one_reader() {
        let (one, other) = (Prover::random().unwrap(), Prover::random().unwrap());
        let id = ChunkId([1; 32]);
        let wanted = |id, proof| Wanted { id, proof };
        let proof = one.prove(ChunkKind::Data, &id);
        assert_eq!(one.check(ChunkKind::Data, &wanted(id, proof)), Some(true));
        assert_eq!(one.check(ChunkKind::Node, &wanted(id, proof)), Some(false));
        assert_eq!(one.check(ChunkKind::Data, &wanted(ChunkId([2; 32]), proof)), Some(false));
        assert_eq!(other.check(ChunkKind::Data, &wanted(id, proof)), Some(false));
        assert_eq!(one.check(ChunkKind::Data, &wanted(id, Proof::NONE)), None);
    }
}
