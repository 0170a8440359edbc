//! `strongroom mount`.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;
use serde_json::json;
use strongroom_archive::image;
use strongroom_archive::mount::{Options, Unmounter, What, mount};

use crate::access::SealedPoolArgs;
use crate::exit::{Context, Done};
use crate::interrupt::Stop;

/// Show an image, or all of a pool, as a read-only directory
#[derive(clap::Args, Debug)]
#[command(
    allow_missing_positional = true,
    after_help = "\
Without an image, DIR shows by-name/NAME/TIME, by-time/DATE and by-id/ID. It stays until Ctrl-C or
`umount DIR`. Images that are made later are seen by the next mount. While it is mounted, `pool gc`
leaves files that it gives up for the next collection.

Examples:
  strongroom mount latest /mnt --pool /srv/pool
  strongroom mount /mnt --pool /srv/pool --allow-other"
)]
pub(crate) struct Args {
    /// Which image; all if there is none
    image: Option<String>,
    /// Where to
    dir: PathBuf,
    #[command(flatten)]
    pool: SealedPoolArgs,
    /// Let other users in, too; modes and ACLs are checked
    #[arg(long)]
    allow_other: bool,
    /// Do not check modes and ACLs: this user may read all
    #[arg(long, conflicts_with = "allow_other")]
    ignore_permissions: bool,
}

impl Stop for Unmounter {
    fn stop(&self) {
        if let Err(e) = self.unmount() {
            let _ = writeln!(std::io::stderr(), "warning: {e}");
        }
    }
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<Done> {
    let pool = args.pool.read(context)?;
    let what = match &args.image {
        Some(text) => What::Image(Box::new(image::find(&*pool, text)?)),
        None => What::Pool,
    };
    let well = Arc::new(AtomicBool::new(true));
    let report = {
        let well = Arc::clone(&well);
        Arc::new(move |text: &str| {
            well.store(false, Ordering::Relaxed);
            let _ = writeln!(std::io::stderr(), "warning: {text}");
        })
    };
    let options = Options {
        allow_other: args.allow_other,
        ignore_permissions: args.ignore_permissions,
        report,
    };
    let mounted = mount(pool.shared(), what, &args.dir, options)?;
    let unmounter = Arc::new(mounted.unmounter());
    context.interrupt.stops(&unmounter);
    let dir = args.dir.display();
    let document = json!({ "mounted": args.dir.to_string_lossy() });
    context.out.summary(pool.own(), document, |out| {
        writeln!(out, "mounted at {dir}; Ctrl-C or `umount {dir}` ends it")
    })?;
    mounted.run()?;
    context.out.notes(pool.ended(context));
    Ok(Done::well_if(well.load(Ordering::Relaxed)))
}
