//! Dialects that are opened by API keys, and what a key may be allowed there.

use std::collections::BTreeSet;

use super::ngx;
use crate::problem::{Code, Problem, Result};

/// A dialect that API keys can be made for.
#[derive(Debug)]
pub(crate) struct KeyDialect {
    /// Its name, as keys have it.
    pub(crate) name: &'static str,
    /// Everything that a key may be allowed there.
    allowed: fn() -> BTreeSet<&'static str>,
}

/// Those that there are.
static ALL: &[KeyDialect] = &[KeyDialect { name: ngx::NAME, allowed: ngx::allowed }];

/// The dialect of that name.
pub(crate) fn of_keys(name: &str) -> Result<&'static KeyDialect> {
    let found = ALL.iter().find(|dialect| dialect.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = ALL.iter().map(|dialect| dialect.name).collect();
        let text =
            format!("there are no keys for `{name}`; the dialects are: {}", names.join(", "));
        Problem::new(Code::Invalid, text)
    })
}

impl KeyDialect {
    /// The full name of what may be allowed; `lun.read` is as good as `ngx.lun.read`.
    pub(crate) fn operation(&self, given: &str) -> Result<String> {
        let prefix = format!("{}.", self.name);
        let full = match given.starts_with(&prefix) {
            true => given.to_owned(),
            false => prefix.clone() + given,
        };
        let allowed = (self.allowed)();
        if allowed.contains(full.as_str()) {
            return Ok(full);
        }
        let names: Vec<_> =
            allowed.iter().map(|name| name.strip_prefix(&prefix).unwrap_or(name)).collect();
        let text = format!(
            "`{given}` is nothing that a key of the dialect {} may be allowed; there are: {}",
            self.name,
            names.join(", ")
        );
        Err(Problem::new(Code::Invalid, text))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_allowed_has_short_names_and_others_are_refused_with_the_list() {
        let ngx = of_keys("ngx").unwrap();
        assert_eq!(ngx.operation("lun.read").unwrap(), "ngx.lun.read");
        assert_eq!(ngx.operation("ngx.lun.read").unwrap(), "ngx.lun.read");
        assert_eq!(ngx.operation("lun.list").unwrap(), "ngx.lun.list");
        let refused = ngx.operation("lun.raed").unwrap_err();
        assert!(refused.detail().contains("`lun.raed`"), "{}", refused.detail());
        assert!(refused.detail().contains("lun.read, "), "{}", refused.detail());
        assert!(of_keys("jidoteki").unwrap_err().detail().contains("ngx"));
    }
}
