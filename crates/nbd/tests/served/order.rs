//! Who waits for whom.

use std::any::Any;
use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::support::{Client, LONG, Named, limits, name, request, tcp, with_limits};
use strongroom_block::testing::MemoryDevice;
use strongroom_block::{BlockDevice, Durability, Extent, Geometry, Result, Zeroing};
use strongroom_nbd::{Client as Served, Limits, Watch};

/// Reads at 0, and flushes, wait until they are let go.
#[derive(Debug)]
struct Gated {
    inner: MemoryDevice,
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Gated {
    fn new() -> Arc<Self> {
        let inner = MemoryDevice::new(64 << 20);
        Arc::new(Self { inner, state: Mutex::default(), changed: Condvar::new() })
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.0 += 1;
        self.changed.notify_all();
        while !state.1 {
            state = self.changed.wait(state).unwrap();
        }
    }

    /// Waits until so many wait.
    fn until_waiting(&self, count: usize) {
        let mut state = self.state.lock().unwrap();
        while state.0 < count {
            let (now, waited) = self.changed.wait_timeout(state, LONG).unwrap();
            assert!(!waited.timed_out(), "{} of {count} have begun", now.0);
            state = now;
        }
    }

    fn open(&self) {
        self.state.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl BlockDevice for Gated {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        if offset == 0 {
            self.pass();
        }
        self.inner.read_at(offset, buffer)
    }
    fn write_at(&self, offset: u64, bytes: &[u8], durability: Durability) -> Result<()> {
        self.inner.write_at(offset, bytes, durability)
    }
    fn write_zeroes(&self, at: u64, length: u64, z: Zeroing, d: Durability) -> Result<()> {
        self.inner.write_zeroes(at, length, z, d)
    }
    fn discard(&self, offset: u64, length: u64) -> Result<()> {
        self.inner.discard(offset, length)
    }
    fn flush(&self) -> Result<()> {
        self.pass();
        self.inner.flush()
    }
    fn compare_and_write(&self, at: u64, a: &[u8], b: &[u8], d: Durability) -> Result<Option<u64>> {
        self.inner.compare_and_write(at, a, b, d)
    }
    fn extents(&self, offset: u64, length: u64, most: usize) -> Result<Vec<Extent>> {
        self.inner.extents(offset, length, most)
    }
    fn id(&self) -> [u8; 16] {
        self.inner.id()
    }
}

#[test]
fn a_slow_request_holds_up_no_others() {
    let device = Gated::new();
    let (_server, address) = tcp(Named::one(device.clone()), with_limits(limits()));
    let mut client = Client::with(address, "disk", false);
    // A read that turns out to be slow, together with others after it; then a flush; then more of both.
    client.send(&[request(0, 0, 1, 0, 512), request(0, 0, 2, 4096, 512)].concat());
    assert_eq!(client.simple(), (2, 0));
    client.take(512);
    client.request(3, 0, 3, 0, 0);
    for cookie in 4..200 {
        client.request(0, 0, cookie, 8192, 512);
        assert_eq!(client.simple(), (cookie, 0));
        client.take(512);
    }
    device.until_waiting(2);
    device.open();
    let mut last = [client.simple(), (0, 0)];
    if last[0].0 == 1 {
        client.take(512);
    }
    last[1] = client.simple();
    last.sort_unstable();
    assert_eq!(last, [(1, 0), (3, 0)]);
}

#[test]
fn no_more_threads_are_called_than_may_be() {
    let device = Gated::new();
    let few = Limits { parallel: 3, ..limits() };
    let (_server, address) = tcp(Named::one(device.clone()), with_limits(few));
    let mut client = Client::with(address, "disk", false);
    for cookie in 0..8 {
        client.request(3, 0, cookie, 0, 0);
    }
    device.until_waiting(3);
    device.open();
    let mut seen: Vec<u64> = (0..8).map(|_| client.simple().0).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..8).collect::<Vec<_>>());
}

#[test]
fn what_came_is_answered_before_it_ends() {
    let device = Gated::new();
    let (server, address) = tcp(Named::one(device.clone()), with_limits(limits()));
    let mut slow = Client::with(address, "disk", false);
    let mut idle = Client::with(address, "disk", false);
    let mut negotiating = Client::greeted(address);
    slow.request(3, 0, 1, 0, 0);
    device.until_waiting(1);
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| server.stop(LONG));
        // Who has nothing under way is let go; who negotiates too.
        assert_eq!((idle.rest(), negotiating.rest()), (vec![], vec![]));
        device.open();
        assert_eq!(slow.simple(), (1, 0));
        assert_eq!(slow.rest(), b"");
        assert!(stopped.join().unwrap());
    });
    assert!(TcpStream::connect(address).is_err(), "nobody listens");
    assert!(server.connections().is_empty());
}

#[test]
fn a_device_that_does_not_end_keeps_nobody_from_stopping() {
    let device = Gated::new();
    let (server, address) = tcp(Named::one(device.clone()), with_limits(limits()));
    let mut client = Client::with(address, "disk", false);
    client.request(3, 0, 1, 0, 0);
    device.until_waiting(1);
    assert!(!server.stop(Duration::ZERO));
    assert_eq!(client.rest(), b"");
    device.open();
}

