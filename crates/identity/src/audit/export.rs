//! The audit trail for others: JSON lines, and syslog (RFC 5424).

use std::fmt::Write as _;

use data_encoding::HEXLOWER;
use serde_json::json;
use strongroom_catalog::identity::AuditLine;

/// Facility 13, log audit.
const FACILITY: u8 = 13;
/// Severities: notice, and warning for what was refused or failed.
const NOTICE: u8 = 5;
const WARNING: u8 = 4;
/// The name of our structured data; 32473 is the number that RFC 5612 keeps for examples, we have
/// none of our own.
const SD_ID: &str = "audit@32473";

/// A line as JSON, without an end of line. It has all that is hashed, and the hashes.
pub fn to_json(line: &AuditLine) -> String {
    json!({
        "id": line.id,
        "at": line.at.to_string(),
        "user_id": line.user_id,
        "user": line.user_name,
        "organisation_id": line.organisation_id,
        "via": line.via,
        "address": line.address,
        "operation": line.operation,
        "object": line.object,
        "result": line.result,
        "detail": line.detail,
        "previous": HEXLOWER.encode(&line.previous),
        "hash": HEXLOWER.encode(&line.hash),
    })
    .to_string()
}

/// A line as a syslog message (RFC 5424), without framing. `host` is this machine's name.
pub fn to_syslog(line: &AuditLine, host: &str) -> String {
    let severity = if line.result == "ok" { NOTICE } else { WARNING };
    let priority = FACILITY * 8 + severity;
    let (host, id) = (word(host, 255), word(&line.operation, 32));
    // Whole microseconds: no more digits are allowed.
    let at = line.at.strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let mut text = format!("<{priority}>1 {at} {host} strongroom - {id} [{SD_ID}");
    let user_id = line.user_id.map(|id| id.to_string()).unwrap_or_default();
    let hash = HEXLOWER.encode(&line.hash);
    let number = line.id.to_string();
    for (name, value) in [
        ("line", number.as_str()),
        ("user", &line.user_name),
        ("userid", &user_id),
        ("via", &line.via),
        ("address", &line.address),
        ("operation", &line.operation),
        ("object", &line.object),
        ("result", &line.result),
        ("hash", &hash),
    ] {
        if !value.is_empty() {
            // Writing to a string can't fail.
            let _ = write!(text, " {name}=\"{}\"", value_text(value));
        }
    }
    // The mark says that the message is UTF-8.
    let _ = write!(text, "] \u{feff}{} {} {}", line.user_name, line.operation, line.object);
    let _ = write!(text, ": {}", line.result);
    if !line.detail.is_empty() {
        let _ = write!(text, " ({})", line.detail);
    }
    text
}

/// A word of the header: printable ASCII, or a hyphen for none.
fn word(text: &str, most: usize) -> String {
    let word: String =
        text.chars().map(|c| if c.is_ascii_graphic() { c } else { '_' }).take(most).collect();
    if word.is_empty() { "-".into() } else { word }
}

/// The value of a parameter, with what section 6.3.3 has escaped.
fn value_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '"' | '\\' | ']') {
            out.push('\\');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn line() -> AuditLine {
        AuditLine {
            id: 7,
            at: "2026-01-31T12:00:00.5Z".parse().unwrap(),
            user_id: Some(3),
            user_name: "j\"o]".into(),
            organisation_id: None,
            via: "key".into(),
            address: "10.0.0.1".into(),
            operation: "images.delete".into(),
            object: "image 5".into(),
            result: "ok".into(),
            detail: String::new(),
            previous: vec![0; 2],
            hash: vec![0xab, 0xcd],
        }
    }

    #[test]
    fn a_line_of_syslog() {
        assert_eq!(
            to_syslog(&line(), "box 1"),
            "<109>1 2026-01-31T12:00:00.500000Z box_1 strongroom - images.delete \
             [audit@32473 line=\"7\" user=\"j\\\"o\\]\" userid=\"3\" via=\"key\" \
             address=\"10.0.0.1\" operation=\"images.delete\" object=\"image 5\" result=\"ok\" \
             hash=\"abcd\"] \u{feff}j\"o] images.delete image 5: ok"
        );
        let refused = AuditLine { result: "forbidden".into(), ..line() };
        assert!(to_syslog(&refused, "").starts_with("<108>1 2026-01-31T12:00:00.500000Z - "));
    }

    #[test]
    fn a_line_of_json() {
        let text = to_json(&line());
        assert!(!text.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["user"], "j\"o]");
        assert_eq!(value["organisation_id"], serde_json::Value::Null);
        assert_eq!(value["hash"], "abcd");
    }
}
