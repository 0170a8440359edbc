//! Requests that are signed with an API key: HTTP Message Signatures (RFC 9421) with
//! `hmac-sha256`, and the body's digest (RFC 9530).
//!
//! ```text
//! POST /v1/jobs?dry_run=true HTTP/1.1
//! Content-Digest: sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:
//! Signature-Input: sig=("@method" "@path" "@query" "content-digest");created=1764216000;keyid="abcd1234";nonce="b7c1e2d3f4a5968778695a4b"
//! Signature: sig=:mN4...=:
//! ```
//!
//! What is accepted is narrower than the RFC: one signature; components without parameters, each
//! once; `created`, `keyid` (the prefix of the API key) and `nonce` must be there, `alg`, `expires`
//! and `tag` may. It must cover `@method`, `@path`, the query where there is one, `content-digest`
//! where the route takes a body, and `if-match` and `idempotency-key` where they are sent. The
//! digest is compared with the body before anything is done.

use aws_lc_rs::{constant_time, digest};
use data_encoding::BASE64;
use http::request::Parts;
use http::{HeaderName, header};
use strongroom_identity::SignedRequest;

use crate::problem::{Code, Problem, Result};

const INPUT: &str = "signature-input";
const SIGNATURE: &str = "signature";
const DIGEST: &str = "content-digest";
/// Bytes of either header, at most, and components that are covered.
const LONGEST: usize = 4096;
const COMPONENTS: usize = 32;
/// What must be covered when it is sent: it changes what is done.
const TELLING: [&str; 2] = ["if-match", "idempotency-key"];

/// Whether a request is signed, or says so.
pub(super) fn is_there(parts: &Parts) -> bool {
    parts.headers.contains_key(INPUT) || parts.headers.contains_key(SIGNATURE)
}

/// The signed request, of one whose route takes a body or not.
pub(super) fn of(parts: &Parts, has_body: bool) -> Result<SignedRequest> {
    read(parts, has_body).map_err(|why| {
        let text = format!("the signature (RFC 9421) can't be taken: {why}");
        Problem::new(Code::Unauthenticated, text)
    })
}

fn read(parts: &Parts, has_body: bool) -> Result<SignedRequest, String> {
    let (input, signature) = (single(parts, INPUT)?, single(parts, SIGNATURE)?);
    let (label, parameters) = input.split_once('=').ok_or("Signature-Input has no label")?;
    let (signed, value) = signature.split_once('=').ok_or("Signature has no label")?;
    if label != signed {
        return Err("Signature and Signature-Input have different labels".into());
    }
    let input = Input::parse(parameters)?;
    let covers = |name: &str| input.components.iter().any(|component| component == name);
    let query = parts.uri.query().is_some_and(|query| !query.is_empty());
    let sent = TELLING.into_iter().filter(|name| parts.headers.contains_key(*name));
    let needed = ["@method", "@path"].into_iter().chain(sent);
    let needed = needed.chain(query.then_some("@query")).chain(has_body.then_some(DIGEST));
    for name in needed {
        if !covers(name) {
            return Err(format!("it must cover \"{name}\""));
        }
    }
    let mut text = String::new();
    for component in &input.components {
        text.push_str(&format!("\"{component}\": {}\n", value_of(parts, component)?));
    }
    text.push_str(&format!("\"@signature-params\": {parameters}"));
    Ok(SignedRequest {
        prefix: input.keyid,
        text,
        time: input.created,
        nonce: input.nonce,
        signature: bytes(value).ok_or("the value of Signature is not :BASE64:")?,
    })
}

/// A header that is there once.
fn single<'p>(parts: &'p Parts, name: &str) -> Result<&'p str, String> {
    let mut values = parts.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) if value.len() <= LONGEST => {
            value.to_str().map_err(|_| format!("the header {name} is not text"))
        }
        (Some(_), None) => Err(format!("the header {name} has more than {LONGEST} bytes")),
        (Some(_), Some(_)) => Err(format!("the header {name} is there more than once")),
        (None, _) => Err(format!("the header {name} is missing")),
    }
}

