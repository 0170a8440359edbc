//! The transmission phase without a connection: requests as bytes, and the replies to them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use strongroom_block::BlockDevice;

use crate::buffers::{Buffers, Memory};
use crate::receiver::{Receiver, Source};
use crate::request::Terms;
use crate::service::{Holes, Service};

/// How an exchange came to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By `NBD_CMD_DISC`, or after a whole request.
    Orderly,
    /// Something was no request; what it was.
    Broken(String),
}

/// Does the requests in these bytes, one after the other, and tells the replies and how it ended. `cut`
/// says how many bytes come at once.
pub fn exchange(
    device: Arc<dyn BlockDevice>,
    terms: Terms,
    requests: &[u8],
    cut: usize,
) -> (Vec<u8>, End) {
    let hour = Duration::from_secs(3600);
    let buffers = Buffers::new(Memory::new(0, Duration::ZERO));
    let mut receiver = Receiver::new(Arc::clone(&buffers), hour, None);
    let service = Service { device, terms, buffers, holes: Holes::default() };
    let mut source = Bytes { rest: requests, cut: cut.max(1) };
    let (mut replies, mut jobs) = (Vec::new(), Vec::new());
    loop {
        let received = receiver.receive(&mut source, &mut jobs);
        for job in jobs.drain(..) {
            replies.extend_from_slice(service.answer(&job.header, job.payload()).bytes());
        }
        match received {
            Ok(false) => {}
            Ok(true) => return (replies, End::Orderly),
            Err(lost) => return (replies, End::Broken(lost.to_string())),
        }
    }
}

struct Bytes<'a> {
    rest: &'a [u8],
    cut: usize,
}

