//! A small iSCSI initiator (RFC 7143) that keeps so many commands under way: the same for all targets.
//!
//! It offers what libiscsi offers, and does nothing with what it reads, so that the target is what is measured. Debian's
//! fio knows no iSCSI, `iscsi-perf` only reads, and `qemu-img bench` tells no latencies.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::load::{Done, Load};
use crate::bench::random::Random;

const HEADER: usize = 48;
const BLOCK: u64 = 512;
/// What it takes in one PDU, and in one burst: libiscsi's.
const MOST_IN: usize = 256 << 10;
/// How long a target may be silent.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where a disk is.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) portal: SocketAddr,
    pub(crate) target: String,
    pub(crate) lun: u8,
}

/// What was agreed on at login.
#[derive(Clone, Copy, Debug)]
struct Terms {
    /// Bytes that the target takes in one PDU.
    most_out: usize,
    first_burst: usize,
    immediate: bool,
    /// Data that aren't immediate are asked for first.
    asks_first: bool,
}

/// A command under way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    begun: Instant,
    is_busy: bool,
}

/// A session.
struct Session {
    stream: TcpStream,
    lun: u8,
    terms: Terms,
    command_number: u32,
    most_command: u32,
    expected_status: u32,
    out: Vec<u8>,
    slots: Vec<Slot>,
    payload: Vec<u8>,
}

