//! `strongroom system network` and `system application`: how the appliance is reached, and what is set
//! for whatever application runs beside.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use strongroom_appliance::network::{Document, Json};
use strongroom_client::types::Job;
use strongroom_client::{Address, Client, Error, Logins, Place};

use super::jobs::SHOW as JOB;
use super::operation::operations;
use super::resource::{self, Column, describe};
use super::{ApplianceArgs, known};
use crate::exit::{Context, Done, usage};

operations! {
    SHOW = "system.network.show", GET "/v1/system/network", by "system network show";
    SET = "system.network.set", PUT "/v1/system/network", by "system network set";
    CONFIRM = "system.network.confirm", POST "/v1/system/network/confirm",
        by "system network confirm";
    APPLICATION = "system.application.show", GET "/v1/system/application",
        by "system application show";
    SET_APPLICATION = "system.application.set", PUT "/v1/system/application",
        by "system application set";
}

/// How often it is asked how far a change is.
const LOOK: Duration = Duration::from_millis(250);
/// How long one waits for an answer from where the appliance was.
const STILL: Duration = Duration::from_secs(3);
/// How long a change may take beside the time in which it is to be confirmed.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a file with settings of the application.
const MAX: u64 = 256 << 10;

/// What is shown of the steps of a change.
const STEPS: &[Column] = &[("STEP", "part"), ("STATE", "state"), ("WHAT", "detail")];

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    Show(ShowArgs),
    Set(Box<SetArgs>),
    Confirm(ConfirmArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ApplicationCommand {
    Show(ShowApplicationArgs),
    Set(SetApplicationArgs),
}

/// Show how the network is set, and how the last change went
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system network show")]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Set the network; the change is taken back unless it is confirmed in time
#[derive(clap::Args, Debug)]
#[command(after_help = "\
What is not said is not set: say all of it. `host_driver` of the configuration says who brings it to the
machine; with `none` it is kept and shown. This command confirms the change by itself when it can reach
the appliance where it is then: log in over the network for that. From the control socket it can
confirm what leaves the addresses as they are.

Examples:
  strongroom system network set --interface eth0 --hostname box.example --dhcp
  strongroom system network set --interface eth0 --hostname box.example --address 192.0.2.7/24 \\
    --gateway 192.0.2.1 --dns 192.0.2.1 --ntp pool.ntp.org
  strongroom system network set --interface eth0 --hostname box.example --address 192.0.2.7/24 \\
    --address 2001:db8::7/64 --gateway 192.0.2.1 --gateway fe80::1 --confirm-within 120")]
pub(crate) struct SetArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The interface
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// The name of the host
    #[arg(long, value_name = "NAME")]
    hostname: String,
    /// Have a DHCP server say the addresses
    #[arg(long, conflicts_with_all = ["address", "gateway"], required_unless_present = "address")]
    dhcp: bool,
    /// An address with the bits of its network; may be repeated
    #[arg(long, value_name = "ADDRESS/BITS")]
    address: Vec<String>,
    /// Through whom others are reached; one for IPv4, one for IPv6
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// A name server; may be repeated
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// A time server; may be repeated
    #[arg(long, value_name = "NAME|ADDRESS")]
    ntp: Vec<String>,
    /// Bytes of a packet [default: as it is]
    #[arg(long, value_name = "BYTES")]
    mtu: Option<u32>,
    /// Seconds in which the change is to be confirmed, 5 to 3600 [default: as configured]
    #[arg(long, value_name = "SECONDS")]
    confirm_within: Option<u64>,
    /// Don't confirm the change, and don't wait for it: say the job's number and end
    #[arg(long)]
    no_confirm: bool,
}

/// Keep the change that waits
#[derive(clap::Args, Debug)]
#[command(after_help = "\
It must come over the network, from another machine, when the change may cut somebody off.

Example:
  strongroom system network confirm --appliance https://192.0.2.7:8443")]
pub(crate) struct ConfirmArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Print the settings of the application
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Example:
  strongroom system application show")]
pub(crate) struct ShowApplicationArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
}

/// Put other settings of the application in the place of those that there are
#[derive(clap::Args, Debug)]
#[command(after_help = "\
One object of JSON, of 64 KiB and 32 levels at most. What it means is the application's.

