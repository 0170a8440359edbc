//! The bytes of one file, block image or stream.

use std::io::Write;

use strongroom_engine::map::MapRef;

use crate::entry::Body;
use crate::flow::{self, Giver, Taker};
use crate::image::Image;
use crate::scan::locate;
use crate::store::Source;
use crate::{Error, Result, Troubles, show};

/// Which bytes, and what to do where they can't be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cat {
    /// The first byte; what lies behind the end is empty.
    pub offset: u64,
    /// How many at most; None for all.
    pub length: Option<u64>,
    /// Zeroes are written for what can't be read, and it is a trouble; otherwise it is an error.
    pub fill: bool,
}

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// How many bytes.
    pub bytes: u64,
    /// What could not be read. When there is any, the command's exit code is 3.
    pub troubles: Troubles,
}

/// Writes the content of a file, block image or stream in order; holes as zeroes. Chunks are
/// fetched ahead by the pool's threads, with bounded memory.
///
/// # Errors
/// [`Error::NoPath`]; [`Error::Invalid`] when the path is no file; those of the pool, and those of
/// `out` as the pool's `Io`.
pub fn cat_path(
    source: &dyn Source,
    image: &Image,
    path: &[u8],
    options: Cat,
    out: &mut dyn Write,
) -> Result<Written> {
    let _hold = source.hold(image.id)?;
    let (entry, path) = locate(source, image, path)?;
    let map = match entry.body {
        Body::File(map) => map,
        Body::Dir { .. } if path.is_empty() => {
            return Err(Error::Invalid("give the path of a file: IMAGE:PATH".into()));
        }
        Body::Symlink(to) => {
            let (path, to) = (show(&path), show(&to));
            return Err(Error::Invalid(format!("{path} is a symbolic link to {to}")));
        }
        body => {
            let kind = crate::list::kind(&body);
            return Err(Error::Invalid(format!("{} is not a file but: {kind}", show(&path))));
        }
    };
    write(source, &map, &path, options, out)
}

/// Writes `len` bytes of content from `offset` on, or as many as there are; holes as zeroes.
///
/// # Errors
/// Those of the pool when any chunk can't be read (what was written before is right), and those of
/// `out` as the pool's `Io`.
pub fn cat(
    source: &dyn Source,
    map: &MapRef,
    offset: u64,
    len: u64,
    out: &mut dyn Write,
) -> Result<()> {
    let options = Cat { offset, length: Some(len), fill: false };
    write(source, map, b"the content", options, out).map(|_| ())
}

fn write(
    source: &dyn Source,
    map: &MapRef,
    path: &[u8],
    options: Cat,
    out: &mut dyn Write,
) -> Result<Written> {
    let start = options.offset.min(map.len());
    let end = options.length.map_or(map.len(), |len| start.saturating_add(len).min(map.len()));
    let written = Written::default();
    let mut taker = Plain { out, path, fill: options.fill, start, written };
    let give = |giver: &mut Giver<'_, ()>| giver.content(map, start, end);
    flow::run(source, give, &mut taker)?;
    let written = taker.written;
    out.flush().map_err(broken)?;
    Ok(written)
}

fn broken(error: std::io::Error) -> Error {
    strongroom_engine::Error::io("writing the output", error).into()
}

struct Plain<'a> {
    out: &'a mut dyn Write,
    path: &'a [u8],
    fill: bool,
    start: u64,
    written: Written,
}

