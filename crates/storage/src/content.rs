//! What is in images, as bytes: files with ranges, trees as archives.

use std::io::Write;
use std::sync::Arc;

use strongroom_archive::cat::{Cat, cat_path};
use strongroom_archive::dump::dump;
use strongroom_archive::entry::Body;
use strongroom_archive::image::Image;
use strongroom_archive::{Troubles, show};
use strongroom_engine::pool::Pool;

use crate::images::Opened;
use crate::{Error, Result, Storage};

pub use strongroom_archive::dump::Format;

/// A file of an image, to be read. What it needs stays, even if the image is forgotten, while a
/// call reads it.
#[derive(Debug)]
pub struct OpenFile {
    storage: Storage,
    pool: Arc<Pool>,
    image: Image,
    path: Vec<u8>,
    /// Its name, for people.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// When it was last changed, in nanoseconds since 1970.
    pub mtime: i64,
    /// A text that is another when the same path holds something else: the image's id.
    pub tag: String,
}

impl OpenFile {
    /// Writes `length` bytes from `offset` on, or as many as there are, and gives how many. It runs
    /// where disks may be waited for; an error of `out` ends it.
    ///
    /// # Errors
    /// Those of the pool; what was written before is right. Those of `out`.
    pub async fn write(
        &self,
        offset: u64,
        length: u64,
        mut out: impl Write + Send + 'static,
    ) -> Result<u64> {
        let (pool, image, path) = (Arc::clone(&self.pool), self.image.clone(), self.path.clone());
        let cat = Cat { offset, length: Some(length), fill: false };
        let read = move || Ok(cat_path(&*pool, &image, &path, cat, &mut out)?.bytes);
        self.storage.streaming(read).await
    }
}

impl Storage {
    /// Opens a file of an image; a block image or a stream is opened with an empty path.
    ///
    /// # Errors
    /// [`strongroom_archive::Error::NoPath`]; [`Error::Invalid`] for what isn't a file;
    /// [`Error::Gone`]; those of the pool.
    pub async fn open_file(&self, image_id: i64, path: Vec<u8>) -> Result<OpenFile> {
        let Opened { pool, image, .. } = self.opened(image_id).await?;
        let storage = self.clone();
        self.blocking(move || {
            let entry = {
                let _lease = pool.lease(image.id)?;
                image.entry(&*pool, &path)?
            };
            let Body::File(map) = &entry.body else {
                let kind = strongroom_archive::list::kind(&entry.body);
                let what =
                    if path.is_empty() { "the top of the image".into() } else { show(&path) };
                return Err(Error::Invalid(format!("{what} is not a file but: {kind}")));
            };
            let (name, size) = (show(&entry.name), map.len());
            let (mtime, tag) = (entry.mtime.nanos(), image.id.to_string());
            Ok(OpenFile { storage, pool, image, path, name, size, mtime, tag })
        })
        .await
    }

    /// Writes what is at a path of an image, and all below it, as an archive. What is missing or
    /// not as it was is told.
    ///
    /// # Errors
    /// [`strongroom_archive::Error::NoPath`]; [`Error::Gone`]; those of the pool and of `out`.
    pub async fn dump(
        &self,
        image_id: i64,
        path: Vec<u8>,
        format: Format,
        mut out: impl Write + Send + 'static,
    ) -> Result<Troubles> {
        let Opened { pool, image, .. } = self.opened(image_id).await?;
        self.streaming(move || Ok(dump(&*pool, &image, &path, format, &mut out)?)).await
    }
}