Example:
  strongroom system application set app.json")]
pub(crate) struct SetApplicationArgs {
    #[command(flatten)]
    appliance: ApplianceArgs,
    /// The file; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(crate) fn network(context: &Context, command: &NetworkCommand) -> Result<Done> {
    match command {
        NetworkCommand::Show(args) => tell(context, &SHOW.ask(&args.appliance.client()?, &[])?)?,
        NetworkCommand::Confirm(args) => {
            tell(context, &CONFIRM.ask(&args.appliance.client()?, &[])?)?;
        }
        NetworkCommand::Set(args) => set(context, args)?,
    }
    Ok(Done::Well)
}

fn tell(context: &Context, status: &Value) -> Result<()> {
    Ok(context.out.report(None, status.clone(), |out| show(out, status))?)
}

fn show(out: &mut dyn Write, status: &Value) -> io::Result<()> {
    let driver = status["driver"].as_str().unwrap_or_default();
    match &status["settings"] {
        Value::Null => writeln!(out, "nothing is set; the driver is `{driver}`")?,
        settings => {
            describe(out, &["interface", "hostname", "mode"], settings)?;
            describe(out, &[], &json!({ "driver": driver, "set_at": status["set_at"] }))?;
        }
    }
    if !status["pending"].is_null() {
        let pending = &status["pending"];
        writeln!(out)?;
        match pending["confirm_until"].as_str() {
            Some(at) => {
                let until = resource::local(at);
                let place = match pending["at_new_address"].as_bool() {
                    Some(true) => " over the network",
                    _ => "",
                };
                writeln!(out, "waits to be confirmed{place}; it is taken back at {until}:")?;
            }
            None => writeln!(out, "is being applied:")?,
        }
        describe(out, &["interface", "hostname", "mode"], &pending["settings"])?;
        steps(out, &pending["steps"])?;
    }
    if !status["last"].is_null() {
        let last = &status["last"];
        let outcome = last["outcome"].as_str().unwrap_or_default();
        let why = last["why"].as_str().map(|why| format!(": {why}")).unwrap_or_default();
        writeln!(out, "\nthe last change is {outcome}{why}")?;
        steps(out, &last["steps"])?;
    }
    Ok(())
}

fn steps(out: &mut dyn Write, steps: &Value) -> io::Result<()> {
    let Some(steps) = steps.as_array().filter(|steps| !steps.is_empty()) else { return Ok(()) };
    let columns = resource::owned(STEPS);
    let rows = steps.iter().map(|step| resource::row(&columns, step)).collect();
    resource::print(out, &columns, rows)
}

/// What somebody saw who looks after a change at one of the places where the appliance may be.
enum Seen {
    /// It is kept, or was not: what is told of the network.
    Over(Value),
    /// The job could not even begin it.
    Failed(String),
    /// It waits, and can't be confirmed from here.
    Elsewhere(String),
}

