//! `strongroom users`: who may log in at an appliance, and what they may do.

use std::io::Write;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Map, Value, json};
use strongroom_client::Client;
use strongroom_client::types::{Grants, Items, Named};

use super::ApplianceArgs;
use super::list::{LANGUAGE, Only, SearchArgs};
use super::one::{self, one_args};
use super::operation::{OnceArgs, operations};
use super::orgs::ORGANISATIONS;
use super::resource::{self, Resource};
use super::roles::ROLES;
use super::{list, named};
use crate::ask::{self, PasswordArgs, YesArgs};
use crate::exit::{Context, Done, usage};

operations! {
    CREATE = "users.create", POST "/v1/users", by "users create";
    SHOW = "users.show", GET "/v1/users/{user}", by "users show";
    CHANGE = "users.change", PATCH "/v1/users/{user}", by "users change";
    REMOVE = "users.remove", DELETE "/v1/users/{user}", by "users delete";
    PASSWORD = "users.password", PUT "/v1/users/{user}/password", by "users password";
    NO_FACTOR = "users.second_factor.remove", DELETE "/v1/users/{user}/second-factor",
        by "users remove-second-factor";
    GRANTS = "users.grants", GET "/v1/users/{user}/grants", by "users grants";
    GRANT = "users.grant", POST "/v1/users/{user}/grants", by "users grant";
    REVOKE = "users.revoke", DELETE "/v1/users/{user}/grants", by "users revoke";
}

/// Users.
pub(crate) static USERS: Resource = Resource {
    one: "user",
    path: "/v1/users",
    id: "users.list",
    command: "users list",
    columns: &[
        (">ID", "id"),
        ("NAME", "name"),
        ("FULL NAME", "full_name"),
        ("EMAIL", "email"),
        (">ORG", "organisation_id"),
        ("SOURCE", "source"),
        ("ENABLED", "enabled"),
        ("2ND FACTOR", "second_factor"),
        ("LAST LOGIN", "last_login_at"),
    ],
    sort: None,
    limit: None,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    List(ListArgs),
    Show(ShowArgs),
    Create(Box<CreateArgs>),
    Change(ChangeArgs),
    Enable(EnableArgs),
    Disable(DisableArgs),
    Password(SetPasswordArgs),
    RemoveSecondFactor(RemoveFactorArgs),
    Delegates(DelegatesArgs),
    Grants(GrantsArgs),
    Grant(GrantArgs),
    Revoke(RevokeArgs),
    Delete(DeleteArgs),
}

/// List users
#[derive(clap::Args, Debug)]
#[command(after_help = format!("{LANGUAGE}

Examples:
  strongroom users list
  strongroom users list --filter enabled:==false --columns id,name,last_login_at"))]
pub(crate) struct ListArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    search: SearchArgs,
}

one_args!("The user's name or number", user of USERS);

/// Show all that is known of a user
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users show ada")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Make a user
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The password is asked for, unless an option says otherwise; a generated one is printed once. A user
may do nothing until roles are granted: --role grants some in the user's own organisation. A delegate
acts for another user, with no more rights than that one has.

Examples:
  strongroom users create ada --full-name 'Ada L.' --role operator
  strongroom users create robot --no-password --role viewer
  strongroom users create anna --password-file anna.pw --must-change-password --org branch
  strongroom users create ada-stand-in --delegate-of ada --generate-password")]
pub(crate) struct CreateArgs {
    /// The name to log in with
    name: String,
    #[command(flatten)]
    appliance: ApplianceArgs,
    #[command(flatten)]
    password: NewPasswordArgs,
    /// No password: the user can only have keys
    #[arg(long, conflicts_with_all = ["password_file", "generate_password"])]
    no_password: bool,
    /// The password must be changed at the first login
    #[arg(long, conflicts_with = "no_password")]
    must_change_password: bool,
    /// The person's name
    #[arg(long, default_value = "")]
    full_name: String,
    /// The person's address
    #[arg(long, default_value = "")]
    email: String,
    /// The organisation that the user belongs to, by name or number [default: yours]
    #[arg(long)]
    org: Option<String>,
    /// A role that the user has there, by name or number; may be given several times
    #[arg(long)]
    role: Vec<String>,
    /// The user, by name or number, for whom this one will act
    #[arg(long, value_name = "USER")]
    delegate_of: Option<String>,
    #[command(flatten)]
    once: OnceArgs,
}

