//! A request that may be sent again, and the job that came of it.

use crate::db::Tx;
use crate::sql::Sql;
use crate::{Error, Result};

/// Before a job's number, where an answer is kept.
const JOB: &str = "job ";

/// A request with an `Idempotency-Key` that is being worked on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Whose it is; 0 for who is no user.
    pub user_id: i64,
    /// Its key.
    pub key: String,
    /// When it began, in microseconds: another may have taken it over since.
    pub began: i64,
}

impl Request {
    /// Notes the job, in the transaction that queues it: whatever becomes of the process then, the
    /// request sent again finds that job and queues no other.
    pub(super) async fn note(&self, tx: &mut Tx, job: i64) -> Result<()> {
        let sql = "UPDATE idempotency SET answer = ? \
                   WHERE user_id = ? AND key = ? AND created_at = ? AND answer IS NULL";
        let sql = Sql::new(sql).bind(format!("{JOB}{job}")).bind(self.user_id);
        match tx.execute(sql.bind(&self.key).bind(self.began)).await? {
            0 => Err(Error::Changed { what: "request" }),
            _ => Ok(()),
        }
    }

    /// The job that is noted in place of an answer.
    pub fn job(answer: &str) -> Option<i64> {
        answer.strip_prefix(JOB)?.parse().ok()
    }
}
