//! The one token of the appliance's administration interface.

use std::fmt;

use super::there;
use crate::{Record, Result, Row, Sql, Tx};

/// The token: an API key, and what its HMACs are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminToken {
    /// The API key that it is.
    pub key_id: i64,
    /// What HMACs are made with, sealed.
    pub sealed: Vec<u8>,
    /// It is good for setting another, and nothing else.
    pub first_run: bool,
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminToken(key {}, first_run {})", self.key_id, self.first_run)
    }
}

impl Record for AdminToken {
    const COLUMNS: &'static str = "key_id, sealed, first_run";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { key_id: row.take()?, sealed: row.take()?, first_run: row.take()? })
    }
}

impl AdminToken {
    /// The token, if there is one.
    pub fn current() -> Sql {
        Sql::new("FROM admin_token WHERE id = 1")
    }

    /// Puts it in place of the one that is there, if any.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn put(&self, tx: &mut Tx) -> Result<()> {
        let sql = Sql::new(
            "INSERT INTO admin_token (id, key_id, sealed, first_run) VALUES (1, ?, ?, ?) \
             ON CONFLICT (id) DO UPDATE SET key_id = excluded.key_id, sealed = excluded.sealed, \
             first_run = excluded.first_run",
        );
        let sql = sql.bind(self.key_id).bind(self.sealed.clone()).bind(self.first_run);
        there(tx.execute(sql).await?, "token")
    }
}
