//! Licences: what a vendor says a customer may use, signed. Nothing is switched off without one, or
//! when one has ended: it only informs.
//!
//! A licence is a text of these lines, in this order; `docs/licences.md` tells it to people.
//!
//! ```text
//! Strongroom licence, version 1
//! Serial: 2026-0001
//! App: enterprise
//! Users: 20
//! Issued: 2026-11-27
//! Expires: 2038-01-19
//! Name: Enterprise Company
//! Contact: cto@enterprise
//! Signature: <Ed25519 (RFC 8032) of all lines before this one, in base 64>
//! ```
//!
//! What is signed is the lines with a line feed behind each, whatever ends them in the file: mail
//! changes that. Each value has one way to be written, so a text is the licence that it says.

mod keys;
mod store;

use std::fmt;

use data_encoding::BASE64;
use jiff::civil::Date;

pub use self::keys::{LicenceSigner, LicenceVerifier};
pub use self::store::Licences;
pub(crate) use self::store::NAME;
use crate::{Error, Result};

/// Bytes of a licence.
const MAX: usize = 8 << 10;
/// Characters of a text in it.
const TEXT: usize = 200;
/// Its first line.
const TITLE: &str = "Strongroom licence, version 1";
/// What stands where one never ends.
const NEVER: &str = "never";
/// How a day is written.
const DAY: &str = "%Y-%m-%d";

/// What a licence says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Licence {
    /// What the vendor calls it.
    pub serial: String,
    /// What it is for.
    pub app: String,
    /// For how many users.
    pub users: u32,
    /// When it was made.
    pub issued: Date,
    /// The last day on which it is good; none: it never ends.
    pub expires: Option<Date>,
    /// Whose it is.
    pub name: String,
    /// How to reach them.
    pub contact: String,
}

/// Of a licence that was signed by somebody trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LicenceState {
    /// It is good.
    Valid,
    /// Its last day is over.
    Expired,
}

impl LicenceState {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
        }
    }
}

impl Licence {
    /// Whether all of it can be written, and read again.
    ///
    /// # Errors
    /// [`Error::Licence`], which names what can't.
    pub fn check(&self) -> Result<()> {
        for (field, value) in [
            ("Serial", &self.serial),
            ("App", &self.app),
            ("Name", &self.name),
            ("Contact", &self.contact),
        ] {
            if !is_text(value) {
                return Err(Error::Licence(format!(
                    "`{field}` takes 1 to {TEXT} characters in one line, without spaces around"
                )));
            }
        }
        for day in [Some(self.issued), self.expires].into_iter().flatten() {
            if day.year() < 1 {
                return Err(Error::Licence(format!("{day} is not a day of this calendar")));
            }
        }
        Ok(())
    }

    /// How it is on that day.
    pub fn state(&self, today: Date) -> LicenceState {
        match self.expires {
            Some(last) if last < today => LicenceState::Expired,
            _ => LicenceState::Valid,
        }
    }

    /// How it is today, in UTC.
    pub fn state_now(&self) -> LicenceState {
        self.state(jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date())
    }

    /// What is signed.
    fn signed(&self) -> String {
        let Self { serial, app, users, issued, expires, name, contact } = self;
        let expires = expires.map_or_else(|| NEVER.to_owned(), day);
        let issued = day(*issued);
        format!(
            "{TITLE}\nSerial: {serial}\nApp: {app}\nUsers: {users}\nIssued: {issued}\n\
             Expires: {expires}\nName: {name}\nContact: {contact}\n"
        )
    }
}

/// A licence with its signature, which nobody has checked.
#[derive(Clone, PartialEq, Eq)]
pub struct SignedLicence {
    licence: Licence,
    signature: [u8; 64],
}

impl fmt::Debug for SignedLicence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedLicence({})", self.licence.serial)
    }
}

impl fmt::Display for SignedLicence {
    /// The text of the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}Signature: {}", self.licence.signed(), BASE64.encode(&self.signature))
    }
}

impl SignedLicence {
    /// Bytes that the text of one has at most.
    pub const MAX: usize = MAX;

    /// Reads the text of a licence.
    ///
    /// # Errors
    /// [`Error::Licence`], which says where it is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX {
            return Err(Error::Licence(format!("it has more than {MAX} bytes")));
        }
        let text = std::str::from_utf8(bytes);
        let text = text.map_err(|_| Error::Licence("it is not text in UTF-8".into()))?;
        let lines = text.trim_end_matches(['\r', '\n']).split('\n');
        let mut lines = lines.map(|line| line.strip_suffix('\r').unwrap_or(line));
        if lines.next() != Some(TITLE) {
            return Err(Error::Licence(format!("its first line is not `{TITLE}`")));
        }
        let mut field = |name: &str| {
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(": "));
            value.ok_or_else(|| Error::Licence(format!("the line `{name}: ` is missing")))
        };
        let licence = Licence {
            serial: field("Serial")?.to_owned(),
            app: field("App")?.to_owned(),
            users: number(field("Users")?)?,
            issued: parse_day(field("Issued")?)?,
            expires: match field("Expires")? {
                NEVER => None,
                text => Some(parse_day(text)?),
            },
            name: field("Name")?.to_owned(),
            contact: field("Contact")?.to_owned(),
        };
        licence.check()?;
        let given = field("Signature")?;
        let signature = BASE64.decode(given.as_bytes()).ok();
        let signature = signature.and_then(|bytes| <[u8; 64]>::try_from(bytes).ok());
        // One text for each: several ones in a row are decoded, too.
        let signature = signature.filter(|bytes| BASE64.encode(bytes) == given);
        let wrong = || Error::Licence("its signature is not 64 bytes in base 64".into());
        let signature = signature.ok_or_else(wrong)?;
        match lines.next() {
            None => Ok(Self { licence, signature }),
            Some(_) => Err(Error::Licence("something follows its signature".into())),
        }
    }
}

