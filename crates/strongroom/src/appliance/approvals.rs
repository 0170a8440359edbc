//! `strongroom approvals`: deeds that need a second administrator.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Subcommand;
use serde::Serialize;
use serde_json::{Value, json};
use strongroom_client::Client;
use strongroom_client::types::ApprovalSettings;

use super::ApplianceArgs;
use super::list::{self, LANGUAGE, Only};
use super::operation::operations;
use super::resource::Resource;
use crate::exit::{Context, Done, usage};

operations! {
    DECIDE = "approvals.decide", POST "/v1/approvals/{approval}/decide", by "approvals approve";
    RULES = "settings.approvals.show", GET "/v1/settings/approvals", by "approvals rules";
    SET_RULES = "settings.approvals", PUT "/v1/settings/approvals", by "approvals change-rules";
}

/// Approvals.
pub(crate) static APPROVALS: Resource = Resource {
    one: "approval",
    path: "/v1/approvals",
    id: "approvals.list",
    command: "approvals list",
    columns: &[
        (">ID", "id"),
        ("STATE", "state"),
        ("OPERATION", "operation"),
        ("OBJECT", "object"),
        ("ASKED BY", "asker"),
        ("ASKED AT", "asked_at"),
        ("ENDS", "expires_at"),
        ("DECIDED", "decided_at"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Approve(ApproveArgs),
    Deny(DenyArgs),
    Rules(RulesArgs),
    Require(RequireArgs),
    ChangeRules(ChangeRulesArgs),
}

/// List what was asked for, the newest first
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom approvals list --open
  strongroom approvals list --filter state:==approved --json"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    list: list::Listing,
    /// Only what nobody has decided yet
    #[arg(long, conflicts_with = "fields")]
    open: bool,
}

/// Which approval.
#[derive(clap::Args, Debug)]
struct OneArgs {
    /// Its number
    approval: i64,
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Let it be done: who asked can do it now, once
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Nobody can approve what they asked for themselves.

Example:
  strongroom approvals approve 4")]
pub(crate) struct ApproveArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Refuse it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom approvals deny 4")]
pub(crate) struct DenyArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Show which operations need a second administrator
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom approvals rules")]
pub(crate) struct RulesArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Have a second administrator approve of what deletes data, shortens retention or switches
/// protection off
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Classes are deletion, retention, protection, and accounts (users, roles and logins, by which one could
be the second administrator oneself); all of them unless some are named. There must be two users who
may approve. `approvals rules` shows which operations a class has; to add single ones there is
`approvals change-rules`.

Examples:
  strongroom approvals require
  strongroom approvals require deletion protection")]
pub(crate) struct RequireArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// Only this class; may be given several times
    class: Vec<String>,
}

/// Say which operations need a second administrator
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Operations are named by their ids in the API's documentation. Once anything needs a second
administrator, so does changing these rules.

Examples:
  strongroom approvals change-rules --add images.forget --add pools.forget --hours 48
  strongroom approvals change-rules --remove pools.forget
  strongroom approvals change-rules --remove-class retention")]
pub(crate) struct ChangeRulesArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// This operation does; may be given several times
    #[arg(long, value_name = "OPERATION")]
    add: Vec<String>,
    /// This operation does no more; may be given several times
    #[arg(long, value_name = "OPERATION")]
    remove: Vec<String>,
    /// The operations of this class do; may be given several times
    #[arg(long, value_name = "CLASS")]
    add_class: Vec<String>,
    /// The operations of this class do no more; may be given several times
    #[arg(long, value_name = "CLASS")]
    remove_class: Vec<String>,
    /// In how many hours it must be decided and done
    #[arg(long)]
    hours: Option<u32>,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => {
            let filters = args.open.then(|| "state:==asked".to_owned());
            let only = Only { filters: filters.into_iter().collect(), ..Only::default() };
            let client = args.appliance.client()?;
            return list::run(context, &client, &APPROVALS, &args.list, &only);
        }
        Command::Approve(ApproveArgs { one }) => decide(context, one, true)?,
        Command::Deny(DenyArgs { one }) => decide(context, one, false)?,
        Command::Rules(args) => tell(context, &RULES.ask(&args.appliance.client()?, &[])?)?,
        Command::Require(args) => require(context, &args.appliance.client()?, &args.class)?,
        Command::ChangeRules(args) => change(context, &args.appliance.client()?, args)?,
    }
    Ok(Done::Well)
}

