//! Takes secrets out of what is handed to others: those that are known, wherever they stand, and
//! what looks like one. What doesn't is left as it is; it is better to hide too much.

use std::fmt;
use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, MatchKind};
use data_encoding::{BASE64, BASE64_NOPAD, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// What stands where a secret was.
const HIDDEN: &str = "[hidden]";
/// A secret shorter than that would hide what is none.
const SHORTEST: usize = 4;
/// Bytes of a line that are kept: the rest may be anything.
pub(super) const LINE: usize = 64 << 10;
/// A word of letters and digits that is longer is random.
const RANDOM: usize = 40;

/// Names of what is secret, in small letters; what they end may be longer (`newtoken`).
const NAMES: &[&str] = &[
    "access_key",
    "api-key",
    "api_key",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "private_key",
    "privatekey",
    "secret",
    "secret_key",
    "token",
    // Of requests of the dialects: it can be sent again.
    "hash",
];
/// How our own keys and tokens, and those of others, begin.
const BEGINNINGS: &[&str] = &["srk_", "srs_", "sra_", "srr_", "eyJ"];
const PEM_BEGINS: &str = "-----BEGIN ";
const PEM_ENDS: &str = "-----END ";

/// Secrets that are known. No format shows them.
#[derive(Clone, Default)]
pub struct Hidden(Vec<Zeroizing<String>>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hidden({})", self.0.len())
    }
}

impl Hidden {
    /// Hides a text.
    pub fn text(&mut self, text: &str) {
        let mut add = |text: &str| {
            if text.len() >= SHORTEST && !self.0.iter().any(|known| known.as_str() == text) {
                self.0.push(Zeroizing::new(text.to_owned()));
            }
        };
        add(text);
        // As JSON and Rust write it.
        let quoted = Zeroizing::new(serde_json::Value::from(text).to_string());
        add(quoted.trim_matches('"'));
        let quoted = Zeroizing::new(format!("{text:?}"));
        add(quoted.trim_matches('"'));
    }

    /// Hides the password in an address, `scheme://user:PASSWORD@host/path?password=PASSWORD`.
    pub fn address(&mut self, text: &str) {
        let mut hide = |text: &str| {
            self.text(text);
            self.text(&percent_decode_str(text).decode_utf8_lossy());
        };
        let rest = text.split_once("://").map_or(text, |(_, rest)| rest);
        let user = rest.rsplit_once('@').map(|(user, _)| user);
        if let Some((_, password)) = user.and_then(|user| user.split_once(':')) {
            hide(password);
        }
        let query = text.split_once('?').map_or("", |(_, query)| query);
        for (_, value) in query.split('&').filter_map(|pair| pair.split_once("password=")) {
            hide(value);
        }
    }

    /// Hides bytes, as they may be written.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for encoding in [HEXLOWER, HEXUPPER, BASE64, BASE64_NOPAD, BASE64URL_NOPAD] {
            self.text(&Zeroizing::new(encoding.encode(bytes)));
        }
    }

    /// Hides what a file holds: a key in text or in bytes.
    pub fn file(&mut self, bytes: &[u8]) {
        if let Ok(text) = std::str::from_utf8(bytes) {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
            lines.filter(|line| line.len() >= 16).for_each(|line| self.text(line));
        }
        if bytes.len() <= 256 {
            self.bytes(bytes);
        }
    }

    /// Hides what these hide too.
    pub fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().cloned());
    }
}

/// Takes secrets out of lines.
pub(super) struct Redactor {
    known: AhoCorasick,
    names: AhoCorasick,
    beginnings: AhoCorasick,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor")
    }
}

/// What a line leaves behind for the next one of the same text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Within {
    /// It is in the middle of a private key.
    key: bool,
}

impl Redactor {
    pub(super) fn new(hidden: &Hidden) -> Option<Self> {
        let build = |kind: MatchKind, no_case: bool| {
            let mut builder = AhoCorasickBuilder::new();
            builder.match_kind(kind).ascii_case_insensitive(no_case);
            builder
        };
        let known = hidden.0.iter().map(|text| text.as_bytes());
        Some(Self {
            known: build(MatchKind::LeftmostLongest, false).build(known).ok()?,
            names: build(MatchKind::LeftmostLongest, true).build(NAMES).ok()?,
            beginnings: build(MatchKind::LeftmostFirst, false).build(BEGINNINGS).ok()?,
        })
    }

