//! Users of a directory, with a real server.

use strongroom_catalog::identity::User;
use strongroom_catalog::testing;
use strongroom_identity::{
    AuthError, Credential, DirectorySettings, Error, GroupRole, Life, Principal, Right, RightSet,
    RoleSpec, SourceSpec, Sourced, Trial, UserChange, Via,
};

use crate::slapd::{SECRET, Slapd};
use crate::world::{HOUR, SECOND, World, origin};

const ADMINS: &str = "CN=backup admins, OU=Groups, DC=corp, DC=example";
const VIEWERS: &str = "cn=viewers,ou=groups,dc=corp,dc=example";
const JO: &str = "jo's password";

type Directory = Sourced<DirectorySettings>;

impl World {
    async fn mapped(&self, group: &str, role: &str) -> GroupRole {
        let role = self.role(0, role, self.root).await;
        let (role_id, organisation_id) = (role.role_id, role.organisation_id);
        GroupRole { group: group.into(), role_id, organisation_id }
    }

    async fn spec(&self, settings: DirectorySettings) -> SourceSpec<DirectorySettings> {
        SourceSpec {
            name: "corp".into(),
            organisation_id: self.root,
            enabled: true,
            settings,
            secret: Some(SECRET.into()),
            groups: vec![
                self.mapped(ADMINS, "operator").await,
                self.mapped(VIEWERS, "viewer").await,
            ],
        }
    }

    async fn directory(&self, slapd: &Slapd) -> Directory {
        let spec = self.spec(slapd.settings()).await;
        self.identity.create_source(&self.admin, spec).await.unwrap()
    }

    /// Changes a directory.
    async fn with(
        &self,
        directory: &Directory,
        change: impl FnOnce(&mut SourceSpec<DirectorySettings>),
    ) -> Result<Directory, Error> {
        let mut spec = SourceSpec {
            name: directory.row.name.clone(),
            organisation_id: directory.row.organisation_id,
            enabled: directory.row.enabled,
            settings: directory.settings.clone(),
            secret: None,
            groups: directory.groups.clone(),
        };
        change(&mut spec);
        self.identity.change_source(&self.admin, directory.row.id, None, spec).await
    }

    async fn row(&self, principal: &Principal) -> User {
        let id = principal.user_id.unwrap();
        self.catalog.find_one::<User>(User::by_id(id)).await.unwrap().unwrap()
    }

    async fn refused(&self, name: &str, text: &str) -> AuthError {
        self.log_in(name, text).await.unwrap_err()
    }
}

#[tokio::test]
async fn whom_a_directory_knows_is_a_user_with_the_roles_of_its_groups() {
    testing::each(|catalog| async move {
        let (world, slapd) = (World::new(catalog).await, Slapd::start());
        let directory = world.directory(&slapd).await;
        let jo = world.log_in("jo", JO).await.unwrap();
        assert_eq!((jo.via, jo.name.as_str()), (Via::Directory, "jo"));
        assert!(jo.has(Right::ImageCreate, world.root) && !jo.has(Right::UserView, world.root));
        let row = world.row(&jo).await;
        assert_eq!((row.source.as_str(), row.source_id), ("ldap", Some(directory.row.id)));
        assert_eq!((row.full_name.as_str(), row.email.as_str()), ("Jo Doe", "jo@corp.example"));
        assert_eq!(row.external_id.as_ref().map(String::len), Some(36));
        // By another name it is the same one.
        let again = world.log_in("JO@corp.example", JO).await.unwrap();
        assert_eq!(again.user_id, jo.user_id);
        let grants = world.identity.grants(row.id).await.unwrap();
        assert_eq!(grants.len(), 1);

        // What was changed there is changed here at the next login.
        slapd.modify(
            "dn: uid=jo,ou=people,dc=corp,dc=example\nchangetype: modify\nreplace: cn\n\
             cn: Jo Smith\n\n\
             dn: cn=viewers,ou=groups,dc=corp,dc=example\nchangetype: modify\nadd: member\n\
             member: uid=jo,ou=people,dc=corp,dc=example\n",
        );
        let jo = world.log_in("jo", JO).await.unwrap();
        assert_eq!(world.row(&jo).await.full_name, "Jo Smith");
        assert_eq!(world.identity.grants(row.id).await.unwrap().len(), 2);

        // A role that a group hasn't any more is gone at once, and so are sessions with it.
        let session = world.identity.open_session(&jo, Life::default(), &origin()).await.unwrap();
        let token = &session.token;
        assert!(world.bearer(token).await.is_ok());
        let viewers = world.mapped(VIEWERS, "viewer").await;
        world.with(&directory, |spec| spec.groups = vec![viewers]).await.unwrap();
        assert!(matches!(world.bearer(token).await, Err(AuthError::Credentials)));
        let jo = world.log_in("jo", JO).await.unwrap();
        assert!(!jo.has(Right::ImageCreate, world.root) && jo.has(Right::ImageView, world.root));

        // Without a group that matters one isn't let in, and has nothing.
        slapd.modify(
            "dn: cn=viewers,ou=groups,dc=corp,dc=example\nchangetype: modify\ndelete: member\n\
             member: uid=jo,ou=people,dc=corp,dc=example\n",
        );
        assert!(matches!(world.refused("jo", JO).await, AuthError::NoRole));
        assert_eq!(world.identity.grants(row.id).await.unwrap().len(), 0);
        // Nor is anybody made who never had one.
        world.with(&directory, |spec| spec.groups.clear()).await.unwrap();
        assert!(matches!(world.refused("mo", "mo's password").await, AuthError::NoRole));
        let mo = world.catalog.find_one::<User>(User::by_name("mo")).await.unwrap();
        assert!(mo.is_none());

        let lines = world.identity.audit_lines(0, 1000).await.unwrap();
        let of = |operation: &str| lines.iter().filter(|l| l.operation == operation).count();
        assert_eq!((of("user.arrive"), of("user.follow")), (1, 3));
        let logins: Vec<_> = lines.iter().filter(|line| line.via == "directory").collect();
        assert!(logins.iter().any(|line| line.result == "no role" && line.operation == "login"));
        assert!(logins.iter().any(|line| line.result == "ok" && line.user_name == "jo"));
        assert!(lines.iter().all(|line| !format!("{line:?}").contains(SECRET)));
    })
    .await;
}

