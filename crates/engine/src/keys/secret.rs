//! What opens a key slot: a passphrase or a key file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::seal::SivSealer;

/// BLAKE3's context for what a client's key is known by.
const CLIENT_CONTEXT: &str = "strongroom v1 id of a client's key";

/// A passphrase or the content of a key file. Wiped when dropped, never shown.
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    is_key_file: bool,
}

impl Secret {
    /// The longest passphrase or key file, in bytes.
    pub const MAX_LEN: usize = 64 << 10;
    /// The shortest key file, in bytes: it isn't stretched, so it must be a key.
    pub const MIN_KEY_FILE: usize = 32;

    /// A passphrase; a newline at its end belongs to it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is empty or longer than [`Secret::MAX_LEN`].
    pub fn passphrase(bytes: &[u8]) -> Result<Self> {
        let mut copy = Vec::with_capacity(bytes.len());
        copy.extend_from_slice(bytes);
        Self::checked(Zeroizing::new(copy), false, "the password")
    }

    /// The passphrase that is a file's content, but for one newline at its end.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Invalid`] when it is empty or longer than [`Secret::MAX_LEN`].
    pub fn passphrase_from_file(path: &Path) -> Result<Self> {
        let what = format!("the password in {}", path.display());
        let bytes = read(path).map_err(|e| Error::io(format!("reading {what}"), e))?;
        Self::checked(trimmed(bytes), false, &what)
    }

    /// The passphrase that a command prints, but for one newline at its end. The command is run by
    /// `sh -c`, with nothing on its standard input; what it says on standard error is passed on.
    ///
    /// # Errors
    /// [`Error::Io`] when it can't be run; [`Error::Invalid`] when it fails or prints nothing or
    /// more than [`Secret::MAX_LEN`].
    pub fn passphrase_from_command(command: &str) -> Result<Self> {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped());
        let failed = |e| Error::io("running the password command", e);
        let mut child = shell.spawn().map_err(failed)?;
        let output = child.stdout.take().expect("standard output is piped");
        let read = bounded(output);
        if !matches!(&read, Ok(bytes) if bytes.len() <= Secret::MAX_LEN) {
            // It may never end of itself. That it has ended already is no error.
            let _ = child.kill();
        }
        let status = child.wait().map_err(failed)?;
        let bytes = read.map_err(failed)?;
        if bytes.len() <= Secret::MAX_LEN && !status.success() {
            return Err(Error::Invalid(format!("the password command failed: {status}")));
        }
        Self::checked(trimmed(bytes), false, "what the password command printed")
    }

    /// The content of a key file, every byte of it.
    ///
    /// # Errors
    /// [`Error::Io`], or [`Error::Invalid`] when it has fewer than [`Secret::MIN_KEY_FILE`] or more than
    /// [`Secret::MAX_LEN`] bytes.
    pub fn key_file(path: &Path) -> Result<Self> {
        let what = format!("the key file {}", path.display());
        let bytes = read(path).map_err(|e| Error::io(format!("reading {what}"), e))?;
        Self::checked(bytes, true, &what)
    }

    fn checked(bytes: Zeroizing<Vec<u8>>, is_key_file: bool, what: &str) -> Result<Self> {
        match bytes.len() {
            0 => Err(Error::Invalid(format!("{what} is empty"))),
            len if is_key_file && len < Self::MIN_KEY_FILE => Err(Error::Invalid(format!(
                "{what} has {len} bytes; a key has at least {} random ones \
                 (for words, use a password)",
                Self::MIN_KEY_FILE
            ))),
            len if len > Self::MAX_LEN => {
                Err(Error::Invalid(format!("{what} is longer than {} bytes", Self::MAX_LEN)))
            }
            _ => Ok(Self { bytes, is_key_file }),
        }
    }

    /// Whether it is a key file, which isn't stretched.
    pub fn is_key_file(&self) -> bool {
        self.is_key_file
    }

    /// What seals chunks for a client whose own key this is, and by which one knows the key
    /// (`archive::sealed`).
    pub fn for_a_client(&self) -> ([u8; 8], SivSealer) {
        let mut id = [0; 8];
        let mut hasher = blake3::Hasher::new_derive_key(CLIENT_CONTEXT);
        hasher.update(&self.bytes).finalize_xof().fill(&mut id);
        (id, SivSealer::new(&self.bytes))
    }

    /// The secret itself.
    pub(super) fn expose(&self) -> &[u8] {
        &self.bytes
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_key_file { "Secret(key file)" } else { "Secret(passphrase)" })
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    bounded(File::open(path)?)
}

/// Reads to the end, but one byte past [`Secret::MAX_LEN`] at most. The room is taken at once: a vector that
/// grows would leave copies of the secret behind.
fn bounded(source: impl Read) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(Secret::MAX_LEN + 1));
    source.take(Secret::MAX_LEN as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Without one line end (`\n` or `\r\n`) at the end.
fn trimmed(mut bytes: Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>> {
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
        if bytes.last() == Some(&b'\r') {
            bytes.pop();
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    #[test]
    fn one_newline_is_trimmed_and_no_more() {
        for (content, secret) in [
            (&b"word"[..], &b"word"[..]),
            (b"word\n", b"word"),
            (b"word\r\n", b"word"),
            (b" two words \n\n", b" two words \n"),
            (b"\xff\x00\n", b"\xff\x00"),
        ] {
            let read = Secret::passphrase_from_file(file(content).path()).unwrap();
            assert_eq!(read.expose(), secret);
        }
        assert_eq!(Secret::passphrase(b"word\n").unwrap().expose(), b"word\n");
    }

    #[test]
    fn a_key_file_is_taken_as_it_is() {
        let key = [b'\n'; Secret::MIN_KEY_FILE];
        assert_eq!(Secret::key_file(file(&key).path()).unwrap().expose(), key);
        let short = Secret::key_file(file(&key[1..]).path()).unwrap_err().to_string();
        assert!(short.contains("has 31 bytes"), "{short}");
    }

    #[test]
    fn sizes_are_bounded() {
        let long = vec![b'x'; Secret::MAX_LEN + 1];
        assert!(Secret::passphrase_from_file(file(&long[1..]).path()).is_ok());
        for refused in [
            Secret::passphrase_from_file(file(&long).path()),
            Secret::key_file(file(&long).path()),
            Secret::passphrase_from_file(file(b"\n").path()),
            Secret::passphrase(b""),
            Secret::passphrase(&long),
        ] {
            assert!(matches!(refused, Err(Error::Invalid(_))), "{refused:?}");
        }
        let missing = Secret::passphrase_from_file(Path::new("/nowhere/at/all"));
        assert!(missing.unwrap_err().to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn a_command_prints_the_passphrase() {
        let secret = Secret::passphrase_from_command("printf 'a b\\n'").unwrap();
        assert_eq!(secret.expose(), b"a b");
        let no_input = Secret::passphrase_from_command("cat; echo end").unwrap();
        assert_eq!(no_input.expose(), b"end");
    }

    #[test]
    fn a_command_that_fails_or_never_ends_is_named() {
        let failed =
            Secret::passphrase_from_command("echo geheim; exit 3").unwrap_err().to_string();
        assert!(failed.contains("exit status: 3") && !failed.contains("geheim"), "{failed}");
        assert!(Secret::passphrase_from_command("true").is_err());
        let endless = Secret::passphrase_from_command("yes").unwrap_err().to_string();
        assert!(endless.contains("longer than"), "{endless}");
    }

    #[test]
    fn nothing_secret_is_shown() {
        let secret = Secret::passphrase(b"hidden").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(passphrase)");
    }
}
