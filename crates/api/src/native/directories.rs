//! Directories: LDAP servers, and Active Directory, that know users.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use strongroom_catalog::identity as known;
use strongroom_identity::{DirectorySettings, Right, SourceSpec, Sourced};
use utoipa::ToSchema;

use super::hidden::Hidden;
use super::paths::{Directories, DirectoryPath};
use super::sources::{GroupRole, Trial, groups, yes};
use crate::access::On;
use crate::call::Call;
use crate::problem::{Code, Result};
use crate::route::{
    Body, Created, Empty, Group, IfMatch, Items, Json, Listing, Path, Tagged, delete, get, post,
    put,
};

pub(super) fn group() -> Group {
    let refused = [Code::Invalid, Code::Conflict, Code::Exists, Code::NotFound];
    Group::new(
        "Directories",
        "LDAP servers, and Active Directory, whose users may log in.",
        [
            get("/v1/directories", "directories.list", "Directories", list)
                .needs(Right::DirectoryView, On::Appliance),
            post("/v1/directories", "directories.create", "Set up a directory", create)
                .needs(Right::DirectoryManage, On::Appliance)
                .fails(refused)
                .idempotent()
                .recorded_by_service(),
            get("/v1/directories/{directory}", "directories.show", "A directory", show)
                .needs(Right::DirectoryView, On::Appliance),
            put(
                "/v1/directories/{directory}",
                "directories.change",
                "Set up a directory otherwise",
                change,
            )
            .needs(Right::DirectoryManage, On::Appliance)
            .fails(refused)
            .recorded_by_service(),
            delete(
                "/v1/directories/{directory}",
                "directories.remove",
                "Remove a directory",
                remove,
            )
            .needs(Right::DirectoryManage, On::Appliance)
            .fails([Code::InUse, Code::Conflict])
            .recorded_by_service(),
            post(
                "/v1/directories/{directory}/test",
                "directories.test",
                "Try a directory, step by step",
                test,
            )
            .needs(Right::DirectoryManage, On::Appliance)
            .fails([Code::Conflict])
            .recorded_by_service(),
        ],
    )
}

/// How a directory is asked. In filters and the template `{name}` stands for what the user typed,
/// and `{dn}` for the name of the user's entry.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Connection {
    /// `ldaps://HOST[:PORT]`, or `ldap://HOST[:PORT]` with `start_tls`.
    url: String,
    /// Whether `ldap://` goes on in TLS.
    #[serde(default)]
    start_tls: bool,
    /// Whether `ldap://` may go on without TLS to another machine: passwords can be read on the
    /// way.
    #[serde(default)]
    insecure: bool,
    /// The certificates, in PEM, of who vouches for the server; without them, whom the appliance's
    /// machine trusts.
    ca_certificate: Option<String>,
    /// The entry as which the appliance looks for users, with the secret; without it, as nobody.
    #[serde(default)]
    bind_dn: String,
    /// Instead of that, as whom users log in to be found: `{name}@corp.example`.
    bind_template: Option<String>,
    /// The entry below which users are.
    base_dn: String,
    /// Which of them it is.
    #[serde(default = "user_filter")]
    user_filter: String,
    /// The attribute with the user's name; `sAMAccountName` in Active Directory.
    #[serde(default = "uid")]
    name_attribute: String,
    /// The attribute that never changes; `objectGUID` in Active Directory.
    #[serde(default = "entry_uuid")]
    id_attribute: String,
    /// The attribute with the person's name.
    #[serde(default = "cn")]
    full_name_attribute: String,
    /// The attribute with the person's address.
    #[serde(default = "mail")]
    email_attribute: String,
    /// The attribute of a user that lists groups; empty: none.
    #[serde(default = "member_of")]
    group_attribute: String,
    /// Which groups the user is in, as `(member={dn})`; empty: only those of the attribute.
    #[serde(default)]
    group_filter: String,
    /// The entry below which groups are; without it, where users are.
    #[serde(default)]
    group_base_dn: String,
    /// Seconds that one answer may take: 1 to 30.
    #[serde(default = "seconds")]
    timeout_seconds: u32,
    /// Whether one who comes for the first time is let in.
    #[serde(default = "yes")]
    create_users: bool,
}

fn user_filter() -> String {
    "(uid={name})".to_owned()
}

fn uid() -> String {
    "uid".to_owned()
}

fn entry_uuid() -> String {
    "entryUUID".to_owned()
}

fn cn() -> String {
    "cn".to_owned()
}

fn mail() -> String {
    "mail".to_owned()
}

fn member_of() -> String {
    "memberOf".to_owned()
}

fn seconds() -> u32 {
    5
}

macro_rules! same_fields {
    ($here:ident $there:ident { $($field:ident),* $(,)? }) => {
        impl From<$there> for $here {
            fn from($there { $($field),* }: $there) -> Self {
                Self { $($field),* }
            }
        }

        impl From<$here> for $there {
            fn from($here { $($field),* }: $here) -> Self {
                Self { $($field),* }
            }
        }
    };
}
pub(super) use same_fields;

