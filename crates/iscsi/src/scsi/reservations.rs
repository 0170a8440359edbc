//! Reservations: RESERVE (6) of SPC-2, and persistent ones (SPC-4 5.13).

use super::opcodes::Access;
use super::sense::{Attention, Sense};

/// Registrations that a unit holds at most.
const MOST: usize = 256;
/// Bytes of a TransportID.
const LONGEST_PORT: usize = 512;
/// What kept reservations begin with.
const MAGIC: &[u8; 8] = b"SRRESV01";

/// The type of a persistent reservation (SPC-4 table 174).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Kind {
    WriteExclusive = 1,
    ExclusiveAccess = 3,
    WriteExclusiveRegistrants = 5,
    ExclusiveAccessRegistrants = 6,
    WriteExclusiveAll = 7,
    ExclusiveAccessAll = 8,
}

impl Kind {
    fn of(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::WriteExclusive,
            3 => Self::ExclusiveAccess,
            5 => Self::WriteExclusiveRegistrants,
            6 => Self::ExclusiveAccessRegistrants,
            7 => Self::WriteExclusiveAll,
            8 => Self::ExclusiveAccessAll,
            _ => return None,
        })
    }

    fn is_for_all(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }

    fn is_for_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    fn lets_read(self) -> bool {
        use Kind::{WriteExclusive, WriteExclusiveAll, WriteExclusiveRegistrants};
        matches!(self, WriteExclusive | WriteExclusiveRegistrants | WriteExclusiveAll)
    }
}

/// An initiator port that said its key. Ports are known by their TransportID (SPC-4 7.6.4), so that one
/// that comes back after it lost its session finds its own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Registration {
    port: Vec<u8>,
    key: u64,
}

/// A reservation; who holds one for all registrants is nobody in particular.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reservation {
    kind: Kind,
    holder: Vec<u8>,
}

/// The persistent reservations of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations {
    registrations: Vec<Registration>,
    reservation: Option<Reservation>,
    generation: u32,
    /// They outlast a restart (APTPL).
    is_kept: bool,
}

/// Why a command didn't do what it was to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// RESERVATION CONFLICT.
    Conflict,
    /// CHECK CONDITION.
    Check(Sense),
}

impl From<Sense> for Denied {
    fn from(sense: Sense) -> Self {
        Self::Check(sense)
    }
}

/// What others are to hear of a change: their ports, what, and whether their tasks end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Whom to tell what.
    pub told: Vec<(Vec<u8>, Attention)>,
    /// Whose tasks are aborted.
    pub aborted: Vec<Vec<u8>>,
}

/// A PERSISTENT RESERVE OUT.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// The service action.
    pub action: u8,
    /// Scope and type.
    pub kind: u8,
    /// The parameters.
    pub parameters: &'a [u8],
    /// There is a place where they are kept.
    pub can_keep: bool,
}

impl Reservations {
    /// Nobody registered.
    pub fn is_empty(&self) -> bool {
        self.registrations.is_empty()
    }

    /// Whether something is reserved.
    pub fn is_reserved(&self) -> bool {
        self.reservation.is_some()
    }

    fn key(&self, port: &[u8]) -> Option<u64> {
        self.registrations.iter().find(|one| one.port == port).map(|one| one.key)
    }

    fn holds(&self, port: &[u8]) -> bool {
        match &self.reservation {
            Some(held) if held.kind.is_for_all() => self.key(port).is_some(),
            Some(held) => held.holder == port,
            None => false,
        }
    }

    /// Whether a command of that port may go on (SPC-4 table 66).
    pub fn permits(&self, port: &[u8], access: Access) -> bool {
        let Some(held) = &self.reservation else { return true };
        match access {
            Access::Free | Access::Status => true,
            _ if self.holds(port) => true,
            _ if held.kind.is_for_registrants() && self.key(port).is_some() => true,
            Access::Read => held.kind.lets_read(),
            Access::Write => false,
        }
    }

