//! What a client asks for while options are negotiated (`doc/proto.md`, "Option types").

use crate::protocol::{MAX_STRING, info, option};

/// Bytes of the data of an option that are read at all.
pub const MAX_DATA: usize = 64 << 10;
/// Queries of one option for metadata contexts.
const MAX_QUERIES: usize = 64;

/// An option, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    /// `NBD_OPT_EXPORT_NAME`: use this export, at once.
    ExportName(&'a str),
    /// `NBD_OPT_ABORT`.
    Abort,
    /// `NBD_OPT_LIST`.
    List,
    /// `NBD_OPT_STARTTLS`.
    StartTls,
    /// `NBD_OPT_INFO`, or `NBD_OPT_GO`.
    Info {
        /// It is to be used.
        go: bool,
        /// The export.
        name: &'a str,
        /// What is to be told of it.
        wants: Wants,
    },
    /// `NBD_OPT_STRUCTURED_REPLY`.
    StructuredReply,
    /// `NBD_OPT_LIST_META_CONTEXT`, or `NBD_OPT_SET_META_CONTEXT`.
    MetaContext {
        /// They are to be used.
        set: bool,
        /// The export.
        name: &'a str,
        /// What contexts.
        queries: Vec<&'a str>,
    },
    /// Another.
    Other,
}

/// The information that a client asks for, of that which we have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    /// `NBD_INFO_NAME`.
    pub name: bool,
    /// `NBD_INFO_DESCRIPTION`.
    pub description: bool,
}

/// What is wrong with an option; told to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    /// The data end too soon, or go on.
    #[error("the data of the option are not as long as they should be")]
    Length,
    /// There are data where there should be none.
    #[error("this option takes no data")]
    Data,
    /// A string is not one.
    #[error("a string is longer than 4096 bytes, or not UTF-8, or holds a NUL")]
    String,
    /// More than we look at.
    #[error("more than 64 queries")]
    TooMany,
    /// A query without a namespace.
    #[error("a query for a metadata context has no namespace")]
    Query,
}

impl<'a> Asked<'a> {
    /// Reads an option of this number with these data.
    ///
    /// # Errors
    /// [`Wrong`].
    pub fn parse(number: u32, data: &'a [u8]) -> Result<Self, Wrong> {
        let empty = |asked| if data.is_empty() { Ok(asked) } else { Err(Wrong::Data) };
        Ok(match number {
            option::EXPORT_NAME => Self::ExportName(string(data)?),
            // Data with it should be ignored.
            option::ABORT => Self::Abort,
            option::LIST => empty(Self::List)?,
            option::STARTTLS => empty(Self::StartTls)?,
            option::STRUCTURED_REPLY => empty(Self::StructuredReply)?,
            option::INFO | option::GO => {
                let mut rest = data;
                let name = counted(&mut rest)?;
                let count = usize::from(u16::from_be_bytes(take(&mut rest)?));
                if rest.len() != count * 2 {
                    return Err(Wrong::Length);
                }
                let mut wants = Wants::default();
                for number in rest.chunks_exact(2) {
                    match u16::from_be_bytes(number.try_into().map_err(|_| Wrong::Length)?) {
                        info::NAME => wants.name = true,
                        info::DESCRIPTION => wants.description = true,
                        // The size of the export and of blocks is told in any case.
                        _ => {}
                    }
                }
                Self::Info { go: number == option::GO, name, wants }
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                let mut rest = data;
                let name = counted(&mut rest)?;
                let count = u32::from_be_bytes(take(&mut rest)?) as usize;
                if count > MAX_QUERIES {
                    return Err(Wrong::TooMany);
                }
                let mut queries = Vec::new();
                for _ in 0..count {
                    let query = counted(&mut rest)?;
                    if !query.contains(':') {
                        return Err(Wrong::Query);
                    }
                    queries.push(query);
                }
                if !rest.is_empty() {
                    return Err(Wrong::Length);
                }
                Self::MetaContext { set: number == option::SET_META_CONTEXT, name, queries }
            }
            _ => Self::Other,
        })
    }
}

