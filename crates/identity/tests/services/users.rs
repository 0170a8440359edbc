//! Users, roles and organisations, and that nobody becomes more than they are.

use strongroom_catalog::identity::{Grant, Organisation, USERS, User};
use strongroom_catalog::list::List;
use strongroom_catalog::{Error as CatalogError, testing};
use strongroom_identity::{
    Error, OrganisationChange, Principal, Right, RightSet, RoleSpec, UserChange, UserSpec,
};

use crate::world::{PASSWORD, World};

fn forbidden<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::Forbidden { .. }))
}

fn hidden<T>(outcome: Result<T, Error>) -> bool {
    matches!(outcome, Err(Error::NotFound { .. }))
}

#[tokio::test]
async fn users_are_made_and_changed_and_removed() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let (identity, admin) = (&world.identity, &world.admin);
        let spec = |name: &str| UserSpec {
            organisation_id: world.root,
            name: name.into(),
            password: Some(PASSWORD.into()),
            ..UserSpec::default()
        };
        let user = identity.create_user(admin, spec("Jo")).await.unwrap();
        let twice = identity.create_user(admin, spec("jO")).await;
        let twice = twice.unwrap_err().to_string();
        assert!(twice.contains(" name already"), "{twice}");
        for name in ["", " jo", "a\nb", &"x".repeat(200)] {
            let refused = identity.create_user(admin, spec(name)).await;
            assert!(matches!(refused, Err(Error::Invalid { field: "name", .. })), "{name}");
        }
        let what = UserChange { email: Some("jo@example.org".into()), ..UserChange::default() };
        let changed = identity.change_user(admin, user.id, Some(user.version), what.clone()).await;
        assert_eq!(changed.unwrap().email, "jo@example.org");
        let stale = identity.change_user(admin, user.id, Some(user.version), what).await;
        assert!(matches!(stale, Err(Error::Catalog(CatalogError::Changed { .. }))));
        let list = List::parse(&USERS, [("keyword", "EXAMPLE.org")]).unwrap();
        let page = list.page::<User>(&world.catalog, &admin.scope(Right::UserView)).await.unwrap();
        assert_eq!(page.items.len(), 1);
        identity.remove_user(admin, user.id).await.unwrap();
        assert!(hidden(identity.remove_user(admin, user.id).await));
    })
    .await;
}

#[tokio::test]
async fn the_last_administrator_stays() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let identity = &world.identity;
        let me = world.admin.user_id.unwrap();
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        let grant = world.role(me, "administrator", world.root).await;
        // One elsewhere, and one who is off, don't count.
        let acme = world.organisation(world.root, "acme").await.id;
        world.user("anna", "administrator", acme).await;
        let olaf = world.user("olaf", "administrator", world.root).await;
        let admin = world.admin().await;
        identity.change_user(&admin, olaf.id, None, off.clone()).await.unwrap();
        let last = |outcome: Result<(), Error>| matches!(outcome, Err(Error::LastAdministrator));
        assert!(last(identity.remove_user(&admin, me).await));
        assert!(last(identity.revoke(&admin, grant).await));
        assert!(last(identity.change_user(&admin, me, None, off.clone()).await.map(drop)));
        let act = UserChange { delegate_of: Some(Some(olaf.id)), ..UserChange::default() };
        assert!(last(identity.change_user(&admin, me, None, act).await.map(drop)));
        assert!(world.log_in("admin", world.passphrase.expose()).await.is_ok());
        let on = UserChange { enabled: Some(true), ..UserChange::default() };
        identity.change_user(&admin, olaf.id, None, on).await.unwrap();
        identity.remove_user(&admin, me).await.unwrap();
        let olaf = world.log_in("olaf", PASSWORD).await.unwrap();
        assert!(last(identity.remove_user(&olaf, olaf.user_id.unwrap()).await));
    })
    .await;
}

