//! Answers that are sent together.

use crate::pdu::{Framing, HEADER, Header};

/// What numbers a PDU gets when it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// It is a status, and takes a number of its own; whether it makes room in the window of commands.
    Status { completes: bool },
    /// It tells the next number of a status, and takes none.
    Next,
    /// It has no number of a status.
    Data,
}

/// Numbers that are known only when a PDU is sent (RFC 7143 section 4.2.2).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) status: Option<u32>,
    pub(crate) expected_command: u32,
    pub(crate) most_command: u32,
}

/// PDUs in a row. Memory is used again.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    length: usize,
    pdus: Vec<(usize, Stamp)>,
    /// Counts how often it was emptied.
    emptied: u64,
}

/// Where a batch was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    length: usize,
    pdus: usize,
    emptied: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.pdus.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.length
    }

    pub(crate) fn place(&self) -> Place {
        Place { length: self.length, pdus: self.pdus.len(), emptied: self.emptied }
    }

    /// Takes back what came since; all of it, if it was emptied since.
    pub(crate) fn back_to(&mut self, place: Place) {
        let is_same = place.emptied == self.emptied;
        self.length = if is_same { place.length } else { 0 };
        self.pdus.truncate(if is_same { place.pdus } else { 0 });
    }

    pub(crate) fn clear(&mut self) {
        (self.length, self.emptied) = (0, self.emptied.wrapping_add(1));
        self.pdus.clear();
    }

    /// Adds a PDU with data that are put in their place; nothing is added when that fails.
    pub(crate) fn fill<E>(
        &mut self,
        framing: &Framing,
        mut header: Header,
        stamp: Stamp,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        header.set_data_length(length);
        let header_digest = if framing.header_digest { 4 } else { 0 };
        let padding = length.wrapping_neg() & 3;
        let data_digest = if framing.data_digest && length > 0 { 4 } else { 0 };
        let at = self.length;
        let data_at = at + HEADER + header_digest;
        let end = data_at + length + padding + data_digest;
        if self.bytes.len() < end {
            let length = end.next_multiple_of(64 << 10);
            // No more than that: what connections use is counted.
            self.bytes.reserve_exact(length - self.bytes.len());
            self.bytes.resize(length, 0);
        }
        let Some(pdu) = self.bytes.get_mut(at..end) else { return Ok(()) };
        let (headers, rest) = pdu.split_at_mut(HEADER + header_digest);
        let (place, _) = headers.split_at_mut(HEADER);
        place.copy_from_slice(&header.0);
        let (data, behind) = rest.split_at_mut(length);
        fill(data)?;
        let (zeroes, digest) = behind.split_at_mut(padding);
        zeroes.fill(0);
        if data_digest > 0 {
            let sum = crc32c::crc32c_append(crc32c::crc32c(data), zeroes);
            digest.copy_from_slice(&sum.to_le_bytes());
        }
        self.length = end;
        self.pdus.push((at, stamp));
        Ok(())
    }

    /// Adds a PDU with these data.
    pub(crate) fn add(&mut self, framing: &Framing, header: Header, stamp: Stamp, data: &[u8]) {
        let copy = |place: &mut [u8]| {
            place.copy_from_slice(data);
            Ok::<(), std::convert::Infallible>(())
        };
        let Ok(()) = self.fill(framing, header, stamp, data.len(), copy);
    }

    /// Gives each PDU its numbers, and its header's digest; then the bytes can be sent.
    pub(crate) fn stamp(
        &mut self,
        framing: &Framing,
        mut numbers: impl FnMut(Stamp) -> Numbers,
    ) -> &[u8] {
        for (at, stamp) in &self.pdus {
            let Some(pdu) = self.bytes.get_mut(*at..self.length) else { continue };
            let numbers = numbers(*stamp);
            let mut set = |at: usize, value: u32| {
                if let Some(place) = pdu.get_mut(at..at + 4) {
                    place.copy_from_slice(&value.to_be_bytes());
                }
            };
            if let Some(status) = numbers.status {
                set(24, status);
            }
            set(28, numbers.expected_command);
            set(32, numbers.most_command);
            if framing.header_digest
                && let Some((header, rest)) = pdu.split_at_mut_checked(HEADER)
                && let Some(digest) = rest.get_mut(..4)
            {
                digest.copy_from_slice(&crc32c::crc32c(header).to_le_bytes());
            }
        }
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::pdu::Response;

    #[test]
    fn what_is_stamped_can_be_taken() {
        let framing = Framing { header_digest: true, data_digest: true, most_data: 100 };
        let mut batch = Batch::default();
        batch.add(&framing, Header::answer(Response::NopIn), Stamp::Next, b"hello");
        let place = batch.place();
        batch.add(&framing, Header::answer(Response::NopIn), Stamp::Data, b"no");
        batch.back_to(place);
        let failed = batch.fill(&framing, Header([0; 48]), Stamp::Data, 9, |_| Err("no"));
        assert_eq!(failed, Err("no"));
        batch.add(
            &framing,
            Header::answer(Response::NopIn),
            Stamp::Status { completes: true },
            b"",
        );
        let mut status = 7;
        let bytes = batch.stamp(&framing, |stamp| {
            status += 1;
            let status = (stamp != Stamp::Data).then_some(status);
            Numbers { status, expected_command: 2, most_command: 3 }
        });
        let (header, data, rest) = framing.take(bytes).unwrap().unwrap();
        assert_eq!(
            (data, header.word(24), header.word(28), header.word(32)),
            (&b"hello"[..], 8, 2, 3)
        );
        let (header, data, rest) = framing.take(rest).unwrap().unwrap();
        assert_eq!((data, header.word(24), rest), (&b""[..], 9, &b""[..]));
    }
}
