#![allow(clippy::unwrap_used, reason = "tests")]
use super::*;
use crate::{Catalog, testing};

async fn world(catalog: &Catalog) -> (i64, i64) {
    for sql in [
        "INSERT INTO organisations (id, name, created_at) VALUES (1, 'all', 0)",
        "INSERT INTO pools (id, uuid, name, organisation_id, path, created_at) \
         VALUES (1, '01', 'main', 1, '/p', 0)",
        "INSERT INTO volumes (id, pool_id, organisation_id, uuid, public_id, name, size, block_size, \
         sector_size, thin, deduplicated, compressed, cached, io_type, priority, origin, created_at) \
         VALUES (1, 1, 1, '01', '01', 'vol1', 1024, 4096, 512, 1, 1, 1, 1, 'transactional', 64, '', 0)",
    ] {
        catalog.execute(Sql::new(sql)).await.unwrap();
    }
    let mut tx = catalog.begin().await.unwrap();
    let portals = PortalGroup::insert(&mut tx, 1, "p", "default").await.unwrap();
    Portal::insert(&mut tx, portals, "q", "127.0.0.1:3260").await.unwrap();
    let new = NewAuthGroup { public_id: "a".into(), organisation_id: 1, name: "web".into() };
    let auth = AuthGroup::insert(&mut tx, new).await.unwrap();
    tx.commit().await.unwrap();
    (portals, auth)
}

fn target(name: &str, auth: Option<i64>, portals: i64) -> NewTarget {
    NewTarget {
        public_id: format!("t-{name}"),
        organisation_id: 1,
        name: name.into(),
        iqn: format!("iqn.2026-11.org.example:{name}"),
        auth_group_id: auth,
        portal_group_id: portals,
        enabled: true,
    }
}

#[tokio::test]
async fn a_target_is_entered_with_its_groups_and_volumes() {
    testing::each(|catalog| async move {
        let (portals, auth) = world(&catalog).await;
        let mut tx = catalog.begin().await.unwrap();
        let id = Target::insert(&mut tx, target("t1", Some(auth), portals)).await.unwrap();
        Lun::insert(&mut tx, id, 3, 1).await.unwrap();
        tx.commit().await.unwrap();
        let mut row: Target = catalog.find_one(Target::by_id(id)).await.unwrap().unwrap();
        assert_eq!((row.auth_group.as_deref(), &row.portal_group[..]), (Some("web"), "default"));
        assert_eq!((row.luns, row.enabled, row.version), (1, true, 1));
        let luns: Vec<Lun> = catalog.find(Lun::of_volume(1)).await.unwrap();
        assert_eq!((luns[0].number, &luns[0].volume[..], &luns[0].pool[..]), (3, "vol1", "main"));

        let mut tx = catalog.begin().await.unwrap();
        row.name = "t2".into();
        row.update(&mut tx).await.unwrap();
        assert!(matches!(row.update(&mut tx).await, Err(Error::Changed { what: "target" })));
        tx.commit().await.unwrap();

        for new in [target("t2", None, portals), target("t1", None, portals)] {
            let mut tx = catalog.begin().await.unwrap();
            assert!(matches!(Target::insert(&mut tx, new).await, Err(Error::Exists { .. })));
        }
        for (number, volume) in [(3, 1), (4, 1)] {
            let mut tx = catalog.begin().await.unwrap();
            let again = Lun::insert(&mut tx, id, number, volume).await;
            assert!(matches!(again, Err(Error::Exists { .. })));
        }
        // What others have stays.
        let mut tx = catalog.begin().await.unwrap();
        assert!(matches!(AuthGroup::remove(&mut tx, auth).await, Err(Error::Referenced { .. })));
        drop(tx);
        let mut tx = catalog.begin().await.unwrap();
        let removed = PortalGroup::remove(&mut tx, portals).await;
        assert!(matches!(removed, Err(Error::Referenced { .. })));
        drop(tx);
        let mut tx = catalog.begin().await.unwrap();
        Target::remove(&mut tx, id).await.unwrap();
        AuthGroup::remove(&mut tx, auth).await.unwrap();
        PortalGroup::remove(&mut tx, portals).await.unwrap();
        tx.commit().await.unwrap();
        assert!(catalog.find::<Lun>(Lun::all()).await.unwrap().is_empty());
        assert!(catalog.find::<Portal>(Portal::all()).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn those_that_the_network_reaches_without_a_proof_are_known() {
    testing::each(|catalog| async move {
        let (local, auth) = world(&catalog).await;
        let mut tx = catalog.begin().await.unwrap();
        let far = PortalGroup::insert(&mut tx, 1, "f", "far").await.unwrap();
        Portal::insert(&mut tx, far, "g", "0.0.0.0:3261").await.unwrap();
        let near = PortalGroup::insert(&mut tx, 1, "n", "near").await.unwrap();
        Portal::insert(&mut tx, near, "m", "[::1]:3262").await.unwrap();
        for (name, auth, portals) in [
            ("local", None, local),
            ("near", None, near),
            ("open", None, far),
            ("named", Some(auth), far),
        ] {
            Target::insert(&mut tx, target(name, auth, portals)).await.unwrap();
        }
        let names = |found: Vec<Target>| found.into_iter().map(|t| t.name).collect::<Vec<_>>();
        let found = tx.find(Target::open_to_the_network()).await.unwrap();
        assert_eq!(names(found), ["open", "named"]);
        let group: Option<AuthGroup> = tx.find_one(AuthGroup::by_id(auth)).await.unwrap();
        let mut group = group.unwrap();
        group.chap_user = Some("user".into());
        let secrets = ChapSecrets { id: auth, chap: Some(vec![1]), mutual: None };
        group.update(&mut tx, secrets).await.unwrap();
        let found = tx.find(Target::open_to_the_network()).await.unwrap();
        assert_eq!(names(found), ["open"]);
    })
    .await;
}

#[tokio::test]
async fn reservations_are_kept_with_the_volume() {
    testing::each(|catalog| async move {
        world(&catalog).await;
        assert_eq!(reservations(&catalog, 1).await.unwrap(), None);
        keep_reservations(&catalog, 1, Some(vec![1, 2])).await.unwrap();
        assert_eq!(reservations(&catalog, 1).await.unwrap(), Some(vec![1, 2]));
        keep_reservations(&catalog, 1, None).await.unwrap();
        assert_eq!(reservations(&catalog, 1).await.unwrap(), None);
        let none = keep_reservations(&catalog, 9, None).await;
        assert!(matches!(none, Err(Error::NotFound { what: "volume" })));
    })
    .await;
}