/// Where a new password comes from.
#[derive(clap::Args, Debug)]
struct NewPasswordArgs {
    #[command(flatten)]
    given: PasswordArgs,
    /// Make a password of four words, and print it once
    #[arg(long, conflicts_with = "password_file")]
    generate_password: bool,
}

/// A new password.
struct NewPassword {
    text: String,
    /// It was made here and nobody knows it yet.
    generated: bool,
}

impl NewPasswordArgs {
    fn read(&self, of: &str) -> Result<NewPassword> {
        if self.generate_password {
            let text = strongroom_identity::passphrase()?.expose().to_owned();
            return Ok(NewPassword { text, generated: true });
        }
        let file = self.given.password_file.as_deref();
        let text = ask::new_secret(file, &format!("New password of {of}"))?;
        let nobody = || {
            usage(
                "nobody is there to ask for the password: give --password-file FILE (`-` is \
                 standard input) or --generate-password",
            )
        };
        Ok(NewPassword { text: text.ok_or_else(nobody)?, generated: false })
    }
}

impl NewPassword {
    /// What is shown of it: all of it when nobody knows it yet.
    fn shown(&self) -> Option<&str> {
        self.generated.then_some(&self.text)
    }
}

/// Change a user
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users change ada --email ada@example.org --org branch")]
pub(crate) struct ChangeArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The person's name
    #[arg(long)]
    full_name: Option<String>,
    /// The person's address
    #[arg(long)]
    email: Option<String>,
    /// The organisation that the user belongs to, by name or number
    #[arg(long)]
    org: Option<String>,
}

/// Let a user log in again
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users enable ada")]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Don't let a user in any more
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users disable ada")]
pub(crate) struct DisableArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Give a user another password
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The user must change it at the next login, unless --final says otherwise. To change your own, see
`strongroom me password`.

Examples:
  strongroom users password ada --generate-password
  strongroom users password robot --password-file robot.pw --final")]
pub(crate) struct SetPasswordArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    password: NewPasswordArgs,
    /// It need not be changed at the next login
    #[arg(long = "final")]
    lasting: bool,
}

/// Take a user's second factor away, for one who has lost it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users remove-second-factor ada --yes")]
pub(crate) struct RemoveFactorArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

/// List the users who act for one
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users delegates ada")]
pub(crate) struct DelegatesArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Show which roles a user has, and where
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users grants ada")]
pub(crate) struct GrantsArgs {
    #[command(flatten)]
    one: OneArgs,
}

/// Give a user a role in an organisation and in those below it
#[derive(clap::Args, Debug)]
#[command(after_help = "\
`strongroom roles list` tells which there are.

Examples:
  strongroom users grant ada operator
  strongroom users grant ada viewer --org branch")]
pub(crate) struct GrantArgs {
    #[command(flatten)]
    what: GrantedArgs,
}

/// Take a role from a user
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom users revoke ada viewer --org branch")]
pub(crate) struct RevokeArgs {
    #[command(flatten)]
    what: GrantedArgs,
}

#[derive(clap::Args, Debug)]
struct GrantedArgs {
    #[command(flatten)]
    one: OneArgs,
    /// The role's name or number
    role: String,
    /// Where: the organisation's name or number [default: the user's own]
    #[arg(long)]
    org: Option<String>,
}

/// Remove a user, with all keys and sessions of the user
#[derive(clap::Args, Debug)]
#[command(after_help = "\
What the user did stays in the audit trail.

Example:
  strongroom users delete ada --yes")]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    one: OneArgs,
    #[command(flatten)]
    yes: YesArgs,
}