#[tokio::test]
async fn nobody_gives_or_takes_more_than_they_have() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let acme = world.organisation(world.root, "acme").await.id;
        let beta = world.organisation(world.root, "beta").await.id;
        let identity = &world.identity;
        world.user("tina", "tenant administrator", acme).await;
        let boss = world.user("boss", "administrator", acme).await;
        let bert = world.user("bert", "viewer", beta).await;
        let admin_id = world.admin.user_id.unwrap();
        let tina = world.log_in("tina", PASSWORD).await.unwrap();
        let spec = |organisation_id, name: &str| UserSpec {
            organisation_id,
            name: name.into(),
            ..UserSpec::default()
        };
        let new = identity.create_user(&tina, spec(acme, "new")).await.unwrap();
        assert!(hidden(identity.create_user(&tina, spec(beta, "other")).await));
        assert!(hidden(identity.create_user(&tina, spec(world.root, "other")).await));
        let give = async |role: &str, user: i64, to: i64| {
            identity.grant(&tina, world.role(user, role, to).await).await
        };
        give("operator", new.id, acme).await.unwrap();
        give("operator", new.id, acme).await.unwrap();
        assert_eq!(identity.grants(new.id).await.unwrap().len(), 1);
        assert!(forbidden(give("administrator", new.id, acme).await));
        assert!(hidden(give("viewer", new.id, beta).await));
        assert!(hidden(give("viewer", bert.id, acme).await));
        assert!(forbidden(
            identity.revoke(&tina, world.role(boss.id, "administrator", acme).await).await
        ));
        // Nor by way of a password.
        let change = |who: i64| identity.set_password(&tina, who, PASSWORD.into(), false);
        assert!(change(new.id).await.is_ok());
        assert!(forbidden(change(boss.id).await));
        assert!(hidden(change(bert.id).await));
        assert!(hidden(change(admin_id).await));
        assert!(forbidden(identity.remove_user(&tina, boss.id).await));
        let act = |other| UserSpec { delegate_of: Some(other), ..spec(acme, "delegate") };
        assert!(forbidden(identity.create_user(&tina, act(boss.id)).await));
        let role = |rights: &[Right]| RoleSpec {
            name: "own".into(),
            description: String::new(),
            rights: RightSet::of(rights),
        };
        assert!(forbidden(identity.create_role(&tina, role(&[Right::PoolView])).await));
    })
    .await;
}

#[tokio::test]
async fn roles_are_ones_own_or_built_in() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let (identity, admin) = (&world.identity, &world.admin);
        let spec = |rights: &[Right]| RoleSpec {
            name: "night shift".into(),
            description: "Looks after jobs.".into(),
            rights: RightSet::of(rights),
        };
        let role = identity.create_role(admin, spec(&[Right::JobView])).await.unwrap();
        let user = world.user("jo", "viewer", world.root).await;
        let grant = Grant { user_id: user.id, role_id: role.id, organisation_id: world.root };
        identity.grant(admin, grant).await.unwrap();
        identity.change_role(admin, role.id, None, spec(&[Right::JobManage])).await.unwrap();
        let jo = world.log_in("jo", PASSWORD).await.unwrap();
        assert!(jo.has(Right::JobManage, world.root));
        let used = identity.remove_role(admin, role.id).await;
        assert!(matches!(used, Err(Error::InUse { .. })));
        identity.revoke(admin, grant).await.unwrap();
        identity.remove_role(admin, role.id).await.unwrap();
        let viewer = world.role(user.id, "viewer", world.root).await.role_id;
        let changed = identity.change_role(admin, viewer, None, spec(&[])).await;
        assert!(matches!(changed, Err(Error::Builtin { name }) if name == "viewer"));
        let removed = identity.remove_role(admin, viewer).await;
        assert!(matches!(removed, Err(Error::Builtin { .. })));
    })
    .await;
}

