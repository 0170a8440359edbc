//! `strongroom settings`: what may be changed while an appliance runs.

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::types::{Items, Setting};

use super::ApplianceArgs;
use super::operation::operations;
use super::resource::{self, describe};
use crate::exit::{Context, Done, usage};
use crate::parse;

operations! {
    LIST = "settings.list", GET "/v1/settings", by "settings list";
    SHOW = "settings.show", GET "/v1/settings/{setting}", by "settings show";
    CHANGE = "settings.change", PATCH "/v1/settings/{setting}", by "settings change";
    RESET = "settings.reset", DELETE "/v1/settings/{setting}", by "settings reset";
}

/// What is shown of a setting, in this order.
const FIELDS: [(&str, &str); 7] = [
    ("SETTING", "key"),
    (">VALUE", "value"),
    ("UNIT", "unit"),
    (">DEFAULT", "default"),
    (">LEAST", "least"),
    (">MOST", "most"),
    ("MEANING", "meaning"),
];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Change(ChangeArgs),
    Reset(ResetArgs),
}

/// List all settings, and what they are
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Which operations need a second administrator is said by `strongroom approvals rules`.

Examples:
  strongroom settings list
  strongroom settings list --json")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Which setting.
#[derive(clap::Args, Debug)]
struct OneArgs {
    /// Its name, as `settings list` says it
    setting: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Show a setting
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom settings show sessions.idle")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Change a setting, at once and without a restart
#[derive(clap::Args, Debug)]
#[command(after_help = "\
A value is a whole number of the setting's unit; a time can be written with a unit of its own.

Examples:
  strongroom settings change sessions.idle 30min
  strongroom settings change jobs.per_pool 2")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// What it is to be
    value: String,
}

/// Put a setting back to its default
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom settings reset sessions.idle")]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    one: OneArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => list(context, args)?,
        Command::Show(ShowArgs { one }) => {
            let setting: Value = SHOW.ask(&one.appliance.client()?, &[&one.setting])?;
            let first = FIELDS.map(|(_, field)| field);
            context.out.report(None, setting.clone(), |out| describe(out, &first, &setting))?;
        }
        Command::Change(args) => change(context, args)?,
        Command::Reset(ResetArgs { one }) => {
            let setting: Value = RESET.ask(&one.appliance.client()?, &[&one.setting])?;
            tell(context, setting)?;
        }
    }
    Ok(Done::Well)
}

fn list(context: &Context, args: &ListArgs) -> Result<()> {
    let settings: Items<Value> = LIST.ask(&args.appliance.client()?, &[])?;
    if context.out.json {
        return Ok(settings.items.iter().try_for_each(|one| context.out.document(one))?);
    }
    let columns = resource::owned(&FIELDS);
    let rows = settings.items.iter().map(|setting| resource::row(&columns, setting)).collect();
    Ok(resource::print(&mut std::io::stdout().lock(), &columns, rows)?)
}

fn change(context: &Context, args: &ChangeArgs) -> Result<()> {
    let client = args.one.appliance.client()?;
    let setting: Setting = SHOW.ask(&client, &[&args.one.setting])?;
    let value = value(&args.value, &setting.unit).map_err(usage)?;
    // Nobody changes in between what was read here.
    let call = CHANGE.call(&[&args.one.setting]).with(&json!({ "value": value }))?;
    tell(context, client.call(&call.of_version(setting.version))?)
}

fn tell(context: &Context, setting: Value) -> Result<()> {
    let word = |field: &str| resource::text("", &setting[field]);
    let text = format!("{} is {} {} now", word("key"), word("value"), word("unit"));
    Ok(context.out.done(setting, &text)?)
}

/// A value in a setting's unit: a number, or a time that is a whole number of them.
fn value(text: &str, unit: &str) -> Result<i64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let seconds: i64 = match unit {
        "seconds" => 1,
        "hours" => 3600,
        "days" => 86_400,
        // Counts of things have no other unit.
        _ => return Err(format!("{text:?} is no whole number")),
    };
    let nanos = parse::duration(text)?;
    match nanos % (seconds * 1_000_000_000) {
        0 => Ok(nanos / (seconds * 1_000_000_000)),
        _ => Err(format!("{text} is no whole number of {unit}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbers_of_their_unit_or_times() {
        assert_eq!(value("30", "things"), Ok(30));
        assert_eq!(value("30min", "seconds"), Ok(1800));
        assert_eq!(value("2d", "hours"), Ok(48));
        assert_eq!(value("2w", "days"), Ok(14));
        for (wrong, unit) in [("2d", "things"), ("90min", "hours"), ("soon", "days")] {
            assert!(value(wrong, unit).is_err(), "{wrong} {unit}");
        }
    }
}
