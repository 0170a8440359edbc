//! What fuzzing begins with: `fuzz/corpus` holds small valid inputs for every target, made by the
//! code that writes such bytes and from the golden pools.
//!
//! `UPDATE=1` writes those that are missing; what is there stays.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use strongroom_archive::image::{ImageMeta, Top};
use strongroom_archive::names::Names;
use strongroom_archive::parcel::{self, Frame, Frames};
use strongroom_archive::wire::{Answer, Parser, Part, Proof, Request, Wanted};
use strongroom_engine::Error;
use strongroom_engine::chunker::Params;
use strongroom_engine::clock::{Clock, VirtualClock};
use strongroom_engine::codec::{Reader, Writer};
use strongroom_engine::compress::Effort;
use strongroom_engine::disk::{Disk, FsDisk};
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::keys::{Keyring, Protection, Secret};
use strongroom_engine::map::{Extent, MapBuilder, MapReader, MapRef, NodeStore, Nodes};
use strongroom_engine::node::Node;
use strongroom_engine::pack::{Directory, FOOTER_LEN, Footer, FrameCodec, FrameEntry};
use strongroom_engine::pool::{OpenMode, OpenOptions, Pool, Stored, Use};
use strongroom_engine::state::Root;
use strongroom_engine::superblock::{FILE, Superblock};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A golden pool on one disk, in a place where it may be locked.
fn golden(name: &str, password: bool) -> (tempfile::TempDir, Pool) {
    let dir = tempfile::tempdir().unwrap();
    let from = root().join("tests/golden/pools-v1").join(name);
    let copied = std::process::Command::new("cp").arg("-rT").arg(from).arg(dir.path()).status();
    assert!(copied.unwrap().success());
    let disk: Arc<dyn Disk> = Arc::new(FsDisk::open(dir.path()).unwrap());
    let file = root().join("tests/golden/pools-v1/password");
    let secret = password.then(|| Secret::passphrase_from_file(&file).unwrap());
    let clock: Arc<dyn Clock> = Arc::new(VirtualClock::new(2_000_000_000_000_000_000));
    let options = OpenOptions {
        disks: vec![Some(disk)],
        mode: OpenMode::Read,
        secret: secret.as_ref(),
        without_index: false,
    };
    let pool = Pool::open(options, Use { clock, threads: 0, holder: "test".into() }).unwrap();
    (dir, pool)
}

/// All nodes of a root, from the top.
fn nodes(pool: &Pool, root: &Root) -> Vec<Node> {
    let mut found = Vec::new();
    let mut stack = root.nodes.clone();
    while let Some(id) = stack.pop() {
        let node = pool.node(&id).unwrap();
        stack.extend(node.nodes.iter().rev());
        found.push(node);
    }
    found
}

/// Keeps nodes in the order in which they come.
#[derive(Default)]
struct Kept(Mutex<Vec<Vec<u8>>>);

impl NodeStore for Kept {
    fn put_node(&self, node: &Node) -> strongroom_engine::Result<(ChunkId, Stored)> {
        let mut kept = self.0.lock().unwrap();
        kept.push(node.encode());
        // By the first byte of its id a target finds it: 0 is no node, and 1 the top.
        Ok((ChunkId([kept.len() as u8 + 1; 32]), Stored::default()))
    }
}

