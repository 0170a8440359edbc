//! What can be agreed upon, word for word.

use std::sync::Arc;

use crate::support::{Client, Named, limits, name, tcp, with_limits};
use strongroom_block::Geometry;
use strongroom_block::testing::MemoryDevice;
use strongroom_nbd::Options;

const ERR_UNSUP: u32 = (1 << 31) + 1;
const ERR_POLICY: u32 = (1 << 31) + 2;
const ERR_INVALID: u32 = (1 << 31) + 3;
const ERR_UNKNOWN: u32 = (1 << 31) + 6;
const ERR_TOO_BIG: u32 = (1 << 31) + 9;

fn options() -> Options {
    with_limits(limits())
}

fn disks() -> Named {
    let device = || Arc::new(MemoryDevice::new(1 << 20));
    Named::default().and("one", device()).and("two", device()).read_only("cast", device())
}

#[test]
fn exports_are_listed_and_described() {
    let (_server, address) = tcp(disks(), options());
    let mut client = Client::greeted(address);
    let listed = client.option(3, b"");
    let expected = |export: &str| [&name(export)[..], b"the disk ", export.as_bytes()].concat();
    assert_eq!(listed[0], (2, expected("cast")));
    assert_eq!(listed[2], (2, expected("two")));
    assert_eq!(listed[3], (1, vec![]));
    assert_eq!(client.option(3, b"data")[0].0, ERR_INVALID);

    // Asked for: the name, the description, and something that nobody knows.
    let told = client.option(6, &[&name("one")[..], &[0, 3, 0, 1, 0, 2, 0x77, 0x77]].concat());
    let told: Vec<&[u8]> = told.iter().map(|(_, data)| &data[..]).collect();
    let size = (1_u64 << 20).to_be_bytes();
    // Flags, flush, FUA, trim, zeroes, several connections, cache.
    let flags = 0b0000_0101_0110_1101_u16.to_be_bytes();
    let blocks =
        [&[0, 3][..], &512_u32.to_be_bytes(), &4096_u32.to_be_bytes(), &[2, 0, 0, 0]].concat();
    let export = [&[0, 0][..], &size, &flags].concat();
    assert_eq!(told, [&export[..], &blocks, b"\0\x01one", b"\0\x02the disk one", b""]);
    // Read-only: neither trim nor zeroes; structured: DF.
    assert_eq!(client.option(8, b""), [(1, vec![])]);
    let told = client.option(6, &[&name("cast")[..], &[0, 0]].concat());
    assert_eq!(told[0].1[10..], 0b0000_0101_1000_1111_u16.to_be_bytes());
}

#[test]
fn what_there_is_not_is_refused_and_the_negotiation_goes_on() {
    let (_server, address) = tcp(disks(), options());
    let mut client = Client::greeted(address);
    for (number, data, expected) in [
        (7, [&name("none")[..], &[0, 0]].concat(), ERR_UNKNOWN),
        (6, vec![0xff; 4], ERR_INVALID),
        (7, vec![], ERR_INVALID),
        (5, vec![], ERR_POLICY),
        (8, vec![1], ERR_INVALID),
        (4, vec![0; 100], ERR_UNSUP),
        (11, vec![], ERR_UNSUP),
        (0xffff_ffff, vec![], ERR_UNSUP),
        (3, vec![0; 100 << 10], ERR_TOO_BIG),
        (10, [name("one"), vec![0; 4]].concat(), ERR_INVALID),
        (10, [name("one"), vec![0xff; 4]].concat(), ERR_TOO_BIG),
    ] {
        let replies = client.option(number, &data);
        assert_eq!(replies.len(), 1);
        assert_eq!(
            replies[0].0,
            expected,
            "{number}: {:?}",
            String::from_utf8_lossy(&replies[0].1)
        );
    }
    assert_eq!(client.option(2, b"bye"), [(1, vec![])]);
    assert_eq!(client.rest(), b"");
}

