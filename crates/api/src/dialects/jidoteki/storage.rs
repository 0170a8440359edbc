//! Section 11: storage options. What is sent is looked at as the original does, with its words: which
//! characters, and how many. What it means is the service's.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde_json::Value;
use strongroom_appliance::{Error, StorageKind, StorageSettings, StorageValue};
use strongroom_identity::Right;

use super::answer::{Answer, Fault, accepted, found};
use super::dispatch::Call;
use super::option::{
    ADDRESS, DIGITS, MOUNT_OPTIONS, NAME, PATH as PATH_CHARACTERS, PRINTABLE, TARGET, TextOption,
};
use super::{Documented, Endpoint, JSON, Parameter};

const PATH: &str = "/storage";
const SECTION: &str = "Storage";

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: PATH,
        id: "jidoteki.storage.set",
        summary: "Set where storage is, from the next start on",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[Parameter::file(
            "settings",
            true,
            "JSON: an object `storage` with `type` and what that needs.",
        )],
        answers: &[
            Documented::bare(202, "A job keeps it for the next start."),
            Documented::bare(400, "It can't be such; nothing changed."),
        ],
        run: set,
    },
    // It shows a password, as the original does.
    Endpoint::get(
        SECTION,
        PATH,
        "jidoteki.storage.show",
        "Where storage is",
        Right::SystemManage,
        &[
            Documented::found(JSON, "What is set, and which types there are."),
            Documented::bare(404, "Nothing is set."),
        ],
        show,
    ),
];

/// What a value of the settings may be.
fn option(name: &'static str) -> TextOption {
    let (characters, (least, most)) = match name {
        "mount_options" => (MOUNT_OPTIONS, (3, 255)),
        "share" | "export_name" => (PATH_CHARACTERS, (3, 255)),
        "target" => (TARGET, (3, 255)),
        "device" => (NAME, (3, 255)),
        "ip" => (ADDRESS, (3, 45)),
        "port" => (DIGITS, (1, 5)),
        _ => (PRINTABLE, (3, 255)),
    };
    TextOption { name, characters, least, most }
}

/// One value of the settings. Without one it is too short.
fn value(field: &'static str, given: Option<&Value>) -> Answer<StorageValue> {
    let option = option(field);
    let value = match given {
        None | Some(Value::Null) => StorageValue::Text(String::new()),
        Some(Value::String(text)) => StorageValue::Text(text.clone()),
        Some(Value::Number(number)) => {
            StorageValue::Number(number.as_u64().ok_or_else(|| option.unfit())?)
        }
        Some(_) => return Err(option.unfit()),
    };
    match &value {
        StorageValue::Text(text) => option.check(text)?,
        StorageValue::Number(number) => option.check(&number.to_string())?,
    }
    Ok(value)
}

/// What a file of settings says. `offered`: the types that there are.
fn read(text: &[u8], offered: &[StorageKind]) -> Answer<StorageSettings> {
    let bare = || Fault::bare(StatusCode::BAD_REQUEST);
    let all: Value = serde_json::from_slice(text).map_err(|_| bare())?;
    let storage = match &all {
        Value::Object(all) if all.is_empty() => return Err(bare()),
        Value::Object(all) => all.get("storage"),
        // The original finds no type in it.
        Value::Array(_) => None,
        _ => return Err(bare()),
    };
    let kind = storage.and_then(|storage| storage["type"].as_str());
    let kind = kind.and_then(StorageKind::of_word).filter(|kind| offered.contains(kind));
    let Some(kind) = kind else {
        let words: Vec<_> = offered.iter().map(|kind| kind.word()).collect();
        return Err(Fault::bad(format!("Invalid option: type. Allowed: {}", words.join(", "))));
    };
    let fields = kind.fields().iter();
    let values = fields.map(|field| {
        let given = storage.and_then(|storage| storage.get(field));
        Ok((*field, value(field, given)?))
    });
    let values = values.collect::<Answer<Vec<_>>>()?;
    Ok(StorageSettings::new(kind, values)?)
}

fn set(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let settings = call.form.bytes("settings").unwrap_or_default();
        let administration = call.app().administration();
        let settings = read(&settings, &administration.offered_storage()?)?;
        match administration.set_storage_options_later(call.asker()?, settings).await {
            // As with the original, the one that runs goes on.
            Ok(_) | Err(Error::Busy { .. }) => Ok(accepted(PATH)),
            Err(error) => Err(error.into()),
        }
    }
    .boxed()
}

#[derive(Debug, Serialize)]
struct Told<'a> {
    storage: &'a StorageSettings,
    options: Vec<&'static str>,
}