struct Seeds(Vec<(&'static str, String, Vec<u8>)>);

impl Seeds {
    fn add(&mut self, target: &'static str, name: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((target, name.into(), bytes.into()));
    }

    fn of_pools(&mut self) {
        for (name, password) in [("plain", false), ("kinds", true), ("client-key", false)] {
            let (dir, pool) = golden(name, password);
            self.add("superblock", name, fs::read(dir.path().join(FILE)).unwrap());
            let mut w = Writer::new();
            let protection = pool.superblock().protection;
            protection.encode(&mut w);
            self.add("key_slots", name, w.finish());
            if let Protection::Clear(keyring) = &protection {
                self.add("key_slots", format!("{name}-keyring"), keyring.encode().to_vec());
            }
            for root in pool.roots() {
                let image = format!("{name}-{}", root.name);
                self.add("image_meta", format!("{image}-record"), root.meta.clone());
                let mut dirs = Vec::new();
                for (n, node) in nodes(&pool, &root).into_iter().enumerate() {
                    let bytes = node.encode();
                    if Top::decode(&node).is_ok() {
                        self.add("image_meta", format!("{image}-top"), bytes);
                    } else if Names::decode(&node).is_ok() {
                        self.add("image_meta", format!("{image}-names"), bytes);
                    } else if Directory::decode(&bytes).is_err() {
                        if name == "kinds" {
                            self.add("node_tree", format!("{image}-{n}"), bytes.clone());
                        }
                        dirs.push(bytes);
                    }
                }
                dirs.truncate(4);
                dirs.reverse();
                if !dirs.is_empty() {
                    self.add("file_tree", image.clone(), dirs.join(&[0xff, 0xfe][..]));
                }
                let told = Mutex::new(Vec::new());
                let out = |piece: Vec<u8>| {
                    told.lock().unwrap().extend(piece);
                    Ok(())
                };
                let answer = Answer::new(&out, false);
                answer.root(&root, [Proof([1; 16])].into_iter()).unwrap();
                let node = pool.node(&root.nodes[0]).unwrap();
                let proofs = node.nodes.iter().chain(&node.data).map(|_| Proof([2; 16]));
                let proofs: Vec<Proof> = proofs.collect();
                answer.node(&root.nodes[0], &node.encode(), proofs.into_iter()).unwrap();
                answer.chunk(0, b"the bytes of a chunk").unwrap();
                answer.failed(1, &Error::ChunkMissing { id: ChunkId([9; 32]) }).unwrap();
                answer.end().unwrap();
                drop(answer);
                self.add("wire", format!("{image}-answer"), told.into_inner().unwrap());
            }
        }
    }

    fn of_encoders(&mut self) {
        let text = "the same line again and again\n".repeat(40).into_bytes();
        let noise: Vec<u8> =
            (0..600u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let mut w = Writer::new();
        Params::default().encode(&mut w);
        self.add("chunker", "parameters", w.finish());
        self.add("chunker", "text", &text[..]);
        self.add("chunker", "noise", &noise[..]);

        let mut codec = FrameCodec::new(1);
        let mut frame = Vec::new();
        for (name, bytes) in [("text", &text), ("noise", &noise)] {
            codec.encode(bytes, Effort::Usual, &mut frame);
            self.add("pack_frame", name, &frame[..]);
            let chunks =
                vec![(ChunkId([1; 32]), 500), (ChunkId([2; 32]), bytes.len() as u32 - 500)];
            let mut parcel = Vec::new();
            Frame { kind: ChunkKind::Data, chunks, bytes: &frame }.put(&mut parcel);
            Frame { kind: ChunkKind::Node, chunks: vec![(ChunkId([3; 32]), 9)], bytes: &frame }
                .put(&mut parcel);
            self.add("parcel", format!("frames-{name}"), parcel);
        }
        self.add("parcel", "ids", parcel::put_ids(ChunkKind::Data, &[ChunkId([4; 32]); 3]));
        let mut pieces = Vec::new();
        parcel::put_pieces(&[&text[..20], &noise[..7], b"x"], &mut pieces);
        self.add("parcel", "pieces", pieces);

        let entry = |offset: u32, ids: &[u8]| FrameEntry {
            offset,
            len: 900,
            chunks: ids.iter().map(|id| (ChunkId([*id; 32]), 300 + u32::from(*id))).collect(),
        };
        let directory = Directory { frames: vec![entry(0, &[1, 2, 3]), entry(900, &[4])] };
        let record = directory.encode();
        self.add("pack_directory", "directory", &record[..]);
        self.add("pack_directory", "empty", Directory::default().encode());
        let footer = Footer { offset: 1800, len: record.len() as u32, chunks: 4 };
        let mut pack = vec![0; 1800];
        pack.extend(&record);
        pack.extend(footer.encode());
        self.add("pack_directory", "pack", pack);

        let wanted = [5, 6].map(|id| Wanted { id: ChunkId([id; 32]), proof: Proof([id; 16]) });
        for (name, wanted) in [("request", wanted.to_vec()), ("request-of-nothing", Vec::new())] {
            let must = wanted.len().min(1);
            let request = Request { compress: true, must, ahead: 1 << 16, wanted };
            self.add("wire", name, request.encode());
        }

        // Maps of one and of several nodes; the target finds the first by the second piece.
        for (name, extents) in [("one-node", 100u32), ("several", 700)] {
            let (kept, mut builder) = (Kept::default(), MapBuilder::new());
            for n in 0..extents {
                let extent = match n % 7 {
                    0 => Extent::Hole { len: 4096 + u64::from(n) },
                    _ => Extent::Data { id: ChunkId([(n % 200) as u8; 32]), len: 1 + n },
                };
                builder.push(&kept, extent).unwrap();
            }
            let len = builder.len();
            builder.finish(&kept).unwrap();
            let mut pieces = kept.0.into_inner().unwrap();
            let top = pieces.pop().unwrap();
            pieces.splice(0..0, [len.to_be_bytes().to_vec(), top]);
            self.add("content_map", name, pieces.join(&[0xff, 0xfe][..]));
        }

        // Files that the targets make themselves, and how they are changed.
        let edit = |at: u32, how: u8, value: u8| [&at.to_le_bytes()[..], &[how, value]].concat();
        for target in ["index_segment", "journal_record", "shard_header"] {
            self.add(target, "as-it-was", [0]);
            self.add(target, "a-byte-set", edit(4196, 0, 7).repeat(3));
            self.add(target, "bits-flipped", [edit(40, 1, 3), edit(9000, 1, 5)].concat().repeat(3));
            self.add(target, "cut", edit(5000, 2, 0).repeat(3));
            self.add(target, "longer", edit(4096, 3, 200).repeat(3));
        }
    }
}

/// Whether a target's parser takes a seed: in some way that the target tries.
fn parses(target: &str, bytes: &[u8]) -> bool {
    match target {
        "superblock" => {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join(FILE), bytes).unwrap();
            Superblock::read(&FsDisk::open(dir.path()).unwrap()).is_ok()
        }
        "key_slots" => {
            Protection::decode(&mut Reader::new(bytes)).is_ok() || Keyring::decode(bytes).is_ok()
        }
        "image_meta" => {
            let node = Node::decode(bytes);
            ImageMeta::decode(bytes).is_ok()
                || node.is_ok_and(|n| Top::decode(&n).is_ok() || Names::decode(&n).is_ok())
        }
        "node_tree" => Node::decode(bytes).is_ok(),
        "file_tree" => {
            let end = bytes.windows(2).position(|w| w == [0xff, 0xfe]).unwrap_or(bytes.len());
            Node::decode(&bytes[..end]).is_ok()
        }
        "wire" => {
            let mut parts = 0;
            let mut count = |_: Part<'_>| {
                parts += 1;
                Ok(())
            };
            let mut parser = Parser::default();
            let fed = parser.feed(bytes, &mut count);
            Request::decode(bytes).is_ok() || (fed.is_ok() && parser.end().is_ok() && parts > 0)
        }
        "pack_frame" => FrameCodec::new(1).decode(bytes, &mut Vec::new()).is_ok(),
        "parcel" => {
            let mut frames = Frames::new(bytes);
            parcel::ids(bytes).is_ok()
                || parcel::pieces(bytes).is_ok()
                || std::iter::from_fn(|| frames.take().transpose()).all(|frame| frame.is_ok())
        }
        "pack_directory" => {
            let footer = bytes.last_chunk::<FOOTER_LEN>();
            Directory::decode(bytes).is_ok()
                || footer.is_some_and(|last| Footer::decode(last, bytes.len() as u64, "it").is_ok())
        }
        "content_map" => {
            let mut pieces = Vec::new();
            let mut rest = bytes;
            while let Some(at) = rest.windows(2).position(|w| w == [0xff, 0xfe]) {
                pieces.push(&rest[..at]);
                rest = &rest[at + 2..];
            }
            pieces.push(rest);
            let len = u64::from_be_bytes(pieces[0].try_into().unwrap());
            let map = MapRef::Tree(ChunkId([1; 32]), len);
            MapReader::new(&Pieces(pieces), &map, 0).all(|extent| extent.is_ok())
        }
        _ => true,
    }
}

/// As the targets find nodes.
struct Pieces<'a>(Vec<&'a [u8]>);

