//! What a CDB asks for, checked against the device: fields of SBC-3 5 and SPC-4 6.

use strongroom_block::Geometry;

use super::sense::Sense;

/// The most bytes that a command may move (MAXIMUM TRANSFER LENGTH).
pub const MOST_TRANSFER: u32 = 32 << 20;
/// The most bytes that WRITE SAME fills, so that it doesn't take minutes.
pub(super) const MOST_SAME: u32 = 1 << 30;
/// The most blocks that COMPARE AND WRITE takes.
pub(super) const MOST_COMPARE: u8 = 128;
/// The most ranges that UNMAP takes.
pub(super) const MOST_DESCRIPTORS: u32 = 256;

/// Blocks as bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first.
    pub offset: u64,
    /// How many.
    pub length: u64,
}

/// How a verification compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Not at all: the medium has to be readable.
    Nothing,
    /// With as many bytes.
    All,
    /// Each block with the same one.
    OneBlock,
}

/// What is to be done with data or the medium. What needs neither is answered at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The answer is there, and cut to what was asked for.
    Answer(Vec<u8>),
    /// Blocks are read; `flush` those that were written are made durable before.
    Read { range: Range, flush: bool },
    /// Blocks are written; `verify` tells what is done then.
    Write { range: Range, durable: bool, verify: Option<Compare> },
    /// Blocks are written as one.
    WriteAtomic { range: Range, durable: bool },
    /// Blocks are read, and perhaps compared.
    Verify { range: Range, compare: Compare },
    /// Each block gets the same bytes, or zeroes when none are sent.
    WriteSame { range: Range, unmap: bool, has_data: bool },
    /// Blocks are written when they are what is expected.
    CompareAndWrite { range: Range, durable: bool },
    /// Blocks get the bits of what is there and of what is sent.
    OrWrite { range: Range, durable: bool },
    /// What was written is made durable.
    Synchronize,
    /// Ranges are given back.
    Unmap { list: u16 },
    /// What a range holds.
    LbaStatus { range: Range, allocation: u32 },
    /// Blocks are copied to another place of the same unit.
    Copy { list: u32 },
    /// The mode is changed.
    ModeSelect { list: u16, is_long: bool },
    /// Persistent reservations are changed.
    PersistentReserve { action: u8, kind: u8, list: u32 },
}

impl Operation {
    /// Bytes that the initiator has to send for it.
    pub fn data_out(&self, block: u32) -> usize {
        let length = |range: &Range| usize::try_from(range.length).unwrap_or(usize::MAX);
        match self {
            Self::Write { range, .. }
            | Self::WriteAtomic { range, .. }
            | Self::OrWrite { range, .. }
            | Self::Verify { range, compare: Compare::All } => length(range),
            Self::CompareAndWrite { range, .. } => length(range).saturating_mul(2),
            Self::Verify { range, compare: Compare::OneBlock } if range.length > 0 => {
                block as usize
            }
            Self::WriteSame { has_data: true, .. } => block as usize,
            Self::Unmap { list } | Self::ModeSelect { list, .. } => usize::from(*list),
            Self::PersistentReserve { list, .. } | Self::Copy { list } => *list as usize,
            _ => 0,
        }
    }

    /// Bytes of memory that it takes to do it, beside its data; little ones don't count.
    pub fn memory(&self) -> usize {
        match self {
            // What is there, and what is to be.
            Self::OrWrite { range, .. } => {
                usize::try_from(range.length).unwrap_or(usize::MAX).saturating_mul(2)
            }
            _ => 0,
        }
    }

    /// Whether it means nothing with more or less data than it needs.
    pub fn is_exact(&self) -> bool {
        matches!(
            self,
            Self::WriteSame { .. } | Self::CompareAndWrite { .. } | Self::WriteAtomic { .. }
        )
    }

    /// Whether it is done in the time that it takes to copy its bytes, if its device isn't slow.
    pub fn is_quick(&self) -> bool {
        matches!(
            self,
            Self::Answer(_)
                | Self::Read { flush: false, .. }
                | Self::Write { durable: false, verify: None, .. }
        )
    }
}

/// The fields of a CDB by the size of its code's group.
#[derive(Clone, Copy, Debug)]
struct Fields {
    block: u64,
    blocks: u32,
}

fn fields(cdb: &[u8; 16]) -> Fields {
    let [code, a, b, c, d, e, f, g, h, i, j, k, l, m, ..] = *cdb;
    match code >> 5 {
        0 => Fields {
            block: u32::from_be_bytes([0, a & 0x1f, b, c]).into(),
            blocks: if d == 0 { 256 } else { d.into() },
        },
        1 | 2 => Fields {
            block: u32::from_be_bytes([b, c, d, e]).into(),
            blocks: u16::from_be_bytes([g, h]).into(),
        },
        4 => Fields {
            block: u64::from_be_bytes([b, c, d, e, f, g, h, i]),
            blocks: u32::from_be_bytes([j, k, l, m]),
        },
        _ => Fields {
            block: u32::from_be_bytes([b, c, d, e]).into(),
            blocks: u32::from_be_bytes([f, g, h, i]),
        },
    }
}

