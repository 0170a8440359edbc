//! What a reader gets: the nodes it asked for and those it will ask for next, and chunks.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use strongroom_archive::wire::{Answer, Request, Wanted};
use strongroom_engine::id::{ChunkId, ChunkKind};
use strongroom_engine::map::MAP_TAG;
use strongroom_engine::node::Node;
use strongroom_engine::pool::ChunkBytes;
use strongroom_engine::{Error, Result};
use tokio::sync::OwnedSemaphorePermit;

use super::{Reader, lock};

/// How many nodes are looked at for one request, beside those it names.
const LOOK: usize = 4096;
/// How many nodes are looked at to find a reference without a proof.
const SEARCH: usize = 1 << 20;

/// Answers a request, whose proofs were checked. `turn`: those that have none are looked for.
pub(super) fn answer(
    reader: &Reader,
    kind: ChunkKind,
    request: &Request,
    answer: &Answer<'_>,
    turn: Option<OwnedSemaphorePermit>,
) -> Result<()> {
    let unproven = request.wanted.iter().filter(|wanted| is_unproven(wanted));
    let mut lost: HashSet<ChunkId> = match turn {
        Some(_) => unproven.map(|wanted| wanted.id).collect(),
        None => HashSet::new(),
    };
    search(reader, kind, &mut lost, answer)?;
    drop(turn);
    match kind {
        ChunkKind::Node => nodes(reader, request, &lost, answer),
        ChunkKind::Data => chunks(reader, request, &lost, answer),
    }
}

fn is_unproven(wanted: &Wanted) -> bool {
    wanted.proof == strongroom_archive::wire::Proof::NONE
}

impl Reader {
    fn read(&self, id: &ChunkId) -> Result<(ChunkBytes, Node)> {
        let bytes = self.pool.read(ChunkKind::Node, id)?;
        let node = Node::decode(&bytes).map_err(Error::decoding(&format!("node {id}")))?;
        Ok((bytes, node))
    }

    fn show(&self, id: &ChunkId, bytes: &[u8], node: &Node, answer: &Answer<'_>) -> Result<()> {
        let kinds = [(ChunkKind::Node, &node.nodes), (ChunkKind::Data, &node.data)];
        let ids = kinds.into_iter().flat_map(|(kind, ids)| ids.iter().map(move |id| (kind, id)));
        let proofs: Vec<_> = ids.map(|(kind, id)| self.prover.prove(kind, id)).collect();
        answer.node(id, bytes, proofs.into_iter())
    }
}

/// Finds references in the images that the reader holds (all, if it holds none), and shows the
/// nodes that have them; `lost` keeps what is not found.
fn search(
    reader: &Reader,
    kind: ChunkKind,
    lost: &mut HashSet<ChunkId>,
    answer: &Answer<'_>,
) -> Result<()> {
    if lost.is_empty() {
        return Ok(());
    }
    let held: HashSet<_> = lock(&reader.state).held.keys().copied().collect();
    let roots = reader.roots();
    let mut next: Vec<ChunkId> = Vec::new();
    for root in roots.iter().filter(|root| held.is_empty() || held.contains(&root.id)) {
        if kind == ChunkKind::Node {
            lost.retain(|id| !root.nodes.contains(id));
        }
        next.extend(&root.nodes);
    }
    let mut seen: HashSet<ChunkId> = HashSet::new();
    while let Some(id) = next.pop() {
        if lost.is_empty() || seen.len() >= SEARCH {
            return Ok(());
        }
        if !seen.insert(id) {
            continue;
        }
        // What can't be read can't show anything.
        let Ok((bytes, node)) = reader.read(&id) else { continue };
        let own = if kind == ChunkKind::Node { &node.nodes } else { &node.data };
        let before = lost.len();
        for id in own {
            lost.remove(id);
        }
        if lost.len() < before {
            reader.show(&id, &bytes, &node, answer)?;
        }
        next.extend(node.nodes.iter().rev());
    }
    Ok(())
}

/// The wanted nodes, each before what it refers to, as far as the bytes go that may come unasked.
fn nodes(
    reader: &Reader,
    request: &Request,
    lost: &HashSet<ChunkId>,
    answer: &Answer<'_>,
) -> Result<()> {
    let (mut ahead, mut looked) = (request.ahead, 0);
    let mut shown: HashSet<ChunkId> = HashSet::new();
    for (place, wanted) in request.wanted.iter().enumerate() {
        let must = place < request.must;
        if is_unproven(wanted) && (!must || lost.contains(&wanted.id)) {
            if must {
                answer.failed(place, &Error::ChunkMissing { id: wanted.id })?;
            }
            continue;
        }
        if !must && ahead == 0 {
            continue;
        }
        // Walks read lists of chunks only where they read content.
        let mut in_map = false;
        let mut next = vec![(wanted.id, true)];
        while let Some((id, named)) = next.pop() {
            let counts = !(named && must);
            if counts && (ahead == 0 || looked == LOOK) {
                break;
            }
            looked += usize::from(counts);
            if shown.contains(&id) {
                continue;
            }
            let (bytes, node) = match reader.read(&id) {
                Ok(read) => read,
                Err(error) if named && must => {
                    answer.failed(place, &error)?;
                    continue;
                }
                // Whoever wants it is told then.
                Err(_) => continue,
            };
            let is_map = node.payload.first() == Some(&MAP_TAG);
            in_map |= named && is_map;
            if is_map && !in_map {
                continue;
            }
            reader.show(&id, &bytes, &node, answer)?;
            if counts {
                ahead = ahead.saturating_sub(bytes.len() as u64);
            }
            shown.insert(id);
            next.extend(node.nodes.iter().rev().map(|id| (*id, false)));
        }
    }
    Ok(())
}

fn chunks(
    reader: &Reader,
    request: &Request,
    lost: &HashSet<ChunkId>,
    answer: &Answer<'_>,
) -> Result<()> {
    let mut places: HashMap<ChunkId, Vec<usize>> = HashMap::new();
    let mut ids = Vec::with_capacity(request.wanted.len());
    for (place, wanted) in request.wanted.iter().enumerate() {
        if is_unproven(wanted) && lost.contains(&wanted.id) {
            answer.failed(place, &Error::ChunkMissing { id: wanted.id })?;
            continue;
        }
        let same = places.entry(wanted.id).or_default();
        if same.is_empty() {
            ids.push(wanted.id);
        }
        same.push(place);
    }
    let sink = |i: usize, bytes: &[u8]| {
        places[&ids[i]].iter().try_for_each(|place| answer.chunk(*place, bytes))
    };
    let unsent = Mutex::new(Ok(()));
    let failed = |i: usize, error: Error| {
        for place in &places[&ids[i]] {
            if let Err(gone) = answer.failed(*place, &error) {
                *lock(&unsent) = Err(gone);
            }
        }
    };
    reader.pool.fetch(&ids, reader.pool.threads(), &sink, &failed)?;
    unsent.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}
