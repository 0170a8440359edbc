//! Options that are texts: first their characters are looked at, then how many there are, and what is wrong
//! is told in the original's words.

use super::answer::{Answer, Fault};

/// Digits and letters in the original's order, then the marks that an option may have beside them.
macro_rules! alphanumeric {
    ($marks:literal) => {
        concat!("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", $marks)
    };
}

pub(super) const ALPHANUMERIC: &str = alphanumeric!("");
pub(super) const NAME: &str = alphanumeric!(".-");
pub(super) const NAME_OR_ADDRESS: &str = alphanumeric!(".-:");
pub(super) const MOUNT_OPTIONS: &str = alphanumeric!(".-=,");
pub(super) const PATH: &str = alphanumeric!(".-_/");
pub(super) const TARGET: &str = alphanumeric!(".-_:");
pub(super) const DIGITS: &str = "0123456789";
pub(super) const ADDRESS: &str = "abcdef0123456789ABCDEF.:";
pub(super) const MASK: &str = "abcdef0123456789ABCDEF.:/";
/// All of ASCII that can be seen.
pub(super) const PRINTABLE: &str = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`\
     abcdefghijklmnopqrstuvwxyz{|}~";

/// What an option may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct TextOption {
    pub(super) name: &'static str,
    pub(super) characters: &'static str,
    pub(super) least: usize,
    pub(super) most: usize,
}

impl TextOption {
    /// The refusal of what has other characters, or is no text.
    pub(super) fn unfit(&self) -> Fault {
        let Self { name, characters, .. } = self;
        Fault::bad(format!("Missing or invalid string for option: {name}. Allowed: {characters}"))
    }

    /// Looks at it as it was sent.
    pub(super) fn check(&self, text: &str) -> Answer<()> {
        if !text.chars().all(|c| self.characters.contains(c)) {
            return Err(self.unfit());
        }
        let Self { name, least, most, .. } = self;
        if !(*least..=*most).contains(&text.chars().count()) {
            return Err(Fault::bad(format!(
                "Invalid string length for option: {name}. Allowed: >= {least} and <= {most}"
            )));
        }
        Ok(())
    }
}
