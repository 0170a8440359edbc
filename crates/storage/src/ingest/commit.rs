//! Committing an image that a client made.

use strongroom_archive::image::{ImageMeta, ROOT_KIND};
use strongroom_archive::sealed;
use strongroom_catalog::images;
use strongroom_engine::id::ChunkId;
use strongroom_engine::pool::NewRoot;
use strongroom_engine::state::Root;

use super::{End, Ingest, lock};
use crate::images::{MAX_TAG, MAX_TAGS};
use crate::{Error, Result};

/// The longest name of an image, and of anything else that its record names, in bytes.
const MAX_NAME: usize = 256;
const MAX_TEXT: usize = 4096;
/// The longest record of an image that is read, in bytes.
const MAX_META: usize = 512 << 10;

/// What a client says of its image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewImage {
    /// The series that it belongs to.
    pub name: String,
    /// Its top node.
    pub top: ChunkId,
    /// Its record ([`ImageMeta`]), of which what the client can't know or isn't to say is replaced.
    pub meta: Vec<u8>,
    /// For how many seconds nothing may remove it.
    pub immutable_seconds: Option<u64>,
}

/// An image that is in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// Its root, as it is in the pool.
    pub root: Root,
    /// Its row.
    pub image: images::Image,
}

impl Ingest {
    /// Makes the image; when this returns it survives a power cut. Asked again, it says the same.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what can't be an image's, and for a top that was not sent;
    /// [`Error::IngestOver`]; those of the pool and the database.
    pub async fn commit(&self, new: NewImage) -> Result<Committed> {
        if let Some(End::Committed(done)) = self.why_over() {
            return Ok(*done);
        }
        let shared = std::sync::Arc::clone(&self.shared);
        let root = self
            .on_thread(move |visit| {
                let pool = visit.session.pool();
                if let Some(root) = pool.root(shared.root) {
                    return Ok(root);
                }
                if new.meta.len() > MAX_META {
                    let text = format!("the record of an image has {MAX_META} bytes at most");
                    return Err(Error::Invalid(text));
                }
                let mut meta = ImageMeta::decode(&new.meta).map_err(super::not_understood)?;
                check(&new.name, &meta)?;
                if meta.parent.is_some_and(|parent| !lock(&shared.parents).contains(&parent)) {
                    let text = "the image names a parent that the session does not lean on";
                    return Err(Error::Invalid(text.into()));
                }
                if !shared.whole.is_top(&visit.session, &new.top)? {
                    let text = "the top of the image was not sent, or is none";
                    return Err(Error::Invalid(text.into()));
                }
                let sealed = sealed::is_sealed(&pool.node(&new.top)?);
                let closed = meta.closed().is_some();
                if sealed != closed || meta.sealing.is_some() != closed {
                    let text = "the record of the image and its top do not agree whether it is \
                                sealed under a client's key";
                    return Err(Error::Invalid(text.into()));
                }
                if !shared.user.is_empty() {
                    meta.user.clone_from(&shared.user);
                }
                let stored = *lock(&shared.stored);
                meta.stats.new_bytes = stored.new_bytes;
                meta.stats.stored_bytes = stored.stored_bytes;
                let nanos =
                    |s: u64| i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
                Ok(visit.session.put_root(NewRoot {
                    id: shared.root,
                    kind: ROOT_KIND,
                    name: new.name,
                    immutable_for: new.immutable_seconds.map(nanos),
                    nodes: vec![new.top],
                    meta: meta.encode(),
                })?)
            })
            .await?;
        let (storage, known) = (&self.shared.storage, &self.shared.known);
        let image = storage.record_image(known.id, root.id, self.job()).await?;
        let done = Committed { root, image };
        self.end(End::Committed(Box::new(done.clone()))).await;
        Ok(done)
    }
}

fn check(name: &str, meta: &ImageMeta) -> Result<()> {
    let plain = |text: &str, max: usize| text.len() <= max && !text.chars().any(char::is_control);
    if name.is_empty() || !plain(name, MAX_NAME) {
        return Err(Error::Invalid(format!(
            "{name:?} is no name: it has 1 to {MAX_NAME} bytes, and no control characters"
        )));
    }
    if meta.tags.len() > MAX_TAGS {
        return Err(Error::Invalid(format!("an image has {MAX_TAGS} labels at most")));
    }
    if let Some(bad) = meta.tags.iter().find(|tag| tag.is_empty() || !plain(tag, MAX_TAG)) {
        return Err(Error::Invalid(format!(
            "{bad:?} is no label: it has 1 to {MAX_TAG} bytes, and no control characters"
        )));
    }
    if meta.kept_for.is_some_and(|kept| kept < 0) {
        return Err(Error::Invalid("an image can't be kept for less than no time".into()));
    }
    let texts = [&meta.host, &meta.user, &meta.program];
    if !texts.iter().all(|text| plain(text, MAX_TEXT)) {
        let text = format!("host, user and program have {MAX_TEXT} bytes at most");
        return Err(Error::Invalid(text));
    }
    Ok(())
}
