//! Images sealed under a key that only their owner has: whoever keeps the pool, or is an
//! administrator of the appliance before it, can neither read what is in them nor make others pass
//! for it.
//!
//! [`SealedStore`] and [`SealedSource`] stand before a pool and are a pool to backups and to all
//! that reads. Each chunk is compressed and sealed here, so that the same content under the same key
//! is the same chunk, and is stored and sent once; images under other keys, and open ones, share
//! nothing with it. What the pool still sees: of an image its name, labels, host, user, times, parent
//! and sums (files, directories, bytes); how many chunks of which sizes there are, which of them are
//! nodes, and which chunks a node refers to. It needs the latter to tell garbage from what is wanted,
//! to check and to mend. It could lose an image, keep it back, or show an older one as the latest, but
//! not put another's content, name or host in its place.
//!
//! # Format
//! Sealing is [`SivSealer`]'s; its key is the content of a key file.
//!
//! | what | is stored as | sealed with, as its place |
//! |---|---|---|
//! | a data chunk | a frame ([`strongroom_engine::pack`]) of that one chunk, sealed | the byte 0 |
//! | a node | the same lists of ids; its payload is the byte 32, then its payload, sealed | the byte 1, the number of nodes (varint), then all ids of the lists |
//! | an image's paths and excludes | in `meta` ([`crate::image`]): each a varint count and byte strings, both sealed together | the byte 2, the id of the top node, the image's name and host (byte strings), its kind and whether it is complete (a byte each, as in `meta`), when it was started and ended (signed varints), the root of its parent if it has one |
//!
//! A key is known by the first 8 bytes of `BLAKE3-derive-key("strongroom v1 id of a client's key",
//! key)`.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom_engine::chunker::Params;
use strongroom_engine::clock::PoolTime;
use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::compress::{DEFAULT_LEVEL, Effort};
use strongroom_engine::id::{ChunkId, RootId};
use strongroom_engine::keys::Secret;
use strongroom_engine::map::{NodeStore, Nodes};
use strongroom_engine::node::Node;
use strongroom_engine::pack::{FRAME_TAIL, FrameCodec};
use strongroom_engine::pool::{MAX_CHUNK, NewRoot, Stored};
use strongroom_engine::seal::SivSealer;
use strongroom_engine::state::Root;
use strongroom_engine::{Error, Result};

use crate::image::{ImageMeta, ROOT_KIND, Sealing};
use crate::store::{Chunks, Failed, Hold, Sink, Source, Store};

/// The first payload byte of a sealed node.
pub const SEALED_TAG: u8 = 32;
/// Pieces below this size are compressed with more effort, in bytes.
const SMALL: usize = 64 << 10;

/// Which key of a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a node is sealed.
pub fn is_sealed(node: &Node) -> bool {
    node.payload.first() == Some(&SEALED_TAG)
}

/// A client's own key.
pub struct ClientKey {
    id: KeyId,
    sealer: SivSealer,
    benches: Mutex<Vec<Bench>>,
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientKey({})", self.id)
    }
}

/// What a thread works with.
struct Bench {
    codec: FrameCodec,
    frame: Vec<u8>,
    raw: Vec<u8>,
}

/// Where a data chunk belongs: its id says which it is.
const DATA: &[u8] = &[0];

/// Where a node's payload belongs.
fn of_node(node: &Node) -> Vec<u8> {
    let mut w = Writer::new();
    w.byte(1);
    w.uint(node.nodes.len() as u64);
    node.nodes.iter().chain(&node.data).for_each(|id| w.raw(&id.0));
    w.finish()
}

/// Where the hidden part of the record of an image with this name and top belongs.
fn of_record(name: &str, meta: &ImageMeta, top: &[ChunkId]) -> Vec<u8> {
    let mut w = Writer::new();
    w.byte(2);
    top.iter().for_each(|id| w.raw(&id.0));
    w.bytes(name.as_bytes());
    w.bytes(meta.host.as_bytes());
    w.byte(meta.kind.code());
    w.byte(meta.complete.into());
    w.int(meta.started);
    w.int(meta.ended);
    meta.parent.iter().for_each(|parent| w.raw(&parent.0));
    w.finish()
}

impl ClientKey {
    /// The key that a key file holds.
    pub fn new(secret: &Secret) -> Self {
        let (id, sealer) = secret.for_a_client();
        Self { id: KeyId(id), sealer, benches: Mutex::default() }
    }

