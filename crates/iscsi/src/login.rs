//! Logging in (RFC 7143 section 6.3): what each request leads to, without sockets.

use std::fmt;
use std::sync::Arc;

use crate::auth::AuthGroup;
use crate::chap::{Algorithm, Answer, Question};
use crate::name;
use crate::negotiation::{OWN_DATA, Parameters, Reply};
use crate::pdu::{Header, Response, text};

/// Bytes of keys that an initiator may send in pieces.
const LONGEST_TEXT: usize = 64 << 10;
/// Requests that one login may take.
const MOST_REQUESTS: u32 = 64;

const SECURITY: u8 = 0;
const OPERATIONAL: u8 = 1;
const FULL_FEATURE: u8 = 3;

/// Why a login failed: class and detail of RFC 7143 section 11.13.5.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[expect(missing_docs, reason = "the names are the RFC's")]
pub enum Refusal {
    InitiatorError = 0x0200,
    AuthenticationFailure = 0x0201,
    AuthorizationFailure = 0x0202,
    NotFound = 0x0203,
    UnsupportedVersion = 0x0205,
    TooManyConnections = 0x0206,
    MissingParameter = 0x0207,
    SessionTypeNotSupported = 0x0209,
    SessionDoesNotExist = 0x020a,
    InvalidDuringLogin = 0x020b,
    TargetError = 0x0300,
    ServiceUnavailable = 0x0301,
    OutOfResources = 0x0302,
}

/// What the one who logs in is let in to.
pub trait Directory {
    /// A target.
    type Target;

    /// The target of that name, and who may log in to it.
    fn target(&self, name: &str) -> Option<(Self::Target, Arc<AuthGroup>)>;

    /// Who may ask for the names of targets.
    fn discovery(&self) -> Arc<AuthGroup>;

    /// The name that users give a target.
    fn alias(&self, target: &Self::Target) -> Option<String>;
}

/// Who logged in to what, and on which terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted<T> {
    /// The initiator's name.
    pub initiator: String,
    /// The initiator's part of the session's identity.
    pub isid: [u8; 6],
    /// The number that the initiator gave the connection.
    pub connection: u16,
    /// The target, or none for a discovery.
    pub target: Option<T>,
    /// What was agreed to.
    pub parameters: Parameters,
    /// The number of the first command.
    pub command_number: u32,
}

/// What a request leads to.
#[derive(Debug)]
pub enum Step<T> {
    /// This is to be sent, and the next request awaited.
    Send(Header, Vec<u8>),
    /// The login is done, once this was sent. Its TSIH is still to be set, by [`set_handle`].
    Done(Header, Vec<u8>, Accepted<T>),
    /// This is to be sent, and the connection closed.
    Refuse(Header, Refusal),
}

/// One login.
pub struct Login<'a, D: Directory> {
    directory: &'a D,
    first: Option<First<D::Target>>,
    stage: u8,
    proof: Proof,
    parameters: Parameters,
    has_declared: bool,
    pieces: Vec<u8>,
    status: u32,
    requests: u32,
    is_disproved: bool,
}

/// What the first request said.
struct First<T> {
    initiator: String,
    isid: [u8; 6],
    task: u32,
    connection: u16,
    command_number: u32,
    target: Option<T>,
    group: Arc<AuthGroup>,
    is_announced: bool,
    alias: Option<String>,
}

enum Proof {
    /// Nothing was said of it yet.
    None,
    /// CHAP was agreed to.
    Chap,
    /// And a question asked.
    Asked(Question),
    /// It was given, or isn't needed.
    Done,
}

impl<D: Directory> fmt::Debug for Login<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// Sets the session's handle (TSIH) in the last answer of a login.
pub fn set_handle(header: &mut Header, handle: u16) {
    header.set_half(14, handle);
}

impl<'a, D: Directory> Login<'a, D> {
    /// One that begins.
    pub fn new(directory: &'a D) -> Self {
        Self {
            directory,
            first: None,
            stage: SECURITY,
            proof: Proof::None,
            parameters: Parameters::default(),
            has_declared: false,
            pieces: Vec::new(),
            status: 0,
            requests: 0,
            is_disproved: false,
        }
    }

    /// Whether the next request is to bring the proof that was asked for.
    pub fn awaits_proof(&self) -> bool {
        matches!(self.proof, Proof::Asked(_))
    }

    /// Whether a proof was given that was wrong.
    pub fn is_disproved(&self) -> bool {
        self.is_disproved
    }

    /// The initiator's name, once it said it.
    pub fn initiator(&self) -> Option<&str> {
        self.first.as_ref().map(|first| &first.initiator[..])
    }

    /// The target, once it was named.
    pub fn target(&self) -> Option<&D::Target> {
        self.first.as_ref()?.target.as_ref()
    }

