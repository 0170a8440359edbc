//! What can go wrong in the catalogue.

/// The catalogue's errors. None of them shows a value that was bound to a statement.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database can't be reached or used.
    #[error("the catalogue's database can't be used: {0}")]
    Database(#[source] sqlx::Error),
    /// A row that must be the only one of its kind exists already.
    #[error("there is such a {what} already")]
    Exists {
        /// What it is.
        what: String,
    },
    /// Others refer to the row, or it refers to one that isn't there.
    #[error("it is in use, or refers to something that is gone: {what}")]
    Referenced {
        /// The name of the constraint or table.
        what: String,
    },
    /// A text that can't be kept.
    #[error("text with a NUL character can't be kept: leave it out")]
    Nul,
    /// There is no such row.
    #[error("there is no such {what}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
    },
    /// The row was changed by somebody else since it was read.
    #[error("this {what} was changed meanwhile: read it again, then repeat the change")]
    Changed {
        /// What it is.
        what: &'static str,
    },
    /// Other processes use the database, for which it must be left alone.
    #[error(
        "{others} other processes have the catalogue's database open: stop the other nodes, then try again"
    )]
    Busy {
        /// How many.
        others: u64,
    },
    /// Another version of the program wrote the schema.
    #[error(
        "the catalogue has schema {found}; this program knows up to {known}: use the version that wrote it, or a newer one"
    )]
    Newer {
        /// The database's schema.
        found: i64,
        /// The newest that this program knows.
        known: i64,
    },
    /// A stored value isn't what the program writes.
    #[error("the catalogue's {what} is damaged: {why}")]
    Damaged {
        /// Where.
        what: String,
        /// Why.
        why: String,
    },
    /// The catalogue's address isn't one.
    #[error("{0}")]
    Address(String),
    /// A file beside the database can't be used.
    #[error("{path}: {source}")]
    Local {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A list was asked for in a way that isn't understood.
    #[error(transparent)]
    List(#[from] crate::list::ListError),
}

/// A result of the catalogue.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(of_database) = error.as_database_error() else { return Self::Database(error) };
        // SQLite names the columns in its message, PostgreSQL the constraint.
        let what = || match of_database.constraint() {
            Some(name) => name.to_owned(),
            None => {
                let text = of_database.message();
                text.rsplit_once(": ").map_or(text, |(_, columns)| columns).to_owned()
            }
        };
        if of_database.is_unique_violation() {
            return Self::Exists { what: what() };
        }
        if of_database.is_foreign_key_violation() {
            return Self::Referenced { what: what() };
        }
        Self::Database(error)
    }
}
