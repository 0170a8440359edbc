//! Where it listens on the network. That can be changed while it runs: what is open goes on.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use strongroom_api::server::{Certificate, Server, listen};
use tokio::net::TcpListener;

use super::Args;
use super::config::Config;

/// Where it is to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    https: Vec<SocketAddr>,
    redirect: Option<SocketAddr>,
}

impl Wanted {
    /// What is said with the command wins over the configuration.
    pub(super) fn of(args: &Args, config: &Config) -> Self {
        let mut https = match args.listen.is_empty() {
            true => config.listen.clone(),
            false => args.listen.clone(),
        };
        if https.is_empty() {
            https.push((Ipv4Addr::LOCALHOST, 8443).into());
        }
        Self { https, redirect: args.redirect.or(config.redirect) }
    }
}

/// Listeners that nobody serves yet.
#[derive(Debug)]
pub(super) struct Bound {
    wanted: Wanted,
    https: Vec<TcpListener>,
    redirect: Option<TcpListener>,
}

impl Bound {
    /// Listens.
    pub(super) async fn new(wanted: Wanted) -> Result<Self> {
        let mut https = Vec::new();
        for address in &wanted.https {
            https.push(listen(*address).await?);
        }
        let redirect = match wanted.redirect {
            Some(from) => Some(listen(from).await?),
            None => None,
        };
        Ok(Self { wanted, https, redirect })
    }

    /// Serves them.
    pub(super) fn serve(
        self,
        server: &mut Server,
        certificate: &Arc<Certificate>,
    ) -> Result<Listeners> {
        let mut served = Listeners { wanted: self.wanted, https: Vec::new(), redirect: None };
        for listener in self.https {
            served.https.push(listener.local_addr()?);
            server.https(listener, Arc::clone(certificate))?;
        }
        if let Some(listener) = self.redirect {
            served.redirect(server, listener)?;
        }
        Ok(served)
    }
}

/// Where it listens.
#[derive(Debug)]
pub(super) struct Listeners {
    wanted: Wanted,
    /// The addresses that came of it, in the same order.
    https: Vec<SocketAddr>,
    redirect: Option<SocketAddr>,
}

impl Listeners {
    /// The addresses of the API.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.https
    }

    fn redirect(&mut self, server: &mut Server, listener: TcpListener) -> Result<()> {
        if let Some(to) = self.https.first() {
            self.redirect = Some(listener.local_addr()?);
            server.redirect(listener, to.port());
        }
        Ok(())
    }

    /// Listens where it is wanted now, and no longer elsewhere; whether that is anything new. When it
    /// can't, it listens where it did.
    pub(super) async fn change(
        &mut self,
        server: &mut Server,
        certificate: &Arc<Certificate>,
        wanted: Wanted,
    ) -> Result<bool> {
        if self.wanted == wanted {
            return Ok(false);
        }
        let before = self.wanted.clone();
        if let Err(error) = self.become_such(server, certificate, wanted).await {
            self.become_such(server, certificate, before).await?;
            return Err(error);
        }
        Ok(true)
    }

    async fn become_such(
        &mut self,
        server: &mut Server,
        certificate: &Arc<Certificate>,
        wanted: Wanted,
    ) -> Result<()> {
        // First what is to go: it may be in the way of what is to come.
        let open: Vec<_> = self.wanted.https.drain(..).zip(self.https.drain(..)).collect();
        for (place, address) in open {
            match wanted.https.contains(&place) {
                true => {
                    self.wanted.https.push(place);
                    self.https.push(address);
                }
                false => server.close(address).await,
            }
        }
        // It says a port, which may be another.
        self.wanted.redirect = None;
        if let Some(address) = self.redirect.take() {
            server.close(address).await;
        }
        for place in &wanted.https {
            if !self.wanted.https.contains(place) {
                let listener = listen(*place).await?;
                self.wanted.https.push(*place);
                self.https.push(listener.local_addr()?);
                server.https(listener, Arc::clone(certificate))?;
            }
        }
        let order = |place: &SocketAddr| wanted.https.iter().position(|other| other == place);
        let mut open: Vec<_> = self.wanted.https.drain(..).zip(self.https.drain(..)).collect();
        open.sort_by_key(|(place, _)| order(place));
        (self.wanted.https, self.https) = open.into_iter().unzip();
        if let Some(from) = wanted.redirect {
            let listener = listen(from).await?;
            self.redirect(server, listener)?;
            self.wanted.redirect = Some(from);
        }
        Ok(())
    }
}
