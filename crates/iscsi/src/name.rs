//! Names of initiators and targets (RFC 7143 section 4.2.7).

use crate::{Error, Result};

/// Bytes of the longest.
pub const LONGEST: usize = 223;

/// The name in its normal form, of small letters.
///
/// # Errors
/// [`Error::Name`]: it is none of `iqn.`, `eui.` and `naa.`, too long, or holds what names don't.
pub fn normal(name: &str) -> Result<String> {
    let lower = name.to_lowercase();
    let is_known = match lower.get(..4) {
        Some("iqn.") => lower.len() > 4,
        Some("eui.") => is_hexadecimal(&lower, &[16]),
        Some("naa.") => is_hexadecimal(&lower, &[16, 32]),
        _ => false,
    };
    // Letters beyond ASCII are allowed, if a name was prepared as RFC 3722 says.
    let is_allowed = |c: char| c.is_alphanumeric() || "-.:".contains(c);
    match is_known && lower.len() <= LONGEST && lower.chars().all(is_allowed) {
        true => Ok(lower),
        false => Err(Error::Name(name.chars().take(LONGEST).collect())),
    }
}

fn is_hexadecimal(name: &str, lengths: &[usize]) -> bool {
    let digits = name.get(4..).unwrap_or_default();
    lengths.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_three_kinds() {
        for good in
            ["iqn.2026-11.org.example:disk.1", "eui.02004567a425678d", "naa.52004567ba64678d"]
        {
            assert_eq!(normal(&good.to_uppercase()).ok().as_deref(), Some(good));
        }
        let long = format!("iqn.{}", "a".repeat(220));
        for bad in ["", "iqn.", "disk", "eui.12", "iqn.2026-11.org example", "iqn.a/b", &long] {
            assert!(normal(bad).is_err(), "{bad}");
        }
    }
}
