//! `pool list`, `rename` and `remove`: the pools that an appliance knows.

use anyhow::Result;

use crate::appliance::ApplianceArgs;
use crate::appliance::list::{LANGUAGE, SearchArgs};
use crate::appliance::pools::{self, POOLS};
use crate::ask::YesArgs;
use crate::exit::{Context, Done};

/// List the pools of an appliance
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom pool list
  strongroom pool list --filter encrypted:==true --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

pub(crate) fn list(context: &Context, args: &ListArgs) -> Result<Done> {
    args.search.run(context, &args.appliance.client()?, &POOLS)
}

/// Give a pool of an appliance another name
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom pool rename main first")]
pub(crate) struct RenameArgs {
    /// The pool's name or number
    pool: String,
    /// Its new name
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

pub(crate) fn rename(context: &Context, args: &RenameArgs) -> Result<Done> {
    pools::rename(context, &args.appliance.client()?, &args.pool, &args.name)
}

/// Have an appliance let go of a pool; its data stays
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The pool is what it was, on its disks: `strongroom pool import` enters it again, with all images. The
passphrase that the appliance had for it is gone then, so keep your copy. While targets have volumes of
it, or clients of NBD are connected to them, it stays.

Examples:
  strongroom pool remove branch --yes
  strongroom pool remove branch --force --yes")]
pub(crate) struct RemoveArgs {
    /// The pool's name or number
    pool: String,
    /// Although clients of NBD are connected to its volumes, which lose them
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn remove(context: &Context, args: &RemoveArgs) -> Result<Done> {
    let client = args.appliance.client()?;
    let pool = pools::pool(&client, Some(&args.pool))?;
    args.yes.confirm(&format!("Let go of the pool {} and of its passphrase", pool.name))?;
    pools::remove(context, &client, &pool, args.force)
}
