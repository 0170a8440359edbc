#![allow(clippy::unwrap_used, reason = "tests")]
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use strongroom_catalog::targets::ChapSecrets;
use strongroom_catalog::{Catalog, Error as CatalogError, Sql, testing};

use super::*;
use crate::Storage;
use crate::tests::Bed;
use crate::volumes::{Force, NewVolume};

const SECRET: &str = "secretsecret12";

/// Remembers where it is listened.
#[derive(Debug, Default, Clone)]
struct Seen(Arc<Mutex<Vec<SocketAddr>>>);

/// Is there while it is listened.
struct Listening(Seen, SocketAddr);

impl Drop for Listening {
    fn drop(&mut self) {
        self.0.0.lock().unwrap().retain(|one| *one != self.1);
    }
}

impl TargetWatch for Seen {
    fn listens(&self, address: SocketAddr) -> Box<dyn Any + Send + Sync> {
        self.0.lock().unwrap().push(address);
        Box::new(Listening(self.clone(), address))
    }

    fn blocked(&self, _: &RefusedLogin) {}
}

impl Seen {
    fn addresses(&self) -> Vec<SocketAddr> {
        self.0.lock().unwrap().clone()
    }
}

fn chap(user: &str, secret: &str) -> Option<Chap> {
    Some(Chap { user: user.into(), secret: Zeroizing::new(secret.into()) })
}

