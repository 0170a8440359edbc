//! Which file each generation was first written to: what tells histories that continue each other
//! from histories that contradict each other, when the older files are long removed.

use super::record::Salt;
use crate::codec::{DecodeError, Reader, Writer};

/// The most entries that are kept: a disk that was away for longer can't be compared any more.
const MAX_ENTRIES: usize = 4096;

/// One journal file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Origin {
    /// The generation of its snapshot; the commits in it are those after.
    base: u64,
    /// The file's salt.
    salt: Salt,
}

/// The files of one history, oldest first. A file is written by one process, in one run, with the
/// same bytes on all disks; so two copies that have the same generation from the same file have
/// all generations before it in common, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Lineage {
    files: Vec<Origin>,
}

impl Lineage {
    /// This history, going on in a new file whose snapshot has generation `base`.
    pub(super) fn continued(&self, base: u64, salt: Salt) -> Self {
        // A file without commits of its own (same base) has left no trace in the history.
        let mut files: Vec<_> = self.files.iter().copied().filter(|f| f.base < base).collect();
        files.push(Origin { base, salt });
        files.drain(..files.len().saturating_sub(MAX_ENTRIES));
        Self { files }
    }

    /// The file in which `generation` was committed; none when it is too long ago.
    pub(super) fn file_of(&self, generation: u64) -> Option<Salt> {
        let after = self.files.partition_point(|file| file.base < generation);
        Some(self.files.get(after.checked_sub(1)?)?.salt)
    }

    /// The newest file.
    pub(super) fn newest(&self) -> Option<(u64, Salt)> {
        self.files.last().map(|file| (file.base, file.salt))
    }

    /// The bytes of the record.
    pub(super) fn encode(&self, w: &mut Writer) {
        w.uint(self.files.len() as u64);
        for file in &self.files {
            w.uint(file.base);
            w.raw(&file.salt);
        }
    }

    /// Reads what [`Lineage::encode`] wrote.
    pub(super) fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let files = (0..r.count(17)?)
            .map(|_| Ok(Origin { base: r.uint()?, salt: r.array()? }))
            .collect::<Result<Vec<_>, DecodeError>>()?;
        if files.len() > MAX_ENTRIES || !files.is_sorted_by(|a, b| a.base < b.base) {
            return Err(DecodeError::Unknown("the list of earlier journal files"));
        }
        Ok(Self { files })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_generation_belongs_to_the_file_it_was_committed_in() {
        let lineage = Lineage::default()
            .continued(1, [1; 16])
            .continued(5, [2; 16])
            .continued(5, [3; 16])
            .continued(9, [4; 16]);
        let files: Vec<_> = [1, 2, 5, 6, 9, 10].map(|g| lineage.file_of(g).map(|s| s[0])).into();
        assert_eq!(files, [None, Some(1), Some(1), Some(3), Some(3), Some(4)]);
        let mut w = Writer::new();
        lineage.encode(&mut w);
        assert_eq!(Lineage::decode(&mut Reader::new(&w.finish())), Ok(lineage));
    }

    #[test]
    fn it_is_bounded_and_sorted() {
        let mut lineage = Lineage::default();
        for base in 0..MAX_ENTRIES as u64 + 10 {
            lineage = lineage.continued(base, [1; 16]);
        }
        assert_eq!(lineage.files.len(), MAX_ENTRIES);
        assert_eq!(lineage.file_of(10), None);
        let mut w = Writer::new();
        w.uint(2);
        for base in [3, 3] {
            w.uint(base);
            w.raw(&[0; 16]);
        }
        assert!(Lineage::decode(&mut Reader::new(&w.finish())).is_err());
    }
}
