//! Time-based one-time passwords (RFC 6238): HMAC-SHA-1, six digits, steps of 30 seconds, as
//! authenticator apps have them.

use aws_lc_rs::hmac;
use jiff::Timestamp;

use crate::secret::{base32_upper, same};

const STEP: i64 = 30;
const DIGITS: usize = 6;
/// How many steps the other's clock may be wrong, either way.
const DRIFT: i64 = 1;
/// The length of a secret, as RFC 4226 recommends.
pub(crate) const SECRET: usize = 20;

/// The step of the code, when it is that of now or near it.
pub(crate) fn verify(secret: &[u8], code: &str, now: Timestamp) -> Option<i64> {
    let code: String = code.chars().filter(|c| !c.is_whitespace()).take(DIGITS + 1).collect();
    let at = now.as_second().div_euclid(STEP);
    let mut found = None;
    for step in at - DRIFT..=at + DRIFT {
        if same(generate(secret, step).as_bytes(), code.as_bytes()) {
            found = Some(step);
        }
    }
    found
}

/// What an authenticator app reads, also as a QR code.
pub(crate) fn url(secret: &[u8], user: &str, issuer: &str) -> String {
    let (user, issuer) = (escape(user), escape(issuer));
    let secret = base32_upper(secret);
    format!(
        "otpauth://totp/{issuer}:{user}?secret={secret}&issuer={issuer}&algorithm=SHA1&digits={DIGITS}&period={STEP}"
    )
}

fn generate(secret: &[u8], step: i64) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = hmac::sign(&key, &step.to_be_bytes());
    let tag = tag.as_ref();
    // RFC 4226, section 5.3.
    let offset = usize::from(tag[tag.len() - 1] & 0xf);
    let mut word = [0; 4];
    word.copy_from_slice(&tag[offset..offset + 4]);
    let number = u32::from_be_bytes(word) & 0x7fff_ffff;
    format!("{:0DIGITS$}", number % 10u32.pow(DIGITS as u32))
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const KEY: &[u8] = b"12345678901234567890";

    #[test]
    fn as_in_the_rfc() {
        // RFC 6238, appendix B; the last six of its eight digits.
        for (second, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(generate(KEY, second / STEP), code);
            let now = Timestamp::from_second(second).unwrap();
            assert_eq!(verify(KEY, code, now), Some(second / STEP));
        }
    }

    #[test]
    fn a_code_of_another_time_is_none() {
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(verify(KEY, "287082", at(59 + 30)), Some(1));
        assert_eq!(verify(KEY, "287082", at(29)), Some(1));
        assert_eq!(verify(KEY, "287 082", at(59)), Some(1));
        assert_eq!(verify(KEY, "287082", at(59 + 61)), None);
        for wrong in ["", "287083", "2870820", "28708", "0287082"] {
            assert_eq!(verify(KEY, wrong, at(59)), None, "{wrong}");
        }
    }

    #[test]
    fn the_url_is_one() {
        let url = url(KEY, "jö@x", "Strongroom");
        assert!(url.starts_with("otpauth://totp/Strongroom:j%C3%B6%40x?secret=GEZDGNBVGY3TQOJQ"));
    }
}