#[tokio::test]
async fn nobody_gets_in_by_a_trick() {
    testing::each(|catalog| async move {
        let (world, slapd) = (World::new(catalog).await, Slapd::start());
        world.directory(&slapd).await;
        // The server lets in whoever shows no password.
        for (name, text) in [
            ("jo", ""),
            ("*", JO),
            ("j*", JO),
            ("jo)(uid=*", JO),
            ("jo)(|(uid=jo", JO),
            ("nobody", JO),
            (" jo", JO),
            ("jo ", JO),
            ("", ""),
            ("jo", "wrong"),
        ] {
            let refused = world.refused(name, text).await;
            assert!(matches!(refused, AuthError::Credentials), "{name} {text}: {refused:?}");
            world.clock.advance(HOUR + SECOND);
        }
        assert!(world.catalog.find_one::<User>(User::by_name("jo")).await.unwrap().is_none());
        // What is odd in a name is not odd for the server.
        let odd = world.log_in("a,b(*)\\", "odd's password").await.unwrap();
        assert_eq!(odd.name, "a,b(*)\\");
        // Failures under one name of somebody count under the others.
        for name in ["jo", "jo@corp.example", "JO", "Jo@Corp.example"] {
            assert!(matches!(world.refused(name, "wrong").await, AuthError::Credentials));
        }
        let blocked = world.refused("jo@corp.example", JO).await;
        assert!(matches!(blocked, AuthError::Blocked { .. }), "{blocked:?}");
        world.clock.advance(SECOND);
        assert!(world.log_in("jo", JO).await.is_ok());
    })
    .await;
}

