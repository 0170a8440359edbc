//! Until when a certificate is valid (RFC 5280, section 4.1.2.5): as much of DER as that takes.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate; None for what is none.
pub(super) fn not_after(certificate: &[u8]) -> Option<Timestamp> {
    let (certificate, _) = expect(certificate, SEQUENCE)?;
    let (mut rest, _) = expect(certificate, SEQUENCE)?;
    if rest.first() == Some(&VERSION) {
        (_, rest) = expect(rest, VERSION)?;
    }
    // Serial number, signature, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = expect(rest, tag)?;
    }
    let (validity, _) = expect(rest, SEQUENCE)?;
    let (_, _, rest) = value(validity)?;
    let (tag, text, _) = value(rest)?;
    time(tag, std::str::from_utf8(text).ok()?)
}

/// The content of a value with this tag, and what is behind it.
fn expect(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = value(bytes)?;
    (found == tag).then_some((content, rest))
}

/// A value: its tag, its content, and what is behind it.
fn value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn time(tag: u8, text: &str) -> Option<Timestamp> {
    let digits = text.strip_suffix('Z')?;
    let whole = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let century = if digits < "50" { "20" } else { "19" };
            format!("{century}{digits}")
        }
        (GENERALIZED_TIME, 14) => digits.to_owned(),
        _ => return None,
    };
    let at = DateTime::strptime("%Y%m%d%H%M%S", whole).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    #[test]
    fn a_certificate_says_when_it_ends() {
        for (year, told) in [(2031, "2031-02-03T00:00:00Z"), (2062, "2062-02-03T00:00:00Z")] {
            let mut params = CertificateParams::new(vec!["box".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 2, 3);
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            let der: &[u8] = der.der();
            assert_eq!(not_after(der).unwrap(), told.parse::<Timestamp>().unwrap());
            // What is cut short or changed is no certificate, and no fault of the program.
            for end in 0..der.len() {
                let _ = not_after(&der[..end]);
                let mut other = der.to_vec();
                other[end] ^= 0xff;
                let _ = not_after(&other);
            }
            assert_eq!(not_after(&der[..40]), None);
        }
    }
}
