//! The keys of RFC 7143 section 13, and how both ends come to one value.

use crate::pdu::text;

/// Bytes that this target takes in one PDU.
pub const OWN_DATA: u32 = 256 << 10;
/// The longest burst that it agrees to, in bytes.
const BURST: u32 = 1 << 20;
/// The longest that the RFC knows.
const LONGEST: u32 = (1 << 24) - 1;
/// The least of a burst or of data in a PDU.
const SHORTEST: u32 = 512;

/// What a session and its connection agreed to. The defaults are those of the RFC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Headers are guarded by CRC32C.
    pub header_digest: bool,
    /// Data are.
    pub data_digest: bool,
    /// Bytes of data that the initiator takes in one PDU.
    pub initiator_data: u32,
    /// Bytes of a sequence of data, solicited or sent.
    pub max_burst: u32,
    /// Bytes of data that may be sent unasked, with the command's own.
    pub first_burst: u32,
    /// Data behind the command's own are sent only when they are asked for.
    pub initial_r2t: bool,
    /// A command may bring data.
    pub immediate_data: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            header_digest: false,
            data_digest: false,
            initiator_data: 8192,
            max_burst: 256 << 10,
            first_burst: 64 << 10,
            initial_r2t: true,
            immediate_data: true,
        }
    }
}

/// What the other end is told of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This value.
    Value(String),
    /// Nothing: the key only declares.
    None,
}

impl Reply {
    fn is(value: impl ToString) -> Self {
        Self::Value(value.to_string())
    }

    fn reject() -> Self {
        Self::is("Reject")
    }
}

/// The keys that are without meaning where no SCSI command is sent.
const OF_NORMAL_SESSIONS: &[&str] = &[
    "MaxConnections",
    "InitialR2T",
    "ImmediateData",
    "MaxBurstLength",
    "FirstBurstLength",
    "MaxOutstandingR2T",
    "DataPDUInOrder",
    "DataSequenceInOrder",
];

impl Parameters {
    /// Takes what the initiator offers for an operational key, and says what it is told. `None`: that is no
    /// operational key, and somebody else's matter.
    pub fn offer(&mut self, key: &str, value: &str, is_discovery: bool) -> Option<Reply> {
        if is_discovery && OF_NORMAL_SESSIONS.contains(&key) {
            return Some(Reply::is("Irrelevant"));
        }
        Some(match key {
            "HeaderDigest" => digest(value, &mut self.header_digest),
            "DataDigest" => digest(value, &mut self.data_digest),
            "MaxConnections" => least(value, 1..=65535, 1, &mut 0),
            "InitialR2T" => boolean(value, |offered| offered, &mut self.initial_r2t),
            "ImmediateData" => boolean(value, |offered| offered, &mut self.immediate_data),
            "MaxBurstLength" => {
                let reply = least(value, SHORTEST..=LONGEST, BURST, &mut self.max_burst);
                self.first_burst = self.first_burst.min(self.max_burst);
                reply
            }
            "FirstBurstLength" => least(value, SHORTEST..=LONGEST, BURST, &mut self.first_burst),
            "MaxRecvDataSegmentLength" => {
                match text::number(value).filter(|n| (SHORTEST..=LONGEST).contains(n)) {
                    Some(length) => {
                        self.initiator_data = length;
                        Reply::None
                    }
                    None => Reply::reject(),
                }
            }
            "MaxOutstandingR2T" => least(value, 1..=65535, 1, &mut 0),
            "DataPDUInOrder" | "DataSequenceInOrder" => boolean(value, |_| true, &mut false),
            // Nothing is kept of a session that lost its connection, so nobody needs to wait for it.
            "DefaultTime2Wait" => most(value, 0..=3600, 2),
            "DefaultTime2Retain" => least(value, 0..=3600, 0, &mut 0),
            "ErrorRecoveryLevel" => least(value, 0..=2, 0, &mut 0),
            "IFMarker" | "OFMarker" => Reply::is("No"),
            "IFMarkInt" | "OFMarkInt" => Reply::is("Irrelevant"),
            "TaskReporting" => {
                let has = |one: &str| value.split(',').any(|offered| offered == one);
                match has("RFC3720") {
                    true => Reply::is("RFC3720"),
                    false => Reply::reject(),
                }
            }
            "iSCSIProtocolLevel" => least(value, 0..=31, 1, &mut 0),
            _ => return None,
        })
    }
}