fn is_text(value: &str) -> bool {
    let length = value.chars().count();
    (1..=TEXT).contains(&length) && !value.chars().any(char::is_control) && value.trim() == value
}

fn number(text: &str) -> Result<u32> {
    let number = text.parse().ok().filter(|number: &u32| number.to_string() == text);
    number.ok_or_else(|| Error::Licence(format!("`Users` is a number from 0 to {}", u32::MAX)))
}

fn day(date: Date) -> String {
    date.strftime(DAY).to_string()
}

/// A day as it is written in licences.
fn parse_day(text: &str) -> Result<Date> {
    let read = Date::strptime(DAY, text).ok().filter(|date| day(*date) == text);
    read.ok_or_else(|| Error::Licence("a day is written as 2038-01-19".into()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use jiff::civil::date;

    use super::*;

    pub(super) fn licence() -> Licence {
        Licence {
            serial: "2026-0001".into(),
            app: "enterprise".into(),
            users: 20,
            issued: date(2026, 11, 27),
            expires: Some(date(2038, 1, 19)),
            name: "Enterprise Company".into(),
            contact: "cto@enterprise".into(),
        }
    }

    fn text(change: impl FnOnce(&mut Licence)) -> String {
        let mut licence = licence();
        change(&mut licence);
        SignedLicence { licence, signature: [7; 64] }.to_string()
    }

    #[test]
    fn what_is_written_is_read() {
        for expires in [None, Some(date(9999, 12, 31)), Some(date(1, 1, 1))] {
            let text = text(|licence| {
                licence.expires = expires;
                licence.name = "Ünïcode: GmbH & Co.\u{a0}KG".into();
                licence.users = u32::MAX;
            });
            let read = SignedLicence::parse(text.as_bytes()).unwrap();
            assert_eq!(read.to_string(), text);
            assert_eq!(read.licence.expires, expires);
            // As mail and editors leave it.
            for other in [text.replace('\n', "\r\n"), text.trim_end().to_owned(), text + "\n\n"] {
                assert_eq!(SignedLicence::parse(other.as_bytes()).unwrap(), read);
            }
        }
    }

    #[test]
    fn what_is_not_written_so_is_refused() {
        let good = text(|_| ());
        let change = |from: &str, to: &str| {
            assert!(good.contains(from), "{from}");
            good.replace(from, to)
        };
        let long = "x".repeat(TEXT + 1);
        for bad in [
            String::new(),
            "\n".into(),
            good[..good.len() - 10].to_owned(),
            format!("{good}x"),
            format!(" {good}"),
            format!("{good}{good}"),
            good.to_lowercase(),
            change("version 1", "version 2"),
            change("Users: 20", "Users: 020"),
            change("Users: 20", "Users: +20"),
            change("Users: 20", "Users: -1"),
            change("Users: 20", "Users: 4294967296"),
            change("Users: 20", "Users: 2０"),
            change("Users: 20\n", ""),
            change("Users: 20\n", "Users: 20\nUsers: 20\n"),
            change("2038-01-19", "2038-1-19"),
            change("2038-01-19", "2038-02-30"),
            change("2038-01-19", "Never"),
            change("2038-01-19", "-2038-01-19"),
            change("2038-01-19", "0000-01-19"),
            change("2038-01-19", "12038-01-19"),
            change("2026-11-27", "never"),
            change("Enterprise Company", ""),
            change("Enterprise Company", " x"),
            change("Enterprise Company", "x "),
            change("Enterprise Company", "a\u{1b}[2Jb"),
            change("Enterprise Company", "a\rb"),
            change("Enterprise Company", "a\0b"),
            change("Enterprise Company", &long),
            change("Signature: ", "Signature:"),
            change("==\n", "\n"),
            "x".repeat(MAX + 1),
        ] {
            let read = SignedLicence::parse(bad.as_bytes());
            assert!(matches!(read, Err(Error::Licence(_))), "{bad:?}: {read:?}");
        }
        assert!(SignedLicence::parse(b"\xff\xfe").is_err());
    }

    #[test]
    fn a_signature_has_one_text() {
        let (whole, one) = (BASE64.encode(&[7; 64]), BASE64.encode(&[7; 1]));
        let other = text(|_| {}).replace(&whole, &format!("{one}{}", BASE64.encode(&[7; 63])));
        let error = SignedLicence::parse(other.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("64 bytes"), "{error}");
    }

    #[test]
    fn it_is_good_on_its_last_day() {
        let state = |expires, today| {
            let mut licence = licence();
            licence.expires = expires;
            licence.state(today)
        };
        let last = date(2038, 1, 19);
        assert_eq!(state(Some(last), last), LicenceState::Valid);
        assert_eq!(state(Some(last), date(2038, 1, 20)), LicenceState::Expired);
        assert_eq!(state(None, date(9999, 12, 31)), LicenceState::Valid);
    }
}
