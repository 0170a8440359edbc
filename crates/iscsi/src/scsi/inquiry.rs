//! INQUIRY and the vital product data (SPC-4 6.6 and 7.8, SBC-3 6.6).

use strongroom_block::Geometry;

use super::operation::{MOST_COMPARE, MOST_DESCRIPTORS, MOST_SAME, MOST_TRANSFER};

/// What a unit says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Up to 8 letters of ASCII.
    pub vendor: String,
    /// Up to 16.
    pub product: String,
    /// Up to 4.
    pub revision: String,
    /// Initiators may take the medium out and put it in again (START STOP UNIT): what is served as a
    /// disc is.
    pub removable: bool,
    /// Bytes of a physical block that READ CAPACITY tells of: those that are written whole or not at all.
    /// None: what the device's geometry has. What suits it best is in the Block Limits page in any case.
    pub physical: Option<u32>,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            vendor: "STRNGRM".into(),
            product: "Volume".into(),
            revision: "1".into(),
            removable: false,
            physical: None,
        }
    }
}

/// Where a unit is reached: what only the transport knows.
#[derive(Clone, Debug, Default)]
pub struct PortName {
    /// The name of the target device, as a SCSI name string.
    pub target: String,
    /// And that of the port.
    pub port: String,
}

fn letters(text: &str, length: usize) -> Vec<u8> {
    let printable = text.bytes().filter(|byte| (0x20..0x7f).contains(byte));
    printable.chain(std::iter::repeat(b' ')).take(length).collect()
}

fn serial(id: [u8; 16]) -> String {
    data_encoding::HEXLOWER.encode(&id)
}

/// The standard data; `is_there` is whether there is a unit of that number.
pub(super) fn standard(identity: &Identity, is_there: bool) -> Vec<u8> {
    let kind = if is_there { 0 } else { 0x7f };
    let mut bytes = vec![kind, u8::from(identity.removable) << 7, 6, 0x12, 0, 0x08, 0, 0x02];
    bytes.extend(letters(&identity.vendor, 8));
    bytes.extend(letters(&identity.product, 16));
    bytes.extend(letters(&identity.revision, 4));
    bytes.resize(58, 0);
    // SAM-5, SPC-4, SBC-3, iSCSI.
    for version in [0x00a0_u16, 0x0460, 0x04c0, 0x0960] {
        bytes.extend_from_slice(&version.to_be_bytes());
    }
    bytes.resize(96, 0);
    set(&mut bytes, 4, &[91]);
    bytes
}

fn set(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

/// A page of vital product data; `None` when there is none of that code.
pub(super) fn page(
    code: u8,
    identity: &Identity,
    id: [u8; 16],
    geometry: &Geometry,
    most_atomic: u32,
    port: &PortName,
) -> Option<Vec<u8>> {
    let body = match code {
        0x00 => vec![0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2],
        0x80 => serial(id).into_bytes(),
        0x83 => identification(identity, id, port),
        0x86 => extended(),
        0xb0 => limits(geometry, most_atomic),
        // It doesn't rotate, and has no form.
        0xb1 => [&[0, 1][..], &[0; 58]].concat(),
        0xb2 => provisioning(geometry),
        _ => return None,
    };
    let mut page = vec![0, code];
    page.extend_from_slice(&u16::try_from(body.len()).ok()?.to_be_bytes());
    page.extend(body);
    Some(page)
}

/// Names of a unit on whichever path, each with its code set and its type.
pub(super) fn designators(identity: &Identity, id: [u8; 16]) -> [(u8, u8, Vec<u8>); 2] {
    // NAA 3, locally assigned: 60 bits of the device's own 128.
    let mut naa = [0; 8];
    naa.iter_mut().zip(id).for_each(|(place, byte)| *place = byte);
    set(&mut naa, 0, &[0x30 | id[0] & 0x0f]);
    let mut vendor = letters(&identity.vendor, 8);
    vendor.extend(serial(id).bytes());
    [(1, 3, naa.to_vec()), (2, 1, vendor)]
}

/// Page 83h, by which hosts know a unit.
fn identification(identity: &Identity, id: [u8; 16], port: &PortName) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut add = |set: u8, kind: u8, value: &[u8]| {
        let value = value.get(..value.len().min(252)).unwrap_or_default();
        bytes.extend_from_slice(&[set, kind, 0, u8::try_from(value.len()).unwrap_or(0)]);
        bytes.extend_from_slice(value);
    };
    designators(identity, id).iter().for_each(|(set, kind, value)| add(*set, *kind, value));
    // The transport's names; the protocol is iSCSI's, 5h.
    let name = |name: &str| {
        let mut name = name.as_bytes().to_vec();
        name.resize((name.len() / 4 + 1) * 4, 0);
        name
    };
    if !port.target.is_empty() {
        add(0x53, 0xa8, &name(&port.target));
        add(0x53, 0x98, &name(&port.port));
        add(0x51, 0x94, &[0, 0, 0, 1]);
    }
    bytes
}

