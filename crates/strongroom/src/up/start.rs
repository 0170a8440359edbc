//! From a data directory to an appliance that serves.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use strongroom_api::server::{Certificate, Limits, Server, bind_control};
use strongroom_api::{AcmeHttps, App, Https, KeySealer, Machine};
use strongroom_appliance::backup::{Belongings, load, settle};
use strongroom_appliance::network::Network;
use strongroom_appliance::tls::TlsFiles;
use strongroom_appliance::updates::{catalogue_fits, need_catalogue};
use strongroom_appliance::{
    Acme, Administration, Parts, Settings, StorageOptions, SupportSetup, Upkeep,
};
use strongroom_catalog::{Catalog, Engine};
use strongroom_identity::{ApplianceKey, Deed, Identity};
use strongroom_protect::{Options, Protect};
use strongroom_storage::Storage;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::chores::chores;
use super::config::{Config, NAME};
use super::follow::{follow, limits};
use super::listeners::{Bound, Wanted};
use super::lock::Lock;
use super::nbd::{self, Nbd};
use super::once::Once;
use super::running::Running;
use super::secrets::SecretsFile;
use super::targets::Watch;
use super::{Args, Log};
use crate::appliance::SOCKET;

/// The file with the appliance's key.
const KEY: &str = "appliance.key";
/// How long it is waited for storage that is attached.
const ATTACH: Duration = Duration::from_secs(120);

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
    let (takeover, dialects, units) = (config.takeover()?, config.dialects()?, config.units()?);
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
    let bound_nbd = nbd::Bound::new(nbd::Wanted::of(&config, &data)?)?;
    let mut secrets = args.secrets_file.as_deref().map(SecretsFile::open).transpose()?;
    let mut once = Once::begin(&data, &identity, secrets.as_mut()).await?;

    let connect = Arc::new(AcmeHttps::connect);
    let acme = Acme::of(&data, identity.clone(), connect);
    // A pool may have a disk there.
    let attached = StorageOptions::of(&data, identity.clone(), config.storage_options());
    attached.apply_within(ATTACH, told_to_stop()?).await;
    let holder = format!("strongroom up, process {}", std::process::id());
    let sealer = Arc::new(KeySealer(identity.clone()));
    let storage = Storage::new(catalog.clone(), sealer, holder)?;
    storage.mounted_at(attached.mount_points());
    once.make_pool(&storage, &identity, &data, secrets).await?;
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
    let [cert, key] = config.certificate_files(&data);
    directory(&data.join("tls"))?;
    // A replacement that was cut off is ended before the certificate is read, and no job makes
    // another before that.
    let tls = TlsFiles::open(&cert, &key);
    let certificate = Arc::new(Certificate::open_or_make(&cert, &key, &config.names)?);
    let shown = Arc::clone(&certificate);
    tls.show_with(Arc::new(move || shown.reload().map_err(|error| error.to_string())));
    let (license_keys, updates) = (config.license_keys(&data), config.updates(&data));
    let setup = support(&config, args, &data, &tls);
    let named = license_keys.iter().chain(&setup.key);
    let named = named.chain(&updates.keys).chain(&updates.passphrase).cloned().collect();
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
    let machine =
        Machine::of(&data, license_keys, setup, &identity, &settings, administration.clone())
            .with_units(units);
    let chores = chores(
        upkeep,
        protect.clone(),
        settings.clone(),
        identity.clone(),
        administration,
        machine.hardware.clone(),
    );
    let tasks = [following, chores, sender, watching];
    let watched = identity.clone();
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
    let nbd = {
        let (storage, services) = (app.storage(), app.services());
        Nbd::start(bound_nbd, &data, storage, watched.clone(), &certificate, services)?
    };
    // Nothing can keep it from starting any more.
    app.storage().serve_targets(Arc::new(Watch::new(app.services().clone(), watched)));
    Ok(Running {
        data,
        app,
        server,
        certificate,
        tls,
        listeners,
        nbd,
        log,
        once,
        config,
        tasks,
        _lock: Arc::clone(lock),
    })
}

/// When the process is told to end. Who tells it while the start waits is obeyed when that is over.
fn told_to_stop() -> Result<impl Future<Output = ()>> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    })
}

/// What papers for support say of how it runs, and what they must not say.
fn support(config: &Config, args: &Args, data: &Path, tls: &TlsFiles) -> SupportSetup {
    let (configuration, mut hidden) = config.shown();
    if let Some(address) = &args.database {
        hidden.address(address);
    }
    if let Ok(password) = std::env::var("PGPASSWORD") {
        hidden.text(&password);
    }
    SupportSetup {
        configuration,
        hidden,
        secret_files: [data.join(KEY)].into_iter().chain(config.updates(data).passphrase).collect(),
        tls: Some(tls.clone()),
        key: config.support_key(data),
    }
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