#[tokio::test]
async fn organisations_are_a_tree_and_stay_one() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let identity = &world.identity;
        let acme = world.organisation(world.root, "acme").await;
        let labs = world.organisation(acme.id, "labs").await;
        let deep = world.organisation(labs.id, "deep").await;
        let admin = world.admin().await;
        let under = |id: i64, parent: i64| {
            let what = OrganisationChange { parent_id: Some(parent), ..Default::default() };
            identity.change_organisation(&admin, id, None, what)
        };
        for (id, parent) in
            [(acme.id, deep.id), (acme.id, acme.id), (labs.id, deep.id), (world.root, acme.id)]
        {
            let ring = under(id, parent).await;
            assert!(
                matches!(ring, Err(Error::Invalid { field: "parent_id", .. })),
                "{id} {parent}"
            );
        }
        let twice = identity.create_organisation(&admin, world.root, "acme", "").await;
        let twice = twice.unwrap_err().to_string();
        assert!(twice.contains(" name already"), "{twice}");
        assert!(hidden(identity.create_organisation(&admin, 4711, "x", "").await));
        world.user("lisa", "tenant administrator", labs.id).await;
        let lisa = world.log_in("lisa", PASSWORD).await.unwrap();
        assert!(lisa.sees(deep.id) && lisa.sees(labs.id) && !lisa.sees(acme.id));
        assert!(identity.create_organisation(&lisa, deep.id, "deeper", "").await.is_ok());
        assert!(hidden(identity.create_organisation(&lisa, acme.id, "x", "").await));
        // What is above decides whether it is there.
        assert!(hidden(identity.remove_organisation(&lisa, labs.id).await));
        let used = identity.remove_organisation(&admin, labs.id).await;
        assert!(matches!(used, Err(Error::InUse { .. })));
        let moved: Organisation = under(deep.id, world.root).await.unwrap();
        assert_eq!(moved.parent_id, Some(world.root));
        assert!(!world.log_in("lisa", PASSWORD).await.unwrap().sees(deep.id));
        assert!(identity.remove_organisation(&world.admin().await, world.root).await.is_err());
        let lone = world.organisation(world.root, "lone").await;
        identity.remove_organisation(&world.admin().await, lone.id).await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_delegate_has_what_both_have() {
    testing::each(|catalog| async move {
        let world = World::new(catalog).await;
        let identity = &world.identity;
        let acme = world.organisation(world.root, "acme").await.id;
        let boss = world.user("boss", "operator", acme).await;
        let dora = world.user("dora", "administrator", acme).await;
        let admin = world.admin().await;
        let act = |other| UserChange { delegate_of: Some(other), ..UserChange::default() };
        identity.change_user(&admin, dora.id, None, act(Some(boss.id))).await.unwrap();
        let rights = |of: &Principal| of.rights_in(acme);
        let of_boss = rights(&world.log_in("boss", PASSWORD).await.unwrap());
        let as_dora = world.log_in("dora", PASSWORD).await.unwrap();
        assert_eq!(as_dora.delegate_of, Some(boss.id));
        assert_eq!(rights(&as_dora), of_boss);
        let reduce = world.role(boss.id, "viewer", acme).await;
        identity.grant(&admin, reduce).await.unwrap();
        identity.revoke(&admin, world.role(boss.id, "operator", acme).await).await.unwrap();
        let as_dora = world.log_in("dora", PASSWORD).await.unwrap();
        assert!(!as_dora.has(Right::ImageCreate, acme) && as_dora.has(Right::ImageView, acme));
        // No chains, and nobody is left who acts for one that is gone.
        let eve = world.user("eve", "viewer", acme).await;
        for (who, other) in [(eve.id, dora.id), (boss.id, eve.id), (eve.id, eve.id)] {
            let chain = identity.change_user(&admin, who, None, act(Some(other))).await;
            assert!(matches!(chain, Err(Error::Invalid { field: "delegate_of", .. })));
        }
        let used = identity.remove_user(&admin, boss.id).await;
        assert!(matches!(used, Err(Error::InUse { .. })));
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        identity.change_user(&admin, boss.id, None, off).await.unwrap();
        assert!(world.log_in("dora", PASSWORD).await.is_err());
        identity.change_user(&admin, dora.id, None, act(None)).await.unwrap();
        assert!(world.log_in("dora", PASSWORD).await.unwrap().has(Right::PoolManage, acme));
    })
    .await;
}
