//! What can go wrong with images, and what the user can do about it.

use std::io;

use strongroom_engine::id::RootId;

use crate::sealed::KeyId;

/// The result of an archive call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong with images. Trouble with single files of a long run is not an error of the
/// run: it is collected as [`Trouble`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pool said no.
    #[error(transparent)]
    Pool(#[from] strongroom_engine::Error),
    /// A file or directory of this machine can't be used.
    #[error("{path}: {source}")]
    Local {
        /// Which.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// No image fits what was asked for.
    #[error("no image is called {what}; `images list` shows those there are")]
    NoImage {
        /// What was asked for.
        what: String,
    },
    /// Several images fit what was asked for.
    #[error("{what} fits {count} images; give more digits of the id")]
    Ambiguous {
        /// What was asked for.
        what: String,
        /// How many fit.
        count: usize,
    },
    /// The image holds no such path.
    #[error("the image has no {path}")]
    NoPath {
        /// Which, as text.
        path: String,
    },
    /// The image is sealed under a client's own key, which is not at hand.
    #[error("image {image} is sealed under the client's key {key}: give it with --client-key-file")]
    Sealed {
        /// Which image.
        image: RootId,
        /// Which key.
        key: KeyId,
    },
    /// An image would be stored open after one of its series that is sealed under a client's own key.
    #[error(
        "the latest image of this name and host is sealed under the client's key {key}: give it with \
         --client-key-file, or have this one stored open with --in-clear (`in_clear`)"
    )]
    SealedBefore {
        /// Which key.
        key: KeyId,
    },
    /// The request contradicts itself or what the image holds.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// An [`Error::Local`].
    pub fn local(path: impl AsRef<[u8]>, source: impl Into<io::Error>) -> Self {
        Self::Local { path: show(path.as_ref()), source: source.into() }
    }

    /// Whether the caller asked to stop.
    pub fn is_canceled(&self) -> bool {
        matches!(self, Self::Pool(strongroom_engine::Error::Canceled))
    }

    /// Whether all further work is in vain, and not only that on one file.
    pub fn ends_all(&self) -> bool {
        matches!(self, Self::Pool(error) if error.ends_all())
    }
}

/// Something that went wrong with one file or directory; the rest went on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which, as text.
    pub path: String,
    /// What went wrong, and with which part.
    pub what: String,
}

/// The first troubles of a run, and how many there were in all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Troubles {
    /// How many there were.
    pub count: u64,
    /// The first of them.
    pub first: Vec<Trouble>,
}

impl Troubles {
    /// How many are kept.
    pub const KEPT: usize = 1000;

    /// Notes one.
    pub fn add(&mut self, path: &[u8], what: impl ToString) {
        self.count += 1;
        if self.first.len() < Self::KEPT {
            self.first.push(Trouble { path: show(path), what: what.to_string() });
        }
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// A name or path as text for people: what isn't UTF-8, and control characters, are escaped.
pub fn show(path: &[u8]) -> String {
    let mut out = String::with_capacity(path.len());
    for part in path.utf8_chunks() {
        for c in part.valid().chars() {
            if c.is_control() {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
        }
        for byte in part.invalid() {
            out.push_str(&format!("\\x{byte:02x}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_play_tricks_on_a_terminal() {
        assert_eq!(show(b"a\x1b[2J\xff\xc3\xa9"), "a\\u{1b}[2J\\xff\u{e9}");
    }
}