same_fields! {
    Connection DirectorySettings {
        url, start_tls, insecure, ca_certificate, bind_dn, bind_template, base_dn, user_filter,
        name_attribute, id_attribute, full_name_attribute, email_attribute, group_attribute,
        group_filter, group_base_dn, timeout_seconds, create_users,
    }
}

/// A directory.
#[derive(Debug, Serialize, ToSchema)]
struct UserDirectory {
    /// Its number.
    id: i64,
    /// Its name.
    name: String,
    /// The organisation to which its users belong.
    organisation_id: i64,
    /// Whether its users may log in.
    enabled: bool,
    /// How it is asked.
    connection: Connection,
    /// Whether the appliance has a secret to log in with.
    has_secret: bool,
    /// Which roles its groups have.
    groups: Vec<GroupRole>,
    /// When it was made.
    created_at: Timestamp,
    /// Counts changes; the `ETag`.
    version: i64,
}

impl From<Sourced<DirectorySettings>> for UserDirectory {
    fn from(found: Sourced<DirectorySettings>) -> Self {
        let known::Source { id, name, organisation_id, enabled, has_secret, created_at, .. } =
            found.row;
        Self {
            id,
            name,
            organisation_id,
            enabled,
            connection: found.settings.into(),
            has_secret,
            groups: groups(found.groups),
            created_at,
            version: found.row.version,
        }
    }
}

fn tagged(found: Sourced<DirectorySettings>) -> Tagged<UserDirectory> {
    let version = found.row.version;
    Tagged(found.into(), version)
}

/// A directory, as it stands in a list.
#[derive(Debug, Serialize, ToSchema)]
struct DirectoryItem {
    /// Its number.
    id: i64,
    /// Its name.
    name: String,
    /// The organisation to which its users belong.
    organisation_id: i64,
    /// Whether its users may log in.
    enabled: bool,
    /// When it was made.
    created_at: Timestamp,
}

async fn list(call: Call, list: Listing<Directories>) -> Result<Items<DirectoryItem>> {
    let show = |row: known::Source| DirectoryItem {
        id: row.id,
        name: row.name,
        organisation_id: row.organisation_id,
        enabled: row.enabled,
        created_at: row.created_at,
    };
    call.items(&list, show).await
}

async fn show(call: Call, Path(path): Path<DirectoryPath>) -> Result<Tagged<UserDirectory>> {
    Ok(tagged(call.app().identity().source(path.directory).await?))
}

/// A directory as it is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteDirectory {
    /// Its name.
    name: String,
    /// The organisation to which its users will belong; that of the caller when it isn't said.
    organisation_id: Option<i64>,
    /// Whether its users may log in.
    #[serde(default = "yes")]
    enabled: bool,
    /// How it is asked.
    connection: Connection,
    /// What the appliance logs in with as `bind_dn`. Left out, it stays what it was; it must be
    /// given again when it would go to another server. Empty, there is none any more.
    secret: Option<Hidden>,
    /// Which roles its groups have. Who is in none of these is not let in.
    #[serde(default)]
    groups: Vec<GroupRole>,
}

impl WriteDirectory {
    fn spec(self, call: &Call) -> Result<SourceSpec<DirectorySettings>> {
        Ok(SourceSpec {
            name: self.name,
            organisation_id: self.organisation_id.unwrap_or(call.principal()?.organisation_id),
            enabled: self.enabled,
            settings: self.connection.into(),
            secret: self.secret.map(|secret| secret.0),
            groups: groups(self.groups),
        })
    }
}

async fn create(call: Call, Body(body): Body<WriteDirectory>) -> Result<Created<UserDirectory>> {
    let spec = body.spec(&call)?;
    let made = call.app().identity().create_source(call.principal()?, spec).await?;
    let location = format!("/v1/directories/{}", made.row.id);
    Ok(Created { location, item: made.into() })
}

async fn change(
    call: Call,
    Path(path): Path<DirectoryPath>,
    IfMatch(version): IfMatch,
    Body(body): Body<WriteDirectory>,
) -> Result<Tagged<UserDirectory>> {
    let (identity, by, spec) = (call.app().identity(), call.principal()?, body.spec(&call)?);
    Ok(tagged(identity.change_source(by, path.directory, version, spec).await?))
}

async fn remove(call: Call, Path(path): Path<DirectoryPath>) -> Result<Empty> {
    let identity = call.app().identity();
    identity.remove_source::<DirectorySettings>(call.principal()?, path.directory).await?;
    Ok(Empty)
}

/// Whom to try it with.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TryDirectory {
    /// The name of a user, as that one would type it; without one, nobody is looked for.
    name: Option<String>,
    /// That one's password; without one, it is not asked whether it is right.
    password: Option<Hidden>,
}

async fn test(
    call: Call,
    Path(path): Path<DirectoryPath>,
    Body(body): Body<TryDirectory>,
) -> Result<Json<Trial>> {
    let (identity, by) = (call.app().identity(), call.principal()?);
    let password = body.password.map(|password| password.0);
    Ok(Json(identity.try_directory(by, path.directory, body.name, password).await?.into()))
}
