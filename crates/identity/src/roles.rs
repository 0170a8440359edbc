//! Roles, and their grants.

use strongroom_catalog::identity::{Grant, Role};

use crate::audit::{Deed, Who};
use crate::builtin::ADMINISTRATOR;
use crate::change::Change;
use crate::identity::Identity;
use crate::principal::Principal;
use crate::rights::{Right, RightSet};
use crate::users::{check_name, check_text, taken};
use crate::{Error, Result};

/// A role as it is to be.
#[derive(Clone, Debug, Default)]
pub struct RoleSpec {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// What it lets one do.
    pub rights: RightSet,
}

impl Identity {
    /// Makes a role. Needs the right `role.manage` in the topmost organisation, and every right
    /// that the role has.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::Forbidden`]; a name that is taken.
    pub async fn create_role(&self, by: &Principal, spec: RoleSpec) -> Result<Role> {
        check(by, &spec)?;
        let mut change = self.change(Who::from(by)).await?;
        let (now, rights) = (self.inner.clock.now(), spec.rights.to_string());
        let made = Role::insert(change.tx(), &spec.name, &spec.description, &rights, false, now);
        let id = made.await.map_err(taken("role name"))?;
        let role = find(&mut change, id).await?;
        change.commit(Deed::new("role.create", &role.name).detail(rights)).await?;
        Ok(role)
    }

    /// Makes a role what is given, unless it was changed since that version was read. Needs what
    /// [`Identity::create_role`] does, also for what it was.
    ///
    /// # Errors
    /// [`Error::Builtin`]; as [`Identity::create_role`].
    pub async fn change_role(
        &self,
        by: &Principal,
        id: i64,
        version: Option<i64>,
        spec: RoleSpec,
    ) -> Result<Role> {
        check(by, &spec)?;
        let mut change = self.change(Who::from(by)).await?;
        let mut role = own(&mut change, id).await?;
        holds(by, RightSet::stored(&role.rights), by.root())?;
        role.version = version.unwrap_or(role.version);
        (role.name, role.description) = (spec.name, spec.description);
        role.rights = spec.rights.to_string();
        role.update(change.tx()).await.map_err(taken("role name"))?;
        let role = find(&mut change, id).await?;
        change.commit(Deed::new("role.change", &role.name).detail(&role.rights)).await?;
        Ok(role)
    }

    /// Removes a role that nobody has.
    ///
    /// # Errors
    /// [`Error::Builtin`], [`Error::InUse`], [`Error::Forbidden`].
    pub async fn remove_role(&self, by: &Principal, id: i64) -> Result<()> {
        check(by, &RoleSpec { name: "any".into(), ..RoleSpec::default() })?;
        let mut change = self.change(Who::from(by)).await?;
        let role = own(&mut change, id).await?;
        if change.tx().find_one::<Grant>(Grant::of_role(id)).await?.is_some() {
            let by = "users have this role: take it from them first";
            return Err(Error::InUse { what: "role", by });
        }
        Role::remove(change.tx(), id).await?;
        change.commit(Deed::new("role.remove", &role.name)).await
    }

    /// What a user was granted.
    ///
    /// # Errors
    /// Those of the catalogue.
    pub async fn grants(&self, user: i64) -> Result<Vec<Grant>> {
        Ok(self.inner.catalog.find(Grant::of_user(user)).await?)
    }

    /// Gives a user a role in an organisation and in those below it. Needs the right `user.manage`
    /// there and where the user is, and there every right that the role has.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::NotFound`].
    pub async fn grant(&self, by: &Principal, grant: Grant) -> Result<()> {
        let mut change = self.change(Who::from(by)).await?;
        let deed = granting(&mut change, by, grant, "grant.create").await?;
        if !grant.insert(change.tx()).await? {
            return Ok(());
        }
        change.commit(deed).await
    }

    /// Takes it away. Needs what [`Identity::grant`] does.
    ///
    /// # Errors
    /// As [`Identity::grant`]; [`Error::LastAdministrator`].
    pub async fn revoke(&self, by: &Principal, grant: Grant) -> Result<()> {
        let mut change = self.change(Who::from(by)).await?;
        change.guard();
        let deed = granting(&mut change, by, grant, "grant.remove").await?;
        if !grant.remove(change.tx()).await? {
            return Err(Error::NotFound { what: "grant" });
        }
        change.commit(deed).await
    }
}

async fn granting(
    change: &mut Change<'_>,
    by: &Principal,
    grant: Grant,
    operation: &str,
) -> Result<Deed> {
    by.require_whole()?;
    let user = change.user(grant.user_id).await?;
    if user.source_id.is_some() {
        let why = "this user's roles follow its groups: map a group of its directory or issuer";
        return Err(Error::State(why));
    }
    by.require(Right::UserManage, user.organisation_id, "user")?;
    by.require(Right::UserManage, grant.organisation_id, "organisation")?;
    let organisation = change.organisation(grant.organisation_id).await?;
    let role = find(change, grant.role_id).await?;
    holds(by, RightSet::stored(&role.rights), organisation.id)?;
    let object = format!("{} as {} in {}", user.name, role.name, organisation.name);
    Ok(Deed::new(operation, object).within(organisation.id))
}

/// Refuses one who may not make this role.
fn check(by: &Principal, spec: &RoleSpec) -> Result<()> {
    by.require_whole()?;
    if !by.has(Right::RoleManage, by.root()) {
        let why = format!("it needs the right `{}` in the topmost organisation", Right::RoleManage);
        return Err(Error::Forbidden { why });
    }
    check_name("name", &spec.name)?;
    check_text("description", &spec.description, 1024)?;
    holds(by, spec.rights, by.root())
}

/// Refuses one who gives away what it hasn't.
pub(crate) fn holds(by: &Principal, rights: RightSet, organisation: i64) -> Result<()> {
    let more = rights.without(by.rights_in(organisation));
    if more.is_empty() {
        return Ok(());
    }
    let why =
        format!("a role with rights that you have not yourself can't be yours to give: {more}");
    Err(Error::Forbidden { why })
}

pub(crate) async fn find(change: &mut Change<'_>, id: i64) -> Result<Role> {
    let role = change.tx().find_one(Role::by_id(id)).await?;
    role.ok_or(Error::NotFound { what: "role" })
}

/// A role that didn't come with the appliance.
async fn own(change: &mut Change<'_>, id: i64) -> Result<Role> {
    let role = find(change, id).await?;
    if role.builtin || role.name == ADMINISTRATOR {
        return Err(Error::Builtin { name: role.name });
    }
    Ok(role)
}
