//! CHAP, one way and mutual (RFC 7143 section 12.1.3, RFC 1994).

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use md5::{Digest, Md5};

use crate::auth::AuthGroup;
use crate::pdu::text;

/// The longest challenge, by the RFC.
const LONGEST: usize = 1024;

/// How a proof is made: a number that IANA gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    Md5 = 5,
    Sha256 = 7,
}

impl Algorithm {
    /// The best of those that are offered.
    pub(crate) fn choose(offered: &str) -> Option<Self> {
        let has = |one: Self| offered.split(',').any(|n| text::number(n) == Some(one as u32));
        [Self::Sha256, Self::Md5].into_iter().find(|one| has(*one))
    }

    fn proof(self, identifier: u8, secret: &[u8], challenge: &[u8]) -> Vec<u8> {
        match self {
            Self::Md5 => {
                let mut sum = Md5::new();
                [&[identifier], secret, challenge].iter().for_each(|part| sum.update(part));
                sum.finalize().to_vec()
            }
            Self::Sha256 => {
                let mut sum = digest::Context::new(&digest::SHA256);
                [&[identifier], secret, challenge].iter().for_each(|part| sum.update(part));
                sum.finish().as_ref().to_vec()
            }
        }
    }
}

/// What the target asked of an initiator.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    algorithm: Algorithm,
    identifier: u8,
    challenge: [u8; 32],
}

/// What an initiator answered.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Answer<'a> {
    pub(crate) name: Option<&'a str>,
    pub(crate) proof: Option<&'a str>,
    pub(crate) identifier: Option<&'a str>,
    pub(crate) challenge: Option<&'a str>,
}

impl Question {
    /// A new one; `None` when the machine gives no random bytes.
    pub(crate) fn new(algorithm: Algorithm) -> Option<Self> {
        let (mut identifier, mut challenge) = ([0], [0; 32]);
        getrandom::fill(&mut identifier).ok()?;
        getrandom::fill(&mut challenge).ok()?;
        let [identifier] = identifier;
        Some(Self { algorithm, identifier, challenge })
    }

    /// What is sent of it.
    pub(crate) fn keys(&self) -> [(&'static str, String); 3] {
        [
            ("CHAP_A", (self.algorithm as u8).to_string()),
            ("CHAP_I", self.identifier.to_string()),
            ("CHAP_C", hexadecimal(&self.challenge)),
        ]
    }

    /// What the target has to prove in turn, when it is asked; `None` when the answer proves nothing.
    pub(crate) fn check(
        &self,
        group: &AuthGroup,
        answer: Answer<'_>,
    ) -> Option<Vec<(&'static str, String)>> {
        // An unknown user takes as long as a wrong secret.
        let user = answer.name.and_then(|name| group.user(name));
        let secret = user.map_or(&b"nobody has this one"[..], |user| user.secret());
        let expected = self.algorithm.proof(self.identifier, secret, &self.challenge);
        let proof = answer.proof.and_then(|proof| text::binary(proof, expected.len()));
        let is_proven = verify_slices_are_equal(&expected, &proof.unwrap_or_default()).is_ok();
        if user.is_none() || !is_proven {
            return None;
        }
        match (answer.identifier, answer.challenge) {
            (None, None) => Some(Vec::new()),
            (Some(identifier), Some(challenge)) => {
                let own = group.own()?;
                let identifier = u8::try_from(text::number(identifier)?).ok()?;
                let challenge = text::binary(challenge, LONGEST)?;
                // Else an initiator could ask us what we asked it.
                if challenge == self.challenge {
                    return None;
                }
                let proof = self.algorithm.proof(identifier, own.secret(), &challenge);
                Some(vec![("CHAP_N", own.name().to_owned()), ("CHAP_R", hexadecimal(&proof))])
            }
            _ => None,
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    format!("0x{}", data_encoding::HEXLOWER.encode(bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::auth::Credential;

    fn group() -> AuthGroup {
        let user = Credential::new("user", b"secretsecret12").unwrap();
        let own = Credential::new("target", b"anothersecret1").unwrap();
        AuthGroup::open().users(vec![user]).unwrap().mutual(own).unwrap()
    }

    #[test]
    fn a_proof_is_checked_and_given() {
        for algorithm in [Algorithm::Md5, Algorithm::Sha256] {
            let question = Question::new(algorithm).unwrap();
            let prove = |secret: &[u8]| {
                hexadecimal(&algorithm.proof(question.identifier, secret, &question.challenge))
            };
            let good = prove(b"secretsecret12");
            let answer = Answer { name: Some("user"), proof: Some(&good), ..Answer::default() };
            assert_eq!(question.check(&group(), answer), Some(Vec::new()));
            let mutual = Answer { identifier: Some("7"), challenge: Some("0x0102"), ..answer };
            let proof = hexadecimal(&algorithm.proof(7, b"anothersecret1", &[1, 2]));
            let expected = vec![("CHAP_N", "target".to_owned()), ("CHAP_R", proof)];
            assert_eq!(question.check(&group(), mutual), Some(expected));

            let bad = prove(b"secretsecret13");
            let own = hexadecimal(&question.challenge);
            for wrong in [
                Answer::default(),
                Answer { proof: Some(&bad), ..answer },
                Answer { name: Some("other"), ..answer },
                Answer { challenge: Some(&own), ..mutual },
                Answer { challenge: None, ..mutual },
            ] {
                assert_eq!(question.check(&group(), wrong), None, "{wrong:?}");
            }
        }
    }

    #[test]
    fn the_stronger_algorithm_is_chosen() {
        assert_eq!(Algorithm::choose("5,7"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::choose("6,5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::choose("6,8"), None);
    }
}
