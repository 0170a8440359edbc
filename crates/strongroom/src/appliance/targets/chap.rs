//! What initiators and targets prove to each other, as it is given on the command line.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::{Value, json};

use crate::ask;
use crate::exit::usage;

/// Names and secrets of CHAP.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct ChapArgs {
    /// What initiators prove: a name and a secret of 12 to 255 bytes. Others may see it among the
    /// processes of this machine: prefer --chap-file
    #[arg(long, value_name = "USER:SECRET", conflicts_with = "chap_file")]
    chap: Option<String>,
    /// It is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    chap_file: Option<PathBuf>,
    /// What the target proves to initiators that ask for it: another name and secret
    #[arg(long, value_name = "USER:SECRET", conflicts_with = "mutual_file")]
    mutual: Option<String>,
    /// It is the first line of this file, `-` of standard input
    #[arg(long, value_name = "FILE")]
    mutual_file: Option<PathBuf>,
}

/// Without what is secret.
impl std::fmt::Debug for ChapArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChapArgs").field("chap_file", &self.chap_file).finish_non_exhaustive()
    }
}

/// A name and a secret, as the API takes them.
fn credential(option: &str, text: &str) -> Result<Value> {
    match text.split_once(':') {
        Some((user, secret)) if !user.is_empty() => Ok(json!({ "user": user, "secret": secret })),
        // Never the text itself: it may be a secret.
        _ => Err(usage(format!("{option} is USER:SECRET, a name and a secret with `:` between"))),
    }
}

impl ChapArgs {
    /// What is said, under the names that the API has for it.
    pub(crate) fn add_to(&self, body: &mut Value) -> Result<()> {
        let given =
            [("chap", &self.chap, &self.chap_file), ("mutual", &self.mutual, &self.mutual_file)];
        for (name, text, file) in given {
            let text = match text {
                Some(text) => Some(text.clone()),
                None => ask::from_file(file.as_deref())?,
            };
            if let Some(text) = text {
                body[name] = credential(&format!("--{name}"), &text)?;
            }
        }
        Ok(())
    }

    /// Whether anything is said.
    pub(crate) fn is_given(&self) -> bool {
        self.chap.is_some()
            || self.chap_file.is_some()
            || self.mutual.is_some()
            || self.mutual_file.is_some()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_credential_is_a_name_and_a_secret_which_no_error_shows() {
        let body = credential("--chap", "user:secret:with:colons").unwrap();
        assert_eq!(body, json!({ "user": "user", "secret": "secret:with:colons" }));
        for bad in ["secretsecret12", ":secretsecret12"] {
            let error = credential("--chap", bad).unwrap_err().to_string();
            assert!(!error.contains("secretsecret12"), "{error}");
        }
        let args = ChapArgs { chap: Some("user:secretsecret12".into()), ..ChapArgs::default() };
        assert!(!format!("{args:?}").contains("secretsecret"));
        let mut body = json!({});
        args.add_to(&mut body).unwrap();
        assert_eq!(body, json!({ "chap": { "user": "user", "secret": "secretsecret12" } }));
    }
}