/// Bytes as RFC 8941 writes them.
fn bytes(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix(':')?.strip_suffix(':')?;
    BASE64.decode(text.as_bytes()).ok()
}

/// The value of a component (RFC 9421, section 2).
fn value_of(parts: &Parts, component: &str) -> Result<String, String> {
    Ok(match component {
        "@method" => parts.method.as_str().to_owned(),
        "@path" => match parts.uri.path() {
            "" => "/".to_owned(),
            path => path.to_owned(),
        },
        "@query" => format!("?{}", parts.uri.query().unwrap_or_default()),
        "@authority" => {
            let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let host = host.or(parts.uri.authority().map(|authority| authority.as_str()));
            let host = host.ok_or("the request has no authority")?.to_ascii_lowercase();
            host.strip_suffix(":443").map(str::to_owned).unwrap_or(host)
        }
        name if name.starts_with('@') => {
            return Err(format!(
                "\"{name}\" is not known: there are @method, @path, @query, @authority"
            ));
        }
        name => {
            let header = HeaderName::from_bytes(name.as_bytes());
            let header = header.map_err(|_| format!("\"{name}\" is no header"))?;
            if header.as_str() != name {
                return Err(format!("\"{name}\" must be in small letters"));
            }
            let values = parts.headers.get_all(&header).iter();
            let values = values.map(|value| value.to_str().map(str::trim));
            let values: Result<Vec<_>, _> = values.collect();
            match values {
                Ok(values) if !values.is_empty() => values.join(", "),
                Ok(_) => return Err(format!("it covers \"{name}\", which was not sent")),
                Err(_) => return Err(format!("the header {name} is not text")),
            }
        }
    })
}

/// Refuses a body that is not the one whose digest was signed.
pub(crate) fn check_body(parts: &Parts, body: &[u8]) -> Result<()> {
    let wrong = |why: &str| {
        let text = format!("the body is not the one that was signed: {why}");
        Err(Problem::new(Code::Unauthenticated, text))
    };
    let told = parts.headers.get(DIGEST).and_then(|told| told.to_str().ok()).unwrap_or_default();
    let told = told.split(',').find_map(|member| member.trim().strip_prefix("sha-256="));
    let Some(told) = told.and_then(bytes) else {
        return wrong("Content-Digest has no sha-256=:BASE64:");
    };
    let found = digest::digest(&digest::SHA256, body);
    match constant_time::verify_slices_are_equal(&told, found.as_ref()) {
        Ok(()) => Ok(()),
        Err(_) => wrong("its SHA-256 is another than Content-Digest says"),
    }
}

/// What `Signature-Input` says, behind its label.
#[derive(Debug, Default, PartialEq, Eq)]
struct Input {
    components: Vec<String>,
    created: i64,
    keyid: String,
    nonce: String,
}

