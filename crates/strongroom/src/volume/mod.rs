//! `strongroom volume`: volumes of an appliance, and disks that were backed up.

mod export;

use anyhow::Result;
use clap::Subcommand;

use crate::appliance::volumes::{self, change, make, schedule, snapshots};
use crate::exit::{Context, Done};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(volumes::ListArgs),
    Show(volumes::ShowArgs),
    Create(Box<make::CreateArgs>),
    Clone(make::CloneArgs),
    Change(change::ChangeArgs),
    Grow(change::GrowArgs),
    Rename(change::RenameArgs),
    Measure(change::MeasureArgs),
    Delete(change::DeleteArgs),
    /// Make, list, show and remove snapshots of volumes, roll back to them and clone them
    Snapshot {
        #[command(subcommand)]
        command: snapshots::Command,
    },
    /// Have snapshots of a volume made by themselves
    Schedule {
        #[command(subcommand)]
        command: schedule::Command,
    },
    Export(Box<export::Args>),
}

impl Command {
    /// Its name, for those who find the pool in use.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::List(_) => "volume list",
            Self::Show(_) => "volume show",
            Self::Create(_) => "volume create",
            Self::Clone(_) => "volume clone",
            Self::Change(_) => "volume change",
            Self::Grow(_) => "volume grow",
            Self::Rename(_) => "volume rename",
            Self::Measure(_) => "volume measure",
            Self::Delete(_) => "volume delete",
            Self::Snapshot { command } => command.name(),
            Self::Schedule { command } => command.name(),
            Self::Export(_) => "volume export",
        }
    }
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => volumes::list(context, args),
        Command::Show(args) => volumes::show(context, args),
        Command::Create(args) => make::create(context, args),
        Command::Clone(args) => make::clone(context, args),
        Command::Change(args) => change::change(context, args),
        Command::Grow(args) => change::grow(context, args),
        Command::Rename(args) => change::rename(context, args),
        Command::Measure(args) => change::measure(context, args),
        Command::Delete(args) => change::delete(context, args),
        Command::Snapshot { command } => snapshots::run(context, command),
        Command::Schedule { command } => schedule::run(context, command),
        Command::Export(args) => export::run(context, args),
    }
}