fn word(header: &[u8], at: usize) -> u32 {
    let bytes = header.get(at..at + 4).and_then(|bytes| bytes.first_chunk());
    bytes.map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn put(header: &mut [u8; HEADER], at: usize, value: u32) {
    header[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// Adds a PDU.
fn add(out: &mut Vec<u8>, mut header: [u8; HEADER], data: &[u8]) {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes();
    header[5..8].copy_from_slice(&length[1..]);
    out.extend_from_slice(&header);
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(4), 0);
}

impl Session {
    fn log_in(disk: &Disk, slots: u32) -> Result<Self> {
        let stream = TcpStream::connect(disk.portal).context("can't reach the target")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let most = MOST_IN.to_string();
        let mut text = Vec::new();
        for (key, value) in [
            ("InitiatorName", "iqn.2026-11.org.example:bench"),
            ("TargetName", &disk.target),
            ("SessionType", "Normal"),
            ("HeaderDigest", "None"),
            ("DataDigest", "None"),
            ("InitialR2T", "No"),
            ("ImmediateData", "Yes"),
            ("MaxRecvDataSegmentLength", &most),
            ("MaxBurstLength", &most),
            ("FirstBurstLength", &most),
            ("MaxOutstandingR2T", "1"),
            ("MaxConnections", "1"),
            ("ErrorRecoveryLevel", "0"),
        ] {
            text.extend_from_slice(format!("{key}={value}\0").as_bytes());
        }
        let mut header = [0; HEADER];
        // A login that goes from negotiation to the full feature phase.
        (header[0], header[1]) = (0x43, 0x87);
        // A second session of one name and number would end the first.
        let [high, low] = stream.local_addr()?.port().to_be_bytes();
        header[8..14].copy_from_slice(&[0x80, 0, 0, 7, high, low]);
        put(&mut header, 24, 1);
        let mut out = Vec::new();
        add(&mut out, header, &text);
        (&stream).write_all(&out)?;
        let mut terms =
            Terms { most_out: 8192, first_burst: MOST_IN, immediate: true, asks_first: false };
        let answer = loop {
            let mut answer = [0; HEADER];
            (&stream).read_exact(&mut answer).context("the target ends the login")?;
            ensure!(word(&answer, 36) >> 16 == 0, "the login is refused: {:?}", &answer[36..38]);
            let length = (word(&answer, 4) & 0xff_ffff) as usize;
            let mut text = vec![0; length.next_multiple_of(4)];
            (&stream).read_exact(&mut text)?;
            text.truncate(length);
            terms.take(&String::from_utf8_lossy(&text));
            if answer[1] & 0x80 != 0 {
                break answer;
            }
            // It has more to say.
            let mut header = header;
            header[14..16].copy_from_slice(&answer[14..16]);
            put(&mut header, 28, word(&answer, 24).wrapping_add(1));
            let mut out = Vec::new();
            add(&mut out, header, &[]);
            (&stream).write_all(&out)?;
        };
        Ok(Self {
            stream,
            lun: disk.lun,
            terms,
            command_number: word(&answer, 28),
            most_command: word(&answer, 32),
            expected_status: word(&answer, 24).wrapping_add(1),
            out: Vec::new(),
            slots: vec![Slot { begun: Instant::now(), is_busy: false }; slots as usize],
            payload: Vec::new(),
        })
    }

    fn has_room(&self) -> bool {
        self.most_command.wrapping_sub(self.command_number) < 1 << 31
    }

    /// Asks whether the disk is ready until it is: what it has to say to a new initiator comes first.
    fn settle_in(&mut self) -> Result<()> {
        for _ in 0..10 {
            let mut header = [0; HEADER];
            (header[0], header[1], header[9]) = (0x01, 0x81, self.lun);
            put(&mut header, 24, self.command_number);
            put(&mut header, 28, self.expected_status);
            self.command_number = self.command_number.wrapping_add(1);
            add(&mut self.out, header, &[]);
            self.send()?;
            let mut answer = [0; HEADER];
            self.stream.read_exact(&mut answer).context("the target ends the session")?;
            let length = (word(&answer, 4) & 0xff_ffff) as usize;
            let mut sense = vec![0; length.next_multiple_of(4)];
            self.stream.read_exact(&mut sense)?;
            ensure!(answer[0] & 0x3f == 0x21, "a PDU of kind {:#x} came first", answer[0]);
            self.expected_status = word(&answer, 24).wrapping_add(1);
            self.most_command = word(&answer, 32);
            if answer[3] == 0 {
                return Ok(());
            }
        }
        bail!("the disk doesn't become ready")
    }

    /// Adds a command; the tag is the number of its slot.
    fn command(&mut self, slot: usize, writes: bool, offset: u64, length: usize, due: Instant) {
        let mut header = [0; HEADER];
        let needed = length as u32;
        let now = match writes && self.terms.immediate {
            true => length.min(self.terms.most_out).min(self.terms.first_burst),
            false => 0,
        };
        let unasked = match writes && !self.terms.asks_first {
            true => length.min(self.terms.first_burst),
            false => now,
        };
        header[0] = 0x01;
        header[1] = if writes { 0x21 } else { 0x41 } | if unasked == now { 0x80 } else { 0 };
        header[9] = self.lun;
        put(&mut header, 16, slot as u32);
        put(&mut header, 20, needed);
        put(&mut header, 24, self.command_number);
        put(&mut header, 28, self.expected_status);
        header[32] = if writes { 0x8a } else { 0x88 };
        header[34..42].copy_from_slice(&(offset / BLOCK).to_be_bytes());
        put(&mut header, 42, needed / BLOCK as u32);
        self.command_number = self.command_number.wrapping_add(1);
        add(&mut self.out, header, self.payload.get(..now).unwrap_or_default());
        if unasked > now {
            self.data_out(slot as u32, u32::MAX, now, unasked);
        }
        self.slots[slot] = Slot { begun: due, is_busy: true };
    }

    /// Adds a sequence of data of a command.
    fn data_out(&mut self, task: u32, asked: u32, from: usize, to: usize) {
        let (mut at, mut number) = (from, 0);
        while at < to {
            let end = to.min(at + self.terms.most_out);
            let mut header = [0; HEADER];
            (header[0], header[1]) = (0x05, if end == to { 0x80 } else { 0 });
            header[9] = self.lun;
            put(&mut header, 16, task);
            put(&mut header, 20, asked);
            put(&mut header, 28, self.expected_status);
            put(&mut header, 36, number);
            put(&mut header, 40, at as u32);
            add(&mut self.out, header, self.payload.get(at..end).unwrap_or_default());
            (at, number) = (end, number + 1);
        }
    }

    fn send(&mut self) -> Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).context("the target is gone")?;
            self.out.clear();
        }
        Ok(())
    }

    /// Takes the header of a PDU whose data have come too; the slot of a command that it ends.
    fn take(&mut self, header: &[u8; HEADER]) -> Result<Option<usize>> {
        let (expected, most) = (word(header, 28), word(header, 32));
        if most.wrapping_sub(self.most_command) < 1 << 31 && expected != 0 {
            self.most_command = most;
        }
        let task = word(header, 16) as usize;
        let status = word(header, 24);
        let is_end = match header[0] & 0x3f {
            0x25 => header[1] & 0x01 != 0,
            0x21 => true,
            0x31 => {
                let from = word(header, 40) as usize;
                self.data_out(
                    task as u32,
                    word(header, 20),
                    from,
                    from + word(header, 44) as usize,
                );
                false
            }
            // A question whether somebody is there.
            0x20 if word(header, 20) != u32::MAX => {
                let mut answer = [0; HEADER];
                (answer[0], answer[1]) = (0x40, 0x80);
                answer[8..16].copy_from_slice(&header[8..16]);
                put(&mut answer, 16, u32::MAX);
                put(&mut answer, 20, word(header, 20));
                put(&mut answer, 24, self.command_number);
                put(&mut answer, 28, self.expected_status);
                add(&mut self.out, answer, &[]);
                false
            }
            0x20 => false,
            other => bail!("a PDU of kind {other:#x} came, which says {:#x}", header[2]),
        };
        if !is_end {
            return Ok(None);
        }
        self.expected_status = status.wrapping_add(1);
        ensure!(header[3] == 0, "a command ended with status {:#x}", header[3]);
        Ok(Some(task))
    }
}