#[test]
fn a_disconnect_waits_for_what_was_asked() {
    let device = Gated::new();
    let (server, address) = tcp(Named::one(device.clone()), with_limits(limits()));
    let mut client = Client::with(address, "disk", false);
    client.send(&[request(3, 0, 1, 0, 0), request(2, 0, 2, 0, 0)].concat());
    device.until_waiting(1);
    device.open();
    assert_eq!(client.simple(), (1, 0));
    assert_eq!(client.rest(), b"");
    assert!(server.stop(LONG));
}

#[test]
fn connections_of_one_export_are_ended_and_others_stay() {
    let device = || Arc::new(MemoryDevice::new(1 << 20));
    let exports = Named::default().and("one", device()).and("two", device());
    let (server, address) = tcp(exports, with_limits(limits()));
    let (mut one, mut two) =
        (Client::with(address, "one", false), Client::with(address, "two", false));
    // A connection is entered before its client learns of it.
    let mut exports: Vec<_> = server.connections().into_iter().map(|one| one.export).collect();
    exports.sort();
    assert_eq!(exports, ["one", "two"]);
    // Once it has answered there is a session to be ended.
    one.request(3, 0, 1, 0, 0);
    assert_eq!(one.simple(), (1, 0));
    server.disconnect("one");
    assert_eq!(one.rest(), b"");
    two.request(3, 0, 2, 0, 0);
    assert_eq!(two.simple(), (2, 0));
}

/// Gives clients to a test, and tells it when they have ended.
#[derive(Debug)]
struct Watching(Sender<Served>, Mutex<Option<Sender<()>>>);

impl Watching {
    fn new() -> (Arc<Self>, Receiver<Served>, Receiver<()>) {
        let ((clients, seen), (ended, over)) = (channel(), channel());
        (Arc::new(Self(clients, Mutex::new(Some(ended)))), seen, over)
    }
}

impl Watch for Watching {
    fn begins(&self, client: Served) -> Box<dyn Any + Send> {
        self.0.send(client).unwrap();
        Box::new(self.1.lock().unwrap().take())
    }
}

#[test]
fn who_watches_an_export_is_told_of_its_client_and_can_end_it() {
    let device = Gated::new();
    let (watching, clients, over) = Watching::new();
    let mut exports = Named::one(device.clone());
    exports.0.get_mut("disk").unwrap().watch = Some(watching);
    let (_server, address) = tcp(exports, with_limits(limits()));
    // Asking of an export is not using it.
    let mut asking = Client::greeted(address);
    assert_eq!(asking.option(6, &[&name("disk")[..], &[0, 0]].concat()).last().unwrap().0, 1);
    let mut client = Client::with(address, "disk", false);
    let served = clients.recv_timeout(LONG).unwrap();
    assert!(clients.try_recv().is_err(), "there is one");
    client.request(3, 0, 1, 0, 0);
    device.until_waiting(1);
    served.end();
    // It is told no sooner than all is answered.
    assert_eq!(over.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
    device.open();
    assert_eq!(client.simple(), (1, 0));
    assert_eq!(client.rest(), b"");
    // What was given for it is dropped.
    assert_eq!(over.recv_timeout(LONG), Err(std::sync::mpsc::RecvTimeoutError::Disconnected));
    served.end();
}

#[test]
fn a_client_that_takes_no_replies_holds_up_only_itself() {
    let device = Arc::new(MemoryDevice::new(64 << 20));
    let (server, address) = tcp(Named::one(device), with_limits(limits()));
    let mut greedy = Client::with(address, "disk", false);
    let mut other = Client::with(address, "disk", false);
    // More than sockets and queues hold.
    for cookie in 0..40 {
        greedy.request(0, 0, cookie, 0, 4 << 20);
    }
    other.request(0, 0, 1, 0, 4 << 20);
    assert_eq!(other.simple(), (1, 0));
    other.take(4 << 20);
    for _ in 0..40 {
        assert_eq!(greedy.simple().1, 0);
        greedy.take(4 << 20);
    }
    // And one that never takes them is cut off when the server ends.
    for cookie in 0..40 {
        greedy.request(0, 0, cookie, 0, 4 << 20);
    }
    greedy.0.flush().unwrap();
    drop(other);
    assert!(server.stop(Duration::from_millis(1)) || server.stop(LONG));
}

#[test]
fn many_connections_write_and_read_back() {
    let device = Arc::new(MemoryDevice::new(64 << 20));
    let (_server, address) = tcp(Named::one(device.clone()), with_limits(limits()));
    std::thread::scope(|scope| {
        for n in 0..8_u8 {
            scope.spawn(move || {
                let mut client = Client::with(address, "disk", true);
                let at = |cookie: u64| u64::from(n) * (4 << 20) + cookie * 8192;
                for cookie in 0..200 {
                    client.request(1, 0, cookie, at(cookie), 8192);
                    client.send(&vec![n ^ cookie as u8; 8192]);
                }
                let mut seen: Vec<_> = (0..200).map(|_| client.simple()).collect();
                seen.sort_unstable();
                assert!(seen.into_iter().eq((0..200).map(|cookie| (cookie, 0))));
                for cookie in 0..200 {
                    client.request(0, 0, cookie, at(cookie), 8192);
                }
                for _ in 0..200 {
                    let (cookie, kind, payload) = client.chunk();
                    assert_eq!((kind, &payload[..8]), (1, &at(cookie).to_be_bytes()[..]));
                    assert!(payload[8..].iter().all(|byte| *byte == n ^ cookie as u8));
                }
            });
        }
    });
}