fn decide(context: &Context, one: &OneArgs, approve: bool) -> Result<()> {
    let id = one.approval.to_string();
    let client = one.appliance.client()?;
    let decided: Value = DECIDE.send(&client, &[&id], &json!({ "approve": approve }))?;
    let what = format!(
        "{} of {} by {}",
        decided["operation"].as_str().unwrap_or_default(),
        decided["object"].as_str().unwrap_or_default(),
        decided["asker"].as_str().unwrap_or_default()
    );
    let did = if approve { "approved" } else { "refused" };
    Ok(context.out.done(decided, &format!("{did}: {what}"))?)
}

fn tell(context: &Context, rules: &ApprovalSettings) -> Result<()> {
    context.out.report(None, serde_json::to_value(rules)?, |out| {
        let classes = || rules.classes.iter().filter(|class| class.on);
        match rules.operations.is_empty() && classes().next().is_none() {
            true => writeln!(out, "no operation needs a second administrator")?,
            false => writeln!(out, "a second administrator must approve of")?,
        }
        for class in classes() {
            writeln!(out, "  {}, which is {}:", class.name, class.meaning)?;
            writeln!(out, "    {}", class.operations.join(", "))?;
        }
        for operation in &rules.operations {
            writeln!(out, "  {operation}")?;
        }
        writeln!(out, "within {} hours", rules.hours)
    })?;
    Ok(())
}

fn change(context: &Context, client: &Client, args: &ChangeRulesArgs) -> Result<()> {
    let lists = [&args.add, &args.remove, &args.add_class, &args.remove_class];
    if lists.iter().all(|list| list.is_empty()) && args.hours.is_none() {
        let text =
            "nothing to change: give --add, --remove, --add-class, --remove-class or --hours";
        return Err(usage(text));
    }
    set(context, client, |rules| {
        rules.operations.retain(|operation| !args.remove.contains(operation));
        rules.operations.extend(args.add.iter().cloned());
        rules.classes.retain(|class| !args.remove_class.contains(class));
        rules.classes.extend(args.add_class.iter().cloned());
        rules.hours = args.hours.unwrap_or(rules.hours);
    })
}

fn require(context: &Context, client: &Client, classes: &[String]) -> Result<()> {
    let known: ApprovalSettings = RULES.ask(client, &[])?;
    let known: Vec<_> = known.classes.into_iter().map(|class| class.name).collect();
    if let Some(class) = classes.iter().find(|class| !known.contains(class)) {
        let text = format!("there is no class {class}; there are {}", known.join(", "));
        return Err(usage(text));
    }
    let wanted = if classes.is_empty() { &known } else { classes };
    set(context, client, |rules| {
        rules.classes.extend(wanted.iter().cloned());
    })
}

/// What is sent of the rules.
#[derive(Serialize)]
struct Rules {
    operations: BTreeSet<String>,
    classes: BTreeSet<String>,
    hours: u32,
}

/// Changes the rules, unless somebody else does meanwhile.
fn set(context: &Context, client: &Client, how: impl FnOnce(&mut Rules)) -> Result<()> {
    let ApprovalSettings { operations, classes, hours, version } = RULES.ask(client, &[])?;
    let classes = classes.into_iter().filter(|class| class.on).map(|class| class.name);
    let operations = operations.into_iter().collect();
    let mut rules = Rules { operations, classes: classes.collect(), hours };
    how(&mut rules);
    let call = SET_RULES.call(&[]).with(&rules)?.of_version(version);
    tell(context, &client.call(&call)?)
}
