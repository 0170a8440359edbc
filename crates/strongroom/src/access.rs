//! Opening the pool that a command is about.

use std::io::{ErrorKind, Write};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use strongroom_archive::sealed::{ClientKey, SealedSource};
use strongroom_archive::store::Source;
use strongroom_client::source::RemoteSource;
use strongroom_engine::clock::SystemClock;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::keys::Secret;
use strongroom_engine::pool::{OpenMode, OpenOptions, Place, Pool, Use};

use crate::appliance::{self, ApplianceArgs};
use crate::exit::{Context, usage};
use crate::secret::SecretArgs;
use crate::{ask, secret};

/// Which pool, and what opens it.
#[derive(Args, Clone, Debug)]
pub(crate) struct PoolArgs {
    /// The pool's directory, or the name of an appliance's pool [default: that of the appliance
    /// that runs here, or where you are logged in]
    #[arg(long, short = 'P', value_name = "DIR", env = "STRONGROOM_POOL")]
    pub(crate) pool: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) secret: SecretArgs,
    #[command(flatten)]
    pub(crate) appliance: ApplianceArgs,
}

impl PoolArgs {
    /// The pool's directory.
    pub(crate) fn dir(&self) -> Result<&Path> {
        let missing = || usage("which pool? Give --pool DIR, or set STRONGROOM_POOL");
        self.pool.as_deref().ok_or_else(missing)
    }

    /// Whether an appliance's pool is meant, and which: when none is named, its usual one; a name
    /// that is no directory is one of its pools.
    pub(crate) fn at_appliance(&self) -> Option<Option<&str>> {
        match &self.pool {
            None => Some(None),
            Some(path) => {
                let name = path.to_str().filter(|name| !name.contains('/') && !path.exists());
                name.map(Some)
            }
        }
    }

    /// Opens the pool for reading, wherever it is.
    fn read(&self, context: &Context) -> Result<Readable> {
        match self.at_appliance() {
            None => {
                let pool = self.open(context, OpenMode::Read)?;
                Ok(Readable::Own(Own { pool, args: self.clone() }))
            }
            Some(name) => {
                let source = Arc::new(appliance::read(self.appliance.client()?, name)?);
                context.interrupt.stops(&source);
                Ok(Readable::Remote(source))
            }
        }
    }

    /// The secret that is given; when the pool wants one and none is, it is asked for where
    /// somebody is there.
    pub(crate) fn opened<T>(
        &self,
        open: impl Fn(Option<&Secret>) -> strongroom_engine::Result<T>,
    ) -> Result<T> {
        let given = self.secret.read()?;
        match open(given.as_ref()) {
            Err(strongroom_engine::Error::SecretNeeded) if given.is_none() && ask::somebody() => {
                Ok(open(Some(&secret::prompted()?))?)
            }
            opened => Ok(opened?),
        }
    }

    /// Opens the pool. What it does is given up when this process is told to stop.
    pub(crate) fn open(&self, context: &Context, mode: OpenMode) -> Result<Arc<Pool>> {
        let pool = self.opening(context, mode)?;
        context.interrupt.stops(&pool);
        Ok(pool)
    }

    /// Opens the pool to write, for what is brought to its end when this process is told to stop.
    pub(crate) fn open_kept(&self, context: &Context) -> Result<Arc<Pool>> {
        self.opening(context, OpenMode::Write)
    }

    fn opening(&self, context: &Context, mode: OpenMode) -> Result<Arc<Pool>> {
        let disks = disks(&Place::find(self.dir()?)?);
        let used = used(context)?;
        let pool = self.opened(|secret| {
            let without_index = false;
            let options = OpenOptions { disks: disks.clone(), mode, secret, without_index };
            Pool::open(options, used.clone())
        })?;
        Ok(Arc::new(pool))
    }

    /// Opens the pool to write, and asks nobody for a password.
    pub(crate) fn open_unasked(&self, context: &Context) -> Result<Pool> {
        let secret = self.secret.read()?;
        let (disks, mode) = (disks(&Place::find(self.dir()?)?), OpenMode::Write);
        let options = OpenOptions { disks, mode, secret: secret.as_ref(), without_index: false };
        Ok(Pool::open(options, used(context)?)?)
    }

    /// Opens the pool to write, without its index if it is to be built anew; first writes
    /// superblocks anew that can't be read, and says of which disks.
    pub(crate) fn open_to_repair(
        &self,
        context: &Context,
        without_index: bool,
    ) -> Result<(Arc<Pool>, Vec<usize>)> {
        let disks = disks(&Place::find(self.dir()?)?);
        let (mode, used) = (OpenMode::Write, used(context)?);
        let (pool, mended) = self.opened(|secret| {
            let options = OpenOptions { disks: disks.clone(), mode, secret, without_index };
            let mended = Pool::mend_superblocks(&options, &used)?;
            Ok((Pool::open(options, used.clone())?, mended))
        })?;
        let pool = Arc::new(pool);
        context.interrupt.stops(&pool);
        Ok((pool, mended))
    }
}

