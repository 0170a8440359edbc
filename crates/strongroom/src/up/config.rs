//! The configuration file: made at the first run, with every key explained.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use strongroom_api::Dialects;
use strongroom_api::dialects::{jidoteki, ngx};
use strongroom_appliance::network::{CONFIRM, HostSetup};
use strongroom_appliance::updates::UpdateSetup;
use strongroom_appliance::{Hidden, StorageKind, Units};
use strongroom_catalog::Address;
use tracing_subscriber::EnvFilter;

use super::nbd::Access;

/// Its name in the data directory.
pub(super) const NAME: &str = "strongroom.toml";
/// Bytes that it has at most.
const MAX: u64 = 1 << 20;

/// What is written when there is none.
const TEMPLATE: &str = include_str!("strongroom.toml");

/// What can be configured.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    pub(super) listen: Vec<SocketAddr>,
    pub(super) redirect: Option<SocketAddr>,
    pub(super) database: Option<String>,
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) names: Vec<String>,
    pub(super) connections: Option<usize>,
    jidoteki_endpoints: Option<Vec<String>>,
    jidoteki_open_setup: bool,
    ngx_api: Option<String>,
    takeover: Option<u64>,
    pub(super) log: Option<String>,
    license_keys: Vec<PathBuf>,
    support_key: Option<PathBuf>,
    host_driver: Option<String>,
    host_root: Option<PathBuf>,
    network_confirm: Option<u64>,
    update_keys: Vec<PathBuf>,
    update_passphrase: Option<PathBuf>,
    update_scripts: bool,
    service_units: Vec<String>,
    storage_options: Option<Vec<StorageKind>>,
    pub(super) nbd: Vec<SocketAddr>,
    pub(super) nbd_clients: Option<PathBuf>,
    pub(super) nbd_access: Option<BTreeMap<String, Vec<String>>>,
}

impl Config {
    /// How long another node may be silent.
    pub(super) fn takeover(&self) -> Result<Option<Duration>> {
        let Some(seconds) = self.takeover else { return Ok(None) };
        anyhow::ensure!((2..=3600).contains(&seconds), "takeover: it takes 2 to 3600 seconds");
        Ok(Some(Duration::from_secs(seconds)))
    }

    /// What of the dialects is configured.
    pub(super) fn dialects(&self) -> Result<Dialects> {
        for name in self.jidoteki_endpoints.iter().flatten() {
            let all = jidoteki::OPTIONAL;
            anyhow::ensure!(
                all.contains(&name.as_str()),
                "jidoteki_endpoints: there is no `{name}`; those that can be left out are {}",
                all.join(", ")
            );
        }
        let jidoteki = jidoteki::Options {
            open_setup: self.jidoteki_open_setup,
            endpoints: self.jidoteki_endpoints.clone(),
        };
        let shapes = self.ngx_api.as_deref().map_or(Ok(ngx::Shapes::default()), str::parse);
        let shapes = shapes.map_err(|why| anyhow::anyhow!("ngx_api: {why}"))?;
        Ok(Dialects { jidoteki, ngx: ngx::Options { shapes } })
    }

    /// Services of the machine that are told of.
    pub(super) fn units(&self) -> Result<Units> {
        let units = Units::new(self.service_units.clone());
        units.map_err(|why| anyhow::anyhow!("service_units: {why}"))
    }

    /// Who brings the settings of the network to the machine.
    pub(super) fn host(&self) -> Result<HostSetup> {
        let usual = HostSetup::default();
        let driver = self.host_driver.as_deref().map_or(Ok(usual.driver), str::parse);
        let driver = driver.map_err(|why| anyhow::anyhow!("host_driver: {why}"))?;
        let (least, most, _) = CONFIRM;
        let confirm = self.network_confirm.unwrap_or(usual.confirm);
        let fits = (least..=most).contains(&confirm);
        anyhow::ensure!(fits, "network_confirm: it takes {least} to {most} seconds");
        let root = self.host_root.clone().unwrap_or(usual.root);
        anyhow::ensure!(root.is_absolute(), "host_root: it takes a path from the root");
        Ok(HostSetup { driver, root, confirm })
    }

    /// The files of the certificate and of its key.
    pub(super) fn certificate_files(&self, data: &Path) -> [PathBuf; 2] {
        let file = |path: &Option<PathBuf>, usual: &str| {
            data.join(path.as_deref().unwrap_or(Path::new(usual)))
        };
        [file(&self.certificate, "tls/cert.pem"), file(&self.key, "tls/key.pem")]
    }

    /// The keys of vendors of licences.
    pub(super) fn license_keys(&self, data: &Path) -> Vec<PathBuf> {
        self.license_keys.iter().map(|path| data.join(path)).collect()
    }

    /// The key of who may read bundles for support.
    pub(super) fn support_key(&self, data: &Path) -> Option<PathBuf> {
        self.support_key.as_ref().map(|path| data.join(path))
    }

    /// Whose updates are taken.
    pub(super) fn updates(&self, data: &Path) -> UpdateSetup {
        UpdateSetup {
            keys: self.update_keys.iter().map(|path| data.join(path)).collect(),
            passphrase: self.update_passphrase.as_ref().map(|path| data.join(path)),
            scripts: self.update_scripts,
        }
    }

