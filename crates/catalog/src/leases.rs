//! Leases: what only one node does at a time.

use std::time::Duration;

use crate::Result;
use crate::db::{Catalog, clock};
use crate::sql::Sql;

/// Takes a lease for so long, or makes it longer for who has it; false when another has it. By the
/// database's clock, where it has one.
///
/// # Errors
/// Those of the database.
pub async fn take(catalog: &Catalog, name: &str, holder: &str, duration: Duration) -> Result<bool> {
    let mut tx = catalog.begin().await?;
    let now = clock(&mut tx).await?;
    let until = now.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX));
    let sql = "INSERT INTO leases (name, holder, until) VALUES (?, ?, ?) \
               ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until \
               WHERE leases.holder = excluded.holder OR leases.until < ?";
    let taken = tx.execute(Sql::new(sql).bind(name).bind(holder).bind(until).bind(now)).await?;
    tx.commit().await?;
    Ok(taken > 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use crate::testing;

    #[tokio::test]
    async fn one_has_it_until_it_ends() {
        testing::each(|catalog| async move {
            let hour = Duration::from_secs(3600);
            assert!(take(&catalog, "a", "one", hour).await.unwrap());
            assert!(!take(&catalog, "a", "two", hour).await.unwrap());
            assert!(take(&catalog, "b", "two", hour).await.unwrap());
            assert!(take(&catalog, "a", "one", hour).await.unwrap(), "longer for who has it");
            catalog.execute(Sql::new("UPDATE leases SET until = 1")).await.unwrap();
            assert!(take(&catalog, "a", "two", hour).await.unwrap());
            assert!(!take(&catalog, "a", "one", hour).await.unwrap());
        })
        .await;
    }
}