fn set(context: &Context, args: &SetArgs) -> Result<()> {
    let client = args.appliance.client()?;
    let wanted = json!({
        "interface": args.interface,
        "hostname": args.hostname,
        "mode": if args.dhcp { "dhcp" } else { "static" },
        "addresses": args.address,
        "gateways": args.gateway,
        "mtu": args.mtu,
        "dns": args.dns,
        "ntp": args.ntp,
        "confirm_seconds": args.confirm_within,
    });
    let job: Job = SET.send(&client, &[], &wanted)?;
    if args.no_confirm {
        let text = format!(
            "job {}; `strongroom system network confirm` keeps the change when it waits",
            job.id
        );
        return Ok(context.out.done(serde_json::to_value(&job)?, &text)?);
    }
    let mut places = vec![client.place().clone()];
    if let Place::Remote { address, trust, token } = client.place() {
        let others = args.address.iter().filter_map(|text| text.split_once('/'));
        places.extend(others.filter(|(host, _)| *host != address.host).map(|(host, _)| {
            let address = Address { host: host.to_owned(), port: address.port };
            Place::Remote { address, trust: trust.clone(), token: token.clone() }
        }));
    }
    let (told, seen) = mpsc::channel();
    for place in places {
        let (told, job) = (told.clone(), job.clone());
        // It may wait long for an address where nobody is: that holds no other up, nor the end.
        std::thread::spawn(move || attend(&place, &job, &told));
    }
    drop(told);
    let within = Duration::from_secs(args.confirm_within.unwrap_or(3600));
    let (end, mut hinted) = (Instant::now() + within + PATIENCE, false);
    let (place, status) = loop {
        match seen.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok((place, Seen::Over(status))) => break (place, status),
            Ok((_, Seen::Failed(why))) => bail!("job {}: {why}", job.id),
            Ok((_, Seen::Elsewhere(why))) => {
                if !hinted && !context.out.quiet {
                    hinted = true;
                    let mut err = io::stderr().lock();
                    let _ = writeln!(err, "not confirmed from here: {why}");
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => bail!(
                "nobody can say what became of job {}: when it was begun, it is taken back unless it was \
                 confirmed",
                job.id
            ),
        }
    };
    let last = &status["last"];
    let outcome = last["outcome"].as_str().unwrap_or_default();
    if !matches!(outcome, "applied" | "stored") {
        let failed = last["steps"].as_array().into_iter().flatten();
        let failed = failed.filter(|step| step["state"] == "failed");
        let failed: Vec<_> = failed
            .map(|step| format!("; {}: {}", step["part"], step["detail"]).replace('"', ""))
            .collect();
        let why = last["why"].as_str().unwrap_or_default();
        bail!("the change is {outcome}: {why}{}", failed.concat());
    }
    // Not where both answer, and not back: it is logged in where it was, too.
    if outcome == "applied" && !answers(client.place()) {
        moved(client.place(), &place)?;
    }
    tell(context, &status)
}

/// Looks after a change at a place until it is over, and confirms it there if that is over the network:
/// who is at the machine itself has not shown that others reach it.
fn attend(place: &Place, job: &Job, told: &Sender<(Place, Seen)>) {
    let Ok(client) = Client::new(place.clone()) else { return };
    let say = |seen| told.send((place.clone(), seen)).is_ok();
    loop {
        let status: Result<Value, Error> = client.call(&SHOW.call(&[]));
        if let Ok(status) = status {
            if is_of(&status["last"], job) {
                say(Seen::Over(status));
                return;
            }
            let waits = !status["pending"]["confirm_until"].is_null();
            if is_of(&status["pending"], job) && waits && !matches!(place, Place::Remote { .. }) {
                let why = "`strongroom system network confirm` keeps the change, once it is known to \
                           be well";
                if !say(Seen::Elsewhere(why.to_owned())) {
                    return;
                }
            } else if is_of(&status["pending"], job) && waits {
                match client.call::<Value>(&CONFIRM.call(&[])) {
                    Ok(status) => {
                        say(Seen::Over(status));
                        return;
                    }
                    Err(Error::Refused(problem)) => {
                        if !say(Seen::Elsewhere(problem.to_string())) {
                            return;
                        }
                    }
                    Err(_) => {}
                }
            } else if status["pending"].is_null()
                && let Ok(now) = JOB.ask::<Job>(&client, &[&job.id.to_string()])
                && matches!(now.state.as_str(), "failed" | "canceled" | "not_run")
                // What came of it is looked at once more: it may be told since.
                && !client.call::<Value>(&SHOW.call(&[])).is_ok_and(|status| is_of(&status["last"], job))
            {
                say(Seen::Failed(now.error.unwrap_or(now.state)));
                return;
            }
        }
        std::thread::sleep(LOOK);
    }
}

/// Whether a change is that of this job: a catalogue before this one may have had one of the same number.
fn is_of(change: &Value, job: &Job) -> bool {
    let time = |text: &str| text.parse::<Timestamp>().ok();
    let asked = change["asked_at"].as_str().and_then(time);
    change["job_id"].as_i64() == Some(job.id) && asked == time(&job.queued_at)
}

/// Whether the appliance is still reached at a place.
fn answers(place: &Place) -> bool {
    let Ok(client) = Client::new(place.clone()) else { return false };
    let (told, seen) = mpsc::channel();
    // Where nobody is, it may wait long.
    std::thread::spawn(move || told.send(client.call::<Value>(&SHOW.call(&[])).is_ok()));
    seen.recv_timeout(STILL).unwrap_or(false)
}

/// Who was logged in where the appliance was, is where it is now.
fn moved(from: &Place, to: &Place) -> Result<()> {
    let (Place::Remote { address: from, .. }, Place::Remote { address: to, .. }) = (from, to)
    else {
        return Ok(());
    };
    if from != to {
        Logins::read(&known::logins()?)?.follow(from, to)?;
    }
    Ok(())
}

pub(crate) fn application(context: &Context, command: &ApplicationCommand) -> Result<Done> {
    match command {
        ApplicationCommand::Show(args) => {
            print(context, &APPLICATION.ask(&args.appliance.client()?, &[])?)?;
        }
        ApplicationCommand::Set(args) => {
            let client = args.appliance.client()?;
            let settings: Document = serde_json::from_str(&read(&args.file)?)
                .map_err(|error| usage(format!("{}: {error}", args.file.display())))?;
            let body = Document::of([("settings".to_owned(), Json::Object(settings))]);
            print(context, &SET_APPLICATION.send(&client, &[], &body)?)?;
        }
    }
    Ok(Done::Well)
}

/// In the order in which it was written.
fn print(context: &Context, shown: &Document) -> Result<()> {
    let text = serde_json::to_string_pretty(&shown.get("settings"))?;
    let document = serde_json::to_value(shown)?;
    Ok(context.out.report(None, document, |out| writeln!(out, "{text}"))?)
}

fn read(path: &Path) -> Result<String> {
    let mut text = String::new();
    let reading = || format!("reading {}", path.display());
    let from: Box<dyn Read> = match path == Path::new("-") {
        true => Box::new(io::stdin().lock()),
        false => Box::new(File::open(path).with_context(reading)?),
    };
    from.take(MAX + 1).read_to_string(&mut text).with_context(reading)?;
    if text.len() as u64 > MAX {
        return Err(usage(format!("{} has more than {MAX} bytes", path.display())));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_job_of_the_same_number_in_an_earlier_catalogue_is_another() {
        let job = json!({
            "id": 7, "kind": "network", "state": "queued", "object": "eth0", "user_name": "admin",
            "queued_at": "2026-03-01T10:00:00.25Z",
            "progress": { "phase": "", "bytes_done": 0, "items_done": 0 },
        });
        let job: Job = serde_json::from_value(job).unwrap();
        let of = |id: i64, asked: Value| is_of(&json!({ "job_id": id, "asked_at": asked }), &job);
        assert!(of(7, json!("2026-03-01T10:00:00.250Z")));
        assert!(!of(8, json!("2026-03-01T10:00:00.250Z")));
        assert!(!of(7, json!("2026-02-01T10:00:00.250Z")));
        assert!(!of(7, Value::Null));
    }

    #[test]
    fn what_waits_and_what_failed_are_told() {
        let settings = json!({
            "interface": "eth0", "hostname": "box", "mode": "static",
            "addresses": ["192.0.2.7/24"], "gateways": ["192.0.2.1"], "mtu": null,
            "dns": [], "ntp": [],
        });
        let status = json!({
            "driver": "ip", "settings": settings, "set_at": "2026-03-01T10:00:00Z",
            "pending": {
                "job_id": 7, "by": "admin", "settings": settings, "at_new_address": true,
                "confirm_until": "2026-03-01T10:01:00Z",
                "steps": [{ "part": "addresses", "state": "done", "detail": "192.0.2.7/24" }],
            },
            "last": {
                "job_id": 6, "outcome": "failed", "at": "2026-03-01T09:00:00Z",
                "why": "it could not be applied",
                "steps": [{ "part": "ntp", "state": "failed", "detail": "no chrony" }],
            },
        });
        let mut out = Vec::new();
        show(&mut out, &status).unwrap();
        let text = String::from_utf8(out).unwrap();
        for told in [
            "waits to be confirmed over the network",
            "the last change is failed: it could not be applied",
            "no chrony",
            "192.0.2.7/24",
        ] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}