#[tokio::test]
async fn a_directory_stands_in_for_nobody_and_keeps_nobody_out() {
    testing::each(|catalog| async move {
        let (world, mut slapd) = (World::new(catalog).await, Slapd::start());
        let directory = world.directory(&slapd).await;
        world.user("mo", "viewer", world.root).await;
        // The same name there is another one.
        assert!(matches!(world.refused("mo", "mo's password").await, AuthError::Credentials));
        let named = |name: &str, text: &str, directory: &str| Credential::Password {
            name: name.into(),
            password: text.into(),
            code: None,
            directory: Some(directory.into()),
        };
        let from = origin();
        let log_in = |credential| world.identity.authenticate(credential, &from);
        let refused = log_in(named("mo", "mo's password", "corp")).await;
        assert!(matches!(refused, Err(AuthError::Credentials)));
        assert!(log_in(named("jo", JO, "Corp")).await.is_ok());
        for (name, text) in [("jo", JO), ("admin", world.passphrase.expose())] {
            let refused = log_in(named(name, text, "elsewhere")).await;
            assert!(matches!(refused, Err(AuthError::Credentials)), "{name}");
        }

        slapd.stop();
        assert!(matches!(world.refused("jo", JO).await, AuthError::Unreachable));
        assert!(matches!(world.refused("stranger", JO).await, AuthError::Unreachable));
        assert!(world.log_in("mo", crate::world::PASSWORD).await.is_ok());
        world.admin().await;
        slapd.start_again();
        // That it was down is nobody's failure.
        let jo = world.log_in("jo", JO).await.unwrap();

        // Its users are not the last administrators, are given no roles by hand, and no password.
        let id = jo.user_id.unwrap();
        let admins = world.mapped(ADMINS, "administrator").await;
        world.with(&directory, |spec| spec.groups = vec![admins]).await.unwrap();
        let jo = world.log_in("jo", JO).await.unwrap();
        assert!(jo.is_administrator());
        let off = UserChange { enabled: Some(false), ..UserChange::default() };
        let (identity, me) = (&world.identity, world.admin.user_id.unwrap());
        let last = identity.change_user(&jo, me, None, off.clone()).await;
        assert!(matches!(last, Err(Error::LastAdministrator)), "{last:?}");
        let grant = world.role(id, "viewer", world.root).await;
        assert!(matches!(identity.grant(&world.admin, grant).await, Err(Error::State(_))));
        let given = identity.set_password(&world.admin, id, "a good password".into(), false).await;
        assert!(matches!(given, Err(Error::State(_))));

        // Switched off, here or as a whole.
        let session = identity.open_session(&jo, Life::default(), &origin()).await.unwrap();
        identity.change_user(&world.admin, id, None, off).await.unwrap();
        assert!(matches!(world.refused("jo", JO).await, AuthError::Disabled));
        let on = UserChange { enabled: Some(true), ..UserChange::default() };
        identity.change_user(&world.admin, id, None, on).await.unwrap();
        assert!(world.bearer(&session.token).await.is_err());
        let jo = world.log_in("jo", JO).await.unwrap();
        let spec = strongroom_identity::KeySpec {
            user_id: id,
            name: "ci".into(),
            ..strongroom_identity::KeySpec::default()
        };
        let (_, key) = identity.create_key(&jo, spec).await.unwrap();
        assert!(world.bearer(&key).await.is_ok());
        world.with(&directory, |spec| spec.enabled = false).await.unwrap();
        assert!(matches!(world.bearer(&key).await, Err(AuthError::Disabled)));
        assert!(matches!(world.refused("jo", JO).await, AuthError::Credentials));
        let removed = identity.remove_source::<DirectorySettings>(&world.admin, directory.row.id);
        assert!(matches!(removed.await, Err(Error::InUse { .. })));
        identity.remove_user(&world.admin, id).await.unwrap();
        let removed = identity.remove_source::<DirectorySettings>(&world.admin, directory.row.id);
        removed.await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn every_way_to_ask_a_directory_works_and_what_is_wrong_is_told_by_its_step() {
    testing::each(|catalog| async move {
        let (world, mut slapd) = (World::new(catalog).await, Slapd::start());
        let directory = world.directory(&slapd).await;
        let id = directory.row.id;
        let trial = async |name: Option<&str>, text: Option<&str>| {
            let (name, text) = (name.map(str::to_owned), text.map(Into::into));
            world.identity.try_directory(&world.admin, id, name, text).await.unwrap()
        };
        let steps =
            |trial: &Trial| trial.steps.iter().map(|step| step.name).collect::<Vec<_>>().join(" ");
        let good = trial(Some("jo"), Some(JO)).await;
        assert_eq!(steps(&good), "connect tls bind search password groups", "{good:?}");
        assert!(good.failed().is_none());
        assert_eq!(good.groups, ["cn=backup admins,ou=groups,dc=corp,dc=example"]);
        assert_eq!(good.roles.len(), 1);
        assert_eq!(steps(&trial(None, None).await), "connect tls bind search");
        let wrong = trial(Some("jo"), Some("wrong")).await;
        assert_eq!(wrong.failed().map(|step| step.name), Some("password"));
        let nobody = trial(Some("nobody"), None).await;
        assert_eq!(nobody.failed().map(|step| step.name), Some("search"));

        // Nothing of a trial stays but its line.
        assert!(world.catalog.find_one::<User>(User::by_name("jo")).await.unwrap().is_none());

        // StartTLS, and none on this machine; a filter for groups; the user itself looks.
        let plain = slapd.plain_url();
        for (start_tls, template, names) in [
            (true, None, "connect tls bind search password groups"),
            (false, None, "connect bind search password groups"),
            (
                true,
                Some("uid={name},ou=people,dc=corp,dc=example"),
                "connect tls bind search password groups",
            ),
        ] {
            let change = |spec: &mut SourceSpec<DirectorySettings>| {
                spec.secret = Some(SECRET.into());
                spec.settings.url = plain.clone();
                spec.settings.start_tls = start_tls;
                spec.settings.bind_template = template.map(str::to_owned);
                spec.settings.bind_dn = match template {
                    Some(_) => String::new(),
                    None => crate::slapd::READER.into(),
                };
                spec.settings.group_attribute = String::new();
                spec.settings.group_filter = "(&(objectClass=groupOfNames)(member={dn}))".into();
                spec.settings.group_base_dn = "ou=groups,dc=corp,dc=example".into();
            };
            world.with(&directory, change).await.unwrap();
            let good = trial(Some("jo"), Some(JO)).await;
            assert_eq!(steps(&good), names, "{good:?}");
            assert_eq!((good.failed(), good.roles.len()), (None, 1));
            let jo = world.log_in("jo", JO).await.unwrap();
            assert!(jo.has(Right::ImageCreate, world.root));
            assert!(matches!(world.refused("jo", "wrong").await, AuthError::Credentials));
        }

        // What is wrong is told by the step that fails.
        let failing = async |change: &dyn Fn(&mut SourceSpec<DirectorySettings>)| {
            let secret = |spec: &mut SourceSpec<DirectorySettings>| {
                spec.secret = Some(SECRET.into());
                change(spec);
            };
            world.with(&directory, secret).await.unwrap();
            let trial = trial(Some("jo"), Some(JO)).await;
            trial.failed().map(|step| (step.name, step.detail.clone())).unwrap()
        };
        let (step, why) = failing(&|spec| spec.secret = Some("wrong".into())).await;
        assert_eq!(step, "bind", "{why}");
        let other = rcgen::KeyPair::generate().unwrap();
        let other = rcgen::CertificateParams::new([]).unwrap().self_signed(&other).unwrap().pem();
        let (step, why) = failing(&|s| s.settings.ca_certificate = Some(other.clone())).await;
        assert_eq!(step, "tls", "{why}");
        // Nobody vouches for it but its own authority.
        let (step, why) = failing(&|s| s.settings.ca_certificate = None).await;
        assert_eq!(step, "tls", "{why}");
        let (step, why) = failing(&|s| s.settings.base_dn = "dc=elsewhere".into()).await;
        assert_eq!((step, why.contains("no such entry")), ("search", true), "{why}");
        let (step, why) = failing(&|s| s.settings.id_attribute = "objectGUID".into()).await;
        assert_eq!((step, why.contains("objectGUID")), ("search", true), "{why}");
        let (step, why) =
            failing(&|s| s.settings.user_filter = "(|(uid={name})(cn=*))".into()).await;
        assert_eq!((step, why.contains("more than one")), ("search", true), "{why}");
        let url = slapd.settings().url;
        slapd.stop();
        let (step, why) = failing(&|s| s.settings.url = url.clone()).await;
        assert_eq!(step, "connect", "{why}");
    })
    .await;
}

#[tokio::test]
async fn who_sets_up_a_directory_lets_nobody_in_as_more_than_oneself() {
    testing::each(|catalog| async move {
        let (world, slapd) = (World::new(catalog).await, Slapd::start());
        let identity = &world.identity;
        world.user("op", "operator", world.root).await;
        let op = world.log_in("op", crate::world::PASSWORD).await.unwrap();
        let spec = world.spec(slapd.settings()).await;
        let refused = identity.create_source(&op, spec.clone()).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));

        let rights = RightSet::of(&[Right::DirectoryManage, Right::ImageView]);
        let role = RoleSpec { name: "directories".into(), rights, ..RoleSpec::default() };
        identity.create_role(&world.admin, role).await.unwrap();
        world.user("dir", "directories", world.root).await;
        let dir = world.log_in("dir", crate::world::PASSWORD).await.unwrap();
        let refused = identity.create_source(&dir, spec.clone()).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })), "{refused:?}");
        let none = SourceSpec { groups: Vec::new(), ..spec.clone() };
        let made = identity.create_source(&dir, none.clone()).await.unwrap();
        let id = made.row.id;
        let refused = identity.change_source(&dir, id, None, spec.clone()).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));
        identity.change_source(&world.admin, id, None, spec.clone()).await.unwrap();
        // Nor can it send those elsewhere that others let in.
        let refused = identity.change_source(&dir, id, None, none).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));
        let refused = identity.remove_source::<DirectorySettings>(&dir, id).await;
        assert!(matches!(refused, Err(Error::Forbidden { .. })));

        // A secret that is kept goes to no other server.
        let directory = identity.source::<DirectorySettings>(id).await.unwrap();
        let moved = world.with(&directory, |s| s.settings.url = "ldaps://evil.example".into());
        assert!(matches!(moved.await, Err(Error::Invalid { field: "secret", .. })));
        let stale = identity.change_source(&world.admin, id, Some(1), spec).await;
        assert!(stale.unwrap_err().to_string().contains("changed meanwhile"));
        let rows = world.catalog.rows(strongroom_catalog::Sql::new("SELECT secret FROM sources"));
        let stored: Vec<u8> = rows.await.unwrap().remove(0).take().unwrap();
        assert!(!stored.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()));
        // A role that a group has is in use.
        let role = directory.groups[0].role_id;
        let sql = strongroom_catalog::Sql::new("DELETE FROM roles WHERE id = ?").bind(role);
        assert!(world.catalog.execute(sql).await.is_err());
    })
    .await;
}