/// Page 86h: tasks of simple attributes, and what is left out is zero.
fn extended() -> Vec<u8> {
    let mut page = vec![0; 60];
    // HEADSUP, SIMPSUP; the cache is volatile.
    set(&mut page, 1, &[0x05, 0x01]);
    page
}

/// Page B0h.
fn limits(geometry: &Geometry, most_atomic: u32) -> Vec<u8> {
    let blocks = |bytes: u32| (bytes / geometry.block.max(1)).max(1);
    let mut page = vec![0; 60];
    // WSNZ: WRITE SAME has to say how many blocks.
    set(&mut page, 0, &[1, MOST_COMPARE]);
    let physical = u16::try_from(blocks(geometry.physical)).unwrap_or(u16::MAX);
    set(&mut page, 2, &physical.to_be_bytes());
    set(&mut page, 4, &blocks(MOST_TRANSFER).to_be_bytes());
    set(&mut page, 8, &blocks(geometry.optimal).to_be_bytes());
    if geometry.thin {
        set(&mut page, 16, &u32::MAX.to_be_bytes());
        set(&mut page, 20, &MOST_DESCRIPTORS.to_be_bytes());
        set(&mut page, 24, &blocks(geometry.physical).to_be_bytes());
        set(&mut page, 28, &0x8000_0000_u32.to_be_bytes());
    }
    set(&mut page, 32, &u64::from(blocks(MOST_SAME)).to_be_bytes());
    // Of any number of blocks and from any on; there are no boundaries within.
    set(&mut page, 40, &(most_atomic / geometry.block.max(1)).to_be_bytes());
    page
}

/// Page B2h.
fn provisioning(geometry: &Geometry) -> Vec<u8> {
    match geometry.thin {
        // UNMAP and both WRITE SAME unmap, what is unmapped reads as zeroes; thin.
        true => vec![0, 0xe4, 0x02, 0],
        false => vec![0, 0, 0, 0],
    }
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

    #[test]
    fn each_page_that_is_listed_is_there_and_as_long_as_it_says() {
        let port = PortName { target: "iqn.a".into(), port: "iqn.a,t,0x0001".into() };
        let get = |code| page(code, &Identity::default(), [7; 16], &GEOMETRY, 131_072, &port);
        let listed = get(0).unwrap();
        for code in &listed[4..] {
            let page = get(*code).unwrap();
            assert_eq!(page[1], *code);
            assert_eq!(usize::from(u16::from_be_bytes([page[2], page[3]])) + 4, page.len());
        }
        assert_eq!(get(0x99), None);
        assert_eq!((get(0xb0).unwrap().len(), get(0xb1).unwrap().len()), (64, 64));
        assert_eq!(
            get(0xb0).unwrap()[44..],
            [0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        );
    }

    #[test]
    fn the_standard_data_say_what_it_is() {
        let bytes = standard(&Identity::default(), true);
        assert_eq!((bytes.len(), bytes[4]), (96, 91));
        assert_eq!(&bytes[8..36], b"STRNGRM Volume          1   ");
    }
}
