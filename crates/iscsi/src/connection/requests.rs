//! What is asked besides SCSI: NOP-Out, Text and Logout (RFC 7143 sections 11.10, 11.14 and 11.18).

use super::batch::Stamp;
use super::{Connection, End};
use crate::name;
use crate::pdu::{Header, NO_TAG, Reason, Response, text};

/// Bytes of a text that a initiator may have sent it.
const LONGEST_ANSWER: usize = 4 << 20;

impl Connection {
    /// A ping is answered with its own data; what answers a ping of ours needs nothing.
    pub(super) fn nop(&mut self, header: &Header, data: &[u8]) -> Result<(), End> {
        if header.task() == NO_TAG {
            return Ok(());
        }
        let most = self.link().most_data_in();
        let mut answer = Header::answer(Response::NopIn);
        answer.set_bytes(8, &header.lun_bytes());
        answer.set_word(16, header.task());
        answer.set_word(20, NO_TAG);
        let data = data.get(..data.len().min(most)).unwrap_or_default();
        let stamp = Stamp::Status { completes: !header.is_immediate() };
        self.batch.add(&self.session.link.framing, answer, stamp, data);
        Ok(())
    }

    /// Keys, or the rest of an answer that was too long for one PDU.
    pub(super) fn text(&mut self, header: &Header, data: &[u8]) -> Result<(), End> {
        let continues = header.flags() & 0x40 != 0;
        let tag = header.word(20);
        let left = match self.text.take() {
            Some((own, left)) if own == tag && data.is_empty() => left.first(left.len()).to_vec(),
            _ if tag != NO_TAG || continues => {
                // Nothing that may be asked here is longer than a PDU.
                self.reject(header, Reason::InvalidPduField);
                return Ok(());
            }
            _ => match self.answer(data) {
                Some(answer) => answer,
                None => {
                    self.reject(header, Reason::ProtocolError);
                    return Ok(());
                }
            },
        };
        let most = self.link().most_data_in();
        let (now, later) = left.split_at(left.len().min(most));
        let mut answer = Header::answer(Response::Text);
        answer.set_bytes(8, &header.lun_bytes());
        answer.set_word(16, header.task());
        answer.set_word(20, NO_TAG);
        if !later.is_empty() {
            let Some(mut rest) = self.share.buffer(later.len(), 0) else {
                self.reject(header, Reason::LongOperationReject);
                return Ok(());
            };
            rest.begin_with(later);
            let tag = self.new_tag();
            answer.set_flags(0x40);
            answer.set_word(20, tag);
            self.text = Some((tag, rest));
        }
        let stamp = Stamp::Status { completes: !header.is_immediate() };
        self.batch.add(&self.session.link.framing, answer, stamp, now);
        Ok(())
    }

    fn answer(&self, data: &[u8]) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        for (key, value) in text::read(data).ok()? {
            match (key, &self.target) {
                ("SendTargets", None) => {
                    let only = if value == "All" { None } else { Some(name::normal(value).ok()?) };
                    let place = self.place;
                    reply.extend(self.hall.list(&self.session.initiator, only.as_deref(), place));
                }
                // In a normal session: of this target, whichever way it is named.
                ("SendTargets", Some(target)) => {
                    let is_own = value.is_empty() || name::normal(value).ok()? == target.name();
                    if is_own {
                        let (initiator, place) = (&self.session.initiator, self.place);
                        reply.extend(self.hall.list(initiator, Some(target.name()), place));
                    }
                }
                // What was agreed to at login stays (RFC 7143 section 13 allows few changes, and asks for none).
                ("MaxRecvDataSegmentLength", _) => text::write(&mut reply, key, "Reject"),
                _ => text::write(&mut reply, key, "NotUnderstood"),
            }
            // A request may ask for the same again and again.
            if reply.len() > LONGEST_ANSWER {
                return None;
            }
        }
        Some(reply)
    }

    /// Ends the session, or its only connection, which is the same.
    pub(super) fn log_out(&mut self, header: &Header) -> Result<(), End> {
        const RECOVERY: u8 = 2;
        let reason = header.flags() & 0x7f;
        let mut answer = Header::answer(Response::Logout);
        answer.set_word(16, header.task());
        answer.set_half(40, 2);
        let stamp = Stamp::Status { completes: !header.is_immediate() };
        if reason >= RECOVERY {
            // There is no connection to take over from (error recovery level 0).
            answer.set_bytes(2, &[2]);
            self.batch.add(&self.session.link.framing, answer, stamp, &[]);
            return Ok(());
        }
        self.jobs.wait();
        self.batch.add(&self.session.link.framing, answer, stamp, &[]);
        Err(End::LoggedOut)
    }
}