    /// Does what PERSISTENT RESERVE OUT asks for (SPC-4 6.16).
    ///
    /// # Errors
    /// [`Denied`]; then nothing changed.
    pub fn change(&mut self, port: &[u8], change: Change<'_>) -> Result<Effects, Denied> {
        let parameters: &[u8; 24] = change.parameters.try_into().map_err(|_| Sense::LIST_LENGTH)?;
        let word = |at: usize| {
            let bytes = parameters.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_be_bytes(bytes.unwrap_or_default())
        };
        let (key, new, flags) = (word(0), word(8), parameters[20]);
        // No other ports are registered along (SPEC_I_PT, ALL_TG_PT).
        if flags & 0x0c != 0 {
            return Err(Sense::invalid_parameter(20).into());
        }
        let keep = flags & 1 != 0;
        let registered = self.key(port);
        if matches!(change.action, 0 | 6) {
            if keep && !change.can_keep {
                return Err(Sense::invalid_parameter(20).into());
            }
            let is_free = change.action == 6;
            return self.register(port, registered, (!is_free).then_some(key), new, keep);
        }
        if registered != Some(key) {
            return Err(Denied::Conflict);
        }
        let kind = || {
            let kind = Kind::of(change.kind & 0x0f).filter(|_| change.kind >> 4 == 0);
            kind.ok_or(Sense::invalid_field(2))
        };
        match change.action {
            1 => self.reserve(port, kind()?),
            2 => self.release(port, kind()?),
            3 => Ok(self.clear(port)),
            4 => self.preempt(port, new, kind()?, false),
            5 => self.preempt(port, new, kind()?, true),
            _ => Err(Sense::invalid_field(1).into()),
        }
    }

