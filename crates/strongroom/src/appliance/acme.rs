//! `strongroom system certificate acme`: certificates of an authority.

use std::path::PathBuf;

use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use strongroom_client::types::Job;

use super::ApplianceArgs;
use super::follow::{Waiting, follow};
use super::operation::operations;
use super::resource::describe;
use super::system::pem;
use crate::exit::{Context, Done};

operations! {
    SHOW = "system.certificate.acme.show", GET "/v1/system/certificate/acme",
        by "system certificate acme show";
    SET = "system.certificate.acme.set", PUT "/v1/system/certificate/acme",
        by "system certificate acme set";
    CLEAR = "system.certificate.acme.clear", DELETE "/v1/system/certificate/acme",
        by "system certificate acme clear";
    ISSUE = "system.certificate.acme.issue", POST "/v1/system/certificate/acme/issue",
        by "system certificate acme issue";
}

/// Where Let's Encrypt is.
const USUAL: &str = "https://acme-v02.api.letsencrypt.org/directory";
const FIRST: [&str; 5] = ["directory", "domains", "issued_at", "renew_at", "error"];

#[derive(Debug, Subcommand)]
pub(crate) enum AcmeCommand {
    Show(ShowArgs),
    Set(SetArgs),
    Clear(ClearArgs),
    Issue(IssueArgs),
}

/// Show which authority is asked for certificates, and how that went
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system certificate acme show")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Have the certificate of an authority, and have it renewed
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The authority asks for a proof at http://DOMAIN/ of each name: port 80 must lead to the listener that the
configuration has as `redirect`. A certificate is asked for within minutes, or by `issue` at once.

Examples:
  strongroom system certificate acme set --domain box.example --contact admin@box.example --agree
  strongroom system certificate acme set --domain box.corp --directory https://ca.corp/acme/directory \\
    --ca-certificate corp.pem --agree")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// A name that the certificate is for; may be repeated
    #[arg(long = "domain", value_name = "NAME", required = true)]
    domains: Vec<String>,
    /// The address of the authority's directory
    #[arg(long, value_name = "URL", default_value = USUAL)]
    directory: String,
    /// A mail address that it may write to; may be repeated
    #[arg(long = "contact", value_name = "ADDRESS")]
    contact: Vec<String>,
    /// Who vouches for the authority's own address, in PEM [default: whom the appliance trusts]
    #[arg(long, value_name = "FILE")]
    ca_certificate: Option<PathBuf>,
    /// That you agree to the authority's terms
    #[arg(long)]
    agree: bool,
}

/// Ask no authority any more; the certificate stays until it ends
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system certificate acme clear")]
pub(crate) struct ClearArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Ask for a certificate now
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It is shown to clients as soon as it is there. Whoever trusted the certificate until now by its
fingerprint has to log in again.

Example:
  strongroom system certificate acme issue")]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

pub(super) fn acme(context: &Context, command: &AcmeCommand) -> Result<Done> {
    match command {
        AcmeCommand::Show(args) => {
            let shown: Value = SHOW.ask(&args.appliance.client()?, &[])?;
            context.out.report(None, shown.clone(), |out| describe(out, &FIRST, &shown))?;
        }
        AcmeCommand::Set(args) => {
            let client = args.appliance.client()?;
            let body = json!({
                "directory": args.directory,
                "ca_certificate": args.ca_certificate.as_deref().map(pem).transpose()?,
                "contact": args.contact,
                "domains": args.domains,
                "agree_to_terms": args.agree,
            });
            let shown: Value = SET.send(&client, &[], &body)?;
            context.out.report(None, shown.clone(), |out| describe(out, &FIRST, &shown))?;
        }
        AcmeCommand::Clear(args) => {
            CLEAR.ask::<()>(&args.appliance.client()?, &[])?;
            let text = "no certificate is asked for any more";
            context.out.done(json!({ "cleared": true }), text)?;
        }
        AcmeCommand::Issue(args) => {
            let client = args.appliance.client()?;
            let job: Job = ISSUE.ask(&client, &[])?;
            return follow(context, &client, job, Waiting::ForOwn);
        }
    }
    Ok(Done::Well)
}
