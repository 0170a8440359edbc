//! The audit trail, and what shows when somebody has changed it.

use strongroom_catalog::{Engine, Sql, testing};
use strongroom_identity::{
    ApplianceKey, Deed, Fault, FaultKind, Identity, Verdict, to_json, to_syslog,
};

use crate::world::World;

/// What is written; what is searched follows from it.
const COLUMNS: &str = "id, at, user_id, user_name, organisation_id, via, address, operation, object, \
                       result, detail, previous, hash";

/// A trail of twenty lines.
async fn trail(catalog: strongroom_catalog::Catalog) -> World {
    let world = World::new(catalog).await;
    for i in 3..=20 {
        let deed = Deed::new("images.delete", format!("image {i}"));
        world.identity.record(&world.admin, deed).await.unwrap();
    }
    let verdict = world.identity.verify_audit().await.unwrap();
    assert_eq!(verdict, Verdict { lines: 20, ..Verdict::default() });
    world
}

async fn faults(world: &World) -> Vec<(i64, FaultKind)> {
    let verdict = world.identity.verify_audit().await.unwrap();
    assert_eq!(verdict.count, verdict.faults.len() as u64);
    verdict.faults.into_iter().map(|Fault { line, kind }| (line, kind)).collect()
}

async fn tamper(world: &World, sql: Sql) {
    assert!(world.catalog.execute(sql).await.unwrap() > 0);
}

#[tokio::test]
async fn a_line_that_is_gone_shows() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        for id in [1, 7, 8, 13, 20] {
            tamper(&world, Sql::new("DELETE FROM audit WHERE id = ?").bind(id as i64)).await;
        }
        let removed: Vec<_> = [1, 7, 8, 13, 20].map(|id| (id, FaultKind::Removed)).into();
        assert_eq!(faults(&world).await, removed);
        tamper(&world, Sql::new("DELETE FROM audit")).await;
        assert_eq!(faults(&world).await.len(), 20);
    })
    .await;
}

#[tokio::test]
async fn every_field_that_is_changed_shows() {
    let fields = [
        "UPDATE audit SET at = at + 1 WHERE id = 7",
        "UPDATE audit SET user_id = 99 WHERE id = 7",
        "UPDATE audit SET user_id = NULL WHERE id = 7",
        "UPDATE audit SET user_name = 'mallory' WHERE id = 7",
        "UPDATE audit SET organisation_id = NULL WHERE id = 7",
        "UPDATE audit SET via = 'key' WHERE id = 7",
        "UPDATE audit SET address = '' WHERE id = 7",
        "UPDATE audit SET operation = 'images.list' WHERE id = 7",
        "UPDATE audit SET object = 'image 8' WHERE id = 7",
        "UPDATE audit SET result = 'no' WHERE id = 7",
        "UPDATE audit SET detail = 'x' WHERE id = 7",
        // What stood in one field now stands in two.
        "UPDATE audit SET object = 'image', result = ' 7ok' WHERE id = 7",
        "UPDATE audit SET previous = hash WHERE id = 7",
    ];
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let keep = Sql::new("CREATE TABLE kept AS SELECT * FROM audit WHERE id = 7");
        world.catalog.execute(keep).await.unwrap();
        for field in fields {
            tamper(&world, Sql::new(field)).await;
            assert_eq!(faults(&world).await, [(7, FaultKind::Changed)], "{field}");
            tamper(&world, Sql::new("DELETE FROM audit WHERE id = 7")).await;
            tamper(&world, Sql::new("INSERT INTO audit SELECT ").and(COLUMNS).and(" FROM kept"))
                .await;
            assert_eq!(faults(&world).await, []);
        }
    })
    .await;
}

#[tokio::test]
async fn a_line_whose_hash_was_made_anew_shows() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        // Another appliance's line 7 is whole in itself.
        for id in [7, 20] {
            forge(&world, id).await;
            assert!(faults(&world).await.contains(&(id, FaultKind::Changed)), "{id}");
        }
    })
    .await;
}

/// Puts another text and its right hash into a line.
async fn forge(world: &World, id: i64) {
    let lines = world.identity.audit_lines(id - 1, 1).await.unwrap();
    let mut line = lines.into_iter().next().unwrap();
    line.object = "nothing at all".into();
    let hash = hash(&line);
    let sql = Sql::new("UPDATE audit SET object = ?, hash = ? WHERE id = ?");
    tamper(world, sql.bind(&line.object).bind(hash).bind(id)).await;
}

/// As the trail's text says, written once more.
fn hash(line: &strongroom_catalog::identity::AuditLine) -> Vec<u8> {
    let mut bytes = b"strongroom audit 1".to_vec();
    let number = |n: i64| Some(n.to_be_bytes().to_vec());
    let text = |t: &String| Some(t.clone().into_bytes());
    for field in [
        Some(line.previous.clone()),
        number(line.id),
        number(line.at.as_microsecond()),
        line.user_id.and_then(number),
        text(&line.user_name),
        line.organisation_id.and_then(number),
        text(&line.via),
        text(&line.address),
        text(&line.operation),
        text(&line.object),
        text(&line.result),
        text(&line.detail),
    ] {
        match field {
            Some(field) => {
                bytes.extend((field.len() as u64).to_be_bytes());
                bytes.extend(field);
            }
            None => bytes.extend([0xff; 8]),
        }
    }
    aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &bytes).as_ref().to_vec()
}

