//! `strongroom status`: how the appliance fares.

use anyhow::Result;
use serde_json::Value;

use crate::appliance::ApplianceArgs;
use crate::appliance::operation::operations;
use crate::appliance::resource::describe;
use crate::exit::{Context, Done};

operations! {
    STATUS = "system.status", GET "/v1/system/status", by "status";
}

/// Show how the appliance fares
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Examples:
  strongroom status
  strongroom status --appliance /var/lib/strongroom --json")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

pub(crate) fn run(context: &Context, args: &StatusArgs) -> Result<Done> {
    let status: Value = STATUS.ask(&args.appliance.client()?, &[])?;
    context.out.report(None, status.clone(), |out| describe(out, &["version"], &status))?;
    Ok(Done::Well)
}
