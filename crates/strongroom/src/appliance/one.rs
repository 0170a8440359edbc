//! Commands about one of the things that an appliance has.

use anyhow::Result;
use serde_json::{Value, json};
use strongroom_client::Client;

use super::operation::Operation;
use super::resource::Resource;
use crate::ask::YesArgs;
use crate::exit::Context;

/// Declares the arguments that say which one is meant, by its name or number: the help, the field, and
/// the resource that it is one of.
macro_rules! one_args {
    ($help:literal, $field:ident of $resource:ident) => {
        /// Which one.
        #[derive(clap::Args, Debug)]
        struct OneArgs {
            #[doc = $help]
            $field: String,
            #[command(flatten)]
            appliance: $crate::appliance::ApplianceArgs,
        }

        impl OneArgs {
            /// A client, and its number.
            fn find(&self) -> anyhow::Result<(strongroom_client::Client, String)> {
                let client = self.appliance.client()?;
                let number = $crate::appliance::named::number(&client, &$resource, &self.$field)?;
                Ok((client, number))
            }
        }
    };
}
pub(super) use one_args;

/// Prints what an operation tells of one.
pub(super) fn show(
    context: &Context,
    of: &Resource,
    operation: &Operation,
    (client, number): (Client, String),
) -> Result<()> {
    let found: Value = operation.ask(&client, &[&number])?;
    Ok(context.out.report(None, found.clone(), |out| of.describe(out, &found))?)
}

/// Removes the one of that name, once that is confirmed.
pub(super) fn remove(
    context: &Context,
    of: &Resource,
    operation: &Operation,
    (client, number): (Client, String),
    name: &str,
    yes: &YesArgs,
) -> Result<()> {
    let what = format!("the {} {name}", of.one);
    yes.confirm(&format!("Remove {what}"))?;
    operation.ask::<()>(&client, &[&number])?;
    let document = json!({ "removed": number.parse::<i64>()? });
    Ok(context.out.done(document, &format!("removed {what}"))?)
}