fn show(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let status = call.app().administration().storage_options().await?;
        let storage = status.settings.as_ref().ok_or_else(Fault::not_found)?;
        let options = status.options.iter().map(|kind| kind.word()).collect();
        let mut response = found(&Told { storage, options });
        let no_cache = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, no_cache);
        Ok(response)
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn refused(text: &str) -> String {
        match read(text.as_bytes(), &StorageKind::ALL) {
            Ok(settings) => panic!("{text} is taken: {settings:?}"),
            Err(fault) => fault.word().to_owned(),
        }
    }

    #[test]
    fn the_examples_of_the_document_are_taken_and_told_again() {
        for text in [
            r#"{"storage":{"type":"local"}}"#,
            r#"{"storage":{"type":"nfs","mount_options":"noacl,sync","ip":"192.168.1.100","share":"/nfs/storage"}}"#,
            r#"{"storage":{"type":"aoe","device":"e0.1"}}"#,
            r#"{"storage":{"type":"iscsi","target":"iqn.2016-01.com.example:storage.lun1","ip":"192.168.1.100","username":"user","password":"pass"}}"#,
            r#"{"storage":{"type":"nbd","export_name":"otherexport","ip":"192.168.1.100","port":"1043"}}"#,
            // A number counts as its digits, and is told as one.
            r#"{"storage":{"type":"nbd","export_name":"otherexport","ip":"192.168.1.100","port":1043}}"#,
            // What it means is not looked at.
            r#"{"storage":{"type":"nbd","export_name":"../","ip":"999.999.999.999","port":"99999"}}"#,
        ] {
            let read = read(text.as_bytes(), &StorageKind::ALL).unwrap();
            let told = format!(r#"{{"storage":{}}}"#, serde_json::to_string(&read).unwrap());
            assert_eq!(told, text);
        }
        // Others' keys, another order, and white space.
        let text = "{\n \"app\": {}, \"storage\": { \"device\": \"e0.1\", \"x\": [1], \
                    \"type\": \"aoe\", \"ip\": 5 }\n}\n";
        let read = read(text.as_bytes(), &StorageKind::ALL).unwrap();
        let told = serde_json::to_string(&read).unwrap();
        assert_eq!(told, r#"{"type":"aoe","device":"e0.1"}"#);
    }

    #[test]
    fn what_is_wrong_is_told_in_the_originals_words() {
        let types = "Invalid option: type. Allowed: local, nfs, aoe, iscsi, nbd";
        for text in
            ["", "{", "{}", "5", "\"x\"", "null", "{} {}", "{\"storage\":{\"type\":\"local\"}} x"]
        {
            assert_eq!(refused(text), "Bad Request", "{text}");
        }
        for text in [
            "[]",
            r#"{"storage":{}}"#,
            r#"{"storage":[]}"#,
            r#"{"storage":"local"}"#,
            r#"{"type":"local"}"#,
            r#"{"storage":{"type":"LOCAL"}}"#,
            r#"{"storage":{"type":"ceph"}}"#,
            r#"{"storage":{"type":["nfs"]}}"#,
        ] {
            assert_eq!(refused(text), types, "{text}");
        }
        let letters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let unfit = |field: &str, allowed: &str| {
            format!("Missing or invalid string for option: {field}. Allowed: {allowed}")
        };
        let long = |field: &str, least: u32, most: u32| {
            format!("Invalid string length for option: {field}. Allowed: >= {least} and <= {most}")
        };
        let nbd = |port: &str| {
            format!(
                r#"{{"storage":{{"type":"nbd","export_name":"abc","ip":"::1","port":{port}}}}}"#
            )
        };
        let aoe = |device: &str| format!(r#"{{"storage":{{"type":"aoe","device":{device}}}}}"#);
        let of = |rest: &str| format!(r#"{{"storage":{{"type":{rest}}}}}"#);
        let far = format!("\"{}\"", "x".repeat(256));
        let far_and_wrong = format!("\"{} \"", "x".repeat(256));
        let fqdn = format!("{letters}.-");
        for (text, expected) in [
            (nbd("\"1043x\""), unfit("port", "0123456789")),
            (nbd("104300"), long("port", 1, 5)),
            (nbd("\"\""), long("port", 1, 5)),
            (nbd("-1"), unfit("port", "0123456789")),
            (nbd("1.5"), unfit("port", "0123456789")),
            (nbd("true"), unfit("port", "0123456789")),
            (nbd("[1]"), unfit("port", "0123456789")),
            (nbd("null"), long("port", 1, 5)),
            (nbd("\"\u{0660}\""), unfit("port", "0123456789")),
            (aoe("\"e0\""), long("device", 3, 255)),
            (aoe("\"e0_1\""), unfit("device", &fqdn)),
            (aoe("\"e0.1\\n\""), unfit("device", &fqdn)),
            (aoe(&far), long("device", 3, 255)),
            // Characters come before the length.
            (aoe(&far_and_wrong), unfit("device", &fqdn)),
            (of(r#""nfs""#), long("mount_options", 3, 255)),
            (
                of(r#""nfs","mount_options":"a b""#),
                unfit("mount_options", &format!("{letters}.-=,")),
            ),
            (of(r#""nfs","mount_options":"rw,sync""#), long("ip", 3, 45)),
            (
                of(r#""nfs","mount_options":"rw,sync","ip":"box""#),
                unfit("ip", "abcdef0123456789ABCDEF.:"),
            ),
            (
                of(r#""nfs","mount_options":"rw,sync","ip":"::1","share":"/a b""#),
                unfit("share", &format!("{letters}.-_/")),
            ),
            (of(r#""iscsi","target":"a/b""#), unfit("target", &format!("{letters}.-_:"))),
            (
                of(r#""iscsi","target":"iqn.x","ip":"::1","username":"user""#),
                long("password", 3, 255),
            ),
            (
                of(r#""iscsi","target":"iqn.x","ip":"::1","username":"a b","password":"pass""#),
                unfit("username", &(33u8..=126).map(char::from).collect::<String>()),
            ),
        ] {
            assert_eq!(refused(&text), expected, "{text:.80}");
        }
        // Nesting without end is not followed.
        assert_eq!(refused(&"[".repeat(100_000)), "Bad Request");
        // The configuration may leave types out.
        let text = r#"{"storage":{"type":"nbd"}}"#;
        let fault = read(text.as_bytes(), &[StorageKind::Local, StorageKind::Nfs]).unwrap_err();
        assert_eq!(fault.word(), "Invalid option: type. Allowed: local, nfs");
    }
}
