//! `strongroom login` and `strongroom logout`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use strongroom_client::types::OpenedSession;
use strongroom_client::{Address, Client, Error, Login, Logins, Place, Token, Trust};

use super::operation::operations;
use super::{known, me};
use crate::ask::{self, PasswordArgs};
use crate::exit::{Context, Done, usage};

operations! {
    OPEN = "sessions.open", POST "/v1/sessions", by "login";
    CLOSE = "sessions.close_own", DELETE "/v1/sessions/current", by "logout";
}

/// Log in at an appliance elsewhere
#[derive(clap::Args, Debug)]
#[command(after_help = "\
The certificate must be signed by an authority of --ca-cert, or have the fingerprint of
--fingerprint; otherwise its fingerprint is shown and you are asked, once: the appliance printed the
same one when it was first started. The session is kept in a file that only you can read.

Examples:
  strongroom login https://backup.example.org:8443
  strongroom login https://backup.example.org:8443 --user ada --ca-cert /etc/ssl/our-ca.pem
  strongroom login https://backup.example.org:8443 --token-file token.txt")]
pub(crate) struct LoginArgs {
    /// Where it is
    #[arg(value_name = "URL")]
    url: Address,
    /// Who you are there
    #[arg(long, default_value = "admin")]
    user: String,
    #[command(flatten)]
    password: PasswordArgs,
    /// The code of the second factor, or a recovery code, is the first line of this file, `-` of
    /// standard input [default: it is asked for when the appliance wants one]
    #[arg(long, value_name = "FILE")]
    code_file: Option<PathBuf>,
    /// The directory that knows the user, when several do
    #[arg(long)]
    directory: Option<String>,
    /// Instead of name and password: a token of an issuer, or an API key, is the first line of this
    /// file, `-` of standard input; it is kept as a session is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["user", "password_file", "code_file", "directory"])]
    token_file: Option<PathBuf>,
    /// Authorities that may sign its certificate, in PEM
    #[arg(long, value_name = "FILE")]
    ca_cert: Option<PathBuf>,
    /// The fingerprint that its certificate must have
    #[arg(long, value_name = "SHA256:...", conflicts_with = "ca_cert")]
    fingerprint: Option<String>,
}

/// Log out
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom logout https://backup.example.org:8443")]
pub(crate) struct LogoutArgs {
    /// Where
    #[arg(value_name = "URL")]
    url: Address,
}

pub(crate) fn login(context: &Context, args: &LoginArgs) -> Result<Done> {
    let trust = trust(args)?;
    let place = |token| Place::Remote { address: args.url.clone(), trust: trust.clone(), token };
    let (user, token, expires_at) = match ask::from_file(args.token_file.as_deref())? {
        Some(text) => {
            let token = Token::new(text);
            let me: Value = me::SHOW.ask(&Client::new(place(Some(token.clone())))?, &[])?;
            (me["name"].as_str().unwrap_or_default().to_owned(), token, Value::Null)
        }
        None => {
            let opened = open(args, &Client::new(place(None))?)?;
            let expires_at = json!(opened.expires_at);
            (args.user.clone(), Token::new(opened.token), expires_at)
        }
    };
    let login = match (&trust, &args.ca_cert) {
        (Trust::Pinned(fingerprint), _) => Login::pinned(&user, &token, *fingerprint),
        (_, Some(path)) => {
            let path = std::path::absolute(path).context("finding the authorities")?;
            Login::vouched(&user, &token, &path)
        }
        (_, None) => return Err(usage("nobody vouches for the appliance's certificate")),
    };
    Logins::read(&known::logins()?)?.add(&args.url, login)?;
    let document =
        json!({ "appliance": args.url.to_string(), "user": user, "expires_at": expires_at });
    context
        .out
        .summary(None, document, |out| writeln!(out, "logged in at {} as {user}", args.url))?;
    Ok(Done::Well)
}

/// Opens a session with a name and a password, and a code where one is wanted.
fn open(args: &LoginArgs, client: &Client) -> Result<OpenedSession> {
    let password = args.password.read(&format!("Password of {}", args.user))?;
    let code = ask::from_file(args.code_file.as_deref())?;
    let mut wanted = json!({
        "name": args.user, "password": password, "code": code, "directory": args.directory,
    });
    match client.call(&OPEN.call(&[]).with(&wanted)?) {
        Err(Error::Refused(problem))
            if problem.code == "second_factor_needed" && code.is_none() && ask::somebody() =>
        {
            wanted["code"] = ask::secret(None, "Code of the second factor")?.into();
            OPEN.send(client, &[], &wanted)
        }
        opened => Ok(opened?),
    }
}

/// Whose certificate is trusted, before any secret is sent.
fn trust(args: &LoginArgs) -> Result<Trust> {
    if let Some(path) = &args.ca_cert {
        return Ok(Trust::from_pem(path)?);
    }
    if let Some(text) = &args.fingerprint {
        let fingerprint = strongroom_client::Fingerprint::parse(text);
        let wrong = || usage("--fingerprint takes SHA256: and 64 hexadecimal digits");
        return fingerprint.map(Trust::Pinned).ok_or_else(wrong);
    }
    let place = Place::Remote { address: args.url.clone(), trust: Trust::Look, token: None };
    let found = Client::new(place)?.look()?;
    if !ask::somebody() {
        return Err(usage(format!(
            "nobody vouches for the certificate of {}, and nobody is there to ask: give \
             --fingerprint {found} if it is the right one, or --ca-cert",
            args.url
        )));
    }
    let url = &args.url;
    let question =
        format!("The certificate of {url} has the fingerprint\n  {found}\nIs that the one?");
    match ask::agreed(&question)? {
        true => Ok(Trust::Pinned(found)),
        false => Err(usage("it was not trusted; nothing was sent")),
    }
}

pub(crate) fn logout(context: &Context, args: &LogoutArgs) -> Result<Done> {
    let mut logins = Logins::read(&known::logins()?)?;
    let url = args.url.to_string();
    let ended = match logins.place(Some(&url))? {
        Some(place) => Client::new(place)?.call::<()>(&CLOSE.call(&[])),
        None => return Err(usage(format!("you are not logged in at {url}"))),
    };
    // The token is let go of even when the appliance can't be told.
    logins.remove(&args.url)?;
    let document = json!({ "appliance": url, "ended": ended.is_ok() });
    context.out.summary(None, document, |out| writeln!(out, "logged out of {url}"))?;
    match ended {
        // The session had ended by itself.
        Err(Error::Refused(problem)) if problem.status == 401 => Ok(Done::Well),
        ended => ended.map(|()| Done::Well).map_err(Into::into),
    }
}
