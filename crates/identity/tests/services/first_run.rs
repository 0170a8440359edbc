//! What is there after the first start, and after the second.

use crate::world::{World, key, origin, password};
use strongroom_catalog::identity::{Role, User};
use strongroom_catalog::{Catalog, Sql, testing};
use strongroom_identity::{
    ApplianceKey, AuthError, Credential, Error, Identity, ROLES, Right, RightSet, Secret, Via,
};

#[tokio::test]
async fn the_first_run_makes_an_administrator_once() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        assert!(!format!("{:?}", world.passphrase).contains(world.passphrase.expose()));
        assert_eq!(world.passphrase.expose().split('-').count(), 4);
        assert!(world.admin.is_administrator());
        assert_eq!(world.admin.rights_in(world.root), RightSet::ALL);
        assert!(world.identity.first_run(None).await.unwrap().is_none());
        assert!(world.another_node().await.first_run(None).await.unwrap().is_none());
        let users = world.catalog.find::<User>(Sql::new("FROM users")).await.unwrap();
        assert_eq!(users.len(), 1);
        assert!(world.log_in("ADMIN", world.passphrase.expose()).await.is_ok());
        assert!(world.identity.verify_audit().await.unwrap().is_good());
    })
    .await;
}

#[tokio::test]
async fn who_was_cut_off_before_it_told_the_passphrase_gets_another() {
    testing::each(|catalog| async move {
        let identity = Identity::open(catalog, key()).await.unwrap();
        let first = identity.first_run(Some("mine")).await.unwrap().unwrap();
        for other in [None, Some(""), Some("another")] {
            assert!(identity.first_run(other).await.unwrap().is_none());
        }
        let again = identity.first_run(Some("mine")).await.unwrap().unwrap();
        let old = password(first.name, first.passphrase.expose());
        assert!(identity.authenticate(old, &origin()).await.is_err());
        assert!(!first.again && again.again);
        let new = password(again.name, again.passphrase.expose());
        let admin = identity.authenticate(new, &origin()).await.unwrap();
        assert!(admin.is_administrator());
        // A passphrase that somebody chose stays, and so does one that was told.
        let id = admin.user_id.unwrap();
        let chosen = || Secret::new("somebody chose this one".to_owned());
        identity.set_password(&admin, id, chosen(), false).await.unwrap();
        assert!(identity.first_run(Some("mine")).await.unwrap().is_none());
        let credential = password(again.name, chosen().expose());
        assert!(identity.authenticate(credential, &origin()).await.is_ok());
        assert!(identity.verify_audit().await.unwrap().is_good());
    })
    .await;
}

#[tokio::test]
async fn who_told_the_passphrase_gets_no_other() {
    testing::each(|catalog| async move {
        let identity = Identity::open(catalog, key()).await.unwrap();
        let first = identity.first_run(Some("mine")).await.unwrap().unwrap();
        identity.first_run_told("another").await.unwrap();
        identity.first_run_told("mine").await.unwrap();
        assert!(identity.first_run(Some("mine")).await.unwrap().is_none());
        assert!(!identity.is_first_run("another").await.unwrap());
        assert!(identity.is_first_run("mine").await.unwrap());
        identity.end_first_run("another").await.unwrap();
        assert!(identity.is_first_run("mine").await.unwrap());
        identity.end_first_run("mine").await.unwrap();
        assert!(!identity.is_first_run("mine").await.unwrap());
        let credential = password(first.name, first.passphrase.expose());
        assert!(identity.authenticate(credential, &origin()).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_start_at_once_make_one_administrator() {
    testing::each_address(|address| async move {
        let mut nodes = Vec::new();
        for _ in 0..4 {
            let catalog = Catalog::open(&address).await.unwrap();
            nodes.push(Identity::open(catalog, key()).await.unwrap());
        }
        let runs: Vec<_> = nodes
            .iter()
            .map(|node| {
                let node = node.clone();
                tokio::spawn(async move { node.first_run(None).await.unwrap() })
            })
            .collect();
        let mut made = Vec::new();
        for run in runs {
            made.extend(run.await.unwrap());
        }
        let [first] = &made[..] else { panic!("{} administrators", made.len()) };
        for node in &nodes {
            let credential = password(first.name, first.passphrase.expose());
            assert!(node.authenticate(credential, &origin()).await.unwrap().is_administrator());
            assert!(node.verify_audit().await.unwrap().is_good());
        }
    })
    .await;
}

#[tokio::test]
async fn built_in_roles_are_what_this_version_says() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let sql = Sql::new("UPDATE roles SET rights = 'pool.view' WHERE name = 'operator'");
        world.catalog.execute(sql).await.unwrap();
        assert!(world.identity.first_run(None).await.unwrap().is_none());
        for builtin in ROLES {
            let role = world.catalog.find_one::<Role>(Role::by_name(builtin.name)).await.unwrap();
            let role = role.unwrap();
            assert!(role.builtin);
            assert_eq!(role.rights.parse::<RightSet>(), Ok(builtin.rights), "{}", role.name);
        }
    })
    .await;
}

#[tokio::test]
async fn the_control_socket_knows_root_and_the_same_unix_user_only() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let own = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap());
        for uid in [0, own] {
            let local = world.identity.authenticate(Credential::Local { uid }, &origin()).await;
            let local = local.unwrap();
            assert!(local.is_administrator());
            assert_eq!((local.user_id, local.via), (None, Via::Local));
            assert_eq!(local.name, format!("local:{uid}"));
        }
        let other = Credential::Local { uid: own + 12345 };
        let refused = world.identity.authenticate(other, &origin()).await;
        assert!(matches!(refused, Err(AuthError::Credentials)));
        let appliance = world.identity.appliance().await.unwrap();
        assert!(appliance.has(Right::SystemManage, world.root));
    })
    .await;
}

#[tokio::test]
async fn a_catalogue_is_refused_with_another_key() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let other = ApplianceKey::from_bytes(&[43; 32]);
        let other = Identity::open(world.catalog.clone(), other).await.unwrap();
        assert!(matches!(other.first_run(None).await, Err(Error::OtherKey)));
        assert!(world.identity.verify_audit().await.unwrap().is_good());
    })
    .await;
}