impl Input {
    /// Reads it as RFC 8941 would write it, and in no other form: so what is signed is what was
    /// sent.
    fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.strip_prefix('(').ok_or("Signature-Input has no list of components")?;
        let mut components: Vec<String> = Vec::new();
        loop {
            if let Some(behind) = rest.strip_prefix(')') {
                rest = behind;
                break;
            }
            if !components.is_empty() {
                rest = rest.strip_prefix(' ').ok_or("components are parted by one space")?;
            }
            let (component, behind) = quoted(rest).ok_or("a component is not in quotes")?;
            if behind.starts_with(';') {
                return Err(format!("\"{component}\" has a parameter, which isn't known"));
            }
            if components.contains(&component) {
                return Err(format!("it covers \"{component}\" twice"));
            }
            if components.len() >= COMPONENTS {
                return Err(format!("it may cover {COMPONENTS} components"));
            }
            components.push(component);
            rest = behind;
        }
        let (mut created, mut keyid, mut nonce) = (None, None, None);
        let mut seen: Vec<&str> = Vec::new();
        while !rest.is_empty() {
            rest = rest.strip_prefix(';').ok_or("there is something behind its parameters")?;
            let (name, behind) = rest.split_once('=').ok_or("a parameter has no value")?;
            if seen.contains(&name) {
                return Err(format!("the parameter {name} is there twice"));
            }
            seen.push(name);
            match name {
                "created" | "expires" => {
                    let (number, behind) = number(behind).ok_or("a time is not a number")?;
                    if name == "created" {
                        created = Some(number);
                    } else if number < jiff::Timestamp::now().as_second() {
                        return Err("it has expired".into());
                    }
                    rest = behind;
                }
                "keyid" | "nonce" | "alg" | "tag" => {
                    let (value, behind) =
                        quoted(behind).ok_or_else(|| format!("{name} is not in quotes"))?;
                    match name {
                        "keyid" => keyid = Some(value),
                        "nonce" => nonce = Some(value),
                        "alg" if value != "hmac-sha256" => {
                            return Err("its alg is not hmac-sha256".into());
                        }
                        _ => {}
                    }
                    rest = behind;
                }
                other => {
                    let other: String = other.chars().take(20).collect();
                    return Err(format!("the parameter {other} is not known"));
                }
            }
        }
        Ok(Self {
            components,
            created: created.ok_or("created is missing")?,
            keyid: keyid.ok_or("keyid is missing")?,
            nonce: nonce.ok_or("nonce is missing")?,
        })
    }
}

/// A text in quotes, and what stands behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let text = text.strip_prefix('"')?;
    let mut out = String::new();
    let mut escaped = false;
    for (place, c) in text.char_indices() {
        match c {
            '"' | '\\' if escaped => {
                out.push(c);
                escaped = false;
            }
            _ if escaped => return None,
            '\\' => escaped = true,
            '"' => return Some((out, &text[place + 1..])),
            ' '..='~' => out.push(c),
            _ => return None,
        }
    }
    None
}

