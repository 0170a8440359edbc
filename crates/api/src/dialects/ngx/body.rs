//! What is sent: a JSON object, in which numbers and switches come in several forms.

use std::fmt;

use axum::body::Body;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use super::answer::{Answer, Fault, Number};

/// Bytes of a body, at most.
const MOST: usize = 256 << 10;

/// The members of the body; those that nobody asks for don't matter.
#[derive(Clone, Default)]
pub(crate) struct Fields(Map<String, Value>);

impl fmt::Debug for Fields {
    /// Without values: secrets may be among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Fields {
    /// Reads them. An empty body has none.
    pub(crate) async fn read(parts: &Parts, body: Body) -> Answer<Self> {
        let length = parts.headers.get(http::header::CONTENT_LENGTH);
        let told = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        let too_large = || Fault::new(Number::TooLarge, format!("a body has {MOST} bytes at most"));
        if told.is_some_and(|told| told > MOST as u64) {
            return Err(too_large());
        }
        let bytes = match Limited::new(body, MOST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large()),
            Err(_) => return Err(Fault::invalid("the body broke off")),
        };
        Self::of(&bytes)
    }

    fn of(bytes: &[u8]) -> Answer<Self> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        match serde_json::from_slice(bytes) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(Fault::invalid("the body is not a JSON object")),
            Err(error) => Err(Fault::invalid(format!("the body is not JSON: {error}"))),
        }
    }

    /// The member of this name, or of another that means the same; null and none are one.
    fn get(&self, names: &[&str]) -> Option<(&str, &Value)> {
        let found = names.iter().find_map(|name| self.0.get_key_value(*name));
        found.filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.as_str(), value))
    }

    /// A text.
    pub(crate) fn text(&self, names: &[&str]) -> Answer<Option<String>> {
        match self.get(names) {
            None => Ok(None),
            Some((_, Value::String(text))) => Ok(Some(text.clone())),
            // Ids and names may look like numbers.
            Some((_, Value::Number(number))) => Ok(Some(number.to_string())),
            Some((name, _)) => Err(Fault::invalid(format!("`{name}` is not a text"))),
        }
    }

    /// A text that must be there.
    pub(crate) fn needed(&self, names: &[&str]) -> Answer<String> {
        let text = self.text(names)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| Fault::invalid(format!("`{}` is missing", names[0])))
    }

    /// A whole number, also as a text.
    pub(crate) fn number(&self, names: &[&str]) -> Answer<Option<u64>> {
        let Some((name, value)) = self.get(names) else { return Ok(None) };
        let number = match value {
            Value::Number(number) => whole(number),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let wrong = || Fault::invalid(format!("`{name}` is not a whole number from 0"));
        number.map(Some).ok_or_else(wrong)
    }

    /// A switch: `on`, `off`, true, false, 1 or 0, also as texts.
    pub(crate) fn switch(&self, names: &[&str]) -> Answer<Option<bool>> {
        let Some((name, value)) = self.get(names) else { return Ok(None) };
        let text = match value {
            Value::Bool(on) => return Ok(Some(*on)),
            Value::Number(number) => number.to_string(),
            Value::String(text) => text.to_ascii_lowercase(),
            _ => String::new(),
        };
        match text.as_str() {
            "on" | "true" | "1" | "yes" | "enabled" => Ok(Some(true)),
            "off" | "false" | "0" | "no" | "disabled" => Ok(Some(false)),
            _ => Err(Fault::invalid(format!("`{name}` is neither `on` nor `off`"))),
        }
    }

    /// Initiators: names, or objects with a name and what it is called.
    pub(crate) fn initiators(&self, names: &[&str]) -> Answer<Option<Vec<(String, String)>>> {
        let Some((name, value)) = self.get(names) else { return Ok(None) };
        let wrong = || Fault::invalid(format!("`{name}` is not a list of initiators"));
        let one = |value: &Value| match value {
            Value::String(iqn) => Ok((iqn.clone(), String::new())),
            Value::Object(members) => {
                let member = |names: [&str; 2]| {
                    let found = names.iter().find_map(|name| members.get(*name)?.as_str());
                    found.map(str::to_owned)
                };
                let iqn = member(["iqn", "name"]).ok_or_else(wrong)?;
                Ok((iqn, member(["iqn_alias", "alias"]).unwrap_or_default()))
            }
            _ => Err(wrong()),
        };
        value.as_array().ok_or_else(wrong)?.iter().map(one).collect::<Answer<_>>().map(Some)
    }

    /// A list of texts; one text is a list of one.
    pub(crate) fn texts(&self, names: &[&str]) -> Answer<Option<Vec<String>>> {
        let Some((name, value)) = self.get(names) else { return Ok(None) };
        let wrong = || Fault::invalid(format!("`{name}` is not a list of texts"));
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
        match value {
            Value::Array(items) => items.iter().map(text).collect::<Answer<_>>().map(Some),
            value => text(value).map(|text| Some(vec![text])),
        }
    }
}

/// Numbers of JavaScript may have a fraction that is none.
fn whole(number: &serde_json::Number) -> Option<u64> {
    let whole = |number: f64| {
        (number.fract() == 0.0 && (0.0..9e15).contains(&number)).then_some(number as u64)
    };
    number.as_u64().or_else(|| number.as_f64().and_then(whole))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn of(text: &str) -> Fields {
        Fields::of(text.as_bytes()).unwrap()
    }

    #[test]
    fn values_come_in_several_forms() {
        let fields =
            of(r#"{"a": "5", "b": 5.0, "c": "On", "d": false, "e": 0, "f": null, "g": "x"}"#);
        assert_eq!(fields.number(&["a"]).unwrap(), Some(5));
        assert_eq!(fields.number(&["b"]).unwrap(), Some(5));
        assert_eq!(fields.switch(&["c"]).unwrap(), Some(true));
        assert_eq!(fields.switch(&["d"]).unwrap(), Some(false));
        assert_eq!(fields.switch(&["e"]).unwrap(), Some(false));
        assert_eq!(fields.text(&["f"]).unwrap(), None);
        assert_eq!(fields.text(&["nothing", "g"]).unwrap().as_deref(), Some("x"));
        assert_eq!(fields.texts(&["g"]).unwrap().unwrap(), ["x"]);
        assert!(fields.needed(&["f"]).is_err());
    }

    #[test]
    fn what_is_no_value_is_refused() {
        let fields = of(r#"{"a": -1, "b": 1.5, "c": "maybe", "d": {}, "e": [1], "f": 1e300}"#);
        for name in ["a", "b", "c", "d", "e", "f"] {
            assert!(fields.number(&[name]).is_err(), "{name}");
            assert!(fields.switch(&[name]).is_err(), "{name}");
        }
        assert!(fields.texts(&["e"]).is_err() && fields.text(&["d"]).is_err());
        for body in ["[]", "{", "nothing", "5", "{\"a\":}"] {
            assert!(Fields::of(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Fields::of(b" \n").unwrap().0.is_empty());
    }
}
