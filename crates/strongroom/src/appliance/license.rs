//! `strongroom license`: what a vendor signs, and what an appliance shows of that.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use jiff::civil::Date;
use serde_json::{Value, json};
use strongroom_appliance::{Licence, LicenceSigner, LicenceVerifier, SignedLicence};

use super::ApplianceArgs;
use super::operation::operations;
use super::resource::describe;
use crate::exit::{Context, Done};
use crate::vendor::{PairArgs, create, read, read_keys};

operations! {
    SHOW = "system.license.show", GET "/v1/system/license", by "license show";
    SET = "system.license.set", PUT "/v1/system/license", by "license set";
}

/// What is told first of a licence.
const FIRST: [&str; 7] = ["state", "name", "contact", "app", "users", "issued", "expires"];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Show(ShowArgs),
    Set(SetArgs),
    Verify(VerifyArgs),
    Keygen(KeygenArgs),
    Issue(IssueArgs),
}

/// Show the licence of an appliance
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Nothing is switched off without one, or when it has ended.

Example:
  strongroom license show")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Put a licence in the place of the one that an appliance has
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It is taken if one of the keys signed it that the configuration names (license_keys); else the one
there is stays.

Example:
  strongroom license set license.txt")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The licence
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Say whether a licence is one that these keys signed, without an appliance
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom license verify license.txt --key vendor.pub.pem")]
pub(crate) struct VerifyArgs {
    /// The licence
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A file with public keys in PEM; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
}

/// Make the pair of keys that a vendor signs licences with
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Ed25519, in PEM. Who has the private key makes licences: keep it where no appliance is. Files that
are there already stay, and nothing is made.

Example:
  strongroom license keygen --private vendor.pem --public vendor.pub.pem")]
pub(crate) struct KeygenArgs {
    #[command(flatten)]
    pair: PairArgs,
}

/// Sign a licence, as its vendor
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom license issue --key vendor.pem --app enterprise --users 20 --expires 2038-01-19 \\
    --name 'Enterprise Company' --contact cto@enterprise --serial 2026-0001 --output license.txt")]
pub(crate) struct IssueArgs {
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// A name for this licence that no other has
    #[arg(long)]
    serial: String,
    /// What it is for
    #[arg(long)]
    app: String,
    /// For how many users
    #[arg(long)]
    users: u32,
    /// The last day on which it is good [default: it never ends]
    #[arg(long, value_name = "YYYY-MM-DD")]
    expires: Option<Date>,
    /// Whose it is
    #[arg(long)]
    name: String,
    /// How to reach them
    #[arg(long)]
    contact: String,
    /// The day that stands as the one when it was made [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
    issued: Option<Date>,
    /// Write it to this file, which must not be there yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Command {
    pub(crate) fn run(&self, context: &Context) -> Result<Done> {
        match self {
            Self::Show(args) => {
                let licence: Value = SHOW.ask(&args.appliance.client()?, &[])?;
                context.out.report(None, licence.clone(), |out| describe(out, &FIRST, &licence))?;
            }
            Self::Set(args) => {
                let text = String::from_utf8(read(&args.file, SignedLicence::MAX as u64)?);
                let text = text.map_err(|_| {
                    anyhow::anyhow!("{} is no licence: it is not text", args.file.display())
                })?;
                let client = args.appliance.client()?;
                let licence: Value = SET.send(&client, &[], &json!({ "text": text }))?;
                context.out.report(None, licence.clone(), |out| describe(out, &FIRST, &licence))?;
            }
            Self::Verify(args) => verify(context, args)?,
            Self::Keygen(args) => keygen(context, args)?,
            Self::Issue(args) => issue(context, args)?,
        }
        Ok(Done::Well)
    }
}

fn verify(context: &Context, args: &VerifyArgs) -> Result<()> {
    let mut verifier = LicenceVerifier::default();
    for path in &args.key {
        read_keys(path, |pem| verifier.add_pem(pem))?;
    }
    let signed = SignedLicence::parse(&read(&args.file, SignedLicence::MAX as u64)?)?;
    let licence = verifier.verify(signed)?;
    let told = json!({
        "state": licence.state_now().word(),
        "serial": licence.serial,
        "app": licence.app,
        "users": licence.users,
        "issued": licence.issued.to_string(),
        "expires": licence.expires.map(|day| day.to_string()),
        "name": licence.name,
        "contact": licence.contact,
    });
    Ok(context.out.report(None, told.clone(), |out| describe(out, &FIRST, &told))?)
}

fn keygen(context: &Context, args: &KeygenArgs) -> Result<()> {
    let signer = LicenceSigner::generate()?;
    args.pair.keep(context, "licences", &signer.to_pem()?, &signer.public_pem())
}

fn issue(context: &Context, args: &IssueArgs) -> Result<()> {
    let signer = read_keys(&args.key, LicenceSigner::from_pem)?;
    let today = || jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    let licence = Licence {
        serial: args.serial.clone(),
        app: args.app.clone(),
        users: args.users,
        issued: args.issued.unwrap_or_else(today),
        expires: args.expires,
        name: args.name.clone(),
        contact: args.contact.clone(),
    };
    let text = signer.sign(licence)?.to_string();
    match &args.output {
        Some(path) => {
            create(path, 0o644, text.as_bytes())?;
            let said = format!("{} is signed", path.display());
            context.out.done(json!({ "file": path }), &said)?;
        }
        None => {
            let told = json!({ "text": text });
            context.out.report(None, told, |out| out.write_all(text.as_bytes()))?;
        }
    }
    Ok(())
}
