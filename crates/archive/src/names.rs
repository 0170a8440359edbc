//! Names of users and groups, so that owners can be found again on another machine.
//!
//! # Format of the table
//! A node without references whose payload is: tag (1 byte: 19); the number of users (varint),
//! each as number (varint) and name (byte string), by ascending number; the groups likewise.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use strongroom_engine::codec::{DecodeError, Reader, Writer};
use strongroom_engine::node::Node;

/// The first payload byte of a table of names.
pub const NAMES_TAG: u8 = 19;

/// Which numbers have which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Users.
    pub users: BTreeMap<u32, Vec<u8>>,
    /// Groups.
    pub groups: BTreeMap<u32, Vec<u8>>,
}

impl Names {
    /// What this machine's `/etc/passwd` and `/etc/group` say; a missing file says nothing.
    /// Directory services are not asked: their users keep their numbers.
    pub fn of_this_machine() -> Self {
        Self { users: read(Path::new("/etc/passwd")), groups: read(Path::new("/etc/group")) }
    }

    /// Only those that are used.
    pub fn only(mut self, users: impl Fn(u32) -> bool, groups: impl Fn(u32) -> bool) -> Self {
        self.users.retain(|id, _| users(*id));
        self.groups.retain(|id, _| groups(*id));
        self
    }

    /// The table as a node.
    pub fn encode(&self) -> Node {
        let mut w = Writer::new();
        w.byte(NAMES_TAG);
        for table in [&self.users, &self.groups] {
            w.uint(table.len() as u64);
            for (id, name) in table {
                w.uint(u64::from(*id));
                w.bytes(name);
            }
        }
        Node { payload: w.finish(), ..Node::default() }
    }

    /// Reads what [`Names::encode`] wrote.
    ///
    /// # Errors
    /// [`DecodeError`] for what isn't a table of names.
    pub fn decode(node: &Node) -> Result<Self, DecodeError> {
        let mut r = Reader::new(&node.payload);
        if r.byte()? != NAMES_TAG {
            return Err(DecodeError::Unknown("the tag of a table of names"));
        }
        let mut table = || -> Result<_, DecodeError> {
            let count = r.count(2)?;
            (0..count).map(|_| Ok((r.uint32()?, r.bytes()?.to_vec()))).collect()
        };
        let names = Self { users: table()?, groups: table()? };
        r.end()?;
        Ok(names)
    }

    /// For each number of this table, the number that the same name has in `here`. Numbers without
    /// a name, or whose name isn't known there, stay as they are.
    pub fn translate(&self, here: &Self) -> Owners {
        let table = |from: &BTreeMap<u32, Vec<u8>>, to: &BTreeMap<u32, Vec<u8>>| {
            let by_name: HashMap<_, _> = to.iter().map(|(id, name)| (name, *id)).collect();
            from.iter()
                .filter_map(|(id, name)| Some((*id, *by_name.get(name)?)))
                .filter(|(old, new)| old != new)
                .collect()
        };
        Owners { users: table(&self.users, &here.users), groups: table(&self.groups, &here.groups) }
    }
}

/// Which numbers become which when an image is restored.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    users: HashMap<u32, u32>,
    groups: HashMap<u32, u32>,
}

impl Owners {
    /// The owner here.
    pub fn user(&self, id: u32) -> u32 {
        self.users.get(&id).copied().unwrap_or(id)
    }

    /// The group here.
    pub fn group(&self, id: u32) -> u32 {
        self.groups.get(&id).copied().unwrap_or(id)
    }
}

fn read(path: &Path) -> BTreeMap<u32, Vec<u8>> {
    parse(&std::fs::read(path).unwrap_or_default())
}

/// Lines of `name:password:number:...` (passwd(5), group(5)); the first line of a number counts.
fn parse(text: &[u8]) -> BTreeMap<u32, Vec<u8>> {
    let mut table = BTreeMap::new();
    for line in text.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b':');
        let (Some(name), Some(id)) = (fields.next(), fields.nth(1)) else { continue };
        let id = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
        if let (Some(id), false) = (id, name.is_empty()) {
            table.entry(id).or_insert_with(|| name.to_vec());
        }
    }
    table
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn names_move_with_their_numbers() {
        let there = Names {
            users: parse(b"root:x:0:0::/:\nann:x:1000:1000::/:\nbob:x:1001:1::/:\nbroken\n"),
            groups: parse(b"staff:x:50:\n"),
        };
        let here = Names {
            users: parse(b"root:x:0:0::/:\nbob:x:1000:1::/:\n"),
            groups: parse(b"staff:x:20:\n"),
        };
        let read = Names::decode(&there.encode()).unwrap();
        assert_eq!(read, there);
        let owners = read.translate(&here);
        assert_eq!(owners.user(0), 0);
        assert_eq!(owners.user(1000), 1000, "ann is not known here and keeps her number");
        assert_eq!(owners.user(1001), 1000);
        assert_eq!(owners.group(50), 20);
    }
}
