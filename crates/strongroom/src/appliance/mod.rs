//! Commands that an appliance carries out: which one is meant, and how it is asked.

pub(crate) mod acme;
pub(crate) mod approvals;
pub(crate) mod audit;
pub(crate) mod directories;
pub(crate) mod events;
mod fetch;
pub(crate) mod follow;
pub(crate) mod images;
pub(crate) mod issuers;
pub(crate) mod jobs;
pub(crate) mod keys;
pub(crate) mod known;
pub(crate) mod license;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod me;
mod named;
pub(crate) mod network;
mod one;
pub(crate) mod operation;
#[cfg(test)]
mod operations;
pub(crate) mod orgs;
pub(crate) mod own_backup;
pub(crate) mod pools;
pub(crate) mod resource;
pub(crate) mod roles;
mod send;
pub(crate) mod sessions;
pub(crate) mod settings;
mod sources;
pub(crate) mod stats;
pub(crate) mod storage;
pub(crate) mod system;
pub(crate) mod targets;
pub(crate) mod updates;
pub(crate) mod users;
pub(crate) mod volumes;
mod watch;
mod work;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Args;
use strongroom_client::source::RemoteSource;
use strongroom_client::{Client, Logins, Place};

pub(crate) use self::operation::OnceArgs;
pub(crate) use self::work::{Restoring, Target, backup, restore, target};
use crate::exit::usage;

/// The control socket's name in a data directory.
pub(crate) const SOCKET: &str = "control.sock";
/// Where one that the system starts has its data.
const OF_SYSTEM: &str = "/var/lib/strongroom";

/// Which appliance.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ApplianceArgs {
    /// The appliance: the https:// address of one that you are logged in at, or the data directory
    /// of one on this machine [default: where you last logged in, else the one that runs here]
    #[arg(long, value_name = "URL|DIR", env = "STRONGROOM_APPLIANCE")]
    appliance: Option<String>,
}

impl ApplianceArgs {
    /// A client of it.
    pub(crate) fn client(&self) -> Result<Client> {
        Ok(Client::new(self.place()?)?)
    }

    fn place(&self) -> Result<Place> {
        let given = self.appliance.as_deref().filter(|text| !text.is_empty());
        if let Some(dir) = given.filter(|text| !text.starts_with("https://")) {
            return Ok(Place::Socket(Path::new(dir).join(SOCKET)));
        }
        let logins = Logins::read(&known::logins()?)?;
        if let Some(place) = logins.place(given)? {
            return Ok(place);
        }
        if let Some(url) = given {
            return Err(usage(format!("you are not logged in: strongroom login {url}")));
        }
        let running = known::running()?.into_iter().chain([PathBuf::from(OF_SYSTEM)]);
        let mut sockets = running.map(|data| data.join(SOCKET));
        let socket = sockets.find(|socket| socket.exists());
        let nobody = || {
            usage(
                "which pool or appliance? None runs here (`strongroom up` starts one): give \
                 --pool DIR for a pool of your own, or log in with `strongroom login`",
            )
        };
        socket.map(Place::Socket).ok_or_else(nobody)
    }
}

/// A pool of an appliance, to be read.
pub(crate) fn read(client: Client, name: Option<&str>) -> Result<RemoteSource> {
    let pool = pools::pool(&client, name)?;
    Ok(RemoteSource::open(Arc::new(client), pool.id)?)
}

/// Whether an appliance is on this machine and may do just what this process may.
pub(crate) fn is_of_this_user(client: &Client) -> bool {
    use std::os::unix::fs::MetadataExt;
    let Place::Socket(path) = client.place() else { return false };
    // One that is gone is told of by who connects to it.
    let owner = std::fs::metadata(path).map(|socket| socket.uid());
    owner.is_ok_and(|owner| owner == rustix::process::geteuid().as_raw())
}

/// A path of this machine as the appliance takes it, if it is on this machine: from the root.
pub(crate) fn from_root(client: &Client, path: &Path) -> Result<String> {
    if matches!(client.place(), Place::Remote { .. }) {
        return Err(usage(
            "an appliance elsewhere can't reach this machine's files: give --pool DIR, or run \
             the command there",
        ));
    }
    let path = std::path::absolute(path).with_context(|| format!("finding {}", path.display()))?;
    let text = path.into_os_string().into_string();
    text.map_err(|path| usage(format!("{} is not text in UTF-8", path.display())))
}