pub(crate) fn run(context: &Context, command: &Command) -> Result<Done> {
    match command {
        Command::List(args) => return args.search.run(context, &args.appliance.client()?, &USERS),
        Command::Delegates(args) => return delegates(context, args),
        Command::Show(args) => one::show(context, &USERS, &SHOW, args.one.find()?)?,
        Command::Create(args) => create(context, args)?,
        Command::Change(args) => change(context, args)?,
        Command::Enable(args) => enable(context, &args.one, true)?,
        Command::Disable(args) => enable(context, &args.one, false)?,
        Command::Password(args) => password(context, args)?,
        Command::RemoveSecondFactor(args) => {
            let (client, user) = args.one.find()?;
            let who = &args.one.user;
            args.yes.confirm(&format!("Let {who} log in without a second factor"))?;
            NO_FACTOR.ask::<()>(&client, &[&user])?;
            let text = format!("{who} has no second factor any more");
            context.out.done(json!({ "user_id": user.parse::<i64>()? }), &text)?;
        }
        Command::Grants(args) => grants(context, args)?,
        Command::Grant(args) => {
            let (client, user, role, organisation) = args.what.find()?;
            let body = json!({ "role_id": role, "organisation_id": organisation });
            GRANT.make::<()>(&client, &[&user], &body, &OnceArgs::default())?;
            let (who, role) = (&args.what.one.user, &args.what.role);
            context.out.done(body, &format!("{who} has the role {role}"))?;
        }
        Command::Revoke(args) => {
            let (client, user, role, organisation) = args.what.find()?;
            let body = json!({ "role_id": role, "organisation_id": organisation });
            let (role, organisation) = (role.to_string(), organisation.to_string());
            let query = [("role_id", role.as_str()), ("organisation_id", organisation.as_str())];
            client.call::<()>(&REVOKE.call(&[&user]).queried(&query))?;
            let (who, role) = (&args.what.one.user, &args.what.role);
            context.out.done(body, &format!("{who} has the role {role} no more"))?;
        }
        Command::Delete(args) => {
            let (client, user) = args.one.find()?;
            let who = &args.one.user;
            args.yes.confirm(&format!("Remove the user {who} with all keys and sessions"))?;
            REMOVE.ask::<()>(&client, &[&user])?;
            let document = json!({ "removed": user.parse::<i64>()? });
            context.out.done(document, &format!("removed the user {who}"))?;
        }
    }
    Ok(Done::Well)
}

fn delegates(context: &Context, args: &DelegatesArgs) -> Result<Done> {
    let (client, user) = args.one.find()?;
    let only = Only { filters: vec![format!("delegate_of:=={user}")], ..Only::default() };
    list::run(context, &client, &USERS, &list::Listing::default(), &only)
}

fn create(context: &Context, args: &CreateArgs) -> Result<()> {
    let client = args.appliance.client()?;
    let password = match args.no_password {
        true => None,
        false => Some(args.password.read(&args.name)?),
    };
    let organisation = args.org.as_ref().map(|org| named::id(&client, &ORGANISATIONS, org));
    let delegate_of = args.delegate_of.as_ref().map(|user| named::id(&client, &USERS, user));
    let roles = named::ids(&client, &ROLES, &args.role)?;
    let body = json!({
        "name": args.name,
        "full_name": args.full_name,
        "email": args.email,
        "organisation_id": organisation.transpose()?,
        "password": password.as_ref().map(|password| &password.text),
        "must_change_password": args.must_change_password,
        "delegate_of": delegate_of.transpose()?,
    });
    let mut user: Value = CREATE.make(&client, &[], &body, &args.once)?;
    for role in roles {
        let body = json!({ "role_id": role, "organisation_id": user["organisation_id"] });
        let user = user["id"].to_string();
        GRANT.make::<()>(&client, &[&user], &body, &OnceArgs::default())?;
    }
    let shown = password.as_ref().and_then(NewPassword::shown);
    if let Some(password) = shown {
        user["password"] = password.into();
    }
    context.out.report(None, user.clone(), |out| {
        writeln!(out, "made the user {} with the number {}", args.name, user["id"])?;
        tell_password(out, shown)
    })?;
    Ok(())
}

/// Tells a password that was made here.
fn tell_password(out: &mut dyn Write, password: Option<&str>) -> std::io::Result<()> {
    let Some(password) = password else { return Ok(()) };
    writeln!(out, "password  {password}")?;
    writeln!(out, "It is shown this once.")
}

