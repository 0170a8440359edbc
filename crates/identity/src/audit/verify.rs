//! Whether the audit trail is as it was written.

use std::fmt;

use strongroom_catalog::Catalog;
use strongroom_catalog::identity::{AuditHead, AuditLine, Organisation};

use super::{hash, mac};
use crate::Result;
use crate::identity::Identity;
use crate::seal::ApplianceKey;
use crate::secret::same;

/// Lines read at once.
const PAGE: i64 = 1000;
/// Faults that are told; more than that is told by number.
const TOLD: usize = 100;

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// It is gone.
    Removed,
    /// It isn't what was written.
    Changed,
    /// It was never written by the appliance.
    Inserted,
    /// The end of the trail was not written with the appliance's key.
    End,
}

/// Something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The number of the line.
    pub line: i64,
    /// What is wrong with it.
    pub kind: FaultKind,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line;
        match self.kind {
            FaultKind::Removed => write!(f, "line {line} was removed"),
            FaultKind::Changed => write!(f, "line {line} was changed"),
            FaultKind::Inserted => write!(f, "line {line} was inserted"),
            FaultKind::End => write!(
                f,
                "the end of the trail (line {line}) was not written with this appliance's key"
            ),
        }
    }
}

/// What came of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Lines that were checked.
    pub lines: u64,
    /// What is wrong, the first hundred.
    pub faults: Vec<Fault>,
    /// How much is wrong.
    pub count: u64,
}

impl Verdict {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.count == 0
    }

    fn fault(&mut self, line: i64, kind: FaultKind) {
        self.count += 1;
        let fault = Fault { line, kind };
        if self.faults.len() < TOLD && !self.faults.contains(&fault) {
            self.faults.push(fault);
        }
    }
}

impl Identity {
    /// Checks the whole audit trail. Lines may be written meanwhile.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn verify_audit(&self) -> Result<Verdict> {
        verify(&self.inner.catalog, &self.inner.key).await
    }
}

async fn verify(catalog: &Catalog, key: &ApplianceKey) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let Some(head) = catalog.find_one::<AuditHead>(AuditHead::only()).await? else {
        verdict.fault(0, FaultKind::End);
        return Ok(verdict);
    };
    let written = match &head.mac {
        Some(found) => same(found, &mac(key, head.last, &head.hash)),
        // Nothing was written yet; the first run writes the first line with the first row.
        None => {
            head.last == 0
                && catalog.find_one::<Organisation>(Organisation::root()).await?.is_none()
        }
    };
    if !written {
        verdict.fault(head.last, FaultKind::End);
    }
    let mut expected = 1;
    // The hash of the line before, and whether that line is known to be good.
    let mut before = (vec![0; 32], true);
    while expected <= head.last {
        let page = catalog.find::<AuditLine>(AuditLine::after(expected - 1, PAGE)).await?;
        let Some(end) = page.last().map(|line| line.id) else { break };
        for line in page.into_iter().take_while(|line| line.id <= head.last) {
            if line.id > expected {
                removed(&mut verdict, expected, line.id);
                before.1 = false;
            }
            let good = same(&line.hash, &hash(&line));
            if !good {
                verdict.fault(line.id, FaultKind::Changed);
            } else if before.1 && !same(&line.previous, &before.0) {
                // This one is whole, so the one before has a hash that was made anew.
                verdict.fault((line.id - 1).max(1), FaultKind::Changed);
            }
            verdict.lines += 1;
            expected = line.id + 1;
            before = (line.hash, good);
        }
        if end > head.last {
            break;
        }
    }
    if expected <= head.last {
        removed(&mut verdict, expected, head.last + 1);
    } else if written && before.1 && !same(&before.0, &head.hash) {
        verdict.fault(head.last, FaultKind::Changed);
    }
    for stray in catalog.find::<AuditLine>(AuditLine::strays(PAGE)).await? {
        verdict.fault(stray.id, FaultKind::Inserted);
    }
    Ok(verdict)
}

/// Lines from this one up to that one are gone.
fn removed(verdict: &mut Verdict, from: i64, to: i64) {
    for line in (from..to).take(TOLD) {
        verdict.fault(line, FaultKind::Removed);
    }
    let more = (to - from).saturating_sub(TOLD as i64);
    verdict.count += more.max(0).unsigned_abs();
}
