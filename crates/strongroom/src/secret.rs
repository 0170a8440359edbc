//! Where the pool's secret comes from.

use std::path::PathBuf;

use clap::Args;
use strongroom_engine::Result;
use strongroom_engine::keys::Secret;

use crate::ask;
use crate::exit::usage;

/// How to get the secret of an encrypted pool.
#[derive(Args, Clone, Debug, Default)]
#[group(multiple = false)]
pub(crate) struct SecretArgs {
    /// The password of an encrypted pool is the content of this file (but for one line end)
    #[arg(long, value_name = "FILE", help_heading = "Secret of an encrypted pool")]
    password_file: Option<PathBuf>,
    /// The password is what this shell command prints
    #[arg(long, value_name = "COMMAND", help_heading = "Secret of an encrypted pool")]
    password_command: Option<String>,
    /// The secret is this file of at least 32 random bytes
    #[arg(long, value_name = "FILE", help_heading = "Secret of an encrypted pool")]
    key_file: Option<PathBuf>,
}

impl SecretArgs {
    /// Whether one is given by option.
    pub(crate) fn is_given(&self) -> bool {
        self.password_file.is_some() || self.password_command.is_some() || self.key_file.is_some()
    }

    /// The secret, when one is given by option or, failing that, by the environment.
    pub(crate) fn read(&self) -> Result<Option<Secret>> {
        if let Some(secret) = self.given()? {
            return Ok(Some(secret));
        }
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            password_file: variable("STRONGROOM_PASSWORD_FILE").map(PathBuf::from),
            password_command: variable("STRONGROOM_PASSWORD_COMMAND")
                .map(|command| command.to_string_lossy().into_owned()),
            key_file: variable("STRONGROOM_KEY_FILE").map(PathBuf::from),
        }
        .given()
    }

    /// The passphrase of a pool that an appliance gets, when one is given by option.
    pub(crate) fn passphrase(&self) -> anyhow::Result<Option<String>> {
        if self.key_file.is_some() || self.password_command.is_some() {
            let text = "an appliance takes a passphrase: give it with --password-file";
            return Err(usage(text));
        }
        ask::from_file(self.password_file.as_deref())
    }

    fn given(&self) -> Result<Option<Secret>> {
        if let Some(path) = &self.password_file {
            return Secret::passphrase_from_file(path).map(Some);
        }
        if let Some(command) = &self.password_command {
            return Secret::passphrase_from_command(command).map(Some);
        }
        self.key_file.as_deref().map(Secret::key_file).transpose()
    }
}

/// Asks for the password of a pool.
pub(crate) fn prompted() -> anyhow::Result<Secret> {
    let text = ask::secret(None, "Password of the pool")?.unwrap_or_default();
    Ok(Secret::passphrase(text.as_bytes())?)
}

/// Asks twice for the password of a new pool, where somebody is there.
pub(crate) fn prompted_new() -> anyhow::Result<Option<Secret>> {
    let text = ask::new_secret(None, "Password of the new pool")?;
    Ok(text.map(|text| Secret::passphrase(text.as_bytes())).transpose()?)
}

/// The new secret of a key slot.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct NewSecretArgs {
    /// The new password is the content of this file (but for one line end)
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
    /// The new password is what this shell command prints
    #[arg(long, value_name = "COMMAND")]
    new_password_command: Option<String>,
    /// The new secret is this file of at least 32 random bytes
    #[arg(long, value_name = "FILE")]
    new_key_file: Option<PathBuf>,
}

impl NewSecretArgs {
    /// The new passphrase of a pool of an appliance.
    pub(crate) fn passphrase(&self) -> anyhow::Result<String> {
        let file = self.new_password_file.as_deref();
        ask::from_file(file)?.ok_or_else(|| {
            usage("an appliance takes a passphrase: give it with --new-password-file")
        })
    }

    /// The secret; the command line's parser makes sure that there is one.
    pub(crate) fn read(&self) -> Result<Secret> {
        let args = SecretArgs {
            password_file: self.new_password_file.clone(),
            password_command: self.new_password_command.clone(),
            key_file: self.new_key_file.clone(),
        };
        args.given()?.ok_or(strongroom_engine::Error::SecretNeeded)
    }
}
