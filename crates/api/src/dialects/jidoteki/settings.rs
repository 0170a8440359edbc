//! Section 8: the settings of the network and of the application.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Method, StatusCode};
use serde::Serialize;
use strongroom_appliance::Error;
use strongroom_appliance::network::{
    Document, HostAddress, Json, Mode, NetworkChange, NetworkSettings, SetNetwork, WantedNetwork,
    mask,
};
use strongroom_identity::Right;

use super::answer::{Answer, Fault, accepted, found};
use super::dispatch::Call;
use super::option::{ADDRESS, ALPHANUMERIC, MASK, NAME, NAME_OR_ADDRESS, TextOption};
use super::{Documented, Endpoint, JSON, Parameter};

const PATH: &str = "/settings";
const SECTION: &str = "Network";

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::POST,
        path: PATH,
        id: "jidoteki.settings.set",
        summary: "Change the settings of the network and of the application",
        section: SECTION,
        right: Right::SystemManage,
        parameters: &[Parameter::file(
            "settings",
            true,
            "JSON: an object `network`, and an object `app` of whatever the application wants.",
        )],
        answers: &[
            Documented::bare(
                202,
                "A job applies them; the next call that reaches the appliance where it is then keeps \
                 them.",
            ),
            Documented::bare(400, "They can't be taken; nothing changed."),
        ],
        run: set,
    },
    Endpoint::get(
        SECTION,
        PATH,
        "jidoteki.settings.show",
        "The settings of the network and of the application",
        Right::SystemView,
        &[
            Documented::found(JSON, "As they were set, with `mode` first: `static` or `dhcp`."),
            Documented::bare(404, "The network was never set."),
        ],
        show,
    ),
];

/// An option of the network.
struct Field {
    text: TextOption,
    required: bool,
}

const fn field(
    name: &'static str,
    characters: &'static str,
    (least, most): (usize, usize),
    required: bool,
) -> Field {
    Field { text: TextOption { name, characters, least, most }, required }
}

/// In the order in which they are looked at.
const FIELDS: [Field; 8] = [
    field("interface", ALPHANUMERIC, (3, 14), true),
    field("hostname", NAME, (3, 255), true),
    field("ip_address", ADDRESS, (3, 45), false),
    field("netmask", MASK, (2, 45), false),
    field("gateway", ADDRESS, (3, 45), false),
    field("dns1", ADDRESS, (3, 45), false),
    field("dns2", ADDRESS, (3, 45), false),
    field("ntpserver", NAME_OR_ADDRESS, (3, 255), false),
];

impl Field {
    /// Looks at the option as it was sent.
    fn check(&self, network: &Document) -> Answer<()> {
        match text(network, self.text.name) {
            None => Err(self.text.unfit()),
            Some(text) if text.is_empty() && !self.required => Ok(()),
            Some(text) => self.text.check(&text),
        }
    }
}

/// An option as a text, empty if it isn't there; numbers are their digits. None: it can be no text.
fn text(network: &Document, name: &str) -> Option<String> {
    match network.get(name) {
        None | Some(Json::Null) => Some(String::new()),
        Some(Json::Text(text)) => Some(text.clone()),
        Some(Json::Number(number)) => Some(number.to_string()),
        Some(Json::Bool(_) | Json::List(_) | Json::Object(_)) => None,
    }
}

/// What a file of settings says: the network, as it was written and as it is meant, and the
/// application's.
fn read(file: &[u8]) -> Answer<(Document, NetworkSettings, Document)> {
    let bare = || Fault::bare(StatusCode::BAD_REQUEST);
    let sent = match serde_json::from_slice::<Json>(file).map_err(|_| bare())? {
        Json::Object(sent) if !sent.is_empty() => sent,
        // As a file without a network.
        Json::List(_) => Document::default(),
        _ => return Err(bare()),
    };
    let network = match sent.get("network") {
        Some(Json::Object(network)) => network.clone(),
        _ => Document::default(),
    };
    FIELDS.iter().try_for_each(|field| field.check(&network))?;
    let application = match sent.get("app") {
        None | Some(Json::Null) => Document::default(),
        Some(Json::Object(app)) => app.clone(),
        Some(_) => return Err(Fault::bad("Invalid option: app. Expected a JSON object")),
    };
    let settings = meant(&network).map_err(named)?;
    // Before all of it is gone through.
    network.check().map_err(Error::Application)?;
    application.check().map_err(Error::Application)?;
    // It is told anew with each answer.
    let members = network.members().filter(|(name, _)| *name != "mode");
    let network = Document::of(members.map(|(name, value)| (name.to_owned(), value.clone())));
    Ok((network, settings, application))
}

