//! A PostgreSQL server for tests and benchmarks: the one that the catalogue's own tests start.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};

use anyhow::{Context, Result, bail};

use crate::{run, workspace};

/// The variable that tells tests of a server, see `strongroom_catalog::testing`.
pub(crate) const SERVER: &str = "STRONGROOM_TEST_POSTGRES";

/// A running server. It ends with this, or with the process.
#[derive(Debug)]
pub(crate) struct Postgres {
    url: String,
    /// What runs it, if that isn't somebody else.
    owner: Option<Child>,
}

impl Postgres {
    /// Starts one, or takes the one that the environment names.
    pub(crate) fn start() -> Result<Self> {
        if let Some(url) = std::env::var(SERVER).ok().filter(|url| !url.is_empty()) {
            return Ok(Self { url, owner: None });
        }
        run::heading("start PostgreSQL");
        let mut cargo = workspace::cargo();
        cargo.args(["run", "--quiet", "--package", "strongroom-catalog"]);
        cargo.args(["--features", "testing", "--example", "postgres"]);
        let mut owner = cargo
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("can't start `{}`", run::show(&cargo)))?;
        let mut url = String::new();
        let out = owner.stdout.take().context("standard output is piped")?;
        BufReader::new(out).read_line(&mut url)?;
        let server = Self { url: url.trim().to_owned(), owner: Some(owner) };
        if server.url.is_empty() {
            bail!("the tests' PostgreSQL did not start; see above");
        }
        Ok(server)
    }

    /// Where it is reached.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(owner) = &mut self.owner {
            drop(owner.stdin.take());
            let _ = owner.wait();
        }
    }
}