    /// The kinds of storage that may be attached; none: all.
    pub(super) fn storage_options(&self) -> Option<Vec<StorageKind>> {
        self.storage_options.clone()
    }

    /// The certificates of those who sign those of clients of NBD.
    pub(super) fn nbd_clients(&self, data: &Path) -> Option<PathBuf> {
        self.nbd_clients.as_ref().map(|path| data.join(path))
    }

    /// NBD knows no passwords: who may come is said, or nobody can.
    fn check_nbd(&self) -> Result<()> {
        anyhow::ensure!(
            self.nbd.is_empty() || self.nbd_clients.is_some(),
            "nbd: name the certificates of those who sign the clients' ones, too (`nbd_clients`): \
             NBD knows no passwords, and only who shows such a certificate is let in"
        );
        self.nbd_access().map(drop)
    }

    /// Which volumes clients of NBD may have, by the names in their certificates.
    pub(super) fn nbd_access(&self) -> Result<Access> {
        Access::of(self.nbd_access.as_ref())
    }

    /// What it says, but for what is secret in it, which others must not see.
    pub(super) fn shown(&self) -> (Value, Hidden) {
        let (mut shown, mut hidden) = (self.clone(), Hidden::default());
        if let Some(text) = self.database.as_deref().filter(|text| text.contains("://")) {
            hidden.address(text);
            // Its place alone is shown.
            let address = text.parse().map(|address: Address| address.to_string());
            shown.database = Some(address.unwrap_or_else(|_| "[hidden]".into()));
        }
        (serde_json::to_value(shown).unwrap_or_default(), hidden)
    }

