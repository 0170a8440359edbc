//! `strongroom up`: the appliance, until it is told to stop.

mod chores;
mod config;
mod first;
mod follow;
mod launch;
mod listeners;
mod lock;
mod nbd;
mod notify;
mod once;
mod running;
mod secrets;
mod start;
mod status;
mod targets;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};
use strongroom_appliance::LogFile;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

pub(crate) use self::launch::launch;
#[cfg(test)]
pub(crate) use self::status::OPERATIONS;
pub(crate) use self::status::StatusArgs;
pub(crate) use self::status::run as status;
use crate::appliance::known;
use crate::exit::{Context, Done};

/// How long running jobs have to come to a point where they can be taken up again.
const DRAIN: Duration = Duration::from_secs(20);
/// How often the certificate's files are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long requests that are being answered have after that.
const GRACE: Duration = Duration::from_secs(8);

/// Run the appliance: pools, jobs, users, and the API over HTTPS
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The first run makes all that is missing in the data directory: a configuration file with every key
explained, the catalogue, a pool `main`, a certificate of its own, and the user `admin`, whose
passphrase is printed once. SIGTERM stops it: jobs that run go on at the next start. SIGHUP reads the
configuration again, and says in the log what takes effect only at the next start; a certificate that is
replaced is read again within seconds, or at SIGHUP.

Examples:
  strongroom up
  strongroom up --data /var/lib/strongroom --listen 0.0.0.0:8443")]
pub(crate) struct Args {
    /// The data directory; it is made when it is not there
    #[arg(long, value_name = "DIR", default_value = "strongroom-data")]
    data: PathBuf,
    /// Only say whether the configuration file can be understood
    #[arg(long)]
    check_config: bool,
    /// Where to listen for HTTPS; may be repeated [default: as configured, else 127.0.0.1:8443]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,
    /// Where to redirect from HTTP to HTTPS [default: as configured, else nowhere]
    #[arg(long, value_name = "ADDR:PORT")]
    redirect: Option<SocketAddr>,
    /// The catalogue's database, postgres://... [default: as configured, else a file]
    #[arg(long, value_name = "URL", env = "STRONGROOM_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// Write what the first run shows once (the passphrases) to this file, for its owner alone, and
    /// not to the output, which may be kept in a log
    #[arg(long, value_name = "FILE", env = "STRONGROOM_SECRETS_FILE")]
    secrets_file: Option<PathBuf>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    if args.check_config {
        config::Config::read(&args.data)?;
        return Ok(Done::Well);
    }
    let log = Log::begin()?;
    more_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let end = runtime.context("starting the runtime")?.block_on(serve(context, args, log))?;
    match end {
        End::Done => Ok(Done::Well),
        End::Again => Err(launch::again()),
    }
}

/// What is logged, which can be changed: on standard error, and in files as soon as it is known
/// where those are.
struct Log {
    /// None: the environment says it.
    change: Option<Box<dyn Fn(EnvFilter) -> bool + Send>>,
    /// Where it is kept.
    file: LogFile,
}

impl Log {
    fn begin() -> Result<Self> {
        use tracing_subscriber::layer::SubscriberExt;
        use tracing_subscriber::util::SubscriberInitExt;
        use tracing_subscriber::{fmt, reload};
        let told = EnvFilter::try_from_default_env().ok();
        let by_environment = told.is_some();
        let filter = told.unwrap_or_else(|| EnvFilter::new("info"));
        let (filter, handle) = reload::Layer::new(filter);
        let terminal = fmt::layer().with_writer(std::io::stderr);
        let terminal = terminal.with_ansi(std::io::stderr().is_terminal());
        let file = LogFile::default();
        let kept = file.clone();
        let files = fmt::layer().with_writer(move || kept.clone()).with_ansi(false);
        let all = tracing_subscriber::registry().with(filter).with(terminal).with(files);
        all.try_init().map_err(|error| anyhow::anyhow!("the log can't be set up: {error}"))?;
        let change = move |filter| handle.reload(filter).is_ok();
        Ok(Self { change: (!by_environment).then(|| Box::new(change) as _), file })
    }

    /// Logs what this says from now on; whether it does.
    fn set(&self, filter: EnvFilter) -> bool {
        self.change.as_ref().is_some_and(|change| change(filter))
    }
}

/// How it ended.
enum End {
    /// It was told to stop.
    Done,
    /// It is to start anew.
    Again,
}

/// As many open files as the system lets one have: each connection is one.
fn more_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the number of open files can't be raised");
    }
}

async fn serve(context: &Context, args: &Args, log: Log) -> Result<End> {
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    let Some(mut running) = start::start(args, log).await? else { return Ok(End::Again) };
    // Commands of the same user find it then; that they can't ends nothing.
    if let Err(error) = known::note(running.data()) {
        tracing::warn!("commands must be told --appliance: {error:#}");
    }
    running.tell(context)?;
    running.end_of_first_start().await?;
    notify::ready(&running.status());
    let (catalog, administration) = (running.catalog(), running.administration());
    let watch = notify::watch(move || {
        let catalog = catalog.clone();
        async move { catalog.answers().await.is_ok() }
    });
    let mut look = tokio::time::interval(LOOK);
    let end = loop {
        tokio::select! {
            _ = term.recv() => break End::Done,
            _ = int.recv() => break End::Done,
            () = administration.restarts() => break End::Again,
            _ = hup.recv() => {
                notify::reloading();
                running.reload(args).await;
                notify::ready(&running.status());
            }
            _ = look.tick() => running.refresh(),
        }
    };
    match end {
        End::Done => {
            notify::stopping("Stopping: jobs that run come to a point where they can go on");
            tracing::info!("stopping: no new work; jobs that run stop where they can go on");
        }
        // It keeps its number: for systemd it reads its files again until it is ready.
        End::Again => {
            notify::reloading();
            tracing::info!("starting anew: jobs that run stop where they can go on");
        }
    }
    if let Err(error) = known::forget(running.data()) {
        tracing::warn!("{error:#}");
    }
    running.stop(DRAIN, GRACE).await;
    if let Some(watch) = watch {
        watch.abort();
    }
    // Who told it to stop meanwhile is not to find it started.
    tokio::select! {
        biased;
        _ = term.recv() => Ok(End::Done),
        _ = int.recv() => Ok(End::Done),
        () = std::future::ready(()) => Ok(end),
    }
}
