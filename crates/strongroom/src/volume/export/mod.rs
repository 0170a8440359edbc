//! `strongroom volume export`.

mod image;
mod iscsi;
mod nbd;
mod settling;
mod until;
mod uri;
mod volume;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use strongroom_block::{BlockDevice, OverlayDevice};
use strongroom_engine::id::RootId;
use strongroom_engine::pool::Pool;

use self::iscsi::{Iscsi, IscsiArgs, Portal};
use self::nbd::{Nbd, Place, TlsArgs};
use self::until::Until;
use crate::access::SealedPoolArgs;
use crate::browse::locate;
use crate::exit::{Context, Done, usage};
use crate::output::size;

/// How long clients may take for their last requests when it ends.
const GRACE: Duration = Duration::from_secs(10);

/// Serve a disk over NBD or iSCSI: one that was backed up, a volume, or a snapshot
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Nothing is restored first: what a client reads is read from the pool. It is served until Ctrl-C. The
export of NBD is called by the image's, the file's or the volume's name; the empty name means it, too.
Whoever reaches an address may read the disk there, unless NBD has TLS and asks for certificates
(--tls-clients), or initiators have to prove who they are (--chap-file). So name a Unix socket, which is
for this user alone, or an address of this machine (127.0.0.1), to which others come through a tunnel.
Other addresses take one of these, or --in-clear, in a network that you trust. A size that is no multiple
of 512 is padded with zeroes.

A backup or a snapshot is never changed. With --writable clients may write: what they wrote lies in a file
without a name in --scratch, takes as much room as was written, and is gone when this ends. With --in-place
they write to the volume itself: what a client has flushed is kept, whatever happens to this process.
Volumes of a pool that an appliance has open are served by it.

Examples:
  strongroom volume export db-disk --nbd 127.0.0.1:10809 --pool /srv/pool
  strongroom volume export vms:/srv/web.img --nbd unix:/run/web.sock --pool /srv/pool
  qemu-img convert nbd://127.0.0.1:10809/db-disk db.qcow2
  strongroom volume export db-disk@2026-03-01 --nbd unix:/run/db.sock --writable --pool /srv/pool
  qemu-system-x86_64 -drive file=nbd+unix:///db-disk?socket=/run/db.sock,format=raw,if=virtio
  strongroom volume export vol1 --in-place --iscsi 127.0.0.1:3260 --chap-file chap --pool /srv/pool
  strongroom volume export vol1@monday --nbd 10.0.0.2:10809 --tls-cert cert.pem --tls-key key.pem \\
    --tls-clients ca.pem --pool /srv/pool")]
#[command(group = clap::ArgGroup::new("place").required(true).multiple(true).args(["nbd", "iscsi"]))]
pub(crate) struct Args {
    /// Which image, and a file in it (the image of a disk or a stream needs no path); or which volume, and
    /// a snapshot of it
    #[arg(value_name = "IMAGE[:PATH]|VOLUME[@SNAPSHOT]")]
    what: String,
    /// An image is meant, though there is a volume of that name
    #[arg(long, conflicts_with = "volume")]
    image: bool,
    /// A volume is meant, though there is an image of that name
    #[arg(long)]
    volume: bool,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Where to serve it over NBD; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT|unix:PATH")]
    nbd: Option<Place>,
    /// Where to serve it over iSCSI, as LUN 0 of a target; port 0 takes any that is free
    #[arg(long, value_name = "ADDRESS:PORT")]
    iscsi: Option<Portal>,
    /// Serve it also where other machines reach it, without encryption and for anybody
    #[arg(long)]
    in_clear: bool,
    /// Let clients write, for as long as it is served
    #[arg(long, conflicts_with = "in_place")]
    writable: bool,
    /// Let clients write to the volume
    #[arg(long)]
    in_place: bool,
    /// Where what clients write is kept until the end [default: $TMPDIR, or /tmp]
    #[arg(long, value_name = "DIR", requires = "writable")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    of_iscsi: IscsiArgs,
}

/// What is served.
#[derive(Debug)]
struct Subject {
    /// By which it is listed.
    name: String,
    /// For people.
    description: String,
    device: Arc<dyn BlockDevice>,
}

impl Args {
    /// A device that takes writes over one that doesn't; they are gone with it.
    fn thrown_away(&self, device: Arc<dyn BlockDevice>) -> Result<Arc<dyn BlockDevice>> {
        let dir = self.scratch.clone().unwrap_or_else(std::env::temp_dir);
        let file = tempfile::tempfile_in(&dir)
            .with_context(|| format!("can't make a file in {}", dir.display()))?;
        Ok(Arc::new(OverlayDevice::new(device, file, RootId::random().0)))
    }

    /// What becomes of what clients write.
    fn how(&self) -> &'static str {
        match (self.in_place, self.writable) {
            (true, _) => "what is written is kept",
            (_, true) => "what is written is gone when it ends",
            _ => "read-only",
        }
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    if args.volume {
        return volume::run(context, args);
    }
    let pool = args.pool.read(context)?;
    let located = locate(&*pool, &args.what);
    // What is sealed under a key of one's own is an image.
    let own = pool.own().filter(|_| !args.image && !args.pool.is_sealed());
    let volumes = own.map(volume::volumes).unwrap_or_default();
    match (volume::named(&volumes, &args.what), located) {
        (Some(_), Ok((image, _))) => Err(usage(format!(
            "{} is a volume, and there is an image {} too: say --volume or --image",
            args.what, image.name
        ))),
        (Some(_), Err(_)) => {
            drop(pool);
            volume::run(context, args)
        }
        (None, located) => {
            let (image, path) = located?;
            image::run(context, args, &pool, &image, path)
        }
    }
}

/// Serves it wherever that is wanted until somebody says stop.
fn serve(
    context: &Context,
    args: &Args,
    subject: Subject,
    pool: Option<&Pool>,
    mut told: Value,
) -> Result<()> {
    let nbd = args.nbd.as_ref();
    let nbd = nbd.map(|place| Nbd::serve(&subject, place, &args.tls, args.in_clear)).transpose()?;
    let iscsi = args.iscsi.as_ref();
    let iscsi = iscsi
        .map(|portal| Iscsi::serve(&subject, portal, &args.of_iscsi, args.in_clear))
        .transpose()?;
    let until = Arc::new(Until::default());
    context.interrupt.stops(&until);
    let by_nbd = nbd.as_ref().map(|nbd| nbd.uri().to_owned());
    let by_iscsi = iscsi.as_ref().map(Iscsi::uri);
    let uris: Vec<String> = by_nbd.into_iter().chain(by_iscsi).collect();
    let bytes = subject.device.geometry().size;
    told["export"] = subject.name.clone().into();
    told["uri"] = uris.first().cloned().into();
    told["nbd"] = nbd.as_ref().map(Nbd::told).into();
    told["iscsi"] = iscsi.as_ref().map(Iscsi::told).into();
    told["size"] = bytes.into();
    told["writable"] = (args.writable || args.in_place).into();
    told["in_place"] = args.in_place.into();
    context.out.summary(pool, told, |out| {
        for uri in &uris {
            writeln!(out, "serving {uri} ({}, {}); Ctrl-C ends it", size(bytes), args.how())?;
        }
        Ok(())
    })?;
    until.wait();
    let answered = nbd.as_ref().is_none_or(Nbd::stop);
    iscsi.iter().for_each(Iscsi::stop);
    if !answered {
        let _ = writeln!(std::io::stderr(), "note: a client took too long, and was cut off");
    }
    Ok(())
}
