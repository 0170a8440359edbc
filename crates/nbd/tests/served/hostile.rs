//! Clients that mean no good: each is left, and others are served on.

use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Client, LONG, Named, limits, name, request, tcp, with_limits};
use strongroom_block::testing::MemoryDevice;
use strongroom_nbd::{Limits, Options, SharedMemory};

fn disk() -> Named {
    Named::one(Arc::new(MemoryDevice::new(64 << 20)))
}

fn is_served(address: std::net::SocketAddr) {
    let mut client = Client::with(address, "disk", true);
    client.request(0, 0, 1, 0, 512);
    assert_eq!(client.chunk().1, 1);
}

#[test]
fn garbage_at_any_time_ends_a_connection() {
    let (server, address) = tcp(disk(), with_limits(limits()));
    let garbage: Vec<u8> =
        (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
    // Instead of flags (unknown ones), of an option, of its data, and of a request.
    let mut client = Client::connect(address);
    client.take(18);
    client.send(&[0xff; 4]);
    assert_eq!(client.rest(), b"");
    let mut client = Client::greeted(address);
    client.send(&garbage);
    client.rest();
    let mut client = Client::greeted(address);
    client.send_option(7, &garbage);
    assert_eq!(client.number::<8>(), 0x3e889045565a9, "it is told so, and may go on");
    for structured in [false, true] {
        let mut client = Client::with(address, "disk", structured);
        client.request(0, 0, 1, 512, 512);
        client.send(&garbage);
        let answered = client.rest();
        assert!(answered.is_empty() || answered.len() >= 512, "what was asked before is answered");
    }
    is_served(address);
    assert!(server.stop(LONG));
}

#[test]
fn lengths_beyond_all_bounds_are_refused_before_anything_is_taken() {
    let (_server, address) = tcp(disk(), with_limits(limits()));
    // An option of 4 GiB, and a name that says it is as long.
    let mut client = Client::greeted(address);
    client.send(&[&b"IHAVEOPT"[..], &[0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff]].concat());
    client.rest();
    let mut client = Client::greeted(address);
    assert_eq!(client.option(7, &[0xff, 0xff, 0xff, 0xff, 0, 0])[0].0, (1 << 31) + 3);
    // A write of 4 GiB; a read of as much, which is only refused.
    let mut client = Client::with(address, "disk", false);
    client.request(1, 0, 1, 0, u32::MAX);
    client.rest();
    let mut client = Client::with(address, "disk", false);
    client.request(0, 0, 1, 0, u32::MAX);
    assert_eq!(client.simple(), (1, 22));
    client.request(0, 0, 2, u64::MAX - 511, 512);
    assert_eq!(client.simple(), (2, 22));
    client.send(&[request(1, 0, 3, u64::MAX - 511, 512), vec![1; 512]].concat());
    assert_eq!(client.simple(), (3, 28));
    client.send(&[request(1, 0, 4, 64 << 20, 40 << 10), vec![1; 40 << 10]].concat());
    assert_eq!(client.simple(), (4, 28));
    client.request(99, 0xffff, 5, 0, 0);
    assert_eq!(client.simple(), (5, 22));
    is_served(address);
}

#[test]
fn who_stops_half_way_is_let_go() {
    let (server, address) = tcp(disk(), with_limits(limits()));
    let half = |bytes: &[u8]| {
        let mut client = Client::with(address, "disk", true);
        client.send(bytes);
        client.0.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.rest(), b"");
    };
    half(&request(0, 0, 1, 0, 512)[..27]);
    half(&[request(1, 0, 1, 0, 512), vec![1; 511]].concat());
    half(&[request(1, 0, 1, 0, 8 << 20), vec![1; 5 << 20]].concat());
    let mut client = Client::greeted(address);
    client.send(b"IHAVEOPT\0\0");
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.rest(), b"");
    assert!(server.stop(LONG));
}

