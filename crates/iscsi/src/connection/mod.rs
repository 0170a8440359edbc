//! Connections: a thread reads what comes, does what is quick, and sends all answers to what it read at
//! once.

mod batch;
mod command;
mod input;
mod jobs;
pub(crate) mod link;
mod manage;
mod requests;
mod task;

use std::collections::{HashMap, VecDeque};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::batch::{Batch, Stamp};
use self::command::Assembly;
use self::input::{Got, Input};
use self::jobs::Jobs;
use self::link::{Link, Order};
use crate::login::{Accepted, Login, Refusal, Step, set_handle};
use crate::memory::{Buffer, Share};
use crate::pdu::{Framing, HEADER, Header, Lun, NO_TAG, Reason, Request, Response, Shape};
use crate::scsi::{Attention, Nexus};
use crate::server::Hall;
use crate::target::{Session, Target};

/// How long a login may wait for each of its requests.
const LOGIN: Duration = Duration::from_secs(15);
/// And for all of them, before another is read.
const WHOLE_LOGIN: Duration = Duration::from_secs(60);
/// How long nothing may come before the initiator is asked whether it is there.
const QUIET: Duration = Duration::from_secs(30);
/// How often it is asked in vain.
const QUESTIONS: u32 = 2;
/// How long the initiator may take nothing.
const STUCK: Duration = Duration::from_secs(60);

