//! MODE SENSE and MODE SELECT (SPC-4 6.11 to 6.14; pages of SBC-3 6.5 and SPC-4 7.5).

use super::sense::Sense;

/// What initiators may change, for as long as the unit is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mode {
    /// Sense data are in the descriptor format (D_SENSE).
    pub(super) descriptors: bool,
    /// Nothing may be written (SWP).
    pub(super) protected: bool,
}

/// Bytes of the longest parameters of a MODE SELECT.
pub(super) const LONGEST: usize = 512;

/// Which values are asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
}

const CONTROL: u8 = 0x0a;

fn pages(code: u8, values: Values, mode: Mode) -> Vec<u8> {
    let is_asked = |one: u8| code == 0x3f || code == one;
    let mut bytes = Vec::new();
    let mut add = |code: u8, body: &[u8]| {
        if is_asked(code) {
            bytes.extend_from_slice(&[code, u8::try_from(body.len()).unwrap_or(0)]);
            match values {
                Values::Changeable if code != CONTROL => {
                    bytes.extend(std::iter::repeat_n(0, body.len()));
                }
                _ => bytes.extend_from_slice(body),
            }
        }
    };
    // Read-write error recovery: AWRE and ARRE, the pool mends by itself.
    add(0x01, &[0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    // Caching: WCE, for what is written is durable with the next flush.
    add(0x08, &[0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mode = if values == Values::Default { Mode::default() } else { mode };
    let bits = |mode: Mode| (u8::from(mode.descriptors) << 2, u8::from(mode.protected) << 3);
    let control = match values {
        Values::Changeable => {
            let (descriptors, protected) = bits(Mode { descriptors: true, protected: true });
            [descriptors, 0, protected, 0, 0, 0, 0, 0, 0, 0]
        }
        // A task set for each initiator (TST), commands in any order (QUEUE ALGORITHM MODIFIER).
        _ => {
            let (descriptors, protected) = bits(mode);
            [0x20 | descriptors, 0x10, protected, 0, 0, 0, 0xff, 0xff, 0, 0]
        }
    };
    add(CONTROL, &control);
    // Informational exceptions: none is reported.
    add(0x1c, &[0x08, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes
}

/// What is asked for besides pages.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unit {
    pub(super) blocks: u64,
    pub(super) block: u32,
    pub(super) read_only: bool,
}

/// Answers MODE SENSE; `is_long` is that of 10 bytes.
pub(super) fn sense(
    cdb: &[u8; 16],
    is_long: bool,
    unit: Unit,
    mode: Mode,
) -> Result<Vec<u8>, Sense> {
    let [_, options, page, subpage, ..] = *cdb;
    let values = match page >> 6 {
        0 => Values::Current,
        1 => Values::Changeable,
        2 => Values::Default,
        _ => return Err(Sense::SAVING_UNSUPPORTED),
    };
    let page = page & 0x3f;
    if subpage != 0 && !(subpage == 0xff && page == 0x3f) {
        return Err(Sense::invalid_field(3));
    }
    let pages = pages(page, values, mode);
    if pages.is_empty() {
        return Err(Sense::invalid_field(2));
    }
    // DPO and FUA are taken.
    let parameter = 0x10 | if unit.read_only || mode.protected { 0x80 } else { 0 };
    let has_long_blocks = is_long && options & 0x10 != 0;
    let mut descriptor = Vec::new();
    if options & 0x08 == 0 {
        if has_long_blocks {
            descriptor.extend_from_slice(&unit.blocks.to_be_bytes());
            descriptor.extend_from_slice(&[0; 4]);
        } else {
            let blocks = u32::try_from(unit.blocks).unwrap_or(u32::MAX);
            descriptor.extend_from_slice(&blocks.to_be_bytes());
        }
        let block = unit.block.to_be_bytes();
        descriptor.extend_from_slice(&block);
    }
    let length = u8::try_from(descriptor.len()).unwrap_or(0);
    let mut bytes = Vec::new();
    if is_long {
        let total = 6 + descriptor.len() + pages.len();
        bytes.extend_from_slice(&u16::try_from(total).unwrap_or(u16::MAX).to_be_bytes());
        bytes.extend_from_slice(&[0, parameter, u8::from(has_long_blocks), 0, 0, length]);
    } else {
        let total = 3 + descriptor.len() + pages.len();
        bytes.extend_from_slice(&[u8::try_from(total).unwrap_or(u8::MAX), 0, parameter, length]);
    }
    bytes.extend(descriptor);
    bytes.extend(pages);
    Ok(bytes)
}

/// What MODE SELECT's parameters make of a mode.
pub(super) fn select(parameters: &[u8], is_long: bool, mode: Mode) -> Result<Mode, Sense> {
    let header = if is_long { 8 } else { 4 };
    if parameters.is_empty() {
        return Ok(mode);
    }
    let byte = |at: usize| parameters.get(at).copied().ok_or(Sense::LIST_LENGTH);
    let descriptors = match is_long {
        true => usize::from(byte(6)?) << 8 | usize::from(byte(7)?),
        false => usize::from(byte(3)?),
    };
    let mut rest = parameters.get(header + descriptors..).ok_or(Sense::LIST_LENGTH)?;
    let mut changed = mode;
    while !rest.is_empty() {
        let at = u16::try_from(parameters.len() - rest.len()).unwrap_or(u16::MAX);
        let [code, length, after @ ..] = rest else { return Err(Sense::LIST_LENGTH) };
        let (body, next) =
            after.split_at_checked(usize::from(*length)).ok_or(Sense::LIST_LENGTH)?;
        let code = code & 0x3f;
        if code == 0x3f || code == 0 {
            return Err(Sense::invalid_parameter(at));
        }
        let now = pages(code, Values::Current, mode);
        let may = pages(code, Values::Changeable, mode);
        let (now, may) = (now.get(2..).unwrap_or_default(), may.get(2..).unwrap_or_default());
        if now.len() != body.len() {
            return Err(Sense::invalid_parameter(at.saturating_add(1)));
        }
        let is_same =
            now.iter().zip(may).zip(body).all(|((now, may), new)| (now ^ new) & !may == 0);
        if !is_same {
            return Err(Sense::invalid_parameter(at.saturating_add(2)));
        }
        if let (CONTROL, [first, _, third, ..]) = (code, body) {
            changed = Mode { descriptors: first & 0x04 != 0, protected: third & 0x08 != 0 };
        }
        rest = next;
    }
    Ok(changed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const UNIT: Unit = Unit { blocks: 2048, block: 512, read_only: false };

    fn ask(page: u8, subpage: u8, is_long: bool) -> Result<Vec<u8>, Sense> {
        let mut cdb = [0; 16];
        (cdb[2], cdb[3]) = (page, subpage);
        sense(&cdb, is_long, UNIT, Mode::default())
    }

    #[test]
    fn what_is_sensed_may_be_selected_again() {
        let bytes = ask(0x3f, 0, false).unwrap();
        assert_eq!(usize::from(bytes[0]) + 1, bytes.len());
        assert_eq!(select(&bytes, false, Mode::default()), Ok(Mode::default()));
        let bytes = ask(0x3f, 0xff, true).unwrap();
        assert_eq!(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])) + 2, bytes.len());
        assert_eq!(select(&bytes, true, Mode::default()), Ok(Mode::default()));
    }

    #[test]
    fn two_bits_change_and_no_other() {
        let mut bytes = ask(CONTROL, 0, false).unwrap();
        let page = bytes.len() - 12;
        bytes[page + 2] |= 0x04;
        bytes[page + 4] |= 0x08;
        let both = Mode { descriptors: true, protected: true };
        assert_eq!(select(&bytes, false, Mode::default()), Ok(both));
        bytes[page + 5] |= 0x40;
        assert!(select(&bytes, false, Mode::default()).is_err());
        assert_eq!(select(&bytes[..bytes.len() - 1], false, both), Err(Sense::LIST_LENGTH));
    }

    #[test]
    fn what_is_not_there_is_told() {
        assert_eq!(ask(0x02, 0, false), Err(Sense::invalid_field(2)));
        assert_eq!(ask(0x0a, 1, false), Err(Sense::invalid_field(3)));
        assert_eq!(ask(0xca, 0, false), Err(Sense::SAVING_UNSUPPORTED));
    }
}
