//! The commands that a unit knows: the one table that they are looked up in and reported from (SPC-4 6.29).

/// What of a reservation a command respects (SPC-4 table 66, SBC-3 table 13).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// None at all.
    Free,
    /// RESERVE (6) of another, but no persistent one.
    Status,
    /// It reads.
    Read,
    /// It writes, or changes the unit.
    Write,
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    /// The operation code.
    pub(super) code: u8,
    /// The service action, of codes that have several.
    pub(super) action: Option<u8>,
    /// Which bits of the CDB have a meaning; as long as the CDB.
    pub(super) usage: &'static [u8],
    /// What of a reservation it respects.
    pub(super) access: Access,
    /// Only units that can do this know it.
    needs: Option<Ability>,
}

/// What only some units can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ability {
    /// Give blocks back.
    Thin,
    /// Write several blocks as one.
    Atomic,
}

impl Command {
    fn is_known(&self, can: &impl Fn(Ability) -> bool) -> bool {
        self.needs.is_none_or(can)
    }
}

const fn plain(code: u8, access: Access, usage: &'static [u8]) -> Command {
    Command { code, action: None, usage, access, needs: None }
}

const fn action(code: u8, action: u8, access: Access, usage: &'static [u8]) -> Command {
    Command { code, action: Some(action), usage, access, needs: None }
}

const F: u8 = 0xff;

use Access::{Free, Read, Status, Write};

