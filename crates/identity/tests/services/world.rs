//! An appliance that was just set up, with a clock that stands until it is moved.

use std::time::Duration;

use strongroom_catalog::Catalog;
use strongroom_catalog::identity::{Grant, Organisation, Role, User};
use strongroom_identity::{
    ApplianceKey, AuthError, Clock, Credential, Identity, Origin, Principal, Secret, UserSpec,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const PASSWORD: &str = "correct horse battery";

pub(crate) struct World {
    pub(crate) identity: Identity,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Clock,
    pub(crate) admin: Principal,
    pub(crate) passphrase: Secret,
    pub(crate) root: i64,
}

pub(crate) fn key() -> ApplianceKey {
    ApplianceKey::from_bytes(&[42; 32])
}

pub(crate) fn origin() -> Origin {
    Origin::new(Some("192.0.2.7".parse().unwrap()), "test/1")
}

impl World {
    pub(crate) async fn new(catalog: Catalog) -> Self {
        let clock = Clock::standing("2026-05-04T10:00:00Z".parse().unwrap());
        let identity = Identity::open_at(catalog.clone(), key(), clock.clone()).await.unwrap();
        let first = identity.first_run(None).await.unwrap().unwrap();
        let passphrase = first.passphrase;
        let credential = password(first.name, passphrase.expose());
        let admin = identity.authenticate(credential, &origin()).await.unwrap();
        let root = identity.root().await.unwrap().id;
        Self { identity, catalog, clock, admin, passphrase, root }
    }

    /// The same catalogue after a restart, or on another node.
    pub(crate) async fn another_node(&self) -> Identity {
        Identity::open_at(self.catalog.clone(), key(), self.clock.clone()).await.unwrap()
    }

    pub(crate) async fn organisation(&self, parent: i64, name: &str) -> Organisation {
        self.identity.create_organisation(&self.admin().await, parent, name, "").await.unwrap()
    }

    /// The administrator as it is now: it sees organisations made since.
    pub(crate) async fn admin(&self) -> Principal {
        self.log_in("admin", self.passphrase.expose()).await.unwrap()
    }

    pub(crate) async fn log_in(&self, name: &str, text: &str) -> Result<Principal, AuthError> {
        self.identity.authenticate(password(name, text), &origin()).await
    }

    pub(crate) async fn bearer(&self, token: &Secret) -> Result<Principal, AuthError> {
        self.identity.authenticate(Credential::Bearer(token.clone()), &origin()).await
    }

    /// A user with a built-in role there.
    pub(crate) async fn user(&self, name: &str, role: &str, organisation: i64) -> User {
        let admin = self.admin().await;
        let spec = UserSpec {
            organisation_id: organisation,
            name: name.into(),
            password: Some(PASSWORD.into()),
            ..UserSpec::default()
        };
        let user = self.identity.create_user(&admin, spec).await.unwrap();
        let grant = self.role(user.id, role, organisation).await;
        self.identity.grant(&admin, grant).await.unwrap();
        user
    }

    pub(crate) async fn role(&self, user_id: i64, role: &str, organisation_id: i64) -> Grant {
        let role = self.catalog.find_one::<Role>(Role::by_name(role)).await.unwrap().unwrap();
        Grant { user_id, role_id: role.id, organisation_id }
    }
}

pub(crate) fn password(name: &str, text: &str) -> Credential {
    Credential::Password { name: name.into(), password: text.into(), code: None, directory: None }
}