    /// Refuses a request without looking into it.
    pub fn refuse(&mut self, header: &Header, refusal: Refusal) -> Step<D::Target> {
        self.finish(header, |_, _| Err(refusal))
    }

    /// The number of the status after the last answer.
    pub fn next_status(&self) -> u32 {
        self.status
    }

    /// Takes a request.
    pub fn request(&mut self, header: &Header, data: &[u8]) -> Step<D::Target> {
        self.finish(header, |login, answer| login.step(header, data, answer))
    }

    fn finish(
        &mut self,
        header: &Header,
        step: impl FnOnce(&mut Self, Header) -> Result<Step<D::Target>, Refusal>,
    ) -> Step<D::Target> {
        let mut answer = Header::answer(Response::Login);
        answer.set_flags(0);
        answer.set_bytes(8, &header.bytes::<8>(8));
        answer.set_word(16, header.task());
        if self.requests == 0 {
            self.status = header.expected_status();
        }
        let step = step(self, answer);
        let mut step = step.unwrap_or_else(|refusal| {
            let mut answer = answer;
            answer.set_half(36, refusal as u16);
            Step::Refuse(answer, refusal)
        });
        let (Step::Send(answer, _) | Step::Done(answer, ..) | Step::Refuse(answer, _)) = &mut step;
        answer.set_word(24, self.status);
        answer.set_word(28, header.command_number());
        answer.set_word(32, header.command_number());
        self.status = self.status.wrapping_add(1);
        step
    }

    fn step(
        &mut self,
        header: &Header,
        data: &[u8],
        mut answer: Header,
    ) -> Result<Step<D::Target>, Refusal> {
        self.requests += 1;
        if self.requests > MOST_REQUESTS {
            return Err(Refusal::InitiatorError);
        }
        let flags = header.flags();
        let (wants_transit, continues) = (flags & 0x80 != 0, flags & 0x40 != 0);
        let (current, next) = (flags >> 2 & 3, flags & 3);
        let [_, _, _, least_version] = header.bytes(0);
        if least_version > 0 {
            return Err(Refusal::UnsupportedVersion);
        }
        let is_transit = matches!(
            (current, next),
            (SECURITY, OPERATIONAL | FULL_FEATURE) | (OPERATIONAL, FULL_FEATURE)
        );
        if wants_transit && (continues || !is_transit) {
            return Err(Refusal::InitiatorError);
        }
        if self.pieces.len() + data.len() > LONGEST_TEXT {
            return Err(Refusal::InitiatorError);
        }
        self.pieces.extend_from_slice(data);
        answer.set_flags(current << 2);
        if continues {
            return Ok(Step::Send(answer, Vec::new()));
        }
        let pieces = std::mem::take(&mut self.pieces);
        let pairs = text::read(&pieces).map_err(|_| Refusal::InitiatorError)?;
        let mut repeated: Vec<_> = pairs.iter().map(|(key, _)| *key).collect();
        repeated.sort_unstable();
        if repeated.windows(2).any(|two| two.first() == two.last()) {
            return Err(Refusal::InitiatorError);
        }

        if self.first.is_none() {
            self.first = Some(self.introduction(header, &pairs)?);
            self.stage = current;
        }
        let first = self.first.as_mut().ok_or(Refusal::TargetError)?;
        if (first.task, first.isid) != (header.task(), header.bytes(8))
            || current != self.stage
            || header.half(20) != first.connection
        {
            return Err(Refusal::InvalidDuringLogin);
        }
        first.command_number = header.command_number();

        let mut reply = Vec::new();
        if !std::mem::replace(&mut first.is_announced, true) && first.target.is_some() {
            text::write(&mut reply, "TargetPortalGroupTag", "1");
            if let Some(alias) = &first.alias {
                text::write(&mut reply, "TargetAlias", alias);
            }
        }
        let is_allowed = match current {
            SECURITY => self.security(&pairs, &mut reply)?,
            OPERATIONAL => {
                let is_free = first.group.asks_for_proof() && !matches!(self.proof, Proof::Done);
                if is_free {
                    return Err(Refusal::AuthenticationFailure);
                }
                true
            }
            _ => return Err(Refusal::InvalidDuringLogin),
        };
        self.operational(&pairs, current == OPERATIONAL, &mut reply)?;

        if !wants_transit || !is_allowed {
            return Ok(Step::Send(answer, reply));
        }
        self.stage = next;
        answer.set_flags(0x80 | current << 2 | next);
        if next != FULL_FEATURE {
            return Ok(Step::Send(answer, reply));
        }
        let first = self.first.take().ok_or(Refusal::TargetError)?;
        let accepted = Accepted {
            initiator: first.initiator,
            isid: first.isid,
            connection: first.connection,
            target: first.target,
            parameters: self.parameters,
            command_number: first.command_number,
        };
        Ok(Step::Done(answer, reply, accepted))
    }

