//! What is typed at the terminal and not shown.

use std::fs::File;
use std::io::{Read, Write};

use anyhow::{Context as _, Result};
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use strongroom_engine::Error;

/// The longest line, in bytes.
const MAX: usize = 4096;
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;
const CTRL_U: u8 = 21;
const BACKSPACE: [u8; 2] = [8, 127];

/// The terminal as it was before.
struct Before<'t> {
    terminal: &'t File,
    modes: Termios,
}

impl Drop for Before<'_> {
    fn drop(&mut self) {
        // It is lost when even this can't be done.
        let _ = tcsetattr(self.terminal, OptionalActions::Now, &self.modes);
    }
}

/// Asks for a line without showing it. Nothing is asked before it is sure that nothing is shown.
///
/// Keys that would end the process are read as bytes meanwhile, so that no death leaves the
/// terminal silent.
///
/// # Errors
/// Those of the terminal; [`Error::Canceled`] for Ctrl-C, and where the line has no end.
pub(crate) fn hidden(prompt: &str) -> Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let terminal = terminal.context("opening the terminal")?;
    let modes = tcgetattr(&terminal).context("asking the terminal how it is")?;
    let mut silent = modes.clone();
    silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    let _before = Before { terminal: &terminal, modes };
    tcsetattr(&terminal, OptionalActions::Now, &silent).context("silencing the terminal")?;
    (&terminal).write_all(format!("{prompt}: ").as_bytes())?;
    let line = read(&mut &terminal);
    (&terminal).write_all(b"\n")?;
    line
}

/// Reads a line, with what the terminal would do for one who mistypes.
fn read(from: &mut dyn Read) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        if from.read(&mut byte)? == 0 || byte[0] == CTRL_C {
            return Err(Error::Canceled.into());
        }
        match byte[0] {
            b'\n' | b'\r' | CTRL_D => break,
            CTRL_U => line.clear(),
            erase if BACKSPACE.contains(&erase) => {
                // All bytes of the last character.
                while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            other if line.len() < MAX => line.push(other),
            _ => anyhow::bail!("a secret that is typed has at most {MAX} bytes"),
        }
    }
    String::from_utf8(line).context("what was typed is not text in UTF-8")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn mistakes_can_be_taken_back() {
        let typed = |bytes: &[u8]| read(&mut &*bytes);
        assert_eq!(typed(b"word\nmore").unwrap(), "word");
        assert_eq!(typed("wö\u{7f}ord\r".as_bytes()).unwrap(), "word");
        assert_eq!(typed(b"oops\x15word\x04").unwrap(), "word");
        assert_eq!(typed(b"\x7fa\n").unwrap(), "a");
        for stopped in [&b"wo\x03rd\n"[..], b"no end"] {
            let error = typed(stopped).unwrap_err();
            assert!(matches!(error.downcast_ref(), Some(Error::Canceled)));
        }
        assert!(typed(&[b'x'; MAX + 2]).is_err());
    }
}
