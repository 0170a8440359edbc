//! `strongroom status`: how the appliance fares.

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use crate::appliance::ApplianceArgs;
use crate::exit::{Context, Done};

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
    let status: Value = args.appliance.client()?.get("/v1/system/status", &[])?;
    context.out.report(None, status.clone(), |out| tell(out, &status))?;
    Ok(Done::Well)
}

fn tell(out: &mut dyn Write, status: &Value) -> std::io::Result<()> {
    for (name, value) in status.as_object().into_iter().flatten() {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        writeln!(out, "{:<16} {text}", name.replace('_', " "))?;
    }
    Ok(())
}
