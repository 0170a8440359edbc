//! JSON that keeps the order of its members: what others sent is shown again as they sent it.

use std::collections::HashSet;
use std::fmt;

use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Number;

/// Bytes of a document, written without spaces.
pub const MAX_DOCUMENT: usize = 64 << 10;
/// How deep lists and objects in it may be.
pub const MAX_DEPTH: usize = 32;

/// A value of JSON (RFC 8259).
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text.
    Text(String),
    /// A list.
    List(Vec<Self>),
    /// An object.
    Object(Document),
}

/// An object of JSON, whose members are there once each, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Document(Vec<(String, Json)>);

impl Document {
    /// Of these members; of two with one name the last counts.
    pub fn of(members: impl IntoIterator<Item = (String, Json)>) -> Self {
        let mut all = Self::default();
        for (name, value) in members {
            all.put(&name, value);
        }
        all
    }

    /// A member.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// Sets a member, which stays where it is if it is there.
    pub fn put(&mut self, name: &str, value: Json) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Its members.
    pub fn members(&self) -> impl Iterator<Item = (&str, &Json)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is too much of it.
    ///
    /// # Errors
    /// What is too large, and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let depth = self.depth();
        if depth > MAX_DEPTH {
            return Err(format!("it is {depth} levels deep, and may have {MAX_DEPTH}"));
        }
        let bytes = serde_json::to_vec(self).map_err(|error| error.to_string())?.len();
        if bytes > MAX_DOCUMENT {
            return Err(format!("it has {bytes} bytes, and may have {MAX_DOCUMENT}"));
        }
        Ok(())
    }

    fn depth(&self) -> usize {
        1 + self.0.iter().map(|(_, value)| value.depth()).max().unwrap_or_default()
    }
}

impl Json {
    fn depth(&self) -> usize {
        match self {
            Self::List(values) => 1 + values.iter().map(Self::depth).max().unwrap_or_default(),
            Self::Object(document) => document.depth(),
            _ => 0,
        }
    }
}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(value) => value.serialize(serializer),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                for value in values {
                    list.serialize_element(value)?;
                }
                list.end()
            }
            Self::Object(document) => document.serialize(serializer),
        }
    }
}

impl Serialize for Document {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Object(document) => Ok(document),
            _ => Err(de::Error::custom("it is not an object")),
        }
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Json, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("it is no number"))?;
        Ok(Json::Number(number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element()? {
            values.push(value);
        }
        Ok(Json::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let (mut members, mut seen) = (Vec::new(), HashSet::new());
        while let Some((name, value)) = access.next_entry::<String, Json>()? {
            if !seen.insert(name.clone()) {
                return Err(de::Error::custom(format!("`{name}` is there twice")));
            }
            members.push((name, value));
        }
        Ok(Json::Object(Document(members)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn read(text: &str) -> serde_json::Result<Document> {
        serde_json::from_str(text)
    }

    #[test]
    fn it_is_written_as_it_was_read() {
        let text =
            r#"{"z":1,"a":{"y":[1.5,-2,true,null],"b":"é\n"},"m":{},"n":18446744073709551615}"#;
        let document = read(text).unwrap();
        assert_eq!(serde_json::to_string(&document).unwrap(), text);
        document.check().unwrap();
        let mut document = document;
        document.put("a", Json::Null);
        document.put("new", "x".into());
        assert_eq!(
            document.members().map(|(name, _)| name).collect::<Vec<_>>(),
            ["z", "a", "m", "n", "new"]
        );
        assert_eq!(document.get("a"), Some(&Json::Null));
    }

    #[test]
    fn what_is_none_or_too_much_is_refused() {
        for text in
            ["", "[]", "1", "null", "{", r#"{"a":1}x"#, r#"{"a":1,"a":1}"#, r#"{"a":1e999}"#]
        {
            assert!(read(text).is_err(), "{text}");
        }
        assert!(read(r#"{"a":{"b":1,"b":2}}"#).unwrap_err().to_string().contains("twice"));
        let deep = |levels: usize| {
            read(&format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels)))
        };
        deep(MAX_DEPTH - 1).unwrap().check().unwrap();
        assert!(deep(MAX_DEPTH).unwrap().check().unwrap_err().contains("33 levels"));
        assert!(deep(1000).is_err());
        let large = |bytes| read(&format!("{{\"a\":\"{}\"}}", "x".repeat(bytes))).unwrap();
        large(MAX_DOCUMENT - 8).check().unwrap();
        assert!(large(MAX_DOCUMENT - 7).check().is_err());
    }
}
