//! What the copies of one journal file say together.

use super::lineage::Lineage;
use super::load::Flaw;
use super::record::{BLOCK, Chain, FILE_HEADER, FileHeader, Kind, RECORD_HEADER};
use super::record::{RecordHeader, span};
use super::sealing::Sealing;
use super::source::Source;
use crate::clock::{ClockMark, PoolTime};
use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::state::{Op, State};

/// The state that a file leads to.
#[derive(Debug)]
pub(super) struct History {
    /// The generation of its snapshot.
    pub(super) base: u64,
    /// The last generation that can be read.
    pub(super) tip: u64,
    /// The chain value there.
    pub(super) chain: Chain,
    /// The files before, and this one.
    pub(super) lineage: Lineage,
    /// The state there.
    pub(super) state: State,
}

/// What one copy of the file has of it.
#[derive(Debug)]
pub(super) struct Own {
    /// Which, as an index into the list of sources.
    pub(super) source: usize,
    /// The last generation that this copy leads to alone.
    pub(super) tip: Option<u64>,
    /// The highest generation of which it holds a record header after its first bad record.
    pub(super) later: Option<u64>,
    /// What is wrong with it.
    pub(super) flaw: Option<Flaw>,
}

/// What was found in the copies of a file.
#[derive(Debug)]
pub(super) struct Reading {
    /// The state; none when no copy has what it takes.
    pub(super) history: Option<History>,
    /// Each copy's part, in the order they were given.
    pub(super) own: Vec<Own>,
    /// The highest generation that was written for all one can see, readable or not.
    pub(super) seen: u64,
    /// Where the last record ends that some copy has.
    pub(super) end: u64,
}

/// How far a copy goes alone.
#[derive(Debug)]
struct Part {
    /// Whether all records so far were good.
    whole: bool,
    tip: Option<u64>,
    /// Where its first bad record is, or the next one would be.
    end: u64,
    /// Whether padding was found that is not as it was written.
    rotten: bool,
}

/// The file while it is read.
struct Builder {
    header: FileHeader,
    chain: Chain,
    number: u32,
    lineage: Option<Lineage>,
    state: State,
    tip: Option<u64>,
}

/// Reads a file from all its copies at once: each record is taken from the first copy that has it
/// whole, so copies that are damaged in different places make up for each other. `members` whose
/// own file header is damaged only serve to that.
///
/// # Errors
/// [`Error::Damaged`] for a record that is as it was written, but does not open or make sense.
pub(super) fn read(
    header: FileHeader,
    sources: &mut [Source],
    members: &[usize],
    sealing: &Sealing,
) -> Result<Reading> {
    let key = sealing.file_key(&header.salt);
    let mut builder = Builder::new(header);
    let mut parts: Vec<Part> = members
        .iter()
        .map(|m| {
            let source = &mut sources[*m];
            let whole = source.header.is_some();
            let rotten = whole && !source.padding_is_clean(0, FILE_HEADER);
            Part { whole, tip: None, end: BLOCK as u64, rotten }
        })
        .collect();
    let mut offset = BLOCK as u64;
    loop {
        let mut taken: Option<(RecordHeader, Chain, Vec<u8>)> = None;
        let mut has = vec![false; members.len()];
        for (m, has) in members.iter().zip(&mut has) {
            if let Some((header, chain, stored)) =
                sources[*m].record(offset, &header.salt, builder.chain)
            {
                *has = true;
                if taken.is_none() {
                    taken = Some((header, chain, stored.to_vec()));
                }
            }
        }
        let Some((record, chain, mut stored)) = taken else { break };
        let used = RECORD_HEADER + stored.len();
        let payload = key.open(&record, builder.chain, &mut stored).ok_or_else(|| {
            Error::damaged("the journal", "its seal does not open with the pool's key")
        })?;
        builder.take(&record, payload)?;
        builder.chain = chain;
        let next = offset + span(used - RECORD_HEADER) as u64;
        for ((m, part), has) in members.iter().zip(&mut parts).zip(has) {
            part.whole &= has;
            if part.whole {
                (part.tip, part.end) = (builder.tip, next);
                part.rotten |= !sources[*m].padding_is_clean(offset, used);
            }
        }
        offset = next;
    }
    let mut seen = builder.tip.unwrap_or(header.base);
    let mut own = Vec::with_capacity(members.len());
    for (m, part) in members.iter().zip(parts) {
        let source = &mut sources[*m];
        let later = if source.len() > part.end {
            // The first bad record itself may be there in part: that is what a torn tail is.
            source.highest_after(part.end + BLOCK as u64, Some(&header.salt))
        } else {
            None
        };
        seen = seen.max(later.unwrap_or(0));
        if source.failed.is_some() && source.len() > offset {
            seen = seen.max(builder.tip.map_or(header.base, |tip| tip.saturating_add(1)));
        }
        let flaw = if let Some(why) = &source.failed {
            Some(Flaw::Unreadable(why.clone()))
        } else if source.header.is_none() || later.is_some() || part.rotten {
            Some(Flaw::Damaged)
        } else if source.len() > part.end {
            Some(Flaw::Torn)
        } else {
            (part.tip < builder.tip).then_some(Flaw::Behind)
        };
        own.push(Own { source: *m, tip: part.tip, later, flaw });
    }
    Ok(Reading { history: builder.finish(), own, seen, end: offset })
}

impl Builder {
    fn new(header: FileHeader) -> Self {
        // The snapshot's first op sets the clock.
        let clock = ClockMark { time: PoolTime(0), boot: [0; 16], since_boot: 0 };
        Self {
            chain: header.chain(),
            header,
            number: 0,
            lineage: None,
            state: State::new(clock),
            tip: None,
        }
    }

    /// Takes the next record. It is what a writer wrote, so anything odd is no damage that
    /// another copy could mend.
    fn take(&mut self, record: &RecordHeader, payload: &[u8]) -> Result<()> {
        let base = self.header.base;
        let odd = |why: &str| {
            let what = format!("record {} of journal file {:016x}", record.number, base);
            Err(Error::damaged(what, why))
        };
        let what = "a record of the journal";
        if record.number != self.number {
            return odd("its number is not the next one");
        }
        self.number = self.number.wrapping_add(1);
        let mut r = Reader::new(payload);
        match (record.kind, self.lineage.is_some(), self.tip) {
            (Kind::Lineage, false, None) if record.generation == self.header.base => {
                let lineage = Lineage::decode(&mut r).map_err(Error::decoding(what))?;
                r.end().map_err(Error::decoding(what))?;
                if lineage.newest() != Some((self.header.base, self.header.salt)) {
                    return odd("it does not list its own file last");
                }
                self.lineage = Some(lineage);
                return Ok(());
            }
            (Kind::Snapshot, true, None) if record.generation == self.header.base => {}
            (Kind::SnapshotEnd, true, None) if record.generation == self.header.base => {
                self.tip = Some(record.generation);
            }
            (Kind::Commit, true, Some(tip)) if Some(record.generation) == tip.checked_add(1) => {
                self.tip = Some(record.generation);
            }
            _ => return odd("it does not follow from the one before"),
        }
        while !r.rest().is_empty() {
            self.state.apply(Op::decode(&mut r).map_err(Error::decoding(what))?);
        }
        Ok(())
    }

    fn finish(self) -> Option<History> {
        Some(History {
            base: self.header.base,
            tip: self.tip?,
            chain: self.chain,
            lineage: self.lineage?,
            state: self.state,
        })
    }
}
