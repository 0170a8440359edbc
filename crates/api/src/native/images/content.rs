//! Bytes out of an image: a file or a part of it, a tree as an archive.

use std::io::{self, Write};

use axum::body::Bytes;
use futures_util::Stream;
use serde::Deserialize;
use strongroom_identity::Right;
use strongroom_storage::{Format, path_bytes};
use tokio::sync::mpsc;
use utoipa::IntoParams;

use crate::access::On;
use crate::call::Call;
use crate::native::paths::ImagePath;
use crate::problem::{Code, Problem, Result};
use crate::route::{Archive, ArchiveKind, Download, Path, Query, RangeHeader, Route, get};

/// Pieces that wait for the client at most, and their bytes.
const PIECES: usize = 8;
const PIECE: usize = 256 << 10;

pub(super) fn file_route() -> Route {
    get("/v1/images/{image}/content", "images.download", "A file of an image, or part of it", file)
        .needs(Right::ImageRead, On::Image("image"))
        .fails([Code::Invalid, Code::Conflict, Code::Range])
}

pub(super) fn archive_route() -> Route {
    get(
        "/v1/images/{image}/archive",
        "images.archive",
        "A tree of an image, as tar or zip",
        archive,
    )
    .needs(Right::ImageRead, On::Image("image"))
    .fails([Code::Invalid, Code::Conflict])
}

/// Which file.
#[derive(Debug, Deserialize, IntoParams)]
struct FileQuery {
    /// The path; none for an image of a disk or a stream.
    path: Option<String>,
    /// Instead, the bytes of the path as hexadecimal digits, where they are no text.
    path_hex: Option<String>,
}

async fn file(
    call: Call,
    Path(path): Path<ImagePath>,
    Query(query): Query<FileQuery>,
    RangeHeader(range): RangeHeader,
) -> Result<Download<impl Stream<Item = io::Result<Bytes>>>> {
    let at = path_bytes(query.path.as_deref().unwrap_or_default(), query.path_hex.as_deref())?;
    let open = call.app().storage().open_file(path.image, at).await?;
    let (first, end) = match range {
        Some(range) => part(&range, open.size)?,
        None => (0, open.size),
    };
    let (name, size) = (open.name.clone(), open.size);
    let bytes =
        stream(move |out| async move { open.write(first, end - first, out).await.map(|_| ()) });
    Ok(Download { name, range: (first, end, size), bytes })
}

/// Which tree, and how.
#[derive(Debug, Deserialize, IntoParams)]
struct ArchiveQuery {
    /// The path; the whole image when there is none.
    path: Option<String>,
    /// Instead, the bytes of the path as hexadecimal digits, where they are no text.
    path_hex: Option<String>,
    /// How it is packed.
    #[serde(default)]
    #[param(inline)]
    format: ArchiveKind,
}

async fn archive(
    call: Call,
    Path(path): Path<ImagePath>,
    Query(query): Query<ArchiveQuery>,
) -> Result<Archive<impl Stream<Item = io::Result<Bytes>>>> {
    let (format, suffix) = match query.format {
        ArchiveKind::Tar => (Format::Tar, "tar"),
        ArchiveKind::Zip => (Format::Zip, "zip"),
    };
    let storage = call.app().storage().clone();
    let at = path_bytes(query.path.as_deref().unwrap_or_default(), query.path_hex.as_deref())?;
    // So that a path that isn't there is told before the answer begins.
    storage.browse(path.image, at.clone(), 0, 1).await?;
    let name = format!("{}.{suffix}", storage.image(path.image).await?.name);
    let image = path.image;
    let bytes =
        stream(move |out| async move { storage.dump(image, at, format, out).await.map(|_| ()) });
    Ok(Archive { kind: query.format, name, bytes })
}

/// What a blocking writer writes, as it comes. When the client goes, writing fails.
fn stream<F>(
    work: impl FnOnce(io::BufWriter<Sender>) -> F,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static
where
    F: Future<Output = strongroom_storage::Result<()>> + Send + 'static,
{
    let (sender, mut receiver) = mpsc::channel(PIECES);
    let failed = sender.clone();
    let work = work(io::BufWriter::with_capacity(PIECE, Sender(sender)));
    tokio::spawn(async move {
        if let Err(error) = work.await {
            tracing::warn!(%error, "a download broke off");
            // The client must see that it is not whole.
            let _ = failed.send(Err(io::Error::other("the appliance failed"))).await;
        }
    });
    async_stream::stream! {
        while let Some(piece) = receiver.recv().await {
            yield piece;
        }
    }
}

/// The near end of a bounded queue of pieces.
struct Sender(mpsc::Sender<io::Result<Bytes>>);

impl Write for Sender {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Ok(Bytes::copy_from_slice(bytes));
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        self.0.blocking_send(piece).map(|()| bytes.len()).map_err(gone)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The first byte and the one behind the last of `bytes=first-last` (RFC 9110, 14.2). Of several
/// ranges, and of other units, the whole is given.
fn part(range: &str, size: u64) -> Result<(u64, u64)> {
    let whole = Ok((0, size));
    let Some(range) = range.trim().strip_prefix("bytes=") else { return whole };
    let Some((first, last)) = range.split_once('-') else { return whole };
    if range.contains(',') {
        return whole;
    }
    let unsatisfiable = || {
        let text = format!("there are {size} bytes; ask for a range of them");
        let value = http::HeaderValue::from_str(&format!("bytes */{size}"));
        let problem = Problem::new(Code::Range, text);
        match value {
            Ok(value) => problem.with(http::header::CONTENT_RANGE, value),
            Err(_) => problem,
        }
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => whole,
        (Some(first), last) if first < size && (last.is_some() || range.ends_with('-')) => {
            Ok((first, last.map_or(size, |last| last.saturating_add(1).min(size))))
        }
        (None, Some(last)) if range.starts_with('-') && last > 0 && size > 0 => {
            Ok((size.saturating_sub(last), size))
        }
        (Some(_), None) if !range.ends_with('-') => whole,
        (None, None) => whole,
        _ => Err(unsatisfiable()),
    }
}

/// Digits; more than fit are a number beyond every file.
fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn ranges_are_those_of_the_rfc() {
        for (range, wanted) in [
            ("bytes=0-0", (0, 1)),
            ("bytes=2-5", (2, 6)),
            ("bytes=2-", (2, 10)),
            ("bytes=-3", (7, 10)),
            ("bytes=-99", (0, 10)),
            ("bytes=5-99999999999999999999", (5, 10)),
            ("bytes=5-18446744073709551615", (5, 10)),
            ("bytes=0-1,3-4", (0, 10)),
            ("lines=1-2", (0, 10)),
            ("bytes=7-3", (0, 10)),
            ("bytes=-", (0, 10)),
            ("bytes=1-x", (0, 10)),
        ] {
            let found = part(range, 10);
            assert_eq!(found.unwrap(), wanted, "{range}");
        }
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(part(range, 10).unwrap_err().code(), Code::Range, "{range}");
        }
        assert_eq!(part("bytes=-5", 0).unwrap_err().code(), Code::Range);
    }
}
