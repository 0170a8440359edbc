//! `strongroom update`: packages of updates, as who makes them sees them. No appliance is asked.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use jiff::Timestamp;
use serde_json::{Value, json};
use strongroom_appliance::updates::{
    ForeignPackage, NewPackage, Package, PackageManifest, UpdateSigner, UpdateVerifier, Version,
};
use strongroom_identity::Secret;

use crate::appliance::resource::describe;
use crate::exit::{Context, Done};
use crate::vendor::{PairArgs, read_keys};

/// What is told first of a package.
const FIRST: [&str; 5] = ["version", "minimum", "architecture", "built_at", "sealed"];

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Build(Box<BuildArgs>),
    Verify(VerifyArgs),
    Keygen(KeygenArgs),
}

/// Make a package of an update, as its vendor
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Appliances install it whose configuration names the public key (update_keys). Sealed with a passphrase
it is read by those alone that have the same passphrase (update_passphrase).

Example:
  strongroom update build --key vendor.pem --version 0.2.0 --minimum 0.1.0 \\
    --program target/release/strongroom --changelog CHANGELOG.md --output strongroom-0.2.0.update")]
pub(crate) struct BuildArgs {
    /// The private key
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// The version that it brings
    #[arg(long, value_name = "VERSION")]
    version: Version,
    /// The oldest version that can be updated to it [default: any]
    #[arg(long, value_name = "VERSION")]
    minimum: Option<Version>,
    /// The program
    #[arg(long, value_name = "FILE")]
    program: PathBuf,
    /// What is new in it, at most 1 MiB of text
    #[arg(long, value_name = "FILE")]
    changelog: Option<PathBuf>,
    /// The processors that the program is for [default: those of this machine]
    #[arg(long, value_name = "NAME", default_value = std::env::consts::ARCH)]
    architecture: String,
    /// When it was made, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS", env = "SOURCE_DATE_EPOCH")]
    built_at: Option<i64>,
    /// Seal it under the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Write it to this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
}

/// Say whether a package is whole and one that these keys signed
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Of a package in the form of Jidoteki Admin nothing but the signature is looked at, which takes its
passphrase.

Example:
  strongroom update verify strongroom-0.2.0.update --key vendor.pub.pem")]
pub(crate) struct VerifyArgs {
    /// The package
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A file with public keys in PEM; may be repeated
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// What it is sealed under is the first line of this file
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Make the pair of keys that a vendor signs packages with
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Ed25519, in PEM. Who has the private key decides what runs on appliances: keep it where no appliance
is. Files that are there already stay, and nothing is made.

Example:
  strongroom update keygen --private vendor.pem --public vendor.pub.pem")]
pub(crate) struct KeygenArgs {
    #[command(flatten)]
    pair: PairArgs,
}

impl Command {
    pub(crate) fn run(&self, context: &Context) -> Result<Done> {
        match self {
            Self::Build(args) => build(context, args)?,
            Self::Verify(args) => verify(context, args)?,
            Self::Keygen(args) => keygen(context, args)?,
        }
        Ok(Done::Well)
    }
}

fn told(manifest: &PackageManifest) -> Value {
    let file = |file: &strongroom_appliance::updates::PackedFile| json!({ "bytes": file.bytes, "sha256": file.sha256 });
    json!({
        "version": manifest.version.to_string(),
        "minimum": manifest.minimum.as_ref().map(Version::to_string),
        "architecture": manifest.architecture,
        "built_at": manifest.built_at,
        "sealed": manifest.is_sealed(),
        "program": file(&manifest.program),
        "changelog": manifest.changelog.as_ref().map(file),
    })
}

fn build(context: &Context, args: &BuildArgs) -> Result<()> {
    let signer = read_keys(&args.key, UpdateSigner::from_pem)?;
    let passphrase = passphrase(args.passphrase_file.as_deref())?;
    let open =
        |path: &PathBuf| File::open(path).with_context(|| format!("opening {}", path.display()));
    let built_at = match args.built_at {
        Some(seconds) => Timestamp::from_second(seconds)?,
        None => Timestamp::now(),
    };
    let package = NewPackage {
        version: args.version.clone(),
        minimum: args.minimum.clone(),
        architecture: args.architecture.clone(),
        built_at,
        program: open(&args.program)?,
        changelog: args.changelog.as_ref().map(open).transpose()?,
    };
    let output = &args.output;
    let writing = || format!("writing {}", output.display());
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o644).open(output);
    let mut out = BufWriter::with_capacity(1 << 20, file.with_context(writing)?);
    let written = package.write(&signer, passphrase.as_ref(), &mut out);
    let written = written.map_err(anyhow::Error::from).and_then(|manifest| {
        out.get_ref().sync_all().with_context(writing)?;
        Ok(manifest)
    });
    let manifest = written.inspect_err(|_| {
        // Half of it is of no use.
        fs::remove_file(output).ok();
    })?;
    let text = format!("{} brings version {}", output.display(), manifest.version);
    Ok(context.out.done(told(&manifest), &text)?)
}

fn verify(context: &Context, args: &VerifyArgs) -> Result<()> {
    let mut verifier = UpdateVerifier::default();
    for path in &args.key {
        read_keys(path, |pem| verifier.add_pem(pem))?;
    }
    let passphrase = passphrase(args.passphrase_file.as_deref())?;
    let reading = || format!("reading {}", args.file.display());
    let mut file = File::open(&args.file).with_context(reading)?;
    let mut magic = Vec::new();
    (&mut file).take(8).read_to_end(&mut magic).with_context(reading)?;
    if magic == b"Salted__" {
        let Some(passphrase) = passphrase else {
            bail!("{} is encrypted: give --passphrase-file", args.file.display());
        };
        ForeignPackage::verify(&mut file, &passphrase, &verifier)?;
        let told = json!({ "signed": true });
        let text = format!("{} is one that these keys signed", args.file.display());
        return Ok(context.out.done(told, &text)?);
    }
    let length = file.metadata().with_context(reading)?.len();
    let package = Package::read(&mut file, length)?;
    let manifest = package.verify(&verifier)?;
    // The sums of what is sealed can't be told without the passphrase.
    if !manifest.is_sealed() || passphrase.is_some() {
        package.unpack(&mut file, passphrase.as_ref(), |_| Ok(io::sink()))?;
    }
    let told = told(manifest);
    Ok(context.out.report(None, told.clone(), |out| describe(out, &FIRST, &told))?)
}

fn keygen(context: &Context, args: &KeygenArgs) -> Result<()> {
    let signer = UpdateSigner::generate()?;
    args.pair.keep(context, "updates", &signer.to_pem()?, &signer.public_pem())
}

fn passphrase(path: Option<&Path>) -> Result<Option<Secret>> {
    let text = crate::ask::from_file(path)?;
    Ok(text.map(|text| Secret::from(text.as_str())))
}
