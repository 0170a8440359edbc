//! From a data directory to an appliance that serves.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use strongroom_api::server::{Certificate, Limits, Server, bind_control};
use strongroom_api::{AcmeHttps, App, Https, KeySealer, Machine, PAGE};
use strongroom_appliance::backup::{Belongings, load, settle};
use strongroom_appliance::network::Network;
use strongroom_appliance::tls::TlsFiles;
use strongroom_appliance::updates::{UpdateSetup, catalogue_fits, need_catalogue};
use strongroom_appliance::{
    Acme, Administration, Parts, Settings, StorageOptions, SupportSetup, Upkeep,
};
use strongroom_catalog::{Catalog, Engine};
use strongroom_engine::id::RootId;
use strongroom_identity::{ApplianceKey, Deed, FirstRun, Identity, Secret};
use strongroom_protect::{Options, Protect};
use strongroom_storage::{NewPool, Storage};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::chores::chores;
use super::config::{Config, NAME};
use super::first::FirstStart;
use super::follow::{follow, limits};
use super::listeners::{Bound, Listeners, Wanted};
use super::lock::Lock;
use super::secrets::SecretsFile;
use super::{Args, Log};
use crate::appliance::SOCKET;
use crate::exit::Context;

/// The file with the appliance's key.
const KEY: &str = "appliance.key";
/// How long it is waited for storage that is attached.
const ATTACH: Duration = Duration::from_secs(120);
/// The first pool's name.
const POOL: &str = "main";

/// An appliance that serves.
pub(super) struct Running {
    data: PathBuf,
    app: App,
    server: Server,
    certificate: Arc<Certificate>,
    /// The certificate's files, which an administrator may replace.
    tls: TlsFiles,
    listeners: Listeners,
    log: Log,
    first: Option<FirstRun>,
    /// Until it was told.
    mark: Option<FirstStart>,
    /// The passphrase of a pool that was made.
    passphrase: Option<String>,
    /// The configuration that is in force.
    config: Config,
    /// What goes on beside: giving the services what is set, chores, and sending the
    /// audit trail to a collector.
    tasks: [JoinHandle<()>; 4],
    _lock: Arc<Lock>,
}

/// Starts with what there is, or with the backup that was restored; when that fails, what was there
/// before is put back, and `None` says that the process is to start anew with it.
pub(super) async fn start(args: &Args, log: Log) -> Result<Option<Running>> {
    let data = directory(&args.data)?;
    let lock = Arc::new(Lock::take(&data)?);
    // Nobody else logs there, now.
    if let Err(error) = log.file.keep_in(&data) {
        tracing::warn!(%error, "the log is not kept in files");
    }
    // Before anything of it is opened.
    let trial = settle(&data)?;
    let Some(trial) = trial else {
        return match open(args, log, data.clone(), &lock).await {
            Ok(running) => {
                if let Err(error) = catalogue_fits(&data) {
                    tracing::warn!(%error, "nothing is known of releases");
                }
                Ok(Some(running))
            }
            // Put back by the next start, which has nothing of it open.
            Err(error) if is_newer(&error) => match need_catalogue(&data) {
                Ok(true) => {
                    tracing::warn!("the catalogue of before the update comes back: {error:#}");
                    Ok(None)
                }
                Ok(false) => Err(error),
                Err(unknown) => {
                    tracing::warn!(error = %unknown, "nothing is known of releases");
                    Err(error)
                }
            },
            Err(error) => Err(error),
        };
    };
    tracing::warn!("starting with the backup that was restored");
    match open(args, log, data, &lock).await {
        Ok(running) => {
            // Written down before it is kept: it is told twice rather than never.
            let who = running.app.identity().appliance().await?;
            let deed = Deed::new("system.backup.restored", "the appliance").detail(trial.told());
            if let Err(error) = running.app.identity().record(&who, deed).await {
                tracing::error!(%error, "the audit trail can't be written");
            }
            trial.keep()?;
            Ok(Some(running))
        }
        Err(error) => {
            // Put back by the next start, which has nothing of it open.
            trial.undo()?;
            tracing::error!(
                "the restored backup can't be started, what was there comes back: {error:#}"
            );
            Ok(None)
        }
    }
}

