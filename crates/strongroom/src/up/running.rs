//! An appliance that serves: what it says of itself, what may change meanwhile, and its end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use strongroom_api::server::{Certificate, Limits, Server};
use strongroom_api::{App, PAGE};
use strongroom_appliance::Administration;
use strongroom_appliance::tls::TlsFiles;
use strongroom_catalog::Catalog;
use tokio::task::JoinHandle;

use super::config::{Config, NAME};
use super::listeners::{Listeners, Wanted};
use super::lock::Lock;
use super::nbd::{Nbd, Wanted as WantedNbd};
use super::once::Once;
use super::{Args, Log};
use crate::exit::Context;

/// How long clients of NBD have for their requests when they have to come again.
const NBD_GRACE: Duration = Duration::from_secs(5);

/// An appliance that serves.
pub(super) struct Running {
    pub(super) data: PathBuf,
    pub(super) app: App,
    pub(super) server: Server,
    pub(super) certificate: Arc<Certificate>,
    /// The certificate's files, which an administrator may replace.
    pub(super) tls: TlsFiles,
    pub(super) listeners: Listeners,
    pub(super) nbd: Nbd,
    pub(super) log: Log,
    pub(super) once: Once,
    /// The configuration that is in force.
    pub(super) config: Config,
    /// What goes on beside: giving the services what is set, chores, and sending the
    /// audit trail to a collector.
    pub(super) tasks: [JoinHandle<()>; 4],
    pub(super) _lock: Arc<Lock>,
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
        let secret = self.once.is_secret();
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
            let mut told = serde_json::json!({
                "data": self.data,
                "urls": urls,
                "docs": PAGE,
                "nbd": self.nbd.addresses(),
                "certificate_sha256": self.certificate.fingerprint(),
            });
            self.once.add_to(&mut told);
            writeln!(out, "{told}")?;
            return Ok(out.flush()?);
        }
        writeln!(out, "Strongroom serves {}", self.data.display())?;
        for url in &urls {
            writeln!(out, "  API           {url}/v1")?;
            writeln!(out, "  docs          {url}{PAGE}")?;
        }
        for address in self.nbd.addresses() {
            writeln!(out, "  NBD           nbds://{address}")?;
        }
        writeln!(out, "  certificate   SHA-256 {}", self.certificate.fingerprint())?;
        writeln!(out, "  configuration {}", self.data.join(NAME).display())?;
        self.once.write(&mut out)?;
        Ok(out.flush()?)
    }

    /// What is said only once was said.
    pub(super) async fn end_of_first_start(&mut self) -> Result<()> {
        self.once.end(self.app.identity()).await
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
        let files = config.certificate_files(&self.data);
        if self.config.certificate_files(&self.data) != files {
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
        let mut wanted = self.config.clone();
        (wanted.nbd, wanted.nbd_clients) = (config.nbd, config.nbd_clients);
        wanted.nbd_access = config.nbd_access;
        self.configure_nbd(wanted).await;
        tracing::info!("the configuration was read again");
    }

    /// Also when the configuration is the same: what the file of authorities says may be new.
    async fn configure_nbd(&mut self, wanted: Config) {
        let changed = match WantedNbd::of(&wanted, &self.data) {
            Ok(now) => self.nbd.change(now, NBD_GRACE).await,
            Err(error) => Err(error),
        };
        match changed {
            Ok(changed) => {
                if changed {
                    let places = self.nbd.addresses();
                    let places: Vec<_> = places.iter().map(ToString::to_string).collect();
                    tracing::info!("clients of NBD are served at [{}]", places.join(", "));
                }
                self.config = wanted;
            }
            Err(error) => tracing::error!("clients of NBD are served as they were: {error:#}"),
        }
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
        let Self { app, server, nbd, tasks, .. } = self;
        tasks.iter().for_each(JoinHandle::abort);
        app.protect().engine().drain(drain).await;
        tokio::join!(server.stop(grace), nbd.stop(grace), app.storage().stop_targets());
        app.storage().close_all().await;
        app.catalog().close().await;
    }
}
