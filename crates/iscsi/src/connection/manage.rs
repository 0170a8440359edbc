//! Task management (RFC 7143 sections 11.5 and 11.6).

use super::batch::Stamp;
use super::{Connection, End};
use crate::pdu::{Header, Lun, NO_TAG, Response};

const COMPLETE: u8 = 0;
const NO_TASK: u8 = 1;
const NO_LUN: u8 = 2;
const NO_REASSIGNMENT: u8 = 4;
const NOT_SUPPORTED: u8 = 5;
const REJECTED: u8 = 255;

impl Connection {
    /// Does a function; it is answered when it has taken effect.
    pub(super) fn manage(&mut self, header: &Header) -> Result<(), End> {
        const COLD_RESET: u8 = 7;
        let function = header.flags() & 0x7f;
        let lun = Lun::read(header.lun_bytes());
        let response = match function {
            1 => self.abort(header.word(20)),
            // Each initiator has a task set of its own (TST of the control mode page).
            2 | 4 => self.abort_set(lun),
            // There is no ACA.
            3 => NOT_SUPPORTED,
            5 => self.reset_unit(lun),
            6 | COLD_RESET => {
                self.reset_target();
                COMPLETE
            }
            8 => NO_REASSIGNMENT,
            _ => REJECTED,
        };
        let mut answer = Header::answer(Response::TaskManagement);
        answer.set_bytes(2, &[response]);
        answer.set_word(16, header.task());
        let stamp = Stamp::Status { completes: !header.is_immediate() };
        self.batch.add(&self.session.link.framing, answer, stamp, &[]);
        if function == COLD_RESET {
            // As if power had been cycled: all log in again, this one too.
            self.flush();
            self.target.iter().for_each(|target| target.disconnect(false));
        }
        // What was put behind a task that is gone.
        self.take_deferred()
    }

    fn abort(&mut self, tag: u32) -> u8 {
        if tag == NO_TAG {
            return NO_TASK;
        }
        let deferred = self.deferred.iter().position(|(header, _)| header.task() == tag);
        if let Some((header, _)) = deferred.and_then(|at| self.deferred.remove(at)) {
            if !header.is_immediate() {
                self.link().complete();
            }
            return COMPLETE;
        }
        if self.forget(tag) || self.jobs.abort(tag) {
            return COMPLETE;
        }
        NO_TASK
    }

    /// Takes a task away that waits for data.
    fn forget(&mut self, tag: u32) -> bool {
        let Some(assembly) = self.tasks.remove(&tag) else { return false };
        assembly.task.end_silently(self.link());
        true
    }

    fn forget_all(&mut self, of: impl Fn(Option<Lun>) -> bool) {
        let tasks = self.tasks.iter();
        let tags = tasks.filter(|(_, one)| of(Lun::read(one.task.lun))).map(|(tag, _)| *tag);
        for tag in tags.collect::<Vec<_>>() {
            self.forget(tag);
        }
        let link = &self.session.link;
        self.deferred.retain(|(header, _)| {
            let stays = !of(Lun::read(header.lun_bytes()));
            if !stays && !header.is_immediate() {
                link.complete();
            }
            stays
        });
    }

    fn abort_set(&mut self, lun: Option<Lun>) -> u8 {
        let Some(nexus) = lun.and_then(|lun| self.nexus(lun)) else { return NO_LUN };
        nexus.abort_all();
        self.forget_all(|other| other == lun);
        // Those of other units are waited for as well; they are few.
        self.jobs.wait();
        COMPLETE
    }

    fn reset_unit(&mut self, lun: Option<Lun>) -> u8 {
        let Some(nexus) = lun.and_then(|lun| self.nexus(lun)) else { return NO_LUN };
        self.forget_all(|other| other == lun);
        nexus.unit().reset();
        self.jobs.wait();
        COMPLETE
    }

    fn reset_target(&mut self) {
        self.forget_all(|_| true);
        self.target.iter().for_each(|target| target.reset());
        self.jobs.wait();
    }
}
