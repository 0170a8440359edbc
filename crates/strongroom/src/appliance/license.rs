//! `strongroom license`: what a vendor signs, and what an appliance shows of that.

use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Subcommand;
use jiff::civil::Date;
use serde_json::{Value, json};
use strongroom_appliance::{Licence, LicenceSigner, LicenceVerifier, SignedLicence};
use zeroize::Zeroizing;

use super::ApplianceArgs;
use super::operation::operations;
use super::resource::describe;
use crate::exit::{Context, Done};

operations! {
    SHOW = "system.license.show", GET "/v1/system/license", by "license show";
    SET = "system.license.set", PUT "/v1/system/license", by "license set";
}

/// Bytes of a key's file.
const KEY: u64 = 64 << 10;
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
    /// Where the private key goes, for its owner alone
    #[arg(long, value_name = "FILE")]
    private: PathBuf,
    /// Where the public key goes, which appliances are given
    #[arg(long, value_name = "FILE")]
    public: PathBuf,
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
        let added = verifier.add_pem(&read(path, KEY)?);
        added.with_context(|| format!("reading {}", path.display()))?;
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
    let (private, public) = (&args.private, &args.public);
    for path in [private, public] {
        let there = path.symlink_metadata().is_ok();
        ensure!(!there, "{} is there already", path.display());
    }
    create(private, 0o600, signer.to_pem()?.as_bytes())?;
    create(public, 0o644, signer.public_pem().as_bytes())?;
    let told = json!({ "private": private, "public": public });
    let text = format!("licences are signed with {}", private.display());
    Ok(context.out.done(told, &text)?)
}

fn issue(context: &Context, args: &IssueArgs) -> Result<()> {
    let pem = Zeroizing::new(read(&args.key, KEY)?);
    let signer = LicenceSigner::from_pem(&pem);
    let signer = signer.with_context(|| format!("reading {}", args.key.display()))?;
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

fn read(path: &Path, most: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("reading {}", path.display()))?;
    ensure!(bytes.len() as u64 <= most, "{} has more than {most} bytes", path.display());
    Ok(bytes)
}

fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.with_context(|| format!("writing {}", path.display()))
}