fn new(name: &str) -> NewTarget {
    NewTarget {
        name: name.into(),
        organisation_id: 1,
        enabled: true,
        auth_group: Some(NewAuthGroup { chap: chap("user", SECRET), ..NewAuthGroup::default() }),
        ..NewTarget::default()
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn bed(catalog: &Catalog) -> (Bed, Storage) {
    let bed = Bed::new(catalog).await;
    let storage = bed.storage.clone();
    (bed, storage)
}

/// A portal group at a free port of this machine.
async fn portals(storage: &Storage, name: &str) -> (i64, SocketAddr) {
    let address = free();
    let group = storage.create_portal_group(1, name, &[address.to_string()]).await.unwrap();
    (group.group.id, address)
}

fn says(result: Result<impl fmt::Debug>, part: &str) {
    let said = result.unwrap_err().to_string();
    assert!(said.contains(part), "{said}");
}

/// Asks until it is so.
async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let began = Instant::now();
    while !ask().await {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_target_is_made_with_its_auth_group_or_not_at_all() {
    testing::each(|catalog| async move {
        let (_bed, storage) = bed(&catalog).await;
        let made = storage.create_target(new("t1")).await.unwrap();
        assert_eq!(made.target.auth_group.as_deref(), Some("t1"));
        assert_eq!(made.target.portal_group, "default");
        assert!(made.target.iqn.starts_with("iqn.2026-11.io.strongroom:"), "{}", made.target.iqn);
        assert!(made.target.iqn.ends_with(".t1"), "{}", made.target.iqn);
        assert_eq!(
            (made.state, &made.portals[..]),
            (TargetState::Stopped, &["127.0.0.1:3260".into()][..])
        );
        let group = made.target.auth_group_id.unwrap();

        // The secret is told to who asks for it, and is sealed.
        let secrets = storage.auth_group_secrets(group).await.unwrap();
        assert_eq!(secrets, AuthGroupSecrets { chap: chap("user", SECRET), mutual: None });
        let sealed: Option<ChapSecrets> = catalog.find_one(ChapSecrets::of(group)).await.unwrap();
        let sealed = sealed.unwrap().chap.unwrap();
        assert!(!sealed.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
        assert!(!format!("{secrets:?}").contains("secretsecret"));

        let again = storage.create_target(new("t1")).await;
        says(again, "there is such a auth group already");
        let other = NewTarget { portal_group_id: Some(99), ..new("t2") };
        says(storage.create_target(other).await, "no portal group 99");
        let short = Some(NewAuthGroup { chap: chap("user", "short"), ..NewAuthGroup::default() });
        let short = NewTarget { auth_group: short, ..new("t2") };
        says(storage.create_target(short).await, "12 to 255 bytes");
        let named = NewAuthGroup {
            initiators: vec![("disk".into(), "".into())],
            ..NewAuthGroup::default()
        };
        let named = NewTarget { auth_group: Some(named), ..new("t2") };
        says(storage.create_target(named).await, "no iSCSI name");
        let groups = catalog.rows(Sql::new("SELECT id FROM auth_groups")).await.unwrap();
        assert_eq!(groups.len(), 1, "nothing half done");

        says(storage.remove_auth_group(group).await, "is that of t1");
        let default = made.target.portal_group_id;
        says(storage.remove_portal_group(default).await, "is that of t1");
        storage.remove_target(made.target.id, false).await.unwrap();
        storage.remove_auth_group(group).await.unwrap();
        storage.remove_portal_group(default).await.unwrap();
        says(storage.target(made.target.id).await, "no such target");
    })
    .await;
}

#[tokio::test]
async fn auth_groups_are_changed_as_a_whole() {
    testing::each(|catalog| async move {
        let (_bed, storage) = bed(&catalog).await;
        let new =
            NewAuthGroup { name: "web".into(), organisation_id: 1, ..NewAuthGroup::default() };
        let made = storage.create_auth_group(new).await.unwrap();
        let id = made.group.id;
        let change = |chap, mutual| AuthGroupChange { chap, mutual, ..AuthGroupChange::default() };
        let only = change(None, Some(chap("target", SECRET)));
        says(storage.change_auth_group(id, only, None).await, "goes both ways");
        let same = change(Some(chap("user", SECRET)), Some(chap("target", SECRET)));
        says(storage.change_auth_group(id, same, None).await, "must differ");
        let both = change(Some(chap("user", SECRET)), Some(chap("target", "othersecret34")));
        let changed = storage.change_auth_group(id, both, Some(1)).await.unwrap();
        assert_eq!(changed.group.mutual_user.as_deref(), Some("target"));
        let late = storage.change_auth_group(id, change(Some(None), None), Some(1)).await;
        assert!(matches!(late, Err(Error::Catalog(CatalogError::Changed { .. }))));
        // What isn't said stays.
        let renamed = AuthGroupChange { name: Some("db".into()), ..AuthGroupChange::default() };
        let renamed = storage.change_auth_group(id, renamed, None).await.unwrap();
        assert_eq!(
            (&renamed.group.name[..], renamed.group.chap_user.as_deref()),
            ("db", Some("user"))
        );
        let secrets = storage.auth_group_secrets(id).await.unwrap();
        assert_eq!(secrets.mutual, chap("target", "othersecret34"));
        // Of a secret of another group nothing can be made.
        let sql = "UPDATE auth_groups SET chap_secret = mutual_secret WHERE id = ?";
        catalog.execute(Sql::new(sql).bind(id)).await.unwrap();
        says(storage.auth_group_secrets(id).await, "can't be unsealed");
        // But another can be put in its place.
        let other = change(Some(chap("user", "anothersecret5")), None);
        storage.change_auth_group(id, other, None).await.unwrap();
        assert_eq!(
            storage.auth_group_secrets(id).await.unwrap().chap,
            chap("user", "anothersecret5")
        );

        let iqn = "iqn.2026-11.org.example:A";
        let named = storage.add_initiator(id, iqn, "a").await.unwrap();
        assert_eq!(named.named[0].iqn, "iqn.2026-11.org.example:a");
        says(storage.add_initiator(id, iqn, "").await, "already");
        assert!(storage.remove_initiator(id, iqn, false).await.unwrap().named.is_empty());

        // All of them at once, or none: a wrong one changes nothing, not even the name.
        let all = |name: &str, iqns: &[&str]| AuthGroupChange {
            name: Some(name.into()),
            initiators: Some(iqns.iter().map(|iqn| (iqn.to_string(), String::new())).collect()),
            ..AuthGroupChange::default()
        };
        let b = "iqn.2026-11.org.example:b";
        let changed = storage.change_auth_group(id, all("one", &[iqn, b]), None).await.unwrap();
        assert_eq!(changed.named.len(), 2);
        let wrong = storage.change_auth_group(id, all("two", &[b, "no name"]), None).await;
        assert!(wrong.is_err());
        let same = storage.auth_group(id).await.unwrap();
        assert_eq!((&same.group.name[..], same.named.len()), ("one", 2));
        let changed = storage.change_auth_group(id, all("two", &[b]), None).await.unwrap();
        assert_eq!((changed.named.len(), &changed.named[0].iqn[..]), (1, b));
    })
    .await;
}

#[tokio::test]
async fn nothing_is_open_to_the_network_unless_that_is_said() {
    testing::each(|catalog| async move {
        let (_bed, storage) = bed(&catalog).await;
        let far = storage.create_portal_group(1, "far", &["0.0.0.0:3261".into()]).await.unwrap();
        let far = Some(far.group.id);
        let open = NewTarget { auth_group: None, portal_group_id: far, ..new("t1") };
        says(storage.create_target(open.clone()).await, "anybody there could use it");
        // Names prove nothing.
        let named = NewAuthGroup {
            initiators: vec![("iqn.2026-11.org.example:a".into(), String::new())],
            ..NewAuthGroup::default()
        };
        let named = NewTarget { auth_group: Some(named), ..open.clone() };
        says(storage.create_target(named).await, "give it an auth group with CHAP");
        storage.create_target(NewTarget { open: true, ..open }).await.unwrap();

        let guarded = NewTarget { portal_group_id: far, ..new("t2") };
        let guarded = storage.create_target(guarded).await.unwrap().target;
        let nobody = TargetChange { auth_group_id: Some(None), ..TargetChange::default() };
        says(storage.change_target(guarded.id, nobody, None).await, "t2");
        let no_chap = AuthGroupChange { chap: Some(None), ..AuthGroupChange::default() };
        let group = guarded.auth_group_id.unwrap();
        says(storage.change_auth_group(group, no_chap, None).await, "t2");

        let local = NewTarget { auth_group: None, ..new("t3") };
        let local = storage.create_target(local).await.unwrap().target;
        let moved = TargetChange { portal_group_id: far, ..TargetChange::default() };
        says(storage.change_target(local.id, moved, None).await, "t3");
        let portals = local.portal_group_id;
        says(storage.add_portal(portals, "192.0.2.1:3260", false).await, "t3");
        says(storage.add_portal(portals, "0.0.0.0:3261", true).await, "already");
        storage.add_portal(portals, "[::1]:3260", false).await.unwrap();
        let kept = storage.target(local.id).await.unwrap();
        assert_eq!(kept.portals, ["127.0.0.1:3260", "[::1]:3260"], "nothing half done");

        // The last name that keeps others out stays.
        let change = TargetChange { auth_group_id: Some(Some(group)), ..TargetChange::default() };
        storage.change_target(local.id, change, None).await.unwrap();
        let free = AuthGroupChange { chap: Some(None), open: true, ..AuthGroupChange::default() };
        storage.change_auth_group(group, free, None).await.unwrap();
        storage.add_initiator(group, "iqn.2026-11.org.example:a", "").await.unwrap();
        let last = storage.remove_initiator(group, "iqn.2026-11.org.example:a", false).await;
        says(last, "the last initiator");
    })
    .await;
}

#[tokio::test]
async fn it_listens_only_while_a_target_is_enabled() {
    testing::each(|catalog| async move {
        let (_bed, storage) = bed(&catalog).await;
        let (group, address) = portals(&storage, "own").await;
        let seen = Seen::default();
        storage.serve_targets(Arc::new(seen.clone()));
        assert!(seen.addresses().is_empty());
        let off = NewTarget { enabled: false, portal_group_id: Some(group), ..new("t1") };
        let made = storage.create_target(off).await.unwrap();
        assert_eq!(made.state, TargetState::Disabled);
        assert!(TcpStream::connect(address).is_err());
        let on = |enabled| TargetChange { enabled: Some(enabled), ..TargetChange::default() };
        let id = made.target.id;
        let made = storage.change_target(id, on(true), None).await.unwrap();
        assert_eq!((made.state, made.trouble), (TargetState::Served, None));
        assert_eq!(seen.addresses(), [address]);
        TcpStream::connect(address).unwrap();

        // Another portal, and this one no more.
        let other = free();
        let portals = storage.add_portal(group, &other.to_string(), false).await.unwrap().portals;
        assert!(portals.iter().all(|portal| portal.listening), "{portals:?}");
        storage.remove_portal(group, &address.to_string()).await.unwrap();
        assert_eq!(seen.addresses(), [other]);
        assert!(TcpStream::connect(address).is_err());

        // A port that others have is tried again.
        let theirs = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = theirs.local_addr().unwrap().to_string();
        let portals = storage.add_portal(group, &taken, false).await.unwrap().portals;
        assert!(!portals[1].listening && portals[1].trouble.is_some(), "{portals:?}");
        let shown = storage.target(id).await.unwrap();
        assert_eq!(shown.state, TargetState::Served, "it is reached by the other one");
        assert!(shown.trouble.unwrap().contains(&taken));
        drop(theirs);
        until("the port is free, and not taken", || async {
            storage.portal_group(group).await.unwrap().portals[1].listening
        })
        .await;
        until("what is over is told no more", || async {
            storage.target(id).await.unwrap().trouble.is_none()
        })
        .await;

        storage.change_target(id, on(false), None).await.unwrap();
        assert!(seen.addresses().is_empty());
        assert!(TcpStream::connect(other).is_err());
        storage.change_target(id, on(true), None).await.unwrap();
        TcpStream::connect(other).unwrap();
        storage.stop_targets().await;
        assert!(TcpStream::connect(other).is_err() && seen.addresses().is_empty());
        assert_eq!(storage.target(id).await.unwrap().state, TargetState::Stopped);
    })
    .await;
}

#[tokio::test]
async fn volumes_are_mapped_and_kept_open() {
    testing::each(|catalog| async move {
        let (bed, storage) = bed(&catalog).await;
        let pool = bed.pool().await.id;
        let volume = async |name: &str| {
            storage.create_volume(NewVolume::new(pool, name, 1 << 20)).await.unwrap().id
        };
        let (first, second) = (volume("vol1").await, volume("vol2").await);
        let (group, _) = portals(&storage, "own").await;
        storage.serve_targets(Arc::new(Seen::default()));
        let one = NewTarget { portal_group_id: Some(group), ..new("t1") };
        let id = storage.create_target(one).await.unwrap().target.id;
        let luns = storage.map_volume(id, first, None).await.unwrap();
        assert_eq!((luns[0].number, &luns[0].volume[..]), (0, "vol1"));
        let luns = storage.map_volume(id, second, Some(7)).await.unwrap();
        assert_eq!(luns[1].number, 7);
        says(storage.map_volume(id, second, None).await, "as LUN 7");
        says(storage.map_volume(id, first, Some(20_000)).await, "0 to 16383");
        says(storage.map_volume(id, 99, None).await, "no such volume");
        let shown = storage.target(id).await.unwrap();
        assert_eq!((shown.state, shown.mapped.len()), (TargetState::Served, 2));
        assert_eq!(storage.show_volume(first).await.unwrap().served_by, ["target t1"]);
        let served = storage.inner.targets.served(id).unwrap();
        assert_eq!(served.luns(), [0, 7]);

        // What is served is neither removed nor closed.
        assert!(matches!(
            storage.remove_volume(first, None, Force::No).await,
            Err(Error::VolumeServed { .. })
        ));
        assert!(matches!(storage.close(pool, "a test").await, Err(Error::Serving { .. })));
        assert!(matches!(storage.remove_target(id, false).await, Err(Error::InUse(_))));

        // A second target has the same volume, and the same unit.
        let two = NewTarget { portal_group_id: Some(group), ..new("t2") };
        let two = storage.create_target(two).await.unwrap().target.id;
        storage.map_volume(two, first, None).await.unwrap();
        let other = storage.inner.targets.served(two).unwrap();
        assert!(Arc::ptr_eq(&served.unit(0).unwrap(), &other.unit(0).unwrap()));
        assert_eq!(storage.luns_of_volume(first).await.unwrap().len(), 2);

        let luns = storage.unmap_volume(id, 0, false).await.unwrap();
        assert_eq!((luns.len(), served.luns()), (1, vec![7]));
        assert!(matches!(
            storage.unmap_volume(id, 0, false).await,
            Err(Error::Catalog(CatalogError::NotFound { what: "LUN" }))
        ));
        storage.map_volume(id, first, None).await.unwrap();
        assert_eq!(served.luns(), [0, 7], "the lowest that is free");

        storage.remove_target(two, true).await.unwrap();
        storage.remove_target(id, true).await.unwrap();
        assert!(storage.show_volume(first).await.unwrap().served_by.is_empty());
        storage.remove_volume(first, None, Force::No).await.unwrap();
        drop((served, other));
        drop(storage.close(pool, "a test").await.unwrap());

        // As it was left, it is served after the next start.
        let three = NewTarget { portal_group_id: Some(group), ..new("t3") };
        let three = storage.create_target(three).await.unwrap().target.id;
        storage.map_volume(three, second, None).await.unwrap();
        storage.stop_targets().await;
        drop(storage.close(pool, "a test").await.unwrap());
        storage.serve_targets(Arc::new(Seen::default()));
        until("it is served again", || async {
            storage.target(three).await.unwrap().state == TargetState::Served
        })
        .await;
        storage.stop_targets().await;
    })
    .await;
}

#[tokio::test]
async fn a_target_waits_for_its_pool() {
    testing::each(|catalog| async move {
        let (bed, storage) = bed(&catalog).await;
        let pool = bed.pool().await.id;
        let volume = storage.create_volume(NewVolume::new(pool, "vol1", 1 << 20)).await.unwrap().id;
        let (group, address) = portals(&storage, "own").await;
        let one = NewTarget { portal_group_id: Some(group), ..new("t1") };
        let id = storage.create_target(one).await.unwrap().target.id;
        storage.map_volume(id, volume, None).await.unwrap();
        let bar = storage.close(pool, "it is mended").await.unwrap();
        storage.serve_targets(Arc::new(Seen::default()));
        until("it is tried", || async { storage.target(id).await.unwrap().trouble.is_some() })
            .await;
        let shown = storage.target(id).await.unwrap();
        assert_eq!(shown.state, TargetState::Waiting);
        assert!(shown.trouble.unwrap().contains("it is mended"));
        // It is there, and tells initiators to come later.
        TcpStream::connect(address).unwrap();
        drop(bar);
        until("it is served", || async {
            storage.target(id).await.unwrap().state == TargetState::Served
        })
        .await;
        storage.stop_targets().await;
    })
    .await;
}
