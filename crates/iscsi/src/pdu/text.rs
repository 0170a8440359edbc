//! Keys and values (RFC 7143 section 6.1): `key=value`, each ended by a zero byte.

/// Bytes of a key's name, by the RFC.
const KEY: usize = 63;
/// Bytes of a value: those of a long binary one, by the RFC.
const VALUE: usize = 8192;
/// Keys of one exchange.
const KEYS: usize = 128;

/// What is wrong with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the keys and values can't be read: {0}")]
pub struct Malformed(&'static str);

/// Reads the keys and values in order.
///
/// # Errors
/// [`Malformed`], when it is no list of them, has more than 128, or one that is too long.
pub fn read(bytes: &[u8]) -> Result<Vec<(&str, &str)>, Malformed> {
    let mut pairs = Vec::new();
    for pair in bytes.split(|byte| *byte == 0).filter(|pair| !pair.is_empty()) {
        if pairs.len() == KEYS {
            return Err(Malformed("there are more than 128"));
        }
        let pair = std::str::from_utf8(pair).map_err(|_| Malformed("one is not UTF-8"))?;
        let (key, value) = pair.split_once('=').ok_or(Malformed("one has no value"))?;
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-+@/#".contains(c);
        if key.is_empty() || key.len() > KEY || !key.chars().all(is_name) {
            return Err(Malformed("one has no proper name"));
        }
        if value.len() > VALUE {
            return Err(Malformed("a value is too long"));
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// Puts a key at the end of a text.
pub fn write(out: &mut Vec<u8>, key: &str, value: &str) {
    out.extend_from_slice(key.as_bytes());
    out.push(b'=');
    out.extend_from_slice(value.as_bytes());
    out.push(0);
}

/// A numerical value (RFC 7143 section 6.1): decimal, or `0x` and hexadecimal.
pub fn number(value: &str) -> Option<u32> {
    let hex = value.strip_prefix("0x").or_else(|| value.strip_prefix("0X"));
    let (digits, radix) = hex.map_or((value, 10), |hex| (hex, 16));
    let is_digits = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digits.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// A binary value of at most so many bytes: `0x` and hexadecimal, or `0b` and base64.
pub fn binary(value: &str, most: usize) -> Option<Vec<u8>> {
    let (kind, digits) = value.split_at_checked(2)?;
    let bytes = match kind {
        "0x" | "0X" => {
            let digits = digits.to_ascii_lowercase();
            let even = if digits.len() % 2 == 1 { format!("0{digits}") } else { digits };
            data_encoding::HEXLOWER.decode(even.as_bytes()).ok()?
        }
        "0b" | "0B" => data_encoding::BASE64.decode(digits.as_bytes()).ok()?,
        _ => return None,
    };
    (!bytes.is_empty() && bytes.len() <= most).then_some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn keys_are_read_as_they_are_written() {
        let mut bytes = Vec::new();
        write(&mut bytes, "InitiatorName", "iqn.2026-11.org.example:a=b");
        write(&mut bytes, "SendTargets", "");
        let pairs = read(&bytes).unwrap();
        assert_eq!(pairs, [("InitiatorName", "iqn.2026-11.org.example:a=b"), ("SendTargets", "")]);
        for wrong in [&b"novalue\0"[..], b"=x\0", b"a b=c\0", b"a=\xff\0"] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(read(&b"a=b\0".repeat(129)).is_err());
    }

    #[test]
    fn values_are_numbers_and_bytes() {
        assert_eq!(
            (number("262144"), number("0x10"), number("+1")),
            (Some(262_144), Some(16), None)
        );
        assert_eq!((number(""), number("4294967296")), (None, None));
        assert_eq!(binary("0xABC", 2), Some(vec![0x0a, 0xbc]));
        assert_eq!(binary("0bAQI=", 2), Some(vec![1, 2]));
        assert_eq!((binary("0x010203", 2), binary("12", 2), binary("0x", 2)), (None, None, None));
    }
}