impl Nodes for Pieces<'_> {
    fn node(&self, id: &ChunkId) -> strongroom_engine::Result<Node> {
        let piece = self.0[usize::from(id.0[0]) % self.0.len()];
        Node::decode(piece).map_err(Error::decoding("a node"))
    }
}

#[test]
fn every_fuzz_target_begins_with_something_valid() {
    let corpus = root().join("fuzz/corpus");
    if std::env::var_os("UPDATE").is_some() {
        let mut seeds = Seeds(Vec::new());
        seeds.of_pools();
        seeds.of_encoders();
        for (target, name, bytes) in seeds.0 {
            let path = corpus.join(target).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if !path.exists() {
                fs::write(path, bytes).unwrap();
            }
        }
    }
    let names = |dir: PathBuf| -> BTreeSet<String> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let targets: BTreeSet<String> = names(root().join("fuzz/src/bin"))
        .iter()
        .map(|name| name.strip_suffix(".rs").unwrap().to_owned())
        .collect();
    assert_eq!(names(corpus.clone()), targets, "UPDATE=1 makes what is missing");
    for target in targets {
        let seeds = names(corpus.join(&target));
        assert!(!seeds.is_empty(), "{target} has no seed");
        for seed in seeds {
            let bytes = fs::read(corpus.join(&target).join(&seed)).unwrap();
            assert!(bytes.len() < 64 << 10, "{target}/{seed} is large");
            assert!(parses(&target, &bytes), "{target}/{seed} is not what the parser takes");
        }
    }
}
