#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;

use strongroom_archive::entry::{Body, Entry, Time};
use strongroom_archive::image::{ImageKind, ImageMeta, Sealing, Stats, Top};
use strongroom_archive::parcel::Frame;
use strongroom_archive::sealed::{self, KeyId};
use strongroom_catalog::{Catalog, testing};
use strongroom_engine::compress::Effort;
use strongroom_engine::id::ChunkId;
use strongroom_engine::node::Node;
use strongroom_engine::pack::FrameCodec;
use strongroom_engine::pool::GcOptions;

use super::*;
use crate::NewPool;
use crate::tests::Bed;

const OPENER: Opener = Opener { user_id: Some(1), delegate_of: None, key_id: None };

/// A client of a session.
struct Client {
    ingest: Ingest,
    pool: Arc<Pool>,
}

impl Client {
    fn id(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        self.pool.id_of(kind, bytes)
    }

    /// Sends pieces of one frame under these ids.
    async fn send(&self, kind: ChunkKind, pieces: &[(ChunkId, &[u8])]) -> Result<Stored> {
        let raw = pieces.iter().map(|(_, bytes)| *bytes).collect::<Vec<_>>().concat();
        let mut bytes = Vec::new();
        FrameCodec::new(1).encode(&raw, Effort::Usual, &mut bytes);
        let chunks = pieces.iter().map(|(id, bytes)| (*id, bytes.len() as u32)).collect();
        let mut body = Vec::new();
        Frame { kind, chunks, bytes: &bytes }.put(&mut body);
        self.ingest.take(body).await
    }

    async fn data(&self, bytes: &[u8]) -> ChunkId {
        let id = self.id(ChunkKind::Data, bytes);
        self.send(ChunkKind::Data, &[(id, bytes)]).await.unwrap();
        id
    }

    async fn node(&self, node: &Node) -> Result<ChunkId> {
        let bytes = node.encode();
        let id = self.id(ChunkKind::Node, &bytes);
        self.send(ChunkKind::Node, &[(id, &bytes)]).await.map(|_| id)
    }

    async fn known(&self, kind: ChunkKind, id: ChunkId) -> bool {
        let bits = self.ingest.known(parcel::put_ids(kind, &[id])).await.unwrap();
        parcel::bits(&bits, 1).unwrap()[0]
    }

    /// The top of an image of one file with these bytes, which are sent too.
    async fn top(&self, content: &[u8]) -> ChunkId {
        let chunk = self.data(content).await;
        let map = strongroom_engine::map::MapBuilder::new();
        let stored = Tops(chunk, content.len() as u32).map(map);
        let entry = Entry {
            name: b"f".to_vec(),
            body: Body::File(stored),
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: Time { sec: 1, nsec: 0 },
            ctime: Time { sec: 1, nsec: 0 },
            inode: 1,
            device: 0,
            links: 1,
            racy: false,
            passed: false,
            xattrs: Vec::new(),
        };
        let node = Top { devices: Vec::new(), names: None, entry }.encode();
        self.node(&node).await.unwrap()
    }
}

/// A map of one chunk, which needs no node.
struct Tops(ChunkId, u32);

impl strongroom_engine::map::NodeStore for Tops {
    fn put_node(&self, _: &Node) -> strongroom_engine::Result<(ChunkId, Stored)> {
        Err(strongroom_engine::Error::Canceled)
    }
}

impl Tops {
    fn map(&self, mut map: strongroom_engine::map::MapBuilder) -> strongroom_engine::map::MapRef {
        let extent = strongroom_engine::map::Extent::Data { id: self.0, len: self.1 };
        map.push(self, extent).unwrap();
        map.finish(self).unwrap()
    }
}

fn meta() -> ImageMeta {
    ImageMeta {
        kind: ImageKind::Stream,
        complete: true,
        host: "h".into(),
        user: "whoever the client says".into(),
        program: "p".into(),
        paths: Vec::new(),
        tags: vec!["a".into()],
        excludes: Vec::new(),
        started: 0,
        ended: 1,
        parent: None,
        stats: Stats { new_bytes: 999_999, ..Stats::default() },
        sealing: None,
        kept_for: None,
    }
}

fn image(top: ChunkId, meta: &ImageMeta) -> NewImage {
    NewImage { name: "s".into(), top, meta: meta.encode(), immutable_seconds: Some(60) }
}

