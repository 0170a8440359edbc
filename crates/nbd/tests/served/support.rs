//! Servers for tests, and a client that says what it is told to.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use strongroom_block::BlockDevice;
use strongroom_nbd::{Denied, Export, Exports, Limits, Listed, Options, Peer, Refused, Server};

/// Long enough for a machine that has much to do; nothing waits for it that goes well.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Exports by their names.
#[derive(Debug, Default)]
pub(crate) struct Named(pub(crate) BTreeMap<String, Export>, pub(crate) Turned);

/// Why clients were turned away.
pub(crate) type Turned = Arc<Mutex<Vec<Refused>>>;

impl Named {
    pub(crate) fn one(device: Arc<dyn BlockDevice>) -> Self {
        Self::default().and("disk", device)
    }

    pub(crate) fn and(mut self, name: &str, device: Arc<dyn BlockDevice>) -> Self {
        let description = format!("the disk {name}");
        let export =
            Export { name: name.into(), description, device, read_only: false, watch: None };
        self.0.insert(name.into(), export);
        self
    }

    pub(crate) fn read_only(mut self, name: &str, device: Arc<dyn BlockDevice>) -> Self {
        self = self.and(name, device);
        self.0.get_mut(name).unwrap().read_only = true;
        self
    }
}

impl Exports for Named {
    fn list(&self, _: &Peer) -> Result<Vec<Listed>, Denied> {
        let listed = self.0.values().map(|export| Listed {
            name: export.name.clone(),
            description: export.description.clone(),
        });
        Ok(listed.collect())
    }

    fn open(&self, name: &str, peer: &Peer) -> Result<Export, Denied> {
        match self.0.get(name) {
            Some(export) if name.starts_with("secret") && !peer.tls => {
                let _ = export;
                Err(Denied::NeedsTls)
            }
            Some(export) => Ok(export.clone()),
            None => Err(Denied::Unknown),
        }
    }

    fn refused(&self, _: &Peer, why: &Refused) {
        self.1.lock().unwrap().push(why.clone());
    }
}

pub(crate) fn limits() -> Limits {
    Limits { handshake: LONG, stalled: LONG, ..Limits::default() }
}

/// A server at a port of this machine.
pub(crate) fn tcp(exports: Named, options: Options) -> (Server, SocketAddr) {
    let server = Server::new(Arc::new(exports), options);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.listen_tcp(listener).unwrap();
    (server, address)
}

/// A server at a Unix socket.
pub(crate) fn unix(exports: Named, options: Options, path: &Path) -> Server {
    let server = Server::new(Arc::new(exports), options);
    server.listen_unix(UnixListener::bind(path).unwrap()).unwrap();
    server
}

pub(crate) fn with_limits(limits: Limits) -> Options {
    Options { limits, ..Options::default() }
}

/// Runs a program, and has it succeed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> String {
    let output = outcome(program, arguments);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn outcome(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program} can't be run ({error}); see xtask's packages"))
}

/// A client that knows the protocol, and keeps to it no more than a test wants.
pub(crate) struct Client(pub(crate) TcpStream);

pub(crate) type OptionReply = (u32, Vec<u8>);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Connected, greeted, and with its flags sent.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        assert_eq!(client.take(18), b"NBDMAGICIHAVEOPT\0\x03");
        client.send(&3_u32.to_be_bytes());
        client
    }

    /// In the transmission phase, with or without structured replies.
    pub(crate) fn with(address: SocketAddr, export: &str, structured: bool) -> Self {
        let mut client = Self::greeted(address);
        if structured {
            assert_eq!(client.option(8, b""), [(1, vec![])]);
            let query = [&name(export)[..], &[0, 0, 0, 1], &name("base:allocation")].concat();
            assert_eq!(client.option(10, &query).len(), 2);
        }
        let replies = client.option(7, &[&name(export)[..], &[0, 0]].concat());
        assert_eq!(replies.last().unwrap().0, 1, "{replies:?}");
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// All that comes until the server ends it, which may be by a reset.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            match self.0.read(&mut piece) {
                Ok(0) => return bytes,
                Ok(read) => bytes.extend(&piece[..read]),
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
                    return bytes;
                }
            }
        }
    }

    pub(crate) fn number<const N: usize>(&mut self) -> u64 {
        self.take(N).iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    pub(crate) fn send_option(&mut self, number: u32, data: &[u8]) {
        let header = [&b"IHAVEOPT"[..], &number.to_be_bytes(), &(data.len() as u32).to_be_bytes()];
        self.send(&[&header.concat(), data].concat());
    }

    /// The replies to an option, up to the last.
    pub(crate) fn option(&mut self, number: u32, data: &[u8]) -> Vec<OptionReply> {
        self.send_option(number, data);
        let mut replies = Vec::new();
        loop {
            assert_eq!(self.number::<8>(), 0x3e889045565a9);
            assert_eq!(self.number::<4>(), u64::from(number));
            let kind = self.number::<4>() as u32;
            let length = self.number::<4>() as usize;
            replies.push((kind, self.take(length)));
            if kind == 1 || kind >= 1 << 31 {
                return replies;
            }
        }
    }

    pub(crate) fn request(&mut self, kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) {
        self.send(&request(kind, flags, cookie, offset, length));
    }

    /// The cookie and the error of a simple reply.
    pub(crate) fn simple(&mut self) -> (u64, u32) {
        assert_eq!(self.number::<4>(), 0x6744_6698);
        let error = self.number::<4>() as u32;
        (self.number::<8>(), error)
    }

    /// Cookie, kind and payload of a chunk.
    pub(crate) fn chunk(&mut self) -> (u64, u16, Vec<u8>) {
        assert_eq!(self.number::<4>(), 0x668e_33ef);
        self.number::<2>();
        let kind = self.number::<2>() as u16;
        let cookie = self.number::<8>();
        let length = self.number::<4>() as usize;
        (cookie, kind, self.take(length))
    }
}

pub(crate) fn request(kind: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    let mut bytes = vec![0x25, 0x60, 0x95, 0x13];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(kind.to_be_bytes());
    bytes.extend(cookie.to_be_bytes());
    bytes.extend(offset.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

/// A name with its length.
pub(crate) fn name(name: &str) -> Vec<u8> {
    [&(name.len() as u32).to_be_bytes()[..], name.as_bytes()].concat()
}