#[test]
fn who_is_slow_is_left_in_the_end() {
    let short = Duration::from_millis(50);
    let hasty = Limits { handshake: short, stalled: LONG, ..Limits::default() };
    let (_server, address) = tcp(disk(), with_limits(hasty));
    let mut client = Client::connect(address);
    assert_eq!(client.rest().len(), 18, "the greeting, and no more");

    let hasty = Limits { stalled: short, handshake: LONG, ..Limits::default() };
    let (server, address) = tcp(disk(), with_limits(hasty));
    let mut half = Client::with(address, "disk", false);
    half.send(&request(1, 0, 1, 0, 512));
    assert_eq!(half.rest(), b"");
    // Its replies are never taken: what is sent comes to an end, before all of it has come.
    let mut deaf = Client::with(address, "disk", false);
    for cookie in 0..8 {
        deaf.request(0, 0, cookie, 0, 32 << 20);
    }
    while !server.connections().is_empty() {
        std::thread::yield_now();
    }
    assert!(deaf.rest().len() < 8 * (32 << 20));
    // Who asks for nothing may stay.
    is_served(address);

    let hasty = Limits { stalled: short, idle: Some(short), handshake: LONG, ..Limits::default() };
    let (_server, address) = tcp(disk(), with_limits(hasty));
    let mut idle = Client::with(address, "disk", false);
    assert_eq!(idle.rest(), b"");
}

#[test]
fn there_are_only_so_many_connections() {
    let few = Limits { connections: 2, handshakes: 3, ..limits() };
    let (server, address) = tcp(disk(), with_limits(few));
    let mut served: Vec<_> = (0..2).map(|_| Client::with(address, "disk", false)).collect();
    let mut third = Client::greeted(address);
    let go = [&name("disk")[..], &[0, 0]].concat();
    let refused = third.option(7, &go);
    assert_eq!(refused[0].0, (1 << 31) + 2, "too many, in words: {refused:?}");
    // Those who only negotiate give way to others, the oldest first.
    let mut others: Vec<_> = (0..3).map(|_| Client::greeted(address)).collect();
    assert_eq!(third.rest(), b"");
    others[2].option(3, b"");
    // A place that becomes free is there for the next.
    served[0].request(2, 0, 1, 0, 0);
    assert_eq!(served[0].rest(), b"");
    while server.connections().len() == 2 {
        std::thread::yield_now();
    }
    assert_eq!(others[2].option(7, &go).last().unwrap().0, 1);
    served[1].request(3, 0, 1, 0, 0);
    assert_eq!(served[1].simple(), (1, 0));
}

#[test]
fn nobody_haggles_for_ever() {
    let (_server, address) = tcp(disk(), with_limits(limits()));
    let mut client = Client::greeted(address);
    for _ in 0..256 {
        client.option(3, b"");
    }
    client.send_option(3, b"");
    assert_eq!(client.rest(), b"");
}

#[test]
fn many_large_requests_share_the_memory_there_is() {
    let tight = Limits { memory: 80 << 20, ..limits() };
    let (server, address) = tcp(disk(), with_limits(tight));
    std::thread::scope(|scope| {
        for n in 0..6_u8 {
            scope.spawn(move || {
                let mut client = Client::with(address, "disk", true);
                for cookie in 0..3 {
                    client.request(1, 0, cookie, 0, 32 << 20);
                    client.send(&vec![n; 32 << 20]);
                    client.request(0, 0, cookie + 10, 32 << 20, 32 << 20);
                }
                let mut answered = 0;
                while answered < 6 {
                    // Either kind, in any order.
                    let magic = client.number::<4>();
                    match magic {
                        0x6744_6698 => assert_eq!(client.take(12)[..4], [0; 4]),
                        _ => {
                            client.take(12);
                            let length = client.number::<4>();
                            client.take(length as usize);
                        }
                    }
                    answered += 1;
                }
            });
        }
    });
    assert!(server.stop(LONG));
}

#[test]
fn replies_that_nobody_takes_are_bounded_however_small() {
    let limits = limits();
    let memory = SharedMemory::new(&limits, 1);
    let options = Options { limits, memory: Some(memory.clone()), ..Options::default() };
    let (server, address) = tcp(disk(), options);
    let mut client = Client::with(address, "disk", false);
    // A request has 28 bytes, its reply 16, and the buffer of that 4 KiB: more of them than sockets take.
    let many: Vec<u8> = (0..1000).flat_map(|n| request(0, 0, n, 0, 0)).collect();
    client.0.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut sent = 0_u64;
    while client.0.write_all(&many).is_ok() && sent < 10_000_000 {
        sent += 1000;
        assert!(memory.bytes() < 4 << 20, "{} for {sent}", memory.bytes());
    }
    assert!(sent < 10_000_000, "it was read on, though nobody takes the replies");
    assert!(memory.bytes() < 4 << 20, "{}", memory.bytes());
    drop(client);
    assert!(server.stop(LONG));
    let end = Instant::now() + LONG;
    while memory.bytes() > 0 {
        assert!(Instant::now() < end, "{} bytes are not given back", memory.bytes());
        std::thread::yield_now();
    }
}
