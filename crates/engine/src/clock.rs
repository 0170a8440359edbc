use crate::codec::{DecodeError, Reader, Writer};
/// A moment on the pool's own clock, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolTime(pub i64);
/// TO BE WRITTEN by the owner of clock.rs
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockMark {
    /// How far the pool's own clock has come.
    pub time: PoolTime,
    /// The boot during which that was read (random bytes of the kernel).
    pub boot: [u8; 16],
    /// The time since that boot, suspended time included, in nanoseconds.
    pub since_boot: i64,
}
impl ClockMark {
    /// Appends it to a record.
    pub fn encode(&self, w: &mut Writer) { w.int(self.time.0); w.raw(&self.boot); w.int(self.since_boot); }
    /// Takes it from a record.
    pub fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { time: PoolTime(r.int()?), boot: r.array()?, since_boot: r.int()? })
    }
}