/// What the options come to.
fn meant(network: &Document) -> Result<NetworkSettings, Error> {
    let option = |name: &str| text(network, name).filter(|text| !text.is_empty());
    let mut wanted = WantedNetwork {
        interface: option("interface").unwrap_or_default(),
        hostname: option("hostname").unwrap_or_default(),
        ntp: option("ntpserver").into_iter().collect(),
        ..WantedNetwork::default()
    };
    let given = (option("ip_address"), option("netmask"), option("gateway"));
    if let (Some(address), Some(netmask), Some(gateway)) = given {
        wanted.mode = Mode::Static;
        wanted.addresses = vec![HostAddress::with_mask(&address, &netmask)?.to_string()];
        wanted.gateways = vec![gateway];
    }
    for server in ["dns1", "dns2"].into_iter().filter_map(option) {
        if !wanted.dns.contains(&server) {
            wanted.dns.push(server);
        }
    }
    wanted.check()
}

/// What is wrong, by the names of the dialect.
fn named(error: Error) -> Fault {
    let Error::Network { field, why } = error else { return error.into() };
    let name = match field {
        "address" | "addresses" => "ip_address",
        "gateways" => "gateway",
        "dns" => "dns1 or dns2",
        "ntp" => "ntpserver",
        field => field,
    };
    Fault::bad(format!("Invalid option: {name}. {why}"))
}

fn set(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let file = call.form.bytes("settings").filter(|file| !file.is_empty());
        let file = file.ok_or_else(|| Fault::bare(StatusCode::BAD_REQUEST))?;
        let (given, settings, application) = read(&file)?;
        let change = NetworkChange {
            settings,
            given: Some(given),
            application: Some(application),
            confirm: None,
            by_dialect: true,
        };
        match call.app().administration().change_network(call.asker()?, change).await {
            // As with the original, the one that runs or waits goes on.
            Ok(_) | Err(Error::Busy { .. } | Error::State(_)) => Ok(accepted(PATH)),
            Err(error) => Err(error.into()),
        }
    }
    .boxed()
}

#[derive(Debug, Serialize)]
struct Told {
    network: Document,
    app: Document,
}

fn show(call: Call) -> BoxFuture<'static, Answer> {
    async move {
        let administration = call.app().administration();
        let set = administration.network_status().await?.set.ok_or_else(Fault::not_found)?;
        let app = administration.application().await?.unwrap_or_default();
        Ok(found(&Told { network: told(&set), app }))
    }
    .boxed()
}