    /// Reads it; makes it when there is none.
    pub(super) fn open(data: &Path) -> Result<Self> {
        let path = data.join(NAME);
        if !path.exists() {
            let mut options = fs::OpenOptions::new();
            let file = options.write(true).create_new(true).mode(0o600).open(&path);
            file.and_then(|mut file| file.write_all(TEMPLATE.as_bytes()))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        Self::read(data)
    }

    /// Reads it.
    pub(super) fn read(data: &Path) -> Result<Self> {
        let path = data.join(NAME);
        let reading = || format!("reading {}", path.display());
        anyhow::ensure!(
            fs::metadata(&path).with_context(reading)?.len() <= MAX,
            "{} has more than {MAX} bytes: that is no configuration",
            path.display()
        );
        let text = fs::read_to_string(&path).with_context(reading)?;
        Self::of_text(&text).map_err(|why| anyhow::anyhow!("{}, {why}", path.display()))
    }

    /// The error of the parser may show the line, and in it the database's password.
    fn of_text(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            format!("line {line}: {}", error.message())
        })?;
        config.filter().map_err(|error| error.to_string())?;
        config.check_nbd().map_err(|error| error.to_string())?;
        Ok(config)
    }

    /// What is logged.
    pub(super) fn filter(&self) -> Result<EnvFilter> {
        let text = self.log.as_deref().unwrap_or("info");
        let filter = EnvFilter::try_new(text);
        filter.map_err(|error| anyhow::anyhow!("log: `{text}` is no level of the log: {error}"))
    }

    /// Where the catalogue is: as the command says, else as is configured, else in a file.
    pub(super) fn address(&self, data: &Path, given: Option<&str>) -> Result<Address> {
        Ok(match given.or(self.database.as_deref()) {
            Some(text) if text.contains("://") => text.parse()?,
            Some(path) => Address::Sqlite(data.join(path)),
            None => Address::Sqlite(data.join("catalogue.db")),
        })
    }

    /// Where the catalogue is by the text of such a file, or what is wrong with that.
    pub(super) fn check(text: &str, data: &Path) -> Result<Address, String> {
        let config = Self::of_text(text)?;
        config.takeover().map_err(|error| error.to_string())?;
        config.host().map_err(|error| error.to_string())?;
        config.units().map_err(|error| error.to_string())?;
        config.dialects().map_err(|error| error.to_string())?;
        config.address(data, None).map_err(|error| error.to_string())
    }

    /// The keys that differ, of those that take effect only at a start.
    pub(super) fn only_at_start(&self, other: &Self) -> Vec<&'static str> {
        let keys = [
            ("database", self.database == other.database),
            ("names", self.names == other.names),
            ("takeover", self.takeover == other.takeover),
            ("jidoteki_endpoints", self.jidoteki_endpoints == other.jidoteki_endpoints),
            ("jidoteki_open_setup", self.jidoteki_open_setup == other.jidoteki_open_setup),
            ("ngx_api", self.ngx_api == other.ngx_api),
            ("license_keys", self.license_keys == other.license_keys),
            ("support_key", self.support_key == other.support_key),
            ("host_driver", self.host_driver == other.host_driver),
            ("host_root", self.host_root == other.host_root),
            ("network_confirm", self.network_confirm == other.network_confirm),
            ("update_keys", self.update_keys == other.update_keys),
            ("update_passphrase", self.update_passphrase == other.update_passphrase),
            ("update_scripts", self.update_scripts == other.update_scripts),
            ("service_units", self.service_units == other.service_units),
            ("storage_options", self.storage_options == other.storage_options),
        ];
        keys.into_iter().filter(|(_, same)| !same).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_template_is_valid_with_and_without_its_comments() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::open(dir.path()).unwrap();
        assert!(config.listen.is_empty() && config.database.is_none());
        let keys = TEMPLATE.lines().filter_map(|line| line.strip_prefix("# "));
        let keys: Vec<_> = keys.filter(|line| line.contains(" = ")).collect();
        let config: Config = toml::from_str(&keys.join("\n")).unwrap();
        assert_eq!(config.connections, Some(2048));
        assert_eq!(config.takeover().unwrap(), Some(Duration::from_secs(30)));
        assert_eq!(config.dialects().unwrap().jidoteki.endpoints.unwrap(), jidoteki::OPTIONAL);
        assert_eq!(config.dialects().unwrap().ngx.shapes, ngx::Shapes::V23);
        assert_eq!(config.log.as_deref(), Some("info"));
        assert_eq!(config.storage_options().unwrap(), StorageKind::ALL);
        let host = config.host().unwrap();
        assert_eq!((host.driver.word(), host.confirm), ("none", 60));
        assert_eq!(host.root, Path::new("/"));
        assert_eq!(config.service_units, ["ssh.service", "chrony.service"]);
        assert_eq!(keys.len(), 25);
        assert_eq!(config.nbd, ["127.0.0.1:10809".parse().unwrap()]);
        assert_eq!(config.nbd_clients(dir.path()).unwrap(), dir.path().join("nbd-clients.pem"));
    }

    #[test]
    fn it_is_shown_without_its_password() {
        let config = Config {
            database: Some("postgres://u:hunter2@host/db?password=hunter3".into()),
            connections: Some(7),
            ..Config::default()
        };
        let (shown, _) = config.shown();
        assert_eq!(shown["database"], "postgres://host/db");
        assert_eq!(shown["connections"], 7);
        let wrong = Config { database: Some("mysql://u:hunter2@host".into()), ..config };
        assert!(!wrong.shown().0.to_string().contains("hunter"), "{:?}", wrong.shown());
        let file = Config { database: Some("x.db".into()), ..Config::default() };
        assert_eq!(file.shown().0["database"], "x.db");
    }

    #[test]
    fn endpoints_that_are_not_there_are_named() {
        let config: Config = toml::from_str("jidoteki_endpoints = [\"version\"]").unwrap();
        let error = config.dialects().unwrap_err().to_string();
        assert!(error.contains("`version`") && error.contains("backup"), "{error}");
        assert!(!Config::default().dialects().unwrap().jidoteki.open_setup);
    }

    #[test]
    fn drivers_of_the_host_that_are_not_there_are_refused() {
        for (text, told) in [
            ("host_driver = \"netplan\"", "host_driver"),
            ("host_root = \"etc\"", "host_root"),
            ("network_confirm = 4", "network_confirm"),
            ("network_confirm = 3601", "network_confirm"),
            ("service_units = [\"ssh\"]", "service_units"),
            ("ngx_api = \"2.5\"", "ngx_api"),
        ] {
            assert!(Config::check(text, Path::new("/data")).unwrap_err().contains(told), "{text}");
        }
        let config: Config = toml::from_str("host_driver = \"ip\"").unwrap();
        assert_eq!(config.host().unwrap().driver.word(), "ip");
    }

    #[test]
    fn nbd_on_the_network_says_who_may_come() {
        let text = "nbd = [\"0.0.0.0:10809\"]\n";
        let error = Config::check(text, Path::new("/data")).unwrap_err();
        assert!(error.contains("nbd_clients"), "{error}");
        let text = format!("{text}nbd_clients = \"ca.pem\"");
        Config::check(&text, Path::new("/data")).unwrap();
        let text = format!("{text}\nnbd_access = {{ vm7 = [\"main\"] }}");
        let error = Config::check(&text, Path::new("/data")).unwrap_err();
        assert!(error.contains("`main`"), "{error}");
    }

    #[test]
    fn what_waits_for_a_start_is_named() {
        let of = |text| toml::from_str::<Config>(text).unwrap();
        let (old, new) = (of("connections = 5"), of("connections = 6"));
        assert!(old.only_at_start(&new).is_empty());
        let new = of("listen = [\"127.0.0.1:1\"]\ndatabase = \"x\"\nnames = [\"y\"]");
        assert_eq!(old.only_at_start(&new), ["database", "names"]);
        assert!(new.only_at_start(&new.clone()).is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line_and_without_its_value() {
        let dir = tempfile::tempdir().unwrap();
        let text = "listen = []\ndatabase = [\"hunter2\"]\n";
        fs::write(dir.path().join(NAME), text).unwrap();
        let error = Config::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
        fs::write(dir.path().join(NAME), "log = \"strongroom=loud\"\n").unwrap();
        let error = format!("{:#}", Config::open(dir.path()).unwrap_err());
        assert!(error.contains("log") && error.contains("loud"), "{error}");
    }
}