    /// What the first request has to say: who, and what for.
    fn introduction(
        &self,
        header: &Header,
        pairs: &[(&str, &str)],
    ) -> Result<First<D::Target>, Refusal> {
        let value = |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        let initiator = value("InitiatorName").ok_or(Refusal::MissingParameter)?;
        let initiator = name::normal(initiator).map_err(|_| Refusal::InitiatorError)?;
        // One connection a session: what would join one has no place in it.
        if header.half(14) != 0 {
            return Err(Refusal::TooManyConnections);
        }
        let (target, group) = match value("SessionType") {
            Some("Discovery") => (None, self.directory.discovery()),
            Some("Normal") | None => {
                let name = value("TargetName").ok_or(Refusal::MissingParameter)?;
                let name = name::normal(name).map_err(|_| Refusal::NotFound)?;
                let (target, group) = self.directory.target(&name).ok_or(Refusal::NotFound)?;
                (Some(target), group)
            }
            Some(_) => return Err(Refusal::SessionTypeNotSupported),
        };
        if !group.admits(&initiator) {
            return Err(Refusal::AuthorizationFailure);
        }
        let alias = target.as_ref().and_then(|target| self.directory.alias(target));
        Ok(First {
            initiator,
            isid: header.bytes(8),
            task: header.task(),
            connection: header.half(20),
            command_number: header.command_number(),
            target,
            group,
            is_announced: false,
            alias,
        })
    }