/// The next bytes of a number.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Wrong> {
    let (now, after) = rest.split_first_chunk::<N>().ok_or(Wrong::Length)?;
    *rest = after;
    Ok(*now)
}

/// A string with its length before it.
fn counted<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Wrong> {
    let length = u32::from_be_bytes(take(rest)?) as usize;
    let (now, after) = rest.split_at_checked(length).ok_or(Wrong::Length)?;
    *rest = after;
    string(now)
}

fn string(bytes: &[u8]) -> Result<&str, Wrong> {
    if bytes.len() > MAX_STRING || bytes.contains(&0) {
        return Err(Wrong::String);
    }
    std::str::from_utf8(bytes).map_err(|_| Wrong::String)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    fn with_length(text: &str) -> Vec<u8> {
        [&(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat()
    }

    #[test]
    fn options_are_read() {
        let go = [&with_length("disk")[..], &[0, 3, 0, 1, 0, 3, 0, 99]].concat();
        let wants = Wants { name: true, description: false };
        let asked = Asked::Info { go: true, name: "disk", wants };
        assert_eq!(Asked::parse(option::GO, &go), Ok(asked));
        let set = [&with_length("d")[..], &[0, 0, 0, 1], &with_length("base:allocation")].concat();
        let queries = vec!["base:allocation"];
        let asked = Asked::MetaContext { set: true, name: "d", queries };
        assert_eq!(Asked::parse(option::SET_META_CONTEXT, &set), Ok(asked));
        assert_eq!(Asked::parse(option::ABORT, b"bye"), Ok(Asked::Abort));
        assert_eq!(Asked::parse(4, b"anything"), Ok(Asked::Other));
    }

    #[test]
    fn what_is_no_option_is_refused() {
        assert_eq!(Asked::parse(option::LIST, b"x"), Err(Wrong::Data));
        assert_eq!(Asked::parse(option::EXPORT_NAME, b"a\0"), Err(Wrong::String));
        assert_eq!(Asked::parse(option::EXPORT_NAME, &[b'a'; 4097]), Err(Wrong::String));
        assert_eq!(Asked::parse(option::EXPORT_NAME, &[0xff]), Err(Wrong::String));
        // A name that is longer than the data, one request for information too many, and too few.
        assert_eq!(Asked::parse(option::GO, &[0xff, 0xff, 0xff, 0xff, 1]), Err(Wrong::Length));
        let name = with_length("n");
        for count in [[0, 2, 0, 1], [0, 0, 0, 1]] {
            let data = [&name[..], &count].concat();
            assert_eq!(Asked::parse(option::INFO, &data), Err(Wrong::Length));
        }
        let many = [&name[..], &[0xff; 4]].concat();
        assert_eq!(Asked::parse(option::LIST_META_CONTEXT, &many), Err(Wrong::TooMany));
        let no_colon = [&name[..], &[0, 0, 0, 1], &with_length("allocation")].concat();
        assert_eq!(Asked::parse(option::SET_META_CONTEXT, &no_colon), Err(Wrong::Query));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(number in 0_u32..14, data: Vec<u8>) {
            let _ = Asked::parse(number, &data);
        }

        #[test]
        fn names_come_through(name in "[^\0]{0,80}", wanted: Vec<u16>) {
            let mut data = with_length(&name);
            data.extend((wanted.len() as u16).to_be_bytes());
            data.extend(wanted.iter().flat_map(|one| one.to_be_bytes()));
            let read = Asked::parse(option::INFO, &data);
            let wants = Wants { name: wanted.contains(&1), description: wanted.contains(&2) };
            prop_assert_eq!(read, Ok(Asked::Info { go: false, name: &name, wants }));
        }
    }
}