#[test]
fn contexts_are_chosen_for_the_export_that_is_used() {
    let (_server, address) = tcp(disks(), options());
    let query = |export: &str, queries: &[&str]| {
        let mut data = [name(export), (queries.len() as u32).to_be_bytes().to_vec()].concat();
        queries.iter().for_each(|query| data.extend(name(query)));
        data
    };
    let context = |id: u8| (4, [&[0, 0, 0, id][..], b"base:allocation"].concat());
    let end = (1, vec![]);
    let mut client = Client::greeted(address);
    // Structured replies first.
    assert_eq!(client.option(10, &query("one", &["base:allocation"]))[0].0, ERR_INVALID);
    client.option(8, b"");
    assert_eq!(client.option(9, &query("one", &[])), [context(0), end.clone()]);
    assert_eq!(client.option(9, &query("one", &["base:"])), [context(0), end.clone()]);
    assert_eq!(client.option(9, &query("one", &["qemu:"])), std::slice::from_ref(&end));
    assert_eq!(client.option(10, &query("one", &["base:"])), std::slice::from_ref(&end));
    assert_eq!(client.option(10, &query("none", &["base:allocation"]))[0].0, ERR_UNKNOWN);
    let chosen = client.option(10, &query("one", &["x-y:z", "base:allocation"]));
    assert_eq!(chosen, [context(1), end.clone()]);
    // One that fails takes back what was chosen before.
    assert_eq!(client.option(10, &query("one", &["allocation"]))[0].0, ERR_INVALID);
    client.option(7, &[&name("one")[..], &[0, 0]].concat());
    client.request(7, 0, 5, 0, 512);
    assert_eq!(client.chunk().1, 0x8001);

    // And what was chosen for another export is not chosen for this one.
    let mut client = Client::greeted(address);
    client.option(8, b"");
    client.option(10, &query("two", &["base:allocation"]));
    client.option(7, &[&name("one")[..], &[0, 0]].concat());
    client.request(7, 0, 5, 0, 512);
    assert_eq!(client.chunk().1, 0x8001);
    let mut client = Client::with(address, "one", true);
    client.request(7, 0, 6, 0, 512);
    assert_eq!(client.chunk(), (6, 5, vec![0, 0, 0, 1, 0, 0, 2, 0, 0, 0, 0, 3]));
}

#[test]
fn old_clients_choose_an_export_by_its_name_alone() {
    let (_server, address) = tcp(disks(), options());
    let mut client = Client::connect(address);
    client.take(18);
    client.send(&[0; 4]);
    client.send_option(1, b"one");
    assert_eq!(client.number::<8>(), 1 << 20);
    client.number::<2>();
    assert_eq!(client.take(124), [0; 124]);
    client.request(0, 0, 7, 0, 512);
    assert_eq!(client.simple(), (7, 0));
    assert_eq!(client.take(512), [0; 512]);
    // Without the zeroes; and what can't be had ends it.
    let mut client = Client::greeted(address);
    client.send_option(1, b"two");
    client.take(10);
    client.request(3, 0, 8, 0, 0);
    assert_eq!(client.simple(), (8, 0));
    let mut client = Client::greeted(address);
    client.send_option(1, b"none");
    assert_eq!(client.rest(), b"");
}

#[test]
fn sizes_are_those_of_the_device_now() {
    let geometry = Geometry {
        size: 1 << 20,
        block: 4096,
        physical: 12288,
        optimal: 1 << 20,
        read_only: true,
        thin: false,
    };
    let device = Arc::new(MemoryDevice::with(geometry));
    let (_server, address) = tcp(Named::one(device.clone()), options());
    let mut client = Client::greeted(address);
    let ask = [&name("disk")[..], &[0, 0]].concat();
    let told = client.option(6, &ask);
    let blocks = [4096_u32, 16384, 32 << 20].map(u32::to_be_bytes).concat();
    assert_eq!(told[1].1, [&[0, 3][..], &blocks].concat());
    device.grow(2 << 20);
    assert_eq!(client.option(6, &ask)[0].1[2..10], (2_u64 << 20).to_be_bytes());
}
