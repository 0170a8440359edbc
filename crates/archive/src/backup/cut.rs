//! Cutting content into chunks and storing them.

use strongroom_engine::chunker::Chunker;
use strongroom_engine::map::{Extent, MapBuilder};

use super::Shared;

/// How content is cut.
#[derive(Clone, Debug)]
pub(super) enum Cut {
    /// At boundaries that the content decides.
    Content(Chunker),
    /// In pieces of that many bytes; those that are all zero become holes.
    Fixed(usize),
}

impl Cut {
    pub(super) fn builder(&self) -> MapBuilder {
        match self {
            Self::Content(_) => MapBuilder::new(),
            Self::Fixed(size) => MapBuilder::fixed(*size as u32),
        }
    }

    /// Cuts `data` and stores the pieces; appends extents. Gives what is left for the next block.
    pub(super) fn store<'d>(
        &self,
        shared: &Shared<'_>,
        data: &'d [u8],
        last: bool,
        extents: &mut Vec<Extent>,
    ) -> strongroom_engine::Result<&'d [u8]> {
        let (pieces, rest) = self.pieces(data, last);
        store_pieces(shared, &pieces, extents)?;
        Ok(rest)
    }

    pub(super) fn pieces<'d>(&self, mut data: &'d [u8], last: bool) -> (Vec<Piece<'d>>, &'d [u8]) {
        let mut pieces = Vec::with_capacity(32);
        while !data.is_empty() {
            let len = match self {
                Self::Content(chunker) => chunker.next_cut(data, last),
                Self::Fixed(size) if data.len() >= *size => *size,
                Self::Fixed(_) if last => data.len(),
                Self::Fixed(_) => 0,
            };
            if len == 0 {
                break;
            }
            let (piece, rest) = data.split_at(len);
            data = rest;
            pieces.push(match self {
                Self::Fixed(_) if is_zero(piece) => Piece::Hole(len as u64),
                _ => Piece::Data(piece),
            });
        }
        (pieces, data)
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.first() == Some(&0) && bytes[..bytes.len() - 1] == bytes[1..]
}

/// A piece of content, cut but not stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Piece<'d> {
    Data(&'d [u8]),
    Hole(u64),
}

pub(super) fn store_pieces(
    shared: &Shared<'_>,
    pieces: &[Piece<'_>],
    extents: &mut Vec<Extent>,
) -> strongroom_engine::Result<()> {
    let data: Vec<&[u8]> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Data(data) => Some(*data),
            Piece::Hole(_) => None,
        })
        .collect();
    let mut ids = Vec::with_capacity(data.len());
    if !data.is_empty() {
        let stored = shared.store.store(&data, &mut ids)?;
        shared.progress.stored(&stored);
    }
    let mut ids = ids.into_iter();
    for piece in pieces {
        extents.push(match piece {
            Piece::Hole(len) => Extent::Hole { len: *len },
            Piece::Data(data) => match ids.next() {
                Some(id) => Extent::Data { id, len: data.len() as u32 },
                None => {
                    let why = "it gave fewer ids than there are pieces";
                    return Err(strongroom_engine::Error::damaged("the session", why));
                }
            },
        });
    }
    Ok(())
}
