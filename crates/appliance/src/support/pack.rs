//! Packs files into an archive that is made as it is sent: nothing of it is held in memory but one
//! paper and some buffers.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use tar::{Builder, EntryType, Header};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Paper;
use super::redact::{LINE, Redactor, Within};

/// Bytes that are sent at once.
pub(super) const PIECE: usize = 64 << 10;
/// Pieces that wait to be sent.
pub(super) const PIECES: usize = 4;
/// How long one who takes nothing is waited for.
const STALL: Duration = Duration::from_secs(60);

/// Writes to a queue of pieces, of a thread that may wait.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) pieces: mpsc::Sender<Vec<u8>>,
    pub(super) runtime: Handle,
}

impl Sender {
    fn send(&self, piece: Vec<u8>) -> io::Result<()> {
        let sent = self
            .runtime
            .block_on(async { tokio::time::timeout(STALL, self.pieces.send(piece)).await });
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "nobody takes it")),
        }
    }
}

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.send(bytes.to_vec()).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sender {
    /// In pieces of a good size.
    pub(super) fn buffered(self) -> BufWriter<Self> {
        BufWriter::with_capacity(PIECE, self)
    }
}

/// A compressed archive of texts, without their secrets.
pub(super) struct Pack<W: Write> {
    tar: Builder<GzEncoder<W>>,
    redactor: Redactor,
    now: u64,
}

impl<W: Write> Pack<W> {
    pub(super) fn new(out: W, redactor: Redactor) -> Self {
        let tar = Builder::new(GzEncoder::new(out, Compression::default()));
        let now = Timestamp::now().as_second().try_into().unwrap_or_default();
        Self { tar, redactor, now }
    }

    pub(super) fn paper(&mut self, paper: &Paper) -> io::Result<()> {
        let text = self.redactor.text(&paper.text);
        let mut header = header(text.len() as u64, self.now);
        self.tar.append_data(&mut header, &paper.name, text.as_bytes())
    }

    /// The first so many bytes of a file, line by line. It is read twice: the archive has the size
    /// before the content, and that is known when all secrets are found.
    pub(super) fn log(&mut self, name: &str, file: &File, length: u64) -> io::Result<()> {
        let size = io::copy(&mut Redacted::of(file, length, &self.redactor)?, &mut io::sink())?;
        let mut header = header(size, self.now);
        let redacted = Redacted::of(file, length, &self.redactor)?;
        self.tar.append_data(&mut header, name, redacted)
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.tar.into_inner()?.finish()
    }
}

pub(super) fn header(size: u64, at: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o600);
    header.set_mtime(at);
    header.set_size(size);
    header
}

/// The lines of a file, without their secrets; of a line without an end the beginning.
struct Redacted<'a> {
    file: BufReader<io::Take<&'a File>>,
    redactor: &'a Redactor,
    within: Within,
    line: Vec<u8>,
    /// What was made of the line, and how much of that was given.
    made: Vec<u8>,
    given: usize,
}

impl<'a> Redacted<'a> {
    fn of(mut file: &'a File, length: u64, redactor: &'a Redactor) -> io::Result<Self> {
        file.rewind()?;
        let file = BufReader::with_capacity(PIECE, file.take(length));
        let within = Within::default();
        Ok(Self { file, redactor, within, line: Vec::new(), made: Vec::new(), given: 0 })
    }

    /// Makes something of the next line, if there is one.
    fn next(&mut self) -> io::Result<()> {
        self.line.clear();
        self.made.clear();
        self.given = 0;
        (&mut self.file).take(LINE as u64).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(());
        }
        if self.line.last() != Some(&b'\n') {
            self.file.skip_until(b'\n')?;
        }
        let text = String::from_utf8_lossy(&self.line);
        let made = self.redactor.line(text.trim_end_matches('\n'), &mut self.within);
        self.made.extend_from_slice(made.as_bytes());
        self.made.push(b'\n');
        Ok(())
    }
}

impl Read for Redacted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.given == self.made.len() {
            self.next()?;
        }
        let rest = &self.made[self.given..];
        let length = rest.len().min(out.len());
        out[..length].copy_from_slice(&rest[..length]);
        self.given += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::super::redact::Hidden;
    use super::*;

    #[test]
    fn a_file_is_packed_as_it_was_without_its_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let long = "y".repeat(LINE + 5);
        let text = format!("one\ntoken=hunter2\n\n{long}\nlast without an end");
        std::fs::write(&path, text.clone() + " and more").unwrap();
        let file = File::open(&path).unwrap();
        let mut hidden = Hidden::default();
        hidden.text("last");
        let mut pack = Pack::new(Vec::new(), Redactor::new(&hidden).unwrap());
        // What is written meanwhile isn't packed.
        pack.log("logs/log", &file, text.len() as u64).unwrap();
        pack.paper(&Paper { name: "paper".into(), text: "the last\n".into() }).unwrap();
        let packed = pack.finish().unwrap();
        let mut tar = tar::Archive::new(flate2::read::GzDecoder::new(&packed[..]));
        let read: Vec<_> = tar
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (entry.path().unwrap().display().to_string(), text)
            })
            .collect();
        let cut = "y".repeat(LINE);
        let log = format!("one\ntoken=[hidden]\n\n{cut}\n[hidden] without an end\n");
        let expected = [("logs/log", log.as_str()), ("paper", "the [hidden]\n")];
        assert_eq!(read, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