/// All of them.
pub(super) const COMMANDS: &[Command] = &[
    plain(0x00, Status, &[0x00, 0, 0, 0, 0, 0x04]), // TEST UNIT READY
    plain(0x03, Free, &[0x03, 1, 0, 0, F, 0x04]),   // REQUEST SENSE
    plain(0x08, Read, &[0x08, 0x1f, F, F, F, 0x04]), // READ (6)
    plain(0x0a, Write, &[0x0a, 0x1f, F, F, F, 0x04]), // WRITE (6)
    plain(0x12, Free, &[0x12, 1, F, F, F, 0x04]),   // INQUIRY
    plain(0x15, Write, &[0x15, 0x11, 0, 0, F, 0x04]), // MODE SELECT (6)
    plain(0x16, Status, &[0x16, 0, 0, 0, 0, 0x04]), // RESERVE (6)
    plain(0x17, Status, &[0x17, 0, 0, 0, 0, 0x04]), // RELEASE (6)
    plain(0x1a, Write, &[0x1a, 0x08, F, F, F, 0x04]), // MODE SENSE (6)
    plain(0x1b, Write, &[0x1b, 0x01, 0, 0, 0xf7, 0x04]), // START STOP UNIT
    plain(0x1e, Status, &[0x1e, 0, 0, 0, 0x01, 0x04]), // PREVENT ALLOW MEDIUM REMOVAL
    plain(0x25, Status, &[0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0x04]), // READ CAPACITY (10)
    plain(0x28, Read, &[0x28, 0xf8, F, F, F, F, 0, F, F, 0x04]), // READ (10)
    plain(0x2a, Write, &[0x2a, 0xf8, F, F, F, F, 0, F, F, 0x04]), // WRITE (10)
    plain(0x2e, Write, &[0x2e, 0xf6, F, F, F, F, 0, F, F, 0x04]), // WRITE AND VERIFY (10)
    plain(0x2f, Read, &[0x2f, 0xf6, F, F, F, F, 0, F, F, 0x04]), // VERIFY (10)
    plain(0x34, Read, &[0x34, 0x02, F, F, F, F, 0, F, F, 0x04]), // PRE-FETCH (10)
    plain(0x35, Write, &[0x35, 0x02, F, F, F, F, 0, F, F, 0x04]), // SYNCHRONIZE CACHE (10)
    plain(0x37, Read, &[0x37, 0, 0x1f, 0, 0, 0, 0, F, F, 0x04]), // READ DEFECT DATA (10)
    plain(0x41, Write, &[0x41, 0xf8, F, F, F, F, 0, F, F, 0x04]), // WRITE SAME (10)
    Command {
        needs: Some(Ability::Thin),
        ..plain(0x42, Write, &[0x42, 0, 0, 0, 0, 0, 0, F, F, 0x04]) // UNMAP
    },
    plain(0x55, Write, &[0x55, 0x11, 0, 0, 0, 0, 0, F, F, 0x04]), // MODE SELECT (10)
    plain(0x5a, Write, &[0x5a, 0x18, F, F, 0, 0, 0, F, F, 0x04]), // MODE SENSE (10)
    action(0x5e, 0, Status, &[0x5e, 0x00, 0, 0, 0, 0, 0, F, F, 0x04]), // READ KEYS
    action(0x5e, 1, Status, &[0x5e, 0x01, 0, 0, 0, 0, 0, F, F, 0x04]), // READ RESERVATION
    action(0x5e, 2, Status, &[0x5e, 0x02, 0, 0, 0, 0, 0, F, F, 0x04]), // REPORT CAPABILITIES
    action(0x5e, 3, Status, &[0x5e, 0x03, 0, 0, 0, 0, 0, F, F, 0x04]), // READ FULL STATUS
    action(0x5f, 0, Status, &[0x5f, 0x00, F, 0, 0, F, F, F, F, 0x04]), // REGISTER
    action(0x5f, 1, Status, &[0x5f, 0x01, F, 0, 0, F, F, F, F, 0x04]), // RESERVE
    action(0x5f, 2, Status, &[0x5f, 0x02, F, 0, 0, F, F, F, F, 0x04]), // RELEASE
    action(0x5f, 3, Status, &[0x5f, 0x03, F, 0, 0, F, F, F, F, 0x04]), // CLEAR
    action(0x5f, 4, Status, &[0x5f, 0x04, F, 0, 0, F, F, F, F, 0x04]), // PREEMPT
    action(0x5f, 5, Status, &[0x5f, 0x05, F, 0, 0, F, F, F, F, 0x04]), // PREEMPT AND ABORT
    action(0x5f, 6, Status, &[0x5f, 0x06, F, 0, 0, F, F, F, F, 0x04]), // REGISTER AND IGNORE
    action(0x83, 0, Write, &[0x83, 0x00, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0x04]), // EXTENDED COPY
    action(0x84, 0, Read, &[0x84, 0x00, F, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0x04]), // RECEIVE COPY STATUS
    action(0x84, 3, Read, &[0x84, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0x04]), // RECEIVE COPY PARAMETERS
    plain(0x88, Read, &[0x88, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]),     // READ (16)
    plain(0x89, Write, &[0x89, 0xf8, F, F, F, F, F, F, F, F, 0, 0, 0, F, 0, 0x04]), // COMPARE AND WRITE
    plain(0x8a, Write, &[0x8a, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // WRITE (16)
    plain(0x8b, Write, &[0x8b, 0xf8, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // ORWRITE (16)
    plain(0x8e, Write, &[0x8e, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // WRITE AND VERIFY (16)
    plain(0x8f, Read, &[0x8f, 0xf6, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]),  // VERIFY (16)
    plain(0x90, Read, &[0x90, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // PRE-FETCH (16)
    plain(0x91, Write, &[0x91, 0x02, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // SYNCHRONIZE CACHE (16)
    plain(0x93, Write, &[0x93, 0xf9, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // WRITE SAME (16)
    Command {
        needs: Some(Ability::Atomic),
        ..plain(0x9c, Write, &[0x9c, 0xf8, F, F, F, F, F, F, F, F, 0, 0, F, F, 0, 0x04]) // WRITE ATOMIC (16)
    },
    action(0x9e, 0x10, Status, &[0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, F, F, F, F, 0, 0x04]), // READ CAPACITY (16)
    action(0x9e, 0x12, Read, &[0x9e, 0x12, F, F, F, F, F, F, F, F, F, F, F, F, 0, 0x04]), // GET LBA STATUS
    plain(0xa0, Free, &[0xa0, 0, F, 0, 0, 0, F, F, F, F, 0, 0x04]), // REPORT LUNS
    action(0xa3, 0x0c, Status, &[0xa3, 0x0c, 0x87, F, F, F, F, F, F, F, 0, 0x04]), // REPORT SUPPORTED OPERATION CODES
    plain(0xa8, Read, &[0xa8, 0xf8, F, F, F, F, F, F, F, F, 0, 0x04]),             // READ (12)
    plain(0xaa, Write, &[0xaa, 0xf8, F, F, F, F, F, F, F, F, 0, 0x04]),            // WRITE (12)
    plain(0xae, Write, &[0xae, 0xf6, F, F, F, F, F, F, F, F, 0, 0x04]), // WRITE AND VERIFY (12)
    plain(0xaf, Read, &[0xaf, 0xf6, F, F, F, F, F, F, F, F, 0, 0x04]),  // VERIFY (12)
    plain(0xb7, Read, &[0xb7, 0x1f, F, F, F, F, F, F, F, F, 0, 0x04]),  // READ DEFECT DATA (12)
];

/// The command of a CDB, or whether only its service action isn't known.
pub(super) fn find(
    cdb: &[u8; 16],
    can: impl Fn(Ability) -> bool,
) -> Result<&'static Command, Unknown> {
    let [code, second, ..] = *cdb;
    let mut of_code = COMMANDS.iter().filter(|one| one.code == code && one.is_known(&can));
    let mut is_known = false;
    let found = of_code.find(|one| {
        is_known = true;
        one.action.is_none_or(|action| action == second & 0x1f)
    });
    found.ok_or(if is_known { Unknown::Action } else { Unknown::Code })
}

/// What isn't known of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unknown {
    /// Its operation code.
    Code,
    /// Its service action.
    Action,
}

/// Answers REPORT SUPPORTED OPERATION CODES; `None` when what is asked for makes no sense.
pub(super) fn report(cdb: &[u8; 16], can: impl Fn(Ability) -> bool) -> Option<Vec<u8>> {
    let [_, _, options, code, high, low, ..] = *cdb;
    let action = u16::from_be_bytes([high, low]);
    let (has_timeouts, options) = (options & 0x80 != 0, options & 7);
    let known = || COMMANDS.iter().filter(|one| one.is_known(&can));
    let mut bytes = Vec::new();
    if options == 0 {
        bytes.extend_from_slice(&[0; 4]);
        for one in known() {
            let flags = u8::from(has_timeouts) << 1 | u8::from(one.action.is_some());
            bytes.extend_from_slice(&[one.code, 0, 0, one.action.unwrap_or(0), 0, flags]);
            bytes.extend_from_slice(&u16::try_from(one.usage.len()).unwrap_or(0).to_be_bytes());
            if has_timeouts {
                bytes.extend_from_slice(&TIMEOUTS);
            }
        }
        let length = u32::try_from(bytes.len() - 4).unwrap_or(0).to_be_bytes();
        bytes.iter_mut().zip(length).for_each(|(place, byte)| *place = byte);
        return Some(bytes);
    }
    let has_actions = known().any(|one| one.code == code && one.action.is_some());
    let is_code = known().any(|one| one.code == code);
    let wants_action = match options {
        1 if has_actions => return None,
        1 => false,
        2 if is_code && !has_actions => return None,
        2 => true,
        3 => has_actions,
        _ => return None,
    };
    let found = known().find(|one| {
        one.code == code
            && if wants_action { one.action.map(u16::from) == Some(action) } else { true }
            // With neither, a service action must not be named (SPC-4 table 209).
            && (wants_action || options != 3 || action == 0)
    });
    let ctdp = if has_timeouts && found.is_some() { 0x80 } else { 0 };
    let support = if found.is_some() { 3 } else { 1 };
    let usage = found.map_or(&[][..], |one| one.usage);
    let [a, b] = u16::try_from(usage.len()).unwrap_or(0).to_be_bytes();
    bytes.extend_from_slice(&[0, ctdp | support, a, b]);
    bytes.extend_from_slice(usage);
    if ctdp != 0 {
        bytes.extend_from_slice(&TIMEOUTS);
    }
    Some(bytes)
}

/// The command timeouts descriptor: no times are told.
const TIMEOUTS: [u8; 12] = [0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn each_says_its_own_code_and_length() {
        for one in COMMANDS {
            assert_eq!(one.usage.first(), Some(&one.code));
            let length = match one.code >> 5 {
                0 => 6,
                1 | 2 => 10,
                4 => 16,
                _ => 12,
            };
            assert_eq!(one.usage.len(), length, "{:x}", one.code);
            let mut cdb = [0; 16];
            (cdb[0], cdb[1]) = (one.code, one.action.unwrap_or(0));
            assert_eq!(find(&cdb, |_| true).unwrap().usage, one.usage);
        }
    }

    #[test]
    fn what_is_unknown_is_told() {
        let mut cdb = [0; 16];
        cdb[0] = 0xff;
        assert_eq!(find(&cdb, |_| true).err(), Some(Unknown::Code));
        (cdb[0], cdb[1]) = (0x9e, 0x1f);
        assert_eq!(find(&cdb, |_| true).err(), Some(Unknown::Action));
        cdb[0] = 0x42;
        assert_eq!(find(&cdb, |one| one != Ability::Thin).err(), Some(Unknown::Code));
        cdb[0] = 0x9c;
        assert_eq!(find(&cdb, |one| one != Ability::Atomic).err(), Some(Unknown::Code));
    }
}