impl Source for Bytes<'_> {
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let now = self.rest.len().min(buffer.len()).min(self.cut);
        let (piece, rest) = self.rest.split_at(now);
        buffer.split_at_mut(now).0.copy_from_slice(piece);
        self.rest = rest;
        Ok(now)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use strongroom_block::testing::MemoryDevice;
    use strongroom_block::{Content, Durability, Error, Extent, Geometry, Result, Zeroing};

    use super::*;
    use crate::protocol::{chunk, command, command_flag};
    use crate::request::Header;

    const STRUCTURED: Terms = Terms { structured: true, block_status: true, read_only: false };

    fn request(kind: u16, flags: u16, offset: u64, length: u32) -> Vec<u8> {
        Header { flags, kind, cookie: 0x0102_0304_0506_0708, offset, length }.encode().to_vec()
    }

    fn ask(device: &Arc<MemoryDevice>, terms: Terms, request: &[u8]) -> Vec<u8> {
        let device: Arc<dyn BlockDevice> = Arc::<MemoryDevice>::clone(device);
        let (replies, end) = exchange(device, terms, request, 1 << 20);
        assert_eq!(end, End::Orderly);
        replies
    }

    fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
        bytes[at..at + length].iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// Flags, kind and payload of the chunks of one structured reply.
    fn chunks(mut bytes: &[u8]) -> Vec<(u16, u16, Vec<u8>)> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(number(bytes, 0, 4), 0x668e_33ef);
            assert_eq!(number(bytes, 8, 8), 0x0102_0304_0506_0708);
            let length = number(bytes, 16, 4) as usize;
            let payload = bytes[20..20 + length].to_vec();
            chunks.push((number(bytes, 4, 2) as u16, number(bytes, 6, 2) as u16, payload));
            bytes = &bytes[20 + length..];
        }
        let (last, others) = chunks.split_last().unwrap();
        assert!(last.0 == chunk::DONE && others.iter().all(|chunk| chunk.0 == 0));
        chunks
    }

    #[test]
    fn simple_replies_carry_what_is_read_and_numbers_of_errors() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        device.write_at(512, &[7; 512], Durability::Later).unwrap();
        let read = ask(&device, Terms::default(), &request(command::READ, 0, 0, 1024));
        assert_eq!(read[..4], [0x67, 0x44, 0x66, 0x98]);
        assert_eq!(read[4..16], [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(read[16..528].iter().all(|byte| *byte == 0) && read[528..] == [7; 512]);
        let failed = ask(&device, Terms::default(), &request(command::READ, 0, 1 << 20, 512));
        assert_eq!((failed.len(), failed[7]), (16, 22));
    }

    #[test]
    fn holes_are_told_and_not_sent() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        device.write_at(64 << 10, &[7; 4096], Durability::Later).unwrap();
        let read = request(command::READ, 0, 0, 256 << 10);
        let told = chunks(&ask(&device, STRUCTURED, &read));
        let kinds: Vec<u16> = told.iter().map(|chunk| chunk.1).collect();
        assert_eq!(kinds, [chunk::OFFSET_HOLE, chunk::OFFSET_DATA, chunk::OFFSET_HOLE]);
        assert_eq!(told[0].2, [&[0; 8][..], &[0, 1, 0, 0]].concat());
        assert_eq!(told[1].2, [&[0, 0, 0, 0, 0, 1, 0, 0][..], &[7; 4096]].concat());
        assert_eq!(number(&told[2].2, 8, 4), (256 << 10) - (64 << 10) - 4096);
        // In one piece, if that is wanted.
        let whole = request(command::READ, command_flag::DF, 0, 256 << 10);
        let told = chunks(&ask(&device, STRUCTURED, &whole));
        assert_eq!((told.len(), told[0].1), (1, chunk::OFFSET_DATA));
        assert_eq!(told[0].2.len(), 8 + (256 << 10));
        // More holes than are told: what comes after is read as it is.
        for n in 0..100 {
            device.write_at(n * 8192, &[1; 4096], Durability::Later).unwrap();
        }
        let told = chunks(&ask(&device, STRUCTURED, &request(command::READ, 0, 0, 1 << 20)));
        let lengths = told.iter().map(|(_, kind, payload)| match *kind {
            chunk::OFFSET_HOLE => number(payload, 8, 4),
            _ => payload.len() as u64 - 8,
        });
        assert_eq!(lengths.sum::<u64>(), 1 << 20);
    }

    #[test]
    fn the_status_of_blocks_is_of_the_range_and_of_one_extent_if_that_is_wanted() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        device.write_at(8192, &[7; 4096], Durability::Later).unwrap();
        let status = |flags, length| {
            let asked = request(command::BLOCK_STATUS, flags, 4096, length);
            let told = chunks(&ask(&device, STRUCTURED, &asked));
            assert_eq!((told.len(), told[0].1), (1, chunk::BLOCK_STATUS));
            assert_eq!(number(&told[0].2, 0, 4), 1, "the id of base:allocation");
            let pairs = told[0].2[4..].chunks_exact(8);
            pairs.map(|pair| (number(pair, 0, 4), number(pair, 4, 4))).collect::<Vec<_>>()
        };
        assert_eq!(status(0, 16384), [(4096, 3), (4096, 0), (8192, 3)]);
        assert_eq!(status(command_flag::REQ_ONE, 16384), [(4096, 3)]);
        assert_eq!(status(command_flag::REQ_ONE, 512), [(512, 3)]);
    }

    #[test]
    fn what_changes_a_device_changes_it() {
        let device = Arc::new(MemoryDevice::new(1 << 20));
        let fua = command_flag::FUA;
        let good = |reply: Vec<u8>| assert_eq!((reply.len(), number(&reply, 4, 4)), (16, 0));
        let write = [request(command::WRITE, fua, 4096, 8192), vec![9; 8192]].concat();
        good(ask(&device, STRUCTURED, &write));
        assert_eq!((device.durable(), device.flushes()), (1, 0));
        good(ask(&device, STRUCTURED, &request(command::TRIM, fua, 4096, 4096)));
        assert_eq!(device.flushes(), 1);
        good(ask(&device, STRUCTURED, &request(command::FLUSH, 0, 0, 0)));
        assert_eq!(device.flushes(), 2);
        good(ask(&device, STRUCTURED, &request(command::CACHE, 0, 0, 1 << 20)));
        let no_hole = command_flag::NO_HOLE;
        good(ask(&device, STRUCTURED, &request(command::WRITE_ZEROES, no_hole, 0, 4096)));
        let contents = device.extents(0, 16384, 9).unwrap();
        let kinds: Vec<_> = contents.iter().map(|extent| (extent.length, extent.content)).collect();
        let expected = [
            (4096, Content::Data),
            (4096, Content::Hole),
            (4096, Content::Data),
            (4096, Content::Hole),
        ];
        assert_eq!(kinds, expected);
        good(ask(&device, STRUCTURED, &request(command::WRITE_ZEROES, 0, 0, 1 << 20)));
        assert_eq!(device.extents(0, 1 << 20, 9).unwrap().len(), 1);
    }

    /// It can't be read at one place.
    #[derive(Debug)]
    struct Damaged(MemoryDevice);

    impl BlockDevice for Damaged {
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
            let bad = 8192;
            match (offset..offset + buffer.len() as u64).contains(&bad) {
                true => Err(Error::Unreadable { offset: bad, why: "the disk says no".into() }),
                false => self.0.read_at(offset, buffer),
            }
        }
        fn write_at(&self, _: u64, _: &[u8], _: Durability) -> Result<()> {
            Err(Error::NoSpace)
        }
        fn write_zeroes(&self, _: u64, _: u64, _: Zeroing, _: Durability) -> Result<()> {
            Err(Error::Gone)
        }
        fn discard(&self, _: u64, _: u64) -> Result<()> {
            Err(Error::Unsupported("forget"))
        }
        fn flush(&self) -> Result<()> {
            Err(Error::Failed("a disk is gone".into()))
        }
        fn compare_and_write(
            &self,
            _: u64,
            _: &[u8],
            _: &[u8],
            _: Durability,
        ) -> Result<Option<u64>> {
            Ok(None)
        }
        fn extents(&self, _: u64, _: u64, _: usize) -> Result<Vec<Extent>> {
            // What can't be: nothing, and then too much.
            Ok(vec![
                Extent { offset: 0, length: 0, content: Content::Hole },
                Extent { offset: 0, length: u64::MAX, content: Content::Data },
            ])
        }
        fn id(&self) -> [u8; 16] {
            [0; 16]
        }
    }

    #[test]
    fn errors_of_the_device_come_with_numbers_words_and_places() {
        let device: Arc<dyn BlockDevice> = Arc::new(Damaged(MemoryDevice::new(1 << 20)));
        let ask = |request: &[u8]| {
            let (reply, _) = exchange(Arc::clone(&device), STRUCTURED, request, 99);
            let (_, kind, payload) = chunks(&reply).remove(0);
            let words = usize::from(payload[5]);
            let place = payload[6 + words..].to_vec();
            let words = String::from_utf8(payload[6..6 + words].to_vec()).unwrap();
            (kind, number(&payload, 0, 4), words, place)
        };
        let (kind, error, words, place) = ask(&request(command::READ, 0, 4096, 64 << 10));
        assert_eq!((kind, error, number(&place, 0, 8)), (chunk::ERROR_OFFSET, 5, 8192));
        assert!(words.contains("the disk says no"), "{words}");
        let write = [request(command::WRITE, 0, 0, 512), vec![1; 512]].concat();
        for (request, expected) in [
            (write, 28),
            (request(command::WRITE_ZEROES, 0, 0, 512), 108),
            (request(command::TRIM, 0, 0, 512), 22),
            (request(command::FLUSH, 0, 0, 0), 5),
        ] {
            let (kind, error, _, place) = ask(&request);
            assert_eq!((kind, error, place), (chunk::ERROR, expected, Vec::new()));
        }
        let status = request(command::BLOCK_STATUS, 0, 0, 512);
        let (reply, _) = exchange(Arc::clone(&device), STRUCTURED, &status, 99);
        assert_eq!(chunks(&reply)[0].2[4..], [0, 0, 2, 0, 0, 0, 0, 0]);
    }
}