async fn client(bed: &Bed, pool: i64) -> Client {
    let ingest = bed.storage.open_ingest(pool, OPENER, "anna").await.unwrap();
    Client { ingest, pool: bed.storage.open(pool).await.unwrap() }
}

async fn bed(catalog: &Catalog) -> (Bed, i64) {
    let bed = Bed::new(catalog).await;
    let new = NewPool::new("p", 1, bed.path("p"));
    let pool = bed.storage.create_pool(new).await.unwrap().pool.id;
    (bed, pool)
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn nothing_is_taken_that_is_not_what_it_says() {
    testing::each(|catalog| async move {
        let (bed, pool) = bed(&catalog).await;
        let one = client(&bed, pool).await;
        let (right, wrong) = (one.id(ChunkKind::Data, b"right"), one.id(ChunkKind::Data, b"wrong"));
        let sent = one.send(ChunkKind::Data, &[(right, b"right"), (wrong, b"other")]).await;
        assert!(refused(sent).contains("other content"));
        assert!(!one.known(ChunkKind::Data, right).await, "nothing of the frame was taken");
        assert!(refused(one.ingest.take(vec![7, 7, 7]).await).contains("not understood"));
        assert!(refused(one.ingest.known(vec![0; 5]).await).contains("not understood"));

        // A node that refers to what isn't there, be it data or a node.
        let absent = ChunkId([5; 32]);
        for (nodes, data) in [(vec![absent], vec![]), (vec![], vec![absent])] {
            let node = Node { nodes, data, payload: Vec::new() };
            assert!(refused(one.node(&node).await).contains(&absent.to_string()));
        }
        let text = refused(one.ingest.commit(image(absent, &meta())).await);
        assert!(text.contains("top"), "{text}");
        let no_top = one.node(&Node { payload: b"x".to_vec(), ..Node::default() }).await.unwrap();
        assert!(refused(one.ingest.commit(image(no_top, &meta())).await).contains("top"));
        let top = one.top(b"content").await;
        let parent = ImageMeta { parent: Some(RootId([3; 16])), ..meta() };
        assert!(refused(one.ingest.commit(image(top, &parent)).await).contains("parent"));
        let tags = ImageMeta { tags: vec!["a\nb".into()], ..meta() };
        assert!(refused(one.ingest.commit(image(top, &tags)).await).contains("label"));
        // Whether it is sealed is seen at its top, and said with something to open.
        let sealing = |hidden: &[u8]| {
            let sealing = Sealing { key: KeyId([1; 8]), hidden: hidden.to_vec() };
            ImageMeta { sealing: Some(sealing), ..meta() }
        };
        let payload = [&[sealed::SEALED_TAG][..], b"whatever"].concat();
        let sealed_top = one.node(&Node { payload, ..Node::default() }).await.unwrap();
        for (top, meta) in [
            (top, sealing(b"hidden")),
            (top, sealing(b"")),
            (sealed_top, meta()),
            (sealed_top, sealing(b"")),
        ] {
            assert!(refused(one.ingest.commit(image(top, &meta)).await).contains("sealed"));
        }
        let mut cut = image(top, &meta());
        cut.meta.truncate(3);
        assert!(refused(one.ingest.commit(cut).await).contains("not understood"));
        for pieces in [put_pieces(&[b""]), vec![2, 1, 1, 7], vec![200, 200, 200, 200, 9]] {
            assert!(refused(one.ingest.store(pieces).await).contains("not understood"));
        }
        // After all that it is as good as ever.
        one.ingest.commit(image(top, &meta())).await.unwrap();
    })
    .await;
}

fn put_pieces(pieces: &[&[u8]]) -> Vec<u8> {
    let mut body = Vec::new();
    parcel::put_pieces(pieces, &mut body);
    body
}

#[tokio::test]
async fn pieces_are_named_in_their_order_and_stored_once() {
    testing::each(|catalog| async move {
        let (bed, pool) = bed(&catalog).await;
        let one = client(&bed, pool).await;
        let known = one.data(b"known").await;
        let body = put_pieces(&[b"first", b"known", b"second"]);
        let (ids, stored) = one.ingest.store(body.clone()).await.unwrap();
        let named = |bytes: &[u8]| one.id(ChunkKind::Data, bytes);
        assert_eq!(ids, [named(b"first"), known, named(b"second")]);
        assert_eq!((stored.new_chunks, stored.new_bytes), (2, 11));
        assert_eq!((stored.known_chunks, stored.known_bytes), (1, 5));
        let (again, stored) = one.ingest.store(body).await.unwrap();
        assert_eq!((again, stored.new_chunks, stored.known_chunks), (ids, 0, 3));
        // What was stored may be referred to, and counts for the image.
        let top = one.top(b"first").await;
        let made = one.ingest.commit(image(top, &meta())).await.unwrap();
        assert!(made.image.new_size >= 16, "{}", made.image.new_size);
    })
    .await;
}

#[tokio::test]
async fn an_image_is_made_once_and_by_its_opener_alone() {
    testing::each(|catalog| async move {
        let (bed, pool) = bed(&catalog).await;
        let one = client(&bed, pool).await;
        let id = one.ingest.id().to_owned();
        assert!(bed.storage.ingest(&id, &OPENER).is_some());
        for other in [
            Opener { user_id: Some(2), ..OPENER },
            Opener { user_id: None, ..OPENER },
            Opener { key_id: Some(1), ..OPENER },
            Opener { delegate_of: Some(2), ..OPENER },
        ] {
            assert!(bed.storage.ingest(&id, &other).is_none(), "{other:?}");
        }
        let top = one.top(b"content").await;
        let made = one.ingest.commit(image(top, &meta())).await.unwrap();
        assert_eq!(one.ingest.commit(image(top, &meta())).await.unwrap(), made);
        assert_eq!((made.image.user_name.as_str(), made.root.id), ("anna", one.ingest.root()));
        assert!(made.image.new_size < 999_999 && made.image.immutable_until.is_some());
        let text = refused(one.ingest.known(parcel::put_ids(ChunkKind::Data, &[])).await);
        assert!(text.contains("is over"), "{text}");
        assert_eq!(bed.storage.ingests(), 0);
        let file = bed.storage.open_file(made.image.id, Vec::new()).await.unwrap();
        assert_eq!(file.size, 7);
    })
    .await;
}

#[tokio::test]
async fn what_is_known_stays_whatever_is_collected() {
    testing::each(|catalog| async move {
        let (bed, pool) = bed(&catalog).await;
        let first = client(&bed, pool).await;
        let (kept, gone) = (first.data(b"kept").await, first.data(b"gone").await);
        let node = Node { data: vec![kept], ..Node::default() };
        let node_id = first.node(&node).await.unwrap();
        first.ingest.end(End::Given).await;

        // It was stored for nobody, and still it is found again.
        let second = client(&bed, pool).await;
        assert!(second.known(ChunkKind::Node, node_id).await);
        let collect = |pool: &Arc<Pool>| {
            let pool = Arc::clone(pool);
            tokio::task::spawn_blocking(move || {
                pool.gc(GcOptions { max_unused: 0.0, ..GcOptions::default() })
            })
        };
        collect(&second.pool).await.unwrap().unwrap();
        // Of a node that is known, all that it refers to stays too.
        assert!(second.known(ChunkKind::Data, kept).await);
        assert!(!second.known(ChunkKind::Data, gone).await);
        let top = second.top(b"content").await;
        second.ingest.commit(image(top, &meta())).await.unwrap();
        drop(second);

        let third = client(&bed, pool).await;
        collect(&third.pool).await.unwrap().unwrap();
        assert!(!third.known(ChunkKind::Node, node_id).await);
        assert!(third.known(ChunkKind::Node, top).await);
    })
    .await;
}

#[tokio::test]
async fn a_node_whose_children_are_gone_is_not_known() {
    testing::each(|catalog| async move {
        let (bed, pool) = bed(&catalog).await;
        let pool_of = bed.storage.open(pool).await.unwrap();
        let (child, node_id) = {
            // The engine takes nodes at their word.
            let session = pool_of.session().unwrap();
            let absent = ChunkId([6; 32]);
            let node = Node { data: vec![absent], ..Node::default() };
            let (id, _) = strongroom_engine::map::NodeStore::put_node(&session, &node).unwrap();
            session.checkpoint().unwrap();
            (absent, id)
        };
        let one = client(&bed, pool).await;
        assert!(!one.known(ChunkKind::Node, node_id).await);
        let above = Node { nodes: vec![node_id], ..Node::default() };
        assert!(refused(one.node(&above).await).contains(&child.to_string()));
    })
    .await;
}
