#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::testing;

async fn bed(catalog: &Catalog) {
    for sql in [
        "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)",
        "INSERT INTO pools (id, uuid, name, organisation_id, node, path, created_at) \
         VALUES (1, 'p', 'main', 1, '', '/p', 0)",
        "INSERT INTO portal_groups (id, organisation_id, public_id, name, created_at) \
         VALUES (1, 1, 'g', 'default', 0)",
        "INSERT INTO targets (id, organisation_id, public_id, name, iqn, portal_group_id, enabled, \
         created_at) VALUES (1, 1, 't', 't1', 'iqn.2026-11.io.example:t1', 1, 1, 0)",
    ] {
        catalog.execute(Sql::new(sql)).await.unwrap();
    }
}

fn volume(uuid: &str, name: &str) -> Volume {
    Volume {
        id: 0,
        pool_id: 1,
        organisation_id: 1,
        uuid: uuid.into(),
        public_id: format!("public {uuid}"),
        name: name.into(),
        size: 1 << 30,
        block_size: 65536,
        sector_size: 512,
        thin: true,
        deduplicated: true,
        compressed: true,
        cached: true,
        io_type: "transactional".into(),
        priority: 16,
        origin: String::new(),
        created_at: Timestamp::from_second(7).unwrap(),
        used: None,
        snapshots_used: None,
        measured_at: None,
        version: 0,
        snapshots: 0,
        targets: 0,
    }
}

fn snapshot_of(volume: &Volume, uuid: &str, name: &str) -> Snapshot {
    Snapshot {
        id: 0,
        volume_id: volume.id,
        pool_id: 1,
        organisation_id: 1,
        uuid: uuid.into(),
        public_id: format!("public {uuid}"),
        name: name.into(),
        size: volume.size,
        created_at: Timestamp::from_second(8).unwrap(),
        reserved: None,
        scheduled: false,
    }
}

fn is_not_found<T: std::fmt::Debug>(result: Result<T>) -> bool {
    matches!(result.unwrap_err(), Error::NotFound { .. })
}

#[tokio::test]
async fn rows_become_what_the_pool_has_also_when_names_change_places() {
    testing::each(|catalog| async move {
        bed(&catalog).await;
        let all = [volume("a", "one"), volume("b", "two")];
        let done = mirror(&catalog, 1, &all).await.unwrap();
        assert_eq!(done, Changed { added: 2, ..Changed::default() });
        assert_eq!(mirror(&catalog, 1, &all).await.unwrap(), Changed::default());
        let one = of_uuid(&catalog, 1, "a").await.unwrap();
        let all = [volume("a", "two"), volume("b", "one")];
        let done = mirror(&catalog, 1, &all).await.unwrap();
        assert_eq!(done, Changed { changed: 2, ..Changed::default() });
        let two = find(&catalog, one.id).await.unwrap();
        assert_eq!((two.name.as_str(), two.version), ("two", 2));
        let same = put(&catalog, &Volume { size: 1 << 31, ..two.clone() }).await.unwrap();
        assert_eq!((same.id, same.size, same.version), (two.id, 1 << 31, 3));
        let done = mirror(&catalog, 1, &[volume("b", "one")]).await.unwrap();
        assert_eq!(done.removed, 1);
        assert!(is_not_found(find(&catalog, one.id).await));
        let taken = put(&catalog, &volume("c", "one")).await.unwrap_err();
        assert!(matches!(taken, Error::Exists { .. }), "{taken}");
    })
    .await;
}

#[tokio::test]
async fn a_volume_goes_with_its_snapshots_and_its_place_at_targets() {
    testing::each(|catalog| async move {
        bed(&catalog).await;
        let made = put(&catalog, &volume("a", "one")).await.unwrap();
        let first = snapshot_of(&made, "s1", "first");
        let second =
            Snapshot { scheduled: true, reserved: Some(0), ..snapshot_of(&made, "s2", "second") };
        mirror_snapshots(&catalog, made.id, &[first.clone(), second]).await.unwrap();
        let sql = "INSERT INTO luns (target_id, number, volume_id) VALUES (1, 0, ?)";
        catalog.execute(Sql::new(sql).bind(made.id)).await.unwrap();
        let seen = find(&catalog, made.id).await.unwrap();
        assert_eq!((seen.snapshots, seen.targets), (2, 1));
        assert_eq!(mapped_to(&catalog, made.id).await.unwrap(), ["t1"]);
        assert_eq!(first_targets(&catalog).await.unwrap(), [(made.id, "t1".to_owned())].into());
        assert_eq!(mapped_in(&catalog, 1).await.unwrap(), ["one"]);

        let now = Timestamp::from_second(9).unwrap();
        let reserved = [("s1".to_owned(), 4096)];
        measured(&catalog, made.id, (8192, 4096), &reserved, now).await.unwrap();
        let seen = find(&catalog, made.id).await.unwrap();
        assert_eq!((seen.used, seen.snapshots_used), (Some(8192), Some(4096)));
        let all = snapshots_of(&catalog, made.id).await.unwrap();
        assert_eq!((all[0].reserved, all[1].reserved), (Some(4096), Some(0)));
        assert_eq!((all[0].scheduled, all[1].scheduled), (false, true));
        assert_eq!(snapshot_of_public_id(&catalog, "public s2").await.unwrap(), all[1]);

        // One that stays keeps what was measured of it.
        mirror_snapshots(&catalog, made.id, &[first]).await.unwrap();
        assert_eq!(snapshots_of(&catalog, made.id).await.unwrap(), all[..1]);
        assert!(is_not_found(snapshot(&catalog, all[1].id).await));

        remove(&catalog, &seen).await.unwrap();
        assert!(is_not_found(snapshot(&catalog, all[0].id).await));
        assert!(mapped_to(&catalog, made.id).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_schedule_is_moved_on_by_one_only() {
    testing::each(|catalog| async move {
        bed(&catalog).await;
        let made = put(&catalog, &volume("a", "one")).await.unwrap();
        let at = |second| Timestamp::from_second(second).unwrap();
        let new = Schedule {
            volume_id: made.id,
            enabled: true,
            every: 3600,
            keep: 24,
            next_at: at(100),
            version: 0,
        };
        assert_eq!(schedule(&catalog, made.id).await.unwrap(), None);
        let set = set_schedule(&catalog, &new, Some(0)).await.unwrap();
        assert_eq!(set, Schedule { version: 1, ..new.clone() });
        let stale = set_schedule(&catalog, &new, Some(0)).await.unwrap_err();
        assert!(matches!(stale, Error::Changed { .. }), "{stale}");
        assert!(move_schedule(&catalog, &set, at(3700)).await.unwrap());
        assert!(!move_schedule(&catalog, &set, at(3700)).await.unwrap(), "another was faster");
        assert_eq!(schedules(&catalog).await.unwrap()[0].next_at, at(3700));
        let off = Schedule { enabled: false, ..new };
        set_schedule(&catalog, &off, Some(1)).await.unwrap();
        assert!(schedules(&catalog).await.unwrap().is_empty());
        assert!(remove_schedule(&catalog, made.id).await.unwrap());
        assert!(!remove_schedule(&catalog, made.id).await.unwrap());
    })
    .await;
}
