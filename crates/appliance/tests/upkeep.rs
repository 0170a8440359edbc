//! What is old goes, one node at a time; the rest stays, and the audit trail whole.
#![allow(clippy::unwrap_used, reason = "tests")]

use jiff::{SignedDuration, Timestamp};
use strongroom_appliance::{Settings, Upkeep};
use strongroom_catalog::old::Old;
use strongroom_catalog::{Catalog, Sql, testing};
use strongroom_identity::{ApplianceKey, Identity};

async fn count(catalog: &Catalog, sql: &'static str) -> i64 {
    catalog.rows(Sql::new(sql)).await.unwrap().remove(0).take().unwrap()
}

#[tokio::test]
async fn what_is_old_is_forgotten_as_the_settings_say() {
    testing::each(|catalog| async move {
        let key = ApplianceKey::from_bytes(&[7; 32]);
        let identity = Identity::open(catalog.clone(), key).await.unwrap();
        identity.first_run(None).await.unwrap();
        let by = identity.appliance().await.unwrap();
        let settings = Settings::open(identity.clone()).await.unwrap();
        let now = Timestamp::now();
        let day = SignedDuration::from_hours(24);
        // More than go in one transaction, all ten days old, and one of today.
        let mut tx = catalog.begin().await.unwrap();
        for number in 0..1201i64 {
            let at = if number == 0 { now } else { now - 10 * day };
            let sql = "INSERT INTO events (at, severity, kind, organisation_id, message, search) \
                       VALUES (?, 'info', 'x', ?, 'x', 'x')";
            tx.execute(Sql::new(sql).bind(at).bind(by.root())).await.unwrap();
        }
        let sql = "INSERT INTO jobs (id, kind, state, priority, organisation_id, user_name, \
                   parameters, queued_at, run_at, changed_at, ended_at) VALUES \
                   (1, 'gc', 'failed', 0, 1, '', '{}', 0, 0, 0, ?), \
                   (2, 'gc', 'queued', 0, 1, '', '{}', 0, 0, 0, NULL)";
        tx.execute(Sql::new(sql).bind(now - 10 * day)).await.unwrap();
        let sql = "INSERT INTO job_log (job_id, at, level, message) VALUES (1, 0, 'info', 'x')";
        tx.execute(Sql::new(sql)).await.unwrap();
        tx.commit().await.unwrap();
        let audited = count(&catalog, "SELECT COUNT(*) FROM audit").await;

        let one = Upkeep::new(catalog.clone(), settings.clone(), "one");
        let two = Upkeep::new(catalog.clone(), settings.clone(), "two");
        assert!(one.turn(now).await.unwrap().is_empty(), "a year is not over");
        settings.change(&by, "events.kept", 9, None).await.unwrap();
        assert!(two.turn(now).await.unwrap().is_empty(), "the other is at it");
        assert_eq!(one.turn(now).await.unwrap(), [(Old::Events, 1200)]);
        catalog.execute(Sql::new("UPDATE leases SET until = 0")).await.unwrap();
        settings.change(&by, "jobs.kept", 9, None).await.unwrap();
        assert_eq!(two.turn(now).await.unwrap(), [(Old::Lines, 1), (Old::Jobs, 1)]);
        assert_eq!(count(&catalog, "SELECT COUNT(*) FROM jobs").await, 1, "one is not over");
        // Never, in a thousand years.
        for key in ["events.kept", "jobs.kept"] {
            settings.change(&by, key, 0, None).await.unwrap();
        }
        let later = now + 365_000 * day;
        assert!(!two.turn(later).await.unwrap().iter().any(|(what, _)| *what == Old::Events));
        assert_eq!(count(&catalog, "SELECT COUNT(*) FROM events").await, 1);
        let after = count(&catalog, "SELECT COUNT(*) FROM audit").await;
        assert_eq!(after, audited + 4, "only what was set was added");
    })
    .await;
}
