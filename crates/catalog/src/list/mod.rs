//! The one list language: `filter`, `sort`, `offset`, `limit`, `keyword`, count.
//!
//! A [`Resource`] declares its fields once; parsing, SQL, the metadata that OPTIONS shows, the
//! documentation and the error texts all come from that declaration.
//!
//! ```text
//! filter=<field>:<operator><value>     repeated: all must hold
//!   ==  equal; repeated for one field: any of the values (a union)
//!   !=  not equal; repeated: none of the values
//!   =|  contains, in any case
//!   >=  <=  bounds; one of each for one field is a range
//!   =b  has one of these bits
//! sort=<field>[:asc|:desc],...         before the resource's own order, the same way round
//! keyword=<text>                       repeated: any of them, in any of the searched fields
//! offset=<n>  limit=<n>
//! ```
//!
//! Field names are taken in any case. Values are literal; nothing in them is a wildcard. Times are
//! RFC 3339, or microseconds since 1970. Followed: the console API's chapter 5, and section 4 of
//! its contract where the chapter is silent.

mod compile;
mod metadata;
mod parse;
mod plan;
#[cfg(test)]
mod tests;
mod trigrams;

pub use self::compile::{Count, Page, Scope};
pub use self::metadata::{FieldMetadata, Metadata};
pub(crate) use self::trigrams::Sample;

/// How many items a page has when nobody says, and at most.
pub const DEFAULT_LIMIT: u64 = 1000;
/// The highest `limit`.
pub const MAX_LIMIT: u64 = 10_000;
/// How many filters, sort fields and keywords a request may have, of each.
const MAX_PARTS: usize = 64;
/// The longest value or keyword, in bytes.
const MAX_VALUE: usize = 4096;

/// What a field holds, and so which operators it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// Text.
    Text,
    /// One of these words.
    Enum(&'static [&'static str]),
    /// A time, kept in microseconds since 1970.
    Time,
    /// True or false.
    Bool,
    /// A set of these named bits.
    Flags(&'static [(&'static str, i64)]),
}

impl Kind {
    /// Its name in metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Text => "string",
            Self::Enum(_) => "enum",
            Self::Time => "time",
            Self::Bool => "boolean",
            Self::Flags(_) => "flags",
        }
    }

    /// The words that it may have, if it doesn't take any.
    pub fn values(self) -> Vec<&'static str> {
        match self {
            Self::Enum(words) => words.to_vec(),
            Self::Flags(bits) => bits.iter().map(|(name, _)| *name).collect(),
            Self::Bool => vec!["true", "false"],
            Self::Integer | Self::Text | Self::Time => Vec::new(),
        }
    }

    /// The operators that it has.
    pub fn operators(self) -> &'static [Operator] {
        use Operator::{AtLeast, AtMost, Contains, Equal, HasBits, NotEqual};
        match self {
            Self::Integer | Self::Time => &[Equal, NotEqual, AtLeast, AtMost],
            Self::Text => &[Equal, NotEqual, Contains],
            Self::Enum(_) | Self::Bool => &[Equal, NotEqual],
            Self::Flags(_) => &[Equal, NotEqual, HasBits],
        }
    }
}

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `=|`
    Contains,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
    /// `=b`
    HasBits,
}

impl Operator {
    const ALL: [Self; 6] =
        [Self::Equal, Self::NotEqual, Self::Contains, Self::AtLeast, Self::AtMost, Self::HasBits];

    /// How it is written.
    pub fn text(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Contains => "=|",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
            Self::HasBits => "=b",
        }
    }
}

/// A field of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its name in requests and answers.
    pub name: &'static str,
    /// The column or expression that holds it.
    pub column: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether lists may be filtered by it.
    pub filterable: bool,
    /// Whether lists may be sorted by it.
    pub sortable: bool,
    /// Whether keywords are looked for in it.
    pub searched: bool,
    /// Whether a row may lack it. Upwards, those rows come first.
    pub nullable: bool,
    /// What it means, for the documentation.
    pub doc: &'static str,
}

