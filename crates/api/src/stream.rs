//! Files as bodies.

use std::fs::File;
use std::io;

use axum::body::Bytes;
use futures_util::Stream;
use tokio::io::AsyncReadExt;

/// Bytes that are read at once.
const PIECE: usize = 256 << 10;

/// The bytes of a file, from where it stands.
pub(crate) fn of_file(file: File) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let mut file = tokio::fs::File::from_std(file);
    async_stream::try_stream! {
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            if file.read_buf(&mut piece).await? == 0 {
                break;
            }
            yield Bytes::from(piece);
        }
    }
}
