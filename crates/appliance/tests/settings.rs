//! Settings are kept, bounded, audited, and known to other nodes.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use strongroom_appliance::{DEFINITIONS, Error, Settings, Source};
use strongroom_catalog::{Catalog, testing};
use strongroom_identity::{ApplianceKey, Identity};

async fn node(catalog: &Catalog) -> (Identity, Settings) {
    let key = ApplianceKey::from_bytes(&[7; 32]);
    let identity = Identity::open(catalog.clone(), key).await.unwrap();
    identity.first_run(None).await.unwrap();
    let settings = Settings::open(identity.clone()).await.unwrap();
    (identity, settings)
}

#[tokio::test]
async fn a_setting_is_changed_read_back_and_put_back() {
    testing::each(|catalog| async move {
        let (identity, settings) = node(&catalog).await;
        let by = identity.appliance().await.unwrap();
        let (_, other) = node(&catalog).await;

        let all = settings.list().await.unwrap();
        assert_eq!(all.len(), DEFINITIONS.len());
        assert!(all.iter().all(|one| one.source == Source::Default && one.version == 0));

        let key = "sessions.idle";
        let mut watched = settings.watch();
        let set = settings.change(&by, key, 90, Some(0)).await.unwrap();
        assert_eq!((set.value, set.source, set.version), (90, Source::Set, 1));
        assert!(watched.has_changed().unwrap());
        assert_eq!(watched.borrow_and_update().sessions_idle, Duration::from_secs(90));
        assert_eq!(settings.show(key).await.unwrap(), set);

        // Another node knows it once it has looked.
        assert_eq!(other.current().sessions_idle, Duration::from_secs(3600));
        other.refresh().await.unwrap();
        assert_eq!(other.current(), settings.current());

        let back = other.reset(&by, key, Some(1)).await.unwrap();
        assert_eq!((back.value, back.source, back.version), (3600, Source::Default, 2));
        let late = settings.change(&by, key, 100, Some(1)).await.unwrap_err();
        assert!(
            matches!(late, Error::Catalog(strongroom_catalog::Error::Changed { .. })),
            "{late}"
        );

        let lines = identity.audit_lines(0, 100).await.unwrap();
        let lines = lines.iter().filter(|line| line.operation.starts_with("settings."));
        let told: Vec<_> = lines.map(|l| (&*l.operation, &*l.object, &*l.detail)).collect();
        assert_eq!(
            told,
            [("settings.change", key, "90"), ("settings.reset", key, "null")],
            "what was refused left nothing"
        );
    })
    .await;
}

#[tokio::test]
async fn what_is_no_value_is_refused_and_what_is_damaged_is_the_default() {
    let fresh = testing::Fresh::new(strongroom_catalog::Engine::Sqlite).await;
    let catalog = fresh.open().await;
    let (identity, settings) = node(&catalog).await;
    let by = identity.appliance().await.unwrap();
    for one in DEFINITIONS {
        for value in [one.least as i64 - 1, one.most as i64 + 1] {
            let refused = settings.change(&by, one.key, value, None).await.unwrap_err();
            assert!(refused.to_string().contains(&one.most.to_string()), "{refused}");
        }
        assert_eq!(settings.show(one.key).await.unwrap().version, 0);
    }
    let unknown = settings.change(&by, "approvals", 1, None).await.unwrap_err().to_string();
    assert!(unknown.contains("sessions.idle"), "{unknown}");

    let sql = "INSERT INTO settings (name, value, changed_at) VALUES ('sessions.idle', '1', 0)";
    catalog.execute(strongroom_catalog::Sql::new(sql)).await.unwrap();
    let found = settings.show("sessions.idle").await.unwrap();
    assert_eq!((found.value, found.source), (3600, Source::Default));
    assert_eq!(settings.list().await.unwrap().len(), DEFINITIONS.len());
    fresh.remove().await;
}
