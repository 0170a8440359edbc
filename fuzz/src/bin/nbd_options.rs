//! What a client of NBD says before it uses an export: options, each with a number, a length and data.
#![no_main]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use strongroom_block::testing::MemoryDevice;
use strongroom_nbd::negotiation::{Negotiation, Next, Tls, header};
use strongroom_nbd::options::Asked;
use strongroom_nbd::{Address, Denied, Export, Exports, Listed, Peer};

#[derive(Debug)]
struct One;

impl Exports for One {
    fn list(&self, _: &Peer) -> Result<Vec<Listed>, Denied> {
        Ok(vec![Listed { name: "disk".to_owned(), description: "a disk".to_owned() }])
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Export, Denied> {
        match name {
            "disk" => Ok(Export {
                name: name.to_owned(),
                description: String::new(),
                device: Arc::new(MemoryDevice::new(1 << 20)),
                read_only: false,
                watch: None,
            }),
            "secret" if !peer.tls => Err(Denied::NeedsTls),
            _ => Err(Denied::Unknown),
        }
    }
}

/// Replies are whole, and each is to this option; they tell something only where that may be.
fn replies_are_whole(mut bytes: &[u8], option: u32, may_tell: bool) {
    while !bytes.is_empty() {
        assert_eq!(bytes[..8], 0x0003_e889_0455_65a9_u64.to_be_bytes());
        assert_eq!(bytes[8..12], option.to_be_bytes());
        let kind = u32::from_be_bytes(bytes[12..16].try_into().expect("four bytes"));
        assert!(may_tell || kind == 1 || kind > 1 << 31);
        let length = u32::from_be_bytes(bytes[16..20].try_into().expect("four bytes"));
        bytes = &bytes[20 + length as usize..];
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((first, mut rest)) = bytes.split_first() else { return };
    let tls = [Tls::None, Tls::Offered, Tls::Demanded][usize::from(first % 3)];
    let address = Address::Network(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
    let peer = Peer { address, tls: false, certificate: None };
    let mut negotiation = Negotiation::new(Arc::new(One), tls, peer);
    negotiation.client_flags(u32::from(first >> 6)).expect("both flags are known");
    while let Some((head, after)) = rest.split_first_chunk() {
        let Ok((option, length)) = header(head) else { return };
        let Some((data, after)) = after.split_at_checked(length as usize) else { return };
        rest = after;
        let _ = Asked::parse(option, data);
        let may_tell = tls != Tls::Demanded || negotiation.peer().tls;
        let mut out = Vec::new();
        let next = negotiation.answer(option, data, &mut out);
        if option != 1 {
            replies_are_whole(&out, option, may_tell);
        }
        assert!(may_tell || !matches!(next, Next::Transmission(_)));
        match next {
            Next::Option => {}
            Next::StartTls => negotiation.tls_is_spoken(None),
            Next::Transmission(agreed) => {
                assert!(!agreed.terms.block_status || agreed.terms.structured);
                return;
            }
            Next::End => return,
        }
    }
});