    /// Which key it is.
    pub fn id(&self) -> KeyId {
        self.id
    }

    fn at_bench<T>(&self, work: impl FnOnce(&mut Bench) -> T) -> T {
        let lock = || self.benches.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = lock().pop();
        let mut bench = kept.unwrap_or_else(|| Bench {
            codec: FrameCodec::new(DEFAULT_LEVEL),
            frame: Vec::new(),
            raw: Vec::new(),
        });
        let done = work(&mut bench);
        lock().push(bench);
        done
    }

    /// A data chunk as it is stored.
    fn seal(&self, piece: &[u8]) -> Vec<u8> {
        let effort = if piece.len() < SMALL { Effort::More } else { Effort::Usual };
        self.at_bench(|bench| {
            bench.codec.encode(piece, effort, &mut bench.frame);
            let mut sealed = Vec::with_capacity(bench.frame.len() + SivSealer::OVERHEAD);
            self.sealer.seal(DATA, &bench.frame, &mut sealed);
            sealed
        })
    }

    /// Hands out what a data chunk holds.
    fn open<T>(&self, sealed: &[u8], take: impl FnOnce(&[u8]) -> Result<T>) -> Result<T> {
        self.at_bench(|bench| {
            let opened = self.sealer.open(DATA, sealed, &mut bench.frame);
            opened.map_err(|why| Error::damaged("a chunk sealed under the client's key", why))?;
            take(bench.codec.view(&bench.frame, &mut bench.raw)?)
        })
    }

    fn seal_node(&self, node: &Node) -> Node {
        let mut payload = vec![SEALED_TAG];
        self.sealer.seal(&of_node(node), &node.payload, &mut payload);
        Node { nodes: node.nodes.clone(), data: node.data.clone(), payload }
    }

    fn open_node(&self, id: &ChunkId, mut node: Node) -> Result<Node> {
        let bad = |why: &str| Error::damaged(format!("node {id}"), why);
        if !is_sealed(&node) {
            return Err(bad("it is not sealed under the client's key"));
        }
        let mut payload = Vec::new();
        let place = of_node(&node);
        self.sealer.open(&place, &node.payload[1..], &mut payload).map_err(|_| {
            bad("it is not what was sealed under the client's key for the chunks it refers to")
        })?;
        node.payload = payload;
        Ok(node)
    }

    /// The record of an image with this top, without what the pool needs not know.
    fn hide(&self, name: &str, meta: &mut ImageMeta, top: &[ChunkId]) {
        let mut w = Writer::new();
        let (paths, excludes) =
            (std::mem::take(&mut meta.paths), std::mem::take(&mut meta.excludes));
        w.uint(paths.len() as u64);
        paths.iter().for_each(|path| w.bytes(path));
        w.uint(excludes.len() as u64);
        excludes.iter().for_each(|rule| w.bytes(rule.as_bytes()));
        let mut hidden = Vec::new();
        self.sealer.seal(&of_record(name, meta, top), &w.finish(), &mut hidden);
        meta.sealing = Some(Sealing { key: self.id, hidden });
    }

    /// An image's root as it was before it was sealed; None for what is not under this key. One that
    /// says it is and can't be opened has no record then, and so counts as damaged: anybody who may
    /// back up to the pool can make one.
    fn reveal(&self, mut root: Root) -> Option<Root> {
        if root.kind != ROOT_KIND {
            return None;
        }
        let Ok(mut meta) = ImageMeta::decode(&root.meta) else { return Some(root) };
        let sealing = meta.sealing.take().filter(|sealing| sealing.key == self.id)?;
        let mut open = Vec::new();
        let place = of_record(&root.name, &meta, &root.nodes);
        let opened = self.sealer.open(&place, &sealing.hidden, &mut open);
        match opened.ok().and_then(|()| hidden(&open).ok()) {
            Some((paths, excludes)) => {
                (meta.paths, meta.excludes) = (paths, excludes);
                meta.sealing = Some(Sealing { key: self.id, hidden: Vec::new() });
                root.meta = meta.encode();
            }
            None => root.meta.clear(),
        }
        Some(root)
    }
}

