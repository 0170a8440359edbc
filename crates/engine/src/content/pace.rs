//! Who reads in order, and how far ahead of them to read.

/// The furthest that is read ahead, in bytes.
pub(super) const AHEAD: u64 = 8 << 20;
/// The least that is read ahead, in bytes.
const AHEAD_MIN: u64 = 512 << 10;
/// Reads that are at most so far from the end of the last one are in order: several are sent at a
/// time, and threads take them up in any order.
const NEAR: u64 = 1 << 20;
/// So many places of one content may be read in order at once.
const STREAMS: usize = 8;

/// A place that is read in order.
#[derive(Debug)]
struct Stream {
    /// The furthest that was read.
    end: u64,
    /// How many reads were in order.
    run: u32,
    /// What is before this was read, or is being read, ahead.
    ahead: u64,
}

/// How one content is being read.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What was read last comes last.
    streams: Vec<Stream>,
}

impl Pace {
    /// Notes a read; says what should be read ahead, if anything: at most `most` bytes of a content
    /// of `len`.
    pub(super) fn note(&mut self, from: u64, to: u64, len: u64, most: u64) -> Option<(u64, u64)> {
        let near =
            |s: &Stream| from <= s.end.saturating_add(NEAR) && from.saturating_add(NEAR) >= s.end;
        let Some(place) = self.streams.iter().rposition(near) else {
            if self.streams.len() == STREAMS {
                let single = self.streams.iter().position(|stream| stream.run < 2);
                self.streams.remove(single.unwrap_or(0));
            }
            self.streams.push(Stream { end: to, run: 0, ahead: to });
            return None;
        };
        let mut stream = self.streams.remove(place);
        stream.run = stream.run.saturating_add(1);
        stream.end = stream.end.max(to);
        let wanted = stream.wanted(len, most);
        if let Some((_, end)) = wanted {
            stream.ahead = end;
        }
        self.streams.push(stream);
        wanted
    }

    /// What was to be read ahead was not.
    pub(super) fn missed(&mut self, from: u64, to: u64) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.ahead == to) {
            stream.ahead = from;
        }
    }
}

impl Stream {
    fn wanted(&self, len: u64, most: u64) -> Option<(u64, u64)> {
        if self.run < 2 {
            return None;
        }
        let window = most.min(AHEAD_MIN << (self.run - 2).min(8));
        let begin = self.ahead.max(self.end);
        let end = self.end.saturating_add(window).min(len);
        if begin >= end || begin - self.end > window / 2 {
            return None;
        }
        Some((begin, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 100 << 20;
    const STEP: u64 = 128 << 10;

    #[test]
    fn only_who_reads_in_order_makes_us_read_ahead() {
        let (mut pace, mut ahead) = (Pace::default(), 0);
        for at in (0..LEN).step_by(STEP as usize) {
            if let Some((from, to)) = pace.note(at, at + STEP, LEN, AHEAD) {
                assert!(from >= ahead && to > from && to <= LEN);
                assert!(to - at <= AHEAD + 2 * NEAR);
                ahead = to;
            }
        }
        assert_eq!(ahead, LEN);
        let mut random = Pace::default();
        for i in 1..100 {
            let at = (i * 37 % 97) << 20;
            assert_eq!(random.note(at, at + 4096, LEN, AHEAD), None);
        }
    }

    #[test]
    fn several_may_read_in_order_while_others_do_not() {
        let mut pace = Pace::default();
        let parts = [0, 30 << 20, 60 << 20];
        let mut ahead = parts;
        for step in 0..80 {
            for (part, ahead) in parts.iter().zip(&mut ahead) {
                let at = part + step * STEP;
                if let Some((_, to)) = pace.note(at, at + STEP, LEN, AHEAD) {
                    *ahead = to;
                }
            }
            let at = (step * 37 % 97) << 20;
            pace.note(at, at + 512, LEN, AHEAD);
        }
        for (part, ahead) in parts.iter().zip(ahead) {
            assert!(ahead > part + 79 * STEP, "{part} was read ahead to {ahead} only");
        }
    }

    #[test]
    fn what_nobody_had_time_for_is_wanted_again() {
        let mut pace = Pace::default();
        let mut wanted = None;
        let mut at = 0;
        while wanted.is_none() {
            wanted = pace.note(at, at + STEP, LEN, AHEAD);
            at += STEP;
        }
        let (from, to) = wanted.expect("the loop ends with one");
        pace.missed(from, to);
        let again = pace.note(at, at + STEP, LEN, AHEAD);
        assert!(again.is_some_and(|(begin, _)| begin == at + STEP));
    }
}
