//! What stands in paths, and which lists there are.

use serde::Deserialize;
use strongroom_catalog::identity as known;
use strongroom_catalog::list::Resource;
use strongroom_catalog::resources;
use utoipa::IntoParams;

use crate::route::Listed;

macro_rules! paths {
    ($($name:ident $field:ident $doc:literal;)*) => {$(
        #[doc = $doc]
        #[derive(Debug, Deserialize, IntoParams)]
        pub(super) struct $name {
            #[doc = $doc]
            pub(super) $field: i64,
        }
    )*};
}

paths! {
    PoolPath pool "The pool's number.";
    ImagePath image "The image's number.";
    VolumePath volume "The volume's number.";
    SnapshotPath snapshot "The snapshot's number.";
    JobPath job "The job's number.";
    UserPath user "The user's number.";
    RolePath role "The role's number.";
    OrganisationPath organisation "The organisation's number.";
    KeyPath key "The key's number.";
    SessionPath session "The session's number.";
    DirectoryPath directory "The directory's number.";
    IssuerPath issuer "The issuer's number.";
}

macro_rules! lists {
    ($($name:ident $resource:expr;)*) => {$(
        #[doc = "A list."]
        #[derive(Debug)]
        pub(super) struct $name;

        impl Listed for $name {
            const RESOURCE: &'static Resource = &$resource;
        }
    )*};
}

lists! {
    Pools resources::POOLS;
    Images resources::IMAGES;
    Volumes resources::VOLUMES;
    Snapshots resources::SNAPSHOTS;
    Jobs resources::JOBS;
    Events resources::EVENTS;
    Samples strongroom_catalog::samples::SAMPLES;
    Users known::USERS;
    Roles known::ROLES;
    Organisations known::ORGANISATIONS;
    Keys known::API_KEYS;
    Sessions known::SESSIONS;
    Directories known::DIRECTORIES;
    Issuers known::ISSUERS;
    Audit known::AUDIT;
    Approvals known::APPROVALS;
}