/// The paths and excludes of a record.
fn hidden(open: &[u8]) -> Result<(Vec<Vec<u8>>, Vec<String>), DecodeError> {
    let mut r = Reader::new(open);
    let mut list = || -> Result<Vec<Vec<u8>>, DecodeError> {
        let count = r.count(1)?;
        (0..count).map(|_| Ok(r.bytes()?.to_vec())).collect()
    };
    let (paths, excludes) = (list()?, list()?);
    let text = |rule: &Vec<u8>| String::from_utf8_lossy(rule).into_owned();
    Ok((paths, excludes.iter().map(text).collect()))
}

/// A pool, for reading images that are sealed under one key; it shows those alone.
#[derive(Clone)]
pub struct SealedSource {
    inner: Arc<dyn Source + Send + Sync>,
    key: Arc<ClientKey>,
}

impl fmt::Debug for SealedSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedSource({})", self.key.id)
    }
}

impl SealedSource {
    /// The images of a pool that are sealed under this key.
    pub fn new(inner: Arc<dyn Source + Send + Sync>, key: Arc<ClientKey>) -> Self {
        Self { inner, key }
    }
}

impl Nodes for SealedSource {
    fn node(&self, id: &ChunkId) -> Result<Node> {
        self.key.open_node(id, self.inner.node(id)?)
    }
}

impl Chunks for SealedSource {
    fn threads(&self) -> usize {
        self.inner.threads()
    }

    fn chunk(&self, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        let mut sealed = Vec::new();
        self.inner.chunk(id, &mut sealed)?;
        self.key.open(&sealed, |raw| {
            out.extend_from_slice(raw);
            Ok(())
        })
    }

    fn fetch(&self, wanted: &[ChunkId], sink: Sink<'_>, failed: Failed<'_>) -> Result<()> {
        let open = |place: usize, sealed: &[u8]| {
            let mut taken = Ok(());
            let opened = self.key.open(sealed, |raw| {
                taken = sink(place, raw);
                Ok(())
            });
            if let Err(error) = opened {
                failed(place, error);
            }
            taken
        };
        self.inner.fetch(wanted, &open, failed)
    }
}

impl Source for SealedSource {
    fn roots(&self) -> Result<Vec<Root>> {
        Ok(self.inner.roots()?.into_iter().filter_map(|root| self.key.reveal(root)).collect())
    }

    fn hold(&self, root: RootId) -> Result<Box<dyn Hold + '_>> {
        self.inner.hold(root)
    }

    fn now(&self) -> PoolTime {
        self.inner.now()
    }

    fn matches(&self, id: &ChunkId, data: &[u8]) -> Result<bool> {
        if self.inner.matches(id, &self.key.seal(data))? {
            return Ok(true);
        }
        // Another version may have compressed it otherwise.
        let mut sealed = Vec::new();
        self.inner.chunk(id, &mut sealed)?;
        self.key.open(&sealed, |raw| Ok(raw == data))
    }
}

/// A store in which all is sealed under one key.
#[derive(Debug)]
pub struct SealedStore<S> {
    inner: S,
    source: SealedSource,
}

impl<S: Store> SealedStore<S> {
    /// Stores into `inner`, sealed; `source` is the same pool, for reading the parent image.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a pool whose chunks may be so large that sealed ones don't fit.
    pub fn new(inner: S, source: SealedSource) -> Result<Self> {
        let Params { max, fixed, .. } = inner.chunking();
        let room = MAX_CHUNK - SivSealer::OVERHEAD - FRAME_TAIL;
        let largest = max.max(fixed);
        if largest as usize > room {
            return Err(Error::Invalid(format!(
                "chunks of this pool may have {largest} bytes; under a client's key, {room} at most"
            )));
        }
        Ok(Self { inner, source })
    }

    fn key(&self) -> &ClientKey {
        &self.source.key
    }
}

impl<S: Store> NodeStore for SealedStore<S> {
    fn put_node(&self, node: &Node) -> Result<(ChunkId, Stored)> {
        self.inner.put_node(&self.key().seal_node(node))
    }
}

impl<S: Store> Store for SealedStore<S> {
    fn source(&self) -> &dyn Source {
        &self.source
    }

    fn chunking(&self) -> Params {
        self.inner.chunking()
    }

    fn at_once(&self) -> usize {
        self.inner.at_once()
    }

    fn workers(&self) -> usize {
        self.inner.workers()
    }

    fn store(&self, pieces: &[&[u8]], ids: &mut Vec<ChunkId>) -> Result<Stored> {
        let sealed: Vec<Vec<u8>> = pieces.iter().map(|piece| self.key().seal(piece)).collect();
        let sealed: Vec<&[u8]> = sealed.iter().map(Vec::as_slice).collect();
        self.inner.store(&sealed, ids)
    }

