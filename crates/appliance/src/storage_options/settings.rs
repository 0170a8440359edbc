//! What can be said of storage, as it was said: nothing of it has been looked at but its names.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use zeroize::Zeroize;

use crate::{Error, Result};

/// Characters of a value.
pub(super) const LONGEST: usize = 255;

/// Where storage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// In the data directory.
    Local,
    /// A share of an NFS server.
    Nfs,
    /// A disk by ATA over Ethernet.
    Aoe,
    /// A disk by iSCSI.
    Iscsi,
    /// A disk by the protocol of network block devices.
    Nbd,
}

impl StorageKind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Local, Self::Nfs, Self::Aoe, Self::Iscsi, Self::Nbd];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Nfs => "nfs",
            Self::Aoe => "aoe",
            Self::Iscsi => "iscsi",
            Self::Nbd => "nbd",
        }
    }

    /// The one of this name.
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// What is said of it, in the order in which it is told. All of it is needed.
    pub fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Local => &[],
            Self::Nfs => &["mount_options", "ip", "share"],
            Self::Aoe => &["device"],
            Self::Iscsi => &["target", "ip", "username", "password"],
            Self::Nbd => &["export_name", "ip", "port"],
        }
    }
}

/// A value, as it was given.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StorageValue {
    /// A number of JSON.
    Number(u64),
    /// A text.
    Text(String),
}

impl fmt::Debug for StorageValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageValue")
    }
}

/// Where storage is, and how it is reached. No format shows more of it than its kind.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct StorageSettings {
    kind: StorageKind,
    values: Vec<(String, StorageValue)>,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: StorageKind,
    #[serde(flatten)]
    values: std::collections::BTreeMap<String, StorageValue>,
}

impl TryFrom<Raw> for StorageSettings {
    type Error = Error;

    fn try_from(raw: Raw) -> Result<Self> {
        Self::new(raw.kind, raw.values)
    }
}

impl StorageSettings {
    /// Of what was given, which has to belong to the kind; it may lack something.
    ///
    /// # Errors
    /// [`Error::Storage`] for a name that the kind doesn't know, and a value that is too long.
    pub fn new<N: Into<String>>(
        kind: StorageKind,
        values: impl IntoIterator<Item = (N, StorageValue)>,
    ) -> Result<Self> {
        let mut made = Self { kind, values: Vec::new() };
        for (name, value) in values {
            let name = name.into();
            made.values.push((name, value));
        }
        let place = |name: &str| kind.fields().iter().position(|field| *field == name);
        for (name, value) in &made.values {
            if place(name).is_none() {
                let known = match kind.fields() {
                    [] => "nothing more".to_owned(),
                    fields => fields.join(", "),
                };
                let (word, name) = (kind.word(), name.escape_debug());
                let why = format!("{word} takes {known}, and not `{name:.40}`");
                return Err(Error::Storage(why));
            }
            if matches!(value, StorageValue::Text(text) if text.chars().count() > LONGEST) {
                return Err(Error::Storage(format!("{name} has {LONGEST} characters at most")));
            }
        }
        made.values.sort_by_key(|(name, _)| place(name));
        Ok(made)
    }

    /// Where it is.
    pub fn kind(&self) -> StorageKind {
        self.kind
    }

    /// A value as a text; a number is its digits. None: it was not given, or is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.values.iter().find(|(known, _)| known == name)?;
        match value {
            StorageValue::Number(number) => Some(number.to_string()),
            StorageValue::Text(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        }
    }
}

/// All of it, also what is secret, in the order of the kind's fields.
impl Serialize for StorageSettings {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1 + self.values.len()))?;
        map.serialize_entry("type", self.kind.word())?;
        for (name, value) in &self.values {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl fmt::Debug for StorageSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StorageSettings({})", self.kind.word())
    }
}

impl Drop for StorageSettings {
    fn drop(&mut self) {
        for (_, value) in &mut self.values {
            if let StorageValue::Text(text) = value {
                text.zeroize();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn they_are_told_in_order_as_they_were_given() {
        let text = concat!(
            r#"{"port":1043,"ip":"192.168.1.100","#,
            r#""type":"nbd","export_name":"otherexport"}"#
        );
        let read: StorageSettings = serde_json::from_str(text).unwrap();
        let told = serde_json::to_string(&read).unwrap();
        let expected = concat!(
            r#"{"type":"nbd","export_name":"otherexport","#,
            r#""ip":"192.168.1.100","port":1043}"#
        );
        assert_eq!(told, expected);
        assert_eq!(read.text("port").unwrap(), "1043");
        assert_eq!(read.text("share"), None);
        assert_eq!(serde_json::from_str::<StorageSettings>(&told).unwrap(), read);
    }

    #[test]
    fn what_belongs_to_another_kind_or_is_endless_is_refused() {
        let text = |text: &str| StorageValue::Text(text.to_owned());
        let error = StorageSettings::new(StorageKind::Aoe, [("share", text("/x"))]).unwrap_err();
        assert!(error.to_string().contains("device"), "{error}");
        let error = StorageSettings::new(StorageKind::Local, [("a\nb", text(""))]).unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
        let long = "x".repeat(256);
        StorageSettings::new(StorageKind::Aoe, [("device", text(&long))]).unwrap_err();
        let long = "x".repeat(255);
        StorageSettings::new(StorageKind::Aoe, [("device", text(&long))]).unwrap();
    }

    #[test]
    fn nothing_shows_the_password() {
        let values = [("password", StorageValue::Text("hunter2".into()))];
        let settings = StorageSettings::new(StorageKind::Iscsi, values).unwrap();
        assert_eq!(format!("{settings:?}"), "StorageSettings(iscsi)");
    }
}