fn change(context: &Context, args: &ChangeArgs) -> Result<()> {
    let (client, user) = args.one.find()?;
    let mut body = Map::new();
    let texts = [("full_name", &args.full_name), ("email", &args.email)];
    body.extend(texts.into_iter().filter_map(|(name, text)| {
        text.as_ref().map(|text| (name.to_owned(), text.as_str().into()))
    }));
    if let Some(org) = &args.org {
        let organisation = named::id(&client, &ORGANISATIONS, org)?;
        body.insert("organisation_id".into(), organisation.into());
    }
    if body.is_empty() {
        return Err(usage("nothing to change: give --full-name, --email or --org"));
    }
    let user: Value = CHANGE.send(&client, &[&user], &body)?;
    context.out.summary(None, user.clone(), |out| USERS.describe(out, &user))?;
    Ok(())
}

fn enable(context: &Context, one: &OneArgs, enabled: bool) -> Result<()> {
    let (client, user) = one.find()?;
    let user: Value = CHANGE.send(&client, &[&user], &json!({ "enabled": enabled }))?;
    let may = if enabled { "may log in" } else { "may not log in" };
    context.out.done(user, &format!("{} {may}", one.user))?;
    Ok(())
}

fn password(context: &Context, args: &SetPasswordArgs) -> Result<()> {
    let (client, user) = args.one.find()?;
    let password = args.password.read(&args.one.user)?;
    let body = json!({ "password": password.text, "must_change_password": !args.lasting });
    PASSWORD.send::<()>(&client, &[&user], &body)?;
    let shown = password.shown();
    let document = json!({ "user_id": user.parse::<i64>()?, "password": shown });
    context.out.report(None, document, |out| {
        writeln!(out, "{} has another password", args.one.user)?;
        tell_password(out, shown)
    })?;
    Ok(())
}

/// The names of a list by their numbers, as far as the caller may see it.
fn names(client: &Client, of: &Resource) -> Vec<(i64, String)> {
    let found: Result<Items<Named>, _> = client.get(of.path, &[("limit", "10000")]);
    let items = found.map(|found| found.items).unwrap_or_default();
    items.into_iter().map(|named| (named.id, named.name)).collect()
}

fn grants(context: &Context, args: &GrantsArgs) -> Result<()> {
    let (client, user) = args.one.find()?;
    let Grants { grants } = GRANTS.ask(&client, &[&user])?;
    let (roles, organisations) = (names(&client, &ROLES), names(&client, &ORGANISATIONS));
    let name = |names: &[(i64, String)], id: i64| {
        names.iter().find(|(known, _)| *known == id).map(|(_, name)| name.clone())
    };
    let named = grants.iter().map(|granted| {
        let (role, organisation) = (granted.role_id, granted.organisation_id);
        json!({
            "role_id": role,
            "role": name(&roles, role),
            "organisation_id": organisation,
            "organisation": name(&organisations, organisation),
        })
    });
    let grants: Vec<Value> = named.collect();
    if context.out.json {
        for grant in &grants {
            context.out.document(grant)?;
        }
        return Ok(());
    }
    let columns = resource::owned(&[
        ("ROLE", "role"),
        (">ID", "role_id"),
        ("ORGANISATION", "organisation"),
        (">ID", "organisation_id"),
    ]);
    let rows = grants.iter().map(|grant| resource::row(&columns, grant)).collect();
    resource::print(&mut std::io::stdout().lock(), &columns, rows)?;
    Ok(())
}

impl GrantedArgs {
    /// A client, the user, the role, the organisation.
    fn find(&self) -> Result<(Client, String, i64, i64)> {
        let (client, user) = self.one.find()?;
        let role = named::id(&client, &ROLES, &self.role)?;
        let organisation = match &self.org {
            Some(org) => named::id(&client, &ORGANISATIONS, org)?,
            None => {
                let user: Value = SHOW.ask(&client, &[&user])?;
                let organisation = user["organisation_id"].as_i64();
                organisation.ok_or_else(|| usage("the user belongs nowhere: give --org"))?
            }
        };
        Ok((client, user, role, organisation))
    }
}
