//! The command line as a whole; each command's own arguments lie with the command.

use clap::{Parser, Subcommand};

use crate::appliance::{
    approvals, audit, directories, events, issuers, jobs, keys, license, login, me, orgs, roles,
    sessions, settings, stats, system, users,
};
use crate::{
    backup, browse, completions, dump, forget, images, manual, mount, pool, restore, up, update,
    volume,
};

/// What `--help` says at its end.
const AFTER_HELP: &str = "\
Exit codes:
  0    done
  1    failed
  2    the command line is wrong
  3    done, but something could not be read or restored, or damage was found
  4    another process is using the pool
  5    the pool's secret is wrong or missing
  6    the appliance does not let you: log in, or have a right or an approval given
  7    the appliance can't be reached or is busy: try again later
  130  stopped by Ctrl-C (a second Ctrl-C ends at once)

An appliance, and backups into it from another terminal:
  strongroom up
  strongroom backup /etc /home
  strongroom restore etc --to /tmp/back

A pool of your own, without one:
  strongroom pool create /srv/pool --encrypt --password-file /root/pool.pw
  strongroom backup /etc /home --pool /srv/pool --password-file /root/pool.pw
  strongroom images list --pool /srv/pool --password-file /root/pool.pw
  strongroom restore latest --to /tmp/back --pool /srv/pool --password-file /root/pool.pw

STRONGROOM_POOL, STRONGROOM_PASSWORD_FILE, STRONGROOM_PASSWORD_COMMAND, STRONGROOM_KEY_FILE and
STRONGROOM_CLIENT_KEY_FILE stand for the options of the same names.";

/// Backups into a deduplicated, compressed, encrypted pool, and back again
#[derive(Debug, Parser)]
#[command(name = "strongroom", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// Print JSON: one document, or one a line where a command lists many things
    #[arg(long, global = true, display_order = 900)]
    pub(crate) json: bool,
    /// Print no progress and no summaries
    #[arg(long, short, global = true, display_order = 901)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make, show, check and mend pools
    Pool {
        #[command(subcommand)]
        command: pool::Command,
    },
    Backup(Box<backup::Args>),
    /// List, compare, label and forget images
    Images {
        #[command(subcommand)]
        command: images::Command,
    },
    Restore(Box<restore::Args>),
    Ls(browse::LsArgs),
    Cat(browse::CatArgs),
    Dump(dump::Args),
    Mount(mount::Args),
    /// Make, change, snapshot and clone volumes; serve disks that were backed up
    Volume {
        #[command(subcommand)]
        command: volume::Command,
    },
    Forget(Box<forget::Args>),
    Up(up::Args),
    Status(up::StatusArgs),
    /// Show, watch and stop what an appliance does
    Jobs {
        #[command(subcommand)]
        command: jobs::Command,
    },
    /// Show what happened at an appliance
    Events {
        #[command(subcommand)]
        command: events::Command,
    },
    /// Make, change and remove users, and give them roles
    Users {
        #[command(subcommand)]
        command: users::Command,
    },
    /// Make, change and remove roles
    Roles {
        #[command(subcommand)]
        command: roles::Command,
    },
    /// Set up, try and remove directories (LDAP, Active Directory)
    Directories {
        #[command(subcommand)]
        command: directories::Command,
    },
    /// Set up, try and remove issuers of tokens (OpenID Connect)
    Issuers {
        #[command(subcommand)]
        command: issuers::Command,
    },
    /// Make, change and remove organisations
    #[command(visible_alias = "organisations")]
    Orgs {
        #[command(subcommand)]
        command: orgs::Command,
    },
    /// Make, change and remove API keys
    Keys {
        #[command(subcommand)]
        command: keys::Command,
    },
    /// Show and end sessions
    Sessions {
        #[command(subcommand)]
        command: sessions::Command,
    },
    /// Decide on deeds that need a second administrator, and say which do
    Approvals {
        #[command(subcommand)]
        command: approvals::Command,
    },
    /// Show what is stored and what was done, and how that grows
    Stats {
        #[command(subcommand)]
        command: stats::Command,
    },
    /// Show what an appliance is and serves, and how its machine fares
    System {
        #[command(subcommand)]
        command: system::Command,
    },
    /// Sign licences as a vendor, check them, show and set that of an appliance
    #[command(visible_alias = "licence")]
    License {
        #[command(subcommand)]
        command: license::Command,
    },
    /// Make and check packages of updates, as their vendor
    Update {
        #[command(subcommand)]
        command: update::Command,
    },
    /// Show and change settings, at once and without a restart
    Settings {
        #[command(subcommand)]
        command: settings::Command,
    },
    /// Show, check and export the audit trail
    Audit {
        #[command(subcommand)]
        command: audit::Command,
    },
    /// Show who you are, change your password, use a second factor
    Me {
        #[command(subcommand)]
        command: me::Command,
    },
    Whoami(me::WhoamiArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Completions(completions::Args),
    Manual(manual::Args),
}

impl Command {
    /// Its name, for those who find the pool in use. Never its arguments: they may be secret.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Pool { command } => command.name(),
            Self::Backup(_) => "backup",
            Self::Images { .. } => "images",
            Self::Restore(_) => "restore",
            Self::Ls(_) => "ls",
            Self::Cat(_) => "cat",
            Self::Dump(_) => "dump",
            Self::Mount(_) => "mount",
            Self::Volume { command } => command.name(),
            Self::Forget(_) => "forget",
            Self::Up(_) => "up",
            Self::Status(_) => "status",
            Self::Jobs { .. } => "jobs",
            Self::Events { .. } => "events",
            Self::Users { .. } => "users",
            Self::Roles { .. } => "roles",
            Self::Directories { .. } => "directories",
            Self::Issuers { .. } => "issuers",
            Self::Orgs { .. } => "orgs",
            Self::Keys { .. } => "keys",
            Self::Sessions { .. } => "sessions",
            Self::Approvals { .. } => "approvals",
            Self::Stats { .. } => "stats",
            Self::System { .. } => "system",
            Self::License { .. } => "license",
            Self::Update { .. } => "update",
            Self::Settings { .. } => "settings",
            Self::Audit { .. } => "audit",
            Self::Me { .. } => "me",
            Self::Whoami(_) => "whoami",
            Self::Login(_) => "login",
            Self::Logout(_) => "logout",
            Self::Completions(_) => "completions",
            Self::Manual(_) => "manual",
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_command_teaches_by_example() {
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            if command.has_subcommands() {
                command.get_subcommands().for_each(|command| visit(command, &path));
            } else {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(path.trim_start()), "{path} has no example");
                assert!(command.get_about().is_some(), "{path} says nothing of itself");
            }
        }
        let command = Cli::command();
        command.clone().debug_assert();
        visit(&command, "");
    }
}
