//! Passphrases of words, for the first administrator.
//!
//! The words are those of the Electronic Frontier Foundation's large list for dice
//! (<https://www.eff.org/files/2016/07/18/eff_large_wordlist.txt>, by Joseph Bonneau), without
//! the four that have a hyphen, under the Creative Commons Attribution 3.0 United States licence
//! (<https://creativecommons.org/licenses/by/3.0/us/>).

use zeroize::Zeroizing;

use crate::secret::{Secret, random};
use crate::{Error, Result};

const WORDS: &str = include_str!("words.txt");

/// How many words there are in one: over 51 bits.
const COUNT: usize = 4;

/// Makes a passphrase: four words, with hyphens between them.
///
/// # Errors
/// [`Error::Random`].
pub fn passphrase() -> Result<Secret, Error> {
    let words: Vec<&str> = WORDS.lines().collect();
    let mut text = Zeroizing::new(String::with_capacity(64));
    for i in 0..COUNT {
        if i > 0 {
            text.push('-');
        }
        text.push_str(words[below(words.len())?]);
    }
    Ok(Secret::new(text.as_str()))
}

/// A random number below this one, each as likely as any other.
fn below(count: usize) -> Result<usize> {
    let count = count as u32;
    // Numbers at the upper end would favour the first words.
    let end = u32::MAX - u32::MAX % count;
    loop {
        let number = u32::from_le_bytes(*random::<4>()?);
        if number < end {
            return Ok((number % count) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_words_are_many_different_and_plain() {
        let words: BTreeSet<&str> = WORDS.lines().collect();
        assert_eq!(words.len(), 7772);
        assert_eq!(words.len(), WORDS.lines().count());
        for word in words {
            assert!((3..=9).contains(&word.len()), "{word}");
            assert!(word.bytes().all(|c| c.is_ascii_lowercase()), "{word}");
        }
    }

    #[test]
    fn passphrases_have_four_words_and_differ() {
        let made: BTreeSet<String> =
            (0..100).map(|_| passphrase().unwrap().expose().to_owned()).collect();
        assert_eq!(made.len(), 100);
        for text in made {
            assert_eq!(text.split('-').count(), 4, "{text}");
            assert!(text.split('-').all(|word| WORDS.lines().any(|w| w == word)), "{text}");
        }
    }
}