/// The address by which an initiator came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(pub(crate) SocketAddr);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum End {
    #[error("the initiator is gone")]
    Gone,
    #[error("the initiator logged out")]
    LoggedOut,
    #[error("the initiator doesn't answer")]
    Silent,
    #[error("the login was refused: {0:?}")]
    Refused(Refusal),
    #[error("the initiator broke the protocol: {0}")]
    Protocol(&'static str),
    #[error("{0}")]
    Fault(#[from] crate::pdu::Fault),
}

/// Serves a connection until it ends.
pub(crate) fn serve(hall: &Arc<Hall>, stream: TcpStream) {
    let peer = stream.peer_addr().ok();
    let end = match talk(hall, stream) {
        Ok(()) => End::Gone,
        Err(end) => end,
    };
    match end {
        End::Gone | End::LoggedOut => tracing::debug!(?peer, "connection ended: {end}"),
        _ => tracing::info!(?peer, "connection ended: {end}"),
    }
}

fn talk(hall: &Arc<Hall>, stream: TcpStream) -> Result<(), End> {
    let place = stream.local_addr().map_err(|_| End::Gone)?;
    let place = Place(SocketAddr::new(place.ip().to_canonical(), place.port()));
    stream.set_nodelay(true).map_err(|_| End::Gone)?;
    stream.set_read_timeout(Some(LOGIN)).map_err(|_| End::Gone)?;
    stream.set_write_timeout(Some(STUCK)).map_err(|_| End::Gone)?;
    // Without it, a machine that vanished is noticed by questions alone.
    let _ = rustix::net::sockopt::set_socket_keepalive(&stream, true);
    let mut input = Input::new();
    let (entered, target) = log_in(hall.as_ref(), &stream, &mut input)?;
    let _left = target.clone().map(|target| Left(target, entered.handle));
    entered.link.stream.set_read_timeout(Some(QUIET)).map_err(|_| End::Gone)?;
    let mut connection = Connection {
        hall: Arc::clone(hall),
        place,
        session: entered,
        target,
        input,
        batch: Batch::default(),
        tasks: HashMap::new(),
        deferred: VecDeque::new(),
        jobs: Arc::default(),
        nexuses: HashMap::new(),
        generation: 0,
        next_tag: 0,
        share: Share::of(&hall.memory),
        spare: Vec::new(),
        text: None,
        questions: 0,
    };
    let ended = connection.run();
    connection.flush();
    // Long ones end early: nobody hears of them any more.
    connection.nexuses.values().for_each(|nexus| nexus.abort_all());
    connection.jobs.wait();
    connection.link().close();
    ended
}

/// The target knows a session until all its commands have ended.
struct Left(Arc<Target>, u16);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

type Entered = (Arc<Session>, Option<Arc<Target>>);

/// The login phase, up to a session.
fn log_in(hall: &Hall, stream: &TcpStream, input: &mut Input) -> Result<Entered, End> {
    let mut login = Login::new(hall);
    let begun = Instant::now();
    loop {
        if begun.elapsed() > WHOLE_LOGIN {
            return Err(End::Silent);
        }
        let taken = Framing::LOGIN.take(input.there())?;
        let Some((header, data, rest)) = taken else {
            match input.read(stream) {
                Got::More => continue,
                Got::Nothing => return Err(End::Silent),
                Got::End => return Err(End::Gone),
            }
        };
        if header.request() != Some(Request::Login) {
            return Err(End::Protocol("something else came before a login"));
        }
        let (data, length) = (data.to_vec(), input.there().len() - rest.len());
        input.skip(length);
        let mut out = Vec::new();
        match guarded(hall, stream, &mut login, &header, &data) {
            Step::Send(header, data) => Framing::LOGIN.write(&mut out, header, &data),
            Step::Refuse(header, refusal) => {
                Framing::LOGIN.write(&mut out, header, &[]);
                let mut stream = stream;
                let _ = stream.write_all(&out);
                return Err(End::Refused(refusal));
            }
            Step::Done(mut header, data, accepted) => {
                let entered = enter(stream, accepted, login.next_status());
                match &entered {
                    Ok((session, _)) => {
                        set_handle(&mut header, session.handle);
                        Framing::LOGIN.write(&mut out, header, &data);
                    }
                    Err(End::Refused(refusal)) => {
                        header.set_flags(0);
                        header.set_half(36, *refusal as u16);
                        Framing::LOGIN.write(&mut out, header, &[]);
                    }
                    Err(_) => {}
                }
                let mut stream = stream;
                stream.write_all(&out).map_err(|_| {
                    if let Ok((session, Some(target))) = &entered {
                        target.leave(session.handle);
                    }
                    End::Gone
                })?;
                return entered;
            }
        }
        let mut stream = stream;
        stream.write_all(&out).map_err(|_| End::Gone)?;
    }
}

/// Has a request answered, unless it would bring one more proof of an initiator that guesses.
fn guarded(
    hall: &Hall,
    stream: &TcpStream,
    login: &mut Login<'_, Hall>,
    header: &Header,
    data: &[u8],
) -> Step<Arc<Target>> {
    let address = stream.peer_addr().ok().map(|peer| peer.ip().to_canonical());
    let doorkeeper = hall.doorkeeper().filter(|_| login.awaits_proof());
    let (Some(address), Some(doorkeeper)) = (address, doorkeeper) else {
        return login.request(header, data);
    };
    let target = login.target().cloned();
    let name = target.as_ref().map(|target| target.name());
    if !doorkeeper.admits(address, name) {
        return login.refuse(header, Refusal::ServiceUnavailable);
    }
    let initiator = login.initiator().unwrap_or_default().to_owned();
    let step = login.request(header, data);
    match login.is_disproved() {
        true => doorkeeper.failed(address, name, &initiator),
        false if !login.awaits_proof() => doorkeeper.succeeded(address, name),
        false => {}
    }
    step
}

fn enter(
    stream: &TcpStream,
    accepted: Accepted<Arc<Target>>,
    next_status: u32,
) -> Result<Entered, End> {
    let stream = stream.try_clone().map_err(|_| End::Gone)?;
    let link = Link::new(stream, accepted.parameters, next_status, accepted.command_number);
    let (initiator, isid) = (accepted.initiator, accepted.isid);
    tracing::debug!(
        initiator,
        target = accepted.target.as_ref().map(|target| target.name()),
        connection = accepted.connection,
        "logged in"
    );
    match accepted.target {
        Some(target) => {
            let session = target.enter(initiator, isid, link).map_err(End::Refused)?;
            Ok((session, Some(target)))
        }
        // Nobody else needs to know of a discovery; its handle is only not zero.
        None => {
            let since = std::time::SystemTime::now();
            Ok((Arc::new(Session { handle: 1, initiator, isid, link, since }), None))
        }
    }
}

/// A connection in its full feature phase.
struct Connection {
    hall: Arc<Hall>,
    place: Place,
    session: Arc<Session>,
    /// None in a discovery.
    target: Option<Arc<Target>>,
    input: Input,
    batch: Batch,
    /// Those that wait for data.
    tasks: HashMap<u32, Assembly>,
    /// Commands behind one that is to come after all before it.
    deferred: VecDeque<(Header, Buffer)>,
    jobs: Arc<Jobs>,
    nexuses: HashMap<Lun, Arc<Nexus>>,
    /// The target's, when the nexuses were looked up.
    generation: u64,
    next_tag: u32,
    /// What it may have of the server's memory.
    share: Share,
    /// Buffers that are used again.
    spare: Vec<Buffer>,
    /// What is left of a long text, and the tag by which it is asked for.
    text: Option<(u32, Buffer)>,
    /// How often the initiator was asked whether it is there.
    questions: u32,
}

impl Connection {
    fn link(&self) -> &Link {
        &self.session.link
    }

    fn run(&mut self) -> Result<(), End> {
        loop {
            self.want(HEADER)?;
            let there = self.input.there();
            let header = *there.first_chunk::<HEADER>().ok_or(End::Gone)?;
            let header = Header(header);
            let shape = self.link().framing.shape(&header)?;
            self.want(shape.data_at)?;
            let headers = self.input.there().get(..shape.data_at).unwrap_or_default();
            self.link().framing.check_headers(&shape, headers)?;
            if header.request() == Some(Request::DataOut) {
                self.data_out(&header, &shape)?;
            } else {
                self.want(shape.total())?;
                let (bytes, start) = self.input.lend();
                let pdu = bytes.get(start..start + shape.total()).unwrap_or_default();
                let taken = self.take(&header, &shape, pdu);
                self.input.take_back(bytes);
                self.input.skip(shape.total());
                taken?;
            }
            if self.batch.len() >= task::ENOUGH {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        self.session.link.send(&mut self.batch);
    }

    /// Reads until so many bytes are there. What was answered is sent before it waits.
    fn want(&mut self, count: usize) -> Result<(), End> {
        while self.input.there().len() < count {
            self.flush();
            let got = self.input.read(&self.session.link.stream);
            match got {
                Got::More => self.questions = 0,
                Got::End => return Err(End::Gone),
                Got::Nothing => self.ask()?,
            }
        }
        Ok(())
    }

    /// Nothing came for a while.
    fn ask(&mut self) -> Result<(), End> {
        if self.questions == QUESTIONS {
            return Err(End::Silent);
        }
        self.questions += 1;
        self.forget_withdrawn();
        let mut header = Header::answer(Response::NopIn);
        header.set_word(16, NO_TAG);
        header.set_word(20, self.new_tag());
        self.batch.add(&self.session.link.framing, header, Stamp::Next, &[]);
        self.flush();
        Ok(())
    }

    fn new_tag(&mut self) -> u32 {
        self.next_tag = if self.next_tag >= NO_TAG - 1 { 0 } else { self.next_tag + 1 };
        self.next_tag
    }

    /// Takes a PDU that is all there.
    fn take(&mut self, header: &Header, shape: &Shape, pdu: &[u8]) -> Result<(), End> {
        let (headers, data) = pdu.split_at_checked(shape.data_at).unwrap_or_default();
        let (data, behind) = data.split_at_checked(shape.data).unwrap_or_default();
        if let Err(fault) = self.link().framing.check_data(data, behind) {
            self.reject(header, Reason::DataDigestError);
            return Err(fault.into());
        }
        if !header.is_immediate() && header.request() != Some(Request::Snack) {
            match self.link().take_number(header.command_number()) {
                Order::Next => {}
                Order::Outside => return Ok(()),
                Order::Gap => return Err(End::Protocol("a command is missing")),
            }
        }
        let Some(request) = header.request() else {
            self.reject(header, Reason::CommandNotSupported);
            return Ok(());
        };
        match request {
            Request::ScsiCommand if self.target.is_some() => {
                let additional = headers.get(HEADER..shape.headers).unwrap_or_default();
                self.command_in_order(header, additional, data)
            }
            Request::TaskManagement if self.target.is_some() => self.manage(header),
            Request::NopOut => {
                self.forget_withdrawn();
                self.nop(header, data)
            }
            Request::Text => self.text(header, data),
            Request::Logout => self.log_out(header),
            Request::Login => Err(End::Protocol("a second login came")),
            Request::Snack => {
                // Nothing is sent again (error recovery level 0).
                self.reject(header, Reason::ProtocolError);
                Ok(())
            }
            Request::ScsiCommand | Request::TaskManagement | Request::DataOut => {
                self.reject(header, Reason::ProtocolError);
                Ok(())
            }
        }
    }

    /// Says that a PDU isn't taken, with its header (RFC 7143 section 11.17).
    fn reject(&mut self, rejected: &Header, reason: Reason) {
        let mut header = Header::answer(Response::Reject);
        header.set_bytes(2, &[reason as u8]);
        header.set_word(16, NO_TAG);
        // What is rejected of the window has ended.
        let has_number = !matches!(rejected.request(), Some(Request::DataOut | Request::Snack));
        let completes = has_number && !rejected.is_immediate();
        let stamp = Stamp::Status { completes };
        self.batch.add(&self.session.link.framing, header, stamp, &rejected.0);
    }

    /// The initiator and the unit of that number, looked up again when the map changed.
    fn nexus(&mut self, lun: Lun) -> Option<Arc<Nexus>> {
        self.forget_withdrawn();
        let target = self.target.as_ref()?;
        if let Some(nexus) = self.nexuses.get(&lun) {
            return Some(Arc::clone(nexus));
        }
        let unit = target.unit(lun.number())?;
        let nexus = Nexus::join(&unit, self.session.port(), target.port_name());
        self.nexuses.insert(lun, Arc::clone(&nexus));
        Some(nexus)
    }

    /// Lets go of units that were taken out of the map: else a session without commands would keep
    /// their devices open.
    fn forget_withdrawn(&mut self) {
        let Some(target) = self.target.as_ref() else { return };
        let generation = target.generation();
        if self.generation != generation {
            self.generation = generation;
            self.nexuses.retain(|lun, nexus| {
                let unit = target.unit(lun.number());
                !nexus.is_withdrawn() && unit.is_some_and(|unit| Arc::ptr_eq(&unit, nexus.unit()))
            });
        }
    }
}

/// Tells an initiator of a unit attention before it asks (RFC 7143 section 11.9).
pub(crate) fn tell_of_attention(link: &Link, lun: Option<Lun>, what: Attention) {
    let mut header = Header::answer(Response::AsyncMessage);
    header.set_bytes(8, &lun.map(Lun::write).unwrap_or_default());
    header.set_word(16, NO_TAG);
    let sense = what.sense().encode(false);
    let mut data = u16::try_from(sense.len()).unwrap_or(0).to_be_bytes().to_vec();
    data.extend(sense);
    let mut batch = Batch::default();
    batch.add(&link.framing, header, Stamp::Status { completes: false }, &data);
    link.send(&mut batch);
}