impl Terms {
    /// Takes what the target answered or declared.
    fn take(&mut self, text: &str) {
        for pair in text.split('\0') {
            let Some((key, value)) = pair.split_once('=') else { continue };
            let number = value.parse::<usize>().ok().filter(|number| *number > 0);
            match (key, number) {
                ("MaxRecvDataSegmentLength", Some(number)) => self.most_out = number,
                ("FirstBurstLength", Some(number)) => self.first_burst = number.min(MOST_IN),
                ("ImmediateData", _) => self.immediate = value == "Yes",
                ("InitialR2T", _) => self.asks_first = value == "Yes",
                _ => {}
            }
        }
    }
}

/// Does it to the first `size` bytes of a disk until the time is over, or until it is told to end.
pub(crate) fn drive(
    disk: &Disk,
    load: Load,
    size: u64,
    time: Duration,
    end: &AtomicBool,
) -> Result<Done> {
    let length = load.bytes as usize;
    let mut session = Session::log_in(disk, load.depth)?;
    session.settle_in()?;
    let mut random = Random::new(size ^ u64::from(load.depth));
    session.payload = vec![0; length];
    // Half of it can be compressed; the head of each block of 4 KiB is new each time.
    for block in session.payload.chunks_mut(4096) {
        let half = block.len() / 2;
        random.fill(&mut block[..half]);
    }
    let places = size / u64::from(load.bytes);
    ensure!(places > 0, "the disk is too small");
    let mut free: Vec<usize> = (0..load.depth as usize).collect();
    let (mut next, mut took) = (0_u64, Vec::with_capacity(1 << 20));
    let mut bytes = vec![0; 1 << 20];
    let mut header = [0; HEADER];
    let (mut there, mut data, mut count) = (0, None::<usize>, 0_u64);
    let begun = Instant::now();
    let mut is_over = false;
    loop {
        // Until the next is due, if that may come before an answer.
        let mut wait = None;
        is_over |= begun.elapsed() >= time || end.load(Ordering::Relaxed);
        while !is_over && session.has_room() && !free.is_empty() {
            let now = Instant::now();
            let due = load.rate.map_or(now, |rate| begun + Duration::from_secs(next) / rate);
            if due > now {
                if free.len() < load.depth as usize {
                    wait = Some(due - now);
                    break;
                }
                std::thread::sleep(due - now);
            }
            let Some(slot) = free.pop() else { break };
            let place = if load.random { random.below(places) } else { next % places };
            next += 1;
            if load.writes {
                count += 1;
                for block in session.payload.chunks_mut(4096) {
                    block[..8]
                        .copy_from_slice(&count.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                }
            }
            session.command(slot, load.writes, place * u64::from(load.bytes), length, due);
        }
        if session.slots.iter().all(|slot| !slot.is_busy) {
            break;
        }
        session.send()?;
        session.stream.set_read_timeout(Some(wait.unwrap_or(PATIENCE)))?;
        let got = match session.stream.read(&mut bytes) {
            Err(error)
                if wait.is_some()
                    && matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                continue;
            }
            got => got.context("the target doesn't answer")?,
        };
        ensure!(got > 0, "the target ended the session");
        let mut rest = bytes.get(..got).unwrap_or_default();
        loop {
            // Its data go by unseen.
            if let Some(left) = data {
                let now = left.min(rest.len());
                rest = rest.get(now..).unwrap_or_default();
                if now < left {
                    data = Some(left - now);
                    break;
                }
                (data, there) = (None, 0);
                if let Some(slot) = session.take(&header)?
                    && let Some(place) = session.slots.get_mut(slot)
                {
                    ensure!(std::mem::take(&mut place.is_busy), "a command ended twice");
                    took.push(place.begun.elapsed().as_secs_f32());
                    free.push(slot);
                }
                continue;
            }
            let now = rest.len().min(HEADER - there);
            if now == 0 {
                break;
            }
            header[there..there + now].copy_from_slice(&rest[..now]);
            (there, rest) = (there + now, &rest[now..]);
            if there == HEADER {
                let length = (word(&header, 4) & 0xff_ffff) as usize;
                data = Some(length.next_multiple_of(4) + 4 * usize::from(header[4]));
            }
        }
    }
    Done::of(took, begun.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_the_target_says_at_login_is_kept() {
        let mut terms =
            Terms { most_out: 8192, first_burst: MOST_IN, immediate: true, asks_first: false };
        terms.take("MaxRecvDataSegmentLength=65536\0InitialR2T=Yes\0FirstBurstLength=1024\0");
        assert_eq!((terms.most_out, terms.first_burst, terms.asks_first), (65536, 1024, true));
        assert!(terms.immediate);
    }

    #[test]
    fn pdus_end_at_multiples_of_four() {
        let mut out = Vec::new();
        add(&mut out, [0; HEADER], b"hello");
        assert_eq!((out.len(), word(&out, 4)), (HEADER + 8, 5));
    }
}
