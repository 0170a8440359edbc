//! Disks in images of backups.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use serde_json::json;
use strongroom_archive::entry::Body;
use strongroom_archive::image::Image;
use strongroom_archive::show;
use strongroom_block::{BlockDevice, MapDevice};
use strongroom_engine::content::{Cache, Reader};
use strongroom_engine::id::RootId;

use super::{Args, Subject, serve};
use crate::access::Readable;
use crate::exit::{Context, Done, usage};

/// Bytes of the pool that are kept at hand.
const CACHE: usize = 64 << 20;
/// Threads that read ahead of clients that read in order.
const AHEAD: usize = 2;

/// What tells the device from all others: the image's id, and the path in it (FNV-1a, 128 bits).
fn id_of(image: RootId, path: &[u8]) -> [u8; 16] {
    let prime = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let mix = |hash: u128, byte: &u8| (hash ^ u128::from(*byte)).wrapping_mul(prime);
    path.iter().fold(u128::from_be_bytes(image.0), mix).to_be_bytes()
}

/// Serves a file of an image.
pub(super) fn run(
    context: &Context,
    args: &Args,
    pool: &Readable,
    image: &Image,
    path: &[u8],
) -> Result<Done> {
    if args.in_place {
        return Err(usage(format!(
            "{} is an image, which is never changed: say --writable for a copy that is thrown away",
            image.name
        )));
    }
    let _hold = pool.hold(image.id)?;
    let entry = image.entry(&**pool, path)?;
    let Body::File(map) = &entry.body else {
        let what = if path.is_empty() { image.name.clone() } else { show(path) };
        if entry.is_dir() {
            bail!(
                "{what} is a directory, not a disk: give IMAGE:PATH of a disk's image in it, or \
                 look into it with `strongroom mount`"
            );
        }
        bail!("{what} is no disk: give IMAGE:PATH of a regular file");
    };
    let name = match path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()) {
        Some(last) => String::from_utf8_lossy(last).into_owned(),
        None => image.name.clone(),
    };
    let well = Arc::new(AtomicBool::new(true));
    let report = {
        let (well, name) = (Arc::clone(&well), show(name.as_bytes()));
        let asked = context.interrupt.asked();
        Arc::new(move |at: u64, why: &str| {
            // What is asked for while it ends is not read any more.
            if !asked.load(Ordering::Relaxed) {
                well.store(false, Ordering::Relaxed);
                let _ = writeln!(std::io::stderr(), "warning: {name} at byte {at}: {why}");
            }
        })
    };
    let reader = Arc::new(Reader::new(&Cache::new(CACHE), pool.shared(), AHEAD));
    let device = MapDevice::new(reader, map, id_of(image.id, path))?.reporting(report);
    let padding = device.geometry().size - device.content();
    let device: Arc<dyn BlockDevice> = Arc::new(device);
    let device = match args.writable {
        false => device,
        true => args.thrown_away(device)?,
    };
    let description = format!("image {} of {}", image.id, image.name);
    let told = json!({ "image": image.id.to_string(), "padding": padding });
    serve(context, args, Subject { name, description, device }, pool.own(), told)?;
    context.out.notes(pool.ended(context));
    Ok(Done::well_if(well.load(Ordering::Relaxed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_of_an_image_is_a_device_of_its_own() {
        let image = RootId([7; 16]);
        assert_eq!(id_of(image, b""), [7; 16]);
        assert_ne!(id_of(image, b"/a"), id_of(image, b"/b"));
        assert_eq!(id_of(image, b"/a"), id_of(image, b"/a"));
    }
}
