//! Statements: text that is written by this program, and values that are bound to it.

use crate::value::Value;
use crate::{Error, Result};

/// A statement. Values take the places of `?`; text comes from the program alone (`&'static str`),
/// so nothing from outside can become part of it.
#[derive(Clone, Debug, Default)]
pub struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    /// A statement that begins with this text.
    pub fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), values: Vec::new() }
    }

    /// Appends text.
    #[must_use]
    pub fn and(mut self, text: &'static str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Binds the next `?`.
    #[must_use]
    pub fn bind(mut self, value: impl Into<Value>) -> Self {
        self.values.push(value.into());
        self
    }

    /// Appends text.
    pub fn push(&mut self, text: &'static str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Binds the next `?`.
    pub fn value(&mut self, value: impl Into<Value>) -> &mut Self {
        self.values.push(value.into());
        self
    }

    /// Appends `(?, ?, ...)` with these values; of none it is `(NULL)`, in which nothing is.
    pub fn push_set<V: Into<Value>>(&mut self, values: impl IntoIterator<Item = V>) -> &mut Self {
        self.text.push('(');
        let before = self.values.len();
        for value in values {
            if self.values.len() > before {
                self.text.push_str(", ");
            }
            self.text.push('?');
            self.values.push(value.into());
        }
        if self.values.len() == before {
            self.text.push_str("NULL");
        }
        self.text.push(')');
        self
    }

    /// Appends text of the program that is not known before it runs: numbers, and quoted names that the
    /// database told of its own schema.
    pub(crate) fn push_owned(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    pub(crate) fn push_statement(&mut self, other: Self) -> &mut Self {
        self.text.push_str(&other.text);
        self.values.extend(other.values);
        self
    }

    /// The text as SQLite takes it, and the values.
    pub(crate) fn for_sqlite(self) -> Result<(String, Vec<Value>)> {
        self.check()?;
        Ok((self.text, self.values))
    }

    /// The text as PostgreSQL takes it, and the values.
    pub(crate) fn for_postgres(self) -> Result<(String, Vec<Value>)> {
        self.check()?;
        let mut text = String::with_capacity(self.text.len() + 2 * self.values.len());
        for (i, part) in self.text.split('?').enumerate() {
            if i > 0 {
                text.push('$');
                text.push_str(&i.to_string());
            }
            text.push_str(part);
        }
        Ok((text, self.values))
    }

    /// PostgreSQL keeps no text with a NUL, so SQLite may not either.
    fn check(&self) -> Result<()> {
        let has_nul = |value: &Value| matches!(value, Value::Text(Some(v)) if v.contains('\0'));
        if self.values.iter().any(has_nul) { Err(Error::Nul) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn places_are_numbered_for_postgres() {
        let mut sql = Sql::new("SELECT a FROM t WHERE b = ? AND c IN ").bind(1i64);
        sql.push_set(["x", "y"]).push(" AND d IN ").push_set(Vec::<i64>::new());
        let (text, values) = sql.clone().for_postgres().unwrap();
        assert_eq!(text, "SELECT a FROM t WHERE b = $1 AND c IN ($2, $3) AND d IN (NULL)");
        assert_eq!(values, [Value::from(1i64), "x".into(), "y".into()]);
        assert_eq!(
            sql.for_sqlite().unwrap().0,
            "SELECT a FROM t WHERE b = ? AND c IN (?, ?) AND d IN (NULL)"
        );
    }
}
