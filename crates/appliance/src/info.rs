//! What this program is: fixed when it was built. What the builder didn't say is not guessed.
//!
//! `STRONGROOM_COMMIT` and `SOURCE_DATE_EPOCH` in the builder's environment say of which source it
//! is made, so that the same source, built again, gives the same bytes.

use jiff::Timestamp;

/// What users notice of each version, newest first, in Markdown.
pub const CHANGELOG: &str = include_str!("../../../CHANGELOG.md");

/// What was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// The version.
    pub version: &'static str,
    /// The commit of its source.
    pub commit: Option<&'static str>,
    /// When that source was made: <https://reproducible-builds.org/specs/source-date-epoch/>.
    pub source_at: Option<Timestamp>,
    /// For which machines.
    pub target: &'static str,
    /// The compiler.
    pub rustc: Option<&'static str>,
}

impl Build {
    /// This program.
    pub fn this() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            commit: said(option_env!("STRONGROOM_COMMIT")),
            source_at: said(option_env!("SOURCE_DATE_EPOCH")).and_then(time),
            target: env!("STRONGROOM_TARGET"),
            rustc: said(option_env!("STRONGROOM_RUSTC")),
        }
    }
}

/// A variable that is empty says nothing.
fn said(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// Seconds since 1970.
fn time(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_not_known() {
        assert_eq!(said(None), None);
        assert_eq!(said(Some("")), None);
        assert_eq!(said(Some("5")), Some("5"));
        assert_eq!(time("1800000000").map(Timestamp::as_second), Some(1_800_000_000));
        for wrong in ["soon", "1.5", "", " 1", "99999999999999999", "9223372036854775808"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_program_knows_what_it_is() {
        let build = Build::this();
        assert!(build.target.contains(std::env::consts::ARCH), "{build:?}");
        assert!(build.rustc.is_some_and(|rustc| rustc.starts_with("rustc 1.")), "{build:?}");
        assert!(CHANGELOG.starts_with("# Changelog\n"));
    }
}