impl Taker<()> for Plain<'_> {
    fn item(&mut self, (): ()) -> Result<()> {
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(broken)?;
        self.written.bytes += bytes.len() as u64;
        Ok(())
    }

    fn lost(&mut self, len: u64, why: &str) -> Result<()> {
        let from = self.start + self.written.bytes;
        let to = from + len;
        if !self.fill {
            let what = format!("{}, bytes {from} to {to}", show(self.path));
            return Err(strongroom_engine::Error::damaged(what, why).into());
        }
        let what = format!("bytes {from} to {to} are lost, zeroes stand in their place: {why}");
        self.written.troubles.add(self.path, what);
        self.zeros(len)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use std::fs;
    use std::io;
    use std::os::unix::fs::FileExt;

    use strongroom_engine::map::{Extent, MapReader};

    use super::*;
    use crate::memory::Memory;
    use crate::scan::testing::{backup, inside};

    fn noise(len: usize) -> Vec<u8> {
        let mut x = 1u64;
        let step = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (x >> 56) as u8
        };
        std::iter::repeat_with(step).take(len).collect()
    }

    /// An image of a file with a hole in it; gives the file's content and its path.
    fn file(store: &Memory) -> (Image, Vec<u8>, Vec<u8>) {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d");
        fs::create_dir(&dir).unwrap();
        let data = noise(300_000);
        let file = fs::File::create(dir.join("f")).unwrap();
        file.write_all_at(&data, 0).unwrap();
        file.write_all_at(&data[..1000], 40 << 20).unwrap();
        let image = backup(store, &dir, "x");
        let content = fs::read(dir.join("f")).unwrap();
        (image, content, [&inside(&dir)[..], b"/f"].concat())
    }

    #[test]
    fn any_part_of_a_file_comes_back() {
        let store = Memory::default();
        let (image, content, path) = file(&store);
        let len = content.len() as u64;
        let ranges =
            [(0, None), (5, Some(0)), (299_999, Some(2)), (len - 7, None), (len + 9, None)];
        let inner = (0..20u64).map(|i| (i * 15_013, Some(i * 7919)));
        for (offset, length) in ranges.into_iter().chain(inner) {
            let mut out = Vec::new();
            let options = Cat { offset, length, fill: false };
            let written = cat_path(&store, &image, &path, options, &mut out).unwrap();
            let start = offset.min(len) as usize;
            let end = length.map_or(content.len(), |n| (start + n as usize).min(content.len()));
            assert!(out == content[start..end], "{offset} {length:?}");
            assert_eq!(written.bytes, out.len() as u64);
            assert!(written.troubles.is_empty());
        }
    }

    #[test]
    fn what_is_lost_is_an_error_or_zeroes() {
        let store = Memory::default();
        let (image, mut content, path) = file(&store);
        let entry = image.entry(&store, &path).unwrap();
        let Body::File(map) = &entry.body else { panic!("it is a file") };
        let (at, id, len) = MapReader::new(&store, map, 100_000)
            .find_map(|step| match step.unwrap() {
                (at, Extent::Data { id, len }) => Some((at as usize, id, len as usize)),
                _ => None,
            })
            .unwrap();
        store.lost.lock().unwrap().insert(id);
        let mut out = Vec::new();
        let error =
            cat_path(&store, &image, &path, Cat::default(), &mut out).unwrap_err().to_string();
        assert!(error.contains(&format!("bytes {at} to {}", at + len)), "{error}");
        assert!(out == content[..at], "what comes before was written");
        let mut out = Vec::new();
        let options = Cat { fill: true, ..Cat::default() };
        let written = cat_path(&store, &image, &path, options, &mut out).unwrap();
        content[at..at + len].fill(0);
        assert!(out == content);
        assert_eq!(written.troubles.count, 1);
    }

    #[test]
    fn an_output_that_fails_ends_it() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let store = Memory::default();
        let (image, _, path) = file(&store);
        let error =
            cat_path(&store, &image, &path, Cat::default(), &mut Full(100_000)).unwrap_err();
        let broken = |e: &io::Error| e.kind() == io::ErrorKind::BrokenPipe;
        assert!(
            matches!(error, Error::Pool(strongroom_engine::Error::Io { source, .. }) if broken(&source))
        );
    }

    #[test]
    fn what_is_no_file_has_no_content() {
        let store = Memory::default();
        let (image, ..) = file(&store);
        let error = cat_path(&store, &image, b"/", Cat::default(), &mut Vec::new()).unwrap_err();
        assert!(error.to_string().contains("IMAGE:PATH"));
    }
}
