//! Values and rows, the same for both databases.
//!
//! Columns are of four types only: 64-bit integers (also for times, in microseconds since 1970,
//! and for truth, 0 or 1), text, bytes and floating-point numbers.

use jiff::Timestamp;

use crate::{Error, Result};

/// A value to be bound to a statement, or one of a row. Even a null has a type: PostgreSQL asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// An integer, a time or a truth.
    Int(Option<i64>),
    /// Text.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
    /// A number that isn't whole.
    Real(Option<f64>),
}

macro_rules! values {
    ($($from:ty => $variant:ident $make:expr;)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Self {
                let make: fn($from) -> _ = $make;
                Self::$variant(Some(make(value)))
            }
        }
        impl From<Option<$from>> for Value {
            fn from(value: Option<$from>) -> Self {
                let make: fn($from) -> _ = $make;
                Self::$variant(value.map(make))
            }
        }
    )*};
}

values! {
    i64 => Int |v| v;
    i32 => Int i64::from;
    u32 => Int i64::from;
    bool => Int i64::from;
    Timestamp => Int |v| v.as_microsecond();
    String => Text |v| v;
    &str => Text str::to_owned;
    &String => Text String::clone;
    Vec<u8> => Bytes |v| v;
    &[u8] => Bytes <[u8]>::to_vec;
    f64 => Real |v| v;
}

/// A row of a result. Columns are taken in the order in which they were selected.
#[derive(Debug)]
pub struct Row {
    values: std::vec::IntoIter<Value>,
    taken: usize,
}

/// What can be taken out of a row.
pub trait Column: Sized {
    /// Makes it of a value; the error says what it should have been.
    ///
    /// # Errors
    /// What was expected.
    fn of(value: Value) -> Result<Self, &'static str>;
}

/// What a row is read into.
pub trait Record: Sized {
    /// The columns to be selected, in order.
    const COLUMNS: &'static str;
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Damaged`] for a value that the program does not write.
    fn read(row: &mut Row) -> Result<Self>;
}

impl Row {
    pub(crate) fn new(values: Vec<Value>) -> Self {
        Self { values: values.into_iter(), taken: 0 }
    }

    /// The columns that were not taken.
    pub(crate) fn into_values(self) -> Vec<Value> {
        self.values.collect()
    }

    /// Takes the next column.
    ///
    /// # Errors
    /// [`Error::Damaged`] when it is of another type, or there is none left.
    pub fn take<T: Column>(&mut self) -> Result<T> {
        self.taken += 1;
        let value = self.values.next().ok_or("there are fewer columns");
        value.and_then(T::of).map_err(|why| Error::Damaged {
            what: format!("column {}", self.taken),
            why: why.to_owned(),
        })
    }
}

/// The first column of the first row.
pub(crate) fn single<T: Column>(rows: Vec<Row>) -> Result<T> {
    rows.into_iter().next().ok_or(Error::NotFound { what: "row" })?.take()
}

macro_rules! columns {
    ($($to:ty, $what:literal, $pattern:pat => $value:expr;)*) => {$(
        impl Column for $to {
            fn of(value: Value) -> Result<Self, &'static str> {
                match value {
                    $pattern => $value,
                    _ => None,
                }
                .ok_or(concat!("it should be ", $what))
            }
        }
    )*};
}

columns! {
    i64, "an integer", Value::Int(Some(v)) => Some(v);
    u64, "an integer that is not negative", Value::Int(Some(v)) => u64::try_from(v).ok();
    u32, "a small integer", Value::Int(Some(v)) => u32::try_from(v).ok();
    bool, "0 or 1", Value::Int(Some(v @ (0 | 1))) => Some(v == 1);
    Timestamp, "a time", Value::Int(Some(v)) => Timestamp::from_microsecond(v).ok();
    String, "text", Value::Text(Some(v)) => Some(v);
    Vec<u8>, "bytes", Value::Bytes(Some(v)) => Some(v);
    f64, "a number", Value::Real(Some(v)) => Some(v);
}

impl<T: Column> Column for Option<T> {
    fn of(value: Value) -> Result<Self, &'static str> {
        match value {
            Value::Int(None) | Value::Text(None) | Value::Bytes(None) | Value::Real(None) => {
                Ok(None)
            }
            value => T::of(value).map(Some),
        }
    }
}
