//! The sending half of a connection, which its reader, workers and its target share.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::batch::{Batch, Numbers, Stamp};
use super::task::PIECE;
use crate::negotiation::Parameters;
use crate::pdu::Framing;

/// Commands that a session may have sent and not been answered.
pub(crate) const WINDOW: u32 = 128;

/// One connection of a session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: TcpStream,
    pub(crate) framing: Framing,
    pub(crate) parameters: Parameters,
    /// The number of the next status; held while something is sent, so that numbers go in order.
    status: Mutex<u32>,
    expected_command: AtomicU32,
    most_command: AtomicU32,
}

impl Link {
    pub(crate) fn new(
        stream: TcpStream,
        parameters: Parameters,
        next_status: u32,
        first_command: u32,
    ) -> Self {
        let framing = Framing {
            header_digest: parameters.header_digest,
            data_digest: parameters.data_digest,
            most_data: crate::negotiation::OWN_DATA as usize,
        };
        Self {
            stream,
            framing,
            parameters,
            status: Mutex::new(next_status),
            expected_command: AtomicU32::new(first_command),
            most_command: AtomicU32::new(first_command.wrapping_add(WINDOW - 1)),
        }
    }

    /// Bytes of data that a PDU takes to the initiator at most.
    pub(crate) fn most_data_in(&self) -> usize {
        (self.parameters.initiator_data as usize).min(PIECE)
    }

    /// Whether a command of that number is the next; only the reader asks.
    pub(crate) fn take_number(&self, number: u32) -> Order {
        let expected = self.expected_command.load(Ordering::Acquire);
        if number == expected {
            self.expected_command.store(expected.wrapping_add(1), Ordering::Release);
            return Order::Next;
        }
        let most = self.most_command.load(Ordering::Acquire);
        // Serial numbers (RFC 1982).
        let is_later = number.wrapping_sub(expected) < 1 << 31;
        match is_later && number.wrapping_sub(expected) <= most.wrapping_sub(expected) {
            true => Order::Gap,
            false => Order::Outside,
        }
    }

    /// A command ended without an answer: there is room for another.
    pub(crate) fn complete(&self) {
        self.most_command.fetch_add(1, Ordering::AcqRel);
    }

    /// Sends what is there, and empties it. Errors end the connection; its reader notices.
    pub(crate) fn send(&self, batch: &mut Batch) {
        if batch.is_empty() {
            return;
        }
        let mut next = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = batch.stamp(&self.framing, |stamp| {
            let status = match stamp {
                Stamp::Data => None,
                Stamp::Next => Some(*next),
                Stamp::Status { completes } => {
                    if completes {
                        self.complete();
                    }
                    let status = *next;
                    *next = next.wrapping_add(1);
                    Some(status)
                }
            };
            Numbers {
                status,
                expected_command: self.expected_command.load(Ordering::Acquire),
                most_command: self.most_command.load(Ordering::Acquire),
            }
        });
        if (&self.stream).write_all(bytes).is_err() {
            self.close();
        }
        drop(next);
        batch.clear();
    }

    /// Ends the connection.
    pub(crate) fn close(&self) {
        // An error means that it has ended.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

/// How a command's number stands to those that are expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is the next.
    Next,
    /// One before it is missing: on a session's only connection it never comes.
    Gap,
    /// It lies outside of the window, and is ignored (RFC 7143 section 4.2.2.1).
    Outside,
}
