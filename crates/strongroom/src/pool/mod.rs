//! `strongroom pool`: the pool itself.

mod create;
mod disks;
mod entries;
mod keys;
mod show;
mod upkeep;

use anyhow::Result;
use clap::Subcommand;

use crate::exit::{Context, Done};

pub(crate) use upkeep::{gc_json, gc_text, gc_with};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(entries::ListArgs),
    Create(Box<create::Args>),
    Show(show::ShowArgs),
    Stats(show::StatsArgs),
    Gc(upkeep::GcArgs),
    Scrub(upkeep::ScrubArgs),
    Check(upkeep::CheckArgs),
    Repair(upkeep::RepairArgs),
    DiskReplace(disks::ReplaceArgs),
    Import(disks::ImportArgs),
    Rename(entries::RenameArgs),
    Remove(entries::RemoveArgs),
    Rekey(keys::RekeyArgs),
    /// List, add, change and remove the secrets that open an encrypted pool
    Key {
        #[command(subcommand)]
        command: keys::Command,
    },
}

impl Command {
    /// The command's name, for who finds the pool in use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "pool list",
            Self::Create(_) => "pool create",
            Self::Show(_) => "pool show",
            Self::Stats(_) => "pool stats",
            Self::Gc(_) => "pool gc",
            Self::Scrub(_) => "pool scrub",
            Self::Check(_) => "pool check",
            Self::Repair(_) => "pool repair",
            Self::DiskReplace(_) => "pool disk-replace",
            Self::Import(_) => "pool import",
            Self::Rename(_) => "pool rename",
            Self::Remove(_) => "pool remove",
            Self::Rekey(_) => "pool rekey",
            Self::Key { .. } => "pool key",
        }
    }
}

pub(crate) fn run(context: &Context, command: Command) -> Result<Done> {
    match command {
        Command::List(args) => entries::list(context, &args),
        Command::Create(args) => create::run(context, &args),
        Command::Show(args) => show::show(context, &args),
        Command::Stats(args) => show::stats(context, &args),
        Command::Gc(args) => upkeep::gc(context, &args),
        Command::Scrub(args) => upkeep::scrub(context, &args),
        Command::Check(args) => upkeep::check(context, &args),
        Command::Repair(args) => upkeep::repair(context, &args),
        Command::DiskReplace(args) => disks::replace(context, &args),
        Command::Import(args) => disks::import(context, &args),
        Command::Rename(args) => entries::rename(context, &args),
        Command::Remove(args) => entries::remove(context, &args),
        Command::Rekey(args) => keys::rekey(context, &args),
        Command::Key { command } => keys::run(context, command),
    }
}
