//! How much is worth having before it is asked for: twice as much after some of it was used, half
//! after none was.

use strongroom_archive::wire::MAX_AHEAD;

const FIRST: u64 = 64 << 10;
const LEAST: u64 = 8 << 10;

#[derive(Debug)]
pub(super) struct Ahead {
    bytes: u64,
    used: bool,
}

impl Default for Ahead {
    fn default() -> Self {
        // Twice and half: the first request has FIRST.
        Self { bytes: FIRST / 2, used: true }
    }
}

impl Ahead {
    /// Something that came unasked was wanted.
    pub(super) fn used(&mut self) {
        self.used = true;
    }

    /// How many bytes may come unasked with the next request.
    pub(super) fn next(&mut self) -> u64 {
        let bytes = if self.used { self.bytes * 2 } else { self.bytes / 2 };
        self.bytes = bytes.clamp(LEAST, MAX_AHEAD);
        self.used = false;
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_use_and_shrinks_without() {
        let mut ahead = Ahead::default();
        assert_eq!(ahead.next(), FIRST);
        for _ in 0..20 {
            ahead.used();
            assert!(ahead.next() > FIRST);
        }
        assert_eq!(ahead.next(), MAX_AHEAD / 2);
        let last = (0..20).map(|_| ahead.next()).last();
        assert_eq!(last, Some(LEAST));
    }
}