/// The place of the length in a CDB, for the sense data.
fn length_at(code: u8) -> u16 {
    match code >> 5 {
        0 => 4,
        1 | 2 => 7,
        4 => 10,
        _ => 6,
    }
}

fn range(geometry: &Geometry, fields: Fields) -> Result<Range, Sense> {
    let block = u64::from(geometry.block.max(1));
    let end = fields.block.checked_add(fields.blocks.into()).ok_or(Sense::OUT_OF_RANGE)?;
    if end > geometry.size / block {
        return Err(Sense::OUT_OF_RANGE);
    }
    Ok(Range { offset: fields.block * block, length: u64::from(fields.blocks) * block })
}

/// The operation of a CDB that reads, writes or otherwise touches the medium; `None` for all others. So many
/// bytes are written as one at most.
pub(super) fn of_medium(
    cdb: &[u8; 16],
    geometry: &Geometry,
    most_atomic: u32,
) -> Result<Option<Operation>, Sense> {
    let [code, flags, ..] = *cdb;
    let fields = fields(cdb);
    // Nothing is protected (PROTECT of INQUIRY is 0), so nothing may be asked of it.
    let has_protection = !matches!(code, 0x08 | 0x0a | 0x34 | 0x90 | 0x35 | 0x91 | 0x42 | 0x9e);
    let checked = |most: u32| {
        if has_protection && flags & 0xe0 != 0 {
            return Err(Sense::invalid_field(1));
        }
        let range = range(geometry, fields)?;
        match range.length > most.into() {
            true => Err(Sense::invalid_field(length_at(code))),
            false => Ok(range),
        }
    };
    let is_durable = flags & 0x08 != 0;
    let compare = match flags >> 1 & 3 {
        0 => Ok(Compare::Nothing),
        1 => Ok(Compare::All),
        3 => Ok(Compare::OneBlock),
        _ => Err(Sense::invalid_field(1)),
    };
    Ok(Some(match code {
        0x08 => Operation::Read { range: checked(MOST_TRANSFER)?, flush: false },
        0x28 | 0x88 | 0xa8 => Operation::Read { range: checked(MOST_TRANSFER)?, flush: is_durable },
        0x0a => Operation::Write { range: checked(MOST_TRANSFER)?, durable: false, verify: None },
        0x2a | 0x8a | 0xaa => {
            Operation::Write { range: checked(MOST_TRANSFER)?, durable: is_durable, verify: None }
        }
        0x2e | 0x8e | 0xae => {
            let compare = match compare? {
                Compare::OneBlock => return Err(Sense::invalid_field(1)),
                compare => compare,
            };
            let range = checked(MOST_TRANSFER)?;
            Operation::Write { range, durable: true, verify: Some(compare) }
        }
        0x2f | 0x8f | 0xaf => {
            let compare = compare?;
            Operation::Verify { range: checked(MOST_TRANSFER)?, compare }
        }
        // The blocks are there or not: nothing is fetched before.
        0x34 | 0x90 => {
            checked(u32::MAX)?;
            Operation::Answer(Vec::new())
        }
        0x35 | 0x91 => {
            range(geometry, fields)?;
            Operation::Synchronize
        }
        0x41 | 0x93 => write_same(cdb, geometry, fields)?,
        0x89 => {
            let [.., blocks, _, _] = *cdb;
            if blocks > MOST_COMPARE {
                return Err(Sense::invalid_field(13));
            }
            if flags & 0xe0 != 0 {
                return Err(Sense::invalid_field(1));
            }
            let fields = Fields { blocks: blocks.into(), ..fields };
            Operation::CompareAndWrite { range: range(geometry, fields)?, durable: is_durable }
        }
        0x9c => {
            let [.., boundary, boundary_low, high, low, _, _] = *cdb;
            let fields = Fields { blocks: u16::from_be_bytes([high, low]).into(), ..fields };
            if flags & 0xe0 != 0 {
                return Err(Sense::invalid_field(1));
            }
            // Nothing is torn between boundaries either (MAXIMUM ATOMIC BOUNDARY SIZE is 0).
            if (boundary, boundary_low) != (0, 0) {
                return Err(Sense::invalid_field(10));
            }
            let range = range(geometry, fields)?;
            if range.length > most_atomic.into() {
                return Err(Sense::invalid_field(12));
            }
            Operation::WriteAtomic { range, durable: is_durable }
        }
        0x8b => Operation::OrWrite { range: checked(MOST_TRANSFER)?, durable: is_durable },
        0x42 => {
            let [_, flags, _, _, _, _, _, high, low, ..] = *cdb;
            if flags & 1 != 0 {
                return Err(Sense::invalid_field(1));
            }
            Operation::Unmap { list: u16::from_be_bytes([high, low]) }
        }
        0x9e if flags & 0x1f == 0x12 => {
            let block = u64::from(geometry.block.max(1));
            let blocks = geometry.size / block;
            if fields.block >= blocks {
                return Err(Sense::OUT_OF_RANGE);
            }
            let offset = fields.block * block;
            let range = Range { offset, length: blocks * block - offset };
            Operation::LbaStatus { range, allocation: fields.blocks }
        }
        _ => return Ok(None),
    }))
}

