//! Versions of releases: numbers with points between, and what comes before a release (`-rc.1`), in
//! the order of <https://semver.org>; vendors of packages in Jidoteki's form have one to four numbers.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Characters of a version.
const LONGEST: usize = 64;
/// Numbers that it has.
const NUMBERS: usize = 4;

/// A version.
#[derive(Clone, Debug)]
pub struct Version {
    text: String,
    numbers: [u64; NUMBERS],
    /// Of what comes before the release; none: it is the release.
    before: Vec<Part>,
}

/// A part between points; numbers come before words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Number(u64),
    Word(String),
}

impl Version {
    /// That of this program.
    pub fn of_program() -> Self {
        env!("CARGO_PKG_VERSION").parse().expect("the program's version is one")
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(given: &str) -> Result<Self, String> {
        let wrong = || {
            let shown: String = given.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
            format!("`{shown}` is no version such as 1.2.3 or 1.2.3-rc.1")
        };
        let text = given.strip_prefix('v').unwrap_or(given);
        if text.len() > LONGEST {
            return Err(wrong());
        }
        let number = |part: &str| -> Option<u64> {
            let is_one =
                !part.is_empty() && part.len() <= 9 && part.bytes().all(|c| c.is_ascii_digit());
            is_one.then(|| part.parse().ok()).flatten()
        };
        let (release, before) = match text.split_once('-') {
            Some((release, before)) => (release, Some(before)),
            None => (text, None),
        };
        let mut numbers = [0; NUMBERS];
        let parts: Vec<_> = release.split('.').collect();
        if parts.len() > NUMBERS {
            return Err(wrong());
        }
        for (place, part) in numbers.iter_mut().zip(parts) {
            *place = number(part).ok_or_else(wrong)?;
        }
        let word = |part: &str| {
            let fine = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
            (!part.is_empty() && part.bytes().all(fine)).then(|| match number(part) {
                Some(number) => Part::Number(number),
                None => Part::Word(part.to_owned()),
            })
        };
        let before = before.into_iter().flat_map(|before| before.split('.'));
        let before = before.map(word).collect::<Option<_>>().ok_or_else(wrong)?;
        Ok(Self { text: text.to_owned(), numbers, before })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let before = match (self.before.is_empty(), other.before.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.before.cmp(&other.before),
        };
        self.numbers.cmp(&other.numbers).then(before)
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Version {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Version {}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn they_follow_each_other() {
        let order = [
            "0.1",
            "0.1.1-alpha",
            "0.1.1-alpha.1",
            "0.1.1-alpha.2",
            "0.1.1-alpha.10",
            "0.1.1-beta",
            "0.1.1",
            "0.2.0-1",
            "0.2.0",
            "0.10.0",
            "v1",
            "1.0.0.1",
            "2.0",
        ];
        let order: Vec<Version> = order.iter().map(|text| text.parse().unwrap()).collect();
        for pair in order.windows(2) {
            assert!(pair[0] < pair[1], "{} and {}", pair[0], pair[1]);
        }
        let of = |text: &str| text.parse::<Version>().unwrap();
        assert_eq!(of("1.0"), of("v1"));
        assert_eq!(of("v1.2.3").to_string(), "1.2.3");
        assert!(Version::of_program() > of("0.0.1"));
    }

    #[test]
    fn what_is_none_is_refused() {
        for bad in [
            "",
            "v",
            "vv1",
            "1.",
            ".1",
            "1..2",
            "1.2.3.4.5",
            "1.x",
            "-1",
            "1.2-",
            "1.2-a..b",
            "1.2-a/b",
            "1 ",
            " 1",
            "1.2.3+4",
            "1.9999999999",
            "../1",
            "1\n",
            "\u{0661}",
            &"1".repeat(70),
        ] {
            assert!(bad.parse::<Version>().is_err(), "{bad:?}");
        }
    }
}