    fn register(
        &mut self,
        port: &[u8],
        registered: Option<u64>,
        key: Option<u64>,
        new: u64,
        keep: bool,
    ) -> Result<Effects, Denied> {
        // Who isn't registered says the key 0; REGISTER AND IGNORE EXISTING KEY asks for none.
        if key.is_some_and(|key| key != registered.unwrap_or(0)) {
            return Err(Denied::Conflict);
        }
        let mut effects = Effects::default();
        match (registered, new) {
            (None, 0) => {}
            (None, _) if self.registrations.len() >= MOST => {
                return Err(Sense::TOO_MANY_REGISTRATIONS.into());
            }
            (None, _) => self.registrations.push(Registration { port: port.to_vec(), key: new }),
            (Some(_), 0) => {
                let held = self.holds(port);
                self.registrations.retain(|one| one.port != port);
                if held {
                    effects = self.released_by_leaving();
                }
            }
            (Some(_), _) => {
                let own = self.registrations.iter_mut().find(|one| one.port == port);
                own.into_iter().for_each(|one| one.key = new);
            }
        }
        self.is_kept = keep;
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    /// The holder, or one of them, is registered no more.
    fn released_by_leaving(&mut self) -> Effects {
        let Some(held) = &self.reservation else { return Effects::default() };
        let kind = held.kind;
        if kind.is_for_all() && !self.registrations.is_empty() {
            return Effects::default();
        }
        self.reservation = None;
        match kind.is_for_registrants() {
            true => self.tell_others(&[], Attention::ReservationsReleased),
            false => Effects::default(),
        }
    }

    fn tell_others(&self, but: &[u8], what: Attention) -> Effects {
        let others = self.registrations.iter().filter(|one| one.port != but);
        let told = others.map(|one| (one.port.clone(), what)).collect();
        Effects { told, aborted: Vec::new() }
    }

    fn reserve(&mut self, port: &[u8], kind: Kind) -> Result<Effects, Denied> {
        match &self.reservation {
            None => self.reservation = Some(Reservation { kind, holder: port.to_vec() }),
            Some(held) if self.holds(port) && held.kind == kind => {}
            Some(_) => return Err(Denied::Conflict),
        }
        Ok(Effects::default())
    }

    fn release(&mut self, port: &[u8], kind: Kind) -> Result<Effects, Denied> {
        match &self.reservation {
            Some(held) if self.holds(port) => {
                if held.kind != kind {
                    return Err(Sense::INVALID_RELEASE.into());
                }
                self.reservation = None;
                Ok(match kind.is_for_registrants() {
                    true => self.tell_others(port, Attention::ReservationsReleased),
                    false => Effects::default(),
                })
            }
            _ => Ok(Effects::default()),
        }
    }

    fn clear(&mut self, port: &[u8]) -> Effects {
        let effects = self.tell_others(port, Attention::ReservationsPreempted);
        self.registrations.clear();
        self.reservation = None;
        self.generation = self.generation.wrapping_add(1);
        effects
    }

    fn preempt(
        &mut self,
        port: &[u8],
        victim: u64,
        kind: Kind,
        aborts: bool,
    ) -> Result<Effects, Denied> {
        let held = self.reservation.clone();
        let is_for_all = held.as_ref().is_some_and(|held| held.kind.is_for_all());
        if victim == 0 && !is_for_all {
            return Err(Sense::invalid_parameter(8).into());
        }
        let holder_key = held.as_ref().and_then(|held| self.key(&held.holder));
        let takes = match &held {
            Some(_) if is_for_all => victim == 0,
            Some(held) => holder_key == Some(victim) || self.key(&held.holder).is_none(),
            None => false,
        };
        let is_victim = |one: &Registration| {
            one.port != port && if victim == 0 { true } else { one.key == victim }
        };
        let removed: Vec<Vec<u8>> = self
            .registrations
            .iter()
            .filter(|one| is_victim(one))
            .map(|o| o.port.clone())
            .collect();
        let is_own = self.key(port) == Some(victim);
        if removed.is_empty() && !takes && !is_own {
            return Err(Denied::Conflict);
        }
        self.registrations.retain(|one| !is_victim(one));
        let mut effects = Effects::default();
        for gone in &removed {
            effects.told.push((gone.clone(), Attention::RegistrationsPreempted));
        }
        if takes {
            let before = held.map(|held| held.kind);
            self.reservation = Some(Reservation { kind, holder: port.to_vec() });
            if before != Some(kind) {
                let others = self.tell_others(port, Attention::ReservationsReleased);
                effects.told.extend(others.told);
            }
        }
        if aborts {
            effects.aborted = removed;
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(effects)
    }

    /// Answers PERSISTENT RESERVE IN (SPC-4 6.15); `None` for an unknown service action.
    pub fn report(&self, action: u8, can_keep: bool) -> Option<Vec<u8>> {
        let with_length = |body: Vec<u8>| {
            let mut bytes = self.generation.to_be_bytes().to_vec();
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(0).to_be_bytes());
            bytes.extend(body);
            bytes
        };
        Some(match action {
            0 => with_length(self.registrations.iter().flat_map(|o| o.key.to_be_bytes()).collect()),
            1 => with_length(
                self.reservation
                    .iter()
                    .flat_map(|held| {
                        let key =
                            if held.kind.is_for_all() { None } else { self.key(&held.holder) };
                        let mut body = key.unwrap_or(0).to_be_bytes().to_vec();
                        body.extend_from_slice(&[0, 0, 0, 0, 0, held.kind as u8, 0, 0]);
                        body
                    })
                    .collect(),
            ),
            // PTPL_C; TMV, PTPL_A; all six types.
            2 => {
                let (able, active) = (u8::from(can_keep), u8::from(self.is_kept));
                vec![0, 8, able, 0x80 | active, 0xea, 0x01, 0, 0]
            }
            3 => with_length(
                self.registrations
                    .iter()
                    .flat_map(|one| {
                        let mut body = one.key.to_be_bytes().to_vec();
                        let holds = self.holds(&one.port);
                        let kind =
                            self.reservation.as_ref().filter(|_| holds).map_or(0, |h| h.kind as u8);
                        body.extend_from_slice(&[
                            0,
                            0,
                            0,
                            0,
                            u8::from(holds),
                            kind,
                            0,
                            0,
                            0,
                            0,
                            0,
                            1,
                        ]);
                        let length = u32::try_from(one.port.len()).unwrap_or(0);
                        body.extend_from_slice(&length.to_be_bytes());
                        body.extend_from_slice(&one.port);
                        body
                    })
                    .collect(),
            ),
            _ => return None,
        })
    }

    /// What is to be kept over a restart: nothing, unless an initiator asked for it (APTPL).
    pub fn kept(&self) -> Option<Vec<u8>> {
        if !self.is_kept || self.registrations.is_empty() {
            return None;
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        let put = |bytes: &mut Vec<u8>, port: &[u8]| {
            bytes.extend_from_slice(&u16::try_from(port.len()).unwrap_or(0).to_be_bytes());
            bytes.extend_from_slice(port);
        };
        match &self.reservation {
            Some(held) => {
                bytes.push(held.kind as u8);
                put(&mut bytes, &held.holder);
            }
            None => bytes.push(0),
        }
        for one in &self.registrations {
            bytes.extend_from_slice(&one.key.to_be_bytes());
            put(&mut bytes, &one.port);
        }
        Some(bytes)
    }

    /// Takes up what was kept; `None` when that is no such thing.
    pub fn take_up(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let generation = u32::from_be_bytes(take(&mut rest)?);
        let [kind] = take(&mut rest)?;
        let reservation = match kind {
            0 => None,
            kind => Some(Reservation { kind: Kind::of(kind)?, holder: port(&mut rest)? }),
        };
        let mut all = Self { registrations: Vec::new(), reservation, generation, is_kept: true };
        while !rest.is_empty() {
            let key = u64::from_be_bytes(take(&mut rest)?);
            let port = port(&mut rest)?;
            if all.registrations.len() >= MOST || key == 0 || all.key(&port).is_some() {
                return None;
            }
            all.registrations.push(Registration { port, key });
        }
        let is_held_by_one = |held: &Reservation| all.key(&held.holder).is_some();
        let is_sound = all.reservation.as_ref().is_none_or(|held| {
            is_held_by_one(held) || held.kind.is_for_all() && !all.registrations.is_empty()
        });
        is_sound.then_some(all)
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (found, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*found)
}

fn port(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(take(rest)?));
    let (port, after) = rest.split_at_checked(length).filter(|_| length <= LONGEST_PORT)?;
    *rest = after;
    Some(port.to_vec())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn out(
        all: &mut Reservations,
        port: &[u8],
        action: u8,
        kind: u8,
        keys: (u64, u64),
    ) -> Result<Effects, Denied> {
        let mut parameters = [0; 24];
        parameters[..8].copy_from_slice(&keys.0.to_be_bytes());
        parameters[8..16].copy_from_slice(&keys.1.to_be_bytes());
        parameters[20] = 1;
        all.change(port, Change { action, kind, parameters: &parameters, can_keep: true })
    }

    fn two() -> Reservations {
        let mut all = Reservations::default();
        out(&mut all, b"a", 0, 0, (0, 1)).unwrap();
        out(&mut all, b"b", 0, 0, (0, 2)).unwrap();
        all
    }

    #[test]
    fn only_who_is_registered_reserves() {
        let mut all = two();
        assert_eq!(out(&mut all, b"c", 1, 1, (0, 0)), Err(Denied::Conflict));
        assert_eq!(out(&mut all, b"a", 1, 1, (9, 0)), Err(Denied::Conflict));
        out(&mut all, b"a", 1, 1, (1, 0)).unwrap();
        out(&mut all, b"a", 1, 1, (1, 0)).unwrap();
        assert_eq!(out(&mut all, b"b", 1, 1, (2, 0)), Err(Denied::Conflict));
        assert_eq!(out(&mut all, b"a", 1, 3, (1, 0)), Err(Denied::Conflict));
        assert!(all.permits(b"b", Access::Read) && !all.permits(b"b", Access::Write));
        assert!(all.permits(b"a", Access::Write) && all.permits(b"c", Access::Status));
        let wrong = Err(Denied::Check(Sense::INVALID_RELEASE));
        assert_eq!(out(&mut all, b"a", 2, 3, (1, 0)), wrong);
        out(&mut all, b"a", 2, 1, (1, 0)).unwrap();
        assert!(all.permits(b"b", Access::Write));
    }

    #[test]
    fn kinds_differ_in_whom_they_let() {
        for (kind, registrant, stranger_reads) in [
            (1, false, true),
            (3, false, false),
            (5, true, true),
            (6, true, false),
            (7, true, true),
            (8, true, false),
        ] {
            let mut all = two();
            out(&mut all, b"a", 1, kind, (1, 0)).unwrap();
            assert_eq!(all.permits(b"b", Access::Write), registrant, "{kind}");
            assert_eq!(all.permits(b"c", Access::Read), stranger_reads, "{kind}");
            assert!(!all.permits(b"c", Access::Write));
        }
    }

    #[test]
    fn who_leaves_takes_the_reservation_along() {
        let mut all = two();
        out(&mut all, b"a", 1, 5, (1, 0)).unwrap();
        let effects = out(&mut all, b"a", 0, 0, (1, 0)).unwrap();
        assert_eq!(effects.told, [(b"b".to_vec(), Attention::ReservationsReleased)]);
        assert!(!all.is_reserved());
        let mut all = two();
        out(&mut all, b"a", 1, 7, (1, 0)).unwrap();
        out(&mut all, b"a", 0, 0, (1, 0)).unwrap();
        assert!(all.is_reserved());
        out(&mut all, b"b", 6, 0, (0, 0)).unwrap();
        assert!(!all.is_reserved());
    }

    #[test]
    fn preempting_takes_over() {
        let mut all = two();
        out(&mut all, b"a", 1, 3, (1, 0)).unwrap();
        assert_eq!(out(&mut all, b"b", 4, 3, (2, 77)), Err(Denied::Conflict));
        let effects = out(&mut all, b"b", 5, 1, (2, 1)).unwrap();
        assert_eq!(effects.told, [(b"a".to_vec(), Attention::RegistrationsPreempted)]);
        assert_eq!(effects.aborted, [b"a".to_vec()]);
        assert!(all.permits(b"b", Access::Write) && !all.permits(b"a", Access::Write));
        assert_eq!(out(&mut all, b"a", 2, 1, (1, 0)), Err(Denied::Conflict));
        let cleared = out(&mut all, b"b", 3, 0, (2, 0)).unwrap();
        assert_eq!((cleared, all.is_empty(), all.is_reserved()), (Effects::default(), true, false));
    }

    #[test]
    fn what_is_kept_is_taken_up_again() {
        let mut all = two();
        assert!(all.kept().is_some());
        out(&mut all, b"a", 1, 6, (1, 0)).unwrap();
        let kept = all.kept().unwrap();
        assert_eq!(Reservations::take_up(&kept), Some(all.clone()));
        for cut in 0..kept.len() {
            assert_ne!(Reservations::take_up(&kept[..cut]), Some(all.clone()), "{cut}");
        }
        assert_eq!(Reservations::default().kept(), None);
    }

    #[test]
    fn reports_are_as_long_as_they_say() {
        let mut all = two();
        out(&mut all, b"a", 1, 6, (1, 0)).unwrap();
        for (action, length) in [(0, 24), (1, 24), (2, 8), (3, 58)] {
            assert_eq!(all.report(action, true).unwrap().len(), length, "{action}");
        }
        assert_eq!(all.report(4, true), None);
    }
}
