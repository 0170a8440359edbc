#![allow(clippy::unwrap_used, reason = "tests")]
use std::os::unix::fs::FileExt;

use strongroom_archive::wire::{Failure, Parser, Part, Proof, Wanted};
use strongroom_catalog::testing;
use strongroom_engine::id::ChunkId;
use strongroom_engine::node::Node;
use strongroom_engine::pool::GcOptions;
use strongroom_engine::state::Root;

use super::*;
use crate::tests::Bed;
use crate::{Encryption, NewPool};

/// What came of a request.
#[derive(Debug, Default)]
struct Came {
    nodes: HashMap<ChunkId, Node>,
    proofs: HashMap<ChunkId, Proof>,
    chunks: HashMap<usize, Vec<u8>>,
    failed: HashMap<usize, Failure>,
    roots: Vec<Root>,
}

impl Came {
    fn of(bytes: &[u8]) -> Self {
        let (mut came, mut parser) = (Self::default(), Parser::default());
        let mut take = |part: Part<'_>| {
            match part {
                Part::Node(id, node, proofs) => {
                    came.proofs.extend(node.nodes.iter().chain(&node.data).copied().zip(proofs));
                    came.nodes.insert(id, node);
                }
                Part::Chunk(place, bytes) => drop(came.chunks.insert(place, bytes.to_vec())),
                Part::Failed(place, failure) => drop(came.failed.insert(place, failure)),
                Part::Root(root, proofs) => {
                    came.proofs.extend(root.nodes.iter().copied().zip(proofs));
                    came.roots.push(root);
                }
            }
            Ok(())
        };
        parser.feed(bytes, &mut take).unwrap();
        parser.end().unwrap();
        came
    }
}

/// Bytes that come piece by piece.
#[derive(Clone, Default)]
struct Pieces(Arc<Mutex<Vec<u8>>>);

impl Pieces {
    fn out(&self) -> impl Fn(Vec<u8>) -> io::Result<()> + Send + Sync + 'static {
        let pieces = self.clone();
        move |piece| {
            lock(&pieces.0).extend(piece);
            Ok(())
        }
    }

    fn came(&self) -> Came {
        Came::of(&lock(&self.0))
    }
}

fn request(wanted: &[(ChunkId, Proof)], ahead: u64) -> Vec<u8> {
    let wanted: Vec<_> =
        wanted.iter().map(|(id, proof)| Wanted { id: *id, proof: *proof }).collect();
    Request { compress: true, must: wanted.len(), ahead, wanted }.encode()
}

/// A reader of a pool with one image.
struct Desk {
    bed: Bed,
    at: ReaderRef,
    roots: Came,
}

impl Desk {
    async fn new(bed: Bed) -> Self {
        let storage = &bed.storage;
        let new =
            NewPool { encryption: Encryption::None, ..NewPool::new("main", 1, bed.path("pool")) };
        let pool_id = storage.create_pool(new).await.unwrap().pool.id;
        let long = vec![7; 100_000];
        let mut other = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut other);
        let files: [(&str, &[u8]); 3] =
            [("sub/one", b"first"), ("sub/deep/two", &long), ("noise", &other)];
        let dir = bed.files("source", &files);
        bed.back_up(pool_id, &dir, None).await;
        let opened = storage.open_reader(pool_id, Some(7)).await.unwrap();
        let at = ReaderRef { pool_id, reader: opened.reader, user_id: Some(7) };
        let pieces = Pieces::default();
        storage.read_roots(&at, false, pieces.out()).await.unwrap();
        let roots = pieces.came();
        assert_eq!(roots.roots.len(), 1);
        Self { bed, at, roots }
    }

    fn top(&self) -> (ChunkId, Proof) {
        let id = self.roots.roots[0].nodes[0];
        (id, self.roots.proofs[&id])
    }

    async fn ask(&self, kind: ChunkKind, request: &[u8]) -> Result<Came> {
        let pieces = Pieces::default();
        self.bed.storage.begin_reading(&self.at, kind, request)?.answer(pieces.out()).await?;
        Ok(pieces.came())
    }

    /// All that the image reaches.
    async fn all(&self) -> Came {
        let came = self.ask(ChunkKind::Node, &request(&[self.top()], 1 << 20)).await.unwrap();
        assert!(came.nodes.len() > 3, "{}", came.nodes.len());
        came
    }
}

