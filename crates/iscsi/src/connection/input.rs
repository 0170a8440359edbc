//! The receiving half of a connection.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;

/// Bytes that are read at once: more than the longest PDU, so that it fits in whole.
const ROOM: usize = 512 << 10;

/// What came, and was not yet looked at.
#[derive(Debug)]
pub(crate) struct Input {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// More bytes.
    More,
    /// None for as long as the stream waits.
    Nothing,
    /// The other end is gone.
    End,
}

impl Input {
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; ROOM], start: 0, end: 0 }
    }

    /// What is there.
    pub(crate) fn there(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    /// That many were looked at.
    pub(crate) fn skip(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Lends the bytes, so that they can be read while the connection changes; they begin at the second.
    pub(crate) fn lend(&mut self) -> (Vec<u8>, usize) {
        (std::mem::take(&mut self.bytes), self.start)
    }

    /// Takes them back.
    pub(crate) fn take_back(&mut self, bytes: Vec<u8>) {
        self.bytes = bytes;
    }

    /// Reads once.
    pub(crate) fn read(&mut self, mut stream: &TcpStream) -> Got {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.bytes.len() - self.end < ROOM / 4 {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        let got = read(&mut stream, room);
        self.end += got.1;
        got.0
    }

    /// Fills the place as far as there are bytes; how many there were.
    pub(crate) fn give(&mut self, place: &mut [u8]) -> usize {
        let count = place.len().min(self.end - self.start);
        let from = self.there().get(..count).unwrap_or_default();
        if let Some(place) = place.get_mut(..count) {
            place.copy_from_slice(from);
        }
        self.skip(count);
        count
    }
}

/// Reads once, past the buffer.
pub(crate) fn read(stream: &mut impl Read, place: &mut [u8]) -> (Got, usize) {
    loop {
        return match stream.read(place) {
            Ok(0) => (Got::End, 0),
            Ok(count) => (Got::More, count),
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => continue,
                ErrorKind::WouldBlock | ErrorKind::TimedOut => (Got::Nothing, 0),
                _ => (Got::End, 0),
            },
        };
    }
}
