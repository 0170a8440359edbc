//! The audit trail: who did what, when, from where, and what came of it.
//!
//! Lines are numbered without gaps, and each holds the SHA-256 of itself with the hash of the line
//! before: `SHA-256("strongroom audit 1" | previous | fields)`, each field as its length in eight
//! bytes and its bytes, a field that is missing as `ff` eight times. The end of the chain is a row
//! of its own, which whoever appends locks, and which holds an HMAC-SHA-256 of the last number and
//! hash under a key that is derived from the appliance's: so a chain that was made anew, or cut
//! short, shows as well, as long as the key is safe. What can't show is a database and key that
//! were both put back to an earlier state; for that, export the lines elsewhere.

mod export;
mod sender;
mod verify;

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use strongroom_catalog::Tx;
use strongroom_catalog::identity::{AuditHead, AuditLine};

pub use export::{to_json, to_syslog};
pub use sender::{Protocol, SenderSettings, Sending};
pub use verify::{Fault, FaultKind, Verdict};

use crate::Result;
use crate::identity::Identity;
use crate::origin::bounded;
use crate::principal::Principal;
use crate::seal::ApplianceKey;

/// The longest field, and the longest detail, in bytes.
const FIELD: usize = 512;
const DETAIL: usize = 4096;

/// Who did something, as the trail tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The user.
    pub user_id: Option<i64>,
    /// Its name.
    pub name: String,
    /// Its organisation.
    pub organisation_id: Option<i64>,
    /// How it was known.
    pub via: &'static str,
    /// From where.
    pub address: String,
}

impl From<&Principal> for Who {
    fn from(principal: &Principal) -> Self {
        Self {
            user_id: principal.user_id,
            name: principal.name.clone(),
            organisation_id: Some(principal.organisation_id),
            via: principal.via.name(),
            address: principal.address.map(|a| a.to_canonical().to_string()).unwrap_or_default(),
        }
    }
}

/// What was done, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deed {
    /// The operation's name.
    pub operation: String,
    /// To what.
    pub object: String,
    /// The organisation of that; none: that of who did it.
    pub organisation_id: Option<i64>,
    /// `ok`, or why not.
    pub result: String,
    /// More of it. No secrets.
    pub detail: String,
}

impl Deed {
    /// Something that was done well.
    pub fn new(operation: &str, object: impl Into<String>) -> Self {
        Self {
            operation: operation.into(),
            object: object.into(),
            organisation_id: None,
            result: "ok".into(),
            detail: String::new(),
        }
    }

    /// Its object belongs to this organisation.
    #[must_use]
    pub fn within(mut self, organisation: i64) -> Self {
        self.organisation_id = Some(organisation);
        self
    }

    /// It was not done.
    #[must_use]
    pub fn failed(mut self, why: impl Into<String>) -> Self {
        self.result = why.into();
        self
    }

    /// More of it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }
}

impl Identity {
    /// Writes a line.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn record(&self, who: impl Into<Who>, deed: Deed) -> Result<()> {
        let mut tx = self.inner.catalog.begin().await?;
        self.append(&mut tx, who, deed).await?;
        Ok(tx.commit().await?)
    }

    /// Writes a line in the transaction of what it tells of: both are there, or neither. It locks
    /// the end of the trail until the transaction ends, so let it be the last statement.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn append(&self, tx: &mut Tx, who: impl Into<Who>, deed: Deed) -> Result<()> {
        let head = AuditHead::lock(tx).await?;
        append_at(tx, head, &self.inner.key, self.inner.clock.now(), &who.into(), deed).await
    }

    /// So many lines behind this number, oldest first.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn audit_lines(&self, after: i64, limit: u32) -> Result<Vec<AuditLine>> {
        Ok(self.inner.catalog.find(AuditLine::after(after, i64::from(limit))).await?)
    }
}

/// Writes a line behind the head, which is locked.
pub(crate) async fn append_at(
    tx: &mut Tx,
    head: AuditHead,
    key: &ApplianceKey,
    at: Timestamp,
    who: &Who,
    deed: Deed,
) -> Result<()> {
    let mut line = AuditLine {
        id: head.last + 1,
        at,
        user_id: who.user_id,
        user_name: bounded(&who.name, FIELD),
        organisation_id: deed.organisation_id.or(who.organisation_id),
        via: who.via.to_owned(),
        address: bounded(&who.address, FIELD),
        operation: bounded(&deed.operation, FIELD),
        object: bounded(&deed.object, FIELD),
        result: bounded(&deed.result, FIELD),
        detail: bounded(&deed.detail, DETAIL),
        previous: head.hash,
        hash: Vec::new(),
    };
    line.hash = hash(&line);
    line.insert(tx).await?;
    let mac = mac(key, line.id, &line.hash);
    let head = AuditHead { last: line.id, hash: line.hash, mac: Some(mac) };
    Ok(head.update(tx).await?)
}

/// The hash of a line with that of the line before.
fn hash(line: &AuditLine) -> Vec<u8> {
    let mut sha = digest::Context::new(&digest::SHA256);
    sha.update(b"strongroom audit 1");
    let mut field = |bytes: Option<&[u8]>| match bytes {
        Some(bytes) => {
            sha.update(&(bytes.len() as u64).to_be_bytes());
            sha.update(bytes);
        }
        None => sha.update(&[0xff; 8]),
    };
    field(Some(&line.previous));
    field(Some(&line.id.to_be_bytes()));
    field(Some(&line.at.as_microsecond().to_be_bytes()));
    field(line.user_id.map(i64::to_be_bytes).as_ref().map(|b| &b[..]));
    field(Some(line.user_name.as_bytes()));
    field(line.organisation_id.map(i64::to_be_bytes).as_ref().map(|b| &b[..]));
    for text in
        [&line.via, &line.address, &line.operation, &line.object, &line.result, &line.detail]
    {
        field(Some(text.as_bytes()));
    }
    sha.finish().as_ref().to_vec()
}

/// What proves who wrote the head.
fn mac(key: &ApplianceKey, last: i64, hash: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(b"strongroom audit head 1");
    text.extend_from_slice(&last.to_be_bytes());
    text.extend_from_slice(hash);
    hmac::sign(key.audit(), &text).as_ref().to_vec()
}