#[tokio::test]
async fn the_hash_is_what_its_text_says() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let mut previous = vec![0; 32];
        for line in world.identity.audit_lines(0, 1000).await.unwrap() {
            assert_eq!((&line.previous, &line.hash), (&previous, &hash(&line)));
            previous = line.hash;
        }
    })
    .await;
}

#[tokio::test]
async fn a_line_that_was_inserted_shows() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let copy = |to: i64| {
            let sql = Sql::new(
                "INSERT INTO audit SELECT ?, at, user_id, user_name, organisation_id, via, \
                 address, operation, object, result, detail, previous, hash FROM audit \
                 WHERE id = 9",
            );
            sql.bind(to)
        };
        tamper(&world, copy(21)).await;
        tamper(&world, copy(0)).await;
        let inserted = [(0, FaultKind::Inserted), (21, FaultKind::Inserted)];
        assert_eq!(faults(&world).await, inserted);
        tamper(&world, Sql::new("DELETE FROM audit WHERE id IN (0, 21)")).await;
        // In the middle, all behind it pushed on by one; numbers are unique on the way, too.
        tamper(&world, Sql::new("UPDATE audit SET id = -id WHERE id > 12")).await;
        tamper(&world, Sql::new("UPDATE audit SET id = 1 - id WHERE id < 0")).await;
        tamper(&world, copy(13)).await;
        let found = faults(&world).await;
        assert!(found.contains(&(13, FaultKind::Changed)), "{found:?}");
        assert!(found.contains(&(21, FaultKind::Inserted)), "{found:?}");
    })
    .await;
}

#[tokio::test]
async fn a_trail_that_was_cut_short_or_made_anew_shows() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let keep = Sql::new("CREATE TABLE kept AS SELECT * FROM audit_head");
        world.catalog.execute(keep).await.unwrap();
        // Cut, with the head as it would be; but for what only the key can make.
        tamper(&world, Sql::new("DELETE FROM audit WHERE id > 15")).await;
        let cut = "UPDATE audit_head SET last = 15, hash = (SELECT hash FROM audit WHERE id = 15)";
        tamper(&world, Sql::new(cut)).await;
        assert_eq!(faults(&world).await, [(15, FaultKind::End)]);
        let other = ApplianceKey::from_bytes(&[43; 32]);
        let other = Identity::open_at(world.catalog.clone(), other, world.clock.clone()).await;
        let verdict = other.unwrap().verify_audit().await.unwrap();
        assert_eq!(verdict.faults, [Fault { line: 15, kind: FaultKind::End }]);
        // All of it, as if nothing had ever been.
        tamper(&world, Sql::new("DELETE FROM audit")).await;
        let none = match world.catalog.engine() {
            Engine::Sqlite => "UPDATE audit_head SET last = 0, hash = zeroblob(32), mac = NULL",
            Engine::Postgres => {
                "UPDATE audit_head SET last = 0, hash = decode(repeat('00', 32), 'hex'), mac = NULL"
            }
        };
        tamper(&world, Sql::new(none)).await;
        assert_eq!(faults(&world).await, [(0, FaultKind::End)]);
        tamper(&world, Sql::new("DELETE FROM audit_head")).await;
        assert_eq!(faults(&world).await, [(0, FaultKind::End)]);
        let deed = Deed::new("images.delete", "image 1");
        assert!(world.identity.record(&world.admin, deed).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_write_at_once_make_one_chain() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let nodes = [world.identity.clone(), world.another_node().await];
        let writers: Vec<_> = (0..8)
            .map(|n| {
                let (node, admin) = (nodes[n % 2].clone(), world.admin.clone());
                tokio::spawn(async move {
                    for i in 0..10 {
                        let deed = Deed::new("images.delete", format!("image {n} {i}"));
                        node.record(&admin, deed).await.unwrap();
                        assert!(node.verify_audit().await.unwrap().is_good());
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let verdict = world.identity.verify_audit().await.unwrap();
        assert_eq!(verdict, Verdict { lines: 100, ..Verdict::default() });
    })
    .await;
}

#[tokio::test]
async fn a_deed_that_did_not_happen_has_no_line() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let mut tx = world.catalog.begin().await.unwrap();
        let deed = Deed::new("images.delete", "image 1");
        world.identity.append(&mut tx, &world.admin, deed).await.unwrap();
        drop(tx);
        assert_eq!(faults(&world).await, []);
        assert_eq!(world.identity.audit_lines(0, 1000).await.unwrap().len(), 20);
    })
    .await;
}

#[tokio::test]
async fn lines_are_bounded_and_exported() {
    testing::each(|catalog| async move {
        let world = trail(catalog).await;
        let deed = Deed::new("x\ny", "ä".repeat(5000)).failed("no").detail("d".repeat(10_000));
        world.identity.record(&world.admin, deed).await.unwrap();
        let lines = world.identity.audit_lines(20, 10).await.unwrap();
        let [line] = &lines[..] else { panic!("{} lines", lines.len()) };
        assert_eq!((line.operation.as_str(), line.object.len()), ("x y", 512));
        assert_eq!(line.detail.len(), 4096);
        assert_eq!(faults(&world).await, []);
        assert!(!to_json(line).contains('\n') && !to_syslog(line, "box").contains('\n'));
        assert!(to_syslog(line, "box").starts_with("<108>1 2026-05-04T10:00:00.000000Z box "));
    })
    .await;
}