/// A list in order of preference (RFC 7143 section 6.2.1): the first that is known.
fn digest(value: &str, is_on: &mut bool) -> Reply {
    for offered in value.split(',') {
        match offered {
            "CRC32C" => *is_on = true,
            "None" => *is_on = false,
            _ => continue,
        }
        return Reply::is(offered);
    }
    Reply::reject()
}

fn boolean(value: &str, result: impl Fn(bool) -> bool, agreed: &mut bool) -> Reply {
    let offered = match value {
        "Yes" => true,
        "No" => false,
        _ => return Reply::reject(),
    };
    *agreed = result(offered);
    Reply::is(if *agreed { "Yes" } else { "No" })
}

fn least(value: &str, range: std::ops::RangeInclusive<u32>, own: u32, agreed: &mut u32) -> Reply {
    match text::number(value).filter(|n| range.contains(n)) {
        Some(offered) => {
            *agreed = offered.min(own);
            Reply::is(*agreed)
        }
        None => Reply::reject(),
    }
}

fn most(value: &str, range: std::ops::RangeInclusive<u32>, own: u32) -> Reply {
    match text::number(value).filter(|n| range.contains(n)) {
        Some(offered) => Reply::is(offered.max(own)),
        None => Reply::reject(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: &str, value: &str) -> (Parameters, Option<Reply>) {
        let mut parameters = Parameters::default();
        let reply = parameters.offer(key, value, false);
        (parameters, reply)
    }

    #[test]
    fn each_key_has_its_result() {
        for (key, offered, result) in [
            ("HeaderDigest", "CRC32C,None", "CRC32C"),
            ("DataDigest", "X-other,None,CRC32C", "None"),
            ("DataDigest", "X-other", "Reject"),
            ("MaxConnections", "8", "1"),
            ("MaxConnections", "0", "Reject"),
            ("InitialR2T", "No", "No"),
            ("InitialR2T", "Yes", "Yes"),
            ("ImmediateData", "No", "No"),
            ("ImmediateData", "maybe", "Reject"),
            ("MaxBurstLength", "16776192", "1048576"),
            ("MaxBurstLength", "511", "Reject"),
            ("FirstBurstLength", "65536", "65536"),
            ("MaxOutstandingR2T", "16", "1"),
            ("DataPDUInOrder", "No", "Yes"),
            ("DataSequenceInOrder", "Yes", "Yes"),
            ("DefaultTime2Wait", "0", "2"),
            ("DefaultTime2Retain", "20", "0"),
            ("ErrorRecoveryLevel", "2", "0"),
            ("OFMarker", "No", "No"),
            ("TaskReporting", "FastAbort,RFC3720", "RFC3720"),
        ] {
            assert_eq!(told(key, offered).1, Some(Reply::is(result)), "{key}={offered}");
        }
        let (parameters, reply) = told("MaxRecvDataSegmentLength", "65536");
        assert_eq!((parameters.initiator_data, reply), (65536, Some(Reply::None)));
        assert_eq!(told("X-com.example.key", "1").1, None);
    }

    #[test]
    fn the_first_burst_is_no_longer_than_any() {
        let (parameters, _) = told("MaxBurstLength", "4096");
        assert_eq!((parameters.max_burst, parameters.first_burst), (4096, 4096));
    }

    #[test]
    fn a_discovery_has_no_bursts() {
        let reply = Parameters::default().offer("MaxBurstLength", "4096", true);
        assert_eq!(reply, Some(Reply::is("Irrelevant")));
    }
}