/// Which pool, what opens it, and the key under which its images are sealed.
#[derive(Args, Clone, Debug)]
pub(crate) struct SealedPoolArgs {
    #[command(flatten)]
    pool: PoolArgs,
    /// Images are sealed under your own key, this file of at least 32 random bytes: only who has it
    /// can read them. Without it they are lost
    #[arg(
        long,
        value_name = "FILE",
        env = "STRONGROOM_CLIENT_KEY_FILE",
        hide_env_values = true,
        help_heading = "Your own key"
    )]
    client_key_file: Option<PathBuf>,
}

impl Deref for SealedPoolArgs {
    type Target = PoolArgs;

    fn deref(&self) -> &PoolArgs {
        &self.pool
    }
}

impl SealedPoolArgs {
    /// Whether images are sealed under a key of one's own.
    pub(crate) fn is_sealed(&self) -> bool {
        self.client_key_file.is_some()
    }

    /// What of a pool is sealed under that key, when there is one.
    pub(crate) fn sealed(
        &self,
        pool: Arc<dyn Source + Send + Sync>,
    ) -> Result<Option<SealedSource>> {
        let Some(path) = &self.client_key_file else { return Ok(None) };
        let key = ClientKey::new(&Secret::key_file(path)?);
        Ok(Some(SealedSource::new(pool, Arc::new(key))))
    }

    /// Opens the pool for reading, wherever it is; with a key, the images that are sealed under it.
    pub(crate) fn read(&self, context: &Context) -> Result<Readable> {
        let pool = self.pool.read(context)?;
        Ok(match self.sealed(pool.shared())? {
            None => pool,
            Some(sealed) => Readable::Sealed(sealed, Box::new(pool)),
        })
    }
}

/// A pool that this process has open to read.
#[derive(Debug)]
pub(crate) struct Own {
    pool: Arc<Pool>,
    /// What opens it to write, should something in it have to leave the index.
    args: PoolArgs,
}

/// A pool whose images are read: one's own, or one of an appliance.
#[derive(Debug)]
pub(crate) enum Readable {
    Own(Own),
    Remote(Arc<RemoteSource>),
    /// What is sealed under a key of one's own, and the pool that it lies in.
    Sealed(SealedSource, Box<Readable>),
}

impl Readable {
    /// The pool, if this process has it open: it has notices to tell.
    pub(crate) fn own(&self) -> Option<&Pool> {
        match self {
            Self::Own(own) => Some(&own.pool),
            Self::Remote(_) => None,
            Self::Sealed(_, pool) => pool.own(),
        }
    }

    /// As [`Readable::own`], when all has been read: what was found bad on the way is mended if it
    /// can be, and the notices tell.
    pub(crate) fn ended(&self, context: &Context) -> Option<&Pool> {
        match self {
            Self::Own(Own { pool, args }) => {
                pool.mend(|| args.open_unasked(context));
                Some(pool)
            }
            Self::Remote(_) => None,
            Self::Sealed(_, pool) => pool.ended(context),
        }
    }

    /// For who keeps it.
    pub(crate) fn shared(&self) -> Arc<dyn Source + Send + Sync> {
        match self {
            Self::Own(own) => own.pool.clone(),
            Self::Remote(source) => source.clone(),
            Self::Sealed(source, _) => Arc::new(source.clone()),
        }
    }
}

impl Deref for Readable {
    type Target = dyn Source + Send + Sync;

    fn deref(&self) -> &Self::Target {
        match self {
            Self::Own(own) => &*own.pool,
            Self::Remote(source) => &**source,
            Self::Sealed(source, _) => source,
        }
    }
}

/// The disks of a pool, as far as they can be opened.
pub(crate) fn disks(place: &Place) -> Vec<Option<Arc<dyn Disk>>> {
    let open = |path: &PathBuf| match FsDisk::open(path) {
        Ok(disk) => Some(Arc::new(disk) as Arc<dyn Disk>),
        // The engine says that the disk is missing.
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "note: {e}");
            None
        }
    };
    place.disks.iter().map(open).collect()
}

/// How this process uses a pool.
pub(crate) fn used(context: &Context) -> Result<Use> {
    let host = rustix::system::uname();
    let host = host.nodename().to_string_lossy();
    let process = std::process::id();
    let now = jiff::Timestamp::now().round(jiff::Unit::Second)?;
    let command = context.command;
    Ok(Use {
        clock: Arc::new(SystemClock::new()?),
        threads: std::thread::available_parallelism().map_or(1, usize::from),
        holder: format!("{host}, process {process}: strongroom {command}, since {now}"),
    })
}
