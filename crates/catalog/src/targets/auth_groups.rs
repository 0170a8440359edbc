//! Who may log in to targets.

use std::fmt;

use jiff::Timestamp;
use serde::Serialize;

use super::{changed, there};
use crate::{Record, Result, Row, Sql, Tx};

/// Who may log in to targets, with nothing secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuthGroup {
    /// Its number.
    pub id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    pub public_id: String,
    /// Whose it is.
    pub organisation_id: i64,
    /// Its name.
    pub name: String,
    /// The name that initiators prove by CHAP; None: they prove nothing.
    pub chap_user: Option<String>,
    /// The name that targets prove to initiators which ask for it.
    pub mutual_user: Option<String>,
    /// The initiators that it names; 0: it lets in all.
    pub initiators: u64,
    /// Targets that have it.
    pub targets: u64,
    /// When it was made.
    pub created_at: Timestamp,
    /// Counts changes.
    pub version: i64,
}

impl Record for AuthGroup {
    const COLUMNS: &'static str = "id, public_id, organisation_id, name, chap_user, mutual_user, \
        (SELECT COUNT(*) FROM initiators i WHERE i.auth_group_id = auth_groups.id), \
        (SELECT COUNT(*) FROM targets t WHERE t.auth_group_id = auth_groups.id), created_at, version";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            public_id: row.take()?,
            organisation_id: row.take()?,
            name: row.take()?,
            chap_user: row.take()?,
            mutual_user: row.take()?,
            initiators: row.take()?,
            targets: row.take()?,
            created_at: row.take()?,
            version: row.take()?,
        })
    }
}

/// The sealed secrets of an auth group.
#[derive(Clone, PartialEq, Eq)]
pub struct ChapSecrets {
    /// The group.
    pub id: i64,
    /// That of [`AuthGroup::chap_user`].
    pub chap: Option<Vec<u8>>,
    /// That of [`AuthGroup::mutual_user`].
    pub mutual: Option<Vec<u8>>,
}

impl fmt::Debug for ChapSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChapSecrets").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Record for ChapSecrets {
    const COLUMNS: &'static str = "id, chap_secret, mutual_secret";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { id: row.take()?, chap: row.take()?, mutual: row.take()? })
    }
}

/// What is needed to enter an auth group.
#[derive(Clone, Debug)]
pub struct NewAuthGroup {
    /// See [`AuthGroup`].
    pub public_id: String,
    /// See [`AuthGroup`].
    pub organisation_id: i64,
    /// See [`AuthGroup`].
    pub name: String,
}

impl AuthGroup {
    /// The group of this number.
    pub fn by_id(id: i64) -> Sql {
        Sql::new("FROM auth_groups WHERE id = ?").bind(id)
    }

    /// The group that dialects call so.
    pub fn by_public_id(public_id: &str) -> Sql {
        Sql::new("FROM auth_groups WHERE public_id = ?").bind(public_id)
    }

    /// All of them.
    pub fn all() -> Sql {
        Sql::new("FROM auth_groups ORDER BY id")
    }

    /// Enters a group that lets in everybody; gives its number.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) for a name that is taken; those of the database.
    pub async fn insert(tx: &mut Tx, new: NewAuthGroup) -> Result<i64> {
        let sql = Sql::new(
            "INSERT INTO auth_groups (organisation_id, public_id, name, created_at) \
             VALUES (?, ?, ?, ?) RETURNING id",
        );
        let sql = sql.bind(new.organisation_id).bind(new.public_id).bind(new.name);
        tx.insert(sql.bind(Timestamp::now())).await
    }

    /// Writes its name and its users, with their sealed secrets, unless somebody else changed it
    /// since it was read.
    ///
    /// # Errors
    /// [`Error::Changed`](crate::Error::Changed), [`Error::Exists`](crate::Error::Exists); those of the
    /// database.
    pub async fn update(&self, tx: &mut Tx, secrets: ChapSecrets) -> Result<()> {
        let sql = Sql::new(
            "UPDATE auth_groups SET name = ?, chap_user = ?, chap_secret = ?, mutual_user = ?, \
             mutual_secret = ?, version = version + 1 WHERE id = ? AND version = ?",
        );
        let sql = sql.bind(&self.name).bind(self.chap_user.clone()).bind(secrets.chap);
        let sql = sql.bind(self.mutual_user.clone()).bind(secrets.mutual);
        changed(tx.execute(sql.bind(self.id).bind(self.version)).await?, "auth group")
    }

    /// Removes a group, and its initiators.
    ///
    /// # Errors
    /// [`Error::Referenced`](crate::Error::Referenced) while a target has it;
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, id: i64) -> Result<()> {
        let sql = Sql::new("DELETE FROM auth_groups WHERE id = ?").bind(id);
        there(tx.execute(sql).await?, "auth group")
    }
}

impl ChapSecrets {
    /// Those of this group.
    pub fn of(id: i64) -> Sql {
        Sql::new("FROM auth_groups WHERE id = ?").bind(id)
    }

    /// Those of all groups.
    pub fn all() -> Sql {
        Sql::new("FROM auth_groups")
    }
}

/// An initiator that an auth group names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Initiator {
    /// Its number.
    pub id: i64,
    /// The group.
    pub auth_group_id: i64,
    /// Its number for dialects: 40 hexadecimal digits.
    pub public_id: String,
    /// Its name in iSCSI, in the normal form.
    pub iqn: String,
    /// What users call it.
    pub alias: String,
}

impl Record for Initiator {
    const COLUMNS: &'static str = "id, auth_group_id, public_id, iqn, alias";

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            id: row.take()?,
            auth_group_id: row.take()?,
            public_id: row.take()?,
            iqn: row.take()?,
            alias: row.take()?,
        })
    }
}

impl Initiator {
    /// Those of a group.
    pub fn of(auth_group: i64) -> Sql {
        Sql::new("FROM initiators WHERE auth_group_id = ? ORDER BY iqn").bind(auth_group)
    }

    /// All of them.
    pub fn all() -> Sql {
        Sql::new("FROM initiators ORDER BY auth_group_id, iqn")
    }

    /// Has a group name one.
    ///
    /// # Errors
    /// [`Error::Exists`](crate::Error::Exists) when it does; those of the database.
    pub async fn insert(
        tx: &mut Tx,
        auth_group: i64,
        public_id: &str,
        iqn: &str,
        alias: &str,
    ) -> Result<i64> {
        let sql = "INSERT INTO initiators (auth_group_id, public_id, iqn, alias) \
                   VALUES (?, ?, ?, ?) RETURNING id";
        tx.insert(Sql::new(sql).bind(auth_group).bind(public_id).bind(iqn).bind(alias)).await
    }

    /// Has the group name it no more.
    ///
    /// # Errors
    /// [`Error::NotFound`](crate::Error::NotFound); those of the database.
    pub async fn remove(tx: &mut Tx, auth_group: i64, iqn: &str) -> Result<()> {
        let sql = "DELETE FROM initiators WHERE auth_group_id = ? AND iqn = ?";
        there(tx.execute(Sql::new(sql).bind(auth_group).bind(iqn)).await?, "initiator")
    }
}