fn data(came: &Came) -> Vec<(ChunkId, Proof)> {
    let ids = came.nodes.values().flat_map(|node| &node.data);
    ids.map(|id| (*id, came.proofs[id])).collect()
}

#[tokio::test]
async fn a_reader_gets_what_it_was_shown_and_nothing_else() {
    testing::each(|catalog| async move {
        let desk = Desk::new(Bed::new(&catalog).await).await;
        let came = desk.all().await;
        let chunks = data(&came);
        let read = desk.ask(ChunkKind::Data, &request(&chunks, 0)).await.unwrap();
        assert_eq!((read.chunks.len(), read.failed.len()), (chunks.len(), 0));
        assert!(read.chunks.values().any(|bytes| bytes == b"first"));

        // Nothing unasked when nothing may come; what is asked for twice comes twice.
        let few = desk.ask(ChunkKind::Node, &request(&[desk.top()], 0)).await.unwrap();
        assert_eq!(few.nodes.len(), 1);
        let twice = desk.ask(ChunkKind::Data, &request(&[chunks[0], chunks[0]], 0)).await.unwrap();
        assert_eq!(twice.chunks[&0], twice.chunks[&1]);

        // A proof is good for its chunk, of its kind, by its reader, alone.
        let (id, proof) = chunks[0];
        let mut wrong = proof;
        wrong.0[3] ^= 1;
        for (kind, wanted) in [
            (ChunkKind::Data, (id, wrong)),
            (ChunkKind::Node, (id, proof)),
            (ChunkKind::Data, (desk.top().0, proof)),
        ] {
            let refused = desk.ask(kind, &request(&[chunks[1], wanted], 0)).await;
            assert!(matches!(refused, Err(Error::NotShown)), "{refused:?}");
        }
        let storage = &desk.bed.storage;
        for at in [
            ReaderRef { user_id: Some(8), ..desk.at.clone() },
            ReaderRef { user_id: None, ..desk.at.clone() },
            ReaderRef { pool_id: desk.at.pool_id + 1, ..desk.at.clone() },
            ReaderRef { reader: "00".into(), ..desk.at.clone() },
        ] {
            assert!(matches!(storage.find_reader(&at), Err(Error::NoReader)), "{at:?}");
        }
        let other = storage.open_reader(desk.at.pool_id, Some(7)).await.unwrap();
        let other = ReaderRef { reader: other.reader, ..desk.at.clone() };
        let foreign = storage.begin_reading(&other, ChunkKind::Data, &request(&chunks, 0));
        assert!(matches!(foreign, Err(Error::NotShown)));

        // Without a proof it is looked for in the images, and shown with the node that has it.
        let none = [(id, Proof::NONE), (ChunkId([9; 32]), Proof::NONE)];
        let found = desk.ask(ChunkKind::Data, &request(&none, 0)).await.unwrap();
        assert_eq!(found.chunks.keys().copied().collect::<Vec<_>>(), [0]);
        assert_eq!(found.failed[&1], Failure::Missing);
        assert_eq!(found.proofs[&id], proof);
        let node = came.nodes.keys().find(|id| **id != desk.top().0).unwrap();
        let none = request(&[(*node, Proof::NONE)], 0);
        assert!(desk.ask(ChunkKind::Node, &none).await.unwrap().nodes.contains_key(node));

        storage.close_reader(&desk.at).unwrap();
        let gone = desk.ask(ChunkKind::Data, &request(&chunks, 0)).await;
        assert!(matches!(gone, Err(Error::NoReader)));
    })
    .await;
}