fn write_same(cdb: &[u8; 16], geometry: &Geometry, fields: Fields) -> Result<Operation, Sense> {
    let [code, flags, ..] = *cdb;
    let (anchor, unmap) = (flags & 0x10 != 0, flags & 0x08 != 0);
    // Nothing is protected, nothing can be anchored, and the obsolete PBDATA and LBDATA are gone.
    if flags & 0xe6 != 0 || anchor || (unmap && !geometry.thin) {
        return Err(Sense::invalid_field(1));
    }
    let has_data = code == 0x41 || flags & 1 == 0;
    if code == 0x41 && flags & 1 != 0 {
        return Err(Sense::invalid_field(1));
    }
    let range = range(geometry, fields)?;
    if fields.blocks == 0 {
        // All up to the end is not what anybody wants by mistake (WSNZ of the block limits).
        return Err(Sense::invalid_field(length_at(code)));
    }
    if range.length > MOST_SAME.into() {
        return Err(Sense::invalid_field(length_at(code)));
    }
    Ok(Operation::WriteSame { range, unmap, has_data })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const GEOMETRY: Geometry = Geometry {
        size: 1 << 20,
        block: 512,
        physical: 4096,
        optimal: 65536,
        read_only: false,
        thin: true,
    };

    fn cdb(bytes: &[u8]) -> [u8; 16] {
        let mut cdb = [0; 16];
        cdb[..bytes.len()].copy_from_slice(bytes);
        cdb
    }

    fn of(bytes: &[u8]) -> Result<Operation, Sense> {
        of_medium(&cdb(bytes), &GEOMETRY, 8192).map(Option::unwrap)
    }

    #[test]
    fn ranges_lie_within_the_device() {
        let read = |range| Ok(Operation::Read { range, flush: false });
        let range = |offset, length| Range { offset, length };
        assert_eq!(of(&[0x08, 0, 0, 1, 0]), read(range(512, 256 * 512)));
        assert_eq!(of(&[0x28, 0, 0, 0, 0, 8, 0, 0, 1]), read(range(8 * 512, 512)));
        assert_eq!(
            of(&[0x88, 0, 0, 0, 0, 0, 0, 0, 7, 255, 0, 0, 0, 1]),
            read(range(2047 * 512, 512))
        );
        for out in [
            &[0x28, 0, 0, 0, 7, 255, 0, 0, 2][..],
            &[0x28, 0, 0, 0, 8, 1, 0, 0, 0],
            &[0x88, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 1],
            &[0x91, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
            &[0x9e, 0x12, 0, 0, 0, 0, 0, 0, 8, 0],
        ] {
            assert_eq!(of(out), Err(Sense::OUT_OF_RANGE), "{out:x?}");
        }
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let large = Geometry { size: 1 << 40, ..GEOMETRY };
        let long = cdb(&[0xa8, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(of_medium(&long, &large, 0), Err(Sense::invalid_field(6)));
        for wrong in [&[0x28, 0x20][..], &[0x2f, 0x04], &[0x2e, 0x06], &[0x93, 0x18], &[0x42, 1]] {
            assert_eq!(of(wrong), Err(Sense::invalid_field(1)), "{wrong:x?}");
        }
        let compare = [0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 129];
        assert_eq!(of(&compare), Err(Sense::invalid_field(13)));
    }

    #[test]
    fn as_much_is_written_as_one_as_the_device_can() {
        let write = |block: u8, blocks: u8| {
            of(&[0x9c, 8, 0, 0, 0, 0, 0, 0, 0, block, 0, 0, 0, blocks, 0, 0])
        };
        let range = |offset, length| Range { offset, length };
        assert_eq!(
            write(3, 16),
            Ok(Operation::WriteAtomic { range: range(1536, 8192), durable: true })
        );
        assert_eq!(write(3, 0).unwrap().data_out(512), 0);
        assert_eq!(write(3, 17), Err(Sense::invalid_field(12)));
        let boundary = [0x9c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0];
        assert_eq!(of(&boundary), Err(Sense::invalid_field(10)));
        assert_eq!(of(&[0x9c, 0x20]), Err(Sense::invalid_field(1)));
        let beyond = [0x9c, 0, 0, 0, 0, 0, 0, 0, 7, 255, 0, 0, 1, 0, 0, 0];
        assert_eq!(of(&beyond), Err(Sense::OUT_OF_RANGE));
    }

    #[test]
    fn data_are_as_long_as_the_operation_needs() {
        let compare = of(&[0x89, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]).unwrap();
        assert_eq!(compare.data_out(512), 4096);
        assert_eq!(of(&[0x41, 0, 0, 0, 0, 0, 0, 0, 8]).unwrap().data_out(512), 512);
        assert_eq!(of(&[0x93, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8]).unwrap().data_out(512), 0);
        assert_eq!(of(&[0x2f, 6, 0, 0, 0, 0, 0, 0, 8]).unwrap().data_out(512), 512);
        assert_eq!(of(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 8]).unwrap().data_out(512), 4096);
    }
}
