//! Sending the audit trail to a collector as it grows: syslog (RFC 5424) over UDP (RFC 5426), TCP
//! (RFC 6587, counted) or TLS (RFC 5425).
//!
//! There is no queue that could overflow: the trail itself is one, and the catalogue knows the last
//! line that was sent. So a collector that is down gets what it missed, and so it does after a
//! restart; the collector may get a line twice, and on TCP and TLS the last ones before a connection
//! broke may be lost, for syslog acknowledges nothing. Lines have numbers, so both show there. Of
//! several nodes one sends.

use std::fmt;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity::{AuditHead, AuditLine, AuditSender};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio_rustls::TlsConnector;

use super::{Deed, Who, to_syslog};
use crate::clock::after;
use crate::directories::check_authorities;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::Right;
use crate::secret::random_text;
use crate::users::check_text;
use crate::{Error, Result};

/// How often new lines are looked for.
const LOOK: Duration = Duration::from_millis(500);
/// Lines at once.
const LINES: i64 = 100;
/// How long a connection may take, and a batch of lines.
const WITHIN: Duration = Duration::from_secs(10);
/// The longest wait after failures.
const LONGEST: Duration = Duration::from_secs(60);
/// How long a node has it without saying so again.
const LEASE: Duration = Duration::from_secs(60);

/// How lines travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Each in a datagram.
    Udp,
    /// Each with its length before it.
    Tcp,
    /// The same, in TLS.
    Tls,
}

/// Where the audit trail is sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderSettings {
    /// How.
    pub protocol: Protocol,
    /// The collector's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Who vouches for it, as PEM; none: whom this machine trusts.
    pub ca_certificate: Option<String>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// Where.
    pub settings: SenderSettings,
    /// How far, and what is wrong.
    pub row: AuditSender,
    /// How many lines wait.
    pub behind: i64,
}

impl Identity {
    /// Where the audit trail is sent, and how far that is; none: nowhere.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn audit_sender(&self) -> Result<Option<Sending>> {
        let catalog = &self.inner.catalog;
        let Some(row) = catalog.find_one::<AuditSender>(AuditSender::only()).await? else {
            return Ok(None);
        };
        let head = catalog.find_one::<AuditHead>(AuditHead::only()).await?;
        let behind = head.map_or(0, |head| (head.last - row.last).max(0));
        Ok(Some(Sending { settings: read(&row)?, row, behind }))
    }

    /// Says where the audit trail is sent: what is written from now on, or from behind that line.
    /// Needs the rights `settings.manage` and `audit.view` in the topmost organisation. If a version
    /// is given it must be the one that there is, 0 where it is sent nowhere.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`]; [`Changed`](strongroom_catalog::Error::Changed).
    pub async fn set_audit_sender(
        &self,
        by: &Principal,
        settings: SenderSettings,
        behind: Option<i64>,
        version: Option<i64>,
    ) -> Result<()> {
        may(by)?;
        check_text("host", &settings.host, 255)?;
        let wrong = |field, why: &str| Err(Error::Invalid { field, why: why.into() });
        if ServerName::try_from(settings.host.as_str()).is_err() {
            return wrong("host", "it is neither a name nor an address");
        }
        if settings.port == 0 {
            return wrong("port", "it takes 1 to 65535");
        }
        if let Some(pem) = &settings.ca_certificate {
            check_authorities(pem)?;
        }
        if behind.is_some_and(|line| line < 0) {
            return wrong("after", "lines have numbers from 1");
        }
        let text = serde_json::to_string(&settings)
            .map_err(|_| Error::State("the settings can't be written"))?;
        let mut change = self.change(Who::from(by)).await?;
        let before = change.tx().find_one::<AuditSender>(AuditSender::only()).await?;
        is_version(before.as_ref(), version)?;
        let head = change.tx().find_one::<AuditHead>(AuditHead::only()).await?;
        let end = head.map_or(0, |head| head.last);
        // Where it goes on when it only goes elsewhere.
        let last = behind.or(before.as_ref().map(|before| before.last)).unwrap_or(end).min(end);
        // Times never come twice, numbers of removed rows would.
        let version = self.inner.clock.now().as_microsecond();
        let version = before.map_or(version, |before| version.max(before.version + 1));
        AuditSender::set(change.tx(), &text, last, version).await?;
        let deed = Deed::new("audit_sender.set", format!("{settings} from line {}", last + 1));
        change.commit(deed).await
    }

    /// Sends the audit trail nowhere any more. Needs what [`Identity::set_audit_sender`] does.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it went nowhere; [`Error::Forbidden`];
    /// [`Changed`](strongroom_catalog::Error::Changed).
    pub async fn remove_audit_sender(&self, by: &Principal, version: Option<i64>) -> Result<()> {
        may(by)?;
        let mut change = self.change(Who::from(by)).await?;
        let before = change.tx().find_one::<AuditSender>(AuditSender::only()).await?;
        if before.is_some() {
            is_version(before.as_ref(), version)?;
        }
        if !AuditSender::remove(change.tx()).await? {
            return Err(Error::NotFound { what: "audit sender" });
        }
        change.commit(Deed::new("audit_sender.remove", "")).await
    }

    /// Sends lines as they are written, for as long as it is polled.
    pub async fn send_audit(&self, host: &str) {
        let Ok(worker) = random_text::<10>() else { return };
        let mut open = None;
        let mut failures = 0;
        loop {
            match self.send_some(&worker, host, &mut open).await {
                // There may be more.
                Ok(true) => failures = 0,
                Ok(false) => tokio::time::sleep(LOOK).await,
                Err(why) => {
                    open = None;
                    tracing::warn!(why, "the audit trail can't be sent");
                    let wait = LOOK * 2u32.pow(failures.min(7));
                    failures += 1;
                    tokio::time::sleep(wait.min(LONGEST)).await;
                }
            }
        }
    }

    /// Sends the next lines; whether there were any.
    async fn send_some(
        &self,
        worker: &str,
        host: &str,
        open: &mut Option<(i64, Connection)>,
    ) -> Result<bool, String> {
        let text = |error: &dyn fmt::Display| error.to_string();
        let (catalog, now) = (&self.inner.catalog, self.inner.clock.now());
        let sender = catalog.find_one::<AuditSender>(AuditSender::only()).await;
        let Some(sender) = sender.map_err(|e| text(&e))? else {
            *open = None;
            return Ok(false);
        };
        let lines = catalog.find::<AuditLine>(AuditLine::after(sender.last, LINES)).await;
        let lines = lines.map_err(|e| text(&e))?;
        let Some(last) = lines.last().map(|line| line.id) else { return Ok(false) };
        let taken = async {
            let mut tx = catalog.begin().await?;
            let taken = AuditSender::take(&mut tx, worker, now, after(now, LEASE)).await?;
            tx.commit().await?;
            Ok::<_, strongroom_catalog::Error>(taken)
        };
        if !taken.await.map_err(|e| text(&e))? {
            *open = None;
            return Ok(false);
        }
        let messages: Vec<_> = lines.iter().map(|line| to_syslog(line, host)).collect();
        let done = tokio::time::timeout(WITHIN, deliver(&sender, open, &messages)).await;
        let done = done.unwrap_or_else(|_| Err("it takes too long".to_owned()));
        let noted = async {
            let mut tx = catalog.begin().await?;
            match &done {
                Ok(()) => sender.sent(&mut tx, worker, last, self.inner.clock.now()).await?,
                Err(why) => sender.failed(&mut tx, worker, why).await?,
            }
            tx.commit().await
        };
        noted.await.map_err(|e| text(&e))?;
        done.map(|()| true)
    }
}

