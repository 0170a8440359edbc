//! What a first start tells once: the user's passphrase, that of the first pool, and what scripts set
//! their token with.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context as _, Result};
use strongroom_engine::id::RootId;
use strongroom_identity::{FirstRun, Identity, Secret};
use strongroom_storage::{NewPool, Storage};

use super::first::FirstStart;
use super::secrets::SecretsFile;

/// The first pool's name.
const POOL: &str = "main";

/// What a start has to tell that no other will; nothing when it isn't the first, or when it is in a
/// file.
#[derive(Debug)]
pub(super) struct Once {
    is_first: bool,
    first: Option<FirstRun>,
    /// The passphrase of a pool that was made.
    passphrase: Option<String>,
    /// Until it was told.
    mark: Option<FirstStart>,
}

impl Once {
    /// Makes the first user when there is none. What is to be told goes to the file, if there is one.
    pub(super) async fn begin(
        data: &Path,
        identity: &Identity,
        file: Option<&mut SecretsFile>,
    ) -> Result<Self> {
        let mut mark = FirstStart::begin(data)?;
        let mut first = identity.first_run(Some(mark.mark())).await?;
        if first.as_ref().is_some_and(|first| !first.again) {
            // A pool that was begun was that of another catalogue.
            mark.set_began_pool(false)?;
        }
        let is_first = identity.is_first_run(mark.mark()).await?;
        if let Some(file) = file
            && let Some(first) = first.take()
        {
            file.keep(&[("user", first.name), ("passphrase", first.passphrase.expose())])?;
            if let Some(token) = &first.token {
                file.keep(&[("setup-passphrase", token.expose())])?;
            }
            identity.first_run_told(mark.mark()).await?;
        }
        Ok(Self { is_first, first, passphrase: None, mark: Some(mark) })
    }

    /// Makes the first pool when it is the first start.
    pub(super) async fn make_pool(
        &mut self,
        storage: &Storage,
        identity: &Identity,
        data: &Path,
        file: Option<SecretsFile>,
    ) -> Result<()> {
        if let Some(mark) = self.mark.as_mut().filter(|_| self.is_first) {
            self.passphrase = main_pool(storage, identity, data, mark).await?;
        }
        let in_file = file.is_some();
        if let Some(mut file) = file {
            if let Some(passphrase) = self.passphrase.take() {
                file.keep(&[("pool", POOL), ("pool-passphrase", &passphrase)])?;
            }
            file.close()?;
        }
        if in_file || !self.is_first {
            self.end(identity).await?;
        }
        Ok(())
    }

    /// Whether there is something to tell.
    pub(super) fn is_secret(&self) -> bool {
        self.first.is_some() || self.passphrase.is_some()
    }

    /// All of it, in what a program reads.
    pub(super) fn add_to(&self, told: &mut serde_json::Value) {
        told["user"] = self.first.as_ref().map(|first| first.name).into();
        told["passphrase"] = self.first.as_ref().map(|first| first.passphrase.expose()).into();
        told["setup_passphrase"] = self.setup().map(Secret::expose).into();
        told["pool_passphrase"] = self.passphrase.as_deref().into();
    }

    /// All of it, for people.
    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        if let Some(first) = &self.first {
            writeln!(out, "\nThis is shown once; keep it:")?;
            writeln!(out, "  user          {}", first.name)?;
            writeln!(out, "  passphrase    {}", first.passphrase.expose())?;
        }
        if let Some(setup) = self.setup() {
            writeln!(out, "  setup         {}", setup.expose())?;
            writeln!(
                out,
                "The last sets the token of scripts for Jidoteki Admin, see docs/dialects."
            )?;
        }
        if let Some(passphrase) = &self.passphrase {
            writeln!(out, "  pool `{POOL}`   {passphrase}")?;
            writeln!(out, "Only this opens the pool when this data directory is lost.")?;
        }
        Ok(())
    }

    /// What the administration token is set with.
    fn setup(&self) -> Option<&Secret> {
        self.first.as_ref().and_then(|first| first.token.as_ref())
    }

    /// It was told.
    pub(super) async fn end(&mut self, identity: &Identity) -> Result<()> {
        let Some(start) = self.mark.take() else { return Ok(()) };
        let mark = start.mark().to_owned();
        // Without the file, nobody asks for what the catalogue has.
        start.end()?;
        Ok(identity.end_first_run(&mark).await?)
    }
}

/// Makes the first pool, or the rest of it when the start before was cut off; its passphrase.
async fn main_pool(
    storage: &Storage,
    identity: &Identity,
    data: &Path,
    mark: &mut FirstStart,
) -> Result<Option<String>> {
    let path = data.join("pools").join(POOL);
    let known = match storage.pool_named(POOL).await {
        Ok(pool) => Some(pool),
        Err(strongroom_storage::Error::Catalog(strongroom_catalog::Error::NotFound { .. })) => None,
        Err(error) => return Err(error.into()),
    };
    let passphrase = match known {
        Some(pool) if Path::new(&pool.path) == path => storage.passphrase(&pool).await?,
        Some(_) => None,
        None => {
            let free = || match fs::read_dir(&path) {
                Ok(mut names) => names.next().is_none(),
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
            };
            if free() {
                mark.set_began_pool(true)?;
            } else if mark.began_pool() {
                // It was free, and nobody was told what opens what is there now. Else it is not
                // ours, and making the pool refuses it.
                let aside = path.with_extension(RootId::random().to_string());
                fs::rename(&path, &aside)
                    .with_context(|| format!("moving {} aside", path.display()))?;
                tracing::warn!("a pool that was left half made is now {}", aside.display());
            }
            let owner = identity.root().await?.id;
            let made = storage.create_pool(NewPool::new(POOL, owner, path)).await;
            made.with_context(|| format!("making the pool {POOL}"))?.passphrase
        }
    };
    Ok(passphrase.map(|text| text.to_string()))
}