    fn reuse(&self, ids: &[ChunkId]) -> Result<bool> {
        self.inner.reuse(ids)
    }

    fn lean_on(&self, parent: RootId) -> Result<()> {
        self.inner.lean_on(parent)
    }

    fn settle(&self) -> Result<Stored> {
        self.inner.settle()
    }

    fn commit(self, mut root: NewRoot) -> Result<Root> {
        let mut meta =
            ImageMeta::decode(&root.meta).map_err(Error::decoding("the record of an image"))?;
        self.key().hide(&root.name, &mut meta, &root.nodes);
        root.meta = meta.encode();
        let made = self.inner.commit(root)?;
        Ok(self.source.key.reveal(made.clone()).unwrap_or(made))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::path::Path;

    use super::*;
    use crate::backup::{Backup, Input, Parent, Progress};
    use crate::image::{ImageKind, Stats, find, images};
    use crate::memory::Memory;
    use crate::restore::{self, Overwrite, Restore};

    fn key(byte: u8) -> Arc<ClientKey> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, [byte; 32]).unwrap();
        Arc::new(ClientKey::new(&Secret::key_file(&path).unwrap()))
    }

    fn backup(pool: &Arc<Memory>, key: &Arc<ClientKey>, tree: &Path) -> crate::backup::Outcome {
        let backup = Backup {
            name: Some("home".into()),
            input: Input::Paths(vec![tree.into()]),
            tags: Vec::new(),
            excludes: vec!["*.secretly-left-out".into()],
            exclude_caches: false,
            one_file_system: false,
            immutable_for: None,
            keep_for: Some(7),
            parent: Parent::Latest,
            host: None,
            user: None,
        };
        let store = SealedStore::new(&**pool, source(pool, key)).unwrap();
        backup.run(store, &Progress::default()).unwrap()
    }

    fn source(pool: &Arc<Memory>, key: &Arc<ClientKey>) -> SealedSource {
        SealedSource::new(pool.clone(), key.clone())
    }

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let much: Vec<u8> = (0..40_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(dir.path().join("much"), much).unwrap();
        std::fs::write(dir.path().join("plain-name"), b"plain content, said again and again")
            .unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        std::fs::write(dir.path().join("below/empty"), b"").unwrap();
        dir
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Changing any of these changes the format: old images would no longer open. Also computed with
    /// another implementation (Python's blake3 and cryptography).
    #[test]
    fn golden_chunk_node_and_record() {
        let key = key(1);
        assert_eq!(key.id().to_string(), "a89e2c3c499b628b");
        assert_eq!(
            hex(&key.seal(b"data")),
            "9623e6bf6221609e0382df102f6cd29c23c373011515976731b300416ab664be6e9da6366802319e684c7fdec8614d02"
        );
        let node = Node {
            nodes: vec![ChunkId([2; 32])],
            data: vec![ChunkId([3; 32])],
            payload: b"payload".to_vec(),
        };
        assert_eq!(
            hex(&key.seal_node(&node).payload),
            "20759fab2c31afa46e5a1f2eed6a0a3aaf425786313c13803a90110351683dc2c9b5ef2549b772d63c3ac66c0ca9b7e5"
        );
        let mut meta = ImageMeta {
            kind: ImageKind::Files,
            complete: true,
            host: "h".into(),
            user: "u".into(),
            program: "p".into(),
            paths: vec![b"/usr".to_vec()],
            tags: vec!["t".into()],
            excludes: vec!["*.o".into()],
            started: -5,
            ended: 7,
            parent: Some(RootId([3; 16])),
            stats: Stats::default(),
            sealing: None,
            kept_for: None,
        };
        key.hide("home", &mut meta, &[ChunkId([8; 32])]);
        assert!(meta.paths.is_empty() && meta.excludes.is_empty());
        assert_eq!(
            hex(&meta.sealing.unwrap().hidden),
            "cc823943ecb6b6d6d6d0294f0a95528bb8b80abba88742514b8f4121136c2303847808cebff3ec23e22e86888df08582e7461d"
        );
    }

    #[test]
    fn a_sealed_image_comes_back_under_its_key_and_shows_nothing_without() {
        let (pool, dir) = (Arc::new(Memory::default()), tree());
        let outcome = backup(&pool, &key(1), dir.path());
        let image = outcome.image.unwrap();
        assert!(image.meta.paths[0].ends_with(dir.path().file_name().unwrap().as_encoded_bytes()));

        let to = tempfile::tempdir().unwrap();
        let sealed = source(&pool, &key(1));
        let restore = Restore {
            image: find(&sealed, "home").unwrap(),
            from: dir.path().to_str().unwrap().as_bytes().to_vec(),
            paths: Vec::new(),
            to: to.path().into(),
            include: Vec::new(),
            exclude: Vec::new(),
            overwrite: Overwrite::Always,
            verify: true,
            numeric_owner: false,
            no_owner: false,
        };
        let done = restore.run(&sealed, &restore::Progress::default()).unwrap();
        assert!(done.troubles.is_empty(), "{:?}", done.troubles);
        for name in ["much", "plain-name", "below/empty"] {
            let (a, b) = (dir.path().join(name), to.path().join(name));
            assert_eq!(std::fs::read(a).unwrap(), std::fs::read(b).unwrap());
        }

        // Nothing in the pool tells a name, a path, a rule or what was in files.
        let names = dir.path().file_name().unwrap().as_encoded_bytes();
        for secret in [names, b"plain-name", b"plain content", b"secretly"] {
            assert!(!pool.holds(secret), "{:?}", String::from_utf8_lossy(secret));
        }
        let open = find(&*pool, "home").unwrap();
        assert!(open.meta.paths.is_empty() && open.meta.excludes.is_empty());
        let refused = open.top(&*pool).unwrap_err();
        assert!(matches!(refused, crate::Error::Sealed { key: id, .. } if id == key(1).id()));
        assert!(images(&source(&pool, &key(2))).unwrap().0.is_empty());
    }

    #[test]
    fn the_same_is_stored_once_under_one_key() {
        let (pool, dir) = (Arc::new(Memory::default()), tree());
        let parent = |outcome: crate::backup::Outcome| outcome.image.unwrap().meta.parent;
        let first = backup(&pool, &key(1), dir.path()).image.unwrap();
        let chunks = pool.chunks();
        assert_eq!(parent(backup(&pool, &key(1), dir.path())), Some(first.id));
        assert_eq!(pool.chunks(), chunks);
        assert_eq!(parent(backup(&pool, &key(2), dir.path())), None);
        assert!(pool.chunks() > chunks);
    }

    #[test]
    fn what_was_put_in_anothers_place_is_noticed() {
        let key = key(1);
        let node = |payload: &[u8], data: u8| {
            let data = vec![ChunkId([data; 32])];
            Node { nodes: Vec::new(), data, payload: payload.to_vec() }
        };
        let (id, plain) = (ChunkId([0; 32]), node(b"plain", 1));
        let sealed = key.seal_node(&plain);
        assert_eq!(key.open_node(&id, sealed.clone()).unwrap(), plain);
        let moved = Node { data: vec![ChunkId([2; 32])], ..sealed };
        assert!(key.open_node(&id, moved).is_err());
        assert!(key.open_node(&id, plain).is_err());

        let (pool, dir) = (Arc::new(Memory::default()), tree());
        backup(&pool, &key, dir.path());
        let root = pool.roots().unwrap().remove(0);
        let shown = |root: Root| key.reveal(root).map(|root| !root.meta.is_empty());
        assert_eq!(shown(root.clone()), Some(true));
        assert_eq!(shown(Root { nodes: vec![id], ..root.clone() }), Some(false));
        assert_eq!(shown(Root { name: "other".into(), ..root.clone() }), Some(false));
        let mut meta = ImageMeta::decode(&root.meta).unwrap();
        meta.complete = false;
        assert_eq!(shown(Root { meta: meta.encode(), ..root.clone() }), Some(false));
        meta.complete = true;
        meta.tags.push("free to change".into());
        assert_eq!(shown(Root { meta: meta.encode(), ..root.clone() }), Some(true));

        // One that somebody forged is damaged, and hides no other.
        meta.sealing = Some(Sealing { key: key.id(), hidden: b"whatever".to_vec() });
        let forged = NewRoot {
            id: RootId([9; 16]),
            kind: ROOT_KIND,
            name: "home".into(),
            immutable_for: None,
            nodes: root.nodes.clone(),
            meta: meta.encode(),
        };
        Store::commit(&*pool, forged).unwrap();
        let (found, damaged) = images(&source(&pool, &key)).unwrap();
        assert_eq!((found.len(), damaged), (1, 1));
    }
}