    /// All of a text.
    pub(super) fn text(&self, text: &str) -> String {
        let mut within = Within::default();
        let mut out = String::with_capacity(text.len());
        for line in text.split_inclusive('\n') {
            let end = if line.ends_with('\n') { "\n" } else { "" };
            out.push_str(&self.line(line.trim_end_matches('\n'), &mut within));
            out.push_str(end);
        }
        out
    }

    /// One line, without its end.
    pub(super) fn line(&self, line: &str, within: &mut Within) -> String {
        let mut gone: Vec<Range<usize>> = Vec::new();
        let bytes = line.as_bytes();
        gone.extend(self.known.find_iter(bytes).map(|found| found.range()));
        keys(line, within, &mut gone);
        for found in self.beginnings.find_iter(bytes) {
            if found.start() == 0 || !is_word(bytes[found.start() - 1]) {
                gone.push(found.end()..ends(line, found.end(), |c| is_word(c) || c == b'.'));
            }
        }
        for found in self.names.find_iter(bytes) {
            gone.extend(value(line, found.range()));
        }
        urls(line, &mut gone);
        words(line, &mut gone);
        without(line, gone)
    }
}

fn is_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || c == b'_' || c == b'-'
}

/// Where what fits ends, from there on.
fn ends(line: &str, from: usize, fits: impl Fn(u8) -> bool) -> usize {
    let rest = &line.as_bytes()[from..];
    from + rest.iter().position(|&c| !fits(c)).unwrap_or(rest.len())
}

/// Private keys in PEM, in one line or many.
fn keys(line: &str, within: &mut Within, gone: &mut Vec<Range<usize>>) {
    let mut from = 0;
    loop {
        if within.key {
            match line[from..].find(PEM_ENDS) {
                Some(end) => {
                    gone.push(from..from + end);
                    from += end + PEM_ENDS.len();
                    within.key = false;
                }
                None => return gone.push(from..line.len()),
            }
        }
        let Some(begin) = line[from..].find(PEM_BEGINS) else { return };
        from += begin + PEM_BEGINS.len();
        let label = &line[from..];
        let label = &label[..label.find("-----").unwrap_or(label.len())];
        if label.ends_with("PRIVATE KEY") {
            within.key = true;
            from += label.len();
        }
    }
}

/// The value that follows a name, in whichever form: `name=value`, `name: value`, `"name":"value"`.
fn value(line: &str, name: Range<usize>) -> Option<Range<usize>> {
    let is = |word: &str| line[name.clone()].eq_ignore_ascii_case(word);
    // Of JSON it is that of a line of the audit trail.
    let only_equals = is("hash");
    let to_end = is("cookie") || is("authorization");
    let bytes = line.as_bytes();
    let at = |place: usize| bytes.get(place).copied().unwrap_or(b' ');
    let mut place = name.end;
    // The end of the name's own quotes, which may be escaped.
    while matches!(at(place), b'\\' | b'"' | b'\'') && place < bytes.len() {
        place += 1;
    }
    place = ends(line, place, |c| c == b' ');
    match at(place) {
        b'=' => {}
        b':' if !only_equals => {}
        _ => return None,
    }
    place = ends(line, place + 1, |c| c == b' ');
    let opens = ends(line, place, |c| c == b'\\');
    let quote = at(opens);
    if matches!(quote, b'"' | b'\'') {
        let start = opens + 1;
        let escaped = opens > place;
        let mut end = start;
        while end < bytes.len() {
            match bytes[end] {
                c if c == quote => break,
                b'\\' if escaped => break,
                b'\\' => end += 2,
                _ => end += 1,
            }
        }
        return Some(start..end.min(bytes.len()));
    }
    let rest = &line[place..];
    // A scheme, and what it says: `Bearer TOKEN`.
    for scheme in ["Bearer ", "Basic ", "bearer ", "basic "] {
        if let Some(after) = rest.strip_prefix(scheme) {
            let start = line.len() - after.len();
            return Some(start..ends(line, start, |c| !c.is_ascii_whitespace() && c != b'"'));
        }
    }
    if to_end {
        return Some(place..line.len());
    }
    let fits = |c: u8| !c.is_ascii_whitespace() && !matches!(c, b'"' | b'\'' | b'&');
    let end = ends(line, place, fits);
    // What programs write where there is no value, or one of several parts.
    let word = line[place..end].trim_end_matches([',', '}', ')', ']', ';']);
    let is_plain = matches!(word, "" | "null" | "true" | "false" | "None" | "Secret" | "{" | "[");
    (!is_plain).then(|| place..place + word.len())
}