    /// The keys of the security stage; whether the next stage may come.
    fn security(&mut self, pairs: &[(&str, &str)], reply: &mut Vec<u8>) -> Result<bool, Refusal> {
        let value = |key: &str| pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value);
        let group = &self.first.as_ref().ok_or(Refusal::TargetError)?.group;
        let asks = group.asks_for_proof();
        let failure = Refusal::AuthenticationFailure;
        if let Some(offered) = value("AuthMethod") {
            if !matches!(self.proof, Proof::None) {
                return Err(failure);
            }
            let method = if asks { "CHAP" } else { "None" };
            if !offered.split(',').any(|one| one == method) {
                // It offers proofs where none is asked for, or none where one is.
                text::write(reply, "AuthMethod", "Reject");
                return Err(failure);
            }
            text::write(reply, "AuthMethod", method);
            self.proof = if asks { Proof::Chap } else { Proof::Done };
        }
        if let Some(offered) = value("CHAP_A") {
            let Proof::Chap = self.proof else { return Err(failure) };
            let algorithm = Algorithm::choose(offered).ok_or(failure)?;
            let question = Question::new(algorithm).ok_or(Refusal::TargetError)?;
            question.keys().iter().for_each(|(key, value)| text::write(reply, key, value));
            self.proof = Proof::Asked(question);
        } else if let Some(proof) = value("CHAP_R") {
            let Proof::Asked(question) = &self.proof else { return Err(failure) };
            let answer = Answer {
                name: value("CHAP_N"),
                proof: Some(proof),
                identifier: value("CHAP_I"),
                challenge: value("CHAP_C"),
            };
            let Some(keys) = question.check(group, answer) else {
                self.is_disproved = true;
                return Err(failure);
            };
            keys.iter().for_each(|(key, value)| text::write(reply, key, value));
            self.proof = Proof::Done;
        }
        Ok(!asks || matches!(self.proof, Proof::Done))
    }

    fn operational(
        &mut self,
        pairs: &[(&str, &str)],
        is_its_stage: bool,
        reply: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        let is_discovery = self.first.as_ref().is_some_and(|first| first.target.is_none());
        for (key, value) in pairs {
            match *key {
                "InitiatorName" | "InitiatorAlias" | "TargetName" | "SessionType"
                | "AuthMethod" | "CHAP_A" | "CHAP_N" | "CHAP_R" | "CHAP_I" | "CHAP_C" => {}
                // Those are the target's to send.
                "TargetAlias" | "TargetAddress" | "TargetPortalGroupTag" | "SendTargets" => {
                    return Err(Refusal::InitiatorError);
                }
                _ if matches!(*value, "NotUnderstood" | "Irrelevant" | "Reject") => {}
                _ => match self.parameters.offer(key, value, is_discovery) {
                    Some(Reply::Value(value)) => text::write(reply, key, &value),
                    Some(Reply::None) => {}
                    None => text::write(reply, key, "NotUnderstood"),
                },
            }
        }
        if is_its_stage && !std::mem::replace(&mut self.has_declared, true) {
            text::write(reply, "MaxRecvDataSegmentLength", &OWN_DATA.to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::auth::Credential;

    #[derive(Debug)]
    struct One(Arc<AuthGroup>);

    impl Directory for One {
        type Target = ();

        fn target(&self, name: &str) -> Option<((), Arc<AuthGroup>)> {
            (name == "iqn.2026-11.org.example:t").then(|| ((), Arc::clone(&self.0)))
        }

        fn discovery(&self) -> Arc<AuthGroup> {
            Arc::default()
        }

        fn alias(&self, (): &()) -> Option<String> {
            Some("a disk".to_owned())
        }
    }

    fn request(flags: u8, pairs: &[(&str, &str)]) -> (Header, Vec<u8>) {
        let mut header = Header([0; 48]);
        header.0[0] = 0x43;
        header.set_flags(flags);
        header.set_word(24, 7);
        header.set_word(28, 100);
        let mut data = Vec::new();
        pairs.iter().for_each(|(key, value)| text::write(&mut data, key, value));
        (header, data)
    }

    const WHO: [(&str, &str); 2] = [
        ("InitiatorName", "iqn.2026-11.org.example:i"),
        ("TargetName", "iqn.2026-11.org.example:t"),
    ];

    fn said<T>(step: &Step<T>) -> Vec<(String, String)> {
        let (Step::Send(_, data) | Step::Done(_, data, _)) = step else { panic!("refused") };
        let pairs = text::read(data).unwrap();
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    }

    #[test]
    fn a_login_without_a_proof() {
        let directory = One(Arc::default());
        let mut login = Login::new(&directory);
        let security = [WHO[0], WHO[1], ("AuthMethod", "CHAP,None")];
        let (header, data) = request(0x81, &security);
        let step = login.request(&header, &data);
        assert!(said(&step).contains(&("AuthMethod".into(), "None".into())));
        let (header, data) = request(0x87, &[("HeaderDigest", "CRC32C"), ("X-a", "1")]);
        let step = login.request(&header, &data);
        let said = said(&step);
        assert!(said.contains(&("X-a".into(), "NotUnderstood".into())), "{said:?}");
        assert!(said.contains(&("MaxRecvDataSegmentLength".into(), "262144".into())));
        let Step::Done(header, _, accepted) = step else { panic!("not done") };
        assert_eq!((header.flags(), header.word(24)), (0x87, 101));
        assert!(accepted.parameters.header_digest);
        assert_eq!((accepted.command_number, login.next_status()), (7, 102));
    }

    #[test]
    fn nobody_gets_around_a_proof() {
        let user = Credential::new("user", b"secretsecret12").unwrap();
        let directory = One(Arc::new(AuthGroup::open().users(vec![user]).unwrap()));
        let refused = |flags, pairs: &[(&str, &str)]| {
            let (header, data) = request(flags, pairs);
            match Login::new(&directory).request(&header, &data) {
                Step::Refuse(_, why) => Some(why),
                _ => None,
            }
        };
        let failure = Some(Refusal::AuthenticationFailure);
        assert_eq!(refused(0x87, &WHO), failure);
        assert_eq!(refused(0x81, &[WHO[0], WHO[1], ("AuthMethod", "None")]), failure);
        assert_eq!(refused(0x81, &[WHO[0], WHO[1], ("CHAP_R", "0x00")]), failure);
        // Without a word of a method, the stage stays what it is.
        let (header, data) = request(0x81, &WHO);
        let mut login = Login::new(&directory);
        let Step::Send(answer, _) = login.request(&header, &data) else { panic!("not sent") };
        assert_eq!(answer.flags(), 0);
        let (header, data) = request(0x87, &[]);
        let step = login.request(&header, &data);
        assert!(matches!(step, Step::Refuse(_, Refusal::InvalidDuringLogin)));
    }

    #[test]
    fn what_is_missing_or_unknown_is_told() {
        let directory = One(Arc::default());
        let refused = |pairs: &[(&str, &str)]| {
            let (header, data) = request(0x87, pairs);
            match Login::new(&directory).request(&header, &data) {
                Step::Refuse(header, why) => (why, header.half(36)),
                _ => panic!("not refused"),
            }
        };
        assert_eq!(refused(&[]), (Refusal::MissingParameter, 0x0207));
        assert_eq!(refused(&WHO[..1]), (Refusal::MissingParameter, 0x0207));
        let other = [WHO[0], ("TargetName", "iqn.2026-11.org.example:x")];
        assert_eq!(refused(&other), (Refusal::NotFound, 0x0203));
        let kind = [WHO[0], WHO[1], ("SessionType", "Other")];
        assert_eq!(refused(&kind), (Refusal::SessionTypeNotSupported, 0x0209));
        let twice = [WHO[0], WHO[1], WHO[0]];
        assert_eq!(refused(&twice).0, Refusal::InitiatorError);
    }
}
