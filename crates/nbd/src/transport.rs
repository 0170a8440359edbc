//! The socket of a connection, with or without TLS.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustls::{ServerConfig, ServerConnection};

use crate::buffers::locked;
use crate::exports::Address;
use crate::receiver::Source;

/// Bytes that are read from the socket at once, and sealed before they are sent, where TLS is spoken.
const SEALED: usize = 128 << 10;
/// Bytes that a connection with TLS has for that, either way.
pub(crate) const TLS: usize = 2 * SEALED;
/// A client that is not heard of is asked after this long, so often, so many times.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);

/// A stream socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Has it send at once, and find out when the other side is no more.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        if let Self::Tcp(tcp) = self {
            tcp.set_nodelay(true)?;
            rustix::net::sockopt::set_socket_keepalive(tcp, true)?;
            rustix::net::sockopt::set_tcp_keepidle(tcp, KEEPALIVE.0)?;
            rustix::net::sockopt::set_tcp_keepintvl(tcp, KEEPALIVE.1)?;
            rustix::net::sockopt::set_tcp_keepcnt(tcp, KEEPALIVE.2)?;
        }
        Ok(())
    }

    pub(crate) fn peer(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(tcp) => Address::Network(tcp.peer_addr()?),
            Self::Unix(unix) => {
                let whose = rustix::net::sockopt::socket_peercred(unix);
                Address::Local { uid: whose.ok().map(|whose| whose.uid.as_raw()) }
            }
        })
    }

    /// How long a call waits for bytes to come, or to go.
    fn patience(&self, patience: Duration) -> io::Result<()> {
        let patience = Some(patience.max(Duration::from_millis(1)));
        match self {
            Self::Tcp(tcp) => {
                tcp.set_read_timeout(patience)?;
                tcp.set_write_timeout(patience)
            }
            Self::Unix(unix) => {
                unix.set_read_timeout(patience)?;
                unix.set_write_timeout(patience)
            }
        }
    }

    /// Ends it, in one direction or both, under whoever uses it.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        // It may have ended.
        let _ = match self {
            Self::Tcp(tcp) => tcp.shutdown(how),
            Self::Unix(unix) => unix.shutdown(how),
        };
    }

    fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => (&mut &*tcp).read(buffer),
            Self::Unix(unix) => (&mut &*unix).read(buffer),
        }
    }

    fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match (self, slices) {
            (Self::Tcp(tcp), [one]) => (&mut &*tcp).write(one),
            (Self::Unix(unix), [one]) => (&mut &*unix).write(one),
            (Self::Tcp(tcp), many) => (&mut &*tcp).write_vectored(many),
            (Self::Unix(unix), many) => (&mut &*unix).write_vectored(many),
        }
    }

    fn write_all(&self, mut slices: &mut [IoSlice<'_>], until: Instant) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match self.write(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if !slices.is_empty() && Instant::now() > until {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

/// A socket, and how it is spoken through. One thread reads at a time, and one writes.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Arc<Socket>,
    /// How long the other side may take for what we send, but for its length.
    patience: Duration,
    tls: Option<Tls>,
}

#[derive(Debug)]
struct Tls {
    connection: Mutex<ServerConnection>,
    incoming: Mutex<Incoming>,
    /// What is sealed and not yet sent; held while it is, so that records go in their order.
    outgoing: Mutex<Vec<u8>>,
}

#[derive(Debug)]
struct Incoming {
    bytes: Vec<u8>,
    filled: Range<usize>,
}

impl Transport {
    pub(crate) fn new(socket: Arc<Socket>, patience: Duration) -> Self {
        Self { socket, patience, tls: None }
    }

    pub(crate) fn socket(&self) -> &Arc<Socket> {
        &self.socket
    }

    /// From now on a call waits as long as it may; what has no end is found out by the one who waits.
    pub(crate) fn settle(&self) -> io::Result<()> {
        self.socket.patience(self.patience)
    }

    /// Speaks TLS from now on, after its handshake; tells the client's certificate, if there is one.
    pub(crate) fn start_tls(
        &mut self,
        config: &Arc<ServerConfig>,
        until: Instant,
    ) -> io::Result<Option<Vec<u8>>> {
        let connection = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        let mut connection = connection;
        connection.set_buffer_limit(None);
        let mut timed = Timed { socket: &self.socket, until };
        while connection.is_handshaking() {
            let (read, _) = connection.complete_io(&mut timed)?;
            if read == 0 && connection.is_handshaking() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let certificate = certificate.map(|certificate| certificate.to_vec());
        let incoming = Mutex::new(Incoming { bytes: vec![0; SEALED], filled: 0..0 });
        let connection = Mutex::new(connection);
        self.tls = Some(Tls { connection, incoming, outgoing: Mutex::default() });
        Ok(certificate)
    }

    /// Fills a buffer, in the handshake.
    pub(crate) fn read_exact(&self, mut buffer: &mut [u8], until: Instant) -> io::Result<()> {
        while !buffer.is_empty() {
            self.socket.patience(left(until)?)?;
            match self.receive(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = buffer.get_mut(read..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Sends bytes, in the handshake.
    pub(crate) fn write_all(&self, bytes: &[u8], until: Instant) -> io::Result<()> {
        self.socket.patience(left(until)?)?;
        self.send_until(&mut [IoSlice::new(bytes)], until)
    }

    /// Sends it all.
    pub(crate) fn send(&self, slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        let until = Instant::now() + self.patience + Duration::from_secs(length as u64 >> 20);
        self.send_until(slices, until)
    }

    fn send_until(&self, slices: &mut [IoSlice<'_>], until: Instant) -> io::Result<()> {
        let Some(tls) = &self.tls else { return self.socket.write_all(slices, until) };
        let mut outgoing = locked(&tls.outgoing);
        for piece in slices.iter().flat_map(|slice| slice.chunks(SEALED)) {
            let mut connection = locked(&tls.connection);
            connection.writer().write_all(piece)?;
            seal(&mut connection, &mut outgoing)?;
            drop(connection);
            if outgoing.len() >= SEALED {
                self.send_sealed(&mut outgoing, until)?;
            }
        }
        self.send_sealed(&mut outgoing, until)
    }

    fn send_sealed(&self, outgoing: &mut Vec<u8>, until: Instant) -> io::Result<()> {
        let sent = self.socket.write_all(&mut [IoSlice::new(outgoing)], until);
        outgoing.clear();
        sent
    }

    /// Bytes that came: at least one, or 0 at the end.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.read(buffer) };
        let mut incoming = locked(&tls.incoming);
        loop {
            let mut connection = locked(&tls.connection);
            let opened = open(&mut connection, &mut incoming, buffer);
            let answers = connection.wants_write();
            drop(connection);
            if answers && let Ok(mut outgoing) = tls.outgoing.try_lock() {
                // Else whoever sends takes it along.
                seal(&mut locked(&tls.connection), &mut outgoing)?;
                self.send_sealed(&mut outgoing, Instant::now() + self.patience)?;
            }
            if let Some(read) = opened? {
                return Ok(read);
            }
            let read = self.socket.read(&mut incoming.bytes)?;
            if read == 0 {
                return Ok(0);
            }
            incoming.filled = 0..read;
        }
    }

    /// Takes leave, and ends it.
    pub(crate) fn close(&self) {
        if let Some(tls) = &self.tls {
            let mut outgoing = locked(&tls.outgoing);
            let mut connection = locked(&tls.connection);
            connection.send_close_notify();
            let sealed = seal(&mut connection, &mut outgoing);
            drop(connection);
            if sealed.is_ok() {
                // The other side may be gone.
                let _ = self.send_sealed(&mut outgoing, Instant::now());
            }
        }
        self.socket.shutdown(Shutdown::Both);
    }
}

impl Source for &Transport {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (*self).receive(buffer)
    }
}

/// Moves what is to be sent out of the connection.
fn seal(connection: &mut ServerConnection, outgoing: &mut Vec<u8>) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(outgoing)?;
    }
    Ok(())
}

/// Opens as much of what came as the buffer takes; `None` when more has to come first.
fn open(
    connection: &mut ServerConnection,
    incoming: &mut Incoming,
    buffer: &mut [u8],
) -> io::Result<Option<usize>> {
    let mut read = 0;
    loop {
        let rest = buffer.get_mut(read..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Some(read));
        }
        match connection.reader().read(rest) {
            Ok(0) => return Ok(Some(read)),
            Ok(now) => read += now,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut sealed = incoming.bytes.get(incoming.filled.clone()).unwrap_or_default();
                if sealed.is_empty() {
                    return Ok((read > 0).then_some(read));
                }
                let before = sealed.len();
                connection.read_tls(&mut sealed)?;
                incoming.filled.start += before - sealed.len();
                connection.process_new_packets().map_err(io::Error::other)?;
                if before == sealed.len() {
                    return Err(io::Error::other("TLS takes no more"));
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A socket that is waited for until a time.
struct Timed<'a> {
    socket: &'a Socket,
    until: Instant,
}

fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.patience(left(self.until)?)?;
        self.socket.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.patience(left(self.until)?)?;
        self.socket.write(&[IoSlice::new(bytes)])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