/// Passwords in addresses: `scheme://user:PASSWORD@host`.
fn urls(line: &str, gone: &mut Vec<Range<usize>>) {
    for (place, _) in line.match_indices("://") {
        let start = place + 3;
        let end = ends(line, start, |c| {
            !c.is_ascii_whitespace() && !matches!(c, b'"' | b'\'' | b'<' | b'>' | b'`')
        });
        let address = &line[start..end];
        // A password may hold a slash that nobody escaped; a path that holds an `@` is no loss.
        let Some(at) = address.rfind('@') else { continue };
        if let Some(colon) = address[..at].find(':') {
            gone.push(start + colon + 1..start + at);
        }
    }
}

/// Long words of letters and digits, that are not hexadecimal.
fn words(line: &str, gone: &mut Vec<Range<usize>>) {
    let bytes = line.as_bytes();
    let mut place = 0;
    while place < bytes.len() {
        let end = ends(line, place, |c| c.is_ascii_alphanumeric());
        let word = &bytes[place..end];
        if word.len() >= RANDOM
            && word.iter().any(u8::is_ascii_digit)
            && !word.iter().all(u8::is_ascii_hexdigit)
        {
            gone.push(place..end);
        }
        place = end.max(place) + 1;
    }
}

/// The line with something else where these were.
fn without(line: &str, mut gone: Vec<Range<usize>>) -> String {
    gone.retain(|range| range.start < range.end);
    if gone.is_empty() {
        return line.to_owned();
    }
    gone.sort_unstable_by_key(|range| (range.start, range.end));
    let mut out = String::with_capacity(line.len());
    let mut place = 0;
    for range in gone {
        // None of them begins or ends within a character, but for texts that never were one.
        let start = line.floor_char_boundary(range.start);
        let end = line.ceil_char_boundary(range.end);
        if start >= place {
            out.push_str(&line[place..start]);
            out.push_str(HIDDEN);
        }
        place = place.max(end);
    }
    out.push_str(&line[place..]);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn redactor(known: &[&str]) -> Redactor {
        let mut hidden = Hidden::default();
        known.iter().for_each(|text| hidden.text(text));
        Redactor::new(&hidden).unwrap()
    }

    #[test]
    fn what_is_secret_goes_and_the_rest_stays() {
        let redactor = redactor(&[]);
        for (line, left) in [
            ("GET /x?token=hunter2&y=1 ok", "GET /x?token=[hidden]&y=1 ok"),
            ("POST newtoken=hunter2", "POST newtoken=[hidden]"),
            ("/version?hash=abc123 took 5 ms", "/version?hash=[hidden] took 5 ms"),
            (r#"{"hash":"abc123","id":5}"#, r#"{"hash":"abc123","id":5}"#),
            ("Authorization: Bearer hunter2 end", "Authorization: Bearer [hidden] end"),
            (
                r#"headers {"authorization": "Basic aHVudGVyMg=="}"#,
                r#"headers {"authorization": "[hidden]"}"#,
            ),
            (r#"{"password":"hun\"ter2","a":1}"#, r#"{"password":"[hidden]","a":1}"#),
            (r#"{"m":"{\"password\":\"hunter2\"}"}"#, r#"{"m":"{\"password\":\"[hidden]\"}"}"#),
            (r#"bind_password = 'hunter2'"#, r#"bind_password = '[hidden]'"#),
            ("PGPASSWORD=hunter2 psql", "PGPASSWORD=[hidden] psql"),
            ("passphrase: hunter2", "passphrase: [hidden]"),
            ("password=1234, user=5", "password=[hidden], user=5"),
            ("password: trueblood", "password: [hidden]"),
            ("password: {SSHA}hunter2", "password: [hidden]"),
            ("Cookie: a=hunter2; b=hunter3", "Cookie: [hidden]"),
            ("authorization: Digest a=hunter2, b=hunter3", "authorization: [hidden]"),
            ("at postgres://u:hunter2@host/db", "at postgres://u:[hidden]@host/db"),
            ("at postgres://u:hun/te@r2@host/db?x", "at postgres://u:[hidden]@host/db?x"),
            ("key srk_ab12c_hunter2hunter2 is", "key srk_[hidden] is"),
            ("srs_hunter2", "srs_[hidden]"),
            ("jwt eyJhbGci.eyJzdWIi.c2ln-_ x", "jwt eyJ[hidden] x"),
            ("x abcdefghijklmnopqrstuvwxyz234567abcdefghijkl y", "x [hidden] y"),
            // What is no secret.
            ("a token was set", "a token was set"),
            ("password.shortest is 12", "password.shortest is 12"),
            (
                r#"{"password_shortest":12,"token":null}"#,
                r#"{"password_shortest":12,"token":null}"#,
            ),
            (r#"{"secret":true,"tokens":5}"#, r#"{"secret":true,"tokens":5}"#),
            ("Key { token: None, secret: Secret }", "Key { token: None, secret: Secret }"),
            ("token: {", "token: {"),
            ("at https://host:8443/a/b and me@host", "at https://host:8443/a/b and me@host"),
            (
                "sha256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
                "sha256 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            ),
            ("", ""),
        ] {
            assert_eq!(redactor.text(line), left);
        }
    }

    #[test]
    fn what_is_known_goes_wherever_it_stands() {
        let redactor = redactor(&["rocket-horse", "rocket-horse-two", "a\"b\nc", "ß日本", "abc"]);
        assert_eq!(redactor.text("x rocket-horse-two y"), "x [hidden] y");
        assert_eq!(redactor.text("xrocket-horsey"), "x[hidden]y");
        assert_eq!(redactor.text(r#"as JSON: a\"b\nc."#), "as JSON: [hidden].");
        assert_eq!(redactor.text("ßß日本日"), "ß[hidden]日");
        // Too short to be looked for.
        assert_eq!(redactor.text("abc"), "abc");
        let mut hidden = Hidden::default();
        hidden.address("postgres://u:hunter%40two@host/db?password=hunter%2b3&x=y");
        let passwords = Redactor::new(&hidden).unwrap();
        let all = "hunter%40two hunter@two hunter%2b3 hunter+3 u host";
        assert_eq!(passwords.text(all), "[hidden] [hidden] [hidden] [hidden] u host");
        let mut hidden = Hidden::default();
        hidden.bytes(&[0xfb; 32]);
        hidden.file(b"-----BEGIN X-----\nMIIBVgIBADANBgkqhkiG\nshort\n");
        let redactor = Redactor::new(&hidden).unwrap();
        for text in [HEXLOWER.encode(&[0xfb; 32]), BASE64.encode(&[0xfb; 32])] {
            assert!(!redactor.text(&format!("x {text} y")).contains(&text));
        }
        assert_eq!(redactor.text("MIIBVgIBADANBgkqhkiG short"), "[hidden] short");
        assert_eq!(format!("{hidden:?}"), format!("Hidden({})", hidden.0.len()));
    }

    #[test]
    fn private_keys_go_in_one_line_or_many() {
        let redactor = redactor(&[]);
        let key =
            "a -----BEGIN EC PRIVATE KEY-----\nhunter2\nhunter3\n-----END EC PRIVATE KEY----- b\nc";
        let left = redactor.text(key);
        assert!(!left.contains("hunter") && left.ends_with(" b\nc"), "{left}");
        let one = key.replace('\n', "\\n");
        let left = redactor.text(&one);
        assert!(!left.contains("hunter") && left.ends_with(" b\\nc"), "{left}");
        // One without an end.
        let left = redactor.text("-----BEGIN PRIVATE KEY-----\nhunter2\nhunter3");
        assert!(!left.contains("hunter"), "{left}");
        let public = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----";
        assert_eq!(redactor.text(public), public);
    }

    #[test]
    fn no_line_is_too_strange() {
        let redactor = redactor(&["日本"]);
        for line in [
            "token=",
            "token",
            "token:\"",
            "token=\\",
            "token=\"\\",
            "://",
            "://@",
            "://:@",
            "token=日",
            "password: \"日\\",
            "-----BEGIN ",
            "-----BEGIN PRIVATE KEY",
            "-----END ",
            "srk_",
            "eyJ",
            "\"token\\\":\\\"",
            "日token=本",
        ] {
            redactor.text(line);
            redactor.text(&format!("{line}{line}"));
        }
    }
}
