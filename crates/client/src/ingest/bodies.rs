//! Memory for the bodies of requests, used again: pages that are new cost more than what is put
//! there.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use strongroom_archive::parcel;

use super::channel::lock;

/// How many are kept, of how many bytes at most.
const KEPT: usize = parcel::MAX_PARALLEL;
const LARGEST: usize = 6 << 20;

/// Bodies that were sent, empty.
#[derive(Clone, Debug, Default)]
pub(super) struct Bodies(Arc<Mutex<Vec<Vec<u8>>>>);

/// A body on its way; it returns once nobody needs it.
struct Sent {
    bytes: Vec<u8>,
    home: Bodies,
}

impl AsRef<[u8]> for Sent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        let mut kept = lock(&self.home.0);
        if kept.len() < KEPT && self.bytes.capacity() <= LARGEST {
            self.bytes.clear();
            kept.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Bodies {
    /// An empty one, with room for so many bytes.
    pub(super) fn take(&self, len: usize) -> Vec<u8> {
        let mut body = lock(&self.0).pop().unwrap_or_default();
        body.reserve_exact(len);
        body
    }

    /// What is sent.
    pub(super) fn send(&self, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Sent { bytes, home: self.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_used_again() {
        let bodies = Bodies::default();
        let mut body = bodies.take(100);
        body.extend_from_slice(&[7; 100]);
        let place = body.as_ptr();
        let sent = bodies.send(body);
        let again = sent.clone();
        drop(sent);
        let other = bodies.take(1);
        assert_ne!(other.as_ptr(), place);
        assert_eq!(again, [7; 100].as_slice());
        drop(again);
        let body = bodies.take(100);
        assert_eq!((body.as_ptr(), body.len()), (place, 0));
    }
}
