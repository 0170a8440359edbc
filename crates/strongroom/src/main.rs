//! The `strongroom` program: it reads the command line, wires engine and archive together, and
//! prints. What a test would want to know lies in those two.

mod access;
mod appliance;
mod args;
mod ask;
mod backup;
mod browse;
mod compare;
mod completions;
mod dump;
mod exit;
mod forget;
mod images;
mod interrupt;
mod manual;
mod mount;
mod output;
mod parse;
mod pool;
mod progress;
mod restore;
mod secret;
mod terminal;
mod up;
mod update;
mod vendor;
mod volume;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::exit::{Context, Done};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Command::Up(args) = &cli.command
        && let Some(ended) = up::launch(args)
    {
        return ended;
    }
    let context = match Context::new(&cli) {
        Ok(context) => context,
        Err(error) => return exit::report(&error),
    };
    match run(&context, cli.command) {
        Ok(done) => done.into(),
        Err(error) => exit::report(&error),
    }
}

fn run(context: &Context, command: Command) -> anyhow::Result<Done> {
    match command {
        Command::Pool { command } => pool::run(context, command),
        Command::Backup(args) => backup::run(context, *args),
        Command::Images { command } => images::run(context, command),
        Command::Restore(args) => restore::run(context, *args),
        Command::Ls(args) => browse::ls(context, &args),
        Command::Cat(args) => browse::cat(context, &args),
        Command::Dump(args) => dump::run(context, &args),
        Command::Mount(args) => mount::run(context, &args),
        Command::Volume { command } => volume::run(context, &command),
        Command::Target { command } => appliance::targets::run(context, &command),
        Command::Forget(args) => forget::run(context, &args),
        Command::Up(args) => up::run(context, &args),
        Command::Status(args) => up::status(context, &args),
        Command::Jobs { command } => appliance::jobs::run(context, &command),
        Command::Events { command } => appliance::events::run(context, &command),
        Command::Users { command } => appliance::users::run(context, &command),
        Command::Roles { command } => appliance::roles::run(context, &command),
        Command::Directories { command } => appliance::directories::run(context, &command),
        Command::Issuers { command } => appliance::issuers::run(context, &command),
        Command::Orgs { command } => appliance::orgs::run(context, &command),
        Command::Keys { command } => appliance::keys::run(context, &command),
        Command::Sessions { command } => appliance::sessions::run(context, &command),
        Command::Approvals { command } => appliance::approvals::run(context, &command),
        Command::Stats { command } => appliance::stats::run(context, &command),
        Command::System { command } => appliance::system::run(context, &command),
        Command::License { command } => command.run(context),
        Command::Update { command } => command.run(context),
        Command::Settings { command } => appliance::settings::run(context, &command),
        Command::Audit { command } => appliance::audit::run(context, &command),
        Command::Me { command } => appliance::me::run(context, &command),
        Command::Whoami(args) => appliance::me::whoami(context, &args),
        Command::Login(args) => appliance::login::login(context, &args),
        Command::Logout(args) => appliance::login::logout(context, &args),
        Command::Completions(args) => completions::run(&args),
        Command::Manual(args) => manual::run(&args),
    }
}