/// A number that isn't negative, and what stands behind it.
fn number(text: &str) -> Option<(i64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    let plain = digits.len() <= 15 && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok().map(|number| (number, rest))).flatten()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use aws_lc_rs::hmac;
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    fn parts(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::post("https://example.com/foo?param=Value&Pet=dog");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// The request of appendix B.2 of RFC 9421, with what must be covered here.
    #[test]
    fn a_request_of_the_rfc() {
        let digest = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:";
        let input = "sig-b25=(\"@method\" \"@path\" \"@query\" \"@authority\" \"date\" \
                     \"content-type\" \"content-digest\");created=1618884473;\
                     keyid=\"test-shared-secret\";nonce=\"b3k2pp5k7z-50gnwp.yemd\"";
        let parts = parts(&[
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
            ("content-digest", digest),
            ("signature-input", input),
            ("signature", "sig-b25=:AAAA:"),
        ]);
        let signed = of(&parts, true).unwrap();
        assert_eq!(
            signed.text,
            "\"@method\": POST\n\"@path\": /foo\n\"@query\": ?param=Value&Pet=dog\n\
             \"@authority\": example.com\n\"date\": Tue, 20 Apr 2021 02:07:55 GMT\n\
             \"content-type\": application/json\n\
             \"content-digest\": sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:\n\
             \"@signature-params\": (\"@method\" \"@path\" \"@query\" \"@authority\" \"date\" \
             \"content-type\" \"content-digest\");created=1618884473;\
             keyid=\"test-shared-secret\";nonce=\"b3k2pp5k7z-50gnwp.yemd\""
        );
        assert_eq!((signed.time, signed.prefix.as_str()), (1_618_884_473, "test-shared-secret"));
        assert_eq!(signed.signature, [0, 0, 0]);
        check_body(&parts, b"{\"hello\": \"world\"}").unwrap();
        assert!(check_body(&parts, b"{\"hello\": \"worle\"}").is_err());
    }

    /// Appendix B.2.5 of RFC 9421, whole: its signature is right for the text that is made here.
    #[test]
    fn the_signature_of_the_rfc() {
        let parts = parts(&[
            ("host", "example.com"),
            ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("content-type", "application/json"),
        ]);
        let text = ["date", "@authority", "content-type"].map(|component| {
            format!("\"{component}\": {}\n", value_of(&parts, component).unwrap())
        });
        let text = text.concat()
            + "\"@signature-params\": (\"date\" \"@authority\" \"content-type\");\
               created=1618884473;keyid=\"test-shared-secret\"";
        let secret = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBt\
                      bmHhIDi6pcl8jsasjlTMtDQ==";
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64.decode(secret.as_bytes()).unwrap());
        let signature = bytes(":pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8=:").unwrap();
        hmac::verify(&key, text.as_bytes(), &signature).unwrap();
    }

    const GOOD: &str = "s=(\"@method\" \"@path\" \"@query\");created=1;keyid=\"k\";nonce=\"n\"";

    #[test]
    fn what_is_not_covered_or_not_plain_is_refused() {
        let refused = |input: &str, has_body: bool, more: &[(&str, &str)]| {
            let mut headers = vec![("signature-input", input), ("signature", "s=:AA==:")];
            headers.extend(more);
            match read(&parts(&headers), has_body) {
                Ok(_) => String::new(),
                Err(why) => why,
            }
        };
        assert_eq!(refused(GOOD, false, &[]), "");
        assert!(refused(GOOD, true, &[]).contains("content-digest"));
        assert!(refused(GOOD, false, &[("if-match", "\"v1\"")]).contains("if-match"));
        assert!(refused(GOOD, false, &[("signature", "t=:AA==:")]).contains("more than once"));
        assert!(refused(&GOOD.replace(" \"@query\"", ""), false, &[]).contains("@query"));
        for (from, to, why) in [
            ("s=", "t=", "labels"),
            ("\"@method\"", "\"@target-uri\"", "@method"),
            ("\"@query\"", "\"@query\" \"date\"", "not sent"),
            ("\"@query\"", "\"@query\" \"@status\"", "not known"),
            ("\"@query\"", "\"@query\" \"Host\"", "small letters"),
            ("\"@query\"", "\"@query\";req", "parameter"),
            ("\"@query\"", "\"@query\" \"@path\"", "twice"),
            ("\"@query\"", " \"@query\"", "quotes"),
            (");", ") ;", "behind"),
            ("created=1;", "", "created"),
            ("created=1", "created=01", "number"),
            ("created=1", "created=-1", "number"),
            ("created=1", "created=1;created=2", "twice"),
            ("created=1", "created=1;expires=2", "expired"),
            ("nonce=\"n\"", "alg=\"hmac-sha256\"", "nonce"),
            ("nonce=\"n\"", "nonce=\"n\";alg=\"rsa-v1_5-sha256\"", "alg"),
            ("nonce=\"n\"", "nonce=\"n\";x=1", "not known"),
            ("nonce=\"n\"", "nonce=\"n\", t=()", "behind"),
            ("keyid=\"k\"", "keyid=\"\\k\"", "quotes"),
        ] {
            let input = GOOD.replacen(from, to, 1);
            let found = refused(&input, false, &[]);
            assert!(found.contains(why), "{input}: {found}");
        }
    }

    proptest! {
        #[test]
        fn no_input_is_too_odd(text in "[\\x00-\\x7f]{0,80}", broken in "[()\";=a-z@0-9\\\\ ]{0,80}") {
            let _ = Input::parse(&text);
            let _ = Input::parse(&broken);
            let _ = Input::parse(&format!("({broken}"));
        }

        #[test]
        fn texts_in_quotes_are_read_back(text in "[ -~]{0,40}", behind in "[ -~]{0,10}") {
            let written = format!("\"{}\"{behind}", text.replace('\\', "\\\\").replace('"', "\\\""));
            prop_assert_eq!(quoted(&written), Some((text, behind.as_str())));
        }
    }
}