/// Whether a newer program has changed the catalogue.
fn is_newer(error: &anyhow::Error) -> bool {
    use strongroom_catalog::Error::Newer;
    matches!(error.downcast_ref(), Some(Newer { .. }))
}

async fn open(args: &Args, log: Log, data: PathBuf, lock: &Arc<Lock>) -> Result<Running> {
    let config = Config::open(&data)?;
    log.set(config.filter()?);
    // Where to listen may be an address that the machine has by its settings.
    let network = Network::new(&data, &config.host()?);
    if let Err(error) = network.settle() {
        tracing::error!("the network stays as it is: {error}");
    }
    // However long all else takes: the catalogue may be where the network no longer leads.
    let watching = tokio::spawn(network.clone().watch());
    let watched = watching.abort_handle();
    let opened = open_on(args, log, data, lock, config, network.clone(), watching).await;
    if opened.is_err() {
        watched.abort();
        // Nobody could confirm it.
        let gave_up = tokio::task::spawn_blocking(move || network.give_up()).await;
        if let Err(error) = gave_up.unwrap_or(Ok(())) {
            tracing::error!("a change of the network is not taken back: {error}");
        }
    }
    opened
}

/// With a network that is settled, and is looked after.
async fn open_on(
    args: &Args,
    log: Log,
    data: PathBuf,
    lock: &Arc<Lock>,
    config: Config,
    network: Network,
    watching: JoinHandle<()>,
) -> Result<Running> {
    let (takeover, configured) = (config.takeover()?, config.clone());
    let (dialects, units) = (config.dialects()?, config.units()?);
    let address = config.address(&data, args.database.as_deref())?;
    load(&data, &address).await.context("loading the restored catalogue")?;
    let catalog = Catalog::open(&address)
        .await
        .with_context(|| format!("opening the catalogue {address}"))?;
    let appliance_key = data.join(KEY);
    let key = ApplianceKey::open_or_create(&appliance_key)?;
    let identity = Identity::open(catalog.clone(), key).await?;
    identity.fetch_with(Arc::new(Https));

    // What can be in the way is met before anything is made that is shown only once.
    let bound = Bound::new(Wanted::of(args, &config)).await?;
    let mut secrets = args.secrets_file.as_deref().map(SecretsFile::open).transpose()?;
    let mut mark = FirstStart::begin(&data)?;
    let mut first = identity.first_run(Some(mark.mark())).await?;
    if first.as_ref().is_some_and(|first| !first.again) {
        // A pool that was begun was that of another catalogue.
        mark.set_began_pool(false)?;
    }
    let is_first = identity.is_first_run(mark.mark()).await?;
    if let Some(file) = &mut secrets
        && let Some(first) = first.take()
    {
        file.keep(&[("user", first.name), ("passphrase", first.passphrase.expose())])?;
        if let Some(token) = &first.token {
            file.keep(&[("setup-passphrase", token.expose())])?;
        }
        identity.first_run_told(mark.mark()).await?;
    }

    let connect = Arc::new(AcmeHttps::connect);
    let acme = Acme::of(&data, identity.clone(), connect);
    // A pool may have a disk there.
    let attached = StorageOptions::of(&data, identity.clone(), config.storage_options());
    // Who stops it while it waits is obeyed when the start is over.
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    attached.apply_within(ATTACH, stop).await;
    let holder = format!("strongroom up, process {}", std::process::id());
    let sealer = Arc::new(KeySealer(identity.clone()));
    let storage = Storage::new(catalog.clone(), sealer, holder)?;
    storage.mounted_at(attached.mount_points());
    let mut passphrase = match is_first {
        true => main_pool(&storage, &identity, &data, &mut mark).await?,
        false => None,
    };
    let in_file = secrets.is_some();
    if let Some(mut file) = secrets {
        if let Some(passphrase) = passphrase.take() {
            file.keep(&[("pool", POOL), ("pool-passphrase", &passphrase)])?;
        }
        file.close()?;
    }
    let mut mark = Some(mark);
    if in_file || !is_first {
        end_of_first_start(&identity, &mut mark).await?;
    }
    // The lock keeps all others from a catalogue in a file.
    let sole = catalog.engine() == Engine::Sqlite;
    if sole {
        strongroom_api::route::forget_cut_off(&catalog).await?;
    }
    let settings = Settings::open(identity.clone()).await?;
    let limits = limits(&settings.current());
    let mut options = Options { sole, limits, ..Options::default() };
    if let Some(lease) = takeover {
        options.lease = lease;
    }
    let worker = options.worker.clone();
    let [cert, key] = certificate_files(&data, &config);
    directory(&data.join("tls"))?;
    // A replacement that was cut off is ended before the certificate is read, and no job makes
    // another before that.
    let tls = TlsFiles::open(&cert, &key);
    let certificate = Arc::new(Certificate::open_or_make(&cert, &key, &config.names)?);
    let shown = Arc::clone(&certificate);
    tls.show_with(Arc::new(move || shown.reload().map_err(|error| error.to_string())));
    let license_keys: Vec<_> = config.license_keys.iter().map(|path| data.join(path)).collect();
    let support_key = config.support_key.map(|path| data.join(path));
    let updates = UpdateSetup {
        keys: config.update_keys.iter().map(|path| data.join(path)).collect(),
        passphrase: config.update_passphrase.map(|path| data.join(path)),
        scripts: config.update_scripts,
    };
    let named = license_keys.iter().chain(&support_key);
    let named = named.chain(&updates.keys).chain(&updates.passphrase).cloned().collect();
    let secret_files = [Some(data.join(KEY)), updates.passphrase.clone()];
    let belongings = Belongings {
        catalog: catalog.clone(),
        address,
        address_given: args.database.is_some(),
        configuration: data.join(NAME),
        appliance_key,
        named_keys: named,
        check_configuration: Config::check,
    };
    let (program, installed) = (super::launch::program().ok(), super::launch::installed());
    let parts = Parts::new(&data, tls.clone())
        .with(belongings)
        .with_network(network)
        .with_storage(attached)
        .with_acme(acme.clone())
        .updated_by(updates, program.as_deref(), installed.as_deref());
    let protect = Protect::start_with(storage, parts.works(), options).await?;
    let administration = Administration::new(parts, protect.clone());
    let following = follow(&settings, &identity, protect.engine());
    let upkeep = Upkeep::new(catalog.clone(), settings.clone(), worker);
    let sending = identity.clone();
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let sender = tokio::spawn(async move { sending.send_audit(&host).await });
    let chores =
        chores(upkeep, protect.clone(), settings.clone(), identity.clone(), administration.clone());
    let tasks = [following, chores, sender, watching];
    let (shown, mut hidden) = configured.shown();
    if let Some(address) = &args.database {
        hidden.address(address);
    }
    if let Ok(password) = std::env::var("PGPASSWORD") {
        hidden.text(&password);
    }
    let setup = SupportSetup {
        configuration: shown,
        hidden,
        secret_files: secret_files.into_iter().flatten().collect(),
        tls: Some(tls.clone()),
        key: support_key,
    };
    let machine = Machine::of(&data, license_keys, setup, &identity, &settings, administration)
        .with_units(units);
    let app = App::new(catalog, identity, protect, settings, machine);
    app.metrics().certificate(certificate.not_after());
    let usual = Limits::default();
    let connections = config.connections.unwrap_or(usual.connections);
    let limits = Limits { connections, ..usual };
    let mut server =
        Server::new(strongroom_api::router(&app, &dialects), limits, app.services().clone());
    server.answer(acme.challenges());
    let listeners = bound.serve(&mut server, &certificate)?;
    let socket = data.join(SOCKET);
    server.control(bind_control(&socket)?, &socket);
    Ok(Running {
        data,
        app,
        server,
        certificate,
        tls,
        listeners,
        log,
        first,
        mark,
        passphrase,
        config: configured,
        tasks,
        _lock: Arc::clone(lock),
    })
}