fn may(by: &Principal) -> Result<()> {
    by.require_whole()?;
    by.require(Right::SettingsManage, by.root(), "setting")?;
    by.require(Right::AuditView, by.root(), "setting")
}

fn is_version(row: Option<&AuditSender>, version: Option<i64>) -> Result<()> {
    match version {
        Some(version) if row.map_or(0, |row| row.version) != version => {
            Err(strongroom_catalog::Error::Changed { what: "audit sender" }.into())
        }
        _ => Ok(()),
    }
}

fn read(row: &AuditSender) -> Result<SenderSettings> {
    let damaged = "where the audit trail is sent is damaged: say it again";
    serde_json::from_str(&row.settings).map_err(|_| Error::State(damaged))
}

impl fmt::Display for SenderSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Udp => "udp",
            Protocol::Tcp => "tcp",
            Protocol::Tls => "tls",
        };
        write!(f, "{protocol}://{}:{}", self.host, self.port)
    }
}

/// A way to a collector.
enum Connection {
    Datagrams(UdpSocket),
    Stream(Box<dyn Stream>),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn deliver(
    sender: &AuditSender,
    open: &mut Option<(i64, Connection)>,
    messages: &[String],
) -> Result<(), String> {
    let settings = read(sender).map_err(|error| error.to_string())?;
    let usable = match open {
        Some((version, connection)) => *version == sender.version && connection.is_open().await,
        None => false,
    };
    if !usable {
        *open = Some((sender.version, Connection::open(&settings).await?));
    }
    let Some((_, connection)) = open else { return Ok(()) };
    connection.send(messages).await.map_err(|error| error.to_string())
}

impl Connection {
    async fn open(settings: &SenderSettings) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let host = settings.host.as_str();
        let place = (host, settings.port);
        if settings.protocol == Protocol::Udp {
            let mut places = tokio::net::lookup_host(place).await.map_err(text)?;
            let to = places.next().ok_or("its name has no address")?;
            let from = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(from).await.map_err(text)?;
            socket.connect(to).await.map_err(text)?;
            return Ok(Self::Datagrams(socket));
        }
        let stream = TcpStream::connect(place).await.map_err(text)?;
        if settings.protocol == Protocol::Tcp {
            return Ok(Self::Stream(Box::new(stream)));
        }
        let config = crate::tls::client_config(settings.ca_certificate.as_deref())?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(config).connect(name, stream).await.map_err(text)?;
        Ok(Self::Stream(Box::new(stream)))
    }

    /// Whether the other end is still there, as far as is known: it sends nothing but its end.
    async fn is_open(&mut self) -> bool {
        let Self::Stream(stream) = self else { return true };
        let mut nothing = [0; 16];
        let read = tokio::time::timeout(Duration::ZERO, stream.read(&mut nothing)).await;
        !matches!(read, Ok(Ok(0) | Err(_)))
    }

    async fn send(&mut self, messages: &[String]) -> std::io::Result<()> {
        match self {
            Self::Datagrams(socket) => {
                for message in messages {
                    socket.send(message.as_bytes()).await?;
                }
                Ok(())
            }
            Self::Stream(stream) => {
                for message in messages {
                    stream.write_all(format!("{} {message}", message.len()).as_bytes()).await?;
                }
                stream.flush().await
            }
        }
    }
}