/// The network as it was written; what was set natively, in the dialect's words.
fn told(set: &SetNetwork) -> Document {
    let settings = &set.settings;
    let mut all = vec![("mode".to_owned(), Json::from(settings.mode.word()))];
    if let Some(given) = &set.given {
        all.extend(given.members().map(|(name, value)| (name.to_owned(), value.clone())));
        return Document::of(all);
    }
    let mut tell = |name: &str, value: Option<String>| {
        all.extend(value.map(|value| (name.to_owned(), Json::Text(value))));
    };
    tell("interface", Some(settings.interface.clone()));
    tell("hostname", Some(settings.hostname.clone()));
    if let Some(first) = settings.addresses.first() {
        let is_4 = first.address.is_ipv4();
        let gateway = settings.gateways.iter().find(|gateway| gateway.is_ipv4() == is_4);
        tell("ip_address", Some(first.address.to_string()));
        tell("netmask", Some(mask(first)));
        tell("gateway", gateway.map(ToString::to_string));
    }
    for (name, server) in ["dns1", "dns2"].into_iter().zip(&settings.dns) {
        tell(name, Some(server.to_string()));
    }
    tell("ntpserver", settings.ntp.first().cloned());
    Document::of(all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn refused(file: &str) -> String {
        match read(file.as_bytes()) {
            Ok(taken) => panic!("{file}: {taken:?}"),
            Err(fault) => fault.word().to_owned(),
        }
    }

    /// The example of the document, with an option changed.
    fn with(name: &str, value: &str) -> String {
        let mut all = vec![
            ("interface", "\"eth0\""),
            ("hostname", "\"test.host\""),
            ("ip_address", "\"192.168.1.100\""),
            ("netmask", "\"255.255.255.0\""),
            ("gateway", "\"192.168.1.1\""),
            ("dns1", "\"192.168.1.2\""),
            ("dns2", "\"192.168.1.3\""),
            ("ntpserver", "\"pool.ntp.org\""),
        ];
        all.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            all.push((name, value));
        }
        let all: Vec<_> = all.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{\"network\":{{{}}},\"app\":{{\"name\":\"testapp\"}}}}", all.join(","))
    }

    #[test]
    fn options_are_refused_in_the_words_of_the_original() {
        let characters = |name: &str, all: &str| {
            format!("Missing or invalid string for option: {name}. Allowed: {all}")
        };
        let length = |name: &str, least: usize, most: usize| {
            format!("Invalid string length for option: {name}. Allowed: >= {least} and <= {most}")
        };
        for field in &FIELDS {
            let TextOption { name, characters: allowed, least, most } = field.text;
            let (characters, length) = (characters(name, allowed), length(name, least, most));
            for value in ["\"a b\"", "\"eth0\\n\"", "\"ä\"", "true", "false", "[]", "{}", "\"a;b\""]
            {
                assert_eq!(refused(&with(name, value)), characters, "{name} {value}");
            }
            let long = format!("\"{}\"", "1".repeat(most + 1));
            let short = format!("\"{}\"", "1".repeat(least - 1));
            assert_eq!(refused(&with(name, &long)), length, "{name}");
            assert_eq!(refused(&with(name, &short)), length, "{name}");
            // Characters come first.
            let both = format!("\"{}\"", "ä".repeat(most + 1));
            assert_eq!(refused(&with(name, &both)), characters, "{name}");
            if field.required {
                for value in ["", "null", "\"\""] {
                    assert_eq!(refused(&with(name, value)), length, "{name}");
                }
            } else {
                for value in ["", "null", "\"\""] {
                    read(with(name, value).as_bytes()).unwrap();
                }
            }
        }
        // The first that is wrong is told.
        let text = r#"{"network":{"dns1":"x","interface":"e!","hostname":"!"}}"#;
        assert_eq!(refused(text), characters("interface", ALPHANUMERIC));
    }

    #[test]
    fn what_is_no_file_of_settings_is_refused_without_a_word() {
        let bare = "Bad Request";
        let twice = with("dns1", "\"192.168.1.2\"").replace("\"dns2\"", "\"dns1\"");
        let deep = format!("{{\"network\":{}{}}}", "[".repeat(500), "]".repeat(500));
        let garbage = with("dns1", "\"192.168.1.2\"") + "x";
        for text in ["", "{", "{}", "null", "1", "\"x\"", "nothing", &twice, &deep, &garbage] {
            assert_eq!(refused(text), bare, "{text}");
        }
        for text in ["[]", "[1]", r#"{"app":{}}"#, r#"{"network":[]}"#, r#"{"network":null}"#] {
            assert!(
                refused(text).starts_with("Invalid string length for option: interface"),
                "{text}"
            );
        }
        let app = with("dns1", "").replace("{\"name\":\"testapp\"}", "[]");
        assert!(refused(&app).starts_with("Invalid option: app"));
        assert!(read(b"\xff\xfe{}").is_err());
    }

    #[test]
    fn what_can_not_be_meant_is_told_by_its_option() {
        for (name, value) in [
            ("ip_address", "\"999.999.999.999\""),
            ("ip_address", "\"192.168.1.255\""),
            ("ip_address", "\"127.0.0.1\""),
            ("netmask", "\"255.0.255.0\""),
            ("netmask", "\"64\""),
            ("gateway", "\"10.0.0.1\""),
            ("gateway", "\"192.168.1.100\""),
            ("gateway", "\"fe80::1\""),
            ("dns1", "\"1.2.3\""),
            ("ntpserver", "\"-a-\""),
            ("hostname", "\"-a-\""),
            ("hostname", "\"1.2.3.4\""),
        ] {
            let told = refused(&with(name, value));
            let expected = match (name, value) {
                ("netmask", "\"64\"") => "Invalid option: ip_address. ".to_owned(),
                ("dns1", _) => "Invalid option: dns1 or dns2. ".to_owned(),
                _ => format!("Invalid option: {name}. "),
            };
            assert!(told.starts_with(&expected), "{name} {value}: {told}");
        }
    }

    #[test]
    fn it_is_static_when_address_mask_and_gateway_are_there() {
        let mode = |text: &str| read(text.as_bytes()).unwrap().1.mode;
        assert_eq!(mode(&with("dns2", "")), Mode::Static);
        for name in ["ip_address", "netmask", "gateway"] {
            for value in ["", "null", "\"\""] {
                assert_eq!(mode(&with(name, value)), Mode::Dhcp, "{name} {value}");
            }
        }
        // IPv6 too, and numbers count as their digits.
        let text = concat!(
            r#"{"network":{"hostname":12345,"interface":"eth0","ip_address":"2001:db8::7","#,
            r#""netmask":64,"gateway":"fe80::1","more":{"z":1,"a":[]},"mode":"x"}}"#
        );
        let (given, settings, app) = read(text.as_bytes()).unwrap();
        assert_eq!(settings.addresses[0].to_string(), "2001:db8::7/64");
        assert!(app.is_empty());
        let set = SetNetwork { settings, given: Some(given), set_at: jiff::Timestamp::UNIX_EPOCH };
        let shown = serde_json::to_string(&told(&set)).unwrap();
        let expected = concat!(
            r#"{"mode":"static","hostname":12345,"interface":"eth0","ip_address":"2001:db8::7","#,
            r#""netmask":64,"gateway":"fe80::1","more":{"z":1,"a":[]}}"#
        );
        assert_eq!(shown, expected);
        // What was set natively is told in these words.
        let shown = serde_json::to_string(&told(&SetNetwork { given: None, ..set })).unwrap();
        let expected = concat!(
            r#"{"mode":"static","interface":"eth0","hostname":"12345","ip_address":"2001:db8::7","#,
            r#""netmask":"64","gateway":"fe80::1"}"#
        );
        assert_eq!(shown, expected);
    }
}