impl Field {
    /// A field that can be filtered and sorted by, kept in the column of the same name.
    pub const fn new(name: &'static str, kind: Kind, doc: &'static str) -> Self {
        Self {
            name,
            column: name,
            kind,
            filterable: true,
            sortable: true,
            searched: false,
            nullable: false,
            doc,
        }
    }

    /// Kept in this column or expression.
    #[must_use]
    pub const fn column(mut self, column: &'static str) -> Self {
        self.column = column;
        self
    }

    /// Keywords are looked for in it.
    #[must_use]
    pub const fn searched(mut self) -> Self {
        self.searched = true;
        self
    }

    /// A row may lack it.
    #[must_use]
    pub const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    /// Lists can't be sorted by it.
    #[must_use]
    pub const fn unsorted(mut self) -> Self {
        self.sortable = false;
        self
    }
}

/// What can be listed.
#[derive(Clone, Copy, Debug)]
pub struct Resource {
    /// The name of one, for error texts.
    pub name: &'static str,
    /// What stands behind FROM.
    pub from: &'static str,
    /// The column that tells rows apart; it ends every order, so that pages don't overlap.
    pub key: &'static str,
    /// Its fields.
    pub fields: &'static [Field],
    /// The order when none is asked for: a field, and whether downwards.
    pub order: (&'static str, bool),
    /// The column with the organisation that a row belongs to.
    pub organisation: Option<&'static str>,
    /// The column with all searched fields in lower case, and its full-text table in SQLite.
    pub search: Option<Search>,
    /// The table whose rows are counted as they come and go, for lists without a filter.
    pub counted: Option<&'static str>,
}

/// Where keywords are looked for.
#[derive(Clone, Copy, Debug)]
pub struct Search {
    /// The column that holds the searched fields of a row, in lower case, one per line.
    pub column: &'static str,
    /// SQLite's table of trigrams over it; PostgreSQL has an index on the column.
    pub trigrams: Option<&'static str>,
}

impl Resource {
    /// The field of that name, in any case.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name.eq_ignore_ascii_case(name))
    }
}

/// One filter.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    /// Which field; an index into the resource's.
    field: usize,
    operator: Operator,
    value: Operand,
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Int(i64),
    Text(String),
}

/// A list request, checked against its resource.
#[derive(Clone, Debug)]
pub struct List {
    resource: &'static Resource,
    filters: Vec<Filter>,
    /// Fields, and whether downwards.
    sort: Vec<(usize, bool)>,
    keywords: Vec<String>,
    /// How many items are left out.
    pub offset: u64,
    /// How many items there are at most.
    pub limit: u64,
}

/// What is wrong with a list request. The texts say what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// No such field.
    #[error("a {resource} has no field `{field}` to {what} by; there are: {valid}")]
    Field {
        /// Of what.
        resource: &'static str,
        /// What was asked for.
        field: String,
        /// `filter` or `sort`.
        what: &'static str,
        /// The names of those that there are.
        valid: String,
    },
    /// No operator, or not for this field.
    #[error("the filter `{filter}` needs an operator after `{field}:`; that field has: {valid}")]
    Operator {
        /// The filter.
        filter: String,
        /// The field.
        field: &'static str,
        /// The operators that there are.
        valid: String,
    },
    /// Not a value for this field.
    #[error("`{value}` is not a value of `{field}`: it takes {valid}")]
    Value {
        /// What was given.
        value: String,
        /// The field.
        field: &'static str,
        /// What it takes.
        valid: String,
    },
    /// A combination that has no meaning.
    #[error("`{field}` is filtered more than once in a way that can't be combined: {why}")]
    Repeated {
        /// The field.
        field: &'static str,
        /// Why not.
        why: &'static str,
    },
    /// Anything else.
    #[error("{0}")]
    Form(String),
}
