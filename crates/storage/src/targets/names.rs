//! Names of targets and groups.

use data_encoding::HEXLOWER;

use strongroom_catalog::Error as CatalogError;
use strongroom_catalog::targets::Target;

use crate::{Error, Result};

/// The longest name, in bytes.
const MAX_NAME: usize = 64;
/// What names of targets in iSCSI begin with, when nobody says another.
pub const TARGET_PREFIX: &str = "iqn.2026-11.io.strongroom";

/// The name, if it can be one.
pub(super) fn checked(what: &str, name: &str) -> Result<String> {
    let letters = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    match begins_well && name.len() <= MAX_NAME && name.chars().all(letters) {
        true => Ok(name.to_owned()),
        false => Err(Error::Invalid(format!(
            "the name of {what} has 1 to {MAX_NAME} letters, digits, `-`, `_` and `.`, and begins \
             with a letter or digit"
        ))),
    }
}

/// The name in iSCSI that a target gets: of the machine's, so that no two appliances have it.
pub(super) fn iqn(node: &str, name: &str) -> Result<String> {
    let letter = |c: char| match c.is_ascii_alphanumeric() || "-.".contains(c) {
        true => c.to_ascii_lowercase(),
        false => '-',
    };
    let part = |text: &str| text.chars().map(letter).collect::<String>();
    checked_iqn(&format!("{TARGET_PREFIX}:{}.{}", part(node), part(name)))
}

/// A name of iSCSI in its normal form, if it is one.
pub(super) fn checked_iqn(name: &str) -> Result<String> {
    strongroom_iscsi::name::normal(name).map_err(|error| Error::Invalid(error.to_string()))
}

/// A number for dialects.
pub(super) fn public_id() -> Result<String> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).map_err(|error| Error::Local {
        path: "/dev/urandom".into(),
        source: std::io::Error::from(error),
    })?;
    Ok(HEXLOWER.encode(&bytes))
}

/// What the database said, with the thing that there is already by its name for users.
pub(super) fn unique<T>(what: &str, result: strongroom_catalog::Result<T>) -> Result<T> {
    Ok(result.map_err(|error| match error {
        CatalogError::Exists { .. } => CatalogError::Exists { what: what.to_owned() },
        other => other,
    })?)
}

/// That a group can't go, because these targets have it.
pub(super) fn in_use(what: &str, name: &str, having: &[Target]) -> Error {
    let shown = having.iter().take(3).map(|target| target.name.as_str());
    let shown = shown.collect::<Vec<_>>().join(", ");
    let more = match having.len().saturating_sub(3) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Error::InUse(format!("the {what} {name} is that of {shown}{more}: give those another first"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_become_names_of_iscsi() {
        assert_eq!(checked("a target", "db_1.x").unwrap(), "db_1.x");
        for bad in ["", "-a", "a b", "a/b", "ä", &"a".repeat(65)] {
            assert!(checked("a target", bad).is_err(), "{bad}");
        }
        assert_eq!(iqn("Box.lan", "db_1").unwrap(), "iqn.2026-11.io.strongroom:box.lan.db-1");
        assert!(checked_iqn("disk").unwrap_err().to_string().contains("iqn."));
        assert_ne!(public_id().unwrap(), public_id().unwrap());
        assert_eq!(public_id().unwrap().len(), 40);
    }
}