/// The files of the certificate and of its key.
fn certificate_files(data: &Path, config: &Config) -> [PathBuf; 2] {
    let file = |path: &Option<PathBuf>, usual: &str| {
        data.join(path.as_deref().unwrap_or(Path::new(usual)))
    };
    [file(&config.certificate, "tls/cert.pem"), file(&config.key, "tls/key.pem")]
}

/// Makes a directory for its owner alone, and gives its absolute path.
fn directory(path: &Path) -> Result<PathBuf> {
    let mut make = fs::DirBuilder::new();
    let made = make.recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("making the directory {}", path.display()))?;
    let path = fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
        .with_context(|| format!("making {} private", path.display()))?;
    Ok(path)
}

async fn end_of_first_start(identity: &Identity, mark: &mut Option<FirstStart>) -> Result<()> {
    let Some(start) = mark.take() else { return Ok(()) };
    let mark = start.mark().to_owned();
    // Without the file, nobody asks for what the catalogue has.
    start.end()?;
    Ok(identity.end_first_run(&mark).await?)
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

impl Running {
    /// Its data directory, from the root.
    pub(super) fn data(&self) -> &Path {
        &self.data
    }

    /// In a line, what it does.
    pub(super) fn status(&self) -> String {
        format!("Serves {} at {}", self.data.display(), self.urls().join(", "))
    }

    fn urls(&self) -> Vec<String> {
        self.listeners.addresses().iter().map(|address| format!("https://{address}")).collect()
    }

    /// What is known.
    pub(super) fn catalog(&self) -> Catalog {
        self.app.catalog().clone()
    }

    /// Says where it is, and what is said only once; who reads it may be gone when it starts anew.
    pub(super) fn tell(&self, context: &Context) -> Result<()> {
        let secret = self.first.is_some() || self.passphrase.is_some();
        match self.say(context, secret) {
            Err(error) if !secret => {
                tracing::warn!("nobody can be told where it serves: {error:#}");
                Ok(())
            }
            said => said,
        }
    }

    fn say(&self, context: &Context, secret: bool) -> Result<()> {
        // What is said only once is said.
        if context.out.quiet && !secret {
            return Ok(());
        }
        let urls = self.urls();
        let mut out = std::io::stdout().lock();
        if context.out.json {
            let told = serde_json::json!({
                "data": self.data,
                "urls": urls,
                "docs": PAGE,
                "certificate_sha256": self.certificate.fingerprint(),
                "user": self.first.as_ref().map(|first| first.name),
                "passphrase": self.first.as_ref().map(|first| first.passphrase.expose()),
                "setup_passphrase": self.setup().map(Secret::expose),
                "pool_passphrase": self.passphrase,
            });
            writeln!(out, "{told}")?;
            return Ok(out.flush()?);
        }
        writeln!(out, "Strongroom serves {}", self.data.display())?;
        for url in &urls {
            writeln!(out, "  API           {url}/v1")?;
            writeln!(out, "  docs          {url}{PAGE}")?;
        }
        writeln!(out, "  certificate   SHA-256 {}", self.certificate.fingerprint())?;
        writeln!(out, "  configuration {}", self.data.join(NAME).display())?;
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
        Ok(out.flush()?)
    }

    /// What the administration token is set with.
    fn setup(&self) -> Option<&Secret> {
        self.first.as_ref().and_then(|first| first.token.as_ref())
    }

    /// What is said only once was said.
    pub(super) async fn end_of_first_start(&mut self) -> Result<()> {
        end_of_first_start(self.app.identity(), &mut self.mark).await
    }

    /// Reads the configuration and the certificate again.
    pub(super) async fn reload(&mut self, args: &Args) {
        match Config::read(&self.data) {
            Ok(config) => self.configure(args, config).await,
            Err(error) => tracing::error!("the configuration stays as it was: {error:#}"),
        }
        self.told(self.certificate.reload().map(|()| true));
    }

    /// What can change while it runs, changes; the rest is said.
    async fn configure(&mut self, args: &Args, config: Config) {
        if self.config.log != config.log {
            self.log_as(&config);
            self.config.log.clone_from(&config.log);
        }
        for key in self.config.only_at_start(&config) {
            tracing::warn!("`{key}` was changed: it takes effect at the next start");
        }
        if self.config.connections != config.connections {
            let most = config.connections.unwrap_or(Limits::default().connections);
            self.server.set_connections(most);
            tracing::info!("{most} clients may be connected at once");
            self.config.connections = config.connections;
        }
        let files = certificate_files(&self.data, &config);
        if certificate_files(&self.data, &self.config) != files {
            match self.certificate.take(&files[0], &files[1]) {
                Ok(()) => {
                    self.tls.take(&files[0], &files[1]);
                    tracing::info!("the certificate is that of {}", files[0].display());
                    self.config.certificate.clone_from(&config.certificate);
                    self.config.key.clone_from(&config.key);
                }
                Err(error) => tracing::error!(%error, "the certificate stays as it was"),
            }
        }
        let given = [
            ("listen", !args.listen.is_empty(), self.config.listen != config.listen),
            ("redirect", args.redirect.is_some(), self.config.redirect != config.redirect),
        ];
        for (key, _, _) in given.into_iter().filter(|(_, wins, changed)| *wins && *changed) {
            tracing::warn!("`{key}` was changed: --{key} of the command still wins");
        }
        let wanted = Wanted::of(args, &config);
        match self.listeners.change(&mut self.server, &self.certificate, wanted).await {
            Ok(changed) => {
                if changed {
                    tracing::info!("it listens at {}", self.urls().join(", "));
                }
                self.config.listen = config.listen;
                self.config.redirect = config.redirect;
            }
            Err(error) => tracing::error!("it listens where it did: {error:#}"),
        }
        tracing::info!("the configuration was read again");
    }

    /// Tells when it is to start anew.
    pub(super) fn administration(&self) -> Administration {
        self.app.administration().clone()
    }

    fn log_as(&self, config: &Config) {
        let level = config.log.as_deref().unwrap_or("info");
        match config.filter().map(|filter| self.log.set(filter)) {
            Ok(true) => tracing::info!("the log is that of `{level}`"),
            Ok(false) => {
                tracing::warn!("`log` was changed: RUST_LOG of the environment still wins")
            }
            Err(error) => tracing::error!("the log stays as it was: {error:#}"),
        }
    }

    /// Reads the certificate again if its files were replaced.
    pub(super) fn refresh(&self) {
        self.told(self.certificate.refresh());
        self.app.metrics().certificate(self.certificate.not_after());
    }

    /// Says what came of reading the certificate again.
    fn told(&self, read: strongroom_api::Result<bool>) {
        match read {
            Ok(true) => {
                self.app.metrics().certificate(self.certificate.not_after());
                tracing::info!("the certificate was read again");
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%error, "the certificate stays as it was"),
        }
    }

    /// Ends: no new work, jobs go back to the queue, requests are answered.
    pub(super) async fn stop(self, drain: Duration, grace: Duration) {
        let Self { app, server, tasks, .. } = self;
        tasks.iter().for_each(JoinHandle::abort);
        app.protect().engine().drain(drain).await;
        server.stop(grace).await;
        app.storage().close_all().await;
        app.catalog().close().await;
    }
}
