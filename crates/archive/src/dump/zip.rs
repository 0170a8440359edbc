//! zip (PKWARE APPNOTE 6.3), written as a stream: sizes and sums follow the content.

use std::io::{self, Write};

use ::zip::write::{FullFileOptions, StreamWriter};
use ::zip::{CompressionMethod, DateTime, ZipWriter};

use super::{Event, Item, Place, broken};
use crate::entry::{Body, Time};
use crate::flow::Taker;
use crate::{Result, Troubles};

/// From this size on a file gets 64-bit sizes: deflate makes what can't be compressed a little
/// longer. Much earlier in tests, so that they see both forms.
const LARGE: u64 = if cfg!(test) { 1 << 20 } else { 0xf000_0000 };
/// The extra field with times since the epoch ("extended timestamp", Info-ZIP).
const TIMES: u16 = 0x5455;

pub(super) struct Writer<'a> {
    zip: ZipWriter<StreamWriter<&'a mut dyn Write>>,
    troubles: Troubles,
    place: Place,
    /// The content that comes is that of an entry that could not be begun.
    skipping: bool,
}

/// A name as UTF-8, and whether it had to be changed.
fn text(name: &[u8]) -> (String, bool) {
    let mut out = String::with_capacity(name.len());
    let mut changed = false;
    for part in name.utf8_chunks() {
        out.push_str(part.valid());
        for byte in part.invalid() {
            changed = true;
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    (out, changed)
}

/// The nearest moment that the old field of two-second steps can say, in UTC.
fn dos(time: Time) -> DateTime {
    // 1980-01-01 to 2107-12-31.
    let sec = time.sec.clamp(315_532_800, 4_354_819_198);
    jiff::Timestamp::from_second(sec)
        .ok()
        .and_then(|stamp| {
            let at = stamp.to_zoned(jiff::tz::TimeZone::UTC).datetime();
            let year = u16::try_from(at.year()).ok()?;
            let [month, day, hour, minute, second] =
                [at.month(), at.day(), at.hour(), at.minute(), at.second()].map(|n| n as u8);
            DateTime::from_date_and_time(year, month, day, hour, minute, second).ok()
        })
        .unwrap_or_default()
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut dyn Write, troubles: Troubles) -> Self {
        let zip = ZipWriter::new_stream(out);
        Self { zip, troubles, place: Place::default(), skipping: false }
    }

    pub(super) fn finish(self) -> Result<Troubles> {
        let mut out = self.zip.finish().map_err(|e| broken(e.into()))?;
        out.flush().map_err(broken)?;
        Ok(self.troubles)
    }

    fn begin(&mut self, item: &Item) -> Result<()> {
        let entry = &item.entry;
        let (name, changed) = text(&item.name);
        if changed {
            let what = "its name isn't UTF-8; the archive has it with \\x escapes";
            self.troubles.add(&item.name, what);
        }
        let mut options = FullFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .large_file(entry.size() >= LARGE)
            .last_modified_time(dos(entry.mtime))
            .unix_permissions(entry.mode);
        if let Ok(sec) = i32::try_from(entry.mtime.sec) {
            let mut field = vec![1];
            field.extend(sec.to_le_bytes());
            options.add_extra_field(TIMES, field, false).map_err(|e| broken(e.into()))?;
        }
        let begun = match &entry.body {
            Body::File(_) => self.zip.start_file(&name, options),
            Body::Dir { .. } => self.zip.add_directory(name, options),
            Body::Symlink(to) => {
                let (to, changed) = text(to);
                if changed {
                    let what = "its target isn't UTF-8; the archive has it with \\x escapes";
                    self.troubles.add(&item.name, what);
                }
                self.zip.add_symlink(name, to, options)
            }
            _ => {
                let what = "only files, directories and links can be put into a zip";
                self.troubles.add(&item.name, what);
                return Ok(());
            }
        };
        match begun {
            Ok(()) => {}
            // A name that is too long, or one that escapes have made the same as another.
            Err(error) if !matches!(error, ::zip::result::ZipError::Io(_)) => {
                self.skipping = true;
                self.troubles.add(&item.name, format!("it is not in the archive: {error}"));
            }
            Err(error) => return Err(broken(io::Error::from(error))),
        }
        Ok(())
    }
}

impl Taker<Event> for Writer<'_> {
    fn item(&mut self, step: Event) -> Result<()> {
        match step {
            Event::Trouble(path, what) => self.troubles.add(&path, what),
            Event::Item(item) => {
                self.skipping = false;
                self.begin(&item)?;
                let size = item.entry.size();
                self.place = Place { path: item.name, at: 0, size };
            }
        }
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.place.at += bytes.len() as u64;
        if self.skipping {
            return Ok(());
        }
        self.zip.write_all(bytes).map_err(broken)
    }

    fn lost(&mut self, len: u64, why: &str) -> Result<()> {
        let what = self.place.lost(len, why);
        self.troubles.add(&self.place.path, what);
        self.zeros(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_text() {
        assert_eq!(text("a/\u{e9}".as_bytes()), ("a/\u{e9}".to_owned(), false));
        assert_eq!(text(b"a\xff/b"), ("a\\xff/b".to_owned(), true));
    }

    #[test]
    fn times_are_cut_to_what_zip_can_say() {
        let year = |sec| dos(Time { sec, nsec: 0 }).year();
        assert_eq!([year(i64::MIN), year(0), year(i64::MAX)], [1980, 1980, 2107]);
        assert_eq!(year(1_700_000_000), 2023);
    }
}
