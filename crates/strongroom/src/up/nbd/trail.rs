//! Clients of NBD in the audit trail: who came, to which export, who left, and who was turned away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use strongroom_identity::{Deed, Identity, Who as Actor};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::access::{Who, cut};

/// Lines that wait to be written; then clients wait.
const WAITING: usize = 1024;
/// Refusals that are alike are written once in so long.
const ALIKE: Duration = Duration::from_secs(60);
/// Kinds of refusals that are told apart at once.
const KINDS: usize = 256;
/// How long the last lines are waited for.
const LAST: Duration = Duration::from_secs(5);

/// A line that is to be written.
#[derive(Debug)]
struct Line {
    who: Who,
    deed: Deed,
    refused: bool,
}

/// Writes lines, in a task of its own.
#[derive(Clone, Debug)]
pub(super) struct Trail(mpsc::Sender<Option<Line>>);

impl Trail {
    /// Made within the runtime.
    pub(super) fn begin(identity: Identity) -> (Self, JoinHandle<()>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), tokio::spawn(write(identity, receiver)))
    }

    /// A client uses an export of this organisation.
    pub(super) fn connected(&self, who: &Who, export: &str, organisation: i64) {
        let deed = Deed::new("nbd.connected", export).within(organisation);
        self.tell(who, deed, false);
    }

    /// It does no more, after so long.
    pub(super) fn left(&self, who: &Who, export: &str, organisation: i64, after: Duration) {
        let detail = format!("after {} s", after.as_secs());
        let deed = Deed::new("nbd.disconnected", export).within(organisation).detail(detail);
        self.tell(who, deed, false);
    }

    /// A client was turned away; `export` is empty when it did not come as far as that.
    pub(super) fn refused(&self, who: &Who, export: &str, why: &str) {
        // It may be any name, and what it says any words.
        let deed = Deed::new("nbd.refused", cut(export)).failed("refused").detail(cut(why));
        self.tell(who, deed, true);
    }

    /// Called by threads of clients, which wait where there are too many lines.
    fn tell(&self, who: &Who, deed: Deed, refused: bool) {
        let line = Line { who: who.clone(), deed, refused };
        if self.0.blocking_send(Some(line)).is_err() {
            tracing::warn!("a client of NBD is not in the audit trail: the appliance is ending");
        }
    }

    /// Has all that was told written, and nothing after it.
    pub(super) async fn end(&self, writing: JoinHandle<()>) {
        let ending = async {
            // An error says that it has ended.
            let _ = self.0.send(None).await;
            let _ = writing.await;
        };
        if tokio::time::timeout(LAST, ending).await.is_err() {
            tracing::error!("the last clients of NBD are not in the audit trail");
        }
    }
}

async fn write(identity: Identity, mut lines: mpsc::Receiver<Option<Line>>) {
    let mut alike = Alike::default();
    while let Some(Some(Line { who, mut deed, refused })) = lines.recv().await {
        let address = who.address.map(|address| address.ip().to_canonical().to_string());
        let address = address.unwrap_or_default();
        if refused {
            let kind = [&address, &who.shown, &deed.object, &deed.detail].map(String::as_str);
            match alike.take(&kind.join("\n"), Instant::now()) {
                None => continue,
                Some(0) => {}
                Some(more) => deed.detail = format!("{}; {more} more before", deed.detail),
            }
        }
        let name = who.shown;
        let actor = Actor { user_id: None, name, organisation_id: None, via: "nbd", address };
        if let Err(error) = identity.record(actor, deed).await {
            tracing::error!(%error, "the audit trail can't be written");
        }
    }
}

/// Refusals by their kind: when one was last written, and how many were not since.
#[derive(Debug, Default)]
struct Alike(HashMap<String, (Instant, u64)>);

impl Alike {
    /// Whether one is to be written, and how many like it were not before it. Kinds that are too many are
    /// all alike: strangers who come from everywhere fill no disk.
    fn take(&mut self, kind: &str, now: Instant) -> Option<u64> {
        if !self.0.contains_key(kind) && self.0.len() >= KINDS {
            self.0.retain(|_, (at, _)| now.duration_since(*at) < ALIKE);
        }
        let is_room = self.0.contains_key(kind) || self.0.len() < KINDS;
        let kind = if is_room { kind } else { "" };
        match self.0.get_mut(kind) {
            Some((at, more)) if now.duration_since(*at) < ALIKE => {
                *more += 1;
                None
            }
            Some(known) => {
                let (_, more) = std::mem::replace(known, (now, 0));
                Some(more)
            }
            None => {
                self.0.insert(kind.to_owned(), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_that_are_alike_are_written_once_a_minute_and_counted() {
        let (mut alike, begun) = (Alike::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(alike.take("a", at(0)), Some(0));
        assert_eq!(alike.take("b", at(1)), Some(0), "another kind");
        for _ in 0..5 {
            assert_eq!(alike.take("a", at(59)), None);
        }
        assert_eq!(alike.take("a", at(60)), Some(5));
        assert_eq!(alike.take("a", at(61)), None);
        assert_eq!(alike.take("a", at(120)), Some(1));
        // However many there are, no more are written, and none is kept.
        let mut alike = Alike::default();
        let written = (0..10 * KINDS).filter(|n| alike.take(&n.to_string(), at(0)).is_some());
        assert_eq!(written.count(), KINDS + 1);
        assert_eq!(alike.0.len(), KINDS + 1);
        assert_eq!(alike.take("new", at(60)), Some(0), "the old ones make room");
        assert_eq!(alike.0.len(), 1);
    }
}