#[tokio::test]
async fn readers_and_requests_are_bounded() {
    testing::each(|catalog| async move {
        let desk = Desk::new(Bed::new(&catalog).await).await;
        let many = vec![desk.top(); MAX_WANTED + 1];
        let much = desk.ask(ChunkKind::Node, &request(&many, 0)).await;
        assert!(matches!(much, Err(Error::Invalid(_))), "{much:?}");
        let garbage = desk.ask(ChunkKind::Node, b"what?").await;
        assert!(matches!(garbage, Err(Error::Invalid(_))), "{garbage:?}");
        let (storage, pool) = (&desk.bed.storage, desk.at.pool_id);
        for _ in 1..PER_CALLER {
            storage.open_reader(pool, Some(7)).await.unwrap();
        }
        let more = storage.open_reader(pool, Some(7)).await;
        assert!(matches!(more, Err(Error::TooManyReaders)));
        storage.open_reader(pool, Some(8)).await.unwrap();
        storage.close_all().await;
        assert_eq!(storage.inner.remote.count(), 0);
    })
    .await;
}

#[tokio::test]
async fn an_image_is_kept_while_it_is_held_and_an_idle_reader_lets_go() {
    testing::each(|catalog| async move {
        let mut bed = Bed::new(&catalog).await;
        let idle = Duration::from_millis(500);
        Arc::get_mut(&mut bed.storage.inner).unwrap().remote = Readers::new(idle);
        let desk = Desk::new(bed).await;
        let (storage, root) = (&desk.bed.storage, desk.roots.roots[0].id);
        assert!(matches!(storage.hold_image(&desk.at, "no"), Err(Error::Gone { .. })));
        storage.hold_image(&desk.at, &root.to_string()).unwrap();
        let chunks = data(&desk.all().await);
        let pool = storage.open(desk.at.pool_id).await.unwrap();
        pool.forget(&[root]).unwrap();
        let collect = || {
            let pool = Arc::clone(&pool);
            let options = GcOptions { max_unused: 0.0, ..GcOptions::default() };
            tokio::task::spawn_blocking(move || pool.gc(options).unwrap())
        };
        collect().await.unwrap();
        let read = desk.ask(ChunkKind::Data, &request(&chunks, 0)).await.unwrap();
        assert_eq!(read.chunks.len(), chunks.len());

        let deadline = Instant::now() + Duration::from_secs(60);
        while storage.inner.remote.count() > 0 {
            assert!(Instant::now() < deadline, "it was not closed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(matches!(storage.find_reader(&desk.at), Err(Error::NoReader)));
        collect().await.unwrap();
        assert!(chunks.iter().all(|(id, _)| !pool.contains(id).unwrap()));
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_read_is_told_and_the_rest_comes() {
    testing::each(|catalog| async move {
        let desk = Desk::new(Bed::new(&catalog).await).await;
        let chunks = data(&desk.all().await);
        // Whatever lies in the middle of the largest file of the pool.
        let mut files = vec![desk.bed.path("pool")];
        let mut largest = (0, files[0].clone());
        while let Some(path) = files.pop() {
            if path.is_dir() {
                files.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                largest = largest.max((path.metadata().unwrap().len(), path));
            }
        }
        let file = std::fs::OpenOptions::new().write(true).open(&largest.1).unwrap();
        file.write_all_at(&[0x55; 64], largest.0 / 2).unwrap();
        let read = desk.ask(ChunkKind::Data, &request(&chunks, 0)).await.unwrap();
        assert_eq!(read.chunks.len() + read.failed.len(), chunks.len());
        assert!(!read.failed.is_empty() && !read.chunks.is_empty());
        for failure in read.failed.values() {
            assert!(matches!(failure, Failure::Unreadable(..)), "{failure:?}");
        }
    })
    .await;
}
